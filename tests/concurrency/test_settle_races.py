"""Evidence that arrives at the same moment: one keeper, one effect, and a surplus for every other success."""

import threading

import pytest

from payonce.channels.messages import (
    CloseAnswer,
    CloseState,
    Known,
    Notice,
    NotificationRequest,
    PaymentState,
    PaymentView,
)
from payonce.orders.models import Event, Order
from payonce.payments import close, expire, poll
from payonce.payments.inbox import Received
from payonce.payments.models import Discrepancy, Notification, Refund, Stream
from payonce.payments.notify import receive
from payonce.payments.settle import Settled
from tests.concurrency.interleave import (
    ORDER_ROW,
    held_row,
    queue_at_order,
    run_together,
    without_backstops,
    without_row_locks,
)
from tests.concurrency.soundness import assert_sound, ids, stored_notifications, violations
from tests.factories import apply, open_order, pending_stream, view_of

pytestmark = pytest.mark.concurrency


def two_pending(scripted):
    """Two streams of one order that the buyer holds: the older one could not be proven closed."""
    first = pending_stream()
    scripted.answers["scripted_a", "close"].append(Known(CloseAnswer(CloseState.UNPROVED)))
    return first, pending_stream(first.order, "scripted_b")


def notice_of(stream, key="n-1"):
    view = view_of(stream)
    return lambda request: Notice(dedupe_key=key, event="paid", sent_at=None, payment=view)


def notification():
    return NotificationRequest(body=b"{}", headers={}, query="")


def test_two_wallets_pay_at_once_and_one_becomes_the_keeper(patient):
    """M3, M4: whoever locked the order first keeps it; the other one's money gets its one refund."""
    first, second = two_pending(patient)
    results = queue_at_order(
        first.order.number, lambda: apply(first, view_of(first)), lambda: apply(second, view_of(second))
    )
    assert sorted(results) == [Settled.KEEPER, Settled.SURPLUS]
    assert Refund.objects.count() == 1
    assert Discrepancy.objects.filter(kind="duplicate").count() == 1
    assert Stream.objects.get(role="surplus").number == Refund.objects.get().stream.number
    assert_sound(first.order)


def test_control_two_wallets_without_the_lock_are_stopped_by_the_database_alone(patient):
    """M4: both saw an order without a keeper; the constraints refuse the second."""
    first, second = two_pending(patient)
    with without_row_locks(2):
        results = run_together(lambda: apply(first, view_of(first)), lambda: apply(second, view_of(second)))
    assert sum(result == Settled.KEEPER for result in results) == 1
    assert sum(isinstance(result, Exception) for result in results) == 1
    assert_sound(first.order)


def test_control_two_wallets_without_lock_and_constraints_make_two_keepers(patient):
    """M4: the race is real: with nothing in its way the order gets two keepers."""
    first, second = two_pending(patient)
    patient.answers["scripted_b", "close"].append(Known(CloseAnswer(CloseState.UNPROVED)))
    close.close_stream(second.number, by="operator:ann")  # so that neither writes the other one's state
    with without_backstops():
        with without_row_locks(2):
            results = run_together(lambda: apply(first, view_of(first)), lambda: apply(second, view_of(second)))
        assert results == [Settled.KEEPER, Settled.KEEPER]
        assert {"M4", "S10"} <= ids(violations(first.order))


def test_the_same_notification_five_times_at_once_has_one_effect(patient):
    """X2, S7: one is applied, four are repeats, and all five are acknowledged."""
    stream = pending_stream()
    patient.notice = notice_of(stream)
    results = queue_at_order(stream.order.number, *[lambda: receive("scripted_a", notification())] * 5)
    outcomes = sorted(result.outcome for result in results)
    assert outcomes == [Received.APPLIED, *[Received.REPEAT] * 4]
    assert {result.answer.status for result in results} == {200}
    assert stored_notifications("n-1") == 1
    assert Event.objects.filter(kind="order.paid").count() == 1
    assert_sound(stream.order)


def test_control_the_same_notification_without_the_lock_and_the_index_is_applied_twice(patient):
    """S10, X2: without both, two copies each settle the order."""
    stream = pending_stream()
    patient.notice = notice_of(stream)
    with without_backstops():
        with without_row_locks(2):
            run_together(*[lambda: receive("scripted_a", notification())] * 2)
        assert stored_notifications("n-1") == 2
        assert Event.objects.filter(kind="order.paid").count() == 2
        assert "S10" in ids(violations(stream.order))


def test_different_notifications_of_one_payment_settle_once(patient):
    """M4, M6: a repeat under another key is the same money."""
    stream = pending_stream()
    view = view_of(stream)
    patient.notice = lambda request: Notice(dedupe_key=request.query, event="paid", sent_at=None, payment=view)
    keys = [f"key-{number}" for number in range(5)]
    results = queue_at_order(
        stream.order.number,
        *[lambda key=key: receive("scripted_a", NotificationRequest(b"{}", {}, key)) for key in keys],
    )
    assert {result.outcome for result in results} == {Received.APPLIED}
    found = sorted(Notification.objects.values_list("result", flat=True))
    assert found == [Settled.KEEPER, *[Settled.REPEAT] * 4]
    assert not Refund.objects.exists()
    assert_sound(stream.order)


def test_a_poll_and_a_notification_about_the_same_money_settle_once(patient, clock):
    """M4: the answer to the query and the notification wait for the same lock."""
    stream = pending_stream()
    clock.advance(5)
    patient.notice = notice_of(stream)
    patient.answers["scripted_a", "query"].append(Known(view_of(stream)))
    report, result = queue_at_order(stream.order.number, poll.poll_due, lambda: receive("scripted_a", notification()))
    assert result.outcome is Received.APPLIED
    assert sorted([*report.applied, Notification.objects.get().result]) == [Settled.KEEPER, Settled.REPEAT]
    assert_sound(stream.order)


def test_money_and_the_end_of_the_order_at_once(patient, clock):
    """S1, S4: expiry looks again under the lock; money that was first keeps the order, money that was late is given back."""
    stream = pending_stream()
    paid = view_of(stream, at=stream.created_at)
    clock.advance(2 * 3600)
    settled, expired = queue_at_order(
        stream.order.number, lambda: apply(stream, paid), lambda: expire.expire_order(stream.order.number)
    )
    stream.refresh_from_db()
    order = Order.objects.get()
    assert stream.state == "SUCCEEDED"
    if order.state == "PAID":
        assert settled is Settled.KEEPER
        assert expired in (expire.Expired.PAID, expire.Expired.CLOSING, expire.Expired.CLOSED)
    else:
        assert (order.state, settled) == ("CLOSED", Settled.SURPLUS)
        assert Discrepancy.objects.filter(kind="late_payment").count() == 1
    assert_sound(order)


def test_money_that_comes_while_the_channel_is_asked_to_close(patient):
    """S5, S16: the channel says closed, and the buyer's money is already recorded: money wins."""
    stream = pending_stream()
    patient.before["close"] = lambda _: apply(stream, view_of(stream))
    assert expire.close_order(stream.order.number, by="shop:shop") is expire.Expired.PAID
    stream.refresh_from_db()
    assert (stream.state, stream.role) == ("SUCCEEDED", "keeper")
    assert Discrepancy.objects.filter(kind="contradiction").count() == 1
    assert_sound(stream.order)


def test_money_and_closing_queue_in_either_order(patient):
    """S2, S5: a success is never overridden by a close that came in beside it."""
    stream = pending_stream()
    settled, closed = queue_at_order(
        stream.order.number,
        lambda: apply(stream, view_of(stream)),
        lambda: close.close_stream(stream.number, by="operator:ann"),
    )
    assert settled is Settled.KEEPER
    assert closed in (close.Closed.PAID, close.Closed.PROVEN)
    stream.refresh_from_db()
    assert stream.state == "SUCCEEDED"
    assert_sound(stream.order)


def test_two_closers_call_the_channel_once(patient):
    """S6: the call's lease in the row lets one of two processes ask the channel."""
    stream = pending_stream()
    results = queue_at_order(stream.order.number, *[lambda: close.close_stream(stream.number, by="system:close")] * 2)
    assert close.Closed.PROVEN in results
    assert set(results) <= {close.Closed.PROVEN, close.Closed.BUSY}
    assert patient.count("close") == 1


def test_a_second_capture_reported_twice_at_once_is_adopted_once(patient):
    """M3, M7: another reference under the same number, in two messages: one surplus stream, one refund."""
    stream = pending_stream()
    apply(stream, view_of(stream))
    other = view_of(stream, channel_reference="second")
    results = queue_at_order(stream.order.number, *[lambda: apply(stream, other)] * 2)
    assert sorted(results) == [Settled.REPEAT, Settled.SURPLUS]
    assert Stream.objects.filter(surplus_reason="second_capture").count() == 1
    assert Refund.objects.count() == 1
    assert_sound(stream.order)


def test_late_news_beside_a_success_never_moves_it_back(patient):
    """S2: "processing" and "closed" that wait at the lock beside the success change nothing, in whatever order."""
    stream = pending_stream()
    views = [
        view_of(stream),
        PaymentView(stream.number, PaymentState.IN_PROGRESS),
        PaymentView(stream.number, PaymentState.CLOSED),
    ]
    queue_at_order(stream.order.number, *[lambda view=view: apply(stream, view) for view in views])
    stream.refresh_from_db()
    assert (stream.state, stream.role) == ("SUCCEEDED", "keeper")
    assert_sound(stream.order)


def test_two_orders_do_not_wait_for_each_other(patient):
    """L6: the lock is the order's own; while one order is held another one settles."""
    held, free = pending_stream(), pending_stream(open_order())
    with held_row(ORDER_ROW, held.order.number):
        assert run_together(lambda: apply(free, view_of(free))) == [Settled.KEEPER]


def test_an_order_is_not_closed_while_another_process_still_asks_the_channel_to_close(patient):
    """S4, M1: the stream is payable until the channel has answered the other process: money of that moment is in time."""
    stream = pending_stream()
    asked, go_on = threading.Event(), threading.Event()
    patient.before["close"] = lambda _: (asked.set(), go_on.wait(20))

    def cancel():
        asked.wait(20)
        answer = expire.close_order(stream.order.number, by="shop:shop")
        apply(stream, view_of(stream))
        go_on.set()
        return answer

    closed, cancelled = run_together(lambda: close.close_stream(stream.number, by="system:close"), cancel)
    assert (closed, cancelled) == (close.Closed.PAID, expire.Expired.CLOSING)
    order = Order.objects.get()
    assert (order.state, order.keeper) == ("PAID", stream.number)
    assert_sound(order)
