"""Strict readers of Stripe's objects: what each says in the contract's terms.

Sources: the typed objects of Stripe's own SDK 16.1 (API version 2026-10-28.endive), and the pages on Checkout, refunds and
disputes at docs.stripe.com. What is doubtful says so where it is read.
Reading raises MalformedError with the name of the field, never with its value.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from payonce.channels.messages import (
    PaymentState,
    PaymentView,
    Prepay,
    PrepayKind,
    RefundState,
    RefundView,
    StatementLine,
)
from payonce.channels.stripe.forms import HUNDREDFOLD, METHOD, NUMBER, REFUND, WEB

# Who pays, with what, and what opens the payment: none of it is evidence.
HIDDEN = frozenset(
    {"client_secret", "url", "customer", "customer_account", "customer_details", "customer_email", "billing_details",
     "receipt_email", "receipt_url", "receipt_number", "shipping", "shipping_details", "collected_information",
     "payment_method", "payment_method_details", "source", "next_action", "evidence", "success_url", "cancel_url",
     "return_url", "instructions_email"}
)  # fmt: skip

_INTENT_STATES = {
    "requires_payment_method": PaymentState.OPEN,
    "requires_confirmation": PaymentState.OPEN,
    "requires_action": PaymentState.OPEN,
    "processing": PaymentState.IN_PROGRESS,
    "requires_capture": PaymentState.IN_PROGRESS,
    "canceled": PaymentState.CLOSED,
    "succeeded": PaymentState.PAID,
}
_REFUND_STATES = {
    "pending": RefundState.IN_PROGRESS,
    "requires_action": RefundState.ATTENTION,  # the buyer must give a bank account
    "succeeded": RefundState.DONE,
    "failed": RefundState.FAILED,  # also after a success: the amount is back in the merchant's balance
    "canceled": RefundState.FAILED,
}
# An inquiry (warning_…) takes no money yet; a won or prevented dispute gives it back.
_DISPUTES_WITHOUT_MONEY = frozenset(
    {"warning_needs_response", "warning_under_review", "warning_closed", "won", "prevented"}
)
_PAYMENT_LINES = frozenset({"charge", "payment"})
_REFUND_LINES = frozenset({"refund", "payment_refund", "refund_failure"})

Record = dict[str, Any]


class MalformedError(ValueError):
    """An object is not what Stripe's description says; the text names the field."""


@dataclass(frozen=True, slots=True)
class ApiError:
    """The `error` object of a 4xx answer. `is_replayed` marks the stored answer of an earlier request with the same key."""

    status: int
    type: str
    code: str
    param: str
    message: str
    raw: str = field(repr=False)
    intent: Record | None = field(default=None, repr=False)
    is_replayed: bool = False


def read_object(body: bytes) -> Record:
    """The JSON object that these bytes hold."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedError("body") from None
    return _object(value, "body")


def read_error(status: int, record: Record, raw: str, *, is_replayed: bool) -> ApiError:
    """The error of a 4xx answer."""
    error = _object(record.get("error"), "error")
    intent, message = error.get("payment_intent"), error.get("message")
    return ApiError(
        status=status,
        type=_text(error, "type"),
        code=_text(error, "code", ""),
        param=_text(error, "param", ""),
        message=message[:500] if isinstance(message, str) else "",
        raw=raw,
        intent=intent if isinstance(intent, dict) else None,
        is_replayed=is_replayed,
    )


def from_wire(record: Record, name: str, currency: str) -> int:
    """An amount of an object, in minor units."""
    value = _integer(record, name)
    if currency not in HUNDREDFOLD:
        return value
    whole, rest = divmod(value, 100)
    if rest:
        raise MalformedError(name)
    return whole


def prepay_of_session(session: Record, number: str) -> Prepay | str:
    """What the buyer needs, or the status of a session that can no longer be paid."""
    if number_of(session) != number:
        raise MalformedError("client_reference_id")
    status = _text(session, "status")
    if status != "open":
        return status
    return Prepay(PrepayKind.REDIRECT, _text(session, "url"), moment(session, "expires_at"), identifier(session, "cs_"))


def prepay_of_intent(intent: Record, number: str, payable_until: datetime) -> Prepay | str:
    """The same for a PaymentIntent, which has no expiry of its own."""
    if number_of(intent) != number:
        raise MalformedError("metadata")
    status = _text(intent, "status")
    if _INTENT_STATES.get(status) is not PaymentState.OPEN:
        return status
    return Prepay(PrepayKind.CLIENT_SECRET, _text(intent, "client_secret"), payable_until, identifier(intent, "pi_"))


def number_of(record: Record) -> str:
    """Our number, as the object states it; empty where it states none or two."""
    stated = {name for name in (record.get("client_reference_id"), metadata(record).get(NUMBER)) if name}
    found = stated.pop() if len(stated) == 1 else ""
    return found if _is_clean(found) else ""


def metadata(record: Record) -> Mapping[str, str]:
    """The object's metadata; texts only."""
    found = record.get("metadata")
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def payment_of_session(session: Record) -> PaymentView:
    """What a Checkout Session says. The money is the PaymentIntent's, where the session holds it."""
    number, status = number_of(session), _text(session, "status")
    intent = session.get("payment_intent")
    inner = intent if isinstance(intent, dict) else {}
    under_way = _INTENT_STATES.get(_text(inner, "status", ""), PaymentState.UNCLEAR)
    if under_way is PaymentState.PAID:
        return _paid(inner, number, "amount_received")
    if under_way is PaymentState.IN_PROGRESS:
        return PaymentView(number, PaymentState.IN_PROGRESS)
    if status == "complete" and _text(session, "payment_status") == "paid":
        if inner:
            raise MalformedError("payment_intent")
        return _paid(session, number, "amount_total")
    if status == "complete" and session["payment_status"] == "unpaid":
        # A delayed method, such as a bank debit. Once it failed, the page is used up and the intent waits for nobody.
        is_over = _text(inner, "status", "") in {"requires_payment_method", "canceled"}
        return PaymentView(number, PaymentState.CLOSED if is_over else PaymentState.IN_PROGRESS)
    states = {"open": PaymentState.OPEN, "expired": PaymentState.CLOSED}
    return PaymentView(number, states.get(status, PaymentState.UNCLEAR))


def payment_of_intent(intent: Record) -> PaymentView:
    """What a PaymentIntent says. One that Checkout made proves nothing by being cancelled: its session decides."""
    number = number_of(intent)
    state = _INTENT_STATES.get(_text(intent, "status"), PaymentState.UNCLEAR)
    if state is PaymentState.PAID:
        return _paid(intent, number, "amount_received")
    if state is PaymentState.CLOSED and is_from_checkout(intent):
        state = PaymentState.UNCLEAR
    return PaymentView(number, state)


def is_from_checkout(intent: Record) -> bool:
    """Did one of our Checkout Sessions make this PaymentIntent?"""
    return metadata(intent).get(METHOD) == WEB


def payment_of_charge(charge: Record) -> PaymentView:
    """What a charge that was taken says, with what was given back of it."""
    if charge.get("captured") is not True or charge.get("paid") is not True:
        return PaymentView(number_of(charge), PaymentState.UNCLEAR)
    currency = _currency(charge)
    return PaymentView(
        number=number_of(charge),
        state=PaymentState.PAID,
        currency=currency,
        paid_minor=_positive(from_wire(charge, "amount_captured", currency), "amount_captured"),
        refunded_minor=from_wire(charge, "amount_refunded", currency),
        channel_reference=identifier({"id": charge.get("payment_intent")}, "pi_"),
        paid_at=moment(charge, "created"),
    )


def _paid(record: Record, number: str, amount: str) -> PaymentView:
    currency = _currency(record)
    intent = record.get("payment_intent") if amount == "amount_total" else record.get("id")
    charge = record.get("latest_charge")
    inner = charge if isinstance(charge, dict) else {}
    return PaymentView(
        number=number,
        state=PaymentState.PAID,
        currency=currency,
        paid_minor=_positive(from_wire(record, amount, currency), amount),
        refunded_minor=from_wire(inner, "amount_refunded", currency) if inner else 0,
        channel_reference=identifier({"id": intent}, "pi_"),
        paid_at=moment(inner, "created") if inner else None,
    )


def is_disputed(record: Record) -> bool:
    """Does the charge in this session or intent say that it was disputed? The amount must be asked for."""
    intent = record.get("payment_intent")
    charge = (intent if isinstance(intent, dict) else record).get("latest_charge")
    return isinstance(charge, dict) and charge.get("disputed") is True


def disputed_minor(disputes: list[Record], view: PaymentView) -> int:
    """What disputes hold or took. One in another currency, or larger by its rate, counts as the whole payment."""
    total = 0
    for dispute in disputes:
        if _text(dispute, "status") in _DISPUTES_WITHOUT_MONEY:
            continue
        same = _currency(dispute) == view.currency
        total += from_wire(dispute, "amount", view.currency) if same else view.paid_minor
    return min(total, view.paid_minor)


def refund_of(record: Record) -> RefundView:
    """What a refund object says."""
    state = _REFUND_STATES.get(_text(record, "status"))
    if state is None:
        raise MalformedError("status")
    currency, stated = _currency(record), metadata(record)
    number, payment_number = stated.get(REFUND, ""), stated.get(NUMBER, "")
    return RefundView(
        refund_number=number if _is_clean(number) else "",
        state=state,
        amount_minor=from_wire(record, "amount", currency),
        currency=currency,
        channel_reference=identifier(record, "re_", "pyr_"),
        payment_number=payment_number if _is_clean(payment_number) else "",
        code=_text(record, "failure_reason", "")[:64],
    )


def statement_line(record: Record) -> StatementLine | None:
    """A balance transaction of a payment or refund; None for fees, payouts and whatever else moves a balance.

    Amounts are those of the payment, in its own currency: the transaction itself may be in that of the payouts.
    """
    kind, source = _text(record, "type"), record.get("source")
    if kind not in _PAYMENT_LINES | _REFUND_LINES:
        return None
    is_refund = isinstance(source, dict) and source.get("object") == "refund"
    if source is None or (kind == "refund_failure" and not is_refund):
        return None  # of nothing that can be looked up
    inner = _object(source, "source")
    currency, stated = _currency(inner), metadata(inner)
    if kind in _REFUND_LINES:
        return StatementLine(
            "refund", _clean(stated.get(REFUND, "")), identifier(inner, "re_", "pyr_"),
            from_wire(inner, "amount", currency), currency, moment(record, "created"), _text(inner, "status", ""),
            _clean(stated.get(NUMBER, "")), _came_to(kind, inner),
            _text(inner, "payment_intent", ""),
        )  # fmt: skip
    intent = inner.get("payment_intent")
    reference = identifier({"id": intent}, "pi_") if intent is not None else identifier(inner, "ch_", "py_")
    return StatementLine(
        "payment", _clean(stated.get(NUMBER, "")), reference, from_wire(inner, "amount_captured", currency), currency,
        moment(record, "created"), _text(inner, "status"),
    )  # fmt: skip


def _came_to(kind: str, refund: Record) -> RefundState:
    """What a refund came to: one that failed later gives its money back in a transaction of its own."""
    if kind == "refund_failure":
        return RefundState.FAILED
    return _REFUND_STATES.get(_text(refund, "status", ""), RefundState.IN_PROGRESS)


def page(record: Record) -> tuple[list[Record], bool]:
    """The objects of a list's page, and whether there is another page."""
    data, more = record.get("data"), record.get("has_more")
    if record.get("object") != "list" or not isinstance(data, list) or not isinstance(more, bool):
        raise MalformedError("data")
    if not all(isinstance(item, dict) for item in data) or (more and not data):
        raise MalformedError("data")
    return data, more


def identifier(record: Record, *prefixes: str) -> str:
    """The object's id, of one of these kinds."""
    value = record.get("id")
    if not isinstance(value, str) or not value.isascii() or len(value) > 128:
        raise MalformedError("id")
    if not value.startswith(prefixes) or not value.replace("_", "").isalnum():
        raise MalformedError("id")
    return value


def moment(record: Record, name: str) -> datetime:
    """Unix seconds as an aware time."""
    try:
        return datetime.fromtimestamp(_integer(record, name), UTC)
    except (ValueError, OverflowError, OSError):
        raise MalformedError(name) from None


def _integer(record: Record, name: str) -> int:
    value = record.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 10**15:
        raise MalformedError(name)
    return value


def _positive(amount: int, name: str) -> int:
    if amount <= 0:
        raise MalformedError(name)
    return amount


def _currency(record: Record) -> str:
    value = _text(record, "currency").upper()
    if len(value) != 3 or not (value.isascii() and value.isalpha()):
        raise MalformedError("currency")
    return value


def _text(record: Record, name: str, default: str | None = None) -> str:
    value = record.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or len(value) > 8_000 or not value.isprintable() or (default is None and not value):
        raise MalformedError(name)
    return value


def _object(value: Any, name: str) -> Record:
    if not isinstance(value, dict):
        raise MalformedError(name)
    return value


def _clean(number: str) -> str:
    return number if _is_clean(number) else ""


def _is_clean(number: Any) -> bool:
    """Could it be a number of ours: ASCII letters, digits and underscores?"""
    return isinstance(number, str) and len(number) <= 64 and number.isascii() and number.replace("_", "0").isalnum()
