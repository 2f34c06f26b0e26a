"""The strictness of WeChat Pay v3: request signatures, parameters, errors; answers signed; notifications sealed."""

import base64
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from payonce.channels.keys import load_certificate, load_private_key, load_public_key, sign_rsa, verify_rsa
from payonce.channels.sandbox import ledger, wire
from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.asgi import Request, Response
from payonce.channels.sandbox.codes import Code
from payonce.channels.sandbox.faults import Disturbance
from payonce.channels.sandbox.refunds import RefundOrder
from payonce.channels.sandbox.skins.base import disturb
from payonce.channels.sandbox.wire import MalformedError
from payonce.channels.wechat_pay_keys import AUTHORIZATION, PROBE
from payonce.channels.wechat_pay_wire import format_time

SKEW_SECONDS_MAX = 300
EXPIRY_SECONDS_MIN = 60
NEVER = 4_102_444_800.0  # an order without time_expire: the same one again must be the same request
JSON = {"content-type": "application/json; charset=utf-8"}
METHODS = {"native": "qr", "jsapi": "jsapi", "h5": "h5", "app": "app"}
TRADE_TYPES = {"qr": "NATIVE", "jsapi": "JSAPI", "h5": "MWEB", "app": "APP"}
TRADE_STATES = {
    "OPEN": ("NOTPAY", "订单未支付"),
    "IN_PROGRESS": ("USERPAYING", "需要用户输入支付密码"),
    "PAID": ("SUCCESS", "支付成功"),
    "CLOSED": ("CLOSED", "订单已关闭"),
}
REFUND_STATES = {"IN_PROGRESS": "PROCESSING", "DONE": "SUCCESS", "FAILED": "CLOSED", "ATTENTION": "ABNORMAL",
                 "RETURNED": "ABNORMAL"}  # fmt: skip
_NUMBER = re.compile(r"[0-9A-Za-z_*|-]{6,32}", re.ASCII)
_REFUND_NUMBER = re.compile(r"[0-9A-Za-z_|*@-]{1,64}", re.ASCII)
_PAIR = re.compile(r'(\w+)="([^"]*)"')
_SIGN = "请检查签名参数和方法是否都符合签名算法要求"


@dataclass(frozen=True, slots=True)
class RefusalError(Exception):
    """The request is answered with an error, which carries no signature."""

    status: int
    code: str
    message: str
    faults: Disturbance | None = None

    def response(self) -> Response:
        """The answer, with the faults that it is to show."""
        body = {"code": self.code, "message": self.message}
        response = Response(self.status, json.dumps(body, ensure_ascii=False).encode(), JSON)
        return response if self.faults is None else disturb(response, self.faults)


# What each result of the bank is called; what is not here is called by its own name, which only a planned fault has.
ERRORS: dict[str, tuple[int, str, str]] = {
    Code.NUMBER_CONFLICT: (400, "INVALID_REQUEST", "201 商户订单号重复"),
    Code.ALREADY_PAID: (400, "ORDERPAID", "该订单已支付"),
    Code.ALREADY_CLOSED: (400, "ORDER_CLOSED", "订单已关闭"),
    Code.EXPIRED: (400, "INVALID_REQUEST", "订单已过支付结束时间"),
    Code.IN_PROGRESS: (202, "USERPAYING", "用户支付中，需要输入密码"),
    Code.DECLINED: (403, "RULE_LIMIT", "业务规则限制"),
    Code.METHOD_UNSUPPORTED: (403, "NO_AUTH", "商户无权限"),
    Code.CURRENCY_UNSUPPORTED: (400, "PARAM_ERROR", "参数错误：货币类型"),
    Code.AMOUNT_OUT_OF_RANGE: (400, "PARAM_ERROR", "参数错误：总金额"),
    Code.NOT_PAID: (400, "INVALID_REQUEST", "订单未支付，不能退款"),
    Code.REFUND_EXCEEDS: (400, "INVALID_REQUEST", "累计退款金额大于支付金额"),
    Code.REFUND_WINDOW_PASSED: (400, "INVALID_REQUEST", "订单已超过可退款的最大期限"),
    Code.REFUND_COUNT: (400, "INVALID_REQUEST", "部分退款次数超过限制"),
    Code.REFUND_TOO_SOON: (429, "FREQUENCY_LIMITED", "同一笔订单多次退款的请求需相隔1分钟"),
    Code.NOT_ENOUGH: (403, "NOT_ENOUGH", "基本账户余额不足，请充值后重新发起"),
    Code.RATE_LIMITED: (429, "FREQUENCY_LIMITED", "频率超限"),
    Code.SYSTEM_ERROR: (500, "SYSTEM_ERROR", "系统异常，请稍后重试"),
}
NOT_FOUND = {
    "query": (404, "ORDER_NOT_EXIST", "订单不存在"),
    "refund": (404, "RESOURCE_NOT_EXISTS", "订单不存在"),
    "query_refund": (404, "RESOURCE_NOT_EXISTS", "退款单不存在"),
}


def refusal(operation: str, code: str, faults: Disturbance) -> RefusalError:
    """The error that a result of the bank is answered with."""
    planned = faults.get("refuse")
    found = NOT_FOUND.get(operation) if code == Code.NOT_FOUND else ERRORS.get(code)
    status, name, message = found or (400, code, "planned")
    if planned is not None:
        status = int(planned.arguments.get("status", status))
    return RefusalError(status, name, message, faults)


# --- requests ---


def check_request(account: SandboxAccount, request: Request, seconds: float) -> None:
    """As the real gateway: format, then time, then merchant and serial, then the signature. Raises RefusalError."""
    accepted = request.headers.get("accept", "")
    if "application/json" not in accepted and "*/*" not in accepted:
        raise RefusalError(400, "INVALID_REQUEST", "Http头缺少Accept或值不为application/json")
    scheme, _, rest = request.headers.get("authorization", "").partition(" ")
    given = dict(_PAIR.findall(rest))
    if scheme != AUTHORIZATION or set(given) != {"mchid", "nonce_str", "timestamp", "serial_no", "signature"}:
        raise RefusalError(401, "SIGN_ERROR", "Http头Authorization值格式错误，请参考《微信支付商户REST API签名规则》")
    timestamp = given["timestamp"]
    if not (timestamp.isascii() and timestamp.isdigit() and abs(seconds - int(timestamp)) <= SKEW_SECONDS_MAX):
        raise RefusalError(401, "SIGN_ERROR", "Http头Authorization中的timestamp与发起请求的时间不得超过5分钟")
    certificate = load_certificate(account.keys["merchant_certificate"])
    if given["mchid"] != account.merchant:
        raise RefusalError(401, "SIGN_ERROR", "商户号不存在或与证书不符")
    if given["serial_no"].upper() != f"{certificate.serial_number:X}":
        raise RefusalError(401, "SIGN_ERROR", "商户证书序列号有误。请使用签名私钥匹配的证书序列号")
    text = f"{request.method}\n{request.target}\n{timestamp}\n{given['nonce_str']}\n".encode() + request.body + b"\n"
    if not verify_rsa(load_public_key(account.keys["merchant_certificate"]), text, given["signature"]):
        raise RefusalError(401, "SIGN_ERROR", f"签名错误，{_SIGN}")
    if request.body and not request.headers.get("content-type", "").startswith("application/json"):
        raise RefusalError(400, "PARAM_ERROR", "Http头Content-Type值不为application/json")


def read_body(request: Request) -> dict[str, Any]:
    """The JSON body. Raises RefusalError."""
    try:
        return wire.read_object(request.body)
    except MalformedError:
        raise RefusalError(400, "PARAM_ERROR", "请求的JSON格式错误") from None


def read_order(account: SandboxAccount, kind: str, record: dict[str, Any], at: float) -> ledger.Order:
    """An order in the bank's terms. Raises RefusalError for the first parameter that is not as documented."""
    _check_merchant(account, record)
    if _text(record, "appid", 32) != account.keys["appid"]:
        raise RefusalError(400, "APPID_MCHID_NOT_MATCH", "商户号mchid与appid不匹配")
    amount = _object(record, "amount")
    payer, client_type = "", ""
    if kind == "jsapi":
        payer = _text(_object(record, "payer"), "openid", 128)
    if kind == "h5":
        scene = _object(record, "scene_info")
        _text(scene, "payer_client_ip", 45)
        client_type = _text(_object(scene, "h5_info"), "type", 32)
        if client_type not in {"iOS", "Android", "Wap"}:
            raise _wrong("h5_info/type")
    return ledger.Order(
        number=_matching(record, "out_trade_no", _NUMBER),
        amount_minor=_fen(amount, "total"),
        currency=_text(amount, "currency", 16, default="CNY"),
        subject=_text(record, "description", 127),
        method=METHODS[kind],
        client_type=client_type,
        payer=payer,
        payable_until=_expiry(record, at),
        notify_url=_notify_url(record, "notify_url"),
        return_url="",
    )


def read_refund(account: SandboxAccount, record: dict[str, Any]) -> tuple[str, str, int, RefundOrder]:
    """A refund: transaction id and number (one of them), the payment's total, and the bank's terms. Raises RefusalError."""
    transaction = _text(record, "transaction_id", 32, default="")
    number = _text(record, "out_trade_no", 32, default="")
    if not transaction and not number:
        raise _wrong("transaction_id")
    amount = _object(record, "amount")
    refund, total = _fen(amount, "refund"), _fen(amount, "total")
    if refund > total:
        raise RefusalError(400, "PARAM_ERROR", "退款金额不能大于订单金额")
    order = RefundOrder(
        number=_matching(record, "out_refund_no", _REFUND_NUMBER),
        reference=transaction,
        amount_minor=refund,
        currency=_text(amount, "currency", 16),
        notify_url=_notify_url(record, "notify_url") if "notify_url" in record else "",
    )
    _text(record, "reason", 80, default="")
    return transaction, number, total, order


def check_close(account: SandboxAccount, record: dict[str, Any]) -> None:
    """The body of a close names the merchant. Raises RefusalError."""
    _check_merchant(account, record)


def _check_merchant(account: SandboxAccount, record: dict[str, Any]) -> None:
    if _text(record, "mchid", 32) != account.merchant:
        raise RefusalError(400, "PARAM_ERROR", "请求中的商户号与签名中的商户号不一致")


def _expiry(record: dict[str, Any], at: float) -> float:
    if "time_expire" not in record:
        return NEVER
    try:
        until = wire.moment(record, "time_expire").timestamp()
    except MalformedError:
        raise _wrong("time_expire") from None
    if until < at + EXPIRY_SECONDS_MIN:
        raise _wrong("time_expire")
    return until


def _notify_url(record: dict[str, Any], name: str) -> str:
    value = _text(record, name, 255)
    try:
        parts = urlsplit(value)
    except ValueError:
        raise _wrong(name) from None
    # The real channel wants https for public names; plain http is left to private lines, as 127.0.0.1 is here.
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise _wrong(name)
    return value


def _text(record: dict[str, Any], name: str, characters_max: int, *, default: str | None = None) -> str:
    try:
        value = wire.text(record, name, default=default, characters_max=characters_max)
    except MalformedError:
        raise _wrong(name) from None
    if not value and default is None:
        raise _wrong(name)
    return value


def _matching(record: dict[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    value = _text(record, name, 64)
    if not pattern.fullmatch(value):
        raise _wrong(name)
    return value


def _fen(record: dict[str, Any], name: str) -> int:
    try:
        return wire.amount(record, name, least=1)
    except MalformedError:
        raise _wrong(name) from None


def _object(record: dict[str, Any], name: str) -> dict[str, Any]:
    value = record.get(name)
    if not isinstance(value, dict):
        raise _wrong(name)
    return value


def _wrong(name: str) -> RefusalError:
    return RefusalError(400, "PARAM_ERROR", f"输入源“/body/{name}”映射到值字段规则校验失败")


# --- answers and notifications ---


def signed_headers(keys: Mapping[str, str], serial: str, body: bytes, at: float, forgery: str = "") -> dict[str, str]:
    """The headers of a message that is signed with the key of this serial, or forged."""
    if forgery == "no_signature":
        return {}
    timestamp, nonce = str(int(at)), secrets.token_hex(16)
    text = f"{timestamp}\n{nonce}\n".encode() + body + b"\n"
    if forgery == "bad_signature":
        signature = PROBE + base64.b64encode(secrets.token_bytes(150)).decode()
    else:
        name = "public_key_private" if serial == keys["public_key_id"] else "platform_private"
        key = foreign_key() if forgery == "other_secret" else _private_key(keys[name])
        signature = sign_rsa(key, text)
    return {
        "wechatpay-timestamp": timestamp, "wechatpay-nonce": nonce, "wechatpay-signature": signature,
        "wechatpay-serial": serial, "wechatpay-signature-type": AUTHORIZATION,
    }  # fmt: skip


def sealed(apiv3_key: str, content: dict[str, Any], kind: str) -> dict[str, str]:
    """A notification's resource: the content under AES-256-GCM with the APIv3 key."""
    return {"original_type": kind, **seal(apiv3_key, json.dumps(content, ensure_ascii=False).encode(), kind)}


def seal(apiv3_key: str, content: bytes, associated: str) -> dict[str, str]:
    """Bytes under AES-256-GCM, as WeChat Pay writes them."""
    nonce = secrets.token_hex(6)
    ciphertext = AESGCM(apiv3_key.encode()).encrypt(nonce.encode(), content, associated.encode())
    return {"algorithm": "AEAD_AES_256_GCM", "ciphertext": base64.b64encode(ciphertext).decode(),
            "associated_data": associated, "nonce": nonce}  # fmt: skip


def platform_serial(keys: Mapping[str, str]) -> str:
    """The serial of the platform certificate."""
    return f"{load_certificate(keys['platform_certificate']).serial_number:X}"


def beijing(seconds: float) -> str:
    """A Unix time as the channel writes it."""
    return format_time(datetime.fromtimestamp(seconds, UTC))


@cache
def _private_key(text: str) -> rsa.RSAPrivateKey:
    return load_private_key(text)


@cache
def foreign_key() -> rsa.RSAPrivateKey:
    """A key of somebody else."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
