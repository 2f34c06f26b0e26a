"""L1–L5: how long repairs took, as p50, p99 and maximum beside their bounds. From the rows, the channel's books and the history."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from torture.facts import OrderFacts, Violation
from torture.graph import AUTOMATON
from torture.sources import Ledger, Operation

BOUNDS = {"L1": 30.0, "L2": 60.0, "L3": 30.0, "L4": 60.0, "L5": 120.0}
"""Seconds; L2's bound is one of its p99, every other one of the maximum."""
PAIRS = {"kill": ("L3", "resumed"), "shop_up": ("L4", "shop_told"), "healed": ("L5", "rest")}
"""The history's beginning of each wait, its id, and its end."""


@dataclass
class Waits:
    """Seconds waited, by id."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in BOUNDS})

    def add_orders(self, orders: Iterable[OrderFacts], ledger: Ledger | None, until: float = math.inf) -> None:
        """L1: a lost notification until the order is paid. L2: surplus known until its refund was accepted.

        What ended after `until` (Unix seconds) is left out: clocks were moved meanwhile.
        """
        lost = {
            (row["account"], row["number"])
            for row in (ledger.notifications if ledger else ())
            if row["state"] == "LOST"
        }
        taken = {(row["account"], row["reference"]): row["paid_at"] for row in (ledger.captures if ledger else ())}
        for order in orders:
            keeper = order.keeper
            if keeper is not None and (keeper["account"], keeper["number"]) in lost:
                paid_at = taken.get((keeper["account"], keeper["channel_reference"] or ""))
                if paid_at is not None and keeper["succeeded_at"] is not None and _is_by(keeper["succeeded_at"], until):
                    self.seconds["L1"].append(max(0.0, keeper["succeeded_at"].timestamp() - paid_at))
            for row in order.refunds:
                known = order.stream_of(row)["succeeded_at"]
                is_automatic = row["requested_by"] == AUTOMATON and not row["approved_by"]
                if (
                    is_automatic
                    and row["accepted_at"] is not None
                    and known is not None
                    and _is_by(row["accepted_at"], until)
                ):
                    self.seconds["L2"].append((row["accepted_at"] - known).total_seconds())

    def add_history(self, history: Iterable[Operation]) -> None:
        """L3, L4, L5: from an operation that begins a wait to the next one that ends it; `about` tells several apart."""
        began: dict[tuple[str, object], float] = {}
        ends = {end: (name, begin) for begin, (name, end) in PAIRS.items()}
        for item in history:
            at = item.ended_at if item.ended_at is not None else item.invoked_at
            about = item.args.get("about")
            if item.op in PAIRS:
                began.setdefault((item.op, about), at)
            elif item.op in ends:
                name, begin = ends[item.op]
                if (begin, about) in began:
                    self.seconds[name].append(at - began.pop((begin, about)))

    def figures(self) -> dict[str, dict[str, float]]:
        """Count, p50, p99 and maximum of each id that has any."""
        found = {}
        for name, waits in self.seconds.items():
            if waits:
                ranked = sorted(waits)
                found[name] = {
                    "count": len(ranked), "p50": _rank(ranked, 0.5), "p99": _rank(ranked, 0.99), "max": ranked[-1],
                    "bound": BOUNDS[name],
                }  # fmt: skip
        return found

    def judge(self, scale: float = 1.0) -> list[Violation]:
        """Bounds that were not kept; `scale` stretches them for a machine that is known to be slow."""
        found = []
        for name, figure in self.figures().items():
            measured = figure["p99" if name == "L2" else "max"]
            if measured > figure["bound"] * scale:
                text = f"{measured:.1f} s, the bound is {figure['bound'] * scale:.0f} s (of {figure['count']:.0f})"
                found.append(Violation(name, text))
        return found


def _is_by(at: datetime, until: float) -> bool:
    return at.timestamp() <= until


def _rank(ranked: list[float], share: float) -> float:
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
