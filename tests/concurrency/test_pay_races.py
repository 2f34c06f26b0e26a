"""Clicks on Pay at the same moment: one stream, one prepay, one call to the channel."""

import threading

import pytest

from payonce.channels.messages import CloseAnswer, CloseState, Known
from payonce.payments.errors import ConstraintViolated
from payonce.payments.models import Stream
from payonce.payments.pay import PayCode, pay_order
from payonce.payments.settle import Settled
from tests.concurrency.interleave import (
    ORDER_ROW,
    Threads,
    held_row,
    queue_at_order,
    run_together,
    wait_for_lock_waiters,
    without_backstops,
    without_row_locks,
)
from tests.concurrency.soundness import assert_sound, ids, violations
from tests.factories import apply, open_order, pending_stream, view_of

pytestmark = pytest.mark.concurrency


def click(order, channel="scripted_a", method="qr"):
    return lambda: pay_order(order.number, channel, method)


def test_a_hundred_clicks_at_once_make_one_stream_and_one_call(patient, redis_client):
    """S3, S8: the gate lets one click work, and the others get its result."""
    order = open_order()
    results = run_together(*[click(order)] * 100)
    assert {result.code for result in results} == {PayCode.PREPAY}
    assert len({(result.stream, result.prepay_value) for result in results}) == 1
    assert Stream.objects.count() == 1
    assert patient.count("prepay") == 1
    assert_sound(order)


def test_without_redis_clicks_queue_at_the_order_and_share_one_stream(no_redis):
    """S3: the database alone decides; who came second finds the call in progress, or its result."""
    order = open_order()
    results = queue_at_order(order.number, *[click(order)] * 12)
    assert {result.code for result in results} <= {PayCode.PREPAY, PayCode.IN_PROGRESS}
    assert sum(result.code is PayCode.PREPAY for result in results) >= 1
    assert Stream.objects.count() == 1
    assert no_redis.count("prepay") == 1
    assert_sound(order)


def test_the_second_click_waits_while_the_first_holds_the_order(no_redis):
    """S3: a click that comes while another one's transaction is open is answered from what that one committed."""
    order = open_order()
    first, second = queue_at_order(order.number, click(order), click(order))
    assert sorted([first.code, second.code]) in ([PayCode.IN_PROGRESS, PayCode.PREPAY], [PayCode.PREPAY] * 2)
    assert no_redis.count("prepay") == 1


def test_control_without_the_lock_only_the_unique_index_stops_a_second_stream(no_redis):
    """S3: two clicks that both saw no stream; the database lets one insert and refuses the other."""
    order = open_order()
    with without_row_locks(2):
        results = run_together(click(order), click(order))
    refused = [result for result in results if isinstance(result, ConstraintViolated)]
    handed_out = [result for result in results if getattr(result, "code", "") == PayCode.PREPAY]
    assert (len(handed_out), len(refused)) == (1, 1)
    assert Stream.objects.count() == 1
    assert no_redis.count("prepay") == 1
    assert_sound(order)


def test_control_without_the_lock_and_the_index_two_streams_open(no_redis):
    """S3: the same race with nothing left to stop it breaks the rule, so the rule is kept by these two alone."""
    order = open_order()
    with without_backstops():
        with without_row_locks(2):
            run_together(click(order), click(order))
        assert Stream.objects.count() == 2
        assert "S3" in ids(violations(order))


def test_two_channels_chosen_at_once_leave_one_open_stream(no_redis):
    """S3: whoever came second closes the first one's stream, or is told to wait."""
    order = open_order()
    results = queue_at_order(order.number, click(order), click(order, "scripted_b"))
    assert {result.code for result in results} <= {PayCode.PREPAY, PayCode.IN_PROGRESS}
    assert Stream.objects.filter(state__in=["CREATED", "PENDING"]).count() == 1
    assert_sound(order)


def test_a_switch_while_the_first_prepay_is_in_the_air_waits(patient):
    """S3, S6: the first channel has the call but no answer yet; a click on another channel is not a second open stream."""
    order = open_order()
    asked, answer = threading.Event(), threading.Event()
    patient.before["prepay"] = lambda _: (asked.set(), answer.wait(30))

    def switch():
        asked.wait(30)
        result = pay_order(order.number, "scripted_b", "qr")
        answer.set()
        return result

    first, second = run_together(click(order), switch)
    assert first.code is PayCode.PREPAY
    assert second.code is PayCode.IN_PROGRESS
    assert [stream.account for stream in Stream.objects.all()] == ["scripted_a"]


def test_a_thousand_clicks_make_one_call(patient, redis_client):
    """S8: 50 buyers' fingers, 20 clicks each."""
    order = open_order()
    results = run_together(*[lambda: [pay_order(order.number, "scripted_a", "qr") for _ in range(20)]] * 50)
    clicks = [result for each in results for result in each]
    assert len(clicks) == 1000
    assert {(result.code, result.stream) for result in clicks} == {(PayCode.PREPAY, clicks[0].stream)}
    assert patient.count("prepay") == 1


def test_a_payment_and_a_new_click_queue_in_either_order(no_redis):
    """S3, M4: a switch of channel and the money of the old stream at once: paid once, whoever is first."""
    stream = pending_stream()
    paid = view_of(stream)
    order = stream.order
    results = queue_at_order(order.number, lambda: apply(stream, paid), click(order, "scripted_b"))
    assert results[0] is Settled.KEEPER
    assert results[1].code in (PayCode.ALREADY_PAID, PayCode.PREPAY)
    order.refresh_from_db()
    assert (order.state, order.keeper) == ("PAID", stream.number)
    assert not Stream.objects.filter(state__in=["CREATED", "PENDING"]).exists()
    assert_sound(order)


def test_money_that_arrives_while_the_new_channel_is_asked_wins(patient):
    """S3, M4: the order was paid between the intent and the prepay's answer: the new prepay is not handed out."""
    stream = pending_stream()
    patient.answers["scripted_a", "close"].append(lambda ref: unproven(ref))
    patient.before["prepay"] = lambda _: apply(stream, view_of(stream))
    result = pay_order(stream.order.number, "scripted_b", "qr")
    assert result.code is PayCode.ALREADY_PAID
    assert result.stream == stream.number
    second = Stream.objects.get(account="scripted_b")
    assert second.handed_out_at is None
    assert second.state == "CLOSED"
    assert_sound(stream.order)


def unproven(ref):
    return Known(CloseAnswer(CloseState.UNPROVED))


def test_lock_waiters_are_seen_by_the_test_itself(no_redis):
    """The proof of overlap is no accident: before the row is held nobody waits, and afterwards everybody does."""
    order = open_order()
    with held_row(ORDER_ROW, order.number):
        threads = Threads([click(order)] * 3)
        wait_for_lock_waiters(3)
        assert Stream.objects.count() == 0
        assert no_redis.count("prepay") == 0
    threads.results()
    assert Stream.objects.count() == 1
