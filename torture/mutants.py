"""Mutation testing of the modules that decide about money: every small change of their code must make a test fail.

    python -m torture.mutants [--module payments/policy.py] [--line N] [--fast] [--reuse] [--budget MINUTES] [--jobs N] [--json] [--list]

The tests run once with coverage, which says who executes which line. Then each mutant is put into a forked process and meets the
tests that execute it, the most telling first. A survivor is a hole in the tests, or it changes nothing that anybody could see: then
`torture/mutants_justified.json` says why. A justification that fits no survivor is an error too.

Exit status: 0 every mutant was killed or is justified, 1 one was not, 2 wrong usage, 3 the budget ended first (INVALID),
4 a server cannot be had.
"""

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from coverage import CoverageData

from config import embedded
from config.processes import ProcessError
from torture.mutant_make import Definition, Mutant, Source
from torture.mutant_worker import PLAN
from torture.sabotage import CHECKOUT

MODULES = (
    "payments/transitions/streams.py", "payments/transitions/refunds.py", "payments/transitions/cases.py", "orders/transitions.py",
    "payments/settle.py", "payments/surplus.py", "payments/refund_answer.py", "payments/refund.py", "payments/refund_run.py",
    "payments/policy.py", "payments/locks.py", "payments/cache.py",
)  # fmt: skip
TESTS = ("tests/path", "tests/payments", "tests/orders", "tests/found")
MORE_TESTS = ("tests/concurrency", "tests/api", "tests/admin", "tests/cost")
"""Slower, and asked only about what the fast ones let live."""
JUSTIFIED = CHECKOUT / "torture" / "mutants_justified.json"
TESTS_MAX = 15
COVERAGE_SECONDS = 3_600
KEPT = CHECKOUT / ".payonce" / "mutants"


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


class Seen:
    """Who executes what: for every module and line the tests, by a run with coverage."""

    def __init__(self, runs: Sequence[tuple[Path, Path]]) -> None:
        self.seconds: dict[str, float] = {}
        self.lines: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        for data, report in runs:
            self.seconds |= json.loads(report.read_text())
            coverage = CoverageData(str(data))
            coverage.read()
            for path in coverage.measured_files():
                real = Path(path).resolve()
                if real.is_relative_to(CHECKOUT):
                    lines = self.lines[str(real.relative_to(CHECKOUT))]
                    for line, names in coverage.contexts_by_lineno(path).items():
                        lines[line] |= {name.partition("|")[0] for name in names if name}

    def tests_of(self, source: Source, mutant: Mutant) -> list[str]:
        """The tests that execute the mutant's lines, or whoever executes a function that uses the module's name. The most telling first."""
        lines = self.lines.get(source.path, {})
        places = dict(source.places())
        wanted: set[int] = set(range(mutant.line, mutant.end + 1))
        if not isinstance(places[mutant.place], Definition):
            wanted = {line for line, names in lines.items() if names}
        found = set().union(*(lines.get(line, set()) for line in wanted)) if wanted else set()
        telling = {name: sum(name in names for names in lines.values()) for name in found}
        # A test that executes little of the module and is quick says most for its price.
        return sorted(found, key=lambda name: telling[name] * (0.2 + self.seconds.get(name, 1.0)))[:TESTS_MAX]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    options = _options(arguments)
    sources = {path: Source.read(CHECKOUT, path) for path in options.module or MODULES}
    mutants = [
        mutant for source in sources.values() for mutant in source.mutants if options.line in (None, mutant.line)
    ]
    if options.list:
        for mutant in mutants:
            print(f"{mutant.module}:{mutant.line}: {mutant.key}")
        return 0
    began = time.monotonic()
    until = time.time() + options.budget * 60
    try:
        with embedded.servers("test") as running:
            results = search(sources, mutants, options, until, running)
    except ProcessError as error:
        print(error, file=sys.stderr)
        return 4
    scores, stale = judge(
        mutants, results, json.loads(JUSTIFIED.read_text(encoding="utf-8")), is_whole=options.line is None
    )
    status = 1 if stale or any(score.survivors for score in scores.values()) else 0
    if status == 0 and any(score.untried for score in scores.values()):
        status = 3
    _print(scores, stale, options, status, time.monotonic() - began)
    return status


def search(
    sources: dict[str, Source],
    mutants: Sequence[Mutant],
    options: argparse.Namespace,
    until: float,
    running: embedded.Servers,
) -> list[dict[str, Any]]:
    """Try every mutant with the fast tests, and what they let live with the slower ones."""
    with tempfile.TemporaryDirectory(prefix="payonce-mutants-") as name:
        folder = Path(name)
        found: dict[tuple[str, str], dict[str, Any]] = {}
        left = list(mutants)
        for stage, tests in enumerate((TESTS,) if options.fast else (TESTS, MORE_TESTS)):
            if not left:
                break
            _say(options, f"{len(left)} mutants; running {' '.join(tests)} once with coverage")
            seen = measure(tests, KEPT, options, running)
            tasks = [(mutant, seen.tests_of(sources[mutant.module], mutant)) for mutant in left]
            for result in try_all(tasks, tests, folder, options, until, running):
                key = (result["module"], result["key"])
                if stage == 0 or result["how"] != "survived" or key not in found:
                    found[key] = {**result, "tests": result["tests"] + found.get(key, {}).get("tests", 0)}
            left = [mutant for mutant in left if found.get((mutant.module, mutant.key), {}).get("how") == "survived"]
        return list(found.values())


def measure(tests: Sequence[str], folder: Path, options: argparse.Namespace, running: embedded.Servers) -> Seen:
    """Run the tests with coverage, a folder at a time; they must pass. `folder` keeps what was seen for `--reuse`. Raises ProcessError."""
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=options.jobs) as pool:
        places = queue.SimpleQueue[int]()
        for number in range(options.jobs):
            places.put(number)

        def one(target: str) -> tuple[Path, Path]:
            data, report = folder / f"{target.replace('/', '-')}.coverage", folder / f"{target.replace('/', '-')}.json"
            if not (options.reuse and data.exists() and report.exists()):
                place = places.get()
                try:
                    _measure_one(target, data, report, _environment(running, place))
                finally:
                    places.put(place)
            return data, report

        return Seen(list(pool.map(one, tests)))


def _measure_one(target: str, data: Path, report: Path, environment: dict[str, str]) -> None:
    data.unlink(missing_ok=True)
    rules = data.with_suffix(".config")
    # By file: the package reaches its folders through links, which coverage does not follow from the package's name.
    files = "".join(f"\n    {CHECKOUT / module}" for module in MODULES)
    rules.write_text(f"[run]\nbranch = false\ninclude ={files}\ndata_file = {data}\nparallel = false\n")
    command = [*_pytest([target]), "-p", "torture.mutant_seconds", "--cov", f"--cov-config={rules}"]
    command += ["--cov-context=test", "--cov-report="]
    told = subprocess.run(
        command, cwd=CHECKOUT, env={**environment, "PAYONCE_MUTANTS_SECONDS": str(report)}, capture_output=True, text=True,
        timeout=COVERAGE_SECONDS, check=False,
    )  # fmt: skip
    if told.returncode:
        report.unlink(missing_ok=True)
        raise ProcessError(f"the tests do not pass without any mutant:\n{told.stdout[-3000:]}{told.stderr[-1000:]}")


def try_all(
    tasks: Sequence[tuple[Mutant, list[str]]], tests: Sequence[str], folder: Path, options: argparse.Namespace, until: float,
    running: embedded.Servers,
) -> list[dict[str, Any]]:  # fmt: skip
    """Share the mutants among worker processes; each has a database of its own."""
    workers = []
    for number in range(options.jobs):
        plan, results = folder / f"plan{number}", folder / f"results{number}"
        results.write_text("")
        mine = [{"mutant": asdict(mutant), "tests": names} for mutant, names in tasks[number :: options.jobs]]
        plan.write_text(json.dumps({"tasks": mine, "results": str(results), "until": until, "top": str(CHECKOUT)}))
        log = (folder / f"log{number}").open("w")
        command = [*_pytest(tests), "-s", "-p", "torture.mutant_worker", "--timeout", "300"]
        environment = {**_environment(running, number), PLAN: str(plan)}
        workers.append((subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=log, stderr=log), results, log))
    try:
        _watch(workers, options)
    finally:
        for process, _results, log in workers:
            if process.poll() is None:
                process.terminate()
                process.wait(60)
            log.close()
    broken = [Path(log.name).read_text()[-2000:] for process, _results, log in workers if process.returncode]
    if broken:
        raise ProcessError(f"a worker failed:\n{broken[0]}")
    return [result for _process, results, _log in workers for result in _lines(results)]


def _watch(workers: Iterable[tuple[Any, Path, Any]], options: argparse.Namespace) -> None:
    shown: dict[Path, int] = defaultdict(int)
    while True:
        is_over = all(process.poll() is not None for process, _results, _log in workers)
        for _process, results, _log in workers:
            found = _lines(results)
            for result in found[shown[results] :]:
                if result["how"] not in ("killed", "timeout"):
                    _say(
                        options,
                        f"{result['how']} {result['module']}:{result['line']}: {result['key']} ({result['tests']} tests) {result['by']}",
                    )
            shown[results] = len(found)
        if is_over:
            return
        time.sleep(1)


def _lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


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
        elif result["how"] == "timeout":
            score.timeout += 1
        elif mutant.key in justified.get(mutant.module, {}):
            used.add((mutant.module, mutant.key))
            score.justified += 1
        else:
            score.survivors.append(result)
    tried = {module for module, score in scores.items() if not score.untried and is_whole}
    every = {(module, key) for module, reasons in justified.items() if module in tried for key in reasons}
    return dict(scores), [f"{module}: {key}" for module, key in sorted(every - used)]


def _pytest(tests: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *tests]


def _environment(running: embedded.Servers, number: int) -> dict[str, str]:
    redis = embedded.redis_url("test", 2 + os.getpid() % 60 * 4 + number) if running.redis_url else ""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    return {**kept, "DATABASE_URL": running.database_url, "REDIS_URL": redis or "", "PYTHONPATH": str(CHECKOUT)}


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
    parser.add_argument("--fast", action="store_true", help="only the fast tests")
    parser.add_argument("--reuse", action="store_true", help="take the coverage that the last run measured")
    parser.add_argument("--budget", type=float, default=120.0, help="minutes; what is left then makes the run INVALID")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), choices=range(1, 5))
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.budget <= 0:
        parser.error("--budget must be positive")
    return options


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # the workers end with us
        signal.signal(number, _end)
    sys.exit(main())
