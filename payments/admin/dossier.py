"""Everything about one order, read once in a bounded number of queries: what the order, stream and refund pages show."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from payonce.orders.conf import get_settings
from payonce.orders.models import Order
from payonce.payments import clock
from payonce.payments.admin import timeline
from payonce.payments.models import Discrepancy, Notification, Refund, ShopMessage, Stream
from payonce.payments.statuses import ACTIVE_REFUND_STATES, DiscrepancyState, RefundState, StreamRole

ROWS_MAX = 200


@dataclass(frozen=True)
class Dossier:
    """One order with its streams, refunds, cases, messages and notifications."""

    order: Order
    streams: Sequence[Stream]
    refunds: Sequence[Refund]
    cases: Sequence[Discrepancy]
    messages: Sequence[ShopMessage]
    notifications: Sequence[Notification]
    now: datetime

    @cached_property
    def timeline(self) -> timeline.Timeline:
        """The order's verified history."""
        return timeline.read(self.order, get_settings().DATABASE)

    @property
    def open_cases(self) -> list[Discrepancy]:
        """Cases that wait for a person."""
        return [case for case in self.cases if case.state == DiscrepancyState.OPEN]

    @property
    def keeper(self) -> Stream | None:
        """The stream that settled the order."""
        return next((stream for stream in self.streams if stream.role == StreamRole.KEEPER), None)

    @property
    def surplus_minor(self) -> int:
        """Money taken that is not the order's payment, in minor units of the order's currency."""
        taken = [row for row in self.streams if row.role == StreamRole.SURPLUS]
        return sum(row.captured_minor for row in taken if row.captured_currency == self.order.currency)

    def refunds_of(self, stream: Stream) -> list[Refund]:
        """The refunds of one stream."""
        return [refund for refund in self.refunds if refund.stream_id == stream.pk]


def given_back_minor(refunds: Sequence[Refund]) -> int:
    """What the channel gave back, in minor units."""
    return sum(refund.amount_minor for refund in refunds if refund.state == RefundState.SUCCEEDED)


def on_its_way_minor(refunds: Sequence[Refund]) -> int:
    """What is reserved and not given back yet, in minor units."""
    return sum(refund.amount_minor for refund in refunds if refund.state in ACTIVE_REFUND_STATES)


def read(order: Order) -> Dossier:
    """Six queries, whatever the order went through."""
    using = get_settings().DATABASE
    streams = list(Stream.objects.using(using).filter(order_id=order.pk).order_by("attempt")[:ROWS_MAX])
    for stream in streams:
        stream.order = order
    refunds = list(
        Refund.objects.using(using).filter(stream_id__in=[row.pk for row in streams]).order_by("pk")[:ROWS_MAX]
    )
    of_id = {stream.pk: stream for stream in streams}
    for refund in refunds:
        refund.stream = of_id[refund.stream_id]
    cases = list(Discrepancy.objects.using(using).filter(order_id=order.pk).order_by("pk")[:ROWS_MAX])
    messages = list(ShopMessage.objects.using(using).filter(order_id=order.pk).order_by("pk")[:ROWS_MAX])
    numbers = (
        {row.channel_number for row in streams} | {row.number for row in streams} | {row.number for row in refunds}
    )
    notifications = list(
        Notification.objects.using(using).filter(number__in=numbers).defer("body", "parsed").order_by("pk")[:ROWS_MAX]
    )
    return Dossier(order, streams, refunds, cases, messages, notifications, clock.about_now())
