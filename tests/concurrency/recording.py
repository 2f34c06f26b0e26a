"""A shop that writes down what it is told, and may be held up while it is told."""

import threading
from collections.abc import Callable
from typing import ClassVar

from payonce.orders.shop import Shop, ShopEvent


class RecordingShop(Shop):
    """Every event as (order, sequence, kind), in the order in which it was told."""

    told: ClassVar[list[ShopEvent]] = []
    before: ClassVar[Callable[[ShopEvent], object] | None] = None
    lock: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def forget(cls) -> None:
        cls.told.clear()
        cls.before = None

    def order_event(self, event: ShopEvent) -> None:
        if type(self).before is not None:
            type(self).before(event)  # type: ignore[misc]
        with self.lock:
            self.told.append(event)


def sequences(order: str) -> list[int]:
    """The sequences that the shop was told of an order, as they came."""
    return [event.sequence for event in RecordingShop.told if event.order == order]
