"""A pytest plugin (`-p torture.mutant_worker`) that tries mutants instead of running the tests it collected.

The database is made by one real test; then every connection is let go, and each mutant is put into a forked child, which
runs the tests that execute the changed lines until one fails. The child says which test it begins; one that takes ten times as long as
it should is ended with everything that it started, and the database wiped. At the end every test that killed a mutant runs once
more without any: one that fails then proved nothing.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from pytest_django.plugin import blocking_manager_key

from torture.mutant_make import Mutant, Source, install
from torture.mutant_seen import EDGE

PLAN = "PAYONCE_MUTANTS_PLAN"
SLOWER_MAX = 10
SECONDS_MORE = 5.0
HANGS_MAX = 3
WIPE_SECONDS_MAX = 60.0
FEW_LINES = 5
"""A test that executes so few lines of a module fails by every second mutant of them; it is where the guess starts."""
OWN = 10
"""A test file that is named after the module is there to notice."""
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Task:
    """One mutant and the tests that execute it."""

    mutant: Mutant
    text: str
    tests: tuple[str, ...]


class Worker:
    """Tries every task of its plan, and writes a line of JSON for each."""

    def __init__(self, plan: dict[str, Any]) -> None:
        names = plan["names"]
        self.tasks = [
            Task(Mutant(**task["mutant"]), task["text"], tuple(names[index] for index in task["tests"]))
            for task in plan["tasks"]
        ]
        self.seconds: dict[str, float] = dict(zip(names, plan["seconds"], strict=True))
        self.weights: dict[str, dict[str, int]] = plan["weights"]
        self.limit: float = plan["limit"]
        self.results, self.began, self.unfit = (Path(plan[name]) for name in ("results", "began", "unfit"))
        self.until = plan["until"]
        self.top = Path(plan["top"])
        self.sources: dict[str, Source] = {}
        self.tries: Counter[str] = Counter()
        self.kills: Counter[str] = Counter()
        self.killers: set[str] = set()
        self.failed = ""
        self.is_dirty = False
        self.other: pytest.Item | None = None
        self.config: pytest.Config | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Take the place of the ordinary run."""
        self.config = session.config
        items = {item.nodeid: item for item in session.items}
        # Whoever comes first makes the database, for all children.
        needs = {"db", "transactional_db"}
        found = [item for item in session.items if needs & set(getattr(item, "fixturenames", ()))]
        first = (found or session.items)[0]
        # What follows decides which fixtures end: only those of the session may stay, or of a place where every test is.
        last = session.items[-1]
        self.other = next((item for item in reversed(session.items) if item.path.parent != first.path.parent), last)
        first.config.hook.pytest_runtest_protocol(item=first, nextitem=self.other)
        if self.failed:
            raise pytest.UsageError(f"{self.failed} fails without any mutant")
        gc.collect()
        gc.freeze()
        for task in self.tasks:
            if time.time() > self.until:
                break
            self.began.write_text(json.dumps([task.mutant.module, task.mutant.key]))
            known = [items[name] for name in self._in_order(task) if name in items]
            result = self._try(task, known)
            with self.results.open("a", encoding="utf-8") as out:
                out.write(json.dumps(result) + "\n")
        self.began.write_text("null")
        self.unfit.write_text(json.dumps([name for name in sorted(self.killers) if self._is_unfit(items[name])]))
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember the first failure."""
        if report.failed:
            self.failed = self.failed or report.nodeid
            self.is_dirty = self.is_dirty or report.when == "teardown"

    def _in_order(self, task: Task) -> Iterator[str]:
        """The tests by what a kill costs: their seconds, and how often they killed, how little else they execute. Up to the limit."""
        weights = self.weights[task.mutant.module]
        own = f"/test_{Path(task.mutant.module).name}::"

        def price(name: str) -> float:
            guess = FEW_LINES / (FEW_LINES + weights.get(name, 1)) * (OWN if own in name else 1)
            return (EDGE + self.seconds[name]) * (1 + self.tries[name]) / (guess + self.kills[name])

        spent = 0.0
        for name in sorted(task.tests, key=price):
            spent += EDGE + self.seconds[name]
            if spent > self.limit and spent > EDGE + self.seconds[name]:  # one at least
                return
            yield name

    def _try(self, task: Task, items: Sequence[pytest.Item]) -> dict[str, Any]:
        began = time.monotonic()
        answer, asked = self._ask(task.mutant, items) if items else ({"how": "survived", "by": ""}, 0)
        for item in items[:asked]:
            self.tries[item.nodeid] += 1
        if answer["how"] == "killed" and answer["by"] in self.seconds:
            self.kills[answer["by"]] += 1
            self.killers.add(answer["by"])
        facts = {"module": task.mutant.module, "key": task.mutant.key, "line": task.mutant.line, "text": task.text}
        return {**facts, "tests": asked, **answer, "seconds": round(time.monotonic() - began, 2)}

    def _ask(self, mutant: Mutant, items: Sequence[pytest.Item]) -> tuple[dict[str, Any], int]:
        """How the mutant fares. A machine that is busy makes any test hang: only one that is quick again without the mutant tells."""
        for _ in range(HANGS_MAX):
            answer, asked = self._in_child(items, lambda: self._install(mutant))
            if answer["how"] != "timeout" or not self._is_unfit(items[max(asked - 1, 0)]):
                return answer, asked
        return {"how": "broken", "by": f"{answer['by']} hangs without any mutant"}, asked

    def _is_unfit(self, item: pytest.Item) -> bool:
        """Does it fail without any mutant?"""
        answer, _ = self._in_child([item], nothing)
        return bool(answer["how"] != "survived")

    def _in_child(self, items: Sequence[pytest.Item], change: Callable[[], None]) -> tuple[dict[str, Any], int]:
        """Run the items in a forked child until one fails. Returns how it went, and how many began."""
        let_go()
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            self._run_child(items, change, write_end)
        os.close(write_end)
        try:
            answer, asked = self._listen(read_end, items)
        finally:
            os.close(read_end)
            end_group(pid)
            os.waitpid(pid, 0)
        if answer.pop("dirty", False) or answer["how"] in ("timeout", "crashed"):
            self._wipe()
        return answer, asked

    def _listen(self, read_end: int, items: Sequence[pytest.Item]) -> tuple[dict[str, Any], int]:
        told, asked = b"", 0
        deadline = time.monotonic() + SECONDS_MORE * 2
        while True:
            is_ready, _, _ = select.select([read_end], [], [], max(0.0, deadline - time.monotonic()))
            by = items[max(asked - 1, 0)].nodeid
            if not is_ready:
                return {"how": "timeout", "by": by}, asked
            part = os.read(read_end, 65_536)
            told += part
            *lines, rest = told.split(b"\n")
            for line in lines:
                if line.startswith(b"{"):
                    return json.loads(line), asked
                asked = int(line) + 1
                seconds = self.seconds.get(items[asked - 1].nodeid, 1.0)
                deadline = time.monotonic() + seconds * SLOWER_MAX + SECONDS_MORE
            told = rest
            if not part:
                return {"how": "crashed", "by": by}, asked

    def _run_child(self, items: Sequence[pytest.Item], change: Callable[[], None], write_end: int) -> None:
        answer: dict[str, Any] = {"how": "broken", "by": ""}
        try:
            os.setpgid(0, 0)
            die_with_parent()
            for kind in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
                signal.signal(kind, signal.SIG_DFL)
            silence()
            self.failed, self.is_dirty = "", False
            change()
            answer = {"how": "survived", "by": ""}
            # After the last one comes one that is never run: with none, the database of everybody would be dropped.
            for number, (item, following) in enumerate(zip(items, [*items[1:], self.other], strict=True)):
                os.write(write_end, b"%d\n" % number)
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if self.failed:
                    answer = {"how": "killed", "by": self.failed, "dirty": self.is_dirty}
                    break
        except BaseException as error:  # noqa: BLE001 - it is told to the parent
            answer["by"] = f"{type(error).__name__}: {error}"[:300]
        finally:
            with contextlib.suppress(OSError):
                os.write(write_end, json.dumps(answer).encode() + b"\n")
            os._exit(0)

    def _install(self, mutant: Mutant) -> None:
        source = self.sources.setdefault(mutant.module, Source.read(self.top, mutant.module))
        name = "payonce." + mutant.module.removesuffix(".py").replace("/", ".")
        ours = [module for key, module in sys.modules.items() if key.startswith("payonce.") and module is not None]
        install(importlib.import_module(name), mutant, source.mutated(mutant), ours)

    def _wipe(self) -> None:
        """Empty the database, in a child as well: no connection may be open when the next one is forked. It must not fail."""
        assert self.config is not None
        let_go()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.setpgid(0, 0)
                die_with_parent()
                with self.config.stash[blocking_manager_key].unblock():
                    wipe()
                status = 0
            finally:
                os._exit(status)
        deadline = time.monotonic() + WIPE_SECONDS_MAX
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                end_group(pid)
            time.sleep(0.01)
        if ended[1]:
            raise pytest.UsageError("the database cannot be wiped")


def nothing() -> None:
    """Change nothing."""


def end_group(pid: int) -> None:
    """End a child and whatever it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def die_with_parent() -> None:
    """Where the system can: no child outlives a worker that was killed."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def silence() -> None:
    """Nothing that a child prints is of interest."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)


def let_go() -> None:
    """No connection may be shared with a child."""
    from django.db import connections

    from payonce.payments import cache

    connections.close_all()
    cache.reset()


def wipe() -> None:
    """A child that was ended left rows, sessions and perhaps a moved clock behind."""
    from django.core.management import call_command
    from django.db import connection

    from tests.clock import movable_clock

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with movable_clock():
        call_command("flush", verbosity=0, interactive=False)
    let_go()


def end(number: int, frame: FrameType | None) -> None:
    """Let fixtures end."""
    raise KeyboardInterrupt


def pytest_configure(config: pytest.Config) -> None:
    """Nothing happens without a plan."""
    if path := os.environ.get(PLAN):
        signal.signal(signal.SIGTERM, end)
        config.pluginmanager.register(Worker(json.loads(Path(path).read_text())), "payonce-mutant-worker")
