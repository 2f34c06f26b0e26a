"""Absolute addresses that are handed to the shop and the buyer."""

from django.urls import reverse

from payonce.orders.conf import get_settings


def cashier_url(token: str) -> str:
    """Where the buyer pays, with a buyer token."""
    return get_settings().BASE_URL.rstrip("/") + reverse("payonce:cashier", kwargs={"token": token})
