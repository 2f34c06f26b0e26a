"""What a run did with its channels is counted from its rows, and a run that did not wander through them is too gentle."""

from typing import Any

from torture.facts import OrderFacts
from torture.tally import CHAIN, PROOFS, Tally

ACCOUNTS = ("wechat_pay", "alipay", "stripe", "paypal")
PROOF_OF = {"wechat_pay": "answer", "alipay": "", "stripe": "answer", "paypal": "restraint"}


def order_through(*accounts: str, paid: int = -1, **changes: Any) -> OrderFacts:
    """An order whose buyer went this way; the stream at `paid` took the money."""
    streams = [
        {"number": f"s{place}", "account": account, "origin_number": "", "state": "CLOSED", "close_proof": PROOF_OF.get(account, "")}
        for place, account in enumerate(accounts)
    ]  # fmt: skip
    streams[paid] |= {"state": "SUCCEEDED", "close_proof": ""}
    watched = [row["number"] for row in streams[:-1] if row["account"] == "alipay"]
    return OrderFacts(
        {"number": "o", "keeper": streams[paid]["number"]}, streams=streams,
        events=[{"kind": "stream.watched", "subject": number} for number in watched], **changes,
    )  # fmt: skip


def tally_of(*orders: OrderFacts) -> Tally:
    tally = Tally()
    tally.add_orders(orders)
    return tally


def enough() -> Tally:
    """A run of one minute that wandered as it should."""
    orders = [order_through(*ACCOUNTS) for _ in range(3)]
    orders += [order_through(*ACCOUNTS, paid=place) for place in range(3)]
    orders += [order_through("alipay", "blue")]
    tally = tally_of(*orders)
    tally.closes["alipay", "answer"] += 1
    tally.forged.update(ACCOUNTS)
    return tally


def test_a_way_through_all_channels_is_counted_with_its_switches_and_closes() -> None:
    tally = tally_of(order_through(*ACCOUNTS))
    assert tally.chains == 1
    assert all(tally.switches[pair] == 1 for pair in CHAIN)
    assert tally.closes == {("wechat_pay", "answer"): 1, ("alipay", "watched"): 1, ("stripe", "answer"): 1}
    assert tally.paid == {"paypal": 1}
    assert tally.old_paid == {}


def test_an_old_code_that_was_paid_is_counted() -> None:
    tally = tally_of(order_through(*ACCOUNTS, paid=1))
    assert tally.old_paid == {"alipay": 1}
    assert tally.closes["paypal", "restraint"] == 1


def test_only_the_whole_way_in_order_is_a_chain() -> None:
    assert tally_of(order_through("alipay", "wechat_pay", "stripe", "paypal")).chains == 0
    assert tally_of(order_through("wechat_pay", "alipay", "stripe")).chains == 0
    assert tally_of(order_through("wechat_pay", "alipay", "blue", "stripe", "paypal")).chains == 0
    assert tally_of(order_through("blue", *ACCOUNTS)).chains == 1


def test_the_same_channel_again_is_no_switch() -> None:
    assert tally_of(order_through("stripe", "stripe")).switches == {}


def test_a_run_that_wandered_is_hard_enough() -> None:
    assert enough().too_few(1) == {}
    assert enough().too_few(0.5) == {}


def test_a_run_that_never_wandered_is_too_gentle() -> None:
    tally = enough()
    tally.chains = 0
    assert tally.too_few(1) == {"orders through all channels": (0, 1)}
    tally = enough()
    del tally.switches["alipay", "stripe"]
    assert tally.too_few(1) == {"alipay → stripe": (0, 3)}


def test_each_channel_must_have_ended_as_it_can() -> None:
    for name, proofs in PROOFS.items():
        for proof in proofs:
            tally = enough()
            del tally.closes[name, proof]
            assert tally.too_few(1) == {f"closes of {name} by {proof}": (0, 1)}


def test_a_longer_run_must_have_seen_more() -> None:
    assert enough().too_few(6).get("orders through all channels") is None
    assert enough().too_few(7)["orders through all channels"] == (6, 7)


def test_forgeries_count_by_account() -> None:
    tally = Tally()
    tally.add_alone({"notifications": [
        {"account": "alipay", "state": "FORGED", "count": 3}, {"account": "alipay", "state": "PROCESSED", "count": 1},
    ]})  # fmt: skip
    assert tally.forged == {"alipay": 3}


def test_the_summary_names_every_switch_and_close() -> None:
    lines = "\n".join(enough().lines())
    assert "wechat_pay → alipay 6" in lines
    assert "through all of wechat_pay → alipay → stripe → paypal: 6 orders" in lines
    assert "alipay watched" in lines
    fields = enough().fields()
    assert fields["chains"] == 6
