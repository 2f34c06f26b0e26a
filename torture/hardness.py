"""How hard a run was. A run that was too gentle proves nothing: it is INVALID, not passed."""

from collections import Counter
from collections.abc import Iterable

from torture.facts import OrderFacts
from torture.graph import AUTOMATON
from torture.sources import Ledger, Operation, Row

COUNTS = (
    "orders", "paid", "double_clicks", "switches", "amended", "closed", "duplicates", "late", "mismatched", "second_captures",
    "captures", "refunds_automatic", "refunds_operator", "refunds_approved", "refunds_unclear", "refunds_returned",
    "notifications", "lost_notifications", "repeated_notifications", "forged", "replayed", "kills", "pauses", "outages",
    "unknown_answers", "shop_failures", "cases", "decided", "caught_exceptions",
)  # fmt: skip
"""What is counted; each may have a threshold."""
LEAST: dict[str, int] = {
    "orders": 20, "paid": 10, "double_clicks": 5, "switches": 5, "duplicates": 2, "late": 1, "second_captures": 1,
    "lost_notifications": 3, "repeated_notifications": 3, "forged": 3, "refunds_automatic": 2, "unknown_answers": 3,
    "shop_failures": 1, "kills": 1,
}  # fmt: skip
"""What a torture run must at least have done."""
OPS = {
    "kill": "kills", "pause": "pauses", "outage": "outages", "replay": "replayed", "shop_failed": "shop_failures",
    "caught": "caught_exceptions",
}  # fmt: skip


class Hardness(Counter[str]):
    """Counts by name."""

    def add_orders(self, orders: Iterable[OrderFacts]) -> None:
        """Count what the rows of a batch of orders show."""
        for order in orders:
            self["orders"] += 1
            self["paid"] += order.order["keeper"] is not None
            self["switches"] += max(0, sum(row["origin_number"] == "" for row in order.streams) - 1)
            self["cases"] += len(order.cases)
            self["decided"] += sum(row["decision"] not in ("", "automatic") for row in order.cases)
            for event in order.events:
                self["amended"] += event["kind"] == "order.amended"
                self["closed"] += event["kind"] == "order.closed"
                self["captures"] += event["kind"] == "stream.capturing"
                self["refunds_unclear"] += event["kind"] == "refund.unknown"
                self["refunds_approved"] += event["kind"] == "refund.approved"
                self["refunds_returned"] += event["kind"] == "refund.returned"
            for row in order.streams:
                reason = {"duplicate": "duplicates", "second_capture": "second_captures"}.get(row["surplus_reason"])
                self[reason or row["surplus_reason"] or "unremarkable"] += 1
            for row in order.refunds:
                self["refunds_automatic" if row["requested_by"] == AUTOMATON else "refunds_operator"] += 1
            self["shop_failures"] += sum(row["try_count"] > 1 for row in order.messages)

    def add_ledger(self, ledger: Ledger | None) -> None:
        """Count what the channel did."""
        for row in ledger.notifications if ledger is not None else ():
            self["notifications"] += 1
            self["lost_notifications"] += row["state"] == "LOST"
            self["repeated_notifications"] += row["attempts"] > 1

    def add_alone(self, alone: dict[str, list[Row]]) -> None:
        """Count what was refused at the door."""
        self["forged"] += sum(row["count"] for row in alone["notifications"] if row["state"] == "FORGED")

    def add_history(self, history: Iterable[Operation]) -> None:
        """Count what was done, by its own account."""
        clicks: Counter[str] = Counter()
        told: Counter[tuple[str, str]] = Counter()
        for item in history:
            if item.op == "pay":
                clicks[str(item.args.get("order"))] += 1
            if item.op in ("notify", "replay") and item.args.get("dedupe_key"):
                told[str(item.args.get("account")), str(item.args["dedupe_key"])] += 1
            self["unknown_answers"] += item.how == "unknown"
            self["lost_notifications"] += item.op == "lose"
            if item.op in OPS:
                self[OPS[item.op]] += 1
        self["double_clicks"] += sum(times - 1 for times in clicks.values())
        self["repeated_notifications"] += sum(times - 1 for times in told.values())

    def too_gentle(self, least: dict[str, int]) -> dict[str, tuple[int, int]]:
        """Each count that is below its threshold: what was, and what had to be."""
        return {name: (self[name], wanted) for name, wanted in least.items() if self[name] < wanted}
