"""Every arrow of a discrepancy: `OPEN → REPAIRING → RESOLVED`. A case of an order writes to the order's history."""

import json
from datetime import datetime
from enum import StrEnum
from typing import Any

from payonce.payments.locks import Work
from payonce.payments.models import Discrepancy, Refund, Stream
from payonce.payments.statuses import Decision, DiscrepancyKind, DiscrepancyState


class CaseMove(StrEnum):
    """What an attempted arrow came to."""

    MOVED = "moved"
    REPEAT = "repeat"
    NOT_OPEN = "not_open"


def open_case(
    work: Work,
    kind: DiscrepancyKind,
    subject: str,
    summary: str,
    *,
    state: DiscrepancyState = DiscrepancyState.OPEN,
    stream: Stream | None = None,
    refund: Refund | None = None,
    amount_minor: int = 0,
    **evidence: Any,
) -> Discrepancy:
    """∅ → OPEN or REPAIRING. There is one unresolved case of a kind about a subject: it grows with the money at stake."""
    account = stream.account if stream is not None else ""
    for case in work.cases:
        if (case.kind, case.subject, case.account) == (kind, subject, account):
            if amount_minor > case.amount_minor:
                _grow(work, case, summary, amount_minor, evidence)
            return case
    case = Discrepancy(
        kind=kind,
        subject=subject,
        state=state,
        order=work.order,
        stream=stream,
        refund=refund,
        account=account,
        amount_minor=amount_minor,
        currency=stream.captured_currency or stream.currency if stream else work.order.currency,
        summary=summary[:300],
        evidence=_write(evidence),
        opened_at=work.at,
    )
    work.add(case)
    work.journal.write(
        work.order,
        "case.opened",
        subject=subject[:40],
        after=state,
        case=kind,
        amount_minor=amount_minor,
        summary=case.summary,
    )
    return case


def start_repair(work: Work, case: Discrepancy, refund: Refund | None = None) -> CaseMove:
    """OPEN → REPAIRING: payonce is at work on it."""
    if refund is not None:
        case.refund = refund
    if case.state == DiscrepancyState.REPAIRING:
        return CaseMove.REPEAT
    if case.state != DiscrepancyState.OPEN:
        return CaseMove.NOT_OPEN
    return _move(work, case, DiscrepancyState.REPAIRING, "case.repairing")


def hand_to_person(work: Work, case: Discrepancy, why: str) -> CaseMove:
    """REPAIRING → OPEN: the repair needs a person after all."""
    if case.state == DiscrepancyState.OPEN:
        return CaseMove.REPEAT
    if case.state != DiscrepancyState.REPAIRING:
        return CaseMove.NOT_OPEN
    case.note = why[:500]
    return _move(work, case, DiscrepancyState.OPEN, "case.handed_to_person", why=why)


def resolve(work: Work, case: Discrepancy, decision: Decision, by: str, note: str = "") -> CaseMove:
    """OPEN or REPAIRING → RESOLVED, with what was decided and by whom."""
    if case.state == DiscrepancyState.RESOLVED:
        return CaseMove.REPEAT
    case.decision = decision
    case.decided_by = by[:150]
    case.note = note[:500] or case.note
    case.resolved_at = work.at
    return _move(work, case, DiscrepancyState.RESOLVED, "case.resolved", decision=decision)


def new_alone(
    kind: DiscrepancyKind,
    account: str,
    subject: str,
    summary: str,
    at: datetime,
    amount_minor: int = 0,
    currency: str = "",
) -> Discrepancy:
    """∅ → OPEN for a case that belongs to no order. Not saved yet; the caller inserts it unless one is open already."""
    return Discrepancy(
        kind=kind, account=account, subject=subject[:128], state=DiscrepancyState.OPEN, summary=summary[:300], opened_at=at,
        amount_minor=amount_minor, currency=currency[:3],
    )  # fmt: skip


def resolve_alone(case: Discrepancy, decision: str, by: str, note: str, at: datetime) -> CaseMove:
    """OPEN → RESOLVED for a case that belongs to no order, and so to no history."""
    if case.state == DiscrepancyState.RESOLVED:
        return CaseMove.REPEAT
    case.decision, case.decided_by, case.note, case.resolved_at = decision, by[:150], note[:500], at
    case.state = DiscrepancyState.RESOLVED
    return CaseMove.MOVED


def _grow(work: Work, case: Discrepancy, summary: str, amount_minor: int, evidence: dict[str, Any]) -> None:
    """A person who decides about the case must see the whole difference, not the part that was known first."""
    was_minor = case.amount_minor
    case.amount_minor = amount_minor
    case.summary = summary[:300]
    case.evidence = _write({**json.loads(case.evidence), **evidence})
    work.journal.write(
        work.order,
        "case.grown",
        subject=case.subject[:40],
        case=case.kind,
        amount_minor=amount_minor,
        was_minor=was_minor,
    )


def _write(evidence: dict[str, Any]) -> str:
    return json.dumps(evidence, sort_keys=True, default=str)


def _move(work: Work, case: Discrepancy, state: DiscrepancyState, kind: str, **facts: object) -> CaseMove:
    before = case.state
    case.state = state
    work.journal.write(work.order, kind, subject=case.subject[:40], before=before, after=state, case=case.kind, **facts)
    return CaseMove.MOVED
