"""Reading a body strictly: bounded, UTF-8, no repeated names, no fields that nobody reads, whole numbers only."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import IO, Any

from rest_framework import serializers
from rest_framework.parsers import BaseParser

from payonce.payments.api.problems import Problem

BODY_BYTES_MAX = 64 * 1024


class StrictJSONParser(BaseParser):
    """JSON of at most 64 KiB. What other parsers let pass in silence (a name given twice, NaN) is refused."""

    media_type = "application/json"

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """The body's value. Raises Problem 400 or 413."""
        body = stream.read(BODY_BYTES_MAX + 1)
        if len(body) > BODY_BYTES_MAX:
            raise Problem(413, "body_too_large", f"The body may have at most {BODY_BYTES_MAX} bytes.")
        try:
            found = json.loads(body.decode("utf-8"), object_pairs_hook=_once_each, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise Problem(400, "malformed", f"The body is not JSON that can be read: {str(error)[:200]}") from error
        if not isinstance(found, dict):
            raise Problem(400, "malformed", "The body must be a JSON object.")
        return found


class StrictSerializer(serializers.Serializer[Any]):
    """A body whose unknown fields are refused by name: a misspelt field must not be lost in silence."""

    def to_internal_value(self, data: Any) -> Any:
        """Check the names, then the values."""
        unknown = [name for name in data if name not in self.fields]
        if unknown:
            known = ", ".join(self.fields)
            raise serializers.ValidationError(
                {name[:64]: f'There is no field "{name[:64]}". Known: {known}.' for name in unknown}
            )
        return super().to_internal_value(data)


class Text(serializers.CharField):
    """A JSON text of printable characters; a number or a flag is not turned into one."""

    def to_internal_value(self, data: Any) -> str:
        """The text, trimmed."""
        if not isinstance(data, str):
            raise serializers.ValidationError("This must be a text.")
        if not data.isprintable():
            raise serializers.ValidationError("This may hold printable characters only.")
        return super().to_internal_value(data)


class WholeNumber(serializers.IntegerField):
    """A JSON whole number. 10.0, "10", true and digits of other scripts are refused: amounts are never guessed."""

    def to_internal_value(self, data: Any) -> int:
        """The number."""
        if isinstance(data, bool) or not isinstance(data, int):
            raise serializers.ValidationError(
                "This must be a whole number of minor units, not a decimal, a text or a flag."
            )
        return data


class Moment(serializers.DateTimeField):
    """A time with its offset. One without (also a date alone) would be read as another moment than the caller meant."""

    def enforce_timezone(self, value: datetime) -> datetime:
        """The time, in the project's zone."""
        if value.tzinfo is None:
            raise serializers.ValidationError("This needs a time with an offset, such as Z or +08:00.")
        return super().enforce_timezone(value)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
