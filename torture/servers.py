"""What can be done to PostgreSQL by SQL and to Redis by commands, and what their rows say about repairs. Blocking."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import redis

from torture.site import TortureSite

QUEUE = "payonce"
CROWD_MAX = 230
LEASES = """
SELECT what FROM (
    SELECT 'stream ' || number || ' ' || call_lease_until AS what, call_lease_until AS until FROM payonce_stream
        WHERE state IN ('CREATED', 'CAPTURING', 'CLOSING')
    UNION ALL SELECT 'refund ' || number || ' ' || call_lease_until, call_lease_until FROM payonce_refund
        WHERE state IN ('REQUESTED', 'SUBMITTED', 'UNKNOWN')
    UNION ALL SELECT 'message ' || id || ' ' || lease_until, lease_until FROM payonce_shop_message WHERE state = 'PENDING'
) AS held WHERE until > payonce_now() OR (until IS NOT NULL AND NOT %s)
"""
PENDING = """
SELECT count(*) FROM payonce_shop_message AS m WHERE state = 'PENDING' AND created_at < to_timestamp(%s)
"""
TERMINATE = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND random() < %s
"""
RECENT = """
SELECT o.id, s.id FROM payonce_order o JOIN payonce_stream s ON s.order_id = o.id
WHERE o.state = 'OPEN' ORDER BY o.id DESC LIMIT %s
"""


@contextmanager
def connect(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A short look at the database, past the proxy. Raises OSError where it is away."""
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
            yield connection
    except psycopg.Error as error:
        raise OSError(str(error)) from error


def held_leases(url: str, *, only_living: bool = True) -> set[str]:
    """What is being worked on at the moment, each with the end of its lease; or also what somebody began and left."""
    with connect(url) as connection:
        return {str(row[0]) for row in connection.execute(LEASES, [only_living])}


def pending_messages(url: str, before: float) -> int:
    """How many messages of before a moment (Unix seconds) the shop was not told."""
    with connect(url) as connection:
        row = connection.execute(PENDING, [before]).fetchone()
        return int(row[0]) if row else 0


class SqlHurt:
    """Hurts PostgreSQL as another client, or an administrator, may."""

    def __init__(self, url: str) -> None:
        self._url = url

    def terminate(self, share: float) -> int:
        """End this share of all sessions; returns how many."""
        with connect(self._url) as connection:
            row = connection.execute(TERMINATE, [share]).fetchone()
            return int(row[0]) if row else 0

    def crowd(self, seconds: float) -> int:
        """Take every connection that is left, for a while; returns how many that were."""
        with ExitStack() as stack:
            taken, until = 0, 0.0
            while not until or time.monotonic() < until:
                try:
                    stack.enter_context(psycopg.connect(self._url, connect_timeout=5))
                    taken += 1
                except psycopg.OperationalError:
                    until = until or time.monotonic() + seconds
                    time.sleep(0.02)  # who ends a session meanwhile gives it to the crowd
                if taken == CROWD_MAX:
                    time.sleep(seconds)
                    break
            return taken

    def hold_rows(self, seconds: float, rows: int) -> int:
        """Hold the locks of open orders longer than anybody waits for them; returns of how many."""
        with connect(self._url) as connection, connection.transaction():
            found = connection.execute(
                "SELECT id FROM payonce_order WHERE state = 'OPEN' ORDER BY id DESC LIMIT %s FOR UPDATE SKIP LOCKED",
                [rows],
            ).fetchall()
            time.sleep(seconds)
            return len(found)

    def deadlock(self, seconds: float) -> int:
        """Lock a stream first and its order then, as payonce never does, over and over; returns how often it was tried."""
        deadline, tried = time.monotonic() + seconds, 0
        with connect(self._url) as connection:
            while time.monotonic() < deadline:
                for order, stream in connection.execute(RECENT, [10]).fetchall():
                    tried += self._cross(connection, order, stream)
                time.sleep(0.05)
        return tried

    @staticmethod
    def _cross(connection: psycopg.Connection[Any], order: int, stream: int) -> int:
        try:
            with connection.transaction(force_rollback=True):
                connection.execute("SET LOCAL deadlock_timeout = '5s'")  # so that the other side finds the deadlock
                connection.execute("SET LOCAL lock_timeout = '6s'")
                connection.execute("SELECT 1 FROM payonce_stream WHERE id = %s FOR UPDATE", [stream])
                time.sleep(0.01)
                connection.execute("SELECT 1 FROM payonce_order WHERE id = %s FOR UPDATE", [order])
        except (psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable):
            pass
        return 1


class RedisHurt:
    """Hurts Redis: the server, the memory in it, and single keys."""

    def __init__(self, site: TortureSite) -> None:
        self._site = site

    def kill(self, down: float) -> None:
        """Kill the server; after a while an empty one starts."""
        pid = self._site.redis.pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        time.sleep(down)
        self._site.redis.start()

    def pause(self, seconds: float) -> bool:
        """The server stands still, and its connections with it."""
        pid = self._site.redis.pid()
        if pid is None:
            return False
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)
        return True

    def flush(self) -> None:
        """Everything is forgotten: locks, cache, and the broker's queue."""
        with self._admin() as admin:
            admin.flushall()

    def out_of_memory(self, seconds: float) -> None:
        """Every write is refused, for want of memory."""
        with self._admin() as admin:
            admin.config_set("maxmemory", 1)
        time.sleep(seconds)
        with self._admin() as admin:
            admin.config_set("maxmemory", 0)

    def read_only(self, seconds: float) -> None:
        """The server believes to be a replica: it refuses writes."""
        with self._admin() as admin:
            admin.replicaof("127.0.0.1", "1")
        time.sleep(seconds)
        with self._admin() as admin:
            admin.replicaof("NO", "ONE")

    def slow(self, milliseconds: int, times: int) -> None:
        """Each client waits for so long, again and again."""
        with self._admin() as admin:
            for _ in range(times):
                admin.execute_command("CLIENT", "PAUSE", milliseconds)
                time.sleep(milliseconds / 1000 + 0.05)

    def poison(self, share: float) -> int:
        """Swap the cached results of orders, and write nonsense into some; returns how many were touched."""
        with self._admin() as admin:
            keys = [key for key in admin.scan_iter("payonce:order:*", count=500) if random.random() < share]
            values = [admin.get(key) for key in keys]
            for key, value in zip(keys, [*values[1:], *values[:1]], strict=True):
                wrong = random.choice((value, b"9999:0:{}", b"\xff\xfe", b"1:x:" + (value or b"")))
                if wrong is not None:
                    admin.set(key, wrong, px=30_000)
            return len(keys)

    def bring_back(self, seconds: float) -> None:
        """Cached results of a while ago come back over newer ones, as from a replica that lagged; with the life they had left."""
        with self._admin() as admin:
            old = [(key, admin.get(key), admin.pttl(key)) for key in admin.scan_iter("payonce:order:*", count=500)]
        time.sleep(seconds)
        with self._admin() as admin:
            for key, value, left in old:
                rest = int(left - seconds * 1000)
                if value and 0 < rest <= 30_000:
                    admin.set(key, value, px=rest)

    def lose_locks(self, seconds: float) -> None:
        """Gates vanish while they are held."""
        deadline = time.monotonic() + seconds
        with self._admin() as admin:
            while time.monotonic() < deadline:
                for key in admin.scan_iter("payonce:gate:*", count=500):
                    admin.delete(key)
                time.sleep(0.02)

    def drop_queue(self, seconds: float) -> None:
        """Whatever the broker is given vanishes for a while."""
        deadline = time.monotonic() + seconds
        with self._admin() as admin:
            while time.monotonic() < deadline:
                admin.delete(QUEUE, "unacked", "unacked_index")
                time.sleep(0.005)

    def flood_queue(self, count: int) -> None:
        """The broker repeats a task many times: each is a true message of another one, given again."""
        with self._admin() as admin:
            deadline, found = time.monotonic() + 5.0, None
            while found is None and time.monotonic() < deadline:
                found = admin.lindex(QUEUE, 0)
            if found is not None:
                admin.lpush(QUEUE, *([found] * count))

    @contextmanager
    def _admin(self) -> Iterator[Any]:
        admin = self._site.redis_admin()
        try:
            yield admin
        except redis.RedisError as error:
            raise OSError(f"Redis: {error}") from error
        finally:
            admin.close()
