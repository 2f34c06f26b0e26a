"""The wire of WeChat Pay v3: the code table, and between its JSON and the contract's records.

Sources: the merchant documentation at pay.weixin.qq.com, page by page below. Reading raises MalformedError with the
field. Amounts are integer fen here; only the bill (`wechat_pay_bill`) tells yuan.
"""

import json
import re
import secrets
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlencode, urlsplit

from payonce.channels.keys import sign_rsa
from payonce.channels.messages import (
    PaymentState,
    PaymentView,
    PrepayRequest,
    RefundRequest,
    RefundState,
    RefundView,
    Refused,
    RefusedKind,
)
from payonce.channels.sandbox import wire
from payonce.channels.sandbox.wire import MalformedError
from payonce.channels.wechat_pay_keys import Account

BEIJING = timezone(timedelta(hours=8))
DESCRIPTION_BYTES_MAX = 127
REASON_BYTES_MAX = 80
H5_TYPES = {"ios": "iOS", "android": "Android"}
METHODS = {"qr": "native", "jsapi": "jsapi", "h5": "h5", "app": "app"}
# Never kept: who paid, from where, what could be paid or downloaded with, and what an error repeats of a request.
HIDDEN = ("payer", "openid", "user_received_account", "payer_client_ip", "prepay_id", "code_url", "h5_url", "bank_type",
          "download_url", "attach", "scene_info", "value")  # fmt: skip
# doc/v3/merchant/4012525182. "|", which some pages add, is left out: its encoding in a path breaks signatures.
_NUMBER = re.compile(r"[0-9A-Za-z_*-]{6,32}", re.ASCII)
_CODE = re.compile(r"[A-Z][A-Z_]{1,63}", re.ASCII)

_BY_REQUEST = {
    "PARAM_ERROR": RefusedKind.CONFIG,
    "SIGN_ERROR": RefusedKind.CONFIG,
    "NO_AUTH": RefusedKind.CONFIG,
    "APPID_MCHID_NOT_MATCH": RefusedKind.CONFIG,
    "MCH_NOT_EXISTS": RefusedKind.CONFIG,
    "FREQUENCY_LIMITED": RefusedKind.THROTTLED,
    "FREQUENCY_LIMIT_EXCEED": RefusedKind.THROTTLED,
    "RATELIMIT_EXCEEDED": RefusedKind.THROTTLED,
}
# Which 4xx code means what, per operation; every other code is Unknown. From the pages of ordering (docs/partner/apis/
# partner-miniprogram-payment/close-order.html lists the common table), closing (doc/v3/merchant/4012556398), refunding
# (doc/v3/partner/4012709253) and the bill (doc/v3/merchant/4013071254); spellings without "_" are those of older pages.
# Which code a paid number gets on a second order is documented nowhere for v3: all are conflicts, and the caller asks.
REFUSALS: dict[str, dict[str, RefusedKind]] = {
    "prepay": {
        **_BY_REQUEST,
        "INVALID_REQUEST": RefusedKind.CONFLICT,
        "OUT_TRADE_NO_USED": RefusedKind.CONFLICT,
        "ORDER_CLOSED": RefusedKind.CONFLICT,
        "ORDERCLOSED": RefusedKind.CONFLICT,
        "ORDERPAID": RefusedKind.CONFLICT,
        "ORDER_PAID": RefusedKind.CONFLICT,
        "OPENID_MISMATCH": RefusedKind.CONFIG,
        "RULE_LIMIT": RefusedKind.DECLINED,
        "RULELIMIT": RefusedKind.DECLINED,
        "ACCOUNT_ERROR": RefusedKind.DECLINED,
    },
    "query": dict(_BY_REQUEST),
    "close": dict(_BY_REQUEST),
    "refund": {
        **_BY_REQUEST,
        "INVALID_REQUEST": RefusedKind.CONFLICT,
        "RESOURCE_NOT_EXISTS": RefusedKind.CONFLICT,
        "NOT_ENOUGH": RefusedKind.DECLINED,
        "USER_ACCOUNT_ABNORMAL": RefusedKind.DECLINED,
    },
    "query_refund": dict(_BY_REQUEST),
    "statement": {**_BY_REQUEST, "STATEMENT_CREATING": RefusedKind.THROTTLED},
}
NOT_FOUND = {
    "query": frozenset({"ORDER_NOT_EXIST", "ORDERNOTEXIST"}),
    "query_refund": frozenset({"RESOURCE_NOT_EXISTS"}),
}
# After these a close proves nothing, and a query tells: paid, closed before, the buyer is typing the password, unknown.
ASK_AFTER_CLOSE = frozenset(
    {"INVALID_REQUEST", "ORDER_CLOSED", "ORDERCLOSED", "ORDERPAID", "ORDER_PAID", "USERPAYING", "USER_PAYING",
     "ORDER_NOT_EXIST", "ORDERNOTEXIST", "OUT_TRADE_NO_USED", "TRADE_ERROR"}
)  # fmt: skip
NO_BILL = "NO_STATEMENT_EXIST"  # doc/v3/merchant/4013071254: no payment and no refund on that day

_PAYMENT_STATES = {
    "SUCCESS": PaymentState.PAID,
    "REFUND": PaymentState.PAID,
    "NOTPAY": PaymentState.OPEN,
    "PAYERROR": PaymentState.OPEN,  # this try failed; the number may still be payable
    "USERPAYING": PaymentState.IN_PROGRESS,
    "CLOSED": PaymentState.CLOSED,
    "REVOKED": PaymentState.CLOSED,
}
_REFUND_STATES = {
    "SUCCESS": RefundState.DONE,
    "PROCESSING": RefundState.IN_PROGRESS,
    "CLOSED": RefundState.FAILED,
    "ABNORMAL": RefundState.ATTENTION,  # the bank cannot take it back: a person acts in the merchant platform
}


def refuse_prepay(request: PrepayRequest, account: Account) -> Refused | None:
    """What cannot be asked of WeChat Pay at all; nothing is sent then."""
    faults = {
        "method_unsupported": request.method not in account.methods,
        "currency_unsupported": request.currency != "CNY",
        "number_not_allowed": not _NUMBER.fullmatch(request.number),
        "payer_required": request.method == "jsapi" and not request.payer,
        "client_ip_required": request.method == "h5" and not request.client_ip,
    }
    code = next((name for name, is_so in faults.items() if is_so), None)
    return None if code is None else Refused(RefusedKind.CONFIG, code, f"not sent: {request.method} {code}")


def prepay_request(request: PrepayRequest, account: Account) -> dict[str, Any]:
    """The body of an order. The same request gives the same body: changed parameters under a number are refused."""
    body: dict[str, Any] = {
        "appid": account.appid_of(request.method),
        "mchid": account.mchid,
        "description": cut(request.subject, DESCRIPTION_BYTES_MAX) or request.number,
        "out_trade_no": request.number,
        "time_expire": format_time(request.payable_until),
        "notify_url": request.notify_url,
        "amount": {"total": request.amount_minor, "currency": request.currency},
    }
    if request.method == "jsapi":
        body["payer"] = {"openid": request.payer}
    if request.method == "h5":
        kind = H5_TYPES.get(request.client_type.lower(), "Wap")
        body["scene_info"] = {"payer_client_ip": request.client_ip, "h5_info": {"type": kind}}
    return body


def refund_request(request: RefundRequest) -> dict[str, Any]:
    """The body of a refund: of one transaction where its reference is known, else of the number."""
    reference = request.payment.channel_reference
    body: dict[str, Any] = {"transaction_id": reference} if reference else {"out_trade_no": request.payment.number}
    body["out_refund_no"] = request.refund_number
    body["amount"] = {"refund": request.amount_minor, "total": request.captured_minor, "currency": request.currency}
    if reason := cut(request.reason, REASON_BYTES_MAX):
        body["reason"] = reason
    if request.notify_url:
        body["notify_url"] = request.notify_url
    return body


def cut(text: str, bytes_max: int) -> str:
    """The text without control characters, cut to so many bytes of UTF-8: pages leave open what their lengths count."""
    clean = "".join(character if character.isprintable() else " " for character in text)
    return clean.encode("utf-8", "replace")[:bytes_max].decode("utf-8", "ignore").strip()


def format_time(at: datetime) -> str:
    """RFC 3339 in Beijing time, to the second, never later than `at`."""
    return at.astimezone(BEIJING).replace(microsecond=0).isoformat()


# --- answers ---


def code_of(body: bytes) -> str:
    """The code of an error answer, or an empty text."""
    try:
        code = wire.read_object(body).get("code")
    except MalformedError:
        return ""
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


def prepay_value(record: dict[str, Any], request: PrepayRequest, account: Account, seconds: float) -> str:
    """What the buyer is handed: a QR text, an address, or the signed parameters of the client's call as JSON."""
    if request.method == "qr":
        return _filled(record, "code_url")
    if request.method == "h5":
        address = _filled(record, "h5_url")
        if urlsplit(address).scheme not in {"https", "http"}:
            raise MalformedError("h5_url")
        # Where the browser goes afterwards; the buyer may not have paid by then.
        back = urlencode({"redirect_url": request.return_url})
        return f"{address}{'&' if '?' in address else '?'}{back}" if request.return_url else address
    prepay_id = _filled(record, "prepay_id")
    return json.dumps(_client_call(request.method, prepay_id, account, seconds), separators=(",", ":"))


def _client_call(method: str, prepay_id: str, account: Account, seconds: float) -> dict[str, str]:
    """The parameters of the page's requestPayment, or of the app's PayReq, signed by the merchant.

    Signed are, a line each: appid, timestamp, nonce, and the package (page) or the prepay id (app).
    """
    appid, timestamp, nonce = account.appid_of(method), str(int(seconds)), secrets.token_hex(16).upper()
    last = f"prepay_id={prepay_id}" if method == "jsapi" else prepay_id
    signature = sign_rsa(account.private_key, f"{appid}\n{timestamp}\n{nonce}\n{last}\n".encode())
    if method == "jsapi":
        return {"appId": appid, "timeStamp": timestamp, "nonceStr": nonce, "package": last, "signType": "RSA",
                "paySign": signature}  # fmt: skip
    return {"appid": appid, "partnerid": account.mchid, "prepayid": prepay_id, "package": "Sign=WXPay",
            "noncestr": nonce, "timestamp": timestamp, "sign": signature}  # fmt: skip


def payment(record: dict[str, Any], number: str | None = None) -> PaymentView:
    """One payment, of a query or a notification. `refunded_minor` stays 0: WeChat Pay does not say it."""
    said = _filled(record, "out_trade_no", 64)
    if number is not None and said != number:
        raise MalformedError("out_trade_no")
    state = _PAYMENT_STATES.get(_filled(record, "trade_state", 32), PaymentState.UNCLEAR)
    merchant = _filled(record, "mchid", 32)
    if state is not PaymentState.PAID:
        return PaymentView(said, state, merchant=merchant)
    amount = _amount(record)
    return PaymentView(
        number=said,
        state=state,
        currency=wire.currency(amount, optional=True) or "CNY",
        paid_minor=wire.amount(amount, "total", least=1),  # before coupons; payer_total is after them
        channel_reference=_filled(record, "transaction_id", 64),
        merchant=merchant,
        paid_at=wire.optional_moment(record, "success_time") if record.get("success_time") else None,
    )


def sent_at(message: dict[str, Any]) -> datetime:
    """When WeChat Pay made a notification."""
    return wire.moment(message, "create_time")


def refund(record: dict[str, Any], refund_number: str | None = None) -> RefundView:
    """One refund; a query says `status`, a notification `refund_status`."""
    said = _filled(record, "out_refund_no", 64)
    if refund_number is not None and said != refund_number:
        raise MalformedError("out_refund_no")
    word = wire.text(record, "status" if "status" in record else "refund_status", characters_max=32)
    state = _REFUND_STATES.get(word)
    if state is None:
        raise MalformedError("status")
    amount = _amount(record)
    return RefundView(
        refund_number=said,
        state=state,
        amount_minor=wire.amount(amount, "refund"),
        currency=wire.currency(amount, optional=True),
        channel_reference=wire.text(record, "refund_id", default="", characters_max=64),
        payment_number=wire.text(record, "out_trade_no", default="", characters_max=64),
        code=word if state in {RefundState.FAILED, RefundState.ATTENTION} else "",
    )


def _amount(record: dict[str, Any]) -> dict[str, Any]:
    amount = record.get("amount")
    if not isinstance(amount, dict):
        raise MalformedError("amount")
    return amount


def _filled(record: dict[str, Any], name: str, characters_max: int = 2_000) -> str:
    value = wire.text(record, name, characters_max=characters_max)
    if not value or not value.isprintable():
        raise MalformedError(name)
    return value
