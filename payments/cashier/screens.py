"""What the buyer sees: one screen for each way an order can stand. Pure; says nothing that is not known."""

from enum import StrEnum

from payonce.orders.statuses import OrderState
from payonce.payments.api.standing import Standing
from payonce.payments.models import Stream
from payonce.payments.statuses import ACTIVE_REFUND_STATES, StreamState, SurplusReason


class Screen(StrEnum):
    """The states of the page. The value names its template part and its milestone for the script."""

    CHOOSE = "choose"
    STARTING = "starting"  # a stream is made, its channel has not answered
    PAY_NOW = "pay_now"  # a code, a link or a form
    CODE_EXPIRED = "code_expired"
    CONFIRMING = "confirming"  # money may be on its way: no button that pays
    PAID = "paid"
    REFUNDED = "refunded"
    EXPIRING = "expiring"  # its time is over, and whether money came is not yet proven
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    LATE = "late"  # money came after it was closed


class GivenBack(StrEnum):
    """What is known about money that was too much."""

    ON_ITS_WAY = "on_its_way"
    DONE = "done"
    WITH_A_PERSON = "with_a_person"


def screen_of(standing: Standing) -> Screen:
    """The screen for how the order stands."""
    order = standing.order
    if order.state == OrderState.PAID:
        return Screen.PAID
    if order.state == OrderState.REFUNDED:
        return Screen.REFUNDED
    if standing.is_confirming:
        return Screen.CONFIRMING
    if any(stream.surplus_reason == SurplusReason.LATE for stream in standing.surplus):
        return Screen.LATE
    if order.state == OrderState.CLOSED:
        return Screen.EXPIRED if order.close_reason == "expired" else Screen.CANCELLED
    if order.state == OrderState.CLOSING or standing.is_expired:
        return Screen.EXPIRING
    return _screen_of_open(standing)


def _screen_of_open(standing: Standing) -> Screen:
    stream = standing.open_stream
    if stream is None:
        return Screen.CHOOSE
    if stream.state == StreamState.CREATED:
        is_called = stream.call_lease_until is not None and stream.call_lease_until > standing.at
        return Screen.STARTING if is_called else Screen.CHOOSE
    ends = stream.prepay_expires_at
    if ends is None or min(ends, stream.payable_until) <= standing.at:
        return Screen.CODE_EXPIRED
    return Screen.PAY_NOW


def is_nothing_taken(standing: Standing) -> bool:
    """Is it proven that no stream took money and none can any more? Only then may the page say so."""
    return standing.order.state == OrderState.CLOSED and all(
        stream.state in (StreamState.CLOSED, StreamState.FAILED) and not stream.is_watched
        for stream in standing.streams
    )


def is_switching(standing: Standing) -> bool:
    """Is an older way to pay being closed while the order is open?"""
    is_closing = any(stream.state == StreamState.CLOSING for stream in standing.streams)
    return standing.order.state == OrderState.OPEN and is_closing


def given_back(standing: Standing, stream: Stream) -> GivenBack:
    """What is known about the surplus money of a stream. "On its way" only while a refund is at work."""
    if standing.given_back_minor(stream) >= stream.captured_minor:
        return GivenBack.DONE
    mine = [row for row in standing.refunds if row.stream_id == stream.pk]
    if any(row.state in ACTIVE_REFUND_STATES and row.next_try_at is not None for row in mine):
        return GivenBack.ON_ITS_WAY
    return GivenBack.WITH_A_PERSON
