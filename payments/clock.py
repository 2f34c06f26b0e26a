"""The database's time without a round trip: the last time read, advanced by the monotonic clock. Workers' clocks may be wrong."""

import time
from datetime import datetime, timedelta

from payonce.orders.conf import get_settings
from payonce.payments import flight
from payonce.payments.flight import Statement

STALE_SECONDS = 5.0
_last: tuple[datetime, float] | None = None


def remember(at: datetime) -> None:
    """Keep a time just read from the database."""
    global _last
    _last = (at, time.monotonic())


def about_now() -> datetime:
    """The database's time, right to within a round trip; asks the database when the last reading is older than 5 s.

    Good for judging the age of a message, not for deciding about a row: a decision uses the time read under its lock.
    """
    if _last is not None:
        elapsed = time.monotonic() - _last[1]
        if elapsed < STALE_SECONDS:
            return _last[0] + timedelta(seconds=elapsed)
    return read_now()


def read_now() -> datetime:
    """Ask the database."""
    at: datetime = flight.fly([Statement("SELECT payonce_now()")], get_settings().DATABASE)[0][0][0]
    remember(at)
    return at
