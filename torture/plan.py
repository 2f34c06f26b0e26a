"""From a seed to the whole plan of a run: its modes, and every fault with its time and arguments. Pure, printable, replayable."""

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torture.accounts import OWN, Roster
from torture.site import Modes

Args = dict[str, Any]
HEAVY_GAP_SECONDS = 4.2
LIGHT_GAP_SECONDS = 1.2
CALM_AT_START_SECONDS = 3.0
FORMAT = 1


class PlanError(ValueError):
    """A plan cannot be read; the text says why."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong: seconds after the start, what, and how. `quiet` seconds after it nothing else heavy begins."""

    at: float
    do: str
    args: Args
    quiet: float = 0.0

    def __str__(self) -> str:
        told = " ".join(f"{name}={value}" for name, value in self.args.items())
        return f"{self.at:7.1f} s  {self.do:<14} {told}" + (f"  (then {self.quiet:.0f} s quiet)" if self.quiet else "")


@dataclass(frozen=True)
class Plan:
    """Everything about a run that is not decided by the machine."""

    seed: int
    seconds: float
    modes: Modes
    faults: tuple[Fault, ...]

    def write(self, path: Path) -> None:
        """As a file that `read_plan` reads."""
        told = {
            "format": FORMAT, "seed": self.seed, "seconds": self.seconds, "modes": asdict(self.modes),
            "faults": [asdict(fault) for fault in self.faults],
        }  # fmt: skip
        path.write_text(json.dumps(told, indent=1) + "\n")

    def lines(self) -> list[str]:
        """The whole plan as text."""
        head = f"seed {self.seed}: {self.seconds / 60:g} minutes, {self.modes.describe()}, {len(self.faults)} faults"
        return [head, *(str(fault) for fault in self.faults)]


def read_plan(path: Path) -> Plan:
    """Read a plan that was written before. Raises PlanError."""
    try:
        told = json.loads(path.read_text())
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            raise PlanError(f"{path} is not a plan of this release")
        faults = tuple(Fault(**fault) for fault in told["faults"])
        unknown = {fault.do for fault in faults} - set(KINDS)
        if unknown:
            raise PlanError(f"{path} has unknown faults: {', '.join(sorted(unknown))}")
        return Plan(int(told["seed"]), float(told["seconds"]), Modes(**told["modes"]), faults)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise error if isinstance(error, PlanError) else PlanError(f"{path} cannot be read: {error}") from error


def _some(rng: random.Random, least: float, most: float) -> float:
    return round(rng.uniform(least, most), 1)


def _account(rng: random.Random) -> str:
    return rng.choice(OWN.names)


def _kill(rng: random.Random) -> Args:
    service = rng.choices(("web_a", "web_b", "worker_a", "worker_b", "beat_a", "sandbox"), (3, 3, 4, 4, 1, 2))[0]
    return {"service": service, "down": rng.choice((0.0, 0.0, _some(rng, 0.5, 5.0)))}


def _pause(rng: random.Random) -> Args:
    service = rng.choice(("web_a", "web_b", "worker_a", "worker_b", "sandbox"))
    longest = 20.0 if service.startswith("worker") else 8.0
    return {"service": service, "seconds": _some(rng, 16.5, longest) if longest > 16 else _some(rng, 2.0, longest)}


def _skew(rng: random.Random) -> Args:
    service = rng.choice(("web_b", "worker_b"))
    return {"service": service, "offset": rng.choice(SKEWS), "seconds": _some(rng, 4.0, 12.0)}


BANK_OPS = ("prepay", "query", "capture", "close", "refund", "query_refund")
BANK_FAULTS: tuple[tuple[str, Args], ...] = (
    ("drop_after", {}), ("drop_before", {}), ("error_after", {"status": 500}), ("error_before", {"status": 502}),
    ("truncate", {}), ("garbage", {}), ("bad_signature", {}), ("no_signature", {}), ("stale_timestamp", {"seconds": 3600}),
    ("delay_after", {"seconds": 3.0}), ("delay_before", {"seconds": 2.0}), ("delay_after", {"seconds": 7.0}),
    ("refuse", {"code": "SYSTEM_ERROR"}), ("refuse", {"code": "RATE_LIMITED"}),
)  # fmt: skip
_ONE_OP: tuple[tuple[str, str, Args], ...] = (
    ("prepay", "pay_before_answer", {}), ("prepay", "refuse", {"code": "DECLINED"}),
    ("close", "race_pay", {"winner": "pay"}), ("close", "race_pay", {"winner": "close"}), ("query", "slow_drip", {"seconds": 0.01}),
    ("refund", "refund_pending", {"then": "DONE", "seconds": 5.0}), ("refund", "refund_pending", {"then": "FAILED", "seconds": 4.0}),
    ("refund", "refund_failed", {}), ("refund", "refund_attention", {}), ("refund", "drop_after", {}), ("refund", "error_after", {}),
    ("notify", "lose", {}), ("notify", "swap", {}), ("notify", "repeat", {"copies": 3}), ("notify", "acknowledgement_lost", {}),
    ("notify", "delay", {"seconds": 6.0}), ("notify", "forge", {"kind": "bad_signature"}), ("notify", "stale", {"seconds": 3600}),
    ("pay", "wrong_currency", {"currency": "USD"}),
)  # fmt: skip


def _bank_fault(rng: random.Random) -> Args:
    if rng.random() < 0.5:
        do, arguments = rng.choice(BANK_FAULTS)
        op = rng.choice(BANK_OPS)
    else:
        op, do, arguments = rng.choice(_ONE_OP)
    times = 1 if do in ("refund_failed", "refund_attention", "wrong_currency") else rng.randint(1, 4)
    return {"op": op, "what": do, "account": rng.choice(("*", *OWN.names)), "times": times, **arguments}


SKEWS = (-3_600, -400, -90, -20, 20, 90, 400, 3_600)
Maker = Callable[[random.Random], Args]
HEAVY: dict[str, tuple[int, Maker]] = {
    "kill": (14, _kill),
    "pause": (7, _pause),
    "restart": (3, lambda rng: {"service": rng.choice(("web_a", "web_b", "worker_a", "worker_b", "beat_a"))}),
    "commit_before": (6, lambda rng: {"count": rng.randint(2, 8), "every": rng.randint(1, 9)}),
    "commit_after": (7, lambda rng: {"count": rng.randint(2, 8), "every": rng.randint(1, 9)}),
    "pg_kill": (2, lambda rng: {"how": rng.choice(("SIGKILL", "SIGQUIT")), "down": _some(rng, 0.0, 2.0)}),
    "pg_terminate": (4, lambda rng: {"share": _some(rng, 0.2, 1.0)}),
    "pg_cut": (3, lambda rng: {"share": _some(rng, 0.2, 1.0)}),
    "pg_refuse": (2, lambda rng: {"seconds": _some(rng, 0.5, 3.0)}),
    "pg_stall": (3, lambda rng: {"seconds": _some(rng, 0.5, 4.0)}),
    "pg_crowd": (2, lambda rng: {"seconds": _some(rng, 1.0, 3.0)}),
    "deadlocks": (3, lambda rng: {"seconds": _some(rng, 2.0, 5.0)}),
    "row_locks": (3, lambda rng: {"seconds": _some(rng, 3.5, 5.0), "rows": rng.randint(5, 25)}),
    "disk_full": (2, lambda rng: {"seconds": _some(rng, 1.0, 4.0)}),
    "redis_kill": (3, lambda rng: {"down": _some(rng, 0.0, 4.0)}),
    "redis_pause": (3, lambda rng: {"seconds": _some(rng, 1.0, 6.0)}),
    "redis_flush": (4, lambda _rng: {}),
    "redis_oom": (3, lambda rng: {"seconds": _some(rng, 1.0, 5.0)}),
    "redis_readonly": (3, lambda rng: {"seconds": _some(rng, 1.0, 5.0)}),
    "redis_slow": (2, lambda rng: {"milliseconds": rng.randint(50, 400), "times": rng.randint(4, 12)}),
    "cache_poison": (3, lambda rng: {"share": _some(rng, 0.3, 1.0)}),
    "cache_stale": (3, lambda rng: {"seconds": _some(rng, 2.0, 8.0)}),
    "locks_lost": (3, lambda rng: {"seconds": _some(rng, 1.0, 4.0)}),
    "broker_drop": (2, lambda rng: {"seconds": _some(rng, 1.0, 6.0)}),
    "broker_flood": (2, lambda rng: {"count": rng.randint(50, 300)}),
    "outage": (5, lambda rng: {"account": _account(rng), "seconds": _some(rng, 2.0, 12.0)}),
    "bank_skew": (2, lambda rng: {"account": _account(rng), "offset": rng.choice(SKEWS), "seconds": _some(rng, 3.0, 8.0)}),
    "clock_skew": (4, _skew),
    "shop_down": (3, lambda rng: {"mode": rng.choice(("failing", "deaf", "closed")), "seconds": _some(rng, 3.0, 8.0)}),
    "flood": (3, lambda rng: {"what": rng.choice(("notify", "clicks")), "count": rng.randint(60, 300)}),
}  # fmt: skip
"""Each with its weight. They follow one another; some overlap."""
QUIET: tuple[tuple[str, float, Maker], ...] = (
    ("kill", 38.0, lambda rng: {"service": rng.choice(("worker_a", "worker_b")), "down": 0.0}),
    ("shop_down", 40.0, lambda rng: {"mode": "closed", "seconds": _some(rng, 4.0, 7.0)}),
)
"""Faults after which nothing else may happen for a while, so that L3 and L4 can be measured."""
QUIET_EVERY_SECONDS = 280.0
KINDS = frozenset({*HEAVY, "bank_fault"})
FIRST = (
    "kill",
    "commit_after",
    "commit_before",
    "outage",
    "pause",
    "shop_down",
    "redis_flush",
    "pg_terminate",
    "clock_skew",
)
"""What even a short run must see."""


def expand(seed: int, seconds: float, modes: Modes | None = None) -> Plan:
    """The plan of a seed. The same seed, length and modes give the same plan."""
    rng = random.Random(f"plan-{seed}")
    drawn = Modes(cache=rng.random() < 0.75, beats=rng.randint(1, 2), lossy_broker=rng.random() < 0.5)
    chosen = modes or drawn
    faults = sorted([*_heavy(rng, seconds), *_light(rng, seconds)], key=lambda fault: (fault.at, fault.do))
    return Plan(seed, seconds, chosen, tuple(_on_accounts_of(chosen.roster, faults, seed)))


def _on_accounts_of(chosen: Roster, faults: list[Fault], seed: int) -> list[Fault]:
    """The same faults, on the accounts of this mode."""
    if chosen is OWN:
        return faults
    rng = random.Random(f"accounts-{seed}")
    return [
        replace(fault, args={**fault.args, "account": rng.choice(chosen.names)})
        if fault.args.get("account", "*") != "*"
        else fault
        for fault in faults
    ]


def _heavy(rng: random.Random, seconds: float) -> list[Fault]:
    rest = [name for name in HEAVY if name not in FIRST]
    rng.shuffle(rest)
    turn = [*FIRST, *rest]
    names, weights = list(HEAVY), [weight for weight, _maker in HEAVY.values()]
    gap = min(HEAVY_GAP_SECONDS, seconds * 0.5 / len(FIRST))
    at, next_quiet, faults = CALM_AT_START_SECONDS, QUIET_EVERY_SECONDS * 0.6, []
    while at < seconds - 2.0:
        if at >= next_quiet:
            next_quiet += QUIET_EVERY_SECONDS
            for do, quiet, maker in QUIET:
                faults.append(Fault(round(at, 1), do, maker(rng), quiet))
                at += quiet
            continue
        do = turn.pop(0) if turn else rng.choices(names, weights)[0]
        faults.append(Fault(round(at, 1), do, HEAVY[do][1](rng)))
        at += rng.uniform(0.3, 1.7) * gap
    return [fault for fault in faults if fault.at < seconds]


def _light(rng: random.Random, seconds: float) -> list[Fault]:
    at, faults = CALM_AT_START_SECONDS, []
    while at < seconds:
        faults.append(Fault(round(at, 1), "bank_fault", _bank_fault(rng)))
        at += rng.expovariate(1 / LIGHT_GAP_SECONDS)
    return faults
