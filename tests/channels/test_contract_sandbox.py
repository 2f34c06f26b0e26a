"""The sandbox keeps the public contract, in each of the characters that its options give it, over real HTTP."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from payonce.channels.contract import ChannelContract, Moved, Simulator
from payonce.channels.messages import HttpRequest, HttpResponse, NotificationRequest
from payonce.channels.sandbox.adapter import SandboxChannel
from payonce.channels.sandbox.testing import RunningSandbox, serve_in_thread
from payonce.channels.signing import HEADER_NONCE, sign_answer, sign_notification
from tests.channels.inbox import Inbox, inbox

CHARACTERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "wechat_like": {"close_proof": "query"},
    "alipay_like": {"close_proof": "answer", "not_found_before_buyer_acts": True},
    "paypal_like": {"close_proof": "restraint", "captures": True},
    "expiry_only": {"close_proof": "expiry", "not_found_before_buyer_acts": True},
    "no_refunds": {"refunds": False, "statement": False},
    "slow_refunds": {"refunds_partial": False},
}
FAULT_OF_BREAKAGE = {
    "lost": "drop_after",
    "server_error": "error_after",
    "truncated": "truncate",
    "garbage": "garbage",
    "bad_signature": "bad_signature",
}


class SandboxSimulator(Simulator):
    """One account of a running sandbox."""

    def __init__(self, sandbox: RunningSandbox, account: str, box: Inbox) -> None:
        self.account = account
        self.control = sandbox.control
        self.box = box
        self.notify_url = box.url
        self.channel = SandboxChannel(account, sandbox.accounts[account])

    def pay(self, number: str) -> bool:
        return self.control.pay(number, account=self.account).ok

    def moved(self, number: str) -> Moved:
        sums = self.control.sums(number, account=self.account)
        return Moved(sums["captured_minor"], sums["refunded_minor"], sums["captures"])

    def break_next_answer(self, operation: str, breakage: str) -> bool:
        self.control.fault(operation, FAULT_OF_BREAKAGE[breakage], account=self.account)
        return True

    def calls(self, operation: str, number: str) -> int:
        return self.control.calls(operation, number, account=self.account)

    def notification(self, number: str) -> NotificationRequest:
        self.control.send_notification(number, account=self.account, event="payment.paid")
        # The bank's own messages about this number, an approval for one, may arrive in between.
        wanted = (number.encode(), b"payment.paid")
        return [message for message in self.box.messages if all(text in message.body for text in wanted)][-1]

    def foreign_notification(self, number: str) -> NotificationRequest:
        message = self.notification(number)
        signature = sign_notification("z" * 40, self.account, message.body, time.time())
        return NotificationRequest(message.body, {**message.headers, **signature.headers()})

    def sign(self, request: HttpRequest, status: int, body: bytes) -> HttpResponse:
        assert isinstance(self.channel, SandboxChannel)
        secret = self.channel.settings.secret
        signature = sign_answer(secret, request.headers[HEADER_NONCE], status, body, time.time())
        return HttpResponse(status, signature.headers(), body)

    def secrets(self) -> tuple[str, ...]:
        assert isinstance(self.channel, SandboxChannel)
        return (self.channel.settings.secret,)


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[RunningSandbox, Inbox]]:
    with inbox() as box, serve_in_thread(CHARACTERS) as sandbox:
        yield sandbox, box


class TestSandboxKeepsTheContract(ChannelContract):
    @pytest.fixture(params=CHARACTERS)
    def simulator(
        self, request: pytest.FixtureRequest, world: tuple[RunningSandbox, Inbox]
    ) -> Iterator[SandboxSimulator]:
        sandbox, box = world
        yield SandboxSimulator(sandbox, request.param, box)
        sandbox.control.clear_faults()
