"""(a) The buyer clicks Pay twice at the same moment: one stream, one QR code."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import urllib3

from config.demo.site import WALLET_A, Purchase
from config.demo.tale import Story, Tale


def tell(tale: Tale) -> None:
    """Two requests leave together; both get the same way to pay, and the buyer pays it on the wallet's page."""
    purchase = tale.place("double-click", 1999)
    first, second = click_together(purchase)
    tale.did("two Pay requests for one order arrived together")
    tale.check(first["stream"] == second["stream"], f"two streams: {first['stream']} and {second['stream']}")
    tale.check(first["prepay"] == second["prepay"], "the two clicks got different ways to pay")
    streams = purchase.status()["streams"]
    tale.check(len(streams) == 1, f"the order has {len(streams)} streams")
    asked = tale.site.bank.calls("prepay", first["stream"])
    tale.check(asked == 1, f"the wallet was asked for {asked} payments")
    tale.prevented(f"both clicks got the one stream {first['stream']}, and the wallet was asked once")
    page = str(first["prepay"]["value"])
    press_pay(tale, page)
    tale.wait_finished(purchase)
    again = purchase.click(WALLET_A)
    tale.check(again.body.get("result") == "already_paid", f"a third click answered {again.body}")
    tale.prevented("a click after the payment answers: already paid")


def click_together(purchase: Purchase) -> list[dict[str, Any]]:
    """Two clicks that start at the same moment."""
    start = threading.Barrier(2)

    def click(_: int) -> dict[str, Any]:
        start.wait()
        return purchase.pay(WALLET_A)

    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(click, range(2)))


def press_pay(tale: Tale, page: str) -> None:
    """Open the wallet page behind the QR code as a browser would, and press its button."""
    tale.check(urlsplit(page).hostname == "127.0.0.1", f"the QR code does not lead to the wallet: {page}")
    shown = urllib3.request("GET", page, timeout=10)
    pressed = urllib3.request("POST", f"{page}/pay", timeout=10, redirect=False)
    tale.check(
        (shown.status, pressed.status) == (200, 303), f"the wallet page answered {shown.status}, {pressed.status}"
    )
    tale.did("the buyer paid on the wallet's page")


STORY = Story("a", "Double click on Pay", tell)
