"""How an order stands, as the status answer and the cashier's poll say it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from payonce.orders.conf import get_settings
from payonce.orders.models import Order
from payonce.orders.statuses import OrderState
from payonce.payments import clock
from payonce.payments.models import Discrepancy, Refund, Stream
from payonce.payments.statuses import (
    BLOCKING_STREAM_STATES,
    OPEN_STREAM_STATES,
    WATCHED_STREAM_STATES,
    DiscrepancyState,
    RefundState,
    StreamRole,
    StreamState,
)

POLL_MS_CONFIRMING = 1_500
POLL_MS_PAYING = 2_000
POLL_MS_WAITING = 5_000
POLL_MS_SETTLED = 15_000


@dataclass(frozen=True, slots=True)
class Standing:
    """One order with what belongs to it, read together. `at` is the database's time."""

    order: Order
    streams: list[Stream]
    refunds: list[Refund]
    cases: list[Discrepancy]
    at: datetime

    @property
    def is_expired(self) -> bool:
        """Is the order's own time over, whether or not a sweep has said so?"""
        return is_expired(self.order, self.at)

    @property
    def open_stream(self) -> Stream | None:
        """The stream that the buyer may be paying."""
        return next((stream for stream in self.streams if stream.state in OPEN_STREAM_STATES), None)

    @property
    def is_confirming(self) -> bool:
        """May money be on its way right now?"""
        return any(stream.state in BLOCKING_STREAM_STATES for stream in self.streams)

    @property
    def surplus(self) -> list[Stream]:
        """Streams that took money beside the keeper, or without one."""
        return [stream for stream in self.streams if stream.role == StreamRole.SURPLUS]

    def given_back_minor(self, stream: Stream) -> int:
        """How much of a stream's money the channel has surely given back."""
        done = [row for row in self.refunds if row.stream_id == stream.pk and row.state == RefundState.SUCCEEDED]
        return sum(row.amount_minor for row in done)

    @property
    def is_final(self) -> bool:
        """Can nothing change any more by itself: settled or closed, no stream watched, no surplus being repaired?"""
        if self.order.state in (OrderState.OPEN, OrderState.CLOSING):
            return False
        if any(stream.state in WATCHED_STREAM_STATES for stream in self.streams):
            return False
        return not any(self.is_in_repair(stream) for stream in self.surplus)

    def is_in_repair(self, stream: Stream) -> bool:
        """Is a surplus stream's money still to be given back or judged?"""
        return any(case.stream_id == stream.pk for case in self.cases)

    @property
    def is_payable(self) -> bool:
        """Would a click on Pay be worked on?"""
        return self.order.state == OrderState.OPEN and not self.is_expired and not self.is_confirming

    @property
    def next_poll_ms(self) -> int | None:
        """When asking again makes sense; None once nothing changes any more."""
        if self.is_final:
            return None
        stream = self.open_stream
        if self.is_confirming or (stream is not None and stream.state == StreamState.CREATED):
            return POLL_MS_CONFIRMING
        if stream is not None:
            return POLL_MS_PAYING
        return POLL_MS_WAITING if self.order.state in (OrderState.OPEN, OrderState.CLOSING) else POLL_MS_SETTLED


def read_standing(order: Order) -> Standing:
    """Read what belongs to the order: its streams, and its refunds and open cases where there is surplus money."""
    using = get_settings().DATABASE
    streams = list(Stream.objects.using(using).filter(order_id=order.pk).order_by("attempt"))
    refunds: list[Refund] = []
    cases: list[Discrepancy] = []
    if any(stream.role == StreamRole.SURPLUS for stream in streams):
        refunds = list(Refund.objects.using(using).filter(stream__order_id=order.pk).order_by("pk"))
        cases = list(
            Discrepancy.objects.using(using).filter(order_id=order.pk).exclude(state=DiscrepancyState.RESOLVED)
        )
    return Standing(order, streams, refunds, cases, clock.about_now())


def actions_of(standing: Standing, *, is_shop: bool) -> list[str]:
    """What the caller may do next: `pay`, and for the shop `close` and `refund`."""
    order = standing.order
    actions = ["pay"] if standing.is_payable else []
    if is_shop and order.state == OrderState.OPEN:
        actions.append("close")
    if is_shop and any(stream.refundable_minor > 0 for stream in standing.streams):
        actions.append("refund")
    return actions


def write_status(standing: Standing, *, is_shop: bool) -> dict[str, Any]:
    """The status answer."""
    order = standing.order
    return {
        "order": order.number,
        "source": order.source,
        "reference": order.reference,
        "state": order.state,
        "final": standing.is_final,
        "version": order.version,
        "amount_minor": order.amount_minor,
        "refunded_minor": order.refunded_minor,
        "currency": order.currency,
        "keeper": order.keeper,
        "streams": [
            {
                "number": stream.number,
                "channel": stream.account,
                "method": stream.method,
                "state": stream.state,
                "surplus": stream.role == StreamRole.SURPLUS,
            }
            for stream in standing.streams
        ],
        "actions": actions_of(standing, is_shop=is_shop),
        "next_poll_ms": standing.next_poll_ms,
        "server_time": standing.at.isoformat(),
    }


def is_expired(order: Order, at: datetime) -> bool:
    """Is the order's own time over?"""
    return order.expires_at is not None and order.expires_at <= at


def entity_tag(order: Order) -> str:
    """Changes with the order's version, and when its time runs out. Weak: `server_time` is not part of it."""
    return f'W/"{order.version}{"x" if is_expired(order, clock.about_now()) else ""}"'
