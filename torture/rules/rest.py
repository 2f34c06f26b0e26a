"""S13: at rest nothing is left hanging without a person who knows."""

from datetime import timedelta

from torture.facts import Facts, OrderFacts, Violation, show
from torture.graph import MOVING_REFUNDS, UNFINISHED_STREAMS
from torture.rules import Found, Mode, of_order, of_run
from torture.sources import Row


def _is_asleep(facts: Facts, due: object, deadline: object = None) -> bool:
    """Is nothing going to look at it soon? `due` is its next look, `deadline` the time by which it must have ended."""
    late = facts.at - timedelta(seconds=facts.overdue_seconds)
    return due is None or due < late or (deadline is not None and deadline < facts.at)  # type: ignore[operator]


def _is_asked(rows: list[Row]) -> bool:
    return any(row["state"] != "RESOLVED" for row in rows)


@of_order(Mode.REST)
def streams_end(facts: Facts, order: OrderFacts) -> Found:
    """A stream that is not finished is still being asked about, within a day of its end, or is in a person's queue."""
    for row in order.streams:
        if row["state"] not in UNFINISHED_STREAMS or _is_asked(order.cases_of(row)):
            continue
        deadline = max(row["payable_until"], row["created_at"] + timedelta(hours=26)) + timedelta(hours=1)
        if _is_asleep(facts, row["next_check_at"], deadline):
            yield Violation(
                "S13", f"{row['number']} hangs in {row['state']}, and nobody knows",
                (show(row, "number", "state", "next_check_at", "payable_until", "last_answer"),),
            )  # fmt: skip


@of_order(Mode.REST)
def refunds_end(facts: Facts, order: OrderFacts) -> Found:
    """A refund that is not finished is due soon, or is in a person's queue."""
    for row in order.refunds:
        mine = [case for case in order.cases if case["refund_id"] == row["id"] or case["subject"] == row["number"]]
        is_person = any(case["state"] == "OPEN" for case in mine)
        is_waiting = row["state"] in MOVING_REFUNDS and not is_person and _is_asleep(facts, row["next_try_at"])
        deadline = row["approval_expires_at"]
        is_forgotten = row["state"] == "AWAITING_APPROVAL" and _is_asleep(facts, deadline)
        is_refused = (
            row["state"] == "REJECTED" and not row["is_released"] and not is_person and not _is_decided(order, row)
        )
        if is_waiting or is_forgotten or is_refused:
            yield Violation(
                "S13", f"{row['number']} hangs in {row['state']}, and nobody knows",
                (show(row, "number", "state", "next_try_at", "last_answer", "approval_expires_at"),),
            )  # fmt: skip


def _is_decided(order: OrderFacts, refund: Row) -> bool:
    """Did a person resolve a case about the refund or its stream?"""
    cases = order.cases_of(order.stream_of(refund))
    return any(case["state"] == "RESOLVED" and case["decision"] != "automatic" for case in cases)


@of_order(Mode.REST)
def orders_end(facts: Facts, order: OrderFacts) -> Found:
    """An order past its time is closed, or waits for a stream that is in a person's queue; a repair has its refund."""
    row = order.order
    is_asked = _is_asked(order.cases)
    is_late = row["expires_at"] is not None and row["expires_at"] < facts.at - timedelta(seconds=facts.overdue_seconds)
    if row["state"] == "CLOSING" and not is_asked and _is_asleep(facts, row["next_expiry_at"]):
        yield Violation(
            "S13", f"{order.number} hangs in CLOSING, and nobody knows", (show(row, "state", "next_expiry_at"),)
        )
    if row["state"] == "OPEN" and is_late:
        yield Violation(
            "S13", f"{order.number} is OPEN past its time", (show(row, "state", "expires_at", "next_expiry_at"),)
        )
    refunds = {item["id"]: item for item in order.refunds}
    for case in order.cases:
        if case["state"] != "REPAIRING":
            continue
        refund = refunds.get(case["refund_id"])
        if refund is None or refund["state"] not in MOVING_REFUNDS or _is_asleep(facts, refund["next_try_at"]):
            yield Violation(
                "S13", f"case {case['kind']} about {case['subject']} is being repaired by nothing",
                (show(case, "id", "kind", "subject", "state"), show(refund, "number", "state", "next_try_at") if refund else "no refund"),
            )  # fmt: skip


@of_run(Mode.REST)
def inbox_is_empty(facts: Facts) -> Found:
    """Every notification that was stored is applied, or in a person's queue."""
    asked = {row["subject"] for row in facts.alone["cases"] if row["state"] != "RESOLVED"}
    for row in facts.alone["notifications"]:
        if row["state"] == "RECEIVED" and row["dedupe_key"] not in asked:
            yield Violation(
                "S13", f"notification {row['dedupe_key']} was never applied", (show(row, "account", "number", "error"),)
            )
