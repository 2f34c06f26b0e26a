"""Shops that tests name in PAYONCE["SHOP"]."""

from datetime import datetime
from typing import ClassVar

from payonce.orders.models import Order
from payonce.orders.shop import Payable, Shop, ShopEvent
from payonce.orders.statuses import LateDecision


class RaisingShop(Shop):
    """Its judgement of late money fails."""

    def late_payment(self, order: Order, paid_at: datetime, in_time: bool) -> LateDecision:
        raise RuntimeError("the shop's database is away")


class RecordingShop(Shop):
    """Keeps what it was told; fails as often as `failures` says."""

    told: ClassVar[list[ShopEvent]] = []
    paid: ClassVar[list[ShopEvent]] = []
    failures: ClassVar[list[Exception]] = []

    def order_paid(self, event: ShopEvent) -> None:
        self.paid.append(event)

    def order_event(self, event: ShopEvent) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.told.append(event)

    @classmethod
    def forget(cls) -> None:
        cls.told.clear()
        cls.paid.clear()
        cls.failures.clear()


class MarkingShop(Shop):
    """Writes into the same database in the settling transaction; `breaks` says how it goes wrong."""

    breaks: ClassVar[str] = ""
    calls: ClassVar[int] = 0

    def order_paid_in_transaction(self, event: ShopEvent) -> None:  # type: ignore[override]
        type(self).calls += 1
        Order.objects.filter(reference=event.reference).update(basket_key="marked")
        if self.breaks == "raise":
            raise ValueError("the shop's rule")
        if self.breaks == "step":
            from payonce.payments.pay import pay_order

            pay_order(event.order, "scripted_a", "qr")
        if self.breaks == "rollback":
            from django.db import connection

            connection.needs_rollback = True


class PricedShop(Shop):
    """Knows what its things cost."""

    def payable(self, reference: str) -> Payable:
        return Payable(4200, "EUR", reference.replace("-", " ").title())
