"""A storm over all channels at once: orders wander from one wire format to the next, answers and notifications are lost, old codes
are paid late or twice. Then everything heals, time passes, and the checker judges every order by the bank's books.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connections

from config.environment import with_database
from payonce.channels import registry, wechat_pay_bill
from payonce.channels.alipay import AlipayChannel
from payonce.channels.base import Conversation
from payonce.channels.messages import CloseAnswer, CloseState, Known, Outcome, PaymentRef
from payonce.channels.sandbox import testing
from payonce.channels.sandbox.testing import RunningSandbox
from payonce.orders.models import Order
from payonce.payments import cache, sweep
from payonce.payments.models import Discrepancy, StatementDay, Stream
from payonce.payments.pay import PayCode, pay_order
from tests.clock import Clock, movable_clock
from tests.factories import open_order
from torture.check import check
from torture.rules import Mode
from torture.shown import closes_of, in_the_channels_words
from torture.sources import read_ledger

PRICE = 30_000
METHODS = {"blue": "qr", "wechat_pay": "qr", "alipay": "qr", "stripe": "web", "paypal": "web"}
SPOILT = ("drop_before", "drop_after", "error_after", "garbage", "truncate", "delay_after")
UNTOLD = ({"do": "lose"}, {"do": "repeat", "copies": 3}, {"do": "forge"}, {"do": "acknowledgement_lost"})
SWEEPS = ("poll", "close", "refund", "expire", "inbox", "publish", "reconcile", "statement")
DAY_AND_MORE = [20, 20, 40, 120, 300, 900, 1_800, *(3_600 for _ in range(4)), *(7_200 for _ in range(12))]


@dataclass
class Storm:
    """The running bank, its clock and the database's, and what the buyers did."""

    bank: RunningSandbox
    clock: Clock
    rng: random.Random
    ahead: float = 0.0
    paid: int = 0
    refused: int = 0
    codes: set[str] = field(default_factory=set)

    def pass_time(self, seconds: float) -> None:
        """Time passes everywhere but in the messages' own signatures, which are made and judged by true clocks."""
        self.clock.advance(seconds)
        self.ahead += seconds
        self.bank.control.advance_clock(seconds)
        for account in METHODS:
            self.bank.control.set_skew(account, -self.ahead)

    def sweep(self) -> None:
        for name in SWEEPS:
            sweep.SWEEPS[name][0]()

    def disturb(self, account: str) -> None:
        """One thing goes wrong at the channel, or nothing."""
        op = self.rng.choice(("", "prepay", "query", "close", "notify", "notify"))
        if op == "notify":
            self.bank.control.fault(op, account=account, **self.rng.choice(UNTOLD))
        elif op:
            self.bank.control.fault(op, self.rng.choice(SPOILT), account=account, seconds=0.05)

    def wander(self) -> Order:
        """A buyer chooses some channels in turn, and pays some of what was handed out, also old codes, also twice."""
        order = open_order(amount_minor=PRICE)
        for account in self.rng.sample(sorted(METHODS), self.rng.randint(1, len(METHODS))):
            self.disturb(account)
            for _ in range(self.rng.randint(1, 2)):
                result = pay_order(order.number, account, METHODS[account])
                self.codes.add(result.code.value)
            if result.code is PayCode.PREPAY and self.rng.random() < 0.4:
                self.bank.control.open_page(result.stream, account=account)
        streams = list(Stream.objects.filter(order=order).exclude(handed_out_at=None))
        for stream in self.rng.sample(streams, self.rng.randint(min(1, len(streams)), len(streams))):
            if self.rng.random() < 0.2:
                self.bank.control.fault("capture", self.rng.choice(SPOILT), account=stream.account, seconds=0.05)
            took = self.bank.control.pay(stream.number, account=stream.account).ok
            self.paid, self.refused = self.paid + took, self.refused + (not took)
        return order


@pytest.fixture
def storm(transactional_db: None, settings: Any, redis_client: Any, live_server: Any, request: Any) -> Iterator[Storm]:
    accounts = {
        name: {"clock_skew_seconds": 1, "notification_horizon_seconds": 3_600}
        if name == "blue"
        else {"skin": name, "notify_url": f"{live_server.url}/notify/{name}/"}
        for name in METHODS
    }
    with testing.serve_in_thread(accounts) as bank, movable_clock() as clock:
        settings.PAYONCE = {
            **settings.PAYONCE, "CHANNELS": bank.accounts, "GRACE_SECONDS": 0, "BASE_URL": live_server.url,
            "SWITCH": {"PROOF_SECONDS": 0},
        }  # fmt: skip
        registry.reset()
        cache.reset()
        yield Storm(bank, clock, random.Random(request.param))
    registry.reset()


def judged(storm: Storm) -> list[str]:
    """Every violation that the checker finds, once everything is at rest."""
    url = with_database(django_settings.DATABASE_URL, str(connections["default"].settings_dict["NAME"]))
    skins = {name: name for name in METHODS if name != "blue"}
    closes = closes_of(url)
    report = check(url, lambda: in_the_channels_words(read_ledger(storm.bank.folder), skins, closes), mode=Mode.REST)
    return [str(item) for item in report.violations]


@pytest.mark.parametrize("storm", range(3), indirect=True)
def test_orders_that_wander_through_every_channel_are_paid_once(storm, monkeypatch):
    """M1–M7, S1–S4, S13, S14 at rest, and every statement agrees."""
    # An empty day is told from one that is not ready by the process's clock, which stands still here.
    monkeypatch.setattr(wechat_pay_bill, "is_ready", lambda _day, _at: True)
    monkeypatch.setattr(AlipayChannel, "_without_bill", lambda _channel, _day, _answer: Known((), ""))
    orders = [storm.wander() for _ in range(12)]
    storm.bank.control.clear_faults()
    for seconds in DAY_AND_MORE:
        storm.pass_time(seconds)
        storm.sweep()
    assert judged(storm) == []
    # What the channels list agrees with our rows, each in its own calendar: a difference nobody made would pay money back.
    for _ in range(4):
        storm.pass_time(86_400)
        storm.sweep()
    days = StatementDay.objects.exclude(account="blue").filter(compared_at__isnull=False)
    assert days.filter(line_count__gt=0).values("account").distinct().count() >= 3
    found = Discrepancy.objects.filter(kind="statement").values_list("account", "subject", "summary")
    assert list(found) == []
    assert not Stream.objects.filter(confirmed_by="statement").exists()
    assert judged(storm) == []
    states = [Order.objects.get(pk=order.pk).state for order in orders]
    assert set(states) <= {"PAID", "CLOSED"}, states
    # Hard enough to mean something.
    assert storm.paid >= 5, (storm.paid, storm.refused)
    assert Stream.objects.values("account").distinct().count() == len(METHODS)


@pytest.mark.parametrize("storm", [3], indirect=True)
def test_the_judge_of_a_storm_sees_money_that_nobody_gave_back(storm):
    """The control: a build that settles nothing by polling and hears no notification leaves money unexplained (M1)."""
    storm.bank.control.fault("notify", "lose", times=None)
    order = open_order(amount_minor=PRICE)
    result = pay_order(order.number, "wechat_pay", "qr")
    assert storm.bank.control.pay(result.stream, account="wechat_pay").ok
    assert any("M1" in text or "S14" in text for text in judged(storm))


@pytest.mark.parametrize("storm", [3], indirect=True)
def test_the_judge_of_a_storm_sees_a_close_that_its_channel_never_proved(storm, monkeypatch):
    """S4, the control: at Alipay "no such trade" proves nothing while the code can still be scanned, also once its time is over."""

    def careless(_channel: AlipayChannel, _ref: PaymentRef) -> Conversation[Outcome[CloseAnswer]]:
        return Known(CloseAnswer(CloseState.CLOSED_PROVED), "TRADE_NOT_EXIST")
        yield

    monkeypatch.setattr(AlipayChannel, "close", careless)
    order = open_order(amount_minor=PRICE)
    assert pay_order(order.number, "alipay", "qr").code is PayCode.PREPAY
    assert pay_order(order.number, "stripe", "web").code is PayCode.PREPAY
    assert Stream.objects.get(account="alipay").close_proof == "answer"
    for seconds in DAY_AND_MORE:
        storm.pass_time(seconds)
        storm.sweep()
    assert [text for text in judged(storm) if "S4" in text and "proven closed" in text]
