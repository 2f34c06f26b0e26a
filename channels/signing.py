"""HMAC-SHA256 signatures: of the sandbox's own dialect, and of Standard Webhooks for messages to a shop.

The algorithm is pinned: a signature that names another one is refused, never negotiated. Comparisons take constant
time. A timestamp is refused when it is more than the replay window away in either direction.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

REPLAY_WINDOW_SECONDS = 300
_ALGORITHM = "hmac-sha256="
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)
_NONCE = re.compile(r"[0-9A-Za-z_-]{8,64}", re.ASCII)

HEADER_ACCOUNT = "sandbox-account"
HEADER_TIMESTAMP = "sandbox-timestamp"
HEADER_NONCE = "sandbox-nonce"
HEADER_SIGNATURE = "sandbox-signature"


class SignatureVerdict(StrEnum):
    """What a signature check found."""

    GOOD = "good"
    MISSING = "missing_signature"
    BAD = "bad_signature"
    STALE = "stale_timestamp"  # the signature is good, its time is not


@dataclass(frozen=True, slots=True)
class Signature:
    """The three signed headers of a message, as received or as to be sent."""

    timestamp: str
    nonce: str
    value: str

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "Signature":
        """Read them from headers with lower-case names; what is missing is empty."""
        names = (HEADER_TIMESTAMP, HEADER_NONCE, HEADER_SIGNATURE)
        return cls(*(headers.get(name, "") for name in names))

    def headers(self) -> dict[str, str]:
        """The headers to send."""
        return {HEADER_TIMESTAMP: self.timestamp, HEADER_NONCE: self.nonce, HEADER_SIGNATURE: self.value}


def new_nonce() -> str:
    """An unpredictable nonce."""
    return secrets.token_hex(16)


def sign_request(secret: str, account: str, method: str, target: str, body: bytes, seconds: float) -> Signature:
    """Sign a request to the sandbox. `target` is path and query exactly as sent; `seconds` is the Unix time."""
    return _sign(secret, ("request", account, method, target), body, seconds, new_nonce())


def verify_request(
    secret: str, account: str, method: str, target: str, body: bytes, signature: Signature, seconds: float
) -> SignatureVerdict:
    """Check a request as the sandbox does."""
    return _verify(secret, ("request", account, method, target), body, signature, seconds)


def sign_answer(secret: str, request_nonce: str, status: int, body: bytes, seconds: float) -> Signature:
    """Sign an answer. It covers the request's nonce, so that it answers no other request."""
    return _sign(secret, ("answer", request_nonce, str(status)), body, seconds, new_nonce())


def verify_answer(
    secret: str, request_nonce: str, status: int, body: bytes, signature: Signature, seconds: float
) -> SignatureVerdict:
    """Check an answer as the adapter does."""
    return _verify(secret, ("answer", request_nonce, str(status)), body, signature, seconds)


def sign_notification(secret: str, merchant: str, body: bytes, seconds: float) -> Signature:
    """Sign a notification over its exact bytes. The path is left out: proxies in front of a shop may change it."""
    return _sign(secret, ("notification", merchant), body, seconds, new_nonce())


def verify_notification(
    secret: str, merchant: str, body: bytes, signature: Signature, seconds: float
) -> SignatureVerdict:
    """Check a notification as the adapter does. STALE is said only of a good signature."""
    return _verify(secret, ("notification", merchant), body, signature, seconds)


def _sign(secret: str, parts: tuple[str, ...], body: bytes, seconds: float, nonce: str) -> Signature:
    timestamp = str(int(seconds))
    return Signature(timestamp, nonce, _ALGORITHM + _digest(secret, parts, timestamp, nonce, body))


def _digest(secret: str, parts: tuple[str, ...], timestamp: str, nonce: str, body: bytes) -> str:
    if not secret:
        raise ValueError("an empty secret signs nothing")
    lines = ("payonce-sandbox-1", *parts, timestamp, nonce, hashlib.sha256(body).hexdigest())
    # No part can hold a line break: they are headers, a method, a path or numbers. So no two messages share one text.
    text = "\n".join(lines) + "\n"
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def _verify(secret: str, parts: tuple[str, ...], body: bytes, signature: Signature, seconds: float) -> SignatureVerdict:
    if not (signature.timestamp and signature.nonce and signature.value):
        return SignatureVerdict.MISSING
    if not (_SECONDS.fullmatch(signature.timestamp) and _NONCE.fullmatch(signature.nonce)):
        return SignatureVerdict.BAD
    expected = _ALGORITHM + _digest(secret, parts, signature.timestamp, signature.nonce, body)
    if not hmac.compare_digest(expected.encode(), signature.value.encode("utf-8", "surrogateescape")):
        return SignatureVerdict.BAD
    if abs(seconds - int(signature.timestamp)) > REPLAY_WINDOW_SECONDS:
        return SignatureVerdict.STALE
    return SignatureVerdict.GOOD


# --- Standard Webhooks (https://www.standardwebhooks.com) ---

_WEBHOOK_PREFIX = "whsec_"
_WEBHOOK_VERSION = "v1"
_WEBHOOK_SIGNATURES_MAX = 16
WEBHOOK_SECRET_BYTES_MIN = 24


def new_webhook_secret() -> str:
    """A new secret of a shop's endpoint, as `whsec_` and base64."""
    return _WEBHOOK_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def webhook_key(secret: str) -> bytes:
    """The key's bytes. Raises ValueError unless the secret is `whsec_` and base64 of at least 24 bytes."""
    if not secret.startswith(_WEBHOOK_PREFIX):
        raise ValueError('a webhook secret starts with "whsec_"')
    try:
        key = base64.b64decode(secret.removeprefix(_WEBHOOK_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError('a webhook secret is base64 after "whsec_"') from None
    if len(key) < WEBHOOK_SECRET_BYTES_MIN:
        raise ValueError(f"a webhook secret holds at least {WEBHOOK_SECRET_BYTES_MIN} bytes")
    return key


def sign_webhook(secrets_in_use: str | tuple[str, ...], message_id: str, seconds: float, body: bytes) -> dict[str, str]:
    """The headers of a message to a shop. With two secrets (a change-over) both signatures are sent.

    `message_id` stays the same over retries; `seconds` is the Unix time of this attempt.
    """
    if not message_id or not message_id.isascii() or not message_id.isprintable() or "." in message_id:
        raise ValueError("a message id is printable ASCII without a dot")
    in_use = (secrets_in_use,) if isinstance(secrets_in_use, str) else secrets_in_use
    if not in_use:
        raise ValueError("a message needs at least one secret")
    timestamp = str(int(seconds))
    signatures = (_webhook_signature(webhook_key(secret), message_id, timestamp, body) for secret in in_use)
    return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": " ".join(signatures)}


def verify_webhook(
    secret: str, headers: Mapping[str, str], body: bytes, seconds: float, tolerance_seconds: int = REPLAY_WINDOW_SECONDS
) -> SignatureVerdict:
    """Check a message as a shop does. Header names are lower-case."""
    key = webhook_key(secret)
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    offered = headers.get("webhook-signature", "").split(" ")
    if not (message_id and timestamp and offered[0]):
        return SignatureVerdict.MISSING
    if not _SECONDS.fullmatch(timestamp):
        return SignatureVerdict.BAD
    expected = _webhook_signature(key, message_id, timestamp, body).encode()
    candidates = (text.encode("utf-8", "surrogateescape") for text in offered[:_WEBHOOK_SIGNATURES_MAX])
    if not any(hmac.compare_digest(expected, candidate) for candidate in candidates):
        return SignatureVerdict.BAD
    fresh = abs(seconds - int(timestamp)) <= tolerance_seconds
    return SignatureVerdict.GOOD if fresh else SignatureVerdict.STALE


def _webhook_signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    content = message_id.encode("utf-8", "surrogateescape") + b"." + timestamp.encode() + b"." + body
    digest = hmac.new(key, content, hashlib.sha256).digest()
    return f"{_WEBHOOK_VERSION},{base64.b64encode(digest).decode()}"
