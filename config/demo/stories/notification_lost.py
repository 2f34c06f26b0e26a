"""(b) The buyer pays and the wallet's notification never arrives: payonce asks by itself."""

from config.demo.site import WALLET_A
from config.demo.tale import Story, Tale


def tell(tale: Tale) -> None:
    """Every notification of this payment is lost, so only a question to the wallet can settle the order."""
    purchase = tale.place("lost-notification", 4200)
    stream = purchase.pay(WALLET_A)["stream"]
    bank = tale.site.bank
    bank.fault("notify", "lose", number=stream, times=None)
    tale.buyer_pays(stream)
    tale.did("the buyer paid, and the notification was lost on its way")
    seconds = tale.wait_finished(purchase)
    told = bank.notifications(stream)
    tale.check(told and all(row["state"] == "LOST" for row in told), f"a notification was not lost: {told}")
    found = tale.site.rows("SELECT confirmed_by FROM payonce_stream WHERE number = %s", stream)
    tale.check(found == [{"confirmed_by": "poll"}], f"the payment was not found by polling: {found}")
    tale.repaired(f"polling found the payment {seconds:.1f} s later and settled the order")


STORY = Story("b", "Notification lost", tell)
