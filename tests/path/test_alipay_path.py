"""The whole path through Alipay's gateway over HTTP, from the click to the refund; the bank's ledger says what truly happened."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from payonce.channels import registry
from payonce.channels.http import send
from payonce.channels.messages import HttpRequest, HttpResponse, NotificationRequest
from payonce.channels.sandbox.skins.alipay_wire import BUYER
from payonce.channels.sandbox.testing import RunningSandbox, serve_in_thread
from payonce.orders.models import Event, Order
from payonce.payments import cache, close, sweep
from payonce.payments.models import Discrepancy, Notification, Refund, Stream
from payonce.payments.notify import Received, receive
from payonce.payments.pay import PayCode, pay_order
from payonce.payments.refund import RefundCode, request_refund
from tests.channels.alipay.shop import account_options
from tests.channels.inbox import Inbox, inbox
from tests.clock import Clock, movable_clock
from tests.factories import open_order

PRICE = 1_000


@dataclass
class Market:
    """The bank with an Alipay account and a wallet of its own, the shop's address for notifications, and a clock."""

    sandbox: RunningSandbox
    box: Inbox
    clock: Clock

    @property
    def control(self) -> Any:
        return self.sandbox.control

    def net(self, account: str, number: str) -> int:
        return int(self.control.sums(number, account=account)["net_minor"])

    def taken(self) -> int:
        """All that the merchant has, in all accounts."""
        return sum(sums["net_minor"] for of in self.control.ledger()["sums"].values() for sums in of.values())

    def refunds(self, number: str) -> list[dict[str, Any]]:
        return list(self.control.ledger(number)["refunds"])

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.control.advance_clock(seconds)

    def heal(self, rounds: int = 4) -> None:
        """Time passes and the sweeps run: nothing else repairs anything."""
        for _ in range(rounds):
            self.pass_time(16)
            for name in ("poll", "close", "refund", "expire", "inbox"):
                sweep.SWEEPS[name][0]()

    def tell(self, number: str, **how: Any) -> NotificationRequest:
        """The message about a payment as the bank sent it."""
        self.control.send_notification(number, account="alipay", event="payment.paid", **how)
        return [message for message in self.box.messages if number.encode() in message.body][-1]


@pytest.fixture(scope="module")
def keys() -> dict[str, dict[str, Any]]:
    """Keys of both modes are made once."""
    return {skin: account_options(skin)[0] for skin in ("alipay", "alipay_cert")}


@contextmanager
def open_market(skin: str, keys: dict[str, dict[str, Any]], settings: Any) -> Iterator[Market]:
    accounts = {"alipay": keys[skin], "blue": {"clock_skew_seconds": 1}}
    with inbox() as box, serve_in_thread(accounts) as sandbox, movable_clock() as clock:
        settings.PAYONCE = {
            **settings.PAYONCE, "CHANNELS": sandbox.accounts, "GRACE_SECONDS": 0, "SWITCH": {"PROOF_SECONDS": 0},
            "BASE_URL": box.url.removesuffix("/notify/"),
        }  # fmt: skip
        registry.reset()
        cache.reset()
        sandbox.control.hold_notifications()
        yield Market(sandbox, box, clock)
    registry.reset()


@pytest.fixture(params=["alipay", "alipay_cert"])
def market(
    request: pytest.FixtureRequest, transactional_db: None, settings: Any, redis_client: Any, keys: Any
) -> Iterator[Market]:
    """Both key modes."""
    with open_market(request.param, keys, settings) as opened:
        yield opened


@pytest.fixture
def plain(transactional_db: None, settings: Any, redis_client: Any, keys: Any) -> Iterator[Market]:
    """Public-key mode alone, where the mode makes no difference."""
    with open_market("alipay", keys, settings) as opened:
        yield opened


def handed_out(order: Order, channel: str = "alipay", method: str = "qr") -> Stream:
    result = pay_order(order.number, channel, method)
    assert result.code is PayCode.PREPAY, result
    return Stream.objects.get(number=result.stream)


def state_of(order: Order) -> str:
    order.refresh_from_db()
    return order.state


def test_a_scanned_code_is_paid_and_its_notification_settles_the_order(market: Market) -> None:
    """X1, X2, S7: forgeries change nothing, the true one settles, its repeats are acknowledged."""
    order = open_order(amount_minor=PRICE, currency="CNY")
    first = pay_order(order.number, "alipay", "qr")
    assert pay_order(order.number, "alipay", "qr").prepay_value == first.prepay_value
    page = send(HttpRequest("GET", first.prepay_value))
    assert isinstance(page, HttpResponse)
    assert page.status == 200
    assert market.control.pay(first.stream, account="alipay").ok
    for kind in ("bad_signature", "no_signature", "altered_body", "wrong_account", "other_secret"):
        forged = receive("alipay", market.tell(first.stream, forgery=kind))
        assert (forged.outcome, forged.answer.status) == (Received.FORGED, 401)
    assert state_of(order) == "OPEN"
    genuine = market.tell(first.stream)
    told = receive("alipay", genuine)
    assert (told.outcome, told.answer.status, told.answer.body) == (Received.APPLIED, 200, b"success")
    assert state_of(order) == "PAID"
    assert receive("alipay", genuine).outcome is Received.REPEAT
    stream = Stream.objects.get(number=first.stream)
    assert (stream.role, stream.confirmed_by, stream.captured_minor) == ("keeper", "notification", PRICE)
    assert stream.channel_reference
    assert market.net("alipay", stream.number) == market.taken() == PRICE
    assert not Discrepancy.objects.exists()


@pytest.mark.parametrize("method", ["web", "h5", "app"])
def test_a_page_is_opened_paid_and_notified(plain: Market, method: str) -> None:
    order = open_order(amount_minor=PRICE, currency="CNY")
    result = pay_order(order.number, "alipay", method)
    assert plain.control.calls("prepay", result.stream, account="alipay") == 0
    url = result.prepay_value
    url = url if url.startswith("http") else f"{plain.sandbox.accounts['alipay']['base_url']}?{url}"
    opened = send(HttpRequest("GET", url))
    assert isinstance(opened, HttpResponse)
    assert opened.status == 302
    assert plain.control.pay(result.stream, account="alipay").ok
    assert receive("alipay", plain.tell(result.stream)).outcome is Received.APPLIED
    assert state_of(order) == "PAID"
    assert plain.taken() == PRICE


def test_a_lost_notification_is_found_by_polling(market: Market) -> None:
    order = open_order(amount_minor=PRICE, currency="CNY")
    stream = handed_out(order)
    market.control.clear_faults()
    market.control.fault("notify", "lose", account="alipay", times=None)
    assert market.control.pay(stream.number, account="alipay").ok
    market.heal(rounds=1)
    assert state_of(order) == "PAID"
    stream.refresh_from_db()
    assert stream.confirmed_by == "poll"
    assert market.taken() == PRICE


def test_a_prepay_whose_answer_is_lost_goes_on_under_its_number(plain: Market) -> None:
    order = open_order(amount_minor=PRICE, currency="CNY")
    plain.control.fault("prepay", "drop_after", account="alipay")
    assert pay_order(order.number, "alipay", "qr").code is PayCode.UNAVAILABLE
    stream = handed_out(order)
    assert Stream.objects.count() == 1
    assert plain.control.pay(stream.number, account="alipay").ok
    assert receive("alipay", plain.tell(stream.number)).outcome is Received.APPLIED
    assert plain.taken() == PRICE


def test_a_scanned_code_is_proven_closed_before_another_channel_opens(market: Market) -> None:
    """S3: the buyer scanned it, so a trade exists and can be closed."""
    order = open_order(amount_minor=PRICE, currency="CNY")
    old = handed_out(order)
    market.control.open_page(old.number, account="alipay")
    new = handed_out(order, "blue")
    old.refresh_from_db()
    assert (old.state, old.close_proof, old.is_watched) == ("CLOSED", "answer", False)
    assert not market.control.pay(old.number, account="alipay").ok
    assert market.control.pay(new.number, account="blue").ok
    market.heal(rounds=1)
    assert state_of(order) == "PAID"
    assert market.taken() == PRICE


def test_an_unscanned_code_cannot_be_closed_and_is_watched(plain: Market) -> None:
    """S3, S4: TRADE_NOT_EXIST proves nothing; going back to Alipay takes the same code up again."""
    order = open_order(amount_minor=PRICE, currency="CNY")
    old = handed_out(order)
    new = handed_out(order, "blue")
    old.refresh_from_db()
    assert (old.state, old.is_watched) == ("CLOSING", True)
    again = pay_order(order.number, "alipay", "qr")
    assert (again.code, again.stream) == (PayCode.PREPAY, old.number)
    new.refresh_from_db()
    assert new.state == "CLOSED"
    assert plain.control.pay(old.number, account="alipay").ok
    plain.heal(rounds=1)
    assert state_of(order) == "PAID"
    assert plain.taken() == PRICE


def test_the_buyer_who_paid_while_switching_is_told_that_it_is_paid(plain: Market) -> None:
    """S5."""
    order = open_order(amount_minor=PRICE, currency="CNY")
    old = handed_out(order)
    assert plain.control.pay(old.number, account="alipay").ok
    result = pay_order(order.number, "blue", "qr")
    assert (result.code, result.stream) == (PayCode.ALREADY_PAID, old.number)
    assert plain.taken() == PRICE


def test_a_payment_that_wins_against_the_close_is_a_success(plain: Market) -> None:
    """S5: the close is refused by the state, and the query tells the money."""
    order = open_order(amount_minor=PRICE, currency="CNY")
    old = handed_out(order)
    plain.control.open_page(old.number, account="alipay")
    plain.control.fault("close", "race_pay", account="alipay", winner="pay")
    assert close.close_stream(old.number, by="system:test") == "paid"
    assert state_of(order) == "PAID"
    assert plain.taken() == PRICE


def test_an_old_code_paid_after_another_channel_is_surplus_and_given_back(market: Market) -> None:
    """M1, M3: an unscanned code was still payable; its money goes back exactly once."""
    order = open_order(amount_minor=PRICE, currency="CNY")
    old = handed_out(order)
    new = handed_out(order, "blue")
    assert market.control.pay(new.number, account="blue").ok
    market.heal(rounds=1)
    assert state_of(order) == "PAID"
    assert market.control.pay(old.number, account="alipay").ok
    told = receive("alipay", market.tell(old.number))
    assert told.answer.body == b"success"
    market.heal()
    refund = Refund.objects.get()
    assert (refund.state, refund.amount_minor) == ("SUCCEEDED", PRICE)
    assert [row["state"] for row in market.refunds(old.number)] == ["DONE"]
    assert (market.net("alipay", old.number), market.net("blue", new.number)) == (0, PRICE)
    assert {case.state for case in Discrepancy.objects.all()} == {"RESOLVED"}


@pytest.mark.parametrize("fault", ["drop_after", "bad_signature", "no_signature", "error_after", "truncate", "garbage"])
def test_a_refund_whose_answer_is_lost_is_done_exactly_once(plain: Market, fault: str) -> None:
    """M2, M6: unknown is asked about, under the same number."""
    order = open_order(amount_minor=PRICE, currency="CNY")
    old, new = handed_out(order), handed_out(order, "blue")
    for stream, account in ((new, "blue"), (old, "alipay")):
        assert plain.control.pay(stream.number, account=account).ok
        plain.control.fault("refund", fault, account="alipay")
        plain.heal(rounds=1)
    plain.heal()
    assert Refund.objects.get().state == "SUCCEEDED"
    moved = [row for row in plain.refunds(old.number) if row["state"] == "DONE"]
    assert len(moved) == 1
    assert (plain.net("alipay", old.number), plain.taken()) == (0, PRICE)


def test_a_refund_that_waits_at_alipay_is_asked_about_until_it_is_done(plain: Market) -> None:
    order = open_order(amount_minor=PRICE, currency="CNY")
    stream = handed_out(order)
    assert plain.control.pay(stream.number, account="alipay").ok
    plain.heal(rounds=1)
    assert request_refund(stream.number, PRICE, reason="duplicate", by="anna").code is RefundCode.REQUESTED
    plain.control.fault("refund", "refund_pending", account="alipay", then="DONE", seconds=60)
    plain.heal(rounds=1)
    assert Refund.objects.get().state == "UNKNOWN"
    plain.heal(rounds=8)
    assert Refund.objects.get().state == "SUCCEEDED"
    assert state_of(order) == "REFUNDED"
    assert plain.taken() == 0


def test_a_partial_refund_leaves_the_order_paid(plain: Market) -> None:
    order = open_order(amount_minor=PRICE, currency="CNY")
    stream = handed_out(order)
    assert plain.control.pay(stream.number, account="alipay").ok
    plain.heal(rounds=1)
    assert request_refund(stream.number, 300, reason="out_of_stock", by="anna").code is RefundCode.REQUESTED
    plain.heal(rounds=1)
    order.refresh_from_db()
    assert (order.state, order.refunded_minor) == ("PAID", 300)
    assert plain.taken() == PRICE - 300
    assert not Discrepancy.objects.exclude(state="RESOLVED").exists()


def test_time_alone_proves_an_unscanned_code_closed(plain: Market) -> None:
    """S4: not found, asked after `time_expire`, its skew and our grace."""
    order = open_order(amount_minor=PRICE, currency="CNY")
    stream = handed_out(order)
    assert close.close_stream(stream.number, by="system:test") == "not_closable"
    plain.pass_time((stream.payable_until - stream.created_at).total_seconds() - 60)
    plain.heal(rounds=1)
    stream.refresh_from_db()
    assert stream.state == "CLOSING"
    plain.pass_time(60 + 300)
    plain.heal(rounds=2)
    stream.refresh_from_db()
    assert stream.state == "CLOSED"
    assert not plain.control.pay(stream.number, account="alipay").ok


def test_money_for_another_seller_settles_nothing_and_reaches_a_person(plain: Market) -> None:
    """X1: verified but mismatched is recorded and acknowledged."""
    order = open_order(amount_minor=PRICE, currency="CNY")
    stream = handed_out(order)
    assert plain.control.pay(stream.number, account="alipay").ok
    told = receive("alipay", plain.tell(stream.number, altered={"merchant": "2088000000000001"}))
    assert told.answer.body == b"success"
    assert state_of(order) == "OPEN"
    case = Discrepancy.objects.get()
    assert (case.kind, case.stream_id) == ("mismatch", stream.pk)


@pytest.mark.parametrize("amount", [1, PRICE + 1])
def test_another_amount_settles_nothing(plain: Market, amount: int) -> None:
    order = open_order(amount_minor=PRICE, currency="CNY")
    stream = handed_out(order)
    plain.control.fault("pay", "wrong_amount", account="alipay", amount_minor=amount)
    assert plain.control.pay(stream.number, account="alipay").ok
    assert receive("alipay", plain.tell(stream.number)).answer.body == b"success"
    assert state_of(order) == "OPEN"
    assert Discrepancy.objects.get().kind == "mismatch"


def test_x4_no_key_and_no_buyer_reaches_the_history_or_the_logs(
    plain: Market, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    order = open_order(amount_minor=PRICE, currency="CNY")
    stream = handed_out(order)
    assert plain.control.pay(stream.number, account="alipay").ok
    for kind in ("other_secret", ""):
        receive("alipay", plain.tell(stream.number, forgery=kind))
    assert request_refund(stream.number, PRICE, reason="duplicate", by="anna").code is RefundCode.REQUESTED
    plain.control.fault("refund", "bad_signature", account="alipay")
    plain.heal()
    assert state_of(order) == "REFUNDED"
    key = plain.sandbox.accounts["alipay"]["private_key"].splitlines()
    told = [
        caplog.text,
        *Event.objects.values_list("body", flat=True),
        *map(str, Notification.objects.values_list("parsed")),
    ]
    told += [str(list(model.objects.values())) for model in (Stream, Refund, Discrepancy)]
    assert len(told) > 8
    for secret in (*key[1:-1], BUYER["buyer_user_id"], BUYER["buyer_logon_id"]):
        assert not any(secret in text for text in told), secret
