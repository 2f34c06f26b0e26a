"""What is asked and told inside `biz_content`: reading orders and refunds as strictly as Alipay, writing trades and refunds."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from payonce.channels.alipay_wire import BEIJING, yuan
from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.codes import Code
from payonce.channels.sandbox.faults import Disturbance
from payonce.channels.sandbox.ledger import Order
from payonce.channels.sandbox.records import Capture, Payment, Refund, Result
from payonce.channels.sandbox.refunds import RefundOrder
from payonce.channels.sandbox.skins import alipay_bill as bill
from payonce.channels.sandbox.skins.alipay_wire import BUYER, time_text, trade_no

_NUMBER = re.compile(r"[0-9A-Za-z_]{1,64}", re.ASCII)
_AMOUNT = re.compile(r"(0|[1-9]\d{0,8})(?:\.(\d{1,2}))?", re.ASCII)
_TIMES = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M")
_DAYS_OPEN = 15
_PRODUCTS = {
    "qr": {"FACE_TO_FACE_PAYMENT", "OFFLINE_PAYMENT", "QR_CODE_OFFLINE", ""},
    "web": {"FAST_INSTANT_TRADE_PAY"},
    "h5": {"QUICK_WAP_WAY", "QUICK_WAP_PAY"},  # the second is what SDKs send
    "app": {"QUICK_MSECURITY_PAY", ""},
}


def order(
    content: Mapping[str, Any], fields: Mapping[str, str], method: str, at: float, known: Payment | None
) -> Order | str:
    """The order that a merchant places; or the code of what is wrong with it.

    Without `time_expire` an order stays payable for fifteen days; `timeout_express` does not shorten that, because it
    starts only when a buyer pays.
    """
    number, subject, amount = content.get("out_trade_no"), content.get("subject"), _minor(content.get("total_amount"))
    until = _until(content, at, known)
    wrong = (
        not isinstance(number, str)
        or not _NUMBER.fullmatch(number)
        or not isinstance(subject, str)
        or not 0 < len(subject) <= 256
        or any(character in subject for character in "/=&")
        or not amount
        or until is None
        or content.get("product_code", "") not in _PRODUCTS[method]
    )
    if wrong or not isinstance(number, str) or not isinstance(subject, str) or amount is None or until is None:
        return Code.PARAM_INVALID
    return Order(
        number=number, amount_minor=amount, currency="CNY", subject=subject, method=method, client_type="", payer="",
        payable_until=until, notify_url=fields.get("notify_url", ""), return_url=fields.get("return_url", ""),
    )  # fmt: skip


def refund_order(content: Mapping[str, Any], payment: Payment | None) -> RefundOrder | str:
    """The refund that a merchant asks for; or the code of what is wrong with it. Without a number of its own it is a full one."""
    amount, number = _minor(content.get("refund_amount")), content.get("out_request_no") or content.get("out_trade_no")
    if payment is None or payment.seen_at is None:
        return Code.NOT_FOUND
    if not amount or not isinstance(number, str) or not _NUMBER.fullmatch(number):
        return Code.PARAM_INVALID
    if not content.get("out_request_no") and amount != payment.amount_minor:
        return "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"
    taken = _capture(payment, content.get("trade_no"))
    return RefundOrder(number, taken.reference if taken else "", amount, taken.currency if taken else "CNY", "")


def status(account: SandboxAccount, payment: Payment, at: float, taken: Capture | None = None) -> str:
    """`trade_status`. A trade that nobody paid in time closes by itself; one wholly given back is closed too."""
    if payment.state == "PAID":
        taken = taken or payment.captures[0]
        if taken.refunded_minor >= taken.amount_minor:
            return "TRADE_CLOSED"
        is_over = at - taken.paid_at > account.capabilities.refund_window_seconds
        return "TRADE_FINISHED" if is_over else "TRADE_SUCCESS"
    is_expired = payment.state == "OPEN" and at > payment.payable_until
    return "TRADE_CLOSED" if payment.state == "CLOSED" or is_expired else "WAIT_BUYER_PAY"


def trade_fields(account: SandboxAccount, payment: Payment, asked: Any, at: float) -> dict[str, str]:
    """What a query tells. Partial refunds are not in it."""
    taken = _capture(payment, asked)
    ordinal = payment.captures.index(taken) if taken else 0
    amount = yuan(taken.amount_minor if taken else payment.amount_minor)
    paid = amount if taken else "0.00"
    fields = {
        **BUYER,
        "buyer_pay_amount": paid,
        "invoice_amount": paid,
        "out_trade_no": payment.number,
        "point_amount": "0.00",
        "receipt_amount": paid,
        "total_amount": amount,
        "trade_no": trade_no(payment.number, payment.created_at, ordinal),
        "trade_status": status(account, payment, at, taken),
    }
    if taken is not None:
        fields["send_pay_date"] = time_text(taken.paid_at)
        if taken.currency != "CNY":
            fields["trans_currency"] = taken.currency
    return fields


def refund_fields(result: Result, *, is_moved: bool) -> dict[str, str]:
    """What a refund tells: whether this call moved money, and the sum of all refunds of the trade."""
    payment, refund = result.payment, result.refund
    if payment is None or not isinstance(refund, Refund):
        return {}
    ordinal, taken = next(pair for pair in enumerate(payment.captures) if pair[1].id == refund.capture_id)
    fields = {
        **BUYER,
        "fund_change": "Y" if is_moved else "N",
        "out_trade_no": payment.number,
        "refund_fee": yuan(taken.refunded_minor),
        "send_back_fee": yuan(refund.amount_minor if is_moved else 0),
        "trade_no": trade_no(payment.number, payment.created_at, ordinal),
    }
    return {**fields, "gmt_refund_pay": time_text(refund.settled_at)} if refund.settled_at else fields


def refund_query_fields(result: Result) -> dict[str, str]:
    """What a refund query tells: nothing about a refund that is not done."""
    payment, refund = result.payment, result.refund
    if payment is None or not isinstance(refund, Refund) or refund.state not in {"DONE", "RETURNED"}:
        return {}
    ordinal, taken = next(pair for pair in enumerate(payment.captures) if pair[1].id == refund.capture_id)
    return {
        "out_request_no": refund.number,
        "out_trade_no": payment.number,
        "refund_amount": yuan(refund.amount_minor),
        "refund_status": "REFUND_SUCCESS",
        "total_amount": yuan(taken.amount_minor),
        "trade_no": trade_no(payment.number, payment.created_at, ordinal),
    }


def bill_rows(movements: Sequence[Mapping[str, Any]], faults: Disturbance, at: float) -> list[list[str]]:
    """The lines of a bill, with one number left out or one payment invented where a fault says so."""
    left_out = fault.arguments.get("name") if (fault := faults.get("omit")) else None
    rows: list[list[str]] = []
    ordinals: dict[str, list[str]] = {}
    for movement in movements:
        references = ordinals.setdefault(movement["number"], [])
        if movement["reference"] not in references:
            references.append(movement["reference"])
        if left_out in {movement["number"], movement["refund_number"]} and left_out:
            continue
        ordinal = references.index(movement["reference"])
        rows.append(bill.row_of(movement, trade_no(movement["number"], movement["created_at"], ordinal)))
    if fault := faults.get("invent"):
        number = str(fault.arguments.get("name", "invented"))
        made = {"kind": "capture", "number": number, "amount_minor": int(fault.arguments.get("amount_minor", 100)),
                "at": at, "created_at": at, "subject": "invented", "refund_number": ""}  # fmt: skip
        rows.append(bill.row_of(made, trade_no(number, at)))
    return rows


def _capture(payment: Payment, asked: Any) -> Capture | None:
    """The capture that a trade number names; the first one where it names none."""
    for ordinal, taken in enumerate(payment.captures):
        if asked == trade_no(payment.number, payment.created_at, ordinal):
            return taken
    return payment.captures[0] if payment.captures else None


def _minor(value: Any) -> int | None:
    """Fen, from yuan as a text or a number (whose point was kept as text)."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    found = _AMOUNT.fullmatch(text) if isinstance(text, str) else None
    return int(found[1]) * 100 + int((found[2] or "").ljust(2, "0")) if found else None


def _until(content: Mapping[str, Any], at: float, known: Payment | None) -> float | None:
    text = content.get("time_expire")
    if text is None:
        return known.payable_until if known else at + timedelta(days=_DAYS_OPEN).total_seconds()
    for form in _TIMES if isinstance(text, str) else ():
        try:
            return datetime.strptime(text, form).replace(tzinfo=BEIJING).timestamp()
        except ValueError:
            continue
    return None
