"""The supervisor with real child processes: ready, killed, started again, given up, and ended by their own ids."""

import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import run_folder, supervisor
from config.embedded import Servers
from config.postgres import free_port
from config.processes import ProcessError, command_line, wait_until
from config.services import Service, answers_http
from config.supervisor import Supervisor

CHECKOUT = Path(__file__).resolve().parents[2]
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


class Site(Supervisor):
    """A supervisor of small stand-in services, on the tests' servers."""

    def _describe(self, web_port: int, sandbox_port: int) -> None:
        serve = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(web_port)]
        url = f"http://127.0.0.1:{web_port}/"
        described = [
            Service("web", serve, lambda: answers_http(url)),
            Service("worker", [sys.executable, "-c", PARENT], lambda: True),
            Service("sandbox", [sys.executable, "-c", "raise SystemExit(3)"], lambda: False),
        ]
        self._children = {service.name: supervisor.Child(service) for service in described}

    def manage(self, *arguments: str) -> str:
        return ""


@pytest.fixture
def site(
    embedded_servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Site, list[str]]]:
    """A site with web and worker started, and what it said."""
    monkeypatch.setattr(supervisor, "STATE_FOLDER", tmp_path)
    said: list[str] = []
    with Site(profile="test", port=free_port(), only=["web", "worker"], say=said.append) as running:
        yield running, said


def is_alive(pid: int) -> bool:
    """Return whether a process lives."""
    return command_line(pid) != ""


def test_services_are_ready_and_end_by_their_own_ids(site: tuple[Site, list[str]]) -> None:
    running, _ = site
    assert answers_http(running.urls["web"])
    pids = [running.pid("web"), running.pid("worker")]
    running.stop()
    assert all(pid is not None and not is_alive(pid) for pid in pids)
    assert running.pid("web") is None
    running.stop()


def test_killed_service_is_started_again_and_leaves_no_child_behind(site: tuple[Site, list[str]]) -> None:
    running, _ = site
    log = running.log("worker")
    assert wait_until(lambda: log.read_text().strip() != "", 20)
    child = int(log.read_text().split()[0])
    killed = running.kill("worker")
    assert not is_alive(killed)
    assert wait_until(lambda: not is_alive(child), 10)
    assert running.pid("worker") not in {None, killed}
    assert running.starts("worker") == 2


def test_crash_nobody_asked_for_is_repaired_and_told(site: tuple[Site, list[str]]) -> None:
    running, said = site
    before = running.pid("web")
    assert before is not None
    subprocess.run(["kill", "-KILL", str(before)], check=True)
    assert wait_until(lambda: running.starts("web") == 2, 10)
    running.wait_ready("web")
    assert said == ["web ended with -9; it is started again"]


def test_killed_without_restart_stays_down_until_started(site: tuple[Site, list[str]]) -> None:
    running, _ = site
    running.kill("web", signal.SIGTERM, restart=False)
    assert wait_until(lambda: running.pid("web") is None, 10)
    with pytest.raises(ProcessError, match="does not run"):
        running.kill("web")
    running.start("web")
    assert answers_http(running.urls["web"])


def test_service_that_never_stays_up_is_given_up(site: tuple[Site, list[str]]) -> None:
    running, said = site
    with pytest.raises(ProcessError, match="does not stay up"):
        running.start("sandbox")
    assert "given up" in said[-1]
    assert running.starts("sandbox") == supervisor.CRASHES_MAX + 1


def test_fresh_site_has_its_own_database_that_goes_with_it(
    embedded_servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    monkeypatch.setattr(supervisor, "STATE_FOLDER", tmp_path)
    left_by_a_killed_one = supervisor.fresh_database_prefix(tmp_path / "run") + secrets.token_hex(4)
    with psycopg.connect(embedded_servers.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {left_by_a_killed_one}".encode())
    with Site(profile="test", port=free_port(), only=[], fresh=True) as running:
        assert running.database_url != embedded_servers.database_url
        with psycopg.connect(running.database_url) as connection:
            row = connection.execute("SELECT current_database()").fetchone()
        assert row is not None
        name = row[0]
    with psycopg.connect(embedded_servers.database_url) as connection:
        known = {row[0] for row in connection.execute("SELECT datname FROM pg_database").fetchall()}
    assert not known & {name, left_by_a_killed_one}


def test_processes_of_a_killed_supervisor_are_swept(tmp_path: Path) -> None:
    script = f"""
import subprocess, sys, time
from pathlib import Path
from config import run_folder
with run_folder.take(Path({str(tmp_path)!r})) as folder:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    child, foreign = (subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) for _ in "ab")
    run_folder.record(folder, {{"web": (child.pid, command), "worker": (foreign.pid, ["another", "command"])}})
    print(child.pid, foreign.pid, flush=True)
    time.sleep(600)
"""
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
    assert owner.stdout is not None
    ours, foreign = (int(part) for part in owner.stdout.readline().split())
    with run_folder.take(tmp_path):
        assert is_alive(ours)  # its supervisor lives
    owner.kill()
    owner.communicate()
    with run_folder.take(tmp_path):
        assert wait_until(lambda: not is_alive(ours), 10)
        assert is_alive(foreign)
    subprocess.run(["kill", "-KILL", str(foreign)], check=True)
