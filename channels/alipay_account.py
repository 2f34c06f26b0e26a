"""The options of an Alipay account: the application, its keys in one of the console's two modes, and what it has signed up for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from payonce.channels.alipay_wire import certificate_sn, certificates_of, root_certificate_sn
from payonce.channels.errors import ChannelConfigError
from payonce.channels.keys import (
    KeyTextError,
    is_private_key,
    is_public_key,
    load_certificate,
    load_private_key,
    load_public_key,
)
from payonce.channels.options import Option, is_base_url, is_integer, is_list_of, is_one_of, is_text, read_options

GATEWAY_URL = "https://openapi.alipay.com/gateway.do"
METHODS = ("qr", "web", "h5", "app")
_CERTIFICATE_MODE = ("app_cert", "alipay_cert", "alipay_root_cert")


def _is_digits(least: int, most: int, what: str) -> Callable[[Any], str]:
    def validate(value: Any) -> str:
        fits = isinstance(value, str) and value.isascii() and value.isdigit() and least <= len(value) <= most
        return "" if fits else f"must be {what}, as a text of digits"

    return validate


def _is_certificates(value: Any) -> str:
    """At least one RSA certificate that has not expired."""
    if not isinstance(value, str):
        return "must be a text"
    try:
        certificates = [load_certificate(text) for text in certificates_of(value)]
        for text in certificates_of(value):
            load_public_key(text)
    except KeyTextError as error:
        return str(error)
    if not certificates:
        return "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"
    newest = max(certificate.not_valid_after_utc for certificate in certificates)
    return f"expired on {newest.date().isoformat()}" if newest <= datetime.now(UTC) else ""


def _is_root(value: Any) -> str:
    return "" if isinstance(value, str) and _root_sn(value) else "holds no RSA certificate in PEM"


def _root_sn(text: str) -> str:
    """The chain's number. Certificates that cannot be read (Alipay's own chain has some for SM2 keys) do not count."""
    certificates = []
    for block in certificates_of(text):
        try:
            certificates.append(load_certificate(block))
        except KeyTextError:
            continue
    return root_certificate_sn(certificates)


OPTION_SPECS = (
    Option("app_id", _is_digits(8, 32, "the APPID of the application"), required=True,
           hint="Console → the application → APPID, 16 digits such as 2021003199665941."),
    Option("seller_id", _is_digits(16, 16, "the merchant's PID"), required=True,
           hint="The merchant's user number (PID), 16 digits that begin with 2088: console → account centre → PID."),
    Option("private_key", is_private_key, required=True, secret=True,
           hint="The application's private key (应用私钥), as the key tool wrote it: PEM or its base64, RSA of 2048 bits."),
    Option("alipay_public_key", is_public_key, secret=True,
           hint="Public-key mode: 支付宝公钥 (not 应用公钥) from console → the application → 接口加签方式."),
    Option("app_cert", _is_certificates, secret=True,
           hint="Certificate mode: the content of appCertPublicKey_….crt; download it again when it has expired."),
    Option("alipay_cert", _is_certificates, secret=True,
           hint="Certificate mode: the content of alipayCertPublicKey_RSA2.crt; during a change-over both, one after the other."),
    Option("alipay_root_cert", _is_root, secret=True,
           hint="Certificate mode: the content of alipayRootCert.crt, the whole chain."),
    Option("base_url", is_base_url, default=GATEWAY_URL,
           hint="The gateway: leave it out for live; for Alipay's own sandbox https://openapi-sandbox.dl.alipaydev.com/gateway.do"),
    Option("methods", is_list_of(is_one_of(*METHODS)), default=("qr",),
           hint="What the merchant has signed: qr 当面付, web 电脑网站支付, h5 手机网站支付, app APP支付; by default only qr."),
    Option("qr_product_code", is_text, default="FACE_TO_FACE_PAYMENT",
           hint="OFFLINE_PAYMENT or QR_CODE_OFFLINE where the contract for face-to-face payment says so."),
    Option("timeout_seconds", is_integer(1, 12), default=10, hint="Total time of one call."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AlipayAccount:
    """One application of one merchant. `verifying` holds Alipay's key, or those of its certificates by their numbers."""

    app_id: str
    seller_id: str
    signing: RSAPrivateKey = field(repr=False)
    verifying: Mapping[str, RSAPublicKey] = field(repr=False)
    certificates: Mapping[str, str]
    base_url: str
    methods: tuple[str, ...]
    qr_product_code: str
    timeout_seconds: int

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, Any]) -> Self:
        """Read the options. Raises ChannelConfigError that names what is wrong and how to fix it."""
        read = read_options(name, OPTION_SPECS, options)
        where = f'PAYONCE["CHANNELS"]["{name}"]'
        signing = load_private_key(read["private_key"])
        verifying, certificates = _read_mode(where, read, signing)
        return cls(
            app_id=read["app_id"],
            seller_id=read["seller_id"],
            signing=signing,
            verifying=verifying,
            certificates=certificates,
            base_url=read["base_url"],
            methods=tuple(dict.fromkeys(read["methods"])),
            qr_product_code=read["qr_product_code"],
            timeout_seconds=read["timeout_seconds"],
        )

    def keys(self, certificate: str = "") -> tuple[RSAPublicKey, ...]:
        """The keys that may have signed; where the message names a certificate, that one's, or none."""
        if certificate and self.certificates:
            return (self.verifying[certificate],) if certificate in self.verifying else ()
        return tuple(self.verifying.values())


def _read_mode(
    where: str, read: Mapping[str, Any], signing: RSAPrivateKey
) -> tuple[dict[str, RSAPublicKey], dict[str, str]]:
    """Alipay's keys, and the request fields of certificate mode (none in public-key mode)."""
    given = [name for name in _CERTIFICATE_MODE if read[name]]
    own = signing.public_key().public_numbers()
    if read["alipay_public_key"]:
        if given:
            raise ChannelConfigError(
                f'{where} has both "alipay_public_key" and "{given[0]}". Keep those of the mode that the console shows.'
            )
        key = load_public_key(read["alipay_public_key"])
        if key.public_numbers() == own:
            raise ChannelConfigError(
                f'{where}["alipay_public_key"] is the application\'s own public key (应用公钥). '
                "Copy 支付宝公钥 from the console instead: it is the one that verifies answers and notifications."
            )
        return {"": key}, {}
    missing = [name for name in _CERTIFICATE_MODE if not read[name]]
    if len(missing) == len(_CERTIFICATE_MODE):
        raise ChannelConfigError(
            f'{where} has no "alipay_public_key". Set it (public-key mode), or "app_cert", "alipay_cert" and '
            '"alipay_root_cert" (certificate mode): without it no answer and no notification can be believed.'
        )
    if missing:
        raise ChannelConfigError(f'{where} has no "{missing[0]}". Certificate mode needs all three certificates.')
    mine = certificates_of(read["app_cert"])[0]
    if load_public_key(mine).public_numbers() != own:
        raise ChannelConfigError(
            f'{where}["app_cert"] does not belong to "private_key". Use the certificate that the console made for this key.'
        )
    theirs = certificates_of(read["alipay_cert"])
    verifying = {certificate_sn(load_certificate(text)): load_public_key(text) for text in theirs}
    numbers = {
        "app_cert_sn": certificate_sn(load_certificate(mine)),
        "alipay_root_cert_sn": _root_sn(read["alipay_root_cert"]),
    }
    return verifying, numbers
