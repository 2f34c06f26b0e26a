"""Raw answers are kept as evidence, without what could pay, sign or name a person."""

import json
from collections.abc import Collection
from typing import Any

RAW_CHARACTERS_MAX = 4_000
HIDDEN = "[redacted]"


def redact_json(body: bytes, names: Collection[str], characters_max: int = RAW_CHARACTERS_MAX) -> str:
    """The JSON text with the values of these names hidden at any depth. What is no JSON is told by its size only."""
    try:
        value = json.loads(body)
        text = json.dumps(_redact(value, frozenset(names)), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    except (ValueError, RecursionError):
        return f"[{len(body)} bytes that are no JSON]"
    # A lone surrogate can be written in JSON and can be stored nowhere.
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= characters_max else text[:characters_max] + "…"


def _redact(value: Any, names: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {key: HIDDEN if key in names else _redact(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_redact(inner, names) for inner in value]
    return value
