"""What every arrow does, to the last field and fact: `arrow_effects.json` is the whole of it, and changes when a person has read it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from payonce.channels.messages import PaymentState, PaymentView, Prepay, PrepayKind
from payonce.orders import transitions as orders
from payonce.orders.events import Journal
from payonce.orders.models import Order
from payonce.payments.locks import Work
from payonce.payments.models import Discrepancy, Refund, Stream
from payonce.payments.statuses import DiscrepancyKind, DiscrepancyState, RefundState, StreamState
from payonce.payments.transitions import cases, refunds, streams

NOW = datetime(2026, 1, 1, tzinfo=UTC)
THEN, LATER = NOW - timedelta(hours=1), NOW + timedelta(hours=1)
FULL = {
    "call_lease": "lease",
    "call_lease_until": LATER,
    "next_check_at": LATER,
    "is_watched": True,
    "is_answer_unknown": True,
}
VIEW = PaymentView(
    "po1s01", PaymentState.PAID, channel_reference="ref", currency="EUR", paid_minor=900, refunded_minor=1, disputed_minor=2,
    reversed_minor=3, paid_at=THEN,
)  # fmt: skip
LONG = "x" * 200


class NoDatabase(Work):
    """Rows are kept and not written."""

    def add(self, row):
        self.new.append(row)

    def add_now(self, row):
        self.new.append(row)


def work_of(row=None, others=(), state="OPEN", **fields):
    order = Order(
        number="po1", amount_minor=1000, currency="CNY", state=state, next_expiry_at=LATER, expires_at=LATER,
        keeper="po1s09" if state in ("PAID", "REFUNDED") else None, **fields,
    )  # fmt: skip
    work = NoDatabase("default", order, list(others), Journal(NOW, "system:test"), _refunds=[], _cases=[])
    return work, order if row is None else row


def stream_in(state, **fields):
    fixed = {"number": "po1s01", "account": "a", "method": "qr", "amount_minor": 1000, "currency": "CNY"}
    row = Stream(pk=1, state=StreamState(state), **{**fixed, **FULL, **fields})
    return work_of(row, [row])


def new_stream():
    work, row = stream_in("PENDING")
    work.streams.clear()
    return work, row


def refund_in(state, released=False, **fields):
    work, _ = work_of()
    stream = Stream(pk=1, number="po1s01", captured_minor=1000, refund_reserved_minor=0 if released else 400)
    row = Refund(
        pk=1, number="po1s01rp1", stream=stream, purpose="operator", sequence=1, amount_minor=400, currency="CNY", reason="other",
        state=RefundState(state), is_released=released, requested_by="ann", next_try_at=LATER, call_lease="lease",
        call_lease_until=LATER, open_call_count=1, **fields,
    )  # fmt: skip
    work.streams.append(stream)
    work._refunds.append(row)
    return work, row


def case_in(state):
    work, _ = work_of()
    row = Discrepancy(pk=1, kind="duplicate", subject="po1s01", account="a", state=state, note="before")
    work._cases.append(row)
    return work, row


def plain(value):
    """A value as JSON has it: moments by their names, a run of one letter by its length."""
    if isinstance(value, datetime):
        return MOMENTS[value]
    if isinstance(value, str) and len(value) > 20 and len(set(value)) == 1:
        return f"{value[0]} × {len(value)}"
    return {name: plain(item) for name, item in value.items()} if isinstance(value, dict) else value


def effects(make, arrow):
    """What an arrow answered, every field that it changed (of the row, its stream and its order), and its events."""
    work, row = make()
    rows = {"": row}
    if isinstance(row, Refund):
        rows["stream."] = row.stream
    if row is not work.order:
        rows["order."] = work.order
    before = {prefix: dict(vars(item)) for prefix, item in rows.items()}
    answer = arrow(work, row)
    changed = {
        prefix + name: plain(value)
        for prefix, item in rows.items()
        for name, value in vars(item).items()
        if name not in ("_state", "version", "event_hash") and value != before[prefix].get(name)
    }
    events = [
        {
            "kind": event.kind,
            "subject": event.subject,
            "from": event.state_from,
            "to": event.state_to,
            "facts": plain(json.loads(event.body)["facts"]),
        }
        for event in work.journal.events
    ]
    return json.loads(json.dumps({"answer": answer, "changed": changed, "events": events, "inserted": len(work.new)}))


def beside(made):
    made[0].streams.append(Stream(pk=2, number="po1s02", state="PENDING"))
    return made


def unwatched(made):
    made[1].next_expiry_at = None
    return made


def gone(made):
    made[1].stream.refund_reserved_minor = 601
    return made


def answered(made):
    made[1].open_call_count = 0
    return made


def with_other(made, state, stream=1):
    made[0]._refunds.append(Refund(pk=2, number="po1s01rp2", stream_id=stream, state=state, amount_minor=1))
    return made


def new_refund(amount_minor=400, beside="", other_stream=False):
    work, row = refund_in("REQUESTED", True)
    work._refunds.clear()
    row.state, row.is_released, row.amount_minor = "", False, amount_minor
    if beside:
        with_other((work, row), beside, stream=9 if other_stream else 1)
    return work, row


MOMENTS = {NOW: "now", THEN: "then", LATER: "later"}
CASES = {
    # orders
    "order start": (lambda: unwatched(work_of(state="")), lambda work, row: orders.start(row, work.journal)),
    "order amend": (work_of, lambda work, row: orders.amend(row, work.journal, 2000, "CNY")),
    "order amend currency": (work_of, lambda work, row: orders.amend(row, work.journal, 1000, "EUR")),
    "order settle": (
        lambda: work_of(state="CLOSED"),
        lambda work, row: orders.settle(row, work.journal, "po1s01", THEN),
    ),
    "order settle at an unknown time": (work_of, lambda work, row: orders.settle(row, work.journal, "po1s01", None)),
    "order start_closing": (work_of, lambda work, row: orders.start_closing(row, work.journal, LONG)),
    "order close": (
        lambda: work_of(state="CLOSING", close_reason="expired"),
        lambda work, row: orders.close(row, work.journal),
    ),
    "order give_back a part": (
        lambda: work_of(state="PAID", refunded_minor=100),
        lambda work, row: orders.give_back(row, work.journal, 1, "r"),
    ),
    "order give_back the rest": (
        lambda: work_of(state="PAID", refunded_minor=400),
        lambda work, row: orders.give_back(row, work.journal, 600, "r"),
    ),
    "order give_back too much": (
        lambda: work_of(state="PAID", refunded_minor=400),
        lambda work, row: orders.give_back(row, work.journal, 601, "r"),
    ),
    "order give_back nothing": (
        lambda: work_of(state="PAID"),
        lambda work, row: orders.give_back(row, work.journal, 0, "r"),
    ),
    "order take_back a part": (
        lambda: work_of(state="PAID", refunded_minor=400),
        lambda work, row: orders.take_back(row, work.journal, 1, "r"),
    ),
    "order take_back all": (
        lambda: work_of(state="REFUNDED", refunded_minor=1000),
        lambda work, row: orders.take_back(row, work.journal, 1000, "r"),
    ),
    "order take_back too much": (
        lambda: work_of(state="PAID", refunded_minor=400),
        lambda work, row: orders.take_back(row, work.journal, 401, "r"),
    ),
    "order take_back nothing": (
        lambda: work_of(state="REFUNDED", refunded_minor=400),
        lambda work, row: orders.take_back(row, work.journal, 0, "r"),
    ),
    "order postpone_expiry": (work_of, lambda work, row: orders.postpone_expiry(row, THEN)),
    # streams
    "stream create": (new_stream, lambda work, row: streams.create(work, row)),
    "stream create beside an open one": (
        lambda: stream_in("PENDING"),
        lambda work, row: streams.create(work, Stream(state="")),
    ),
    "stream take_prepay": (
        lambda: stream_in("CREATED"),
        lambda work, row: streams.take_prepay(work, row, Prepay(PrepayKind.QR, "text", LATER, "ref")),
    ),
    "stream take_prepay without a reference": (
        lambda: stream_in("CREATED", channel_reference="old"),
        lambda work, row: streams.take_prepay(work, row, Prepay(PrepayKind.QR, "text", LATER)),
    ),
    "stream take_prepay twice": (
        lambda: stream_in("PENDING"),
        lambda work, row: streams.take_prepay(work, row, Prepay(PrepayKind.QR, "text", LATER)),
    ),
    "stream take_back": (
        lambda: stream_in("CLOSING", prepay_value="text", prepay_expires_at=LATER, close_reason="x"),
        lambda work, row: streams.take_back(work, row),
    ),
    "stream take_back without a prepay": (
        lambda: stream_in("CLOSING", prepay_expires_at=LATER),
        lambda work, row: streams.take_back(work, row),
    ),
    "stream take_back without an end": (
        lambda: stream_in("CLOSING", prepay_value="text"),
        lambda work, row: streams.take_back(work, row),
    ),
    "stream take_back at the end": (
        lambda: stream_in("CLOSING", prepay_value="text", prepay_expires_at=NOW),
        lambda work, row: streams.take_back(work, row),
    ),
    "stream take_back of a pending one": (lambda: stream_in("PENDING"), lambda work, row: streams.take_back(work, row)),
    "stream take_back of a closed one": (lambda: stream_in("CLOSED"), lambda work, row: streams.take_back(work, row)),
    "stream take_back beside an open one": (
        lambda: beside(stream_in("CLOSING", prepay_value="text", prepay_expires_at=LATER)),
        lambda work, row: streams.take_back(work, row),
    ),
    "stream mark_processing": (lambda: stream_in("CREATED"), lambda work, row: streams.mark_processing(work, row)),
    "stream mark_processing twice": (
        lambda: stream_in("PROCESSING"),
        lambda work, row: streams.mark_processing(work, row),
    ),
    "stream mark_processing while capturing": (
        lambda: stream_in("CAPTURING"),
        lambda work, row: streams.mark_processing(work, row),
    ),
    "stream mark_processing while closing": (
        lambda: stream_in("CLOSING"),
        lambda work, row: streams.mark_processing(work, row),
    ),
    "stream mark_processing beside an open one": (
        lambda: beside(stream_in("CLOSING")),
        lambda work, row: streams.mark_processing(work, row),
    ),
    "stream mark_processing when closed": (
        lambda: stream_in("CLOSED"),
        lambda work, row: streams.mark_processing(work, row),
    ),
    "stream resume_waiting": (lambda: stream_in("PROCESSING"), lambda work, row: streams.resume_waiting(work, row)),
    "stream resume_waiting twice": (lambda: stream_in("PENDING"), lambda work, row: streams.resume_waiting(work, row)),
    "stream resume_waiting when closed": (
        lambda: stream_in("CLOSED"),
        lambda work, row: streams.resume_waiting(work, row),
    ),
    "stream start_capture": (lambda: stream_in("PENDING"), lambda work, row: streams.start_capture(work, row, "key")),
    "stream start_capture of approved money": (
        lambda: stream_in("PROCESSING"),
        lambda work, row: streams.start_capture(work, row, "key"),
    ),
    "stream start_capture twice": (
        lambda: stream_in("CAPTURING"),
        lambda work, row: streams.start_capture(work, row, "key"),
    ),
    "stream start_capture while closing": (
        lambda: stream_in("CLOSING"),
        lambda work, row: streams.start_capture(work, row, "key"),
    ),
    "stream start_closing": (lambda: stream_in("PENDING"), lambda work, row: streams.start_closing(work, row, LONG)),
    **{
        f"stream start_closing when {state}": (
            lambda state=state: stream_in(state),
            lambda work, row: streams.start_closing(work, row, "x"),
        )
        for state in ("CLOSING", "CLOSED", "FAILED", "SUCCEEDED", "PROCESSING", "CAPTURING")
    },
    "stream give_up": (
        lambda: stream_in("PROCESSING", is_watched=False),
        lambda work, row: streams.give_up(work, row, LONG),
    ),
    "stream give_up while closing": (
        lambda: stream_in("CLOSING", is_watched=False),
        lambda work, row: streams.give_up(work, row, "x"),
    ),
    "stream give_up when closed": (lambda: stream_in("CLOSED"), lambda work, row: streams.give_up(work, row, "x")),
    "stream watch": (
        lambda: stream_in("CLOSING", is_watched=False, payable_until=LATER),
        lambda work, row: streams.watch(work, row),
    ),
    "stream watch twice": (lambda: stream_in("CLOSING"), lambda work, row: streams.watch(work, row)),
    "stream watch when open": (
        lambda: stream_in("PENDING", is_watched=False),
        lambda work, row: streams.watch(work, row),
    ),
    "stream prove_closed": (lambda: stream_in("CLOSING"), lambda work, row: streams.prove_closed(work, row, "answer")),
    "stream prove_closed by restraint": (
        lambda: stream_in("CLOSING"),
        lambda work, row: streams.prove_closed(work, row, "restraint"),
    ),
    **{
        f"stream prove_closed when {state}": (
            lambda state=state: stream_in(state),
            lambda work, row: streams.prove_closed(work, row, "x"),
        )
        for state in ("CLOSED", "FAILED", "SUCCEEDED")
    },
    "stream fail": (lambda: stream_in("CAPTURING"), lambda work, row: streams.fail(work, row, LONG)),
    **{
        f"stream fail when {state}": (
            lambda state=state: stream_in(state),
            lambda work, row: streams.fail(work, row, "x"),
        )
        for state in ("CREATED", "PENDING", "FAILED", "SUCCEEDED")
    },
    "stream succeed": (
        lambda: stream_in("CLOSED", channel_reference="old"),
        lambda work, row: streams.succeed(work, row, VIEW, "surplus", "late", "poll"),
    ),
    "stream succeed without a reference": (
        lambda: stream_in("PENDING", channel_reference="old"),
        lambda work, row: streams.succeed(
            work, row, PaymentView("po1s01", PaymentState.PAID, currency="CNY", paid_minor=1000), "keeper", "", "poll"
        ),
    ),
    "stream succeed twice": (
        lambda: stream_in("SUCCEEDED"),
        lambda work, row: streams.succeed(work, row, VIEW, "keeper", "", "poll"),
    ),
    "stream adopt": (
        lambda: stream_in("PENDING", origin_number="po1s00"),
        lambda work, row: streams.adopt(work, row, VIEW, "second_capture", "poll"),
    ),
    "stream promote": (
        lambda: stream_in("SUCCEEDED", role="surplus", surplus_reason="late"),
        lambda work, row: streams.promote(work, row),
    ),
    "stream promote twice": (
        lambda: stream_in("SUCCEEDED", role="keeper"),
        lambda work, row: streams.promote(work, row),
    ),
    "stream promote unpaid": (lambda: stream_in("PENDING", role=""), lambda work, row: streams.promote(work, row)),
    "stream note_facts": (
        lambda: stream_in("SUCCEEDED", channel_refunded_minor=5),
        lambda work, row: streams.note_facts(work, row, VIEW, is_asked=True),
    ),
    "stream note_facts unasked": (
        lambda: stream_in("SUCCEEDED", channel_refunded_minor=5),
        lambda work, row: streams.note_facts(work, row, VIEW, is_asked=False),
    ),
    "stream note_facts known": (
        lambda: stream_in("SUCCEEDED", channel_refunded_minor=1, disputed_minor=2, reversed_minor=3),
        lambda work, row: streams.note_facts(work, row, VIEW, is_asked=True),
    ),
    "stream lease_call": (lambda: stream_in("CREATED"), lambda work, row: streams.lease_call(row, "new", THEN)),
    # refunds
    "refund reserve": (
        lambda: new_refund(),
        lambda work, row: refunds.reserve(work, row.stream, row, RefundState.REQUESTED),
    ),
    "refund reserve all": (
        lambda: new_refund(amount_minor=1000),
        lambda work, row: refunds.reserve(work, row.stream, row, RefundState.AWAITING_APPROVAL),
    ),
    "refund reserve too much": (
        lambda: new_refund(amount_minor=1001),
        lambda work, row: refunds.reserve(work, row.stream, row, RefundState.REQUESTED),
    ),
    "refund reserve the smallest part": (
        lambda: new_refund(amount_minor=1),
        lambda work, row: refunds.reserve(work, row.stream, row, RefundState.REQUESTED),
    ),
    "refund reserve nothing": (
        lambda: new_refund(amount_minor=0),
        lambda work, row: refunds.reserve(work, row.stream, row, RefundState.REQUESTED),
    ),
    "refund reserve beside an active one": (
        lambda: new_refund(beside="UNKNOWN"),
        lambda work, row: refunds.reserve(work, row.stream, row, RefundState.REQUESTED),
    ),
    "refund reserve beside a finished one": (
        lambda: new_refund(beside="SUCCEEDED"),
        lambda work, row: refunds.reserve(work, row.stream, row, RefundState.REQUESTED),
    ),
    "refund reserve beside one of another stream": (
        lambda: new_refund(beside="UNKNOWN", other_stream=True),
        lambda work, row: refunds.reserve(work, row.stream, row, RefundState.REQUESTED),
    ),
    "refund approve": (
        lambda: refund_in("AWAITING_APPROVAL", approval_expires_at=LATER),
        lambda work, row: refunds.approve(work, row, "bob"),
    ),
    "refund approve without an end": (
        lambda: refund_in("AWAITING_APPROVAL"),
        lambda work, row: refunds.approve(work, row, "bob"),
    ),
    "refund approve at the end": (
        lambda: refund_in("AWAITING_APPROVAL", approval_expires_at=NOW),
        lambda work, row: refunds.approve(work, row, "bob"),
    ),
    "refund approve by the requester": (
        lambda: refund_in("AWAITING_APPROVAL"),
        lambda work, row: refunds.approve(work, row, "ann"),
    ),
    **{
        f"refund approve again when {state}": (
            lambda state=state: refund_in(state, approved_by="bob"),
            lambda work, row: refunds.approve(work, row, "bob"),
        )
        for state in ("REQUESTED", "SUBMITTED", "SUCCEEDED", "REJECTED")
    },
    "refund approve what another approved": (
        lambda: refund_in("REQUESTED", approved_by="cara"),
        lambda work, row: refunds.approve(work, row, "bob"),
    ),
    "refund decline": (
        lambda: refund_in("AWAITING_APPROVAL"),
        lambda work, row: refunds.decline(work, row, "bob", "no"),
    ),
    "refund decline by the requester": (
        lambda: refund_in("REQUESTED", approved_by="bob"),
        lambda work, row: refunds.decline(work, row, "ann", "no"),
    ),
    "refund decline when sent": (
        lambda: refund_in("REQUESTED", first_sent_at=THEN),
        lambda work, row: refunds.decline(work, row, "bob", "no"),
    ),
    "refund decline twice": (
        lambda: refund_in("DECLINED", True),
        lambda work, row: refunds.decline(work, row, "bob", "no"),
    ),
    "refund submit": (lambda: refund_in("UNKNOWN"), lambda work, row: refunds.submit(work, row, LONG)),
    "refund submit again accepted": (
        lambda: refund_in("UNKNOWN", channel_reference="old", accepted_at=THEN),
        lambda work, row: refunds.submit(work, row, ""),
    ),
    "refund lose_sight": (lambda: refund_in("REQUESTED"), lambda work, row: refunds.lose_sight(work, row, LONG)),
    "refund need_attention": (
        lambda: refund_in("SUBMITTED"),
        lambda work, row: refunds.need_attention(work, row, "code"),
    ),
    "refund succeed": (lambda: refund_in("SUBMITTED"), lambda work, row: refunds.succeed(work, row, "ref")),
    "refund succeed after all": (
        lambda: refund_in("REJECTED", True),
        lambda work, row: refunds.succeed(work, row, "ref"),
    ),
    "refund succeed where the money is gone": (
        lambda: gone(refund_in("REJECTED", True)),
        lambda work, row: refunds.succeed(work, row, "ref"),
    ),
    "refund succeed twice": (lambda: refund_in("SUCCEEDED"), lambda work, row: refunds.succeed(work, row, "ref")),
    "refund succeed after it was returned": (
        lambda: refund_in("RETURNED", True),
        lambda work, row: refunds.succeed(work, row, "ref"),
    ),
    "refund reject": (lambda: refund_in("SUBMITTED"), lambda work, row: refunds.reject(work, row, "code")),
    "refund retry": (lambda: refund_in("REJECTED"), lambda work, row: refunds.retry(work, row)),
    "refund retry what was given up": (lambda: refund_in("REJECTED", True), lambda work, row: refunds.retry(work, row)),
    "refund retry where the money is gone": (
        lambda: gone(refund_in("REJECTED", True)),
        lambda work, row: refunds.retry(work, row),
    ),
    "refund retry beside an active one": (
        lambda: with_other(refund_in("REJECTED"), "UNKNOWN"),
        lambda work, row: refunds.retry(work, row),
    ),
    "refund retry beside a finished one": (
        lambda: with_other(refund_in("REJECTED"), "SUCCEEDED"),
        lambda work, row: refunds.retry(work, row),
    ),
    "refund retry beside one of another stream": (
        lambda: with_other(refund_in("REJECTED"), "UNKNOWN", stream=9),
        lambda work, row: refunds.retry(work, row),
    ),
    "refund write_off with a call unanswered": (
        lambda: refund_in("REJECTED", replay_safe_until=LATER),
        lambda work, row: refunds.write_off(work, row),
    ),
    "refund write_off with a call unanswered for ever": (
        lambda: refund_in("REJECTED"),
        lambda work, row: refunds.write_off(work, row),
    ),
    "refund write_off past its window": (
        lambda: refund_in("REJECTED", replay_safe_until=NOW),
        lambda work, row: refunds.write_off(work, row),
    ),
    "refund write_off unknown past its window": (
        lambda: refund_in("UNKNOWN", replay_safe_until=THEN),
        lambda work, row: refunds.write_off(work, row),
    ),
    "refund write_off unknown in its window": (
        lambda: refund_in("UNKNOWN", replay_safe_until=LATER),
        lambda work, row: refunds.write_off(work, row),
    ),
    "refund write_off submitted past its window": (
        lambda: refund_in("SUBMITTED", replay_safe_until=THEN),
        lambda work, row: refunds.write_off(work, row),
    ),
    "refund write_off answered": (
        lambda: answered(refund_in("REJECTED")),
        lambda work, row: refunds.write_off(work, row),
    ),
    "refund write_off twice": (lambda: refund_in("REJECTED", True), lambda work, row: refunds.write_off(work, row)),
    "refund return_money": (lambda: refund_in("SUCCEEDED"), lambda work, row: refunds.return_money(work, row)),
    "refund return_money twice": (
        lambda: refund_in("RETURNED", True),
        lambda work, row: refunds.return_money(work, row),
    ),
    "refund return_money unfinished": (
        lambda: refund_in("SUBMITTED"),
        lambda work, row: refunds.return_money(work, row),
    ),
    "refund lease_call": (lambda: refund_in("REQUESTED"), lambda work, row: refunds.lease_call(row, "new", THEN)),
    "refund end_call": (lambda: refund_in("REQUESTED"), lambda work, row: refunds.end_call(row)),
    # cases
    "case start_repair": (lambda: case_in("OPEN"), lambda work, row: cases.start_repair(work, row)),
    "case start_repair twice": (
        lambda: case_in("REPAIRING"),
        lambda work, row: cases.start_repair(work, row, Refund(pk=7)),
    ),
    "case start_repair when resolved": (lambda: case_in("RESOLVED"), lambda work, row: cases.start_repair(work, row)),
    "case hand_to_person": (lambda: case_in("REPAIRING"), lambda work, row: cases.hand_to_person(work, row, "n" * 600)),
    "case hand_to_person twice": (lambda: case_in("OPEN"), lambda work, row: cases.hand_to_person(work, row, "why")),
    "case hand_to_person when resolved": (
        lambda: case_in("RESOLVED"),
        lambda work, row: cases.hand_to_person(work, row, "why"),
    ),
    "case resolve": (lambda: case_in("OPEN"), lambda work, row: cases.resolve(work, row, "refund", LONG, "n" * 600)),
    "case resolve without a note": (
        lambda: case_in("REPAIRING"),
        lambda work, row: cases.resolve(work, row, "refund", "bob"),
    ),
    "case resolve twice": (lambda: case_in("RESOLVED"), lambda work, row: cases.resolve(work, row, "refund", "bob")),
    "case resolve_alone": (
        lambda: case_in("OPEN"),
        lambda work, row: cases.resolve_alone(row, "keep", LONG, "n" * 600, NOW),
    ),
    "case resolve_alone twice": (
        lambda: case_in("RESOLVED"),
        lambda work, row: cases.resolve_alone(row, "keep", "bob", "n", NOW),
    ),
}
EXPECTED = json.loads((Path(__file__).parent / "arrow_effects.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CASES)
def test_an_arrow_does_exactly_this(name):
    """S2, S10, M2, S15: the answer, every changed field, and one event with its facts for a change, none for a refusal."""
    assert effects(*CASES[name]) == EXPECTED[name]


def test_nothing_is_expected_of_an_arrow_that_is_not_tried():
    assert set(EXPECTED) == set(CASES)


def test_an_opened_case_says_everything_once():
    """M3, S14: an unresolved case of the same kind, subject and account is the same case."""
    work, stream = stream_in("SUCCEEDED", captured_currency="EUR")
    kind = DiscrepancyKind.DUPLICATE
    made = cases.open_case(work, kind, "s" * 50, "t" * 400, stream=stream, amount_minor=7, when=NOW, count=1)
    facts = (
        made.kind,
        made.subject,
        made.state,
        made.order,
        made.stream,
        made.refund,
        made.account,
        made.amount_minor,
        made.currency,
    )
    assert facts == ("duplicate", "s" * 50, "OPEN", work.order, stream, None, "a", 7, "EUR")
    assert (made.summary, made.opened_at) == ("t" * 300, NOW)
    assert made.evidence == '{"count": 1, "when": "2026-01-01 00:00:00+00:00"}'
    (event,) = work.journal.events
    assert (event.kind, event.subject, event.state_from, event.state_to) == ("case.opened", "s" * 40, "", "OPEN")
    assert json.loads(event.body)["facts"] == {"case": "duplicate", "amount_minor": 7, "summary": "t" * 300}
    work._cases.append(made)
    assert cases.open_case(work, kind, "s" * 50, "again", stream=stream) is made
    assert cases.open_case(work, DiscrepancyKind.MISMATCH, "s" * 50, "other kind", stream=stream) is not made
    assert cases.open_case(work, kind, "other", "other subject", stream=stream) is not made
    assert cases.open_case(work, kind, "s" * 50, "other account") is not made
    assert len(work.new) == 4


def test_a_case_grows_once_with_more_money_and_says_so_as_briefly_as_when_it_was_opened():
    """M1, S10: the same sum again changes nothing, and a long subject or sentence fits its column."""
    work, stream = stream_in("SUCCEEDED")
    kind = DiscrepancyKind.DISPUTE
    case = cases.open_case(work, kind, "s" * 50, "first", stream=stream, amount_minor=7, first=1)
    work._cases.append(case)
    cases.open_case(work, kind, "s" * 50, "t" * 400, stream=stream, amount_minor=8, second=2)
    assert (case.amount_minor, case.summary, case.evidence) == (8, "t" * 300, '{"first": 1, "second": 2}')
    cases.open_case(work, kind, "s" * 50, "the same sum", stream=stream, amount_minor=8, third=3)
    assert (case.summary, case.evidence) == ("t" * 300, '{"first": 1, "second": 2}')
    _opened, grown = work.journal.events
    assert (grown.kind, grown.subject) == ("case.grown", "s" * 40)
    assert json.loads(grown.body)["facts"] == {"case": "dispute", "amount_minor": 8, "was_minor": 7}
    cases.start_repair(work, case)
    assert work.journal.events[-1].subject == "s" * 40


def test_a_case_without_a_stream_and_one_without_an_order():
    work, _ = work_of()
    made = cases.open_case(work, DiscrepancyKind.INCONSISTENT, "s", "text", state=DiscrepancyState.REPAIRING)
    assert (made.account, made.currency, made.amount_minor, made.state, made.evidence) == (
        "",
        "CNY",
        0,
        "REPAIRING",
        "{}",
    )
    unpaid = cases.open_case(work, DiscrepancyKind.INCONSISTENT, "s", "text", stream=stream_in("PENDING")[1])
    assert unpaid.currency == "CNY"
    alone = cases.new_alone(DiscrepancyKind.ORPHAN, "a", "s" * 200, "t" * 400, NOW, 5, "CNYX")
    assert (alone.kind, alone.account, alone.subject, alone.state) == ("orphan", "a", "s" * 128, "OPEN")
    assert (alone.summary, alone.opened_at, alone.amount_minor, alone.currency) == ("t" * 300, NOW, 5, "CNY")
    assert (cases.new_alone(DiscrepancyKind.ORPHAN, "a", "s", "t", NOW).amount_minor, alone.order) == (0, None)
