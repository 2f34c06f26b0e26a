"""The site under torture: every process that production has, on servers of this run alone, each to be killed by name.

Two web processes (ASGI and WSGI), two Celery workers, one or two beats, the sandbox bank with a door for each account,
PostgreSQL (fsync on) behind the proxy, and Redis. The shop's endpoint is served by the run itself (`inbox`).
"""

import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import redis as redis_client

from config import run_folder, services
from config.channels import make_accounts
from config.embedded import PrivatePostgres, private_postgres
from config.postgres import DATABASE
from config.processes import ProcessError
from config.redis_server import RedisServer, find_server
from config.supervisor import Child, Supervisor
from torture.accounts import Roster, roster
from torture.disk import Disk, move_database, small_disk
from torture.proxy import ProxyControl

STEADY_PORTS = (12_000, 32_000)
PREFIX = "tt"
ENDPOINT = "web"
SOURCES = ("shop", "other")


@dataclass(frozen=True)
class Modes:
    """How this run's site differs from the plain one."""

    cache: bool = True
    beats: int = 1
    lossy_broker: bool = False
    real_channels: bool = False
    """Accounts of every real channel, in their own wire formats; no seed draws it."""

    def describe(self) -> str:
        """In one line."""
        return (
            f"{'lock and cache on' if self.cache else 'lock and cache OFF'}, {self.beats} beat{'s' * (self.beats > 1)}, "
            f"broker {'loses 20 %' if self.lossy_broker else 'honest'}{', real channels' if self.real_channels else ''}"
        )

    @property
    def roster(self) -> Roster:
        """The accounts of this mode."""
        return roster(self.real_channels)


class TortureSite(Supervisor):
    """A supervised site on private servers. `postgres`, `redis`, `disk` and `proxy` are there to be hurt."""

    postgres: PrivatePostgres
    redis: RedisServer
    disk: Disk | None
    proxy: ProxyControl

    def __init__(self, folder: Path, modes: Modes, inbox_port: int, say: Any = print) -> None:
        super().__init__(profile="test", say=say)
        self.folder = folder
        self.modes = modes
        self.webhook_secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self.inbox_url = f"http://127.0.0.1:{inbox_port}/payonce/"
        self.accounts: dict[str, dict[str, Any]] = {}
        self.direct_url = ""
        self.clients: dict[str, str] = {}
        self.state, self.logs = folder, folder / "logs"
        self.run = folder / "run"
        self.wrong_clock = compile_clock(folder / "clock.so")
        self.paused: set[str] = set()

    @property
    def webs(self) -> dict[str, str]:
        """Name and address of each web process."""
        return {name: url for name, url in self.urls.items() if name.startswith("web")}

    @property
    def history(self) -> Path:
        """What was asked of payonce and how it answered."""
        return self.folder / "history.jsonl"

    @property
    def inbox(self) -> Path:
        """What the shop was told: by its Python hooks, and at its endpoint."""
        return self.folder / "inbox.jsonl"

    @property
    def bank(self) -> Path:
        """The bank's books."""
        return self.folder / "bank"

    def _open(self) -> None:
        self.run = self._resources.enter_context(run_folder.take(self.run))
        self.logs.mkdir()
        place = Path(tempfile.mkdtemp(prefix="payonce-torture-"))
        self._resources.callback(shutil.rmtree, place, ignore_errors=True)
        place.chmod(0o711)
        self.disk = self._resources.enter_context(small_disk(place / "disk"))
        self.postgres = self._resources.enter_context(private_postgres("test"))
        if self.disk is not None:
            move_database(self.postgres.cluster.url("postgres"), DATABASE, self.disk.folder)
        self.redis = RedisServer(place / "redis")
        self.redis.start()
        self._resources.callback(self.redis.stop)
        self.direct_url = self.postgres.url
        self._describe_all(place)
        threading.Thread(target=self._watch, name="supervisor", daemon=True).start()
        self.start("proxy")
        self.manage("migrate", "--verbosity", "0")
        for source in SOURCES:
            made = self.manage("payonce_client", "create", source, "--source", source, "--json")
            self.clients[source] = json.loads(made)["token"]
        others = [name for name in self.names if name != "proxy"]
        for name in others:
            self.start(name, wait=False)
        self.wait_ready(*others)

    def _describe_all(self, place: Path) -> None:
        proxy_port, bank_port = steady_port(), steady_port()
        ports = {"web_a": steady_port(), "web_b": steady_port()}
        self.urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        self.urls["sandbox"] = f"http://127.0.0.1:{bank_port}"
        port = self.postgres.cluster.listen.port
        self.database_url = self.direct_url.replace(f":{port}/", f":{proxy_port}/") + "?sslmode=disable"
        self.redis_url = self.redis.url()
        further = self._open_accounts(place)
        self.environment = self._settings()
        control = place / "proxy.sock"
        self.proxy = ProxyControl(control)
        described = [_proxy(proxy_port, port, control), _bank(bank_port, self.bank, further)]
        described += [self._web(name, number) for name, number in ports.items()]
        described += [self._worker(name) for name in ("worker_a", "worker_b")]
        described += [self._beat(f"beat_{letter}") for letter in "ab"[: self.modes.beats]]
        self._children = {service.name: Child(service) for service in described}

    def _open_accounts(self, place: Path) -> Path | None:
        """Fill `accounts`, the shop's half; returns the file with the bank's half of the real channels' keys, where there are any."""
        chosen = self.modes.roster
        for name, options in chosen.own.items():
            self.accounts[name] = {
                "adapter": "sandbox", "base_url": f"http://127.0.0.1:{steady_port()}", "secret": secrets.token_urlsafe(32),
                **options,
            }  # fmt: skip
        if not chosen.skins:
            return None
        halves = make_accounts(place, self.urls["web_b"], chosen.skins, steady_port)
        self.accounts |= json.loads(halves.shop.read_text())
        return halves.bank

    def _settings(self) -> dict[str, str]:
        payonce = {
            "CHANNELS": self.accounts, "NUMBER_PREFIX": PREFIX, "GRACE_SECONDS": 1, "VALID_SECONDS": 600,
            "SWITCH": {"PROOF_SECONDS": 1}, "REFUND": {"APPROVAL_MINOR": None},
            "MESSAGES": {
                "ENDPOINTS": {ENDPOINT: {"url": self.inbox_url, "secret": self.webhook_secret}},
                "PRIVATE_HOSTS": ["127.0.0.1"],
            },
            **({} if self.modes.cache else {"REDIS_URL": ""}),
        }  # fmt: skip
        return {
            "DJANGO_SETTINGS_MODULE": "torture.settings",
            "PAYONCE_TORTURE": json.dumps({"payonce": payonce, "lossy_broker": self.modes.lossy_broker}),
            "PAYONCE_SHOP_INBOX": str(self.inbox),
            "PAYONCE_PROFILE": "test",
            "PAYONCE_SANDBOX_SECRETS": json.dumps({name: "unused " * 8 + name for name in ("sandbox_a", "sandbox_b")}),
            "SECRET_KEY": "a torture run signs nothing that anybody else trusts",
            "LOG_LEVEL": "WARNING",
        }

    def _web(self, name: str, port: int) -> services.Service:
        service = services.web(port)
        command = service.command
        if name == "web_b":
            command = [
                sys.executable,
                "-m",
                "granian",
                "--interface",
                "wsgi",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ]
            command += ["--blocking-threads", "8", "--no-ws", "--log-level", "warning", "config.wsgi:application"]
        extra = {**service.environment, "PAYONCE_BASE_URL": self.urls[name], "PAYONCE_SERVE_STATIC": "0",
                 "PAYONCE_POOL_MAX": "12", **self._skewed(name)}  # fmt: skip
        return replace(service, name=name, command=command, environment=extra)

    def _worker(self, name: str) -> services.Service:
        service = services.worker(self.run)
        ready = str(self.run / f"{name}.ready")
        command = [part.replace("worker-", f"{name}-") for part in service.command]
        extra = {"PAYONCE_READY_FILE": ready, "PAYONCE_BASE_URL": self.urls["web_a"], **self._skewed(name)}
        return replace(service, name=name, command=command, is_ready=Path(ready).exists, environment=extra)

    def _beat(self, name: str) -> services.Service:
        service = services.beat(self.run)
        ready = str(self.run / f"{name}.ready")
        command = [part.replace("beat-schedule", f"{name}-schedule") for part in service.command]
        extra = {"PAYONCE_READY_FILE": ready}
        return replace(service, name=name, command=command, is_ready=Path(ready).exists, environment=extra)

    # Clocks.

    def _skewed(self, name: str) -> dict[str, str]:
        if not name.endswith("_b") or self.wrong_clock is None:
            return {}
        self.clock_file(name).write_text("0\n")
        return {"LD_PRELOAD": str(self.wrong_clock), "TORTURE_CLOCK_FILE": str(self.clock_file(name))}

    def clock_file(self, name: str) -> Path:
        """What a process with a wrong clock reads: an offset in seconds."""
        return self.folder / f"{name}.clock"

    # What a nemesis does.

    def pause(self, name: str) -> None:
        """Stop a service with all its children in the middle of what they do."""
        pid = self.pid(name)
        if pid is not None:
            self.paused.add(name)
            os.killpg(pid, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a paused service go on, as if no time had passed."""
        pid = self.pid(name)
        self.paused.discard(name)
        if pid is not None:
            os.killpg(pid, signal.SIGCONT)

    def kill_postgres(self, number: signal.Signals) -> None:
        """PostgreSQL dies without a checkpoint: by SIGQUIT all at once, by SIGKILL its first process alone, and the rest after it."""
        pid = self.postgres.pid
        if pid is not None:
            os.kill(pid, number)
            deadline = time.monotonic() + 30
            while self.postgres.pid is not None and time.monotonic() < deadline:
                time.sleep(0.02)

    def redis_admin(self) -> Any:
        """A client of Redis with short patience."""
        return redis_client.Redis(unix_socket_path=str(self.redis.socket), socket_timeout=3, retry=None)


def steady_port() -> int:
    """A free port below those that the system gives to outgoing connections, so that a service that was killed finds it again."""
    while True:
        port = secrets.randbelow(STEADY_PORTS[1] - STEADY_PORTS[0]) + STEADY_PORTS[0]
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def compile_clock(target: Path) -> Path | None:
    """The library that gives a process a wrong clock; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    source = Path(__file__).with_name("clock.c")
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(target), str(source), "-ldl"]
    made = subprocess.run(command, capture_output=True, check=False, timeout=60)
    return target if made.returncode == 0 else None


def _proxy(listen: int, upstream: int, control: Path) -> services.Service:
    command = [sys.executable, "-m", "torture.proxy", "--listen", str(listen), "--upstream", str(upstream)]
    return services.Service("proxy", [*command, "--control", str(control)], control.exists)


def _bank(port: int, folder: Path, accounts: Path | None) -> services.Service:
    service = services.sandbox(port, folder, accounts)
    return replace(service, command=[*service.command, "--speed", "5", "--synchronous", "NORMAL"])


@contextmanager
def open_site(folder: Path, modes: Modes, inbox_port: int, say: Any = print) -> Iterator[TortureSite]:
    """A running site in an empty folder. Raises ProcessError when a server cannot be had."""
    if find_server() is None:
        raise ProcessError("There is no redis-server and no valkey-server.")
    with TortureSite(folder, modes, inbox_port, say) as site:
        yield site
