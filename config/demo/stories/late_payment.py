"""(f) The buyer pays a QR code after the order expired: the wallet takes the money, payonce gives it back."""

from datetime import UTC, datetime, timedelta

from config.demo.site import WALLET_B, until
from config.demo.tale import Story, Tale

VALID_SECONDS = 8
CLOSED_SECONDS = 40.0


def tell(tale: Tale) -> None:
    """Wallet B keeps a QR code payable for a minute at least, longer than this order lives."""
    expires_at = datetime.now(UTC) + timedelta(seconds=VALID_SECONDS)
    purchase = tale.place("late", 6600, ends_as="CLOSED", expires_at=expires_at.isoformat())
    stream = purchase.pay(WALLET_B)["stream"]
    tale.did(f"an order that lives {VALID_SECONDS} s was opened in wallet B")
    until(lambda: purchase.state == "CLOSED", CLOSED_SECONDS, "the order is closed after its expiry")
    refused = purchase.click(WALLET_B)
    tale.check(refused.status == 410, f"Pay on an expired order answered {refused.status}: {refused.body}")
    tale.prevented("the order expired and takes no new payment")
    tale.buyer_pays(stream)
    tale.did("the buyer paid the old QR code all the same, and the wallet took the money")
    sums = tale.site.bank.sums(stream)
    tale.check(sums["captured_minor"] == purchase.amount_minor, f"the bank took {sums['captured_minor']}")
    seconds = until(lambda: tale.site.bank.sums(stream)["net_minor"] == 0, 60.0, "the late money is given back")
    tale.wait_finished(purchase)
    tale.check_one_refund(stream, purchase.amount_minor)
    tale.repaired(f"the late money was given back in {seconds:.1f} s, and the order stayed unpaid")


STORY = Story("f", "Paid after the order expired", tell)
