"""Capture, where it is ours: nothing moves until we take it, so taking it is a step with its own intent and key."""

from enum import StrEnum

from payonce.channels.messages import CaptureRequest, Known, Outcome, PaymentView, Refused, RefusedKind
from payonce.orders.statuses import OrderState
from payonce.payments.call import call, capabilities_of, replay_safe_until
from payonce.payments.close import note_no_answer
from payonce.payments.locks import Work, under_lock
from payonce.payments.models import Stream
from payonce.payments.refs import payment_ref
from payonce.payments.settle import Evidence, apply_evidence, plan_check
from payonce.payments.statuses import Confirmation, StreamState
from payonce.payments.transitions import streams as arrows


class Captured(StrEnum):
    """What a capture came to."""

    PAID = "paid"
    REFUSED = "refused"  # definitely not taken
    UNKNOWN = "unknown"  # asked again under the same key
    NOT_WANTED = "not_wanted"  # the order or the stream no longer wants it: withholding is the close


def capture_stream(number: str, by: str = "system:capture") -> Captured:
    """Take the approved money of one stream. Safe to repeat: the key is fixed before the first call. Raises OrderNotFound."""
    stream = under_lock(by, lambda work: _intend(work, number), stream=number)
    if stream is None:
        return Captured.NOT_WANTED
    request = CaptureRequest(payment_ref(stream), stream.capture_key)
    outcome = call(stream.account, lambda channel: channel.capture(request))
    if isinstance(outcome, Refused) and outcome.kind is RefusedKind.CONFLICT:
        outcome = call(stream.account, lambda channel: channel.query(payment_ref(stream)))

    def record(work: Work) -> Captured:
        return _record(work, work.stream(number), outcome)

    return under_lock(by, record, stream=number)


def _intend(work: Work, number: str) -> Stream | None:
    """Under the lock: the order must be OPEN, or the capture asked before it began to close. Commits the key."""
    stream = work.stream(number)
    capabilities = capabilities_of(stream)
    if capabilities is None or not capabilities.captures:
        return None
    is_asked_before = stream.state == StreamState.CAPTURING
    wanted = (OrderState.OPEN, OrderState.CLOSING) if is_asked_before else (OrderState.OPEN,)
    if work.order.state not in wanted:
        return None
    if stream.state not in (StreamState.PENDING, StreamState.PROCESSING, StreamState.CAPTURING):
        return None
    is_stale = (stream.amount_minor, stream.currency) != (work.order.amount_minor, work.order.currency)
    if is_stale and stream.state != StreamState.CAPTURING:
        return None
    may_repeat = stream.replay_safe_until is None or stream.replay_safe_until > work.at
    if stream.state == StreamState.CAPTURING and not may_repeat:
        return None
    arrows.start_capture(work, stream, f"{stream.number}c1")
    plan_check(work, stream)
    return stream


def _record(work: Work, stream: Stream, outcome: Outcome[PaymentView]) -> Captured:
    if isinstance(outcome, Known):
        apply_evidence(work, stream, Evidence(stream.account, outcome.value, Confirmation.CAPTURE, work.at))
        return Captured.PAID if stream.state == StreamState.SUCCEEDED else Captured.UNKNOWN
    if isinstance(outcome, Refused) and outcome.kind is RefusedKind.DECLINED:
        arrows.fail(work, stream, outcome.code)
        return Captured.REFUSED
    note_no_answer(work, stream, outcome)
    stream.replay_safe_until = replay_safe_until(stream.replay_safe_until, outcome)
    plan_check(work, stream)
    return Captured.UNKNOWN
