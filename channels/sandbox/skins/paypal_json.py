"""The records of PayPal's wire format, between the bank's rows and JSON."""

import hashlib
import json
import secrets
import sqlite3
import string
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from payonce.channels.keys import load_private_key, sign_rsa
from payonce.channels.paypal_events import ALGORITHM
from payonce.channels.paypal_wire import DECIMALS, MalformedError, read_amount, read_records, read_text, write_amount
from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.faults import Disturbance
from payonce.channels.sandbox.ledger import Order
from payonce.channels.sandbox.outbox import Notification
from payonce.channels.sandbox.records import Capture, Payment, Refund, refunds_of
from payonce.channels.sandbox.refunds import RefundOrder
from payonce.channels.sandbox.sender import Style
from payonce.channels.sandbox.skins.base import Rendered

_ALPHABET = string.digits + string.ascii_uppercase
MERCHANT_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
_PAYABLE_FOR_EVER = 253_370_764_800.0  # PayPal knows no moment of ours after which an order may not be paid
_STATUS_OF_PAYMENT = {"OPEN": "PAYER_ACTION_REQUIRED", "IN_PROGRESS": "PAYER_ACTION_REQUIRED", "APPROVED": "APPROVED",
                      "PAID": "COMPLETED", "CLOSED": "VOIDED"}  # fmt: skip
_STATUS_OF_REFUND = {"IN_PROGRESS": "PENDING", "DONE": "COMPLETED", "FAILED": "FAILED", "ATTENTION": "PENDING",
                     "RETURNED": "CANCELLED"}  # fmt: skip
EVENTS = {
    "payment.approved": ("CHECKOUT.ORDER.APPROVED", "checkout-order"),
    "payment.paid": ("PAYMENT.CAPTURE.COMPLETED", "capture"),
    "payment.refunded": ("PAYMENT.CAPTURE.REFUNDED", "refund"),
    "payment.reversal": ("PAYMENT.CAPTURE.REVERSED", "capture"),
    "payment.dispute": ("CUSTOMER.DISPUTE.CREATED", "dispute"),
    "refund.done": ("PAYMENT.CAPTURE.REFUNDED", "refund"),
}
_FIELDS_OF_ORDER = {
    "intent",
    "purchase_units",
    "payment_source",
    "payer",
    "application_context",
    "processing_instruction",
}
_FIELDS_OF_UNIT = {"reference_id", "custom_id", "invoice_id", "description", "amount", "payee", "items", "shipping",
                   "soft_descriptor", "payment_instruction", "supplementary_data"}  # fmt: skip


def error(name: str, issue: str = "", field: str = "") -> dict[str, Any]:
    """An error in PayPal's shape."""
    record: dict[str, Any] = {
        "name": name,
        "message": name.replace("_", " ").capitalize(),
        "debug_id": secrets.token_hex(6),
    }
    if issue:
        detail = {"issue": issue, "description": issue.replace("_", " ").capitalize()}
        record["details"] = [detail | ({"field": field} if field else {})]
    return record


# --- ids ---


def new_id(length: int, alphabet: str = _ALPHABET) -> str:
    """A fresh id of capital letters and digits."""
    return "".join(secrets.choice(alphabet) for _ in range(length))


def order_id(account: SandboxAccount, number: str) -> str:
    """The order's id: 17 characters that only the account's own keys lead to."""
    digest = hashlib.sha256(f"{account.keys['client_secret']}|{number}".encode()).digest()
    return _base36(int.from_bytes(digest[:11]), 17)


def part_id(reference: str) -> str:
    """The id of a capture or refund: the bank's own reference in 19 capital letters and digits."""
    return _base36(int(reference.partition("_")[2], 16), 19)


def reference_of(prefix: str, shown: str) -> str:
    """The bank's reference behind an id; one that cannot exist for an id that is none."""
    if not 0 < len(shown) <= 20 or any(letter not in _ALPHABET for letter in shown):
        return ""
    return f"{prefix}{int(shown, 36):024x}"


def _base36(value: int, length: int) -> str:
    letters = ""
    for _ in range(length):
        value, place = divmod(value, 36)
        letters = _ALPHABET[place] + letters
    return letters


def number_of(database: sqlite3.Connection, account: str, reference: str) -> str:
    """The number under which a capture or refund of this reference was made; a number that nobody uses where there is none."""
    for table, key in (("capture", "payment_id"), ("refund", "payment_id")):
        query = (
            f"SELECT payment.number FROM {table} JOIN payment ON payment.id = {table}.{key}"  # noqa: S608 - two constants
            f" WHERE {table}.reference = ? AND payment.account = ?"
        )
        row = database.execute(query, (reference, account)).fetchone()
        if row is not None:
            return str(row["number"])
    return ""


# --- requests ---


def read_order(record: dict[str, Any], account: SandboxAccount) -> tuple[Order, dict[str, Any]]:
    """An order to create, and its purchase unit as it is shown again."""
    if unknown := set(record) - _FIELDS_OF_ORDER:
        raise MalformedError(min(unknown))
    if record.get("intent") != "CAPTURE":
        raise MalformedError("intent")
    units = read_records(record, "purchase_units")
    if len(units) != 1 or set(units[0]) - _FIELDS_OF_UNIT:
        raise MalformedError("purchase_units")
    unit = units[0]
    minor, currency = read_amount(unit.get("amount"))
    payee = unit.get("payee")
    if isinstance(payee, dict) and payee.get("merchant_id", account.merchant) != account.merchant:
        raise MalformedError("payee")
    source = record.get("payment_source")
    wallet = source.get("paypal") if isinstance(source, dict) else None
    experience = wallet.get("experience_context", {}) if isinstance(wallet, dict) else {}
    number = read_text(unit, "custom_id", optional=True) or new_id(17)
    order = Order(
        number=number, amount_minor=minor, currency=currency, subject=read_text(unit, "description", optional=True),
        method="web", client_type="", payer="", payable_until=_PAYABLE_FOR_EVER, notify_url="",
        return_url=read_text(experience, "return_url", optional=True),
    )  # fmt: skip
    shown: dict[str, Any] = {name: unit[name] for name in ("custom_id", "invoice_id", "description") if name in unit}
    return order, {"reference_id": unit.get("reference_id", "default"), **shown}


def read_refund_order(record: dict[str, Any], payment: Payment, reference: str) -> RefundOrder:
    """A refund to make; without an amount all that is left."""
    taken = next((row for row in payment.captures if row.reference == reference), None)
    minor, currency = (taken.rest_minor if taken else 0), payment.currency
    if record.get("amount") is not None:
        minor, currency = read_amount(record["amount"])
    if minor <= 0:
        raise MalformedError("amount")
    number = read_text(record, "custom_id", optional=True) or new_id(17)
    return RefundOrder(number, reference, minor, currency, payment.notify_url)


def read_number(query: Mapping[str, str], name: str, default: int, most: int = 1_000_000) -> int:
    """A whole number of a query."""
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
        raise MalformedError(name)
    return int(text)


# --- answers ---


def order(
    account: SandboxAccount, payment: Payment, unit: dict[str, Any], refunds: dict[int, list[Refund]]
) -> dict[str, Any]:
    """The order as it is now."""
    shown_id, base = order_id(account, payment.number), account.base_url
    captures = [_capture(account, payment, taken, refunds.get(taken.id, [])) for taken in payment.captures]
    shown = {
        **unit, "amount": write_amount(payment.amount_minor, payment.currency),
        "payee": {"merchant_id": account.merchant, "email_address": "merchant@example.com"},
    }  # fmt: skip
    if captures:
        made = [refund(account, payment, row) for taken in payment.captures for row in refunds.get(taken.id, [])]
        shown["payments"] = {"captures": captures, **({"refunds": made} if made else {})}
    status = _STATUS_OF_PAYMENT[payment.state]
    links = [{"href": f"{base}/v2/checkout/orders/{shown_id}", "rel": "self", "method": "GET"}]
    if status == "PAYER_ACTION_REQUIRED":
        links.append({"href": f"{base}/checkoutnow?token={shown_id}", "rel": "payer-action", "method": "GET"})
    if status == "APPROVED":
        links.append({"href": f"{base}/v2/checkout/orders/{shown_id}/capture", "rel": "capture", "method": "POST"})
    return {
        "id": shown_id, "intent": "CAPTURE", "status": status, "create_time": moment(payment.created_at),
        "payment_source": {"paypal": {}}, "purchase_units": [shown], "links": links,
    }  # fmt: skip


def _capture(account: SandboxAccount, payment: Payment, taken: Capture, refunds: list[Refund]) -> dict[str, Any]:
    refunded = sum(row.amount_minor for row in refunds if row.state == "DONE")
    status = "COMPLETED" if not refunded else "REFUNDED" if refunded >= taken.amount_minor else "PARTIALLY_REFUNDED"
    return capture_record(
        account, payment.number, taken.reference, taken.amount_minor, taken.currency, taken.paid_at, status
    )


def capture_record(
    account: SandboxAccount, number: str, reference: str, amount_minor: int, currency: str, paid_at: float, status: str
) -> dict[str, Any]:
    """A capture as the order and the events show it."""
    shown, base = part_id(reference), account.base_url
    return {
        "id": shown, "status": status, "amount": write_amount(amount_minor, currency), "final_capture": True,
        "custom_id": number, "invoice_id": number, "create_time": moment(paid_at), "update_time": moment(paid_at),
        "links": [
            {"href": f"{base}/v2/payments/captures/{shown}", "rel": "self", "method": "GET"},
            {"href": f"{base}/v2/payments/captures/{shown}/refund", "rel": "refund", "method": "POST"},
            {"href": f"{base}/v2/checkout/orders/{order_id(account, number)}", "rel": "up", "method": "GET"},
        ],
    }  # fmt: skip


def refund(account: SandboxAccount, payment: Payment, row: Refund) -> dict[str, Any]:
    """A refund. One that was made in the merchant's own console has no number of ours."""
    taken = next(each for each in payment.captures if each.id == row.capture_id)
    shown, base = part_id(row.reference), account.base_url
    return {
        "id": shown, "status": _STATUS_OF_REFUND[row.state], "amount": write_amount(row.amount_minor, row.currency),
        **({} if row.outside else {"custom_id": row.number}), "create_time": moment(row.created_at),
        "links": [
            {"href": f"{base}/v2/payments/refunds/{shown}", "rel": "self", "method": "GET"},
            {"href": f"{base}/v2/payments/captures/{part_id(taken.reference)}", "rel": "up", "method": "GET"},
        ],
    }  # fmt: skip


def refunds_by_capture(database: sqlite3.Connection, payment: Payment) -> dict[int, list[Refund]]:
    """The refunds of each capture of a payment."""
    return {taken.id: refunds_of(database, taken.id) for taken in payment.captures}


def moment(at: float) -> str:
    """A time as PayPal writes it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- Transaction Search ---


def transactions(database: sqlite3.Connection, account: str, start: float, end: float) -> list[dict[str, Any]]:
    """The captures and refunds of a span, oldest first, from the journal."""
    rows = database.execute(
        "SELECT * FROM journal WHERE account = ? AND at >= ? AND at < ? AND kind IN ('capture', 'refund') ORDER BY id",
        (account, start, end + 1),
    )
    return [_transaction(row) for row in rows]


def _transaction(row: sqlite3.Row) -> dict[str, Any]:
    is_refund = row["kind"] == "refund"
    value = Decimal(row["amount_minor"]).scaleb(-DECIMALS[row["currency"]])
    return {
        "transaction_id": part_id(row["reference"]), "transaction_event_code": "T1107" if is_refund else "T0006",
        "transaction_status": "S", "transaction_initiation_date": moment(row["at"]), "invoice_id": row["number"],
        "transaction_amount": {"currency_code": row["currency"], "value": str(value)},
        "custom_field": row["refund_number"] if is_refund else row["number"],
    }  # fmt: skip


def disturbed(rows: list[dict[str, Any]], faults: Disturbance) -> list[dict[str, Any]]:
    """The rows with one number left out or one payment invented, where a fault says so."""
    if fault := faults.get("omit"):
        rows = [row for row in rows if fault.arguments.get("name") not in {row["custom_field"], row["invoice_id"]}]
    if fault := faults.get("invent"):
        name, minor = str(fault.arguments.get("name", "invented")), int(fault.arguments.get("amount_minor", 100))
        rows = [*rows, {
            "transaction_id": new_id(17), "transaction_event_code": "T0006", "transaction_status": "S", "invoice_id": name,
            "custom_field": name, "transaction_initiation_date": moment(0),
            "transaction_amount": write_amount(minor, str(fault.arguments.get("currency", "USD"))),
        }]  # fmt: skip
    return rows


def transaction_page(account: SandboxAccount, rows: list[dict[str, Any]], page: int, size: int) -> dict[str, Any]:
    """One page of the search."""
    shown = rows[(page - 1) * size : page * size]
    return {
        "transaction_details": [{"transaction_info": row} for row in shown], "account_number": account.merchant,
        "page": page, "total_items": len(rows), "total_pages": max(1, -(-len(rows) // size)),
    }  # fmt: skip


# --- events ---


def render_event(account: SandboxAccount, message: Notification, at: datetime, style: Style) -> Rendered:
    """A webhook event with its transmission headers, true or forged."""
    content = message.read()
    event, resource_type = EVENTS[message.event]
    resource = (
        _refund_resource(content) if "refund" in content else _payment_resource(account, message.event, content, style)
    )
    key = "WH-" + message.key.removeprefix("ntf_").upper()
    record = {
        "id": key, "event_version": "1.0", "resource_version": "2.0",
        "create_time": moment(content["sent_at"]), "resource_type": resource_type, "event_type": event,
        "summary": event.replace(".", " ").capitalize(), "resource": resource,
    }  # fmt: skip
    body = json.dumps(record).encode()
    webhook_id = new_id(17) if style.forgery == "wrong_account" else account.keys["webhook_id"]
    headers = {"content-type": "application/json", "paypal-auth-algo": ALGORITHM,
               "paypal-cert-url": f"{account.base_url}/v1/notifications/certs/CERT-360caa42"}  # fmt: skip
    if style.forgery != "no_signature":
        headers |= _transmission(
            account, webhook_id, body, at, is_forged=style.forgery in {"bad_signature", "other_secret"}
        )
    if style.forgery == "altered_body":
        body = json.dumps(record | {"id": key + "X"}).encode()
    return headers, body


def _transmission(
    account: SandboxAccount, webhook_id: str, body: bytes, at: datetime, *, is_forged: bool
) -> dict[str, str]:
    sent_id, sent_at = secrets.token_hex(16), moment(at.timestamp())
    signed = f"{sent_id}|{sent_at}|{webhook_id}|{zlib.crc32(body)}".encode()
    signature = sign_rsa(load_private_key(account.keys["private_key"]), b"forged" if is_forged else signed)
    return {
        "paypal-transmission-id": sent_id,
        "paypal-transmission-time": sent_at,
        "paypal-transmission-sig": signature,
    }


def _payment_resource(account: SandboxAccount, event: str, content: dict[str, Any], style: Style) -> dict[str, Any]:
    payment = {**content["payment"], **style.altered}
    minor = (
        payment["amount_minor"]
        if "amount_minor" in style.altered
        else payment.get("paid_minor", payment["amount_minor"])
    )
    number, currency, merchant = payment["number"], payment["currency"], payment["merchant"]
    if event == "payment.approved":
        return {
            "id": order_id(account, number), "intent": "CAPTURE", "status": "APPROVED", "create_time": moment(content["sent_at"]),
            "purchase_units": [{
                "reference_id": "default", "custom_id": number, "invoice_id": number,
                "amount": write_amount(payment["amount_minor"], currency), "payee": {"merchant_id": merchant},
            }],
        }  # fmt: skip
    if event == "payment.dispute":
        taken = {"seller_transaction_id": part_id(payment["reference"]), "custom": number, "invoice_number": number}
        return {"dispute_id": "PP-D-" + new_id(5), "disputed_transactions": [taken], "status": "OPEN",
                "dispute_amount": write_amount(payment["disputed_minor"], currency)}  # fmt: skip
    if event == "payment.refunded":
        return {
            "id": new_id(17),
            "status": "COMPLETED",
            "amount": write_amount(payment["refunded_minor"] or 1, currency),
        }
    record = capture_record(account, number, payment["reference"], minor, currency, payment["paid_at"], "COMPLETED")
    related = {"related_ids": {"order_id": order_id(account, number)}}
    return record | {"payee": {"merchant_id": merchant}, "supplementary_data": related}


def _refund_resource(content: dict[str, Any]) -> dict[str, Any]:
    told = content["refund"]
    return {
        "id": part_id(told["reference"]), "status": _STATUS_OF_REFUND[told["state"]],
        "amount": write_amount(told["amount_minor"], told["currency"]), "custom_id": told["refund_number"],
        "create_time": moment(content["sent_at"]),
    }  # fmt: skip
