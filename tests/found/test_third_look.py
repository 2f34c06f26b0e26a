"""A third look, with the eye of somebody who wants to break it: each test is named by what should hold."""

import json

from payonce.channels.messages import Known, RefundState, RefundView, Unknown
from payonce.orders.models import Event
from payonce.payments import refund
from payonce.payments.models import Discrepancy, Refund, Stream
from payonce.payments.refund import RefundRun, run_refund
from payonce.payments.transitions.refunds import RefundMove
from tests.factories import apply, paid_stream, view_of
from tests.found.test_refund_money import once
from tests.found.test_second_look import surplus  # noqa: F401 - a fixture


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
