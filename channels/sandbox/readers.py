"""Between the contract's records and the sandbox's JSON, in both directions.

Reading raises MalformedError with the field.
"""

import json
from dataclasses import dataclass
from typing import Any

from payonce.channels.messages import (
    CloseAnswer,
    CloseState,
    Notice,
    PaymentState,
    PaymentView,
    Prepay,
    PrepayKind,
    PrepayRequest,
    RefundRequest,
    RefundState,
    RefundView,
    StatementLine,
)
from payonce.channels.sandbox import wire
from payonce.channels.sandbox.wire import MalformedError

_KINDS = {kind.value: kind for kind in PrepayKind}
_PAYMENT_STATES = {state.value: state for state in PaymentState}
_REFUND_STATES = {state.value: state for state in RefundState}
_LINE_KINDS = frozenset({"payment", "refund"})


@dataclass(frozen=True, slots=True)
class StatementPage:
    """Some lines of a statement, and where the next page starts, if there is one."""

    lines: tuple[StatementLine, ...]
    next_after: int | None


def code(record: dict[str, Any]) -> str:
    """The code of an answer."""
    value = wire.text(record, "code", characters_max=64)
    if not (value.isascii() and value.isprintable() and value):
        raise MalformedError("code")
    return value


def prepay_request(request: PrepayRequest) -> dict[str, Any]:
    """The body of a prepay."""
    return {
        "number": request.number,
        "amount_minor": request.amount_minor,
        "currency": request.currency,
        "subject": request.subject,
        "method": request.method,
        "client_type": request.client_type,
        "payer": request.payer,
        "payable_until": wire.format_moment(request.payable_until),
        "notify_url": request.notify_url,
        "return_url": request.return_url,
        "client_ip": request.client_ip,
    }


def refund_request(request: RefundRequest) -> dict[str, Any]:
    """The body of a refund. `reference` picks the capture where one number took money twice."""
    return {
        "refund_number": request.refund_number,
        "reference": request.payment.channel_reference,
        "amount_minor": request.amount_minor,
        "currency": request.currency,
        "reason": request.reason,
        "notify_url": request.notify_url,
    }


def prepay(record: dict[str, Any], number: str) -> Prepay:
    """What the buyer needs."""
    inner = _inner(record, "prepay")
    if wire.number(inner, "number") != number:
        raise MalformedError("number")
    kind = _KINDS.get(wire.text(inner, "kind"))
    value = wire.text(inner, "value", characters_max=8_000)
    if kind is None or not value:
        raise MalformedError("prepay")
    reference = wire.text(inner, "reference", default="", characters_max=128) or None
    return Prepay(kind, value, wire.moment(inner, "expires_at"), reference)


def payment(value: Any, number: str | None = None) -> PaymentView:
    """One payment.

    A state that is not in the closed set is UNCLEAR; another number than the one asked for is malformed.
    """
    record = _object(value, "payment")
    view = _payment(record, tuple(_payment(inner, ()) for inner in wire.records(record, "captures", count_max=100)))
    if number is not None and view.number != number:
        raise MalformedError("number")
    return view


def _payment(record: dict[str, Any], captures: tuple[PaymentView, ...]) -> PaymentView:
    state = _PAYMENT_STATES.get(wire.text(record, "state"), PaymentState.UNCLEAR)
    reference = wire.text(record, "reference", default="", characters_max=128)
    paid_minor = wire.amount(record, "paid_minor", default=0)
    currency = wire.currency(record, optional=True)
    if state is PaymentState.PAID and not (reference and paid_minor > 0 and currency):
        raise MalformedError("paid_minor")
    return PaymentView(
        number=wire.number(record, "number"),
        state=state,
        currency=currency,
        paid_minor=paid_minor,
        refunded_minor=wire.amount(record, "refunded_minor", default=0),
        disputed_minor=wire.amount(record, "disputed_minor", default=0),
        reversed_minor=wire.amount(record, "reversed_minor", default=0),
        channel_reference=reference,
        merchant=wire.text(record, "merchant", default="", characters_max=128),
        paid_at=wire.optional_moment(record, "paid_at"),
        captures=captures,
    )


def close(record: dict[str, Any], number: str, state: CloseState) -> CloseAnswer:
    """A close, with the payment where the bank tells it. ALREADY_PAID must tell it: it is evidence of money."""
    seen = None if record.get("payment") is None else payment(record["payment"], number)
    if state is CloseState.ALREADY_PAID and (seen is None or seen.state is not PaymentState.PAID):
        raise MalformedError("payment")
    if state is CloseState.CLOSED_PROVED and seen is not None and seen.state is not PaymentState.CLOSED:
        raise MalformedError("payment")
    return CloseAnswer(state, seen)


def refund(value: Any, refund_number: str | None = None) -> RefundView:
    """One refund."""
    record = _object(value, "refund")
    state = _REFUND_STATES.get(wire.text(record, "state"))
    number = wire.number(record, "refund_number")
    if state is None:
        raise MalformedError("state")
    if refund_number is not None and number != refund_number:
        raise MalformedError("refund_number")
    return RefundView(
        refund_number=number,
        state=state,
        amount_minor=wire.amount(record, "amount_minor"),
        currency=wire.currency(record, optional=True),
        channel_reference=wire.text(record, "reference", default="", characters_max=128),
        payment_number=wire.number(record, "number", optional=True),
        code=wire.text(record, "code", default="", characters_max=64),
    )


def notice(record: dict[str, Any], raw: str) -> Notice:
    """A notification whose signature was verified."""
    key = wire.text(record, "id", characters_max=128)
    if not key or not key.isascii() or not key.isprintable():
        raise MalformedError("id")
    has_payment, has_refund = record.get("payment") is not None, record.get("refund") is not None
    if has_payment and has_refund:
        raise MalformedError("refund")
    return Notice(
        dedupe_key=key,
        event=wire.text(record, "event", characters_max=64),
        sent_at=wire.moment(record, "sent_at"),
        payment=payment(record["payment"]) if has_payment else None,
        refund=refund(record["refund"]) if has_refund else None,
        raw=raw,
    )


def statement_page(record: dict[str, Any]) -> StatementPage:
    """One page of a statement."""
    lines = tuple(_line(inner) for inner in wire.records(record, "lines"))
    return StatementPage(lines, None if record.get("next_after") is None else wire.amount(record, "next_after"))


def _line(record: dict[str, Any]) -> StatementLine:
    kind = wire.text(record, "kind")
    if kind not in _LINE_KINDS:
        raise MalformedError("kind")
    return StatementLine(
        kind=kind,
        number=wire.number(record, "number", optional=True),
        channel_reference=wire.text(record, "reference", characters_max=128),
        amount_minor=wire.amount(record, "amount_minor"),
        currency=wire.currency(record),
        at=wire.optional_moment(record, "at"),
        state=wire.text(record, "state", default="", characters_max=64),
        payment_number=wire.number(record, "payment_number", optional=True),
    )


def app_parameters(url: str) -> str:
    """What an app hands to its wallet: a JSON text."""
    return json.dumps({"url": url})


def _inner(record: dict[str, Any], name: str) -> dict[str, Any]:
    return _object(record.get(name), name)


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedError(name)
    return value
