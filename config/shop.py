"""The demo's shop: it takes what the API was told about an order and does nothing with the news."""

from payonce.orders.shop import Shop


class DemoShop(Shop):
    """A shop without a catalogue: its orders are placed with their amount."""
