"""Expiry: CLOSING first, the streams next, and CLOSED only when nothing can be in flight."""

from datetime import timedelta

import pytest
from django.utils import timezone

from payonce.channels.messages import CloseAnswer, CloseState, Known, PaymentState, PaymentView, Unknown
from payonce.orders.models import Order
from payonce.payments import clock as clocks
from payonce.payments import expire, sweep
from payonce.payments.models import Stream
from payonce.payments.pay import PayCode, pay_order
from tests.factories import answer_paid, apply, open_order, pending_stream

UNPROVED = Known(CloseAnswer(CloseState.UNPROVED))


def test_an_order_whose_time_is_over_is_closed_after_its_streams(scripted, clock):
    order = open_order()
    stream = pending_stream(order)
    clock.advance(3601)
    assert sweep.sweep_expire() == 1
    order.refresh_from_db()
    stream.refresh_from_db()
    assert (order.state, order.close_reason, stream.state) == ("CLOSED", "expired", "CLOSED")


def test_an_expired_order_refuses_payment_also_before_the_sweep(scripted, clock):
    order = open_order()
    clock.advance(3601)
    result = pay_order(order.number, "scripted_a", "qr")
    assert (result.code, result.detail) == (PayCode.CLOSED, "expired")
    assert not Stream.objects.exists()


def test_money_found_while_closing_pays_the_order(scripted, clock):
    order = open_order()
    stream = pending_stream(order)
    clock.advance(3601)
    answer_paid(stream)
    assert expire.expire_order(order.number) == "paid"
    order.refresh_from_db()
    assert (order.state, order.keeper) == ("PAID", stream.number)


def test_an_order_does_not_close_past_a_stream_being_confirmed(scripted, clock):
    """S16."""
    order = open_order()
    stream = pending_stream(order)
    apply(stream, PaymentView(stream.number, PaymentState.IN_PROGRESS))
    clock.advance(3601)
    assert expire.expire_order(order.number) == "closing"
    order.refresh_from_db()
    assert order.state == "CLOSING"
    assert order.next_expiry_at is not None


def test_an_order_does_not_close_past_an_unknown_answer_in_its_time(scripted):
    order = open_order()
    pending_stream(order)
    scripted.answers["scripted_a", "query"] += [Unknown("time-out")] * 2
    scripted.answers["scripted_a", "close"].append(Unknown("time-out"))
    assert expire.close_order(order.number, by="shop:shop") == "closing"


def test_an_order_closes_with_a_watched_stream_whose_answer_is_known(scripted):
    order = open_order()
    stream = pending_stream(order)
    scripted.answers["scripted_a", "close"].append(UNPROVED)
    assert expire.close_order(order.number, by="shop:shop") == "closed"
    stream.refresh_from_db()
    assert (stream.state, stream.next_check_at is not None) == ("CLOSING", True)


def test_closing_twice_is_one_closing(scripted):
    order = open_order()
    assert expire.close_order(order.number, by="shop:shop") == "closed"
    assert expire.close_order(order.number, by="shop:shop") == "closed"
    assert order.events.filter(kind="order.closed").count() == 1


def test_a_paid_order_is_not_closed(scripted, clock):
    stream = pending_stream()
    answer_paid(stream)
    assert expire.close_order(stream.order.number, by="shop:shop") == "paid"
    clock.advance(4000)
    assert expire.expire_order(stream.order.number) == "paid"


def test_an_order_that_is_not_due_stays_open(scripted):
    order = open_order()
    assert expire.expire_order(order.number) == "not_due"
    order.refresh_from_db()
    assert order.state == "OPEN"


def test_the_channel_is_given_no_longer_than_the_order_lives(scripted):
    order = open_order(expires_at=timezone.now() + timedelta(minutes=10))
    stream = pending_stream(order)
    assert stream.payable_until == order.expires_at


@pytest.mark.parametrize("seconds", [5, 59])
def test_the_channels_minimum_is_the_only_reason_to_outlive_the_order(scripted, seconds):
    order = open_order(expires_at=timezone.now() + timedelta(seconds=seconds))
    stream = pending_stream(order)
    assert stream.payable_until - stream.created_at == timedelta(seconds=60)
    assert Order.objects.get().expires_at == order.expires_at


def test_an_order_that_waits_long_is_looked_at_less_and_less(scripted, clock):
    """L5, S16: money that is on its way for hours neither lets the order close nor has it looked at every few seconds."""
    order = open_order()
    stream = pending_stream(order)
    apply(stream, PaymentView(stream.number, PaymentState.IN_PROGRESS))
    clock.advance(3601)
    looks, waited = 0, timedelta(0)
    while waited < timedelta(hours=6):
        looks += sweep.sweep_expire()
        order.refresh_from_db()
        gap = order.next_expiry_at - clock_now()
        clock.advance(gap.total_seconds() + 0.1)
        waited += gap
    first_nudge = Stream.objects.get().nudged_at
    assert order.state == "CLOSING"
    assert 40 < looks < 120
    assert clock_now() - first_nudge >= timedelta(hours=6)


def clock_now():
    return clocks.read_now()
