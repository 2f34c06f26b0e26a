"""S11, S12: the shop is told everything it is owed, in order, and what it and its buyers were told is true."""

import json
from collections import defaultdict

from torture.facts import Facts, OrderFacts, Violation, show
from torture.graph import PUBLISHED
from torture.rules import Found, Mode, of_order, of_run
from torture.sources import Row

_MESSAGE = ("id", "listener", "sequence", "kind", "state", "try_count", "delivered_at", "last_answer")


def _is_touched(order: OrderFacts) -> bool:
    """Did a person send or skip a message again? Then its order of delivery is that person's."""
    return any(event["kind"].startswith("message.") for event in order.events)


@of_order()
def every_event_is_owed(facts: Facts, order: OrderFacts) -> Found:
    """S11: what the shop must hear commits with the event, with the event's own words."""
    owed = {(row["listener"], row["sequence"]): row for row in order.messages}
    heard = _hearing(order)
    for event in order.events:
        if event["kind"] not in PUBLISHED:
            continue
        for listener, (first, last) in heard.items():
            row = owed.pop((listener, event["sequence"]), None)
            if row is not None and row["kind"] == event["kind"]:
                yield from _same_words(order, event, row)
            elif first <= event["sequence"] <= last:
                yield Violation(
                    "S11", f"{order.number}: {listener} is not owed event {event['sequence']}",
                    (show(event, "sequence", "kind"),),
                )  # fmt: skip
    for row in owed.values():
        yield Violation("S11", f"{order.number}: a message tells of no event", (show(row, *_MESSAGE),))


def _hearing(order: OrderFacts) -> dict[str, tuple[int, int]]:
    """From which event to which each listener must hear: the shop itself all of them, an address while it was configured."""
    heard: dict[str, tuple[int, int]] = {}
    for row in order.messages:
        first, last = heard.get(row["listener"], (row["sequence"], row["sequence"]))
        heard[row["listener"]] = (min(first, row["sequence"]), max(last, row["sequence"]))
    return {**heard, "shop": (0, len(order.events))}


def _same_words(order: OrderFacts, event: Row, message: Row) -> Found:
    body = json.loads(message["body"])
    if body.get("id") != f"{order.number}-{event['sequence']}" or body.get("kind") != event["kind"]:
        yield Violation(
            "S11",
            f"{order.number}: a message says something else than its event",
            (show(message, *_MESSAGE), message["body"]),
        )


@of_order()
def messages_go_out_in_order(facts: Facts, order: OrderFacts) -> Found:
    """S11: of one order and listener, none is delivered before an older one."""
    if _is_touched(order):
        return
    lanes: dict[str, list[Row]] = defaultdict(list)
    for row in order.messages:
        lanes[row["listener"]].append(row)
    for lane in lanes.values():
        held: Row | None = None
        newest = None
        for row in sorted(lane, key=lambda row: row["sequence"]):
            if row["state"] == "DELIVERED" and held is not None:
                yield Violation(
                    "S11", f"{order.number}: told out of order", (show(held, *_MESSAGE), show(row, *_MESSAGE))
                )
            if row["state"] == "DELIVERED" and newest is not None and row["delivered_at"] < newest:
                yield Violation("S11", f"{order.number}: told earlier than the message before", (show(row, *_MESSAGE),))
            if row["state"] == "DELIVERED":
                newest = row["delivered_at"]
            elif row["state"] in ("PENDING", "PARKED"):
                held = held or row


@of_order()
def the_inbox_agrees(facts: Facts, order: OrderFacts) -> Found:
    """S11, S14: a delivered message arrived; nothing arrived that was never sent; first arrivals keep the order."""
    if facts.inbox is None:
        return
    events = {f"{order.number}-{event['sequence']}": event for event in order.events}
    for listener in {row["listener"] for row in order.messages} | {"shop"}:
        arrived = facts.told(order.number, listener)
        first: dict[str, Row] = {}
        for line in arrived:
            first.setdefault(line["id"], line)
            event = events.get(line["id"])
            if event is None or event["kind"] != line["kind"]:
                yield Violation("S14", f"{listener} was told {line['id']} {line['kind']}, which never happened")
        sequences = [line["sequence"] for line in first.values()]
        if sequences != sorted(sequences) and not _is_touched(order):
            yield Violation("S11", f"{order.number}: {listener} heard the events in the order {sequences}")
        for row in order.messages:
            is_told = row["state"] == "DELIVERED" and row["listener"] == listener
            if is_told and f"{order.number}-{row['sequence']}" not in first:
                yield Violation("S11", f"{listener} never heard what counts as delivered", (show(row, *_MESSAGE),))


@of_run()
def tales_are_of_orders(facts: Facts) -> Found:
    """S14: the shop was told nothing about an order that the database does not have."""
    known = {order.number for order in facts.orders}
    for order, listener in facts.inbox or ():
        if order.startswith(facts.prefix) and order not in known:
            yield Violation("S14", f"{listener} was told about {order}, and there is no such order")


@of_order(Mode.REST)
def everybody_was_told(facts: Facts, order: OrderFacts) -> Found:
    """S11: at rest nothing is pending, and a parked message is in a person's queue."""
    is_asked = any(case["kind"] == "shop_not_told" and case["state"] != "RESOLVED" for case in order.cases)
    parked = {row["listener"] for row in order.messages if row["state"] == "PARKED"}
    for row in order.messages:
        if row["state"] == "PENDING" and row["listener"] not in parked:
            yield Violation("S11", f"{order.number}: not told yet", (show(row, *_MESSAGE),))
        if row["state"] == "PARKED" and not is_asked:
            yield Violation("S11", f"{order.number}: parked, and nobody is asked", (show(row, *_MESSAGE),))


@of_order(Mode.REST)
def a_shop_that_drops_repeats_ends_equal(facts: Facts, order: OrderFacts) -> Found:
    """S11: the last thing that the shop heard about an order is how the order stands."""
    if facts.inbox is None or any(row["state"] != "DELIVERED" for row in order.messages):
        return
    arrived = facts.told(order.number)
    if not arrived or "state" not in arrived[0]:
        return
    last = max(arrived, key=lambda line: line["sequence"])
    stands = (order.order["state"], order.order["refunded_minor"])
    is_final = order.order["state"] in ("PAID", "REFUNDED", "CLOSED")
    if is_final and (last["state"], last["refunded_minor"]) != stands:
        yield Violation(
            "S11", f"{order.number} is {stands}, and the shop believes {(last['state'], last['refunded_minor'])}"
        )


@of_order()
def pulls_are_true(facts: Facts, order: OrderFacts) -> Found:
    """S12: what a buyer was shown at a version is how the order stood at that version."""
    shown = [item for item in facts.done.get(order.number, []) if item.op in ("pull", "push")]
    if not shown:
        return
    stood = {
        event["sequence"]: following[1].order
        for (event, _), following in zip(order.history, order.history[1:], strict=False)
    }
    for item in shown:
        version, state = item.result.get("version"), item.result.get("state")
        if version not in stood or stood[version] != state:
            yield Violation(
                "S12", f"{order.number}: a {item.op} said {state} at version {version}, it was {stood.get(version)}"
            )


@of_order(Mode.REST)
def pulls_equal_pushes(facts: Facts, order: OrderFacts) -> Found:
    """S12: at rest the newest pull and the newest push say the same, and it is what the row says."""
    newest = {item.op: item.result for item in facts.done.get(order.number, []) if item.op in ("pull", "push")}
    for op, result in newest.items():
        if result.get("state") != order.order["state"] and len(newest) == 2:
            yield Violation(
                "S12", f"{order.number} is {order.order['state']}, and the last {op} said {result.get('state')}"
            )
