"""What must hold for an order at every moment, read from its rows: the ids are those of the invariants."""

from collections import Counter

from payonce.orders.errors import EventChainBroken
from payonce.orders.events import verify_chain
from payonce.orders.models import Event, Order
from payonce.payments.models import Discrepancy, Notification, Refund, Stream
from payonce.payments.statuses import OPEN_STREAM_STATES


def violations(order: Order) -> list[str]:
    """Every broken rule as `id: what`; an empty list when all hold."""
    order = Order.objects.get(pk=order.pk)
    streams = list(Stream.objects.filter(order=order).order_by("id"))
    return [*_of_streams(order, streams), *_of_money(streams), *_of_history(order)]


def ids(found: list[str]) -> set[str]:
    """The ids alone."""
    return {text.split(":")[0] for text in found}


def assert_sound(*orders: Order) -> None:
    """Every rule holds for each order."""
    for order in orders:
        assert violations(order) == []


def _of_streams(order: Order, streams: list[Stream]) -> list[str]:
    found = []
    opened = [stream.number for stream in streams if stream.state in OPEN_STREAM_STATES]
    if len(opened) > 1:
        found.append(f"S3: open at once: {opened}")
    keepers = [stream.number for stream in streams if stream.role == "keeper"]
    if len(keepers) > 1:
        found.append(f"M4: keepers: {keepers}")
    if order.keeper and keepers and order.keeper not in keepers:
        found.append(f"M4: the order says {order.keeper}, the streams say {keepers}")
    if order.state == "PAID" and not keepers:
        found.append("S1: paid without a keeper")
    numbers = Counter(stream.number for stream in streams)
    found += [f"S3: number {number} is used {times} times" for number, times in numbers.items() if times > 1]
    references = Counter((stream.account, stream.channel_reference) for stream in streams if stream.channel_reference)
    found += [f"M7: {reference} pays {times} streams" for reference, times in references.items() if times > 1]
    return found


def _of_money(streams: list[Stream]) -> list[str]:
    found = []
    for stream in streams:
        refunds = list(Refund.objects.filter(stream=stream))
        reserved = sum(refund.amount_minor for refund in refunds if not refund.is_released)
        if reserved > stream.captured_minor or reserved != stream.refund_reserved_minor:
            found.append(f"M2: {stream.number} reserves {reserved} of {stream.captured_minor}")
        if stream.role == "keeper" and any(refund.purpose == "surplus" for refund in refunds):
            found.append(f"M5: the keeper {stream.number} has an automatic refund")
        done = [refund.number for refund in refunds if refund.state == "SUCCEEDED" and refund.purpose == "surplus"]
        is_case = Discrepancy.objects.filter(stream=stream).exists()
        if stream.role == "surplus" and (len(done) > 1 or not (refunds or is_case)):
            found.append(f"M3: the surplus {stream.number} has the refunds {done} and no case")
    return found


def _of_history(order: Order) -> list[str]:
    try:
        verify_chain(order, Event.objects.filter(order=order).order_by("sequence", "id"))
    except EventChainBroken as error:
        return [f"S10: {error}"]
    return []


def stored_notifications(key: str) -> int:
    """How often one notification lies in the inbox."""
    return Notification.objects.filter(dedupe_key=key).count()
