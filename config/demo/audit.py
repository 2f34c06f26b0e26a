"""The verdict: was every order paid once? The bank's ledger is read first, then our rows, then what the shop was told.

`read_evidence` collects, `judge` decides from what was collected and nothing else, so that a test can show it wrong books.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from config.demo.site import Purchase, Site, StoryFailed, until
from config.shop_inbox import read_inbox

DELIVERY_SECONDS = 45.0
PAID_EVENT = "order.paid"
ORDERS = "SELECT * FROM payonce_order WHERE reference = ANY(%s)"
BELONGING = {
    "streams": "SELECT * FROM payonce_stream WHERE order_id = %s ORDER BY attempt",
    "events": "SELECT * FROM payonce_event WHERE order_id = %s ORDER BY sequence",
    "messages": "SELECT * FROM payonce_shop_message WHERE order_id = %s AND listener = 'shop' ORDER BY sequence",
    "cases": "SELECT * FROM payonce_discrepancy WHERE order_id = %s AND state <> 'RESOLVED'",
    "refunds": "SELECT r.* FROM payonce_refund AS r JOIN payonce_stream AS s ON s.id = r.stream_id WHERE s.order_id = %s",
}
UNTOLD = """
SELECT count(*) AS left_over FROM payonce_shop_message AS m JOIN payonce_order AS o ON o.id = m.order_id
WHERE o.reference = ANY(%s) AND m.state <> 'DELIVERED'
"""
KNOWN_NUMBERS = "SELECT account, COALESCE(NULLIF(origin_number, ''), number) AS number FROM payonce_stream"

Row = Mapping[str, Any]
Sums = Mapping[str, Mapping[str, Mapping[str, int]]]


@dataclass(frozen=True)
class Books:
    """One order as everybody has it: the bank's sums per account and number, our rows, and what the shop heard."""

    purchase: Purchase
    sums: Sums
    order: Row | None
    streams: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    messages: list[Row] = field(default_factory=list)
    cases: list[Row] = field(default_factory=list)
    refunds: list[Row] = field(default_factory=list)
    heard: list[Row] = field(default_factory=list)

    def total(self, side: str) -> int:
        """The sum of one side of the bank's ledger over the order's streams; each number at the bank counts once."""
        numbers = {(row["account"], row["origin_number"] or row["number"]) for row in self.streams}
        return sum(self.sums.get(account, {}).get(number, {}).get(side, 0) for account, number in numbers)


@dataclass(frozen=True)
class Verdict:
    """How one order ended. `problems` is empty where it was paid once."""

    reference: str
    state: str
    captured_minor: int
    refunded_minor: int
    problems: list[str]

    @property
    def paid_once(self) -> bool:
        """Is what the bank kept the amount of a paid order and nothing of any other, with everybody's books agreeing?"""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """As the result file has it."""
        return {
            "reference": self.reference,
            "paid_once": self.paid_once,
            "captured_minor": self.captured_minor,
            "refunded_minor": self.refunded_minor,
        }


def audit(site: Site, purchases: Iterable[Purchase], inbox: Path) -> tuple[list[Verdict], list[str]]:
    """A verdict on each order, and what else the bank's ledger shows that no order explains."""
    wanted = list(purchases)
    references = [purchase.reference for purchase in wanted]
    ledger = site.bank.ledger()["sums"]
    problems: list[str] = []
    try:
        until(
            lambda: site.rows(UNTOLD, references)[0]["left_over"] == 0, DELIVERY_SECONDS, "the shop is told everything"
        )
    except StoryFailed as error:
        problems.append(str(error))
    heard = read_inbox(inbox)
    verdicts = [judge(read_books(site, purchase, ledger, heard)) for purchase in wanted]
    known = {(row["account"], row["number"]) for row in site.rows(KNOWN_NUMBERS)}
    return verdicts, problems + find_unexplained(ledger, known | site.earlier)


def read_books(site: Site, purchase: Purchase, sums: Sums, heard: Mapping[str, list[dict[str, Any]]]) -> Books:
    """Everything about one order."""
    found = site.rows(ORDERS, [purchase.reference])
    if len(found) != 1:
        return Books(purchase, sums, None)
    rows = {name: list[Row](site.rows(statement, found[0]["id"])) for name, statement in BELONGING.items()}
    return Books(purchase, sums, found[0], heard=list(heard.get(purchase.reference, [])), **rows)


def judge(books: Books) -> Verdict:
    """Compare everybody's books about one order."""
    captured, refunded = books.total("captured_minor"), books.total("refunded_minor")
    if books.order is None:
        return Verdict(books.purchase.reference, "?", captured, refunded, ["there is not exactly one such order"])
    problems = [*_money(books), *_keeper(books), *_rest(books), *_history(books), *_shop(books)]
    return Verdict(books.purchase.reference, str(books.order["state"]), captured, refunded, problems)


def _money(books: Books) -> Iterable[str]:
    """What the bank kept is the amount of a paid order, and nothing of any other."""
    order, purchase = books.order, books.purchase
    assert order is not None
    if order["state"] != purchase.ends_as:
        yield f"the order is {order['state']}, not {purchase.ends_as}"
    if order["amount_minor"] != purchase.amount_minor:
        yield f"the order's amount is {order['amount_minor']}, not {purchase.amount_minor}"
    expected = purchase.amount_minor if order["state"] == "PAID" else 0
    if books.total("net_minor") != expected:
        yield f"the bank kept {books.total('net_minor')} instead of {expected}"
    if order["refunded_minor"] != 0:
        yield f"{order['refunded_minor']} of the order's own money was given back"


def _keeper(books: Books) -> Iterable[str]:
    """A paid order has exactly one keeper, and the bank has exactly the order's money for it; another has none."""
    assert books.order is not None
    keepers = [row["number"] for row in books.streams if row["role"] == "keeper"]
    expected = [books.order["keeper"]] if books.order["state"] == "PAID" else []
    if keepers != expected:
        yield f"the keepers are {keepers} instead of {expected}"
    for row in books.streams:
        net = books.sums.get(row["account"], {}).get(row["origin_number"] or row["number"], {}).get("net_minor", 0)
        if row["role"] != "keeper" and net != 0 and not row["origin_number"]:
            yield f"the bank kept {net} of {row['number']}, which is not the keeper"


def _rest(books: Books) -> Iterable[str]:
    """Nothing is left to do: no open stream, no unfinished refund, no open case."""
    for row in books.streams:
        if row["state"] not in ("SUCCEEDED", "CLOSED", "FAILED"):
            yield f"{row['number']} is still {row['state']}"
    for row in books.refunds:
        if row["state"] != "SUCCEEDED":
            yield f"refund {row['number']} is {row['state']}"
    yield from (f"an open case: {row['summary']}" for row in books.cases)


def _history(books: Books) -> Iterable[str]:
    """The events have no gap, their hashes chain, the order's head is the last of them, and "paid" stands there once."""
    assert books.order is not None
    previous = ""
    for expected, row in enumerate(books.events, 1):
        previous = hashlib.sha256((previous + row["body"]).encode()).hexdigest()
        if row["sequence"] != expected:
            yield f"event {expected} is missing"
        if row["hash"] != previous or json.loads(row["body"])["sequence"] != row["sequence"]:
            yield f"event {row['sequence']} does not match its hash"
    if (books.order["version"], books.order["event_hash"]) != (len(books.events), previous):
        yield "the order's head is not its newest event"
    paid = [row["sequence"] for row in books.events if row["kind"] == PAID_EVENT]
    if len(paid) != int(books.order["state"] == "PAID"):
        yield f"the history says {len(paid)} times that the order was paid"


def _shop(books: Books) -> Iterable[str]:
    """Every message was delivered, the shop heard each event in order, and knows of one payment."""
    assert books.order is not None
    number = books.order["number"]
    yield from (f"message {row['sequence']} is {row['state']}" for row in books.messages if row["state"] != "DELIVERED")
    owed = [f"{number}-{row['sequence']}" for row in books.messages]
    told = [str(row["id"]) for row in books.heard]
    if told != owed:
        yield f"the shop heard {told} instead of {owed}"
    paid = sum(row["kind"] == PAID_EVENT for row in books.heard)
    if paid != int(books.order["state"] == "PAID"):
        yield f"the shop heard {paid} times that the order was paid"


def find_unexplained(ledger: Sums, known: set[tuple[str, str]] | frozenset[tuple[str, str]]) -> list[str]:
    """Money at the bank under a number that no stream has."""
    return [
        f"the bank took {sums['captured_minor']} under {number} of {account}, which no order knows"
        for account, numbers in ledger.items()
        for number, sums in numbers.items()
        if (account, number) not in known
    ]
