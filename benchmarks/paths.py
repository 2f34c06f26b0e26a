"""The paths that are measured, and for each its floor: the same SQL or the same request with nothing around it."""

import asyncio
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import aiohttp
from django.db import connection, transaction

from benchmarks import channel as instant
from payonce.channels.messages import NotificationRequest
from payonce.orders.models import Order
from payonce.orders.place import place_order
from payonce.payments import cache, flight, locks, poll
from payonce.payments.flight import Statement
from payonce.payments.models import Stream
from payonce.payments.notify import Received, receive
from payonce.payments.pay import PayCode, pay_order

AMOUNT = 1000
POLL_ROWS = 200
POLL_DELAY_SECONDS = 0.05
Act = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Path:
    """`prepare(n)` returns n acts of the path, `floor(n)` n acts of its floor; one act may stand for `rows` rows."""

    name: str
    prepare: Callable[[int], list[Act]]
    floor: Callable[[int], list[Act]]
    floor_is: str
    rows: int = 1


def new_orders(count: int) -> list[Order]:
    """Fresh open orders."""
    name = secrets.token_hex(6)
    return [
        place_order("bench", f"{name}-{index}", amount_minor=AMOUNT, currency="CNY", subject="A book").order
        for index in range(count)
    ]


def new_streams(count: int) -> list[Stream]:
    """Fresh pending streams."""
    numbers = [pay_order(order.number, "instant", "qr").stream for order in new_orders(count)]
    return list(Stream.objects.filter(number__in=numbers).select_related("order"))


def pay_acts(count: int) -> list[Act]:
    """First clicks."""

    def click(number: str) -> None:
        assert pay_order(number, "instant", "qr").code is PayCode.PREPAY

    return [lambda number=order.number: click(number) for order in new_orders(count)]  # type: ignore[misc]


def pay_floor(count: int) -> list[Act]:
    """Two transactions with the same statements as a first click, and no thought."""
    return [lambda order=order: _pay_raw(order) for order in new_orders(count)]  # type: ignore[misc]


def _pay_raw(order: Order) -> None:
    at = datetime.now(UTC)
    stream = Stream(
        number=f"{order.number}s01", order=order, attempt=1, account="instant", method="qr", amount_minor=AMOUNT, currency="CNY",
        state="CREATED", payable_until=at + timedelta(hours=2), created_at=at, next_check_at=at + timedelta(days=1),
    )  # fmt: skip
    with transaction.atomic():
        flight.fly(_opening(order), "default")
        flight.fly([_touch(order), flight.insert(stream), _event(order, 2)], "default")
    with transaction.atomic():
        flight.fly(_opening(order), "default")
        ready = "UPDATE payonce_stream SET state = 'PENDING', prepay_value = 'x', handed_out_at = %s WHERE number = %s"
        flight.fly([_touch(order), Statement(ready, [at, stream.number]), _event(order, 3)], "default")


def notify_acts(count: int) -> list[Act]:
    """Notifications that settle an order, with a real RSA verification."""

    def tell(request: NotificationRequest) -> None:
        assert receive("instant", request).outcome is Received.APPLIED

    requests = [instant.signed(stream.number, AMOUNT) for stream in new_streams(count)]
    return [lambda request=request: tell(request) for request in requests]  # type: ignore[misc]


def notify_floor(count: int) -> list[Act]:
    """The same look-up, lock, writes and commit, with no thought and no signature."""
    return [lambda stream=stream: _notify_raw(stream) for stream in new_streams(count)]  # type: ignore[misc]


def _notify_raw(stream: Stream) -> None:
    order, key, at = stream.order, f"k-{stream.number}", datetime.now(UTC)
    look = "SELECT state FROM payonce_notification WHERE account = 'instant' AND dedupe_key = %s"
    flight.fly([Statement(look, [key])], "default")
    paid = (
        "UPDATE payonce_stream SET state = 'SUCCEEDED', role = 'keeper', captured_minor = amount_minor,"
        " captured_currency = currency, channel_reference = %s, next_check_at = NULL WHERE id = %s"
    )
    inbox = (
        "INSERT INTO payonce_notification (account, dedupe_key, state, event, number, result, count, headers, body, parsed,"
        " received_at, try_count, error) VALUES ('instant', %s, 'PROCESSED', '', %s, '', 1, '', '', '', %s, 0, '')"
    )
    owed = (
        "INSERT INTO payonce_shop_message (order_id, sequence, listener, kind, body, state, created_at, next_try_at, try_count,"
        " last_answer) VALUES (%s, 5, 'shop', 'order.paid', '{}', 'PENDING', %s, %s, 0, '')"
    )
    settle = "UPDATE payonce_order SET state = 'PAID', keeper = %s, version = 5 WHERE id = %s"
    with transaction.atomic():
        flight.fly(_opening(order), "default")
        flight.fly(
            [
                Statement(settle, [stream.number, order.pk]), Statement(paid, [f"r-{key}", stream.pk]),
                Statement(inbox, [key, stream.number, at]), Statement(owed, [order.pk, at, at + timedelta(days=1)]),
                _event(order, 4), _event(order, 5),
            ],
            "default",
        )  # fmt: skip


def repeat_acts(count: int) -> list[Act]:
    """One notification, told again and again."""
    request = instant.signed(new_streams(1)[0].number, AMOUNT)
    receive("instant", request)

    def tell() -> None:
        assert receive("instant", request).outcome is Received.REPEAT

    return [tell] * count


def repeat_floor(count: int) -> list[Act]:
    """One primary-key read."""
    pk = new_orders(1)[0].pk
    return [lambda: _read(pk)] * count


def _read(pk: int) -> None:
    flight.fly([Statement("SELECT state FROM payonce_order WHERE id = %s", [pk])], "default")


def click_acts(count: int) -> list[Act]:
    """One order, clicked again and again: answered from Redis."""
    number = new_orders(1)[0].number
    pay_order(number, "instant", "qr")

    def click() -> None:
        assert pay_order(number, "instant", "qr").code is PayCode.PREPAY

    return [click] * count


def click_floor(count: int) -> list[Act]:
    """One GET."""
    number = new_orders(1)[0].number
    pay_order(number, "instant", "qr")
    return [lambda: cache._try(lambda client: client.get(cache._key(number)))] * count  # type: ignore[list-item] # noqa: SLF001


class SlowServer:
    """Answers every GET after 50 ms, many at once."""

    def __enter__(self) -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                threading.Event().wait(POLL_DELAY_SECONDS)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 1024
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def poll_acts(count: int) -> list[Act]:
    """Batches of due streams, asked over HTTP with 50 ms each."""
    numbers = [stream.number for stream in new_streams(POLL_ROWS)]

    def sweep() -> None:
        Stream.objects.exclude(number__in=numbers).update(next_check_at=None)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE payonce_stream SET next_check_at = payonce_now() WHERE number = ANY(%s)", [numbers])
        assert poll.poll_due().asked == POLL_ROWS

    return [sweep] * count


def poll_floor(count: int) -> list[Act]:
    """The same requests by aiohttp alone, with the same bound on how many at once."""

    async def ask_all() -> None:
        limit = asyncio.Semaphore(100)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=512)) as session:

            async def ask(index: int) -> None:
                async with limit, session.get(f"{instant.QUERY_URL}/{index}") as answer:
                    await answer.read()

            await asyncio.gather(*(ask(index) for index in range(POLL_ROWS)))

    return [lambda: asyncio.run(ask_all())] * count


def _opening(order: Order) -> list[Statement]:
    return [
        Statement(locks.TIMEOUTS, ["3000", "10000", "15000"]),
        flight.select(Order, "id = %s FOR UPDATE", [order.pk]),
        flight.select(Stream, "order_id = %s ORDER BY id FOR UPDATE", [order.pk]),
        Statement("SELECT payonce_now()"),
    ]


def _touch(order: Order) -> Statement:
    return Statement(
        "UPDATE payonce_order SET version = version + 1, event_hash = %s WHERE id = %s", ["0" * 64, order.pk]
    )


def _event(order: Order, sequence: int) -> Statement:
    return Statement(
        "INSERT INTO payonce_event (order_id, sequence, kind, subject, state_from, state_to, actor, at, body, hash)"
        " VALUES (%s, %s, 'bench', '', '', '', 'bench', now(), %s, %s)",
        [order.pk, sequence, "x" * 300, "0" * 64],
    )


PATHS = (
    Path("pay", pay_acts, pay_floor, "the same SQL in six round trips"),
    Path("notify", notify_acts, notify_floor, "the same SQL in four round trips, no signature"),
    Path("repeated notification", repeat_acts, repeat_floor, "one read by primary key"),
    Path("repeated click", click_acts, click_floor, "one GET from Redis"),
    Path("poll", poll_acts, poll_floor, f"aiohttp alone, {POLL_ROWS} rows of 50 ms", POLL_ROWS),
)
