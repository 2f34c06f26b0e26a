"""Every arrow of a refund, and of the reservation that it holds on its stream's capture."""

from datetime import datetime
from enum import StrEnum

from payonce.payments.locks import Work
from payonce.payments.models import Refund, Stream
from payonce.payments.statuses import ACTIVE_REFUND_STATES, RefundState


class RefundMove(StrEnum):
    """What an attempted arrow came to."""

    MOVED = "moved"
    REPEAT = "repeat"
    ANOTHER_ACTIVE = "another_active"  # one refund of a stream at a time
    TOO_MUCH = "too_much"  # more than is left of the capture
    NOT_AWAITING = "not_awaiting"
    SAME_PERSON = "same_person"
    EXPIRED = "expired"
    NOT_ACTIVE = "not_active"
    NOT_REJECTED = "not_rejected"
    NOT_PROVEN = "not_proven"  # a call under this number is unanswered: it may have moved money
    NOT_SUCCEEDED = "not_succeeded"
    WAS_RETURNED = "was_returned"  # an old "done" does not undo the newer "returned"


def reserve(work: Work, stream: Stream, refund: Refund, state: RefundState) -> RefundMove:
    """∅ → AWAITING_APPROVAL or REQUESTED: the number and the amount are committed before anyone is asked."""
    if any(other.stream_id == stream.pk and other.state in ACTIVE_REFUND_STATES for other in work.refunds):
        return RefundMove.ANOTHER_ACTIVE
    if refund.amount_minor <= 0 or refund.amount_minor > stream.refundable_minor:
        return RefundMove.TOO_MUCH
    stream.refund_reserved_minor += refund.amount_minor
    refund.state = state
    work.add_now(refund)
    _event(
        work,
        refund,
        "refund.requested",
        "",
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        reason=refund.reason,
        purpose=refund.purpose,
    )
    return RefundMove.MOVED


def approve(work: Work, refund: Refund, by: str) -> RefundMove:
    """AWAITING_APPROVAL → REQUESTED by a second person."""
    if (
        refund.state in (RefundState.REQUESTED, RefundState.SUBMITTED, RefundState.SUCCEEDED)
        and refund.approved_by == by
    ):
        return RefundMove.REPEAT
    if refund.state != RefundState.AWAITING_APPROVAL:
        return RefundMove.NOT_AWAITING
    if by == refund.requested_by:
        return RefundMove.SAME_PERSON
    if refund.approval_expires_at is not None and refund.approval_expires_at <= work.at:
        return RefundMove.EXPIRED
    refund.approved_by = by
    refund.next_try_at = work.at
    return _move(work, refund, RefundState.REQUESTED, "refund.approved", approved_by=by)


def decline(work: Work, refund: Refund, by: str, reason: str) -> RefundMove:
    """AWAITING_APPROVAL, or REQUESTED and never sent → DECLINED: a person said no or took it back, or the approval expired."""
    if refund.state == RefundState.DECLINED:
        return RefundMove.REPEAT
    is_unsent = refund.state == RefundState.REQUESTED and refund.first_sent_at is None
    if refund.state != RefundState.AWAITING_APPROVAL and not is_unsent:
        return RefundMove.NOT_AWAITING
    refund.approved_by = by if by != refund.requested_by else ""
    refund.next_try_at = None
    end_call(refund)
    _release(work, refund)
    return _move(work, refund, RefundState.DECLINED, "refund.declined", reason=reason)


def submit(work: Work, refund: Refund, channel_reference: str) -> RefundMove:
    """REQUESTED, UNKNOWN or ATTENTION → SUBMITTED: the channel took it and works on it."""
    if refund.state == RefundState.SUBMITTED:
        return RefundMove.REPEAT
    if refund.state not in ACTIVE_REFUND_STATES or refund.state == RefundState.AWAITING_APPROVAL:
        return RefundMove.NOT_ACTIVE
    _accept(work, refund, channel_reference)
    return _move(work, refund, RefundState.SUBMITTED, "refund.submitted", channel_reference=channel_reference)


def lose_sight(work: Work, refund: Refund, reason: str) -> RefundMove:
    """REQUESTED or SUBMITTED → UNKNOWN: no definite answer; the reservation stays and only a query may follow."""
    if refund.state == RefundState.UNKNOWN:
        return RefundMove.REPEAT
    if refund.state not in (RefundState.REQUESTED, RefundState.SUBMITTED):
        return RefundMove.NOT_ACTIVE
    return _move(work, refund, RefundState.UNKNOWN, "refund.unknown", reason=reason[:64])


def need_attention(work: Work, refund: Refund, code: str) -> RefundMove:
    """REQUESTED, SUBMITTED or UNKNOWN → ATTENTION: the channel needs a person there; the reservation stays."""
    if refund.state == RefundState.ATTENTION:
        return RefundMove.REPEAT
    if refund.state not in ACTIVE_REFUND_STATES or refund.state == RefundState.AWAITING_APPROVAL:
        return RefundMove.NOT_ACTIVE
    return _move(work, refund, RefundState.ATTENTION, "refund.attention", code=code)


def succeed(work: Work, refund: Refund, channel_reference: str) -> RefundMove:
    """Any state but RETURNED → SUCCEEDED: the money is back with the buyer.

    A rejected, released or declined refund that the channel says is done takes its reservation again, where the capture
    still holds it (TOO_MUCH otherwise: a contradiction for a person).
    """
    if refund.state == RefundState.SUCCEEDED:
        return RefundMove.REPEAT
    if refund.state == RefundState.RETURNED:
        return RefundMove.WAS_RETURNED
    stream = work.stream_of(refund)
    if refund.is_released:
        if refund.amount_minor > stream.refundable_minor:
            return RefundMove.TOO_MUCH
        stream.refund_reserved_minor += refund.amount_minor
        refund.is_released = False
    _accept(work, refund, channel_reference)
    refund.finished_at = work.at
    refund.next_try_at = None
    return _move(
        work,
        refund,
        RefundState.SUCCEEDED,
        "refund.succeeded",
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        channel_reference=refund.channel_reference,
    )


def reject(work: Work, refund: Refund, code: str) -> RefundMove:
    """REQUESTED, SUBMITTED, UNKNOWN or ATTENTION → REJECTED: a definite no. It keeps its reservation until a person decides."""
    if refund.state == RefundState.REJECTED:
        return RefundMove.REPEAT
    if refund.state not in ACTIVE_REFUND_STATES or refund.state == RefundState.AWAITING_APPROVAL:
        return RefundMove.NOT_ACTIVE
    refund.next_try_at = None
    return _move(work, refund, RefundState.REJECTED, "refund.rejected", code=code)


def retry(work: Work, refund: Refund) -> RefundMove:
    """REJECTED or ATTENTION → REQUESTED under the same number: a person repaired the cause."""
    if refund.state == RefundState.REQUESTED:
        return RefundMove.REPEAT
    if refund.state not in (RefundState.REJECTED, RefundState.ATTENTION):
        return RefundMove.NOT_REJECTED
    stream = work.stream_of(refund)
    others = [other for other in work.refunds if other.stream_id == stream.pk and other.pk != refund.pk]
    if any(other.state in ACTIVE_REFUND_STATES for other in others):
        return RefundMove.ANOTHER_ACTIVE
    if refund.is_released:
        if refund.amount_minor > stream.refundable_minor:
            return RefundMove.TOO_MUCH
        stream.refund_reserved_minor += refund.amount_minor
        refund.is_released = False
    refund.next_try_at = work.at
    return _move(work, refund, RefundState.REQUESTED, "refund.retried")


def write_off(work: Work, refund: Refund) -> RefundMove:
    """REJECTED, reservation released: proven to have moved nothing, and a person gives the number up.

    Past its replay window an UNKNOWN one may be given up too, on the word of the person who looked it up at the channel.
    """
    if refund.is_released:
        return RefundMove.REPEAT
    is_past_window = refund.replay_safe_until is not None and refund.replay_safe_until <= work.at
    if refund.state != RefundState.REJECTED and not (refund.state == RefundState.UNKNOWN and is_past_window):
        return RefundMove.NOT_REJECTED
    if refund.open_call_count > 0 and not is_past_window:
        return RefundMove.NOT_PROVEN
    refund.open_call_count = 0
    refund.next_try_at = None
    _release(work, refund)
    if refund.state == RefundState.REJECTED:
        work.journal.write(work.order, "refund.written_off", subject=refund.number, amount_minor=refund.amount_minor)
        return RefundMove.MOVED
    return _move(work, refund, RefundState.REJECTED, "refund.written_off", amount_minor=refund.amount_minor)


def return_money(work: Work, refund: Refund) -> RefundMove:
    """SUCCEEDED → RETURNED: the channel took it back; the reservation is free again."""
    if refund.state == RefundState.RETURNED:
        return RefundMove.REPEAT
    if refund.state != RefundState.SUCCEEDED:
        return RefundMove.NOT_SUCCEEDED
    _release(work, refund)
    refund.next_try_at = None
    return _move(work, refund, RefundState.RETURNED, "refund.returned", amount_minor=refund.amount_minor)


def lease_call(refund: Refund, lease: str, until: datetime) -> None:
    """Only the holder of this lease may store the answer of the call that follows."""
    refund.call_lease = lease
    refund.call_lease_until = until


def end_call(refund: Refund) -> None:
    """The call was answered, or given up."""
    refund.call_lease = ""
    refund.call_lease_until = None


def _accept(work: Work, refund: Refund, channel_reference: str) -> None:
    refund.channel_reference = channel_reference[:128] or refund.channel_reference
    refund.accepted_at = refund.accepted_at or work.at


def _release(work: Work, refund: Refund) -> None:
    work.stream_of(refund).refund_reserved_minor -= refund.amount_minor
    refund.is_released = True


def _move(work: Work, refund: Refund, state: RefundState, kind: str, **facts: object) -> RefundMove:
    before = refund.state
    refund.state = state
    _event(work, refund, kind, before, **facts)
    return RefundMove.MOVED


def _event(work: Work, refund: Refund, kind: str, before: str, **facts: object) -> None:
    work.journal.write(work.order, kind, subject=refund.number, before=before, after=refund.state, **facts)
