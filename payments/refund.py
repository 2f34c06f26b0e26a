"""Refund: decide, reserve, approve; then ask the channel under the one number, and never under another while the outcome is open.

`request_refund` is how a person or the shop asks. `run_refund` carries one refund out: claim, policy, query first when the
last outcome is unknown, call, record. Money moves only there.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from payonce.channels import messages
from payonce.channels.messages import Known, Outcome, RefundView, Refused, RefusedKind
from payonce.orders.conf import get_settings
from payonce.orders.errors import OrderNotFound
from payonce.payments import cache, enqueue, policy, refund_answer, schedule, surplus
from payonce.payments.call import call, capabilities_of
from payonce.payments.errors import RefundNotFound
from payonce.payments.locks import Work, lock_budget, under_lock
from payonce.payments.models import Refund, Stream
from payonce.payments.policy import PolicyAnswer
from payonce.payments.refs import notify_url, payment_ref
from payonce.payments.statuses import (
    Confirmation,
    DiscrepancyKind,
    RefundPurpose,
    RefundState,
    StreamState,
)
from payonce.payments.transitions import cases
from payonce.payments.transitions import refunds as arrows
from payonce.payments.transitions.refunds import RefundMove

T = TypeVar("T")
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


class RefundRun(StrEnum):
    """What carrying a refund out came to."""

    DONE = "done"
    SUBMITTED = "submitted"
    UNKNOWN = "unknown"
    REJECTED = "rejected"
    ATTENTION = "attention"
    LATER = "later"  # throttled, or another process is at it
    PARKED = "parked"  # policy, or what the channel shows: a person decides
    NOT_DUE = "not_due"


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
        refund = surplus.new_refund(work, stream, RefundPurpose.OPERATOR, amount_minor, reason, _person(by))
        refund.note = note.strip()[:500]
        conf = get_settings().REFUND
        waits = conf.APPROVAL_MINOR is not None and amount_minor >= conf.APPROVAL_MINOR
        if waits:
            refund.approval_expires_at = work.at + timedelta(hours=conf.APPROVAL_HOURS)
        else:
            refund.next_try_at = work.at
        move = arrows.reserve(work, stream, refund, RefundState.AWAITING_APPROVAL if waits else RefundState.REQUESTED)
        if move is RefundMove.ANOTHER_ACTIVE:
            return RefundRequested(RefundCode.IN_PROGRESS, refundable_minor=stream.refundable_minor)
        if move is RefundMove.TOO_MUCH:
            return RefundRequested(RefundCode.TOO_MUCH, refundable_minor=stream.refundable_minor)
        if bind is not None:
            bind(work, refund.number)
        follow_up(work)
        code = RefundCode.AWAITING_APPROVAL if waits else RefundCode.REQUESTED
        return RefundRequested(code, refund.number, refund.state, stream.refundable_minor)

    return under_lock(_actor(by), decide, stream=stream_number)


def approve_refund(number: str, by: str) -> RefundMove:
    """A second person lets a refund go out. Refused (SAME_PERSON) for its requester. Raises RefundNotFound."""

    def decide(work: Work) -> RefundMove:
        move = arrows.approve(work, work.refund(number), _person(by))
        follow_up(work)
        return move

    return _with_refund(number, _actor(by), decide)


def decline_refund(number: str, by: str, reason: str = "declined") -> RefundMove:
    """Say no to a refund that waits for approval, or take back one that was never sent. Raises RefundNotFound."""

    def decide(work: Work) -> RefundMove:
        refund = work.refund(number)
        move = arrows.decline(work, refund, _person(by), reason)
        _cases_to_person(work, refund, reason)
        follow_up(work)
        return move

    return _with_refund(number, _actor(by), decide)


def retry_refund(number: str, by: str) -> RefundMove:
    """Send a rejected refund again under its own number, after its cause was repaired. Raises RefundNotFound."""

    def decide(work: Work) -> RefundMove:
        refund = work.refund(number)
        move = arrows.retry(work, refund)
        if move is RefundMove.MOVED and refund.requested_by != _person(by):
            refund.approved_by = _person(by)
        follow_up(work)
        return move

    return _with_refund(number, _actor(by), decide)


def write_off_refund(number: str, by: str) -> RefundMove:
    """Give a rejected refund's number up: its reservation is free, and another refund may follow. Raises RefundNotFound."""

    def decide(work: Work) -> RefundMove:
        move = arrows.write_off(work, work.refund(number))
        follow_up(work)
        return move

    return _with_refund(number, _actor(by), decide)


def run_refund(number: str, by: str = "system:refund") -> RefundRun:
    """Carry one due refund out. Safe to call twice at once and at any time; the same number moves money at most once."""
    ticket = _with_refund(number, by, lambda work: _claim(work, number))
    if isinstance(ticket, RefundRun):
        return ticket
    if ticket.asks_refund_first:
        outcome: Outcome[RefundView] = call(ticket.account, lambda channel: channel.query_refund(ticket.ref))
        if not refund_answer.means_not_sent(outcome, ticket.may_repeat, ticket.is_retried):
            return _record(ticket, outcome, by, asked_only=True)
    if ticket.asks_payment_first and not _payment_allows(ticket, by):
        return RefundRun.PARKED
    request = messages.RefundRequest(
        payment=ticket.ref.payment, refund_number=number, amount_minor=ticket.ref.amount_minor, currency=ticket.currency,
        captured_minor=ticket.captured_minor, reason=ticket.reason, notify_url=ticket.notify_url,
    )  # fmt: skip
    if not _commit_intent(ticket, by):
        return RefundRun.LATER
    return _record(ticket, call(ticket.account, lambda channel: channel.refund(request)), by, asked_only=False)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A claimed refund: everything the calls need, copied while the lock was held."""

    number: str
    lease: str
    account: str
    ref: messages.RefundRef
    currency: str
    captured_minor: int
    known_refunded_minor: int
    reason: str
    notify_url: str
    asks_payment_first: bool
    asks_refund_first: bool
    may_repeat: bool
    is_retried: bool
    at: datetime


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
    if work.at > paid_at + timedelta(seconds=capabilities.refund_window_seconds):
        return RefundCode.NO_REFUNDS
    if amount_minor != stream.captured_minor and not capabilities.refunds_partial:
        return RefundCode.NO_PARTIAL
    return None


def _claim(work: Work, number: str) -> Ticket | RefundRun:
    """Under the lock: is it due, does the policy let it go, who else is at it? Commits the intent and the lease."""
    refund = work.refund(number)
    stream = work.stream_of(refund)
    if refund.state not in (RefundState.REQUESTED, RefundState.SUBMITTED, RefundState.UNKNOWN, RefundState.ATTENTION):
        refund.next_try_at = None
        return RefundRun.NOT_DUE
    if refund.next_try_at is None or refund.next_try_at > work.at:
        return RefundRun.NOT_DUE
    if refund.call_lease and refund.call_lease_until is not None and refund.call_lease_until > work.at:
        return RefundRun.LATER
    is_first = refund.first_sent_at is None
    if is_first and not _is_allowed(work, refund, stream):
        return RefundRun.PARKED
    may_repeat = refund.replay_safe_until is None or refund.replay_safe_until > work.at
    lease = secrets.token_hex(8)
    arrows.lease_call(refund, lease, work.at + timedelta(seconds=get_settings().CALL_LEASE_SECONDS))
    refund.next_try_at = work.at + timedelta(seconds=schedule.CLAIM_SECONDS)
    refund.try_count += 1
    return Ticket(
        number=number, lease=lease, account=stream.account,
        ref=messages.RefundRef(payment_ref(stream), number, refund.amount_minor, refund.channel_reference),
        currency=refund.currency, captured_minor=stream.captured_minor,
        known_refunded_minor=_ours_moved(work, stream, refund), reason=refund.reason, notify_url=notify_url(stream.account),
        asks_payment_first=refund.purpose == RefundPurpose.SURPLUS and not refund.approved_by,
        asks_refund_first=not is_first, may_repeat=may_repeat and refund.state != RefundState.SUBMITTED,
        is_retried=refund.state == RefundState.REQUESTED, at=work.at,
    )  # fmt: skip


def _is_allowed(work: Work, refund: Refund, stream: Stream) -> bool:
    conf = get_settings().REFUND
    capabilities = capabilities_of(stream)
    answer = policy.judge(refund, stream, conf, 0)
    if answer is PolicyAnswer.ALLOWED and conf.DAILY_MINOR is not None:
        lock_budget(work, stream.account)
        spent = policy.spent_today_minor(stream.account, refund.currency, work.at, work.using, refund.number)
        answer = policy.judge(refund, stream, conf, spent)
    paid_at = stream.paid_at or stream.succeeded_at or work.at
    why = "" if answer is PolicyAnswer.ALLOWED else answer.value
    if capabilities is None or not capabilities.refunds:
        why = "the channel cannot refund: give the money back there by hand"
    elif work.at > paid_at + timedelta(seconds=capabilities.refund_window_seconds):
        why = "the channel's refund window is over: give the money back by other means"
    if not why:
        return True
    refund.next_try_at = None
    refund.last_answer = f"parked: {why}"[:128]
    _cases_to_person(work, refund, why)
    follow_up(work)
    return False


def _payment_allows(ticket: Ticket, by: str) -> bool:
    """An automatic refund looks first: a dispute, a reversal, or a refund that we did not make stops it for a person."""
    from payonce.payments.settle import Evidence, apply_evidence

    outcome = call(ticket.account, lambda channel: channel.query(ticket.ref.payment))

    def decide(work: Work) -> bool:
        refund = work.refund(ticket.number)
        if refund.call_lease != ticket.lease:
            return False
        stream = work.stream_of(refund)
        if not isinstance(outcome, Known):
            refund.next_try_at = schedule.backoff(work.at, refund.try_count, schedule.REFUND_TRY_SECONDS)
            refund.last_answer = f"payment not confirmed before the refund: {refund_answer.short(outcome)}"[:128]
            arrows.end_call(refund)
            return False
        apply_evidence(work, stream, Evidence(stream.account, outcome.value, Confirmation.POLL, ticket.at))
        taken = stream.disputed_minor + stream.reversed_minor
        if not taken and stream.channel_refunded_minor <= ticket.known_refunded_minor:
            return True
        refund.next_try_at = None
        refund.last_answer = "parked: the channel shows money that left without us"
        arrows.end_call(refund)
        _cases_to_person(work, refund, "The channel shows a dispute, a reversal or a refund that we did not make.")
        return False

    return _with_refund(ticket.number, by, decide)


def _commit_intent(ticket: Ticket, by: str) -> bool:
    """Commit, just before the call, that it is sent. A process that was paused past its lease must not send."""

    def decide(work: Work) -> bool:
        refund = work.refund(ticket.number)
        if refund.call_lease != ticket.lease:
            return False
        if refund.first_sent_at is None:
            capabilities = capabilities_of(work.stream_of(refund))
            window = capabilities.refund_replay_window_seconds if capabilities else 0
            refund.first_sent_at = work.at
            refund.replay_safe_until = None if window is None else work.at + timedelta(seconds=window)
        arrows.lease_call(refund, ticket.lease, work.at + timedelta(seconds=get_settings().CALL_LEASE_SECONDS))
        refund.next_try_at = work.at + timedelta(seconds=schedule.CLAIM_SECONDS)
        return True

    return _with_refund(ticket.number, by, decide)


def _record(ticket: Ticket, outcome: Outcome[RefundView], by: str, *, asked_only: bool) -> RefundRun:
    def decide(work: Work) -> RefundRun:
        refund = work.refund(ticket.number)
        if refund.call_lease == ticket.lease:
            arrows.end_call(refund)
        refund_answer.apply_outcome(work, refund, outcome, asked_only=asked_only, may_repeat=ticket.may_repeat)
        follow_up(work)
        if isinstance(outcome, Refused) and outcome.kind is RefusedKind.THROTTLED:
            return RefundRun.LATER
        return _RUN_OF_STATE.get(RefundState(refund.state), RefundRun.LATER)

    return _with_refund(ticket.number, by, decide)


def follow_up(work: Work) -> None:
    """After the commit: the buyer's page, the messages to the shop and the refund sweep."""

    def after() -> None:
        cache.void(work.order.number, work.order.version)
        cache.wake(work.order.number, work.order.version)
        enqueue.kick("payonce.publish")
        enqueue.kick("payonce.refund")

    if work.journal.events:
        work.after_commit(after)


def _cases_to_person(work: Work, refund: Refund, why: str) -> None:
    """The case whose repair this refund was goes to a person's queue; there is always one."""
    stream = work.stream_of(refund)
    mine = [case for case in work.cases if case.refund_id == refund.pk]
    for case in mine:
        cases.hand_to_person(work, case, why)
    if not mine and refund.state != RefundState.DECLINED:
        cases.open_case(
            work, DiscrepancyKind.REFUND_STUCK, refund.number, f"Refund {refund.number}: {why}", stream=stream, refund=refund,
            amount_minor=refund.amount_minor,
        )  # fmt: skip


def _ours_moved(work: Work, stream: Stream, but: Refund) -> int:
    rows = [row for row in work.refunds if row.stream_id == stream.pk and row.pk != but.pk and row.first_sent_at]
    return sum(row.amount_minor for row in rows)


def _with_refund(number: str, by: str, decide: Callable[[Work], T]) -> T:
    try:
        return under_lock(by, decide, refund=number)
    except OrderNotFound as error:
        raise RefundNotFound(f"There is no refund {number}.") from error


def _actor(by: str) -> str:
    return by if ":" in by else f"operator:{by}"


def _person(by: str) -> str:
    return by.removeprefix("operator:")[:80]  # with and without the prefix it is the same person


_RUN_OF_STATE = {
    RefundState.SUCCEEDED: RefundRun.DONE,
    RefundState.SUBMITTED: RefundRun.SUBMITTED,
    RefundState.UNKNOWN: RefundRun.UNKNOWN,
    RefundState.REJECTED: RefundRun.REJECTED,
    RefundState.ATTENTION: RefundRun.ATTENTION,
}
