"""The processes of a running payonce: what each is started with, and how it is known to be ready."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import urllib3

from config.environment import CHECKOUT

PYTHON = sys.executable


@dataclass(frozen=True)
class Service:
    """One child process: its command, what its environment adds, and a question whether it is ready."""

    name: str
    command: list[str]
    is_ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)


def web(port: int) -> Service:
    """Django under uvicorn, with pooled connections."""
    command = [PYTHON, "-m", "uvicorn", "config.asgi:application", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--log-level", "warning", "--timeout-graceful-shutdown", "3", "--lifespan", "off"]
    extra = {"PAYONCE_POOL": "1", "PAYONCE_SERVE_STATIC": "1"}
    return Service("web", command, lambda: answers_http(f"http://127.0.0.1:{port}/healthz"), extra)


def sandbox(port: int, data: Path, accounts: Path | None = None) -> Service:
    """The sandbox channel, with its own ledger, and further accounts from a file."""
    command = [PYTHON, "manage.py", "payonce_sandbox", "--port", str(port), "--data", str(data)]
    command += ["--accounts", str(accounts)] if accounts else []
    return Service("sandbox", command, lambda: answers_http(f"http://127.0.0.1:{port}/", any_status=True))


def worker(run: Path) -> Service:
    """Celery's worker. The sweeps keep everything due in rows, so it may be killed at any time."""
    ready = run / "worker.ready"
    command = [PYTHON, "-m", "celery", "-A", "config.celery", "worker", "--concurrency", "2", "--loglevel", "INFO"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat", "--hostname", f"worker-{run.name}@%h"]
    return Service("worker", command, ready.exists, {"PAYONCE_READY_FILE": str(ready)})


def beat(run: Path) -> Service:
    """Celery's clock. Two of them change no result."""
    ready = run / "beat.ready"
    command = [PYTHON, "-m", "celery", "-A", "config.celery", "beat", "--loglevel", "WARNING"]
    command += ["--schedule", str(run / "beat-schedule"), "--pidfile", ""]
    return Service("beat", command, ready.exists, {"PAYONCE_READY_FILE": str(ready)})


def sweep() -> Service:
    """The sweeps in one loop: what runs instead of worker and beat where there is no broker."""
    return Service("sweep", [PYTHON, "manage.py", "payonce_sweep", "--loop"], lambda: True)


def answers_http(url: str, *, any_status: bool = False) -> bool:
    """Return whether a server answers with 200, or at all."""
    try:
        answer = urllib3.request("GET", url, timeout=2, retries=False, redirect=False)
    except urllib3.exceptions.HTTPError:
        return False
    return any_status or answer.status == 200


def manage(*arguments: str) -> list[str]:
    """Return the command line of a management command of this checkout."""
    return [PYTHON, str(CHECKOUT / "manage.py"), *arguments]
