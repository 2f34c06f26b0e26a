"""One thread owns the bank's database.

It takes what is waiting as one batch and commits it once, so that a durable commit is paid for by many requests; each
piece of work has its own savepoint, and is answered only after the commit.
"""

import asyncio
import fcntl
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

from payonce.channels.sandbox.schema import open_database

R = TypeVar("R")
_BATCH_MAX = 64
_Job = tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]


class Store:
    """Runs work on the database, in the order of the calls, from one event loop."""

    def __init__(self, folder: Path, synchronous: str = "FULL") -> None:
        self._folder = folder
        self._synchronous = synchronous
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock_file: IO[str] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open the database. Raises RuntimeError when another bank already serves this folder."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lock_file = (self._folder / "bank.lock").open("w")
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock_file.close()
            raise RuntimeError(f"another sandbox already uses {self._folder}") from None
        try:
            database = open_database(self._folder / "bank.sqlite3", self._synchronous)
        except BaseException:
            lock_file.close()
            raise
        self._lock_file = lock_file
        self._thread = threading.Thread(target=self._work, args=(database, loop), name="sandbox-bank", daemon=True)
        self._thread.start()

    async def call(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Run `work` in a transaction and return its result once it is durable."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._jobs.put((work, future))
        return await future

    def stop(self) -> None:
        """Finish what was asked, then close the database."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def _work(self, database: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        stopping = False
        while not stopping:
            batch: list[_Job] = []
            job = self._jobs.get()
            while job is not None:
                batch.append(job)
                if len(batch) >= _BATCH_MAX or self._jobs.empty():
                    break
                job = self._jobs.get()
            stopping = job is None
            if batch:
                results = _run_batch(database, [work for work, _ in batch])
                loop.call_soon_threadsafe(_answer, batch, results)
        database.close()


def _run_batch(database: sqlite3.Connection, works: list[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
    """The result or the exception of each piece of work; if the commit fails, that failure for all of them."""
    try:
        database.execute("BEGIN IMMEDIATE")
        results = [_run_one(database, work) for work in works]
        database.execute("COMMIT")
        return results
    except sqlite3.Error as error:
        if database.in_transaction:
            database.execute("ROLLBACK")
        return [error] * len(works)


def _run_one(database: sqlite3.Connection, work: Callable[[sqlite3.Connection], Any]) -> Any:
    database.execute("SAVEPOINT work")
    try:
        result = work(database)
    except Exception as error:  # noqa: BLE001 - it is handed to the caller that waits for this piece of work
        database.execute("ROLLBACK TO work")
        result = error
    database.execute("RELEASE work")
    return result


def _answer(batch: list[_Job], results: list[Any]) -> None:
    for (_, future), result in zip(batch, results, strict=True):
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
