"""Polling: a lost notification is a delay, an unknown answer changes no state, and silence ends in a person's queue."""

from datetime import timedelta

import pytest
from django.utils import timezone

from payonce.channels.messages import Known, PaymentState, PaymentView, Refused, RefusedKind, Unknown
from payonce.orders.models import Order
from payonce.payments import claims, poll, schedule, sweep
from payonce.payments.models import ChannelState, Discrepancy, Stream
from tests.factories import answer_paid, apply, open_order, pending_stream

UNKNOWN = Unknown("time-out")


def test_a_lost_notification_is_found(scripted, clock):
    """L1."""
    stream = pending_stream()
    assert poll.poll_due().asked == 0
    clock.advance(4)
    answer_paid(stream)
    assert poll.poll_due().applied == {"keeper": 1}
    stream.refresh_from_db()
    assert (stream.state, stream.confirmed_by) == ("SUCCEEDED", "poll")
    clock.advance(100)
    assert poll.poll_due().asked == 0


def test_the_ladder_asks_at_these_ages(scripted, clock):
    stream = pending_stream()
    ages = []
    for _ in range(10):
        stream.refresh_from_db()
        ages.append(round((stream.next_check_at - stream.created_at).total_seconds()))
        age_now = ages[-1] - (ages[-2] if len(ages) > 1 else 0)
        clock.advance(age_now + 0.2)
        assert poll.poll_due().asked == 1
    assert ages[:9] == [3, 10, 20, 30, 45, 60, 80, 100, 120]
    gaps = [later - earlier for earlier, later in zip(ages[:9], ages[1:9], strict=False)]
    assert max(gaps) <= 20


@pytest.mark.parametrize(
    "answer", [UNKNOWN, Refused(RefusedKind.CONFIG, "keys"), Refused(RefusedKind.THROTTLED, "429")]
)
def test_no_answer_changes_no_state(scripted, clock, answer):
    """S4: unknown is not failed."""
    stream = pending_stream()
    clock.advance(4)
    scripted.answers["scripted_a", "query"].append(answer)
    poll.poll_due()
    stream.refresh_from_db()
    assert (stream.state, stream.is_answer_unknown) == ("PENDING", True)
    assert stream.next_check_at is not None


def test_the_end_of_the_ladder_is_a_case_and_never_silence(scripted, clock):
    """S13."""
    stream = pending_stream()
    for _ in range(40):
        scripted.answers["scripted_a", "query"] = [UNKNOWN]
        clock.advance(7200)
        ChannelState.objects.update(open_until=None, failure_count=0)
        poll.poll_due()
    stream.refresh_from_db()
    assert (stream.state, stream.next_check_at) == ("PENDING", None)
    assert Discrepancy.objects.get().kind == "stream_unclear"


def test_open_after_its_time_is_proven_closed_by_the_last_look(scripted, clock):
    stream = pending_stream()
    clock.advance(3600 + 100)
    poll.poll_due()
    stream.refresh_from_db()
    assert (stream.state, stream.close_proof) == ("CLOSED", "expiry")


def test_an_approved_payment_is_captured_where_the_capture_is_ours(scripted, clock):
    scripted.overrides["scripted_a"] = {"captures": True}
    stream = pending_stream()
    clock.advance(4)
    scripted.answers["scripted_a", "query"].append(Known(PaymentView(stream.number, PaymentState.APPROVED)))
    poll.poll_due()
    stream.refresh_from_db()
    assert (stream.state, stream.confirmed_by, stream.capture_key) == ("SUCCEEDED", "capture", f"{stream.number}c1")


def test_a_lost_capture_answer_is_asked_about_and_repeated_under_the_same_key(scripted, clock):
    scripted.overrides["scripted_a"] = {"captures": True}
    stream = pending_stream()
    approved = Known(PaymentView(stream.number, PaymentState.APPROVED))
    scripted.answers["scripted_a", "query"] += [approved, approved]
    scripted.answers["scripted_a", "capture"].append(UNKNOWN)
    clock.advance(4)
    poll.poll_due()
    stream.refresh_from_db()
    assert stream.state == "CAPTURING"
    clock.advance(30)
    poll.poll_due()
    stream.refresh_from_db()
    assert stream.state == "SUCCEEDED"
    assert {message.key for name, _, message in scripted.calls if name == "capture"} == {f"{stream.number}c1"}


def test_money_approved_for_a_closed_order_is_not_captured(scripted, clock):
    scripted.overrides["scripted_a"] = {"captures": True}
    stream = pending_stream()
    Order.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    sweep.sweep_expire()
    Order.objects.update(next_expiry_at=timezone.now() - timedelta(seconds=1))
    sweep.sweep_expire()
    clock.advance(10)
    scripted.answers["scripted_a", "query"].append(Known(PaymentView(stream.number, PaymentState.APPROVED)))
    poll.poll_due()
    assert scripted.count("capture") == 0


def test_failures_in_a_row_open_the_breaker_and_one_answer_closes_it(scripted, clock):
    streams = [pending_stream(open_order()) for _ in range(schedule.BREAKER_FAILURES)]
    other = pending_stream(open_order(), "scripted_b")
    scripted.answers["scripted_a", "query"] += [UNKNOWN] * len(streams)
    clock.advance(4)
    assert poll.poll_due().answered == 1
    state = ChannelState.objects.get(name="scripted_a")
    assert state.failure_count == schedule.BREAKER_FAILURES
    assert state.open_until is not None
    clock.advance(21)
    report = poll.poll_due()
    assert report.asked == 1  # only the other account
    clock.advance(15)
    assert poll.poll_due().asked == 2  # one probe of the broken account, and the other account
    assert ChannelState.objects.get(name="scripted_a").failure_count == 0
    clock.advance(1)
    assert poll.poll_due().asked >= len(streams) - 1  # on a slow machine the probed one is due again
    assert other.state == "PENDING"


def test_one_stream_that_cannot_be_applied_does_not_stop_the_others(scripted, clock, monkeypatch):
    good, bad = pending_stream(open_order()), pending_stream(open_order())
    clock.advance(4)
    real = poll.close.record_query

    def record(number, *args, **kwargs):
        if number == bad.number:
            raise RuntimeError("a bug")
        return real(number, *args, **kwargs)

    monkeypatch.setattr(poll.close, "record_query", record)
    for stream in (good, bad):
        scripted.answers["scripted_a", "query"].append(_paid_when_asked)
        assert stream.state == "PENDING"
    assert poll.poll_due().applied == {"keeper": 1, "failed": 1}
    monkeypatch.undo()
    clock.advance(schedule.CLAIM_SECONDS + 1)
    scripted.answers["scripted_a", "query"].append(_paid_when_asked)
    assert poll.poll_due().applied == {"keeper": 1}


def test_a_nudge_makes_a_stream_due_at_most_every_three_seconds(scripted, clock):
    stream = pending_stream()
    assert poll.nudge(stream.number) is True
    assert poll.poll_due().asked == 1
    assert poll.nudge(stream.number) is False
    clock.advance(3.5)
    poll.poll_due()
    assert poll.nudge(stream.number) is True
    assert poll.nudge("nobody") is False


def test_an_operator_asks_now(scripted):
    stream = pending_stream()
    answer_paid(stream)
    assert poll.poll_stream(stream.number, "operator:alice") == "keeper"
    stream.refresh_from_db()
    assert stream.confirmed_by == "operator"


def test_a_watched_stream_is_asked_sooner_than_the_ladder(scripted, clock):
    stream = pending_stream()
    clock.advance(1800)
    poll.poll_due()
    pending = apply(stream, PaymentView(stream.number, PaymentState.UNCLEAR))
    assert pending == "waiting"
    risky = Stream.objects.get()
    assert risky.next_check_at - risky.last_answer_at <= timedelta(seconds=1800)
    assert (risky.next_check_at - risky.last_answer_at).total_seconds() < 1200


def test_a_killed_pollers_claim_comes_due_again(scripted, clock):
    """L3."""
    from payonce.payments.claims import claim_streams

    pending_stream()
    clock.advance(4)
    assert len(claim_streams(closing=False, per_account=10)) == 1
    assert claim_streams(closing=False, per_account=10) == []
    clock.advance(schedule.CLAIM_SECONDS + 1)
    assert len(claim_streams(closing=False, per_account=10)) == 1


def _paid_when_asked(ref):
    from tests.scripted import paid_view

    return Known(paid_view(ref))


def test_a_capture_asked_in_time_is_finished_although_the_order_expired_meanwhile(scripted, clock):
    """S16: the outcome of what we asked for is found out, never abandoned."""
    scripted.overrides["scripted_a"] = {"captures": True}
    stream = pending_stream()
    approved = Known(PaymentView(stream.number, PaymentState.APPROVED))
    scripted.answers["scripted_a", "query"] += [approved] * 4
    scripted.answers["scripted_a", "capture"].append(UNKNOWN)
    clock.advance(4)
    poll.poll_due()
    clock.advance(3600)
    sweep.sweep_expire()
    assert Order.objects.get().state == "CLOSING"
    poll.poll_due()
    assert (Order.objects.get().state, Stream.objects.get().state) == ("PAID", "SUCCEEDED")


def test_a_claimed_stream_is_not_claimed_again_before_its_lease_ends(scripted, clock):
    """S6, L3: what one poller has claimed is another one's business only after the lease."""
    stream = pending_stream()
    clock.advance(4)
    assert [item.stream.number for item in claims.claim_streams(closing=False, per_account=10)] == [stream.number]
    assert claims.claim_streams(closing=False, per_account=10) == []
    clock.advance(schedule.CLAIM_SECONDS + 1)
    assert [item.stream.number for item in claims.claim_streams(closing=False, per_account=10)] == [stream.number]
