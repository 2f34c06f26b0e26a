"""The wallet for people: plain pages that pay, decline and show, reached by the text of a prepay."""

import json
import re
from collections.abc import Iterator

import pytest

from payonce.channels.http import send
from payonce.channels.messages import HttpRequest, HttpResponse, Known
from payonce.channels.sandbox.testing import RunningSandbox, serve_in_thread
from payonce.channels.sandbox.wallet import money
from tests.channels.bank import Shop


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with serve_in_thread({"blue": {"display_name": "Blue <Bank>"}, "paypal": {"captures": True}}) as running:
        yield running


@pytest.fixture
def shop(sandbox: RunningSandbox) -> Shop:
    return Shop(sandbox, "blue")


def fetch(url: str, method: str = "GET", **headers: str) -> HttpResponse:
    reply = send(HttpRequest(method, url, headers))
    assert isinstance(reply, HttpResponse), reply
    return reply


def opened(shop: Shop, **changes: object) -> tuple[str, str]:
    request = shop.request(**changes)
    outcome = shop.prepay(request)
    assert isinstance(outcome, Known)
    value = outcome.value.value
    return request.number, json.loads(value)["url"] if value.startswith("{") else value


def state(page: HttpResponse) -> str:
    found = re.search(r'data-state="([A-Z_]+)"', page.body.decode())
    return found.group(1) if found else ""


@pytest.mark.parametrize("method", ["qr", "web", "h5", "app"])
def test_every_prepay_leads_to_the_page(shop: Shop, method: str) -> None:
    _, url = opened(shop, method=method)
    page = fetch(url)
    assert page.status == 200
    text = page.body.decode()
    assert "19.99 CNY" in text
    assert "Blue &lt;Bank&gt;" in text
    assert "A book &lt;书&gt;" in text
    assert "a=1&amp;b=2" in text
    assert "<script" not in text
    assert re.search(r"payable until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\.", text)
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_pay_button_pays_once_and_survives_a_reload(shop: Shop) -> None:
    number, url = opened(shop)
    pressed = fetch(url + "/pay", "POST")
    assert (pressed.status, pressed.headers["location"]) == (303, re.sub(r"^http://[^/]+", "", url))
    assert state(fetch(url)) == "PAID"
    again = fetch(url + "/pay", "POST")
    assert "already paid" in again.body.decode()
    assert shop.sums(number)["captures"] == 1


def test_payment_can_be_started_and_confirmed_or_refused_later(shop: Shop) -> None:
    number, url = opened(shop)
    fetch(url + "/begin", "POST")
    assert state(fetch(url)) == shop.view(number).state == "IN_PROGRESS"
    fetch(url + "/decline", "POST")
    assert state(fetch(url)) == shop.view(number).state == "OPEN"
    fetch(url + "/begin", "POST")
    fetch(url + "/pay", "POST")
    assert shop.sums(number)["captures"] == 1


def test_approval_waits_for_the_shop(sandbox: RunningSandbox) -> None:
    shop = Shop(sandbox, "paypal")
    number, url = opened(shop)
    fetch(url + "/pay", "POST")
    assert state(fetch(url)) == "APPROVED"
    assert shop.sums(number)["captures"] == 0


def test_closed_and_expired_payments_cannot_be_paid(shop: Shop) -> None:
    number, url = opened(shop)
    shop.close(number)
    assert "closed" in fetch(url + "/pay", "POST").body.decode()
    late, late_url = opened(shop)
    shop.control.set_clock(3_600)
    assert "Expired" in fetch(late_url).body.decode()
    assert "expired" in fetch(late_url + "/pay", "POST").body.decode()
    shop.control.set_clock(0)
    assert shop.sums(number)["captures"] == shop.sums(late)["captures"] == 0


def test_overview_lists_who_waits_and_the_ledger_what_moved(sandbox: RunningSandbox, shop: Shop) -> None:
    number, _ = opened(shop)
    assert number in fetch(sandbox.url + "/wallet/").body.decode()
    shop.control.pay(number)
    assert number not in fetch(sandbox.url + "/wallet/").body.decode()
    assert number in fetch(sandbox.url + "/wallet/ledger").body.decode()
    assert fetch(sandbox.url + "/").headers["location"] == "/wallet/"


def test_page_can_be_opened_by_number(sandbox: RunningSandbox, shop: Shop) -> None:
    number, _ = opened(shop)
    assert state(fetch(f"{sandbox.url}/wallet/pay/{number}")) == "OPEN"


@pytest.mark.parametrize("path", ["/wallet/pay/unknown", "/wallet/pay", "/wallet/other", "/other", "/wallet/pay/x/y/z"])
def test_unknown_page_is_not_found(sandbox: RunningSandbox, path: str) -> None:
    assert fetch(sandbox.url + path).status == 404


def test_unknown_action_is_not_found(shop: Shop) -> None:
    _, url = opened(shop)
    assert fetch(url + "/steal", "POST").status == 404
    assert fetch(url.rsplit("/", 1)[0] + "/unknown/pay", "POST").status == 404


def test_foreign_name_reaches_neither_wallet_nor_controls(sandbox: RunningSandbox) -> None:
    for path in ("/wallet/", "/_ctl/health"):
        assert fetch(sandbox.url + path, host="evil.example").status == 421
        assert fetch(sandbox.url + path, host="localhost:1").status == 200


def test_x6_oversized_request_is_refused(sandbox: RunningSandbox) -> None:
    reply = send(HttpRequest("POST", sandbox.url + "/v1/payments", {}, b"x" * 1_000_001))
    assert isinstance(reply, HttpResponse)
    assert reply.status == 413


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (123_456, "CNY", "1,234.56 CNY"),
        (5, "USD", "0.05 USD"),
        (1_500, "JPY", "1,500 JPY"),
        (-1_234, "KWD", "-1.234 KWD"),
    ],
)
def test_money_is_written_by_integer_arithmetic(amount: int, currency: str, text: str) -> None:
    assert money(amount, currency) == text
