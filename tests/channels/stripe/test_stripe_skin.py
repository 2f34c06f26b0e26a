"""The bank's Stripe API is as strict and as odd as the real one: keys, versions, parameters, the store of idempotency keys, lists."""

import json
from typing import Any

import pytest

from tests.channels.stripe.world import PRICE, Merchant

INTENT = {"amount": "1999", "currency": "usd"}
SESSION = [
    ("mode", "payment"), ("success_url", "https://shop.example/ok"), ("line_items[0][quantity]", "1"),
    ("line_items[0][price_data][currency]", "usd"), ("line_items[0][price_data][unit_amount]", "1999"),
    ("line_items[0][price_data][product_data][name]", "Book"),
]  # fmt: skip


def told(answer: tuple[int, dict[str, str], dict[str, Any]]) -> tuple[int, str, str]:
    """Status, type and code of an error."""
    status, _, body = answer
    return status, body["error"]["type"], body["error"].get("code", "")


def test_key_is_checked_before_anything_else(merchant: Merchant) -> None:
    wrong = {"authorization": "Bearer sk_test_" + "a1" * 20}
    assert told(merchant.api("POST", "/v1/payment_intents", **wrong)(nonsense="1"))[0] == 401
    assert told(merchant.api("GET", "/v1/nowhere", authorization="")())[0] == 401
    expired = merchant.api("GET", "/v1/refunds", authorization="Bearer sk_test_expired_1")()
    assert told(expired) == (401, "invalid_request_error", "api_key_expired")
    publishable = merchant.api("GET", "/v1/refunds", authorization="Bearer pk_test_1")()
    assert told(publishable)[2] == "secret_key_required"


def test_version_address_and_encoding_are_checked(merchant: Merchant) -> None:
    bad = merchant.api("GET", "/v1/refunds", **{"stripe-version": "today"})()
    assert told(bad)[0] == 400
    assert told(merchant.api("GET", "/v1/customers")())[0] == 404
    assert told(merchant.api("DELETE", "/v1/refunds")())[0] == 404
    as_json = merchant.api("POST", "/v1/payment_intents", **{"content-type": "application/json"})(**INTENT)
    assert told(as_json)[0] == 400


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"colour": "red"}, "parameter_unknown", "colour"),
        ({"metadata": "x"}, "parameter_unknown", "metadata"),
        ({"amount": ""}, "parameter_invalid_empty", "amount"),
        ({"amount": "19.99"}, "parameter_invalid_integer", "amount"),
        ({"amount": "\u0661"}, "parameter_invalid_integer", "amount"),
        ({"amount": "-5"}, "parameter_invalid_integer", "amount"),
        ({"amount": "100000000"}, "amount_too_large", "amount"),
        ({"amount": "10"}, "amount_too_small", "amount"),
        ({"currency": "USD"}, "", "currency"),
        ({"currency": "xxx"}, "", ""),
        ({"payment_method_types[]": "card"}, "payment_method_types_no_longer_supported", "payment_method_types[]"),
        ({"expand[]": "customer"}, "parameter_unknown", "expand[]"),
    ],
)
def test_wrong_parameters_are_named_and_never_stored(
    merchant: Merchant, changes: dict[str, str], code: str, param: str
) -> None:
    key = f"wrong-{json.dumps(changes)}"
    answer = merchant.api("POST", "/v1/payment_intents", key=key)(**{**INTENT, **changes})
    assert told(answer) == (400, "invalid_request_error", code)
    assert answer[2]["error"].get("param", "") == param
    repaired = merchant.api("POST", "/v1/payment_intents", key=key)(**INTENT)
    assert repaired[0] == 200, "what failed validation left nothing under the key"


def test_missing_parameters_are_named(merchant: Merchant) -> None:
    assert told(merchant.api("POST", "/v1/payment_intents")(currency="usd"))[2] == "parameter_missing"
    assert told(merchant.api("POST", "/v1/checkout/sessions")([("mode", "payment")]))[2] == "parameter_missing"
    assert told(merchant.api("POST", "/v1/refunds")(amount="1"))[2] == "parameter_missing"


def test_same_key_and_parameters_replay_the_stored_answer(merchant: Merchant) -> None:
    first = merchant.api("POST", "/v1/payment_intents", key="same")(**INTENT)
    again = merchant.api("POST", "/v1/payment_intents", key="same")(**INTENT)
    assert first[2] == again[2]
    assert "idempotent-replayed" not in first[1]
    assert (again[1]["idempotent-replayed"], again[1]["original-request"]) == ("true", first[1]["request-id"])


def test_same_key_with_other_parameters_is_refused_and_the_first_answer_stays(merchant: Merchant) -> None:
    first = merchant.api("POST", "/v1/payment_intents", key="other")(**INTENT)
    other = merchant.api("POST", "/v1/payment_intents", key="other")(**{**INTENT, "amount": "2000"})
    elsewhere = merchant.api("POST", "/v1/checkout/sessions", key="other")(SESSION)
    assert told(other)[:2] == (400, "idempotency_error")
    assert told(elsewhere)[:2] == (400, "idempotency_error")
    assert merchant.api("POST", "/v1/payment_intents", key="other")(**INTENT)[2] == first[2]


@pytest.mark.parametrize(("code", "status"), [("DECLINED", 402), ("api_error", 500)])
def test_decline_and_500_are_stored(merchant: Merchant, code: str, status: int) -> None:
    merchant.fault("prepay", "refuse", code=code, status=status)
    first = merchant.api("POST", "/v1/payment_intents", key=code)(**INTENT)
    again = merchant.api("POST", "/v1/payment_intents", key=code)(**INTENT)
    assert (first[0], again[0]) == (status, status)
    assert again[1]["idempotent-replayed"] == "true"
    assert again[2] == first[2]


def test_throttled_request_is_not_stored(merchant: Merchant) -> None:
    merchant.fault("prepay", "refuse", code="rate_limit", status=429)
    assert merchant.api("POST", "/v1/payment_intents", key="fast")(**INTENT)[0] == 429
    assert merchant.api("POST", "/v1/payment_intents", key="fast")(**INTENT)[0] == 200


def test_key_is_pruned_after_a_day(merchant: Merchant) -> None:
    first = merchant.api("POST", "/v1/payment_intents", key="old")(**INTENT)
    merchant.control.set_clock(86_400 + 5)
    later = merchant.api("POST", "/v1/payment_intents", key="old")(**{**INTENT, "amount": "2000"})
    assert later[0] == 200
    assert later[2]["id"] != first[2]["id"]


def test_overlong_key_is_refused(merchant: Merchant) -> None:
    assert merchant.api("POST", "/v1/payment_intents", key="k" * 256)(**INTENT)[0] == 400


def test_same_number_under_two_keys_makes_two_objects(merchant: Merchant) -> None:
    """Nothing at Stripe makes `client_reference_id` or metadata unique: the ledger shows both."""
    made = [
        merchant.api("POST", "/v1/checkout/sessions")([*SESSION, ("client_reference_id", "twice")]) for _ in range(2)
    ]
    assert made[0][2]["id"] != made[1][2]["id"]
    assert {row[2]["client_reference_id"] for row in made} == {"twice"}
    for number in ("twice", "twice__2"):
        assert merchant.control.pay(number, account="stripe").ok
        assert merchant.sums(number)["captured_minor"] == PRICE


def test_second_refund_with_the_same_metadata_is_a_second_refund(merchant: Merchant) -> None:
    ref = merchant.paid_stream()
    form = [
        ("payment_intent", ref.channel_reference),
        ("amount", "500"),
        ("metadata[payonce_refund]", f"{ref.number}r"),
    ]
    ids = {merchant.api("POST", "/v1/refunds", key=f"{ref.number}-{n}")(form)[2]["id"] for n in range(2)}
    assert len(ids) == 2
    assert merchant.sums(ref.number)["refunded_minor"] == 1_000
    over = merchant.api("POST", "/v1/refunds")(payment_intent=ref.channel_reference, amount="1000")
    assert told(over)[0] == 400
    assert merchant.sums(ref.number)["refunded_minor"] == 1_000


def test_intent_of_a_session_exists_once_the_buyer_acts_and_cannot_be_cancelled(merchant: Merchant) -> None:
    ref = merchant.open_stream()
    status, _, shown = merchant.api("GET", f"/v1/checkout/sessions/{ref.channel_reference}")()
    assert (status, shown["payment_intent"], shown["status"]) == (200, None, "open")
    assert merchant.control.begin(ref.number, account="stripe").ok
    shown = merchant.api("GET", f"/v1/checkout/sessions/{ref.channel_reference}")()[2]
    assert (shown["status"], shown["payment_status"], shown["url"]) == ("complete", "unpaid", None)
    refused = merchant.api("POST", f"/v1/payment_intents/{shown['payment_intent']}/cancel")()
    assert told(refused)[0] == 400


def test_cancel_is_refused_with_the_intent_in_the_error(merchant: Merchant) -> None:
    ref = merchant.paid_stream(method="card")
    refused = merchant.api("POST", f"/v1/payment_intents/{ref.channel_reference}/cancel")()
    assert told(refused)[2] == "payment_intent_unexpected_state"
    assert refused[2]["error"]["payment_intent"]["status"] == "succeeded"


def test_expire_is_refused_for_all_but_open_sessions(merchant: Merchant) -> None:
    ref = merchant.open_stream()
    path = f"/v1/checkout/sessions/{ref.channel_reference}/expire"
    assert merchant.api("POST", path)()[2]["status"] == "expired"
    assert told(merchant.api("POST", path)())[0] == 400


@pytest.mark.parametrize(
    "path",
    ["/v1/payment_intents/pi_none", "/v1/checkout/sessions/cs_none", "/v1/refunds/re_none", "/v1/events/evt_none",
     "/v1/charges/ch_none", "/v1/payment_intents/cs_none"],
)  # fmt: skip
def test_unknown_ids_are_missing(merchant: Merchant, path: str) -> None:
    assert told(merchant.api("GET", path)()) == (404, "invalid_request_error", "resource_missing")


def test_lists_are_newest_first_with_cursors_and_filters(merchant: Merchant) -> None:
    made = [merchant.open_stream().channel_reference for _ in range(5)]
    first = merchant.api("GET", "/v1/checkout/sessions")(limit="2")[2]
    assert [row["id"] for row in first["data"]] == made[:-3:-1]
    assert first["has_more"] is True
    second = merchant.api("GET", "/v1/checkout/sessions")(limit="2", starting_after=made[3])[2]
    assert [row["id"] for row in second["data"]] == [made[2], made[1]]
    before = merchant.api("GET", "/v1/checkout/sessions")(limit="2", ending_before=made[2])[2]
    assert [row["id"] for row in before["data"]] == [made[4], made[3]]
    assert told(merchant.api("GET", "/v1/checkout/sessions")(starting_after="cs_none"))[0] == 400
    assert told(merchant.api("GET", "/v1/checkout/sessions")(limit="101"))[0] == 400
    assert merchant.api("GET", "/v1/checkout/sessions")([("created[gt]", "9999999999")])[2]["data"] == []
    assert told(merchant.api("GET", "/v1/checkout/sessions")(expand="data.customer"))[0] == 400


def test_events_can_be_listed_and_fetched(merchant: Merchant) -> None:
    ref = merchant.paid_stream()
    assert merchant.control.wait_delivered(ref.number, account="stripe")
    listed = merchant.api("GET", "/v1/events")(type="checkout.session.completed")[2]
    (mine,) = [row for row in listed["data"] if row["data"]["object"]["client_reference_id"] == ref.number]
    assert merchant.api("GET", f"/v1/events/{mine['id']}")()[2] == mine


def test_wallet_page_of_a_session_takes_the_money(merchant: Merchant) -> None:
    from payonce.channels.http import send
    from payonce.channels.messages import HttpRequest, HttpResponse, Known

    request = merchant.request()
    outcome = merchant.prepay(request)
    assert isinstance(outcome, Known)
    page = send(HttpRequest("GET", outcome.value.value))
    assert isinstance(page, HttpResponse)
    assert b"A book" in page.body
    assert b"127.0.0.1:9/return" in page.body
    paid = send(HttpRequest("POST", outcome.value.value + "/pay"))
    assert isinstance(paid, HttpResponse)
    assert paid.status == 303
    assert merchant.sums(request.number)["captured_minor"] == PRICE
