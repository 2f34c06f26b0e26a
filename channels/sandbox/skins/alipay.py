"""Alipay's classic gateway over the bank's ledger: `/gateway.do` in public-key mode (`alipay`) or certificate mode (`alipay_cert`).

As odd as the real one: every answer but a planned failure has status 200; answers are signed over their raw text; an application
that the gateway does not know gets an unsigned error; no trade exists before a buyer scans the code or opens the page;
a close works only on a trade that waits for its buyer; a repeated refund says `fund_change` N; only payments are notified.

`alipay.trade.page.pay`, `wap.pay` and `app.pay` are requests of the buyer's browser (or app), not of the merchant: open
what the adapter returned and you are led to the bank's wallet. An order text of `app` is opened as `/gateway.do?` and itself.
QR texts lead to the bank's wallet too, where the real ones lead to qr.alipay.com.

Not played: `stale_timestamp`, since answers carry no time; attention to a refund, which Alipay does not have, shows as a refund
that the query does not know; disputes and reversals, which no call of Alipay tells. Unchecked against the real gateway [K]: which
errors are signed, the order of the checks, and the code of a bill that is not ready.
"""

import html
import json
import re
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import parse_qs

from payonce.channels.alipay_wire import BEIJING, MalformedError, is_signed_by, read_form, signed_text
from payonce.channels.sandbox import ledger, notes, refunds
from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.asgi import Request, Response
from payonce.channels.sandbox.bank import refund_course
from payonce.channels.sandbox.codes import Code
from payonce.channels.sandbox.faults import Disturbance, FailedError
from payonce.channels.sandbox.outbox import Notification
from payonce.channels.sandbox.records import Result, find_payment, find_refund
from payonce.channels.sandbox.sender import Style
from payonce.channels.sandbox.skins import alipay_bill as bill
from payonce.channels.sandbox.skins import alipay_keys as keys
from payonce.channels.sandbox.skins import alipay_orders as orders
from payonce.channels.sandbox.skins import alipay_wire as wire
from payonce.channels.sandbox.skins.alipay_wire import GatewayError
from payonce.channels.sandbox.skins.base import Rendered, Skin, disturb

PATH = "/gateway.do"
TRADE_NUMBERS = "alipay_trade_no"
_NOTHING = Disturbance([])
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)
_REQUIRED = (
    ("app_id", "isv.missing-app-id"), ("sign_type", "isv.missing-signature-type"), ("sign", "isv.missing-signature"),
    ("timestamp", "isv.missing-timestamp"), ("version", "isv.missing-version"),
)  # fmt: skip
_BY_REQUEST: dict[str, str] = {
    Code.NOT_FOUND: "ACQ.TRADE_NOT_EXIST",
    Code.PARAM_INVALID: "ACQ.INVALID_PARAMETER",
    Code.UNSUPPORTED: "ACQ.ACCESS_FORBIDDEN",
    Code.DECLINED: "ACQ.ACCESS_FORBIDDEN",
}
_CODES: dict[str, dict[str, str]] = {
    "prepay": {
        **_BY_REQUEST,
        Code.NUMBER_CONFLICT: "ACQ.CONTEXT_INCONSISTENT",
        Code.ALREADY_PAID: "ACQ.TRADE_HAS_SUCCESS",
        Code.ALREADY_CLOSED: "ACQ.TRADE_HAS_CLOSE",
        Code.EXPIRED: "ACQ.INVALID_PARAMETER",
        Code.AMOUNT_OUT_OF_RANGE: "ACQ.TOTAL_FEE_EXCEED",
        Code.DECLINED: "ACQ.TOTAL_FEE_EXCEED",
        Code.METHOD_UNSUPPORTED: "ACQ.ACCESS_FORBIDDEN",
        Code.CURRENCY_UNSUPPORTED: "ACQ.INVALID_PARAMETER",
    },
    "query": _BY_REQUEST,
    "close": {
        **_BY_REQUEST,
        Code.ALREADY_PAID: "ACQ.TRADE_STATUS_ERROR",
        Code.IN_PROGRESS: "ACQ.REASON_ILLEGAL_STATUS",
        Code.NOT_CLOSABLE: "ACQ.TRADE_STATUS_ERROR",
    },
    "refund": {
        **_BY_REQUEST,
        Code.NOT_PAID: "ACQ.TRADE_STATUS_ERROR",
        Code.NUMBER_CONFLICT: "ACQ.DISCORDANT_REPEAT_REQUEST",
        Code.REFUND_EXCEEDS: "ACQ.REASON_TRADE_REFUND_FEE_ERR",
        Code.REFUND_WINDOW_PASSED: "ACQ.TRADE_HAS_FINISHED",
        Code.REFUNDS_UNSUPPORTED: "ACQ.TRADE_NOT_ALLOW_REFUND",
        Code.REFUND_PARTIAL_UNSUPPORTED: "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL",
        Code.REFUND_COUNT: "ACQ.TRADE_NOT_ALLOW_REFUND",
        Code.NOT_ENOUGH: "ACQ.SELLER_BALANCE_NOT_ENOUGH",
        Code.DECLINED: "ACQ.SELLER_BALANCE_NOT_ENOUGH",
        Code.REFUND_TOO_SOON: "40005",
    },
    "query_refund": _BY_REQUEST,
    "statement": {**_BY_REQUEST, Code.STATEMENT_NOT_READY: "isp.bill_not_exist"},
}


@dataclass(frozen=True, slots=True)
class _Call:
    """A verified request."""

    account: SandboxAccount
    method: str
    fields: dict[str, str]
    content: dict[str, Any]
    number: str = ""


class AlipaySkin(Skin):
    """Public-key mode."""

    account_options: ClassVar[Mapping[str, Any]] = {
        "close_proof": "answer",
        "not_found_before_buyer_acts": True,
        "refund_interval_seconds": 3,
        "currencies": ["CNY"],
    }
    retry_seconds: ClassVar[tuple[float, ...]] = (240, 600, 600, 3_600, 7_200, 21_600, 54_000)

    def __init__(self, bank: Any) -> None:
        super().__init__(bank)
        self._bills = bill.Addresses()
        self._handlers: dict[str, Callable[[_Call], Awaitable[Response]]] = {
            "alipay.trade.precreate": self._precreate,
            "alipay.trade.page.pay": self._open_page,
            "alipay.trade.wap.pay": self._open_page,
            "alipay.trade.app.pay": self._open_page,
            "alipay.trade.query": self._query,
            "alipay.trade.close": self._close,
            "alipay.trade.refund": self._refund,
            "alipay.trade.fastpay.refund.query": self._query_refund,
            "alipay.data.dataservice.bill.downloadurl.query": self._bill,
        }

    @classmethod
    def new_account(cls, name: str, base_url: str, notify_url: str = "") -> keys.Halves:
        """A new application with fresh keys."""
        return keys.public_key_halves(base_url)

    async def serve(self, account: SandboxAccount | None, request: Request) -> Response:
        """One request to the gateway, or the download of a bill."""
        if account is None or request.path not in {PATH, bill.PATH}:
            return Response(404)
        if request.path == bill.PATH:
            return self._download(request)
        method = ""
        try:
            call = await self._read(account, request)
            method = call.method
            return await self._handlers[method](call)
        except GatewayError as error:
            return wire.answer(account, method or error.method, error.record, _NOTHING, is_signed=error.is_signed)
        except FailedError as error:
            if error.status != 200:
                return Response(error.status, b"<html>planned failure</html>", {"content-type": "text/html"})
            return wire.answer(account, method, wire.refusal("isp.unknow-error"), _NOTHING)

    async def _read(self, account: SandboxAccount, request: Request) -> _Call:
        """Check a request as the gateway does: who, how signed, and only then what."""
        fields = _fields(request)
        method = fields.get("method", "")
        if method not in self._handlers:
            raise GatewayError(method, "isv.invalid-method" if method else "isv.missing-method", is_signed=False)
        for name, code in _REQUIRED:
            if not fields.get(name):
                raise GatewayError(method, code, is_signed=False)
        if fields["app_id"] != account.keys["app_id"]:
            raise GatewayError(method, "isv.invalid-app-id", is_signed=False)
        _check_form(method, fields)
        for name in ("app_cert_sn", "alipay_root_cert_sn"):
            wanted = account.keys.get(name, "")
            if fields.get(name, "") != wanted:
                state = "invalid" if wanted and fields.get(name) else "missing" if wanted else "unexpected"
                raise GatewayError(method, f"isv.{state}-{name.replace('_', '-')}")
        key = keys.public_of(account.keys["app_public_key"])
        if not is_signed_by((key,), signed_text(fields).encode(), fields["sign"]):
            raise GatewayError(method, "isv.invalid-signature")
        content = _content(method, fields)
        number = await self._number(account, content)
        return _Call(account, method, fields, content, number)

    async def _number(self, account: SandboxAccount, content: Mapping[str, Any]) -> str:
        """The merchant's number of the trade; where both numbers are given, Alipay's own goes first."""
        trade_no, number = content.get("trade_no"), content.get("out_trade_no")
        if isinstance(trade_no, str) and trade_no:
            note = await self.bank.read(lambda db: notes.find_note(db, account.name, TRADE_NUMBERS, trade_no))
            if note is not None:
                return str(note.value)
        return number if isinstance(number, str) else ""

    async def _register(self, call: _Call, method: str) -> tuple[Result, Disturbance]:
        def effect(database: sqlite3.Connection, at: float, _: Disturbance) -> Result:
            known = find_payment(database, call.account.name, call.number)
            order = orders.order(call.content, call.fields, method, at, known)
            if isinstance(order, str):
                return Result(order)
            result = ledger.register(database, call.account, order, at)
            if result.payment is not None and known is None:
                number = wire.trade_no(result.payment.number, result.payment.created_at)
                notes.write_note(database, call.account.name, TRADE_NUMBERS, number, result.payment.number, at)
            return result

        return await self.bank.perform(call.account, "prepay", call.number, effect)

    async def _precreate(self, call: _Call) -> Response:
        result, faults = await self._register(call, "qr")
        fields = {}
        if result.code == Code.OK and result.payment is not None:
            code = f"{call.account.base_url}/wallet/pay/{result.payment.token}"
            fields = {"out_trade_no": result.payment.number, "qr_code": code}
        return self._answer(call, "prepay", result, fields, faults)

    async def _open_page(self, call: _Call) -> Response:
        """The buyer's browser or app comes with the signed request: only now does Alipay learn of it."""
        methods = {"alipay.trade.page.pay": "web", "alipay.trade.wap.pay": "h5", "alipay.trade.app.pay": "app"}
        result, faults = await self._register(call, methods[call.method])
        if result.code == Code.OK and result.payment is not None:
            location = f"{call.account.base_url}/wallet/pay/{result.payment.token}"
            return disturb(Response(302, b"", {"location": location, "cache-control": "no-store"}), faults)
        code = _CODES["prepay"].get(result.code, result.code)
        text = f"<!doctype html><title>Alipay</title><p>{html.escape(code)}</p>"
        return disturb(Response(200, text.encode(), {"content-type": "text/html; charset=utf-8"}), faults)

    async def _query(self, call: _Call) -> Response:
        moment = self.bank.now()
        result, faults = await self.bank.perform(
            call.account, "query", call.number, lambda db, _at, _f: ledger.look_up(db, call.account, call.number),
            changes=False,
        )  # fmt: skip
        fields = {}
        if result.payment is not None:
            fields = orders.trade_fields(call.account, result.payment, call.content.get("trade_no"), moment)
        return self._answer(call, "query", result, fields, faults)

    async def _close(self, call: _Call) -> Response:
        def effect(database: sqlite3.Connection, at: float, _: Disturbance) -> Result:
            payment = find_payment(database, call.account.name, call.number)
            is_seen = payment is not None and payment.seen_at is not None
            if payment is not None and is_seen and orders.status(call.account, payment, at) == "TRADE_CLOSED":
                return Result("ACQ.REASON_TRADE_STATUS_INVALID", payment)
            result = ledger.close(database, call.account, call.number, at)
            return Result(Code.OK, result.payment) if result.code == Code.CLOSED else result

        result, faults = await self.bank.perform(call.account, "close", call.number, effect)
        fields = {}
        if result.code == Code.OK and result.payment is not None:
            payment = result.payment
            fields = {"out_trade_no": payment.number, "trade_no": wire.trade_no(payment.number, payment.created_at)}
        return self._answer(call, "close", result, fields, faults)

    async def _refund(self, call: _Call) -> Response:
        moved: list[bool] = []

        def effect(database: sqlite3.Connection, at: float, faults: Disturbance) -> Result:
            payment = find_payment(database, call.account.name, call.number)
            order = orders.refund_order(call.content, payment)
            if isinstance(order, str):
                return Result(order)
            before = find_refund(database, payment.id, order.number) if payment is not None else None
            course = refund_course(call.account, faults)
            result = refunds.refund(database, call.account, call.number, order, course, at)
            after = result.refund
            if result.code == Code.OK and after is not None and after.state == "FAILED":
                return Result(after.code or Code.NOT_ENOUGH, result.payment)
            is_done = after is not None and after.state == "DONE"
            moved.append(is_done and (before is None or before.state != "DONE"))
            return result

        result, faults = await self.bank.perform(call.account, "refund", call.number, effect)
        fields = orders.refund_fields(result, is_moved=any(moved)) if result.code == Code.OK else {}
        return self._answer(call, "refund", result, fields, faults)

    async def _query_refund(self, call: _Call) -> Response:
        refund_number = str(call.content.get("out_request_no") or call.number)

        def effect(database: sqlite3.Connection, _at: float, _: Disturbance) -> Result:
            payment = find_payment(database, call.account.name, call.number)
            if payment is None or not payment.captures:
                return Result(Code.NOT_FOUND)
            known = refunds.look_up_refund(database, call.account, call.number, refund_number)
            # A refund number that is wrong, waits or failed: the query worked, and there is nothing inside.
            return Result(Code.OK, payment, known.refund)

        result, faults = await self.bank.perform(call.account, "query_refund", call.number, effect, changes=False)
        if "not_found" in faults:
            result = Result(Code.OK)
        return self._answer(call, "query_refund", result, orders.refund_query_fields(result), faults)

    async def _bill(self, call: _Call) -> Response:
        day = bill.day_of(call.content.get("bill_date"))
        moment = self.bank.now()
        found: list[dict[str, Any]] = []

        def effect(database: sqlite3.Connection, _at: float, _: Disturbance) -> Result:
            if call.content.get("bill_type") != "trade" or day is None:
                return Result(Code.PARAM_INVALID)
            if day >= datetime.fromtimestamp(moment, BEIJING).date():
                return Result(Code.STATEMENT_NOT_READY)
            found.extend(bill.movements(database, call.account.name, day))
            return Result(Code.OK if found else Code.STATEMENT_NOT_READY)

        result, faults = await self.bank.perform(call.account, "statement", "", effect, changes=False)
        fields = {}
        if day is not None and (result.code == Code.OK or "invent" in faults):
            rows = orders.bill_rows(found, faults, moment)
            token = self._bills.add(bill.pack(rows, call.account.merchant, day), moment)
            fields = {
                "bill_download_url": f"{call.account.base_url}{bill.PATH}?bizType=trade&fileType=csv.zip&token={token}"
            }
            result = Result(Code.OK)
        return self._answer(call, "statement", result, fields, faults)

    def _download(self, request: Request) -> Response:
        archive = self._bills.take(parse_qs(request.query).get("token", [""])[0], self.bank.now())
        if archive is None:
            return Response(200, "下载超时，请重新下载".encode(), {"content-type": "text/html;charset=utf-8"})
        return Response(200, archive, {"content-type": "application/zip"})

    def _answer(
        self, call: _Call, operation: str, result: Result, fields: Mapping[str, Any], faults: Disturbance
    ) -> Response:
        if result.code == Code.OK:
            record = {"code": "10000", "msg": "Success", **fields}
        else:
            record = wire.refusal(_CODES[operation].get(result.code, result.code))
        return wire.answer(call.account, call.method, record, faults)

    def tells(self, message: Notification) -> bool:
        """Payments only: closes and refunds are not told [D]."""
        return message.event == "payment.paid"

    def render(self, account: SandboxAccount, message: Notification, at: float, style: Style) -> Rendered:
        """One notification as a form."""
        return wire.render(account, message, at, style)

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        """Exactly the seven bytes."""
        return (status, body) == (200, b"success")


class AlipayCertificateSkin(AlipaySkin):
    """Certificate mode."""

    @classmethod
    def new_account(cls, name: str, base_url: str, notify_url: str = "") -> keys.Halves:
        """A new application with fresh keys and certificates."""
        return keys.certificate_halves(base_url)


def _fields(request: Request) -> dict[str, str]:
    """The fields of the address and of the body together. Raises GatewayError."""
    parts = [part for part in (request.query.encode("latin-1"), request.body) if part]
    try:
        return read_form(b"&".join(parts)) if parts else {}
    except MalformedError:
        raise GatewayError("", "isv.invalid-parameter", is_signed=False) from None


def _check_form(method: str, fields: Mapping[str, str]) -> None:
    if fields["sign_type"] != "RSA2":
        raise GatewayError(method, "isv.invalid-signature-type")
    if fields.get("charset", "").lower() != "utf-8":
        raise GatewayError(method, "isv.invalid-charset")
    if fields.get("format", "JSON").lower() != "json":
        raise GatewayError(method, "isv.invalid-format")
    if fields["version"] != "1.0":
        raise GatewayError(method, "isv.invalid-version")
    if not _TIMESTAMP.fullmatch(fields["timestamp"]):
        raise GatewayError(method, "isv.invalid-timestamp")


def _content(method: str, fields: Mapping[str, str]) -> dict[str, Any]:
    try:
        content = json.loads(fields.get("biz_content", ""), parse_float=str)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise GatewayError(method, "isv.invalid-parameter")
    return content
