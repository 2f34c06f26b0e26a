"""Refunds asked for, approved and carried out at the same moment: never more than was captured, never twice."""

import threading

import pytest

from payonce.channels.messages import Known, Notice, NotificationRequest, RefundState, RefundView, Unknown
from payonce.orders.models import Event
from payonce.payments import refund_run, sweep
from payonce.payments.inbox import Received
from payonce.payments.models import Refund, Stream
from payonce.payments.notify import receive
from payonce.payments.refund import (
    RefundCode,
    RefundRun,
    approve_refund,
    decline_refund,
    request_refund,
    run_refund,
    seen_token,
)
from payonce.payments.transitions.refunds import RefundMove
from tests.concurrency.interleave import queue_at_order, run_together, without_backstops, without_row_locks
from tests.concurrency.soundness import assert_sound, ids, violations
from tests.concurrency.test_settle_races import two_pending
from tests.factories import apply, paid_stream, view_of

pytestmark = pytest.mark.concurrency


def ask(stream, by, amount=1000, seen=""):
    return lambda: request_refund(stream.number, amount, reason="duplicate", by=by, seen=seen)


def requested(stream, amount=1000):
    return request_refund(stream.number, amount, reason="duplicate", by="ann").number


def approvals_from(settings, amount):
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": {"APPROVAL_MINOR": amount}}


def test_two_operators_refund_at_once_and_one_is_refused(patient):
    """M2: the second one sees the first one's reservation."""
    stream = paid_stream()
    results = queue_at_order(stream.order.number, ask(stream, "ann"), ask(stream, "bob"))
    assert sorted(result.code for result in results) == [RefundCode.REQUESTED, RefundCode.TOO_MUCH]
    assert Refund.objects.count() == 1
    assert_sound(stream.order)


def test_two_operators_with_the_same_page_cannot_both_refund_a_part(patient):
    """M2: what the second one saw is no longer so."""
    stream = paid_stream()
    seen = seen_token(stream)
    steps = [ask(stream, name, 400, seen) for name in ("ann", "bob")]
    results = queue_at_order(stream.order.number, *steps)
    assert sorted(result.code for result in results) == [RefundCode.REQUESTED, RefundCode.STALE]
    assert_sound(stream.order)


def test_parts_asked_for_at_once_go_one_after_the_other(patient):
    """M2, M6: one refund of a stream at a time; the numbers stay a function of the sequence."""
    stream = paid_stream()
    results = queue_at_order(stream.order.number, *[ask(stream, f"user{n}", 300) for n in range(5)])
    assert sorted(result.code for result in results) == [*[RefundCode.IN_PROGRESS] * 4, RefundCode.REQUESTED]
    assert Refund.objects.get().number == f"{stream.number}rp1"
    assert_sound(stream.order)


def test_control_two_refunds_without_the_lock_are_stopped_by_the_index(patient):
    """M2: both saw nothing reserved; the unique indexes refuse the second."""
    stream = paid_stream()
    with without_row_locks(2):
        results = run_together(ask(stream, "ann"), ask(stream, "bob"))
    assert sum(isinstance(result, Exception) for result in results) == 1
    assert Refund.objects.count() == 1
    assert_sound(stream.order)


def test_control_two_refunds_without_lock_and_index_exceed_the_capture(patient):
    """M2: with nothing in their way, 2000 are reserved of 1000."""
    stream = paid_stream()
    with without_backstops():
        with without_row_locks(2):
            results = run_together(ask(stream, "ann"), ask(stream, "bob"))
        assert [result.code for result in results] == [RefundCode.REQUESTED] * 2
        assert sum(Refund.objects.values_list("amount_minor", flat=True)) == 2000
        assert "M2" in ids(violations(stream.order))


def test_two_workers_carry_one_refund_out_with_one_call(patient):
    """M3, M6: the lease in the row lets one call; the other one comes later."""
    number = requested(paid_stream())
    order = Stream.objects.get().order
    results = queue_at_order(order.number, *[lambda: run_refund(number)] * 2)
    assert sorted(results) in (
        sorted([RefundRun.DONE, RefundRun.LATER]),
        sorted([RefundRun.DONE, RefundRun.NOT_DUE]),
    )
    assert patient.count("refund") == 1
    assert_sound(order)


def test_a_worker_that_comes_between_anothers_claim_and_its_call_sends_nothing(patient, monkeypatch):
    """M6, S6: the exact moment of the race above: the first has claimed the refund and not yet committed that it sends."""
    number = requested(paid_stream())
    order, decide_under_lock, steps, second = Stream.objects.get().order, refund_run.with_refund, [], []

    def with_refund(*args):
        steps.append(args)
        if len(steps) == 2:  # the first one's claim is committed, and its intent comes now
            second.append(run_refund(number))
        return decide_under_lock(*args)

    monkeypatch.setattr(refund_run, "with_refund", with_refund)
    first = run_refund(number)
    assert (first, second) == (RefundRun.DONE, [RefundRun.NOT_DUE])
    assert patient.count("refund") == 1
    assert_sound(order)


def test_control_two_workers_without_the_lock_both_call_the_channel(patient):
    """M6: a claim decided from what was read before the other one's claim calls again; only the number protects the money then."""
    number = requested(paid_stream())
    second_has_read, first_calls = threading.Event(), threading.Event()
    both_call = threading.Barrier(2)

    def second_writes_after_the_first_called():
        if threading.current_thread().name == "race-1":
            second_has_read.set()
            first_calls.wait(20)
        else:
            second_has_read.wait(20)

    patient.before["refund"] = lambda _: (first_calls.set(), both_call.wait(20))
    with without_backstops():
        with without_row_locks(2, second_writes_after_the_first_called):
            run_together(*[lambda: run_refund(number)] * 2)
        assert patient.count("refund") == 2


def test_two_refund_sweeps_call_the_channel_once_per_refund(patient):
    """M6, S11: two beats at once."""
    streams = [paid_stream() for _ in range(6)]
    numbers = {requested(stream) for stream in streams}
    run_together(sweep.sweep_refund, sweep.sweep_refund)
    asked = [request.refund_number for name, _, request in patient.calls if name == "refund"]
    assert sorted(asked) == sorted(numbers)
    assert set(Refund.objects.values_list("state", flat=True)) == {"SUCCEEDED"}
    assert_sound(*[stream.order for stream in streams])


def test_the_answer_and_the_notification_of_a_refund_count_it_once(patient):
    """M1, M2: the order's refunded amount grows once, whoever brings the news."""
    stream = paid_stream()
    number = requested(stream, 400)
    view = RefundView(number, RefundState.DONE, 400, "CNY", "rr")
    patient.notice = lambda request: Notice(dedupe_key="r-1", event="refund", sent_at=None, refund=view)

    def notified_during_the_call(_):
        result = receive("scripted_a", NotificationRequest(b"{}", {}))
        assert result.outcome is Received.APPLIED

    patient.before["refund"] = notified_during_the_call
    assert run_refund(number) is RefundRun.DONE
    stream.order.refresh_from_db()
    assert (stream.order.state, stream.order.refunded_minor) == ("PAID", 400)
    assert Event.objects.filter(kind="refund.succeeded").count() == 1
    assert_sound(stream.order)


def test_a_refund_and_its_notification_queue_in_either_order(patient, clock):
    """M2, M6: a repeat after an unclear answer meets the channel's own message at the lock."""
    stream = paid_stream()
    number = requested(stream)
    patient.answers["scripted_a", "refund"].append(Unknown("time-out"))
    assert run_refund(number) is RefundRun.UNKNOWN
    clock.advance(60)
    done = RefundView(number, RefundState.DONE, 1000, "CNY", "rr")
    patient.answers["scripted_a", "query_refund"].append(Known(done))
    patient.notice = lambda request: Notice(dedupe_key="r-1", event="refund", sent_at=None, refund=done)
    run, received = queue_at_order(
        stream.order.number,
        lambda: run_refund(number),
        lambda: receive("scripted_a", NotificationRequest(b"{}", {})),
    )
    assert run in (RefundRun.DONE, RefundRun.NOT_DUE)
    assert received.outcome is Received.APPLIED
    stream.order.refresh_from_db()
    assert (stream.order.state, stream.order.refunded_minor) == ("REFUNDED", 1000)
    assert Event.objects.filter(kind="order.refunded").count() == 1
    assert_sound(stream.order)


def test_two_approvers_at_once_approve_once(patient, settings):
    """S15: one execution per approval."""
    approvals_from(settings, 500)
    stream = paid_stream()
    number = requested(stream)
    results = queue_at_order(
        stream.order.number, lambda: approve_refund(number, "bob"), lambda: approve_refund(number, "cora")
    )
    assert sorted(results) == [RefundMove.MOVED, RefundMove.NOT_AWAITING]
    assert Event.objects.filter(kind="refund.approved").count() == 1
    assert run_together(*[lambda: run_refund(number)] * 2).count(RefundRun.DONE) == 1
    assert patient.count("refund") == 1
    assert_sound(stream.order)


def test_one_approver_who_clicks_twice_approves_once(patient, settings):
    """S15: the second click is a repeat, not a second approval."""
    approvals_from(settings, 500)
    stream = paid_stream()
    number = requested(stream)
    results = queue_at_order(stream.order.number, *[lambda: approve_refund(number, "bob")] * 2)
    assert sorted(results) == [RefundMove.MOVED, RefundMove.REPEAT]
    assert_sound(stream.order)


def test_approval_and_refusal_at_once_end_in_one_of_them(patient, settings):
    """S15: what was first stands; a refund that was declined is never sent."""
    approvals_from(settings, 500)
    stream = paid_stream()
    number = requested(stream)
    approved, declined = queue_at_order(
        stream.order.number, lambda: approve_refund(number, "bob"), lambda: decline_refund(number, "cora")
    )
    refund = Refund.objects.get()
    assert declined is RefundMove.MOVED  # an approved one that was not sent yet may still be taken back
    assert approved in (RefundMove.MOVED, RefundMove.NOT_AWAITING)
    assert (refund.state, refund.is_released) == ("DECLINED", True)
    assert run_refund(number) is RefundRun.NOT_DUE
    assert patient.count("refund") == 0
    assert_sound(stream.order)


def test_a_refund_taken_back_while_it_is_being_sent(patient):
    """M2, S15: taking it back and sending it meet at the lock: either it is declined and nothing is called, or it is sent."""
    stream = paid_stream()
    number = requested(stream)
    run, declined = queue_at_order(
        stream.order.number, lambda: run_refund(number), lambda: decline_refund(number, "cora")
    )
    refund = Refund.objects.get()
    sent = patient.count("refund")
    assert (refund.state, sent) in (("DECLINED", 0), ("SUCCEEDED", 1)), (run, declined)
    assert_sound(stream.order)


def test_the_daily_budget_is_not_passed_by_two_refunds_at_once(patient, settings):
    """M3: the budget is judged one refund at a time, although the two orders have locks of their own."""
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": {"DAILY_MINOR": 1500}}
    for _ in range(2):
        first, second = two_pending(patient)
        apply(first, view_of(first))
        apply(second, view_of(second))
    numbers = list(Refund.objects.values_list("number", flat=True))
    results = run_together(*[lambda number=number: run_refund(number) for number in numbers])
    assert sorted(results) == [RefundRun.DONE, RefundRun.PARKED]
    assert patient.count("refund") == 1
