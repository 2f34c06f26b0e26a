"""What may happen at the same moment: pairs and triples of operations on one order, with how it must end."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torture.crash_scenarios import (
    PRICE,
    Expectation,
    ask_refund,
    bank_settles_refunds,
    bank_takes,
    bank_takes_again,
    ends,
    fault,
    pay,
    place,
    sweep,
    tell,
    wait,
)
from torture.crash_world import Step, World

Operation = Callable[[World], Callable[[], Any]]
"""Made after the setup: reads what it needs, and returns the call that a thread will make."""
NO_REDIS: dict[str, Any] = {"REDIS_URL": ""}


@dataclass(frozen=True)
class Pair:
    """Operations that race. Without Redis by default, so that every one of them reaches the database."""

    name: str
    setup: tuple[Step, ...]
    operations: tuple[Operation, ...]
    expects: Expectation
    settings: dict[str, Any] = field(default_factory=lambda: NO_REDIS)
    may_raise: tuple[str, ...] = ()
    preemptions_max: int = 2


# --- operations ---


def clicks(channel: str) -> Operation:
    """The buyer clicks once."""

    def operation(world: World) -> Callable[[], Any]:
        from payonce.payments.pay import pay_order

        order = world.order

        def click() -> Any:
            with world.operation("pay", order=order, channel=channel, method="qr") as done:
                result = pay_order(order, channel, "qr")
                done |= {"code": str(result.code), "stream": result.stream}
                if result.amount_minor:
                    done |= {"amount_minor": result.amount_minor, "currency": result.currency}
            return result.code

        return click

    return operation


def hears(channel: str, nth: int = 0) -> Operation:
    """payonce takes one notification of that channel."""

    def operation(world: World) -> Callable[[], Any]:
        from payonce.payments.notify import receive

        account, key, request = world.owed(channel)[nth]

        def hear() -> Any:
            with world.operation("notify", account=account, dedupe_key=key) as done:
                result = receive(account, request)
                done["status"] = result.answer.status
            return result.outcome

        return hear

    return operation


def runs(name: str) -> Operation:
    """A worker runs a sweep."""

    def operation(world: World) -> Callable[[], Any]:
        from payonce.payments.sweep import SWEEPS

        return SWEEPS[name][0]

    return operation


def closes(channel: str) -> Operation:
    """Somebody closes the newest stream of that channel."""

    def operation(world: World) -> Callable[[], Any]:
        from payonce.payments.close import close_stream

        number = world.streams(channel)[-1].number
        return lambda: close_stream(number, by="operator:ann")

    return operation


def cancels(world: World) -> Callable[[], Any]:
    """The shop closes the order."""
    from payonce.payments.expire import close_order

    order = world.order
    return lambda: close_order(order, by="shop:shop")


def amends(amount_minor: int) -> Operation:
    """The shop changes the price."""
    return lambda world: lambda: place(amount_minor, amend=True)(world)


def polls(channel: str) -> Operation:
    """Somebody asks the channel about the newest stream now."""

    def operation(world: World) -> Callable[[], Any]:
        from payonce.payments.poll import poll_stream

        number = world.streams(channel)[-1].number
        return lambda: poll_stream(number, by="system:test")

    return operation


def captures(channel: str) -> Operation:
    """A worker takes approved money."""

    def operation(world: World) -> Callable[[], Any]:
        from payonce.payments.capture import capture_stream

        number = world.streams(channel)[-1].number
        return lambda: capture_stream(number)

    return operation


def asks_refund(by: str, amount_minor: int) -> Operation:
    """An operator asks for a refund, having seen the stream as it was."""

    def operation(world: World) -> Callable[[], Any]:
        from payonce.payments.refund import request_refund, seen_token

        stream = world.streams()[0]
        seen = seen_token(stream)

        def ask() -> Any:
            with world.operation("refund", stream=stream.number) as done:
                answer = request_refund(stream.number, amount_minor, reason="duplicate", by=by, seen=seen)
                done["refund"] = answer.number
            return answer.code

        return ask

    return operation


def refunds(step: str, by: str) -> Operation:
    """One of the refund's steps: run, approve, decline."""

    def operation(world: World) -> Callable[[], Any]:
        from payonce.payments import refund

        number = world.refunds()[-1].number
        return lambda: getattr(refund, f"{step}_refund")(number, by=by)

    return operation


def decides(decision: str) -> Operation:
    """A person decides about the order's first open case."""

    def operation(world: World) -> Callable[[], Any]:
        from payonce.payments.statuses import Decision
        from payonce.payments.surplus import decide_case

        case = world.cases()[0].pk
        return lambda: decide_case(case, Decision(decision), by="cara")

    return operation


# --- how it ends ---


def one_of(*expectations: Expectation) -> Expectation:
    """Any of these is right."""

    def expectation(world: World) -> str:
        found = [one(world) for one in expectations]
        return "" if "" in found else " and ".join(found)

    return expectation


def anyhow(world: World) -> str:
    """The checker alone decides."""
    return ""


OPEN_STREAM = (place(), pay("blue"))
TAKEN = (*OPEN_STREAM, bank_takes("blue"))
PAID = (*TAKEN, tell(), sweep("publish"))
TWO_TAKEN = (place(), pay("red"), pay("blue"), bank_takes("red"), bank_takes("blue"))
SURPLUS = (*TWO_TAKEN, tell())
KEPT = ends("PAID", PRICE)
PAID_OR_CLOSED = one_of(ends("PAID", PRICE), ends("CLOSED", 0))
UNPAID = one_of(ends("OPEN", 0), ends("CLOSED", 0))
HALF = one_of(ends("PAID", 400), ends("PAID", 500))
_ALL = (
    Pair("pay-pay", (place(),), (clicks("blue"), clicks("blue")), ends("OPEN", 0, closed=1)),
    Pair("pay-pay-redis", (place(),), (clicks("blue"), clicks("blue")), ends("OPEN", 0, closed=1), settings={}),
    Pair("pay-switch", (place(),), (clicks("blue"), clicks("green")), ends("OPEN", 0)),
    Pair("switch-switch", (place(), pay("red")), (clicks("blue"), clicks("green")), ends("OPEN", 0)),
    Pair("stay-switch", OPEN_STREAM, (clicks("blue"), clicks("green")), ends("OPEN", 0)),
    Pair("pay-settle", TAKEN, (clicks("green"), hears("blue")), KEPT),
    Pair("settle-settle", TWO_TAKEN, (hears("red"), hears("blue")), ends("PAID", PRICE, succeeded=2)),
    Pair("settle-twice", TAKEN, (hears("blue"), hears("blue")), ends("PAID", PRICE, succeeded=1)),
    Pair("settle-expire", (place(seconds=60), pay("blue"), wait(50), bank_takes("blue"), wait(11)), (hears("blue"), runs("expire")), KEPT),
    Pair("settle-close", TAKEN, (hears("blue"), closes("blue")), KEPT),
    Pair("settle-cancel", TAKEN, (hears("blue"), cancels), KEPT),
    Pair("pay-cancel", (place(),), (clicks("blue"), cancels), ends("CLOSED", 0)),
    Pair("refund-refund", PAID, (asks_refund("ann", 600), asks_refund("bob", 500)), HALF),
    Pair("run-run", (*PAID, ask_refund(400)), (refunds("run", "system:refund"), refunds("run", "system:refund")), ends("PAID", 600)),
    Pair(
        "run-notification",
        (*PAID, fault("refund", "refund_pending"), ask_refund(400), sweep("refund"), bank_settles_refunds("DONE"), wait(10)),
        (runs("refund"), hears("blue", -1)), ends("PAID", 600),
    ),
    Pair("approve-approve", (*PAID, ask_refund(PRICE)), (refunds("approve", "bob"), refunds("approve", "cara")), ends("REFUNDED", 0)),
    Pair(
        "approve-decline", (*PAID, ask_refund(PRICE)), (refunds("approve", "bob"), refunds("decline", "cara")),
        one_of(ends("REFUNDED", 0), KEPT),
    ),
    Pair("poll-notify", TAKEN, (polls("blue"), hears("blue")), KEPT),
    Pair("sweep-notify", (*TAKEN, wait(4)), (runs("poll"), hears("blue")), KEPT),
    Pair("publish-publish", (*SURPLUS, sweep("refund")), (runs("publish"), runs("publish")), KEPT),
    Pair("amend-pay", OPEN_STREAM, (amends(1200), clicks("blue")), UNPAID),
    Pair(
        "amend-settle", TAKEN, (amends(1200), hears("blue")), one_of(KEPT, ends("OPEN", 0)), may_raise=("AmendRefused",)
    ),
    Pair("keep-run", SURPLUS, (decides("keep"), runs("refund")), one_of(ends("PAID", PRICE), ends("PAID", 2 * PRICE))),
    Pair("capture-cancel", (place(), pay("gold"), bank_takes("gold")), (captures("gold"), cancels), PAID_OR_CLOSED),
    Pair("capture-capture", (place(), pay("gold"), bank_takes("gold")), (captures("gold"), captures("gold")), KEPT),
    Pair("second-capture", (*TAKEN, bank_takes_again("blue")), (hears("blue"), hears("blue", -1)), ends("PAID", PRICE, succeeded=2)),
    Pair(
        "pay-pay-settle", (place(), pay("red"), bank_takes("red")), (clicks("blue"), clicks("green"), hears("red")), KEPT,
        preemptions_max=1,
    ),
)  # fmt: skip
PAIRS = {pair.name: pair for pair in _ALL}
