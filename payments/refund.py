"""Refund: a person or the shop asks, a second one approves, a worker carries it out (`refund_run`) under the one number."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from payonce.orders.conf import get_settings
from payonce.payments import refund_answer, surplus
from payonce.payments.call import capabilities_of
from payonce.payments.locks import Work, under_lock
from payonce.payments.models import Stream
from payonce.payments.policy import needs_second_person, person_of
from payonce.payments.refund_run import RefundRun, follow_up, run_refund, with_refund
from payonce.payments.statuses import RefundPurpose, RefundState, StreamState
from payonce.payments.transitions import refunds as arrows
from payonce.payments.transitions.refunds import RefundMove

REASONS = ("requested_by_customer", "duplicate", "out_of_stock", "fraudulent", "other")


class RefundCode(StrEnum):
    """What a request for a refund came to."""

    REQUESTED = "requested"
    AWAITING_APPROVAL = "awaiting_approval"
    NOT_PAID = "not_paid"  # the stream took no money
    TOO_MUCH = "too_much"
    IN_PROGRESS = "in_progress"  # another refund of the stream is not finished
    STALE = "stale"  # the amounts changed since the person looked
    NO_REFUNDS = "no_refunds"  # the channel cannot refund, or its window is over: refund there by hand
    NO_PARTIAL = "no_partial"
    INVALID_REASON = "invalid_reason"


@dataclass(frozen=True, slots=True)
class RefundRequested:
    """The outcome, and the refund's number and state where there is one. `refundable_minor` is what is left now."""

    code: RefundCode
    number: str = ""
    state: str = ""
    refundable_minor: int = 0


def seen_token(stream: Stream) -> str:
    """What the person saw: changes whenever the refundable amount could have. Goes into the form, comes back as `seen`."""
    return f"{stream.number}:{stream.captured_minor}:{stream.refund_reserved_minor}"


def request_refund(
    stream_number: str, amount_minor: int, *, reason: str, by: str, note: str = "", seen: str = "",
    bind: Callable[[Work, str], str] | None = None,
) -> RefundRequested:  # fmt: skip
    """Reserve a refund of `amount_minor` (minor units) of a stream, by the user or shop named in `by`.

    `seen` is the token from the page that the person acted on; a stale one is refused. `bind(work, "")` names the refund that
    this request made before, `bind(work, number)` binds it in the same commit. Sends nothing itself: a worker does,
    after a second person approved it where the policy asks for that. Raises OrderNotFound for an unknown stream.
    """
    if isinstance(amount_minor, bool) or not isinstance(amount_minor, int):
        raise TypeError("amount_minor must be a whole number of minor units")
    if reason not in REASONS or (reason == "other" and not note.strip()):
        return RefundRequested(RefundCode.INVALID_REASON)

    def decide(work: Work) -> RefundRequested:
        stream = work.stream(stream_number)
        if bind is not None and (made := bind(work, "")):
            return RefundRequested(RefundCode.REQUESTED, made, work.refund(made).state, stream.refundable_minor)
        refused = _refuse(work, stream, amount_minor, seen)
        if refused is not None:
            return RefundRequested(refused, refundable_minor=stream.refundable_minor)
        refund = surplus.new_refund(work, stream, RefundPurpose.OPERATOR, amount_minor, reason, person_of(by))
        refund.note = note.strip()[:500]
        conf = get_settings().REFUND
        mine = [row for row in work.refunds if row.stream_id == stream.pk]
        waits = needs_second_person(amount_minor, mine, conf.APPROVAL_MINOR)
        if waits:
            refund.approval_expires_at = work.at + timedelta(hours=conf.APPROVAL_HOURS)
        else:
            refund.next_try_at = work.at
        move = arrows.reserve(work, stream, refund, RefundState.AWAITING_APPROVAL if waits else RefundState.REQUESTED)
        if move is not RefundMove.MOVED:  # another one is active: that the money is there was seen above
            return RefundRequested(RefundCode.IN_PROGRESS, refundable_minor=stream.refundable_minor)
        if bind is not None:
            bind(work, refund.number)
        follow_up(work)
        code = RefundCode.AWAITING_APPROVAL if waits else RefundCode.REQUESTED
        return RefundRequested(code, refund.number, refund.state, stream.refundable_minor)

    return under_lock(_actor(by), decide, stream=stream_number)


def approve_refund(number: str, by: str) -> RefundMove:
    """A second person lets a refund go out. Refused (SAME_PERSON) for its requester. Raises RefundNotFound."""

    def decide(work: Work) -> RefundMove:
        move = arrows.approve(work, work.refund(number), person_of(by))
        follow_up(work)
        return move

    return with_refund(number, _actor(by), decide)


def decline_refund(number: str, by: str, reason: str = "declined") -> RefundMove:
    """Say no to a refund that waits for approval, or take back one that was never sent. Raises RefundNotFound."""

    def decide(work: Work) -> RefundMove:
        refund = work.refund(number)
        move = arrows.decline(work, refund, person_of(by), reason)
        if move is RefundMove.MOVED:
            refund_answer.hand_cases_over(work, refund, f"{refund.number} was declined: {reason}")
        follow_up(work)
        return move

    return with_refund(number, _actor(by), decide)


def retry_refund(number: str, by: str) -> RefundMove:
    """Send a rejected refund again under its own number, after its cause was repaired. Raises RefundNotFound."""

    def decide(work: Work) -> RefundMove:
        refund = work.refund(number)
        move = arrows.retry(work, refund)
        if move is RefundMove.MOVED and not refund.approved_by and refund.requested_by != person_of(by):
            refund.approved_by = person_of(by)
        follow_up(work)
        return move

    return with_refund(number, _actor(by), decide)


def write_off_refund(number: str, by: str) -> RefundMove:
    """Give a number up that moved nothing: its reservation is free, and another refund may follow. Raises RefundNotFound.

    Refused (NOT_PROVEN) while a call under it is unanswered, up to the end of its replay window.
    """

    def decide(work: Work) -> RefundMove:
        move = arrows.write_off(work, work.refund(number))
        follow_up(work)
        return move

    return with_refund(number, _actor(by), decide)


def confirm_refund(number: str, by: str) -> RefundMove:
    """A person saw at the channel that the money went back, where no answer says so. Raises RefundNotFound."""

    def decide(work: Work) -> RefundMove:
        refund = work.refund(number)
        if refund.state not in (RefundState.UNKNOWN, RefundState.ATTENTION, RefundState.REJECTED):
            return RefundMove.NOT_ACTIVE
        move = refund_answer.succeed_by_person(work, refund, person_of(by))
        follow_up(work)
        return move

    return with_refund(number, _actor(by), decide)


def _refuse(work: Work, stream: Stream, amount_minor: int, seen: str) -> RefundCode | None:
    if stream.state != StreamState.SUCCEEDED:
        return RefundCode.NOT_PAID
    if seen and seen != seen_token(stream):
        return RefundCode.STALE
    if amount_minor <= 0 or amount_minor > stream.refundable_minor:
        return RefundCode.TOO_MUCH
    capabilities = capabilities_of(stream)
    paid_at = stream.paid_at or stream.succeeded_at or work.at
    if capabilities is None or not capabilities.refunds:
        return RefundCode.NO_REFUNDS
    if work.at - paid_at > timedelta(seconds=capabilities.refund_window_seconds):
        return RefundCode.NO_REFUNDS
    if amount_minor != stream.captured_minor and not capabilities.refunds_partial:
        return RefundCode.NO_PARTIAL
    return None


def _actor(by: str) -> str:
    return by if ":" in by else f"operator:{by}"


__all__ = [
    "REASONS",
    "RefundCode",
    "RefundMove",
    "RefundRequested",
    "RefundRun",
    "approve_refund",
    "confirm_refund",
    "decline_refund",
    "request_refund",
    "retry_refund",
    "run_refund",
    "seen_token",
    "write_off_refund",
]
