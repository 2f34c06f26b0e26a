"""(d) Closing could not be proven and the buyer paid in both wallets: the first money stays, the second goes back."""

from config.demo.tale import Story, Tale
from config.demo.two_wallets import open_both


def tell(tale: Tale) -> None:
    """Two wallets take the money of one order."""
    purchase = tale.place("both-paid", 12800)
    in_a, in_b = open_both(tale, purchase)
    tale.buyer_pays(in_a)
    tale.buyer_pays(in_b)
    tale.did("the buyer paid in wallet A, and a moment later in wallet B as well")
    seconds = tale.wait_finished(purchase)
    keeper = str(purchase.status()["keeper"])
    tale.check(keeper in (in_a, in_b), f"the keeper is {keeper}")
    surplus = in_b if keeper == in_a else in_a
    kept = tale.site.bank.sums(keeper)
    tale.check(kept["net_minor"] == purchase.amount_minor, f"the bank shows {kept['net_minor']} for the keeper")
    tale.check_one_refund(surplus, purchase.amount_minor)
    tale.repaired(f"{keeper} pays the order; {surplus} was given back in {seconds:.1f} s, once")


STORY = Story("d", "Paid in both wallets", tell)
