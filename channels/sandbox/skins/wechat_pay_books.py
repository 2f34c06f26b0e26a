"""What the simulated WeChat Pay tells from its books: payments, refunds and the daily bill; and both halves of a new account."""

import gzip
import hashlib
import secrets
import sqlite3
from datetime import UTC, date, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from payonce.channels.sandbox import outbox
from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.faults import Disturbance
from payonce.channels.sandbox.records import Payment, Result
from payonce.channels.sandbox.sender import Style
from payonce.channels.sandbox.skins.wechat_pay_wire import REFUND_STATES, TRADE_STATES, TRADE_TYPES, beijing
from payonce.channels.wechat_pay_wire import BEIJING

_COLUMNS = ("交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类,应结订单金额,"
            "代金券金额,微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,"
            "申请退款金额,费率备注")  # fmt: skip
_SUMS = "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额"
_ROWS = (
    "SELECT journal.*, payment.subject, payment.method, payment.payer, refund.reference AS refund_reference"
    " FROM journal JOIN payment ON payment.account = journal.account AND payment.number = journal.number"
    " LEFT JOIN refund ON refund.payment_id = payment.id AND refund.number = journal.refund_number"
    " WHERE journal.account = ? AND journal.at >= ? AND journal.at < ? AND journal.kind IN ('capture', 'refund')"
    " ORDER BY journal.id"
)


def prepay_fields(account: SandboxAccount, kind: str, payment: Payment) -> dict[str, Any]:
    """What the buyer is to be handed. A browser can open the h5 address: it is the bank's wallet page."""
    prepay_id = "wx" + secrets.token_hex(17)
    if kind == "native":
        return {"code_url": f"weixin://wxpay/bizpayurl?pr={payment.token}"}
    if kind == "h5":
        return {"h5_url": f"{account.base_url}/wallet/pay/{payment.token}?prepay_id={prepay_id}"}
    return {"prepay_id": prepay_id}


def payment_fields(account: SandboxAccount, payment: Payment, is_refunded: bool) -> dict[str, Any]:
    """A payment as a query tells it: that something was refunded, not how much."""
    fields = _payment(account, outbox.payment_content(account, payment, None))
    if is_refunded:
        fields |= {"trade_state": "REFUND", "trade_state_desc": "转入退款"}
    return fields


def payment_notice(account: SandboxAccount, content: dict[str, Any], style: Style) -> dict[str, Any]:
    """A payment as a notification tells it, with fields of its own where the style says so."""
    told, altered = dict(content["payment"]), style.altered
    if "amount_minor" in altered:
        told["paid_minor"] = altered["amount_minor"]
    return _payment(account, {**told, **altered})


def _payment(account: SandboxAccount, content: dict[str, Any]) -> dict[str, Any]:
    """A payment as a query and a notification tell it."""
    state, words = TRADE_STATES[content["state"]]
    total, currency = content.get("paid_minor", content["amount_minor"]), content["currency"]
    fields: dict[str, Any] = {
        "appid": account.keys["appid"],
        "mchid": content["merchant"],
        "out_trade_no": content["number"],
        "trade_state": state,
        "trade_state_desc": words,
        "amount": {"total": total, "currency": currency, "payer_currency": currency},
        "promotion_detail": [],
    }
    if state == "SUCCESS":
        fields |= {
            "transaction_id": content["reference"], "trade_type": TRADE_TYPES[content["details"]["method"]], "bank_type": "OTHERS",
            "attach": "", "success_time": beijing(content["paid_at"]),
            "payer": {"openid": content["details"]["payer"] or "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"},
        }  # fmt: skip
        fields["amount"]["payer_total"] = total
    return fields


def refund_fields(result: Result) -> dict[str, Any]:
    """A refund as its call and its query tell it."""
    payment, refund = result.payment, result.refund
    if payment is None or refund is None:
        raise RuntimeError("the bank says OK without a refund")
    taken = next(row for row in payment.captures if row.id == refund.capture_id)
    amount, total = refund.amount_minor, taken.amount_minor
    fields: dict[str, Any] = {
        "refund_id": refund.reference, "out_refund_no": refund.number, "transaction_id": taken.reference,
        "out_trade_no": payment.number, "channel": "ORIGINAL", "user_received_account": "支付用户零钱",
        "create_time": beijing(refund.created_at), "status": REFUND_STATES[refund.state],
        "funds_account": "AVAILABLE", "promotion_detail": [],
        "amount": {"total": total, "refund": amount, "payer_total": total, "payer_refund": amount,
                   "settlement_total": total, "settlement_refund": amount, "discount_refund": 0,
                   "currency": refund.currency, "from": []},
    }  # fmt: skip
    if refund.state == "DONE" and refund.settled_at is not None:
        fields["success_time"] = beijing(refund.settled_at)
    return fields


def refund_notice(account: SandboxAccount, content: dict[str, Any]) -> dict[str, Any]:
    """A refund as a notification tells it."""
    told = content["refund"]
    amount = told["amount_minor"]
    return {
        "mchid": account.merchant, "out_trade_no": told["number"], "transaction_id": "", "refund_id": told["reference"],
        "out_refund_no": told["refund_number"], "refund_status": REFUND_STATES[told["state"]],
        "success_time": beijing(content["sent_at"]), "user_received_account": "支付用户零钱",
        "amount": {"total": amount, "refund": amount, "payer_total": amount, "payer_refund": amount},
    }  # fmt: skip


def bill_rows(database: sqlite3.Connection, account: str, day: date) -> list[dict[str, Any]]:
    """The movements of one Beijing day."""
    start = datetime(day.year, day.month, day.day, tzinfo=BEIJING)
    ends = start + timedelta(days=1)
    rows = database.execute(_ROWS, (account, start.timestamp(), ends.timestamp()))
    return [dict(row) for row in rows]


def disturbed_rows(rows: list[dict[str, Any]], faults: Disturbance, at: float) -> list[dict[str, Any]]:
    """The rows with one number left out or one payment invented, where a fault says so."""
    if fault := faults.get("omit"):
        rows = [row for row in rows if row["number"] != fault.arguments.get("name")]
    if fault := faults.get("invent"):
        invented = {
            "at": at, "number": str(fault.arguments.get("name", "invented")), "kind": "capture", "payer": "",
            "reference": "cap_invented", "refund_number": "", "refund_reference": None, "method": "qr", "subject": "?",
            "amount_minor": int(fault.arguments.get("amount_minor", 100)), "currency": "CNY",
        }  # fmt: skip
        rows = [*rows, invented]
    return rows


def write_bill(account: SandboxAccount, rows: list[dict[str, Any]]) -> bytes:
    """The file."""
    lines = [_COLUMNS, *("`" + ",`".join(_bill_values(account, row)) for row in rows), _SUMS]
    paid = sum(row["amount_minor"] for row in rows if row["kind"] == "capture")
    back = -sum(row["amount_minor"] for row in rows if row["kind"] == "refund")
    sums = (str(len(rows)), _yuan(paid), _yuan(back), "0.00", "0.00000", _yuan(paid), _yuan(back))
    return ("\r\n".join([*lines, "`" + ",`".join(sums)]) + "\r\n").encode()


def _bill_values(account: SandboxAccount, row: dict[str, Any]) -> tuple[str, ...]:
    is_refund = row["kind"] == "refund"
    amount = _yuan(abs(row["amount_minor"]))
    paid, back = ("0.00", amount) if is_refund else (amount, "0.00")
    when = datetime.fromtimestamp(row["at"], BEIJING).strftime("%Y-%m-%d %H:%M:%S")
    subject = row["subject"].replace(",", "\\ ").replace("\n", "\\n")
    return (
        when, account.keys["appid"], account.merchant, "0", "", row["reference"], row["number"], row["payer"],
        TRADE_TYPES.get(row["method"], "NATIVE"), "REFUND" if is_refund else "SUCCESS", "OTHERS", row["currency"], paid,
        "0.00", row["refund_reference"] or "0", row["refund_number"] or "0", back, "0.00",
        "ORIGINAL" if is_refund else "", "SUCCESS" if is_refund else "", subject, "", "0.00000", "0.60%", paid, back, "",
    )  # fmt: skip


def packed(data: bytes) -> tuple[bytes, str]:
    """The file as it is downloaded, and the digest of what is in it."""
    return gzip.compress(data, mtime=0), hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _yuan(minor: int) -> str:
    return f"{minor // 100}.{minor % 100:02d}"


# --- fresh keys ---


def make_account(base_url: str, mode: str = "public_key") -> tuple[dict[str, Any], dict[str, Any]]:
    """Both halves of a new account. `mode` is public_key, certificate, or switching: now one key signs, now the other."""
    merchant, public, platform = (rsa.generate_private_key(public_exponent=65_537, key_size=2_048) for _ in range(3))
    mchid, appid = "19" + f"{secrets.randbelow(10**8):08d}", "wx" + secrets.token_hex(8)
    apiv3_key, public_key_id = secrets.token_hex(16), "PUB_KEY_ID_01" + mchid + secrets.token_hex(8)
    certificates = {"merchant": _certificate(merchant, mchid), "platform": _certificate(platform, "Tenpay.com sign")}
    keys = {
        "mode": mode, "appid": appid, "apiv3_key": apiv3_key, "merchant_certificate": certificates["merchant"],
        "public_key_id": public_key_id, "public_key_private": _private_pem(public),
        "platform_private": _private_pem(platform), "platform_certificate": certificates["platform"],
    }  # fmt: skip
    shop: dict[str, Any] = {
        "adapter": "wechat_pay", "base_url": base_url, "mchid": mchid, "appid": appid, "apiv3_key": apiv3_key,
        "methods": ["qr", "jsapi", "h5", "app"], "private_key": _private_pem(merchant),
        "certificate": certificates["merchant"],
    }  # fmt: skip
    if mode != "certificate":
        shop |= {"public_key": _public_pem(public), "public_key_id": public_key_id}
    if mode != "public_key":
        shop["platform_certificates"] = [certificates["platform"]]
    return {"merchant": mchid, "keys": keys}, shop


def _certificate(key: rsa.RSAPrivateKey, name: str) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    # The first digit is never zero, as clients differ in how they write one.
    builder = builder.serial_number((1 << 156) | secrets.randbits(155)).not_valid_before(now - timedelta(days=1))
    made = builder.not_valid_after(now + timedelta(days=5 * 365)).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def _private_pem(key: rsa.RSAPrivateKey) -> str:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()


def _public_pem(key: rsa.RSAPrivateKey) -> str:
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key.public_key().public_bytes(*form).decode()
