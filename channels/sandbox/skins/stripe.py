"""Stripe's API v1 over the bank: sessions, intents, refunds, disputes, events, balance transactions, webhook endpoints.

What a client may rely on is as strict as there: the key and the version are checked first, parameters by name, and the store of
idempotency keys follows docs.stripe.com/api/idempotent_requests: kept once execution began (also a decline or a 500), compared by
parameters, 409 while the first is still running, nothing kept for what failed validation, pruned after 24 hours.
Neither `client_reference_id` nor metadata is unique at Stripe: a second object under the same number is a payment of its own, in the
ledger under the number with `__2`. Answers are not signed there, so the faults of signatures do nothing here.
Where it differs: one event for each change of the ledger; fees are 0; a failed delayed method opens its session again.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import unquote

from payonce.channels.sandbox.account import YEAR_SECONDS, SandboxAccount
from payonce.channels.sandbox.asgi import Request, Response
from payonce.channels.sandbox.bank import Bank
from payonce.channels.sandbox.codes import HTTP_STATUS, Code
from payonce.channels.sandbox.faults import Disturbance, FailedError
from payonce.channels.sandbox.notes import drop_notes, find_note, write_note
from payonce.channels.sandbox.outbox import Notification
from payonce.channels.sandbox.records import Result
from payonce.channels.sandbox.sender import Style
from payonce.channels.sandbox.skins import stripe_objects as objects
from payonce.channels.sandbox.skins import stripe_reads as reads
from payonce.channels.sandbox.skins import stripe_writes as writes
from payonce.channels.sandbox.skins.base import Rendered, Skin, disturb
from payonce.channels.sandbox.skins.stripe_params import ApiError, Params
from payonce.channels.sandbox.skins.stripe_reads import Reply, Scene

KEY_SECONDS = 86_400
KEY_CHARACTERS_MAX = 255
_VERSION = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}(\.[a-z]+)?", re.ASCII)
_JSON = {"content-type": "application/json"}
_FORM = "application/x-www-form-urlencoded"
_WORDS = {400: "invalid_request_error", 402: "card_error"}


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose key, version and parameters are in order."""

    account: SandboxAccount
    params: Params
    id: str
    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Route:
    """What a method and path mean: the bank's operation, the parameters that are allowed, and the work."""

    op: str
    allowed: str
    work: Callable[[Scene], dict[str, Any]]
    check: Callable[[Params], str] | None = None
    find: Callable[[sqlite3.Connection, str, "Call"], str] | None = None


ROUTES: Mapping[tuple[str, str], Route] = {
    ("POST", "checkout/sessions"): Route("prepay", "session_create", writes.create_session, writes.check_session),
    ("POST", "payment_intents"): Route("prepay", "intent_create", writes.create_intent, writes.check_intent),
    ("POST", "checkout/sessions/*/expire"): Route(
        "close", "session_expire", writes.expire_session, find=reads.number_of_path
    ),
    ("POST", "payment_intents/*/cancel"): Route(
        "close", "intent_cancel", writes.cancel_intent, find=reads.number_of_path
    ),
    ("POST", "refunds"): Route(
        "refund", "refund_create", writes.create_refund, writes.check_refund, writes.number_of_refund
    ),
    ("POST", "webhook_endpoints"): Route("", "endpoint_create", writes.create_endpoint, writes.check_endpoint),
    ("GET", "checkout/sessions"): Route("query", "sessions", reads.list_sessions),
    ("GET", "checkout/sessions/*"): Route("query", "one", reads.get_session, find=reads.number_of_path),
    ("GET", "payment_intents"): Route("query", "intents", reads.list_intents),
    ("GET", "payment_intents/*"): Route("query", "one", reads.get_intent, find=reads.number_of_path),
    ("GET", "charges/*"): Route("query", "one", reads.get_charge, find=reads.number_of_path),
    ("GET", "disputes"): Route("query", "disputes", reads.list_disputes, find=reads.number_of_filter),
    ("GET", "refunds"): Route("query_refund", "refunds", reads.list_refunds, find=reads.number_of_filter),
    ("GET", "refunds/*"): Route("query_refund", "one", reads.get_refund, find=reads.number_of_path),
    ("GET", "events"): Route("", "events", reads.list_events),
    ("GET", "events/*"): Route("", "one", reads.get_event),
    ("GET", "balance_transactions"): Route("statement", "balance", reads.list_balance),
}


class StripeSkin(Skin):
    """Serves `/v1/` of accounts that speak Stripe."""

    account_options: ClassVar[Mapping[str, Any]] = {
        "methods": ("web", "card"),
        "lifetime_seconds": YEAR_SECONDS,
        "refund_window_seconds": YEAR_SECONDS,
        "refund_count_max": 1_000,
        "amount_minor_max": 99_999_999,
    }
    # Up to three days with growing gaps; the table itself is not published.
    retry_seconds = (60, 300, 900, 3_600, 7_200, 14_400, 28_800, 43_200, 43_200, 43_200, 43_200)

    def __init__(self, bank: Bank) -> None:
        super().__init__(bank)
        self._running: set[tuple[str, str]] = set()

    @classmethod
    def new_account(cls, name: str, base_url: str, notify_url: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
        """A test-mode account: an API key and the signing secret of its webhook endpoint."""
        keys = {"secret_key": f"sk_test_{secrets.token_hex(32)}", "webhook_secret": f"whsec_{secrets.token_hex(24)}"}
        return {"keys": {**keys, "notify_url": notify_url}}, {"adapter": "stripe", "base_url": base_url, **keys}

    async def serve(self, account: SandboxAccount | None, request: Request) -> Response:
        """Check the key, read, do, and answer."""
        request_id = "req_" + secrets.token_hex(7)
        faults = Disturbance([])
        try:
            if account is None:
                raise ApiError(401, "No account of this kind has this address.")
            reply, faults = await self._answer(account, request, request_id)
        except ApiError as error:
            reply = Reply(error.status, error.body)
        except FailedError as error:
            reply = Reply(error.status, {"error": {"type": "api_error", "message": "planned failure"}})
        return _response(reply, request, request_id, faults)

    async def _answer(self, account: SandboxAccount, request: Request, request_id: str) -> tuple[Reply, Disturbance]:
        _check_key(account, request)
        version = request.headers.get("stripe-version", objects.API_VERSION)
        if not _VERSION.fullmatch(version):
            raise ApiError(400, f"Invalid Stripe API version: {version[:40]}")
        parts = request.path.strip("/").split("/")
        route, identifier = _route(request.method, parts)
        call = _call(account, request, route, identifier)
        if not (call.key and request.method == "POST"):
            return await self._perform(route, call, request_id)
        running = (account.name, call.key)
        if running in self._running:
            message = "There is currently another in-progress request using this idempotency key."
            raise ApiError(409, message, "idempotency_key_in_use", kind="idempotency_error")
        self._running.add(running)
        try:
            return await self._perform(route, call, request_id)
        finally:
            self._running.discard(running)

    async def _perform(self, route: Route, call: Call, request_id: str) -> tuple[Reply, Disturbance]:
        """Through the bank, which plays the planned faults; what the key has stored is not done again."""
        account, made = call.account, [Reply(0, {})]
        number = route.check(call.params) if route.check is not None else ""
        if route.find is not None:
            find = route.find
            number = await self.bank.read(lambda database: find(database, account.name, call))

        def effect(database: sqlite3.Connection, at: float, faults: Disturbance) -> Result:
            stored = _stored(database, call, at)
            scene = Scene(database, account, call.params, call.id, at, faults, secrets.token_hex(12))
            made[0] = stored or _done(route, scene)
            if stored is None and call.key and made[0].is_kept:
                _store(database, call, made[0], request_id, at)
            return Result(Code.OK)

        if not route.op:
            await self.bank.change(lambda database, at: effect(database, at, Disturbance([])))
            return made[0], Disturbance([])
        changes = route.op in {"prepay", "close", "refund"}
        result, faults = await self.bank.perform(account, route.op, number, effect, changes=changes)
        if made[0].status == 0:
            made[0] = _planned(str(result.code), faults, route, call)
            if call.key:
                await self.bank.change(lambda database, at: _stored_planned(database, call, made[0], request_id, at))
        return made[0], faults

    def render(self, account: SandboxAccount, message: Notification, at: float, style: Style) -> Rendered:
        """One event, signed as `Stripe-Signature` over its time and exact bytes."""
        event = objects.event(message)
        _alter(event, style.altered)
        body = json.dumps(event, ensure_ascii=False, indent=2).encode("utf-8", "replace")
        forged = style.forgery in {"bad_signature", "other_secret", "wrong_account"}
        # Each endpoint has a secret of its own: another account's message verifies with none of ours.
        secret = "whsec_" + "y" * 32 if forged else account.keys["webhook_secret"]
        headers = {"content-type": "application/json; charset=utf-8", "user-agent": "Stripe/1.0"}
        if style.forgery != "no_signature":
            headers["stripe-signature"] = signature(secret, body, int(at))
        if style.forgery == "altered_body":
            body = body.replace(b'"evt_', b'"evt_f', 1)
        return headers, body

    def tells(self, message: Notification) -> bool:
        """Everything that concerns a payment which was made through this API."""
        return message.read().get("stated") is not None

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        """Any 2xx."""
        return 200 <= status < 300


def signature(secret: str, body: bytes, at: int) -> str:
    """The header of one message (docs.stripe.com/webhooks/signature)."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def _check_key(account: SandboxAccount, request: Request) -> None:
    given = request.headers.get("authorization", "")
    scheme, _, token = given.partition(" ")
    if scheme.lower() == "basic":
        try:
            token = base64.b64decode(token, validate=True).decode().partition(":")[0]
        except (binascii.Error, ValueError):
            token = ""
    if not token:
        raise ApiError(401, "You did not provide an API key.")
    if token.startswith("pk_"):
        raise ApiError(401, "This API call cannot be made with a publishable API key.", "secret_key_required")
    if not hmac.compare_digest(account.keys["secret_key"].encode(), token.encode("utf-8", "replace")):
        if token.startswith("sk_test_expired"):
            raise ApiError(401, f"Expired API Key provided: {token[:8]}****{token[-4:]}", "api_key_expired")
        raise ApiError(401, f"Invalid API Key provided: {token[:8]}****{token[-4:]}")


def _route(method: str, parts: list[str]) -> tuple[Route, str]:
    names = parts[1:] if parts[:1] == ["v1"] else []
    for place in (len(names), len(names) - 1, len(names) - 2):
        identifier = unquote(names[place]) if 0 < place < len(names) else ""
        pattern = "/".join("*" if index == place else name for index, name in enumerate(names))
        route = ROUTES.get((method, pattern))
        if route is not None:
            return route, identifier
    raise ApiError(404, f"Unrecognized request URL ({method}: /{'/'.join(parts)[:200]}).")


def _call(account: SandboxAccount, request: Request, route: Route, identifier: str) -> Call:
    text, key = request.query, ""
    if request.method == "POST":
        if request.query:
            raise ApiError(400, "Parameters of a POST belong into its body.")
        if request.body and request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
            raise ApiError(400, f"Invalid request: API v1 takes {_FORM}.")
        text, key = request.body.decode("utf-8", "replace"), request.headers.get("idempotency-key", "")
    if len(key) > KEY_CHARACTERS_MAX:
        raise ApiError(400, "Idempotency keys have at most 255 characters.", kind="idempotency_error")
    params = Params(text, route.allowed)
    shape = json.dumps([request.method, request.path, params.fingerprint()])
    return Call(account, params, identifier, key, hashlib.sha256(shape.encode()).hexdigest())


def _done(route: Route, scene: Scene) -> Reply:
    try:
        return Reply(200, route.work(scene))
    except ApiError as error:
        return Reply(error.status, error.body, is_kept=not isinstance(error, writes.InvalidError))


def _stored(database: sqlite3.Connection, call: Call, at: float) -> Reply | None:
    """The answer that the key has stored. Raises ApiError where it was another request."""
    if not call.key:
        return None
    drop_notes(database, call.account.name, "key", at - KEY_SECONDS)
    note = find_note(database, call.account.name, "key", call.key)
    if note is None:
        return None
    if note.value["fingerprint"] != call.fingerprint:
        message = "Keys for idempotent requests can only be used with the same parameters they were first used with."
        return Reply(400, ApiError(400, message, kind="idempotency_error").body)
    return Reply(note.value["status"], note.value["body"], note.value["request"])


def _store(database: sqlite3.Connection, call: Call, reply: Reply, request_id: str, at: float) -> None:
    value = {"fingerprint": call.fingerprint, "status": reply.status, "body": reply.body, "request": request_id}
    write_note(database, call.account.name, "key", call.key, value, at)


def _stored_planned(database: sqlite3.Connection, call: Call, reply: Reply, request_id: str, at: float) -> Result:
    """A planned decline or 500 is stored like a real one; what is never stored there is not stored here."""
    if reply.status not in {401, 409, 429}:
        _store(database, call, reply, request_id, at)
    return Result(Code.OK)


def _planned(code: str, faults: Disturbance, route: Route, call: Call) -> Reply:
    if code == Code.NOT_FOUND:
        if not call.id:
            return Reply(200, {"object": "list", "data": [], "has_more": False, "url": "/v1/planned"})
        return Reply(404, reads.missing(call.id).body)
    known = HTTP_STATUS.get(Code(code), 400) if code in Code.__members__ else 400
    refusal = faults.get("refuse")
    status = int(refusal.arguments.get("status", known)) if refusal is not None else known
    kind = "api_error" if status >= 500 else _WORDS.get(status, "invalid_request_error")
    name = "card_declined" if code == Code.DECLINED else code.lower()
    return Reply(status, ApiError(status, f"Planned: {code}", name, kind=kind).body)


def _alter(event: dict[str, Any], altered: Mapping[str, Any]) -> None:
    inner = event["data"]["object"]
    for name in ("amount", "amount_total", "amount_received", "amount_captured"):
        if "amount_minor" in altered and name in inner:
            inner[name] = altered["amount_minor"]
    if "currency" in altered:
        inner["currency"] = str(altered["currency"]).lower()
    if "merchant" in altered:
        event["account"] = altered["merchant"]


def _response(reply: Reply, request: Request, request_id: str, faults: Disturbance) -> Response:
    body = json.dumps(reply.body, ensure_ascii=False, indent=2).encode("utf-8", "replace")
    headers = {**_JSON, "request-id": request_id, "stripe-version": objects.API_VERSION}
    key = request.headers.get("idempotency-key", "")
    if key.isascii() and key.isprintable() and key:
        headers["idempotency-key"] = key
    if reply.original:
        headers |= {"idempotent-replayed": "true", "original-request": reply.original}
    if "garbage" in faults:
        body = b"<html>502 from a proxy</html>"
    return disturb(Response(reply.status, body, headers), faults)
