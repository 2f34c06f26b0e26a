"""The command that runs the sweeps where there is no Celery: its passes, its exit statuses, its loop."""

import json
import os
import signal
import subprocess
import sys
import threading
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from config.postgres import free_port
from payonce.payments import sweep
from payonce.payments.management.commands import payonce_sweep
from payonce.payments.management.commands.payonce_sweep import Loop, Pass

CHECKOUT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> dict[str, Any]:
    """One pass, read as JSON."""
    out = StringIO()
    call_command("payonce_sweep", "--json", *arguments, stdout=out)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


@pytest.mark.django_db(transaction=True)
def test_one_pass_runs_every_sweep_once() -> None:
    found = run()
    assert found["ok"] is True
    assert [done["sweep"] for done in found["passes"]] == list(sweep.SWEEPS)


@pytest.mark.django_db(transaction=True)
def test_only_the_named_sweeps_run_and_tell_what_they_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sweep.SWEEPS, "refund", (lambda: 3, 5.0))
    passes = run("--only", "poll, refund")["passes"]
    assert [(done["sweep"], done["count"]) for done in passes] == [("poll", 0), ("refund", 3)]
    out = StringIO()
    call_command("payonce_sweep", "--only", "refund", stdout=out)
    assert "refund     3 done" in out.getvalue()


def test_unknown_sweep_is_wrong_usage() -> None:
    with pytest.raises(CommandError, match='Did you mean "refund"') as refused:
        call_command("payonce_sweep", "--only", "refunds")
    assert refused.value.returncode == 2


@pytest.mark.django_db(transaction=True)
def test_failed_sweep_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise ValueError("broken")

    monkeypatch.setitem(sweep.SWEEPS, "poll", (fail, 2.0))
    with pytest.raises(CommandError, match="failed: poll") as failed:
        call_command("payonce_sweep", "--only", "poll,close", stdout=(out := StringIO()))
    assert failed.value.returncode == 1
    assert "close      0 done" in out.getvalue()


def process(*arguments: str) -> "subprocess.Popen[str]":
    """The command as a process whose database is away."""
    environment = {**os.environ, "DATABASE_URL": f"postgresql://nobody@127.0.0.1:{free_port()}/none"}
    return subprocess.Popen(
        [sys.executable, "manage.py", "payonce_sweep", *arguments],
        env=environment, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_lost_database_is_an_unavailable_dependency() -> None:
    started = process("--only", "poll")
    _, errors = started.communicate(timeout=60)
    assert (started.returncode, "does not answer" in errors) == (4, True)


def test_loop_survives_a_lost_database_and_ends_on_sigterm() -> None:
    started = process("--loop", "--json", "--only", "close")
    assert started.stdout is not None
    first = json.loads(started.stdout.readline())
    assert (first["sweep"], first["is_unavailable"]) == ("close", True)
    assert started.poll() is None
    started.send_signal(signal.SIGTERM)
    started.communicate(timeout=30)
    assert started.returncode == 0


def test_loop_goes_on_after_failures_and_tells_when_it_works_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [OperationalError("gone"), OperationalError("gone"), 0, 2]
    told: list[Pass] = []
    done = threading.Event()

    def answer(name: str) -> Pass:
        found = answers.pop(0) if answers else done.set() or 0
        return Pass(name, error=str(found)) if isinstance(found, Exception) else Pass(name, found)

    monkeypatch.setattr(payonce_sweep, "run_pass", answer)
    monkeypatch.setitem(sweep.SWEEPS, "poll", (lambda: 0, 0.05))
    loop = Loop(["poll"], told.append)
    threading.Thread(target=lambda: (done.wait(20), loop.stop()), daemon=True).start()
    assert loop.run() is True
    assert [(one.error, one.count) for one in told] == [("gone", 0), ("", 0), ("", 2)]
