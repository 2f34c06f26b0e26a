"""(e) Notifications are forged, arrive five times at once, and in the wrong order: each payment counts once."""

from config.demo.site import WALLET_A, Purchase
from config.demo.tale import Story, Tale

FORGERIES = ("bad_signature", "no_signature", "altered_body", "wrong_account", "other_secret")
COPIES = 5


def tell(tale: Tale) -> None:
    """Two payments are told newest first; before that come forgeries, after that old copies."""
    older, newer = tale.place("storm-1", 3000), tale.place("storm-2", 5000)
    bank = tale.site.bank
    streams = {purchase.number: purchase.pay(WALLET_A)["stream"] for purchase in (older, newer)}
    blind = []
    for purchase in (older, newer):
        stream = streams[purchase.number]
        bank.hold_notifications(stream)
        blind.append(bank.fault("query", "not_found", number=stream, times=None))  # only notifications can tell
        tale.buyer_pays(stream)
    tale.did("two orders were paid, and the wallet's notifications are held back")
    send_forgeries(tale, older, streams[older.number])
    for purchase in (newer, older):
        stream = streams[purchase.number]
        answers = bank.send_notification(stream, copies=COPIES, at_once=True)
        tale.check(answers == ["200 success"] * COPIES, f"the copies were answered {answers}")
        tale.check(purchase.state == "PAID", f"{purchase.reference} is {purchase.state} after its notifications")
        bank.release(stream)
    tale.did("five copies of each arrived at once, the newer payment's first; an older copy of both came last")
    for fault in blind:
        bank.remove_fault(fault)
    for purchase in (older, newer):
        late = bank.send_notification(streams[purchase.number], signed_ago_seconds=7200)
        tale.check(late == ["200 success"], f"a copy signed two hours ago was answered {late}")
        tale.wait_finished(purchase)
        check_one_effect(tale, purchase)
    tale.prevented("every copy was acknowledged, and each order was settled exactly once")


def send_forgeries(tale: Tale, purchase: Purchase, stream: str) -> None:
    """Somebody else claims that the order is paid."""
    answers = [tale.site.bank.send_notification(stream, forgery=kind)[0] for kind in FORGERIES]
    tale.check(all(answer.startswith("401") for answer in answers), f"forgeries were answered {answers}")
    tale.check(purchase.state == "OPEN", f"a forgery made the order {purchase.state}")
    tale.prevented(f"{len(FORGERIES)} kinds of forged notifications were refused, and the order stayed unpaid")


def check_one_effect(tale: Tale, purchase: Purchase) -> None:
    """The order's own history says "paid" once, and the notification is stored once."""
    found = tale.site.rows(
        "SELECT (SELECT count(*) FROM payonce_event AS e JOIN payonce_order AS o ON o.id = e.order_id"
        "        WHERE o.number = %s AND e.kind = 'order.paid') AS paid,"
        "       (SELECT count(*) FROM payonce_notification WHERE number LIKE %s AND state = 'PROCESSED') AS stored",
        purchase.number,
        f"{purchase.number}s%",
    )
    tale.check(found == [{"paid": 1, "stored": 1}], f"{purchase.reference} shows {found}")


STORY = Story("e", "Notifications repeated, out of order and forged", tell)
