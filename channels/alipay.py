"""Alipay: QR code (precreate), web page, mobile web and app payments over the classic gateway, in both of its key modes.

| operation | call | what its success proves |
|---|---|---|
| prepay `qr` | `alipay.trade.precreate` | a QR text, good for two hours; no trade exists before a buyer scans it |
| prepay `web`, `h5`, `app` | none | a signed address or order text, made here; Alipay learns of it when a buyer opens it |
| query | `alipay.trade.query` | `code` 10000 says only that the query worked; `trade_status` says the rest |
| close | `alipay.trade.close` | never payable again; only a trade in WAIT_BUYER_PAY can be closed |
| refund | `alipay.trade.refund` | `fund_change` Y: the money moved by this call; anything else is asked about |
| query_refund | `alipay.trade.fastpay.refund.query` | `refund_status` REFUND_SUCCESS; its absence says "not received or failed" |
| statement | `alipay.data.dataservice.bill.downloadurl.query` | the bill of one Beijing day, from the next morning on |

`alipay.trade.cancel` is never called: it closes what is unpaid, and gives back what is paid. Before the buyer acts, query
and close answer ACQ.TRADE_NOT_EXIST while the code or address stays payable: that proves nothing until `payable_until`,
which is always sent as the absolute `time_expire`. (The relative `timeout_express` starts only when the buyer pays.)
"""

import json
import time
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from payonce.channels import alipay_wire as wire
from payonce.channels.alipay_account import OPTION_SPECS, AlipayAccount
from payonce.channels.alipay_answers import (
    GATEWAY,
    NO_BILL,
    NOT_IN_THE_STATE,
    TRADE_NOT_EXIST,
    is_about,
    judge_codes,
    outcome_of,
    payment_of,
    raw_of,
    refund_of,
)
from payonce.channels.alipay_bill import ARCHIVE_BYTES_MAX, read_bill
from payonce.channels.alipay_wire import Answer, MalformedError
from payonce.channels.base import Channel, Conversation
from payonce.channels.keys import sign_rsa
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
    StatementLine,
    TransportError,
    Unknown,
    Verdict,
)
from payonce.channels.options import Option
from payonce.channels.redaction import redact_json

T = TypeVar("T")
QR_SECONDS = 7_200
DAY_SECONDS = 86_400
_Asked = Generator[HttpRequest, HttpResponse | TransportError, Answer | Refused | Unknown]

# Without a call: the buyer's browser or app takes the signed request to Alipay. [D] product codes of each page.
_PAGES = {
    "web": ("alipay.trade.page.pay", "FAST_INSTANT_TRADE_PAY"),
    "h5": ("alipay.trade.wap.pay", "QUICK_WAP_WAY"),
    "app": ("alipay.trade.app.pay", "QUICK_MSECURITY_PAY"),
}
_METHODS = {
    "qr": MethodCapability(PrepayKind.QR, QR_SECONDS, lifetime_seconds_min=90),
    "web": MethodCapability(PrepayKind.REDIRECT, 15 * DAY_SECONDS, lifetime_seconds_min=90),
    "h5": MethodCapability(PrepayKind.REDIRECT, 15 * DAY_SECONDS, lifetime_seconds_min=90),
    "app": MethodCapability(PrepayKind.APP, 15 * DAY_SECONDS, lifetime_seconds_min=90),
}
_CLOSE_OF_STATE = {
    PaymentState.PAID: CloseState.ALREADY_PAID,
    PaymentState.CLOSED: CloseState.CLOSED_PROVED,
    PaymentState.NOT_FOUND: CloseState.NOT_CLOSABLE,
}
_ACKNOWLEDGEMENTS = {
    Verdict.ACCEPT: Acknowledgement(200, b"success"),
    Verdict.RETRY: Acknowledgement(500, b"fail"),
    Verdict.REJECT: Acknowledgement(401, b"fail"),
}
# A subject may hold none of these [D]; their full-width forms read the same.
_SUBJECT = str.maketrans({"/": "／", "=": "＝", "&": "＆"})
_BILL_HOSTS = (".alipay.com", ".alipaydev.com")


class AlipayChannel(Channel):
    """One application of a merchant at Alipay. `clock` gives Unix seconds for requests and may be replaced in tests."""

    adapter: ClassVar[str] = "alipay"
    option_specs: ClassVar[tuple[Option, ...]] = OPTION_SPECS

    def __init__(self, account: str, options: Mapping[str, Any]) -> None:
        super().__init__(account, options)
        self.settings = AlipayAccount.from_options(account, options)
        self.clock: Callable[[], float] = time.time

    def __repr__(self) -> str:
        return f"<AlipayChannel {self.account}: application {self.settings.app_id}>"

    @property
    def merchant(self) -> str:
        """The seller's number (PID), which notifications state."""
        return self.settings.seller_id

    @property
    def takes_real_money(self) -> bool:
        """Alipay's own sandbox has a gateway of its own."""
        return "sandbox" not in self.settings.base_url

    @property
    def capabilities(self) -> Capabilities:
        """What Alipay can do; amounts and windows as its pages state them."""
        return Capabilities(
            methods={name: _METHODS[name] for name in self.settings.methods},
            currencies=frozenset({wire.CURRENCY}),
            close_proof=CloseProof.ANSWER,
            not_found_before_buyer_acts=True,
            enforces_expiry=True,
            # A payment that began in the last second may end after it; nothing is documented about how long after.
            clock_skew_seconds=300,
            refund_window_seconds=365 * DAY_SECONDS,
            refund_interval_seconds=3,
            statement=True,
            # The last of seven repeats comes 24 h 22 min after the first.
            notification_horizon_seconds=26 * 3_600,
            amount_minor_max=10_000_000_000,
            notes={
                "query": "tells no partial refunds",
                "notification": "payments only; closes and refunds are not told",
            },
        )

    def prepay(self, request: PrepayRequest) -> Conversation[Outcome[Prepay]]:
        """A QR text from Alipay, or a signed address or order text that is made here and registers nothing."""
        content: dict[str, Any] = {
            "out_trade_no": request.number,
            "total_amount": wire.yuan(request.amount_minor),
            "subject": _subject(request),
            "time_expire": wire.beijing_text(request.payable_until),
        }
        addresses = {"notify_url": request.notify_url}
        if request.method in _PAGES:
            return Known(self._page(request, content, addresses))
        content["product_code"] = self.settings.qr_product_code
        answer = yield from self._ask("alipay.trade.precreate", content, addresses, is_write=True)
        code_expires_at = datetime.fromtimestamp(self.clock(), UTC) + timedelta(seconds=QR_SECONDS)
        expires_at = min(request.payable_until.replace(microsecond=0), code_expires_at)

        def read(record: dict[str, Any]) -> Prepay:
            is_about(record, request.number)
            return Prepay(PrepayKind.QR, wire.text_of(record, "qr_code", characters_max=1_024), expires_at)

        return outcome_of("prepay", answer, read)

    def _page(self, request: PrepayRequest, content: dict[str, Any], addresses: dict[str, str]) -> Prepay:
        method, content["product_code"] = _PAGES[request.method]
        if request.method != "app":
            addresses["return_url"] = request.return_url
        if request.method == "h5":
            content["quit_url"] = request.return_url  # where a buyer goes who turns back
        text = urlencode(self._signed(method, content, addresses), quote_via=quote)
        kind = _METHODS[request.method].prepay_kind
        value = text if kind is PrepayKind.APP else f"{self.settings.base_url}?{text}"
        return Prepay(kind, value, request.payable_until.replace(microsecond=0))

    def query(self, ref: PaymentRef) -> Conversation[Outcome[PaymentView]]:
        """Ask what happened. A trade that does not exist may still be paid: the buyer has not acted yet."""
        answer = yield from self._ask("alipay.trade.query", _named(ref))
        if isinstance(answer, Answer) and answer.business_code == TRADE_NOT_EXIST:
            return Known(PaymentView(ref.number, PaymentState.NOT_FOUND), raw_of(answer))

        def read(record: dict[str, Any]) -> PaymentView:
            is_about(record, ref.number)
            return payment_of(record, paid_at="send_pay_date")

        return outcome_of("query", answer, read)

    def close(self, ref: PaymentRef) -> Conversation[Outcome[CloseAnswer]]:
        """Close a trade that waits for its buyer; where the state forbids it, a query says which state that is."""
        answer = yield from self._ask("alipay.trade.close", _named(ref), is_write=True)
        if not isinstance(answer, Answer):
            return answer
        if answer.business_code == TRADE_NOT_EXIST:
            return Known(CloseAnswer(CloseState.NOT_CLOSABLE), raw_of(answer))
        if answer.business_code not in NOT_IN_THE_STATE:

            def read(record: dict[str, Any]) -> CloseAnswer:
                is_about(record, ref.number)
                return CloseAnswer(CloseState.CLOSED_PROVED)

            return outcome_of("close", answer, read)
        seen = yield from self.query(ref)
        if not isinstance(seen, Known):
            return seen
        return Known(CloseAnswer(_CLOSE_OF_STATE.get(seen.value.state, CloseState.UNPROVED), seen.value), seen.raw)

    def refund(self, request: RefundRequest) -> Conversation[Outcome[RefundView]]:
        """Give money back under the caller's number. Without `fund_change` Y the refund query decides, as Alipay asks for."""
        content = {
            **_named(request.payment),
            "refund_amount": wire.yuan(request.amount_minor),
            "out_request_no": request.refund_number,
            "refund_reason": request.reason[:256] or "refund",
        }
        answer = yield from self._ask("alipay.trade.refund", content, is_write=True)
        if not isinstance(answer, Answer) or answer.code != wire.SUCCESS or answer.record.get("fund_change") == "Y":

            def read(record: dict[str, Any]) -> RefundView:
                is_about(record, request.payment.number)
                # `refund_fee` is the sum of all refunds of the trade, so the amount is the one that was asked for.
                return RefundView(request.refund_number, RefundState.DONE, request.amount_minor, wire.CURRENCY,
                                  payment_number=request.payment.number)  # fmt: skip

            return outcome_of("refund", answer, read)
        ref = RefundRef(request.payment, request.refund_number, request.amount_minor)
        seen = yield from self.query_refund(ref)
        if isinstance(seen, Known) and seen.value.state is RefundState.NOT_FOUND:
            return Unknown("accepted, and the refund query does not show it yet", raw=seen.raw)
        return seen

    def query_refund(self, ref: RefundRef) -> Conversation[Outcome[RefundView]]:
        """Ask what happened to a refund number. Alipay wants ten seconds between a refund and this question."""
        content = {**_named(ref.payment), "out_request_no": ref.refund_number}
        answer = yield from self._ask("alipay.trade.fastpay.refund.query", content)
        if isinstance(answer, Answer) and answer.business_code == TRADE_NOT_EXIST:
            return Known(RefundView(ref.refund_number, RefundState.NOT_FOUND), raw_of(answer))
        return outcome_of("query_refund", answer, lambda record: refund_of(record, ref))

    def statement(self, day: date) -> Conversation[Outcome[tuple[StatementLine, ...]]]:
        """The bill of one day in Beijing time. It comes the next morning: before that, ask again later."""
        content = {"bill_type": "trade", "bill_date": day.isoformat()}
        answer = yield from self._ask("alipay.data.dataservice.bill.downloadurl.query", content)
        if isinstance(answer, Answer) and answer.business_code in NO_BILL:
            return self._without_bill(day, answer)
        address = outcome_of("statement", answer, self._bill_address)
        if not isinstance(address, Known):
            return address
        reply = yield self._request("GET", address.value, bytes_max=ARCHIVE_BYTES_MAX)
        if isinstance(reply, TransportError):
            return Unknown(reply.reason)
        if reply.status != 200:
            return Unknown(f"status_{reply.status}")
        try:
            lines = read_bill(reply.body)
        except MalformedError as error:
            return Unknown(f"malformed:{error}", raw=f"[{len(reply.body)} bytes]")
        return Known(lines, f"{len(lines)} lines")

    def _without_bill(self, day: date, answer: Answer) -> Outcome[tuple[StatementLine, ...]]:
        """No bill: nothing happened that day, or it is not ready. Only the calendar tells them apart."""
        today = datetime.fromtimestamp(self.clock(), wire.BEIJING).date()
        if day + timedelta(days=2) <= today:
            return Known((), raw_of(answer))
        return Refused(
            RefusedKind.THROTTLED, answer.sub_code, "the bill of a day is ready on the next morning", raw_of(answer)
        )

    def _bill_address(self, record: dict[str, Any]) -> str:
        """The signed answer names it; nothing but the gateway's own host or Alipay's is called, and Alipay's only over TLS."""
        url = wire.text_of(record, "bill_download_url", characters_max=4_096)
        try:
            parts, gateway = urlsplit(url), urlsplit(self.settings.base_url)
            host = parts.hostname or ""
            is_gateway = (parts.scheme, parts.netloc) == (gateway.scheme, gateway.netloc)
        except ValueError:
            raise MalformedError("bill_download_url") from None
        if not url.isascii() or not (is_gateway or (host.endswith(_BILL_HOSTS) and parts.username is None)):
            raise MalformedError("bill_download_url")
        return url if is_gateway else urlunsplit(("https", host, parts.path, parts.query, ""))

    def parse_notification(self, request: NotificationRequest, at: datetime) -> Notice | NotAuthentic:
        """Verify, then read. No age is refused: Alipay documents no limit, repeats over a day, and `notify_id` stays the same."""
        try:
            fields = wire.read_form(request.body)
            if not wire.is_genuine_notification(self.settings.keys(), fields):
                return NotAuthentic("bad_signature" if fields.get("sign") else "missing_signature")
            if fields.get("app_id") != self.settings.app_id:
                return NotAuthentic("wrong_account")
            key = wire.text_of(fields, "notify_id", characters_max=128)
            sent_at = wire.moment_of(fields, "notify_time")
            raw = redact_json(json.dumps(fields).encode(), wire.HIDDEN)
            if fields.get("notify_type") != "trade_status_sync":
                return Notice(key, wire.text_of(fields, "notify_type", optional=True)[:64], sent_at, raw=raw)
            view = payment_of(
                fields, paid_at="gmt_payment", merchant=wire.text_of(fields, "seller_id", characters_max=30)
            )
        except MalformedError as error:
            return NotAuthentic(f"malformed:{error}")
        return Notice(key, f"trade.{fields['trade_status']}"[:64], sent_at, payment=view, raw=raw)

    def acknowledge(self, verdict: Verdict, reason: str = "") -> Acknowledgement:
        """Exactly `success` ends the repeats; anything else brings the next one."""
        return _ACKNOWLEDGEMENTS[verdict]

    def _signed(self, method: str, content: dict[str, Any], addresses: Mapping[str, str]) -> dict[str, str]:
        """All fields of a request with their signature."""
        fields = {
            "app_id": self.settings.app_id,
            "method": method,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": wire.SIGN_TYPE,
            "timestamp": wire.beijing_text(datetime.fromtimestamp(self.clock(), UTC)),
            "version": "1.0",
            **self.settings.certificates,
            **{name: value for name, value in addresses.items() if value},
            "biz_content": json.dumps(content, ensure_ascii=False, separators=(",", ":")),
        }
        signature = sign_rsa(self.settings.signing, wire.signed_text(fields).encode("utf-8", "replace"))
        return {**fields, "sign": signature}

    def _ask(
        self,
        method: str,
        content: dict[str, Any],
        addresses: Mapping[str, str] | None = None,
        *,
        is_write: bool = False,
    ) -> _Asked:
        fields = self._signed(method, content, addresses or {})
        # As the official SDKs do: the content in the body, all else in the address, so that the gateway knows the charset.
        body = urlencode({"biz_content": fields.pop("biz_content")}, errors="replace").encode()
        url = f"{self.settings.base_url}?{urlencode(fields, quote_via=quote)}"
        reply = yield self._request("POST", url, body)
        return self._judge(reply, method, is_write=is_write)

    def _request(self, method: str, url: str, body: bytes = b"", bytes_max: int = 1_000_000) -> HttpRequest:
        total = float(self.settings.timeout_seconds)
        headers = {"content-type": "application/x-www-form-urlencoded;charset=utf-8"} if body else {}
        return HttpRequest(method, url, headers, body, min(3.0, total), min(8.0, total), total, bytes_max)

    def _judge(
        self, reply: HttpResponse | TransportError, method: str, *, is_write: bool
    ) -> Answer | Refused | Unknown:
        """A definite answer is one with status 200, readable, and truly signed; whatever else comes after a write is unknown."""
        if isinstance(reply, TransportError):
            return Unknown(reply.reason) if reply.sent else Refused(RefusedKind.THROTTLED, "not_sent", reply.reason)
        raw = redact_json(reply.body, wire.HIDDEN)
        if reply.status != 200:
            return Unknown(f"status_{reply.status}", raw=raw)
        try:
            answer = wire.read_answer(reply.body, method)
        except MalformedError as error:
            return Unknown(f"malformed:{error}", raw=raw)
        if not answer.signature:
            unsigned = Unknown(f"unsigned:{answer.code}:{answer.sub_code}"[:120], raw=raw)
            return unsigned if is_write or answer.code not in GATEWAY else judge_codes("query", answer, raw)
        keys = self.settings.keys(answer.certificate)
        if not keys:
            return Unknown('unknown_certificate: Alipay has a new one; add it to "alipay_cert"', raw=raw)
        return (
            answer if wire.is_signed_by(keys, answer.content, answer.signature) else Unknown("bad_signature", raw=raw)
        )


def _named(ref: PaymentRef) -> dict[str, Any]:
    """The trade's own number goes first where it is known: Alipay then ignores the merchant's."""
    return {"out_trade_no": ref.number, **({"trade_no": ref.channel_reference} if ref.channel_reference else {})}


def _subject(request: PrepayRequest) -> str:
    clean = "".join(character for character in request.subject if character.isprintable()).translate(_SUBJECT)
    return clean[:256].strip() or request.number
