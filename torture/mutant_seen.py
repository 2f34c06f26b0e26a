"""Who executes what: the tests run once with coverage, and what was seen is kept for the next run.

Lines are kept by the function that they stand in and their distance from its top, so that a change elsewhere in a module makes
nothing wrong. A test file that is new or changed is measured again alone.
"""

import ast
import hashlib
import json
import os
import queue
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from coverage import CoverageData

from config.processes import ProcessError
from torture.mutant_make import Definition, Mutant, Source
from torture.sabotage import CHECKOUT

MEASURE_SECONDS_MAX = 3_600
FAILED_MAX = 10
"""A test that fails without any mutant says nothing about mutants, and is left out. So many that do mean that the checkout is broken."""
EDGE = 0.01
"""Seconds that a test costs beyond its own."""


class Place:
    """A function, and which tests execute which of its lines."""

    def __init__(self, text: str, lines: Mapping[str, Iterable[str]] | None = None) -> None:
        self.text = text
        self.lines: dict[int, set[str]] = defaultdict(set)
        for offset, names in (lines or {}).items():
            self.lines[int(offset)] |= set(names)

    @property
    def tests(self) -> set[str]:
        """Whoever executes any of it."""
        return set().union(*self.lines.values())

    def changed_to(self, text: str) -> "Place":
        """The same function with another text: nobody knows any more which line was which."""
        return self if text == self.text else Place(text, {"-1": self.tests})


class Seen:
    """For every module and function the tests that execute it, and how long each test takes with its fixtures."""

    def __init__(self, sources: Mapping[str, Source], kept: Path) -> None:
        self.sources = sources
        self.kept = kept
        self.files: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.places: dict[str, dict[str, Place]] = {path: {} for path in sources}

    def load(self) -> None:
        """Take what an earlier run kept."""
        if not self.kept.exists():
            return
        told = json.loads(self.kept.read_text(encoding="utf-8"))
        names, self.files = told["names"], told["files"]
        self.seconds = dict(zip(names, told["seconds"], strict=True))
        for path, places in told["places"].items():
            if path in self.sources:
                self.places[path] = {
                    name: Place(text, {offset: [names[index] for index in found] for offset, found in lines.items()})
                    for name, (text, lines) in places.items()
                }

    def save(self) -> None:
        """Keep it for the next run."""
        names = list(self.seconds)
        index = {name: number for number, name in enumerate(names)}
        places = {
            path: {
                name: [place.text, {offset: sorted(index[test] for test in found) for offset, found in place.lines.items()}]
                for name, place in found_places.items()
            }
            for path, found_places in self.places.items()
        }  # fmt: skip
        told = {"names": names, "seconds": list(self.seconds.values()), "files": self.files, "places": places}
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        self.kept.write_text(json.dumps(told), encoding="utf-8")

    def stale(self, targets: Sequence[str]) -> list[str]:
        """The test files that were not measured as they are now. What is known of them is forgotten."""
        known = {
            str(path.relative_to(CHECKOUT)): digest(path.read_text(encoding="utf-8"))
            for target in targets
            for path in sorted((CHECKOUT / target).rglob("test_*.py"))
        }
        found = [path for path, current in known.items() if self.files.get(path) != current]
        gone = {path for path in self.files if path not in known and not (CHECKOUT / path).exists()} | set(found)
        self._keep(name for name in self.seconds if name.partition("::")[0] not in gone)
        self.files = {path: value for path, value in self.files.items() if path not in gone}
        return found

    def only(self, targets: Sequence[str]) -> None:
        """Forget every test that is not below these folders."""
        self._keep(name for name in self.seconds if name.startswith(tuple(f"{target}/" for target in targets)))

    def _keep(self, names: Iterable[str]) -> None:
        self.seconds = {name: self.seconds[name] for name in list(names)}
        for places in self.places.values():
            for place in places.values():
                for found in place.lines.values():
                    found.intersection_update(self.seconds)

    def add(self, files: Sequence[str], data: Path, report: Path) -> None:
        """Take in one measurement of these test files."""
        seconds = json.loads(report.read_text())
        self.seconds |= seconds
        coverage = CoverageData(str(data))
        coverage.read()
        for path in coverage.measured_files():
            name = str(Path(path).resolve().relative_to(CHECKOUT))
            if name not in self.sources:
                continue
            lines = {
                line: {test.partition("|")[0] for test in tests if test}
                for line, tests in coverage.contexts_by_lineno(path).items()
            }
            self._add_lines(name, lines, seconds)
        self.files |= {path: digest((CHECKOUT / path).read_text(encoding="utf-8")) for path in files}

    def _add_lines(self, module: str, lines: Mapping[int, set[str]], passed: Iterable[str]) -> None:
        known = set(passed)
        for name, node in self.sources[module].places():
            text = self.sources[module].segment(node)
            place = self.places[module].get(name, Place(text)).changed_to(text)
            self.places[module][name] = place
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                if found := lines.get(line, set()) & known:
                    place.lines[line - node.lineno] |= found

    def weights(self, module: str) -> dict[str, int]:
        """How many lines of the module each test executes: one that executes few says most about each."""
        counted: dict[str, int] = defaultdict(int)
        for place in self.places[module].values():
            for names in place.lines.values():
                for name in names:
                    counted[name] += 1
        return counted

    def tests_of(self, mutant: Mutant) -> set[str]:
        """The tests that execute the mutant's lines, or whoever executes a function that uses the module's name."""
        source, places = self.sources[mutant.module], self.places[mutant.module]
        node = dict(source.places())[mutant.place]
        everybody = set().union(*(place.tests for place in places.values()))
        if not isinstance(node, Definition):
            users = [
                name for name, user in source.places() if isinstance(user, Definition) and _uses(user, mutant.place)
            ]
            return set().union(*(places[name].tests for name in users if name in places)) or everybody
        if mutant.place not in places:
            return everybody
        place = places[mutant.place].changed_to(source.segment(node))
        offsets = range(mutant.line - node.lineno, mutant.end - node.lineno + 1)
        # A default is evaluated when the module is loaded, and a part of a long statement may have no line of its own.
        return set().union(*(place.lines.get(offset, set()) for offset in offsets)) or place.tests


def _uses(node: ast.stmt, name: str) -> bool:
    return any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node))


def digest(text: str) -> str:
    """A short fingerprint."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def measure(seen: Seen, targets: Sequence[str], environments: Sequence[Mapping[str, str]]) -> list[str]:
    """Run the test files that are not known as they are, one process for each environment. Returns tests that fail without any mutant.

    Raises ProcessError when more than a few do.
    """
    files = sorted(seen.stale(targets), key=lambda path: (CHECKOUT / path).stat().st_size)
    places = queue.SimpleQueue[Mapping[str, str]]()
    for environment in environments:
        places.put(environment)
    shares = [share for number in range(len(environments)) if (share := files[number :: len(environments)])]
    failed: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="payonce-mutants-") as folder,
        ThreadPoolExecutor(len(environments)) as pool,
    ):

        def one(number: int) -> tuple[Path, Path]:
            data, report = Path(folder) / f"{number}.coverage", Path(folder) / f"{number}.json"
            _run(seen, shares[number], data, report, places.get())
            return data, report

        for share, (data, report) in zip(shares, pool.map(one, range(len(shares))), strict=True):
            failed += json.loads(report.with_suffix(".failed").read_text())
            seen.add(share, data, report)
    seen.save()
    return failed


def _run(seen: Seen, files: Sequence[str], data: Path, report: Path, environment: Mapping[str, str]) -> None:
    rules = data.with_suffix(".config")
    # By file: the package reaches its folders through links, which coverage does not follow from the package's name.
    modules = "".join(f"\n    {CHECKOUT / module}" for module in seen.sources)
    rules.write_text(f"[run]\nbranch = false\ninclude ={modules}\ndata_file = {data}\nparallel = false\n")
    command = [*pytest_command(sorted(files)), "-p", "torture.mutant_seconds", "--cov", f"--cov-config={rules}"]
    command += ["--cov-context=test", "--cov-report="]
    told = subprocess.run(
        command, cwd=CHECKOUT, env={**environment, "PAYONCE_MUTANTS_SECONDS": str(report)}, capture_output=True, text=True,
        timeout=MEASURE_SECONDS_MAX, check=False,
    )  # fmt: skip
    many = told.returncode == 1 and len(json.loads(report.with_suffix(".failed").read_text())) > FAILED_MAX
    if told.returncode not in (0, 1) or many:
        raise ProcessError(f"the tests do not pass without any mutant:\n{told.stdout[-3000:]}{told.stderr[-1000:]}")


def pytest_command(tests: Sequence[str]) -> list[str]:
    """pytest as it is run for mutants."""
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *tests]


def clean_environment() -> dict[str, str]:
    """Ours, without what another pytest put there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    return {**kept, "PYTHONPATH": str(CHECKOUT)}
