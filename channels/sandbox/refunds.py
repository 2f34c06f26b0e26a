"""The bank's rules about refunds: one number moves money at most once, and never more than was taken."""

import json
import secrets
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.codes import Code
from payonce.channels.sandbox.ledger import write_journal
from payonce.channels.sandbox.outbox import announce_refund
from payonce.channels.sandbox.records import (
    Capture,
    Payment,
    Refund,
    Result,
    find_payment,
    find_refund,
    get_payment,
    refunds_of,
)

_HOLDS_MONEY = frozenset({"IN_PROGRESS", "DONE", "ATTENTION"})


@dataclass(frozen=True, slots=True)
class RefundOrder:
    """What a merchant asks to be given back. `reference` picks the capture; empty means the first."""

    number: str
    reference: str
    amount_minor: int
    currency: str
    notify_url: str
    outside: bool = False


@dataclass(frozen=True, slots=True)
class Course:
    """How a refund goes on: the state that the bank answers with, and the one it reaches after some seconds, if any."""

    state: str = "DONE"
    then: str | None = None
    seconds: float = 0.0
    code: str = ""


def refund(
    database: sqlite3.Connection,
    account: SandboxAccount,
    payment_number: str,
    order: RefundOrder,
    course: Course,
    at: float,
) -> Result:
    """Give money back. A repeat answers with the present state; one that failed is tried again under its number."""
    payment = find_payment(database, account.name, payment_number)
    if payment is None:
        return Result(Code.NOT_FOUND)
    taken = _capture_of(payment, order.reference)
    known = find_refund(database, payment.id, order.number)
    if known is not None:
        same_capture = not order.reference or (taken is not None and taken.id == known.capture_id)
        if known.amount_minor != order.amount_minor or known.currency != order.currency or not same_capture:
            return Result(Code.NUMBER_CONFLICT, payment, known)
        if known.state != "FAILED":
            return Result(Code.OK, payment, known)
    if taken is None:
        return Result(Code.NOT_PAID, payment)
    refusal = _refusal(database, account, taken, order, at)
    if refusal is not None:
        return Result(refusal, payment)
    return _start(database, account, payment, taken, order, known, course, at)


def _capture_of(payment: Payment, reference: str) -> Capture | None:
    if not reference:
        return payment.captures[0] if payment.captures else None
    return next((taken for taken in payment.captures if taken.reference == reference), None)


def _refusal(
    database: sqlite3.Connection, account: SandboxAccount, taken: Capture, order: RefundOrder, at: float
) -> Code | None:
    rules = account.capabilities
    earlier = [row for row in refunds_of(database, taken.id) if row.number != order.number]
    held = sum(row.amount_minor for row in earlier if row.state in _HOLDS_MONEY)
    if order.currency != taken.currency or held + order.amount_minor > _refundable(taken):
        return Code.REFUND_EXCEEDS
    if order.outside:
        return None
    if not rules.refunds:
        return Code.REFUNDS_UNSUPPORTED
    if at - taken.paid_at > rules.refund_window_seconds:
        return Code.REFUND_WINDOW_PASSED
    if order.amount_minor != taken.amount_minor and not rules.refunds_partial:
        return Code.REFUND_PARTIAL_UNSUPPORTED
    if len(earlier) >= rules.refund_count_max:
        return Code.REFUND_COUNT
    if earlier and at - earlier[-1].created_at < rules.refund_interval_seconds:
        return Code.REFUND_TOO_SOON
    return None


def _refundable(taken: Capture) -> int:
    return taken.amount_minor - taken.disputed_minor - taken.reversed_minor


def _start(
    database: sqlite3.Connection,
    account: SandboxAccount,
    payment: Payment,
    taken: Capture,
    order: RefundOrder,
    known: Refund | None,
    course: Course,
    at: float,
) -> Result:
    due_at = at + course.seconds if course.then is not None else None
    first = course.state if course.state != "DONE" else "IN_PROGRESS"
    if known is None:
        database.execute(
            "INSERT INTO refund (payment_id, capture_id, number, reference, state, amount_minor, currency, code,"
            " notify_url, outside, created_at, due_at, due_state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (payment.id, taken.id, order.number, "ref_" + secrets.token_hex(12), first, order.amount_minor,
             order.currency, course.code, order.notify_url, int(order.outside), at, due_at, course.then),
        )  # fmt: skip
    else:
        database.execute(
            "UPDATE refund SET state = ?, code = ?, due_at = ?, due_state = ? WHERE id = ?",
            (first, course.code, due_at, course.then, known.id),
        )
    if course.state == "DONE":
        return settle_refund(database, account, payment.number, order.number, "DONE", "", at)
    made = find_refund(database, payment.id, order.number)
    if made is not None and course.state != "IN_PROGRESS":
        announce_refund(database, account, payment, made, at)
    return Result(Code.OK, payment, made)


def settle_refund(
    database: sqlite3.Connection,
    account: SandboxAccount,
    payment_number: str,
    refund_number: str,
    state: str,
    code: str,
    at: float,
) -> Result:
    """Bring a refund to DONE, FAILED or ATTENTION, or a done one to RETURNED. Money moves at DONE and at RETURNED.

    One that was to be done FAILED when a dispute or a reversal took its money meanwhile.
    """
    payment = find_payment(database, account.name, payment_number)
    known = None if payment is None else find_refund(database, payment.id, refund_number)
    if payment is None or known is None:
        return Result(Code.NOT_FOUND)
    if known.state == state:
        return Result(Code.OK, payment, known)
    allowed = {"DONE", "FAILED", "ATTENTION"} if known.state in {"IN_PROGRESS", "ATTENTION"} else set()
    if state not in allowed and not (known.state == "DONE" and state == "RETURNED"):
        return Result(Code.NUMBER_CONFLICT, payment, known, message=f"a {known.state} refund cannot become {state}")
    taken = next(row for row in payment.captures if row.id == known.capture_id)
    if state == "DONE" and known.amount_minor > taken.rest_minor:
        state, code = "FAILED", Code.NOT_ENOUGH.value
    moved = {"DONE": known.amount_minor, "RETURNED": -known.amount_minor}.get(state, 0)
    if moved:
        database.execute("UPDATE capture SET refunded_minor = refunded_minor + ? WHERE id = ?", (moved, taken.id))
        kind = "refund" if moved > 0 else "refund_returned"
        write_journal(database, payment, taken, kind, -moved, at, refund_number)
    database.execute(
        "UPDATE refund SET state = ?, code = ?, settled_at = ?, due_at = NULL, due_state = NULL WHERE id = ?",
        (state, code, at, known.id),
    )
    payment = get_payment(database, payment.id)
    settled = find_refund(database, payment.id, refund_number)
    if settled is not None:
        announce_refund(database, account, payment, settled, at)
    return Result(Code.OK, payment, settled)


def look_up_refund(
    database: sqlite3.Connection, account: SandboxAccount, payment_number: str, refund_number: str
) -> Result:
    """Query one refund number."""
    payment = find_payment(database, account.name, payment_number)
    known = None if payment is None else find_refund(database, payment.id, refund_number)
    return Result(Code.NOT_FOUND) if known is None else Result(Code.OK, payment, known)


def due_refunds(database: sqlite3.Connection, at: float, accounts: Collection[str]) -> list[tuple[str, str, str, str]]:
    """Account, payment number, refund number and new state of each refund whose time has come, of these accounts."""
    rows = database.execute(
        "SELECT payment.account, payment.number AS payment_number, refund.number, refund.due_state FROM refund"
        " JOIN payment ON payment.id = refund.payment_id WHERE refund.due_at <= ?"
        " AND payment.account IN (SELECT value FROM json_each(?)) ORDER BY refund.due_at LIMIT 200",
        (at, json.dumps(sorted(accounts))),
    )
    return [(row["account"], row["payment_number"], row["number"], row["due_state"]) for row in rows]
