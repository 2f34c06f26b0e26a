"""(i) The buyer tries every real channel in turn and pays in the last; then pays an old code as well, where it can still be paid."""

from collections.abc import Mapping

from config.demo.site import until
from config.demo.tale import FINISH_SECONDS, Story, Tale

# Account and method. Alipay's code cannot be closed before the buyer opens it; PayPal's capture is ours.
TURNS = (("alipay", "qr"), ("wechat_pay", "qr"), ("stripe", "web"), ("paypal", "web"))
CLOSED_BY = {
    "wechat_pay": "a query after the close, since the close itself answers 204 to anything",
    "stripe": "its session's expiry, which Stripe answered",
}


def tell(tale: Tale) -> None:
    """Four channels, one order, one payment kept."""
    purchase = tale.place("all-channels", 30_000)
    bank = tale.site.bank
    streams: dict[str, str] = {}
    for account, method in TURNS:
        streams[account] = purchase.pay(account, method)["stream"]
        tale.did(f"the buyer chose {account}")
    states = {stream["number"]: stream["state"] for stream in purchase.status()["streams"]}
    _check_old_ones(tale, streams, states)
    last = streams["paypal"]
    tale.check(bank.approve(last, account="paypal").ok, "PayPal's buyer could not approve")
    # Not finished yet: Alipay's code can still be paid, and is watched.
    seconds = until(lambda: purchase.state == "PAID", FINISH_SECONDS, f"{purchase.reference} is paid")
    tale.check(purchase.status()["keeper"] == last, f"the keeper is {purchase.status()['keeper']}")
    tale.did(f"the buyer approved at PayPal, payonce captured, and the order was paid {seconds:.1f} s later")
    tale.buyer_pays(streams["alipay"])
    tale.did("the buyer found Alipay's old code in a screenshot and paid it, too")
    seconds = tale.wait_finished(purchase)
    tale.check_one_refund(streams["alipay"], purchase.amount_minor)
    tale.repaired(f"Alipay's payment was given back in {seconds:.1f} s, once")


def _check_old_ones(tale: Tale, streams: Mapping[str, str], states: Mapping[str, str]) -> None:
    """Each older stream is proven closed, and then refuses money, or is watched."""
    for account, proof in CLOSED_BY.items():
        number = streams[account]
        tale.check(states[number] == "CLOSED", f"{account}'s stream is {states[number]}")
        refused = tale.site.bank.pay(number, account=account)
        tale.check(not refused.ok, f"{account} took money for a payment that was proven closed")
        tale.prevented(f"{account} was proven closed by {proof}; paying it was refused: {refused.result}")
    number = streams["alipay"]
    tale.check(states[number] == "CLOSING", f"Alipay's stream is {states[number]}")
    tale.prevented(
        "Alipay knows nothing of a code that was not opened, which is never read as closed: payonce watches it"
    )


STORY = Story("i", "Through every channel", tell)
