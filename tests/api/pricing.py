"""A shop that says itself what a reference costs."""

from payonce.orders.errors import OrderNotFound
from payonce.orders.shop import Payable, Shop


class PricingShop(Shop):
    def payable(self, reference: str) -> Payable:
        if not reference.startswith("P-"):
            raise OrderNotFound("no such thing")
        return Payable(int(reference[2:]) * 100, "EUR", "A thing")
