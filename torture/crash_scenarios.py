"""Whole stories of an order, step by step. Each step may be taken again: it is what a client does whose server died."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

from torture.crash_world import Step, World

PRICE = 1000
Expectation = Callable[[World], str]


@dataclass(frozen=True)
class Scenario:
    """A story, and what must have come of it once everybody tried again.

    `is_told` False: every notification is lost. `is_listed`: healing goes on for the days that statements need.
    """

    name: str
    steps: tuple[Step, ...]
    expects: Expectation
    is_told: bool = True
    is_listed: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


# --- expectations ---


def ends(state: str, net_minor: int, **streams: int) -> Expectation:
    """The order ends in this state and the bank holds so much; streams are counted by state in lower case."""

    def expectation(world: World) -> str:
        from payonce.orders.models import Order

        was = Order.objects.get(number=world.order).state, world.net_minor()
        if was != (state, net_minor):
            return f"the order should be {state} with {net_minor} at the bank; it is {was[0]} with {was[1]}"
        found = [row.state.lower() for row in world.streams()]
        wrong = {name: found.count(name) for name, count in streams.items() if found.count(name) != count}
        return f"streams should be {streams}; there are {sorted(found)}" if wrong else ""

    return expectation


# --- steps ---


def place(amount_minor: int = PRICE, seconds: float | None = None, amend: bool = False) -> Step:
    """The shop places (or amends) the order."""

    def step(world: World) -> None:
        from payonce.orders.place import place_order

        expires_at = None
        if seconds is not None:
            expires_at = datetime.fromtimestamp(world.now(), UTC) + timedelta(seconds=seconds)
        place_order(
            "shop",
            "A-1",
            amount_minor=amount_minor,
            currency="CNY",
            subject="A book",
            expires_at=expires_at,
            amend=amend,
        )

    return step


def pay(channel: str) -> Step:
    """The buyer clicks, and clicks again while the answer says: in progress, or try again."""

    def step(world: World) -> None:
        from payonce.payments.pay import pay_order
        from payonce.payments.pay_result import PayCode

        for _ in range(6):
            with world.operation("pay", order=world.order, channel=channel, method="qr") as done:
                result = pay_order(world.order, channel, "qr")
                done |= {"code": str(result.code), "stream": result.stream}
                if result.code is PayCode.PREPAY:
                    done |= {"amount_minor": result.amount_minor, "currency": result.currency}
            if result.code not in (PayCode.IN_PROGRESS, PayCode.UNAVAILABLE, PayCode.CONFIRMING):
                return
            world.advance(5)

    return step


def bank_takes(channel: str, *, attempt: int = -1, force: bool = False) -> Step:
    """The buyer pays in the wallet, on the newest stream of that channel."""

    def step(world: World) -> None:
        found = world.streams(channel)
        if found:
            world.control.pay(found[attempt].number, account=channel, force=force)

    return step


def bank_takes_again(channel: str) -> Step:
    """The bank takes the money a second time under the same number."""

    def step(world: World) -> None:
        world.control.second_capture(world.streams(channel)[0].number, account=channel)

    return step


def fault(op: str, do: str, **arguments: Any) -> Step:
    """Plan a fault at the bank."""
    return lambda world: world.control.fault(op, do, **arguments) and None


def tell(*, again: bool = False) -> Step:
    """The bank's notifications arrive."""
    return lambda world: world.deliver(again=again)


def sweep(*names: str) -> Step:
    """A worker runs these sweeps."""
    return lambda world: world.sweep(*names)


def wait(seconds: float) -> Step:
    """Time passes."""
    return lambda world: world.advance(seconds)


def flush(world: World) -> None:
    """Redis forgets everything."""
    world.redis().flushdb()


def ask_refund(amount_minor: int, channel: str = "blue") -> Step:
    """An operator asks once: a repeat carries the page's token, which is stale by then."""

    def step(world: World) -> None:
        from payonce.payments.refund import request_refund

        stream = world.streams(channel)[0]
        if world.refunds():
            return
        with world.operation("refund", stream=stream.number) as done:
            answer = request_refund(stream.number, amount_minor, reason="duplicate", by="ann")
            done["refund"] = answer.number

    return step


def approve(world: World) -> None:
    """A second person approves."""
    from payonce.payments.refund import approve_refund

    for refund in world.refunds():
        approve_refund(refund.number, by="bob")


def bank_settles_refunds(state: str) -> Step:
    """What was pending at the bank ends."""

    def step(world: World) -> None:
        from torture.sources import read_ledger

        for row in read_ledger(world.site.bank).refunds:
            if row["state"] == "IN_PROGRESS":
                world.control.settle_refund(row["payment_number"], row["number"], state, account=row["account"])

    return step


def cancel(world: World) -> None:
    """The shop closes the order."""
    from payonce.payments.expire import close_order

    close_order(world.order, by="shop:shop")


def failing_shop(times: int) -> Step:
    """The shop's hook raises so often in this process."""

    def step(world: World) -> None:
        from config.shop import DemoShop

        told, left = DemoShop.order_event, [None] * times

        def order_event(shop: DemoShop, event: Any) -> None:
            if left:
                left.pop()
                raise RuntimeError("the shop's database is away")
            told(shop, event)

        mock.patch.object(DemoShop, "order_event", order_event).start()

    return step


# A process that dies between the commit and its follow-up leaves the cached prepay, for at most 30 s: by then it is gone.
FORGOTTEN = wait(10)
PAID = (place(), pay("blue"), bank_takes("blue"), tell())
REFUNDS = sweep("refund", "publish")
_ALL = (
    Scenario("pay", (place(), pay("blue")), ends("OPEN", 0, closed=1)),
    Scenario("pay-notify", (*PAID, sweep("publish")), ends("PAID", PRICE, succeeded=1)),
    Scenario(
        "pay-lost-poll", (place(), pay("blue"), bank_takes("blue"), wait(4), sweep("poll", "publish")),
        ends("PAID", PRICE, succeeded=1), is_told=False,
    ),
    Scenario(
        "lost-prepay", (place(), fault("prepay", "drop_after"), pay("blue"), bank_takes("blue"), tell(), sweep("publish")),
        ends("PAID", PRICE, succeeded=1),
    ),
    Scenario(
        "switch-proven", (place(), pay("blue"), pay("green"), bank_takes("green"), tell(), sweep("publish")),
        ends("PAID", PRICE, succeeded=1, closed=1),
    ),
    Scenario(
        "switch-both-paid",
        (place(), pay("red"), pay("blue"), bank_takes("red"), bank_takes("blue"), tell(), REFUNDS, tell(), sweep()),
        ends("PAID", PRICE, succeeded=2),
    ),
    Scenario(
        "both-paid-lost",
        (place(), pay("red"), pay("blue"), bank_takes("red"), bank_takes("blue"), wait(4),
         sweep("poll", "close"), wait(2), REFUNDS, sweep()),
        ends("PAID", PRICE, succeeded=2), is_told=False,
    ),
    Scenario(
        "close-race", (place(), pay("blue"), fault("close", "race_pay"), pay("green"), wait(16), sweep("close"), tell(), REFUNDS),
        ends("PAID", PRICE, succeeded=1),
    ),
    Scenario(
        "late-payment",
        (place(seconds=60), pay("green"), wait(70), sweep("expire"), bank_takes("green", force=True), tell(), REFUNDS, tell()),
        ends("CLOSED", 0, succeeded=1),
    ),
    Scenario(
        "late-accepted",
        (place(seconds=60), pay("green"), wait(70), sweep("expire"), bank_takes("green", force=True), tell(), sweep("publish")),
        ends("PAID", PRICE, succeeded=1), settings={"LATE_PAYMENT": "ACCEPT"},
    ),
    Scenario(
        "second-capture", (*PAID, bank_takes_again("blue"), tell(), REFUNDS, tell(again=True)),
        ends("PAID", PRICE, succeeded=2),
    ),
    Scenario(
        "statement",
        (place(), pay("blue"), bank_takes("blue"), wait(3), sweep("poll", "publish"), bank_takes_again("blue"),
         sweep("statement"), wait(172_800), sweep("statement"), REFUNDS),
        ends("PAID", PRICE, succeeded=2), is_told=False, is_listed=True,
    ),
    Scenario(
        "our-capture", (place(), pay("gold"), bank_takes("gold"), wait(4), sweep("poll"), tell(), sweep("publish")),
        ends("PAID", PRICE, succeeded=1),
    ),
    Scenario(
        "refund-approved", (*PAID, ask_refund(PRICE), approve, REFUNDS, tell(), sweep("publish")),
        ends("REFUNDED", 0, succeeded=1),
    ),
    Scenario(
        "refund-lost-answer",
        (*PAID, ask_refund(300), fault("refund", "drop_after"), sweep("refund"), wait(20), REFUNDS),
        ends("PAID", 700, succeeded=1),
    ),
    Scenario(
        "refund-pending",
        (*PAID, fault("refund", "refund_pending", then="DONE", seconds=30), ask_refund(400), sweep("refund"), wait(31), tell(), REFUNDS),
        ends("PAID", 600, succeeded=1),
    ),
    Scenario(
        "amend", (place(), pay("blue"), place(1200, amend=True), FORGOTTEN, pay("blue"), bank_takes("blue"), tell(), sweep("publish")),
        ends("PAID", 1200, succeeded=1, closed=1),
    ),
    Scenario(
        "amend-old-paid",
        (place(), pay("red"), place(1200, amend=True), FORGOTTEN, pay("red"), bank_takes("red", attempt=0), bank_takes("red"),
         tell(), REFUNDS, tell()),
        ends("PAID", 1200, succeeded=2),
    ),
    Scenario(
        "expire", (place(seconds=60), pay("blue"), wait(61), sweep("expire", "publish")), ends("CLOSED", 0, closed=1)
    ),
    Scenario(
        "cancel-lost-answer", (place(), pay("blue"), fault("close", "drop_after"), cancel, wait(16), sweep("close", "expire", "publish")),
        ends("CLOSED", 0, closed=1),
    ),
    Scenario(
        "failing-shop", (*PAID, failing_shop(3), sweep("publish"), wait(16), sweep("publish"), wait(61), sweep("publish")),
        ends("PAID", PRICE, succeeded=1),
    ),
    Scenario(
        "double-click",
        (place(), pay("blue"), pay("blue"), flush, pay("blue"), bank_takes("blue"), tell(), tell(again=True),
         pay("blue"), sweep("publish")),
        ends("PAID", PRICE, succeeded=1),
    ),
)  # fmt: skip
SCENARIOS = {scenario.name: scenario for scenario in _ALL}
