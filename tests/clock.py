"""Move the database's clock in a test database. Refused anywhere else: the product's function has no offset."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.db import connection

from payonce.payments import clock

MOVED = """
CREATE TABLE IF NOT EXISTS payonce_test_clock (offset_seconds double precision NOT NULL);
CREATE OR REPLACE FUNCTION payonce_now() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    'SELECT {start} + COALESCE((SELECT sum(offset_seconds) FROM payonce_test_clock), 0) * interval ''1 second'''
"""
TRUE = (
    "CREATE OR REPLACE FUNCTION payonce_now() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT clock_timestamp()'"
)


class Clock:
    """Every process that uses this database sees the moved time at once."""

    def advance(self, seconds: float | timedelta) -> None:
        """Let so much time pass."""
        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO payonce_test_clock VALUES (%s)", [seconds])
        clock._last = None


@contextmanager
def movable_clock(standing_at: datetime | None = None) -> Iterator[Clock]:
    """The clock of the current test database, put right again at the end.

    With `standing_at` no time passes but what the test lets pass: a slow machine sees the same story as a fast one.
    """
    name = str(connection.settings_dict["NAME"])
    if not name.startswith("test_"):
        raise RuntimeError(f"The clock of {name} is not for tests to move.")
    with connection.cursor() as cursor:
        start = "clock_timestamp()" if standing_at is None else f"timestamptz ''{standing_at.isoformat()}''"
        cursor.execute(MOVED.format(start=start))
    try:
        yield Clock()
    finally:
        with connection.cursor() as cursor:
            cursor.execute(TRUE)
            cursor.execute("DROP TABLE payonce_test_clock")
        clock._last = None
