"""Who calls: a shop client, a buyer, or nobody. What a caller may not see looks as if it did not exist."""

from dataclasses import dataclass
from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from payonce.orders.conf import get_settings
from payonce.payments import tokens
from payonce.payments.api.problems import Problem, not_found
from payonce.payments.models import ApiClient


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. A shop has a `source`, a buyer an `order`, an operator neither.

    `name` is how the caller is recorded in events and scopes Idempotency-Keys.
    """

    name: str
    source: str = ""
    order: str = ""
    is_operator: bool = False
    is_authenticated: bool = True

    @property
    def is_shop(self) -> bool:
        """May this caller act for a whole shop?"""
        return bool(self.source)

    @property
    def pk(self) -> str:
        """What a project's own throttle classes count by."""
        return self.name

    def require_order(self, number: str) -> None:
        """Refuse a buyer another order, before anything is read. Raises Problem."""
        if self.order and self.order != number:
            raise not_found()

    def require_source(self, source: str) -> None:
        """Refuse a shop what another source placed. Raises Problem."""
        if self.source and self.source != source:
            raise not_found()

    def require_shop(self) -> None:
        """Refuse a buyer what only the shop may do. Raises Problem."""
        if not self.is_shop:
            raise Problem(403, "not_allowed", "Only the shop that placed the order may do this.")


class BearerAuthentication(BaseAuthentication):
    """`Authorization: Bearer <token>`: a shop client's token (one indexed read) or a buyer's (no database at all)."""

    def authenticate(self, request: Request) -> tuple[Any, str] | None:
        """The caller and the token; None without the header. Raises Problem for a token that is not valid."""
        scheme, _, token = str(request.META.get("HTTP_AUTHORIZATION", "")).partition(" ")
        if not scheme:
            return None
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > 256 or not token.isascii():
            raise Problem(401, "token_invalid", "Write: Authorization: Bearer <token>.")
        return caller_of(token), token

    def authenticate_header(self, request: Request) -> str:
        """What a 401 tells the client to send."""
        return 'Bearer realm="payonce"'


def caller_of(token: str) -> Caller:
    """The caller that a token stands for. Raises Problem (401)."""
    if tokens.is_client_token(token):
        rows = ApiClient.objects.using(get_settings().DATABASE)
        client = rows.filter(token_hash=tokens.hash_client_token(token), is_active=True).first()
        if client is None:
            raise Problem(401, "token_invalid", "This token is not valid, or was revoked.")
        return Caller(name=f"shop:{client.source}", source=client.source)
    try:
        order = tokens.read_buyer_token(token)
    except tokens.TokenRefused as refused:
        if refused.is_expired:
            raise Problem(401, "token_expired", "This token is over. Ask the shop for a new one.") from refused
        raise Problem(401, "token_invalid", "This token is not valid.") from refused
    return Caller(name="buyer", order=order)
