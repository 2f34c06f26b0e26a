"""What a run did with its channels: orders of each, switches between them, how closes were proven, and old codes that were paid."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from torture.accounts import REAL_CHANNELS
from torture.facts import OrderFacts
from torture.sources import Row

ARROW = " → "
CHAIN = tuple(pairwise(REAL_CHANNELS))
PROOFS: dict[str, tuple[str, ...]] = {
    "wechat_pay": ("answer",), "alipay": ("answer", "watched"), "stripe": ("answer",), "paypal": ("restraint",)
}  # fmt: skip
"""How a stream can end at each real channel when its buyer goes elsewhere, and a run must have seen it end: proven by the channel's
answer (at WeChat Pay that of the query after the close), by our own restraint; or not to be proven before its time is over, and so
watched."""


@dataclass
class Tally:
    """Counts by channel. `closes` are by channel and proof, `watched` among them; `old_paid` are codes that a newer one had replaced,
    `forged` refused notifications."""

    orders: Counter[str] = field(default_factory=Counter)
    paid: Counter[str] = field(default_factory=Counter)
    switches: Counter[tuple[str, str]] = field(default_factory=Counter)
    closes: Counter[tuple[str, str]] = field(default_factory=Counter)
    old_paid: Counter[str] = field(default_factory=Counter)
    forged: Counter[str] = field(default_factory=Counter)
    chains: int = 0

    def add_orders(self, orders: Iterable[OrderFacts]) -> None:
        """Count a batch."""
        for order in orders:
            self._add(order)

    def add_alone(self, alone: dict[str, list[Row]]) -> None:
        """Count what was refused at the door of each account."""
        for row in alone["notifications"]:
            if row["state"] == "FORGED":
                self.forged[str(row["account"])] += int(row["count"])

    def _add(self, order: OrderFacts) -> None:
        streams = [row for row in order.streams if not row["origin_number"]]
        accounts = [str(row["account"]) for row in streams]
        self.orders.update(set(accounts))
        self.switches.update(pair for pair in pairwise(accounts) if pair[0] != pair[1])
        self.chains += _is_within(REAL_CHANNELS, accounts)
        self.old_paid.update(str(row["account"]) for row in streams[:-1] if row["state"] == "SUCCEEDED")
        if order.keeper is not None:
            self.paid[str(order.keeper["account"])] += 1
        self.closes.update(_closes(order, streams))

    def too_few(self, minutes: float) -> dict[str, tuple[int, int]]:
        """What a run through the real channels saw too little of: what was, and what had to be."""
        least = max(1, int(minutes))
        wanted: dict[str, tuple[int, int]] = {"orders through all channels": (self.chains, least)}
        for pair in CHAIN:
            wanted[ARROW.join(pair)] = (self.switches[pair], 3 * least)
        for name, proofs in PROOFS.items():
            wanted[f"orders paid through {name}"] = (self.paid[name], least)
            wanted |= {f"closes of {name} by {proof}": (self.closes[name, proof], least) for proof in proofs}
            wanted[f"forgeries for {name}"] = (self.forged[name], least)
        wanted["old codes paid"] = (sum(self.old_paid[name] for name in REAL_CHANNELS), least)
        return {name: found for name, found in wanted.items() if found[0] < found[1]}

    def lines(self) -> Iterator[str]:
        """As text, a line for each kind of count."""
        yield "channels: " + ", ".join(
            f"{name} {times:,} orders ({self.paid[name]:,} paid, {self.old_paid[name]:,} old codes paid, {self.forged[name]:,} forgeries)"
            for name, times in self.orders.most_common()
        )
        yield f"switches: {_listed({ARROW.join(pair): times for pair, times in self.switches.most_common()})}"
        yield f"through all of {ARROW.join(REAL_CHANNELS)}: {self.chains:,} orders"
        yield f"closes: {_listed({' '.join(key): times for key, times in sorted(self.closes.items())})}"

    def fields(self) -> dict[str, object]:
        """The same for programs."""
        return {
            "orders": dict(self.orders), "paid": dict(self.paid), "old_paid": dict(self.old_paid),
            "forged": dict(self.forged), "chains": self.chains,
            "switches": {ARROW.join(pair): times for pair, times in self.switches.items()},
            "closes": {" ".join(key): times for key, times in self.closes.items()},
        }  # fmt: skip


def _is_within(wanted: tuple[str, ...], accounts: list[str]) -> bool:
    """Did the buyer go this way, one after the other, with nothing between?"""
    places = range(len(accounts) - len(wanted) + 1)
    return any(tuple(accounts[place : place + len(wanted)]) == wanted for place in places)


def _closes(order: OrderFacts, streams: list[Row]) -> Iterator[tuple[str, str]]:
    """How each stream was ended: its proof, and whether it was watched on the way."""
    watched = {event["subject"] for event in order.events if event["kind"] == "stream.watched"}
    for row in streams:
        if row["number"] in watched:
            yield str(row["account"]), "watched"
        if row["close_proof"]:
            yield str(row["account"]), str(row["close_proof"])


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {times:,}" for name, times in counts.items()) or "none"
