"""Kill a process at every boundary of whole payments, let it recover, and let the checker judge.

    python -m torture.crash [--scenario NAME] [--sample N] [--seed S] [--budget MINUTES] [--json]
    python -m torture.crash --scenario NAME --point 17 --when after [--then resume]

First each scenario is played without a death and its crossings are counted. Then, for each crossing and for before and after
it, the process is killed there with SIGKILL, a new one starts with the clocks moved on, and nothing may be wrong at rest.
`leave`: nobody comes back, the sweeps alone repair. `resume`: the clients try again, and the story must end as it should.

Exit status: 0 all recovered, 1 one did not, 2 wrong usage, 3 the budget ended first (INVALID), 4 a server cannot be had.
"""

import argparse
import itertools
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from config.processes import ProcessError
from torture.crash_points import When
from torture.crash_pool import Pool, end_on_signals
from torture.crash_scenarios import SCENARIOS
from torture.crash_site import sites
from torture.crash_worker import Death, Outcome, Then, describe, serve

SHOWN_MAX = 20


@dataclass
class Result:
    """How an enumeration went."""

    points: dict[str, list[str]] = field(default_factory=dict)
    distinct: dict[str, list[tuple[int, When]]] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    planned: int = 0
    seconds: float = 0.0

    @property
    def failures(self) -> list[Outcome]:
        """The deaths from which payonce did not recover."""
        return [outcome for outcome in self.outcomes if outcome.problems]

    @property
    def status(self) -> int:
        """The exit status."""
        if self.failures or self.broken:
            return 1
        return 3 if len(self.outcomes) < self.planned else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    options = _options(arguments)
    try:
        result = run(options)
    except ProcessError as error:
        print(error, file=sys.stderr)
        return 4
    _print(result, options)
    return result.status


def run(options: argparse.Namespace) -> Result:
    """Count, plan and play."""
    began, result = time.monotonic(), Result()
    deadline = began + options.budget * 60
    names = options.scenario or list(SCENARIOS)
    with sites(options.jobs) as places, Pool(serve, places) as pool:
        for name, counted in pool.map(names):
            result.points[name], result.distinct[name] = counted.points, counted.distinct
            result.broken += [f"{name}: {problem}" for problem in counted.problems]
            _say(options, f"{name}: {len(counted.points)} crossings, {len(counted.distinct)} distinct worlds to die in")
        result.points = {name: result.points[name] for name in names}
        if not result.broken:
            deaths = list(_plan(result, options))
            result.planned = len(deaths)
            for death, outcome in pool.map(deaths, until=deadline):
                outcome.crossing = result.points[death.scenario][death.point]
                result.outcomes.append(outcome)
                if outcome.problems:
                    _say(options, f"NOT RECOVERED {_tell(outcome)}")
                if len(result.outcomes) % 100 == 0:
                    spent = time.monotonic() - began
                    _say(
                        options,
                        f"{len(result.outcomes)} of {result.planned} deaths, {len(result.failures)} failures, {spent:.0f} s",
                    )
    result.seconds = time.monotonic() - began
    return result


def _plan(result: Result, options: argparse.Namespace) -> Iterator[Death]:
    """Every death, or the one that was named, or a sample that is the same for the same seed and covers every scenario.

    Within a step, a death that leaves the very world of the one before it, to the last committed byte, is not `--distinct`.
    """
    points = result.points
    if options.point is not None:
        for name in points:
            yield from _deaths(name, [options.point], options)
        return
    every = [death for name, names in points.items() for death in _deaths(name, range(len(names)), options)]
    if options.distinct:
        every = [death for death in every if (death.point, death.when) in result.distinct[death.scenario]]
    rest = random.Random(options.seed)
    if options.sample is not None and options.sample < len(every):
        by_name: dict[str, list[Death]] = {name: [] for name in points}
        for death in every:
            by_name[death.scenario].append(death)
        for deaths in by_name.values():
            rest.shuffle(deaths)
        taken = [deaths.pop() for _ in range(max(map(len, by_name.values()))) for deaths in by_name.values() if deaths]
        every = taken[: options.sample]
    yield from every


def _deaths(name: str, points: Iterable[int], options: argparse.Namespace) -> Iterator[Death]:
    whens: tuple[When, ...] = ("before", "after")
    thens: tuple[Then, ...] = ("leave", "resume")
    for point, when, then in itertools.product(points, whens, thens):
        if options.when in (None, when) and options.then in (None, then):
            yield Death(name, point, when, then)


def _tell(outcome: Outcome) -> str:
    assert outcome.death is not None
    problems = "\n    ".join(outcome.problems)
    return f"{outcome.death.when} {outcome.crossing}: {outcome.death.command()}\n    {problems}"


def _say(options: argparse.Namespace, text: str) -> None:
    """Progress: for a reader, or beside the JSON."""
    print(text, flush=True, file=sys.stderr if options.json else sys.stdout)


def _print(result: Result, options: argparse.Namespace) -> None:
    recovered = len(result.outcomes) - len(result.failures)
    kinds = Counter(outcome.crossing.split()[0] for outcome in result.outcomes if outcome.crossing)
    tally = Counter(outcome.death.scenario for outcome in result.outcomes if outcome.death)
    if options.json:
        found: dict[str, Any] = {
            "verdict": {0: "OK", 1: "VIOLATED", 3: "INVALID"}[result.status],
            "crossings": {name: len(points) for name, points in result.points.items()},
            "distinct": {name: len(found) for name, found in result.distinct.items()}, "by_scenario": dict(tally),
            "planned": result.planned, "deaths": len(result.outcomes), "recovered": recovered, "by_boundary": dict(kinds),
            "broken": result.broken, "failures": [describe(item) for item in result.failures],
            "replay": [item.death.command() for item in result.failures if item.death],
            "seed": options.seed, "seconds": round(result.seconds, 1),
        }  # fmt: skip
        print(json.dumps(found, indent=2))
        return
    for line in result.broken:
        print(f"BROKEN {line}")
    for item in result.failures[:SHOWN_MAX]:
        print(f"VIOLATED {_tell(item)}")
    crossings = sum(map(len, result.points.values()))
    print(f"{len(result.points)} scenarios, {crossings} crossings; by boundary: {dict(kinds.most_common())}")
    rate = len(result.outcomes) / result.seconds if result.seconds else 0.0
    print(
        f"{len(result.outcomes)} of {result.planned} deaths, {recovered} recovered, {len(result.failures)} not;"
        f" {result.seconds:.0f} s, {rate:.1f} deaths/s, seed {options.seed}"
    )
    print({0: "OK", 1: "VIOLATED", 3: "INVALID: the budget ended before the plan"}[result.status])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m torture.crash", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="only this one (may be repeated)")
    parser.add_argument("--sample", type=int, help="so many deaths, chosen by the seed; without it all of them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--budget", type=float, default=60.0, help="minutes; what is left then makes the run INVALID")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--point", type=int, help="the crossing at which to die, as a failure names it")
    parser.add_argument("--when", choices=["before", "after"])
    parser.add_argument("--then", choices=["leave", "resume"])
    parser.add_argument(
        "--distinct", action="store_true", help="only one of two deaths that leave the same world behind"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.point is not None and not options.scenario:
        parser.error("--point needs --scenario")
    if options.jobs < 1 or options.budget <= 0:
        parser.error("--jobs and --budget must be positive")
    return options


if __name__ == "__main__":
    end_on_signals()
    sys.exit(main())
