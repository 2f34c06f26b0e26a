"""When a run is at rest: where horizons are real, what nobody can end before its time is over may wait, and nothing else."""

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from config.embedded import PrivatePostgres
from torture.rest import unfinished

HEALED = time.time() - 1_000
AFTER, BEFORE = "payonce_now()", "payonce_now() - interval '1 hour'"
TABLES = """
DROP SCHEMA public CASCADE; CREATE SCHEMA public;
CREATE FUNCTION payonce_now() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT clock_timestamp()';
CREATE TABLE payonce_stream (id int DEFAULT 7, number text, account text, state text, order_id int, next_check_at timestamptz,
    last_answer_at timestamptz, is_answer_unknown bool);
CREATE TABLE payonce_order (id int, number text, state text, next_expiry_at timestamptz);
CREATE TABLE payonce_refund (number text, state text, next_try_at timestamptz, last_answer_at timestamptz);
CREATE TABLE payonce_discrepancy (stream_id int, kind text, state text);
CREATE TABLE payonce_shop_message (id int, listener text, try_count int, state text, next_try_at timestamptz);
CREATE TABLE payonce_notification (dedupe_key text, state text, next_try_at timestamptz);
"""


@pytest.fixture
def database(private: PrivatePostgres) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(private.url, autocommit=True) as connection:
        connection.execute(TABLES.encode())
        yield connection


def put_stream(database: psycopg.Connection[Any], state: str, answered: str, *, unknown: bool = False) -> None:
    """A stream that is due within the hour."""
    values = f"(7, 's', 'alipay', '{state}', 1, payonce_now() + interval '30 seconds', {answered}, {unknown})"
    database.execute(f"INSERT INTO payonce_stream VALUES {values}".encode())


@pytest.mark.parametrize("state", ["PENDING", "PROCESSING", "CAPTURING", "CLOSING"])
@pytest.mark.parametrize(
    ("answered", "unknown", "is_at_rest"),
    [(AFTER, False, True), (AFTER, True, False), (BEFORE, False, False), ("NULL", False, False)],
)
def test_a_stream_may_wait_once_its_channel_answered(private, database, state, answered, unknown, is_at_rest) -> None:
    put_stream(database, state, answered, unknown=unknown)
    assert (unfinished(private.url, answered_since=HEALED) == []) is is_at_rest


def test_in_a_plain_run_nothing_may_be_due_soon(private, database) -> None:
    put_stream(database, "CLOSING", AFTER)
    assert len(unfinished(private.url)) == 1


@pytest.mark.parametrize(("due", "is_at_rest"), [("- interval '1 second'", False), ("+ interval '30 seconds'", True)])
def test_a_closed_stream_waits_for_the_next_rung_but_not_when_it_is_due(private, database, due, is_at_rest) -> None:
    put_stream(database, "CLOSED", AFTER)
    database.execute(f"UPDATE payonce_stream SET next_check_at = payonce_now() {due}".encode())
    assert (unfinished(private.url) == []) is is_at_rest


@pytest.mark.parametrize(
    ("around", "kind", "case", "is_at_rest"),
    [("PROCESSING", "stream_unclear", "OPEN", True), ("PROCESSING", "stream_unclear", "RESOLVED", False),
     ("PROCESSING", "duplicate", "OPEN", False), ("CLOSING", "stream_unclear", "OPEN", False)],
)  # fmt: skip
def test_an_order_around_a_bank_that_never_decides_waits_for_a_person(
    private, database, around, kind, case, is_at_rest
) -> None:
    """S13: nothing is unfinished without an open case."""
    database.execute("INSERT INTO payonce_order VALUES (1, 'o', 'CLOSING', payonce_now())")
    put_stream(database, around, AFTER)
    database.execute("UPDATE payonce_stream SET next_check_at = NULL")
    database.execute(f"INSERT INTO payonce_discrepancy VALUES (7, '{kind}', '{case}')".encode())
    assert (unfinished(private.url) == []) is is_at_rest


def test_a_stream_that_its_channel_may_not_have_may_not_wait(private, database) -> None:
    put_stream(database, "CREATED", AFTER)
    assert len(unfinished(private.url, answered_since=HEALED)) == 1


@pytest.mark.parametrize(
    ("state", "around", "is_at_rest"),
    [
        ("OPEN", "PROCESSING", False),
        ("CLOSING", "PROCESSING", True),
        ("CLOSING", "CLOSING", False),
        ("PAID", "CLOSING", True),
    ],
)
def test_only_an_order_around_money_on_its_way_may_wait(private, database, state, around, is_at_rest) -> None:
    database.execute(f"INSERT INTO payonce_order VALUES (1, 'o', '{state}', payonce_now())".encode())
    put_stream(database, around, AFTER)
    assert (unfinished(private.url, answered_since=HEALED) == []) is is_at_rest


@pytest.mark.parametrize(
    ("state", "answered", "is_at_rest"),
    [("SUBMITTED", AFTER, True), ("UNKNOWN", AFTER, True), ("SUBMITTED", BEFORE, False), ("REQUESTED", AFTER, False)],
)
def test_a_refund_may_wait_once_its_channel_answered(private, database, state, answered, is_at_rest) -> None:
    database.execute(f"INSERT INTO payonce_refund VALUES ('r', '{state}', payonce_now(), {answered})".encode())
    assert (unfinished(private.url, answered_since=HEALED) == []) is is_at_rest


def test_messages_and_notifications_may_never_wait(private, database) -> None:
    database.execute(
        "INSERT INTO payonce_shop_message VALUES (1, 'web', 3, 'PENDING', payonce_now() + interval '1 day')"
    )
    database.execute("INSERT INTO payonce_notification VALUES ('n', 'RECEIVED', payonce_now())")
    assert len(unfinished(private.url, answered_since=HEALED)) == 2
