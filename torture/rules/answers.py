"""S7, S8, S9, X1, X2: what was answered to buyers, shops, channels and attackers is true and stays true."""

from collections import defaultdict

from torture.facts import Facts, OrderFacts, Violation, show
from torture.rules import Found, of_order, of_run
from torture.sources import Operation


def _ended(facts: Facts, *ops: str) -> list[Operation]:
    return [item for item in facts.history if item.op in ops and item.how == "ok"]


@of_run()
def acknowledged_is_durable(facts: Facts) -> Found:
    """S7: after a success was answered, what it was about is in the database."""
    stored = {(row["account"], row["dedupe_key"]) for row in facts.alone["notifications"]}
    orders = {order.number for order in facts.orders}
    for item in _ended(facts, "place"):
        if item.result.get("order") and item.result["order"] not in orders:
            yield Violation("S7", f"order {item.result['order']} was placed, and it is gone")
    for item in _ended(facts, "pay"):
        if item.result.get("stream") and item.result["stream"] not in facts.numbers["told"]:
            yield Violation("S7", f"a buyer was given stream {item.result['stream']}, and it is gone")
    for item in _ended(facts, "refund"):
        if item.result.get("refund") and item.result["refund"] not in facts.numbers["refunds"]:
            yield Violation("S7", f"refund {item.result['refund']} was accepted, and it is gone")
    for item in _ended(facts, "notify"):
        key = (item.args.get("account"), item.args.get("dedupe_key"))
        if item.result.get("status") == 200 and key[1] and key not in stored:
            yield Violation("S7", f"notification {key[1]} of {key[0]} was acknowledged, and it is gone")


@of_order()
def handed_out_is_its_own(facts: Facts, order: OrderFacts) -> Found:
    """S8: a prepay that a buyer got belongs to the order, channel, method and amount that were asked for."""
    streams = {row["number"]: row for row in order.streams}
    for item in facts.done.get(order.number, []):
        if item.op != "pay" or item.result.get("code") != "prepay":
            continue
        row = streams.get(item.result.get("stream", ""))
        if row is None:
            yield Violation(
                "S8", f"{order.number}: a buyer was handed the stream {item.result.get('stream')} of somebody else"
            )
            continue
        got = (row["account"], row["method"], row["amount_minor"], row["currency"])
        asked = (item.args.get("channel", got[0]), item.args.get("method", got[1]),
                 item.result.get("amount_minor", got[2]), item.result.get("currency", got[3]))  # fmt: skip
        if got != asked:
            yield Violation(
                "S8", f"{order.number}: asked for {asked}, handed out {got}", (show(row, "number", "state"),)
            )


@of_order()
def paid_is_not_offered_again(facts: Facts, order: OrderFacts) -> Found:
    """S8: no new prepay leaves after the order was paid, beyond the 30 s for which a cache may be stale."""
    paid_at = order.order["paid_at"]
    settled = next((event["at"] for event in order.events if event["kind"] == "order.paid"), paid_at)
    for item in facts.done.get(order.number, []):
        is_mine = item.op == "pay" and item.result.get("code") == "prepay"
        if is_mine and settled is not None and item.args.get("db_at", 0.0) > settled.timestamp() + 30:
            yield Violation("S8", f"{order.number} was paid, and later a buyer was handed {item.result.get('stream')}")


@of_run()
def keys_bind_once(facts: Facts) -> Found:
    """S9: one (caller, route, key) made one thing; the same key with another body made nothing."""
    made: dict[tuple[str, ...], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for item in facts.history:
        key = item.args.get("idempotency_key")
        number = item.result.get("refund") or item.result.get("stream")
        if key and item.how == "ok" and number:
            caller = (str(item.args.get("caller", "")), item.op, str(key))
            made[caller][str(item.args.get("body", ""))].add(str(number))
    for key, bodies in made.items():
        numbers = set[str]().union(*bodies.values())
        if len(bodies) > 1 or len(numbers) > 1:
            yield Violation("S9", f"the key {key} made {sorted(numbers)} for {len(bodies)} different bodies")


@of_run()
def forgeries_are_refused(facts: Facts) -> Found:
    """X1: a message that its channel did not sign gets no success."""
    for item in _ended(facts, "forge"):
        if 200 <= int(item.result.get("status", 0)) < 300:
            yield Violation("X1", f"a forgery ({item.args.get('kind')}) was answered {item.result['status']}")


@of_run()
def forgeries_are_counted(facts: Facts) -> Found:
    """X1: each refusal left its mark in a security record."""
    refused = [item for item in _ended(facts, "forge") if item.result.get("status") == 401]
    counted = sum(row["count"] for row in facts.alone["notifications"] if row["state"] == "FORGED")
    if counted < len(refused):
        yield Violation("X1", f"{len(refused)} forgeries were refused, and {counted} were recorded")


@of_run()
def replays_are_accepted(facts: Facts) -> Found:
    """X2: a genuine message that was processed is a success at any age."""
    for item in _ended(facts, "replay"):
        if not 200 <= int(item.result.get("status", 0)) < 300:
            yield Violation("X2", f"a replay of {item.args.get('dedupe_key')} was answered {item.result.get('status')}")


@of_run()
def inbox_holds_once(facts: Facts) -> Found:
    """X2: one notification is stored once."""
    seen: dict[tuple[str, str], int] = defaultdict(int)
    for row in facts.alone["notifications"]:
        seen[row["account"], row["dedupe_key"]] += 1
    for key, times in seen.items():
        if times > 1:
            yield Violation("X2", f"notification {key} is stored {times} times")
