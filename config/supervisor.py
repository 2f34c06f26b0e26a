"""Runs payonce as it runs in production, on one machine: web, worker, beat and the sandbox channel as own processes.

    with Supervisor() as site:
        print(site.urls["web"])
        site.kill("worker", signal.SIGKILL)   # it is started again

`python -m config.supervisor` runs until Ctrl-C. A crashed process is started again; each is ended by its own id.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from config import channels, embedded, run_folder, services
from config.environment import CHECKOUT, STATE_FOLDER, number, with_database
from config.postgres import free_port
from config.processes import ProcessError, log_tail, wait_until

READY_SECONDS = 60
STOP_SECONDS = 15
CRASHES_MAX = 5
CRASH_WINDOW_SECONDS = 30.0
WATCH_SECONDS = 0.05
FIRST_PAUSE_SECONDS = 0.05


@dataclass
class Child:
    """A started service: its process, and when it crashed lately."""

    service: services.Service
    process: subprocess.Popen[bytes] | None = None
    wanted: bool = False
    starts: int = 0
    due_at: float | None = None
    crashes: list[float] = field(default_factory=list)


class Supervisor:
    """The whole site on free ports of the loopback address. Use it as a context manager."""

    def __init__(
        self,
        *,
        profile: embedded.Profile = "dev",
        port: int | None = None,
        fresh: bool = False,
        only: Iterable[str] | None = None,
        environment: Mapping[str, str] | None = None,
        real_channels: bool = False,
        say: Any = print,
    ) -> None:
        """Describe a site; nothing is started yet.

        `fresh` gives it an empty database and an empty sandbox ledger that are deleted at the end. `only` names the services
        to start at first. `real_channels` adds an account of each. `say` gets one line for each thing worth telling.
        """
        self.profile = profile
        self.fresh = fresh
        self.say = say
        self.environment: dict[str, str] = dict(environment or {})
        self.urls: dict[str, str] = {}
        self.database_url = ""
        self.redis_url: str | None = None
        self._port = number("PORT", 0) if port is None else port
        self.real_channels = real_channels
        self._only = set(only) if only is not None else None
        self._children: dict[str, Child] = {}
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._resources = contextlib.ExitStack()
        self.state = STATE_FOLDER / "site"
        self.run = STATE_FOLDER / "run"
        self.logs = STATE_FOLDER / "logs"

    # Life cycle.

    def __enter__(self) -> Self:
        """Start the servers, migrate, start the services, and wait until each is ready."""
        try:
            self._open()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything."""
        self.stop()

    def _open(self) -> None:
        self.run = self._resources.enter_context(run_folder.take(self.run))
        servers = self._resources.enter_context(embedded.servers(self.profile))
        self.database_url, self.redis_url = servers.database_url, servers.redis_url
        if self.fresh:
            self._make_fresh_place()
        self.state.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        web_port, sandbox_port = self._port or free_port(), free_port()
        self.urls = {
            "web": f"http://127.0.0.1:{web_port}",
            "sandbox": f"http://127.0.0.1:{sandbox_port}",
            "admin": f"http://127.0.0.1:{web_port}/admin/",
        }
        self._describe(web_port, sandbox_port)
        self.manage("migrate", "--verbosity", "0")
        threading.Thread(target=self._watch, name="supervisor", daemon=True).start()
        names = [name for name in self._children if self._only is None or name in self._only]
        for name in names:
            self.start(name, wait=False)
        self.wait_ready(*names)

    def stop(self) -> None:
        """End every process by its own id, all at once, then leave the servers. Safe to repeat."""
        self._ending.set()
        with self._lock:
            for child in self._children.values():
                child.wanted = False
                if child.process is not None and child.process.poll() is None:
                    child.process.terminate()
        for name in self._children:
            self.stop_service(name)
        self._resources.close()

    # Services.

    @property
    def names(self) -> list[str]:
        """Return the names of the services of this site."""
        return list(self._children)

    def start(self, name: str, *, wait: bool = True) -> int:
        """Start a service that does not run, and return its process id."""
        with self._lock:
            child = self._children[name]
            child.wanted = True
            if child.process is None or child.process.poll() is not None:
                self._spawn(child)
            assert child.process is not None
            pid = child.process.pid
        if wait:
            self.wait_ready(name)
        return pid

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL, *, restart: bool = True) -> int:
        """Send a signal to a service's process alone, as a crash would; it is started again unless told otherwise.

        Returns the id that was signalled. The crash is expected, so it does not count against the service.
        """
        with self._lock:
            child = self._children[name]
            child.wanted = restart
            process = self._running(child)
            os.kill(process.pid, number)
            if number == signal.SIGKILL:
                process.wait()
                run_folder.end_group(process.pid)
                if restart:
                    self._spawn(child)
            return process.pid

    def stop_service(self, name: str) -> None:
        """End a service and leave it ended. Does nothing when it does not run."""
        with self._lock:
            child = self._children[name]
            child.wanted = False
            child.due_at = None
            process = child.process
        if process is None:
            return
        if process.poll() is None:
            if not self._ending.is_set():  # else it was told already; Celery takes a second signal for impatience
                process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        run_folder.end_group(process.pid)
        process.wait()
        with self._lock:
            child.process = None
            self._record()

    def pid(self, name: str) -> int | None:
        """Return the process id of a service while it runs."""
        with self._lock:
            process = self._children[name].process
            return process.pid if process is not None and process.poll() is None else None

    def starts(self, name: str) -> int:
        """Return how often a service was started."""
        return self._children[name].starts

    def wait_ready(self, *names: str, timeout_seconds: float = READY_SECONDS) -> None:
        """Return when the services (all that are wanted, without names) are ready; raise ProcessError otherwise."""
        chosen = names or tuple(name for name, child in self._children.items() if child.wanted)
        for name in chosen:
            child = self._children[name]
            if not wait_until(lambda child=child: self._is_ready(child) or not child.wanted, timeout_seconds):  # type: ignore[misc]
                raise ProcessError(f"{name} is not ready after {timeout_seconds} s:\n{log_tail(self.log(name))}")
            if not child.wanted:
                raise ProcessError(f"{name} does not stay up:\n{log_tail(self.log(name))}")

    def log(self, name: str) -> Path:
        """Return the log file of a service."""
        return self.logs / f"{name}.log"

    def manage(self, *arguments: str) -> str:
        """Run a management command in this site's environment and return what it printed."""
        done = subprocess.run(
            services.manage(*arguments), env=self.child_environment(), cwd=CHECKOUT, capture_output=True, text=True,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode != 0:
            raise ProcessError(f"manage.py {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def child_environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment that makes a process part of this site."""
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url or "",
            "PAYONCE_BASE_URL": self.urls.get("web", ""),
            "PAYONCE_SANDBOX_URL": self.urls.get("sandbox", ""),
            "PYTHONUNBUFFERED": "1",
            **self.environment,
            **(extra or {}),
        }

    # Inside.

    def _describe(self, web_port: int, sandbox_port: int) -> None:
        further = channels.make_accounts(self.state, self.urls["web"]) if self.real_channels else None
        self.environment |= {channels.SHOP_VARIABLE: str(further.shop)} if further else {}
        bank = services.sandbox(sandbox_port, self.state / "sandbox", further and further.bank)
        described = [bank, services.web(web_port)]
        if self.redis_url:
            described += [services.worker(self.run), services.beat(self.run)]
        else:
            self.say("No Redis: no cache, and `payonce_sweep --loop` instead of Celery. Slower, never wrong.")
            described.append(services.sweep())
        self._children = {service.name: Child(service) for service in described}

    def _spawn(self, child: Child) -> None:
        ready = child.service.environment.get("PAYONCE_READY_FILE")
        if ready:
            Path(ready).unlink(missing_ok=True)
        with self.log(child.service.name).open("ab") as log:
            child.process = subprocess.Popen(
                child.service.command,
                env=self.child_environment(child.service.environment),
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone; we end each child in turn
            )
        child.starts += 1
        child.due_at = None
        self._record()

    def _running(self, child: Child) -> subprocess.Popen[bytes]:
        if child.process is None or child.process.poll() is not None:
            raise ProcessError(f"{child.service.name} does not run.")
        return child.process

    def _is_ready(self, child: Child) -> bool:
        with self._lock:
            alive = child.process is not None and child.process.poll() is None
        return alive and child.service.is_ready()

    def _watch(self) -> None:
        """Start again what crashed, until the end."""
        while not self._ending.wait(WATCH_SECONDS):
            with self._lock:
                for child in self._children.values():
                    if child.wanted and child.process is not None and child.process.poll() is not None:
                        self._note_crash(child, child.process)
                    if child.wanted and child.due_at is not None and time.monotonic() >= child.due_at:
                        self._spawn(child)

    def _note_crash(self, child: Child, ended: subprocess.Popen[bytes]) -> None:
        run_folder.end_group(ended.pid)
        now = time.monotonic()
        child.crashes = [at for at in child.crashes if now - at < CRASH_WINDOW_SECONDS] + [now]
        name = child.service.name
        if len(child.crashes) > CRASHES_MAX:
            child.wanted = False
            self.say(f"{name} ended {len(child.crashes)} times in a short time; given up: see {self.log(name)}")
            return
        self.say(f"{name} ended with {ended.returncode}; it is started again")
        child.process = None
        child.due_at = now + FIRST_PAUSE_SECONDS * 2 ** (len(child.crashes) - 1)

    def _record(self) -> None:
        running = {
            child.service.name: (child.process.pid, child.service.command)
            for child in self._children.values()
            if child.process is not None
        }
        run_folder.record(self.run, running)

    def _make_fresh_place(self) -> None:
        """Point this site at an empty database, Redis database and state folder; all go at the end."""
        self.state = self.run / "site"
        self.logs = STATE_FOLDER / "logs" / "fresh"
        shutil.rmtree(self.logs, ignore_errors=True)
        name = fresh_database_prefix(self.run.parent) + self.run.name
        server_url = self.database_url
        if not os.environ.get("DATABASE_URL"):
            _drop_left_databases(server_url, self.run.parent)
        _execute(server_url, f"CREATE DATABASE {name}")
        self._resources.callback(_execute, server_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self.database_url = with_database(server_url, name)
        if self.redis_url and "REDIS_URL" not in os.environ:
            self._take_redis_database()

    def _take_redis_database(self) -> None:
        import redis

        index = 32 + int(self.run.name, 16) % 32
        self.redis_url = embedded.redis_url(self.profile, index)
        assert self.redis_url
        client: Any = redis.Redis.from_url(self.redis_url)
        client.flushdb()
        self._resources.callback(client.close)
        self._resources.callback(client.flushdb)


def fresh_database_prefix(runs: Path) -> str:
    """Return how the names of fresh databases begin: each folder of runs has its own, so nobody drops another's."""
    return f"payonce_fresh_{hashlib.sha256(str(runs).encode()).hexdigest()[:6]}_"


def _drop_left_databases(url: str, runs: Path) -> None:
    """Drop the databases of killed supervisors: those whose run folder is gone."""
    import psycopg

    prefix = fresh_database_prefix(runs)
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
        rows = connection.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [prefix]).fetchall()
    for (name,) in rows:
        if not (runs / name.removeprefix(prefix)).exists():
            _execute(url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _execute(url: str, statement: str) -> None:
    import psycopg

    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            connection.execute(statement.encode())  # a name that we made, not a literal
    except psycopg.OperationalError as error:
        raise ProcessError(f"PostgreSQL does not take `{statement}`: {error}") from error


def stop_on_signals() -> None:
    """Let SIGTERM end the process as Ctrl-C does, and Ctrl-C also where a shell started it with SIGINT ignored."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)


def main() -> int:
    """Run the site until Ctrl-C or SIGTERM; returns 0, or 4 when something cannot be had."""
    stop_on_signals()
    try:
        with Supervisor() as site:
            for name, url in site.urls.items():
                print(f"READY {name} {url}", flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        return 0
    except ProcessError as error:
        print(error, file=sys.stderr)
        return embedded.EXIT_UNAVAILABLE
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
