"""`python -m benchmarks`: every path beside its floor, in random order, several rounds; medians of the rounds' ratios.

Exit codes: 0 done, 2 usage, 4 a server is missing.
"""

import argparse
import json
import os
import random
import secrets
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from config import embedded

ACTS = {"pay": 60, "notify": 60, "repeated notification": 300, "repeated click": 300, "poll": 1}


def main(arguments: list[str] | None = None) -> int:
    """Start a database of its own with fsync on, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds; each measures every path and its floor once")
    parser.add_argument("--only", help="names of paths, separated by commas")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    try:
        with embedded.servers("test"), embedded.private_postgres() as database:
            _set_up(database.url)
            rows = _measure(options.rounds, options.only.split(",") if options.only else [])
    except (OSError, RuntimeError) as error:
        print(f"The servers for the measurement could not run: {error}", file=sys.stderr)
        return 4
    if not rows:
        parser.error(f"--only names no path; there are: {', '.join(ACTS)}")
    print(json.dumps(rows, indent=2) if options.json else _table(rows))
    return 0


def _set_up(database_url: str) -> None:
    os.environ.update(
        DATABASE_URL=database_url, PAYONCE_PROFILE="test", DJANGO_SETTINGS_MODULE="config.settings",
        SECRET_KEY=secrets.token_hex(32), PAYONCE_REDIS_DATABASE="1", CONN_MAX_AGE="600",
    )  # fmt: skip
    import django
    from celery import current_app
    from django.conf import settings
    from django.core.management import call_command
    from django.test import override_settings

    django.setup()
    measured = {
        "SHOP": "payonce.orders.shop.Shop",
        "CHANNELS": {"instant": {"adapter": "benchmarks.channel.InstantChannel"}},
    }
    override_settings(PAYONCE={**settings.PAYONCE, **measured}).enable()
    current_app.conf.broker_url = None
    call_command("migrate", verbosity=0)


def _measure(rounds: int, only: list[str]) -> list[dict[str, Any]]:
    from benchmarks import channel
    from benchmarks.paths import PATHS, SlowServer

    chosen = [path for path in PATHS if not only or path.name in only]
    seen: dict[str, list[tuple[float, float]]] = {path.name: [] for path in chosen}
    with SlowServer() as url:
        for number in range(rounds + 1):
            for path in random.sample(chosen, len(chosen)):
                channel.QUERY_URL = url if path.name == "poll" else ""
                cases = [path.prepare, path.floor]
                first = random.randrange(2)
                speeds = [0.0, 0.0]
                for index in (first, 1 - first):
                    speeds[index] = _speed(cases[index], ACTS[path.name]) * path.rows
                if number:  # the first round only warms up
                    seen[path.name].append((speeds[0], speeds[1]))
            print(f"round {number} of {rounds}", file=sys.stderr)
    return [_row(path.name, path.floor_is, seen[path.name]) for path in chosen]


def _speed(prepare: Callable[[int], list[Callable[[], None]]], count: int) -> float:
    acts = prepare(count)
    began = time.perf_counter()
    for act in acts:
        act()
    return count / (time.perf_counter() - began)


def _row(name: str, floor_is: str, pairs: list[tuple[float, float]]) -> dict[str, Any]:
    return {
        "path": name,
        "per_second": round(statistics.median(ours for ours, _ in pairs)),
        "floor_per_second": round(statistics.median(floor for _, floor in pairs)),
        "of_floor": round(statistics.median(ours / floor for ours, floor in pairs), 2),
        "floor": floor_is,
    }


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'path':<24}{'per second':>12}{'floor':>10}{'of floor':>10}  floor is"]
    for row in rows:
        figures = f"{row['per_second']:>12}{row['floor_per_second']:>10}{row['of_floor']:>10}"
        lines.append(f"{row['path']:<24}{figures}  {row['floor']}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
