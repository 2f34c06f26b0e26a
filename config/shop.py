"""The demo's shop. It writes down what it was told, which the demo compares with what the shop should know."""

from dataclasses import asdict

from config import shop_inbox
from payonce.orders.shop import Shop, ShopEvent


class DemoShop(Shop):
    """A shop without a catalogue: its orders are placed with their amount."""

    def order_event(self, event: ShopEvent) -> None:
        """Note every event."""
        shop_inbox.note({**asdict(event), "at": event.at.isoformat()})
