"""One worker's world: payonce on its own database and Redis, the bank beside it, and one clock that all of them share.

Nothing here is a second way to do something: buyers act through the bank's control API, payonce through its own steps, and
what heals after a crash are its own sweeps and time.
"""

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import psycopg
from psycopg.rows import dict_row

from torture.check import Report, check
from torture.crash_site import Site
from torture.rules import Mode
from torture.sources import read_ledger, read_lines

_PLAIN: dict[str, Any] = {"clock_skew_seconds": 1, "lifetime_seconds_min": 1, "notification_horizon_seconds": 600}
ACCOUNTS: dict[str, dict[str, Any]] = {
    "blue": _PLAIN,
    "green": _PLAIN,
    # Like Alipay: knows and closes nothing before the buyer opens it.
    "red": {**_PLAIN, "close_proof": "query", "not_found_before_buyer_acts": True},
    # Like PayPal: the buyer approves, the capture is ours.
    "gold": {**_PLAIN, "captures": True, "close_proof": "restraint"},
}
SETTINGS: dict[str, Any] = {
    "SHOP": "config.shop.DemoShop", "BASE_URL": "http://127.0.0.1:9", "SWITCH": {"PROOF_SECONDS": 0}, "VALID_SECONDS": 120,
    "GRACE_SECONDS": 0, "REFUND": {"APPROVAL_MINOR": 800, "APPROVAL_HOURS": 1},
}  # fmt: skip
SWEEPS = ("poll", "close", "refund", "expire", "inbox", "publish")
ROUNDS_MAX = 80
VACUUM_EVERY = 50
KICK_SECONDS = 2.0
TABLES = (
    "payonce_event", "payonce_shop_message", "payonce_discrepancy", "payonce_refund", "payonce_stream", "payonce_order",
    "payonce_statement_line", "payonce_statement_day",
    "payonce_notification", "payonce_idempotency", "payonce_channel_state", "payonce_test_clock",
)  # fmt: skip
CLEAR = "SET LOCAL session_replication_role = replica; " + "; ".join(f"DELETE FROM {table}" for table in TABLES)
DUE = """
SELECT extract(epoch FROM min(at) - payonce_now())::float8 FROM (
    SELECT min(next_check_at) AS at FROM payonce_stream
    UNION ALL SELECT min(next_expiry_at) FROM payonce_order
    UNION ALL SELECT min(next_try_at) FROM payonce_refund WHERE state IN ('REQUESTED', 'SUBMITTED', 'UNKNOWN', 'ATTENTION')
    UNION ALL SELECT min(approval_expires_at) FROM payonce_refund WHERE state = 'AWAITING_APPROVAL'
    UNION ALL SELECT min(greatest(next_try_at, lease_until)) FROM payonce_shop_message WHERE state = 'PENDING'
    UNION ALL SELECT min(next_try_at) FROM payonce_statement_day
    UNION ALL SELECT min(next_try_at) FROM payonce_notification WHERE state = 'RECEIVED') AS due
"""
LOOK = " UNION ALL ".join(f"SELECT string_agg(t::text, ' ' ORDER BY t::text) FROM {table} t" for table in TABLES)
OFFSET = "SELECT COALESCE(sum(offset_seconds), 0) FROM payonce_test_clock"


_watching = threading.local()


@contextmanager
def unseen() -> Iterator[None]:
    """What the harness itself reads and writes is no boundary of payonce."""
    _watching.is_off = True
    try:
        yield
    finally:
        _watching.is_off = False


def is_unseen() -> bool:
    """Is this thread doing the harness's own work?"""
    return getattr(_watching, "is_off", False)


class World:
    """What a scenario acts in. `order` is the one order's number once it was placed."""

    def __init__(self, site: Site, control: Any) -> None:
        self.site = site
        self.control = control
        self.offset = 0.0
        self.is_told = True
        self.is_listed = False
        self.acknowledged: set[str] = set()
        self._clients: dict[int, Any] = {}
        self._session: psycopg.Connection[Any] | None = None
        self._stories = 0
        self._looking: psycopg.Connection[Any] | None = None

    # --- the clean slate, and time ---

    def clear(self, **payonce: Any) -> None:
        """Start from nothing: no row, nothing at the bank, nothing in Redis, all clocks right."""
        from payonce.payments import clock

        with self.session().transaction():
            self.session().execute(CLEAR)
        self._stories += 1
        if (
            self._stories % VACUUM_EVERY == 0
        ):  # between stories; the server's own time for it would be in the middle of one
            self.session().execute("VACUUM " + ", ".join(TABLES))
        clock._last = None  # noqa: SLF001 - it may be of a story that was played in another time
        with closing(sqlite3.connect(self.site.bank / "bank.sqlite3", isolation_level=None, timeout=10)) as bank:
            bank.execute("BEGIN IMMEDIATE")
            for table in ("notification", "journal", "refund", "capture", "payment"):
                bank.execute(f"DELETE FROM {table}")
            bank.execute("COMMIT")
        for path in (self.site.inbox, self.site.history):
            path.write_bytes(b"")
        self.redis().flushdb()
        self.control.clear_faults()
        self.control.set_clock(0.0)
        self.control.hold_notifications()
        self.offset = 0.0

    def wake_up(self) -> None:
        """A new process: read from the database how far the clocks have been moved."""
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(OFFSET)
            row = cursor.fetchone()
        self.offset = float(row[0])

    def advance(self, seconds: float) -> None:
        """Time passes: for the database, the bank, the adapters' signatures, and what lives in Redis."""
        from django.db import connection

        from payonce.payments import clock

        self.offset += seconds
        with unseen(), connection.cursor() as cursor:
            cursor.execute("INSERT INTO payonce_test_clock VALUES (%s)", [seconds])
        clock._last = None  # noqa: SLF001 - another time than a moment ago
        self.control.set_clock(self.offset)
        client = self.redis()
        for key in client.scan_iter():
            left = client.pttl(key) - int(seconds * 1000)
            if b"kick" in key and seconds >= KICK_SECONDS:
                left = 0
            client.pexpire(key, left) if left > 0 else client.delete(key)

    def now(self) -> float:
        """Unix seconds by the moved clock."""
        return time.time() + self.offset

    def redis(self) -> Any:
        """A client of this worker's own Redis database, one for each process."""
        from redis import Redis

        if os.getpid() not in self._clients:
            self._clients = {os.getpid(): Redis.from_url(self.site.redis_url)}
        return self._clients[os.getpid()]

    def session(self) -> psycopg.Connection[Any]:
        """The worker's own connection, through which it clears and judges. It is none of payonce's, and no child uses it."""
        if self._session is None:
            self._session = psycopg.connect(self.site.database_url, row_factory=dict_row, autocommit=True)
            self._session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return self._session

    # --- what is there ---

    @property
    def order(self) -> str:
        """The order's number."""
        from payonce.orders.models import Order

        with unseen():
            return str(Order.objects.get(source="shop", reference="A-1").number)

    def streams(self, channel: str = "") -> list[Any]:
        """The order's streams, the oldest first; those of one channel where it is named."""
        from payonce.payments.models import Stream

        found = Stream.objects.filter(order__number=self.order).order_by("attempt")
        with unseen():
            return list(found.filter(account=channel) if channel else found)

    def refunds(self) -> list[Any]:
        """The order's refunds, the oldest first."""
        from payonce.payments.models import Refund

        with unseen():
            return list(Refund.objects.filter(stream__order__number=self.order).order_by("id"))

    def cases(self) -> list[Any]:
        """The order's unresolved cases, the oldest first."""
        from payonce.payments.models import Discrepancy

        with unseen():
            return list(Discrepancy.objects.filter(order__number=self.order).exclude(state="RESOLVED").order_by("id"))

    def net_minor(self) -> int:
        """What the bank holds for everything that was ever paid, in minor units."""
        return sum(row["amount_minor"] for row in read_ledger(self.site.bank).journal)

    def story(self) -> list[str]:
        """The order's history, for a person who reads about a failure."""
        with psycopg.connect(self.site.database_url) as connection:
            rows = connection.execute(
                "SELECT sequence, kind, subject, actor, body FROM payonce_event ORDER BY order_id, sequence"
            )
            return [
                f"event {n} {kind} {subject} by {actor}: {json.loads(body)['facts']}"
                for n, kind, subject, actor, body in rows
            ]

    def look(self) -> str:
        """All that outlives a process, as one digest: rows that are committed, Redis, the bank's books, inbox and history."""
        if self._looking is None:
            self._looking = psycopg.connect(self.site.database_url, autocommit=True)
        seen = [repr(self._looking.execute(LOOK).fetchall()), repr(read_ledger(self.site.bank))]
        client = self.redis()
        seen += [repr((key, client.dump(key))) for key in sorted(client.scan_iter())]
        seen += [path.read_text() for path in (self.site.inbox, self.site.history)]
        return hashlib.sha256("\n".join(seen).encode()).hexdigest()

    def let_go(self) -> None:
        """Close every connection of this process: children are forked next."""
        from django.db import connections

        from payonce.channels import http
        from payonce.payments import cache, clock

        connections.close_all()
        http.close_idle_connections()
        cache.reset()
        clock._last = None  # noqa: SLF001 - another time than a moment ago
        self.acknowledged.clear()

    # --- the outside world acts ---

    def deliver(self, *, again: bool = False) -> None:
        """The bank sends what it owes, the oldest first, until payonce acknowledges; with `again`, also what it did."""
        from payonce.payments import notify

        for account, key, request in self.owed():
            if key in self.acknowledged and not again:
                continue
            with self.operation("notify", account=account, dedupe_key=key) as done:
                done["status"] = notify.receive(account, request).answer.status
            if done["status"] == 200:
                self.acknowledged.add(key)

    def owed(self, account: str = "") -> list[tuple[str, str, Any]]:
        """Every notification of the bank, the oldest first, signed now: account, key and request."""
        from payonce.channels.messages import NotificationRequest
        from payonce.channels.registry import channel
        from payonce.channels.sandbox import outbox
        from payonce.channels.sandbox.dialect import render_notification
        from payonce.channels.sandbox.sender import Style

        with closing(sqlite3.connect(f"file:{self.site.bank / 'bank.sqlite3'}?mode=ro", uri=True)) as bank:
            bank.row_factory = sqlite3.Row
            messages = outbox.find(bank, account)
        found = []
        for message in messages:
            merchant = channel(message.account).settings  # type: ignore[attr-defined]
            headers, body = render_notification(merchant, message, self.now(), Style())
            request = NotificationRequest(body, {name.lower(): value for name, value in headers.items()})
            found.append((message.account, message.key, request))
        return found

    @contextmanager
    def operation(self, op: str, **args: Any) -> Iterator[dict[str, Any]]:
        """Write an operation into the history: invoked, and ended unless the process died or raised."""
        number, result = f"{os.getpid()}-{time.monotonic_ns()}", dict[str, Any]()
        self._write(id=number, type="invoke", op=op, process=str(os.getpid()), args=args)
        yield result
        self._write(id=number, type="ok", op=op, process=str(os.getpid()), args=args, result=result)

    def _write(self, **line: Any) -> None:
        with self.site.history.open("a") as file:
            file.write(json.dumps({**line, "at": self.now()}) + "\n")

    # --- payonce heals itself ---

    def sweep(self, *names: str) -> None:
        """Run these sweeps once, or all of them."""
        from payonce.payments import sweep

        for name in names or SWEEPS:
            sweep.SWEEPS[name][0]()

    def heal(self, *, until_rest: bool = True) -> str:
        """Sweeps run and time passes until nothing is due. Returns what goes wrong: it never comes to rest."""
        from django.db import connection

        for _ in range(4 if self.is_listed and until_rest else 0):
            self.sweep("statement")
            self.advance(86_400)
        step = 2.0
        for _ in range(ROUNDS_MAX):
            if self.is_told:
                self.deliver()
            self.sweep()
            if self.is_listed:
                self.sweep("statement")
            with connection.cursor() as cursor:
                cursor.execute(DUE)
                due = cursor.fetchone()[0]
            if due is None or not until_rest:
                self.sweep("reconcile", "publish")
                return ""
            self.advance(max(due, 0.0) + step)
            step = min(step * 1.6, 60.0)
        return f"it does not come to rest: after {ROUNDS_MAX} rounds something is still due"


@contextmanager
def world_at(site: Site) -> Iterator[World]:
    """Set Django up in this process, start the bank, and leave no connection open: children are forked from here."""
    os.environ.update(site.environment())
    import django

    django.setup()
    from django.test import override_settings

    from payonce.channels import registry
    from payonce.channels.http import bounded
    from payonce.channels.sandbox import adapter, testing
    from payonce.payments import clock, enqueue

    # A slow machine crosses no more boundaries than a quick one: the clock is read again, and a sweep kicked again, where time was
    # moved, and only there.
    mock.patch.object(clock, "STALE_SECONDS", float("inf")).start()
    mock.patch.object(enqueue, "KICK_MS", 3_600_000).start()
    with testing.serve(ACCOUNTS, folder=site.bank) as bank:
        world = World(site, bank.control)
        mock.patch.object(adapter, "time", SimpleNamespace(time=world.now)).start()
        # The bank speaks plain HTTP: reading the system's certificates was a fifth of each child's life.
        mock.patch.object(bounded._BoundedContext, "load_default_certs").start()  # noqa: SLF001
        changes = {**SETTINGS, "CHANNELS": bank.accounts, "REDIS_URL": site.redis_url}
        with override_settings(PAYONCE=changes), closing(sqlite3.connect(site.bank / "bank.sqlite3")) as books:
            books.execute("DROP TRIGGER journal_no_delete")  # this bank starts anew for each run
            books.close()
            registry.reset()
            _import_everything()
            yield world


def _import_everything() -> None:
    """What a forked child will need is imported once, by its parent."""
    import redis
    from celery import current_app

    from payonce.channels.sandbox import dialect, outbox
    from payonce.payments import sweep, tasks

    assert current_app.conf
    assert all((redis, dialect, outbox, sweep, tasks))


@contextmanager
def changed_settings(**changes: Any) -> Iterator[None]:
    """Other settings of payonce for a while; dictionaries are merged."""
    from django.conf import settings
    from django.test import override_settings

    merged = dict(settings.PAYONCE)
    for name, value in changes.items():
        merged[name] = {**merged.get(name, {}), **value} if isinstance(value, dict) else value
    with override_settings(PAYONCE=merged):
        yield


def judge(world: World, mode: Mode = Mode.REST) -> Report:
    """Ask the independent checker. Raises SourceError."""
    site, session = world.site, world.session()
    with session.transaction():
        return check(
            session,
            lambda: read_ledger(site.bank),
            lambda: read_lines(site.inbox),
            read_lines(site.history),
            mode=mode,
        )


Step = Callable[[World], None]
