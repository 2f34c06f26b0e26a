"""Mutation testing of the modules that decide about money: every small change of their code must make a test fail.

    python -m torture.mutants [--module payments/policy.py] [--line N] [--sample N --seed S] [--tests FOLDER] [--deep] [--seconds S]
                              [--reuse] [--resume] [--again] [--budget MINUTES] [--jobs N] [--json] [--list]

The tests run once with coverage, which says who executes which line (`--reuse` keeps what an earlier run measured, but for test files
that changed). Then each mutant is put into a forked process and meets the tests that execute it, by price: quick ones that execute
little else, or killed often before, come first. It survives when none fails within `--seconds` of tests. Every result is written at
once, so a run can be continued (`--resume`; `--again` tries those again that survived).

A survivor is a hole in the tests, or it changes nothing that anybody could see: then `torture/mutants_justified.json` says why.
A justification that fits no survivor is an error too.

Exit status: 0 every mutant was killed or is justified, 1 one was not, 2 wrong usage, 3 the budget ended first (INVALID),
4 a server cannot be had.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from config import embedded
from config.processes import ProcessError
from torture.mutant_make import Mutant, Source
from torture.mutant_seen import Seen, clean_environment, digest, measure, pytest_command
from torture.mutant_worker import PLAN
from torture.sabotage import CHECKOUT

MODULES = (
    "payments/transitions/streams.py", "payments/transitions/refunds.py", "payments/transitions/cases.py", "orders/transitions.py",
    "payments/settle.py", "payments/surplus.py", "payments/refund_answer.py", "payments/refund.py", "payments/refund_run.py",
    "payments/policy.py", "payments/locks.py", "payments/cache.py", "payments/statement_check.py",
)  # fmt: skip
TESTS = ("tests/path", "tests/payments", "tests/orders", "tests/found")
MORE_TESTS = ("tests/concurrency", "tests/api", "tests/admin", "tests/cost")
"""Slower, and asked only by `--deep`."""
JUSTIFIED = CHECKOUT / "torture" / "mutants_justified.json"
KEPT = CHECKOUT / ".payonce" / "mutants"
SILENT_SECONDS_MAX = 300.0
"""A worker that tells nothing for so long hangs itself."""
NOTICED = ("killed", "timeout", "crashed")


@dataclass
class Score:
    """How it went for one module."""

    mutants: int = 0
    killed: int = 0
    timeout: int = 0
    justified: int = 0
    survivors: list[dict[str, Any]] = field(default_factory=list)
    untried: int = 0

    @property
    def percent(self) -> float:
        """Of all mutants that were tried and are not justified, how many were noticed."""
        tried = self.mutants - self.untried - self.justified
        return 100.0 * (self.killed + self.timeout) / tried if tried else 100.0


class Results:
    """What is known of each mutant, on disk as it comes. A result holds for the text of the function that it was found with."""

    def __init__(self, path: Path, sources: Mapping[str, Source]) -> None:
        self.path = path
        self.texts = {
            (module, name): digest(source.segment(node))
            for module, source in sources.items()
            for name, node in source.places()
        }

    def read(self, mutants: Iterable[Mutant]) -> dict[tuple[str, str], dict[str, Any]]:
        """The last result of each of these mutants."""
        if not self.path.exists():
            return {}
        text = self.path.read_text(encoding="utf-8")
        told = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        known = {(result["module"], result["key"]): result for result in told}
        return {
            (mutant.module, mutant.key): found
            for mutant in mutants
            if (found := known.get((mutant.module, mutant.key))) and found["text"] == self.text_of(mutant)
        }

    def text_of(self, mutant: Mutant) -> str:
        """The fingerprint of the function as it is now."""
        return self.texts[mutant.module, mutant.place]

    def forget(self, mutants: Iterable[Mutant]) -> None:
        """Drop what is known of these mutants."""
        gone = {(mutant.module, mutant.key) for mutant in mutants}
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        told = [line for line in lines if (json.loads(line)["module"], json.loads(line)["key"]) not in gone]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(f"{line}\n" for line in told), encoding="utf-8")

    def add(self, result: Mapping[str, Any]) -> None:
        """One more."""
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(result) + "\n")


class Crew:
    """The workers of one run. Each has a database of its own; one that dies is started again behind the mutant that it had."""

    def __init__(self, seen: Seen, results: Results, options: argparse.Namespace, until: float) -> None:
        self.seen = seen
        self.results = results
        self.options = options
        self.until = until
        self.stopped = threading.Event()
        self.weights = {module: seen.weights(module) for module in seen.places}

    def try_all(self, mutants: Sequence[Mutant], environments: Sequence[Mapping[str, str]]) -> None:
        """Share the mutants among the workers. Raises ProcessError when one cannot start."""
        shares = [mutants[number :: len(environments)] for number in range(len(environments))]
        with ThreadPoolExecutor(len(environments)) as pool:
            runs = [pool.submit(self._share, *pair) for pair in zip(shares, environments, strict=True)]
            try:
                self._watch(mutants, runs)
            finally:
                self.stopped.set()
        for run in runs:
            run.result()

    def _share(self, mutants: Sequence[Mutant], environment: Mapping[str, str]) -> None:
        left, false_starts, unfit = list(mutants), 0, set[str]()
        while left and time.time() < self.until and not self.stopped.is_set():
            with tempfile.TemporaryDirectory(prefix="payonce-mutants-") as name:
                folder = Path(name)
                status = self._run(folder, left, unfit, environment)
                if self.stopped.is_set():  # it was ended, and no mutant's fault it is
                    return
                began = _json(folder / "began")
                found = self.results.read(left)
                if status == 0:
                    more = set(_json(folder / "unfit") or ())
                    unfit |= more
                    wrong = [mutant for mutant in left if found.get((mutant.module, mutant.key), {}).get("by") in more]
                    self.results.forget(wrong)
                    left = wrong
                    continue
                left = [mutant for mutant in left if (mutant.module, mutant.key) not in found]
                guilty = next((mutant for mutant in left if began == [mutant.module, mutant.key]), None)
                if guilty is None:
                    false_starts += 1
                    if false_starts > 1 and not self.stopped.is_set():
                        raise ProcessError(f"a worker failed:\n{(folder / 'log').read_text()[-3000:]}")
                    continue
                self.results.add(
                    {**self._facts(guilty), "how": "crashed", "by": "its worker", "tests": 0, "seconds": 0}
                )
                left.remove(guilty)

    def _facts(self, mutant: Mutant) -> dict[str, Any]:
        facts = {"module": mutant.module, "key": mutant.key, "line": mutant.line}
        return {**facts, "text": self.results.text_of(mutant)}

    def _run(
        self, folder: Path, mutants: Sequence[Mutant], unfit: set[str], environment: Mapping[str, str]
    ) -> int | None:
        names = list(self.seen.seconds)
        index = {name: number for number, name in enumerate(names)}
        asked = [sorted(index[test] for test in self.seen.tests_of(mutant) - unfit) for mutant in mutants]
        tasks = [
            {"mutant": asdict(mutant), "text": self.results.text_of(mutant), "tests": tests}
            for mutant, tests in zip(mutants, asked, strict=True)
        ]
        plan = {
            "names": names, "seconds": list(self.seen.seconds.values()), "weights": self.weights, "limit": self.options.seconds,
            "tasks": tasks, "until": self.until, "top": str(CHECKOUT), "results": str(self.results.path),
            "began": str(folder / "began"), "unfit": str(folder / "unfit"),
        }  # fmt: skip
        (folder / "plan").write_text(json.dumps(plan))
        files = sorted({names[test].partition("::")[0] for tests in asked for test in tests}) or [TESTS[0]]
        command = [*pytest_command(files), "-s", "--tb=native", "-p", "torture.mutant_worker", "--timeout", "0"]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=CHECKOUT, env={**environment, PLAN: str(folder / "plan")}, stdout=log, stderr=log
            )
            try:
                self._wait(process, folder / "began")
            finally:
                _end_process(process)
        return process.returncode

    def _wait(self, process: "subprocess.Popen[bytes]", began: Path) -> None:
        told, since = 0.0, time.monotonic()
        while process.poll() is None and not self.stopped.wait(0.3):
            changed = began.stat().st_mtime if began.exists() else 0.0
            if changed != told:
                told, since = changed, time.monotonic()
            elif time.monotonic() - since > SILENT_SECONDS_MAX:
                return

    def _watch(self, mutants: Sequence[Mutant], runs: Sequence[Any]) -> None:
        shown, said, began = set(self.results.read(mutants)), 0, time.monotonic()
        while True:
            is_over = all(run.done() for run in runs)
            found = self.results.read(mutants)
            for key, result in found.items():
                if key not in shown and result["how"] not in NOTICED:
                    text = f"{result['how']} {result['module']}:{result['line']}: {result['key']} ({result['tests']} tests) {result['by']}"
                    _say(self.options, text)
            shown |= set(found)
            if len(found) // 50 > said:
                said = len(found) // 50
                _say(self.options, f"{len(found)} of {len(mutants)} after {time.monotonic() - began:.0f} s")
            if is_over or any(run.done() and run.exception() for run in runs):
                return
            time.sleep(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    options = _options(arguments)
    sources = {path: Source.read(CHECKOUT, path) for path in MODULES}
    mutants = [
        mutant
        for path in options.module or MODULES
        for mutant in sources[path].mutants
        if options.line in (None, mutant.line)
    ]
    if options.sample is not None and options.sample < len(mutants):
        chosen = set(random.Random(options.seed).sample(range(len(mutants)), options.sample))
        mutants = [mutant for number, mutant in enumerate(mutants) if number in chosen]
    if options.list:
        for mutant in mutants:
            print(f"{mutant.module}:{mutant.line}: {mutant.key}")
        return 0
    began = time.monotonic()
    try:
        with embedded.servers("test") as running:
            results = search(sources, mutants, options, time.time() + options.budget * 60, running)
    except ProcessError as error:
        print(error, file=sys.stderr)
        return 4
    is_whole = options.line is None and options.sample is None
    scores, stale = judge(mutants, results, json.loads(JUSTIFIED.read_text(encoding="utf-8")), is_whole=is_whole)
    status = 1 if stale or any(score.survivors for score in scores.values()) else 0
    if status == 0 and any(score.untried for score in scores.values()):
        status = 3
    _print(scores, stale, options, status, time.monotonic() - began)
    return status


def search(
    sources: dict[str, Source], mutants: Sequence[Mutant], options: argparse.Namespace, until: float, running: embedded.Servers
) -> list[dict[str, Any]]:  # fmt: skip
    """Try every mutant that has no result yet. Returns the results of all."""
    environments = [_environment(running, number) for number in range(options.jobs)]
    seen = Seen(sources, KEPT / "seen.json")
    if options.reuse:
        seen.load()
    targets = options.tests or (TESTS + MORE_TESTS if options.deep else TESTS)
    for name in measure(seen, targets, environments):
        _say(options, f"fails without any mutant, and is not asked: {name}")
    seen.only(targets)
    results = Results(KEPT / "results.jsonl", sources)
    known = results.read(mutants) if options.resume or options.again else {}
    if options.again:
        known = {key: result for key, result in known.items() if result["how"] in NOTICED}
    left = [mutant for mutant in mutants if (mutant.module, mutant.key) not in known]
    results.forget(left)
    _say(options, f"{len(left)} mutants, {len(seen.seconds)} tests")
    if left:
        Crew(seen, results, options, until).try_all(left, environments)
    return list(results.read(mutants).values())


def judge(
    mutants: Sequence[Mutant],
    results: Sequence[dict[str, Any]],
    justified: dict[str, dict[str, str]],
    *,
    is_whole: bool = True,
) -> tuple[dict[str, Score], list[str]]:
    """Each module's score, and the justifications that fit no survivor."""
    known = {(result["module"], result["key"]): result for result in results}
    scores: dict[str, Score] = defaultdict(Score)
    used = set()
    for mutant in mutants:
        score, result = scores[mutant.module], known.get((mutant.module, mutant.key))
        score.mutants += 1
        if result is None:
            score.untried += 1
        elif result["how"] == "killed":
            score.killed += 1
        elif result["how"] in ("timeout", "crashed"):
            score.timeout += 1
        elif mutant.key in justified.get(mutant.module, {}):
            used.add((mutant.module, mutant.key))
            score.justified += 1
        else:
            score.survivors.append(result)
    tried = {module for module, score in scores.items() if not score.untried and is_whole}
    every = {(module, key) for module, reasons in justified.items() if module in tried for key in reasons}
    return dict(scores), [f"{module}: {key}" for module, key in sorted(every - used)]


def _json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def _end_process(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(running: embedded.Servers, number: int) -> dict[str, str]:
    redis = embedded.redis_url("test", 2 + os.getpid() % 60 * 4 + number) if running.redis_url else ""
    return {**clean_environment(), "DATABASE_URL": running.database_url, "REDIS_URL": redis or ""}


def _print(
    scores: dict[str, Score], stale: Sequence[str], options: argparse.Namespace, status: int, seconds: float
) -> None:
    verdict = {0: "OK", 1: "SURVIVED", 3: "INVALID: the budget ended first"}[status]
    if options.json:
        modules = {module: {**asdict(score), "percent": round(score.percent, 1)} for module, score in scores.items()}
        print(
            json.dumps(
                {"verdict": verdict, "modules": modules, "stale": list(stale), "seconds": round(seconds, 1)}, indent=2
            )
        )
        return
    for score in scores.values():
        for result in score.survivors:
            print(f"SURVIVED {result['module']}:{result['line']}: {result['key']} ({result['tests']} tests)")
    for text in stale:
        print(f"NOT NEEDED in {JUSTIFIED.name}: {text}")
    print(f"{'module':34} mutants  killed  hung  justified  survived  untried  score")
    for module, score in scores.items():
        counts = f"{score.mutants:7} {score.killed:7} {score.timeout:5} {score.justified:10} {len(score.survivors):9} {score.untried:8}"
        print(f"{module:34} {counts}  {score.percent:.1f} %")
    print(f"{sum(score.mutants for score in scores.values())} mutants; {seconds:.0f} s")
    print(verdict)


def _say(options: argparse.Namespace, text: str) -> None:
    if not options.json:
        print(text, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m torture.mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--module", action="append", choices=MODULES, metavar="PATH", help="may be repeated")
    parser.add_argument("--line", type=int, help="only the mutants of this line")
    parser.add_argument("--sample", type=int, help="only so many, by chance")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument(
        "--tests", action="append", choices=TESTS + MORE_TESTS, metavar="FOLDER", help="only these; may be repeated"
    )
    parser.add_argument("--deep", action="store_true", help=f"ask {', '.join(MORE_TESTS)} too")
    parser.add_argument(
        "--reuse", action="store_true", help="take what earlier runs measured, but for test files that changed"
    )
    parser.add_argument("--resume", action="store_true", help="keep the results of the last run")
    parser.add_argument("--again", action="store_true", help="keep them, and try again what survived")
    parser.add_argument("--seconds", type=float, default=15.0, help="of tests that a mutant must survive")
    parser.add_argument("--budget", type=float, default=120.0, help="minutes; what is left then makes the run INVALID")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), choices=range(1, 5))
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if min(options.budget, options.seconds, 1 if options.sample is None else options.sample) <= 0:
        parser.error("--budget, --seconds and --sample must be positive")
    return options


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # the workers end with us
        signal.signal(number, _end)
    sys.exit(main())
