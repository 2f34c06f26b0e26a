"""The sandbox as a channel: signed JSON over HTTP, to the bank in this package's `server`."""

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote, urlsplit

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
    NotAuthentic,
    Notice,
    NotificationRequest,
    Outcome,
    PaymentRef,
    PaymentState,
    PaymentView,
    Prepay,
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
from payonce.channels.options import Option
from payonce.channels.redaction import redact_json
from payonce.channels.sandbox import readers
from payonce.channels.sandbox.account import OPTION_SPECS, SandboxAccount
from payonce.channels.sandbox.codes import REFUSALS, REFUSALS_UNSIGNED, Code
from payonce.channels.sandbox.wire import MalformedError, read_object, write_object
from payonce.channels.signing import (
    HEADER_ACCOUNT,
    Signature,
    SignatureVerdict,
    sign_request,
    verify_answer,
    verify_notification,
)

T = TypeVar("T")
_HIDDEN = ("payer", "client_ip", "value")
_ACKNOWLEDGEMENTS = {
    Verdict.ACCEPT: Acknowledgement(200, b"success"),
    Verdict.RETRY: Acknowledgement(500, b"retry"),
    Verdict.REJECT: Acknowledgement(401, b"reject"),
}
_CLOSE_OF_STATE = {
    PaymentState.PAID: CloseState.ALREADY_PAID,
    PaymentState.CLOSED: CloseState.CLOSED_PROVED,
    PaymentState.IN_PROGRESS: CloseState.IN_PROGRESS,
}
_CLOSE_OF_CODE = {
    Code.CLOSED: CloseState.CLOSED_PROVED,
    Code.ALREADY_PAID: CloseState.ALREADY_PAID,
    Code.IN_PROGRESS: CloseState.IN_PROGRESS,
    Code.NOT_CLOSABLE: CloseState.NOT_CLOSABLE,
}


@dataclass(frozen=True, slots=True)
class _Answer:
    """A verified answer of the bank."""

    code: str
    record: dict[str, Any]
    raw: str


_Asked = Generator[HttpRequest, HttpResponse | TransportError, _Answer | Refused | Unknown]


class SandboxChannel(Channel):
    """One sandbox account. `clock` gives Unix seconds for signatures and may be replaced in tests."""

    adapter: ClassVar[str] = "sandbox"
    option_specs: ClassVar[tuple[Option, ...]] = OPTION_SPECS

    def __init__(self, account: str, options: Mapping[str, Any]) -> None:
        super().__init__(account, options)
        self.settings = SandboxAccount.from_options(account, options)
        self.clock: Callable[[], float] = time.time

    @property
    def takes_real_money(self) -> bool:
        """Never: whoever sees the wallet page can pay."""
        return False

    @property
    def capabilities(self) -> Capabilities:
        """What this account can do, as its options say."""
        return self.settings.capabilities

    def prepay(self, request: PrepayRequest) -> Conversation[Outcome[Prepay]]:
        """Register the stream. The same request under the same number gives the live prepay again."""
        answer = yield from self._ask("POST", "/v1/payments", readers.prepay_request(request))
        return _outcome("prepay", answer, lambda record: readers.prepay(record, request.number))

    def query(self, ref: PaymentRef) -> Conversation[Outcome[PaymentView]]:
        """Ask what happened to a stream."""
        answer = yield from self._ask("GET", _payment_path(ref))
        if isinstance(answer, _Answer) and answer.code == Code.NOT_FOUND:
            return Known(PaymentView(ref.number, PaymentState.NOT_FOUND), answer.raw)
        return _outcome("query", answer, lambda record: readers.payment(record["payment"], ref.number))

    def capture(self, request: CaptureRequest) -> Conversation[Outcome[PaymentView]]:
        """Take approved money under the capture's own key."""
        answer = yield from self._ask("POST", _payment_path(request.payment) + "/capture", {"key": request.key})
        return _outcome("capture", answer, lambda record: readers.payment(record["payment"], request.payment.number))

    def close(self, ref: PaymentRef) -> Conversation[Outcome[CloseAnswer]]:
        """Close the stream, and query it where the bank's answer to the close proves nothing."""
        if self.capabilities.close_proof in {CloseProof.RESTRAINT, CloseProof.EXPIRY}:
            return (yield from self._close_by_asking(ref, CloseState.NOT_CLOSABLE))
        answer = yield from self._ask("POST", _payment_path(ref) + "/close", {})
        if not isinstance(answer, _Answer):
            return answer
        if answer.code == Code.ACCEPTED:
            return (yield from self._close_by_asking(ref, CloseState.UNPROVED))
        if answer.code == Code.NOT_FOUND:
            waits = self.capabilities.not_found_before_buyer_acts
            return Known(CloseAnswer(CloseState.NOT_CLOSABLE if waits else CloseState.UNPROVED), answer.raw)
        if answer.code in _CLOSE_OF_CODE:
            return _read(answer, lambda record: readers.close(record, ref.number, _CLOSE_OF_CODE[Code(answer.code)]))
        return _outcome("close", answer, _nothing_known)

    def _close_by_asking(self, ref: PaymentRef, otherwise: CloseState) -> Conversation[Outcome[CloseAnswer]]:
        seen = yield from self.query(ref)
        if isinstance(seen, Known):
            return Known(CloseAnswer(_CLOSE_OF_STATE.get(seen.value.state, otherwise), seen.value), seen.raw)
        if otherwise is CloseState.UNPROVED:
            # The close itself was accepted; only its proof is missing.
            return Known(CloseAnswer(CloseState.UNPROVED), seen.raw)
        return seen

    def refund(self, request: RefundRequest) -> Conversation[Outcome[RefundView]]:
        """Give money back under the caller's refund number."""
        path = _payment_path(request.payment) + "/refunds"
        answer = yield from self._ask("POST", path, readers.refund_request(request))
        return _outcome("refund", answer, lambda record: readers.refund(record["refund"], request.refund_number))

    def query_refund(self, ref: RefundRef) -> Conversation[Outcome[RefundView]]:
        """Ask what happened to a refund number."""
        path = _payment_path(ref.payment) + "/refunds/" + quote(ref.refund_number, safe="", errors="replace")
        answer = yield from self._ask("GET", path)
        if isinstance(answer, _Answer) and answer.code == Code.NOT_FOUND:
            return Known(RefundView(ref.refund_number, RefundState.NOT_FOUND), answer.raw)
        return _outcome("query_refund", answer, lambda record: readers.refund(record["refund"], ref.refund_number))

    def statement(self, day: date) -> Conversation[Outcome[tuple[StatementLine, ...]]]:
        """All captures and refunds of one UTC day, fetched page by page."""
        lines: list[StatementLine] = []
        after = 0
        while True:
            answer = yield from self._ask("GET", f"/v1/statement?day={day.isoformat()}&after={after}")
            page = _outcome("statement", answer, readers.statement_page)
            if not isinstance(page, Known):
                return page
            lines.extend(page.value.lines)
            if page.value.next_after is None:
                return Known(tuple(lines), f"{len(lines)} lines")
            if page.value.next_after <= after:
                return Unknown("malformed:next_after", raw=page.raw)
            after = page.value.next_after

    def parse_notification(self, request: NotificationRequest, at: datetime) -> Notice | NotAuthentic:
        """Verify over the exact bytes, then read. A stale message is named, so that the caller can query its stream."""
        merchant = request.headers.get(HEADER_ACCOUNT, "")
        if not merchant:
            return NotAuthentic("missing_signature")
        if merchant != self.settings.merchant:
            return NotAuthentic("wrong_account")
        signature = Signature.of(request.headers)
        verdict = verify_notification(self.settings.secret, merchant, request.body, signature, at.timestamp())
        if verdict in {SignatureVerdict.MISSING, SignatureVerdict.BAD}:
            return NotAuthentic(verdict.value)
        try:
            notice = readers.notice(read_object(request.body), redact_json(request.body, _HIDDEN))
        except MalformedError as error:
            # Signed by the bank and yet not readable: it must come again and be looked at, not be acknowledged.
            return NotAuthentic(f"malformed:{error}")
        if verdict is SignatureVerdict.STALE:
            number = notice.payment.number if notice.payment else notice.refund.payment_number if notice.refund else ""
            return NotAuthentic(verdict.value, stale=True, number=number, dedupe_key=notice.dedupe_key)
        return notice

    def acknowledge(self, verdict: Verdict, reason: str = "") -> Acknowledgement:
        """200 `success`, 500 `retry` or 401 `reject`. The reason stays here: it helps only a forger."""
        return _ACKNOWLEDGEMENTS[verdict]

    def _ask(self, method: str, path: str, payload: dict[str, Any] | None = None) -> _Asked:
        body = b"" if payload is None else write_object(payload)
        url = self.settings.base_url + path
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        merchant = self.settings.merchant
        signature = sign_request(self.settings.secret, merchant, method, target, body, self.clock())
        headers = {HEADER_ACCOUNT: merchant, "accept": "application/json", **signature.headers()}
        if body:
            headers["content-type"] = "application/json"
        total = float(self.settings.timeout_seconds)
        limits = (min(3.0, total), min(8.0, total), total)
        reply = yield HttpRequest(method, url, headers, body, *limits)
        return self._judge(reply, signature.nonce)

    def _judge(self, reply: HttpResponse | TransportError, nonce: str) -> _Answer | Refused | Unknown:
        """A definite answer is one that is signed, for this very request, fresh, and readable."""
        if isinstance(reply, TransportError):
            if reply.sent:
                return Unknown(reply.reason)
            return Refused(RefusedKind.THROTTLED, "not_sent", reply.reason)
        raw = redact_json(reply.body, _HIDDEN)
        signature = Signature.of(reply.headers)
        verdict = verify_answer(self.settings.secret, nonce, reply.status, reply.body, signature, self.clock())
        if verdict is not SignatureVerdict.GOOD:
            return _unsigned_refusal(reply, raw) or Unknown(f"{verdict.value}:{reply.status}", raw=raw)
        if reply.status >= 500:
            return Unknown(f"status_{reply.status}", raw=raw)
        try:
            record = read_object(reply.body)
            return _Answer(readers.code(record), record, raw)
        except MalformedError as error:
            return Unknown(f"malformed:{error}", raw=raw)


def _payment_path(ref: PaymentRef) -> str:
    return "/v1/payments/" + quote(ref.number, safe="", errors="replace")


def _unsigned_refusal(reply: HttpResponse, raw: str) -> Refused | None:
    """The few refusals that the bank cannot sign for us, because it does not know us."""
    try:
        code = readers.code(read_object(reply.body))
    except MalformedError:
        return None
    status, kind = REFUSALS_UNSIGNED.get(code, (0, RefusedKind.CONFIG))
    return (
        Refused(kind, code, "check the account's secret, merchant and clock", raw) if status == reply.status else None
    )


def _outcome(operation: str, answer: _Answer | Refused | Unknown, read: Callable[[dict[str, Any]], T]) -> Outcome[T]:
    """Known for OK, Refused for the codes that the operation lists, Unknown for everything else."""
    if not isinstance(answer, _Answer):
        return answer
    kind = REFUSALS[operation].get(answer.code)
    if kind is not None:
        message = answer.record.get("message", "")
        return Refused(kind, answer.code, message[:500] if isinstance(message, str) else "", answer.raw)
    if answer.code != Code.OK:
        return Unknown(f"unlisted:{answer.code}", raw=answer.raw)
    return _read(answer, read)


def _read(answer: _Answer, read: Callable[[dict[str, Any]], T]) -> Known[T] | Unknown:
    try:
        return Known(read(answer.record), answer.raw)
    except KeyError as error:
        return Unknown(f"malformed:{error.args[0]}", raw=answer.raw)
    except MalformedError as error:
        return Unknown(f"malformed:{error}", raw=answer.raw)


def _nothing_known(record: dict[str, Any]) -> CloseAnswer:
    raise MalformedError("code")
