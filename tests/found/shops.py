"""Shops that these tests name."""

import time
from typing import ClassVar

from django.db import connection

from payonce.orders.models import Order
from payonce.orders.shop import ModelShop, Shop
from payonce.orders.statuses import LateDecision


class JudgingShop(Shop):
    """Records whether late money was said to be in time."""

    asked: ClassVar[list[bool]] = []

    def late_payment(self, order, paid_at, in_time):
        self.asked.append(in_time)
        return LateDecision.ASK


class HangingShop(Shop):
    """Does not come back before the database has lost its patience with the transaction."""

    def late_payment(self, order, paid_at, in_time):
        time.sleep(1.0)
        return LateDecision.ACCEPT


class DeferredShop(Shop):
    """Its row breaks a rule that its database checks at COMMIT."""

    def order_paid_in_transaction(self, event):
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO review_shop_row VALUES (%s)", [event.reference])


class FieldShop(ModelShop):
    """The ready adapter, on a table that every test database has. `failures` makes the hook fail so often."""

    model = "payonce_payments.ApiClient"
    reference_field = "name"
    paid_field = "is_active"
    failures: ClassVar[list[Exception]] = []

    def order_paid_in_transaction(self, event):
        if self.failures:
            raise self.failures.pop()
        super().order_paid_in_transaction(event)


class SlowShop(Shop):
    told: ClassVar[list[str]] = []

    def order_event(self, event):
        self.told.append(event.kind)


__all__ = ["Order"]
