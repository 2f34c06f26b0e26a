"""Tokens of the API: a shop client's (random, its hash in a row) and a buyer's (signed, no row, for one order)."""

import hashlib
import secrets

from django.core import signing

from payonce.orders.conf import get_settings

CLIENT_PREFIX = "pos_"
BUYER_SALT = "payonce.buyer"


class TokenRefused(Exception):
    """The token is not one of ours, was altered, or is over; `is_expired` says the last."""

    def __init__(self, is_expired: bool = False) -> None:
        super().__init__("expired" if is_expired else "not valid")
        self.is_expired = is_expired


def new_client_token() -> str:
    """A fresh token for a shop client: 256 random bits. Shown once; only its hash is kept."""
    return CLIENT_PREFIX + secrets.token_urlsafe(32)


def hash_client_token(token: str) -> str:
    """What `ApiClient.token_hash` holds. The token is random, so a plain hash cannot be guessed back."""
    return hashlib.sha256(token.encode()).hexdigest()


def is_client_token(token: str) -> bool:
    """Does this claim to be a shop client's token?"""
    return token.startswith(CLIENT_PREFIX)


def sign_buyer_token(order_number: str) -> str:
    """A token that grants one order to its buyer for `PAYONCE["BUYER_TOKEN_SECONDS"]`. Fits in a URL."""
    return _signer().sign(order_number)


def read_buyer_token(token: str) -> str:
    """The number of the order that a buyer's token grants. No database. Raises TokenRefused."""
    try:
        return _signer().unsign(token, max_age=get_settings().BUYER_TOKEN_SECONDS)
    except signing.SignatureExpired as error:
        raise TokenRefused(is_expired=True) from error
    except signing.BadSignature as error:
        raise TokenRefused from error


def _signer() -> signing.TimestampSigner:
    return signing.TimestampSigner(salt=BUYER_SALT, sep=".")
