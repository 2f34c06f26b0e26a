"""A shop whose memory outlives every process: each event that it is told becomes a line of a file."""

import json
import os
from pathlib import Path

from payonce.orders.shop import Shop, ShopEvent

VARIABLE = "PAYONCE_TESTS_TOLD"


class FileShop(Shop):
    """Appends `[order, sequence, kind]` per event."""

    def order_event(self, event: ShopEvent) -> None:
        with Path(os.environ[VARIABLE]).open("a") as file:
            file.write(json.dumps([event.order, event.sequence, event.kind]) + "\n")


def told(order: str) -> list[int]:
    """The sequences that the shop was told of an order, as they came."""
    path = Path(os.environ[VARIABLE])
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [sequence for number, sequence, _ in lines if number == order]
