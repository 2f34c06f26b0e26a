"""Every arrow of a stream. One shape: repeat check, refusals by name, the writes, one event."""

from datetime import datetime
from enum import StrEnum

from payonce.channels.messages import PaymentView, Prepay
from payonce.payments.locks import Work
from payonce.payments.models import Stream
from payonce.payments.statuses import (
    BLOCKING_STREAM_STATES,
    WATCHED_STREAM_STATES,
    StreamRole,
    StreamState,
    SurplusReason,
)


class StreamMove(StrEnum):
    """What an attempted arrow came to."""

    MOVED = "moved"
    REPEAT = "repeat"  # it was so already: nothing changed
    NOT_CREATED = "not_created"
    NOT_PENDING = "not_pending"
    NOT_OPEN = "not_open"
    NOT_CLOSING = "not_closing"
    NOT_CAPTURING = "not_capturing"
    NOT_SURPLUS = "not_surplus"
    BLOCKED = "blocked"  # money may be on its way
    OTHER_OPEN = "other_open"  # another stream of the order is open
    FINAL = "final"  # SUCCEEDED never changes
    NO_PREPAY = "no_prepay"


def create(work: Work, stream: Stream) -> StreamMove:
    """∅ → CREATED: the intent is committed before the channel is called."""
    if work.open_stream is not None:
        return StreamMove.OTHER_OPEN
    stream.state = StreamState.CREATED
    work.add(stream)
    _event(
        work,
        stream,
        "stream.created",
        "",
        account=stream.account,
        method=stream.method,
        amount_minor=stream.amount_minor,
        currency=stream.currency,
    )
    return StreamMove.MOVED


def take_prepay(work: Work, stream: Stream, prepay: Prepay) -> StreamMove:
    """CREATED → PENDING: the channel took it; the prepay is stored and handed out in this commit."""
    if stream.state != StreamState.CREATED:
        return StreamMove.NOT_CREATED
    stream.prepay_kind = prepay.kind.value
    stream.prepay_value = prepay.value
    stream.prepay_expires_at = prepay.expires_at
    stream.channel_reference = prepay.channel_reference or stream.channel_reference
    stream.handed_out_at = work.at
    _end_call(stream)
    return _move(work, stream, StreamState.PENDING, "stream.pending", expires_at=prepay.expires_at.isoformat())


def take_back(work: Work, stream: Stream) -> StreamMove:
    """CLOSING → PENDING: the buyer chose it again and it cannot be closed anyway."""
    if stream.state == StreamState.PENDING:
        return StreamMove.REPEAT
    if stream.state != StreamState.CLOSING:
        return StreamMove.NOT_CLOSING
    if work.open_stream is not None:
        return StreamMove.OTHER_OPEN
    if not stream.prepay_value or stream.prepay_expires_at is None or stream.prepay_expires_at <= work.at:
        return StreamMove.NO_PREPAY
    stream.close_reason = ""
    stream.is_watched = False
    return _move(work, stream, StreamState.PENDING, "stream.taken_back")


def mark_processing(work: Work, stream: Stream) -> StreamMove:
    """CREATED, PENDING or CLOSING → PROCESSING: the buyer has acted; blocks switching and closing until answered.

    A closing stream beside another open one stays CLOSING, watched: at most one stream of an order is open.
    """
    if stream.state == StreamState.PROCESSING:
        return StreamMove.REPEAT
    if stream.state == StreamState.CAPTURING:
        return StreamMove.BLOCKED
    if stream.state == StreamState.CLOSING and work.open_stream is not None:
        return StreamMove.OTHER_OPEN
    if stream.state not in WATCHED_STREAM_STATES:
        return StreamMove.NOT_OPEN
    _end_call(stream)
    return _move(work, stream, StreamState.PROCESSING, "stream.processing")


def resume_waiting(work: Work, stream: Stream) -> StreamMove:
    """PROCESSING → PENDING: the channel says that the buyer can pay again."""
    if stream.state == StreamState.PENDING:
        return StreamMove.REPEAT
    if stream.state != StreamState.PROCESSING:
        return StreamMove.NOT_PENDING
    return _move(work, stream, StreamState.PENDING, "stream.pending")


def start_capture(work: Work, stream: Stream, key: str) -> StreamMove:
    """PENDING or PROCESSING → CAPTURING: our intent to take the money, with its key, before the call."""
    if stream.state == StreamState.CAPTURING:
        return StreamMove.REPEAT
    if stream.state not in (StreamState.PENDING, StreamState.PROCESSING):
        return StreamMove.NOT_PENDING
    stream.capture_key = key
    return _move(work, stream, StreamState.CAPTURING, "stream.capturing")


def start_closing(work: Work, stream: Stream, reason: str) -> StreamMove:
    """CREATED or PENDING → CLOSING: not wanted any more; the channel is asked next."""
    if stream.state in (StreamState.CLOSING, StreamState.CLOSED, StreamState.FAILED):
        return StreamMove.REPEAT
    if stream.state == StreamState.SUCCEEDED:
        return StreamMove.FINAL
    if stream.state in BLOCKING_STREAM_STATES:
        return StreamMove.BLOCKED
    stream.close_reason = reason[:32]
    stream.next_check_at = work.at
    _end_call(stream)
    return _move(work, stream, StreamState.CLOSING, "stream.closing", reason=reason)


def give_up(work: Work, stream: Stream, reason: str) -> StreamMove:
    """Any unfinished state → CLOSING, watched: past the channel's limit, on the word of the person who asked there."""
    if stream.state not in WATCHED_STREAM_STATES:
        return StreamMove.NOT_OPEN
    stream.close_reason = reason[:32]
    stream.is_watched = True
    if stream.state == StreamState.CLOSING:
        return StreamMove.REPEAT
    return _move(work, stream, StreamState.CLOSING, "stream.closing", reason=reason)


def watch(work: Work, stream: Stream) -> StreamMove:
    """CLOSING, not provable: recorded as watched, so that a new stream may open beside it."""
    if stream.is_watched:
        return StreamMove.REPEAT
    if stream.state != StreamState.CLOSING:
        return StreamMove.NOT_CLOSING
    stream.is_watched = True
    work.journal.write(
        work.order, "stream.watched", subject=stream.number, payable_until=stream.payable_until.isoformat()
    )
    return StreamMove.MOVED


def prove_closed(work: Work, stream: Stream, proof: str) -> StreamMove:
    """Any unpaid state → CLOSED, by `proof`: answer, query, expiry or restraint."""
    if stream.state in (StreamState.CLOSED, StreamState.FAILED):
        return StreamMove.REPEAT
    if stream.state == StreamState.SUCCEEDED:
        return StreamMove.FINAL
    stream.close_proof = proof
    stream.is_watched = False
    if proof != "restraint":
        stream.next_check_at = None
    _end_call(stream)
    return _move(work, stream, StreamState.CLOSED, "stream.closed", proof=proof)


def fail(work: Work, stream: Stream, code: str) -> StreamMove:
    """CREATED or CAPTURING → FAILED: the channel definitely refused it."""
    if stream.state == StreamState.FAILED:
        return StreamMove.REPEAT
    if stream.state == StreamState.SUCCEEDED:
        return StreamMove.FINAL
    if stream.state not in (StreamState.CREATED, StreamState.CAPTURING):
        return StreamMove.NOT_CREATED
    stream.failure_code = code[:64]
    stream.next_check_at = None
    _end_call(stream)
    return _move(work, stream, StreamState.FAILED, "stream.failed", code=stream.failure_code)


def succeed(
    work: Work, stream: Stream, view: PaymentView, role: StreamRole, reason: SurplusReason, confirmed_by: str
) -> StreamMove:
    """Any state → SUCCEEDED: money wins over whatever was believed before; final."""
    if stream.state == StreamState.SUCCEEDED:
        return StreamMove.REPEAT
    stream.role = role
    stream.surplus_reason = reason
    stream.captured_minor = view.paid_minor
    stream.captured_currency = view.currency
    stream.channel_reference = view.channel_reference or stream.channel_reference
    stream.channel_refunded_minor = view.refunded_minor
    stream.disputed_minor = view.disputed_minor
    stream.reversed_minor = view.reversed_minor
    stream.confirmed_by = confirmed_by
    stream.paid_at = view.paid_at
    stream.succeeded_at = work.at
    stream.next_check_at = None
    stream.is_watched = False
    stream.is_answer_unknown = False
    _end_call(stream)
    return _move(
        work,
        stream,
        StreamState.SUCCEEDED,
        "stream.succeeded",
        role=role,
        surplus=reason,
        captured_minor=view.paid_minor,
        currency=view.currency,
        channel_reference=view.channel_reference,
        confirmed_by=confirmed_by,
    )


def adopt(work: Work, stream: Stream, view: PaymentView, reason: SurplusReason, confirmed_by: str) -> StreamMove:
    """∅ → SUCCEEDED: money that no stream explains is recorded as a surplus stream of its own."""
    stream.state = StreamState.SUCCEEDED
    stream.role = StreamRole.SURPLUS
    stream.surplus_reason = reason
    stream.captured_minor = view.paid_minor
    stream.captured_currency = view.currency
    stream.channel_reference = view.channel_reference
    stream.confirmed_by = confirmed_by
    stream.paid_at = view.paid_at
    stream.succeeded_at = work.at
    work.add_now(stream)
    _event(
        work,
        stream,
        "stream.adopted",
        "",
        surplus=reason,
        captured_minor=view.paid_minor,
        currency=view.currency,
        channel_reference=view.channel_reference,
        origin=stream.origin_number,
    )
    return StreamMove.MOVED


def promote(work: Work, stream: Stream) -> StreamMove:
    """Surplus → keeper of an order that has none: the shop or a person accepts late money."""
    if stream.role == StreamRole.KEEPER:
        return StreamMove.REPEAT
    if stream.role != StreamRole.SURPLUS:
        return StreamMove.NOT_SURPLUS
    was = stream.surplus_reason
    stream.role = StreamRole.KEEPER
    stream.surplus_reason = SurplusReason.NONE
    work.journal.write(work.order, "stream.promoted", subject=stream.number, was=was)
    return StreamMove.MOVED


def note_facts(work: Work, stream: Stream, view: PaymentView, *, is_asked: bool) -> StreamMove:
    """SUCCEEDED stays; what the channel says about refunds, disputes and reversals is kept.

    What came unasked may be an old message told again: it never lowers a sum. An answer to a question may.
    """
    told = (view.refunded_minor, view.disputed_minor, view.reversed_minor)
    known = (stream.channel_refunded_minor, stream.disputed_minor, stream.reversed_minor)
    facts = told if is_asked else tuple(map(max, told, known))
    if facts == known:
        return StreamMove.REPEAT
    stream.channel_refunded_minor, stream.disputed_minor, stream.reversed_minor = facts
    work.journal.write(
        work.order,
        "stream.facts",
        subject=stream.number,
        refunded_minor=facts[0],
        disputed_minor=facts[1],
        reversed_minor=facts[2],
    )
    return StreamMove.MOVED


def lease_call(stream: Stream, lease: str, until: datetime) -> None:
    """Only the holder of this lease may store the answer of the call that follows."""
    stream.call_lease = lease
    stream.call_lease_until = until


def _end_call(stream: Stream) -> None:
    stream.call_lease = ""
    stream.call_lease_until = None


def _move(work: Work, stream: Stream, state: StreamState, kind: str, **facts: object) -> StreamMove:
    before = stream.state
    stream.state = state
    _event(work, stream, kind, before, **facts)
    return StreamMove.MOVED


def _event(work: Work, stream: Stream, kind: str, before: str, **facts: object) -> None:
    work.journal.write(work.order, kind, subject=stream.number, before=before, after=stream.state, **facts)
