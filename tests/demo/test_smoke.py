"""The demo as a user runs it: it plays, serves, ends on Ctrl-C, and leaves no process behind. Run by `.ci/run`."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from config.processes import command_line, wait_until

pytestmark = [pytest.mark.smoke, pytest.mark.timeout(300)]
CHECKOUT = Path(__file__).resolve().parents[2]


def user_environment(**changes: str) -> dict[str, str]:
    """The environment of a user who has not heard of the tests' own settings."""
    ours = {"DJANGO_SETTINGS_MODULE", "SECRET_KEY"}
    kept = {name: value for name, value in os.environ.items() if name not in ours and not name.startswith("PAYONCE_")}
    return {**kept, **changes}


@contextlib.contextmanager
def running_demo(*arguments: str, **environment: str) -> "Iterator[subprocess.Popen[str]]":
    """The demo as a process; ended if the test did not."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "config.demo", *arguments],
        cwd=CHECKOUT, env=user_environment(**environment), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield demo
    finally:
        demo.terminate()
        demo.communicate(timeout=60)


def descendants(pid: int) -> set[int]:
    """Every process that descends from this one."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listing.splitlines())}
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found


def read_until(demo: "subprocess.Popen[str]", mark: str) -> str:
    """What the demo printed up to the line with this mark, or to its end."""
    assert demo.stdout is not None
    lines = []
    for line in demo.stdout:
        lines.append(line)
        if mark in line:
            break
    return "".join(lines)


def test_demo_serves_until_ctrl_c_and_leaves_no_process_behind() -> None:
    with running_demo("--fresh", "--only", "a") as demo:
        shown = read_until(demo, "serving until")
        ready = dict(re.findall(r"^READY (\w+) (\S+)$", shown, re.MULTILINE))
        assert set(ready) == {"cashier", "wallet", "admin", "docs"}, shown
        assert re.search(r"^LOGIN admin operator \S{12}$", shown, re.MULTILINE)
        ready["schema"] = ready["docs"].replace("/docs/", "/schema/")
        answers = {name: urllib3.request("GET", url, redirect=True, timeout=20).status for name, url in ready.items()}
        assert answers == dict.fromkeys(ready, 200)
        children = descendants(demo.pid)
        assert len(children) >= 4
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=60)
        assert demo.returncode == 0
        assert wait_until(lambda: not any(command_line(pid) for pid in children), 10)


def test_smoke_without_redis_sweeps_instead_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "smoke.json"
    with running_demo("--smoke", "--json", str(path), "--only", "a,b,d", REDIS_URL="") as demo:
        shown, _ = demo.communicate(timeout=240)
        assert demo.returncode == 0, shown
    assert "`payonce_sweep --loop` instead of Celery" in shown
    result = json.loads(path.read_text())
    assert result["ok"] is True
    assert [order["paid_once"] for order in result["orders"]] == [True, True, True]
    assert [story["ok"] for story in result["stories"].values()] == [True, True, True]
