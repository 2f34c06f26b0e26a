"""How the gateway writes: answers with their signature, refusals with their codes, notifications, and its own trade numbers."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from payonce.channels.alipay_wire import beijing_text, signed_text, yuan
from payonce.channels.keys import sign_rsa
from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.asgi import Response
from payonce.channels.sandbox.codes import Code
from payonce.channels.sandbox.faults import Disturbance
from payonce.channels.sandbox.outbox import Notification
from payonce.channels.sandbox.sender import Style
from payonce.channels.sandbox.skins import alipay_keys as keys
from payonce.channels.sandbox.skins.base import Rendered, disturb

BUYER = {"buyer_logon_id": "san***@example.com", "buyer_user_id": "2088102175794899"}
_MESSAGES = {
    "20000": "Service Currently Unavailable",
    "40001": "Missing Required Arguments",
    "40002": "Invalid Arguments",
    "40004": "Business Failed",
    "40005": "Call Limited",
    "40006": "Insufficient Permissions",
}
_GATEWAY_CODES = {
    Code.RATE_LIMITED: ("40005", "isv.app-call-limited"),
    Code.REFUND_TOO_SOON: ("40005", "isv.app-call-limited"),
    Code.SYSTEM_ERROR: ("20000", "isp.unknow-error"),
    "40005": ("40005", "isv.app-call-limited"),
    "40006": ("40006", "isv.insufficient-isv-permissions"),
    "20000": ("20000", "isp.unknow-error"),
    "aop.unknow-error": ("20000", "aop.unknow-error"),
    "isp.unknow-error": ("20000", "isp.unknow-error"),
}


class GatewayError(Exception):
    """A request that the gateway refuses before it looks at what is asked."""

    def __init__(self, method: str, code: str, *, is_signed: bool = True) -> None:
        super().__init__(code)
        self.method = method
        self.record = refusal(code)
        self.is_signed = is_signed


def refusal(code: str) -> dict[str, str]:
    """The record of a refusal: its own code, under the gateway's code for such reasons."""
    outer, inner = _GATEWAY_CODES.get(code, ("40004", code))
    if outer == "40004" and code.startswith("isv."):
        outer = "40001" if code.startswith("isv.missing") else "40002"
    return {"code": outer, "msg": _MESSAGES[outer], "sub_code": inner, "sub_msg": f"沙箱: {inner}"}


def answer(
    account: SandboxAccount, method: str, record: Mapping[str, Any], faults: Disturbance, *, is_signed: bool = True
) -> Response:
    """An answer with its signature over the very text of the record, and the faults that it is to show."""
    name = method.replace(".", "_") + "_response" if method else "error_response"
    content = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    signed = content + " " if "bad_signature" in faults else content
    parts = [f'"{name}":{content}']
    if is_signed and "no_signature" not in faults:
        if number := account.keys.get("alipay_cert_sn"):
            parts.append(f'"alipay_cert_sn":"{number}"')
        signature = sign_rsa(keys.private_of(account.keys["alipay_private_key"]), signed.encode())
        parts.append(f'"sign":"{signature}"')
    body = "{" + ",".join(parts) + "}"
    if "garbage" in faults:
        body = f"<html>{body}</html>"
    return disturb(Response(200, body.encode(), {"content-type": "text/html;charset=utf-8"}), faults)


def trade_no(number: str, created_at: float, ordinal: int = 0) -> str:
    """Alipay's own number: the day, and digits that follow from ours, so that every message of a trade tells the same."""
    day = beijing_text(datetime.fromtimestamp(created_at, UTC))[:10].replace("-", "")
    digits = int.from_bytes(hashlib.sha256(f"{number}/{ordinal}".encode()).digest()[:8]) % 10**15
    return f"{day}22001{digits:015d}"


def time_text(seconds: float) -> str:
    """A Unix time as Alipay writes it."""
    return beijing_text(datetime.fromtimestamp(seconds, UTC))


def render(account: SandboxAccount, message: Notification, at: float, style: Style) -> Rendered:
    """Headers and body of a notification, true or forged as the style says."""
    fields = _notification(account, message, at, style.altered)
    if style.forgery == "wrong_account":
        fields["app_id"] = fields["auth_app_id"] = "2021000000000001"
    key = keys.forger() if style.forgery == "other_secret" else keys.private_of(account.keys["alipay_private_key"])
    text = signed_text(fields, leave_out=frozenset({"sign", "sign_type"}))
    signature = sign_rsa(key, (text + " " if style.forgery == "bad_signature" else text).encode())
    if style.forgery == "altered_body":
        fields["total_amount"] = "0.01"
    if style.forgery != "no_signature":
        fields["sign"] = signature
    return {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}, urlencode(fields).encode()


def _notification(
    account: SandboxAccount, message: Notification, at: float, altered: Mapping[str, Any]
) -> dict[str, str]:
    payment = message.read()["payment"]
    details = payment["details"]
    amount = yuan(int(altered.get("amount_minor", payment["paid_minor"])))
    currency = str(altered.get("currency", payment["currency"]))
    fields = {
        "app_id": account.keys["app_id"],
        "auth_app_id": account.keys["app_id"],
        "buyer_id": BUYER["buyer_user_id"],
        "buyer_logon_id": BUYER["buyer_logon_id"],
        "buyer_pay_amount": amount,
        "charset": "utf-8",
        "fund_bill_list": json.dumps([{"amount": amount, "fundChannel": "ALIPAYACCOUNT"}], separators=(",", ":")),
        "gmt_create": time_text(details["created_at"]),
        "gmt_payment": time_text(payment["paid_at"]),
        "invoice_amount": amount,
        "notify_id": message.key.removeprefix("ntf_"),
        "notify_time": time_text(at),
        "notify_type": "trade_status_sync",
        "out_trade_no": payment["number"],
        "point_amount": "0.00",
        "receipt_amount": amount,
        "seller_email": "shop@example.com",
        "seller_id": str(altered.get("merchant", account.merchant)),
        "sign_type": "RSA2",
        "subject": details["subject"],
        "total_amount": amount,
        "trade_no": trade_no(payment["number"], details["created_at"], details["ordinal"]),
        "trade_status": "TRADE_SUCCESS",
        "version": "1.0",
    }
    return fields if currency == "CNY" else {**fields, "trans_currency": currency}
