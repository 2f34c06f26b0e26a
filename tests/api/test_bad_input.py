"""Bad input: a clear answer, nothing changed, no 5xx (X6, M8)."""

import pytest
from django.test import Client

from payonce.orders.models import Order
from tests.api.conftest import assert_problem, buyer_of, everything
from tests.factories import open_order, paid_stream

BOOK = {"reference": "B-1", "amount_minor": 1999, "currency": "CNY", "subject": "A book"}
PAY = {"channel": "scripted_a", "method": "qr"}
AMOUNTS = [0, -5, 10**13, 10**40, 19.99, 1999.0, "1999", "١٩٩٩", "1999", True, None, [1999], {"minor": 1}]


@pytest.mark.parametrize("amount", AMOUNTS, ids=repr)
def test_amount_that_is_not_a_positive_whole_number_is_refused(scripted, shop, amount):
    """M8."""
    problem = assert_problem(shop.post("/api/orders/", {**BOOK, "amount_minor": amount}), 422, "invalid_request")
    assert [item["field"] for item in problem["errors"]] == ["amount_minor"]
    assert not Order.objects.exists()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"currency": "XXZ"}, "currency"),
        ({"currency": "cny"}, "currency"),
        ({"currency": "CN"}, "currency"),
        ({"currency": 156}, "currency"),
        ({"reference": ""}, "reference"),
        ({"reference": "x" * 129}, "reference"),
        ({"reference": "a\x00b"}, "reference"),
        ({"reference": "a\nb"}, "reference"),
        ({"reference": "\ud800"}, "reference"),
        ({"reference": 17}, "reference"),
        ({"subject": " "}, "subject"),
        ({"subject": "x" * 201}, "subject"),
        ({"return_url": "javascript:alert(1)"}, "return_url"),
        ({"return_url": "https://shop.example/" + "x" * 500}, "return_url"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2090-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "2090-01-01"}, "expires_at"),
        ({"expires_at": "2090-W01-1"}, "expires_at"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"expires_at": 99}, "expires_at"),
        ({"amend": "perhaps"}, "amend"),
        ({"buyer_key": "a\x00"}, "buyer_key"),
        ({"amuont_minor": 3}, "amuont_minor"),
        ({"\ud800": 3}, "\\ud800"),
    ],
    ids=str,
)
def test_field_that_is_not_acceptable_is_named(scripted, shop, change, field):
    problem = assert_problem(shop.post("/api/orders/", {**BOOK, **change}), 422, "invalid_request")
    assert [item["field"] for item in problem["errors"]] == [field]
    assert not Order.objects.exists()


def test_choice_that_is_no_text_is_refused(scripted, shop):
    """X6: the answer repeats what was sent, and half a surrogate pair cannot be sent back."""
    stream = paid_stream()
    body = {"amount_minor": 1, "reason": "\ud800"}
    assert_problem(shop.post(f"/api/streams/{stream.number}/refunds/", body), 422, "invalid_request")
    assert not stream.refunds.exists()


def test_another_source_is_refused(scripted, shop):
    """X3."""
    assert_problem(shop.post("/api/orders/", {**BOOK, "source": "other"}), 403, "source_not_yours")
    assert not Order.objects.exists()


def test_half_a_price_is_refused(scripted, shop):
    body = {"reference": "B-1", "amount_minor": 1}
    problem = assert_problem(shop.post("/api/orders/", body), 422, "invalid_request")
    assert {item["field"] for item in problem["errors"]} == {"currency", "subject"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"channel": "nope", "method": "qr"}, "unknown_channel"),
        ({"channel": "scripted_a", "method": "telepathy"}, "unknown_method"),
        ({"channel": "scripted_a"}, "invalid_request"),
        ({}, "invalid_request"),
        ({**PAY, "amount_minor": 1}, "invalid_request"),
        ({**PAY, "payer": "x" * 129}, "invalid_request"),
        ({**PAY, "client_ip": "next door"}, "invalid_request"),
        ({"channel": ["scripted_a"], "method": "qr"}, "invalid_request"),
        ({"channel": "a" * 33, "method": "qr"}, "invalid_request"),
    ],
    ids=str,
)
def test_pay_that_cannot_be_is_refused(scripted, body, code):
    order = open_order()
    before = everything()
    assert_problem(buyer_of(order).post(f"/api/orders/{order.number}/pay/", body), 422, code)
    assert everything() == before
    assert scripted.calls == []


def test_currency_and_amount_that_the_channel_does_not_take_are_refused(scripted):
    order = open_order(currency="USD")
    assert_problem(buyer_of(order).post(f"/api/orders/{order.number}/pay/", PAY), 422, "currency_not_supported")
    scripted.overrides["scripted_a"] = {"amount_minor_max": 999}
    order = open_order()
    assert_problem(buyer_of(order).post(f"/api/orders/{order.number}/pay/", PAY), 422, "amount_not_supported")
    assert everything()["streams"] == []


BODIES = {
    "empty": b"",
    "not JSON": b"{",
    "a list": b"[]",
    "a text": b'"x"',
    "null": b"null",
    "NaN": b'{"reference": "x", "amount_minor": NaN, "currency": "CNY", "subject": "x"}',
    "a name twice": b'{"reference": "x", "reference": "y"}',
    "not UTF-8": b'{"reference": "\xff"}',
    "deep": b"[" * 20_000,
    "many digits": b'{"amount_minor": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("name", BODIES)
def test_body_that_cannot_be_read_is_refused(scripted, shop, name):
    """X6."""
    answer = shop.call("POST", "/api/orders/", BODIES[name])
    if name == "empty":
        assert_problem(answer, 422, "invalid_request")
    else:
        assert_problem(answer, 400, "malformed")
    assert not Order.objects.exists()


def test_body_that_is_too_large_is_refused(scripted, shop):
    """X6."""
    answer = shop.call("POST", "/api/orders/", b'{"reference": "' + b"x" * 70_000 + b'"}')
    assert_problem(answer, 413, "body_too_large")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/xml",
        "nonsense",
    ],
)
def test_other_content_types_are_refused(scripted, shop, content_type):
    answer = shop.call("POST", "/api/orders/", b"a=1", content_type=content_type)
    assert_problem(answer, 415, "unsupported_media_type")


def test_unknown_character_set_does_not_matter(scripted, shop):
    """X6: JSON is UTF-8 whatever the header says."""
    answer = shop.call("POST", "/api/orders/", BOOK, content_type="application/json; charset=rot13")
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "path",
    [
        "/api/",
        "/api/nothing/",
        "/api/orders",
        "/api/orders/po%00/",
        "/api/orders/%0A/",
        "/api/%0D%0A",
        "/api/orders/%F0%9F%92%A9/",
        "/api/orders/a-b/pay/",
    ],
)
def test_address_that_is_none_is_a_problem_too(scripted, shop, path):
    for method in ("GET", "POST"):
        assert_problem(shop.call(method, path, None if method == "GET" else {}), 404, "not_found")
    browser = Client(enforce_csrf_checks=True)
    assert_problem(browser.post(path, b"{}", content_type="application/json"), 404, "not_found")


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Basic abc", "Bearer " + "x" * 300, "Bearer schlüssel", "bearer\tx"]
)
def test_malformed_authorization_is_refused(scripted, header):
    """X6."""
    answer = Client().get("/api/orders/po0/", headers={"authorization": header})
    assert answer.status_code == 401
    assert answer["Content-Type"] == "application/problem+json"


def test_lock_that_is_not_granted_in_time_is_a_problem(scripted, settings):
    """L6."""
    import threading

    from django.db import connections, transaction

    settings.PAYONCE = {**settings.PAYONCE, "LOCK_TIMEOUT_MS": 200}
    order = open_order()
    held, done = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            Order.objects.select_for_update().get(pk=order.pk)
            held.set()
            done.wait(20)
        connections.close_all()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    answer = buyer_of(order).post(f"/api/orders/{order.number}/pay/", PAY)
    done.set()
    thread.join()
    assert_problem(answer, 503, "busy")
    assert scripted.calls == []


def test_mistake_of_ours_is_a_problem_and_is_reported(scripted, shop, monkeypatch):
    monkeypatch.setattr("payonce.payments.api.orders.read_standing", lambda order: 1 / 0)
    order = open_order()
    client = Client(raise_request_exception=False)
    answer = client.get(f"/api/orders/{order.number}/", headers={"authorization": f"Bearer {shop.token}"})
    problem = assert_problem(answer, 500, "internal_error")
    assert "division" not in str(problem)
    with pytest.raises(ZeroDivisionError):
        shop.get(f"/api/orders/{order.number}/")
