"""S10, S2, M8: the history is whole, verifies, agrees with the rows, and moves only along legal arrows."""

import hashlib
import json
from collections import Counter
from typing import Any

from torture.facts import END, Facts, OrderFacts, Violation, show
from torture.graph import ARROWS
from torture.rules import Found, of_order, of_run
from torture.sources import Row

_SHOWN = ("sequence", "kind", "subject", "state_from", "state_to", "actor")
_COLUMNS = {"sequence": "sequence", "kind": "kind", "subject": "subject", "from": "state_from", "to": "state_to"}


@of_order()
def chain_verifies(facts: Facts, order: OrderFacts) -> Found:
    """S10: numbered without gaps, each hash is sha256(hash before + body), and the order's head is the last one."""
    previous = ""
    for expected, event in enumerate(order.events, 1):
        if event["sequence"] != expected:
            yield Violation("S10", f"{order.number}: event {expected} is missing", (show(event, *_SHOWN),))
            return
        previous = hashlib.sha256((previous + event["body"]).encode()).hexdigest()
        if event["hash"] != previous:
            yield Violation("S10", f"{order.number}: event {expected} does not match its hash", (show(event, *_SHOWN),))
            return
    head = (order.order["version"], order.order["event_hash"])
    if head != (len(order.events), previous):
        yield Violation(
            "S10", f"{order.number}: the head says {head[0]} events, the history has {len(order.events)}",
            (show(order.order, "version", "event_hash"),),
        )  # fmt: skip


@of_order()
def columns_say_what_the_body_says(facts: Facts, order: OrderFacts) -> Found:
    """S10: what is hashed is what is shown, in canonical form."""
    for event in order.events:
        try:
            body = json.loads(event["body"])
        except ValueError:
            yield Violation("S10", f"{order.number}: an event's body is not JSON", (show(event, *_SHOWN),))
            continue
        wrong = [name for name, column in _COLUMNS.items() if body.get(name) != event[column]]
        if body.get("order") != order.number or wrong:
            yield Violation(
                "S10", f"{order.number}: an event's body differs from its columns in {wrong or ['order']}",
                (show(event, *_SHOWN), event["body"]),
            )  # fmt: skip
        if json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False) != event["body"]:
            yield Violation("S10", f"{order.number}: an event's body is not canonical", (event["body"],))


@of_order()
def rows_stand_where_events_left_them(facts: Facts, order: OrderFacts) -> Found:
    """S10: as many state changes as events. Every row's state is what its last event says, and nothing else has events."""
    final = order.final
    if final.order != order.order["state"]:
        yield _apart(order, "order", order.order["number"], order.order["state"], final.order)
    for what, rows, states in (("stream", order.streams, final.streams), ("refund", order.refunds, final.refunds)):
        for row in rows:
            if states.get(row["number"]) != row["state"]:
                yield _apart(order, what, row["number"], row["state"], states.get(row["number"]))
        for number in set(states) - {row["number"] for row in rows}:
            yield _apart(order, what, number, None, states[number])
    yield from _cases_stand(order)


def _cases_stand(order: OrderFacts) -> Found:
    """A case of one kind about one subject may be opened again once resolved: count openings, compare the newest."""
    opened: Counter[tuple[str, str]] = Counter()
    for event, _before in order.history:
        if event["kind"] == "case.opened":
            opened[str(event["facts"].get("case", "")), event["subject"]] += 1
    rows: dict[tuple[str, str], list[Row]] = {}
    for case in order.cases:
        rows.setdefault((case["kind"], case["subject"][:40]), []).append(case)
    for key in {*opened, *rows}:
        found = rows.get(key, [])
        if len(found) != opened[key]:
            yield Violation(
                "S10", f"{order.number}: {len(found)} cases {key}, and {opened[key]} events that opened one",
                tuple(show(case, "id", "kind", "subject", "state") for case in found),
            )  # fmt: skip
        elif found[-1]["state"] != order.final.cases.get(key):
            yield _apart(order, "case", " ".join(key), found[-1]["state"], order.final.cases.get(key))


def _apart(order: OrderFacts, what: str, number: Any, row: str | None, events: str | None) -> Violation:
    return Violation("S10", f"{order.number}: {what} {number} is {row} in its row and {events} by its events")


@of_order()
def arrows_are_legal(facts: Facts, order: OrderFacts) -> Found:
    """S2: every change starts where the one before ended, and is in the graph. A success never becomes anything else."""
    for event, before in order.history:
        what = event["kind"].split(".")[0]
        if event is END or what not in ARROWS or not event["state_to"]:
            continue
        came_from = {
            "order": before.order,
            "stream": before.streams.get(event["subject"], ""),
            "refund": before.refunds.get(event["subject"], ""),
            "case": before.cases.get((str(event["facts"].get("case", "")), event["subject"]), ""),
        }[what]
        if what == "case" and came_from == "RESOLVED" and not event["state_from"]:
            came_from = ""  # opened again as a row of its own
        if event["state_from"] != came_from:
            yield Violation(
                "S2", f"{order.number}: {what} {event['subject']} was {came_from or 'nothing'}", (show(event, *_SHOWN),)
            )
        elif (came_from, event["state_to"]) not in ARROWS[what]:
            yield Violation(
                "S2", f"{order.number}: {what} {event['subject']} went {came_from or '∅'} → {event['state_to']}",
                (show(event, *_SHOWN),),
            )  # fmt: skip


@of_run()
def history_is_guarded(facts: Facts) -> Found:
    """S10: the database itself refuses to update or delete an event."""
    if not facts.alone["guards"]:
        yield Violation("S10", "no enabled trigger refuses UPDATE and DELETE on payonce_event")


@of_run()
def amounts_are_whole(facts: Facts) -> Found:
    """M8: every amount's column is an integer."""
    for row in facts.alone["amount_columns"]:
        if row["data_type"] not in ("bigint", "integer"):
            yield Violation("M8", f"{row['table_name']}.{row['column_name']} is {row['data_type']}")


@of_order()
def no_float_is_written(facts: Facts, order: OrderFacts) -> Found:
    """M8: no float in a history, a message or a case."""
    texts = [(show(event, *_SHOWN), event["body"]) for event in order.events]
    texts += [(show(row, "kind", "sequence", "listener"), row["body"]) for row in order.messages]
    texts += [(show(row, "id", "kind", "subject"), row["evidence"] or "{}") for row in order.cases]
    for shown, text in texts:
        floats: list[str] = []
        try:
            json.loads(text, parse_float=floats.append)
        except ValueError:
            continue
        if floats:
            yield Violation("M8", f"{order.number}: a float {floats[0]} was written", (shown, text))
