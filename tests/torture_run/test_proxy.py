"""The proxy on a real PostgreSQL: a commit that is cut before is truly undone, one that is cut after is truly done."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from config.postgres import free_port
from config.processes import wait_until
from tests.torture_run.conftest import SECONDS, Proxied
from torture.proxy import ProxyControl, serve

Work = Callable[[psycopg.Connection[tuple[object, ...]], str], None]


def plainly(connection: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    connection.execute("INSERT INTO thing VALUES (%s)", [name])
    connection.commit()


def by_simple_query(connection: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    connection.autocommit = True
    connection.pgconn.exec_(f"BEGIN; INSERT INTO thing VALUES ('{name}')".encode())
    result = connection.pgconn.exec_(b"COMMIT")
    if connection.pgconn.transaction_status is TransactionStatus.UNKNOWN or result.error_message:
        raise psycopg.OperationalError(result.error_message)


def in_a_pipeline(connection: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    connection.autocommit = True
    with connection.pipeline():
        connection.execute("BEGIN")
        connection.execute("INSERT INTO thing VALUES (%s)", [name])
        connection.execute("COMMIT")


def by_a_prepared_statement(connection: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    connection.autocommit = True
    connection.execute("BEGIN")
    connection.execute("INSERT INTO thing VALUES (%s)", [name])
    connection.execute("COMMIT", prepare=True)


WAYS = [plainly, by_simple_query, in_a_pipeline, by_a_prepared_statement]


@pytest.mark.parametrize("work", WAYS)
def test_a_commit_cut_before_is_undone(proxied: Proxied, work: Work) -> None:
    proxied.control.send("cut", when="before")
    with pytest.raises(psycopg.OperationalError):
        work(proxied.connect(), "lost")
    assert proxied.count("cut_before") == 1
    assert wait_until(lambda: sessions(proxied) == 0, SECONDS)  # the server has noticed, and rolled back
    assert proxied.rows() == []


@pytest.mark.parametrize("work", WAYS)
def test_a_commit_cut_after_is_done_and_nobody_hears_it(proxied: Proxied, work: Work) -> None:
    proxied.control.send("cut", when="after")
    with pytest.raises(psycopg.OperationalError):
        work(proxied.connect(), "unknown")
    assert proxied.count("cut_after") == 1
    assert proxied.rows() == ["unknown"]


@pytest.mark.parametrize("work", WAYS)
def test_without_an_order_everything_passes(proxied: Proxied, work: Work) -> None:
    with proxied.connect() as connection:
        work(connection, "kept")
    assert proxied.rows() == ["kept"]
    assert proxied.count("commits") == 1


def test_a_commit_of_a_failed_transaction_is_no_commit(proxied: Proxied) -> None:
    proxied.control.send("cut", when="after")
    with proxied.connect() as connection:
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT * FROM nowhere")
        connection.commit()  # answered with ROLLBACK, which the client must hear
    assert proxied.count("cut_after") == 0
    assert proxied.rows() == []


def test_every_third_commit_is_cut(proxied: Proxied) -> None:
    proxied.control.send("cut", when="before", every=3)
    with proxied.connect() as connection:
        plainly(connection, "one")
        plainly(connection, "two")
        with pytest.raises(psycopg.OperationalError):
            plainly(connection, "three")
    with proxied.connect() as connection:
        plainly(connection, "four")
    assert proxied.rows() == ["four", "one", "two"]


def test_large_statements_and_answers_pass_unchanged(proxied: Proxied) -> None:
    text = "x" * 3_000_000
    with proxied.connect() as connection:
        row = connection.execute("SELECT %s || 'y'", [text]).fetchone()
    assert row is not None
    assert row[0] == text + "y"


def test_killed_connections_end_on_both_sides(proxied: Proxied) -> None:
    connection = proxied.connect()
    connection.execute("INSERT INTO thing VALUES ('open')")
    proxied.control.send("kill", share=1.0)
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    assert wait_until(lambda: sessions(proxied) == 0, SECONDS)
    assert proxied.rows() == []


def test_a_stall_delays_and_loses_nothing(proxied: Proxied) -> None:
    connection = proxied.connect()
    proxied.control.send("stall", seconds=0.6)
    began = time.monotonic()
    plainly(connection, "slow")
    assert time.monotonic() - began >= 0.5
    connection.close()
    assert proxied.rows() == ["slow"]


def test_refusing_ends_by_itself(proxied: Proxied) -> None:
    proxied.control.send("refuse", seconds=0.5)
    with pytest.raises(psycopg.OperationalError):
        proxied.connect()
    assert wait_until(lambda: can_connect(proxied), SECONDS)


def test_many_sessions_at_once_are_kept_apart(proxied: Proxied) -> None:
    def work(name: str) -> None:
        with proxied.connect() as connection:
            for number in range(20):
                plainly(connection, f"{name}-{number}")

    threads = [threading.Thread(target=work, args=(f"thread{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert len(proxied.rows()) == 120


def can_connect(proxied: Proxied) -> bool:
    try:
        proxied.connect().close()
    except psycopg.OperationalError:
        return False
    return True


def sessions(proxied: Proxied) -> int:
    """How many other clients the server has."""
    with psycopg.connect(proxied.direct_url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchone()
    assert row is not None
    return int(str(row[0]))


def test_its_control_is_there_no_sooner_than_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control, seen, listen = tmp_path / "proxy.sock", [], socket.socket.listen

    def spy(sock: socket.socket, backlog: int) -> None:
        seen.append(control.exists())
        listen(sock, backlog)

    async def until_it_is_there() -> None:
        serving = asyncio.create_task(serve(free_port(), free_port(), control))
        while not control.exists():  # noqa: ASYNC110 - a file tells nobody that it came
            await asyncio.sleep(0.01)
        assert await asyncio.to_thread(ProxyControl(control).send, "stats") == {"links": 0}
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving

    monkeypatch.setattr(socket.socket, "listen", spy)
    asyncio.run(asyncio.wait_for(until_it_is_there(), SECONDS))
    assert seen == [False, False]  # the clients' door, and the control itself
