"""Expire: an order's time is over, or the shop cancels it. CLOSING first, its streams next, CLOSED only when nothing can be in flight."""

from datetime import timedelta
from enum import StrEnum

from payonce.orders import transitions as orders
from payonce.orders.conf import get_settings
from payonce.orders.statuses import OrderState
from payonce.orders.transitions import OrderMove
from payonce.payments import cache, close, enqueue, schedule
from payonce.payments.call import capabilities_of
from payonce.payments.locks import Work, under_lock
from payonce.payments.models import Stream
from payonce.payments.statuses import OPEN_STREAM_STATES, StreamState
from payonce.payments.transitions import streams as arrows

RETRY, RETRY_MAX = timedelta(seconds=5), timedelta(minutes=10)
"""How soon an order that waits for its streams is looked at again: the longer it waits, the later."""


class Expired(StrEnum):
    """What closing an order came to."""

    CLOSED = "closed"
    CLOSING = "closing"  # waits for its streams; a sweep goes on
    PAID = "paid"  # it is paid: nothing to close
    NOT_DUE = "not_due"


def close_order(number: str, by: str, reason: str = "cancelled") -> Expired:
    """Close an order for its shop: streams first, then the order. Raises OrderNotFound."""
    return _run(number, by, reason, is_forced=True)


def expire_order(number: str, by: str = "system:expire") -> Expired:
    """Close an order whose time is over, or go on closing it. Raises OrderNotFound."""
    return _run(number, by, "expired", is_forced=False)


def _run(number: str, by: str, reason: str, *, is_forced: bool) -> Expired:
    first = under_lock(by, lambda work: _start(work, reason, is_forced), order=number)
    if isinstance(first, Expired):
        return first
    for stream_number in first:
        close.close_stream(stream_number, by=by, reason=f"order {reason}")
    return under_lock(by, _finish, order=number)


def _start(work: Work, reason: str, is_forced: bool) -> "Expired | tuple[str, ...]":
    order = work.order
    if order.state in (OrderState.PAID, OrderState.REFUNDED):
        return Expired.PAID
    if order.state == OrderState.CLOSED:
        return Expired.CLOSED
    is_due = order.expires_at is not None and order.expires_at <= work.at
    if order.state == OrderState.OPEN and not is_due and not is_forced:
        order.next_expiry_at = order.expires_at
        return Expired.NOT_DUE
    begins = orders.start_closing(order, work.journal, reason) is OrderMove.MOVED
    orders.postpone_expiry(order, work.at + timedelta(seconds=schedule.CLAIM_SECONDS))
    for stream in work.streams:
        if begins and stream.state in OPEN_STREAM_STATES:
            stream.nudged_at = work.at  # once: later looks would keep the channel asked every few seconds for ever
        arrows.start_closing(work, stream, f"order {reason}")
    _follow_up(work)
    return tuple(stream.number for stream in work.streams if stream.state == StreamState.CLOSING)


def _finish(work: Work) -> Expired:
    """Relock and look again: CLOSED only if no stream is open, being confirmed, being closed, or of unknown state in its time."""
    order = work.order
    if order.state in (OrderState.PAID, OrderState.REFUNDED):
        return Expired.PAID
    waiting = [stream for stream in work.streams if _holds_order(work, stream)]
    if waiting:
        waited = work.at - max(stream.nudged_at or stream.created_at for stream in waiting)
        orders.postpone_expiry(order, work.at + min(max(waited / 10, RETRY), RETRY_MAX))
        return Expired.CLOSING
    if orders.close(order, work.journal) is OrderMove.MOVED:
        _follow_up(work)
    return Expired.CLOSED


def _holds_order(work: Work, stream: Stream) -> bool:
    if stream.state in OPEN_STREAM_STATES:
        return True
    if stream.state != StreamState.CLOSING:
        return False
    is_being_asked = stream.call_lease_until is not None and stream.call_lease_until > work.at
    ends = schedule.unpayable_after(stream, capabilities_of(stream), get_settings().GRACE_SECONDS)
    return work.at <= ends and (stream.is_answer_unknown or is_being_asked)


def _follow_up(work: Work) -> None:
    def after() -> None:
        cache.void(work.order.number, work.order.version)
        cache.wake(work.order.number, work.order.version)
        enqueue.kick("payonce.publish")

    if work.journal.events:
        work.after_commit(after)
