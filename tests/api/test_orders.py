"""Placing, asking about and closing an order over HTTP."""

from payonce.orders.models import Order
from payonce.payments import clock, tokens
from payonce.payments.models import Stream
from tests.api.conftest import assert_problem, buyer_of, everything
from tests.factories import apply, open_order, paid_stream, pending_stream, view_of

BOOK = {"reference": "B-1", "amount_minor": 1999, "currency": "CNY", "subject": "一本书"}
STATUS_NAMES = {
    "order", "source", "reference", "state", "final", "version", "amount_minor", "refunded_minor", "currency", "keeper",
    "streams", "actions", "next_poll_ms", "server_time",
}  # fmt: skip


def test_place_answers_the_order_its_cashier_page_and_a_buyer_token(scripted, shop):
    answer = shop.post("/api/orders/", BOOK)
    assert answer.status_code == 201
    body = answer.json()
    assert set(body) == STATUS_NAMES | {"buyer_token", "cashier_url"}
    assert (body["source"], body["reference"], body["amount_minor"], body["state"]) == ("shop", "B-1", 1999, "OPEN")
    assert tokens.read_buyer_token(body["buyer_token"]) == body["order"]
    assert body["cashier_url"].endswith(f"/cashier/{body['buyer_token']}/")
    assert Order.objects.get().events.get().actor == "shop:shop"


def test_place_again_finds_the_same_order(scripted, shop):
    first = shop.post("/api/orders/", BOOK)
    again = shop.post("/api/orders/", BOOK)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["order"] == again.json()["order"]
    assert Order.objects.count() == 1


def test_place_with_another_amount_is_refused_unless_amended(scripted, shop):
    shop.post("/api/orders/", BOOK)
    before = everything()
    assert_problem(shop.post("/api/orders/", {**BOOK, "amount_minor": 2000}), 422, "place_conflict")
    assert everything() == before
    amended = shop.post("/api/orders/", {**BOOK, "amount_minor": 2000, "amend": True})
    assert amended.status_code == 200
    assert amended.json()["amount_minor"] == 2000


def test_two_shops_may_use_the_same_reference(scripted, shop, other_shop):
    """X3: a source is a name space of its own."""
    numbers = {caller.post("/api/orders/", BOOK).json()["order"] for caller in (shop, other_shop)}
    assert len(numbers) == 2


def test_status_names_are_those_that_were_promised(scripted, shop):
    stream = pending_stream()
    body = shop.get(f"/api/orders/{stream.order.number}/").json()
    assert set(body) == STATUS_NAMES
    assert body["streams"] == [
        {"number": stream.number, "channel": "scripted_a", "method": "qr", "state": "PENDING", "surplus": False}
    ]
    assert (body["state"], body["final"], body["actions"]) == ("OPEN", False, ["pay", "close"])
    assert body["next_poll_ms"] > 0


def test_paid_order_is_final(scripted):
    stream = paid_stream()
    body = buyer_of(stream.order).get(f"/api/orders/{stream.order.number}/").json()
    assert (body["state"], body["final"], body["next_poll_ms"], body["actions"]) == ("PAID", True, None, [])
    assert body["keeper"] == stream.number


def test_order_with_surplus_money_is_not_final(scripted):
    stream = paid_stream()
    apply(stream, view_of(stream, channel_reference="second"))
    body = buyer_of(stream.order).get(f"/api/orders/{stream.order.number}/").json()
    assert (body["state"], body["final"]) == ("PAID", False)
    assert [row["surplus"] for row in body["streams"]] == [False, True]


def test_unchanged_order_answers_304_without_reading_its_streams(scripted, django_assert_num_queries):
    stream = pending_stream()
    buyer = buyer_of(stream.order)
    path = f"/api/orders/{stream.order.number}/"
    tag = buyer.get(path)["ETag"]
    clock.about_now()  # within 5 s the database's time needs no round trip
    with django_assert_num_queries(1):
        unchanged = buyer.get(path, if_none_match=tag)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    apply(stream, view_of(stream))
    changed = buyer.get(path, if_none_match=tag)
    assert changed.status_code == 200
    assert changed["ETag"] != tag


def test_wait_is_ignored_under_wsgi(scripted):
    order = open_order()
    answer = buyer_of(order).get(f"/api/orders/{order.number}/", prefer="wait=25")
    assert answer.status_code == 200
    assert "Preference-Applied" not in answer


def test_close_closes_the_streams_first(scripted, shop):
    stream = pending_stream()
    answer = shop.post(f"/api/orders/{stream.order.number}/close/", {"reason": "out of stock"})
    assert answer.status_code == 200
    assert answer.json()["state"] == "CLOSED"
    stream.refresh_from_db()
    assert stream.state == "CLOSED"


def test_close_without_a_body_is_a_cancellation(scripted, shop):
    order = open_order()
    assert shop.call("POST", f"/api/orders/{order.number}/close/").status_code == 200
    order.refresh_from_db()
    assert order.close_reason == "cancelled"


def test_close_of_a_paid_order_is_refused(scripted, shop):
    stream = paid_stream()
    before = everything()
    assert_problem(shop.post(f"/api/orders/{stream.order.number}/close/"), 422, "already_paid")
    assert everything() == before


def test_price_comes_from_the_shop_when_the_caller_gives_none(scripted, shop, settings):
    settings.PAYONCE = {**settings.PAYONCE, "SHOP": "tests.api.pricing.PricingShop"}
    answer = shop.post("/api/orders/", {"reference": "P-7"})
    assert answer.status_code == 201
    assert (answer.json()["amount_minor"], answer.json()["currency"]) == (700, "EUR")
    assert_problem(shop.post("/api/orders/", {"reference": "unknown"}), 422, "invalid_request")
    assert Stream.objects.count() == 0
