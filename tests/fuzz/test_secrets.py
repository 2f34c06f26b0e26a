"""Secrets that were planted appear nowhere: not in a log, an answer, a row, a Celery message or a cache entry (X4)."""

import base64
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest
import redis
from celery import current_app
from django.db import connection

from payonce.channels import registry
from payonce.orders.models import Order
from payonce.payments import cache, enqueue, refund, sweep
from payonce.payments.models import Stream
from tests.api.conftest import make_shop
from tests.fuzz.conftest import Site
from tests.fuzz.messages import newest_message

PLANTED_ENDPOINT_SECRET = "whsec_" + base64.b64encode(b"planted-secret-of-a-listener-32b").decode()


class Everything(logging.Handler):
    """Every record of every logger, with its arguments and its traceback."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@contextmanager
def all_logs() -> Iterator[list[str]]:
    handler, root = Everything(), logging.getLogger()
    levels = {
        name: logging.getLogger(name).level
        for name in ("", "payonce", "django", "uvicorn", "urllib3", "aiohttp", "celery")
    }
    for name in levels:
        logging.getLogger(name).setLevel(logging.DEBUG)
    root.addHandler(handler)
    try:
        yield handler.lines
    finally:
        root.removeHandler(handler)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def disguises(secret: str) -> list[bytes]:
    """A secret as it stands, and as it would look in a URL, in base64 and in hex."""
    raw = secret.encode()
    return [raw, quote(secret, safe="").encode(), base64.b64encode(raw).rstrip(b"="), raw.hex().encode()]


def rows_of_database() -> bytes:
    """Every column of every table."""
    found: list[str] = []
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT t::text FROM "{table}" t')
            found += [row[0] for row in cursor.fetchall()]
    return "\n".join(found).encode()


def contents_of_redis(client: redis.Redis) -> bytes:
    """Every key with its value, whatever its type."""
    found = []
    for key in client.keys("*"):
        kind = client.type(key)
        if kind == b"string":
            value: Any = client.get(key)
        elif kind == b"list":
            value = client.lrange(key, 0, -1)
        elif kind == b"hash":
            value = client.hgetall(key)
        else:
            value = client.dump(key)
        found.append(repr((key, value)).encode())
    return b"\n".join(found)


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch, settings: Any) -> list[Any]:
    """What is handed to Celery."""
    sent: list[Any] = []
    monkeypatch.setattr(current_app, "send_task", lambda *args, **kwargs: sent.append((args, kwargs)))
    monkeypatch.setattr(current_app.conf, "broker_url", current_app.conf.broker_url or "memory://")
    monkeypatch.setattr(enqueue, "_paused_until", 0.0)
    return sent


def test_planted_secrets_appear_nowhere(
    site: Site, settings: Any, redis_client: redis.Redis, messages: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PAYONCE = {
        **settings.PAYONCE,
        "MESSAGES": {"ENDPOINTS": {"planted": {"url": "https://shop.example/hook", "secret": PLANTED_ENDPOINT_SECRET}}},
    }
    registry.reset()
    cache.reset()
    shop = make_shop("shop")
    answers: list[bytes] = []
    cached: list[bytes] = []

    def ask(method: str, path: str, body: bytes = b"", token: str = "", **headers: str) -> Any:
        given = {
            "content-type": "application/json",
            **({"authorization": f"Bearer {token}"} if token else {}),
            **headers,
        }
        answer = site.send(method, path, body, given)
        answers.append(repr(answer.headers).encode() + answer.data)
        cached.append(contents_of_redis(redis_client))
        return answer

    with all_logs() as lines:
        placed = ask(
            "POST",
            "/api/orders/",
            b'{"reference":"X","amount_minor":1000,"currency":"CNY","subject":"Book"}',
            shop.token,
        )
        buyer = placed.json()["buyer_token"]
        number = placed.json()["order"]
        kept = answers.pop()  # the one answer that hands the buyer's token out
        for _click in range(2):
            assert ask("POST", f"/api/orders/{number}/pay/", b'{"channel":"blue","method":"qr"}', buyer).status == 200
        stream = Stream.objects.get()
        assert site.bank.control.pay(stream.number).ok
        genuine = newest_message(site.bank, stream.number, time.time())
        assert ask("POST", "/notify/blue/", b"{}", **genuine.headers).status == 401
        assert ask("POST", "/notify/blue/", genuine.body, **genuine.headers).status == 200
        assert Order.objects.get().state == "PAID"
        asked = ask(
            "POST", f"/api/streams/{stream.number}/refunds/", b'{"amount_minor":400,"reason":"duplicate"}', shop.token
        )
        site.bank.control.fault("refund", "error_after")
        for _try in range(2):
            refund.run_refund(asked.json()["refund"])
        for name in ("poll", "close", "refund", "expire", "publish", "inbox", "reconcile"):
            sweep.SWEEPS[name][0]()
        for path in (f"/api/orders/{number}/", "/api/orders/po0/", "/api/schema/", "/api/docs/", "/metrics", "/healthz",
                     "/readyz", "/admin/login/", "/nowhere/", "/return/blue/"):  # fmt: skip
            for token in ("", shop.token, buyer, shop.token + "x"):
                ask("GET", path, token=token)
        ask("GET", f"/cashier/{buyer}/")
        ask("POST", "/api/orders/", b"{", shop.token)
        monkeypatch.setattr("payonce.payments.api.orders.read_standing", lambda order: 1 / 0)
        assert ask("GET", f"/api/orders/{number}/", token=shop.token).status == 500
        monkeypatch.setattr("payonce.payments.notify.receive", lambda *args: 1 / 0)
        assert ask("POST", "/notify/blue/", genuine.body, **genuine.headers).status == 503

    # The test's own client logs what it asks; what payonce asks its channels stays.
    lines = [line for line in lines if not (line.startswith("urllib3.connectionpool") and site.url in line)]
    secrets = {
        "the site's key": settings.SECRET_KEY, "blue's key": genuine.account.secret, "green's key": genuine.other.secret,
        "the shop's token": shop.token, "the endpoint's secret": PLANTED_ENDPOINT_SECRET, "the buyer's token": buyer,
    }  # fmt: skip
    places = {
        "answers": b"\n".join(answers), "the order's answer": kept, "logs": "\n".join(lines).encode(), "rows": rows_of_database(),
        "messages": repr(messages).encode(), "cache": b"\n".join(cached),
    }  # fmt: skip
    allowed = {("the buyer's token", "answers"), ("the buyer's token", "the order's answer")}
    assert all(len(places[name]) > 50 for name in ("answers", "logs", "rows", "messages", "cache")), (
        "nothing was looked at"
    )
    found = {
        (secret, place)
        for secret, text in secrets.items() for place, content in places.items()
        if any(look in content for look in disguises(text))
    }  # fmt: skip
    assert found <= allowed, [line for line in lines if any(text in line for text in secrets.values())][:3]


def test_the_search_would_find_what_it_looks_for(site: Site, redis_client: redis.Redis) -> None:
    """The control: a secret in each place, in each disguise, is seen."""
    secret = "planted/secret+of=a-control"
    with all_logs() as lines:
        for look in disguises(secret):
            logging.getLogger("payonce.control").debug("with %s", look.decode())
            redis_client.lpush("control", look)
    make_shop(secret)
    assert all(look.decode() in "\n".join(lines) for look in disguises(secret))
    assert all(look in contents_of_redis(redis_client) for look in disguises(secret))
    assert disguises(secret)[0] in rows_of_database()
