"""A third look, with the eye of somebody who wants to break it: each test is named by what should hold."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from payonce.channels.http.public import TIMEOUT_TOTAL_SECONDS
from payonce.channels.messages import (
    CloseAnswer,
    CloseProof,
    CloseState,
    Known,
    NotAuthentic,
    Notice,
    NotificationRequest,
    RefundState,
    RefundView,
    Unknown,
)
from payonce.orders.models import Event
from payonce.orders.place import place_order
from payonce.payments import close, message_rows, publish, refund, sweep
from payonce.payments.capture import Captured, capture_stream
from payonce.payments.models import Discrepancy, Refund, ShopMessage, Stream
from payonce.payments.notify import receive
from payonce.payments.pay import pay_order
from payonce.payments.refund import RefundRun, request_refund, run_refund
from payonce.payments.surplus import decide_case
from payonce.payments.transitions.refunds import RefundMove
from tests.factories import apply, open_order, paid_stream, pending_stream, view_of
from tests.found.test_refund_money import once
from tests.found.test_second_look import surplus  # noqa: F401 - a fixture
from tests.path.test_settle import late_stream

# Refunds at the channel, and cases.


def paused_with_a_failure(scripted, clock, stream: Stream, outcome: object) -> Refund:
    """A worker asks about a refund of unknown outcome, hears that it failed, and is paused past its lease.

    Meanwhile another one hears the same, a person retries, and that call comes to `outcome`. Then the first one records.
    """
    row = Refund.objects.get()
    failed = Known(RefundView(row.number, RefundState.FAILED, 1000, "CNY", code="NOT_ENOUGH"))
    scripted.answers[stream.account, "refund"] += [Unknown("time-out"), outcome]
    assert run_refund(row.number) is RefundRun.UNKNOWN
    clock.advance(60)
    scripted.answers[stream.account, "query_refund"] += [failed] * 3

    def meanwhile() -> None:
        clock.advance(60)
        assert run_refund(row.number) is RefundRun.REJECTED
        assert refund.retry_refund(row.number, "alice") is RefundMove.MOVED
        assert run_refund(row.number) in (RefundRun.DONE, RefundRun.UNKNOWN)

    once(scripted, "query_refund", meanwhile)
    run_refund(row.number)
    row.refresh_from_db()
    return row


def test_an_answer_from_before_the_retry_does_not_undo_a_refund_that_was_done(scripted, surplus, clock):  # noqa: F811
    """M6, S2: "failed" was true when it was said; recorded after "done", it freed the money for a second refund."""
    done = Known(RefundView(Refund.objects.get().number, RefundState.DONE, 1000, "CNY", "rr"))
    row = paused_with_a_failure(scripted, clock, surplus, done)
    surplus.refresh_from_db()
    assert (row.state, surplus.refundable_minor) == ("SUCCEEDED", 0)


def test_an_answer_from_before_the_retry_proves_nothing_about_the_call_that_followed(scripted, surplus, clock):  # noqa: F811
    """M6: the retry's outcome is unknown, so its number may not be given up."""
    row = paused_with_a_failure(scripted, clock, surplus, Unknown("time-out"))
    assert refund.write_off_refund(row.number, "alice") is RefundMove.NOT_REJECTED


def test_a_case_grows_with_the_money_that_it_is_about(scripted):
    """M1: a dispute, and then a reversal beside it: the open case names the whole difference."""
    stream = paid_stream()
    apply(stream, view_of(stream, disputed_minor=300))
    apply(stream, view_of(stream, disputed_minor=300, reversed_minor=200))
    case = Discrepancy.objects.get()
    assert (case.kind, case.amount_minor, case.state) == ("dispute", 500, "OPEN")
    assert json.loads(case.evidence) == {"disputed_minor": 300, "reversed_minor": 200}
    grown = Event.objects.get(kind="case.grown")
    assert json.loads(grown.body)["facts"] == {"amount_minor": 500, "was_minor": 300, "case": "dispute"}


def test_a_case_tells_the_sum_that_it_grew_to(scripted):
    """M1: the operator reads the sentence, not only the amount."""
    stream = paid_stream()
    apply(stream, view_of(stream, refunded_minor=300))
    apply(stream, view_of(stream, refunded_minor=700))
    assert "700" in Discrepancy.objects.get(kind="outside_refund").summary


def test_a_case_does_not_shrink(scripted):
    """A person may have read the larger sum already, and the smaller one may be the older news."""
    stream = paid_stream()
    apply(stream, view_of(stream, refunded_minor=300))
    apply(stream, view_of(stream, refunded_minor=100))
    assert Discrepancy.objects.get().amount_minor == 300
    assert not Event.objects.filter(kind="case.grown").exists()


# Refunds by people.


@pytest.fixture
def part_given_back(scripted, settings) -> Discrepancy:
    """The case of late money that a person judges, after the shop gave 300 of its 1000 back."""
    settings.PAYONCE = {**settings.PAYONCE, "LATE_PAYMENT": "ASK"}
    stream, view = late_stream(scripted, paid_after_seconds=100)
    apply(stream, view)
    scripted.answers[stream.account, "query"] += [Known(view)] * 9
    assert run_refund(request_refund(stream.number, 300, reason="duplicate", by="shop:shop").number) is RefundRun.DONE
    return Discrepancy.objects.get(kind="late_payment")


def test_the_rest_of_surplus_money_can_be_refunded_after_a_part(scripted, part_given_back):
    """M3, S13: the case must not have only decisions that are refused."""
    assert decide_case(part_given_back.pk, "refund", "alice") == "done"
    rest = Refund.objects.get(purpose="surplus")
    assert (rest.amount_minor, run_refund(rest.number)) == (700, RefundRun.DONE)
    part_given_back.refresh_from_db()
    assert (part_given_back.state, part_given_back.decision) == ("RESOLVED", "refund")


def test_the_rest_of_surplus_money_can_be_kept_after_a_part(scripted, part_given_back):
    """M3, S13."""
    assert decide_case(part_given_back.pk, "keep", "alice", "the buyer agreed") == "done"
    part_given_back.refresh_from_db()
    assert (part_given_back.state, part_given_back.decision) == ("RESOLVED", "keep")
    assert scripted.count("refund") == 1


def test_surplus_money_that_was_given_back_cannot_be_kept(scripted, part_given_back):
    """M3: control: nothing is left to keep, and the part never becomes the order's payment."""
    assert decide_case(part_given_back.pk, "accept", "alice") == "refunding"
    stream = part_given_back.stream
    assert run_refund(request_refund(stream.number, 700, reason="duplicate", by="ann").number) is RefundRun.DONE
    assert decide_case(part_given_back.pk, "keep", "alice", "why not") == "repeat"
    assert decide_case(part_given_back.pk, "refund", "alice") == "repeat"
    assert Refund.objects.count() == 2


def test_a_large_refund_in_small_parts_waits_for_a_second_person(scripted, settings):
    """S15: below the limit one by one, and above it together."""
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": {"APPROVAL_MINOR": 500}}
    stream = paid_stream()
    first = request_refund(stream.number, 300, reason="duplicate", by="ann")
    assert (first.code, run_refund(first.number)) == ("requested", RefundRun.DONE)
    second = request_refund(stream.number, 300, reason="duplicate", by="ann")
    assert second.code == "awaiting_approval"
    assert refund.approve_refund(second.number, "ann") is RefundMove.SAME_PERSON
    assert refund.approve_refund(second.number, "bob") is RefundMove.MOVED
    assert run_refund(second.number) is RefundRun.DONE
    third = request_refund(stream.number, 100, reason="duplicate", by="ann")
    assert third.code == "requested", "what was approved counts no more: 300 and 100 are below the limit"


def test_an_operator_who_is_called_like_the_automaton_is_a_person(scripted, settings):
    """S15: a user name is free text, and must open no way around the second person."""
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": {"APPROVAL_MINOR": 500}, "LATE_PAYMENT": "ASK"}
    stream, view = late_stream(scripted, paid_after_seconds=100)
    apply(stream, view)
    decide_case(Discrepancy.objects.get().pk, "refund", "payonce")
    row = Refund.objects.get()
    assert row.state == "AWAITING_APPROVAL"
    assert refund.approve_refund(row.number, "operator:payonce") is RefundMove.SAME_PERSON
    assert Event.objects.get(kind="refund.requested").actor == "operator:payonce"


# Notifications.


def test_a_stale_notification_leads_to_a_question_about_the_refunds_too(scripted, surplus, clock):  # noqa: F811
    """X2: it may be the one that says that a refund came back, and nothing else would ever ask."""
    row = Refund.objects.get()
    assert run_refund(row.number) is RefundRun.DONE
    clock.advance(3600)
    scripted.notice = lambda request: NotAuthentic("stale", stale=True, number=surplus.number, dedupe_key="k")
    returned = Known(RefundView(row.number, RefundState.RETURNED, 1000, "CNY"))
    scripted.answers[surplus.account, "query_refund"].append(returned)
    for _ in range(3):
        receive(surplus.account, NotificationRequest(body=b"{}", headers={}))  # replayed: asked about once
    sweep.sweep_refund()
    row.refresh_from_db()
    assert (row.state, scripted.count("query_refund")) == ("RETURNED", 1)
    assert Discrepancy.objects.filter(kind="refund_stuck", state="OPEN").exists()


def test_two_notifications_whose_keys_begin_alike_are_two(scripted):
    """S7: a key that does not fit was cut, and the second payment was acknowledged as a repeat of the first and lost."""
    for tail in "ab":
        stream = pending_stream()
        notice = Notice("k" * 128 + tail, "paid", None, payment=view_of(stream))
        scripted.notice = lambda request, notice=notice: notice
        receive("scripted_a", NotificationRequest(body=b"{}", headers={}))
        answered = receive("scripted_a", NotificationRequest(body=b"{}", headers={})).answer.status == 200
        stream.refresh_from_db()
        assert answered == (stream.state == "SUCCEEDED"), "acknowledged means durable"


# Closing.


class Killed(BaseException):
    """As if the process had been killed at this moment."""


@pytest.mark.parametrize("moment", ["query", "close"])
def test_closing_goes_on_within_half_a_minute_after_its_process_was_killed(scripted, clock, moment):
    """L3: by the sweep of every five seconds, whoever began."""
    stream = pending_stream()

    def die() -> None:
        raise Killed

    once(scripted, moment, die)
    with pytest.raises(Killed):
        close.close_stream(stream.number, by="operator:ann")
    for _ in range(6):
        sweep.sweep_close()
        clock.advance(5)
    sweep.sweep_close()
    stream.refresh_from_db()
    assert stream.state == "CLOSED"


def test_a_closer_that_was_paused_past_its_claim_leaves_the_stream_to_the_next(scripted, clock):
    """S6: whoever took the claim over is at it; a second close in the same moment helps nobody."""
    stream = pending_stream()
    done = []

    def meanwhile() -> None:
        clock.advance(60)
        scripted.answers[stream.account, "close"].append(Known(CloseAnswer(CloseState.UNPROVED)))
        once(scripted, "close", lambda: done.append("asked"))
        sweep.sweep_close()

    once(scripted, "query", meanwhile)
    answer = close.close_stream(stream.number, by="operator:ann")
    assert done == ["asked"]
    assert (answer, scripted.count("close")) == (close.Closed.BUSY, 1)


# What a channel says about repeats.


def test_a_refund_is_not_repeated_past_the_moment_that_its_channel_named(scripted, surplus, clock):  # noqa: F811
    """M6: the answer itself says until when the same number is the same refund; then it may be a second one."""
    row = Refund.objects.get()
    until = row.created_at + timedelta(seconds=60)
    scripted.answers[surplus.account, "refund"].append(Unknown("time-out", replay_safe_until=until))
    assert run_refund(row.number) is RefundRun.UNKNOWN
    clock.advance(120)
    assert run_refund(row.number) is RefundRun.UNKNOWN
    assert (scripted.count("query_refund"), scripted.count("refund")) == (1, 1)


def test_a_prepay_is_not_repeated_past_the_moment_that_its_channel_named(scripted, clock):
    """S3: the number may not be registered a second time; it is closed, and another one opens."""
    order = open_order()
    until = order.created_at + timedelta(seconds=30)
    scripted.answers["scripted_a", "prepay"].append(Unknown("time-out", replay_safe_until=until))
    first = pay_order(order.number, "scripted_a", "qr")
    clock.advance(60)
    second = pay_order(order.number, "scripted_a", "qr")
    assert (first.code, second.code) == ("channel_unavailable", "prepay")
    assert second.stream != first.stream
    assert Stream.objects.get(number=first.stream).state == "CLOSED"


def test_a_capture_is_not_repeated_past_the_moment_that_its_channel_named(scripted, clock):
    """S6: past it only a query may tell."""
    scripted.overrides["scripted_a"] = {"captures": True, "close_proof": CloseProof.RESTRAINT}
    stream = pending_stream()
    until = stream.created_at + timedelta(seconds=30)
    scripted.answers["scripted_a", "capture"].append(Unknown("time-out", replay_safe_until=until))
    assert capture_stream(stream.number) is Captured.UNKNOWN
    clock.advance(60)
    assert capture_stream(stream.number) is Captured.NOT_WANTED
    assert scripted.count("capture") == 1


# Telling the shop.


def test_messages_go_on_within_half_a_minute_after_their_publisher_was_killed(scripted, clock):
    """L3: by the sweep of every five seconds."""
    open_order()
    paid_stream()
    assert message_rows.claim_due(publish.BATCH), "whoever claimed them is gone"
    clock.advance(2)  # the sweep does not come in step with the one that died
    told = 0
    for _ in range(6):
        told += sweep.sweep_publish()
        clock.advance(5)
    assert told == ShopMessage.objects.filter(state="DELIVERED").count() > 0


def test_a_batch_of_messages_ends_before_its_claim():
    """S11: every endpoint hangs; the next worker must not begin while this one still sends."""
    rounds = -(-publish.BATCH // publish.THREADS)
    assert rounds * TIMEOUT_TOTAL_SECONDS < message_rows.CLAIM_SECONDS


# What the shop and the channel do wrong.


def test_late_money_is_recorded_also_when_the_shop_hangs_while_it_is_asked(scripted, settings):
    """S7, M1: the database ends the idle transaction; the money goes to a person, as after an exception there."""
    stream, view = late_stream(scripted, paid_after_seconds=100)
    settings.PAYONCE = {**settings.PAYONCE, "SHOP": "tests.found.shops.HangingShop", "IDLE_TIMEOUT_MS": 100}
    assert apply(stream, view) == "surplus"
    assert Discrepancy.objects.get(kind="late_payment").state == "OPEN"
    assert not Refund.objects.exists()


def test_a_case_about_surplus_money_ends_when_all_of_it_is_back(scripted, settings):
    """S13: also by a refund that a person asked for on the stream's own page; a part of it ends nothing."""
    settings.PAYONCE = {**settings.PAYONCE, "LATE_PAYMENT": "ASK"}
    stream, view = late_stream(scripted, paid_after_seconds=100)
    apply(stream, view)
    for amount, state in ((300, "OPEN"), (700, "RESOLVED")):
        assert run_refund(request_refund(stream.number, amount, reason="duplicate", by="ann").number) is RefundRun.DONE
        assert Discrepancy.objects.get().state == state
    assert Discrepancy.objects.get().decided_by == "ann"


def test_money_that_is_not_what_its_stream_asked_for_is_never_accepted(scripted):
    """M9, S1: the order's new amount, paid under the number of the old one."""
    order = open_order()
    stream = pending_stream(order)
    place_order(order.source, order.reference, amount_minor=1200, currency="CNY", subject="A book", amend=True)
    assert apply(stream, view_of(stream, paid_minor=1200)) == "surplus"
    assert decide_case(Discrepancy.objects.get().pk, "accept", "ann") == "mismatched"


def test_a_payment_of_a_time_that_cannot_be_is_refunded_all_the_same(scripted):
    """X6: the window of refunds is reckoned from it."""
    stream = pending_stream()
    apply(stream, view_of(stream, at=datetime(9999, 12, 31, tzinfo=UTC)))
    asked = request_refund(stream.number, 1000, reason="duplicate", by="ann")
    assert (asked.code, run_refund(asked.number)) == ("requested", RefundRun.DONE)
