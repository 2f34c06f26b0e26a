"""(c) The buyer opens wallet A, changes to wallet B, and comes back to A's page: it can no longer be paid."""

from config.demo.site import WALLET_A, WALLET_B
from config.demo.tale import Story, Tale


def tell(tale: Tale) -> None:
    """Wallet A can prove a close, so its payment is closed before wallet B is handed out."""
    purchase = tale.place("switched", 8800)
    bank = tale.site.bank
    first = purchase.pay(WALLET_A)["stream"]
    bank.open_page(first)
    second = purchase.pay(WALLET_B)["stream"]
    tale.did("the buyer opened wallet A, then chose wallet B")
    state = {stream["number"]: stream["state"] for stream in purchase.status()["streams"]}
    tale.check(state.get(first) == "CLOSED", f"wallet A's stream is {state.get(first)} although B was handed out")
    known = bank.ledger(first)["payments"][0]["state"]
    tale.check(known == "CLOSED", f"wallet A itself says {known}")
    tale.prevented("wallet A proved its payment closed before wallet B was handed out")
    refused = bank.pay(first)
    tale.check(not refused.ok, "wallet A took money for a payment that it had proved closed")
    tale.prevented(f"the buyer went back to wallet A's page and it refused: {refused.result}")
    tale.buyer_pays(second)
    tale.wait_finished(purchase)
    tale.did("the buyer paid in wallet B")


STORY = Story("c", "Wallet changed before paying", tell)
