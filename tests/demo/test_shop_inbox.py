"""The demo's shop writes down what it is told, and repeats are dropped when that is read."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.shop import DemoShop
from config.shop_inbox import INBOX_VARIABLE, read_inbox
from payonce.orders.shop import ShopEvent


def event(sequence: int, kind: str = "order.paid", reference: str = "ref-1") -> ShopEvent:
    """News about an order."""
    return ShopEvent(
        id=f"po1-{sequence}", kind=kind, order="po1", source="demo", reference=reference, sequence=sequence,
        at=datetime(2026, 1, 1, tzinfo=UTC), amount_minor=500, currency="CNY", refunded_minor=0, state="PAID",
    )  # fmt: skip


def test_shop_hears_each_event_once_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "shop.jsonl"
    monkeypatch.setenv(INBOX_VARIABLE, str(path))
    shop = DemoShop()
    for news in (event(2), event(4, "refund.succeeded"), event(2), event(1, reference="ref-2")):
        shop.order_event(news)
    heard = read_inbox(path)
    assert [row["id"] for row in heard["ref-1"]] == ["po1-2", "po1-4"]
    assert heard["ref-2"][0]["at"] == "2026-01-01T00:00:00+00:00"


def test_shop_without_a_notebook_notes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(INBOX_VARIABLE, raising=False)
    DemoShop().order_event(event(1))
    assert read_inbox(tmp_path / "shop.jsonl") == {}
