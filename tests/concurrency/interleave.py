"""Exact interleavings without sleeping: a session of the test's own holds a row, and everyone is let go once all wait for it.

That they wait is read from `pg_stat_activity`, so every race proves that its operations overlapped.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connection, connections

from payonce.payments import flight

WAIT_SECONDS = 20.0
ORDER_ROW = "SELECT 1 FROM payonce_order WHERE number = %s FOR UPDATE"
STREAM_ROW = "SELECT 1 FROM payonce_stream WHERE number = %s FOR UPDATE"
LOCK_WAITERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
IDLE_IN_TRANSACTION = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
    " AND pid <> pg_backend_pid()"
)
Step = Callable[[], Any]


def new_session(*, autocommit: bool = True) -> psycopg.Connection[Any]:
    """A session of the test's own on the test's database, beside Django's connections."""
    found = connection.settings_dict
    return psycopg.connect(
        host=found["HOST"] or None, port=found["PORT"] or None, user=found["USER"], password=found["PASSWORD"] or None,
        dbname=found["NAME"], autocommit=autocommit,
    )  # fmt: skip


def count(sql: str) -> int:
    """One number, read in a session of its own."""
    with new_session() as session:
        row = session.execute(sql).fetchone()
    assert row is not None
    return int(row[0])


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Wait for an event that can be observed. Fails loudly when it does not come."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, f"still waiting: {what}"
        time.sleep(0.005)


def wait_for_lock_waiters(number: int, threads: "Threads | None" = None) -> None:
    """Return once that many sessions of this database wait for a lock. A step that ended early fails the test at once."""
    with new_session() as session:

        def is_so() -> bool:
            ended = threads.ended() if threads is not None else []
            assert not ended, f"a step did not wait for the lock: {ended}"
            row = session.execute(LOCK_WAITERS).fetchone()
            return row is not None and row[0] >= number

        wait_until(is_so, f"{number} sessions that wait for a lock")


class Threads:
    """Steps that run at the same time. `results()` gives each one's answer, or the exception that it raised."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.answers: list[Any] = [None] * len(steps)
        self.go = threading.Barrier(len(steps))
        self.threads = [
            threading.Thread(target=self._run, args=(place, step), name=f"race-{place}")
            for place, step in enumerate(steps)
        ]
        for thread in self.threads:
            thread.start()

    def _run(self, place: int, step: Step) -> None:
        try:
            self.go.wait(WAIT_SECONDS)
            self.answers[place] = step()
        except BaseException as error:
            self.answers[place] = error
        finally:
            connections.close_all()

    def ended(self) -> list[Any]:
        """The answers of the steps that have ended."""
        return [self.answers[place] for place, thread in enumerate(self.threads) if not thread.is_alive()]

    def results(self) -> list[Any]:
        for thread in self.threads:
            thread.join(2 * WAIT_SECONDS)
            assert not thread.is_alive(), f"{thread.name} does not end"
        return self.answers


def run_together(*steps: Step) -> list[Any]:
    """Start every step at once; return the answers (or exceptions) in the steps' order."""
    return Threads(steps).results()


@contextmanager
def held_row(sql: str, *params: Any) -> Iterator[psycopg.Connection[Any]]:
    """Hold a row's lock in a session of its own until the block ends."""
    session = new_session(autocommit=False)
    try:
        assert session.execute(sql, params).fetchone(), "there is no such row to lock"
        yield session
        session.rollback()
    finally:
        session.close()


def queue_at(sql: str, param: str, *steps: Step, waiters: int | None = None) -> list[Any]:
    """Let every step reach the row that the test holds, see that they all wait there, and let them go."""
    with held_row(sql, param):
        threads = Threads(steps)
        wait_for_lock_waiters(len(steps) if waiters is None else waiters, threads)
    return threads.results()


def queue_at_order(number: str, *steps: Step, waiters: int | None = None) -> list[Any]:
    """`queue_at` the order's own row: the one lock of every decision."""
    return queue_at(ORDER_ROW, number, *steps, waiters=waiters)


@contextmanager
def without_row_locks(writers: int, meet: Step | None = None) -> Iterator[None]:
    """The control: no SELECT locks, and `writers` transactions have all read before one of them writes (or `meet` says when)."""
    barrier = threading.Barrier(writers)
    met = threading.local()
    left = threading.Semaphore(writers)
    select, fly = flight.select, flight.fly

    def select_unlocked(model: Any, condition: str, params: Sequence[Any] = ()) -> flight.Statement:
        return select(model, condition.replace(" FOR UPDATE", ""), params)

    def meet_and_fly(statements: Sequence[flight.Statement], using: str) -> Any:
        writes = any(statement.sql.lstrip().startswith(("UPDATE", "INSERT")) for statement in statements)
        if writes and connections[using].in_atomic_block and not getattr(met, "done", False):
            met.done = True
            if left.acquire(blocking=False):
                (meet or (lambda: barrier.wait(WAIT_SECONDS)))()
        return fly(statements, using)

    flight.select, flight.fly = select_unlocked, meet_and_fly
    try:
        yield
    finally:
        flight.select, flight.fly = select, fly


UNIQUE = """
SELECT t.relname, i.relname, c.conname, coalesce(pg_get_constraintdef(c.oid), pg_get_indexdef(i.oid))
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
LEFT JOIN pg_constraint c ON c.conindid = i.oid AND c.contype = 'u'
WHERE x.indisunique AND NOT x.indisprimary AND t.relname = ANY(%s)
"""
TABLES = ["payonce_order", "payonce_event", "payonce_stream", "payonce_refund", "payonce_notification",
          "payonce_discrepancy", "payonce_shop_message"]  # fmt: skip


@contextmanager
def without_backstops() -> Iterator[None]:
    """The control's other half: no unique index and no trigger stands behind the lock. All rows are gone afterwards."""
    with new_session() as session:
        found = session.execute(UNIQUE, [TABLES]).fetchall()
        for table, index, constraint, _ in found:
            drop = f'ALTER TABLE {table} DROP CONSTRAINT "{constraint}"' if constraint else f'DROP INDEX "{index}"'
            session.execute(drop)
        session.execute("ALTER TABLE payonce_order DISABLE TRIGGER USER")
        try:
            yield
        finally:
            session.execute("SET lock_timeout = '20s'")
            session.execute(f"TRUNCATE {', '.join(TABLES)} CASCADE")
            for table, _, constraint, text in found:
                session.execute(f'ALTER TABLE {table} ADD CONSTRAINT "{constraint}" {text}' if constraint else text)
            session.execute("ALTER TABLE payonce_order ENABLE TRIGGER USER")
