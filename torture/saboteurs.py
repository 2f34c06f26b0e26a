"""Deliberately broken builds: each must be caught by some test or torture run. One that survives is a hole in the tests.

    python -m torture.saboteurs [--only NAME] [--sample N] [--seed S] [--narrow] [--budget MINUTES] [--jobs N] [--json] [--list]

Each build is made in a copy of the tree. Those who should catch it are tried first, then ever wider sets of tests. Caught means
that a test judged so (an assertion failed), or that a torture run reported a violation; never that something could not be
imported or took too long. At the end whoever caught something runs on the unbroken tree and must find nothing there.

Exit status: 0 all caught, 1 a survivor or a replacement that no longer fits, 2 wrong usage, 3 the budget ended first (INVALID),
4 a server cannot be had.
"""

import argparse
import compileall
import json
import os
import platform
import queue
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import django
import psycopg
from redis import Redis

from config import embedded
from config.processes import ProcessError
from torture.broken import ALL
from torture.sabotage import CHECKOUT, SabotageError, Saboteur, apply, copy_of_tree
from torture.saboteur_run import WIDER, Place, Verdict, require_own_payonce, run_check, stop_all

STAGE_SECONDS = 420
"""One try of one set of tests; a narrow one takes seconds."""
COMPILED = ("orders", "payments", "channels", "config", "tests", "torture")
BY_NAME = {saboteur.name: saboteur for saboteur in ALL}


@dataclass
class Result:
    """How it went for one saboteur."""

    name: str
    breaks: tuple[str, ...]
    by: str = ""
    what: str = ""
    ids: tuple[str, ...] = ()
    is_expected: bool = False
    problem: str = ""
    is_cut: bool = False
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def is_caught(self) -> bool:
        """Did somebody catch it, who has nothing to say about the unbroken tree?"""
        return bool(self.by) and not self.problem


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    options = _options(arguments)
    chosen = choose(options)
    if options.list:
        for saboteur in chosen:
            print(f"{saboteur.name:36} {','.join(saboteur.breaks):12} {saboteur.text}")
        return 0
    began = time.monotonic()
    for folder in COMPILED:  # once, for all copies
        compileall.compile_dir(CHECKOUT / folder, quiet=2)
    try:
        with embedded.servers("test") as running:
            results = run(chosen, options, _places(running, options.jobs), began + options.budget * 60)
            about = _about(running, sys.argv[1:] if arguments is None else arguments)
    except ProcessError as error:
        print(error, file=sys.stderr)
        return 4
    status = judge(results)
    _print(results, options, status, time.monotonic() - began, about)
    return status


def choose(options: argparse.Namespace) -> list[Saboteur]:
    """The named ones, or a sample that is the same for the same seed, or all."""
    if options.only:
        return [BY_NAME[name] for name in options.only]
    chosen = list(ALL)
    if options.sample is not None and options.sample < len(chosen):
        chosen = random.Random(options.seed).sample(chosen, options.sample)
    return chosen


def run(chosen: Sequence[Saboteur], options: argparse.Namespace, places: Sequence[Place], until: float) -> list[Result]:
    """Try every saboteur, as many at once as there are places, then the control on the unbroken tree."""
    free: queue.SimpleQueue[Place] = queue.SimpleQueue()
    for place in places:
        free.put(place)

    def at_a_place(step: Callable[[Place], Any]) -> Any:
        place = free.get()
        try:
            return step(place)
        finally:
            free.put(place)

    def one(saboteur: Saboteur) -> Result:
        result: Result = at_a_place(lambda place: try_one(saboteur, place, until, is_narrow=options.narrow))
        _say(options, _row(result))
        return result

    _say(options, HEADER)
    with ThreadPoolExecutor(max_workers=len(places)) as pool:
        try:
            results = list(pool.map(one, chosen))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop_all()
            raise
    catchers = sorted({result.by for result in results if result.by})
    commands = [by for by in catchers if by.startswith("torture.")]
    tests = [by for by in catchers if by not in commands]
    checks = [[command] for command in commands] + ([tests] if tests else [])
    _say(options, f"control: {len(tests)} tests and {len(commands)} torture runs on the unbroken tree")
    with copy_of_tree() as tree, ThreadPoolExecutor(max_workers=len(places)) as pool:
        verdicts = list(
            pool.map(lambda check: at_a_place(lambda place: run_check(check, tree, place, 4 * STAGE_SECONDS)), checks)
        )
    for check, verdict in zip(checks, verdicts, strict=True):
        _apply_control(results, check, verdict)
    return results


def try_one(saboteur: Saboteur, place: Place, until: float, *, is_narrow: bool = False) -> Result:
    """Build it, and look for whoever catches it."""
    began = time.monotonic()
    result = Result(saboteur.name, saboteur.breaks)
    try:
        with copy_of_tree() as tree:
            apply(saboteur, tree)
            require_own_payonce(tree, place)
            tries = expected(saboteur) if is_narrow else [*expected(saboteur), *WIDER]
            _look(
                tries,
                len(expected(saboteur)),
                result,
                lambda check, seconds: run_check(check, tree, place, seconds),
                until,
            )
    except SabotageError as error:
        result.problem = str(error)
    result.seconds = time.monotonic() - began
    return result


def _look(
    tries: Sequence[Sequence[str]], expected_count: int, result: Result, check: Callable[[Sequence[str], float], Verdict], until: float
) -> None:  # fmt: skip
    for number, targets in enumerate(tries):
        left = until - time.monotonic()
        if left <= 0:
            result.is_cut = True
            return
        verdict = check(targets, min(STAGE_SECONDS, left))
        if verdict.by:
            result.by, result.what, result.ids = verdict.by, verdict.what, verdict.ids
            result.is_expected = number < expected_count
            return
        result.notes += verdict.crashed[:3]
        if verdict.is_timed_out:
            result.notes.append(f"{' '.join(targets)}: took too long")


def expected(saboteur: Saboteur) -> list[Sequence[str]]:
    """The tests that should catch it in one run, then each torture command."""
    tests = [name for name in saboteur.caught_by if not name.startswith("torture.")]
    commands: list[Sequence[str]] = [[name] for name in saboteur.caught_by if name.startswith("torture.")]
    return ([tests] if tests else []) + commands


def _apply_control(results: Sequence[Result], check: Sequence[str], verdict: Verdict) -> None:
    """Whoever also fails on the unbroken tree has caught nothing."""
    is_clean = not verdict.by and not verdict.crashed and not verdict.is_timed_out
    if is_clean:
        return
    why = verdict.by or "; ".join(verdict.crashed[:2]) or "it took too long"
    for result in results:
        if result.by in check and (not verdict.by or result.by == verdict.by):
            result.problem = f"the control failed on the unbroken tree: {why} {verdict.what}"


def judge(results: Sequence[Result]) -> int:
    """The exit status."""
    if any(not result.is_caught and not result.is_cut for result in results):
        return 1
    return 3 if any(result.is_cut for result in results) else 0


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


HEADER = f"{'saboteur':36} {'caught by':92} {'seconds':>7}  ids"


def _row(result: Result) -> str:
    by = result.by if result.is_caught else "NOT TRIED TO THE END" if result.is_cut else "SURVIVED"
    if result.problem:
        by = f"FAILED: {result.problem}"
    elif result.by and not result.is_expected:
        by = f"(wider) {by}"
    lines = [f"{result.name:36} {by:92} {result.seconds:7.1f}  {','.join(result.breaks)}"]
    if not result.is_caught:
        lines += [f"    {note}" for note in result.notes]
    return "\n".join(lines)


def _about(running: embedded.Servers, words: Sequence[str]) -> dict[str, Any]:
    """What a run was: the day, the command and the versions of what it ran on."""
    with psycopg.connect(running.database_url) as connection:
        shown = connection.execute("SHOW server_version").fetchone()
    versions = {"Python": platform.python_version(), "Django": django.get_version()}
    versions["PostgreSQL"] = str(shown[0]).split()[0] if shown else "unknown"
    if running.redis_url:
        versions["Redis"] = str(Redis.from_url(running.redis_url).info("server")["redis_version"])
    today = datetime.now(UTC).date().isoformat()
    return {"date": today, "command": " ".join(["python -m torture.saboteurs", *words]), "versions": versions}


def _print(
    results: Sequence[Result], options: argparse.Namespace, status: int, seconds: float, about: dict[str, Any]
) -> None:
    caught = sum(result.is_caught for result in results)
    verdict = {0: "OK", 1: "SURVIVED", 3: "INVALID: the budget ended first"}[status]
    if options.json:
        facts = {
            **about, "verdict": verdict, "saboteurs": len(results), "caught": caught, "seed": options.seed,
            "seconds": round(seconds, 1), "results": [{**asdict(result), "is_caught": result.is_caught} for result in results],
        }  # fmt: skip
        print(json.dumps(facts, indent=2))
        return
    for result in results:
        if not result.is_caught:
            print(_row(result))
    print(f"{len(results)} saboteurs, {caught} caught; {seconds:.0f} s, seed {options.seed}")
    print(verdict)


def _say(options: argparse.Namespace, text: str) -> None:
    """Progress: for a reader, or beside the JSON."""
    print(text, flush=True, file=sys.stderr if options.json else sys.stdout)


def _places(running: embedded.Servers, count: int) -> list[Place]:
    """A Redis database for each worker; the test processes make their own PostgreSQL databases."""
    first = 2 + os.getpid() % 60 * 4
    urls = [embedded.redis_url("test", first + number) if running.redis_url else "" for number in range(count)]
    return [Place(running.database_url, url or "") for url in urls]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m torture.saboteurs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=list(BY_NAME), metavar="NAME", help="may be repeated")
    parser.add_argument("--sample", type=int, help="so many, chosen by the seed; without it all of them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--narrow", action="store_true", help="only those who should catch it, no wider sets of tests")
    parser.add_argument("--budget", type=float, default=60.0, help="minutes; what is left then makes the run INVALID")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), choices=range(1, 5))
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.budget <= 0 or (options.sample is not None and options.sample < 1):
        parser.error("--budget and --sample must be positive")
    return options


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell started us in the background, without SIGINT
        signal.signal(number, _end)
    sys.exit(main())
