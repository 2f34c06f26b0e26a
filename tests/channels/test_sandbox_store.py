"""The bank's one database thread: batches are durable before they are answered, and one failure harms no neighbour."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from payonce.channels.sandbox.store import Store


def insert(number: str) -> object:
    statement = (
        "INSERT INTO journal (at, account, number, kind, reference, refund_number, amount_minor, currency)"
        " VALUES (1.0, 'blue', ?, 'capture', 'c', '', 1, 'CNY')"
    )
    return lambda database: database.execute(statement, (number,)).lastrowid


def count(database: sqlite3.Connection) -> int:
    return int(database.execute("SELECT count(*) FROM journal").fetchone()[0])


def fail(database: sqlite3.Connection) -> None:
    insert("half")(database)  # type: ignore[operator]
    raise LookupError("planned")


def run_in_store(folder: Path, *works: object) -> list[object]:
    """All works at once, so that they share batches, and their results or exceptions."""

    async def main() -> list[object]:
        store = Store(folder)
        store.start(asyncio.get_running_loop())
        try:
            return await asyncio.gather(*(store.call(work) for work in works), return_exceptions=True)  # type: ignore[arg-type]
        finally:
            store.stop()

    return asyncio.run(main())


def test_failure_undoes_its_own_work_only(tmp_path: Path) -> None:
    results = run_in_store(tmp_path, insert("a"), fail, insert("b"), count)
    assert isinstance(results[1], LookupError)
    assert results[3] == 2
    assert run_in_store(tmp_path, count) == [2]


def test_failed_commit_is_told_to_the_whole_batch(tmp_path: Path) -> None:
    """A work that ends the transaction under its neighbours' feet stands for a disk that refuses the commit."""
    entered, go = threading.Event(), threading.Event()

    def block(database: sqlite3.Connection) -> None:
        entered.set()
        assert go.wait(60)

    async def main() -> list[object]:
        store = Store(tmp_path)
        store.start(asyncio.get_running_loop())
        try:
            first = asyncio.ensure_future(store.call(block))
            await asyncio.to_thread(entered.wait, 10)
            others = asyncio.gather(
                store.call(insert("a")),  # type: ignore[arg-type]
                store.call(lambda database: database.execute("ROLLBACK")),
                store.call(insert("b")),  # type: ignore[arg-type]
                return_exceptions=True,
            )
            await asyncio.sleep(0)
            go.set()
            await first
            results: list[object] = list(await others)
            return [*results, await store.call(count)]
        finally:
            store.stop()

    results = asyncio.run(main())
    assert all(isinstance(result, sqlite3.Error) for result in results[:3])
    assert results[3] == 0


def test_answer_of_a_caller_that_went_away_harms_nobody(tmp_path: Path) -> None:
    async def main() -> int:
        store = Store(tmp_path)
        store.start(asyncio.get_running_loop())
        try:
            gone = asyncio.ensure_future(store.call(insert("a")))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            gone.cancel()
            return await store.call(count)
        finally:
            store.stop()

    assert asyncio.run(main()) == 1


def test_unknown_durability_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        Store(tmp_path, "SOMETIMES").start(asyncio.get_running_loop())

    with pytest.raises(ValueError, match="synchronous must be one of"):
        asyncio.run(main())
