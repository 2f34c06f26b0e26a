"""M1, M3, M4, M7, M9, S1: who paid, what is kept, and what must be given back."""

from torture.facts import Facts, OrderFacts, Violation, show
from torture.graph import OPEN_STATES, PAID_STATES
from torture.rules import Found, Mode, of_order, of_run
from torture.sources import Row

_STREAM = ("number", "account", "state", "role", "amount_minor", "currency", "captured_minor", "channel_reference")
_CASE = ("id", "kind", "subject", "state", "amount_minor", "decision", "decided_by")
_ORDER = ("number", "state", "amount_minor", "currency", "refunded_minor", "keeper")


@of_order()
def one_keeper_for_ever(facts: Facts, order: OrderFacts) -> Found:
    """M4: never two keepers; the order's, the streams' and the history's keeper are one; it is chosen once."""
    roles = [row["number"] for row in order.streams if row["role"] == "keeper"]
    named = order.order["keeper"]
    if len(roles) > 1 or (roles or [None]) != [named]:
        shown = tuple(show(row, *_STREAM) for row in order.streams)
        yield Violation("M4", f"{order.number}: the order says keeper {named}, its streams say {roles}", shown)
    chosen = [event["subject"] for event in order.events if event["kind"] == "order.paid"]
    if len(chosen) > 1 or (named is not None and chosen != [named]):
        yield Violation("M4", f"{order.number}: its history chose the keepers {chosen}, the row says {named}")


@of_order()
def paid_by_matching_money(facts: Facts, order: OrderFacts) -> Found:
    """S1: a PAID order's keeper succeeded with exactly its amount and currency, and the channel's books say so too."""
    row, keeper = order.order, order.keeper
    if row["state"] not in PAID_STATES:
        return
    if keeper is None or keeper["state"] != "SUCCEEDED":
        yield Violation("S1", f"{order.number} is {row['state']} without a succeeded keeper", (show(row, *_ORDER),))
        return
    wanted = (row["amount_minor"], row["currency"])
    if (keeper["captured_minor"], keeper["captured_currency"]) != wanted or (
        keeper["amount_minor"],
        keeper["currency"],
    ) != wanted:
        yield Violation(
            "S1",
            f"{order.number} is paid by another amount",
            (show(row, *_ORDER), show(keeper, *_STREAM, "captured_currency")),
        )
    if facts.after is None:
        return
    capture = facts.after.by_reference.get((keeper["account"], keeper["channel_reference"] or ""))
    number = keeper["origin_number"] or keeper["number"]
    if capture is None or (capture["number"], capture["amount_minor"], capture["currency"]) != (number, *wanted):
        shown = show(capture, "number", "amount_minor", "currency", "reference") if capture else "no such capture"
        yield Violation(
            "S1", f"{order.number}: its keeper's evidence is not what the channel took", (show(keeper, *_STREAM), shown)
        )


@of_order()
def successes_are_in_the_books(facts: Facts, order: OrderFacts) -> Found:
    """S14: no stream says that it took money which the channel did not take."""
    if facts.after is None:
        return
    for row in order.streams:
        if row["state"] != "SUCCEEDED" or row["number"] == order.order["keeper"]:
            continue
        capture = facts.after.by_reference.get((row["account"], row["channel_reference"] or ""))
        taken = (row["captured_minor"], row["captured_currency"])
        if capture is None or (capture["amount_minor"], capture["currency"]) != taken:
            yield Violation(
                "S14", f"{row['number']} took money that the channel's books do not show", (show(row, *_STREAM),)
            )


@of_run()
def references_pay_once(facts: Facts) -> Found:
    """M7: one (account, channel reference) pays at most one stream."""
    for row in facts.alone["shared_references"]:
        yield Violation(
            "M7", f"{row['account']} {row['channel_reference']} pays several streams", tuple(row["numbers"])
        )


@of_order()
def amounts_change_over_watched_streams(facts: Facts, order: OrderFacts) -> Found:
    """M9: when the amount changed, nothing of the old amount was open, or closing without being watched."""
    for event, before in order.history:
        if event["kind"] != "order.amended":
            continue
        for number, state in before.streams.items():
            if state in OPEN_STATES or (state == "CLOSING" and number not in before.watched):
                yield Violation(
                    "M9", f"{order.number} was amended while {number} was {state}", (show(event, "sequence", "actor"),)
                )


@of_order()
def amounts_are_those_of_the_last_change(facts: Facts, order: OrderFacts) -> Found:
    """M9: the row's amount and currency are what its history says, and never change once there is a keeper."""
    amount, is_paid = None, False
    for event, _before in order.history:
        if event["kind"] == "order.paid":
            is_paid = True
        if event["kind"] in ("order.placed", "order.amended"):
            amount = (event["facts"].get("amount_minor"), event["facts"].get("currency"))
            if is_paid:
                yield Violation(
                    "M9", f"{order.number} was amended after it was paid", (show(event, "sequence", "actor"),)
                )
    if amount is not None and amount != (order.order["amount_minor"], order.order["currency"]):
        yield Violation("M9", f"{order.number}: its history says {amount}", (show(order.order, *_ORDER),))


@of_order(Mode.REST)
def channel_holds_what_is_owed(facts: Facts, order: OrderFacts) -> Found:
    """M1: what the channel holds for an order is its price minus approved refunds, and every deviation is named."""
    if facts.after is None:
        return
    for row in order.streams:
        number = row["origin_number"] or row["number"]
        references = {capture["reference"] for capture in facts.after.captures.get((row["account"], number), [])}
        if row["state"] == "SUCCEEDED":
            references = {row["channel_reference"]} & references
        elif row["channel_reference"]:
            references &= {row["channel_reference"]}
        known = {
            other["channel_reference"] for other in order.streams if other["state"] == "SUCCEEDED" and other is not row
        }
        net = sum(facts.after.net_minor(row["account"], reference) for reference in references - known)
        deviation = net - _owed_minor(order, row)
        if deviation and not _is_named(order, row, abs(deviation)):
            yield Violation(
                "M1", f"{row['number']}: the channel holds {net}, {net - deviation} is owed, and no case names the difference",
                (show(order.order, *_ORDER), show(row, *_STREAM), *(show(case, *_CASE) for case in order.cases_of(row))),
            )  # fmt: skip


@of_order(Mode.REST)
def every_capture_is_taken_in(facts: Facts, order: OrderFacts) -> Found:
    """M1: each capture under a stream's number is that stream's, or a second one that was adopted, or named by a case."""
    if facts.after is None:
        return
    for row in order.streams:
        if row["origin_number"] or not row["channel_reference"]:
            continue
        mine = {other["channel_reference"] for other in order.streams if other["account"] == row["account"]}
        for capture in facts.after.captures.get((row["account"], row["number"]), []):
            left = facts.after.net_minor(row["account"], capture["reference"])
            if left and capture["reference"] not in mine and not _is_named(order, row, left):
                yield Violation(
                    "M1", f"{row['account']} holds {left} under {row['number']}: no stream has it, and no case",
                    (show(row, *_STREAM), show(capture, "reference", "amount_minor", "currency")),
                )  # fmt: skip


@of_run(Mode.REST)
def money_has_a_stream_or_a_case(facts: Facts) -> Found:
    """M1: money under a number of ours that is no stream's is an orphan case."""
    if facts.after is None:
        return
    subjects = {row["subject"].split("/")[0] for row in facts.alone["cases"] if row["kind"] == "orphan"}
    for (account, number), captures in facts.after.captures.items():
        if number.startswith(facts.prefix) and number not in facts.numbers["streams"] and number not in subjects:
            yield Violation("M1", f"{account} took {captures[0]['amount_minor']} under {number}: no stream, no case")


def _owed_minor(order: OrderFacts, stream: Row) -> int:
    """What should be left of a stream's capture: the keeper's price minus its refunds, nothing of any other."""
    if stream["number"] != order.order["keeper"]:
        return 0
    returned = sum(row["amount_minor"] for row in order.refunds_of(stream) if row["state"] == "SUCCEEDED")
    return int(order.order["amount_minor"] - returned)


def _is_named(order: OrderFacts, stream: Row, amount_minor: int) -> bool:
    """Is there an open case, or a person's decision, about at least this much of the stream's money?"""
    live = [row for row in order.cases_of(stream) if row["state"] != "RESOLVED" or _is_by_person(row)]
    return bool(sum(row["amount_minor"] for row in live) >= amount_minor)


def _is_by_person(case: Row) -> bool:
    return bool(case["decided_by"]) and case["decision"] != "automatic"


@of_order(Mode.REST)
def surplus_ends_once(facts: Facts, order: OrderFacts) -> Found:
    """M3: each surplus was given back exactly, or lies in a person's queue, or a person decided to keep it."""
    for row in order.streams:
        if row["role"] != "surplus":
            continue
        returned = sum(item["amount_minor"] for item in order.refunds_of(row) if item["state"] == "SUCCEEDED")
        if returned == row["captured_minor"]:
            continue
        cases = order.cases_of(row)
        if not any(case["state"] == "OPEN" or (case["state"] == "RESOLVED" and _is_by_person(case)) for case in cases):
            yield Violation(
                "M3", f"{row['number']}: {returned} of {row['captured_minor']} surplus was given back, and nobody is told",
                (show(row, *_STREAM, "surplus_reason"), *(show(case, *_CASE) for case in cases)),
            )  # fmt: skip
