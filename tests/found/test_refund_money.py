"""Refunds: each test is named by what should hold."""

from datetime import timedelta

import pytest

from payonce.channels.messages import (
    Known,
    PaymentState,
    PaymentView,
    RefundState,
    RefundView,
    Refused,
    RefusedKind,
    Unknown,
)
from payonce.orders.models import Order
from payonce.payments import refund, sweep
from payonce.payments.locks import under_lock
from payonce.payments.models import Discrepancy, Refund, Stream
from payonce.payments.refund import RefundRun, request_refund, run_refund
from payonce.payments.refund_answer import apply_view
from payonce.payments.surplus import decide_case
from payonce.payments.transitions.refunds import RefundMove
from tests.factories import answer_paid, apply, paid_stream, view_of
from tests.path.test_settle import late_stream, two_open_ways

ASK = {"reason": "requested_by_customer", "by": "alice"}


@pytest.fixture
def surplus(scripted) -> Stream:
    """A stream that took money beside the keeper."""
    older, newer = two_open_ways(scripted)
    apply(older, view_of(older))
    apply(newer, view_of(newer))
    newer.refresh_from_db()
    return newer


def tell(number: str, state: RefundState, amount: int = 1000) -> None:
    """The channel says this about a refund, unasked."""
    view = RefundView(number, state, amount, "CNY", "rr")
    under_lock("channel:test", lambda work: apply_view(work, work.refund(number), view), refund=number)


def once(scripted, operation, action) -> None:
    """Do something while the channel is being asked."""

    def run(asked) -> None:
        scripted.before.pop(operation)
        action()

    scripted.before[operation] = run


def test_a_refund_that_a_person_took_back_while_its_worker_asked_is_not_sent(scripted, surplus):
    """M3, M6: "keep the money" was recorded before the refund was sent."""
    row, case = Refund.objects.get(), Discrepancy.objects.get()
    answer_paid(surplus)
    once(scripted, "query", lambda: decide_case(case.pk, "keep", "alice", "agreed"))
    run_refund(row.number)
    row.refresh_from_db()
    assert row.state == "DECLINED"
    assert scripted.count("refund") == 0


def test_late_money_accepted_as_the_payment_while_its_refund_asked_is_not_refunded(scripted):
    """M5: the keeper is never refunded automatically."""
    stream, view = late_stream(scripted, paid_after_seconds=100)
    assert apply(stream, view) == "surplus"
    row, case = Refund.objects.get(), Discrepancy.objects.get(kind="late_payment")
    scripted.answers[stream.account, "query"].append(Known(view))
    once(scripted, "query", lambda: decide_case(case.pk, "accept", "alice"))
    run_refund(row.number)
    order = Order.objects.get()
    assert (order.keeper, scripted.count("refund")) == (stream.number, 0)
    assert order.state == "PAID"


def test_a_late_done_does_not_undo_that_the_refund_came_back(scripted):
    """S2: RETURNED is newer news than DONE; the buyer does not have the money."""
    stream = paid_stream()
    asked = request_refund(stream.number, 1000, **ASK)
    run_refund(asked.number)
    tell(asked.number, RefundState.RETURNED)
    tell(asked.number, RefundState.DONE)
    assert Refund.objects.get().state == "RETURNED"
    assert Discrepancy.objects.filter(kind="refund_stuck", state="OPEN").exists()


def test_a_late_failure_does_not_free_the_money_of_a_refund_that_succeeded_on_retry(scripted, surplus):
    """M6, S2: failed, retried under its number, done; then the old failure is told again."""
    row = Refund.objects.get()
    answer_paid(surplus)
    failed = Known(RefundView(row.number, RefundState.FAILED, 1000, "CNY", "", code="NOT_ENOUGH"))
    scripted.answers[surplus.account, "refund"].append(failed)
    assert run_refund(row.number) is RefundRun.REJECTED
    refund.retry_refund(row.number, "alice")
    scripted.answers[surplus.account, "query_refund"].append(failed)
    assert run_refund(row.number) is RefundRun.DONE
    tell(row.number, RefundState.FAILED)  # the channel repeats an old notification
    surplus.refresh_from_db()
    assert surplus.refundable_minor == 0, "a second refund of the same money is possible"


def test_giving_a_returned_partial_refund_again_gives_no_more_than_that_part(scripted):
    """M1: a case about 300 must not refund all that is left of the keeper."""
    stream = paid_stream()
    asked = request_refund(stream.number, 300, **ASK)
    run_refund(asked.number)
    tell(asked.number, RefundState.RETURNED, 300)
    case = Discrepancy.objects.get(kind="refund_stuck")
    decide_case(case.pk, "refund", "alice")
    decide_case(case.pk, "refund", "bob")
    sweep.sweep_refund()
    again = Refund.objects.exclude(number=asked.number)
    assert [row.amount_minor for row in again] in ([], [300])


def test_a_refund_that_a_person_decided_is_not_held_back_by_the_automatic_limits(scripted, settings):
    """L2, M3: AUTO is off, the shop asked for a person, the person decided."""
    settings.PAYONCE = {**settings.PAYONCE, "LATE_PAYMENT": "ASK", "REFUND": {"AUTO": False}}
    stream, view = late_stream(scripted, paid_after_seconds=100)
    apply(stream, view)
    case = Discrepancy.objects.get()
    assert decide_case(case.pk, "refund", "alice") == "done"
    scripted.answers[stream.account, "query"] += [Known(view)] * 3
    assert run_refund(Refund.objects.get().number) is RefundRun.DONE


def test_a_large_refund_decided_on_a_case_waits_for_a_second_person(scripted, settings):
    """S15: from APPROVAL_MINOR on, what one operator asks for waits."""
    settings.PAYONCE = {**settings.PAYONCE, "LATE_PAYMENT": "ASK", "REFUND": {"APPROVAL_MINOR": 500}}
    stream, view = late_stream(scripted, paid_after_seconds=100)
    apply(stream, view)
    decide_case(Discrepancy.objects.get().pk, "refund", "alice")
    scripted.answers[stream.account, "query"] += [Known(view)] * 3
    sweep.sweep_refund()
    assert scripted.count("refund") == 0


def test_a_decision_on_one_case_leaves_no_other_case_repairing_without_a_refund(scripted, surplus):
    """S13, M3: the dispute's "keep" takes the duplicate's refund back."""
    apply(surplus, view_of(surplus, disputed_minor=100))
    dispute = Discrepancy.objects.get(kind="dispute")
    assert decide_case(dispute.pk, "keep", "alice", "we answer the dispute") == "done"
    assert Refund.objects.get().state == "DECLINED"
    assert Discrepancy.objects.get(kind="duplicate").state != "REPAIRING"


@pytest.mark.parametrize("facts", [{"disputed_minor": 1000}, {"reversed_minor": 1000}, {"refunded_minor": 1000}])
def test_an_adopted_capture_whose_money_left_is_not_refunded(scripted, facts):
    """M1: the channel answers by number, with the second capture listed beside the first."""
    stream = paid_stream()
    second = view_of(stream, reference="second")
    apply(stream, second)
    adopted = Stream.objects.exclude(pk=stream.pk).get()
    now = view_of(stream, captures=(view_of(stream, reference="second", **facts),))
    scripted.answers["scripted_a", "query"] += [Known(now)] * 3
    assert run_refund(Refund.objects.get(stream=adopted).number) is RefundRun.PARKED
    assert scripted.count("refund") == 0


def test_the_first_capture_is_never_adopted_when_a_query_for_the_second_names_it(scripted):
    """M5: the keeper's reference was not told when it settled."""
    from tests.factories import pending_stream

    stream = pending_stream()
    first = PaymentView(stream.number, PaymentState.PAID, "CNY", 1000)
    apply(stream, first)
    other = view_of(stream, reference="second")
    apply(stream, PaymentView(stream.number, PaymentState.PAID, "CNY", 1000, captures=(other,)))
    adopted = Stream.objects.get(role="surplus")
    scripted.answers["scripted_a", "query"].append(Known(view_of(stream, reference="first", captures=(other,))))
    run_refund(Refund.objects.get(stream=adopted).number)
    assert Stream.objects.filter(role="surplus").count() == 1


@pytest.mark.parametrize("what", ["payment unknown", "conflict", "throttled", "in progress"])
def test_a_refund_that_gets_nowhere_for_days_comes_to_a_person(scripted, surplus, clock, what):
    """S13, M3: never silence; a person's queue is OPEN, not REPAIRING."""
    row, account = Refund.objects.get(), surplus.account
    if what == "payment unknown":
        scripted.answers[account, "query"] += [Unknown("time-out")] * 500
    else:
        scripted.answers[account, "query"] += [Known(view_of(surplus))] * 500
    if what == "conflict":
        scripted.answers[account, "refund"] += [Refused(RefusedKind.CONFLICT, "NUMBER_USED")] * 500
    if what == "throttled":
        scripted.answers[account, "refund"] += [Refused(RefusedKind.THROTTLED, "429")] * 500
    if what == "in progress":
        going = Known(RefundView(row.number, RefundState.IN_PROGRESS, 1000, "CNY"))
        scripted.answers[account, "refund"].append(going)
        scripted.answers[account, "query_refund"] += [going] * 500
    for _ in range(60):
        sweep.sweep_refund()
        clock.advance(4 * 3600)
    sweep.sweep_refund()
    assert Discrepancy.objects.filter(state="OPEN").exists()


def test_a_refund_that_the_channel_contradicts_again_comes_to_a_person_within_minutes(scripted, surplus, clock):
    """S13: a sum that somebody gave back at the channel itself is refused for ever; nobody should wait days to learn it."""
    row, account = Refund.objects.get(), surplus.account
    scripted.answers[account, "query"] += [Known(view_of(surplus))] * 20
    scripted.answers[account, "refund"] += [Refused(RefusedKind.CONFLICT, "EXCEEDS")] * 20
    run_refund(row.number)
    assert not Discrepancy.objects.filter(state="OPEN").exists()  # one refusal may be about the moment
    for _ in range(6):
        clock.advance(30)
        sweep.sweep_refund()
    assert Discrepancy.objects.get(state="OPEN").refund == row
    row.refresh_from_db()
    assert row.next_try_at is not None  # and it goes on meanwhile, under the same number


def test_a_number_is_given_up_only_after_proof_that_it_moved_nothing(scripted, surplus, clock):
    """M6: the first call's outcome was unknown; the refusal of the repeat says nothing about it."""
    row, account = Refund.objects.get(), surplus.account
    scripted.answers[account, "query"] += [Known(view_of(surplus))] * 9
    scripted.answers[account, "refund"] += [Unknown("time-out"), Refused(RefusedKind.DECLINED, "ALREADY_REFUNDED")]
    run_refund(row.number)
    clock.advance(60)
    run_refund(row.number)
    assert refund.write_off_refund(row.number, "alice") is not RefundMove.MOVED


def test_a_rejected_refund_does_not_hide_a_refund_made_outside(scripted, surplus):
    """M1: what we did not move is not ours."""
    row, account = Refund.objects.get(), surplus.account
    answer_paid(surplus)
    scripted.answers[account, "refund"].append(Refused(RefusedKind.DECLINED, "NOT_ENOUGH"))
    assert run_refund(row.number) is RefundRun.REJECTED
    refund.write_off_refund(row.number, "alice")
    decide_case(Discrepancy.objects.get().pk, "refund", "alice")
    answer_paid(surplus, refunded_minor=1000)  # meanwhile somebody refunded it in the channel's console
    again = Refund.objects.exclude(pk=row.pk).get()
    run_refund(again.number)
    assert scripted.count("refund") == 1


def test_dry_run_never_calls_a_channel_also_for_a_repeat(scripted, surplus, settings):
    """The setting says: decides and records but never calls a channel."""
    row = Refund.objects.get()
    answer_paid(surplus)
    scripted.answers[surplus.account, "refund"].append(Refused(RefusedKind.DECLINED, "NOT_ENOUGH"))
    run_refund(row.number)
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": {"DRY_RUN": True}}
    refund.retry_refund(row.number, "alice")
    run_refund(row.number)
    assert scripted.count("refund") == 1


def test_a_person_can_end_an_unknown_refund_past_its_replay_window(scripted, clock):
    """S13: after the window only a person can go on; there must be a way."""
    scripted.overrides["scripted_b"] = {"refund_replay_window_seconds": 60}
    older, newer = two_open_ways(scripted)
    apply(older, view_of(older))
    apply(newer, view_of(newer))
    row = Refund.objects.get()
    answer_paid(newer)
    scripted.answers["scripted_b", "refund"].append(Unknown("time-out"))
    run_refund(row.number)
    clock.advance(5 * 86400)
    run_refund(row.number)
    case = Discrepancy.objects.get()
    assert case.state == "OPEN"
    tries = [refund.retry_refund(row.number, "alice"), refund.write_off_refund(row.number, "alice")]
    kept = decide_case(case.pk, "keep", "alice")
    decided = decide_case(case.pk, "refund", "alice")
    run_refund(row.number)
    row.refresh_from_db()
    assert row.state != "UNKNOWN", (tries, kept, decided)


def test_one_approval_that_cannot_be_declined_does_not_stop_the_refund_sweep(scripted, settings, clock, monkeypatch):
    """L3: a failure at one row is that row's."""
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": {"APPROVAL_MINOR": 500}}
    waiting = request_refund(paid_stream().number, 1000, **ASK)
    due = request_refund(paid_stream(channel="scripted_b").number, 100, **ASK)
    clock.advance(73 * 3600)

    def fail(number, **_):
        raise RuntimeError("its order is locked by somebody")

    monkeypatch.setattr(refund, "decline_refund", fail)
    try:
        sweep.sweep_refund()
    except RuntimeError:
        pass
    assert Refund.objects.get(number=due.number).state == "SUCCEEDED", waiting


def test_sums_of_the_channel_do_not_go_down_by_an_older_message(scripted):
    """S2: the paid notification, told again, still says that nothing was disputed."""
    stream = paid_stream()
    apply(stream, view_of(stream, disputed_minor=1000))
    from payonce.payments.settle import Evidence, apply_evidence
    from payonce.payments.statuses import Confirmation

    late = Evidence(stream.account, view_of(stream), Confirmation.NOTIFICATION)
    under_lock(
        "channel:test", lambda work: apply_evidence(work, work.stream(stream.number), late), stream=stream.number
    )
    stream.refresh_from_db()
    assert stream.disputed_minor == 1000


def test_late_money_after_a_cancel_is_not_in_time(scripted, settings):
    """The shop cancelled; the buyer paid a minute later, before the order would have expired."""
    from payonce.payments import expire
    from tests.factories import open_order, pending_stream
    from tests.found.shops import JudgingShop

    settings.PAYONCE = {**settings.PAYONCE, "SHOP": "tests.found.shops.JudgingShop"}
    JudgingShop.asked.clear()
    order = open_order()
    stream = pending_stream(order)
    assert expire.close_order(order.number, by="shop:shop") == "closed"
    order.refresh_from_db()
    apply(stream, view_of(stream, at=order.closed_at + timedelta(seconds=60)))
    assert JudgingShop.asked == [False]
