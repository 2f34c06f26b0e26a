"""Fixtures of the crash tests: children that die, a shop that remembers, and sweeps that heal."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from config.processes import wait_until
from payonce.channels import registry
from payonce.channels.sandbox.testing import RunningSandbox
from payonce.payments import cache, sweep
from tests.clock import Clock, movable_clock
from tests.crash.shop import VARIABLE

CHILD = "payonce-crash-child"
LET_GO_SECONDS = 60


@dataclass(frozen=True)
class Ended:
    """How a child ended: killed, or with an answer and the recovery points that it passed."""

    killed: bool
    answer: str = ""
    points: tuple[str, ...] = ()


def _has_let_go() -> bool:
    """Has the database noticed that the child is gone? Until then its locks stay, and sweeps pass those rows by."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s",
            [CHILD],
        )
        return bool(cursor.fetchone()[0] == 0)


class Children:
    """Runs one step after the other, each in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]", payonce: Callable[[], dict[str, Any]]) -> None:
        self._process = process
        self._payonce = payonce

    def run(self, step: str, *args: str, kill: int | None = None) -> Ended:
        """Run a step in a child; with `kill`, let it die at that recovery point."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"step": step, "args": args, "kill": kill, "payonce": self._payonce()}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        assert "error" not in found, found["error"]
        assert wait_until(_has_let_go, LET_GO_SECONDS), "the database still works for a dead child"
        return Ended(found["killed"], found.get("answer", ""), tuple(found.get("points", ())))


@pytest.fixture
def children(
    world: RunningSandbox, process_environment: dict[str, str], settings: Any, tmp_path: Path
) -> Iterator[Children]:
    """A process that forks the children; it ends with the test."""
    with (tmp_path / "child.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            text=True, env={**process_environment, "PGAPPNAME": CHILD},
        )  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "READY\n", (tmp_path / "child.log").read_text()
            yield Children(process, lambda: settings.PAYONCE)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)
            process.stdout.close()


@pytest.fixture
def world(bank: RunningSandbox, settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunningSandbox:
    """The real sandbox, no Redis (what it would hold dies with its own time-outs), a shop that remembers."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "told"))
    settings.PAYONCE = {
        **settings.PAYONCE, "REDIS_URL": "", "SHOP": "tests.crash.shop.FileShop", "SWITCH": {"PROOF_SECONDS": 0},
        "BASE_URL": "http://127.0.0.1:9",
    }  # fmt: skip
    registry.reset()
    cache.reset()
    return bank


class Healer:
    """Time passes and the sweeps run, as they would after the crash: nothing else repairs anything."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def __call__(self, rounds: int = 5, seconds: float = 16) -> None:
        for _ in range(rounds):
            self.clock.advance(seconds)
            for name in ("poll", "close", "refund", "expire", "inbox", "publish"):
                sweep.SWEEPS[name][0]()


@pytest.fixture
def healing() -> Callable[[], Any]:
    """A clock that starts anew for each crash, and the sweeps."""
    from contextlib import contextmanager

    @contextmanager
    def healing_from_now() -> Iterator[Healer]:
        with movable_clock() as clock:
            yield Healer(clock)

    return healing_from_now
