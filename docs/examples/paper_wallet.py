"""A whole channel in one file: an invented wallet with four calls, JSON answers, and notifications signed with a shared secret.

    PAYONCE["CHANNELS"]["paper"] = {"adapter": "myshop.paper_wallet.PaperWallet", "merchant": "shop-17", "secret": "…"}

It runs the same contract suite as the built-in channels: see `tests/channels/test_example.py`.
"""

import hashlib
import hmac
import json
from collections.abc import Generator, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import quote

from payonce.channels.base import Channel, Conversation
from payonce.channels.messages import (
    Acknowledgement,
    Capabilities,
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
    TransportError,
    Unknown,
    Verdict,
)
from payonce.channels.options import Option, is_base_url, is_secret, is_text, read_options
from payonce.channels.redaction import redact_json

# Which code means what. A code that is not here is unknown: the effect may have happened.
REFUSALS = {
    "number_used": RefusedKind.CONFLICT,
    "not_paid": RefusedKind.CONFLICT,
    "too_much": RefusedKind.CONFLICT,
    "declined": RefusedKind.DECLINED,
    "bad_key": RefusedKind.CONFIG,
    "slow_down": RefusedKind.THROTTLED,
}
STATES = {"open": PaymentState.OPEN, "paid": PaymentState.PAID, "closed": PaymentState.CLOSED}
REPLAY_WINDOW = timedelta(minutes=5)
_Record = dict[str, Any]


class PaperWallet(Channel):
    """One account. Adapters do no I/O: each operation yields the request that it wants sent and is sent the answer."""

    adapter: ClassVar[str] = "paper"
    option_specs: ClassVar[tuple[Option, ...]] = (
        Option("merchant", is_text, required=True, hint="The shop's name at the wallet."),
        Option("secret", is_secret, required=True, hint="From the wallet's console.", secret=True),
        Option("base_url", is_base_url, default="https://api.paper-wallet.example"),
    )

    def __init__(self, account: str, options: Mapping[str, Any]) -> None:
        super().__init__(account, options)
        read = read_options(account, self.option_specs, options)
        self._secret: str = read["secret"]
        self._base_url: str = read["base_url"]

    @property
    def capabilities(self) -> Capabilities:
        """Say only what is true: the steps of payonce read this instead of asking which channel it is."""
        return Capabilities(
            methods={"qr": MethodCapability(PrepayKind.QR, 7_200)}, currencies=frozenset({"EUR"}),
            close_proof=CloseProof.ANSWER, notification_horizon_seconds=3_600,
        )  # fmt: skip

    def prepay(self, request: PrepayRequest) -> Conversation[Outcome[Prepay]]:
        """The same number with the same amount is the same payment."""
        body = {"number": request.number, "amount": request.amount_minor, "currency": request.currency,
                "until": request.payable_until.isoformat(), "notify": request.notify_url}  # fmt: skip
        answer = yield from self._ask("POST", "/payments", body)
        if not isinstance(answer, Known):
            return answer
        code = answer.value.get("code")
        if not isinstance(code, str) or not code or _amount(answer.value) != (request.amount_minor, request.currency):
            return Unknown("malformed:prepay", raw=answer.raw)
        return Known(Prepay(PrepayKind.QR, code, request.payable_until), answer.raw)

    def query(self, ref: PaymentRef) -> Conversation[Outcome[PaymentView]]:
        """Not found is an answer, and never final."""
        answer = yield from self._ask("GET", _path(ref))
        if isinstance(answer, Refused) and answer.code == "unknown_number":
            return Known(PaymentView(ref.number, PaymentState.NOT_FOUND), answer.raw)
        return _read(answer, ref.number)

    def close(self, ref: PaymentRef) -> Conversation[Outcome[CloseAnswer]]:
        """The wallet answers with the payment, closed or already paid: both are definite."""
        answer = yield from self._ask("POST", _path(ref) + "/close", {})
        if isinstance(answer, Refused) and answer.code == "unknown_number":
            return Known(CloseAnswer(CloseState.UNPROVED), answer.raw)
        seen = _read(answer, ref.number)
        if not isinstance(seen, Known):
            return seen
        ended = {PaymentState.PAID: CloseState.ALREADY_PAID, PaymentState.CLOSED: CloseState.CLOSED_PROVED}
        return Known(CloseAnswer(ended.get(seen.value.state, CloseState.UNPROVED), seen.value), seen.raw)

    def refund(self, request: RefundRequest) -> Conversation[Outcome[RefundView]]:
        """One refund number moves money at most once."""
        body = {"number": request.refund_number, "amount": request.amount_minor, "currency": request.currency}
        answer = yield from self._ask("POST", _path(request.payment) + "/refunds", body)
        return _read_refund(answer, request.refund_number)

    def query_refund(self, ref: RefundRef) -> Conversation[Outcome[RefundView]]:
        """Ask by the refund number."""
        answer = yield from self._ask("GET", _path(ref.payment) + "/refunds/" + quote(ref.refund_number, safe=""))
        if isinstance(answer, Refused) and answer.code == "unknown_number":
            return Known(RefundView(ref.refund_number, RefundState.NOT_FOUND), answer.raw)
        return _read_refund(answer, ref.refund_number)

    def parse_notification(self, request: NotificationRequest, at: datetime) -> Notice | NotAuthentic:
        """Verify over the bytes as received, in constant time, by an algorithm that the message cannot choose."""
        sent, signature = request.headers.get("paper-time", ""), request.headers.get("paper-signature", "")
        expected = sign(self._secret, sent, request.body)
        if not sent.isascii() or not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
            return NotAuthentic("bad_signature")
        try:
            record = json.loads(request.body)
            sent_at = datetime.fromisoformat(sent)
            view = _view(record["payment"], str(record["payment"]["number"]))
            notice = Notice(str(record["id"])[:128], "payment", sent_at, view, raw=redact_json(request.body, ()))
        except (ValueError, KeyError, TypeError):
            return NotAuthentic("malformed")
        if abs(at - sent_at) > REPLAY_WINDOW:
            return NotAuthentic("stale", stale=True, number=view.number, dedupe_key=notice.dedupe_key)
        return notice

    def acknowledge(self, verdict: Verdict, reason: str = "") -> Acknowledgement:
        """The wallet stops at 200 and tries again at anything else."""
        return Acknowledgement(
            {Verdict.ACCEPT: 200, Verdict.RETRY: 500, Verdict.REJECT: 401}[verdict], verdict.value.encode()
        )

    def _ask(
        self, method: str, path: str, payload: _Record | None = None
    ) -> Generator[HttpRequest, HttpResponse | TransportError, Known[_Record] | Refused | Unknown]:
        headers = {"authorization": f"Bearer {self._secret}", "content-type": "application/json"}
        body = b"" if payload is None else json.dumps(payload).encode()
        reply = yield HttpRequest(method, self._base_url + path, headers, body)
        if isinstance(reply, TransportError):
            return Unknown(reply.reason) if reply.sent else Refused(RefusedKind.THROTTLED, "not_sent", reply.reason)
        raw = redact_json(reply.body, ())
        try:
            record = json.loads(reply.body)
        except (ValueError, RecursionError):
            return Unknown(f"malformed:{reply.status}", raw=raw)
        if reply.status == 200 and isinstance(record, dict):
            return Known(record, raw)
        code = record.get("error") if isinstance(record, dict) else None
        if reply.status == 404 and code == "unknown_number":
            return Refused(RefusedKind.CONFLICT, code, raw=raw)
        if 400 <= reply.status < 500 and isinstance(code, str) and code in REFUSALS:
            return Refused(REFUSALS[code], code, raw=raw)
        return Unknown(f"status_{reply.status}", raw=raw)


def sign(secret: str, sent: str, body: bytes) -> str:
    """The signature of a notification."""
    return hmac.new(secret.encode(), sent.encode("utf-8", "replace") + b"\n" + body, hashlib.sha256).hexdigest()


def _path(ref: PaymentRef) -> str:
    return "/payments/" + quote(ref.number, safe="")


def _amount(record: _Record) -> tuple[int, str]:
    """Whole minor units and a currency; a bool, a float or a text is none."""
    minor, currency = record.get("amount"), record.get("currency")
    if type(minor) is not int or minor <= 0 or not isinstance(currency, str):
        return (0, "")
    return minor, currency


def _moment(text: Any) -> datetime:
    at = datetime.fromisoformat(text) if isinstance(text, str) else None
    if at is None or at.tzinfo is None:
        raise ValueError("paid_at")
    return at


def _view(record: Any, number: str) -> PaymentView:
    if not isinstance(record, dict) or record.get("number") != number:
        raise ValueError("number")
    minor, currency = _amount(record)
    state, refunded = record.get("state"), record.get("refunded", 0)
    if state not in STATES or not minor or type(refunded) is not int or refunded < 0:
        raise ValueError("state")
    is_paid = state == "paid"
    reference = record.get("reference", "")
    if not isinstance(reference, str) or (is_paid and not reference):
        raise ValueError("reference")
    return PaymentView(
        number, STATES[state], currency, minor if is_paid else 0, refunded if is_paid else 0,
        channel_reference=reference, paid_at=_moment(record.get("paid_at")) if is_paid else None,
    )  # fmt: skip


def _read(answer: Known[_Record] | Refused | Unknown, number: str) -> Outcome[PaymentView]:
    if not isinstance(answer, Known):
        return answer
    try:
        return Known(_view(answer.value, number), answer.raw)
    except ValueError as error:
        return Unknown(f"malformed:{error}", raw=answer.raw)


def _read_refund(answer: Known[_Record] | Refused | Unknown, number: str) -> Outcome[RefundView]:
    if not isinstance(answer, Known):
        return answer
    minor, currency = _amount(answer.value)
    if not minor or answer.value.get("number") != number or answer.value.get("state") != "done":
        return Unknown("malformed:refund", raw=answer.raw)
    return Known(RefundView(number, RefundState.DONE, minor, currency), answer.raw)
