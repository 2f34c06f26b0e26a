"""Every (state, evidence) pair of a stream, written down: what it becomes and what the evidence came to."""

from datetime import timedelta

import pytest

from payonce.channels.messages import (
    CloseAnswer,
    CloseState,
    Known,
    PaymentState,
    PaymentView,
    Refused,
    RefusedKind,
    Unknown,
)
from payonce.orders.events import verify_chain
from payonce.orders.models import Event, Order
from payonce.payments import capture, close
from payonce.payments.locks import under_lock
from payonce.payments.models import Discrepancy, Stream
from payonce.payments.pay import pay_order
from payonce.payments.refs import payment_ref
from payonce.payments.settle import Evidence, apply_evidence
from payonce.payments.statuses import Confirmation
from tests.factories import apply, created_stream, open_order, paid_stream, pending_stream
from tests.scripted import paid_view

EVIDENCE = ("PAID", "OPEN", "NOT_FOUND", "APPROVED", "IN_PROGRESS", "CLOSED", "UNCLEAR")
TABLE = {
    # state:      {evidence: (state after, what it came to)}
    "CREATED": {
        "PAID": ("SUCCEEDED", "keeper"), "OPEN": ("CREATED", "waiting"), "NOT_FOUND": ("CREATED", "waiting"),
        "APPROVED": ("CREATED", "approved"), "IN_PROGRESS": ("PROCESSING", "processing"), "CLOSED": ("CLOSED", "closed"),
        "UNCLEAR": ("CREATED", "waiting"),
    },
    "PENDING": {
        "PAID": ("SUCCEEDED", "keeper"), "OPEN": ("PENDING", "waiting"), "NOT_FOUND": ("PENDING", "waiting"),
        "APPROVED": ("PENDING", "approved"), "IN_PROGRESS": ("PROCESSING", "processing"), "CLOSED": ("CLOSED", "closed"),
        "UNCLEAR": ("PENDING", "waiting"),
    },
    "PROCESSING": {
        "PAID": ("SUCCEEDED", "keeper"), "OPEN": ("PENDING", "waiting"), "NOT_FOUND": ("PROCESSING", "waiting"),
        "APPROVED": ("PROCESSING", "approved"), "IN_PROGRESS": ("PROCESSING", "processing"), "CLOSED": ("CLOSED", "closed"),
        "UNCLEAR": ("PROCESSING", "waiting"),
    },
    "CAPTURING": {
        "PAID": ("SUCCEEDED", "keeper"), "OPEN": ("CAPTURING", "waiting"), "NOT_FOUND": ("CAPTURING", "waiting"),
        "APPROVED": ("CAPTURING", "approved"), "IN_PROGRESS": ("CAPTURING", "processing"), "CLOSED": ("CLOSED", "closed"),
        "UNCLEAR": ("CAPTURING", "waiting"),
    },
    "CLOSING": {
        "PAID": ("SUCCEEDED", "keeper"), "OPEN": ("CLOSING", "waiting"), "NOT_FOUND": ("CLOSING", "waiting"),
        "APPROVED": ("CLOSING", "approved"), "IN_PROGRESS": ("PROCESSING", "processing"), "CLOSED": ("CLOSED", "closed"),
        "UNCLEAR": ("CLOSING", "waiting"),
    },
    "CLOSED": {
        "PAID": ("SUCCEEDED", "keeper"), "OPEN": ("CLOSED", "contradiction"), "NOT_FOUND": ("CLOSED", "no_news"),
        "APPROVED": ("CLOSED", "no_news"), "IN_PROGRESS": ("CLOSED", "contradiction"), "CLOSED": ("CLOSED", "repeat"),
        "UNCLEAR": ("CLOSED", "waiting"),
    },
    "FAILED": {
        "PAID": ("SUCCEEDED", "keeper"), "OPEN": ("FAILED", "no_news"), "NOT_FOUND": ("FAILED", "no_news"),
        "APPROVED": ("FAILED", "no_news"), "IN_PROGRESS": ("FAILED", "contradiction"), "CLOSED": ("FAILED", "repeat"),
        "UNCLEAR": ("FAILED", "waiting"),
    },
    "SUCCEEDED": {
        "PAID": ("SUCCEEDED", "repeat"), "OPEN": ("SUCCEEDED", "contradiction"), "NOT_FOUND": ("SUCCEEDED", "contradiction"),
        "APPROVED": ("SUCCEEDED", "no_news"), "IN_PROGRESS": ("SUCCEEDED", "no_news"), "CLOSED": ("SUCCEEDED", "contradiction"),
        "UNCLEAR": ("SUCCEEDED", "waiting"),
    },
}  # fmt: skip


def stream_in(state: str, scripted) -> Stream:
    """A stream that reached the state by the real steps."""
    made = _MAKE[state](scripted)
    made.refresh_from_db()
    assert made.state == state
    return made


def _processing(scripted) -> Stream:
    stream = pending_stream()
    apply(stream, PaymentView(stream.number, PaymentState.IN_PROGRESS))
    return stream


def _capturing(scripted) -> Stream:
    scripted.overrides["scripted_a"] = {"captures": True}
    stream = pending_stream()
    scripted.answers["scripted_a", "capture"].append(Unknown("time-out"))
    assert capture.capture_stream(stream.number) == "unknown"
    return stream


def _closing(scripted) -> Stream:
    stream = pending_stream()
    scripted.answers["scripted_a", "close"].append(Known(CloseAnswer(CloseState.NOT_CLOSABLE)))
    assert close.close_stream(stream.number, by="system:test") == "not_closable"
    return stream


def _closed(scripted) -> Stream:
    stream = pending_stream()
    assert close.close_stream(stream.number, by="system:test") == "proven"
    return stream


def _failed(scripted) -> Stream:
    scripted.answers["scripted_a", "prepay"].append(Refused(RefusedKind.DECLINED, "no"))
    order = open_order()
    assert pay_order(order.number, "scripted_a", "qr").code == "declined"
    return Stream.objects.get(order=order)


_MAKE = {
    "CREATED": lambda scripted: created_stream(),
    "PENDING": lambda scripted: pending_stream(),
    "PROCESSING": _processing,
    "CAPTURING": _capturing,
    "CLOSING": _closing,
    "CLOSED": _closed,
    "FAILED": _failed,
    "SUCCEEDED": lambda scripted: paid_stream(),
}


@pytest.mark.parametrize(("state", "evidence"), [(state, evidence) for state in TABLE for evidence in EVIDENCE])
def test_evidence_moves_a_stream_as_the_table_says(state, evidence, scripted):
    """S2, S4, M4: one row per pair; money always wins, and nothing else moves a state backwards."""
    stream = stream_in(state, scripted)
    events_before = Event.objects.filter(order=stream.order).count()
    if evidence == "PAID":
        view = paid_view(payment_ref(stream))
    else:
        view = PaymentView(stream.number, PaymentState(evidence))
    settled = apply(stream, view)
    stream.refresh_from_db()
    assert (stream.state, settled.value) == TABLE[state][evidence]
    order = Order.objects.get(pk=stream.order_id)
    events = list(Event.objects.filter(order=order))
    assert verify_chain(order, events) == len(events)
    moved = [event for event in events[events_before:] if event.subject == stream.number and event.state_to]
    own = [event for event in moved if event.kind.startswith("stream.")]
    assert len(own) == (1 if stream.state != state else 0)
    is_contradiction = Discrepancy.objects.filter(stream=stream, kind="contradiction").exists()
    assert is_contradiction == (settled.value == "contradiction")


@pytest.mark.parametrize("state", sorted(TABLE))
@pytest.mark.parametrize("evidence", ["OPEN", "NOT_FOUND", "IN_PROGRESS", "UNCLEAR"])
def test_an_answer_asked_before_the_last_one_changes_nothing(state, evidence, scripted):
    """S2: a slow query's answer that arrives after newer news is old news."""
    stream = stream_in(state, scripted)
    if stream.last_answer_at is None:
        apply(stream, PaymentView(stream.number, PaymentState.OPEN))
        stream.refresh_from_db()

    def decide(work):
        asked_at = stream.last_answer_at - timedelta(seconds=1)
        evidence_ = Evidence(
            stream.account, PaymentView(stream.number, PaymentState(evidence)), Confirmation.POLL, asked_at
        )
        return apply_evidence(work, work.stream(stream.number), evidence_)

    assert under_lock("system:test", decide, stream=stream.number) == "no_news"
    before = stream.state
    stream.refresh_from_db()
    assert stream.state == before
    assert not Discrepancy.objects.exists()


@pytest.mark.parametrize("answer", ["OPEN", "NOT_FOUND"])
@pytest.mark.parametrize("state", ["CREATED", "PENDING", "CLOSING"])
def test_no_payment_asked_after_the_end_of_its_time_proves_closing(state, answer, scripted, clock):
    """S4: only after payable_until, skew and grace, and only where the channel enforces expiry."""
    stream = stream_in(state, scripted)
    clock.advance(3600 + 60)
    assert apply(stream, PaymentView(stream.number, PaymentState(answer))) == "waiting"
    clock.advance(60)
    assert apply(stream, PaymentView(stream.number, PaymentState(answer))) == "closed"
    stream.refresh_from_db()
    assert (stream.state, stream.close_proof) == ("CLOSED", "expiry")


@pytest.mark.parametrize("state", ["PROCESSING", "CAPTURING"])
def test_time_alone_never_closes_a_stream_whose_money_may_be_on_its_way(state, scripted, clock):
    """S16."""
    stream = stream_in(state, scripted)
    clock.advance(7400)
    apply(stream, PaymentView(stream.number, PaymentState.NOT_FOUND))
    stream.refresh_from_db()
    assert stream.state == state


def test_time_proves_nothing_where_the_channel_does_not_enforce_it(scripted, clock):
    """S4."""
    scripted.overrides["scripted_a"] = {"enforces_expiry": False}
    stream = pending_stream()
    clock.advance(80_000)
    assert apply(stream, PaymentView(stream.number, PaymentState.NOT_FOUND)) == "waiting"
    stream.refresh_from_db()
    assert stream.state == "PENDING"
