"""What the checker says a channel shows for a capture is what the channel shows, and time closes only what the channel calls closed."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from payonce.channels import registry
from payonce.channels.base import Channel
from payonce.channels.http import run
from payonce.channels.messages import CaptureRequest, Known, PaymentRef, PaymentView, PrepayRequest
from payonce.channels.sandbox.testing import RunningSandbox, serve_in_thread
from torture.accounts import MIXED, REAL_CHANNELS
from torture.shown import in_the_channels_words, notification_key
from torture.sources import Ledger, read_ledger

SKINS = {name: name for name in REAL_CHANNELS}
AMOUNT = 1_234


@pytest.fixture(scope="module")
def bank() -> Iterator[RunningSandbox]:
    accounts = {name: {"skin": name, "notify_url": "http://127.0.0.1:9/"} for name in REAL_CHANNELS}
    with serve_in_thread({"blue": {}, **accounts}) as running:
        yield running


@dataclass(frozen=True)
class Paid:
    """A payment that was made, and how to ask its channel about it."""

    channel: Channel
    ref: PaymentRef

    def view(self, reference: str = "") -> PaymentView:
        """What the channel says, of one of its references where one is given."""
        outcome = run(self.channel.query(replace(self.ref, channel_reference=reference or self.ref.channel_reference)))
        assert isinstance(outcome, Known), outcome
        return outcome.value


def pay_through(bank: RunningSandbox, name: str, number: str) -> Paid:
    options, at = bank.accounts[name], datetime.now(UTC)
    channel = registry.adapter_class(name, options)(name, options)
    request = PrepayRequest(
        number=number, amount_minor=AMOUNT, currency="CNY", subject="Test", method=MIXED.method(name), client_type="", payer="",
        payable_until=at + timedelta(hours=1), notify_url="http://127.0.0.1:9/", return_url="http://127.0.0.1:9/back", at=at,
    )  # fmt: skip
    prepay = run(channel.prepay(request))
    assert isinstance(prepay, Known), prepay
    assert bank.control.pay(number, account=name).ok
    ref = PaymentRef(number, AMOUNT, "CNY", MIXED.method(name), prepay.value.channel_reference or "")
    if channel.capabilities.captures:
        taken = run(channel.capture(CaptureRequest(ref, f"{number}k")))
        assert isinstance(taken, Known), taken
    return Paid(channel, ref)


def shown(bank: RunningSandbox, number: str) -> list[str]:
    """The references of a number's captures, as the checker believes that the channel shows them."""
    ledger = in_the_channels_words(read_ledger(bank.folder), SKINS, {})
    references = [row["reference"] for row in ledger.captures if row["number"] == number]
    assert references == [row["reference"] for row in ledger.journal if row["number"] == number]
    return references


@pytest.mark.parametrize("name", REAL_CHANNELS)
def test_a_capture_has_the_reference_that_its_channel_shows(bank: RunningSandbox, name: str) -> None:
    paid = pay_through(bank, name, f"tt{name}1")
    assert shown(bank, paid.ref.number) == [paid.view().channel_reference]


@pytest.mark.parametrize("name", ["alipay", "stripe", "paypal"])
def test_a_second_capture_has_its_own(bank: RunningSandbox, name: str) -> None:
    paid = pay_through(bank, name, f"tt{name}2")
    assert bank.control.second_capture(paid.ref.number, account=name).ok
    first, second = shown(bank, paid.ref.number)
    view = paid.view()
    assert view.channel_reference == first
    others = [each.channel_reference for each in view.captures] or [paid.view(second).channel_reference]
    assert others == [second]


def test_a_refund_stays_with_its_capture(bank: RunningSandbox) -> None:
    paid = pay_through(bank, "stripe", "ttstripe3")
    bank.control.outside_refund(paid.ref.number, 200, account="stripe")
    ledger = in_the_channels_words(read_ledger(bank.folder), SKINS, {})
    (refund,) = [row for row in ledger.refunds if row["payment_number"] == paid.ref.number]
    assert refund["capture_reference"] == paid.view().channel_reference


def open_row(account: str, payable_until: float) -> Ledger:
    row = {
        "id": 1,
        "account": account,
        "number": "n",
        "state": "OPEN",
        "payable_until": payable_until,
        "closed_at": None,
        "created_at": 0.0,
    }
    return Ledger(payments=[row])


@pytest.mark.parametrize(
    ("account", "closed_at", "expected"),
    [("alipay", 11.0, 10.0), ("stripe", 11.0, 10.0), ("alipay", 9.0, None), ("stripe", 9.0, None),
     ("wechat_pay", 11.0, None), ("paypal", 11.0, None), ("blue", 11.0, None)],
)  # fmt: skip
def test_time_closes_only_where_the_channel_says_so_and_only_once_it_is_over(
    account: str, closed_at: float, expected: float | None
) -> None:
    """S4: a close that payonce believed before the payment's time was over stays unproven in the books."""
    (row,) = in_the_channels_words(open_row(account, 10.0), SKINS, {(account, "n"): closed_at}).payments
    assert (row["closed_at"], row["state"]) == (expected, "OPEN" if expected is None else "CLOSED")


def test_what_payonce_did_not_close_stays_open() -> None:
    (row,) = in_the_channels_words(open_row("alipay", 10.0), SKINS, {}).payments
    assert row["state"] == "OPEN"


@pytest.mark.parametrize("name", ["", *REAL_CHANNELS])
def test_a_notification_is_stored_under_the_key_that_its_format_gives_it(name: str) -> None:
    """S7: otherwise a lost acknowledgement could not be told from a kept one."""
    expected = {"alipay": "0a1b", "stripe": "evt_0a1b", "paypal": "WH-0A1B"}.get(name, "ntf_0a1b")
    assert notification_key(name, "ntf_0a1b") == expected
