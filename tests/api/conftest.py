"""Callers of the API: two shops, a buyer of each order, and nobody."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from payonce.orders.models import Event, Order
from payonce.payments import tokens
from payonce.payments.models import ApiClient, Notification, Refund, Stream


@dataclass
class Api:
    """A caller over HTTP, through every middleware. `token` empty means nobody."""

    token: str

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Send JSON (or raw bytes) and return the response; `response.json()` reads it."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        given = {"authorization": f"Bearer {self.token}"} if self.token else {}
        kind = headers.pop("content_type", "application/json")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return Client().generic(method, path, data, content_type=kind, headers={**given, **named})

    def get(self, path: str, **headers: str) -> Any:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.call("POST", path, {} if body is None else body, **headers)


def make_shop(source: str) -> Api:
    token = tokens.new_client_token()
    ApiClient.objects.create(
        name=f"client of {source}", source=source, token_hash=tokens.hash_client_token(token), created_at=timezone.now()
    )
    return Api(token)


def buyer_of(order: Order) -> Api:
    return Api(tokens.sign_buyer_token(order.number))


@pytest.fixture
def shop(transactional_db: None) -> Api:
    return make_shop("shop")


@pytest.fixture
def other_shop(transactional_db: None) -> Api:
    return make_shop("other")


@pytest.fixture
def nobody() -> Api:
    return Api("")


def everything() -> dict[str, Any]:
    """Everything that a refused call must not have changed."""
    return {
        "orders": list(Order.objects.order_by("pk").values()),
        "streams": list(Stream.objects.order_by("pk").values()),
        "refunds": list(Refund.objects.order_by("pk").values()),
        "events": Event.objects.count(),
        "notifications": Notification.objects.exclude(state="FORGED").count(),
    }


def assert_problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """The response is RFC 9457 problem details with this status and code."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    body = response.json()
    assert {"type", "title", "status", "detail", "code", "instance"} <= set(body), body
    assert (body["status"], body["code"]) == (status, code), body
    assert body["type"] == f"urn:payonce:problem:{code}"
    if status in (409, 429, 503):
        assert int(response["Retry-After"]) >= 1
    if status == 401:
        assert response["WWW-Authenticate"].startswith("Bearer")
    return dict(body)
