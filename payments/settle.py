"""Settle: apply a channel's evidence to a stream and decide, under the order's lock, whether the order is paid by it.

The first verified, matching success becomes the keeper. Every other success is surplus. No network, no clock: the caller
brings the locked work and the evidence.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from django.db import transaction

from payonce.channels.messages import PaymentState, PaymentView
from payonce.orders.conf import get_settings, get_shop
from payonce.orders.statuses import LateDecision, OrderState
from payonce.payments import cache, enqueue, schedule, surplus
from payonce.payments.call import capabilities_of, is_own_merchant
from payonce.payments.locks import Work
from payonce.payments.models import Refund, Stream
from payonce.payments.statuses import (
    UNMOVED_REFUND_STATES,
    WATCHED_STREAM_STATES,
    Confirmation,
    Decision,
    DiscrepancyKind,
    StreamRole,
    StreamState,
    SurplusReason,
)
from payonce.payments.transitions import cases
from payonce.payments.transitions import streams as arrows
from payonce.payments.transitions.cases import open_case

log = logging.getLogger("payonce.settle")


@dataclass(frozen=True, slots=True)
class Evidence:
    """A verified statement of a channel account about a stream.

    `asked_at` is when a query was sent (database time), or None for what came unasked. `proof` is what a CLOSED in it proves
    closing by: query or answer.
    """

    account: str
    view: PaymentView
    way: Confirmation
    asked_at: datetime | None = None
    proof: str = "query"


ENDED_ASKED_FOR, ENDED_ASKED_EVERY = timedelta(days=1), timedelta(minutes=10)
STIRRING = (PaymentState.IN_PROGRESS, PaymentState.APPROVED)


class Settled(StrEnum):
    """What the evidence came to."""

    KEEPER = "keeper"
    SURPLUS = "surplus"
    REPEAT = "repeat"
    CLOSED = "closed"
    PROCESSING = "processing"
    APPROVED = "approved"
    WAITING = "waiting"
    CONTRADICTION = "contradiction"
    WRONG_ACCOUNT = "wrong_account"
    NO_NEWS = "no_news"


def apply_evidence(work: Work, stream: Stream, evidence: Evidence) -> Settled:
    """Apply verified evidence to the stream; late evidence never moves a state backwards, a contradiction becomes a case."""
    view = evidence.view
    stream = _spoken_of(work, stream, view)
    if evidence.account != stream.account or not is_own_merchant(stream, view.merchant):
        if view.state is PaymentState.PAID:
            _name_foreign_money(work, stream, evidence)
        plan_check(work, stream)
        return Settled.WRONG_ACCOUNT
    if _is_old_news(stream, evidence):
        plan_check(work, stream)
        has_stirred = stream.state in (StreamState.CLOSED, StreamState.FAILED) and view.state in STIRRING
        if has_stirred or _only_a_query_tells(evidence):
            stream.next_check_at = work.at
        return Settled.NO_NEWS
    was_given_up = stream.next_check_at is None or _planned(work, stream) is None
    stream.last_answer = view.state.value
    stream.last_answer_at = work.at
    stream.is_answer_unknown = view.state == PaymentState.UNCLEAR
    settled = _APPLY[view.state](work, stream, evidence)
    for capture in view.captures:
        if capture.state == PaymentState.PAID:
            _second_capture(work, stream, capture, evidence)
    plan_check(work, stream)
    if _only_a_query_tells(evidence) or _may_hide_a_refund(evidence):
        stream.next_check_at = work.at
        work.after_commit(lambda: enqueue.kick("payonce.poll"))
    if was_given_up and stream.state not in WATCHED_STREAM_STATES:
        _end_unclear(work, stream)
    _follow_up(work)
    return settled


def _name_foreign_money(work: Work, stream: Stream, evidence: Evidence) -> None:
    """Money under our number, taken by somebody else's keys or for another merchant: a person judges it, nothing moves."""
    view = evidence.view
    open_case(
        work, DiscrepancyKind.MISMATCH, f"{stream.number}/{view.channel_reference}"[:128],
        f"{evidence.account} reports {stream.number} for {view.merchant or 'itself'}, but it is a stream of {stream.account}.",
        stream=stream, amount_minor=view.paid_minor, account=evidence.account, answer=view.state,
        channel_reference=view.channel_reference, currency=view.currency, merchant=view.merchant,
    )  # fmt: skip


def _end_unclear(work: Work, stream: Stream) -> None:
    """The answer that a case was waiting for came after all."""
    for case in [case for case in work.cases if case.stream_id == stream.pk]:
        if case.kind in (DiscrepancyKind.STREAM_UNCLEAR, DiscrepancyKind.INCONSISTENT):
            cases.resolve(work, case, Decision.AUTOMATIC, "payonce", f"answered: {stream.state}")


def _spoken_of(work: Work, stream: Stream, view: PaymentView) -> Stream:
    """The stream that the view's own reference is about: an answer about an adopted stream speaks of its origin first."""
    if view.channel_reference == stream.channel_reference:
        return stream
    return next((row for row in work.streams if row.number == stream.origin_number), stream)


def _is_old_news(stream: Stream, evidence: Evidence) -> bool:
    """Was this asked before the last answer that we applied, or sent unasked about a stream that has its money? Final news is never old."""
    if evidence.view.state in (PaymentState.PAID, PaymentState.CLOSED):
        return False
    if evidence.asked_at is None:
        return stream.state not in WATCHED_STREAM_STATES
    return stream.last_answer_at is not None and evidence.asked_at < stream.last_answer_at


def _only_a_query_tells(evidence: Evidence) -> bool:
    """Did the channel speak unasked, of an approval that waits for our capture, or of something unclear?"""
    return evidence.asked_at is None and evidence.view.state in (PaymentState.APPROVED, PaymentState.UNCLEAR)


def _may_hide_a_refund(evidence: Evidence) -> bool:
    """A sum of refunds that is told unasked may be older than ours, even where it equals them: somebody gave back as much there."""
    return evidence.asked_at is None and evidence.view.refunded_minor > 0


def plan_check(work: Work, stream: Stream) -> None:
    """Set the stream's next check by the ladder; at its end an unclear stream becomes a case, never silence."""
    stream.next_check_at = _planned(work, stream)
    if stream.state not in WATCHED_STREAM_STATES or stream.close_reason == surplus.GIVEN_UP:
        return
    if stream.next_check_at is None:
        open_case(
            work, DiscrepancyKind.STREAM_UNCLEAR, stream.number,
            f"{stream.account} gave no final answer about {stream.number} (last: {stream.last_answer or 'none'}).",
            stream=stream, amount_minor=stream.amount_minor, last_answer=stream.last_answer,
        )  # fmt: skip


def _planned(work: Work, stream: Stream) -> datetime | None:
    """When the ladder asks about the stream next; None when it has ended, or its ladder has. Our own restraint is no end."""
    is_restrained = stream.state == StreamState.CLOSED and stream.close_proof == "restraint"
    if stream.state not in WATCHED_STREAM_STATES and not is_restrained:
        return None
    return schedule.next_check_at(stream, work.at, capabilities_of(stream), get_settings().GRACE_SECONDS)


def ask_again_about_ended(work: Work, stream: Stream) -> None:
    """The channel stirred about a stream that had ended, and does not answer: ask for a day, then tell a person."""
    if stream.nudged_at is not None and work.at - stream.nudged_at < ENDED_ASKED_FOR:
        stream.next_check_at = work.at + ENDED_ASKED_EVERY
        return
    stream.next_check_at = None
    text = f"{stream.account} spoke of {stream.number}, which had ended, and does not answer what became of it."
    open_case(work, DiscrepancyKind.STREAM_UNCLEAR, stream.number, text, stream=stream, last_answer=stream.last_answer)


def _paid(work: Work, stream: Stream, evidence: Evidence) -> Settled:
    view = evidence.view
    if stream.state == StreamState.SUCCEEDED:
        return _paid_again(work, stream, view, evidence)
    if view.paid_minor <= 0:
        return _contradict(work, stream, evidence, "says paid without an amount")
    role, reason, automatic = _judge(work, stream, view)
    arrows.succeed(work, stream, view, role, reason, evidence.way)
    _judge_facts(work, stream)
    if role == StreamRole.KEEPER:
        surplus.settle_order(work, stream)
        return Settled.KEEPER
    surplus.take_in(work, stream, automatic=automatic)
    return Settled.SURPLUS


def _judge(work: Work, stream: Stream, view: PaymentView) -> tuple[StreamRole, SurplusReason, bool]:
    """Keeper or surplus, why, and whether the surplus may be given back without a person."""
    order = work.order
    taken = (view.paid_minor, view.currency)
    if taken != (stream.amount_minor, stream.currency) or taken != (order.amount_minor, order.currency):
        return StreamRole.SURPLUS, SurplusReason.MISMATCHED, view.currency == stream.currency
    if order.keeper is not None:
        return StreamRole.SURPLUS, SurplusReason.DUPLICATE, True
    if order.state == OrderState.CLOSED:
        decision = judge_late(work, view.paid_at or work.at)
        if decision != LateDecision.ACCEPT:
            return StreamRole.SURPLUS, SurplusReason.LATE, decision == LateDecision.REFUND
    return StreamRole.KEEPER, SurplusReason.NONE, False


def judge_late(work: Work, paid_at: datetime) -> LateDecision:
    """Ask the shop about money for a closed order. An exception there means a person, and undoes only the shop's own work.

    In time means: paid before the order expired, and before it was closed where it was cancelled earlier.
    """
    order = work.order
    if work.ran_hooks is None:  # it broke this transaction's first try
        return LateDecision.ASK
    work.ran_hooks.append("late_payment")
    ends = [moment for moment in (order.expires_at, order.closed_at) if moment is not None]
    in_time = not ends or paid_at <= min(ends)
    try:
        with transaction.atomic(using=work.using):
            return LateDecision(get_shop().late_payment(order, paid_at, in_time))
    except Exception:
        log.exception("the shop's late_payment failed for order %s: a person decides", order.number)
        return LateDecision.ASK


def _paid_again(work: Work, stream: Stream, view: PaymentView, evidence: Evidence) -> Settled:
    reference = view.channel_reference
    if reference and stream.channel_reference and reference != stream.channel_reference:
        return _second_capture(work, stream, view, evidence)
    if reference:  # the same one, or the first that the channel names
        stream.channel_reference = reference
    if view.paid_minor and (view.paid_minor, view.currency) != (stream.captured_minor, stream.captured_currency):
        open_case(
            work, DiscrepancyKind.CONTRADICTION, stream.number, f"{stream.account} now reports another amount for {stream.number}.",
            stream=stream, amount_minor=view.paid_minor, was_minor=stream.captured_minor, currency=view.currency,
        )  # fmt: skip
    if arrows.note_facts(work, stream, view, is_asked=evidence.asked_at is not None) == arrows.StreamMove.MOVED:
        _judge_facts(work, stream)
    return Settled.REPEAT


def _second_capture(work: Work, stream: Stream, view: PaymentView, evidence: Evidence) -> Settled:
    """Another reference under the same number: adopt it as a surplus stream of its own, once."""
    reference, is_asked = view.channel_reference, evidence.asked_at is not None
    for other in work.streams:
        if other.account == stream.account and other.channel_reference == reference:
            if arrows.note_facts(work, other, view, is_asked=is_asked) == arrows.StreamMove.MOVED:
                _judge_facts(work, other)
            return Settled.REPEAT
    if view.paid_minor <= 0:
        return _contradict(work, stream, evidence, f"says paid without an amount under {reference}")
    adopt_second_capture(work, stream, view, evidence.way, automatic=view.currency == stream.currency)
    return Settled.SURPLUS


def adopt_second_capture(work: Work, stream: Stream, view: PaymentView, way: Confirmation, *, automatic: bool) -> None:
    """Money under the stream's number and another reference: a surplus stream of its own, given back or a person's case."""
    adopted = surplus.adopted_stream(work, stream, view)
    arrows.adopt(work, adopted, view, SurplusReason.SECOND_CAPTURE, way)
    surplus.take_in(work, adopted, automatic=automatic)


def moved_minor(work: Work, stream: Stream, but: Refund | None = None) -> int:
    """What our own refunds of the stream moved, or may have moved, in minor units. A definite no moved nothing."""
    mine = [row for row in work.refunds if row.stream_id == stream.pk and row is not but]
    return sum(row.amount_minor for row in mine if row.state not in UNMOVED_REFUND_STATES or row.open_call_count > 0)


def _judge_facts(work: Work, stream: Stream) -> None:
    """Money that left without us: a refund made outside payonce, a dispute, a reversal."""
    left = stream.channel_refunded_minor  # nothing, nearly always: then the refunds need not be read
    without_us = left - moved_minor(work, stream) if left else 0
    if without_us > 0:
        open_case(
            work, DiscrepancyKind.OUTSIDE_REFUND, stream.number,
            f"{stream.account} gave {without_us} (minor units) of {stream.number} back without us.",
            stream=stream, amount_minor=without_us, refunded_minor=left,
        )  # fmt: skip
    taken = stream.disputed_minor + stream.reversed_minor
    if taken:
        open_case(
            work, DiscrepancyKind.DISPUTE, stream.number, f"{stream.number} is disputed or reversed at {stream.account}.",
            stream=stream, amount_minor=taken, disputed_minor=stream.disputed_minor, reversed_minor=stream.reversed_minor,
        )  # fmt: skip


def _closed(work: Work, stream: Stream, evidence: Evidence) -> Settled:
    if stream.state == StreamState.SUCCEEDED:
        return _contradict(work, stream, evidence, "says closed and never paid")
    moved = arrows.prove_closed(work, stream, evidence.proof)
    return Settled.CLOSED if moved == arrows.StreamMove.MOVED else Settled.REPEAT


def _open_or_not_found(work: Work, stream: Stream, evidence: Evidence) -> Settled:
    view = evidence.view
    if stream.state == StreamState.SUCCEEDED:
        return _contradict(work, stream, evidence, f"says {view.state.value} about money that it had confirmed")
    if stream.state not in WATCHED_STREAM_STATES:
        if view.state == PaymentState.OPEN and stream.close_proof in ("answer", "query"):
            return _contradict(work, stream, evidence, "says open after it proved it closed")
        return Settled.NO_NEWS
    if (
        not _blocks(work, stream)
        and evidence.asked_at is not None
        and schedule.is_past_payable(stream, capabilities_of(stream), get_settings().GRACE_SECONDS, evidence.asked_at)
    ):
        arrows.prove_closed(work, stream, "expiry")
        return Settled.CLOSED
    if stream.state == StreamState.PROCESSING and view.state == PaymentState.OPEN:
        arrows.resume_waiting(work, stream)
        if work.order.state != OrderState.OPEN:
            stream.nudged_at = work.at
            arrows.start_closing(work, stream, "order moved on")
    return Settled.WAITING


def _blocks(work: Work, stream: Stream) -> bool:
    """May money be on its way, whatever the clock says? A capture that was asked for may, until its key cannot be repeated."""
    if stream.state != StreamState.CAPTURING:
        return stream.state == StreamState.PROCESSING
    return stream.replay_safe_until is None or stream.replay_safe_until > work.at


def _in_progress(work: Work, stream: Stream, evidence: Evidence) -> Settled:
    if stream.state == StreamState.SUCCEEDED:
        return Settled.NO_NEWS
    if stream.state in (StreamState.CLOSED, StreamState.FAILED):
        return _contradict(work, stream, evidence, "says that money is on its way for a stream that had ended")
    arrows.mark_processing(work, stream)
    return Settled.PROCESSING


def _approved(work: Work, stream: Stream, evidence: Evidence) -> Settled:
    return Settled.APPROVED if stream.state in WATCHED_STREAM_STATES else Settled.NO_NEWS


def _unclear(work: Work, stream: Stream, evidence: Evidence) -> Settled:
    return Settled.WAITING


def _contradict(work: Work, stream: Stream, evidence: Evidence, what: str) -> Settled:
    open_case(
        work, DiscrepancyKind.CONTRADICTION, stream.number, f"{stream.account} {what}: {stream.number}.",
        stream=stream, amount_minor=stream.captured_minor, answer=evidence.view.state, was=stream.state,
        channel_reference=evidence.view.channel_reference,
    )  # fmt: skip
    return Settled.CONTRADICTION


def _follow_up(work: Work) -> None:
    """After the commit: void the cache, wake the waiters, start the sweeps. A sweep would find all of it anyway."""
    if not work.journal.events:
        return
    number = work.order.number

    def follow_up() -> None:
        cache.void(number, work.order.version)
        cache.wake(number, work.order.version)
        enqueue.kick("payonce.publish")
        if work.has_refunds:
            enqueue.kick("payonce.refund")
        if any(stream.state == StreamState.CLOSING for stream in work.streams):
            enqueue.kick("payonce.close")

    work.after_commit(follow_up)


_APPLY = {
    PaymentState.PAID: _paid,
    PaymentState.CLOSED: _closed,
    PaymentState.OPEN: _open_or_not_found,
    PaymentState.NOT_FOUND: _open_or_not_found,
    PaymentState.IN_PROGRESS: _in_progress,
    PaymentState.APPROVED: _approved,
    PaymentState.UNCLEAR: _unclear,
}
