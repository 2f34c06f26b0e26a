"""The one place where the orders app locks a row. Lock order everywhere: order, then stream, then refund, each by primary key."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from django.db import connections, transaction

from payonce.orders.conf import get_settings
from payonce.orders.models import Order

TIMEOUTS = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")


def lock_order_by_reference(source: str, reference: str) -> Order | None:
    """Lock and read the order of this source and reference; None when there is none yet. Needs an open transaction."""
    rows = Order.objects.using(get_settings().DATABASE).select_for_update()
    return rows.filter(source=source, reference=reference).first()


def read_clock() -> datetime:
    """The one clock: the database's, to be read after the lock was granted."""
    with connections[get_settings().DATABASE].cursor() as cursor:
        cursor.execute("SELECT payonce_now()")
        row = cursor.fetchone()
    at: datetime = row[0]
    return at


@contextmanager
def bounded_transaction() -> Iterator[None]:
    """A transaction under our time-outs. Inside the shop's own, which may go on for long, the shop gets its own back."""
    using = get_settings().DATABASE
    is_shops = connections[using].in_atomic_block
    with transaction.atomic(using=using):
        before = _read() if is_shops else ()
        set_timeouts()
        yield
        if is_shops:  # after an error the savepoint's rollback has done it
            _set(before)


def set_timeouts() -> None:
    """Bound waiting for locks, statements and idleness in this transaction only: the shop owns the connection."""
    conf = get_settings()
    _set((str(conf.LOCK_TIMEOUT_MS), str(conf.STATEMENT_TIMEOUT_MS), str(conf.IDLE_TIMEOUT_MS)))


def _read() -> Sequence[str]:
    with connections[get_settings().DATABASE].cursor() as cursor:
        cursor.execute("SELECT " + ", ".join(f"current_setting('{name}')" for name in TIMEOUTS))
        found: tuple[str, ...] = cursor.fetchone()
    return found


def _set(values: Sequence[str]) -> None:
    with connections[get_settings().DATABASE].cursor() as cursor:
        cursor.execute("SELECT " + ", ".join(f"set_config('{name}', %s, true)" for name in TIMEOUTS), values)
