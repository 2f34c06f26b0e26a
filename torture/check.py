"""Check a run: `check(database, channel ledger, shop inbox, history) → violations`, and the same as a command.

    python -m torture.check --database-url … --ledger … [--inbox …] [--history …] [--mode always|rest] [--json]

Exit status: 0 every invariant holds, 1 one is violated, 2 wrong usage, 3 the run was too gentle (INVALID), 4 a source cannot
be read. Effects are read before the intents that must have come first, and again after: the ledger, the database, the ledger.
"""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from torture.facts import Books, Facts, Violation, gather, sort_history, sort_inbox
from torture.hardness import COUNTS, LEAST, Hardness
from torture.liveness import Waits
from torture.rules import Mode, judge_orders, judge_run
from torture.sources import Database, Ledger, Row, SourceError, operations, read_ledger, read_lines
from torture.tally import Tally

BATCH = 500
SHOWN_MAX = 50


@dataclass
class Report:
    """What a check found: violations, how hard the run was, how long the repairs took, and what was done with which channel."""

    violations: list[Violation] = field(default_factory=list)
    hardness: Hardness = field(default_factory=Hardness)
    waits: Waits = field(default_factory=Waits)
    tally: Tally = field(default_factory=Tally)

    @property
    def ids(self) -> set[str]:
        """The ids of the violated invariants."""
        return {item.rule for item in self.violations}


def check(
    database: str | psycopg.Connection[Row],
    ledger: Callable[[], Ledger] | None = None,
    inbox: Callable[[], Iterable[Row]] | None = None,
    history: Iterable[Row] = (),
    *,
    mode: Mode = Mode.ALWAYS,
    prefix: str = "",
    liveness_scale: float = 0.0,
    overdue_seconds: float = 120.0,
    measured_until: float = math.inf,
) -> Report:
    """Check a run; `ledger` and `inbox` are called to read them at the right moments, `history` is lines of operations.

    `database` is a URL, or an open connection whose transaction is looked through as it stands. `prefix` is that of this
    installation's numbers, where the ledger serves others too. `liveness_scale` stretches the bounds of L1–L5 (0: only
    measure). `overdue_seconds` is how late a sweep may be at rest. `measured_until` (Unix seconds) is when clocks were moved: what
    waited on then is not measured. Raises SourceError.
    """
    facts = read_facts(database, ledger, inbox, history, prefix=prefix, overdue_seconds=overdue_seconds)
    report = Report([*judge_orders(facts, mode), *judge_run(facts, mode)])
    books = facts.after.ledger if facts.after is not None else None
    report.hardness.add_orders(facts.orders)
    report.hardness.add_alone(facts.alone)
    report.hardness.add_ledger(books)
    report.hardness.add_history(facts.history)
    report.tally.add_orders(facts.orders)
    report.tally.add_alone(facts.alone)
    report.waits.add_orders(facts.orders, books, measured_until)
    report.waits.add_history(facts.history)
    if liveness_scale:
        report.violations += report.waits.judge(liveness_scale)
    return report


def read_facts(
    database: str | psycopg.Connection[Row],
    ledger: Callable[[], Ledger] | None = None,
    inbox: Callable[[], Iterable[Row]] | None = None,
    history: Iterable[Row] = (),
    *,
    prefix: str = "",
    overdue_seconds: float = 120.0,
) -> Facts:
    """Read everything, in the order that makes a difference mean something. Raises SourceError."""
    done = operations(history)
    before = ledger() if ledger is not None else None
    source = Database(database)
    try:
        alone, numbers = source.alone(), source.numbers()
        orders = [order for batch in source.batches(BATCH) for order in gather(batch)]
    except psycopg.Error as error:
        raise SourceError(f"the database cannot be read: {error}") from error
    finally:
        source.close()
    after = ledger() if ledger is not None else None
    return Facts(
        source.at, orders, alone, numbers, Books(before) if before else None, Books(after) if after else None,
        sort_inbox(inbox() if inbox is not None else None), done, sort_history(done), prefix, overdue_seconds,
    )  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """The command. Returns the exit status."""
    options = _options(argv)
    try:
        report = check(
            options.database_url,
            (lambda: read_ledger(options.ledger)) if options.ledger else None,
            (lambda: read_lines(options.inbox)) if options.inbox else None,
            read_lines(options.history) if options.history else (),
            mode=Mode(options.mode), prefix=options.prefix, liveness_scale=options.liveness,
            overdue_seconds=options.overdue,
        )  # fmt: skip
    except (SourceError, KeyError, psycopg.Error) as error:
        print(f"payonce check: {error}", file=sys.stderr)
        return 4
    gentle = report.hardness.too_gentle(options.least)
    (_print_json if options.json else _print_text)(report, gentle)
    if report.violations:
        return 1
    return 3 if gentle else 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m torture.check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--ledger", type=Path, help="the sandbox's folder, its SQLite file, or a JSON dump of it")
    parser.add_argument("--inbox", type=Path, help="what the shop was told, as JSON lines")
    parser.add_argument("--history", type=Path, help="operations invoked and ended, as JSON lines")
    parser.add_argument("--mode", choices=[mode.value for mode in Mode], default=Mode.ALWAYS.value)
    parser.add_argument("--prefix", default="", help="of this installation's numbers, where others use the ledger too")
    parser.add_argument(
        "--liveness", type=float, default=0.0, help="judge L1-L5, with their bounds stretched by this factor"
    )
    parser.add_argument("--overdue", type=float, default=120.0, help="how many seconds late a sweep may be at rest")
    parser.add_argument("--least", action="append", default=[], metavar="NAME=COUNT",
                        help="INVALID below this count; `torture` for a torture run's counts. Names: " + ", ".join(COUNTS))  # fmt: skip
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    least: dict[str, int] = {}
    for text in options.least:
        name, _, count = text.partition("=")
        if text == "torture":
            least = {**LEAST, **least}
        elif name in COUNTS and count.isdecimal():
            least[name] = int(count)
        else:
            parser.error(f"--least {text}: write NAME=COUNT with one of the names, or torture")
    options.least = least
    return options


def _print_json(report: Report, gentle: dict[str, tuple[int, int]]) -> None:
    verdict = "VIOLATED" if report.violations else "INVALID" if gentle else "OK"
    found = {
        "verdict": verdict,
        "violations": [{"id": item.rule, "text": item.text, "rows": list(item.rows)} for item in report.violations],
        "hardness": {name: report.hardness[name] for name in COUNTS},
        "too_gentle": {name: {"was": was, "least": least} for name, (was, least) in gentle.items()},
        "liveness": report.waits.figures(),
    }
    print(json.dumps(found, indent=2, ensure_ascii=False))


def _print_text(report: Report, gentle: dict[str, tuple[int, int]]) -> None:
    for item in report.violations[:SHOWN_MAX]:
        print(f"VIOLATED {item}")
    if len(report.violations) > SHOWN_MAX:
        print(f"… and {len(report.violations) - SHOWN_MAX} more")
    for name, times in sorted(Counter(item.rule for item in report.violations).items()):
        print(f"{name}: {times}")
    print("how hard: " + ", ".join(f"{name} {report.hardness[name]}" for name in COUNTS if report.hardness[name]))
    for name, figure in report.waits.figures().items():
        print(
            "{}: p50 {p50:.1f} s, p99 {p99:.1f} s, max {max:.1f} s, bound {bound:.0f} s, of {count:.0f}".format(
                name, **figure
            )
        )
    for name, (was, wanted) in gentle.items():
        print(f"INVALID: only {was} {name}, {wanted} are needed")
    orders = report.hardness["orders"]
    if report.violations:
        print(f"VIOLATED: {len(report.violations)} in {orders} orders")
    elif not gentle:
        bound = f", so at most 1 in {orders // 3:,} orders with 95 % confidence" if orders >= 3 else ""
        print(f"OK: no violation in {orders:,} orders{bound}")


if __name__ == "__main__":
    sys.exit(main())
