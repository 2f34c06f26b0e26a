"""`manage.py payonce_sandbox` serves without a database, says when it is ready, and ends cleanly."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from payonce.channels.sandbox.control import SandboxControl
from payonce.channels.sandbox.testing import listen

ROOT = Path(__file__).parent.parent.parent
ACCOUNTS = {
    "blue": {
        "adapter": "sandbox",
        "base_url": "http://127.0.0.1:1",
        "secret": "a long enough secret for the command test",
    }
}


def free_port() -> int:
    with listen(0) as sock:
        return int(sock.getsockname()[1])


def start(tmp_path: Path, port: int, channels: object, *, data: str = "bank") -> "subprocess.Popen[str]":
    """The command under settings that know no database."""
    (tmp_path / "bare_settings.py").write_text(
        "SECRET_KEY = 'x' * 50\nUSE_TZ = True\nINSTALLED_APPS = ['payonce.orders', 'payonce.payments']\n"
        f"PAYONCE = {{'SHOP': 'payonce.orders.shop.Shop', 'CHANNELS': {channels!r}}}\n"
    )
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "bare_settings",
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
    }
    environment.pop("DATABASE_URL", None)
    arguments = ["payonce_sandbox", "--port", str(port), "--json"]
    if data:
        arguments += ["--data", str(tmp_path / data)]
    return subprocess.Popen(
        [sys.executable, "-m", "django", *arguments],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_command_serves_until_it_is_told_to_stop(tmp_path: Path, ending: signal.Signals) -> None:
    port = free_port()
    process = start(tmp_path, port, ACCOUNTS)
    assert process.stdout is not None
    told = process.stdout.readline()
    assert told, process.communicate()
    assert json.loads(told) == {
        "url": f"http://127.0.0.1:{port}",
        "accounts": ["blue"],
        "data": str(tmp_path / "bank"),
    }
    assert process.stdout.readline() == f"READY sandbox http://127.0.0.1:{port}\n"
    control = SandboxControl.from_folder(f"http://127.0.0.1:{port}", tmp_path / "bank")
    assert control.health()["pid"] == process.pid
    assert (tmp_path / "bank" / "control-token").stat().st_mode & 0o777 == 0o600
    process.send_signal(ending)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")


def test_command_keeps_its_ledger_in_a_folder_beside_it_where_none_is_named(tmp_path: Path) -> None:
    process = start(tmp_path, free_port(), ACCOUNTS, data="")
    assert process.stdout is not None
    told = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert told, errors
    assert json.loads(told)["data"] == "payonce-sandbox"
    assert (tmp_path / "payonce-sandbox" / "control-token").exists()


def test_command_without_a_sandbox_account_is_wrong_usage(tmp_path: Path) -> None:
    process = start(tmp_path, free_port(), {})
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "nobody to serve" in errors


def test_taken_port_is_unavailable(tmp_path: Path) -> None:
    with listen(0) as taken:
        process = start(tmp_path, int(taken.getsockname()[1]), ACCOUNTS)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 4
    assert "cannot serve" in errors
