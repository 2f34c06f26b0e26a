"""M2, M5, M6, S15: what may be given back, by whom, under which number."""

from datetime import timedelta

from torture.facts import Facts, OrderFacts, Violation, show
from torture.graph import ACTIVE_REFUNDS, AUTOMATON, MOVING_REFUNDS, PURPOSE_LETTERS
from torture.rules import Found, of_order
from torture.sources import Row

_REFUND = (
    "number", "purpose", "sequence", "amount_minor", "state", "is_released", "requested_by", "approved_by", "first_sent_at"
)  # fmt: skip
_STREAM = ("number", "role", "captured_minor", "refund_reserved_minor", "channel_reference")


@of_order()
def reservations_are_the_refunds(facts: Facts, order: OrderFacts) -> Found:
    """M2: what is reserved is the sum of the refunds that are not released, and never more than was captured."""
    for row in order.streams:
        refunds = order.refunds_of(row)
        held = sum(item["amount_minor"] for item in refunds if not item["is_released"])
        if held != row["refund_reserved_minor"] or held > row["captured_minor"]:
            yield Violation(
                "M2", f"{row['number']} reserves {row['refund_reserved_minor']}, its refunds hold {held}",
                (show(row, *_STREAM), *(show(item, *_REFUND) for item in refunds)),
            )  # fmt: skip
        for item in refunds:
            may_release = item["state"] in ("DECLINED", "RETURNED", "REJECTED")
            if (item["is_released"] and not may_release) or (
                item["state"] in ("DECLINED", "RETURNED") and not item["is_released"]
            ):
                yield Violation(
                    "M2",
                    f"{item['number']} is {item['state']} and released={item['is_released']}",
                    (show(item, *_REFUND),),
                )


@of_order()
def channel_gave_back_no_more_than_it_took(facts: Facts, order: OrderFacts) -> Found:
    """M2: in the channel's journal, too."""
    if facts.after is None:
        return
    for row in order.streams:
        reference = row["channel_reference"]
        if reference and facts.after.net_minor(row["account"], reference) < 0:
            moved = facts.after.moved[row["account"], reference]
            yield Violation(
                "M2", f"{row['number']}: more left the channel than came: {dict(moved)}", (show(row, *_STREAM),)
            )


def _ended_before_its_stream_was_accepted(order: OrderFacts, refund: Row, keeper: Row) -> bool:
    accepted = [
        row["sequence"]
        for row in order.events
        if (row["kind"], row["subject"]) == ("stream.promoted", keeper["number"])
    ]
    moves = [row for row in order.events if row["subject"] == refund["number"] and row["kind"].startswith("refund.")]
    return bool(refund["is_released"] and accepted and all(row["sequence"] < accepted[0] for row in moves))


@of_order()
def keeper_stays(facts: Facts, order: OrderFacts) -> Found:
    """M5: no refund of the keeper that no person asked for was ever sent, but for one that had moved nothing, or came back, before
    a person accepted the stream as the payment.
    """
    keeper = order.keeper
    if keeper is None:
        return
    for row in order.refunds_of(keeper):
        is_automatic = row["requested_by"] == AUTOMATON and not row["approved_by"]
        is_on_its_way = row["first_sent_at"] is not None or row["state"] in MOVING_REFUNDS
        if is_automatic and is_on_its_way and not _ended_before_its_stream_was_accepted(order, row, keeper):
            yield Violation("M5", f"the keeper {keeper['number']} is refunded automatically", (show(row, *_REFUND),))


@of_order()
def numbers_are_a_function(facts: Facts, order: OrderFacts) -> Found:
    """M6: the number is (stream, purpose, sequence), and the sequence has no gaps."""
    for row in order.streams:
        for purpose, letter in PURPOSE_LETTERS.items():
            refunds = [item for item in order.refunds_of(row) if item["purpose"] == purpose]
            for sequence, item in enumerate(sorted(refunds, key=lambda item: item["sequence"]), 1):
                expected = f"{row['number']}r{letter}{item['sequence']}"
                if item["number"] != expected or item["sequence"] != sequence:
                    yield Violation(
                        "M6",
                        f"refund {item['number']} should be {row['number']}r{letter}{sequence}",
                        (show(item, *_REFUND),),
                    )


@of_order()
def new_numbers_need_proof(facts: Facts, order: OrderFacts) -> Found:
    """M6: no new number while an older one of the stream may still move money."""
    streams = {row["number"]: order.stream_of(row)["number"] for row in order.refunds}
    for event, before in order.history:
        if event["kind"] not in ("refund.requested", "refund.retried"):
            continue
        mine = streams.get(event["subject"])
        for number, state in before.refunds.items():
            if number != event["subject"] and streams.get(number) == mine and state in ACTIVE_REFUNDS:
                yield Violation(
                    "M6", f"{event['subject']} started while {number} was {state}", (show(event, "sequence", "actor"),)
                )
    for row in order.streams:
        active = [item["number"] for item in order.refunds_of(row) if item["state"] in ACTIVE_REFUNDS]
        if len(active) > 1:
            yield Violation("M6", f"{row['number']} has several unfinished refunds: {active}")


@of_order()
def surplus_is_returned_once(facts: Facts, order: OrderFacts) -> Found:
    """M3: never two automatic refunds of one stream that moved money."""
    for row in order.streams:
        done = [
            item for item in order.refunds_of(row)
            if item["state"] == "SUCCEEDED" and item["requested_by"] == AUTOMATON
        ]  # fmt: skip
        if len(done) > 1:
            yield Violation(
                "M3", f"{row['number']} was given back {len(done)} times", tuple(show(item, *_REFUND) for item in done)
            )


@of_order()
def two_persons(facts: Facts, order: OrderFacts) -> Found:
    """S15: the approver is not the requester; what waited for approval went out only approved; a declined one never did."""
    approvals = {event["subject"]: event for event in order.events if event["kind"] == "refund.approved"}
    for row in order.refunds:
        if row["approved_by"] and row["approved_by"] == row["requested_by"]:
            yield Violation("S15", f"{row['number']} was approved by its requester", (show(row, *_REFUND),))
        waited = row["approval_expires_at"] is not None
        if waited and row["first_sent_at"] is not None and row["number"] not in approvals:
            yield Violation("S15", f"{row['number']} was sent without its approval", (show(row, *_REFUND),))
        if row["state"] == "DECLINED" and row["first_sent_at"] is not None:
            yield Violation("S15", f"{row['number']} was declined, and sent", (show(row, *_REFUND),))


@of_order()
def one_execution_each(facts: Facts, order: OrderFacts) -> Found:
    """S15, M6: under one number the channel moved money at most once more than it was returned, and only the amount decided."""
    if facts.after is None:
        return
    for row in order.refunds:
        moves = facts.after.refund_moves.get((order.stream_of(row)["account"], row["number"]), [])
        moved = -sum(move["amount_minor"] for move in moves)
        if moved not in (0, row["amount_minor"]):
            yield Violation(
                "S15",
                f"{row['number']} moved {moved} at the channel, {row['amount_minor']} was decided",
                (show(row, *_REFUND),),
            )
        yield from _agrees(facts, order, row, moved)


def _agrees(facts: Facts, order: OrderFacts, row: Row, moved: int) -> Found:
    """S14: a refund that is done here is done there, or was returned just now."""
    known = facts.after.refunds.get((order.stream_of(row)["account"], row["number"]), []) if facts.after else []
    states = {item["state"] for item in known}
    if row["state"] == "SUCCEEDED" and moved == 0 and not states & {"RETURNED"}:
        yield Violation(
            "S14",
            f"{row['number']} succeeded here, and the channel has it {sorted(states) or 'nowhere'}",
            (show(row, *_REFUND),),
        )
    if row["state"] == "DECLINED" and moved:
        yield Violation(
            "S15", f"{row['number']} was declined, and the channel gave {moved} back", (show(row, *_REFUND),)
        )
    settled = [item["settled_at"] for item in known if item["settled_at"] is not None]
    is_old = settled and facts.at.timestamp() - max(settled) > timedelta(seconds=facts.overdue_seconds).total_seconds()
    if row["state"] == "RETURNED" and moved and is_old:
        yield Violation(
            "S14", f"{row['number']} is returned here, and the channel's money is gone", (show(row, *_REFUND),)
        )
