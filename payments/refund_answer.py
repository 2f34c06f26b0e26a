"""What a channel's answer about a refund means for its row, whoever asked: the refund call, a query or a notification."""

from datetime import timedelta

from payonce.channels.messages import Known, Outcome, RefundView, Refused, RefusedKind, Unknown
from payonce.channels.messages import RefundState as Answer
from payonce.orders import transitions as orders
from payonce.payments import schedule
from payonce.payments.call import replay_safe_until
from payonce.payments.locks import Work
from payonce.payments.models import Discrepancy, Refund
from payonce.payments.policy import AUTOMATON
from payonce.payments.statuses import TRIED_REFUND_STATES, Decision, DiscrepancyKind, RefundState, StreamRole
from payonce.payments.transitions import cases
from payonce.payments.transitions import refunds as arrows
from payonce.payments.transitions.refunds import RefundMove

SURPLUS_KINDS = (
    DiscrepancyKind.DUPLICATE, DiscrepancyKind.LATE_PAYMENT, DiscrepancyKind.MISMATCH, DiscrepancyKind.SECOND_CAPTURE,
)  # fmt: skip


def means_not_sent(outcome: Outcome[RefundView], may_repeat: bool, is_retried: bool) -> bool:
    """After a query: may the same request be sent again under the same number? After a failure only where a person retried it."""
    if not may_repeat or not isinstance(outcome, Known):
        return False
    return outcome.value.state is Answer.NOT_FOUND or (is_retried and outcome.value.state is Answer.FAILED)


def apply_outcome(
    work: Work,
    refund: Refund,
    outcome: Outcome[RefundView],
    *,
    asked_only: bool,
    may_repeat: bool,
    is_late: bool,
) -> None:
    """Apply the answer to a call or query. `asked_only` marks a query: its refusal says nothing about the refund itself.

    `is_late` marks one whose process lost its claim meanwhile: it may be older than what is known by now.
    """
    refund.last_answer = short(outcome)
    refund.last_answer_at = work.at
    if not asked_only:
        refund.replay_safe_until = replay_safe_until(refund.replay_safe_until, outcome)
    if not asked_only and not isinstance(outcome, Unknown):
        refund.open_call_count = max(0, refund.open_call_count - 1)
    if isinstance(outcome, Known):
        apply_view(work, refund, outcome.value, may_repeat=may_repeat, is_asked=not is_late)
    elif isinstance(outcome, Unknown) or asked_only:
        not_answered(work, refund, short(outcome))
    elif outcome.kind is RefusedKind.THROTTLED:
        try_later(work, refund)
    elif outcome.kind is RefusedKind.CONFLICT:
        arrows.lose_sight(work, refund, f"conflict: {outcome.code}")
        try_later(work, refund)
        _contradicted(work, refund)
    else:
        _rejected(work, refund, outcome)


def apply_view(
    work: Work, refund: Refund, view: RefundView, *, may_repeat: bool = True, is_asked: bool = False
) -> None:
    """Apply a verified statement about this refund number. A wrong amount or currency is a contradiction, not a success.

    `is_asked` marks a fresh answer to our own question; what came unasked may be an old message told again.
    """
    refund.last_answer, refund.last_answer_at = view.state.value, work.at
    if refund.state == RefundState.SUCCEEDED and view.state not in (Answer.FAILED, Answer.RETURNED):
        refund.next_try_at = None  # it was done before; nothing else is news
        return
    if view.state is Answer.DONE and _is_mismatched(refund, view):
        _contradict(work, refund, f"the channel reports {view.amount_minor} {view.currency} for it")
        not_answered(work, refund, "another amount or currency")
        return
    if view.state is Answer.DONE:
        _done(work, refund, view, is_asked=is_asked)
    elif view.state is Answer.IN_PROGRESS:
        arrows.submit(work, refund, view.channel_reference)
        try_later(work, refund)
    elif view.state is Answer.ATTENTION:
        _attention(work, refund, view)
    elif view.state is Answer.FAILED:
        _failed(work, refund, view, is_asked=is_asked)
    elif view.state is Answer.RETURNED:
        _returned(work, refund, view)
    elif not may_repeat or refund.state == RefundState.SUBMITTED:
        not_answered(work, refund, "not found")


def short(outcome: Known[RefundView] | Refused | Unknown) -> str:
    """The answer in a few words, for the row."""
    if isinstance(outcome, Known):
        return outcome.value.state.value
    if isinstance(outcome, Refused):
        return f"{outcome.kind.value}: {outcome.code}"[:128]
    return f"unknown: {outcome.reason}"[:128]


def _done(work: Work, refund: Refund, view: RefundView, *, is_asked: bool) -> RefundMove:
    refund.open_call_count = 0
    is_old_news = refund.state == RefundState.REJECTED and not is_asked  # perhaps: it may have come back since
    move = arrows.succeed(work, refund, view.channel_reference)
    if move is RefundMove.TOO_MUCH:
        _contradict(work, refund, "it was given up here and is done at the channel, and other refunds used the money")
    if move is not RefundMove.MOVED:
        return move
    if is_old_news:
        refund.next_try_at = work.at
    stream = work.stream_of(refund)
    if stream.role == StreamRole.KEEPER:
        orders.give_back(work.order, work.journal, refund.amount_minor, refund.number)
    if stream.channel_refunded_minor:
        stream.next_check_at = work.at  # that sum was told before this refund, and may be what somebody else gave back
    who = refund.approved_by or refund.requested_by
    decision = Decision.AUTOMATIC if who == AUTOMATON else Decision.REFUND
    for case in work.cases:
        if _is_settled_by(work, case, refund):
            cases.resolve(work, case, decision, who, f"refunded under {refund.number}")
        elif case.refund_id == refund.pk:
            cases.hand_to_person(work, case, f"{refund.number} gave back a part: decide about the rest.")
    return move


def _is_settled_by(work: Work, case: Discrepancy, refund: Refund) -> bool:
    """Is the case over with this refund? One about surplus money is, once all of it is back, whoever asked for that."""
    stream = work.stream_of(refund)
    if case.refund_id == refund.pk and case.kind == DiscrepancyKind.REFUND_STUCK:
        return True
    is_about_it = stream.role == StreamRole.SURPLUS and case.kind in SURPLUS_KINDS and case.subject == stream.number
    done = [row for row in work.refunds if row.stream_id == stream.pk and row.state == RefundState.SUCCEEDED]
    is_whole = sum(row.amount_minor for row in done) == stream.captured_minor
    return is_whole and (case.refund_id == refund.pk or is_about_it)


def _failed(work: Work, refund: Refund, view: RefundView, *, is_asked: bool) -> None:
    if not is_asked and (refund.state == RefundState.SUCCEEDED or refund.open_call_count > 0):
        # It may be from before a retry, or money that came back: only the answer to a question can tell.
        refund.next_try_at = work.at
        return
    if refund.state == RefundState.SUCCEEDED:
        _returned(work, refund, view)
        return
    refund.open_call_count = 0
    if arrows.reject(work, refund, view.code or "failed") is RefundMove.MOVED:
        to_person(
            work,
            refund,
            f"{refund.number} failed at the channel ({view.code or 'no code'}): retry it, or write it off.",
        )


def _rejected(work: Work, refund: Refund, outcome: Refused) -> None:
    if arrows.reject(work, refund, outcome.code) is RefundMove.MOVED:
        to_person(work, refund, f"The channel refused {refund.number} ({outcome.kind.value}: {outcome.code}).")


def _contradicted(work: Work, refund: Refund) -> None:
    """The channel says that its state forbids it: it is asked whether somebody gave the money back there, and a person is told soon."""
    work.stream_of(refund).next_check_at = work.at
    sent_at = refund.first_sent_at or work.at
    is_tried = refund.state in TRIED_REFUND_STATES
    if is_tried and (work.at - sent_at).total_seconds() >= schedule.REFUND_CONFLICT_SECONDS:
        to_person(work, refund, f"{refund.number} gets nowhere ({refund.last_answer}): look it up at the channel.")


def _attention(work: Work, refund: Refund, view: RefundView) -> None:
    if arrows.need_attention(work, refund, view.code) is RefundMove.MOVED:
        to_person(work, refund, f"{refund.number} needs a person at the channel ({view.code or 'no code'}).")
    if refund.state in TRIED_REFUND_STATES:
        refund.next_try_at = work.at + timedelta(seconds=schedule.REFUND_TRY_SECONDS[-1])


def _returned(work: Work, refund: Refund, view: RefundView) -> None:
    if refund.state != RefundState.SUCCEEDED:
        _failed(work, refund, view, is_asked=True)
        return
    arrows.return_money(work, refund)
    if work.stream_of(refund).role == StreamRole.KEEPER:
        orders.take_back(work.order, work.journal, refund.amount_minor, refund.number)
    to_person(work, refund, f"{refund.number} came back from the buyer's bank: give the money back another way.")


def not_answered(work: Work, refund: Refund, reason: str) -> None:
    """No definite answer: the reservation stays, and it is asked again."""
    arrows.lose_sight(work, refund, reason)
    try_later(work, refund)


def try_later(work: Work, refund: Refund) -> None:
    """Plan the next try. One that gets nowhere for days goes on, and also comes into a person's queue.

    An answer that a paused process brings back may find it ended: then nothing is tried any more.
    """
    if refund.state not in TRIED_REFUND_STATES:
        return
    refund.next_try_at = schedule.backoff(work.at, refund.try_count, schedule.REFUND_TRY_SECONDS)
    is_accepted = refund.state == RefundState.SUBMITTED
    patience = schedule.REFUND_WAIT_SECONDS if is_accepted else schedule.REFUND_GIVE_UP_SECONDS
    if (work.at - refund.created_at).total_seconds() > patience:
        to_person(work, refund, f"{refund.number} gets nowhere ({refund.last_answer}): look it up at the channel.")


def _is_mismatched(refund: Refund, view: RefundView) -> bool:
    wrong_amount = view.amount_minor not in (0, refund.amount_minor)
    return wrong_amount or (view.currency != "" and view.currency != refund.currency)


def _contradict(work: Work, refund: Refund, what: str) -> None:
    cases.open_case(
        work, DiscrepancyKind.CONTRADICTION, refund.number, f"Refund {refund.number}: {what}.",
        stream=work.stream_of(refund), refund=refund, amount_minor=refund.amount_minor, answer=refund.last_answer,
    )  # fmt: skip


def hand_cases_over(work: Work, refund: Refund, why: str) -> None:
    """Cases that were being repaired by this refund are a person's again."""
    for case in [case for case in work.cases if case.refund_id == refund.pk]:
        cases.hand_to_person(work, case, why)


def succeed_by_person(work: Work, refund: Refund, by: str) -> RefundMove:
    """As if the channel had said DONE, on the word of the person who looked."""
    if not refund.approved_by and refund.requested_by != by:
        refund.approved_by = by
    return _done(work, refund, RefundView(refund.number, Answer.DONE), is_asked=True)


def to_person(work: Work, refund: Refund, why: str) -> None:
    """The case whose repair this refund was goes to a person's queue; there is always one."""
    mine = [case for case in work.cases if case.refund_id == refund.pk]
    for case in mine:
        cases.hand_to_person(work, case, why)
    if not mine:
        cases.open_case(
            work, DiscrepancyKind.REFUND_STUCK, refund.number, why, stream=work.stream_of(refund), refund=refund,
            amount_minor=refund.amount_minor,
        )  # fmt: skip
