"""The paths that are measured, each with its floor, the rows it needs, and its hard gates."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.floors import new_session, record
from benchmarks.world import Rows

Run = Callable[[list[str]], None]


@dataclass(frozen=True)
class Case:
    """One path: `prepare` makes inputs, `run` and `floor` do the same work on them; the gates are counts per operation."""

    name: str
    floor_name: str
    batch: int
    prepare: Callable[[int], list[str]]
    run: Run
    floor: Run
    target: float
    turns_max: int
    commits_max: int
    per_batch: bool = False  # the counts are those of a whole batch


def make_cases(rows: Rows) -> list[Case]:
    """Every case, on the rows of this run."""
    return [_pay(rows), _notify(rows), _repeated_notification(rows), _repeated_click(rows), _poll(rows)]


def each(step: Callable[[str], object]) -> Run:
    """Run a step for every input."""

    def run(inputs: list[str]) -> None:
        for item in inputs:
            step(item)

    return run


def _click(number: str) -> None:
    from payonce.payments.pay import PayCode, pay_order

    assert pay_order(number, "bench", "qr").code is PayCode.PREPAY


def _take(number: str) -> None:
    from payonce.channels.messages import NotificationRequest
    from payonce.payments.inbox import Received
    from payonce.payments.notify import receive

    result = receive("bench", NotificationRequest(number.encode(), {}))
    assert result.outcome in (Received.APPLIED, Received.REPEAT)


def _pay(rows: Rows) -> Case:
    (first,) = rows.orders(1)
    replay, session = record(_click, first, first), new_session()
    return Case(
        "pay", "same SQL, one flight per transaction", 30, rows.orders, each(_click),
        each(lambda number: replay.run(session, number)), 0.6, 8, 2,
    )  # fmt: skip


def _notify(rows: Rows) -> Case:
    (first,) = rows.streams(1)
    _take(rows.streams(1)[0])
    replay, session = record(_take, first, first[:-3]), new_session()
    replay.transactions = [[statement for part in replay.transactions for statement in part]]
    return Case(
        "notify", "same SQL in one flight", 40, rows.streams, each(_take),
        each(lambda number: replay.run(session, number[:-3])), 0.6, 4, 1,
    )  # fmt: skip


def _repeated_notification(rows: Rows) -> Case:
    (number,) = rows.streams(1)
    _take(number)
    session = new_session()
    sql = "SELECT state FROM payonce_notification WHERE account = %s AND dedupe_key = %s"

    def read(item: str) -> None:
        assert session.execute(sql, ["bench", f"n-{item}"]).fetchone() == ("PROCESSED",)

    return Case(
        "notify, repeated", "the one read", 200, lambda count: [number] * count, each(_take), each(read), 0.9, 1, 0
    )


def _repeated_click(rows: Rows) -> Case:
    import redis
    from django.conf import settings

    (number,) = rows.orders(1)
    client = redis.Redis.from_url(settings.REDIS_URL)

    def inputs(count: int) -> list[str]:
        _click(number)  # the entry lives for half a minute
        return [number] * count

    return Case(
        "pay, repeated click", "the one GET", 400, inputs, each(_click),
        each(lambda item: client.get(f"payonce:order:{item}")), 0.95, 0, 0,
    )  # fmt: skip


def _poll(rows: Rows) -> Case:
    from django.conf import settings
    from django.db import connection

    from payonce.payments import poll

    count = 200
    numbers = rows.streams(count, "polled")
    url = settings.PAYONCE["CHANNELS"]["polled"]["base_url"]

    def make_due(_: int) -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE payonce_stream SET next_check_at = NULL WHERE account <> 'polled'")
            cursor.execute("UPDATE payonce_stream SET next_check_at = payonce_now() WHERE account = 'polled'")
        return numbers

    def ask(inputs: list[str]) -> None:
        assert poll.poll_due().answered == len(inputs)

    return Case(
        "poll", "aiohttp, the same requests", count, make_due, ask, lambda inputs: asyncio.run(_fetch(url, inputs)), 0.9, 3,
        2, per_batch=True,
    )  # fmt: skip


async def _fetch(url: str, numbers: list[str]) -> None:
    import aiohttp

    from payonce.orders.conf import get_settings

    limit = asyncio.Semaphore(get_settings().POLL_CONCURRENCY)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def fetch(number: str) -> None:
            async with limit, session.get(f"{url}/query/{number}") as answer:
                assert json.loads(await answer.read())["state"] == "OPEN"

        async with asyncio.TaskGroup() as group:
            for number in numbers:
                group.create_task(fetch(number))


def seconds_of(run: Run, inputs: list[str]) -> float:
    """How long a run takes."""
    begun = time.perf_counter()
    run(inputs)
    return time.perf_counter() - begun


def counts_of(case: Case, wire: Any) -> tuple[int, int]:
    """Round trips and commits of one operation (or batch), counted on the wire."""
    inputs = case.prepare(case.batch if case.per_batch else 1)
    case.run(case.prepare(1)) if not case.per_batch else None  # a process that has just started reads the clock once
    wire.reset()
    case.run(inputs)
    return wire.turns, wire.commits
