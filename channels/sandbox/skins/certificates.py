"""Certificates that the bank signs with, made on the spot."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

VALID_DAYS = 5 * 365


def new_certificate(key: RSAPrivateKey, common_name: str, *, days: int = VALID_DAYS) -> tuple[str, str]:
    """The private key and a self-signed certificate of it, both as PEM. With a negative `days` it has expired."""
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    begins = now - timedelta(days=1 if days > 0 else 1 - days)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(now + timedelta(days=days))
        .sign(key, SHA256())
    )  # fmt: skip
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")
    return private, certificate.public_bytes(Encoding.PEM).decode("ascii")
