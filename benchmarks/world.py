"""The world of a run: a PostgreSQL of its own with fsync on, a Redis, an HTTP server for queries, and rows to work on."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from config import embedded

QUERY_SECONDS = 0.02
ORDER_IDS = 10_000_000  # far from every amount and count, so that an id in a statement is known to be one
STREAM_IDS = 20_000_000


@contextlib.contextmanager
def servers() -> Iterator[None]:
    """Private servers, and a Django that is set up on them. Raises ProcessError when one cannot be had."""
    with embedded.private_postgres("dev") as postgres, query_server() as url:
        postgres.redis.start()
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "DATABASE_URL": postgres.url,
            "REDIS_URL": postgres.redis.url(),
            "LOG_LEVEL": "ERROR",
            "CONN_MAX_AGE": "600",
        }
        _set_up(url)
        yield
        from django.db import connections

        connections.close_all()


def _set_up(url: str) -> None:
    import django
    from django.conf import settings
    from django.core.management import call_command

    django.setup()
    settings.PAYONCE = {
        **settings.PAYONCE,
        "SHOP": "payonce.orders.shop.Shop",
        "CHANNELS": {
            name: {"adapter": "benchmarks.wallet.BenchWallet", "base_url": url} for name in ("bench", "polled")
        },
        "SWITCH": {"PROOF_SECONDS": 0},
    }
    from payonce.orders import conf

    conf._load.cache_clear()  # noqa: SLF001 - the settings were read while Django started
    call_command("migrate", verbosity=0)


@contextlib.contextmanager
def query_server() -> Iterator[str]:
    """An HTTP server in a process of its own that answers every query after a while: nobody has paid."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join(10)


def _serve(pipe: Connection) -> None:
    from aiohttp import web

    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(QUERY_SECONDS)
        return web.Response(body=b'{"state": "OPEN"}', content_type="application/json")

    async def main() -> None:
        application = web.Application()
        application.router.add_get("/query/{number}", answer)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        pipe.send(runner.addresses[0][1])
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        await ended.wait()
        await runner.cleanup()

    asyncio.run(main())


class Rows:
    """Fresh rows, cloned from one that the real steps made."""

    def __init__(self) -> None:
        from django.db import connection

        from payonce.orders.place import place_order

        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE payonce_stream ALTER COLUMN id RESTART WITH {3 * ORDER_IDS}")
        placed = place_order("bench", "template", amount_minor=1000, currency="CNY", subject="A book")
        self.template = placed.order.pk
        self.made = 0

    def orders(self, count: int) -> list[str]:
        """Numbers of new open orders."""
        from payonce.orders.models import Order

        first, self.made = self.made, self.made + count
        values = {"id": f"{ORDER_IDS} + g", "number": _number("g"), "reference": "'r' || g"}
        self._clone(Order, values, first, count)
        return [f"pob{place:012d}" for place in range(first, first + count)]

    def streams(self, count: int, account: str = "bench") -> list[str]:
        """Numbers of new pending streams, each of an order of its own."""
        from payonce.payments.models import Stream
        from payonce.payments.pay import pay_order

        if not Stream.objects.filter(order_id=self.template).exists():
            from payonce.orders.models import Order

            pay_order(Order.objects.get(pk=self.template).number, "bench", "qr")
        numbers = self.orders(count)
        values = {
            "id": f"{STREAM_IDS} + g", "number": f"{_number('g')} || 's01'", "order_id": f"{ORDER_IDS} + g",
            "account": f"'{account}'",
        }  # fmt: skip
        self._clone(Stream, values, self.made - count, count)
        return [f"{number}s01" for number in numbers]

    def _clone(self, model: type[Any], values: dict[str, str], first: int, count: int) -> None:
        from django.db import connection

        from payonce.payments.flight import table_of

        table = table_of(model)
        chosen = ", ".join(values.get(name, f'"{table.fields[name].column}"') for name in table.names)
        key = "id" if table.name == "payonce_order" else "order_id"
        with connection.cursor() as cursor:
            cursor.execute(
                f'INSERT INTO "{table.name}" ({table.columns}) SELECT {chosen} FROM "{table.name}",'
                f" generate_series(%s, %s) AS g WHERE {key} = %s",
                [first, first + count - 1, self.template],
            )


def _number(place: str) -> str:
    return f"('pob' || lpad(({place})::text, 12, '0'))"
