"""A merchant of the simulated WeChat Pay, as the contract suite and the other tests of the channel see it."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from payonce.channels.base import Conversation
from payonce.channels.contract import Moved, Simulator
from payonce.channels.http import run
from payonce.channels.messages import (
    HttpRequest,
    HttpResponse,
    NotAuthentic,
    Notice,
    NotificationRequest,
    PrepayRequest,
)
from payonce.channels.sandbox.skins import wechat_pay_wire
from payonce.channels.sandbox.skins.wechat_pay_books import make_account
from payonce.channels.sandbox.testing import RunningSandbox
from payonce.channels.wechat_pay import WeChatPayChannel
from payonce.channels.wechat_pay_wire import BEIJING
from tests.channels.inbox import Inbox

MODES = ("public_key", "certificate", "switching")
FAULT_OF_BREAKAGE = {
    "lost": "drop_after",
    "server_error": "error_after",
    "truncated": "truncate",
    "garbage": "garbage",
    "bad_signature": "bad_signature",
}


class Merchant:
    """Both halves of a fresh account: `bank` goes to the simulator, `keys` are what it signs with."""

    def __init__(self, mode: str) -> None:
        bank, shop = make_account("", mode)
        self.keys = bank["keys"]
        self.bank = {"skin": "wechat_pay", **bank, "shop": {k: v for k, v in shop.items() if k != "base_url"}}
        # The door's own address is put in when it is known; keys of other modes must not stay beside ours.
        if mode == "certificate":
            self.bank["shop"] |= {"public_key": "", "public_key_id": ""}


class WeChatSimulator(Simulator):
    """One merchant in one mode."""

    def __init__(self, sandbox: RunningSandbox, account: str, merchant: Merchant, box: Inbox | None = None) -> None:
        self.account = account
        self.control = sandbox.control
        self.options = sandbox.accounts[account]
        self.keys = merchant.keys
        self.box = box
        self.notify_url = box.url if box else "http://127.0.0.1:9/notify/"
        self.channel: WeChatPayChannel = WeChatPayChannel(account, self.options)
        self._untils: dict[str, datetime] = {}

    def now(self) -> datetime:
        return datetime.now(BEIJING)

    def run(self, conversation: Conversation[Any]) -> Any:
        if getattr(conversation, "__name__", "") == "statement":
            with self.days_later():
                return run(conversation)
        return run(conversation)

    @contextlib.contextmanager
    def days_later(self, days: float = 2) -> Iterator[None]:
        """A bill is made on the next day: both clocks are ahead for the block."""
        seconds = timedelta(days=days).total_seconds()
        self.control.set_clock(seconds)
        self.channel.clock = lambda: time.time() + seconds
        try:
            yield
        finally:
            self.control.set_clock(0)
            self.channel.clock = time.time

    def prepay_request(self, number: str, **changes: object) -> PrepayRequest:
        needed = {"jsapi": {"payer": "oOpenId0000000000000000000001"}, "h5": {"client_ip": "203.0.113.7"}}
        request = super().prepay_request(number, **{**needed.get(str(changes.get("method")), {}), **changes})
        # The same number is the same order in the next second too: a changed one is refused, without a signature.
        until = self._untils.setdefault(number, request.payable_until)
        return request if "payable_until" in changes else dataclasses.replace(request, payable_until=until)

    def pay(self, number: str) -> bool:
        return self.control.pay(number, account=self.account).ok

    def moved(self, number: str) -> Moved:
        sums = self.control.sums(number, account=self.account)
        return Moved(sums["captured_minor"], sums["refunded_minor"], sums["captures"])

    def break_next_answer(self, operation: str, breakage: str) -> bool:
        if (operation, breakage) == ("query_refund", "bad_signature"):
            return False  # the suite asks for an unknown refund, and an error has no signature that could be bad
        self.control.fault(operation, FAULT_OF_BREAKAGE[breakage], account=self.account)
        return True

    def calls(self, operation: str, number: str) -> int:
        # A refund number that the bank does not know belongs to no payment yet.
        return self.control.calls(operation, "" if operation == "query_refund" else number, account=self.account)

    def notification(self, number: str, event: str = "payment.paid") -> NotificationRequest:
        assert self.box is not None
        self.control.send_notification(number, account=self.account, event=event)
        return next(message for message in reversed(self.box.messages) if self._tells_of(message, number, event))

    def _tells_of(self, message: NotificationRequest, number: str, event: str) -> bool:
        notice = self.channel.parse_notification(message, self.now())
        if not isinstance(notice, Notice):
            return False
        told = notice.payment.number if notice.payment else notice.refund.payment_number if notice.refund else ""
        return told == number and (notice.payment is not None) == (event == "payment.paid")

    def forged(self, number: str, forgery: str) -> NotificationRequest:
        """A forgery that arrived."""
        assert self.box is not None
        seen = len(self.box.messages)
        self.control.send_notification(number, account=self.account, forgery=forgery)
        judged = [(m, self.channel.parse_notification(m, self.now())) for m in self.box.messages[seen:]]
        return next(message for message, verdict in judged if isinstance(verdict, NotAuthentic))

    def foreign_notification(self, number: str) -> NotificationRequest:
        return self.forged(number, "wrong_account")

    def headers(self, body: bytes, forgery: str = "", at: float | None = None) -> dict[str, str]:
        """Headers of WeChat Pay for a body."""
        keys = self.keys
        serial = wechat_pay_wire.platform_serial(keys) if keys["mode"] == "certificate" else keys["public_key_id"]
        return wechat_pay_wire.signed_headers(keys, serial, body, time.time() if at is None else at, forgery)

    def sign(self, request: HttpRequest, status: int, body: bytes) -> HttpResponse:
        return HttpResponse(status, self.headers(body), body)

    def message(
        self, content: dict[str, Any], event: str = "TRANSACTION.SUCCESS", **changes: Any
    ) -> NotificationRequest:
        """A truly signed notification with any content."""
        resource = wechat_pay_wire.sealed(self.keys["apiv3_key"], content, event.partition(".")[0].lower())
        envelope = {"id": "EV-1", "create_time": "2026-05-01T10:00:00+08:00", "event_type": event,
                    "resource_type": "encrypt-resource", "resource": resource, "summary": "s", **changes}  # fmt: skip
        body = wechat_pay_wire.wire.write_object(envelope)
        return NotificationRequest(body, self.headers(body))

    def secrets(self) -> tuple[str, ...]:
        return (self.keys["apiv3_key"], str(self.options["private_key"]), "oOpenId0000000000000000000001")
