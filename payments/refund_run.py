"""Carry one refund out: claim, query first when an outcome is open, policy, commit the intent, call, record. Money moves only here."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from payonce.channels import messages
from payonce.channels.messages import Known, Outcome, PaymentView, RefundView, Refused, RefusedKind
from payonce.orders.conf import get_settings
from payonce.orders.errors import OrderNotFound
from payonce.payments import cache, enqueue, policy, refund_answer, schedule
from payonce.payments.call import call, capabilities_of
from payonce.payments.errors import RefundNotFound
from payonce.payments.locks import Work, lock_budget, under_lock
from payonce.payments.models import Refund, Stream
from payonce.payments.policy import PolicyAnswer
from payonce.payments.refs import notify_url, payment_ref
from payonce.payments.settle import Evidence, apply_evidence, moved_minor
from payonce.payments.statuses import TRIED_REFUND_STATES, Confirmation, RefundPurpose, RefundState
from payonce.payments.transitions import refunds as arrows

T = TypeVar("T")
SENDABLE = (RefundState.REQUESTED, RefundState.UNKNOWN)
"""Where the request itself may go out; everywhere else the channel is only asked."""
ABSENCE_PROVES = timedelta(days=1)
"""A number that the channel does not know so long after it was last sent moved nothing then."""


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


def run_refund(number: str, by: str = "system:refund") -> RefundRun:
    """Carry one due refund out. Safe to call twice at once and at any time; the same number moves money at most once."""
    ticket = with_refund(number, by, lambda work: _claim(work, number))
    if isinstance(ticket, RefundRun):
        return ticket
    if ticket.asks_refund_first:
        known: Outcome[RefundView] = call(ticket.account, lambda channel: channel.query_refund(ticket.ref))
        if not refund_answer.means_not_sent(known, ticket.may_repeat, ticket.is_retried):
            return with_refund(number, by, lambda work: _record(work, ticket, known, asked_only=True))
    if ticket.asks_payment_first:
        paid: Outcome[PaymentView] = call(ticket.account, lambda channel: channel.query(ticket.ref.payment))
        if not with_refund(number, by, lambda work: _payment_allows(work, ticket, paid)):
            return RefundRun.PARKED
    request = messages.RefundRequest(
        payment=ticket.ref.payment, refund_number=number, amount_minor=ticket.ref.amount_minor, currency=ticket.currency,
        captured_minor=ticket.captured_minor, reason=ticket.reason, notify_url=ticket.notify_url,
    )  # fmt: skip
    if not with_refund(number, by, lambda work: _intend(work, ticket)):
        return RefundRun.LATER
    answer: Outcome[RefundView] = call(ticket.account, lambda channel: channel.refund(request))
    return with_refund(number, by, lambda work: _record(work, ticket, answer, asked_only=False))


@dataclass(frozen=True, slots=True)
class Ticket:
    """A claimed refund: everything the calls need, copied while the lock was held."""

    number: str
    lease: str
    account: str
    ref: messages.RefundRef
    currency: str
    captured_minor: int
    reason: str
    notify_url: str
    asks_payment_first: bool
    asks_refund_first: bool
    may_repeat: bool
    is_retried: bool
    at: datetime


def _claim(work: Work, number: str) -> Ticket | RefundRun:
    """Under the lock: is it due, does the policy let it go, who else is at it? Commits the intent and the lease."""
    refund = work.refund(number)
    stream = work.stream_of(refund)
    if refund.state not in TRIED_REFUND_STATES:
        refund.next_try_at = None
        return RefundRun.NOT_DUE
    if refund.next_try_at is None or refund.next_try_at > work.at:
        return RefundRun.NOT_DUE
    if refund.call_lease_until is not None and refund.call_lease_until > work.at:
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
        reason=refund.reason, notify_url=notify_url(stream.account),
        asks_payment_first=refund.purpose == RefundPurpose.SURPLUS,
        asks_refund_first=not is_first, may_repeat=may_repeat and refund.state in SENDABLE,
        is_retried=refund.state == RefundState.REQUESTED, at=work.at,
    )  # fmt: skip


def _is_allowed(work: Work, refund: Refund, stream: Stream) -> bool:
    """May it be sent now? If not, it is parked and a person is asked. A repeat was allowed before; only a dry run stops it."""
    conf = get_settings().REFUND
    is_first = refund.first_sent_at is None
    answer = policy.judge(refund, stream, conf, 0)
    if not is_first and answer is not PolicyAnswer.KEEPER:
        answer = PolicyAnswer.DRY_RUN if conf.DRY_RUN else PolicyAnswer.ALLOWED
    if is_first and answer is PolicyAnswer.ALLOWED and conf.DAILY_MINOR is not None:
        lock_budget(work, stream.account)
        spent = policy.spent_today_minor(stream.account, refund.currency, work.at, work.using, refund.number)
        answer = policy.judge(refund, stream, conf, spent)
    why = "" if answer is PolicyAnswer.ALLOWED else answer.value
    capabilities = capabilities_of(stream)
    paid_at = stream.paid_at or stream.succeeded_at or work.at
    if capabilities is None or not capabilities.refunds:
        why = "the channel cannot refund: give the money back there by hand"
    elif is_first and work.at - paid_at > timedelta(seconds=capabilities.refund_window_seconds):
        why = "the channel's refund window is over: give the money back by other means"
    if why:
        park(work, refund, why)
    return not why


def park(work: Work, refund: Refund, why: str) -> None:
    """It stays as it is, nothing carries it on by itself, and a person's queue says why."""
    arrows.end_call(refund)
    refund.next_try_at = None
    refund.last_answer = f"parked: {why}"[:128]
    refund_answer.to_person(work, refund, f"{refund.number} was not sent: {why}.")
    follow_up(work)


def _payment_allows(work: Work, ticket: Ticket, outcome: Outcome[PaymentView]) -> bool:
    """A refund of surplus looks first: a dispute, a reversal, or a refund that we did not make stops it for a person."""
    refund = work.refund(ticket.number)
    if refund.call_lease != ticket.lease:
        return False
    stream = work.stream_of(refund)
    if not isinstance(outcome, Known):
        refund.last_answer = f"payment not confirmed before the refund: {refund_answer.short(outcome)}"[:128]
        arrows.end_call(refund)
        refund_answer.try_later(work, refund)
        return False
    apply_evidence(work, stream, Evidence(stream.account, outcome.value, Confirmation.POLL, ticket.at))
    left = stream.disputed_minor + stream.reversed_minor
    if left or stream.channel_refunded_minor > moved_minor(work, stream, but=refund):
        park(work, refund, "the channel shows a dispute, a reversal or a refund that we did not make")
        return False
    return True


def _intend(work: Work, ticket: Ticket) -> bool:
    """Write down, just before the call, that it is sent; everything decided before is decided again.

    A process that was paused past its lease must not send, nor one whose refund a person took back meanwhile.
    """
    refund = work.refund(ticket.number)
    stream = work.stream_of(refund)
    if refund.call_lease != ticket.lease or refund.state not in SENDABLE:
        return False
    if not _is_allowed(work, refund, stream):
        return False
    if refund.replay_safe_until is not None and refund.replay_safe_until <= work.at:
        arrows.end_call(refund)
        refund_answer.not_answered(work, refund, "its replay window ended")
        return False
    if refund.last_sent_at is not None and work.at - refund.last_sent_at >= ABSENCE_PROVES:
        refund.open_call_count = 0  # asked just now, and the channel does not know the number
    refund.last_sent_at = work.at
    if refund.first_sent_at is None:
        capabilities = capabilities_of(stream)
        window = capabilities.refund_replay_window_seconds if capabilities else 0
        refund.first_sent_at = work.at
        refund.replay_safe_until = None if window is None else work.at + timedelta(seconds=window)
    refund.open_call_count += 1
    arrows.lease_call(refund, ticket.lease, work.at + timedelta(seconds=get_settings().CALL_LEASE_SECONDS))
    refund.next_try_at = work.at + timedelta(seconds=schedule.CLAIM_SECONDS)
    return True


def _record(work: Work, ticket: Ticket, outcome: Outcome[RefundView], *, asked_only: bool) -> RefundRun:
    """Apply the answer, whoever has the refund's lease by now; only the holder ends it."""
    refund = work.refund(ticket.number)
    is_late = refund.call_lease != ticket.lease
    if not is_late:
        arrows.end_call(refund)
    refund_answer.apply_outcome(
        work, refund, outcome, asked_only=asked_only, may_repeat=ticket.may_repeat, is_late=is_late
    )
    follow_up(work)
    if isinstance(outcome, Refused) and outcome.kind is RefusedKind.THROTTLED:
        return RefundRun.LATER
    return _RUN_OF_STATE.get(RefundState(refund.state), RefundRun.LATER)


def tell_person(number: str) -> None:
    """Carrying it out failed for a reason of our own: a person looks, and it is tried again later."""

    def decide(work: Work) -> None:
        refund = work.refund(number)
        refund_answer.to_person(work, refund, f"{number} cannot be carried out: see the log.")
        arrows.end_call(refund)
        refund_answer.try_later(work, refund)
        refund.try_count += 1

    with_refund(number, "system:refund", decide)


def follow_up(work: Work) -> None:
    """After the commit: the buyer's page, the messages to the shop and the refund sweep."""

    def after() -> None:
        cache.void(work.order.number, work.order.version)
        cache.wake(work.order.number, work.order.version)
        enqueue.kick("payonce.publish")
        enqueue.kick("payonce.refund")

    if work.journal.events:
        work.after_commit(after)


def with_refund(number: str, by: str, decide: Callable[[Work], T]) -> T:
    """Decide about a refund under its order's lock. Raises RefundNotFound."""
    try:
        return under_lock(by, decide, refund=number)
    except OrderNotFound as error:
        raise RefundNotFound(f"There is no refund {number}.") from error


_RUN_OF_STATE = {
    RefundState.SUCCEEDED: RefundRun.DONE,
    RefundState.SUBMITTED: RefundRun.SUBMITTED,
    RefundState.UNKNOWN: RefundRun.UNKNOWN,
    RefundState.REJECTED: RefundRun.REJECTED,
    RefundState.ATTENTION: RefundRun.ATTENTION,
}
