"""Run the tests, or a torture command, against one tree, as its own process group, and say whether somebody caught it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from torture.sabotage import SabotageError, ids_in

WIDER = (
    ("tests/path", "tests/payments", "tests/orders", "tests/found"),
    ("tests/api", "tests/channels", "tests/admin", "tests/cost"),
    ("tests/concurrency", "tests/crash", "tests/interleavings", "tests/torture_crash"),
)
"""What is tried when those who should have caught a saboteur did not."""
VIOLATION = re.compile(r"(?:^|: )([MSLX]\d{1,2}): ")
PATIENCE_SECONDS = 30
_running: set["subprocess.Popen[Any]"] = set()


@dataclass
class Verdict:
    """What one run came to. `by` is the test or command that caught the build, empty when nobody did."""

    by: str = ""
    what: str = ""
    ids: tuple[str, ...] = ()
    crashed: list[str] = field(default_factory=list)
    is_timed_out: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Place:
    """Where a worker runs: the shared servers, and a Redis database that is its own."""

    database_url: str
    redis_url: str

    def environment(self, tree: Path) -> dict[str, str]:
        """The environment of a process that must find `payonce` in `tree` and nowhere else."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_", "PAYONCE_"))
        }
        for name in ("DJANGO_SETTINGS_MODULE", "PYTHONDONTWRITEBYTECODE"):
            kept.pop(name, None)
        # An empty URL means that there is no Redis; the tests that need one skip themselves then.
        return {**kept, "PYTHONPATH": str(tree), "DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url}


def require_own_payonce(tree: Path, place: Place) -> None:
    """The broken build must be what runs: raises SabotageError when `payonce` is found elsewhere."""
    command = [sys.executable, "-c", "import payonce, payonce.payments as p; print(payonce.__file__, *p.__path__)"]
    told = subprocess.run(command, cwd=tree, env=place.environment(tree), capture_output=True, text=True, check=False)
    paths = [Path(text).resolve() for text in told.stdout.split()]
    if len(paths) != 2 or not all(path.is_relative_to(tree.resolve()) for path in paths):
        raise SabotageError(f"payonce is not that of {tree}: {told.stdout}{told.stderr}")


def run_check(check: Sequence[str], tree: Path, place: Place, seconds: float) -> Verdict:
    """Run pytest node ids (or folders), or one torture command, for at most so many seconds."""
    began = time.monotonic()
    is_torture = check[0].startswith("torture.")
    verdict = _run_torture(check[0], tree, place, seconds) if is_torture else _run_pytest(check, tree, place, seconds)
    verdict.seconds = time.monotonic() - began
    return verdict


def _run_pytest(targets: Sequence[str], tree: Path, place: Place, seconds: float) -> Verdict:
    with tempfile.TemporaryDirectory(prefix="payonce-saboteur-") as folder:
        report = Path(folder) / "report.json"
        environment = {**place.environment(tree), "PAYONCE_SABOTEUR_REPORT": str(report)}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "torture.saboteur_probe", "-p", "no:cacheprovider"]
        command += ["-m", "not packaging and not smoke and not browser", *targets]
        pid, ended, output = _run(command, tree, environment, seconds)
        drop_database(place, pid)
        found: dict[str, Any] = json.loads(report.read_text()) if report.exists() else {}
    if found.get("foreign"):
        raise SabotageError(f"payonce came from elsewhere: {found['foreign'][:3]}")
    verdict = Verdict(is_timed_out=ended is None)
    verdict.crashed = [f"{item['test']} ({item['phase']}): {item['what']}" for item in found.get("crashed", ())]
    if found.get("caught"):
        first = found["caught"][0]
        verdict.by, verdict.what, verdict.ids = first["test"], first["what"], ids_in(first["about"])
    elif not verdict.is_timed_out and not verdict.crashed and ended != 0:
        verdict.crashed = [f"pytest ended with {ended}: {output[-600:]}"]
    return verdict


def _run_torture(command: str, tree: Path, place: Place, seconds: float) -> Verdict:
    environment = place.environment(tree)
    del environment["DATABASE_URL"], environment["REDIS_URL"]  # a torture run has servers of its own
    words = [sys.executable, "-m", *command.split(), "--json", "--jobs", "1"]
    _pid, ended, output = _run(words, tree, environment, seconds)
    if ended is None:
        return Verdict(is_timed_out=True)
    found = violations_in(output) if ended == 1 else []
    if found:
        ids = tuple(dict.fromkeys(match for text in found for match in VIOLATION.findall(text)))
        return Verdict(by=command, what=found[0][:300], ids=ids)
    return Verdict(crashed=[] if ended == 0 else [f"{command} ended with {ended}: {output[-600:]}"])


def violations_in(output: str) -> list[str]:
    """The violated invariants that a torture command printed as JSON; a traceback is none."""
    try:
        told = json.loads(output[output.index("{") :])
    except ValueError:
        return []
    texts = _texts([told.get("failures"), told.get("broken"), [pair["violations"] for pair in told.get("pairs", ())]])
    return [text for text in texts if VIOLATION.search(text) and "Traceback" not in text]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _run(
    command: Sequence[str], tree: Path, environment: Mapping[str, str], seconds: float
) -> tuple[int, int | None, str]:
    """Run to the end or to the time-out: the process id, the exit status (None for a time-out), the output."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            command, cwd=tree, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )  # fmt: skip
        _running.add(process)
        try:
            ended: int | None = process.wait(max(seconds, 1.0))
        except subprocess.TimeoutExpired:
            ended = None
        finally:
            end_group(process)
            _running.discard(process)
        log.seek(0)
        return process.pid, ended, log.read()


def end_group(process: "subprocess.Popen[Any]") -> None:
    """End a process that we started with all that it started: it may clean up first."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def stop_all() -> None:
    """End whatever is running now: we were told to stop."""
    for process in list(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def drop_database(place: Place, pid: int) -> None:
    """Drop the database of a test process that could not do it itself."""
    with psycopg.connect(place.database_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS test_payonce_{pid} WITH (FORCE)")
