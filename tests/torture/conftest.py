"""A whole run, played once by real steps against the real bank, in which every invariant holds."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.conf import settings
from django.db import connections

from config.environment import with_database
from payonce.channels.sandbox.sender import Style
from payonce.orders.place import place_order
from payonce.orders.statuses import LateDecision
from payonce.payments import expire, refund, sweep
from payonce.payments.pay import pay_order
from tests.clock import standing_clock
from tests.model.bank import bank_here
from tests.model.world import ACCOUNTS, NOON, TABLES, ModelShop, World
from tests.torture.scene import Run, Scene, open_scene

ORDERS = ("twice", "returned", "late", "amended", "parts", "asked", "disputed", "doubled")


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: Any) -> Iterator[Run]:
    """One played run for a whole module; what a test plants in it is rolled back."""
    with django_db_blocker.unblock(), bank_here(ACCOUNTS) as bank, standing_clock(NOON) as clock:
        if settings.REDIS_URL:
            redis.Redis.from_url(settings.REDIS_URL).flushdb()
        world = World(bank, clock, {"REFUND": {"APPROVAL_MINOR": 900}})
        try:
            world.begin()
            orders = play(world)
            url = with_database(settings.DATABASE_URL, str(connections["default"].settings_dict["NAME"]))
            yield Run(url, world.ledger(), list(ModelShop.inbox), world.history, orders)
        finally:
            world.end()
            with connections["default"].cursor() as cursor:
                cursor.execute(f"TRUNCATE {', '.join(TABLES)} RESTART IDENTITY CASCADE")
            connections["default"].close()


@pytest.fixture
def scene(run: Run) -> Iterator[Scene]:
    """The played run, to be broken: nothing that is done to it is committed."""
    with open_scene(run) as opened:
        yield opened


def play(world: World) -> dict[str, str]:
    """Eight orders: every way in which money goes astray, and every repair."""
    orders = {name: _place(world, name) for name in ORDERS}
    first, second = _pay(world, orders["twice"], "shy"), _pay(world, orders["twice"], "sure")
    _wallet(world, second)
    _deliver_all(world)
    _wallet(world, first)
    for name in ("parts", "disputed", "doubled"):
        _wallet(world, _pay(world, orders[name], "sure"))
    approved = _pay(world, orders["returned"], "hold")
    assert world.control.pay(approved).state == "APPROVED"
    world.advance(5)
    sweep.sweep_poll()
    _pay(world, orders["amended"], "shy")
    _place(world, "amended", amount=500, amend=True)
    _pay(world, orders["amended"], "sure")
    late, asked = _pay(world, orders["late"], "sure"), _pay(world, orders["asked"], "sure")
    expire.close_order(orders["asked"], by="shop:shop")
    world.advance(100)
    sweep.sweep_expire()
    _wallet(world, late, force=True)
    world.control.dispute(_number(world, orders["disputed"]), amount_minor=300)
    world.control.second_capture(_number(world, orders["doubled"]))
    world.took("sure", _number(world, orders["doubled"]), 1000)
    _deliver_all(world)
    ModelShop.failures = 1
    sweep.sweep_publish()
    ModelShop.verdict = LateDecision.ASK
    _wallet(world, asked, force=True)
    _deliver_all(world)
    for message in world.messages():
        world.deliver(message, Style(), "replay")
    world.deliver(world.messages()[0], Style(forgery="bad_signature"), "forge")
    _refund_by_persons(world, orders)
    world.heal()
    world.drain()
    for number in orders.values():
        _watch(world, number)
    return orders


def _place(world: World, name: str, *, amount: int = 1000, amend: bool = False) -> str:
    life = {"late": 90, "asked": None}.get(name, 900)
    expires_at = None if life is None else world.now + timedelta(seconds=life)
    placed = place_order(
        "shop", name, amount_minor=amount, currency="CNY", subject="Book", expires_at=expires_at, amend=amend
    )
    return placed.order.number


def _pay(world: World, order: str, account: str) -> str:
    result = pay_order(order, account, "qr")
    assert result.code == "prepay", result
    args = {"order": order, "channel": account, "method": "qr", "db_at": world.now.timestamp()}
    facts = {
        "code": "prepay",
        "stream": result.stream,
        "amount_minor": result.amount_minor,
        "currency": result.currency,
    }
    world.log("pay", "ok", args, facts)
    return result.stream


def _deliver_all(world: World) -> None:
    for message in world.messages():
        world.deliver(message, Style(), "notify")


def _wallet(world: World, stream: str, *, force: bool = False) -> None:
    acted = world.control.pay(stream, force=force)
    assert acted.ok, acted
    row = next(row for row in world.streams() if row.number == stream)
    world.took(row.account, stream, row.amount_minor)


def _number(world: World, order: str) -> str:
    return next(row.number for row in world.streams() if row.order.number == order)


def _refund_by_persons(world: World, orders: dict[str, str]) -> None:
    """One refund with a second person, one declined, and two parts of another order."""
    whole = refund.request_refund(_number(world, orders["returned"]), 1000, reason="duplicate", by="alice")
    refund.decline_refund(whole.number, "bob")
    again = refund.request_refund(_number(world, orders["returned"]), 1000, reason="duplicate", by="alice")
    refund.approve_refund(again.number, "bob")
    for _part in range(2):
        asked = refund.request_refund(_number(world, orders["parts"]), 400, reason="duplicate", by="alice")
        refund.run_refund(asked.number)
        world.log(
            "refund",
            "ok",
            {"order": orders["parts"], "idempotency_key": asked.number, "body": "400"},
            {"refund": asked.number},
        )


def _watch(world: World, order: str) -> None:
    """A buyer's page pulls the state and hears the same by push."""
    from payonce.orders.models import Order

    row = Order.objects.get(number=order)
    facts = {"order": order, "version": row.version, "state": row.state}
    world.log("pull", "ok", {"order": order}, facts)
    world.log("push", "ok", {"order": order}, facts)
