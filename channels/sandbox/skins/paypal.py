"""PayPal's wire format over the bank: OAuth, Orders v2, Payments v2, Transaction Search, and signed webhook events.

| call | operation |
|---|---|
| `POST /v1/oauth2/token` | an access token, for nine hours |
| `POST /v2/checkout/orders` | prepay |
| `GET /v2/checkout/orders/{id}` | query; also how a refund finds its capture, and how it is found again |
| `POST /v2/checkout/orders/{id}/capture` | capture |
| `POST /v2/payments/captures/{id}/refund` | refund |
| `GET /v2/payments/captures/{id}`, `/refunds/{id}` | reading one of them |
| `GET /v1/reporting/transactions` | statement |
| `POST /v1/notifications/webhooks` | the address that events are sent to |
| `GET /checkoutnow?token={id}` | the buyer's browser, sent on to the wallet page |

A repeated `PayPal-Request-Id` is answered with the latest state and status 200, for six hours (orders) or 45 days (refunds).
"""

import base64
import hmac
import json
import secrets
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives.asymmetric import rsa

from payonce.channels.paypal_wire import MalformedError, read_moment
from payonce.channels.sandbox import ledger, notes, refunds
from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.asgi import Request, Response
from payonce.channels.sandbox.bank import refund_course
from payonce.channels.sandbox.codes import Code
from payonce.channels.sandbox.faults import Disturbance, FailedError
from payonce.channels.sandbox.outbox import Notification
from payonce.channels.sandbox.records import Payment, Result, find_payment
from payonce.channels.sandbox.sender import Style
from payonce.channels.sandbox.skins import paypal_json as pages
from payonce.channels.sandbox.skins.base import Rendered, Skin, disturb
from payonce.channels.sandbox.skins.certificates import new_certificate

TOKEN_SECONDS = 9 * 3_600
ORDER_KEY_SECONDS, REFUND_KEY_SECONDS = 6 * 3_600, 45 * 86_400
_JSON = {"content-type": "application/json"}
_ERRORS = {
    Code.NOT_FOUND: (404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID"),
    Code.NOT_APPROVED: (422, "UNPROCESSABLE_ENTITY", "ORDER_NOT_APPROVED"),
    Code.ALREADY_CAPTURED: (422, "UNPROCESSABLE_ENTITY", "ORDER_ALREADY_CAPTURED"),
    Code.ALREADY_PAID: (422, "UNPROCESSABLE_ENTITY", "ORDER_ALREADY_CAPTURED"),
    Code.ALREADY_CLOSED: (422, "UNPROCESSABLE_ENTITY", "ORDER_NOT_APPROVED"),
    Code.DECLINED: (422, "UNPROCESSABLE_ENTITY", "INSTRUMENT_DECLINED"),
    Code.NUMBER_CONFLICT: (422, "UNPROCESSABLE_ENTITY", "DUPLICATE_INVOICE_ID"),
    Code.CURRENCY_UNSUPPORTED: (422, "UNPROCESSABLE_ENTITY", "CURRENCY_NOT_SUPPORTED"),
    Code.AMOUNT_OUT_OF_RANGE: (422, "UNPROCESSABLE_ENTITY", "MAX_VALUE_EXCEEDED"),
    Code.NOT_PAID: (404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID"),
    Code.REFUND_EXCEEDS: (422, "UNPROCESSABLE_ENTITY", "REFUND_AMOUNT_EXCEEDED"),
    Code.REFUND_WINDOW_PASSED: (422, "UNPROCESSABLE_ENTITY", "REFUND_TIME_LIMIT_EXCEEDED"),
    Code.REFUND_COUNT: (422, "UNPROCESSABLE_ENTITY", "MAX_NUMBER_OF_REFUNDS_EXCEEDED"),
    Code.NOT_ENOUGH: (422, "UNPROCESSABLE_ENTITY", "REFUND_FAILED_INSUFFICIENT_FUNDS"),
    Code.RATE_LIMITED: (429, "RATE_LIMIT_REACHED", ""),
    Code.UNSUPPORTED: (404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID"),
}


@dataclass(frozen=True, slots=True)
class _Call:
    """A request of a merchant who has a token."""

    account: SandboxAccount
    request: Request
    request_id: str
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Reply:
    """A status, a record, and the faults that the answer is to show."""

    status: int
    record: dict[str, Any]
    faults: Disturbance


class RefusedError(Exception):
    """The request is refused before the bank is asked."""

    def __init__(self, status: int, name: str, issue: str = "", field: str = "") -> None:
        super().__init__(name)
        self.status = status
        self.record = pages.error(name, issue, field)


class PayPalSkin(Skin):
    """PayPal for all accounts of one bank that have this skin."""

    account_options = MappingProxyType({
        "methods": ["web"], "currencies": ["AUD", "CAD", "CHF", "CNY", "EUR", "GBP", "HKD", "JPY", "SGD", "USD"],
        "close_proof": "restraint", "captures": True, "enforces_expiry": False, "lifetime_seconds": 3 * 3_600,
        "refund_window_seconds": 180 * 86_400,
    })  # fmt: skip
    # 25 tries within three days; only that much is published, the gaps are ours.
    retry_seconds = (60, 120, 300, 600, 1_200, 1_800, 3_600, 3_600, 7_200, 7_200, *(10_800,) * 6, *(14_400,) * 9)

    @classmethod
    def new_account(cls, name: str, base_url: str, notify_url: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
        """An app with a webhook, and the certificate that the bank signs its events with."""
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        private, certificate = new_certificate(key, "messageverificationcerts.paypal.com")
        merchant, client_id = pages.new_id(13, pages.MERCHANT_ALPHABET), "A" + secrets.token_hex(20)
        secret, webhook_id = "E" + secrets.token_urlsafe(30), pages.new_id(17)
        keys = {"client_id": client_id, "client_secret": secret, "webhook_id": webhook_id, "private_key": private,
                "certificate": certificate, "notify_url": notify_url}  # fmt: skip
        shop = {
            "adapter": "paypal", "base_url": base_url, "client_id": client_id, "client_secret": secret, "merchant": merchant,
            "webhook_id": webhook_id, "webhook_certificates": [certificate], "currencies": ["USD", "EUR", "JPY", "CNY"],
        }  # fmt: skip
        return {"merchant": merchant, "keys": keys}, shop

    async def serve(self, account: SandboxAccount | None, request: Request) -> Response:
        """Check the token, do, and answer. PayPal signs no answers."""
        if account is None:
            return Response(404)
        try:
            if (request.method, request.path) == ("POST", "/v1/oauth2/token"):
                return await self._token(account, request)
            if (request.method, request.path) == ("GET", "/checkoutnow"):
                return await self._send_buyer_on(account, request)
            await self._authorize(account, request)
            reply = await self._dispatch(account, request)
        except RefusedError as error:
            return _write(error.status, error.record)
        except MalformedError as error:
            return _write(400, pages.error("INVALID_REQUEST", "INVALID_PARAMETER_SYNTAX", str(error)))
        except FailedError as error:
            return _write(error.status, pages.error("INTERNAL_SERVER_ERROR"))
        body = b"<html>Bad gateway</html>" if "garbage" in reply.faults else json.dumps(reply.record).encode()
        return disturb(Response(reply.status, body, _JSON | {"paypal-debug-id": secrets.token_hex(6)}), reply.faults)

    async def _token(self, account: SandboxAccount, request: Request) -> Response:
        pair = f"{account.keys['client_id']}:{account.keys['client_secret']}".encode()
        expected = b"Basic " + base64.b64encode(pair)
        if not hmac.compare_digest(expected, request.headers.get("authorization", "").encode("latin-1")):
            return _write(401, {"error": "invalid_client", "error_description": "Client Authentication failed"})
        if parse_qs(request.body.decode("latin-1")).get("grant_type") != ["client_credentials"]:
            return _write(400, {"error": "unsupported_grant_type", "error_description": "unsupported grant_type"})
        token, at = "A21AA" + secrets.token_urlsafe(48), self.bank.now()
        await self.bank.store.call(lambda database: notes.write_note(database, account.name, "token", token, {}, at))
        return _write(200, {"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_SECONDS, "scope": "",
                            "app_id": "APP-80W284485P519543T", "nonce": secrets.token_hex(8)})  # fmt: skip

    async def _authorize(self, account: SandboxAccount, request: Request) -> None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        found = await self.bank.read(lambda database: notes.find_note(database, account.name, "token", token))
        if kind != "Bearer" or found is None or found.at + TOKEN_SECONDS < self.bank.now():
            raise RefusedError(401, "AUTHENTICATION_FAILURE")

    async def _send_buyer_on(self, account: SandboxAccount, request: Request) -> Response:
        order_id = parse_qs(request.query).get("token", [""])[0]
        payment = await self.bank.read(lambda database: _payment_of(database, account, order_id))
        if payment is None:
            return Response(404)
        return Response(303, b"", {"location": f"/wallet/pay/{payment.token}"})

    async def _dispatch(self, account: SandboxAccount, request: Request) -> _Reply:
        parts = tuple(request.path.strip("/").split("/"))
        call = _Call(account, request, request.headers.get("paypal-request-id", ""), parts)
        handler: Callable[[_Call], Awaitable[_Reply]] | None = None
        match (request.method, *parts):
            case ("POST", "v2", "checkout", "orders"):
                handler = self._create
            case ("GET", "v2", "checkout", "orders", _):
                handler = self._show
            case ("POST", "v2", "checkout", "orders", _, "capture"):
                handler = self._capture
            case ("POST", "v2", "payments", "captures", _, "refund"):
                handler = self._refund
            case ("GET", "v2", "payments", "captures" | "refunds", _):
                handler = self._show_part
            case ("GET", "v1", "reporting", "transactions"):
                handler = self._statement
            case ("POST", "v1", "notifications", "webhooks"):
                handler = self._register_webhook
        if handler is None:
            raise RefusedError(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")
        if len(call.request_id) > 108:
            raise RefusedError(400, "INVALID_REQUEST", "INVALID_STRING_LENGTH", "PayPal-Request-Id")
        return await handler(call)

    async def _create(self, call: _Call) -> _Reply:
        account = call.account
        if not call.request_id:
            raise RefusedError(400, "INVALID_REQUEST", "PAYPAL_REQUEST_ID_REQUIRED", "PayPal-Request-Id")
        order, lines = pages.read_order(_body(call), account)
        made: list[bool] = []

        def effect(database: sqlite3.Connection, at: float, _faults: Disturbance) -> Result:
            known = _find_request(database, account, call.request_id, at, ORDER_KEY_SECONDS)
            if known is not None:
                return Result(Code.OK, find_payment(database, account.name, str(known)))
            if find_payment(database, account.name, order.number) is not None:
                # Another request id for a number that we know: a second order under the same invoice.
                return Result(Code.NUMBER_CONFLICT)
            webhook = notes.find_note(database, account.name, "webhook", account.keys["webhook_id"])
            url = account.keys["notify_url"] if webhook is None else str(webhook.value)
            result = ledger.register(database, account, replace(order, notify_url=url), at)
            if result.code == Code.OK and result.payment is not None:
                made.append(True)
                _remember(database, account, call.request_id, result.payment, lines, at)
            return result

        result, faults = await self.bank.perform(account, "prepay", order.number, effect)
        return await self._order_reply(call, result, faults, 201 if made else 200)

    async def _show(self, call: _Call) -> _Reply:
        number = await self._number(call.account, call.parts[3])
        result, faults = await self.bank.perform(
            call.account, "query", number, lambda db, _at, _f: ledger.look_up(db, call.account, number), changes=False
        )
        return await self._order_reply(call, result, faults, 200)

    async def _capture(self, call: _Call) -> _Reply:
        number = await self._number(call.account, call.parts[3])
        before: list[bool] = []

        def effect(database: sqlite3.Connection, at: float, _faults: Disturbance) -> Result:
            known = _find_request(database, call.account, f"capture.{call.request_id}", at, ORDER_KEY_SECONDS)
            if known is not None and call.request_id:
                before.append(True)
                return Result(Code.OK, find_payment(database, call.account.name, number))
            result = ledger.capture(database, call.account, number, call.request_id or secrets.token_hex(8), at)
            if result.code == Code.OK:
                _keep_request(database, call.account, f"capture.{call.request_id}", number, at)
            return result

        result, faults = await self.bank.perform(call.account, "capture", number, effect)
        return await self._order_reply(call, result, faults, 200 if before else 201)

    async def _refund(self, call: _Call) -> _Reply:
        account, reference = call.account, pages.reference_of("cap_", call.parts[3])
        number = await self.bank.read(lambda database: pages.number_of(database, account.name, reference))
        before: list[bool] = []

        def effect(database: sqlite3.Connection, at: float, faults: Disturbance) -> Result:
            known = _find_request(database, account, f"refund.{call.request_id}", at, REFUND_KEY_SECONDS)
            if known is not None and call.request_id:
                before.append(True)
                return refunds.look_up_refund(database, account, number, str(known))
            payment = find_payment(database, account.name, number)
            if payment is None:
                return Result(Code.NOT_FOUND)
            order = pages.read_refund_order(_body(call), payment, reference)
            result = refunds.refund(database, account, number, order, refund_course(account, faults), at)
            if result.code == Code.OK:
                _keep_request(database, account, f"refund.{call.request_id}", order.number, at)
            return result

        result, faults = await self.bank.perform(account, "refund", number, effect)
        if result.code != Code.OK or result.refund is None or result.payment is None:
            return _refusal(result, faults)
        return _Reply(200 if before else 201, pages.refund(account, result.payment, result.refund), faults)

    async def _show_part(self, call: _Call) -> _Reply:
        account, wanted = call.account, call.parts[3]
        prefix = "cap_" if call.parts[2] == "captures" else "ref_"

        def effect(database: sqlite3.Connection, _at: float, _faults: Disturbance) -> Result:
            number = pages.number_of(database, account.name, pages.reference_of(prefix, wanted))
            return ledger.look_up(database, account, number)

        op = "query" if prefix == "cap_" else "query_refund"
        result, faults = await self.bank.perform(account, op, "", effect, changes=False)
        reply = await self._order_reply(call, result, faults, 200)
        payments = reply.record.get("purchase_units", [{}])[0].get("payments", {})
        found = [part for part in payments.get(call.parts[2], []) if part["id"] == wanted]
        return _Reply(200, found[0], faults) if found else _refusal(Result(Code.NOT_FOUND), faults)

    async def _statement(self, call: _Call) -> _Reply:
        query = {name: values[0] for name, values in parse_qs(call.request.query).items()}
        span = (read_moment(query.get("start_date")).timestamp(), read_moment(query.get("end_date")).timestamp())
        page, size = pages.read_number(query, "page", 1), pages.read_number(query, "page_size", 100, most=500)
        if not 0 <= span[1] - span[0] <= 31 * 86_400:
            raise RefusedError(400, "INVALID_REQUEST", "INVALID_DATE_RANGE", "end_date")
        rows: list[dict[str, Any]] = []

        def effect(database: sqlite3.Connection, _at: float, _faults: Disturbance) -> Result:
            rows.extend(pages.transactions(database, call.account.name, *span))
            return Result(Code.OK)

        result, faults = await self.bank.perform(call.account, "statement", "", effect, changes=False)
        if result.code != Code.OK:
            return _refusal(result, faults)
        shown = pages.disturbed(rows, faults)
        return _Reply(200, pages.transaction_page(call.account, shown, page, size), faults)

    async def _register_webhook(self, call: _Call) -> _Reply:
        """Where events are sent; this app has one webhook, whose id was fixed with its keys."""
        record, webhook_id, at = _body(call), call.account.keys["webhook_id"], self.bank.now()
        url = record.get("url")
        if not isinstance(url, str) or not url.startswith(("https://", "http://127.0.0.1", "http://localhost")):
            raise MalformedError("url")
        await self.bank.store.call(
            lambda database: notes.write_note(database, call.account.name, "webhook", webhook_id, url, at)
        )
        return _Reply(
            201, {"id": webhook_id, "url": url, "event_types": record.get("event_types", [])}, Disturbance([])
        )

    async def _number(self, account: SandboxAccount, order_id: str) -> str:
        """The number of an order; the id itself where there is none, which the bank then does not know."""
        note = await self.bank.read(lambda database: notes.find_note(database, account.name, "order", order_id))
        return order_id[:64] if note is None else str(note.value["number"])

    async def _order_reply(self, call: _Call, result: Result, faults: Disturbance, status: int) -> _Reply:
        if result.code != Code.OK or result.payment is None:
            return _refusal(result, faults)
        payment, account = result.payment, call.account
        order_id = pages.order_id(account, payment.number)
        note = await self.bank.read(lambda database: notes.find_note(database, account.name, "order", order_id))
        rows = await self.bank.read(lambda database: pages.refunds_by_capture(database, payment))
        unit = note.value["unit"] if note is not None else {}
        return _Reply(status, pages.order(account, payment, unit, rows), faults)

    def tells(self, message: Notification) -> bool:
        """Approvals, captures, finished refunds, reversals and disputes."""
        return message.event in pages.EVENTS

    def render(self, account: SandboxAccount, message: Notification, at: float, style: Style) -> Rendered:
        """A webhook event with its transmission headers."""
        return pages.render_event(account, message, datetime.fromtimestamp(at, UTC), style)

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        """Any 2xx."""
        return 200 <= status < 300


def _body(call: _Call) -> dict[str, Any]:
    if call.request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise RefusedError(415, "UNSUPPORTED_MEDIA_TYPE")
    try:
        record = json.loads(call.request.body or b"{}")
    except ValueError:
        raise RefusedError(400, "INVALID_REQUEST", "MALFORMED_REQUEST_JSON") from None
    if not isinstance(record, dict):
        raise RefusedError(400, "INVALID_REQUEST", "MALFORMED_REQUEST_JSON")
    return record


def _refusal(result: Result, faults: Disturbance) -> _Reply:
    """A refusal in PayPal's words. A planned one may name an issue of PayPal's own, and its status."""
    status, name, issue = 422, "UNPROCESSABLE_ENTITY", str(result.code)
    if result.code in Code.__members__:
        status, name, issue = _ERRORS.get(Code(result.code), (422, "UNPROCESSABLE_ENTITY", str(result.code)))
    if fault := faults.get("refuse"):
        status = int(fault.arguments.get("status", status))
    return _Reply(status, pages.error(name, issue), faults)


def _payment_of(database: sqlite3.Connection, account: SandboxAccount, order_id: str) -> Payment | None:
    note = notes.find_note(database, account.name, "order", order_id)
    return None if note is None else find_payment(database, account.name, str(note.value["number"]))


def _find_request(database: sqlite3.Connection, account: SandboxAccount, key: str, at: float, seconds: float) -> Any:
    note = notes.find_note(database, account.name, "request", key)
    return note.value if note is not None and note.at + seconds > at else None


def _keep_request(database: sqlite3.Connection, account: SandboxAccount, key: str, number: str, at: float) -> None:
    notes.write_note(database, account.name, "request", key, number, at)


def _remember(
    database: sqlite3.Connection,
    account: SandboxAccount,
    request_id: str,
    payment: Payment,
    unit: dict[str, Any],
    at: float,
) -> None:
    _keep_request(database, account, request_id, payment.number, at)
    value = {"number": payment.number, "unit": unit}
    notes.write_note(database, account.name, "order", pages.order_id(account, payment.number), value, at)


def _write(status: int, record: dict[str, Any]) -> Response:
    return Response(status, json.dumps(record).encode(), _JSON)
