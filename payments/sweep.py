"""Sweeps: what Celery beat, or `payonce_sweep --loop`, runs over and over. Each claims due rows and calls the one step for them.

Two of the same sweep at once do no harm: rows are claimed in the database, and every step decides again under its lock.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from django.db import OperationalError, connections

from payonce.orders.conf import get_settings
from payonce.payments import (
    beat,
    claims,
    close,
    expire,
    flight,
    notify,
    poll,
    publish,
    reconcile,
    refund,
    refund_run,
    schedule,
    statements,
)
from payonce.payments.flight import Statement

log = logging.getLogger("payonce.sweep")
THREADS = 8
BATCH = 50
CLAIM_REFUNDS = """
SELECT number FROM payonce_refund WHERE next_try_at <= payonce_now() AND (call_lease_until IS NULL OR call_lease_until <= payonce_now())
    AND state IN ('REQUESTED', 'SUBMITTED', 'UNKNOWN', 'ATTENTION', 'SUCCEEDED') ORDER BY next_try_at LIMIT %s
"""
CLAIM_EXPIRED = """
UPDATE payonce_order SET next_expiry_at = payonce_now() + %s * interval '1 second' WHERE id IN (
    SELECT id FROM payonce_order WHERE next_expiry_at <= payonce_now() ORDER BY next_expiry_at LIMIT %s FOR UPDATE SKIP LOCKED
) RETURNING number
"""
APPROVALS_OVER = """
SELECT number FROM payonce_refund WHERE state = 'AWAITING_APPROVAL' AND approval_expires_at <= payonce_now() LIMIT %s
"""


def sweep_poll() -> int:
    """Ask about due streams."""
    return poll.poll_due().asked


def sweep_close() -> int:
    """Go on closing streams that are not proven closed."""
    claimed = claims.claim_streams(closing=True, per_account=BATCH)
    return _each([item.stream.number for item in claimed], _close_one)


def sweep_refund() -> int:
    """Carry due refunds out, and decline those whose approval ran out."""
    for number in _numbers(Statement(APPROVALS_OVER, [BATCH])):
        _one(number, lambda number: refund.decline_refund(number, by="system:refund", reason="approval expired"))
    return _each(_numbers(Statement(CLAIM_REFUNDS, [BATCH])), _refund_one)


def _close_one(number: str) -> None:
    _or_tell(number, lambda: close.close_stream(number, by="system:close"), poll.tell_person)


def _refund_one(number: str) -> None:
    _or_tell(number, lambda: refund.run_refund(number), refund_run.tell_person)


def _or_tell(number: str, step: Callable[[], object], tell: Callable[[str], None]) -> None:
    """A row that a step cannot carry on reaches a person; a busy database is only a delay."""
    try:
        step()
    except OperationalError:
        raise
    except Exception:
        log.exception("%s cannot be carried on: a person is told", number)
        tell(number)


def sweep_expire() -> int:
    """Close orders whose time is over."""
    return _each(_numbers(Statement(CLAIM_EXPIRED, [schedule.CLAIM_SECONDS, BATCH])), expire.expire_order)


def sweep_publish() -> int:
    """Deliver due messages to the shop."""
    return publish.deliver_due()


def sweep_inbox() -> int:
    """Apply notifications that are stored but not processed."""
    return notify.apply_received()


def sweep_reconcile() -> int:
    """Look for contradictions among our own rows."""
    return reconcile.check_own_rows()


def sweep_statement() -> int:
    """Fetch and compare statements."""
    return statements.run_due()


SWEEPS: dict[str, tuple[Callable[[], int], float]] = {
    "poll": (sweep_poll, beat.SECONDS["poll"]),
    "close": (sweep_close, beat.SECONDS["close"]),
    "refund": (sweep_refund, beat.SECONDS["refund"]),
    "expire": (sweep_expire, beat.SECONDS["expire"]),
    "publish": (sweep_publish, beat.SECONDS["publish"]),
    "inbox": (sweep_inbox, beat.SECONDS["inbox"]),
    "reconcile": (sweep_reconcile, beat.SECONDS["reconcile"]),
    "statement": (sweep_statement, beat.SECONDS["statement"]),
}
"""Each sweep with its interval in seconds."""


def _numbers(statement: Statement) -> list[str]:
    return [str(row[0]) for row in flight.fly([statement], get_settings().DATABASE)[0]]


def _each(numbers: list[str], step: Callable[[str], object]) -> int:
    """Run a step for each number, a few at a time; one that fails is logged and comes due again."""
    if len(numbers) <= 1:
        for number in numbers:
            _one(number, step)
        return len(numbers)
    with ThreadPoolExecutor(max_workers=min(THREADS, len(numbers)), thread_name_prefix="payonce-sweep") as pool:
        list(pool.map(lambda number: _in_thread(number, step), numbers))
    return len(numbers)


def _in_thread(number: str, step: Callable[[str], object]) -> None:
    try:
        _one(number, step)
    finally:
        connections[get_settings().DATABASE].close()


def _one(number: str, step: Callable[[str], object]) -> None:
    try:
        step(number)
    except Exception:
        log.exception("the sweep failed at %s; it comes due again", number)
