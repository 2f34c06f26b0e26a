"""Fetch channels' statements (对账单) now and compare them with our rows; the same as the daily sweep, for a person or a script."""

import json
from datetime import date
from difflib import get_close_matches
from typing import Any

from django.core.management.base import CommandError, CommandParser

from payonce.payments import statements
from payonce.payments.management.base import EXIT_USAGE, DatabaseCommand
from payonce.payments.models import StatementDay

EXIT_DIFFERENT = 1


class Command(DatabaseCommand):
    """Moves no money: what differs is asked about at the channel, and what still differs is a case for a person."""

    help = (
        "Fetch the channels' statements and compare them with the database. Without --day: every day that is over and"
        " not compared yet. Exit status: 0 all agree, 1 something differs or cannot be had yet, 2 wrong usage, 4 no database."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Which accounts, which days."""
        parser.add_argument("accounts", nargs="*", help="channel accounts (default: all that have statements)")
        parser.add_argument(
            "--day", action="append", default=[], metavar="YYYY-MM-DD", help="this day, also once more; may be repeated"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        """Carry each day on, tell what it came to."""
        accounts = _accounts(options["accounts"])
        days = [_day(text) for text in options["day"]]
        statements.plan_days()
        if days:
            rows = [statements.ask_again(account, day) for day in sorted(days) for account in accounts]
        else:
            rows = statements.unfinished(accounts)
        done = []
        for row in rows:
            done.append(statements.carry_on(row))
            if not options["json"]:
                self.stdout.write(_line(done[-1]))
                self.stdout.flush()
        if options["json"]:
            self.stdout.write(json.dumps({"days": [_facts(row) for row in done]}))
        elif not done:
            self.stdout.write("every day that is over is compared")
        if any(row.compared_at is None or row.difference_count for row in done):
            raise CommandError(
                "something differs or cannot be had yet: see the console's statements and cases",
                returncode=EXIT_DIFFERENT,
            )


def _accounts(names: list[str]) -> list[str]:
    known = statements.accounts_with_statements()
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f' Did you mean "{close[0]}"?' if close else ""
            listed = ", ".join(known) or "none"
            raise CommandError(
                f'"{name}" is no account with statements; there are: {listed}.{hint}', returncode=EXIT_USAGE
            )
    return names or known


def _day(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise CommandError(f'"{text}" is no day: write it as 2026-01-31.', returncode=EXIT_USAGE) from None
    last = statements.last_day()
    if day > last:
        raise CommandError(f"{day} is not over yet: the newest day that can be had is {last}.", returncode=EXIT_USAGE)
    return day


def _line(row: StatementDay) -> str:
    if row.compared_at is None:
        return f"{row.account} {row.day}: not compared, tried again by the sweep ({row.last_answer})"
    return (
        f"{row.account} {row.day}: {row.line_count} lines, {row.difference_count} differ, {row.foreign_count} of others"
    )


def _facts(row: StatementDay) -> dict[str, Any]:
    return {
        "account": row.account, "day": row.day.isoformat(), "compared": row.compared_at is not None, "lines": row.line_count,
        "differences": row.difference_count, "foreign": row.foreign_count, "last_answer": row.last_answer,
    }  # fmt: skip
