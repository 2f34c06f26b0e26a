"""Stripe's API as the bank plays it, with the adapter in front of it: for the contract suite and for tests of single corners."""

import dataclasses
import itertools
import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from payonce.channels.base import Conversation
from payonce.channels.contract import Moved, Simulator
from payonce.channels.http import run, send
from payonce.channels.messages import (
    HttpRequest,
    HttpResponse,
    Known,
    NotificationRequest,
    Outcome,
    PaymentRef,
    Prepay,
    PrepayRequest,
    RefundRef,
    RefundRequest,
)
from payonce.channels.sandbox.skins.stripe import signature
from payonce.channels.sandbox.testing import RunningSandbox
from payonce.channels.stripe.adapter import StripeChannel
from tests.channels.inbox import Inbox

PRICE = 1_999
FAULT_OF_BREAKAGE = {"lost": "drop_after", "server_error": "error_after", "truncated": "truncate", "garbage": "garbage"}
_numbers = itertools.count(1)


def api(options: dict[str, Any], method: str, path: str, *, key: str = "", **headers: str) -> Any:
    """A request that sends a form by hand: `call(name=value, …)` returns status, headers and the JSON object."""

    def call(pairs: list[tuple[str, str]] | None = None, **params: str) -> tuple[int, dict[str, str], dict[str, Any]]:
        text = urlencode([*(pairs or []), *params.items()])
        sent = {"authorization": f"Bearer {options['secret_key']}", **headers}
        if key:
            sent["idempotency-key"] = key
        url = options["base_url"] + path
        if method == "POST":
            sent.setdefault("content-type", "application/x-www-form-urlencoded")
        elif text:
            url += "?" + text
        reply = send(HttpRequest(method, url, sent, text.encode() if method == "POST" else b""))
        assert isinstance(reply, HttpResponse), reply
        return reply.status, dict(reply.headers), json.loads(reply.body)

    return call


def listen(options: dict[str, Any], url: str) -> None:
    """Register a webhook endpoint, as a merchant does in the dashboard."""
    status, _, _ = api(options, "POST", "/v1/webhook_endpoints")([("enabled_events[]", "*")], url=url)
    assert status == 200


class Merchant:
    """One account as its merchant sees it: streams by the state that they reach by real steps."""

    def __init__(self, sandbox: RunningSandbox, account: str, **options: Any) -> None:
        self.control = sandbox.control
        self.account = account
        self.options = {**sandbox.accounts[account], **options}
        self.channel = StripeChannel(account, self.options)

    def api(self, method: str, path: str, *, key: str = "", **headers: str) -> Any:
        return api(self.options, method, path, key=key, **headers)

    def request(self, number: str = "", **changes: Any) -> PrepayRequest:
        given: dict[str, Any] = {
            "number": number or f"n{secrets.token_hex(5)}_{next(_numbers)}",
            "amount_minor": PRICE,
            "currency": "USD",
            "subject": "A book <书>",
            "method": "web",
            "client_type": "pc",
            "payer": "",
            "payable_until": datetime.now(UTC) + timedelta(minutes=40),
            "notify_url": "http://127.0.0.1:9/never-sent",
            "return_url": "http://127.0.0.1:9/return?a=1&b=2",
        }
        return PrepayRequest(**{**given, **changes})

    def prepay(self, request: PrepayRequest) -> Outcome[Prepay]:
        return run(self.channel.prepay(request))

    def open_stream(self, **changes: Any) -> PaymentRef:
        request = self.request(**changes)
        outcome = self.prepay(request)
        assert isinstance(outcome, Known), outcome
        reference = outcome.value.channel_reference or ""
        return dataclasses.replace(
            self.ref(request.number, reference), method=request.method, currency=request.currency
        )

    def paid_stream(self, **changes: Any) -> PaymentRef:
        ref = self.open_stream(**changes)
        assert self.control.pay(ref.number, account=self.account).ok
        seen = self.view(ref)
        return dataclasses.replace(ref, channel_reference=seen.channel_reference)

    def ref(self, number: str, reference: str = "", **more: Any) -> PaymentRef:
        return PaymentRef(number, PRICE, "USD", channel_reference=reference, **more)

    def view(self, ref: PaymentRef) -> Any:
        outcome = run(self.channel.query(ref))
        assert isinstance(outcome, Known), outcome
        return outcome.value

    def refund_request(
        self, ref: PaymentRef, number: str, amount_minor: int = PRICE, reason: str = "late"
    ) -> RefundRequest:
        return RefundRequest(ref, number, amount_minor, ref.currency, PRICE, reason)

    def refund(self, ref: PaymentRef, number: str, amount_minor: int = PRICE, reason: str = "late") -> Any:
        return run(self.channel.refund(self.refund_request(ref, number, amount_minor, reason)))

    def query_refund(self, ref: PaymentRef, number: str) -> Any:
        return run(self.channel.query_refund(RefundRef(ref, number, PRICE)))

    def sums(self, number: str) -> dict[str, int]:
        return self.control.sums(number, account=self.account)

    def fault(self, op: str, do: str, **more: Any) -> int:
        return self.control.fault(op, do, account=self.account, **more)


class StripeSimulator(Simulator):
    """For the contract suite. The references that a prepay gave are kept, as a stream keeps them."""

    def __init__(self, sandbox: RunningSandbox, account: str, box: Inbox, currency: str) -> None:
        self.account = account
        self.control = sandbox.control
        self.box = box
        self.currency = currency
        self.options = sandbox.accounts[account]
        self.channel = StripeChannel(account, self.options)
        self.references: dict[str, str] = {}

    def prepay_request(self, number: str, **changes: object) -> PrepayRequest:
        # A session cannot expire sooner than 30 minutes after it was made.
        until = self.now().replace(microsecond=0) + timedelta(minutes=40)
        return super().prepay_request(number, **{"payable_until": until, **changes})

    def registered(self) -> str:
        number = self.new_number()
        outcome = self.run(self.channel.prepay(self.prepay_request(number)))
        assert isinstance(outcome, Known), outcome
        self.references[number] = outcome.value.channel_reference or ""
        return number

    def ref(self, number: str, channel_reference: str = "") -> PaymentRef:
        return super().ref(number, channel_reference or self.references.get(number, ""))

    def pay(self, number: str) -> bool:
        return self.control.pay(number, account=self.account).ok

    def moved(self, number: str) -> Moved:
        sums = self.control.sums(number, account=self.account)
        return Moved(sums["captured_minor"], sums["refunded_minor"], sums["captures"])

    def break_next_answer(self, operation: str, breakage: str) -> bool:
        if breakage not in FAULT_OF_BREAKAGE:
            return False  # Stripe signs no answers: TLS alone says who answered
        if operation == "query_refund":
            # Refunds are listed by the payment that took the money: there must be one to ask about.
            self.pay(next(reversed(self.references)))
        self.control.fault(operation, FAULT_OF_BREAKAGE[breakage], account=self.account)
        return True

    def calls(self, operation: str, number: str) -> int:
        return self.control.calls(operation, number, account=self.account)

    def notification(self, number: str) -> NotificationRequest:
        self.control.wait_delivered(number, account=self.account)  # else the bank's own message may come last
        self.control.send_notification(number, account=self.account, event="payment.paid")
        return [message for message in self.box.messages if number.encode() in message.body][-1]

    def foreign_notification(self, number: str) -> NotificationRequest:
        message = self.notification(number)
        signed = signature("whsec_" + "z" * 32, message.body, int(self.now().timestamp()))
        return NotificationRequest(message.body, {**message.headers, "stripe-signature": signed})

    def sign(self, request: HttpRequest, status: int, body: bytes) -> HttpResponse:
        return HttpResponse(status, {"content-type": "application/json"}, body)

    def secrets(self) -> tuple[str, ...]:
        return self.options["secret_key"], self.options["webhook_secret"]


def conversation_of(channel: StripeChannel, name: str, *arguments: Any) -> Conversation[Any]:
    """An operation by its name."""
    found: Conversation[Any] = getattr(channel, name)(*arguments)
    return found
