"""An Alipay account and its gateway, as tests use them: both halves of the keys are known, so that tests can sign as Alipay."""

import json
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from payonce.channels.alipay import AlipayChannel
from payonce.channels.alipay_wire import BEIJING, signed_text
from payonce.channels.contract import Moved, Simulator
from payonce.channels.http import send
from payonce.channels.keys import sign_rsa
from payonce.channels.messages import HttpRequest, HttpResponse, NotificationRequest
from payonce.channels.sandbox.skins import skin_class
from payonce.channels.sandbox.skins.alipay_keys import private_of
from payonce.channels.sandbox.testing import RunningSandbox
from tests.channels.inbox import Inbox

MODES = {"public_key": "alipay", "certificate": "alipay_cert"}
FAULT_OF_BREAKAGE = {
    "lost": "drop_after",
    "server_error": "error_after",
    "truncated": "truncate",
    "garbage": "garbage",
    "bad_signature": "bad_signature",
}
Halves = tuple[dict[str, Any], dict[str, Any]]


def halves(skin: str) -> Halves:
    """Fresh keys: the options of the bank's account, and those of the shop's without an address."""
    bank, shop = skin_class(skin).new_account("alipay", "https://gateway.example")
    return {"skin": skin, **bank}, shop


def account_options(skin: str) -> tuple[dict[str, Any], Halves]:
    """An account for `serve`, and its halves."""
    bank, shop = halves(skin)
    own = {name: value for name, value in shop.items() if name not in {"adapter", "base_url"}}
    return {**bank, "shop": own}, (bank, shop)


def sign_answer(bank: dict[str, Any], body: bytes) -> bytes:
    """The same answer with a true signature over whatever its `…_response` holds; other bytes stay as they are."""
    try:
        document = json.loads(body)
        name = next(key for key in document if key.endswith("_response"))
        content = json.dumps(document[name])
    except (ValueError, TypeError, StopIteration, AttributeError):
        return body
    signature = sign_rsa(private_of(bank["keys"]["alipay_private_key"]), content.encode())
    number = bank["keys"].get("alipay_cert_sn")
    certificate = f',"alipay_cert_sn":"{number}"' if number else ""
    return f'{{"{name}":{content}{certificate},"sign":"{signature}"}}'.encode()


def sign_form(bank: dict[str, Any], fields: dict[str, str]) -> bytes:
    """A notification with a true signature."""
    left = {name: value for name, value in fields.items() if name not in {"sign", "sign_type"}}
    signature = sign_rsa(private_of(bank["keys"]["alipay_private_key"]), signed_text(left).encode())
    return urlencode({**left, "sign_type": "RSA2", "sign": signature}).encode()


def form_of(message: NotificationRequest) -> dict[str, str]:
    return dict(parse_qsl(message.body.decode(), keep_blank_values=True))


class AlipaySimulator(Simulator):
    """One Alipay account of a running sandbox."""

    def __init__(self, sandbox: RunningSandbox, account: str, bank: dict[str, Any], box: Inbox) -> None:
        self.account = account
        self.bank = bank
        self.control = sandbox.control
        self.box = box
        self.notify_url = box.url
        self.options = sandbox.accounts[account]
        self.channel = AlipayChannel(account, self.options)

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

    def notification(self, number: str, **how: Any) -> NotificationRequest:
        self.control.wait_delivered(number, account=self.account)  # else the bank's own message may come last
        self.control.send_notification(number, account=self.account, event="payment.paid", **how)
        return [message for message in self.box.messages if number.encode() in message.body][-1]

    def foreign_notification(self, number: str) -> NotificationRequest:
        return self.notification(number, forgery="wrong_account")

    def sign(self, request: HttpRequest, status: int, body: bytes) -> HttpResponse:
        return HttpResponse(status, {}, sign_answer(self.bank, body))

    def secrets(self) -> tuple[str, ...]:
        lines = self.options["private_key"].splitlines()
        return (lines[1], lines[5], lines[-2])

    def now(self) -> datetime:
        """The time in Beijing: a day of Alipay is a day there."""
        return datetime.now(BEIJING)

    def open_page(self, value: str) -> HttpResponse:
        """The buyer's browser (or app) takes the signed request to Alipay."""
        url = value if value.startswith("http") else f"{self.options['base_url']}?{value}"
        reply = send(HttpRequest("GET", url))
        assert isinstance(reply, HttpResponse), reply
        return reply

    def follow(self, value: str) -> HttpResponse:
        """As `open_page`, and on to the wallet."""
        reply = self.open_page(value)
        assert reply.status == 302, reply
        page = send(HttpRequest("GET", reply.headers["location"]))
        assert isinstance(page, HttpResponse)
        assert page.status == 200
        return page

    def next_day(self) -> Any:
        """The bank's clock one day on: bills of today are ready. The caller sets it back."""
        return self.control.set_clock(timedelta(days=1).total_seconds())


def query_of(url: str) -> dict[str, str]:
    """The fields of a signed address or order text."""
    text = urlsplit(url).query if url.startswith("http") else url
    return dict(parse_qsl(text, keep_blank_values=True))


class Gateway:
    """Answers each request with the next record, truly signed unless told otherwise."""

    def __init__(self, bank: dict[str, Any], *records: Any, key: Any = None, space: str = "") -> None:
        self.bank = bank
        self.records = list(records)
        self.key = key or private_of(bank["keys"]["alipay_private_key"])
        self.space = space
        self.methods: list[str] = []

    def __call__(self, request: HttpRequest) -> HttpResponse:
        method = request.url.split("method=")[1].split("&")[0]
        self.methods.append(method)
        content = json.dumps(self.records.pop(0), ensure_ascii=False)
        signature = sign_rsa(self.key, content.encode())
        number = self.bank["keys"].get("alipay_cert_sn")
        certificate = f'"alipay_cert_sn":"{number}",' if number else ""
        name = method.replace(".", "_") + "_response"
        space = self.space
        body = f'{space}{{{space}"{name}"{space}:{space}{content}{space},{certificate}{space}"sign":"{signature}"{space}}}{space}'
        return HttpResponse(200, {}, body.encode())


def ok(**fields: Any) -> dict[str, Any]:
    return {"code": "10000", "msg": "Success", **fields}


def failed(sub_code: str, code: str = "40004") -> dict[str, Any]:
    return {"code": code, "msg": "failed", "sub_code": sub_code, "sub_msg": "原因"}
