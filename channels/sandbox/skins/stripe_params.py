"""Reading Stripe's form encoding as strictly as Stripe does: what is unknown, missing or no number is refused by name.

Sources: docs.stripe.com/error-codes, and the parameters of Stripe's SDK 16.1. The skin takes a part of the parameters that the real
API knows; those that it does not play are refused as unknown, so that nothing is silently ignored.
"""

import re
from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import parse_qsl

_PART = re.compile(r"\[([^\[\]]*)\]")
_KEY = re.compile(r"[a-z_]+(\[[^\[\]]*\])*", re.ASCII)
METADATA_KEYS_MAX, METADATA_VALUE_MAX = 50, 500
_LIST = ("limit", "starting_after", "ending_before", "created", "created[gt]", "created[gte]", "created[lt]",
         "created[lte]", "expand[*]")  # fmt: skip

ALLOWED: dict[str, frozenset[str]] = {
    "session_create": frozenset(
        {"mode", "client_reference_id", "success_url", "cancel_url", "expires_at", "customer_email", "locale", "submit_type",
         "allowed_payment_method_types[*]", "line_items[*][quantity]", "line_items[*][price_data][currency]",
         "line_items[*][price_data][unit_amount]", "line_items[*][price_data][product_data][name]",
         "line_items[*][price_data][product_data][description]", "adaptive_pricing[enabled]", "metadata[?]",
         "payment_intent_data[metadata][?]", "payment_intent_data[description]"}
    ),
    "intent_create": frozenset(
        {"amount", "currency", "allowed_payment_method_types[*]", "automatic_payment_methods[enabled]", "description",
         "capture_method", "receipt_email", "metadata[?]"}
    ),
    "intent_cancel": frozenset({"cancellation_reason"}),
    "session_expire": frozenset(),
    "refund_create": frozenset({"payment_intent", "charge", "amount", "reason", "metadata[?]"}),
    "endpoint_create": frozenset({"url", "enabled_events[*]", "api_version", "description", "metadata[?]"}),
    "one": frozenset({"expand[*]"}),
    "sessions": frozenset({*_LIST, "payment_intent", "status"}),
    "intents": frozenset(_LIST),
    "refunds": frozenset({*_LIST, "payment_intent", "charge"}),
    "disputes": frozenset({*_LIST, "payment_intent", "charge"}),
    "events": frozenset({*_LIST, "type"}),
    "balance": frozenset({*_LIST, "type", "source"}),
}  # fmt: skip


class ApiError(Exception):
    """An answer with an `error` object."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str = "",
        param: str = "",
        kind: str = "invalid_request_error",
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        named = {"code": code, "message": message, "param": param, "type": kind}
        self.body: dict[str, Any] = {"error": {**{key: value for key, value in named.items() if value}, **more}}
        if code:
            self.body["error"]["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"


class Params:
    """The parameters of one request. Raises ApiError for the first that is wrong."""

    def __init__(self, text: str, allowed: str) -> None:
        try:
            pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), errors="strict")
        except ValueError:
            raise ApiError(400, "Invalid request: the body is not form encoded.") from None
        self.pairs: dict[str, str] = {}
        self.expand: list[str] = []
        known = ALLOWED[allowed]
        for key, value in pairs:
            name = _canonical(key)
            if _pattern(name) == "payment_method_types[*]":
                code = "payment_method_types_no_longer_supported"
                raise ApiError(400, "payment_method_types is no longer supported in this version.", code, key)
            if _pattern(name) not in known:
                raise ApiError(400, f"Received unknown parameter: {key.partition('[')[0]}", "parameter_unknown", key)
            if name.startswith("expand["):
                self.expand.append(value)
            self.pairs[_numbered(name, self.pairs)] = value

    def fingerprint(self) -> list[tuple[str, str]]:
        """All parameters, the same for the same request."""
        return sorted(self.pairs.items())

    def text(self, name: str, *, required: bool = False, characters_max: int = 5_000) -> str:
        """A text; empty where it is not given."""
        value = self.pairs.get(name, "")
        if required and name not in self.pairs:
            raise ApiError(400, f"Missing required param: {name}.", "parameter_missing", name)
        if required and not value:
            raise ApiError(400, f"You passed an empty string for '{name}'.", "parameter_invalid_empty", name)
        if len(value) > characters_max:
            raise ApiError(400, f"Invalid string: {name} is too long.", "parameter_invalid_string_too_long", name)
        return value

    def integer(self, name: str, least: int, most: int, *, required: bool = False) -> int | None:
        """A whole number in ASCII digits."""
        text = self.text(name, required=required)
        if not text:
            return None
        if not re.fullmatch(r"-?[0-9]{1,15}", text, re.ASCII):
            raise ApiError(400, f"Invalid integer: {text[:40]}", "parameter_invalid_integer", name)
        value = int(text)
        if not least <= value <= most:
            if name.endswith("amount") and value > most:
                raise ApiError(400, "Amount must be no more than $999,999.99", "amount_too_large", name)
            raise ApiError(400, "Invalid integer: out of range", "parameter_invalid_integer", name)
        return value

    def one_of(self, name: str, choices: Collection[str], *, required: bool = False) -> str:
        """One of some words."""
        value = self.text(name, required=required)
        if value and value not in choices:
            raise ApiError(400, f"Invalid {name}: must be one of {', '.join(sorted(choices))}", param=name)
        return value

    def url(self, name: str, *, required: bool = False) -> str:
        """An absolute URL."""
        value = self.text(name, required=required)
        if value and not re.match(r"https?://[^\s/]+", value):
            raise ApiError(400, "Not a valid URL", "url_invalid", name)
        return value

    def all_of(self, prefix: str) -> list[str]:
        """The values of a list of texts."""
        return [value for name, value in self.pairs.items() if re.fullmatch(re.escape(prefix) + r"\[[0-9]+\]", name)]

    def metadata(self, name: str = "metadata") -> dict[str, str]:
        """A set of own texts."""
        found = {key[len(name) + 1 : -1]: value for key, value in self.pairs.items() if key.startswith(name + "[")}
        if len(found) > METADATA_KEYS_MAX:
            raise ApiError(400, "Metadata can have at most 50 keys.", param=name)
        for key, value in found.items():
            if len(value) > METADATA_VALUE_MAX or len(key) > 40:
                raise ApiError(400, f"Metadata value of {key[:40]} is too long.", param=f"{name}[{key[:40]}]")
        return {key: value for key, value in found.items() if value}


def within(params: Params, created: float) -> bool:
    """Does the `created` filter let this moment through?"""
    second = int(created)
    bounds: Iterable[tuple[str, Any]] = (
        ("created", second.__eq__), ("created[gt]", second.__gt__), ("created[gte]", second.__ge__),
        ("created[lt]", second.__lt__), ("created[lte]", second.__le__),
    )  # fmt: skip
    for name, holds in bounds:
        bound = params.integer(name, 0, 10**12)
        if bound is not None and not holds(bound):
            return False
    return True


def _canonical(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ApiError(400, f"Received unknown parameter: {key[:60]}", "parameter_unknown", key[:60])
    return key


def _pattern(name: str) -> str:
    """The name with `*` for a place in a list and `?` for a key of metadata."""
    head = name.partition("[")[0]
    parts = _PART.findall(name)
    shown = []
    for place, part in enumerate(parts):
        is_own = (head == "metadata" and place == 0) or (place > 0 and parts[place - 1] == "metadata")
        shown.append("?" if is_own and part else "*" if part == "" or part.isdigit() else part)
    return head + "".join(f"[{part}]" for part in shown)


def _numbered(name: str, known: Collection[str]) -> str:
    """A name with `[]` takes the next place of its list."""
    if "[]" not in name:
        return name
    place = 0
    while name.replace("[]", f"[{place}]", 1) in known:
        place += 1
    return name.replace("[]", f"[{place}]", 1)
