"""PayPal: Orders v2 and Payments v2, intent CAPTURE. The buyer approves at PayPal, and nothing moves until we capture.

So withholding the capture is the close, and an order's id (`channel_reference`) is all that a capture needs. Facts are from PayPal's
published descriptions of Orders 2.13, Payments 2.5 and Webhooks 1.11, its page on idempotency, and for Transaction Search from
general knowledge; none was tried against a live account.

- A request is named by `PayPal-Request-Id`: the same id gives the latest status of the first request. Orders keep it for six
  hours, refunds for 45 days.
- An order cannot be found by our own number. Without its id the question is asked with the number, which PayPal does not know:
  NOT_FOUND, and harmless, since nobody can capture an order whose id is unknown.
- Money is the state of the capture inside the order, never that of the order.
"""

import base64
import json
import re
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote, urlencode

from payonce.channels import paypal_events as events
from payonce.channels import paypal_wire as wire
from payonce.channels.base import Channel, Conversation
from payonce.channels.messages import (
    Acknowledgement,
    Capabilities,
    CaptureRequest,
    CloseAnswer,
    CloseProof,
    CloseState,
    HttpRequest,
    HttpResponse,
    Known,
    MethodCapability,
    NotAuthentic,
    Notice,
    NotificationRequest,
    Outcome,
    PaymentRef,
    PaymentState,
    PaymentView,
    Prepay,
    PrepayKind,
    PrepayRequest,
    RefundRef,
    RefundRequest,
    RefundState,
    RefundView,
    Refused,
    RefusedKind,
    StatementLine,
    TransportError,
    Unknown,
    Verdict,
)
from payonce.channels.options import Option, is_base_url, is_integer, is_list_of, is_one_of, is_text, read_options
from payonce.channels.paypal_wire import MalformedError
from payonce.channels.redaction import redact_json

T = TypeVar("T")
HIDDEN = ("payer", "payment_source", "email_address", "access_token", "links", "shipping", "name", "address")
LIVE = "https://api-m.paypal.com"
PAGES_MAX = 200
_TOKEN_SECONDS_SPARE = 60
_ACKNOWLEDGEMENTS = {
    Verdict.ACCEPT: Acknowledgement(200, b""),
    Verdict.RETRY: Acknowledgement(500, b"retry"),
    Verdict.REJECT: Acknowledgement(401, b"reject"),
}
_CLOSE_OF_STATE = {
    PaymentState.PAID: CloseState.ALREADY_PAID,
    PaymentState.CLOSED: CloseState.CLOSED_PROVED,
    PaymentState.IN_PROGRESS: CloseState.IN_PROGRESS,
}


def is_merchant(value: Any) -> str:
    """A merchant id: 13 of the digits and capital letters that cannot be mistaken for each other."""
    fits = isinstance(value, str) and re.fullmatch("[2-9A-HJ-NP-Z]{13}", value)
    return "" if fits else "must be a PayPal merchant id such as 2J6QB8YJQSJRJ"


def is_printable_secret(value: Any) -> str:
    """A text of at least 16 characters."""
    return is_text(value) or ("" if len(value) >= 16 else "is too short to be a secret of PayPal")


_PORTAL = "Copy it from your app at the PayPal developer dashboard."

OPTION_SPECS = (
    Option("client_id", is_text, required=True, hint=_PORTAL),
    Option("client_secret", is_printable_secret, required=True, hint=_PORTAL, secret=True),
    Option("merchant", is_merchant, required=True, hint="The account's merchant id (13 characters), from its business information page."),
    Option("webhook_id", is_text, required=True, hint="The id that PayPal gave the webhook when you registered its address."),
    Option("webhook_certificates", is_list_of(events.is_certificate), required=True,
           hint="The certificates behind the paypal-cert-url header of PayPal's messages, as PEM texts; all that are in use."),
    Option("base_url", is_base_url, default=LIVE, hint=f"{LIVE}, or https://api-m.sandbox.paypal.com"),
    Option("brand_name", is_text, hint="What the buyer reads at PayPal"),
    Option("currencies", is_list_of(is_one_of(*wire.CURRENCIES)), default=("USD", "EUR", "GBP")),
    Option("timeout_seconds", is_integer(1, 12), default=10, hint="Total time of one call"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Answer:
    """A 2xx answer with a JSON object."""

    status: int
    record: dict[str, Any]
    raw: str


@dataclass(slots=True)
class _Token:
    """An access token, kept in memory; `until` is Unix seconds."""

    value: str = field(default="", repr=False)
    until: float = 0.0


_Asked = Generator[HttpRequest, HttpResponse | TransportError, _Answer | Refused | Unknown]


class PayPalChannel(Channel):
    """One PayPal app. `clock` gives Unix seconds for the age of the access token and may be replaced in tests."""

    adapter: ClassVar[str] = "paypal"
    option_specs: ClassVar[tuple[Option, ...]] = OPTION_SPECS

    def __init__(self, account: str, options: Mapping[str, Any]) -> None:
        super().__init__(account, options)
        read = read_options(account, OPTION_SPECS, options)
        self._client = (read["client_id"], read["client_secret"])
        self._webhook_id: str = read["webhook_id"]
        self._certificates = tuple(events.load_certificates(read["webhook_certificates"]))
        self._base_url: str = read["base_url"].rstrip("/")
        self._brand_name: str = read["brand_name"] or ""
        self._currencies: frozenset[str] = frozenset(read["currencies"])
        self._timeout_seconds = float(read["timeout_seconds"])
        self._token = _Token()
        self.clock: Callable[[], float] = time.time

    @property
    def takes_real_money(self) -> bool:
        """PayPal's own sandbox has a host of its own."""
        return "sandbox" not in self._base_url

    @property
    def capabilities(self) -> Capabilities:
        """The buyer has three hours to approve; a request id of an order lives for six, of which one is kept in reserve."""
        return Capabilities(
            methods={"web": MethodCapability(PrepayKind.REDIRECT, 3 * 3_600)},
            currencies=self._currencies,
            close_proof=CloseProof.RESTRAINT,
            captures=True,
            enforces_expiry=False,
            refund_window_seconds=180 * 86_400,
            statement=True,
            notification_horizon_seconds=3 * 86_400 + 3_600,
            replay_window_seconds=5 * 3_600,
            refund_replay_window_seconds=44 * 86_400,
            amount_minor_max=999_999_999_999,
        )

    def prepay(self, request: PrepayRequest) -> Conversation[Outcome[Prepay]]:
        """Create the order. A repeat under the same number answers with the order as it is now."""
        body = wire.order_body(request, self.merchant, self._brand_name)
        answer = yield from self._ask("POST", "/v2/checkout/orders", body, request_id=f"{request.number}.order")
        return _outcome("prepay", answer, lambda record: wire.read_prepay(record, request, self.capabilities))

    def query(self, ref: PaymentRef) -> Conversation[Outcome[PaymentView]]:
        """Read the order, and in it the capture."""
        order_id, capture_id = wire.split(ref.channel_reference or ref.number)
        answer = yield from self._ask("GET", f"/v2/checkout/orders/{quote(order_id, safe='')}")
        if isinstance(answer, Refused) and wire.is_not_found(answer.code):
            return Known(PaymentView(ref.number, PaymentState.NOT_FOUND), answer.raw)
        return _outcome("query", answer, lambda record: wire.read_order(record, ref.number, capture_id))

    def capture(self, request: CaptureRequest) -> Conversation[Outcome[PaymentView]]:
        """Take the approved money: once per order, whatever the key; the same key answers with what became of it."""
        ref = request.payment
        order_id, _ = wire.split(ref.channel_reference or ref.number)
        path = f"/v2/checkout/orders/{quote(order_id, safe='')}/capture"
        answer = yield from self._ask("POST", path, {}, request_id=request.key)
        if isinstance(answer, _Answer) and (code := wire.decline_of(answer.record)):
            return Refused(RefusedKind.DECLINED, code, raw=answer.raw)
        return _outcome("capture", answer, lambda record: wire.read_order(record, ref.number, ""))

    def close(self, ref: PaymentRef) -> Conversation[Outcome[CloseAnswer]]:
        """PayPal has no close. Ask what happened; what ends an unpaid order is that we do not capture it."""
        seen = yield from self.query(ref)
        if not isinstance(seen, Known):
            return seen
        state = _CLOSE_OF_STATE.get(seen.value.state, CloseState.NOT_CLOSABLE)
        return Known(CloseAnswer(state, seen.value), seen.raw)

    def refund(self, request: RefundRequest) -> Conversation[Outcome[RefundView]]:
        """Find the order's capture, then give money back under the refund number."""
        order = yield from self._read_order(request.payment)
        if not isinstance(order, _Answer):
            return order
        try:
            capture_id = wire.capture_id_of(order.record, wire.split(request.payment.channel_reference)[1])
        except (KeyError, MalformedError) as error:
            return Unknown(f"malformed:{error}", raw=order.raw)
        if not capture_id:
            return Refused(RefusedKind.CONFLICT, "no_capture", "PayPal shows no money under this order", order.raw)
        path = f"/v2/payments/captures/{quote(capture_id, safe='')}/refund"
        answer = yield from self._ask("POST", path, wire.refund_body(request), request_id=request.refund_number)
        outcome = _outcome("refund", answer, lambda record: wire.read_refund(record, request.payment.number))
        if isinstance(outcome, Known) and not wire.is_refund_of(outcome.value, request):
            # The number was used before for something else: PayPal repeats that answer and moves nothing.
            return Refused(
                RefusedKind.CONFLICT, "other_refund", "this refund number was used for another refund", outcome.raw
            )
        return outcome

    def query_refund(self, ref: RefundRef) -> Conversation[Outcome[RefundView]]:
        """Look for the refund number among the refunds that the order shows."""
        order = yield from self._read_order(ref.payment)
        if not isinstance(order, _Answer):
            return order
        read = _read(order, lambda record: wire.find_refund(record, ref.refund_number, ref.payment.number))
        if isinstance(read, Known) and read.value is None:
            return Known(RefundView(ref.refund_number, RefundState.NOT_FOUND), order.raw)
        return read  # type: ignore[return-value]  # None is handled above

    def statement(self, day: date) -> Conversation[Outcome[tuple[StatementLine, ...]]]:
        """All payments and refunds of one UTC day, page by page. PayPal lists them up to three hours late."""
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        span = (start, start + timedelta(days=1) - timedelta(seconds=1))
        lines: list[StatementLine] = []
        for page in range(1, PAGES_MAX + 1):
            query = urlencode({
                "start_date": wire.write_moment(span[0]), "end_date": wire.write_moment(span[1]),
                "fields": "transaction_info", "page_size": 500, "page": page,
            })  # fmt: skip
            answer = yield from self._ask("GET", f"/v1/reporting/transactions?{query}")
            read = _outcome("statement", answer, events.read_statement)
            if not isinstance(read, Known):
                return read
            found, pages = read.value
            lines.extend(found)
            if page >= pages:
                return Known(tuple(lines), f"{len(lines)} lines")
        return Unknown("too_many_pages")

    def parse_notification(self, request: NotificationRequest, at: datetime) -> Notice | NotAuthentic:
        """Verify over the exact bytes with the configured certificates, then read. Nothing that a message names is fetched."""
        transmission = events.Transmission.of(request.headers)
        if transmission is None:
            return NotAuthentic("missing_signature")
        if not events.is_signed(self._certificates, transmission, self._webhook_id, request.body, at):
            return NotAuthentic("bad_signature")
        try:
            notice = events.read_event(request.body, redact_json(request.body, HIDDEN))
            age = at - wire.read_moment(transmission.time)
        except (KeyError, MalformedError) as error:
            # Signed by PayPal and yet not readable: it must come again and be looked at, not be acknowledged.
            return NotAuthentic(f"malformed:{error}")
        if not -events.EARLY_MAX <= age <= events.AGE_MAX:
            number = notice.payment.number if notice.payment else notice.refund.payment_number if notice.refund else ""
            return NotAuthentic("stale", stale=True, number=number, dedupe_key=notice.dedupe_key)
        return notice

    def acknowledge(self, verdict: Verdict, reason: str = "") -> Acknowledgement:
        """Any 2xx ends the repeats; anything else is tried 25 times in three days."""
        return _ACKNOWLEDGEMENTS[verdict]

    def _read_order(self, ref: PaymentRef) -> _Asked:
        """The order that a refund belongs to. One that PayPal does not know holds no money."""
        order_id, _ = wire.split(ref.channel_reference or ref.number)
        answer = yield from self._ask("GET", f"/v2/checkout/orders/{quote(order_id, safe='')}")
        if isinstance(answer, Refused) and wire.is_not_found(answer.code):
            return _Answer(200, {"purchase_units": [{}]}, answer.raw)
        return answer

    def _ask(self, method: str, path: str, payload: dict[str, Any] | None = None, request_id: str = "") -> _Asked:
        """One call with a token; where PayPal refuses the token, nothing was executed, and a new one is tried once."""
        for is_last in (False, True):
            if self._token.until <= self.clock():
                failed = yield from self._fetch_token()
                if failed is not None:
                    return failed
            headers = {"authorization": f"Bearer {self._token.value}", "accept": "application/json"}
            if payload is not None:
                headers |= {"content-type": "application/json", "prefer": "return=representation"}
            if request_id:
                headers["paypal-request-id"] = request_id
            body = b"" if payload is None else json.dumps(payload).encode()
            reply = yield self._request(method, path, headers, body)
            if isinstance(reply, HttpResponse) and reply.status == 401 and not is_last:
                self._token = _Token()
                continue
            return _judge(reply)
        raise AssertionError("unreachable")

    def _fetch_token(self) -> Generator[HttpRequest, HttpResponse | TransportError, Refused | Unknown | None]:
        basic = base64.b64encode(":".join(self._client).encode()).decode("ascii")
        headers = {"authorization": f"Basic {basic}", "accept": "application/json",
                   "content-type": "application/x-www-form-urlencoded"}  # fmt: skip
        reply = yield self._request("POST", "/v1/oauth2/token", headers, b"grant_type=client_credentials")
        judged = _judge(reply)
        if isinstance(judged, Refused):
            return Refused(judged.kind, judged.code, "check client_id and client_secret", "")
        if isinstance(judged, Unknown):
            return Unknown(f"no_token:{judged.reason}")
        try:
            value, seconds = wire.read_token(judged.record)
        except (KeyError, MalformedError) as error:
            return Unknown(f"no_token:malformed:{error}")
        self._token = _Token(value, self.clock() + seconds - _TOKEN_SECONDS_SPARE)
        return None

    def _request(self, method: str, path: str, headers: dict[str, str], body: bytes) -> HttpRequest:
        total = self._timeout_seconds
        return HttpRequest(method, self._base_url + path, headers, body, min(3.0, total), min(8.0, total), total)


def _judge(reply: HttpResponse | TransportError) -> _Answer | Refused | Unknown:
    """2xx with an object is an answer; a 4xx in PayPal's own words is a refusal; everything else is unknown."""
    if isinstance(reply, TransportError):
        if reply.sent:
            return Unknown(reply.reason)
        return Refused(RefusedKind.THROTTLED, "not_sent", reply.reason)
    raw = redact_json(reply.body, HIDDEN)
    try:
        record = wire.read_object(reply.body)
    except MalformedError as error:
        return Unknown(f"malformed:{error}:{reply.status}", raw=raw)
    if reply.status in (200, 201):
        return _Answer(reply.status, record, raw)
    code = wire.error_code(record)
    if not 400 <= reply.status < 500 or not code or code in wire.IN_PROGRESS:
        return Unknown(f"status_{reply.status}:{code}", raw=raw)
    kind = wire.KIND_OF_STATUS.get(reply.status, RefusedKind.CONFLICT)
    return Refused(kind, code, wire.error_text(record), raw)


def _outcome(operation: str, answer: _Answer | Refused | Unknown, read: Callable[[dict[str, Any]], T]) -> Outcome[T]:
    """Known for a readable answer, Refused for the codes that the operation lists, Unknown for everything else."""
    if isinstance(answer, Refused):
        if answer.kind is not RefusedKind.CONFLICT:
            return answer
        kind = wire.REFUSALS[operation].get(answer.code)
        return (
            Unknown(f"unlisted:{answer.code}", raw=answer.raw)
            if kind is None
            else Refused(kind, answer.code, answer.message, answer.raw)
        )
    if isinstance(answer, Unknown):
        return answer
    return _read(answer, read)


def _read(answer: _Answer, read: Callable[[dict[str, Any]], T]) -> Outcome[T]:
    try:
        return Known(read(answer.record), answer.raw)
    except KeyError as error:
        return Unknown(f"malformed:{error.args[0]}", raw=answer.raw)
    except MalformedError as error:
        return Unknown(f"malformed:{error}", raw=answer.raw)
    except wire.ConflictError as error:
        return Refused(RefusedKind.CONFLICT, str(error), "the number was used before", answer.raw)
