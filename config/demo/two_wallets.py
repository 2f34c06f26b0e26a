"""How a buyer comes to hold two payable streams of one order: wallet B cannot prove a close before it is opened."""

from config.demo.site import WALLET_A, WALLET_B, Purchase
from config.demo.tale import Tale


def open_both(tale: Tale, purchase: Purchase) -> tuple[str, str]:
    """Show wallet B's QR code, then choose wallet A. Returns A's and B's stream; both can be paid."""
    in_b = purchase.pay(WALLET_B)["stream"]
    in_a = purchase.pay(WALLET_A)["stream"]
    tale.check(in_a != in_b, "the switch made no new stream")
    states = {stream["number"]: stream["state"] for stream in purchase.status()["streams"]}
    tale.check(states.get(in_b) == "CLOSING", f"wallet B's stream is {states.get(in_b)}, not watched as CLOSING")
    tale.did("wallet B could not prove its QR code closed, so payonce watches it beside wallet A")
    return in_a, in_b
