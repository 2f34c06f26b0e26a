"""A pytest plugin (`-p torture.mutant_worker`) that tries mutants instead of running the tests it collected.

The database is made by one real test; then every connection is let go, and each mutant is put into a forked child, which
runs the tests that execute the changed lines until one fails. A child that hangs is ended, and the database wiped.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from torture.mutant_make import Mutant, Source, install

PLAN = "PAYONCE_MUTANTS_PLAN"
CHILD_SECONDS = 150
KILLERS_FIRST = 3


@dataclass(frozen=True)
class Task:
    """One mutant and the tests that execute it, the most telling first."""

    mutant: Mutant
    tests: tuple[str, ...]


class Worker:
    """Tries every task of its plan, and writes a line of JSON for each."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.tasks = [Task(Mutant(**task["mutant"]), tuple(task["tests"])) for task in plan["tasks"]]
        self.results = Path(plan["results"])
        self.until = plan["until"]
        self.top = Path(plan["top"])
        self.sources: dict[str, Source] = {}
        self.killers: Counter[str] = Counter()
        self.failed = ""
        self.other: pytest.Item | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Take the place of the ordinary run."""
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
        with self.results.open("a", encoding="utf-8") as out:
            for task in self.tasks:
                if time.time() > self.until:
                    break
                known = [items[name] for name in self._in_order(task) if name in items]
                print(json.dumps(self._try(task, known)), file=out, flush=True)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember the first failure."""
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def _in_order(self, task: Task) -> list[str]:
        """What killed many mutants before comes first."""
        often = [name for name, _count in self.killers.most_common() if name in task.tests][:KILLERS_FIRST]
        return [*often, *(name for name in task.tests if name not in often)]

    def _try(self, task: Task, items: Sequence[pytest.Item]) -> dict[str, Any]:
        began = time.monotonic()
        let_go()
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            self._run_child(task.mutant, items, write_end)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            told = pipe.read()
        _, status = os.waitpid(pid, 0)
        answer = json.loads(told) if told else {"by": f"ended by signal {status & 127}", "how": "timeout"}
        if answer["how"] == "timeout":
            wipe()
        elif answer["how"] == "killed":
            self.killers[answer["by"]] += 1
        facts = {"module": task.mutant.module, "key": task.mutant.key, "line": task.mutant.line, "tests": len(items)}
        return {**facts, **answer, "seconds": round(time.monotonic() - began, 2)}

    def _run_child(self, mutant: Mutant, items: Sequence[pytest.Item], write_end: int) -> None:
        answer = {"how": "broken", "by": ""}
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
        hard = CHILD_SECONDS
        watchdog = os.fork()
        if watchdog == 0:
            _watch(os.getppid(), hard, write_end)
        try:
            silence()
            self._install(mutant)
            answer = {"how": "survived", "by": ""}
            # After the last one comes one that is never run: with none, the database of everybody would be dropped.
            for item, following in zip(items, [*items[1:], self.other], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if self.failed:
                    answer = {"how": "killed", "by": self.failed}
                    break
        except BaseException as error:  # noqa: BLE001 - it is told to the parent
            answer["by"] = f"{type(error).__name__}: {error}"[:300]
        finally:
            with contextlib.suppress(OSError):
                os.write(write_end, json.dumps(answer).encode())
            os.kill(watchdog, signal.SIGKILL)
            os._exit(0)

    def _install(self, mutant: Mutant) -> None:
        source = self.sources.setdefault(mutant.module, Source.read(self.top, mutant.module))
        name = "payonce." + mutant.module.removesuffix(".py").replace("/", ".")
        ours = [module for key, module in sys.modules.items() if key.startswith("payonce.") and module is not None]
        install(importlib.import_module(name), mutant, source.mutated(mutant), ours)


def _watch(child: int, seconds: int, write_end: int) -> None:
    """End a child that hangs; a mutant may loop for ever, also where no signal handler of Python runs."""
    os.close(write_end)
    silence()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.5)
        if os.getppid() != child:
            os._exit(0)
    os.kill(child, signal.SIGKILL)
    os._exit(0)


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
