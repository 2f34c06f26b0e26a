"""A buyer's browser at the cashier page."""

import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from payonce.orders.models import Order
from payonce.payments import tokens


class Browser:
    """Keeps cookies, follows nothing, runs no script: what works here works for everybody."""

    def __init__(self, order: Order, *, language: str = "en") -> None:
        self.client = Client(enforce_csrf_checks=True, headers={"accept-language": language})
        self.order = order
        self.path = reverse("payonce:cashier", kwargs={"token": tokens.sign_buyer_token(order.number)})
        self.page: Any = None

    def open(self, path: str = "") -> str:
        self.page = self.client.get(path or self.path)
        return self.text

    @property
    def text(self) -> str:
        """The page's words, without style, script and tags."""
        body = re.sub(r"(?s)<(style|script)>.*?</\1>", "", self.page.content.decode())
        return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)).strip()

    @property
    def form_key(self) -> str:
        found = re.search(r'name="form_key" value="([^"]+)"', self.page.content.decode())
        assert found, "the page has no form"
        return found.group(1)

    @property
    def ways(self) -> list[str]:
        return re.findall(r'name="way" value="([^"]+)"', self.page.content.decode())

    def choose(self, way: str, path: str = "") -> Any:
        return self.client.post(path or self.path, {"form_key": self.form_key, "way": way})

    def pay(self, way: str) -> str:
        """Choose, and see the page that the browser is led to."""
        answer = self.choose(way)
        assert answer.status_code == 303
        return self.open(answer["Location"])

    def state(self, path: str = "") -> Any:
        return self.client.get((path or self.path) + "state/")


@pytest.fixture
def browse() -> Any:
    return Browser
