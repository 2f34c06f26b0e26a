"""Conversations of the adapter without a server: the test is WeChat Pay, and signs with its keys."""

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from payonce.channels.base import Conversation
from payonce.channels.http import run
from payonce.channels.messages import (
    HttpRequest,
    HttpResponse,
    PaymentRef,
    PrepayRequest,
    RefundRef,
    RefundRequest,
    TransportError,
)
from payonce.channels.sandbox.skins import wechat_pay_wire
from payonce.channels.wechat_pay import WeChatPayChannel
from tests.channels.wechat_pay.simulator import Merchant

NUMBER, REFUND_NUMBER, PRICE = "po0000000001s01", "po0000000001s01rs1", 1_999
REF = PaymentRef(NUMBER, PRICE, "CNY")
REFUND_REF = RefundRef(REF, REFUND_NUMBER, PRICE)
REFUND = RefundRequest(PaymentRef(NUMBER, PRICE, "CNY", channel_reference="4200001"), REFUND_NUMBER, PRICE, "CNY", PRICE,
                       "duplicate", "https://shop.example/notify/")  # fmt: skip
PAID = {
    "appid": "wx1", "mchid": "", "out_trade_no": NUMBER, "trade_state": "SUCCESS", "transaction_id": "4200001",
    "success_time": "2026-05-01T10:00:00+08:00", "payer": {"openid": "oSecretBuyer"},
    "amount": {"total": PRICE, "payer_total": PRICE - 100, "currency": "CNY", "payer_currency": "CNY"},
}  # fmt: skip
REFUNDED = {
    "refund_id": "5030", "out_refund_no": REFUND_NUMBER, "transaction_id": "4200001", "out_trade_no": NUMBER,
    "status": "SUCCESS", "user_received_account": "招商银行信用卡0403", "amount": {"refund": PRICE, "total": PRICE, "currency": "CNY"},
}  # fmt: skip


class Desk:
    """A channel, and the answers that it is given; `sent` are its requests."""

    def __init__(self, merchant: Merchant, **options: Any) -> None:
        self.merchant = merchant
        self.options = {"base_url": "http://127.0.0.1:9", **merchant.bank["shop"], **options}
        self.channel = WeChatPayChannel("wx", self.options)
        self.sent: list[HttpRequest] = []

    def cleared(self) -> "Desk":
        """As new: reading keys takes long."""
        self.sent.clear()
        self.channel.clock = time.time
        return self

    def signed(self, status: int, record: Mapping[str, Any] | bytes, forgery: str = "", ago: float = 0) -> HttpResponse:
        body = record if isinstance(record, bytes) else json.dumps(record).encode()
        serial = self.merchant.keys["public_key_id"]
        headers = wechat_pay_wire.signed_headers(self.merchant.keys, serial, body, time.time() - ago, forgery)
        return HttpResponse(status, headers, body)

    def paid(self, **changes: Any) -> dict[str, Any]:
        return {**PAID, "mchid": self.channel.merchant, **changes}

    def run(self, conversation: Conversation[Any], *replies: HttpResponse | TransportError) -> Any:
        """Run a conversation whose requests get these answers, each one once."""
        left = list(replies)

        def transport(request: HttpRequest) -> HttpResponse | TransportError:
            self.sent.append(request)
            return left.pop(0)

        outcome = run(conversation, transport)
        assert not left, "fewer requests than answers"
        return outcome

    def last_body(self) -> dict[str, Any]:
        return dict(json.loads(self.sent[-1].body))


def error(status: int, code: str) -> HttpResponse:
    """An error answer: it has no signature."""
    return HttpResponse(status, {}, json.dumps({"code": code, "message": "m"}).encode())


def order(method: str = "qr", **changes: Any) -> PrepayRequest:
    given: dict[str, Any] = {
        "number": NUMBER, "amount_minor": PRICE, "currency": "CNY", "subject": "A book 书", "method": method,
        "client_type": "", "payer": "oSecretBuyer" if method == "jsapi" else "",
        "payable_until": datetime.now(UTC) + timedelta(minutes=30), "notify_url": "https://shop.example/notify/",
        "return_url": "https://shop.example/return/?a=1&b=2", "client_ip": "203.0.113.7",
    }  # fmt: skip
    return PrepayRequest(**{**given, **changes})


def conversations(channel: WeChatPayChannel) -> dict[str, Callable[[], Conversation[Any]]]:
    """One conversation of each operation."""
    return {
        "prepay": lambda: channel.prepay(order()),
        "query": lambda: channel.query(REF),
        "close": lambda: channel.close(REF),
        "refund": lambda: channel.refund(REFUND),
        "query_refund": lambda: channel.query_refund(REFUND_REF),
        "statement": lambda: channel.statement(datetime(2026, 5, 1, tzinfo=UTC).date()),
    }
