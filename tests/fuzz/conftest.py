"""The app as it is deployed: uvicorn on 127.0.0.1, real PostgreSQL and Redis, and the bank. Everything comes in over HTTP."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import urllib3
import uvicorn
from django.core.asgi import get_asgi_application
from urllib3.util import Url, parse_url

from payonce.channels import registry
from payonce.channels.sandbox.testing import RunningSandbox
from payonce.orders.models import Order
from payonce.payments import cache
from payonce.payments.models import Stream
from tests.api.conftest import buyer_of, make_shop
from tests.factories import open_order

START_SECONDS = 60.0


@dataclass
class Site:
    """A running payonce with its bank, and a client that sends exactly what it is told to send."""

    url: str
    bank: RunningSandbox
    pool: urllib3.PoolManager

    @property
    def address(self) -> Url:
        return parse_url(self.url)

    def send(self, method: str, path: str, body: bytes = b"", headers: Any = None) -> urllib3.BaseHTTPResponse:
        """One request and its whole answer. `headers` is a mapping, or pairs where a name may come twice."""
        given = urllib3.HTTPHeaderDict()
        for name, value in headers.items() if hasattr(headers, "items") else headers or ():
            given.add(name, value)
        return self.pool.request(
            method, self.url + path, body=body, headers=given, redirect=False, retries=False, timeout=60
        )


@pytest.fixture
def site(bank: RunningSandbox, settings: Any) -> Iterator[Site]:
    """The whole project behind a real server. The bank's notifications are held until a test hands them over."""
    bank.control.hold_notifications()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        settings.PAYONCE = {**settings.PAYONCE, "BASE_URL": url}
        settings.ALLOWED_HOSTS = ["127.0.0.1"]
        registry.reset()
        cache.reset()
        config = uvicorn.Config(
            get_asgi_application(), lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=3
        )  # as config.services starts it: addresses may hold a token, so there is no access log
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), name="site")
        thread.start()
        pool = urllib3.PoolManager(maxsize=2)
        try:
            assert pool.request("GET", f"{url}/healthz", timeout=START_SECONDS, retries=10).status == 200
            yield Site(url, bank, pool)
        finally:
            pool.clear()
            server.should_exit = True
            thread.join(START_SECONDS)
        assert not thread.is_alive(), "the server did not end"


@dataclass
class Shopping:
    """Two shops with an order each, one of them with a stream that is being paid, and a token for every role."""

    mine: Order
    theirs: Order
    stream: Stream
    paid: Stream
    tokens: dict[str, str]


@pytest.fixture
def shopping(site: Site) -> Shopping:
    """Rows to fuzz against, made by the real steps over the real bank."""
    shop, other = make_shop("shop"), make_shop("other")
    mine, theirs = open_order(), open_order(source="other")
    stream = pay(mine)
    paid = pay(open_order())
    site.bank.control.pay(paid.number)
    assert site.bank.control.send_notification(paid.number) == ["200 success"]
    paid.refresh_from_db()
    tokens = {
        "nobody": "", "nonsense": "pos_nonsense", "buyer": buyer_of(mine).token, "other buyer": buyer_of(theirs).token,
        "altered buyer": buyer_of(mine).token[:-1] + "!", "shop": shop.token, "other shop": other.token,
    }  # fmt: skip
    return Shopping(mine, theirs, stream, paid, tokens)


def pay(order: Order) -> Stream:
    """A stream that was handed out to the buyer, at the bank."""
    from payonce.payments.pay import PayCode, pay_order

    result = pay_order(order.number, "blue", "qr")
    assert result.code is PayCode.PREPAY, result
    return Stream.objects.get(number=result.stream)
