"""Reconcile, the part that needs no statement: sweep our own rows for contradictions that no code path should leave behind."""

from collections.abc import Iterator
from dataclasses import dataclass

from payonce.channels import registry
from payonce.orders.conf import get_settings
from payonce.payments import flight
from payonce.payments.flight import Statement
from payonce.payments.locks import Work, under_lock
from payonce.payments.statuses import DiscrepancyKind
from payonce.payments.surplus import GIVEN_UP
from payonce.payments.transitions import cases

GRACE = "interval '5 minutes'"
KNOWN = (
    " AND NOT EXISTS (SELECT 1 FROM payonce_discrepancy k WHERE k.kind = 'inconsistent' AND k.subject = {0}"
    " AND k.state <> 'RESOLVED')"
)
"""A finding that a person has already must not use up the limit of one look."""
UNCONFIGURED = (
    "SELECT s.order_id, s.number FROM payonce_stream s WHERE s.next_check_at <= payonce_now() AND s.account <> ALL(%s)"
    + KNOWN.format("s.number")
    + " LIMIT %s"
)
FINDINGS = {
    "money_without_keeper_or_case": (
        "SELECT s.order_id, s.number FROM payonce_stream s WHERE s.role = 'surplus' AND s.succeeded_at > payonce_now() - interval '30 days'"
        " AND NOT EXISTS (SELECT 1 FROM payonce_discrepancy d WHERE d.stream_id = s.id)"
        + KNOWN.format("s.number")
        + " LIMIT %s",
        "took surplus money, and there is no case about it",
    ),
    "keeper_is_not_succeeded": (
        "SELECT o.id, o.keeper FROM payonce_order o LEFT JOIN payonce_stream s ON s.number = o.keeper"
        " WHERE o.paid_at > payonce_now() - interval '30 days' AND o.keeper IS NOT NULL"
        " AND (s.id IS NULL OR s.role <> 'keeper' OR s.order_id <> o.id)" + KNOWN.format("o.keeper") + " LIMIT %s",
        "is the keeper of its order, and its row does not say so",
    ),
    "keeper_without_its_order": (
        "SELECT s.order_id, s.number FROM payonce_stream s JOIN payonce_order o ON o.id = s.order_id"
        " WHERE s.role = 'keeper' AND s.succeeded_at > payonce_now() - interval '30 days'"
        " AND o.keeper IS DISTINCT FROM s.number" + KNOWN.format("s.number") + " LIMIT %s",
        "says that it is the keeper, and its order does not",
    ),
    "reservation_is_not_the_sum": (
        "SELECT s.order_id, s.number FROM payonce_stream s WHERE s.succeeded_at > payonce_now() - interval '30 days'"
        " AND s.refund_reserved_minor <> (SELECT COALESCE(sum(r.amount_minor), 0) FROM payonce_refund r"
        " WHERE r.stream_id = s.id AND NOT r.is_released)" + KNOWN.format("s.number") + " LIMIT %s",
        "reserves another sum than its refunds",
    ),
    "open_stream_never_checked": (
        "SELECT s.order_id, s.number FROM payonce_stream s WHERE s.state IN ('CREATED', 'PENDING', 'PROCESSING', 'CAPTURING', 'CLOSING')"
        f" AND s.close_reason <> '{GIVEN_UP}' AND s.next_check_at IS NULL AND s.created_at < payonce_now() - {GRACE}"
        " AND NOT EXISTS (SELECT 1 FROM payonce_discrepancy d WHERE d.stream_id = s.id AND d.state <> 'RESOLVED')"
        + KNOWN.format("s.number")
        + " LIMIT %s",
        "is not finished, and nothing will ask about it",
    ),
    "refund_never_tried": (
        "SELECT s.order_id, r.number FROM payonce_refund r JOIN payonce_stream s ON s.id = r.stream_id"
        " WHERE r.state IN ('REQUESTED', 'SUBMITTED', 'UNKNOWN', 'ATTENTION') AND r.next_try_at IS NULL"
        f" AND r.created_at < payonce_now() - {GRACE}"
        " AND NOT EXISTS (SELECT 1 FROM payonce_discrepancy d WHERE d.refund_id = r.id AND d.state <> 'RESOLVED')"
        + KNOWN.format("r.number")
        + " LIMIT %s",
        "is not finished, and nothing will carry it on",
    ),
    "case_repaired_by_nothing": (
        "SELECT d.order_id, d.subject FROM payonce_discrepancy d LEFT JOIN payonce_refund r ON r.id = d.refund_id"
        " WHERE d.state = 'REPAIRING' AND d.order_id IS NOT NULL"
        " AND COALESCE(r.state, '') NOT IN ('AWAITING_APPROVAL', 'REQUESTED', 'SUBMITTED', 'UNKNOWN', 'ATTENTION')"
        f" AND d.opened_at < payonce_now() - {GRACE}" + KNOWN.format("d.subject") + " LIMIT %s",
        "has a case that says it is being repaired, and no refund that repairs it",
    ),
}
SECOND_ORDERS = """
SELECT b.id, b.number, a.number FROM payonce_order b JOIN payonce_order a
    ON a.buyer_key = b.buyer_key AND a.basket_key = b.basket_key AND a.id < b.id AND a.source = b.source
WHERE b.buyer_key <> '' AND b.basket_key <> '' AND b.state = 'PAID' AND a.state = 'PAID'
    AND b.paid_at > payonce_now() - interval '1 day' AND b.created_at - a.created_at <= %s * interval '1 minute'
    AND NOT EXISTS (SELECT 1 FROM payonce_discrepancy d WHERE d.kind = 'second_order' AND d.order_id = b.id) LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One contradiction between our own rows."""

    order_id: int
    subject: str
    text: str
    kind: DiscrepancyKind


def find_contradictions(limit: int = 100) -> Iterator[Finding]:
    """Every contradiction among recent rows, at most `limit` of each kind."""
    using = get_settings().DATABASE
    for sql, text in FINDINGS.values():
        for order_id, subject in flight.fly([Statement(sql, [limit])], using)[0]:
            yield Finding(order_id, str(subject), f"{subject} {text}.", DiscrepancyKind.INCONSISTENT)
    accounts = list(registry.accounts())
    for order_id, number in flight.fly([Statement(UNCONFIGURED, [accounts, limit])], using)[0]:
        text = f'{number} is due, and its account is no longer in PAYONCE["CHANNELS"]: nobody asks about it.'
        yield Finding(order_id, number, text, DiscrepancyKind.INCONSISTENT)
    minutes = get_settings().SECOND_ORDER_MINUTES
    for order_id, number, older in flight.fly([Statement(SECOND_ORDERS, [minutes, limit])], using)[0]:
        text = f"{number} was paid for the same basket by the same buyer as {older}."
        yield Finding(order_id, number, text, DiscrepancyKind.SECOND_ORDER)


def check_own_rows(limit: int = 100) -> int:
    """Open a case for each contradiction; nothing is repaired or refunded by itself. Returns how many were found."""
    found = list(find_contradictions(limit))
    for finding in found:

        def decide(work: Work, finding: Finding = finding) -> None:
            cases.open_case(work, finding.kind, finding.subject, finding.text)

        under_lock("system:reconcile", decide, order_id=finding.order_id)
    return len(found)
