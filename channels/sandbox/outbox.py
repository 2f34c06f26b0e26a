"""The notifications that the bank owes: written in the transaction of what they tell, sent by `sender`.

The content is kept in terms of the ledger, not of a dialect; a dialect renders and signs it at each attempt.
"""

import json
import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.notes import find_note
from payonce.channels.sandbox.records import Capture, Payment, Refund, row_dict

STATED = "stated"
"""The note, by a payment's number, of what its merchant stated in the wire format of a skin: it goes into each message."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One message and how far its delivery has come."""

    id: int
    key: str
    account: str
    number: str
    event: str
    url: str
    content: str
    created_at: float
    state: str
    attempts: int
    due_at: float | None
    last_result: str

    def read(self) -> dict[str, Any]:
        """The content."""
        return dict(json.loads(self.content))


def payment_content(account: SandboxAccount, payment: Payment, taken: Capture | None) -> dict[str, Any]:
    """What the bank says about a payment; about one of its captures where `taken` is given."""
    first = taken or (payment.captures[0] if payment.captures else None)
    others = () if taken is not None else payment.captures[1:]
    ordinal = payment.captures.index(first) if first is not None else 0
    return {
        # What only the formats of real channels tell; the bank's own leaves it out.
        "details": {
            "subject": payment.subject,
            "created_at": payment.created_at,
            "ordinal": ordinal,
            "method": payment.method,
            "payer": payment.payer,
        },
        "number": payment.number,
        "merchant": account.merchant,
        "state": payment.state,
        "amount_minor": payment.amount_minor,
        **_capture_content(payment, first),
        "captures": [
            {
                "number": payment.number,
                "merchant": account.merchant,
                "state": "PAID",
                **_capture_content(payment, other),
            }
            for other in others
        ],
    }


def _capture_content(payment: Payment, taken: Capture | None) -> dict[str, Any]:
    if taken is None:
        return {"currency": payment.currency}
    return {
        "currency": taken.currency,
        "paid_minor": taken.amount_minor,
        "refunded_minor": taken.refunded_minor,
        "disputed_minor": taken.disputed_minor,
        "reversed_minor": taken.reversed_minor,
        "reference": taken.reference,
        "paid_at": taken.paid_at,
    }


def refund_content(payment: Payment, refund: Refund) -> dict[str, Any]:
    """What the bank says about a refund."""
    return {
        "number": payment.number,
        "refund_number": refund.number,
        "state": refund.state,
        "amount_minor": refund.amount_minor,
        "currency": refund.currency,
        "reference": refund.reference,
        "code": refund.code,
    }


def announce_payment(
    database: sqlite3.Connection,
    account: SandboxAccount,
    payment: Payment,
    taken: Capture | None,
    event: str,
    at: float,
) -> None:
    """Owe a notification about a payment, if the merchant gave an address."""
    _owe(database, payment, event, payment.notify_url, {"payment": payment_content(account, payment, taken)}, at)


def announce_refund(
    database: sqlite3.Connection, account: SandboxAccount, payment: Payment, refund: Refund, at: float
) -> None:
    """Owe a notification about a refund. Money given back outside is told as a change of the payment."""
    if refund.outside:
        taken = next(row for row in payment.captures if row.id == refund.capture_id)
        announce_payment(database, account, payment, taken, "payment.refunded", at)
        return
    event = f"refund.{refund.state.lower()}"
    url = refund.notify_url or payment.notify_url
    _owe(database, payment, event, url, {"refund": refund_content(payment, refund)}, at)


def _owe(
    database: sqlite3.Connection, payment: Payment, event: str, url: str, content: dict[str, Any], at: float
) -> None:
    if not url:
        return
    stated = find_note(database, payment.account, STATED, payment.number)
    text = json.dumps({"sent_at": at, "stated": None if stated is None else stated.value, **content}, sort_keys=True)
    database.execute(
        "INSERT INTO notification (key, account, number, event, url, content, created_at, state)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 'NEW')",
        ("ntf_" + secrets.token_hex(12), payment.account, payment.number, event, url, text, at),
    )


def new_notifications(database: sqlite3.Connection) -> list[Notification]:
    """Messages whose delivery has not been planned yet, the oldest first."""
    return _load(database.execute("SELECT * FROM notification WHERE state = 'NEW' ORDER BY id LIMIT 500"))


def plan(database: sqlite3.Connection, decisions: Iterable[tuple[int, str, float | None]]) -> None:
    """Give new messages their state (DUE, HELD or LOST) and time."""
    rows = [(state, due_at, row_id) for row_id, state, due_at in decisions]
    database.executemany("UPDATE notification SET state = ?, due_at = ? WHERE id = ? AND state = 'NEW'", rows)


def drop(database: sqlite3.Connection, ids: Iterable[int]) -> None:
    """Owe these to nobody: the channel that the account plays does not tell such things."""
    database.executemany("DELETE FROM notification WHERE id = ?", [(row_id,) for row_id in ids])


def claim_due(database: sqlite3.Connection, at: float, count: int) -> list[Notification]:
    """Take due messages for sending."""
    rows = _load(
        database.execute(
            "SELECT * FROM notification WHERE state = 'DUE' AND due_at <= ? ORDER BY due_at, id LIMIT ?", (at, count)
        )
    )
    database.executemany("UPDATE notification SET state = 'SENDING' WHERE id = ?", [(row.id,) for row in rows])
    return rows


def next_due_at(database: sqlite3.Connection) -> float | None:
    """When the next message or refund becomes due."""
    row = database.execute(
        "SELECT MIN(due_at) FROM (SELECT MIN(due_at) AS due_at FROM notification WHERE state = 'DUE'"
        " UNION ALL SELECT MIN(due_at) FROM refund WHERE due_at IS NOT NULL)"
    ).fetchone()
    return None if row[0] is None else float(row[0])


def record_attempt(
    database: sqlite3.Connection, row_id: int, result: str, *, delivered: bool, at: float, gaps: Sequence[float]
) -> None:
    """Write down an attempt: done, due again by the retry table `gaps`, or given up."""
    attempts = database.execute("SELECT attempts FROM notification WHERE id = ?", (row_id,)).fetchone()[0]
    state, due_at = "DELIVERED", None
    if not delivered and attempts < len(gaps):
        state, due_at = "DUE", at + gaps[attempts]
    elif not delivered:
        state = "EXHAUSTED"
    database.execute(
        "UPDATE notification SET state = ?, due_at = ?, attempts = attempts + 1, last_result = ? WHERE id = ?",
        (state, due_at, result, row_id),
    )


def resume(database: sqlite3.Connection, at: float) -> None:
    """After a restart: what was being sent may not have arrived, so it is due again."""
    database.execute("UPDATE notification SET state = 'DUE', due_at = ? WHERE state = 'SENDING'", (at,))


def find(
    database: sqlite3.Connection, account: str = "", number: str = "", states: tuple[str, ...] = ()
) -> list[Notification]:
    """Messages, the oldest first; an empty argument does not filter."""
    query = (
        "SELECT * FROM notification WHERE (? = '' OR account = ?) AND (? = '' OR number = ?)"
        " AND (? = '[]' OR state IN (SELECT value FROM json_each(?))) ORDER BY id"
    )
    chosen = json.dumps(states)
    return _load(database.execute(query, (account, account, number, number, chosen, chosen)))


def make_due(database: sqlite3.Connection, ids: Iterable[int], at: float) -> None:
    """Send these as soon as possible, whatever their state."""
    rows = [(at, row_id) for row_id in ids]
    database.executemany("UPDATE notification SET state = 'DUE', due_at = ? WHERE id = ?", rows)


def mark_delivered(database: sqlite3.Connection, ids: Iterable[int]) -> None:
    """These were acknowledged outside their schedule."""
    rows = [(row_id,) for row_id in ids]
    database.executemany(
        "UPDATE notification SET state = 'DELIVERED', due_at = NULL, attempts = attempts + 1 WHERE id = ?", rows
    )


def schedule_undelivered(database: sqlite3.Connection, due: Iterable[tuple[int, float]]) -> None:
    """Held messages, by row id, that were sent by hand and not accepted go on by the retry table."""
    rows = [(due_at, row_id) for row_id, due_at in due]
    database.executemany("UPDATE notification SET state = 'DUE', due_at = ? WHERE id = ? AND state = 'HELD'", rows)


def describe(message: Notification) -> dict[str, Any]:
    """The message as the control API shows it."""
    return {
        "key": message.key,
        "account": message.account,
        "number": message.number,
        "event": message.event,
        "state": message.state,
        "attempts": message.attempts,
        "due_at": message.due_at,
        "last_result": message.last_result,
    }


def _load(rows: Iterable[sqlite3.Row]) -> list[Notification]:
    return [Notification(**row_dict(row)) for row in rows]
