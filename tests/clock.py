"""Move the database's clock in a test database. Refused anywhere else: the product's function has no offset."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.db import connection

from payonce.payments import clock

MOVED = """
CREATE TABLE IF NOT EXISTS payonce_test_clock (offset_seconds double precision NOT NULL);
CREATE OR REPLACE FUNCTION payonce_now() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    'SELECT clock_timestamp() + COALESCE((SELECT sum(offset_seconds) FROM payonce_test_clock), 0) * interval ''1 second'''
"""
STANDING = (
    "CREATE OR REPLACE FUNCTION payonce_now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT timestamptz ''{}'''"
)
"""Written anew for each move: a constant costs nothing in a statement that asks for each row."""
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


class StandingClock:
    """No time passes but what the test lets pass: a slow machine sees the same story as a fast one."""

    def stand_at(self, at: datetime) -> None:
        """It is this moment now."""
        with connection.cursor() as cursor:
            cursor.execute(STANDING.format(at.isoformat()))
        clock._last = None


@contextmanager
def movable_clock() -> Iterator[Clock]:
    """The clock of the current test database, put right again at the end."""
    _require_test_database()
    with connection.cursor() as cursor:
        cursor.execute(MOVED)
    try:
        yield Clock()
    finally:
        with connection.cursor() as cursor:
            cursor.execute(TRUE)
            cursor.execute("DROP TABLE payonce_test_clock")
        clock._last = None


@contextmanager
def standing_clock(at: datetime) -> Iterator[StandingClock]:
    """The same, standing at this moment until the test moves it on."""
    _require_test_database()
    standing = StandingClock()
    standing.stand_at(at)
    try:
        yield standing
    finally:
        with connection.cursor() as cursor:
            cursor.execute(TRUE)
        clock._last = None


def _require_test_database() -> None:
    name = str(connection.settings_dict["NAME"])
    if not name.startswith("test_"):
        raise RuntimeError(f"The clock of {name} is not for tests to move.")
