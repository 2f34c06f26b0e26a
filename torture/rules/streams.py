"""S3, S4, S5, S6, S16: how streams open, close and fail, beside what the channel's books say about them."""

from torture.facts import Books, Facts, OrderFacts, Replayed, Violation, show
from torture.graph import BLOCKING_STATES, CLOSE_PROOFS, OPEN_STATES
from torture.rules import Found, of_order, of_run
from torture.sources import Row

_STREAM = (
    "number", "account", "state", "close_proof", "handed_out_at", "payable_until", "last_answer", "last_answer_at",
    "is_answer_unknown", "is_watched",
)  # fmt: skip
_PAYMENT = ("account", "number", "state", "amount_minor", "currency", "closed_at")
_ORDER = ("number", "state", "keeper")


@of_order()
def one_stream_is_open(facts: Facts, order: OrderFacts) -> Found:
    """S3: at most one open stream, and none that waits for its buyer once the order takes no payment."""
    opened = [row for row in order.streams if row["state"] in OPEN_STATES]
    if len(opened) > 1:
        yield Violation(
            "S3", f"{order.number} has {len(opened)} open streams", tuple(show(row, *_STREAM) for row in opened)
        )
    for row in opened:
        if order.order["state"] != "OPEN" and row["state"] in ("CREATED", "PENDING"):
            yield Violation(
                "S3", f"{order.number} is {order.order['state']}, and {row['number']} still waits for the buyer",
                (show(order.order, *_ORDER), show(row, *_STREAM)),
            )  # fmt: skip


@of_order()
def new_ways_open_over_closed_ones(facts: Facts, order: OrderFacts) -> Found:
    """S3, S16: when a way to pay was opened, each older one was closed, failed, paid, or closing and recorded as watched."""
    for event, before in order.history:
        if event["kind"] not in ("stream.created", "stream.taken_back"):
            continue
        if before.order != "OPEN":
            yield Violation(
                "S3",
                f"{event['subject']} opened while the order was {before.order}",
                (show(event, "sequence", "kind"),),
            )
        for number, state in before.streams.items():
            if number == event["subject"] or state in ("CLOSED", "FAILED", "SUCCEEDED"):
                continue
            if state != "CLOSING" or number not in before.watched:
                rule = "S16" if state in BLOCKING_STATES else "S3"
                text = f"{event['subject']} opened while {number} was {state}{'' if state != 'CLOSING' else ', not watched'}"
                yield Violation(rule, text, (show(event, "sequence", "kind", "actor"),))


@of_order()
def nothing_passes_money_on_its_way(facts: Facts, order: OrderFacts) -> Found:
    """S16: no switch, close or expiry passes a stream that is PROCESSING or CAPTURING."""
    for event, before in order.history:
        was = before.streams.get(event["subject"], "")
        if event["kind"] == "stream.closing" and was in BLOCKING_STATES:
            yield Violation("S16", f"{event['subject']} was closed while {was}", (show(event, "sequence", "actor"),))
        if (
            event["kind"] == "stream.closed"
            and was in BLOCKING_STATES
            and event["facts"].get("proof") in ("expiry", "restraint")
        ):
            yield Violation(
                "S16",
                f"{event['subject']} was {was} and ended by {event['facts']['proof']}",
                (show(event, "sequence"),),
            )
        if event["kind"] == "order.closed":
            yield from _closed_over(order, event, before)


def _closed_over(order: OrderFacts, event: Row, before: Replayed) -> Found:
    for number, state in before.streams.items():
        if state in OPEN_STATES:
            yield Violation(
                "S16", f"{order.number} was closed while {number} was {state}", (show(event, "sequence", "actor"),)
            )


@of_order()
def closing_has_its_proof(facts: Facts, order: OrderFacts) -> Found:
    """S4: CLOSED and FAILED have a proof that the rows can show."""
    closed_at = {event["subject"]: event["at"] for event in order.events if event["kind"] == "stream.closed"}
    for row in order.streams:
        proof = row["close_proof"]
        if row["state"] == "FAILED" and not row["failure_code"]:
            yield Violation("S4", f"{row['number']} failed without a code of the channel", (show(row, *_STREAM),))
        if row["state"] != "CLOSED":
            continue
        at = closed_at.get(row["number"])
        if proof not in CLOSE_PROOFS:
            yield Violation("S4", f"{row['number']} is closed without a proof", (show(row, *_STREAM),))
        elif proof == "expiry" and at is not None and at <= row["payable_until"]:
            yield Violation(
                "S4", f"{row['number']} was closed by expiry before its time was over", (show(row, *_STREAM),)
            )
        elif proof == "restraint" and row["handed_out_at"] is not None and row["capture_key"]:
            yield Violation(
                "S4", f"{row['number']} was handed out, and closed by our restraint alone", (show(row, *_STREAM),)
            )


@of_order()
def closing_is_in_the_books(facts: Facts, order: OrderFacts) -> Found:
    """S4, S5: what a channel's answer proved closed is closed in its books; what was paid before the answer is no close."""
    if facts.after is None:
        return
    for row in order.streams:
        if row["state"] != "CLOSED" or row["close_proof"] not in ("answer", "query"):
            continue
        key = (row["account"], row["origin_number"] or row["number"])
        payment = facts.after.payments.get(key)
        if payment is None or payment["closed_at"] is not None:
            continue
        rule = "S5" if _is_paid_in(facts.before, key) else "S4"
        if rule == "S4" and facts.after.captures.get(key):
            continue  # paid in this moment: the evidence is on its way
        yield Violation(
            rule, f"{row['number']} counts as proven closed, and the channel has it {payment['state']}",
            (show(row, *_STREAM), show(payment, *_PAYMENT)),
        )  # fmt: skip


def _is_paid_in(books: Books | None, key: tuple[str, str]) -> bool:
    return books is not None and bool(books.captures.get(key))


@of_run()
def channel_acts_have_intents(facts: Facts) -> Found:
    """S6: whatever the channel was asked to do has a committed row that came first."""
    if facts.before is None:
        return
    for (account, number), payment in facts.before.payments.items():
        if number.startswith(facts.prefix) and number not in facts.numbers["streams"]:
            yield Violation("S6", f"{account} knows {number}, and there is no such stream", (show(payment, *_PAYMENT),))
    for (account, number), refunds in facts.before.refunds.items():
        for row in refunds:
            is_ours = row["payment_number"].startswith(facts.prefix) and not row["outside"]
            if is_ours and number not in facts.numbers["refunds"]:
                shown = show(row, "payment_number", "number", "state", "amount_minor")
                yield Violation("S6", f"{account} was asked for refund {number}, and there is no such refund", (shown,))


@of_order()
def channel_got_what_was_committed(facts: Facts, order: OrderFacts) -> Found:
    """S6: the channel has each stream and refund with the committed amount; a capture has its key, a refund its mark."""
    if facts.before is None:
        return
    for row in order.streams:
        payment = facts.before.payments.get((row["account"], row["number"]))
        if payment is not None and (payment["amount_minor"], payment["currency"]) != (
            row["amount_minor"],
            row["currency"],
        ):
            yield Violation(
                "S6",
                f"{row['number']} is another amount at the channel",
                (show(row, *_STREAM), show(payment, *_PAYMENT)),
            )
        for capture in facts.before.captures.get((row["account"], row["number"]), []):
            if capture["capture_key"] and capture["capture_key"] != row["capture_key"]:
                yield Violation(
                    "S6", f"{row['number']} was captured under a key that no row holds", (show(capture, "capture_key"),)
                )
    for row in order.refunds:
        for known in facts.before.refunds.get((order.stream_of(row)["account"], row["number"]), []):
            if row["first_sent_at"] is None:
                yield Violation("S6", f"the channel has refund {row['number']}, and no row says that it was sent")
            if (known["amount_minor"], known["currency"]) != (row["amount_minor"], row["currency"]):
                yield Violation(
                    "S6",
                    f"refund {row['number']} is {known['amount_minor']} at the channel, {row['amount_minor']} here",
                )
