"""The facts of a run, joined: each order with its rows, replayed from its own events, beside the channel's books."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from torture.sources import Ledger, Operation, Row


@dataclass(frozen=True)
class Violation:
    """A broken invariant: its id, what is wrong, and the rows that show it."""

    rule: str
    text: str
    rows: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = "".join(f"\n      {row}" for row in self.rows)
        return f"{self.rule}: {self.text}{shown}"


@dataclass(frozen=True)
class Replayed:
    """How everything of an order stood just before one of its events, by the events alone."""

    order: str
    streams: dict[str, str]
    refunds: dict[str, str]
    cases: dict[tuple[str, str], str]
    watched: frozenset[str]


@dataclass
class OrderFacts:
    """One order and all that belongs to it."""

    order: Row
    streams: list[Row] = field(default_factory=list)
    refunds: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    cases: list[Row] = field(default_factory=list)
    messages: list[Row] = field(default_factory=list)

    @property
    def number(self) -> str:
        """The order's number."""
        return str(self.order["number"])

    @cached_property
    def keeper(self) -> Row | None:
        """The stream that the order names as its keeper."""
        return next((row for row in self.streams if row["number"] == self.order["keeper"]), None)

    def refunds_of(self, stream: Row) -> list[Row]:
        """The refunds of one stream, oldest first."""
        return [row for row in self.refunds if row["stream_id"] == stream["id"]]

    def stream_of(self, refund: Row) -> Row:
        """The stream that a refund gives back."""
        return next(row for row in self.streams if row["id"] == refund["stream_id"])

    def cases_of(self, stream: Row) -> list[Row]:
        """Every case about a stream or one of its refunds."""
        about = {stream["number"], *(row["number"] for row in self.refunds_of(stream))}
        return [row for row in self.cases if row["stream_id"] == stream["id"] or row["subject"] in about]

    @cached_property
    def history(self) -> list[tuple[Row, Replayed]]:
        """Each event with how things stood before it."""
        return list(replay(self.events))

    @cached_property
    def final(self) -> Replayed:
        """How things stand after the last event."""
        return self.history[-1][1] if self.history else Replayed("", {}, {}, {}, frozenset())


END: Row = {"kind": "", "subject": "", "state_from": "", "state_to": "", "facts": {}, "sequence": 0, "at": None}


def replay(events: list[Row]) -> Iterator[tuple[Row, Replayed]]:
    """Yield each event with the state before it, and at last END with the state after all of them."""
    order, watched = "", frozenset[str]()
    streams: dict[str, str] = {}
    refunds: dict[str, str] = {}
    cases: dict[tuple[str, str], str] = {}
    for event in [*events, END]:
        event["facts"] = facts_of(event)
        yield event, Replayed(order, dict(streams), dict(refunds), dict(cases), watched)
        what, subject, after = event["kind"].split(".")[0], event["subject"], event["state_to"]
        if event["kind"] == "stream.watched":
            watched |= {subject}
        if not after:
            continue
        if what == "order":
            order = after
        elif what == "stream":
            streams[subject] = after
            watched -= {subject} if after in ("CLOSED", "PENDING", "SUCCEEDED") else set()
        elif what == "refund":
            refunds[subject] = after
        elif what == "case":
            cases[str(event["facts"].get("case", "")), subject] = after


def facts_of(event: Row) -> Row:
    """The facts in an event's body; empty where the body cannot be read (which another rule reports)."""
    if "facts" in event:
        return dict(event["facts"])
    try:
        facts = json.loads(event["body"])["facts"]
    except (ValueError, KeyError, TypeError):
        return {}
    return facts if isinstance(facts, dict) else {}


@dataclass
class Books:
    """The channel's ledger, indexed. Sums come from the journal of true movements alone."""

    ledger: Ledger

    @cached_property
    def payments(self) -> dict[tuple[str, str], Row]:
        """By account and number."""
        return {(row["account"], row["number"]): row for row in self.ledger.payments}

    @cached_property
    def captures(self) -> dict[tuple[str, str], list[Row]]:
        """By account and number, the first capture first."""
        found: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in self.ledger.captures:
            found[row["account"], row["number"]].append(row)
        return found

    @cached_property
    def by_reference(self) -> dict[tuple[str, str], Row]:
        """Each capture by account and its own reference."""
        return {(row["account"], row["reference"]): row for row in self.ledger.captures}

    @cached_property
    def refunds(self) -> dict[tuple[str, str], list[Row]]:
        """By account and refund number."""
        found: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in self.ledger.refunds:
            found[row["account"], row["number"]].append(row)
        return found

    @cached_property
    def moved(self) -> dict[tuple[str, str], Counter[str]]:
        """Per account and capture reference: the signed sum of each kind of movement, in minor units."""
        found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for row in self.ledger.journal:
            found[row["account"], row["reference"]][row["kind"]] += row["amount_minor"]
        return found

    @cached_property
    def refund_moves(self) -> dict[tuple[str, str], list[Row]]:
        """Per account and refund number: each time that money moved under it."""
        found: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in self.ledger.journal:
            if row["refund_number"]:
                found[row["account"], row["refund_number"]].append(row)
        return found

    def net_minor(self, account: str, reference: str) -> int:
        """What the merchant has left of one capture."""
        return sum(self.moved.get((account, reference), Counter()).values())


@dataclass
class Facts:
    """Everything that a rule may look at. `before` was read before the database, `after` after it.

    What the channel did must have an intent in the database (`before`); what the database says that the channel did must
    be in its books (`after`). Without a ledger both are None. `alone` belongs to no order.
    """

    at: datetime
    orders: list[OrderFacts]
    alone: dict[str, list[Row]]
    numbers: dict[str, set[str]]
    before: Books | None = None
    after: Books | None = None
    inbox: dict[tuple[str, str], list[Row]] | None = None
    history: list[Operation] = field(default_factory=list)
    done: dict[str, list[Operation]] = field(default_factory=dict)
    prefix: str = ""
    overdue_seconds: float = 120.0

    def told(self, order: str, listener: str = "shop") -> list[Row]:
        """What one listener of the shop was told about an order, in the order of arrival."""
        return (self.inbox or {}).get((order, listener), [])


def show(row: Row, *names: str) -> str:
    """The named columns of a row as one line."""
    return " ".join(f"{name}={_plain(row.get(name))}" for name in names)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def gather(batch: dict[str, list[Row]]) -> list[OrderFacts]:
    """Join the rows of one batch of orders."""
    found = {row["id"]: OrderFacts(row) for row in batch["orders"]}
    for name in ("streams", "refunds", "events", "cases", "messages"):
        for row in batch[name]:
            getattr(found[row["order_id"]], name).append(row)
    for facts in found.values():
        facts.streams.sort(key=lambda row: row["id"])
        facts.events.sort(key=lambda row: (row["sequence"], row["id"]))
    return list(found.values())


def sort_inbox(lines: Iterable[Row] | None) -> dict[tuple[str, str], list[Row]] | None:
    """The shop's inbox by order and listener; lines without a listener are of the Python hooks, `shop`."""
    if lines is None:
        return None
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for line in lines:
        found[str(line.get("order", "")), str(line.get("listener", "shop"))].append(line)
    return dict(found)


def sort_history(history: Iterable[Operation]) -> dict[str, list[Operation]]:
    """The operations that ended well, by the order that they were about."""
    found: dict[str, list[Operation]] = defaultdict(list)
    for item in history:
        if item.how == "ok":
            found[str(item.args.get("order") or item.result.get("order") or "")].append(item)
    return dict(found)
