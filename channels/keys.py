"""RSA keys of channels: read from the settings once, with errors that say what is wrong, and used to sign and verify.

Channels give keys as PEM (PKCS#1 or PKCS#8, a public key or a certificate) or as the bare base64 of its content.
Signatures are SHA256withRSA (PKCS#1 v1.5) in base64, as Alipay, PayPal and WeChat Pay use them.
"""

import base64
import binascii
import re
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key

RSA_BITS_MIN = 2_048
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]+-----(.+?)-----END [A-Z0-9 ]+-----", re.DOTALL)


class KeyTextError(ValueError):
    """A text is not the key that it should be; the message says why and never repeats the text."""


def load_private_key(text: str) -> RSAPrivateKey:
    """Read an RSA private key of at least 2048 bits. Raises KeyTextError."""
    try:
        key = load_der_private_key(_der(text), password=None)
    except (ValueError, TypeError) as error:
        raise KeyTextError("is not a private key in PEM or base64, without a password") from error
    if not isinstance(key, RSAPrivateKey) or key.key_size < RSA_BITS_MIN:
        raise KeyTextError(f"must be an RSA key of at least {RSA_BITS_MIN} bits")
    return key


def load_public_key(text: str) -> RSAPublicKey:
    """Read an RSA public key of at least 2048 bits, or that of a certificate. Raises KeyTextError."""
    try:
        der = _der(text)
        key = load_certificate(text).public_key() if "CERTIFICATE" in text else load_der_public_key(der)
    except ValueError as error:
        raise KeyTextError("is not a public key or certificate in PEM or base64") from error
    if not isinstance(key, RSAPublicKey) or key.key_size < RSA_BITS_MIN:
        raise KeyTextError(f"must be an RSA key of at least {RSA_BITS_MIN} bits")
    return key


def load_certificate(text: str) -> x509.Certificate:
    """Read the first X.509 certificate of a text. Raises KeyTextError."""
    try:
        return x509.load_der_x509_certificate(_der(text))
    except ValueError as error:
        raise KeyTextError("is not a certificate in PEM") from error


def sign_rsa(key: RSAPrivateKey, data: bytes) -> str:
    """The signature of `data` in base64."""
    return base64.b64encode(key.sign(data, PKCS1v15(), SHA256())).decode("ascii")


def verify_rsa(key: RSAPublicKey, data: bytes, signature: str) -> bool:
    """Does this base64 signature belong to `data`? False also for what is no base64."""
    try:
        key.verify(base64.b64decode(signature, validate=True), data, PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True


def is_private_key(value: Any) -> str:
    """An option's rule: what is wrong with a private key, or an empty text."""
    return _fault(load_private_key, value)


def is_public_key(value: Any) -> str:
    """An option's rule: what is wrong with a public key or certificate, or an empty text."""
    return _fault(load_public_key, value)


def _fault(load: Any, value: Any) -> str:
    if not isinstance(value, str):
        return "must be a text"
    try:
        load(value)
    except KeyTextError as error:
        return str(error)
    return ""


def _der(text: str) -> bytes:
    found = _PEM.search(text)
    try:
        return base64.b64decode("".join((found[1] if found else text).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise KeyTextError("is neither PEM nor base64") from error
