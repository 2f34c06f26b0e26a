"""WeChat Pay v3 for a direct merchant: native (`qr`), JSAPI and mini program (`jsapi`), H5 (`h5`) and app (`app`).

What shapes it: a close is answered with 204 whatever happens, so a query follows; a 2xx answer whose signature does not
verify is unknown, since WeChat Pay sends such ones on purpose; errors (4xx) carry no signature; a number belongs to one
order for ever, so the same request under it may always be repeated. One account is one merchant number (mchid).
"""

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote, urlsplit

from payonce.channels import wechat_pay_bill, wechat_pay_wire
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
from payonce.channels.options import Option, read_options
from payonce.channels.redaction import redact_json
from payonce.channels.sandbox.wire import MalformedError, read_object, text, write_object
from payonce.channels.wechat_pay_keys import KINDS, OPTION_SPECS, Account, Signed
from payonce.channels.wechat_pay_wire import ASK_AFTER_CLOSE, HIDDEN, METHODS, NO_BILL, NOT_FOUND, REFUSALS

T = TypeVar("T")
_ORDERS = "/v3/pay/transactions/out-trade-no/"
_REFUNDS = "/v3/refund/domestic/refunds"
# prepay_id and code_url live two hours, h5_url five minutes. A little less is handed out, so that none ends on the way.
_LIFE_SECONDS, _H5_LIFE_SECONDS, _MARGIN_SECONDS = 7_200, 300, 30
_CLOSE_OF_STATE = {
    PaymentState.PAID: CloseState.ALREADY_PAID,
    PaymentState.CLOSED: CloseState.CLOSED_PROVED,
    PaymentState.IN_PROGRESS: CloseState.IN_PROGRESS,
}
_JSON = "application/json; charset=utf-8"
# doc/v3/merchant/4012791836: 200 or 204 ends the repeats, 4xx and 5xx ask for another; an answer is due in five seconds.
_ACKNOWLEDGEMENTS = {
    Verdict.ACCEPT: Acknowledgement(204),
    Verdict.RETRY: Acknowledgement(500, b'{"code":"FAIL","message":"retry"}', _JSON),
    Verdict.REJECT: Acknowledgement(401, b'{"code":"FAIL","message":"reject"}', _JSON),
}


@dataclass(frozen=True, slots=True)
class _Answer:
    """A verified 2xx answer, whose code is empty; or an error answer with its code."""

    code: str
    record: dict[str, Any]
    raw: str


_Asked = Generator[HttpRequest, HttpResponse | TransportError, _Answer | Refused | Unknown]


class WeChatPayChannel(Channel):
    """One merchant account. `clock` gives Unix seconds for signatures and may be replaced in tests."""

    adapter: ClassVar[str] = "wechat_pay"
    option_specs: ClassVar[tuple[Option, ...]] = OPTION_SPECS

    def __init__(self, account: str, options: Mapping[str, Any]) -> None:
        super().__init__(account, options)
        self.settings = Account.of(account, read_options(account, OPTION_SPECS, options), datetime.now(UTC))
        self.clock: Callable[[], float] = time.time

    @property
    def merchant(self) -> str:
        """The merchant number: messages state it as `mchid`."""
        return self.settings.mchid

    @property
    def capabilities(self) -> Capabilities:
        """What the account can do. `time_expire` is the last moment to pay, so expiry is enforced by the channel.

        A number has at least 90 s: WeChat Pay refuses a `time_expire` that is nearer than a minute.
        """
        methods = {name: MethodCapability(KINDS[name], _LIFE_SECONDS, 90) for name in self.settings.methods}
        return Capabilities(
            methods=methods,
            currencies=frozenset({"CNY"}),
            close_proof=CloseProof.QUERY,
            refund_interval_seconds=60,
            statement=True,
            states_refunded=False,
        )

    def prepay(self, request: PrepayRequest) -> Conversation[Outcome[Prepay]]:
        """Order. The same request under the same number gives the newest prepay of the same order."""
        refused = wechat_pay_wire.refuse_prepay(request, self.settings)
        if refused is not None:
            return refused
        path = f"/v3/pay/transactions/{METHODS[request.method]}"
        answer = yield from self._ask("POST", path, wechat_pay_wire.prepay_request(request, self.settings))
        return _outcome("prepay", answer, lambda record: self._prepay(record, request))

    def _prepay(self, record: dict[str, Any], request: PrepayRequest) -> Prepay:
        value = wechat_pay_wire.prepay_value(record, request, self.settings, self.clock())
        at = request.at or datetime.fromtimestamp(self.clock(), UTC)
        life = _H5_LIFE_SECONDS if request.method == "h5" else _LIFE_SECONDS
        ends = min(request.payable_until, at + timedelta(seconds=life - _MARGIN_SECONDS))
        return Prepay(KINDS[request.method], value, ends)

    def query(self, ref: PaymentRef) -> Conversation[Outcome[PaymentView]]:
        """Ask by our number: the only way that also works while the order is unpaid (doc/v3/merchant/4013070356)."""
        answer = yield from self._ask("GET", f"{_ORDERS}{_quoted(ref.number)}?mchid={self.settings.mchid}")
        if isinstance(answer, _Answer) and answer.code in NOT_FOUND["query"]:
            return Known(PaymentView(ref.number, PaymentState.NOT_FOUND), answer.raw)
        return _outcome("query", answer, lambda record: wechat_pay_wire.payment(record, ref.number))

    def close(self, ref: PaymentRef) -> Conversation[Outcome[CloseAnswer]]:
        """Close, then ask: 204 also comes for a number that does not exist, and is no proof of anything."""
        answer = yield from self._ask("POST", f"{_ORDERS}{_quoted(ref.number)}/close", {"mchid": self.settings.mchid})
        if not isinstance(answer, _Answer) or (answer.code and answer.code not in ASK_AFTER_CLOSE):
            return _outcome("close", answer, _nothing_known)
        seen = yield from self.query(ref)
        if isinstance(seen, Known):
            return Known(CloseAnswer(_CLOSE_OF_STATE.get(seen.value.state, CloseState.UNPROVED), seen.value), seen.raw)
        # The close itself was accepted; only its proof is missing.
        return seen if answer.code else Known(CloseAnswer(CloseState.UNPROVED), seen.raw)

    def refund(self, request: RefundRequest) -> Conversation[Outcome[RefundView]]:
        """Give money back. One number refunds at most once, also when it is repeated after a failure."""
        answer = yield from self._ask("POST", _REFUNDS, wechat_pay_wire.refund_request(request))
        return _outcome("refund", answer, lambda record: wechat_pay_wire.refund(record, request.refund_number))

    def query_refund(self, ref: RefundRef) -> Conversation[Outcome[RefundView]]:
        """Ask what happened to a refund number."""
        answer = yield from self._ask("GET", f"{_REFUNDS}/{_quoted(ref.refund_number)}")
        if isinstance(answer, _Answer) and answer.code in NOT_FOUND["query_refund"]:
            return Known(RefundView(ref.refund_number, RefundState.NOT_FOUND), answer.raw)
        return _outcome("query_refund", answer, lambda record: wechat_pay_wire.refund(record, ref.refund_number))

    def statement(self, day: date) -> Conversation[Outcome[tuple[StatementLine, ...]]]:
        """The trade bill of one Beijing day: its address, then the file. It is there on the next day after ten."""
        path = f"/v3/bill/tradebill?bill_date={day.isoformat()}&bill_type=ALL&tar_type=GZIP"
        answer = yield from self._ask("GET", path)
        if isinstance(answer, _Answer) and answer.code == NO_BILL:
            if wechat_pay_bill.is_ready(day, datetime.fromtimestamp(self.clock(), UTC)):
                return Known((), answer.raw)
            return Refused(RefusedKind.THROTTLED, NO_BILL, "the bill is made on the next day after ten", answer.raw)
        found = _outcome("statement", answer, self._bill_address)
        if not isinstance(found, Known):
            return found
        address, digest = found.value
        file = yield self._request("GET", address, b"", wechat_pay_bill.BYTES_MAX)
        return _bill(file, digest)

    def _bill_address(self, record: dict[str, Any]) -> tuple[str, str]:
        address = text(record, "download_url", characters_max=2_048)
        if text(record, "hash_type", characters_max=16) != "SHA1":
            raise MalformedError("hash_type")
        if not wechat_pay_bill.is_download(address, self.settings.base_url):
            raise MalformedError("download_url")
        return address, text(record, "hash_value", characters_max=1_024)

    def parse_notification(self, request: NotificationRequest, at: datetime) -> Notice | NotAuthentic:
        """Verify over the exact bytes, decrypt, read. A stale message is named, so that the caller can query."""
        signed = self.settings.check(request.headers, request.body, at.timestamp())
        if signed not in {Signed.GOOD, Signed.STALE}:
            return NotAuthentic(signed.value)
        try:
            notice = self._notice(read_object(request.body))
        except MalformedError as error:
            # Signed by WeChat Pay and yet not readable: it must come again and be looked at, not be acknowledged.
            return NotAuthentic(f"malformed:{error}")
        if signed is Signed.STALE:
            number = notice.payment.number if notice.payment else notice.refund.payment_number if notice.refund else ""
            return NotAuthentic(signed.value, stale=True, number=number, dedupe_key=notice.dedupe_key)
        return notice

    def _notice(self, message: dict[str, Any]) -> Notice:
        key, event = text(message, "id", characters_max=128), text(message, "event_type", characters_max=64)
        if not key or not key.isascii() or not key.isprintable():
            raise MalformedError("id")
        sent_at = wechat_pay_wire.sent_at(message)
        content = self.settings.decrypt(message.get("resource"))
        record, raw = read_object(content), redact_json(content, HIDDEN)
        if event.startswith("TRANSACTION."):
            # Another merchant in it is stated, not hidden: it is verified money that the caller must judge.
            return Notice(key, event, sent_at, payment=wechat_pay_wire.payment(record), raw=raw)
        if event.startswith("REFUND."):
            if text(record, "mchid", characters_max=32) != self.settings.mchid:
                raise MalformedError("mchid")
            return Notice(key, event, sent_at, refund=wechat_pay_wire.refund(record), raw=raw)
        return Notice(key, event, sent_at, raw=raw)

    def acknowledge(self, verdict: Verdict, reason: str = "") -> Acknowledgement:
        """204, or a failure that asks for a repeat. The reason stays here: it helps only a forger."""
        return _ACKNOWLEDGEMENTS[verdict]

    def _ask(self, method: str, path: str, payload: dict[str, Any] | None = None) -> _Asked:
        body = b"" if payload is None else write_object(payload)
        reply = yield self._request(method, self.settings.base_url + path, body)
        return self._judge(reply)

    def _request(self, method: str, url: str, body: bytes, bytes_max: int = 4_000_000) -> HttpRequest:
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        headers = {
            "authorization": self.settings.authorization(method, target, body, self.clock()),
            "accept": "application/json",
            "wechatpay-serial": self.settings.asked_serial,  # with which of its keys the answer is to be signed
        }
        if body:
            headers["content-type"] = "application/json"
        total = float(self.settings.timeout_seconds)
        return HttpRequest(method, url, headers, body, min(3.0, total), min(8.0, total), total, bytes_max)

    def _judge(self, reply: HttpResponse | TransportError) -> _Answer | Refused | Unknown:
        """A definite answer is a 2xx that is signed, fresh and readable, or a 4xx with a code, which carries no signature.

        202 is an error answer too: the buyer is typing the password.
        """
        if isinstance(reply, TransportError):
            return _not_answered(reply)
        raw = redact_json(reply.body, HIDDEN)
        if reply.status not in {200, 204}:
            code = wechat_pay_wire.code_of(reply.body)
            if code and (reply.status == 202 or 400 <= reply.status < 500):
                return _Answer(code, {}, raw)
            return Unknown(f"status_{reply.status}" + (f":{code}" if code else ""), raw=raw)
        signed = self.settings.check(reply.headers, reply.body, self.clock())
        if signed is not Signed.GOOD:
            return Unknown(f"{signed.value}:{reply.status}", raw=raw)
        try:
            return _Answer("", read_object(reply.body) if reply.body else {}, raw)
        except MalformedError as error:
            return Unknown(f"malformed:{error}", raw=raw)


def _not_answered(error: TransportError) -> Refused | Unknown:
    return Unknown(error.reason) if error.sent else Refused(RefusedKind.THROTTLED, "not_sent", error.reason)


def _quoted(number: str) -> str:
    return quote(number, safe="", errors="replace")


def _outcome(operation: str, answer: _Answer | Refused | Unknown, read: Callable[[dict[str, Any]], T]) -> Outcome[T]:
    """Known for a verified answer, Refused for the codes that the operation lists, Unknown for everything else."""
    if not isinstance(answer, _Answer):
        return answer
    kind = REFUSALS[operation].get(answer.code)
    if kind is not None:
        return Refused(kind, answer.code, answer.raw[:500], answer.raw)
    if answer.code:
        return Unknown(f"unlisted:{answer.code}", raw=answer.raw)
    try:
        return Known(read(answer.record), answer.raw)
    except MalformedError as error:
        return Unknown(f"malformed:{error}", raw=answer.raw)


def _bill(file: HttpResponse | TransportError, digest: str) -> Outcome[tuple[StatementLine, ...]]:
    """The lines of a downloaded bill. Its answer is not signed; the digest in the signed answer before proves it."""
    if isinstance(file, TransportError):
        return _not_answered(file)
    if file.status != 200:
        return Unknown(f"status_{file.status}")
    try:
        lines = wechat_pay_bill.read(wechat_pay_bill.unpack(file.body, digest))
    except MalformedError as error:
        return Unknown(f"malformed:{error}")
    return Known(lines, f"{len(lines)} lines")


def _nothing_known(record: dict[str, Any]) -> CloseAnswer:
    raise MalformedError("code")
