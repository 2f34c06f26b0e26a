"""Strict reading of the sandbox's JSON, used on both sides: a field that is not exactly what it must be is an error."""

import json
import re
from datetime import UTC, datetime
from typing import Any

AMOUNT_MINOR_MAX = 10**15
_NUMBER = re.compile(r"[0-9A-Za-z_]{1,64}", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


class MalformedError(ValueError):
    """The message is not what the dialect allows; the text names the field, never its value."""


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object that these bytes hold. A name that comes twice is refused: two readers could take different values."""
    try:
        value = json.loads(body, parse_constant=_refuse_constant, object_pairs_hook=_once_each)
    except (ValueError, RecursionError):
        raise MalformedError("body") from None
    if not isinstance(value, dict):
        raise MalformedError("body")
    return value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedError("body")
    return found


def write_object(value: dict[str, Any]) -> bytes:
    """The bytes of a JSON object, the same for the same content."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode("utf-8", "replace")


def text(record: dict[str, Any], name: str, *, default: str | None = None, characters_max: int = 2_000) -> str:
    """A text. Without `default` it must be there."""
    value = record.get(name, default)
    if not isinstance(value, str) or len(value) > characters_max or not _is_clean(value):
        raise MalformedError(name)
    return value


def number(record: dict[str, Any], name: str, *, optional: bool = False) -> str:
    """A merchant number: ASCII letters, digits and underscore."""
    value = text(record, name, default="" if optional else None)
    if not (value == "" and optional) and not _NUMBER.fullmatch(value):
        raise MalformedError(name)
    return value


def is_number(value: str) -> bool:
    """True for what `number` accepts."""
    return bool(_NUMBER.fullmatch(value))


def currency(record: dict[str, Any], name: str = "currency", *, optional: bool = False) -> str:
    """An ISO 4217 code."""
    value = text(record, name, default="" if optional else None)
    if not (value == "" and optional) and not _CURRENCY.fullmatch(value):
        raise MalformedError(name)
    return value


def amount(record: dict[str, Any], name: str, *, least: int = 0, default: int | None = None) -> int:
    """An amount in minor units: a JSON integer, never a float, a text or a bool."""
    value = record.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= AMOUNT_MINOR_MAX:
        raise MalformedError(name)
    return value


def moment(record: dict[str, Any], name: str) -> datetime:
    """An aware time, as ISO 8601 with an offset."""
    value = optional_moment(record, name)
    if value is None:
        raise MalformedError(name)
    return value


def optional_moment(record: dict[str, Any], name: str) -> datetime | None:
    """An aware time, or None where the field is null or missing."""
    value = record.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value.isascii():
        raise MalformedError(name)
    try:
        at = datetime.fromisoformat(value)
        if at.tzinfo is None:
            raise MalformedError(name)
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise MalformedError(name) from None


def records(record: dict[str, Any], name: str, *, count_max: int = 100_000) -> list[dict[str, Any]]:
    """A list of objects; missing is empty."""
    value = record.get(name, [])
    if not isinstance(value, list) or len(value) > count_max or not all(isinstance(item, dict) for item in value):
        raise MalformedError(name)
    return value


def format_moment(at: datetime) -> str:
    """ISO 8601 in UTC."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def format_seconds(seconds: float | None) -> str | None:
    """ISO 8601 of a Unix time; None stays None."""
    return None if seconds is None else format_moment(datetime.fromtimestamp(seconds, UTC))


def _is_clean(value: str) -> bool:
    # A lone surrogate cannot be stored or signed; a NUL byte cannot be stored by PostgreSQL.
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
