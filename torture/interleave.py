"""Search the interleavings of operations on one order: all schedules with at most two preemptions, each judged.

    python -m torture.interleave [--pair NAME] [--sample N] [--seed S] [--preemptions 3] [--budget MINUTES] [--json]
    python -m torture.interleave --replay pay-pay:A4B2A5
    python -m torture.interleave --pair pay-pay --control

`--control` takes row locks and unique indexes away first: the search must then find a violation, or it is blind.

Exit status: 0 nothing found (with --control: found), 1 violated, 2 wrong usage, 3 the budget ended first (INVALID), 4 a
server cannot be had.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from config.processes import ProcessError
from torture.crash_pool import Pool, end_on_signals
from torture.crash_site import sites
from torture.interleave_control import read_schedule
from torture.interleave_pairs import PAIRS
from torture.interleave_worker import Found, Search, serve

SHOWN_MAX = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    options = _options(arguments)
    began = time.monotonic()
    try:
        found = search(options)
    except ProcessError as error:
        print(error, file=sys.stderr)
        return 4
    status = _judge(found, options)
    _print(found, options, status, time.monotonic() - began)
    return status


def search(options: argparse.Namespace) -> list[Found]:
    """Search every chosen pair on as many workers as there are processors."""
    until = time.monotonic() + options.budget * 60
    plan = [
        Search(
            name,
            options.sample,
            options.seed,
            until,
            options.schedule,
            options.control,
            options.control,
            options.preemptions,
        )
        for name in options.pair or PAIRS
    ]
    found = []
    with sites(min(options.jobs, len(plan))) as places, Pool(serve, places) as pool:
        for asked, result in pool.map(plan):
            found.append(result)
            if not options.json:
                _tell(replace(asked, replay=options.schedule), result)
    return found


def _judge(found: list[Found], options: argparse.Namespace) -> int:
    if options.control:
        return 0 if all(result.violations for result in found) else 1
    if any(result.violations for result in found):
        return 1
    is_cut = any(not result.complete for result in found) and options.sample is None
    return 3 if is_cut else 0


def _tell(asked: Search, result: Found) -> None:
    extent = "all" if result.complete else "some"
    print(
        f"{result.pair}: {extent} schedules, {result.schedules} ({result.preempted} with preemptions), up to"
        f" {result.moves_max} moves, {result.waits} waits for locks, {len(result.violations)} violated, {result.seconds:.0f} s",
        flush=True,
    )
    if asked.replay is not None:
        print("\n".join(f"    {number:3} {place}" for number, place in enumerate(result.places)))
    for schedule, problems in result.violations[:SHOWN_MAX]:
        lines = "\n    ".join(problems)
        print(f"VIOLATED python -m torture.interleave --replay {result.pair}:{schedule}\n    {lines}", flush=True)


def _print(found: list[Found], options: argparse.Namespace, status: int, seconds: float) -> None:
    schedules = sum(result.schedules for result in found)
    violations = sum(len(result.violations) for result in found)
    verdict = {0: "OK", 1: "VIOLATED", 3: "INVALID: the budget ended before the search"}[status]
    if options.control:
        stands = ", ".join(result.pair for result in found if not result.violations)
        verdict = "OK: the control was caught" if status == 0 else f"BLIND: without locks nothing was found in {stands}"
    if options.json:
        facts: dict[str, Any] = {
            "verdict": verdict, "pairs": [asdict(result) for result in found], "schedules": schedules,
            "violations": violations, "seconds": round(seconds, 1), "seed": options.seed,
        }  # fmt: skip
        print(json.dumps(facts, indent=2, default=str))
        return
    waits = sum(result.waits for result in found)
    print(f"{len(found)} pairs, {schedules} schedules, {waits} waits for locks, {violations} violated, {seconds:.0f} s")
    print(verdict)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m torture.interleave", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pair", action="append", choices=list(PAIRS), help="only this one (may be repeated)")
    parser.add_argument("--sample", type=int, help="at most so many schedules of each pair, chosen by the seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--budget", type=float, default=60.0, help="minutes; what is left then makes the run INVALID")
    parser.add_argument("--preemptions", type=int, help="the bound; by default 2, and 1 for three operations")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--replay", metavar="PAIR:SCHEDULE", help="play one schedule, as a violation names it")
    parser.add_argument("--control", action="store_true", help="without row locks and unique indexes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    options.schedule = None
    if options.replay is not None:
        name, _, schedule = options.replay.partition(":")
        if name not in PAIRS:
            parser.error(f"--replay: there is no pair {name!r}")
        try:
            options.pair, options.schedule = [name], read_schedule(schedule)
        except ValueError as error:
            parser.error(f"--replay: {error}")
    if options.jobs < 1 or options.budget <= 0:
        parser.error("--jobs and --budget must be positive")
    return options


if __name__ == "__main__":
    end_on_signals()
    sys.exit(main())
