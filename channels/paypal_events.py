"""What PayPal says by itself: signed webhook events, and the lines of its Transaction Search.

The signature is SHA256withRSA over `transmission id|transmission time|webhook id|crc32 of the body`. Its certificate is one of
those that the shop configured, never one that a message points to.
"""

import base64
import binascii
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from payonce.channels.keys import KeyTextError, load_certificate, load_public_key, verify_rsa
from payonce.channels.messages import Notice, PaymentState, PaymentView, RefundState, RefundView, StatementLine
from payonce.channels.paypal_wire import (
    DECIMALS,
    MalformedError,
    read_amount,
    read_id,
    read_moment,
    read_object,
    read_order,
    read_records,
    read_refund,
    read_text,
)

ALGORITHM = "SHA256withRSA"
AGE_MAX = timedelta(days=4)  # 25 tries within three days, and a grace
EARLY_MAX = timedelta(minutes=10)
_SIGNED_AMOUNT = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,3})?")
# Transaction event codes: T00xx are payments received, T1107 is a refund by the merchant.
_PAYMENT_CODES = re.compile(r"T00[0-9]{2}")
_REFUND_CODE = "T1107"
_CAME_TO = {
    "payment": {"S": RefundState.DONE, "V": RefundState.DONE},  # V: done, and all of it was given back since
    "refund": {"S": RefundState.DONE, "P": RefundState.IN_PROGRESS},
}


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that PayPal signs with, as far as it is needed."""

    key: RSAPublicKey
    begins_at: datetime
    ends_at: datetime


def load_certificates(texts: Sequence[str]) -> tuple[Certificate, ...]:
    """Read certificates from PEM texts. Raises KeyTextError."""
    found: list[x509.Certificate] = [load_certificate(text) for text in texts]
    keys = [load_public_key(text) for text in texts]
    return tuple(
        Certificate(key, certificate.not_valid_before_utc, certificate.not_valid_after_utc)
        for key, certificate in zip(keys, found, strict=True)
    )


def is_certificate(value: Any) -> str:
    """An option's rule: what is wrong with a certificate, or an empty text."""
    if not isinstance(value, str) or "CERTIFICATE" not in value:
        return "must be a certificate in PEM"
    try:
        load_certificates([value])
    except KeyTextError as error:
        return str(error)
    return ""


@dataclass(frozen=True, slots=True)
class Transmission:
    """The headers of a message that its signature covers, and the signature."""

    id: str
    time: str
    signature: str

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self | None:
        """Read the headers; None where one is missing or another algorithm is named."""
        names = ("paypal-transmission-id", "paypal-transmission-time", "paypal-transmission-sig")
        values = [headers.get(name, "") for name in names]
        if headers.get("paypal-auth-algo") != ALGORITHM or not all(value and value.isascii() for value in values):
            return None
        return cls(*values)

    def signed(self, webhook_id: str, body: bytes) -> bytes:
        """The text under the signature."""
        return f"{self.id}|{self.time}|{webhook_id}|{zlib.crc32(body)}".encode()


def is_signed(
    certificates: Sequence[Certificate], transmission: Transmission, webhook_id: str, body: bytes, at: datetime
) -> bool:
    """Did the holder of one of the certificates sign this body for our webhook? An expired certificate signs nothing.

    The text under an RSA signature in base64 must be canonical: one signature has one spelling.
    """
    try:
        canonical = base64.b64encode(base64.b64decode(transmission.signature, validate=True)).decode()
    except (binascii.Error, ValueError):
        return False
    signed = transmission.signed(webhook_id, body)
    return canonical == transmission.signature and any(
        each.begins_at <= at <= each.ends_at + AGE_MAX and verify_rsa(each.key, signed, transmission.signature)
        for each in certificates
    )


def read_event(body: bytes, raw: str) -> Notice:
    """An event about an order, a capture, a refund, a reversal or a dispute; another one is a notice about neither."""
    record = read_object(body)
    key, event = read_text(record, "id"), read_text(record, "event_type")
    if len(key) > 128:
        raise MalformedError("id")
    sent_at = read_moment(record.get("create_time"))
    resource = record.get("resource")
    if not isinstance(resource, dict):
        raise MalformedError("resource")
    if event.startswith("CHECKOUT.ORDER."):
        return Notice(key, event, sent_at, payment=_order_view(resource), raw=raw)
    if event in _CAPTURE_EVENTS:
        return Notice(key, event, sent_at, payment=_capture_view(resource, _CAPTURE_EVENTS[event]), raw=raw)
    if event == "PAYMENT.CAPTURE.REFUNDED":
        return _refund_notice(key, event, sent_at, resource, raw)
    if event == "CUSTOMER.DISPUTE.CREATED":
        return Notice(key, event, sent_at, payment=_dispute_view(resource), raw=raw)
    return Notice(key, event, sent_at, raw=raw)


_CAPTURE_EVENTS = {
    "PAYMENT.CAPTURE.COMPLETED": PaymentState.PAID,
    "PAYMENT.CAPTURE.PENDING": PaymentState.IN_PROGRESS,
    "PAYMENT.CAPTURE.DECLINED": PaymentState.UNCLEAR,  # ask the order: another capture may have been made since
    "PAYMENT.CAPTURE.DENIED": PaymentState.UNCLEAR,
    "PAYMENT.CAPTURE.REVERSED": PaymentState.UNCLEAR,
}


def _order_view(order: dict[str, Any]) -> PaymentView | None:
    units = read_records(order, "purchase_units")
    number = units[0].get("custom_id") if units else None
    return read_order(order, number, "") if isinstance(number, str) and number else None


def _capture_view(capture: dict[str, Any], state: PaymentState) -> PaymentView | None:
    """What a capture says of itself; None for one that names no number, which is none of ours."""
    number = capture.get("custom_id")
    if not isinstance(number, str) or not number:
        return None
    minor, currency = read_amount(capture.get("amount"))
    payee = capture.get("payee")
    is_paid = state is PaymentState.PAID
    return PaymentView(
        number, state, currency=currency, paid_minor=minor if is_paid else 0, channel_reference=_reference_of(capture),
        merchant=read_text(payee, "merchant_id", optional=True) if isinstance(payee, dict) else "",
        paid_at=read_moment(capture.get("create_time")) if is_paid else None,
    )  # fmt: skip


def _reference_of(capture: Mapping[str, Any]) -> str:
    """The order's id. A message about a capture names it among its related ids."""
    related = capture.get("supplementary_data")
    ids = related.get("related_ids") if isinstance(related, dict) else None
    if not isinstance(ids, dict):
        raise MalformedError("related_ids")
    return read_id(ids, "order_id")


def _refund_notice(key: str, event: str, sent_at: datetime, refund: dict[str, Any], raw: str) -> Notice:
    """A refund under our number; one without was made outside payonce, and only a query tells its sum."""
    view: RefundView = read_refund(refund, "")
    return Notice(key, event, sent_at, refund=view if view.refund_number else None, raw=raw)


def _dispute_view(dispute: dict[str, Any]) -> PaymentView | None:
    transactions = read_records(dispute, "disputed_transactions")
    number = transactions[0].get("custom") if transactions else None
    if not isinstance(number, str) or not number:
        return None
    return PaymentView(number, PaymentState.UNCLEAR)


def read_statement(record: dict[str, Any]) -> tuple[list[StatementLine], int]:
    """One page of Transaction Search, and how many pages there are. Only completed payments and refunds are lines."""
    pages = record.get("total_pages")
    if not isinstance(pages, int) or isinstance(pages, bool) or not 0 <= pages <= 10_000:
        raise MalformedError("total_pages")
    lines = [_line(row.get("transaction_info")) for row in read_records(record, "transaction_details")]
    return [line for line in lines if line is not None], pages


def _line(info: Any) -> StatementLine | None:
    if not isinstance(info, dict):
        raise MalformedError("transaction_info")
    code, status = read_text(info, "transaction_event_code"), read_text(info, "transaction_status")
    kind = "refund" if code == _REFUND_CODE else "payment" if _PAYMENT_CODES.fullmatch(code) else ""
    came_to = _CAME_TO[kind].get(status) if kind else None
    if came_to is None:
        return None
    ours, invoice = (read_text(info, name) if info.get(name) else "" for name in ("custom_field", "invoice_id"))
    if not ours and _currency(info) not in DECIMALS:
        return None  # somebody else's, in a currency that none of ours can have
    minor, currency = _signed_amount(info.get("transaction_amount"))
    # A query names the order, a statement the capture: the two cannot be compared.
    reference = read_text(info, "transaction_id")
    return StatementLine(
        kind, ours, reference if kind == "refund" else "", abs(minor), currency, read_moment(info.get("transaction_initiation_date")),
        status, invoice, came_to,
    )  # fmt: skip


def _currency(info: dict[str, Any]) -> Any:
    money = info.get("transaction_amount")
    return money.get("currency_code") if isinstance(money, dict) else None


def _signed_amount(money: Any) -> tuple[int, str]:
    """An amount that may be negative: money that left the merchant."""
    value = money.get("value") if isinstance(money, dict) else None
    currency = money.get("currency_code") if isinstance(money, dict) else None
    if not isinstance(currency, str) or currency not in DECIMALS:
        raise MalformedError("currency_code")
    if not isinstance(value, str) or not _SIGNED_AMOUNT.fullmatch(value):
        raise MalformedError("value")
    minor = Decimal(value).scaleb(DECIMALS[currency])
    if minor != minor.to_integral_value():
        raise MalformedError("value")
    return int(minor), currency
