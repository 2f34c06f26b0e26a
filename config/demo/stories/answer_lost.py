"""(h) The bank gives surplus money back and its answer is lost: payonce asks before it does anything again."""

from config.demo.site import until
from config.demo.tale import Story, Tale
from config.demo.two_wallets import open_both


def tell(tale: Tale) -> None:
    """The connection breaks after the refund's effect, and no notification tells of it."""
    purchase = tale.place("refund-answer-lost", 7700)
    in_a, in_b = open_both(tale, purchase)
    bank = tale.site.bank
    bank.fault("refund", "drop_after", number=in_b)
    bank.fault("notify", "lose", number=in_b, nth=2, times=None)  # the payment is told, the refund is not
    tale.buyer_pays(in_a)
    until(lambda: purchase.state == "PAID", 30.0, "wallet A's money settles the order")
    tale.buyer_pays(in_b)
    tale.did("the buyer paid in both wallets; the bank gives the second money back, and every word of it is lost")
    seconds = tale.wait_finished(purchase)
    tale.check(bank.calls("refund", in_b) >= 1, "no refund was asked for")
    tale.check(bank.calls("query_refund", in_b) >= 1, "the unknown outcome was not asked about")
    tale.check_one_refund(in_b, purchase.amount_minor)
    tale.repaired(f"the outcome was asked for under the same refund number; one refund after {seconds:.1f} s")


STORY = Story("h", "Refund whose answer is lost", tell)
