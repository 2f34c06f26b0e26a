"""The one settings object: `PAYONCE` read lazily, with defaults, and validated with a suggestion for every unknown key."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from payonce.orders.errors import SettingsError


@dataclass(frozen=True, slots=True)
class SwitchSettings:
    """What happens when a buyer changes channel while the old stream cannot be proven closed.

    UNPROVEN is `allow` (open the new one and watch both) or `wait` (refuse until the old one ends). PROOF_SECONDS is how
    long to try for a proof first; UNPROVEN_MAX bounds the unproven streams of one order.
    """

    UNPROVEN: str = "allow"
    PROOF_SECONDS: int = 3
    UNPROVEN_MAX: int = 3


@dataclass(frozen=True, slots=True)
class RefundSettings:
    """Policy of refunds that payonce makes by itself, in minor units of each currency.

    AUTO off parks every surplus for a person. MAX_MINOR caps one automatic refund and DAILY_MINOR a channel account's
    automatic refunds of one day (None: no cap). DRY_RUN decides and records but never calls a channel. From APPROVAL_MINOR
    on, an operator's refund waits for a second person (None: never); parts of one stream that nobody approved count together.
    APPROVAL_HOURS is how long it waits.
    """

    AUTO: bool = True
    DELAY_SECONDS: int = 0
    MAX_MINOR: int | None = None
    DAILY_MINOR: int | None = None
    DRY_RUN: bool = False
    APPROVAL_MINOR: int | None = None
    APPROVAL_HOURS: int = 72


@dataclass(frozen=True, slots=True)
class MessageSettings:
    """Signed HTTP messages to the shop. ENDPOINTS is {name: {"url": …, "secret": "whsec_…"}}.

    PRIVATE_HOSTS lists host names or addresses that may be reached although they are private or loopback.
    """

    ENDPOINTS: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    PRIVATE_HOSTS: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PayonceSettings:
    """Everything a shop may set in `PAYONCE`. Unknown keys are errors.

    SHOP is the dotted path of the shop's `Shop` subclass. CHANNELS is {account: {"adapter": …, …}}. DATABASE is the alias
    every step uses. BASE_URL is where the shop's own site is reached from outside (https). REDIS_URL empty means no lock
    and no cache: slower, never wrong. LATE_PAYMENT is REFUND, ACCEPT or ASK. GRACE_SECONDS is added to a channel's clock
    skew before time alone proves that a stream is unpayable. VALID_SECONDS is how long an order without an expiry of its
    own stays payable per stream. METRICS_TOKEN is what a scraper of `/metrics` shows (empty: staff only).
    """

    SHOP: str = "payonce.orders.shop.Shop"
    CHANNELS: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    DATABASE: str = "default"
    BASE_URL: str = ""
    REDIS_URL: str = ""
    NUMBER_PREFIX: str = "po"
    LATE_PAYMENT: str = "REFUND"
    GRACE_SECONDS: int = 30
    VALID_SECONDS: int = 7200
    BUYER_TOKEN_SECONDS: int = 7200
    METRICS_TOKEN: str = ""
    LOCK_TIMEOUT_MS: int = 3000
    STATEMENT_TIMEOUT_MS: int = 10_000
    IDLE_TIMEOUT_MS: int = 15_000
    CALL_LEASE_SECONDS: int = 15
    POLL_BATCH: int = 200
    POLL_CONCURRENCY: int = 100
    SECOND_ORDER_MINUTES: int = 30
    UNFOLD: str | bool = "auto"
    SWITCH: SwitchSettings = field(default_factory=SwitchSettings)
    REFUND: RefundSettings = field(default_factory=RefundSettings)
    MESSAGES: MessageSettings = field(default_factory=MessageSettings)


NESTED: Mapping[str, type] = {"SWITCH": SwitchSettings, "REFUND": RefundSettings, "MESSAGES": MessageSettings}


def get_settings() -> PayonceSettings:
    """The validated settings. Raises SettingsError that names the first wrong key and the fix."""
    return _load()


@lru_cache(maxsize=1)
def _load() -> PayonceSettings:
    raw = getattr(django_settings, "PAYONCE", {})
    for problem in find_problems(raw):
        raise SettingsError(problem)
    values = {key: NESTED[key](**_frozen(value)) if key in NESTED else value for key, value in raw.items()}
    return PayonceSettings(**values)


def find_problems(raw: Any) -> Iterator[str]:
    """Every mistake in a PAYONCE dict as a sentence that names the key and what to write instead."""
    if not isinstance(raw, Mapping):
        yield "PAYONCE must be a dict."
        return
    yield from _unknown_keys(raw, PayonceSettings, "PAYONCE")
    for name, kind in NESTED.items():
        nested = raw.get(name, {})
        if isinstance(nested, Mapping):
            yield from _unknown_keys(nested, kind, f'PAYONCE["{name}"]')
        else:
            yield f'PAYONCE["{name}"] must be a dict.'
    yield from _wrong_values(raw)


def get_shop() -> Any:
    """The shop's `Shop` object, made once per process and setting. Raises SettingsError when the path does not import."""
    return _shop(get_settings().SHOP)


@lru_cache(maxsize=4)
def _shop(path: str) -> Any:
    try:
        return import_string(path)()
    except ImportError as error:
        raise SettingsError(f'PAYONCE["SHOP"] = "{path}" cannot be imported: {error}') from error


def _unknown_keys(raw: Mapping[str, Any], kind: type, where: str) -> Iterator[str]:
    known = [item.name for item in fields(kind)]
    for key in raw:
        if key not in known:
            close = get_close_matches(str(key).upper(), known, n=1)
            hint = f' Did you mean "{close[0]}"?' if close else f" Known keys: {', '.join(known)}."
            yield f'{where} has an unknown key "{key}".{hint}'


def _wrong_values(raw: Mapping[str, Any]) -> Iterator[str]:
    prefix = raw.get("NUMBER_PREFIX", "po")
    if not (isinstance(prefix, str) and prefix.isascii() and prefix.isalnum() and 1 <= len(prefix) <= 6):
        yield 'PAYONCE["NUMBER_PREFIX"] must be 1 to 6 ASCII letters or digits.'
    if raw.get("LATE_PAYMENT", "REFUND") not in ("REFUND", "ACCEPT", "ASK"):
        yield 'PAYONCE["LATE_PAYMENT"] must be "REFUND", "ACCEPT" or "ASK".'
    switch = raw.get("SWITCH", {})
    if isinstance(switch, Mapping) and switch.get("UNPROVEN", "allow") not in ("allow", "wait"):
        yield 'PAYONCE["SWITCH"]["UNPROVEN"] must be "allow" or "wait".'
    channels = raw.get("CHANNELS", {})
    if not isinstance(channels, Mapping):
        yield 'PAYONCE["CHANNELS"] must be a dict {account: {"adapter": …}}.'
        return
    for account, options in channels.items():
        if not (
            isinstance(account, str) and account.isascii() and account.replace("_", "").isalnum() and len(account) <= 32
        ):
            yield f'PAYONCE["CHANNELS"] has the account {account!r}: use at most 32 ASCII letters, digits and underscores.'
        if not (isinstance(options, Mapping) and isinstance(options.get("adapter"), str)):
            yield f'PAYONCE["CHANNELS"]["{account}"] must be a dict with an "adapter".'
    yield from _wrong_endpoints(raw)
    yield from _wrong_numbers(raw)


def _wrong_endpoints(raw: Mapping[str, Any]) -> Iterator[str]:
    messages = raw.get("MESSAGES", {})
    endpoints = messages.get("ENDPOINTS", {}) if isinstance(messages, Mapping) else {}
    if not isinstance(endpoints, Mapping):
        yield 'PAYONCE["MESSAGES"]["ENDPOINTS"] must be a dict {name: {"url": …, "secret": …}}.'
        return
    for name, endpoint in endpoints.items():
        where = f'PAYONCE["MESSAGES"]["ENDPOINTS"]["{name}"]'
        if not (
            isinstance(name, str) and name.isidentifier() and name.isascii() and len(name) <= 32 and name != "shop"
        ):
            yield f'{where}: use a name of at most 32 ASCII letters, digits and underscores, and not "shop".'
        if not isinstance(endpoint, Mapping) or not all(
            isinstance(endpoint.get(key), str) for key in ("url", "secret")
        ):
            yield f'{where} must be a dict with a "url" and a "secret" (whsec_…).'


def _wrong_numbers(raw: Mapping[str, Any]) -> Iterator[str]:
    for where, kind in [("", PayonceSettings), *NESTED.items()]:
        values = raw.get(where, {}) if where else raw
        for item in fields(kind):
            value = values.get(item.name, 0) if isinstance(values, Mapping) else 0
            if item.type in (int, int | None) and not _is_count(value, item.type is not int):
                name = f'PAYONCE["{where}"]["{item.name}"]' if where else f'PAYONCE["{item.name}"]'
                yield f"{name} must be a whole number that is not negative; it is {value!r}."


def _is_count(value: Any, none_allowed: bool) -> bool:
    if value is None:
        return none_allowed
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _frozen(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}


def _reset(*, setting: str, **_: Any) -> None:
    if setting == "PAYONCE":
        _load.cache_clear()
        _shop.cache_clear()


setting_changed.connect(_reset, dispatch_uid="payonce_settings")
