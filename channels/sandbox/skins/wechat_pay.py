"""WeChat Pay v3 over the bank's ledger, for a direct merchant: as strict as the real channel, and as odd.

Errors (4xx) carry no signature; a close is answered with 204 also for a number that nobody knows, signed over an empty
body; an expired order stays NOTPAY; a payment tells that something was refunded, not how much; `bad_signature` is a
probe (WECHATPAY/SIGNTEST/). `keys["mode"]` says with which key the bank signs: in `switching`, now this one, now that.

Not as the real channel: it keeps no history of prepay ids, an h5 address lives as long as the order, and a notification of a
refund states the refunded amount as the payment's total.
"""

import itertools
import json
import secrets
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote

from payonce.channels.keys import load_certificate
from payonce.channels.sandbox import ledger, refunds
from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.asgi import Request, Response
from payonce.channels.sandbox.bank import Bank, refund_course
from payonce.channels.sandbox.codes import Code
from payonce.channels.sandbox.faults import Disturbance, DropError, FailedError
from payonce.channels.sandbox.outbox import Notification
from payonce.channels.sandbox.records import Payment, Result, find_payment, refunds_of
from payonce.channels.sandbox.sender import Style
from payonce.channels.sandbox.skins import wechat_pay_books as books
from payonce.channels.sandbox.skins import wechat_pay_wire as wire
from payonce.channels.sandbox.skins.base import Rendered, Skin, disturb
from payonce.channels.sandbox.skins.wechat_pay_wire import RefusalError
from payonce.channels.wechat_pay_wire import BEIJING

DOWNLOAD_SECONDS = 300
_DOWNLOADS_MAX = 64
_BILL_DAYS_MAX = 92
_EVENTS = {
    "payment.paid": "TRANSACTION.SUCCESS",
    "refund.done": "REFUND.SUCCESS",
    "refund.failed": "REFUND.CLOSED",
    "refund.attention": "REFUND.ABNORMAL",
}
_NUMBER_OF_CAPTURE = (
    "SELECT payment.number FROM capture JOIN payment ON payment.id = capture.payment_id"
    " WHERE payment.account = ? AND capture.reference = ?"
)
_NUMBER_OF_REFUND = (
    "SELECT payment.number FROM refund JOIN payment ON payment.id = refund.payment_id"
    " WHERE payment.account = ? AND refund.number = ?"
)


@dataclass(frozen=True, slots=True)
class _Call:
    """A verified request; `seconds` is the bank's time."""

    account: SandboxAccount
    request: Request
    seconds: float
    query: Mapping[str, list[str]]


@dataclass(frozen=True, slots=True)
class _Reply:
    """An answer before it is signed, and the faults that it is to show. Without a body it is a 204."""

    body: dict[str, Any] | None
    faults: Disturbance


@dataclass(frozen=True, slots=True)
class _Download:
    """A bill behind an address that works for a while."""

    account: str
    until: float
    data: bytes


class WeChatPay(Skin):
    """Serves `/v3/` of one bank."""

    account_options: ClassVar[Mapping[str, Any]] = {
        "close_proof": "query",
        "methods": ["qr", "jsapi", "h5", "app"],
        "currencies": ["CNY"],
        "refund_interval_seconds": 60,
    }
    # 15 tries within 24 h 4 min (docs/merchant/apis: the retry table of payment and refund notifications).
    retry_seconds = (15, 15, 30, 180, 600, 1_200, 1_800, 1_800, 1_800, 3_600, 10_800, 10_800, 10_800, 21_600, 21_600)

    def __init__(self, bank: Bank) -> None:
        super().__init__(bank)
        self._turns = itertools.count()
        self._downloads: dict[str, _Download] = {}

    @classmethod
    def new_account(cls, name: str, base_url: str, notify_url: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
        """A merchant in public-key mode; `wechat_pay_books.make_account` has the other modes."""
        return books.make_account(base_url)

    async def serve(self, account: SandboxAccount | None, request: Request) -> Response:
        """Verify, do, and answer."""
        if account is None:
            return Response(404)
        try:
            seconds = self.bank.now(account.name)
            wire.check_request(account, request, seconds)
            call = _Call(account, request, seconds, parse_qs(request.query))
            if request.path == "/v3/billdownload/file":
                return self._download(call)
            return self._answer(call, await self._dispatch(call))
        except RefusalError as refused:
            return refused.response()
        except FailedError as error:
            return RefusalError(error.status, "SYSTEM_ERROR", "系统异常，请稍后重试").response()

    async def _dispatch(self, call: _Call) -> _Reply:
        parts = [unquote(part) for part in call.request.path.split("/")[2:]]
        match (call.request.method, *parts):
            case ("POST", "pay", "transactions", kind) if kind in wire.METHODS:
                return await self._prepay(call, kind)
            case ("GET", "pay", "transactions", "out-trade-no", number):
                return await self._query(call, number)
            case ("POST", "pay", "transactions", "out-trade-no", number, "close"):
                return await self._close(call, number)
            case ("POST", "refund", "domestic", "refunds"):
                return await self._refund(call)
            case ("GET", "refund", "domestic", "refunds", refund_number):
                return await self._query_refund(call, refund_number)
            case ("GET", "bill", "tradebill"):
                return await self._bill(call)
            case ("GET", "certificates"):
                return self._certificates(call)
        raise RefusalError(404, "RESOURCE_NOT_EXISTS", "请求的资源不存在")

    async def _prepay(self, call: _Call, kind: str) -> _Reply:
        order = wire.read_order(call.account, kind, wire.read_body(call.request), self.bank.now())
        result, faults = await self.bank.perform(
            call.account, "prepay", order.number, lambda db, at, _: ledger.register(db, call.account, order, at)
        )
        return _reply("prepay", result, faults, lambda: books.prepay_fields(call.account, kind, _paid_for(result)))

    async def _query(self, call: _Call, number: str) -> _Reply:
        if call.query.get("mchid") != [call.account.merchant]:
            raise RefusalError(400, "PARAM_ERROR", "参数错误：mchid")
        is_refunded: list[bool] = []

        def effect(database: sqlite3.Connection, _at: float, _faults: Disturbance) -> Result:
            result = ledger.look_up(database, call.account, number)
            if result.payment is not None:
                is_refunded.append(any(refunds_of(database, taken.id) for taken in result.payment.captures))
            return result

        result, faults = await self.bank.perform(call.account, "query", number, effect, changes=False)
        return _reply(
            "query", result, faults, lambda: books.payment_fields(call.account, _paid_for(result), any(is_refunded))
        )

    async def _close(self, call: _Call, number: str) -> _Reply:
        wire.check_close(call.account, wire.read_body(call.request))
        result, faults = await self.bank.perform(
            call.account, "close", number, lambda db, at, _: ledger.close(db, call.account, number, at)
        )
        if result.code in {Code.ACCEPTED, Code.CLOSED, Code.NOT_FOUND}:
            return _Reply(None, faults)
        raise wire.refusal("close", result.code, faults)

    async def _refund(self, call: _Call) -> _Reply:
        transaction, number, total, order = wire.read_refund(call.account, wire.read_body(call.request))
        name = call.account.name
        if transaction:
            number = await self._number_of(_NUMBER_OF_CAPTURE, name, transaction)

        def effect(database: sqlite3.Connection, at: float, faults: Disturbance) -> Result:
            elsewhere = _look_up(database, _NUMBER_OF_REFUND, name, order.number)
            payment = find_payment(database, name, number)
            is_total = payment is None or not payment.captures or payment.captures[0].amount_minor == total
            if elsewhere not in {"", number} or not is_total:
                return Result(Code.NUMBER_CONFLICT)
            return refunds.refund(database, call.account, number, order, refund_course(call.account, faults), at)

        result, faults = await self.bank.perform(call.account, "refund", number, effect)
        return _reply("refund", result, faults, lambda: books.refund_fields(result))

    async def _query_refund(self, call: _Call, refund_number: str) -> _Reply:
        number = await self._number_of(_NUMBER_OF_REFUND, call.account.name, refund_number)
        result, faults = await self.bank.perform(
            call.account, "query_refund", number,
            lambda db, _at, _f: refunds.look_up_refund(db, call.account, number, refund_number), changes=False,
        )  # fmt: skip
        return _reply("query_refund", result, faults, lambda: books.refund_fields(result))

    async def _number_of(self, query: str, account: str, key: str) -> str:
        return await self.bank.read(lambda database: _look_up(database, query, account, key))

    async def _bill(self, call: _Call) -> _Reply:
        day = _bill_day(call, datetime.fromtimestamp(self.bank.now(), BEIJING))
        rows: list[dict[str, Any]] = []

        def effect(database: sqlite3.Connection, _at: float, _faults: Disturbance) -> Result:
            rows.extend(books.bill_rows(database, call.account.name, day))
            return Result(Code.OK)

        result, faults = await self.bank.perform(call.account, "statement", "", effect, changes=False)
        found = books.disturbed_rows(rows, faults, datetime(day.year, day.month, day.day, tzinfo=BEIJING).timestamp())
        if result.code == Code.OK and not found:
            raise RefusalError(400, "NO_STATEMENT_EXIST", "请求的账单文件不存在")
        return _reply("statement", result, faults, lambda: self._offer(call, books.write_bill(call.account, found)))

    def _offer(self, call: _Call, data: bytes) -> dict[str, Any]:
        """Put a file behind an address for some minutes."""
        packed, digest = books.packed(data)
        token = secrets.token_urlsafe(24)
        if len(self._downloads) >= _DOWNLOADS_MAX:
            self._downloads.pop(next(iter(self._downloads)))
        is_packed = call.query.get("tar_type") == ["GZIP"]
        until = self.bank.now() + DOWNLOAD_SECONDS
        self._downloads[token] = _Download(call.account.name, until, packed if is_packed else data)
        return {"hash_type": "SHA1", "hash_value": digest,
                "download_url": f"{call.account.base_url}/v3/billdownload/file?token={token}"}  # fmt: skip

    def _download(self, call: _Call) -> Response:
        """The file, without a signature."""
        found = self._downloads.get(call.query.get("token", [""])[0])
        if found is None or found.account != call.account.name or found.until < self.bank.now():
            raise RefusalError(400, "INVALID_REQUEST", "账单下载地址已失效")
        return Response(200, found.data, {"content-type": "application/octet-stream"})

    def _certificates(self, call: _Call) -> _Reply:
        """The platform certificates, where the account has any."""
        keys = call.account.keys
        if keys["mode"] == "public_key":
            raise RefusalError(404, "RESOURCE_NOT_EXISTS", "无可用的平台证书，请在商户平台-API安全申请使用微信支付公钥")
        text = keys["platform_certificate"]
        certificate = load_certificate(text)
        listed = {
            "serial_no": wire.platform_serial(keys),
            "effective_time": wire.beijing(certificate.not_valid_before_utc.timestamp()),
            "expire_time": wire.beijing(certificate.not_valid_after_utc.timestamp()),
            "encrypt_certificate": wire.seal(keys["apiv3_key"], text.encode(), "certificate"),
        }
        return _Reply({"data": [listed]}, Disturbance([]))

    def _answer(self, call: _Call, reply: _Reply) -> Response:
        """Sign and send, with the faults of an answer."""
        faults, at = reply.faults, call.seconds
        body = b"" if reply.body is None else json.dumps(reply.body, ensure_ascii=False).encode()
        if "garbage" in faults:
            body = b"<html>502 from a proxy, signed by mistake</html>"
        if "truncate" in faults and not body:
            raise DropError
        if fault := faults.get("stale_timestamp"):
            at -= fault.seconds(3_600)
        forgery = next((name for name in ("no_signature", "bad_signature") if name in faults), "")
        if fault := faults.get("bad_signature"):
            forgery = str(fault.arguments.get("kind", "bad_signature"))
        serial = self._serial(call.account.keys, call.request.headers.get("wechatpay-serial", ""))
        headers = {**(wire.JSON if body else {}), "request-id": secrets.token_hex(16)}
        headers |= wire.signed_headers(call.account.keys, serial, body, at, forgery)
        return disturb(Response(200 if body else 204, body, headers), faults)

    def _serial(self, keys: Mapping[str, str], asked: str = "") -> str:
        """With which key a message is signed: the one that was asked for, where the account has it, else by its mode."""
        public, platform = keys["public_key_id"], wire.platform_serial(keys)
        served = {"public_key": [public], "certificate": [platform]}.get(keys["mode"], [public, platform])
        if asked in served:
            return asked
        return served[next(self._turns) % len(served)]

    def tells(self, message: Notification) -> bool:
        """Payments and the ends of refunds; nothing about disputes or money given back in the console."""
        return message.event in _EVENTS

    def render(self, account: SandboxAccount, message: Notification, at: float, style: Style) -> Rendered:
        """A sealed and signed message, or a forged one."""
        content, keys = message.read(), account.keys
        kind = "refund" if "refund" in content else "transaction"
        record = (
            books.refund_notice(account, content) if kind == "refund" else books.payment_notice(account, content, style)
        )
        apiv3_key = keys["apiv3_key"]
        if style.forgery == "wrong_account":  # truly signed, and sealed for somebody else
            record, apiv3_key = {**record, "mchid": "1900000001"}, "z" * 32
        envelope = {
            "id": message.key,
            "create_time": wire.beijing(content["sent_at"]),
            "event_type": _EVENTS[message.event],
            "resource_type": "encrypt-resource",
            "resource": wire.sealed(apiv3_key, record, kind),
            "summary": "退款" if kind == "refund" else "支付成功",
        }
        body = json.dumps(envelope, ensure_ascii=False).encode()
        headers = {**wire.JSON, **wire.signed_headers(keys, self._serial(keys), body, at, style.forgery)}
        return headers, body + b" " if style.forgery == "altered_body" else body

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        """200 or 204, whatever the body."""
        return status in {200, 204}


def _reply(operation: str, result: Result, faults: Disturbance, fields: Callable[[], dict[str, Any]]) -> _Reply:
    """The fields of a success. Raises RefusalError for every other result, unless garbage comes anyway."""
    if result.code == Code.OK:
        return _Reply(fields(), faults)
    if "garbage" in faults:
        return _Reply({}, faults)
    raise wire.refusal(operation, result.code, faults)


def _paid_for(result: Result) -> Payment:
    if result.payment is None:
        raise RuntimeError("the bank says OK without a payment")
    return result.payment


def _look_up(database: sqlite3.Connection, query: str, account: str, key: str) -> str:
    row = database.execute(query, (account, key)).fetchone()
    return "" if row is None else str(row[0])


def _bill_day(call: _Call, now: datetime) -> date:
    """The day that is asked for. Raises RefusalError for one without a bill: it is made on the next day after ten."""
    try:
        day = date.fromisoformat(call.query.get("bill_date", [""])[0])
    except ValueError:
        raise RefusalError(400, "PARAM_ERROR", "参数错误：bill_date") from None
    if call.query.get("bill_type", ["ALL"]) != ["ALL"] or call.query.get("tar_type", ["GZIP"]) != ["GZIP"]:
        raise RefusalError(400, "PARAM_ERROR", "参数错误：bill_type")
    if day < now.date() - timedelta(days=_BILL_DAYS_MAX):
        raise RefusalError(400, "INVALID_REQUEST", "仅支持三个月内的账单下载申请")
    if day >= now.date():
        raise RefusalError(400, "NO_STATEMENT_EXIST", "请求的账单文件不存在")
    if now < datetime(day.year, day.month, day.day, 10, tzinfo=BEIJING) + timedelta(days=1):
        raise RefusalError(400, "STATEMENT_CREATING", "账单生成中")
    return day
