"""What Alipay's answers mean: the codes of each operation, and what a trade or a refund says about itself."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from payonce.channels import alipay_wire as wire
from payonce.channels.alipay_wire import Answer, MalformedError
from payonce.channels.messages import (
    Known,
    Outcome,
    PaymentState,
    PaymentView,
    RefundRef,
    RefundState,
    RefundView,
    Refused,
    RefusedKind,
    Unknown,
)
from payonce.channels.redaction import redact_json

T = TypeVar("T")

# Of the gateway [D]: refused before anything was done. 20000 is left out: it means that nobody knows.
GATEWAY: dict[str, RefusedKind] = {
    "20001": RefusedKind.CONFIG,
    "40001": RefusedKind.CONFIG,
    "40002": RefusedKind.CONFIG,
    "40003": RefusedKind.CONFIG,
    "40005": RefusedKind.THROTTLED,
    "40006": RefusedKind.CONFIG,
}
TRADE_NOT_EXIST = "ACQ.TRADE_NOT_EXIST"
# A close of what is not WAIT_BUYER_PAY [D]; which of them comes is not documented, so a query tells.
NOT_IN_THE_STATE = frozenset({"ACQ.TRADE_STATUS_ERROR", "ACQ.REASON_TRADE_STATUS_INVALID", "ACQ.REASON_ILLEGAL_STATUS"})
NO_BILL = frozenset({"isp.bill_not_exist", "BILL_NOT_EXIST", "NO_BILL_DATA"})  # [D] and copies: the spelling varies
_PARAMETERS = {
    "ACQ.INVALID_PARAMETER": RefusedKind.CONFIG,
    "ACQ.ACCESS_FORBIDDEN": RefusedKind.CONFIG,
    "ACQ.PARTNER_ERROR": RefusedKind.CONFIG,
}
# Of each operation, under 40004 [D]. What is not listed is Unknown, such as every SYSTEM_ERROR.
BUSINESS: dict[str, dict[str, RefusedKind]] = {
    "prepay": {
        **_PARAMETERS,
        "ACQ.EXIST_FORBIDDEN_WORD": RefusedKind.CONFIG,
        "ACQ.SELLER_BEEN_BLOCKED": RefusedKind.CONFIG,
        "ACQ.PRODUCT_AMOUNT_LIMIT_ERROR": RefusedKind.DECLINED,
        "ACQ.TOTAL_FEE_EXCEED": RefusedKind.DECLINED,
        "ACQ.TRADE_HAS_SUCCESS": RefusedKind.CONFLICT,
        "ACQ.TRADE_HAS_CLOSE": RefusedKind.CONFLICT,
        "ACQ.CONTEXT_INCONSISTENT": RefusedKind.CONFLICT,
        # The same number may not fetch a second code: the first one may be in a buyer's hands.
        "ACQ.APPLY_PC_MERCHANT_CODE_ERROR": RefusedKind.CONFLICT,
    },
    "query": dict(_PARAMETERS),
    "close": dict(_PARAMETERS),
    "refund": {
        **_PARAMETERS,
        TRADE_NOT_EXIST: RefusedKind.CONFLICT,
        "ACQ.TRADE_STATUS_ERROR": RefusedKind.CONFLICT,
        "ACQ.DISCORDANT_REPEAT_REQUEST": RefusedKind.CONFLICT,
        "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL": RefusedKind.CONFLICT,
        "ACQ.REASON_TRADE_REFUND_FEE_ERR": RefusedKind.CONFLICT,
        "ACQ.SELLER_BALANCE_NOT_ENOUGH": RefusedKind.DECLINED,
        "ACQ.REASON_TRADE_BEEN_FREEZEN": RefusedKind.DECLINED,
        "ACQ.TRADE_HAS_FINISHED": RefusedKind.DECLINED,
        "ACQ.TRADE_NOT_ALLOW_REFUND": RefusedKind.DECLINED,
        "ACQ.BUYER_NOT_EXIST": RefusedKind.DECLINED,
        "ACQ.BUYER_ERROR": RefusedKind.DECLINED,
        "ACQ.BUYER_ENABLE_STATUS_FORBID": RefusedKind.DECLINED,
    },
    "query_refund": dict(_PARAMETERS),
    "statement": dict(_PARAMETERS),
}
_HINTS = {
    "isv.invalid-app-id": 'Check "app_id", and that "base_url" is the gateway it belongs to (live or sandbox).',
    "isv.invalid-signature": 'Check "private_key": the console must hold its public half.',
    "isv.missing-app-cert-sn": 'The console expects certificates: set "app_cert", "alipay_cert" and "alipay_root_cert".',
    "isv.invalid-app-cert-sn": 'Check "app_cert": download the application\'s certificate from the console again.',
    "isv.insufficient-isv-permissions": "Sign the product in Alipay's console and add it to the application.",
}


def judge_codes(operation: str, answer: Answer, raw: str) -> Refused | Unknown:
    """What a verified answer that is no success means."""
    kind, code = GATEWAY.get(answer.code), answer.sub_code or answer.code
    if answer.code == wire.BUSINESS_FAILED:
        kind = BUSINESS[operation].get(answer.sub_code)
    if kind is None:
        return Unknown(f"unlisted:{answer.code}:{answer.sub_code}"[:120], raw=raw)
    told = answer.record.get("sub_msg")
    words = told[:300] if isinstance(told, str) and wire.is_clean(told) else ""
    return Refused(kind, code, f"{_HINTS.get(code, '')} {words}".strip(), raw)


def raw_of(answer: Answer) -> str:
    """The answer as evidence."""
    return redact_json(answer.content, wire.HIDDEN)


def is_about(record: dict[str, Any], number: str) -> None:
    """An answer about another number answers nothing. Raises MalformedError."""
    if wire.text_of(record, "out_trade_no", characters_max=64) != number:
        raise MalformedError("out_trade_no")


def outcome_of(operation: str, answer: Answer | Refused | Unknown, read: Callable[[dict[str, Any]], T]) -> Outcome[T]:
    """Known for code 10000, Refused for the codes that the operation lists, Unknown for everything else."""
    if not isinstance(answer, Answer):
        return answer
    raw = raw_of(answer)
    if answer.code != wire.SUCCESS or answer.sub_code:
        return judge_codes(operation, answer, raw)
    try:
        return Known(read(answer.record), raw)
    except MalformedError as error:
        return Unknown(f"malformed:{error}", raw=raw)


def payment_of(record: Mapping[str, Any], *, paid_at: str, merchant: str = "") -> PaymentView:
    """What a query answer or a notification says about a trade. Raises MalformedError.

    TRADE_CLOSED is said both of what was never paid and of what was paid and wholly given back; only the latter names
    the time of payment (`paid_at` is that field's name) or a sum of refunds [C].
    """
    view = PaymentView(
        wire.text_of(record, "out_trade_no", characters_max=64),
        PaymentState.UNCLEAR,
        currency=wire.currency_of(record),
        channel_reference=wire.text_of(record, "trade_no", characters_max=64),
        merchant=merchant,
    )
    status, when = wire.text_of(record, "trade_status", characters_max=32), wire.moment_of(record, paid_at)
    if status == "WAIT_BUYER_PAY":
        return replace(view, state=PaymentState.OPEN)
    amount, refunded = wire.minor_of(record, "total_amount"), wire.minor_of(record, "refund_fee", optional=True)
    if status == "TRADE_CLOSED":
        if when is None and not refunded:
            return replace(view, state=PaymentState.CLOSED)
        refunded = refunded or amount
    elif status not in {"TRADE_SUCCESS", "TRADE_FINISHED"}:
        return view
    if not amount:
        raise MalformedError("total_amount")
    return replace(view, state=PaymentState.PAID, paid_minor=amount, refunded_minor=refunded, paid_at=when)


def refund_of(record: dict[str, Any], ref: RefundRef) -> RefundView:
    """What a refund query says. Raises MalformedError.

    Without `refund_status` the refund was not received or has failed; nothing moved by then [D]. An older page took any
    data for success: an amount without a status is therefore neither.
    """
    told = {
        name: wire.text_of(record, name, optional=True) for name in ("out_request_no", "out_trade_no", "refund_status")
    }
    for name, expected in (("out_request_no", ref.refund_number), ("out_trade_no", ref.payment.number)):
        if told[name] not in {"", expected}:
            raise MalformedError(name)
    amount = wire.minor_of(record, "refund_amount", optional=True)
    if not told["refund_status"] and not amount:
        return RefundView(ref.refund_number, RefundState.NOT_FOUND)
    state = {"REFUND_SUCCESS": RefundState.DONE, "REFUND_PROCESSING": RefundState.IN_PROGRESS}.get(
        told["refund_status"]
    )
    if state is None or not amount or not told["out_request_no"]:
        raise MalformedError("refund_status")
    return RefundView(ref.refund_number, state, amount, wire.CURRENCY, payment_number=ref.payment.number)
