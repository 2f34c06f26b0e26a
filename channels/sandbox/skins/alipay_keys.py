"""Fresh keys and certificates of an Alipay account: the bank's half and the shop's."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from payonce.channels.alipay_wire import certificate_sn, root_certificate_sn
from payonce.channels.keys import load_private_key, load_public_key

YEARS_5 = timedelta(days=5 * 365)
Halves = tuple[dict[str, Any], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Authority:
    name: x509.Name
    key: RSAPrivateKey


def public_key_halves(base_url: str) -> Halves:
    """An account in public-key mode."""
    app, alipay = new_key(), new_key()
    bank, shop = _same_halves(base_url, app, alipay)
    return bank, {**shop, "alipay_public_key": public_text(alipay)}


def certificate_halves(base_url: str) -> Halves:
    """An account in certificate mode, with a chain of two RSA roots and one that does not count, as Alipay's has."""
    app, alipay = new_key(), new_key()
    bank, shop = _same_halves(base_url, app, alipay)
    authority = _Authority(_name("Sandbox Certification Authority Class 2 R1"), new_key())
    roots = [_certificate(authority, authority.name, authority.key.public_key()), _ec_root(), _other_root()]
    ours = _certificate(authority, _name("shop"), app.public_key())
    theirs = _certificate(authority, _name("alipay"), alipay.public_key())
    bank["keys"] |= {
        "app_cert_sn": certificate_sn(ours),
        "alipay_root_cert_sn": root_certificate_sn(roots),
        "alipay_cert_sn": certificate_sn(theirs),
    }
    chain = "\n\n".join(_pem(root).strip() for root in roots)
    return bank, {**shop, "app_cert": _pem(ours), "alipay_cert": _pem(theirs), "alipay_root_cert": chain}


def new_key() -> RSAPrivateKey:
    """A key of the size that Alipay asks for."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def private_text(key: RSAPrivateKey) -> str:
    """The key in PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_text(key: RSAPrivateKey) -> str:
    """Its public half in PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@lru_cache(maxsize=256)
def private_of(text: str) -> RSAPrivateKey:
    """A key that was read before is not checked again: that takes longer than to sign with it."""
    return load_private_key(text)


@lru_cache(maxsize=256)
def public_of(text: str) -> RSAPublicKey:
    """As `private_of`."""
    return load_public_key(text)


@lru_cache(maxsize=1)
def forger() -> RSAPrivateKey:
    """A key of nobody."""
    return new_key()


def _same_halves(base_url: str, app: RSAPrivateKey, alipay: RSAPrivateKey) -> Halves:
    app_id = f"2021{secrets.randbelow(10**12):012d}"
    seller_id = f"2088{secrets.randbelow(10**12):012d}"
    keys = {"app_id": app_id, "app_public_key": public_text(app), "alipay_private_key": private_text(alipay)}
    shop = {"adapter": "alipay", "app_id": app_id, "seller_id": seller_id, "private_key": private_text(app),
            "methods": ["qr", "web", "h5", "app"], "base_url": f"{base_url}/gateway.do"}  # fmt: skip
    return {"merchant": seller_id, "keys": keys}, shop


def _name(common: str) -> x509.Name:
    parts = ((NameOID.COUNTRY_NAME, "CN"), (NameOID.ORGANIZATION_NAME, "Sandbox"),
             (NameOID.ORGANIZATIONAL_UNIT_NAME, "Certification Authority"), (NameOID.COMMON_NAME, common))  # fmt: skip
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def _builder(issuer: x509.Name, subject: x509.Name, key: Any) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().issuer_name(issuer).subject_name(subject).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + YEARS_5)


def _certificate(authority: _Authority, subject: x509.Name, key: RSAPublicKey) -> x509.Certificate:
    return _builder(authority.name, subject, key).sign(authority.key, SHA256())


def _other_root() -> x509.Certificate:
    other = _Authority(_name("Sandbox Certification Authority R1"), new_key())
    return _certificate(other, other.name, other.key.public_key())


def _ec_root() -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Sandbox Certification Authority E1")
    return _builder(name, name, key.public_key()).sign(key, SHA256())


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
