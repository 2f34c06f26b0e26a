"""The inbox: verified notifications as rows, once per account and dedupe key; refused ones as a count per minute."""

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from typing import Any

from django.db import transaction

from payonce.channels.messages import Notice, NotificationRequest, PaymentState, PaymentView, RefundState, RefundView
from payonce.orders.conf import get_settings
from payonce.orders.locks import set_timeouts
from payonce.payments import clock, flight, schedule
from payonce.payments.flight import Statement
from payonce.payments.locks import Work
from payonce.payments.models import Notification
from payonce.payments.statuses import DiscrepancyKind, NotificationState
from payonce.payments.transitions import cases

KEPT_HEADERS = ("content-type", "user-agent", "date", "content-length")
TRIES_BEFORE_CASE = 6


class Received(StrEnum):
    """What a notification came to."""

    APPLIED = "applied"
    REPEAT = "repeat"
    ORPHAN = "orphan"  # money under a number of ours that matches no stream: a case
    FOREIGN = "foreign"  # about somebody else's number: counted
    STORED = "stored"  # applying failed; a sweep does it
    FORGED = "forged"
    STALE = "stale"  # genuine but outside the replay window, and never seen: a query was triggered
    NOT_DURABLE = "not_durable"
    UNKNOWN_ACCOUNT = "unknown_account"
    UNCONFIGURED = "unconfigured"


def state_of(account: str, dedupe_key: str) -> str | None:
    """The stored state of a notification: one read, no lock, nothing written."""
    statement = Statement(
        "SELECT state FROM payonce_notification WHERE account = %s AND dedupe_key = %s", [account, dedupe_key]
    )
    rows = flight.fly([statement], get_settings().DATABASE)[0]
    return str(rows[0][0]) if rows else None


def new_row(account: str, request: NotificationRequest, notice: Notice, at: datetime) -> Notification:
    """A processed row for a notice that is being applied. Only harmless headers are kept."""
    return Notification(
        account=account, dedupe_key=notice.dedupe_key, state=NotificationState.PROCESSED, event=notice.event[:64],
        number=number_of(notice)[:64], headers=json.dumps({k: v[:200] for k, v in request.headers.items() if k in KEPT_HEADERS}),
        body=request.body, received_at=at, processed_at=at,
    )  # fmt: skip


def processed(row: Notification, at: datetime) -> Notification:
    """A stored row, as it will be once applied."""
    row.state, row.processed_at, row.next_try_at, row.error = NotificationState.PROCESSED, at, None, ""
    row.parsed = ""
    return row


def put(work: Work, row: Notification) -> None:
    """Write the row with the other changes: insert a new one, update a stored one."""
    if row._state.adding:
        work.add(row)
    else:
        work.raw.append(_update(row))


def keep_for_later(account: str, request: NotificationRequest, notice: Notice, error: Exception) -> None:
    """Commit the notification alone. Raises DatabaseError when even that fails: it is then not acknowledged."""
    at = clock.about_now()
    row = new_row(account, request, notice, at)
    row.state, row.processed_at = NotificationState.RECEIVED, None
    row.parsed, row.error = write_notice(notice), _text(error)
    row.next_try_at = schedule.backoff(at, 0, schedule.NOTIFICATION_TRY_SECONDS)
    flight.fly([flight.insert(row, "ON CONFLICT (account, dedupe_key) DO NOTHING")], get_settings().DATABASE)


def claim_received(limit: int) -> list[Notification]:
    """Claim stored rows that are due, for one worker, for a while."""
    statement = Statement(
        "UPDATE payonce_notification SET next_try_at = payonce_now() + %s * interval '1 second', try_count = try_count + 1"
        " WHERE id IN (SELECT id FROM payonce_notification WHERE next_try_at <= payonce_now() AND state = 'RECEIVED'"
        " ORDER BY next_try_at LIMIT %s FOR UPDATE SKIP LOCKED) " + flight.returning(Notification),
        [schedule.CLAIM_SECONDS, limit],
    )
    using = get_settings().DATABASE
    return [flight.load(Notification, row, using) for row in flight.fly([statement], using)[0]]


def try_later(row: Notification, error: Exception) -> None:
    """Applying failed again; after some tries a person is told, and the tries go on."""
    using = get_settings().DATABASE
    at = clock.read_now()
    row.error = _text(error)
    row.next_try_at = schedule.backoff(at, row.try_count, schedule.NOTIFICATION_TRY_SECONDS)
    statements = [
        Statement(
            "UPDATE payonce_notification SET error = %s, next_try_at = %s WHERE id = %s AND state = 'RECEIVED'",
            [row.error, row.next_try_at, row.pk],
        )
    ]
    if row.try_count >= TRIES_BEFORE_CASE:
        summary = f"Notification {row.dedupe_key} of {row.account} cannot be applied: {row.error}"
        statements.append(_case(DiscrepancyKind.INCONSISTENT, row.account, row.dedupe_key, summary, at))
    flight.fly(statements, using)


def store_unmatched(account: str, notice: Notice, number: str, row: Callable[[datetime], Notification]) -> Received:
    """Verified money about a number of ours that matches no stream is an orphan case; another's number is only counted."""
    using = get_settings().DATABASE
    is_ours = number.startswith(get_settings().NUMBER_PREFIX)
    at = clock.read_now()
    entry = row(at)
    entry.result = "orphan" if is_ours else "foreign"
    statements = [flight.insert(entry) if entry._state.adding else _update(entry)]
    view = notice.payment
    if is_ours and view is not None and view.state is PaymentState.PAID:
        summary = f"{account} reports {view.paid_minor} {view.currency} (minor units) under {number}, which is no stream of ours."
        statements.append(
            _case(
                DiscrepancyKind.ORPHAN,
                account,
                f"{number}/{view.channel_reference}",
                summary,
                at,
                view.paid_minor,
                view.currency,
            )
        )
    if not is_ours:
        statements.append(
            Statement(
                "INSERT INTO payonce_channel_state (name, failure_count, last_failure, foreign_count) VALUES (%s, 0, '', 1)"
                " ON CONFLICT (name) DO UPDATE SET foreign_count = payonce_channel_state.foreign_count + 1",
                [account],
            )
        )
    with transaction.atomic(using=using, durable=True):
        set_timeouts()
        flight.fly(statements, using)
    return Received.ORPHAN if is_ours else Received.FOREIGN


def count_refused(account: str, reason: str) -> None:
    """One row per account and minute counts what was refused; nothing of the message is stored."""
    flight.fly(
        [
            Statement(
                "INSERT INTO payonce_notification (account, dedupe_key, state, event, number, result, count, headers, body,"
                " parsed, received_at, try_count, error)"
                " VALUES (%s, 'refused:' || to_char(payonce_now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI'), %s, '', '',"
                " 'refused', 1, '', '', '', payonce_now(), 0, %s)"
                " ON CONFLICT (account, dedupe_key) DO UPDATE SET count = payonce_notification.count + 1",
                [account, NotificationState.FORGED.value, reason[:300]],
            )
        ],
        get_settings().DATABASE,
    )


def write_notice(notice: Notice) -> str:
    """A verified notice as JSON text, without its raw body."""
    return json.dumps({**asdict(notice), "raw": ""}, default=lambda value: value.isoformat())


def read_notice(text: str) -> Notice:
    """The notice that `write_notice` wrote."""
    data = json.loads(text)
    payment, refund = data["payment"], data["refund"]
    return Notice(
        dedupe_key=data["dedupe_key"], event=data["event"], sent_at=_time(data["sent_at"]),
        payment=_payment(payment) if payment else None,
        refund=RefundView(**{**refund, "state": RefundState(refund["state"])}) if refund else None,
    )  # fmt: skip


def _payment(data: dict[str, Any]) -> PaymentView:
    captures = tuple(_payment(item) for item in data["captures"])
    return PaymentView(
        **{**data, "state": PaymentState(data["state"]), "paid_at": _time(data["paid_at"]), "captures": captures}
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _update(row: Notification) -> Statement:
    return Statement(
        "UPDATE payonce_notification SET state = %s, processed_at = %s, next_try_at = NULL, error = '', parsed = '', result = %s"
        " WHERE id = %s",
        [NotificationState.PROCESSED.value, row.processed_at, row.result, row.pk],
    )


def _case(*fields: Any) -> Statement:
    return flight.insert(cases.new_alone(*fields), "ON CONFLICT DO NOTHING")


def number_of(notice: Notice) -> str:
    if notice.payment is not None:
        return notice.payment.number
    return notice.refund.refund_number if notice.refund is not None else ""


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
