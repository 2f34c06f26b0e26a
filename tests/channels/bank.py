"""A running sandbox as tests use it: adapters by account, streams by the state that they reach by real steps."""

import itertools
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from payonce.channels.http import run
from payonce.channels.messages import (
    CloseAnswer,
    Known,
    Notice,
    NotificationRequest,
    Outcome,
    PaymentRef,
    PaymentView,
    Prepay,
    PrepayRequest,
    RefundRef,
    RefundRequest,
    RefundView,
)
from payonce.channels.sandbox.adapter import SandboxChannel
from payonce.channels.sandbox.testing import RunningSandbox

PRICE = 1_999
_numbers = itertools.count(1)


class Shop:
    """One account of the sandbox, as its merchant sees it."""

    def __init__(self, sandbox: RunningSandbox, account: str, notify_url: str = "", **options: Any) -> None:
        self.control = sandbox.control
        self.account = account
        self.notify_url = notify_url
        self.channel = SandboxChannel(account, {**sandbox.accounts[account], **options})

    def request(self, number: str = "", **changes: Any) -> PrepayRequest:
        given: dict[str, Any] = {
            "number": number or f"n{secrets.token_hex(5)}_{next(_numbers)}",
            "amount_minor": PRICE,
            "currency": "CNY",
            "subject": "A book <书>",
            "method": "qr",
            "client_type": "pc",
            "payer": "",
            "payable_until": datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=30),
            "notify_url": self.notify_url,
            "return_url": "http://127.0.0.1:9/return?a=1&b=2",
        }
        return PrepayRequest(**{**given, **changes})

    def prepay(self, request: PrepayRequest) -> Outcome[Prepay]:
        return run(self.channel.prepay(request))

    def open_stream(self, **changes: Any) -> str:
        request = self.request(**changes)
        outcome = self.prepay(request)
        assert isinstance(outcome, Known), outcome
        return request.number

    def paid_stream(self, **changes: Any) -> str:
        number = self.open_stream(**changes)
        assert self.control.pay(number, account=self.account).ok
        return number

    def query(self, number: str) -> Outcome[PaymentView]:
        return run(self.channel.query(self.ref(number)))

    def view(self, number: str) -> PaymentView:
        outcome = self.query(number)
        assert isinstance(outcome, Known), outcome
        return outcome.value

    def close(self, number: str) -> Outcome[CloseAnswer]:
        return run(self.channel.close(self.ref(number)))

    def refund(
        self, number: str, refund_number: str, amount_minor: int = PRICE, reference: str = ""
    ) -> Outcome[RefundView]:
        ref = self.ref(number, reference)
        request = RefundRequest(ref, refund_number, amount_minor, "CNY", PRICE, "test", self.notify_url)
        return run(self.channel.refund(request))

    def query_refund(self, number: str, refund_number: str) -> Outcome[RefundView]:
        return run(self.channel.query_refund(RefundRef(self.ref(number), refund_number, PRICE)))

    def ref(self, number: str, reference: str = "") -> PaymentRef:
        return PaymentRef(number, PRICE, "CNY", channel_reference=reference)

    def read(self, message: NotificationRequest) -> Notice:
        notice = self.channel.parse_notification(message, datetime.now(UTC))
        assert isinstance(notice, Notice), notice
        return notice

    def sums(self, number: str) -> Mapping[str, int]:
        return self.control.sums(number, account=self.account)


def state_of(outcome: Outcome[Any]) -> str:
    """The state in a Known outcome; for others their kind and code or reason."""
    if isinstance(outcome, Known):
        return str(outcome.value.state)
    return f"{type(outcome).__name__}:{getattr(outcome, 'code', '') or getattr(outcome, 'reason', '')}"
