"""Surplus: money that is not its order's payment. It ends as exactly one refund, or as a case in a person's queue."""

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum

from django.db import transaction

from payonce.channels.messages import PaymentView
from payonce.orders import transitions as orders
from payonce.orders.conf import get_settings, get_shop
from payonce.orders.locks import read_clock, set_timeouts
from payonce.payments import cache, enqueue
from payonce.payments.call import capabilities_of
from payonce.payments.errors import DiscrepancyNotFound
from payonce.payments.locks import Work, lock_case, require_no_transaction, under_lock
from payonce.payments.models import Discrepancy, Refund, Stream
from payonce.payments.policy import AUTOMATON, needs_second_person, person_of
from payonce.payments.statuses import (
    WATCHED_STREAM_STATES,
    Decision,
    DiscrepancyKind,
    DiscrepancyState,
    RefundPurpose,
    RefundState,
    StreamRole,
    SurplusReason,
)
from payonce.payments.transitions import cases, refunds
from payonce.payments.transitions import streams as arrows

KIND_OF_REASON = {
    SurplusReason.DUPLICATE: DiscrepancyKind.DUPLICATE,
    SurplusReason.LATE: DiscrepancyKind.LATE_PAYMENT,
    SurplusReason.MISMATCHED: DiscrepancyKind.MISMATCH,
    SurplusReason.SECOND_CAPTURE: DiscrepancyKind.SECOND_CAPTURE,
}
PURPOSE_LETTERS = {RefundPurpose.SURPLUS: "s", RefundPurpose.OPERATOR: "p"}


GIVEN_UP = "given up by a person"
PARKABLE = (RefundState.REQUESTED, RefundState.SUBMITTED, RefundState.UNKNOWN, RefundState.ATTENTION)


class Decided(StrEnum):
    """What a person's decision about a case came to."""

    DONE = "done"
    REPEAT = "repeat"
    NOT_SURPLUS = "not_surplus"  # the case is not about surplus money
    HAS_KEEPER = "has_keeper"  # the order is paid already: this cannot become its payment
    MISMATCHED = "mismatched"  # the amount or currency is not the order's
    REFUNDING = "refunding"  # a refund is on its way or done
    NO_MONEY_LEFT = "no_money_left"


def take_in(work: Work, stream: Stream, *, automatic: bool) -> None:
    """Open the case of a stream that just took surplus money and, where it may be given back, its one refund."""
    capabilities = capabilities_of(stream)
    can_refund = capabilities is not None and capabilities.refunds and stream.captured_currency == stream.currency
    repairing = automatic and can_refund
    reason = SurplusReason(stream.surplus_reason)
    refund = (
        _reserve(work, stream, RefundPurpose.SURPLUS, stream.refundable_minor, reason.value, AUTOMATON)
        if repairing
        else None
    )
    cases.open_case(
        work, KIND_OF_REASON[reason], stream.number,
        f"{stream.number} took {stream.captured_minor} {stream.captured_currency} (minor units) that order"
        f" {work.order.number} does not need: {reason.label}.",
        state=DiscrepancyState.REPAIRING if refund else DiscrepancyState.OPEN, stream=stream, refund=refund,
        amount_minor=stream.captured_minor, expected_minor=work.order.amount_minor,
        channel_reference=stream.channel_reference, keeper=work.order.keeper,
    )  # fmt: skip


def adopted_stream(work: Work, stream: Stream, view: PaymentView) -> Stream:
    """A new stream for money that came under another stream's number. Not saved yet."""
    attempt = max(row.attempt for row in work.streams) + 1
    return Stream(
        number=stream_number(work.order.number, attempt), order=work.order, attempt=attempt, account=stream.account,
        method=stream.method, client_type=stream.client_type, amount_minor=view.paid_minor, currency=stream.currency,
        origin_number=stream.channel_number, payable_until=stream.payable_until, created_at=work.at,
    )  # fmt: skip


def stream_number(order_number: str, attempt: int) -> str:
    """The number of an order's attempt; it never changes and no two streams share one."""
    return f"{order_number}s{attempt:02d}"


def refund_number(stream: Stream, purpose: RefundPurpose, sequence: int) -> str:
    """A function of (stream, purpose, sequence) and nothing else."""
    return f"{stream.number}r{PURPOSE_LETTERS[purpose]}{sequence}"


def new_refund(work: Work, stream: Stream, purpose: RefundPurpose, amount_minor: int, reason: str, by: str) -> Refund:
    """A refund under the next number of its purpose. Not saved yet; `refunds.reserve` saves it."""
    used = [row.sequence for row in work.refunds if row.stream_id == stream.pk and row.purpose == purpose]
    sequence = max(used, default=0) + 1
    return Refund(
        number=refund_number(stream, purpose, sequence), stream=stream, purpose=purpose, sequence=sequence,
        amount_minor=amount_minor, currency=stream.captured_currency, reason=reason, requested_by=by, created_at=work.at,
    )  # fmt: skip


def decide_case(case_id: int, decision: Decision, by: str, note: str = "") -> Decided:
    """A person decides about a case: refund it, keep the money, accept it as the order's payment, or dismiss it.

    `by` is the user's name. Raises DiscrepancyNotFound.
    """
    by = person_of(by)
    using = get_settings().DATABASE
    found = Discrepancy.objects.using(using).filter(pk=case_id).only("order_id").first()
    if found is None:
        raise DiscrepancyNotFound(f"There is no case {case_id}.")
    if found.order_id is None:
        return _decide_without_order(case_id, decision, by, note)
    return under_lock(
        f"operator:{by.removeprefix('operator:')}",
        lambda work: _decide(work, case_id, decision, by, note),
        order_id=found.order_id,
    )


def _decide(work: Work, case_id: int, decision: Decision, by: str, note: str) -> Decided:
    case = next((row for row in work.cases if row.pk == case_id), None)
    if case is None:
        return Decided.REPEAT
    if decision in (Decision.REFUND, Decision.ACCEPT, Decision.KEEP):
        stream = next((row for row in work.streams if row.pk == case.stream_id), None)
        if stream is None or (stream.role != StreamRole.SURPLUS and not _is_case_of_refund(case)):
            return Decided.NOT_SURPLUS
        answer = _DECIDE[decision](work, case, stream, by)
        if answer is not Decided.DONE or decision == Decision.REFUND:
            return answer
    if case.kind == DiscrepancyKind.STREAM_UNCLEAR:
        for stream in [row for row in work.streams if row.pk == case.stream_id]:
            arrows.give_up(work, stream, GIVEN_UP)
    if decision == Decision.DISMISS:
        _end_parked(work, case, by)
    cases.resolve(work, case, decision, by, note)
    _follow_up(work)
    return Decided.DONE


def _end_parked(work: Work, case: Discrepancy, by: str) -> None:
    """Nothing carries a parked refund on but this case: unsent it is taken back, sent it is asked about once more."""
    is_anothers = any(other.refund_id == case.refund_id for other in work.cases if other is not case)
    for row in [row for row in work.refunds if row.pk == case.refund_id and not is_anothers]:
        if row.next_try_at is not None or row.state not in PARKABLE:
            continue
        if refunds.decline(work, row, by, "dismissed") is not refunds.RefundMove.MOVED:
            row.next_try_at = work.at


def _refund_surplus(work: Work, case: Discrepancy, stream: Stream, by: str) -> Decided:
    """Release the parked refund, retry the rejected one under its number, ask about an unanswered one, or make a new one."""
    known = [row for row in work.refunds if row.stream_id == stream.pk]
    refund = next((row for row in known if row.pk == case.refund_id), known[-1] if known else None)
    if refund is not None and refund.state == RefundState.SUCCEEDED and not _is_case_of_refund(case):
        refund = None  # a person gave a part back: this is about the rest
    if refund is None or refund.is_released:
        amount = min(refund.amount_minor if refund else stream.captured_minor, stream.refundable_minor)
        if amount <= 0:
            return Decided.NO_MONEY_LEFT
        purpose = RefundPurpose(refund.purpose) if refund else RefundPurpose.SURPLUS
        refund = _reserve(work, stream, purpose, amount, stream.surplus_reason or "returned", by)
        if refund is None:
            return Decided.REFUNDING
    elif refund.state in (RefundState.REJECTED, RefundState.ATTENTION):
        if refunds.retry(work, refund) != refunds.RefundMove.MOVED:
            return Decided.REFUNDING
    elif refund.state in (RefundState.SUCCEEDED, RefundState.AWAITING_APPROVAL):
        return Decided.REFUNDING
    if refund.state != RefundState.AWAITING_APPROVAL:
        refund.next_try_at = work.at
        if not refund.approved_by and refund.requested_by != by:
            refund.approved_by = by
    cases.start_repair(work, case, refund)
    _follow_up(work)
    return Decided.DONE


def _accept_late(work: Work, case: Discrepancy, stream: Stream, by: str) -> Decided:
    """Late money becomes the order's payment after all, where the order has none and nothing was given back."""
    order = work.order
    if order.keeper is not None:
        return Decided.HAS_KEEPER
    taken = (stream.captured_minor, stream.captured_currency)
    if taken != (order.amount_minor, order.currency) or taken != (stream.amount_minor, stream.currency):
        return Decided.MISMATCHED
    if not _take_back_unsent(work, case, stream, by):
        return Decided.REFUNDING
    arrows.promote(work, stream)
    settle_order(work, stream)
    return Decided.DONE


def settle_order(work: Work, keeper: Stream) -> None:
    """The order is paid by this stream: siblings close, and the shop's own effects commit with it, or not at all."""
    orders.settle(work.order, work.journal, keeper.number, keeper.paid_at)
    for sibling in work.streams:
        if sibling.state in WATCHED_STREAM_STATES:  # the keeper has its money
            sibling.nudged_at = work.at
            arrows.start_closing(work, sibling, "another stream paid")
    hook = get_shop().order_paid_in_transaction
    if hook is not None:
        work.hooks.append(hook)


def _keep(work: Work, case: Discrepancy, stream: Stream, by: str) -> Decided:
    """What was not given back stays: a part that is surely back with the buyer does not stand against it."""
    done = [row for row in work.refunds if row.stream_id == stream.pk and row.state == RefundState.SUCCEEDED]
    is_part = sum(row.amount_minor for row in done) < stream.captured_minor
    is_kept = _take_back_unsent(work, case, stream, by, but=done if is_part else ())
    return Decided.DONE if is_kept else Decided.REFUNDING


def _take_back_unsent(work: Work, case: Discrepancy, stream: Stream, by: str, but: Sequence[Refund] = ()) -> bool:
    """Decline the stream's refunds that no channel was asked for yet; False when one was, so that the money may be gone.

    Another case that such a refund was repairing is a person's again. Refunds in `but` may stand.
    """
    mine = [row for row in work.refunds if row.stream_id == stream.pk and row not in but]
    standing = [row for row in mine if not row.is_released]
    if any(row.first_sent_at is not None for row in standing):
        return False
    for row in standing:
        refunds.decline(work, row, by, "kept")
        for other in [other for other in work.cases if other.refund_id == row.pk and other is not case]:
            cases.hand_to_person(work, other, f"{row.number} was taken back by {by}.")
    return True


def _reserve(
    work: Work, stream: Stream, purpose: RefundPurpose, amount_minor: int, reason: str, by: str
) -> Refund | None:
    """The refund's row and reservation. From the approval limit on, what a person decided waits for a second one."""
    conf = get_settings().REFUND
    refund = new_refund(work, stream, purpose, amount_minor, reason, by)
    state = RefundState.REQUESTED
    mine = [row for row in work.refunds if row.stream_id == stream.pk]
    if by != AUTOMATON and needs_second_person(amount_minor, mine, conf.APPROVAL_MINOR):
        state = RefundState.AWAITING_APPROVAL
        refund.approval_expires_at = work.at + timedelta(hours=conf.APPROVAL_HOURS)
    else:
        refund.next_try_at = work.at + timedelta(seconds=conf.DELAY_SECONDS)  # a person has looked: it goes at once
    return refund if refunds.reserve(work, stream, refund, state) is refunds.RefundMove.MOVED else None


def _decide_without_order(case_id: int, decision: Decision, by: str, note: str) -> Decided:
    """A case that belongs to no order can only be closed by the person who looked into it."""
    if decision not in (Decision.DISMISS, Decision.KEEP):
        return Decided.NOT_SURPLUS
    using = require_no_transaction()
    with transaction.atomic(using=using):
        set_timeouts()
        case = lock_case(case_id, using)
        if cases.resolve_alone(case, decision, by, note, read_clock()) is cases.CaseMove.REPEAT:
            return Decided.REPEAT
        case.save(using=using, update_fields=["state", "decision", "decided_by", "note", "resolved_at"])
    return Decided.DONE


def _is_case_of_refund(case: Discrepancy) -> bool:
    return case.kind == DiscrepancyKind.REFUND_STUCK


def _follow_up(work: Work) -> None:
    def follow_up() -> None:
        cache.void(work.order.number, work.order.version)
        enqueue.kick("payonce.refund")
        enqueue.kick("payonce.publish")

    work.after_commit(follow_up)


_DECIDE = {Decision.REFUND: _refund_surplus, Decision.ACCEPT: _accept_late, Decision.KEEP: _keep}
