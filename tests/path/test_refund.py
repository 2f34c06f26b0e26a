"""Refunds: one number, one movement, and an open outcome blocks another one."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from payonce.channels.messages import Known, RefundState, RefundView, Refused, RefusedKind, Unknown
from payonce.orders.models import Order
from payonce.payments import refund, sweep
from payonce.payments.models import Discrepancy, Refund, Stream
from payonce.payments.refund import RefundCode, RefundRun, request_refund, run_refund
from payonce.payments.surplus import decide_case
from payonce.payments.transitions.refunds import RefundMove
from tests.factories import answer_paid, apply, paid_stream, pending_stream, view_of
from tests.path.test_settle import two_open_ways

ASK = {"reason": "requested_by_customer", "by": "alice"}


@pytest.fixture
def surplus(scripted) -> Stream:
    """A stream that took money beside the keeper; its channel confirms it when asked."""
    older, newer = two_open_ways(scripted)
    apply(older, view_of(older))
    apply(newer, view_of(newer))
    scripted.before["query"] = lambda ref: None
    answer_paid(newer)
    newer.refresh_from_db()
    return newer


def view(number: str, state: RefundState, amount: int = 1000, currency: str = "CNY") -> Known:
    return Known(RefundView(number, state, amount, currency, "rr"))


def test_surplus_ends_as_exactly_one_refund(scripted, surplus):
    """M3."""
    row = Refund.objects.get()
    assert run_refund(row.number) is RefundRun.DONE
    assert run_refund(row.number) is RefundRun.NOT_DUE
    assert scripted.count("refund") == 1
    surplus.refresh_from_db()
    assert surplus.refund_reserved_minor == 1000
    case = Discrepancy.objects.get()
    assert (case.state, case.decision) == ("RESOLVED", "automatic")
    assert Order.objects.get().state == "PAID"


def test_an_unknown_outcome_is_queried_and_repeated_under_the_same_number(scripted, surplus, clock):
    """M6: the answer was lost, the refund had not happened."""
    row = Refund.objects.get()
    scripted.answers[surplus.account, "refund"].append(Unknown("time-out"))
    assert run_refund(row.number) is RefundRun.UNKNOWN
    clock.advance(30)
    answer_paid(surplus)
    assert run_refund(row.number) is RefundRun.DONE
    assert scripted.count("query_refund") == 1
    asked = [message.refund_number for name, _, message in scripted.calls if name == "refund"]
    assert asked == [row.number, row.number]


def test_a_lost_answer_of_a_done_refund_is_found_by_the_query(scripted, surplus, clock):
    row = Refund.objects.get()
    scripted.answers[surplus.account, "refund"].append(Unknown("time-out"))
    run_refund(row.number)
    clock.advance(30)
    scripted.answers[surplus.account, "query_refund"].append(view(row.number, RefundState.DONE))
    assert run_refund(row.number) is RefundRun.DONE
    assert scripted.count("refund") == 1


def test_past_its_replay_window_an_unknown_refund_is_only_asked_about(scripted, clock):
    """M6."""
    scripted.overrides["scripted_b"] = {"refund_replay_window_seconds": 60}
    older, newer = two_open_ways(scripted)
    apply(older, view_of(older))
    apply(newer, view_of(newer))
    row = Refund.objects.get()
    answer_paid(newer)
    scripted.answers["scripted_b", "refund"].append(Unknown("time-out"))
    run_refund(row.number)
    clock.advance(120)
    assert run_refund(row.number) is RefundRun.UNKNOWN
    assert scripted.count("refund") == 1


@pytest.mark.parametrize("facts", [{"disputed_minor": 1000}, {"reversed_minor": 1000}, {"refunded_minor": 1000}])
def test_an_automatic_refund_stops_where_money_left_without_us(scripted, facts):
    older, newer = two_open_ways(scripted)
    apply(older, view_of(older))
    apply(newer, view_of(newer))
    answer_paid(newer, **facts)
    row = Refund.objects.get()
    assert run_refund(row.number) is RefundRun.PARKED
    assert scripted.count("refund") == 0
    assert Discrepancy.objects.filter(kind="duplicate", state="OPEN").exists()


@pytest.mark.parametrize("policy", [{"AUTO": False}, {"MAX_MINOR": 999}, {"DAILY_MINOR": 500}, {"DRY_RUN": True}])
def test_a_refused_policy_parks_the_refund_for_a_person(scripted, surplus, settings, policy):
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": policy}
    row = Refund.objects.get()
    assert run_refund(row.number) is RefundRun.PARKED
    assert scripted.count("refund") == 0
    row.refresh_from_db()
    assert (row.state, row.next_try_at) == ("REQUESTED", None)
    case = Discrepancy.objects.get()
    assert case.state == "OPEN"
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": {**policy, "DRY_RUN": False}}
    assert decide_case(case.pk, "refund", "alice") == "done"
    assert run_refund(row.number) is RefundRun.DONE
    row.refresh_from_db()
    assert row.approved_by == "alice"


def test_a_person_may_keep_surplus_that_was_not_sent_back_yet(scripted, surplus):
    case = Discrepancy.objects.get()
    assert decide_case(case.pk, "keep", "alice", "agreed with the buyer") == "done"
    row = Refund.objects.get()
    surplus.refresh_from_db()
    assert (row.state, row.is_released, surplus.refund_reserved_minor) == ("DECLINED", True, 0)
    assert run_refund(row.number) is RefundRun.NOT_DUE


def test_a_channel_that_cannot_refund_goes_straight_to_a_person(scripted):
    scripted.overrides["scripted_b"] = {"refunds": False}
    older, newer = two_open_ways(scripted)
    apply(older, view_of(older))
    apply(newer, view_of(newer))
    assert not Refund.objects.exists()
    assert Discrepancy.objects.get().state == "OPEN"


def test_the_keeper_is_never_refunded_automatically(scripted):
    """M5: neither by the sweep nor by a forged row."""
    stream = paid_stream()
    sweep.sweep_refund()
    assert scripted.count("refund") == 0
    stream.refund_reserved_minor = 1000
    stream.save(update_fields=["refund_reserved_minor"])
    Refund.objects.create(
        number="x", stream=stream, purpose="surplus", sequence=1, amount_minor=1000, currency="CNY", state="REQUESTED",
        reason="duplicate", requested_by="payonce", created_at=stream.created_at, next_try_at=stream.created_at,
    )  # fmt: skip
    assert run_refund("x") is RefundRun.PARKED
    assert scripted.count("refund") == 0


def test_partial_refunds_leave_the_order_paid_until_everything_is_back(scripted):
    stream = paid_stream()
    first = request_refund(stream.number, 400, **ASK)
    assert first.code is RefundCode.REQUESTED
    assert run_refund(first.number) is RefundRun.DONE
    order = Order.objects.get()
    assert (order.state, order.refunded_minor) == ("PAID", 400)
    second = request_refund(stream.number, 600, **ASK)
    assert run_refund(second.number) is RefundRun.DONE
    order.refresh_from_db()
    assert (order.state, order.refunded_minor) == ("REFUNDED", 1000)
    assert request_refund(stream.number, 1, **ASK).code is RefundCode.TOO_MUCH


def test_a_second_refund_waits_for_the_first(scripted):
    stream = paid_stream()
    assert request_refund(stream.number, 400, **ASK).code is RefundCode.REQUESTED
    assert request_refund(stream.number, 400, **ASK).code is RefundCode.IN_PROGRESS


@pytest.mark.parametrize("amount", [0, -1, 1001, 10**15])
def test_an_amount_that_is_not_there_is_refused(scripted, amount):
    """M2."""
    stream = paid_stream()
    assert request_refund(stream.number, amount, **ASK).code is RefundCode.TOO_MUCH
    assert not Refund.objects.exists()


@pytest.mark.parametrize("amount", [1.0, "100", True, None])
def test_an_amount_that_is_no_whole_number_is_a_mistake(scripted, amount):
    """M8."""
    with pytest.raises(TypeError, match="whole number"):
        request_refund("s", amount, **ASK)


def test_the_database_itself_refuses_more_than_was_captured(scripted):
    """M2: a CHECK, whatever the code does."""
    stream = paid_stream()
    with pytest.raises(IntegrityError, match="payonce_stream_reserved"), transaction.atomic():
        Stream.objects.filter(pk=stream.pk).update(refund_reserved_minor=1001)


def test_a_stale_form_is_refused(scripted):
    stream = paid_stream()
    seen = refund.seen_token(stream)
    first = request_refund(stream.number, 400, seen=seen, **ASK)
    run_refund(first.number)
    assert request_refund(stream.number, 400, seen=seen, **ASK).code is RefundCode.STALE


@pytest.mark.parametrize("reason", ["", "because", "other"])
def test_a_reason_is_required(scripted, reason):
    stream = paid_stream()
    assert request_refund(stream.number, 1, reason=reason, by="alice").code is RefundCode.INVALID_REASON


@pytest.fixture
def awaiting(scripted, settings) -> Refund:
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": {"APPROVAL_MINOR": 500}}
    asked = request_refund(paid_stream().number, 1000, **ASK)
    assert asked.code is RefundCode.AWAITING_APPROVAL
    return Refund.objects.get()


def test_a_large_refund_waits_for_a_second_person(scripted, awaiting):
    """S15."""
    sweep.sweep_refund()
    assert scripted.count("refund") == 0
    assert refund.approve_refund(awaiting.number, "alice") is RefundMove.SAME_PERSON
    assert refund.approve_refund(awaiting.number, "bob") is RefundMove.MOVED
    assert refund.approve_refund(awaiting.number, "bob") is RefundMove.REPEAT
    assert refund.approve_refund(awaiting.number, "carol") is RefundMove.NOT_AWAITING
    sweep.sweep_refund()
    assert scripted.count("refund") == 1


def test_the_database_refuses_an_approver_who_asked(scripted, awaiting):
    """S15."""
    with pytest.raises(IntegrityError, match="payonce_refund_two_persons"), transaction.atomic():
        Refund.objects.update(approved_by="alice")


def test_a_declined_refund_frees_its_money(scripted, awaiting):
    assert refund.decline_refund(awaiting.number, "bob") is RefundMove.MOVED
    stream = Stream.objects.get()
    assert stream.refund_reserved_minor == 0
    assert request_refund(stream.number, 100, **ASK).number.endswith("rp2")


def test_an_approval_that_nobody_gave_runs_out(scripted, awaiting, clock):
    clock.advance(73 * 3600)
    assert refund.approve_refund(awaiting.number, "bob") is RefundMove.EXPIRED
    sweep.sweep_refund()
    awaiting.refresh_from_db()
    assert (awaiting.state, awaiting.is_released) == ("DECLINED", True)


@pytest.mark.parametrize("kind", [RefusedKind.DECLINED, RefusedKind.CONFIG])
def test_a_definite_no_keeps_the_reservation_for_a_person(scripted, kind, surplus):
    row = Refund.objects.get()
    scripted.answers[surplus.account, "refund"].append(Refused(kind, "NOT_ENOUGH"))
    assert run_refund(row.number) is RefundRun.REJECTED
    surplus.refresh_from_db()
    case = Discrepancy.objects.get()
    assert (surplus.refund_reserved_minor, case.state) == (1000, "OPEN")
    assert refund.retry_refund(row.number, "alice") is RefundMove.MOVED
    scripted.answers[surplus.account, "query_refund"].append(view(row.number, RefundState.FAILED))
    assert run_refund(row.number) is RefundRun.DONE
    assert [message.refund_number for name, _, message in scripted.calls if name == "refund"] == [row.number] * 2


def test_a_written_off_refund_frees_the_number_for_a_new_sequence(scripted, surplus):
    row = Refund.objects.get()
    scripted.answers[surplus.account, "refund"].append(Refused(RefusedKind.DECLINED, "no"))
    run_refund(row.number)
    assert refund.write_off_refund(row.number, "alice") is RefundMove.MOVED
    surplus.refresh_from_db()
    assert surplus.refund_reserved_minor == 0
    case = Discrepancy.objects.get()
    assert decide_case(case.pk, "refund", "alice") == "done"
    assert set(Refund.objects.values_list("number", flat=True)) == {row.number, row.number[:-1] + "2"}


def test_throttled_means_later_under_the_same_number(scripted, surplus, clock):
    row = Refund.objects.get()
    scripted.answers[surplus.account, "refund"].append(Refused(RefusedKind.THROTTLED, "429"))
    assert run_refund(row.number) is RefundRun.LATER
    clock.advance(60)
    answer_paid(surplus)
    assert run_refund(row.number) is RefundRun.DONE


def test_a_refund_that_needs_attention_blocks_another_and_goes_to_a_person(scripted, surplus):
    row = Refund.objects.get()
    scripted.answers[surplus.account, "refund"].append(view(row.number, RefundState.ATTENTION))
    assert run_refund(row.number) is RefundRun.ATTENTION
    assert Discrepancy.objects.get().state == "OPEN"
    assert request_refund(surplus.number, 1000, **ASK).code in (RefundCode.TOO_MUCH, RefundCode.IN_PROGRESS)


def test_a_returned_refund_frees_the_money_and_reopens_the_order(scripted):
    stream = paid_stream()
    asked = request_refund(stream.number, 1000, **ASK)
    run_refund(asked.number)
    assert Order.objects.get().state == "REFUNDED"
    from payonce.payments.locks import under_lock
    from payonce.payments.refund_answer import apply_view

    returned = RefundView(asked.number, RefundState.RETURNED, 1000, "CNY")
    under_lock("system:test", lambda work: apply_view(work, work.refund(asked.number), returned), refund=asked.number)
    order, row = Order.objects.get(), Refund.objects.get()
    stream.refresh_from_db()
    assert (order.state, order.refunded_minor, row.state, stream.refund_reserved_minor) == ("PAID", 0, "RETURNED", 0)
    assert Discrepancy.objects.get().kind == "refund_stuck"


def test_a_refund_done_with_another_amount_is_a_contradiction(scripted, surplus):
    row = Refund.objects.get()
    scripted.answers[surplus.account, "refund"].append(view(row.number, RefundState.DONE, amount=5))
    run_refund(row.number)
    row.refresh_from_db()
    assert row.state != "SUCCEEDED"
    assert Discrepancy.objects.filter(kind="contradiction").exists()


def test_a_refund_waits_for_its_delay(scripted, settings, clock):
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": {"DELAY_SECONDS": 600}}
    older, newer = two_open_ways(scripted)
    apply(older, view_of(older))
    apply(newer, view_of(newer))
    sweep.sweep_refund()
    assert scripted.count("refund") == 0
    clock.advance(601)
    answer_paid(newer)
    sweep.sweep_refund()
    assert scripted.count("refund") == 1


def test_the_window_of_the_channel_is_respected(scripted, clock):
    stream = paid_stream()
    clock.advance(timedelta(days=366).total_seconds())
    assert request_refund(stream.number, 1000, **ASK).code is RefundCode.NO_REFUNDS


def test_a_channel_without_partial_refunds(scripted):
    scripted.overrides["scripted_a"] = {"refunds_partial": False}
    stream = paid_stream()
    assert request_refund(stream.number, 400, **ASK).code is RefundCode.NO_PARTIAL
    assert request_refund(stream.number, 1000, **ASK).code is RefundCode.REQUESTED


def test_an_unpaid_stream_cannot_be_refunded(scripted):
    assert request_refund(pending_stream().number, 1, **ASK).code is RefundCode.NOT_PAID
