"""`make storm ORDERS=50000`: storms in volume, each order hit by at least one fault; every batch is healed, drained and judged.

    python -m tests.model.storms [--orders N] [--seed N] [--mode plain] [--jobs 1] [--budget MINUTES] [--size 150] [--json]
    python -m tests.model.storms --seed N --batch 12        # one batch again, with its trace

Exit status: 0 every invariant held, 1 one did not, 2 wrong usage, 3 the run was too gentle or its budget ended first (INVALID),
4 no servers. Only an order that met at least one fault counts.
"""

import argparse
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.model.database import own_database

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
MODES = ("plain", "no-cache", "two-beats")
TRACE_LINES = 60
KEPT = Path(".payonce/storm")


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit status."""
    options = _options(arguments)
    import django

    django.setup()
    logging.disable(logging.CRITICAL)
    from config import embedded
    from config.processes import ProcessError

    try:
        with embedded.servers("test"):
            found = _in_jobs(options) if options.jobs > 1 else _here(options)
    except ProcessError as error:
        print(f"make storm: {error}", file=sys.stderr)
        return 4
    found |= {"mode": options.mode, "seed": options.seed, "wanted": options.orders}
    return _tell(found, options)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.model.storms", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--orders", type=int, help="faulted orders to be played (1000, or what the budget allows)")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--mode", choices=MODES, default="plain")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with a database of its own")
    parser.add_argument("--budget", type=float, default=0.0, help="minutes after which no batch begins (0: none)")
    parser.add_argument("--size", type=int, default=150, help="orders that are in one database at once")
    parser.add_argument("--batch", type=int, default=None, help="only this batch, with its trace")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--share", help=argparse.SUPPRESS)  # JOB/JOBS: a process of a run with several
    options = parser.parse_args(arguments)
    if options.orders is None:
        options.orders = 0 if options.budget else 1000
    if min(options.orders or options.budget, options.jobs, options.size) <= 0:
        parser.error("--orders, --budget, --jobs and --size must be positive")
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1, 10**9)
    return options


def _here(options: argparse.Namespace) -> dict[str, Any]:
    """Play batch after batch in this process."""
    job, jobs = map(int, (options.share or "0/1").split("/"))
    wanted = -(-options.orders // jobs) or sys.maxsize
    began, found = time.monotonic(), _nothing()
    number = job if options.batch is None else options.batch
    with own_database():
        while True:
            batch = play_one(options.seed, number, options.mode, options.size)
            _add(found, batch)
            if batch.violation:
                found["violations"].append(_keep(batch, options))
            if options.batch is not None and not options.json:
                print("\n".join(batch.trace))
            if not options.json or options.share:  # a share's answer is JSON: its progress goes to the other stream
                in_all = f"{found['faulted']} in all{f' by process {job + 1} of {jobs}' if options.share else ''}"
                print(f"batch {number}: {batch.faulted} of {batch.orders} orders faulted, {in_all},"
                      f" {time.monotonic() - began:.0f} s{', VIOLATED' if batch.violation else ''}",
                      file=sys.stderr if options.share else sys.stdout, flush=True)  # fmt: skip
            number += jobs
            is_over = bool(options.budget) and time.monotonic() - began >= options.budget * 60
            if options.batch is not None or found["faulted"] >= wanted or is_over or found["violations"]:
                break
    found["seconds"] = time.monotonic() - began
    return found


def play_one(seed: int, number: int, mode: str, size: int) -> Any:
    """One batch with a bank and a clock of its own: the same seed, number, mode and size make the same batch."""
    from tests.clock import standing_clock
    from tests.model.bank import bank_here
    from tests.model.storm import Storm
    from tests.model.world import ACCOUNTS, NOON

    with bank_here(ACCOUNTS) as bank, standing_clock(NOON) as clock:
        batch = Storm(bank, clock, f"{seed}/{number}/{mode}", mode, size).play()
    batch.number = number
    return batch


def _nothing() -> dict[str, Any]:
    return {"orders": 0, "faulted": 0, "batches": 0, "steps": 0, "faults": {}, "hardness": {}, "violations": []}


def _add(found: dict[str, Any], batch: Any) -> None:
    found["orders"] += batch.orders
    found["faulted"] += batch.faulted if not batch.violation else 0
    found["batches"] += 1
    found["steps"] += batch.steps
    for name in ("faults", "hardness"):
        found[name] = dict(Counter(found[name]) + Counter(getattr(batch, name)))


def _keep(batch: Any, options: argparse.Namespace) -> dict[str, Any]:
    """A violation with the way to see it again; its trace is kept in a file."""
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / f"{options.mode}-{options.seed}-{batch.number}.txt"
    path.write_text("\n".join([*batch.trace, "", batch.violation, ""]))
    again = f"python -m tests.model.storms --seed {options.seed} --batch {batch.number} --mode {options.mode} --size {options.size}"
    return {"batch": batch.number, "what": batch.violation, "again": again, "trace": str(path)}


def _in_jobs(options: argparse.Namespace) -> dict[str, Any]:
    """Let several processes play every so-manieth batch each."""
    began, found = time.monotonic(), _nothing()
    command = [
        sys.executable, "-m", "tests.model.storms", "--json", "--orders", str(options.orders), "--seed", str(options.seed),
        "--mode", options.mode, "--budget", str(options.budget), "--size", str(options.size),
    ]  # fmt: skip
    players = [
        subprocess.Popen([*command, "--share", f"{job}/{options.jobs}"], stdout=subprocess.PIPE, text=True)
        for job in range(options.jobs)
    ]
    try:
        for player in players:
            text, _ = player.communicate()
            if player.returncode not in (0, 1, 3):
                raise SystemExit(player.returncode)
            part = json.loads(text)
            for name in ("orders", "faulted", "batches", "steps"):
                found[name] += part[name]
            for name in ("faults", "hardness"):
                found[name] = dict(Counter(found[name]) + Counter(part[name]))
            found["violations"] += part["violations"]
    finally:
        for player in players:
            if player.poll() is None:
                player.send_signal(signal.SIGTERM)
                player.wait()
    found["seconds"] = time.monotonic() - began
    return found


def too_gentle(found: dict[str, Any]) -> list[str]:
    """What a run of this length should have met, and did not."""
    from tests.model.storm import HARD_ENOUGH

    if found["orders"] < 1000:
        return []
    return [name for name in HARD_ENOUGH if not found["faults"].get(name) and not found["hardness"].get(name)]


def _tell(found: dict[str, Any], options: argparse.Namespace) -> int:
    gentle = too_gentle(found) if options.batch is None and not options.share else []
    short = options.batch is None and found["faulted"] < found["wanted"] and not options.share
    status = 1 if found["violations"] else 3 if gentle or short else 0
    found |= {"too_gentle": gentle, "verdict": {0: "OK", 1: "VIOLATED", 3: "INVALID"}[status]}
    if options.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return status
    for item in found["violations"]:
        print(f"VIOLATED in batch {item['batch']}: {item['what']}\n  again: {item['again']}\n  trace: {item['trace']}")
    print("how hard:", ", ".join(f"{name} {count}" for name, count in sorted(found["hardness"].items()) if count))
    print("faults:", ", ".join(f"{name} {count}" for name, count in sorted(found["faults"].items())))
    seconds = found["seconds"]
    print(f"{found['mode']}, seed {found['seed']}: {found['faulted']:,} faulted orders of {found['orders']:,} in {found['batches']}"
          f" batches and {found['steps']:,} steps; {seconds:.0f} s, {found['orders'] / seconds:.1f} orders/s")  # fmt: skip
    if gentle:
        print("INVALID: the run never met", ", ".join(gentle))
    elif short:
        print(f"INVALID: only {found['faulted']:,} of {found['wanted']:,} faulted orders before the budget ended")
    elif not status:
        print(f"OK: no violation, so at most 1 in {max(1, found['faulted'] // 3):,} orders with 95 % confidence")
    return status


if __name__ == "__main__":
    sys.exit(main())
