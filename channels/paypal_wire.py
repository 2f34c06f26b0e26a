"""PayPal's JSON: what is written and read, and its codes. No network here.

Reading raises MalformedError or KeyError with the field. Amounts are decimal texts with the currency's own number of
decimals, and become integer minor units without a float in between.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from payonce.channels.messages import (
    Capabilities,
    PaymentState,
    PaymentView,
    Prepay,
    PrepayKind,
    PrepayRequest,
    RefundRequest,
    RefundState,
    RefundView,
    RefusedKind,
)

# PayPal's page on currency codes; CNY is for accounts in China only. HUF and TWD are left out: PayPal takes them without
# the decimals that ISO 4217 gives them.
DECIMALS = dict.fromkeys(
    ("AUD", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "ILS", "MXN", "NOK", "NZD", "PHP", "PLN", "SEK", "SGD", "THB", "USD"), 2
) | {"JPY": 0}  # fmt: skip
CURRENCIES = tuple(DECIMALS)
_AMOUNT = re.compile(r"[0-9]{1,15}(\.[0-9]{1,3})?")
_ID = re.compile(r"[A-Z0-9]{1,20}")

# A code that an operation does not list is unknown. Codes: the operations' error descriptions in Orders 2.13 and Payments 2.5.
IN_PROGRESS = frozenset({"PREVIOUS_REQUEST_IN_PROGRESS", "INTERNAL_SERVER_ERROR", "INTERNAL_SERVICE_ERROR"})
KIND_OF_STATUS = {
    400: RefusedKind.CONFIG,
    401: RefusedKind.CONFIG,
    403: RefusedKind.CONFIG,
    429: RefusedKind.THROTTLED,
}
_NOT_FOUND = frozenset({"RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID"})
REFUSALS: dict[str, dict[str, RefusedKind]] = {
    "prepay": {
        "DUPLICATE_INVOICE_ID": RefusedKind.CONFLICT,
        "CURRENCY_NOT_SUPPORTED": RefusedKind.CONFIG,
        "INVALID_CURRENCY_CODE": RefusedKind.CONFIG,
        "PAYEE_ACCOUNT_INVALID": RefusedKind.CONFIG,
        "PAYEE_ACCOUNT_RESTRICTED": RefusedKind.CONFIG,
        "MAX_VALUE_EXCEEDED": RefusedKind.DECLINED,
        "TRANSACTION_REFUSED": RefusedKind.DECLINED,
        "COMPLIANCE_VIOLATION": RefusedKind.DECLINED,
    },
    "query": {},
    "capture": {
        "ORDER_ALREADY_CAPTURED": RefusedKind.CONFLICT,
        "ORDER_ALREADY_COMPLETED": RefusedKind.CONFLICT,
        "ORDER_NOT_APPROVED": RefusedKind.CONFLICT,
        "DUPLICATE_INVOICE_ID": RefusedKind.CONFLICT,
        "PAYER_ACTION_REQUIRED": RefusedKind.CONFLICT,
        "RESOURCE_NOT_FOUND": RefusedKind.CONFLICT,
        "INVALID_RESOURCE_ID": RefusedKind.CONFLICT,
        "INSTRUMENT_DECLINED": RefusedKind.DECLINED,
        "PAYER_CANNOT_PAY": RefusedKind.DECLINED,
        "PAYER_ACCOUNT_RESTRICTED": RefusedKind.DECLINED,
        "PAYER_ACCOUNT_LOCKED_OR_CLOSED": RefusedKind.DECLINED,
        "TRANSACTION_REFUSED": RefusedKind.DECLINED,
        "TRANSACTION_LIMIT_EXCEEDED": RefusedKind.DECLINED,
        "MAX_NUMBER_OF_PAYMENT_ATTEMPTS_EXCEEDED": RefusedKind.DECLINED,
        "COMPLIANCE_VIOLATION": RefusedKind.DECLINED,
        "AUTH_CAPTURE_NOT_ENABLED": RefusedKind.CONFIG,
    },
    "refund": {
        "CAPTURE_FULLY_REFUNDED": RefusedKind.CONFLICT,
        "REFUND_AMOUNT_EXCEEDED": RefusedKind.CONFLICT,
        "DUPLICATE_INVOICE_ID": RefusedKind.CONFLICT,
        "RESOURCE_NOT_FOUND": RefusedKind.CONFLICT,
        "PENDING_CAPTURE": RefusedKind.THROTTLED,
        "MAX_NUMBER_OF_REFUNDS_EXCEEDED": RefusedKind.DECLINED,
        "REFUND_TIME_LIMIT_EXCEEDED": RefusedKind.DECLINED,
        "REFUND_NOT_ALLOWED": RefusedKind.DECLINED,
        "REFUND_FAILED_INSUFFICIENT_FUNDS": RefusedKind.DECLINED,
        "REFUND_CAPTURE_CURRENCY_MISMATCH": RefusedKind.CONFIG,
        "PARTIAL_REFUND_NOT_ALLOWED": RefusedKind.DECLINED,
    },
    "statement": {"INVALID_REQUEST": RefusedKind.CONFIG, "RESULTSET_TOO_LARGE": RefusedKind.CONFIG},
}
_STATE_OF_ORDER = {
    "CREATED": PaymentState.OPEN,
    "SAVED": PaymentState.OPEN,
    "PAYER_ACTION_REQUIRED": PaymentState.OPEN,
    "APPROVED": PaymentState.APPROVED,
    "VOIDED": PaymentState.CLOSED,
}
_STATE_OF_CAPTURE = {
    "COMPLETED": PaymentState.PAID,
    "PARTIALLY_REFUNDED": PaymentState.PAID,
    "REFUNDED": PaymentState.PAID,
    "PENDING": PaymentState.IN_PROGRESS,
    "DECLINED": PaymentState.CLOSED,
}
_STATE_OF_REFUND = {
    "COMPLETED": RefundState.DONE,
    "PENDING": RefundState.IN_PROGRESS,
    "CANCELLED": RefundState.FAILED,
    "FAILED": RefundState.FAILED,
}


class MalformedError(ValueError):
    """A field is missing or is not what it must be; the text is its name."""


class ConflictError(ValueError):
    """The number stands for something else already; the text is the code."""


# --- amounts, times, ids ---


def write_amount(amount_minor: int, currency: str) -> dict[str, str]:
    """Minor units as PayPal's money."""
    return {"currency_code": currency, "value": str(Decimal(amount_minor).scaleb(-DECIMALS[currency]))}


def read_amount(money: Any) -> tuple[int, str]:
    """PayPal's money as minor units and currency."""
    if not isinstance(money, dict):
        raise MalformedError("amount")
    currency, value = money.get("currency_code"), money.get("value")
    if not isinstance(currency, str) or currency not in DECIMALS:
        raise MalformedError("currency_code")
    if not isinstance(value, str) or not _AMOUNT.fullmatch(value):
        raise MalformedError("value")
    minor = Decimal(value).scaleb(DECIMALS[currency])
    if minor != minor.to_integral_value():
        raise MalformedError("value")
    return int(minor), currency


def write_moment(at: datetime) -> str:
    """A time as PayPal writes it: UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_moment(text: Any) -> datetime:
    """An Internet date and time with its offset."""
    if not isinstance(text, str) or not text.isascii():
        raise MalformedError("time")
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise MalformedError("time") from None
    if at.tzinfo is None:
        raise MalformedError("time")
    return at


def split(reference: str) -> tuple[str, str]:
    """Order id and capture id of a channel reference. The first capture of an order is named by the order alone."""
    order_id, _, capture_id = reference.partition("/")
    return order_id, capture_id


def read_object(body: bytes) -> dict[str, Any]:
    """A JSON object."""
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedError("json") from None
    if not isinstance(record, dict):
        raise MalformedError("json")
    return record


def read_text(record: Mapping[str, Any], name: str, *, optional: bool = False) -> str:
    value = record.get(name)
    if value is None and optional:
        return ""
    if not isinstance(value, str) or not value or len(value) > 255 or not value.isprintable():
        raise MalformedError(name)
    return value


def read_id(record: Mapping[str, Any], name: str = "id") -> str:
    value = read_text(record, name)
    if not _ID.fullmatch(value):
        raise MalformedError(name)
    return value


def read_records(record: Any, name: str) -> list[dict[str, Any]]:
    """A list of objects; a missing one is empty."""
    values = record.get(name) if isinstance(record, dict) else None
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise MalformedError(name)
    return values


def _unit(order: Mapping[str, Any]) -> dict[str, Any]:
    """The one purchase unit of an order of ours."""
    units = read_records(order, "purchase_units")
    if len(units) != 1:
        raise MalformedError("purchase_units")
    return units[0]


# --- errors ---


def error_code(record: Mapping[str, Any]) -> str:
    """The issue of an error, or its name; empty where there is none."""
    details = record.get("details")
    first = details[0] if isinstance(details, list) and details and isinstance(details[0], dict) else {}
    for value in (first.get("issue"), record.get("name"), record.get("error")):
        if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_]{1,64}", value):
            return value
    return ""


def error_text(record: Mapping[str, Any]) -> str:
    """What PayPal says for people, shortened, with the id that its support asks for."""
    said = [str(record.get(name, "")) for name in ("message", "debug_id")]
    return " ".join(text for text in said if text)[:300]


def is_not_found(code: str) -> bool:
    """Does PayPal say that it does not know the id?"""
    return code in _NOT_FOUND


def read_token(record: Mapping[str, Any]) -> tuple[str, float]:
    """An access token and its life in seconds."""
    value, seconds = record["access_token"], record["expires_in"]
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise MalformedError("access_token")
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 0 < seconds < 10**7:
        raise MalformedError("expires_in")
    return value, float(seconds)


# --- orders ---


def order_body(request: PrepayRequest, merchant: str, brand_name: str) -> dict[str, Any]:
    """What an order is created from. `invoice_id` is a second guard: an account may refuse one that was paid before."""
    experience = {
        "return_url": request.return_url, "cancel_url": request.return_url, "user_action": "PAY_NOW",
        "shipping_preference": "NO_SHIPPING", **({"brand_name": brand_name[:127]} if brand_name else {}),
    }  # fmt: skip
    unit = {
        "custom_id": request.number, "invoice_id": request.number, "description": request.subject[:127] or request.number,
        "amount": write_amount(request.amount_minor, request.currency), "payee": {"merchant_id": merchant},
    }  # fmt: skip
    return {
        "intent": "CAPTURE",
        "purchase_units": [unit],
        "payment_source": {"paypal": {"experience_context": experience}},
    }


def read_prepay(order: dict[str, Any], request: PrepayRequest, capabilities: Capabilities) -> Prepay:
    """The address at which the buyer approves. Raises ConflictError where the number stands for something else."""
    unit = _unit(order)
    amount = read_amount(unit.get("amount"))
    if unit.get("custom_id") != request.number or amount != (request.amount_minor, request.currency):
        raise ConflictError("other_parameters")
    status = read_text(order, "status")
    if _STATE_OF_ORDER.get(status) is not PaymentState.OPEN:
        raise ConflictError(f"order_{status.lower()}")
    links = {link.get("rel"): link.get("href") for link in read_records(order, "links")}
    url = links.get("payer-action") or links.get("approve")
    if not isinstance(url, str) or not url.startswith(("https://", "http://127.0.0.1")) or not url.isascii():
        raise MalformedError("links")
    lifetime = timedelta(seconds=capabilities.methods[request.method].lifetime_seconds)
    expires_at = min(request.payable_until, read_moment(order.get("create_time")) + lifetime)
    return Prepay(PrepayKind.REDIRECT, url, expires_at, read_id(order))


def read_order(order: dict[str, Any], number: str, capture_id: str) -> PaymentView:
    """What an order says about its money. `capture_id` picks one capture; without it the first is the stream's own."""
    unit = _unit(order)
    if unit.get("custom_id") != number:
        raise MalformedError("custom_id")
    order_id = read_id(order)
    payments = unit.get("payments") or {}
    captures = read_records(payments, "captures")
    if not captures:
        status = read_text(order, "status")
        return PaymentView(number, _STATE_OF_ORDER.get(status, PaymentState.UNCLEAR), channel_reference=order_id)
    views = [
        _capture_view(capture, unit, order_id, number, is_first=not place) for place, capture in enumerate(captures)
    ]
    if not capture_id:
        others = tuple(view for view in views[1:] if view.state is PaymentState.PAID)
        return replace(views[0], captures=others)
    found = next((view for view in views if view.channel_reference == f"{order_id}/{capture_id}"), None)
    return found or PaymentView(number, PaymentState.NOT_FOUND)


def _capture_view(
    capture: dict[str, Any], unit: dict[str, Any], order_id: str, number: str, *, is_first: bool
) -> PaymentView:
    state = _STATE_OF_CAPTURE.get(read_text(capture, "status"), PaymentState.UNCLEAR)
    minor, currency = read_amount(capture.get("amount"))
    is_paid = state is PaymentState.PAID
    payee = unit.get("payee")
    merchant = read_text(payee, "merchant_id", optional=True) if isinstance(payee, dict) else ""
    return PaymentView(
        number, state, currency=currency, paid_minor=minor if is_paid else 0,
        refunded_minor=_refunded_minor(unit, read_id(capture)) if is_paid else 0,
        channel_reference=order_id if is_first else f"{order_id}/{read_id(capture)}", merchant=merchant,
        paid_at=read_moment(capture.get("create_time")) if is_paid else None,
    )  # fmt: skip


def _refunded_minor(unit: dict[str, Any], capture_id: str) -> int:
    done = [refund for refund in read_records(unit.get("payments"), "refunds") if refund.get("status") == "COMPLETED"]
    return sum(read_amount(refund.get("amount"))[0] for refund in done if parent_of(refund) in ("", capture_id))


def parent_of(refund: Mapping[str, Any]) -> str:
    """The capture that a refund belongs to, by its `up` link; empty where there is none."""
    for link in read_records(refund, "links"):
        if link.get("rel") == "up" and isinstance(link.get("href"), str):
            return str(link["href"]).rstrip("/").rpartition("/")[2]
    return ""


def decline_of(order: dict[str, Any]) -> str:
    """The code of a capture that was answered and declined; empty where it was not."""
    units = order.get("purchase_units")
    unit = units[0] if isinstance(units, list) and units and isinstance(units[0], dict) else {}
    payments = unit.get("payments")
    captures = payments.get("captures") if isinstance(payments, dict) else None
    first = captures[0] if isinstance(captures, list) and captures and isinstance(captures[0], dict) else {}
    return "CAPTURE_DECLINED" if first.get("status") == "DECLINED" else ""


def capture_id_of(order: dict[str, Any], capture_id: str) -> str:
    """The id of the order's first capture that took money, or of the one named; empty where there is none."""
    captures = read_records(_unit(order).get("payments"), "captures")
    paid = [
        read_id(capture)
        for capture in captures
        if _STATE_OF_CAPTURE.get(str(capture.get("status"))) is PaymentState.PAID
    ]
    return next((found for found in paid if capture_id in ("", found)), "")


# --- refunds ---


def refund_body(request: RefundRequest) -> dict[str, Any]:
    """Our refund number goes into `custom_id`, which the order shows beside each refund and reports repeat."""
    return {"amount": write_amount(request.amount_minor, request.currency), "custom_id": request.refund_number}


def read_refund(refund: dict[str, Any], payment_number: str) -> RefundView:
    """One refund."""
    minor, currency = read_amount(refund.get("amount"))
    status = read_text(refund, "status")
    if status not in _STATE_OF_REFUND:
        raise MalformedError("status")
    number = read_text(refund, "custom_id", optional=True)
    return RefundView(number, _STATE_OF_REFUND[status], minor, currency, read_id(refund), payment_number, status)


def is_refund_of(view: RefundView, request: RefundRequest) -> bool:
    """Is this what was asked for under the number?"""
    asked = (request.refund_number, request.amount_minor, request.currency)
    return (view.refund_number, view.amount_minor, view.currency) == asked


def find_refund(order: dict[str, Any], refund_number: str, payment_number: str) -> RefundView | None:
    """The refund of this number among those that an order shows."""
    for refund in read_records(_unit(order).get("payments"), "refunds"):
        if refund.get("custom_id") == refund_number:
            return read_refund(refund, payment_number)
    return None
