"""What a run came to: violations with their bound, how hard it was, how long repairs took, and what the attacker got."""

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from torture.facts import Violation
from torture.hardness import COUNTS, LEAST, Hardness
from torture.liveness import BOUNDS
from torture.plan import Plan
from torture.tally import Tally

SHOWN_MAX = 40
OK, VIOLATED, USAGE, GENTLE, UNAVAILABLE = 0, 1, 2, 3, 4
VERDICTS = {OK: "OK", VIOLATED: "VIOLATED", GENTLE: "INVALID"}
EACH_MINUTE: dict[str, float] = {
    "kill": 0.6,
    "commit_before": 0.3,
    "commit_after": 0.3,
    "bank_fault": 8,
    "outage": 0.2,
    "redis": 0.6,
}
"""Faults by kind (or by what they hit) that a run must have seen for each of its minutes, rounded down, and at least one."""
WHOLE = (
    "pg_kill",
    "disk_full",
    "clock_skew",
    "shop_down",
    "pause",
    "deadlocks",
    "row_locks",
    "pg_terminate",
    "redis_readonly",
    "redis_oom",
)
WHOLE_FROM_MINUTES = 4.5
"""From this length on, a run must have seen each of these."""


@dataclass
class Result:
    """Everything that a run found. `skipped` names faults that this machine cannot do, with the reason."""

    plan: Plan
    violations: list[Violation] = field(default_factory=list)
    hardness: Hardness = field(default_factory=Hardness)
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    commits: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    security: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    stories: Counter[str] = field(default_factory=Counter)
    tally: Tally = field(default_factory=Tally)
    storm_seconds: float = 0.0
    rest_seconds: float = 0.0
    passed_seconds: float = 0.0
    """How much time was made to pass after the storm, so that the real channels' horizons were over; `moved_at` is when that began."""
    moved_at: float = math.inf
    kept_in: str = ""

    @property
    def orders_per_second(self) -> float:
        """Orders placed in each second of the storm."""
        return self.stories["placed"] / self.storm_seconds if self.storm_seconds else 0.0

    @property
    def too_gentle(self) -> dict[str, tuple[int, int]]:
        """What there was too little of: what was, and what had to be."""
        found = self.hardness.too_gentle(LEAST)
        minutes = self.plan.seconds / 60
        had = Counter(self.faults)
        had["redis"] = sum(
            times for name, times in self.faults.items() if name.split("_")[0] in ("redis", "cache", "locks", "broker")
        )
        had["commit_before"], had["commit_after"] = self.commits.get("cut_before", 0), self.commits.get("cut_after", 0)
        wanted = {name: max(1, math.floor(share * minutes)) for name, share in EACH_MINUTE.items()}
        if minutes >= WHOLE_FROM_MINUTES:
            wanted |= dict.fromkeys(WHOLE, 1)
        for name, least in wanted.items():
            if name not in self.skipped and had[name] < least:
                found[name] = (had[name], least)
        if self.plan.modes.real_channels:
            found |= self.tally.too_few(minutes)
        return found

    @property
    def status(self) -> int:
        """The exit status."""
        if self.violations:
            return VIOLATED
        return GENTLE if self.too_gentle else OK

    @property
    def bound(self) -> str:
        """The 95 % bound of the share of wrong orders, by the rule of three; only zero violations give one."""
        orders = self.hardness["orders"]
        if self.violations or orders < 3:
            return ""
        return f"at most {3 / orders:.2g} of all orders (1 in {orders // 3:,}) with 95 % confidence"


def write_text(result: Result) -> list[str]:
    """The summary as lines."""
    lines = [f"VIOLATED {item}" for item in result.violations[:SHOWN_MAX]]
    if len(result.violations) > SHOWN_MAX:
        lines.append(f"… and {len(result.violations) - SHOWN_MAX} more")
    hard, plan = result.hardness, result.plan
    lines += [
        f"seed {plan.seed}: {plan.seconds / 60:g} minutes, {plan.modes.describe()}",
        f"orders: {hard['orders']:,} ({result.orders_per_second:.1f} placed each second of the storm), {hard['paid']:,} paid",
        "how hard: " + _listed({name: hard[name] for name in COUNTS}),
        "faults: " + _listed(result.faults),
        "commits: " + _listed(result.commits),
        *(result.tally.lines() if plan.modes.real_channels else ()),
        "stories: " + _listed(result.stories),
        "answers: " + _listed(result.answers),
        "security: " + (_listed(result.security) or "nothing was tried"),
    ]
    if result.passed_seconds:
        lines.append(f"time passed after the storm: {result.passed_seconds / 3_600:.1f} h, by moved clocks")
    if result.failed:
        lines.append("could not be done: " + _listed(Counter(result.failed)))
    lines += [f"not done on this machine: {name} ({reason}), counted 0" for name, reason in result.skipped.items()]
    for name, bound in BOUNDS.items():
        figure = result.figures.get(name)
        if figure is None:
            lines.append(f"{name}: nothing to measure (bound {bound:.0f} s)")
        else:
            told = "{}: p50 {p50:.1f} s, p99 {p99:.1f} s, max {max:.1f} s, of {count:.0f} (bound {bound:.0f} s)"
            lines.append(told.format(name, **figure))
    lines += [f"INVALID: only {was} {name}, {least} are needed" for name, (was, least) in result.too_gentle.items()]
    by_rule = Counter(item.rule for item in result.violations)
    if result.status == VIOLATED:
        lines.append(f"VIOLATED: {len(result.violations)} ({_listed(by_rule)}) in {hard['orders']:,} orders")
    elif result.status == GENTLE:
        lines.append("INVALID: the run was too gentle to prove anything")
    else:
        lines.append(f"OK: no violation in {hard['orders']:,} orders: {result.bound}")
    if result.kept_in:
        lines.append(f"kept: {result.kept_in}")
    return lines


def write_json(result: Result) -> str:
    """The same for programs."""
    plan = result.plan
    told: dict[str, Any] = {
        "verdict": VERDICTS[result.status],
        "seed": plan.seed,
        "minutes": plan.seconds / 60,
        "modes": asdict(plan.modes),
        "orders": result.hardness["orders"],
        "orders_per_second": round(result.orders_per_second, 2),
        "bound": result.bound,
        "violations": [{"id": item.rule, "text": item.text, "rows": list(item.rows)} for item in result.violations],
        "hardness": {name: result.hardness[name] for name in COUNTS},
        "too_gentle": {name: {"was": was, "least": least} for name, (was, least) in result.too_gentle.items()},
        "channels": result.tally.fields(),
        "faults": dict(result.faults),
        "commits": result.commits,
        "failed": result.failed,
        "skipped": result.skipped,
        "stories": dict(result.stories),
        "answers": dict(result.answers),
        "security": dict(result.security),
        "liveness": result.figures,
        "rest_seconds": round(result.rest_seconds, 1),
        "passed_seconds": round(result.passed_seconds),
        "kept_in": result.kept_in,
    }
    return json.dumps(told, indent=2, ensure_ascii=False)


def _listed(counts: "Counter[str] | dict[str, int]") -> str:
    return ", ".join(f"{name} {times:,}" for name, times in counts.items() if times)
