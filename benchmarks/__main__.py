"""Measure each path beside its floor: `python -m benchmarks [--seconds 40] [--json FILE]`.

All cases run once per round, path and floor in random order; what is printed is the median of the per-round ratios, since
machines differ and drift. Counts are the hard gates. Exit status: 0 done, 1 a gate was passed, 2 usage, 4 no server.
"""

import argparse
import json
import random
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.processes import ProcessError
from config.supervisor import stop_on_signals

if TYPE_CHECKING:
    from benchmarks.cases import Case

EXIT_GATE, EXIT_UNAVAILABLE, EXIT_INTERRUPTED = 1, 4, 130


@dataclass
class Measured:
    """What was seen of one case."""

    turns: int
    commits: int
    path_seconds: list[float] = field(default_factory=list)
    floor_seconds: list[float] = field(default_factory=list)

    def ratio(self) -> float:
        """The floor's time over the path's: 1.0 would be as fast as the floor. The median of the rounds."""
        return statistics.median(
            floor / path for floor, path in zip(self.floor_seconds, self.path_seconds, strict=True)
        )


def measure(cases: "list[Case]", seconds: float) -> dict[str, Measured]:
    """Count once, then time rounds until the time is up; at least three."""
    from benchmarks.cases import counts_of, seconds_of
    from tests.cost.wire import relay

    with relay() as wire:
        found = {case.name: Measured(*counts_of(case, wire)) for case in cases}
    for case in cases:  # warm up
        case.run(case.prepare(case.batch))
        case.floor(case.prepare(case.batch))
    deadline, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < deadline or rounds < 3:
        work = [(case, is_floor) for case in cases for is_floor in (False, True)]
        random.shuffle(work)
        for case, is_floor in work:
            inputs = case.prepare(case.batch)
            taken = seconds_of(case.floor if is_floor else case.run, inputs) / len(inputs)
            seen = found[case.name]
            (seen.floor_seconds if is_floor else seen.path_seconds).append(taken)
        rounds += 1
    return found


def report(cases: "list[Case]", found: dict[str, Measured]) -> list[dict[str, Any]]:
    """One record per case."""
    records = []
    for case in cases:
        seen = found[case.name]
        path, floor = statistics.median(seen.path_seconds), statistics.median(seen.floor_seconds)
        records.append(
            {
                "path": case.name, "floor": case.floor_name, "rounds": len(seen.path_seconds), "per_second": round(1 / path),
                "floor_per_second": round(1 / floor), "ratio": round(seen.ratio(), 3), "target": case.target,
                "round_trips": seen.turns, "round_trips_max": case.turns_max, "commits": seen.commits,
                "commits_max": case.commits_max,
                "gates_hold": seen.turns <= case.turns_max and seen.commits <= case.commits_max,
            }
        )  # fmt: skip
    return records


def show(records: list[dict[str, Any]]) -> None:
    """Print the table."""
    heads = ("path", "per second", "floor", "ratio", "target", "round trips", "commits")
    print("{:<22}{:>12}{:>10}{:>8}{:>8}{:>14}{:>10}  floor is".format(*heads))
    for row in records:
        trips = f"{row['round_trips']} of {row['round_trips_max']}"
        commits = f"{row['commits']} of {row['commits_max']}"
        print(
            f"{row['path']:<22}{row['per_second']:>12,}{row['floor_per_second']:>10,}{row['ratio']:>8.2f}{row['target']:>8.2f}"
            f"{trips:>14}{commits:>10}  {row['floor']}"
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to measure (default 30)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records there; - prints them instead")
    options = parser.parse_args(arguments)
    if not 0 < options.seconds <= 3600:
        parser.error("--seconds must be above 0 and at most 3600")
    from benchmarks.world import Rows, servers

    stop_on_signals()
    try:
        with servers():
            from benchmarks.cases import make_cases

            cases = make_cases(Rows())
            records = report(cases, measure(cases, options.seconds))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except ProcessError as error:
        print(error, file=sys.stderr)
        return EXIT_UNAVAILABLE
    text = json.dumps(records, indent=1)
    if str(options.json) == "-":
        print(text)
    else:
        show(records)
        if options.json:
            options.json.write_text(text + "\n")
    return 0 if all(row["gates_hold"] for row in records) else EXIT_GATE


if __name__ == "__main__":
    raise SystemExit(main())
