"""The one place where the orders app locks a row. Lock order everywhere: order, then stream, then refund, each by primary key."""

from datetime import datetime

from django.db import connections

from payonce.orders.conf import get_settings
from payonce.orders.models import Order


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


def set_timeouts() -> None:
    """Bound waiting for locks, statements and idleness in this transaction only: the shop owns the connection."""
    conf = get_settings()
    with connections[conf.DATABASE].cursor() as cursor:
        cursor.execute(
            "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true),"
            " set_config('idle_in_transaction_session_timeout', %s, true)",
            [str(conf.LOCK_TIMEOUT_MS), str(conf.STATEMENT_TIMEOUT_MS), str(conf.IDLE_TIMEOUT_MS)],
        )
