"""Time that passes: every process that uses the database sees it at once, and the bank never sees it first."""

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from config.embedded import PrivatePostgres
from torture.accounts import MIXED
from torture.passing import STEPS_SECONDS, Passing, next_due, unfinished

DAY_SECONDS = 86_400
TABLES = """
DROP SCHEMA public CASCADE; CREATE SCHEMA public;
CREATE FUNCTION payonce_now() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT clock_timestamp()';
CREATE TABLE payonce_stream (number text, account text, state text, next_check_at timestamptz, id int, order_id int);
CREATE TABLE payonce_order (number text, state text, next_expiry_at timestamptz, id int);
CREATE TABLE payonce_refund (number text, state text, next_try_at timestamptz, stream_id int);
CREATE TABLE payonce_discrepancy (subject text, state text, stream_id int, kind text);
CREATE TABLE payonce_shop_message (id int, listener text, try_count int, state text, next_try_at timestamptz);
CREATE TABLE payonce_notification (dedupe_key text, state text, next_try_at timestamptz);
"""


class Bank:
    """Writes down what it is told, and how late it then is in the database."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.told: list[tuple[dict[str, Any], float]] = []
        self.then: Callable[[float], object] = lambda _ahead: None

    async def act(self, _name: str, **fields: Any) -> dict[str, Any]:
        ahead = ahead_in(self.connection)
        self.told.append((fields, ahead))
        self.then(ahead)
        return {"time": "now"}


@pytest.fixture
def database(private: PrivatePostgres) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(private.url, autocommit=True) as connection:
        connection.execute(TABLES.encode())
        yield connection


def passing_over(private: PrivatePostgres, bank: Bank) -> Passing:
    world = SimpleNamespace(bank=bank, roster=MIXED, unpaid=[], told={})
    return Passing(SimpleNamespace(direct_url=private.url), world, lambda _text: None)  # type: ignore[arg-type]


def ahead_in(connection: psycopg.Connection[Any]) -> float:
    row = connection.execute("SELECT extract(epoch FROM payonce_now() - clock_timestamp())::float8").fetchone()
    assert row is not None
    return round(float(row[0]))


def test_an_open_connection_sees_the_time_pass_and_the_bank_follows(private, database) -> None:
    bank = Bank(database)
    assert ahead_in(database) == 0
    passing = passing_over(private, bank)
    passing._make_movable()
    asyncio.run(passing.move(20))
    asyncio.run(passing.move(7_200))
    assert ahead_in(database) == 7_220
    fields, seen = bank.told[0]
    assert (fields, seen) == ({"offset_seconds": 20.0}, 20)
    last = [fields for fields, _seen in bank.told[-len(MIXED.names) :]]
    assert last == [{"account": name, "skew_seconds": -7_220.0, "calls_only": True} for name in MIXED.names]


def test_time_passes_until_nothing_is_due_any_more(private, database) -> None:
    database.execute(
        "INSERT INTO payonce_stream VALUES ('s', 'alipay', 'CLOSING', payonce_now() + interval '90 seconds')"
    )
    bank = Bank(database)
    passing = passing_over(private, bank)
    passing._late.clear()
    bank.then = lambda ahead: ahead >= 80 and database.execute("UPDATE payonce_stream SET next_check_at = NULL")
    assert asyncio.run(passing.run()) == []
    assert 80 <= passing.ahead < 200


def test_what_is_still_due_after_the_last_horizon_is_told(private, database, monkeypatch) -> None:
    database.execute("INSERT INTO payonce_refund VALUES ('r', 'UNKNOWN', payonce_now() + interval '1 minute', 1)")
    monkeypatch.setattr("torture.passing.STEPS_SECONDS", (20,))
    for name in ("END_SECONDS_MAX", "STEP_SECONDS_MAX"):
        monkeypatch.setattr(f"torture.passing.{name}", 0.0)
    passing = passing_over(private, Bank(database))
    passing._late.clear()
    (left,) = asyncio.run(passing.run())
    assert left.startswith("refund r UNKNOWN")


def test_what_a_person_was_told_about_is_not_waited_for(private, database) -> None:
    database.execute(
        "INSERT INTO payonce_refund VALUES ('r', 'SUBMITTED', payonce_now(), 1), ('q', 'UNKNOWN', payonce_now(), 2)"
    )
    assert [what for what, _seconds in unfinished(private.url)] == ["refund r SUBMITTED", "refund q UNKNOWN"]
    database.execute("INSERT INTO payonce_discrepancy VALUES ('s', 'OPEN', 1), ('q', 'RESOLVED', 2)")
    assert [what for what, _seconds in unfinished(private.url)] == ["refund q UNKNOWN"]
    assert next_due(private.url) is not None


def test_the_steps_outlast_every_horizon() -> None:
    assert sum(STEPS_SECONDS) > 8 * DAY_SECONDS
    assert list(STEPS_SECONDS) == sorted(STEPS_SECONDS)
