"""What the shop is told: which events, in which words, and the rows that owe them to each listener."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime

from payonce.orders.conf import get_settings
from payonce.orders.models import Event, Order
from payonce.orders.shop import ShopEvent
from payonce.payments.models import ShopMessage
from payonce.payments.statuses import MessageState

PUBLISHED = frozenset(
    {
        "order.paid", "order.closed", "order.refunded", "order.partly_refunded", "order.refund_returned", "order.amended",
        "refund.succeeded", "refund.rejected", "refund.returned", "case.opened", "case.resolved",
    }
)  # fmt: skip
REFUND_KINDS = ("order.refunded", "order.partly_refunded", "order.refund_returned")
SHOP_LISTENER = "shop"
"""The Python hooks; every other listener is the name of an HTTP endpoint."""


def shop_event(order: Order, event: Event) -> ShopEvent:
    """The event as the shop gets it; `state` and amounts are those right after it."""
    is_refund = event.kind.startswith("refund.") or event.kind in REFUND_KINDS
    return ShopEvent(
        id=f"{order.number}-{event.sequence}", kind=event.kind, order=order.number, source=order.source,
        reference=order.reference, sequence=event.sequence, at=event.at, amount_minor=order.amount_minor,
        currency=order.currency, refunded_minor=order.refunded_minor, state=order.state,
        stream="" if is_refund else event.subject, refund=event.subject if is_refund else "",
    )  # fmt: skip


def listeners() -> tuple[str, ...]:
    """Who is told: the shop's hooks, and each HTTP endpoint by name."""
    return (SHOP_LISTENER, *get_settings().MESSAGES.ENDPOINTS)


def messages_for(order: Order, events: Iterable[Event]) -> list[ShopMessage]:
    """The rows that owe these events to every listener; they commit with the events."""
    return [
        ShopMessage(
            order=order,
            sequence=event.sequence,
            listener=listener,
            kind=event.kind,
            body=write_event(shop_event(order, event)),
            state=MessageState.PENDING,
            created_at=event.at,
            next_try_at=event.at,
        )
        for event in events
        if event.kind in PUBLISHED
        for listener in listeners()
    ]


def owe(order: Order, events: list[Event]) -> None:
    """Insert the rows for events of an order that was placed or amended, in the caller's transaction."""
    rows = messages_for(order, events)
    if rows:
        ShopMessage.objects.using(get_settings().DATABASE).bulk_create(rows)


def write_event(event: ShopEvent) -> str:
    """The event as the JSON text that listeners get."""
    data = {name: getattr(event, name) for name in ShopEvent.__slots__}
    data["at"] = event.at.astimezone(UTC).isoformat()
    return json.dumps(data, sort_keys=True, ensure_ascii=False)


def read_event(text: str) -> ShopEvent:
    """The event that `write_event` wrote."""
    data = json.loads(text)
    return ShopEvent(**{**data, "at": datetime.fromisoformat(data["at"])})
