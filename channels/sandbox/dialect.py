"""The sandbox's own wire format: signed JSON over HTTP. Other formats can be laid over the same bank.

| call | operation |
|---|---|
| `POST /v1/payments` | prepay |
| `GET /v1/payments/{number}` | query |
| `POST /v1/payments/{number}/close` | close |
| `POST /v1/payments/{number}/capture` | capture |
| `POST /v1/payments/{number}/refunds` | refund |
| `GET /v1/payments/{number}/refunds/{refund_number}` | query_refund |
| `GET /v1/statement?day=YYYY-MM-DD&after=0` | statement |

Requests carry `sandbox-account` (the merchant), `-timestamp`, `-nonce` and `-signature`; answers the last three, over
the request's nonce. A request that does not verify is answered without a signature, before anything else happens.
"""

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, unquote

from payonce.channels.sandbox import ledger, outbox, readers, refunds, wire
from payonce.channels.sandbox.account import METHODS, SandboxAccount
from payonce.channels.sandbox.asgi import Request, Response
from payonce.channels.sandbox.bank import refund_course
from payonce.channels.sandbox.codes import HTTP_STATUS, HTTP_STATUS_OTHERWISE, Code
from payonce.channels.sandbox.faults import Disturbance, FailedError
from payonce.channels.sandbox.outbox import Notification
from payonce.channels.sandbox.records import Payment, Refund, Result
from payonce.channels.sandbox.sender import Style
from payonce.channels.sandbox.skins import OWN
from payonce.channels.sandbox.skins.base import Rendered, Skin, disturb
from payonce.channels.sandbox.wire import MalformedError
from payonce.channels.signing import (
    HEADER_ACCOUNT,
    Signature,
    SignatureVerdict,
    sign_answer,
    sign_notification,
    verify_request,
)

STATEMENT_LINES_PER_PAGE = 2_000
ACKNOWLEDGEMENT = b"success"
_JSON = {"content-type": "application/json"}
_REFUSED_SIGNATURES = {
    SignatureVerdict.MISSING: Code.SIGNATURE_INVALID,
    SignatureVerdict.BAD: Code.SIGNATURE_INVALID,
    SignatureVerdict.STALE: Code.TIMESTAMP_STALE,
}


@dataclass(frozen=True, slots=True)
class _Call:
    """A verified request."""

    account: SandboxAccount
    request: Request
    nonce: str
    number: str
    refund_number: str = ""


@dataclass(frozen=True, slots=True)
class _Reply:
    """A code, its fields, and the faults that the answer is to show."""

    code: str
    fields: dict[str, Any]
    faults: Disturbance


class Dialect(Skin):
    """Serves `/v1/` of one bank."""

    # The gaps of a real channel (WeChat Pay v3): 15 repeats within 24 h 4 min.
    retry_seconds = (15, 15, 30, 180, 600, 1_200, 1_800, 1_800, 1_800, 3_600, 10_800, 10_800, 10_800, 21_600, 21_600)

    async def serve(self, account: SandboxAccount | None, request: Request) -> Response:
        """Verify, do, and answer with a signature. The account is the one that the request names."""
        bank = self.bank
        account = bank.by_merchant.get(request.headers.get(HEADER_ACCOUNT, ""))
        if account is None or account.skin != OWN:
            return _unsigned(Code.ACCOUNT_UNKNOWN)
        signature = Signature.of(request.headers)
        verdict = verify_request(
            account.secret, account.merchant, request.method, request.target, request.body, signature,
            bank.now(account.name),
        )  # fmt: skip
        if verdict is not SignatureVerdict.GOOD:
            return _unsigned(_REFUSED_SIGNATURES[verdict])
        try:
            reply = await self._dispatch(account, request, signature.nonce)
        except MalformedError as error:
            reply = _Reply(Code.PARAM_INVALID, {"message": f"malformed: {error}"}, Disturbance([]))
        except FailedError as error:
            body = wire.write_object({"code": Code.SYSTEM_ERROR, "message": "planned failure"})
            return self._signed(account, signature.nonce, error.status, body, Disturbance([]))
        return self._answer(account, signature.nonce, reply)

    async def _dispatch(self, account: SandboxAccount, request: Request, nonce: str) -> _Reply:
        parts = [unquote(part) for part in request.path.split("/")[2:]]
        handler: Callable[[_Call], Awaitable[_Reply]] | None = None
        call = _Call(account, request, nonce, "")
        match (request.method, *parts):
            case ("POST", "payments"):
                handler = self._prepay
            case ("GET", "statement"):
                handler = self._statement
            case (method, "payments", number, *rest):
                call = _Call(account, request, nonce, _checked(number), _checked(rest[1]) if len(rest) == 2 else "")
                handler = {
                    ("GET",): self._query,
                    ("POST", "close"): self._close,
                    ("POST", "capture"): self._capture,
                    ("POST", "refunds"): self._refund,
                    ("GET", "refunds", call.refund_number): self._query_refund,
                }.get((method, *rest))
        if handler is None:
            return _Reply(Code.UNSUPPORTED, {}, Disturbance([]))
        return await handler(call)

    async def _prepay(self, call: _Call) -> _Reply:
        order = _order(wire.read_object(call.request.body))
        result, faults = await self.bank.perform(
            call.account, "prepay", order.number, lambda db, at, _: ledger.register(db, call.account, order, at)
        )
        fields: dict[str, Any] = {}
        if result.code == Code.OK and result.payment is not None:
            fields["prepay"] = _prepay_fields(call.account, result.payment)
        return _Reply(result.code, fields, faults)

    async def _query(self, call: _Call) -> _Reply:
        result, faults = await self.bank.perform(
            call.account, "query", call.number,
            lambda db, _at, _f: ledger.look_up(db, call.account, call.number), changes=False,
        )  # fmt: skip
        return _Reply(result.code, _payment_fields(call.account, result), faults)

    async def _close(self, call: _Call) -> _Reply:
        result, faults = await self.bank.perform(
            call.account, "close", call.number, lambda db, at, _: ledger.close(db, call.account, call.number, at)
        )
        tells = result.code in {Code.ALREADY_PAID, Code.CLOSED}
        return _Reply(result.code, _payment_fields(call.account, result) if tells else {}, faults)

    async def _capture(self, call: _Call) -> _Reply:
        key = wire.text(wire.read_object(call.request.body), "key", characters_max=128)
        result, faults = await self.bank.perform(
            call.account, "capture", call.number,
            lambda db, at, _: ledger.capture(db, call.account, call.number, key, at),
        )  # fmt: skip
        return _Reply(result.code, _payment_fields(call.account, result), faults)

    async def _refund(self, call: _Call) -> _Reply:
        order = _refund_order(wire.read_object(call.request.body))

        def effect(database: sqlite3.Connection, at: float, faults: Disturbance) -> Result:
            course = refund_course(call.account, faults)
            return refunds.refund(database, call.account, call.number, order, course, at)

        result, faults = await self.bank.perform(call.account, "refund", call.number, effect)
        return _Reply(result.code, _refund_fields(result), faults)

    async def _query_refund(self, call: _Call) -> _Reply:
        result, faults = await self.bank.perform(
            call.account, "query_refund", call.number,
            lambda db, _at, _f: refunds.look_up_refund(db, call.account, call.number, call.refund_number),
            changes=False,
        )  # fmt: skip
        return _Reply(result.code, _refund_fields(result), faults)

    async def _statement(self, call: _Call) -> _Reply:
        query = parse_qs(call.request.query)
        start, after = _day(query), _after(query)
        lines: list[dict[str, Any]] = []

        def effect(database: sqlite3.Connection, _at: float, _faults: Disturbance) -> Result:
            if not call.account.capabilities.statement:
                return Result(Code.UNSUPPORTED)
            lines.extend(statement_lines(database, call.account.name, start, after))
            return Result(Code.OK)

        result, faults = await self.bank.perform(call.account, "statement", "", effect, changes=False)
        full = len(lines) == STATEMENT_LINES_PER_PAGE
        fields = {"lines": _disturbed(lines, faults), "next_after": lines[-1]["id"] if full else None}
        return _Reply(result.code, fields if result.code == Code.OK else {}, faults)

    def render(self, account: SandboxAccount, message: Notification, at: float, style: Style) -> Rendered:
        """As `render_notification`."""
        return render_notification(account, message, at, style)

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        """Status 200 with exactly the word that ends the repeats."""
        return (status, body) == (200, ACKNOWLEDGEMENT)

    def _answer(self, account: SandboxAccount, nonce: str, reply: _Reply) -> Response:
        status = HTTP_STATUS_OTHERWISE
        if reply.code in Code.__members__:
            status = HTTP_STATUS.get(Code(reply.code), HTTP_STATUS_OTHERWISE)
        refusal = reply.faults.get("refuse")
        if refusal is not None:
            status = int(refusal.arguments.get("status", status))
        body = wire.write_object({"code": reply.code, **reply.fields})
        if "garbage" in reply.faults:
            body = b"<html>502 from a proxy, signed by mistake</html>"
        return self._signed(account, nonce, status, body, reply.faults)

    def _signed(self, account: SandboxAccount, nonce: str, status: int, body: bytes, faults: Disturbance) -> Response:
        at = self.bank.now(account.name)
        if fault := faults.get("stale_timestamp"):
            at -= fault.seconds(3_600)
        secret = "x" * 32 if "bad_signature" in faults else account.secret
        headers = dict(_JSON)
        if "no_signature" not in faults:
            headers |= sign_answer(secret, nonce, status, body, at).headers()
        return disturb(Response(status, body, headers), faults)


def render_notification(account: SandboxAccount, message: Notification, at: float, style: Style) -> Rendered:
    """Headers and body of one message, true or forged as the style says."""
    content = message.read()
    record: dict[str, Any] = {
        "id": message.key,
        "event": message.event,
        "sent_at": wire.format_seconds(content["sent_at"]),
        "payment": None,
        "refund": content.get("refund"),
    }
    if "payment" in content:
        record["payment"] = _alter(_rendered(content["payment"]), style.altered)
    body = wire.write_object(record)
    merchant = "somebody-else" if style.forgery == "wrong_account" else account.merchant
    secret = "y" * 32 if style.forgery in {"other_secret", "bad_signature"} else account.secret
    headers = {HEADER_ACCOUNT: merchant, **_JSON}
    if style.forgery != "no_signature":
        headers |= sign_notification(secret, merchant, body, at).headers()
    if style.forgery == "altered_body":
        body = wire.write_object({**record, "id": message.key + "x"})
    return headers, body


def statement_lines(database: sqlite3.Connection, account: str, start: datetime, after: int) -> list[dict[str, Any]]:
    """One page of the captures and refunds of a day, from the journal."""
    rows = database.execute(
        "SELECT journal.*, (SELECT refund.reference FROM refund JOIN payment ON payment.id = refund.payment_id"
        " WHERE payment.account = journal.account AND payment.number = journal.number"
        " AND refund.number = journal.refund_number) AS refund_reference FROM journal WHERE account = ? AND at >= ? AND at < ? AND id > ?"
        " AND kind IN ('capture', 'refund') ORDER BY id LIMIT ?",
        (account, start.timestamp(), (start + timedelta(days=1)).timestamp(), after, STATEMENT_LINES_PER_PAGE),
    )
    return [_statement_line(row) for row in rows]


def _statement_line(row: sqlite3.Row) -> dict[str, Any]:
    is_refund = row["kind"] == "refund"
    return {
        "id": row["id"],
        "kind": "refund" if is_refund else "payment",
        "number": row["refund_number"] if is_refund else row["number"],
        "payment_number": row["number"] if is_refund else "",
        "reference": row["refund_reference"] if is_refund else row["reference"],
        "amount_minor": abs(row["amount_minor"]),
        "currency": row["currency"],
        "at": wire.format_seconds(row["at"]),
        "state": "DONE" if is_refund else "PAID",
    }


def _disturbed(lines: list[dict[str, Any]], faults: Disturbance) -> list[dict[str, Any]]:
    """The lines with one number left out or one payment invented, where a fault says so."""
    if fault := faults.get("omit"):
        left_out = fault.arguments.get("name")
        lines = [line for line in lines if left_out not in {line["number"], line["payment_number"]}]
    if fault := faults.get("invent"):
        number, amount = str(fault.arguments.get("name", "invented")), int(fault.arguments.get("amount_minor", 100))
        invented = {"id": 0, "kind": "payment", "number": number, "reference": "cap_invented", "amount_minor": amount,
                    "currency": str(fault.arguments.get("currency", "CNY")), "state": "PAID", "payment_number": ""}  # fmt: skip
        lines = [*lines, invented]
    return lines


def _order(record: dict[str, Any]) -> ledger.Order:
    return ledger.Order(
        number=wire.number(record, "number"),
        amount_minor=wire.amount(record, "amount_minor", least=1),
        currency=wire.currency(record),
        subject=wire.text(record, "subject", characters_max=256),
        method=wire.text(record, "method", characters_max=32),
        client_type=wire.text(record, "client_type", default="", characters_max=32),
        payer=wire.text(record, "payer", default="", characters_max=128),
        payable_until=wire.moment(record, "payable_until").timestamp(),
        notify_url=_url(record, "notify_url"),
        return_url=_url(record, "return_url"),
    )


def _refund_order(record: dict[str, Any]) -> refunds.RefundOrder:
    return refunds.RefundOrder(
        number=wire.number(record, "refund_number"),
        reference=wire.text(record, "reference", default="", characters_max=128),
        amount_minor=wire.amount(record, "amount_minor", least=1),
        currency=wire.currency(record),
        notify_url=_url(record, "notify_url"),
    )


def _url(record: dict[str, Any], name: str) -> str:
    value = wire.text(record, name, default="")
    if value and not value.startswith(("http://", "https://")):
        raise MalformedError(name)
    return value


def _prepay_fields(account: SandboxAccount, payment: Payment) -> dict[str, Any]:
    url = f"{account.base_url}/wallet/pay/{payment.token}"
    kind = METHODS[payment.method]
    return {
        "number": payment.number,
        "kind": kind.value,
        "value": readers.app_parameters(url) if kind == "app" else url,
        "expires_at": wire.format_seconds(payment.prepay_expires_at),
    }


def _payment_fields(account: SandboxAccount, result: Result) -> dict[str, Any]:
    if result.payment is None:
        return {}
    return {"payment": _rendered(outbox.payment_content(account, result.payment, None))}


def _refund_fields(result: Result) -> dict[str, Any]:
    if result.payment is None or not isinstance(result.refund, Refund):
        return {}
    return {"refund": outbox.refund_content(result.payment, result.refund)}


def _rendered(content: dict[str, Any]) -> dict[str, Any]:
    """The ledger's content with its times written out."""
    rendered = {name: value for name, value in content.items() if name != "details"}
    if "paid_at" in rendered:
        rendered["paid_at"] = wire.format_seconds(rendered["paid_at"])
    rendered["captures"] = [_rendered(inner) for inner in content.get("captures", [])]
    return rendered


def _alter(payment: dict[str, Any], altered: Any) -> dict[str, Any]:
    changed = {**payment, **altered}
    if "amount_minor" in altered:
        changed["paid_minor"] = altered["amount_minor"]
    return changed


def _checked(number: str) -> str:
    if not wire.is_number(number):
        raise MalformedError("number")
    return number


def _day(query: dict[str, list[str]]) -> datetime:
    try:
        day = date.fromisoformat(query.get("day", [""])[0])
    except ValueError:
        raise MalformedError("day") from None
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _after(query: dict[str, list[str]]) -> int:
    text = query.get("after", ["0"])[0]
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise MalformedError("after")
    return int(text)


def _unsigned(code: Code) -> Response:
    return Response(HTTP_STATUS[code], wire.write_object({"code": code}), _JSON)
