"""Notifications in an attacker's own words: "this was paid", in the wire format of each channel, without the channel's keys.

The attacker knows the documentation, the number, the amount and all names of the account, and nothing that is secret: whatever is
signed here is signed with the attacker's own keys. (With the channel's keys each of these would be believed, as a test shows.)
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KINDS = ("own key", "no signature", "empty signature", "old format")
"""How a forgery is signed: `old format` is one that the channel has given up, or never had."""
_BEIJING = timezone(timedelta(hours=8))


PUBLIC = ("mchid", "appid", "public_key_id", "app_id", "seller_id", "webhook_id", "merchant")
"""Options of an account that are no secrets."""


@dataclass(frozen=True)
class Keys:
    """What messages are signed and sealed with: the attacker's own, unless a test gives others."""

    private: rsa.RSAPrivateKey | None = None
    secret: str = "whsec_guess"
    sealing: str = "attacker" * 4

    def rsa(self, text: bytes) -> str:
        """An RSA-SHA256 signature in base64."""
        return base64.b64encode((self.private or _key()).sign(text, padding.PKCS1v15(), hashes.SHA256())).decode()

    def hmac(self, text: bytes) -> str:
        """An HMAC-SHA256 in hexadecimal."""
        return hmac.new(self.secret.encode(), text, hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Claim:
    """What the attacker says was paid, and the account's `names` as far as they are public."""

    account: str
    number: str
    amount_minor: int
    names: Mapping[str, str] = field(default_factory=dict)
    keys: Keys = field(default_factory=Keys)

    def name(self, option: str, guess: str) -> str:
        """One of the account's names."""
        return self.names.get(option) or guess


Forged = tuple[dict[str, str], bytes]


def public_names(options: Mapping[str, Any]) -> dict[str, str]:
    """What of an account's options everybody may know."""
    return {name: str(options[name]) for name in PUBLIC if name in options}


def forge(skin: str, claim: Claim, kind: str) -> Forged:
    """Headers and body of a forgery in a wire format; `skin` is empty for the bank's own."""
    return _FORGERS.get(skin, _own)(claim, kind)


def _own(claim: Claim, kind: str) -> Forged:
    payment = {
        "number": claim.number, "merchant": claim.account, "state": "PAID", "amount_minor": claim.amount_minor, "currency": "CNY",
        "paid_minor": claim.amount_minor, "reference": "pay_" + secrets.token_hex(8), "captures": [],
    }  # fmt: skip
    told = {"id": "ntf_" + secrets.token_hex(12), "event": "payment.paid", "payment": payment, "refund": None}
    body = json.dumps(told).encode()
    digest = claim.keys.hmac(body)
    value = {"own key": f"hmac-sha256={digest}", "empty signature": "", "old format": digest}.get(kind)
    names = ("sandbox-account", "sandbox-timestamp", "sandbox-nonce", "sandbox-signature")
    if value is None:
        return {}, body
    return dict(zip(names, (claim.account, str(int(time.time())), secrets.token_hex(8), value), strict=True)), body


def _wechat_pay(claim: Claim, kind: str) -> Forged:
    paid_at = datetime.now(_BEIJING).isoformat(timespec="seconds")
    record = {
        "mchid": claim.name("mchid", "1900000001"), "appid": claim.name("appid", "wx0000000000000000"),
        "out_trade_no": claim.number, "trade_type": "NATIVE", "transaction_id": "42000" + secrets.token_hex(11), "trade_state": "SUCCESS",
        "success_time": paid_at,
        "amount": {"total": claim.amount_minor, "payer_total": claim.amount_minor, "currency": "CNY", "payer_currency": "CNY"},
    }  # fmt: skip
    nonce = secrets.token_hex(6)
    sealed = AESGCM(claim.keys.sealing.encode()).encrypt(nonce.encode(), json.dumps(record).encode(), b"transaction")
    envelope = {
        "id": secrets.token_hex(16), "create_time": paid_at, "event_type": "TRANSACTION.SUCCESS",
        "resource_type": "encrypt-resource", "summary": "支付成功",
        "resource": {"algorithm": "AEAD_AES_256_GCM", "ciphertext": base64.b64encode(sealed).decode(), "nonce": nonce,
                     "associated_data": "transaction", "original_type": "transaction"},
    }  # fmt: skip
    body = json.dumps(envelope, ensure_ascii=False).encode()
    if kind == "old format":  # version 2: XML with an MD5
        fields = {"return_code": "SUCCESS", "out_trade_no": claim.number, "total_fee": claim.amount_minor}
        inner = "".join(f"<{name}><![CDATA[{value}]]></{name}>" for name, value in fields.items())
        sign = hashlib.md5(inner.encode()).hexdigest().upper()  # as weak as it was
        return {"content-type": "text/xml"}, f"<xml>{inner}<sign>{sign}</sign></xml>".encode()
    at, salt = str(int(time.time())), secrets.token_hex(16)
    signature = claim.keys.rsa(f"{at}\n{salt}\n".encode() + body + b"\n") if kind == "own key" else ""
    headers = {
        "wechatpay-timestamp": at, "wechatpay-nonce": salt, "wechatpay-signature": signature,
        "wechatpay-serial": claim.name("public_key_id", "PUB_KEY_ID_0000000000000000000000000000"),
        "wechatpay-signature-type": "WECHATPAY2-SHA256-RSA2048",
    }  # fmt: skip
    return ({} if kind == "no signature" else headers), body


def _alipay(claim: Claim, kind: str) -> Forged:
    amount = f"{claim.amount_minor // 100}.{claim.amount_minor % 100:02d}"
    at = f"{datetime.now(_BEIJING):%Y-%m-%d %H:%M:%S}"
    fields = {
        "app_id": claim.name("app_id", "2021000000000001"), "seller_id": claim.name("seller_id", "2088000000000001"),
        "charset": "utf-8", "gmt_create": at, "gmt_payment": at, "notify_id": secrets.token_hex(17), "notify_time": at,
        "notify_type": "trade_status_sync", "out_trade_no": claim.number, "total_amount": amount, "receipt_amount": amount,
        "trade_no": f"{at[:10].replace('-', '')}22001{secrets.randbelow(10**15):015d}", "trade_status": "TRADE_SUCCESS", "version": "1.0",
    }  # fmt: skip
    text = "&".join(f"{name}={value}" for name, value in sorted(fields.items())).encode()
    signature = {
        "own key": claim.keys.rsa(text), "empty signature": "", "old format": hashlib.md5(text + b"guess").hexdigest()
    }.get(kind)  # fmt: skip
    if signature is not None:
        fields |= {"sign_type": "MD5" if kind == "old format" else "RSA2", "sign": signature}
    return {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}, urlencode(fields).encode()


def _stripe(claim: Claim, kind: str) -> Forged:
    session = {
        "id": "cs_test_" + secrets.token_hex(16), "object": "checkout.session", "mode": "payment", "status": "complete",
        "payment_status": "paid", "amount_total": claim.amount_minor, "currency": "cny", "client_reference_id": claim.number,
        "metadata": {"payonce_number": claim.number}, "payment_intent": "pi_" + secrets.token_hex(12), "livemode": False,
    }  # fmt: skip
    event: dict[str, Any] = {
        "id": "evt_" + secrets.token_hex(12), "object": "event", "created": int(time.time()), "livemode": False,
        "type": "checkout.session.completed", "data": {"object": session},
    }  # fmt: skip
    body, at = json.dumps(event).encode(), int(time.time())
    digest = claim.keys.hmac(f"{at}.".encode() + body)
    header = {
        "own key": f"t={at},v1={digest}", "empty signature": f"t={at},v1=", "old format": f"t={at},v0={digest}"
    }.get(kind)  # fmt: skip
    return ({} if header is None else {"stripe-signature": header}), body


def _paypal(claim: Claim, kind: str) -> Forged:
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    capture = {
        "id": secrets.token_hex(9).upper()[:17], "status": "COMPLETED", "custom_id": claim.number, "invoice_id": claim.number,
        "amount": {"currency_code": "CNY", "value": f"{claim.amount_minor // 100}.{claim.amount_minor % 100:02d}"},
        "create_time": at, "update_time": at, "supplementary_data": {"related_ids": {"order_id": secrets.token_hex(9).upper()[:17]}},
    }  # fmt: skip
    event = {
        "id": "WH-" + secrets.token_hex(12).upper(), "event_version": "1.0", "create_time": at, "resource_type": "capture",
        "event_type": "PAYMENT.CAPTURE.COMPLETED", "resource": capture,
    }  # fmt: skip
    body, sent_id = json.dumps(event).encode(), secrets.token_hex(16)
    if kind == "no signature":
        return {}, body
    signed = f"{sent_id}|{at}|{claim.name('webhook_id', '8PT597110X687430L')}|{zlib.crc32(body)}".encode()
    headers = {
        "paypal-auth-algo": "SHA1withRSA" if kind == "old format" else "SHA256withRSA", "paypal-transmission-id": sent_id,
        "paypal-transmission-time": at, "paypal-transmission-sig": "" if kind == "empty signature" else claim.keys.rsa(signed),
        # Somebody who fetched what a message names would find the attacker's own certificate there.
        "paypal-cert-url": "http://127.0.0.1:9/attacker.pem",
    }  # fmt: skip
    return headers, body


_FORGERS: Mapping[str, Callable[[Claim, str], Forged]] = {
    "wechat_pay": _wechat_pay, "alipay": _alipay, "stripe": _stripe, "paypal": _paypal
}  # fmt: skip


@cache
def _key() -> rsa.RSAPrivateKey:
    """The attacker's own."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
