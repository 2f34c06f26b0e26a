"""A direct merchant's account at WeChat Pay v3: its options, its keys, signatures both ways, and decryption.

Platform certificates are given in the settings and never fetched: a message that nobody verified makes us call nobody.
"""

import base64
import binascii
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Self

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from payonce.channels.errors import ChannelConfigError
from payonce.channels.keys import (
    KeyTextError,
    is_private_key,
    is_public_key,
    load_certificate,
    load_private_key,
    load_public_key,
    sign_rsa,
    verify_rsa,
)
from payonce.channels.messages import PrepayKind
from payonce.channels.options import Option, is_base_url, is_integer, is_list_of, is_mapping, is_one_of, is_text
from payonce.channels.sandbox import wire
from payonce.channels.sandbox.wire import MalformedError

BASE_URL = "https://api.mch.weixin.qq.com"  # the second address is https://api2.mch.weixin.qq.com
REPLAY_WINDOW_SECONDS = 300  # doc/v3/merchant/4013053420: allow five minutes, refuse more as a possible replay
AUTHORIZATION = "WECHATPAY2-SHA256-RSA2048"
# docs/merchant/development/interface-rules/signature-verification.html: wrong signatures sent on purpose, on answers and
# notifications, to see who does not check.
PROBE = "WECHATPAY/SIGNTEST/"
KINDS = {"qr": PrepayKind.QR, "jsapi": PrepayKind.APP, "h5": PrepayKind.REDIRECT, "app": PrepayKind.APP}
_CONSOLE = "In the merchant platform: Account center, API security"
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)


class Signed(StrEnum):
    """What a signature check found."""

    GOOD = "good"
    MISSING = "missing_signature"
    UNKNOWN_SERIAL = "unknown_serial"
    PROBE = "signature_probe"
    BAD = "bad_signature"
    STALE = "stale_timestamp"  # the signature is good, its time is not


@dataclass(frozen=True, slots=True)
class Account:
    """One direct merchant: its keys, and WeChat Pay's keys by serial. Both kinds may be there during a change-over."""

    base_url: str
    mchid: str
    appid: str
    appids: Mapping[str, str]
    methods: tuple[str, ...]
    serial: str
    private_key: RSAPrivateKey = field(repr=False)
    apiv3_key: bytes = field(repr=False)
    verifiers: Mapping[str, RSAPublicKey] = field(repr=False)
    asked_serial: str
    timeout_seconds: int

    @classmethod
    def of(cls, name: str, read: Mapping[str, Any], at: datetime) -> Self:
        """From options that were read. Raises ChannelConfigError that names the option which does not fit the others."""
        where = f'PAYONCE["CHANNELS"]["{name}"]'
        private_key = load_private_key(read["private_key"])
        verifiers = _verifiers(where, read, at)
        if any(_is_pair(private_key, key) for key in verifiers.values()):
            raise ChannelConfigError(
                f'{where}["public_key"] or ["platform_certificates"] holds the merchant\'s own key. It must be the one of '
                "WeChat Pay, from the merchant platform: Account center, API security."
            )
        return cls(
            base_url=read["base_url"].rstrip("/"), mchid=read["mchid"], appid=read["appid"],
            appids=dict(read["appids"]), methods=tuple(read["methods"]), serial=_serial(where, read, private_key),
            private_key=private_key, apiv3_key=read["apiv3_key"].encode(), verifiers=verifiers,
            asked_serial=read["public_key_id"] or next(reversed(verifiers)), timeout_seconds=read["timeout_seconds"],
        )  # fmt: skip

    def appid_of(self, method: str) -> str:
        """The application that a method belongs to."""
        return self.appids.get(method, self.appid)

    def authorization(self, method: str, target: str, body: bytes, seconds: float) -> str:
        """The header that signs a request; `target` is path and query exactly as sent."""
        timestamp, nonce = str(int(seconds)), secrets.token_hex(16).upper()
        text = f"{method}\n{target}\n{timestamp}\n{nonce}\n".encode() + body + b"\n"
        signature = sign_rsa(self.private_key, text)
        return (
            f'{AUTHORIZATION} mchid="{self.mchid}",nonce_str="{nonce}",timestamp="{timestamp}",'
            f'serial_no="{self.serial}",signature="{signature}"'
        )

    def check(self, headers: Mapping[str, str], body: bytes, seconds: float) -> Signed:
        """Is a message with these lower-case headers truly WeChat Pay's, and of this moment (doc/v3/merchant/4013053420)?

        A key that we do not hold is an answer, never a reason to fetch one: nobody unverified makes us call anybody.
        """
        names = ("wechatpay-timestamp", "wechatpay-nonce", "wechatpay-signature", "wechatpay-serial")
        timestamp, nonce, signature, serial = (headers.get(name, "") for name in names)
        if not (timestamp and nonce and signature and serial):
            return Signed.MISSING
        if signature.startswith(PROBE):
            return Signed.PROBE
        key = self.verifiers.get(normal_serial(serial))
        if key is None:
            return Signed.UNKNOWN_SERIAL
        algorithm = headers.get("wechatpay-signature-type", AUTHORIZATION)
        if algorithm != AUTHORIZATION or not _SECONDS.fullmatch(timestamp) or not nonce.isascii():
            return Signed.BAD
        if not verify_rsa(key, f"{timestamp}\n{nonce}\n".encode() + body + b"\n", signature):
            return Signed.BAD
        return Signed.GOOD if abs(seconds - int(timestamp)) <= REPLAY_WINDOW_SECONDS else Signed.STALE

    def decrypt(self, resource: Any) -> bytes:
        """The content of a notification's `resource` (doc/v3/merchant/4012791836). Raises MalformedError."""
        if not isinstance(resource, dict) or resource.get("algorithm") != "AEAD_AES_256_GCM":
            raise MalformedError("resource")
        names = ("nonce", "ciphertext", "associated_data")  # the last may be empty or null; it is authenticated anyway
        given = {name: resource.get(name) or "" for name in names}
        parts = [wire.text(given, name, characters_max=1_000_000) for name in names]
        try:
            sealed = base64.b64decode(parts[1], validate=True)
            return AESGCM(self.apiv3_key).decrypt(parts[0].encode(), sealed, parts[2].encode())
        except (InvalidTag, ValueError, binascii.Error):
            raise MalformedError("ciphertext: is apiv3_key right?") from None


def normal_serial(serial: str) -> str:
    """A serial as it is compared: hexadecimal ones without regard to case and leading zeros."""
    return serial if serial.startswith("PUB_KEY_ID_") else serial.upper().lstrip("0")


def is_certificate(value: Any) -> str:
    """An option's rule: what is wrong with a certificate, or an empty text. Its expiry is judged elsewhere."""
    if not isinstance(value, str):
        return "must be a text"
    try:
        load_certificate(value)
        load_public_key(value)
    except KeyTextError as error:
        return str(error)
    return ""


def is_valid_certificate(value: Any) -> str:
    """As `is_certificate`, and not expired."""
    fault = is_certificate(value)
    if fault:
        return fault
    ends = load_certificate(value).not_valid_after_utc
    return f"expired on {ends:%Y-%m-%d}" if ends <= datetime.now(UTC) else ""


def is_apiv3_key(value: Any) -> str:
    """An option's rule: 32 ASCII letters and digits."""
    fits = isinstance(value, str) and value.isascii() and value.isalnum() and len(value) == 32
    return "" if fits else "must be 32 letters and digits"


def matches(pattern: str, what: str) -> Callable[[Any], str]:
    """An option's rule: a text of this pattern."""
    compiled = re.compile(pattern, re.ASCII)
    return lambda value: "" if isinstance(value, str) and compiled.fullmatch(value) else f"must be {what}"


def _verifiers(where: str, read: Mapping[str, Any], at: datetime) -> dict[str, RSAPublicKey]:
    if bool(read["public_key"]) != bool(read["public_key_id"]):
        missing = "public_key_id" if read["public_key"] else "public_key"
        raise ChannelConfigError(f'{where} has no "{missing}". Give the public key and its id together.')
    certificates = [load_certificate(text) for text in read["platform_certificates"] or ()]
    valid = sorted((c for c in certificates if c.not_valid_after_utc > at), key=lambda c: c.not_valid_before_utc)
    found = {f"{certificate.serial_number:X}": _public_key(certificate) for certificate in valid}
    if read["public_key"]:
        found[read["public_key_id"]] = load_public_key(read["public_key"])
    if certificates and not found:
        last = max(certificate.not_valid_after_utc for certificate in certificates)
        raise ChannelConfigError(
            f'{where}["platform_certificates"] expired on {last:%Y-%m-%d}. Download the present ones, or better switch to '
            "public_key and public_key_id, which do not expire."
        )
    if not found:
        raise ChannelConfigError(
            f'{where} has neither "public_key" with "public_key_id" nor "platform_certificates": nothing that WeChat Pay '
            "says could be verified. Take the public key from the merchant platform: Account center, API security."
        )
    return found


def _serial(where: str, read: Mapping[str, Any], private_key: RSAPrivateKey) -> str:
    if not read["certificate"]:
        if not read["certificate_serial"]:
            raise ChannelConfigError(
                f'{where} has neither "certificate" nor "certificate_serial". Give the text of apiclient_cert.pem.'
            )
        return str(read["certificate_serial"])
    certificate = load_certificate(read["certificate"])
    if not _is_pair(private_key, _public_key(certificate)):
        raise ChannelConfigError(
            f'{where}["certificate"] does not belong to ["private_key"]. Take apiclient_cert.pem and apiclient_key.pem '
            "from the same download."
        )
    serial = f"{certificate.serial_number:X}"
    if read["certificate_serial"] and normal_serial(read["certificate_serial"]) != serial:
        raise ChannelConfigError(f'{where}["certificate_serial"] is not that of ["certificate"]. Leave it out.')
    return serial


def _public_key(certificate: x509.Certificate) -> RSAPublicKey:
    key = certificate.public_key()
    assert isinstance(key, RSAPublicKey)  # the option's rule let nothing else pass
    return key


def _is_pair(private_key: RSAPrivateKey, public_key: RSAPublicKey) -> bool:
    return private_key.public_key().public_numbers() == public_key.public_numbers()


OPTION_SPECS = (
    Option("base_url", is_base_url, default=BASE_URL, hint="Leave it out, except for a simulator"),
    Option("mchid", matches(r"[0-9]{8,32}", "the merchant number, digits only"), required=True,
           hint="The number of the merchant account (商户号)"),
    Option("appid", matches(r"wx[0-9a-zA-Z]{4,30}", 'an application id, starting with "wx"'), required=True,
           hint="The official account, mini program or app that is bound to the merchant account"),
    Option("appids", is_mapping, default=MappingProxyType({}), hint='Another appid for a method: {"app": "wx…"}'),
    Option("methods", is_list_of(is_one_of(*KINDS)), default=("qr",),
           hint="Those that are opened in the merchant platform's product center"),
    Option("private_key", is_private_key, required=True, secret=True,
           hint="The text of apiclient_key.pem, which is made together with the merchant API certificate"),
    Option("certificate", is_valid_certificate, hint=f"The text of apiclient_cert.pem. {_CONSOLE}, a new one is made"),
    Option("certificate_serial", matches(r"[0-9A-Fa-f]{8,64}", "the certificate's serial number in hexadecimal"),
           hint="Only where the certificate itself is not given: openssl x509 -in apiclient_cert.pem -noout -serial"),
    Option("apiv3_key", is_apiv3_key, required=True, secret=True, hint=f"The APIv3 key. {_CONSOLE}, it is set"),
    Option("public_key", is_public_key, hint=f"The text of pub_key.pem, WeChat Pay's public key. {_CONSOLE}"),
    Option("public_key_id", matches(r"PUB_KEY_ID_[0-9A-Za-z]{1,64}", 'the id that starts with "PUB_KEY_ID_"'),
           hint=f"It stands beside the public key. {_CONSOLE}"),
    Option("platform_certificates", is_list_of(is_certificate), default=(),
           hint="The texts of WeChat Pay's platform certificates, where the account is older than public keys"),
    Option("timeout_seconds", is_integer(1, 12), default=10, hint="Total time of one call"),
    Option("display_name", is_text, hint="What people read on the cashier page"),
)  # fmt: skip
