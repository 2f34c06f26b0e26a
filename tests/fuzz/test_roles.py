"""Every address × every role over real HTTP: nothing that is another's is read or acted on (X3)."""

import json
from typing import Any

import pytest
from django.utils import timezone

from payonce.payments import tokens
from payonce.payments.models import ApiClient
from tests.api.conftest import everything
from tests.fuzz.conftest import Shopping, Site

CALLS: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "place": ("POST", "/api/orders/", {"reference": "R-1", "amount_minor": 1, "currency": "CNY", "subject": "x", "source": "shop"}),
    "status": ("GET", "/api/orders/{mine}/", None),
    "events": ("GET", "/api/orders/{mine}/events/", None),
    "pay": ("POST", "/api/orders/{mine}/pay/", {"channel": "green", "method": "qr"}),
    "close": ("POST", "/api/orders/{mine}/close/", {}),
    "refund": ("POST", "/api/streams/{paid}/refunds/", {"amount_minor": 1, "reason": "duplicate"}),
}  # fmt: skip
OUTSIDE = {
    "nobody": {401}, "nonsense": {401}, "altered buyer": {401}, "revoked shop": {401}, "another salt": {401},
    "other buyer": {403, 404}, "other shop": {403, 404}, "query": {401}, "basic": {401}, "cookie": {401},
}  # fmt: skip
"""Who has nothing to do with the order, and with what each is turned away. The last three show a good token in a wrong place."""
INSIDE = {
    "buyer": {"place": 403, "status": 200, "pay": 200, "close": 403, "refund": 403},
    "shop": {"status": 200, "refund": 201, "pay": 200, "close": 200, "place": 201},
}  # fmt: skip


def credentials(shopping: Shopping, role: str) -> tuple[dict[str, str], str]:
    """Headers and query that a role comes with."""
    good = shopping.tokens["shop"]
    if role == "query":
        return {}, f"?token={good}&access_token={good}&authorization=Bearer%20{good}"
    if role == "basic":
        return {"authorization": f"Basic {good}"}, ""
    if role == "cookie":
        return {"cookie": f"token={good}; payonce_buyer={shopping.tokens['buyer']}; sessionid={good}"}, ""
    if role == "revoked shop":
        token = tokens.new_client_token()
        ApiClient.objects.create(
            name="revoked", source="shop", token_hash=tokens.hash_client_token(token), created_at=timezone.now(),
            is_active=False,
        )  # fmt: skip
        return {"authorization": f"Bearer {token}"}, ""
    if role == "another salt":
        from django.core.signing import TimestampSigner

        token = TimestampSigner(salt="payonce.cashier", sep=".").sign(shopping.mine.number)
        return {"authorization": f"Bearer {token}"}, ""
    token = shopping.tokens[role]
    return ({"authorization": f"Bearer {token}"} if token else {}), ""


def call(site: Site, shopping: Shopping, name: str, headers: dict[str, str], query: str) -> Any:
    method, path, body = CALLS[name]
    path = path.format(mine=shopping.mine.number, paid=shopping.paid.number) + query
    data = b"" if body is None else json.dumps(body).encode()
    return site.send(method, path, data, {"content-type": "application/json", **headers})


def test_outsiders_get_nothing_and_change_nothing(site: Site, shopping: Shopping) -> None:
    """X3: also what another's order looks like is what no order looks like."""
    before = everything()
    for role, refused in OUTSIDE.items():
        headers, query = credentials(shopping, role)
        for name, asked in CALLS.items():
            answer = call(site, shopping, name, headers, query)
            assert answer.status in refused, (role, name, answer.status, answer.data)
            assert answer.headers["content-type"] == "application/problem+json", (role, name)
            for told in (shopping.mine.reference, shopping.stream.channel_number, '"amount_minor"'):
                assert told not in answer.data.decode() or told in str(asked), (role, name, told)
    assert everything() == before


@pytest.mark.parametrize("role", INSIDE)
def test_insiders_get_what_is_theirs(site: Site, shopping: Shopping, role: str) -> None:
    """X3: the same calls are not refused to everybody."""
    headers, query = credentials(shopping, role)
    for name, status in INSIDE[role].items():
        answer = call(site, shopping, name, headers, query)
        assert answer.status == status, (role, name, answer.data)


def test_pages_and_console_are_closed_to_the_wrong_ones(site: Site, shopping: Shopping) -> None:
    """X3: an API token opens no console, and one buyer's cookie no other buyer's page."""
    before = everything()
    headers, _query = credentials(shopping, "shop")
    for path in (
        "/admin/",
        "/admin/payonce_orders/order/",
        "/admin/payonce_payments/refund/",
        "/admin/payonce_payments/stream/",
    ):
        answer = site.send("GET", path, headers=headers)
        assert (answer.status, answer.headers["location"].split("?")[0]) == (302, "/admin/login/"), path
    theirs = site.send("GET", f"/cashier/{shopping.tokens['other buyer']}/")
    assert theirs.status == 200
    cookies = "; ".join(value.split(";")[0] for value in theirs.headers.getlist("set-cookie"))
    forged = site.send("GET", f"/cashier/{shopping.tokens['altered buyer']}/state/", headers={"cookie": cookies})
    assert forged.status in (401, 403, 404)
    assert everything() == before
