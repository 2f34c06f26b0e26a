"""A second look at the core after its repairs: each test is named by what should hold."""

import pytest

from payonce.channels.messages import (
    CloseAnswer,
    CloseProof,
    CloseState,
    Known,
    NotAuthentic,
    NotificationRequest,
    PaymentState,
    PaymentView,
    RefundState,
    RefundView,
    Refused,
    RefusedKind,
    Unknown,
)
from payonce.payments import close, refund, sweep
from payonce.payments.locks import under_lock
from payonce.payments.models import Discrepancy, Refund, Stream
from payonce.payments.notify import receive
from payonce.payments.refund import RefundRun, run_refund
from payonce.payments.refund_answer import apply_view
from payonce.payments.surplus import decide_case
from payonce.payments.transitions.refunds import RefundMove
from tests.factories import answer_paid, apply, open_order, paid_stream, pending_stream, view_of
from tests.path.test_settle import two_open_ways


def tell(number: str, state: RefundState, amount: int = 1000) -> None:
    """The channel says this about a refund, unasked."""
    view = RefundView(number, state, amount, "CNY", "rr")
    under_lock("channel:test", lambda work: apply_view(work, work.refund(number), view), refund=number)


def second_money(scripted) -> Stream:
    """A stream that took money beside its order's keeper; the channel confirms it whenever it is asked."""
    older, newer = two_open_ways(scripted)
    apply(older, view_of(older))
    apply(newer, view_of(newer))
    newer.refresh_from_db()
    scripted.answers[newer.account, "query"] += [Known(view_of(newer))] * 200
    return newer


@pytest.fixture
def surplus(scripted) -> Stream:
    return second_money(scripted)


@pytest.fixture
def windowed(scripted) -> Refund:
    """The refund of a surplus stream at a channel that keeps a number for a minute; its first call got no answer."""
    scripted.overrides["scripted_b"] = {"refund_replay_window_seconds": 60}
    second_money(scripted)
    row = Refund.objects.get()
    scripted.answers["scripted_b", "refund"].append(Unknown("time-out"))
    assert run_refund(row.number) is RefundRun.UNKNOWN
    return row


def test_an_old_failure_told_again_does_not_free_a_retried_refund_of_unknown_outcome(scripted, surplus):
    """M6: failed; retried by a person; the retry's answer was lost; then the old failure is told again."""
    row = Refund.objects.get()
    failed = Known(RefundView(row.number, RefundState.FAILED, 1000, "CNY", "", code="NOT_ENOUGH"))
    scripted.answers[surplus.account, "refund"] += [failed, Unknown("time-out")]
    assert run_refund(row.number) is RefundRun.REJECTED
    refund.retry_refund(row.number, "alice")
    scripted.answers[surplus.account, "query_refund"].append(failed)
    assert run_refund(row.number) is RefundRun.UNKNOWN
    tell(row.number, RefundState.FAILED)
    assert refund.write_off_refund(row.number, "alice") is not RefundMove.MOVED


def test_a_number_that_was_refused_after_a_lost_answer_can_be_given_up_once_the_channel_says_it_never_was(
    scripted, surplus, clock
):
    """S13: without a replay window there must be a proof that ends it: a query, days later, that finds nothing."""
    row, account = Refund.objects.get(), surplus.account
    no = Refused(RefusedKind.DECLINED, "ACCOUNT_CLOSED")
    scripted.answers[account, "refund"] += [Unknown("time-out"), *[no] * 50]
    run_refund(row.number)
    for _ in range(5):
        clock.advance(86_400)
        sweep.sweep_refund()
        refund.retry_refund(row.number, "alice")  # each asks first, and the channel does not know the number
    clock.advance(86_400)
    sweep.sweep_refund()
    assert refund.write_off_refund(row.number, "alice") is RefundMove.MOVED


def test_a_closing_stream_whose_answer_can_never_be_applied_becomes_a_case(scripted, clock):
    """S13, M7: as for the poller, so for the sweep that closes."""
    keeper = paid_stream()
    second = pending_stream()
    scripted.answers["scripted_a", "close"].append(Known(CloseAnswer(CloseState.UNPROVED)))
    close.close_stream(second.number, by="operator:ann")
    taken = Known(view_of(second, reference=keeper.channel_reference))
    scripted.answers["scripted_a", "query"] += [taken] * 300
    for _ in range(60):
        clock.advance(3600)
        sweep.sweep_close()
        sweep.sweep_poll()
        sweep.sweep_reconcile()
    assert Discrepancy.objects.filter(state="OPEN").exists()


@pytest.mark.parametrize("operation", ["refund", "query_refund"])
def test_a_refund_whose_answer_does_not_fit_becomes_a_case(scripted, surplus, clock, operation):
    """S13, M3: the money went back, and the reference that the channel gives is too long for its column."""
    row = Refund.objects.get()
    odd = Known(RefundView(row.number, RefundState.DONE, 1000, "CNY", "r" * 200))
    scripted.answers[surplus.account, "refund"].append(odd if operation == "refund" else Unknown("time-out"))
    scripted.answers[surplus.account, "query_refund"] += [odd] * 200
    for _ in range(60):
        sweep.sweep_refund()
        clock.advance(4 * 3600)
    row.refresh_from_db()
    assert row.state == "SUCCEEDED" or Discrepancy.objects.filter(state="OPEN").exists()


def test_a_refund_that_cannot_even_be_claimed_does_not_keep_its_place_at_the_head_of_the_queue(
    scripted, surplus, monkeypatch, clock
):
    """L2: a batch full of such rows must not starve the others."""
    from payonce.payments import refund_run

    bad = Refund.objects.get()
    clock.advance(5)
    second_money(scripted)
    good = Refund.objects.exclude(pk=bad.pk).get()
    real = refund_run._is_allowed

    def judge(work, row, stream):
        if row.number == bad.number:
            raise KeyError("a rule that cannot judge this row")
        return real(work, row, stream)

    monkeypatch.setattr(refund_run, "_is_allowed", judge)
    monkeypatch.setattr(sweep, "BATCH", 1)
    scripted.answers["scripted_b", "query"].clear()
    scripted.answers["scripted_b", "query"] += [Known(view_of(good.stream))] * 9
    for _ in range(4):
        sweep.sweep_refund()
        clock.advance(10)
    good.refresh_from_db()
    assert good.state == "SUCCEEDED"


def test_a_stale_notification_about_an_old_stream_is_asked_about_until_there_is_an_answer(scripted, clock):
    """X2, S13: the one query that it triggered got no answer."""
    stream = pending_stream()
    apply(stream, PaymentView(stream.number, PaymentState.CLOSED))
    clock.advance(3 * 86_400)
    scripted.notice = lambda request: NotAuthentic("stale", stale=True, number=stream.number, dedupe_key="k")
    receive("scripted_a", NotificationRequest(body=b"{}", headers={}))
    scripted.answers["scripted_a", "query"].append(Unknown("time-out"))
    answer_paid(stream)
    for _ in range(5):
        sweep.sweep_poll()
        clock.advance(3600)
    stream.refresh_from_db()
    assert stream.state == "SUCCEEDED" or Discrepancy.objects.filter(state="OPEN").exists()


@pytest.mark.parametrize("state", [PaymentState.IN_PROGRESS, PaymentState.UNCLEAR])
def test_an_unclear_stream_that_a_person_dismissed_does_not_come_back_as_another_case(scripted, clock, state):
    """S13: after the person's word the stream ends, or something goes on asking; no new case every five minutes."""
    scripted.overrides["scripted_a"] = {"enforces_expiry": False, "close_proof": CloseProof.EXPIRY}
    stream = pending_stream(open_order(expires_at=None))
    scripted.answers["scripted_a", "query"] += [Known(PaymentView(stream.number, state))] * 500
    scripted.answers["scripted_a", "close"] += [Known(CloseAnswer(CloseState.NOT_CLOSABLE))] * 500
    for _ in range(40):
        clock.advance(3600)
        sweep.sweep_poll()
    case = Discrepancy.objects.get(kind="stream_unclear")
    decide_case(case.pk, "dismiss", "alice", "the channel's support says it never came")
    for _ in range(6):
        clock.advance(600)
        sweep.sweep_poll()
        sweep.sweep_close()
        sweep.sweep_reconcile()
    assert not Discrepancy.objects.exclude(state="RESOLVED").exists()


def test_a_recheck_of_a_done_refund_does_not_ask_every_few_seconds_for_ever(scripted, surplus, clock):
    """No hot loop: an old failure triggers a query, and the channel keeps saying "in progress" about what it did."""
    row = Refund.objects.get()
    assert run_refund(row.number) is RefundRun.DONE
    going = Known(RefundView(row.number, RefundState.IN_PROGRESS, 1000, "CNY"))
    scripted.answers[surplus.account, "query_refund"] += [going] * 1000
    tell(row.number, RefundState.FAILED)
    for _ in range(60):
        sweep.sweep_refund()
        clock.advance(60)
    assert scripted.count("query_refund") <= 20


def test_a_refund_written_off_while_its_worker_asked_is_not_sent(scripted, windowed, clock):
    """M6: given up past its window by a person, while a worker waits for the channel."""
    clock.advance(50)

    def meanwhile(asked):
        scripted.before.pop("query_refund")
        clock.advance(30)
        assert refund.write_off_refund(windowed.number, "alice") is RefundMove.MOVED

    scripted.before["query_refund"] = meanwhile
    run_refund(windowed.number)
    assert scripted.count("refund") == 1


def test_a_repeat_is_not_sent_past_its_replay_window_by_a_slow_worker(scripted, windowed, clock):
    """M6: the window was open when the refund was claimed, and over when its worker came to send."""
    clock.advance(55)

    def slow(asked):
        scripted.before.pop("query_refund")
        clock.advance(10)

    scripted.before["query_refund"] = slow
    run_refund(windowed.number)
    assert scripted.count("refund") == 1
