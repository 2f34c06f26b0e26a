"""The short commands: --json, and an exit status that says what is wrong."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from payonce.payments.permissions import GROUPS

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "command", [["payonce_client", "create", "x", "--json"], ["payonce_groups"], ["payonce_sweep"]]
)
def test_a_database_that_is_away_is_exit_status_4_without_a_traceback(command: list[str]) -> None:
    environment = {**os.environ, "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing", "REDIS_URL": ""}
    done = subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert "the database does not answer" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.django_db
def test_groups_are_told_as_json() -> None:
    for is_first in (True, False):
        out = io.StringIO()
        call_command("payonce_groups", "--json", stdout=out)
        told = json.loads(out.getvalue())["groups"]
        assert [one["name"] for one in told] == [f"payonce {name}" for name in GROUPS]
        assert {one["created"] for one in told} == {is_first}


def test_called_from_code_it_raises_what_the_command_line_exits_with(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: object, **options: object) -> None:
        raise OperationalError

    monkeypatch.setattr("payonce.payments.management.commands.payonce_groups.Command.handle", away)
    with pytest.raises(CommandError) as raised:
        call_command("payonce_groups")
    assert raised.value.returncode == 4
