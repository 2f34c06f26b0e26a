"""Every arrow of an order. The caller holds the order's lock; no I/O and no clock inside.

One shape: repeat check, refusals by name, the writes, one event.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from payonce.orders.events import Journal
from payonce.orders.models import Order
from payonce.orders.statuses import OrderState


class OrderMove(StrEnum):
    """What an attempted arrow came to."""

    MOVED = "moved"
    REPEAT = "repeat"  # it was so already: nothing changed
    HAS_KEEPER = "has_keeper"
    NOT_OPEN = "not_open"
    NOT_CLOSING = "not_closing"
    NOT_PAID = "not_paid"
    TOO_MUCH = "too_much"


def start(order: Order, journal: Journal) -> OrderMove:
    """∅ → OPEN: the order was placed. The row is new and not yet saved."""
    order.state = OrderState.OPEN
    order.created_at = journal.at
    order.next_expiry_at = order.expires_at
    journal.write(
        order,
        "order.placed",
        after=OrderState.OPEN,
        amount_minor=order.amount_minor,
        currency=order.currency,
        expires_at=order.expires_at.isoformat() if order.expires_at else None,
    )
    return OrderMove.MOVED


def amend(order: Order, journal: Journal, amount_minor: int, currency: str) -> OrderMove:
    """OPEN → OPEN with another amount: every stream of the old amount was closed or is watched."""
    if (order.amount_minor, order.currency) == (amount_minor, currency):
        return OrderMove.REPEAT
    if order.state != OrderState.OPEN:
        return OrderMove.NOT_OPEN
    was_minor, was_currency = order.amount_minor, order.currency
    order.amount_minor, order.currency = amount_minor, currency
    journal.write(
        order,
        "order.amended",
        amount_minor=amount_minor,
        currency=currency,
        was_minor=was_minor,
        was_currency=was_currency,
    )
    return OrderMove.MOVED


def settle(order: Order, journal: Journal, stream_number: str, paid_at: datetime | None) -> OrderMove:
    """OPEN, CLOSING or CLOSED → PAID by this stream, the keeper: chosen once, never changed."""
    if order.keeper == stream_number:
        return OrderMove.REPEAT
    if order.keeper is not None:
        return OrderMove.HAS_KEEPER
    before = order.state
    order.keeper = stream_number
    order.state = OrderState.PAID
    order.paid_at = paid_at or journal.at
    order.next_expiry_at = None
    journal.write(
        order,
        "order.paid",
        subject=stream_number,
        before=before,
        after=OrderState.PAID,
        amount_minor=order.amount_minor,
        currency=order.currency,
    )
    return OrderMove.MOVED


def start_closing(order: Order, journal: Journal, reason: str) -> OrderMove:
    """OPEN → CLOSING: no new payment; money still settles it."""
    if order.state in (OrderState.CLOSING, OrderState.CLOSED):
        return OrderMove.REPEAT
    if order.state != OrderState.OPEN:
        return OrderMove.HAS_KEEPER
    order.state = OrderState.CLOSING
    order.close_reason = reason[:32]
    order.next_expiry_at = journal.at
    journal.write(order, "order.closing", before=OrderState.OPEN, after=OrderState.CLOSING, reason=reason)
    return OrderMove.MOVED


def close(order: Order, journal: Journal) -> OrderMove:
    """CLOSING → CLOSED: no stream of it may still be in the buyer's hands unwatched."""
    if order.state == OrderState.CLOSED:
        return OrderMove.REPEAT
    if order.state != OrderState.CLOSING:
        return OrderMove.NOT_CLOSING
    order.state = OrderState.CLOSED
    order.closed_at = journal.at
    order.next_expiry_at = None
    journal.write(order, "order.closed", before=OrderState.CLOSING, after=OrderState.CLOSED, reason=order.close_reason)
    return OrderMove.MOVED


def give_back(order: Order, journal: Journal, amount_minor: int, refund_number: str) -> OrderMove:
    """PAID → REFUNDED when everything of the keeper was given back; a part leaves it PAID."""
    if order.state != OrderState.PAID:
        return OrderMove.NOT_PAID
    if amount_minor <= 0 or order.refunded_minor + amount_minor > order.amount_minor:
        return OrderMove.TOO_MUCH
    order.refunded_minor += amount_minor
    facts: dict[str, Any] = {"amount_minor": amount_minor, "refunded_minor": order.refunded_minor}
    if order.refunded_minor < order.amount_minor:
        journal.write(order, "order.partly_refunded", subject=refund_number, **facts)
        return OrderMove.MOVED
    order.state = OrderState.REFUNDED
    journal.write(
        order, "order.refunded", subject=refund_number, before=OrderState.PAID, after=OrderState.REFUNDED, **facts
    )
    return OrderMove.MOVED


def take_back(order: Order, journal: Journal, amount_minor: int, refund_number: str) -> OrderMove:
    """REFUNDED → PAID (or PAID with less refunded): the channel returned that refund to us."""
    if order.state not in (OrderState.PAID, OrderState.REFUNDED):
        return OrderMove.NOT_PAID
    if amount_minor <= 0 or amount_minor > order.refunded_minor:
        return OrderMove.TOO_MUCH
    before = order.state
    order.refunded_minor -= amount_minor
    order.state = OrderState.PAID
    moved = {"before": before, "after": OrderState.PAID} if before == OrderState.REFUNDED else {}
    journal.write(
        order,
        "order.refund_returned",
        subject=refund_number,
        amount_minor=amount_minor,
        refunded_minor=order.refunded_minor,
        **moved,
    )
    return OrderMove.MOVED


def postpone_expiry(order: Order, at: datetime) -> None:
    """Look at the order again at `at`; no state changes."""
    order.next_expiry_at = at
