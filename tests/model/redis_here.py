"""Redis in this process, on the story's clock: just the commands that payonce's cache uses. Entries die in virtual time."""

from collections.abc import Callable
from typing import Any

from payonce.payments import cache


class RedisHere:
    """Takes the place of the client. `seen` keeps each value ever written under a key: a stale replica could answer it."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.values: dict[str, tuple[bytes, float]] = {}
        self.seen: dict[str, list[tuple[bytes, float]]] = {}

    def get(self, key: str) -> bytes | None:
        found = self.values.get(key)
        return found[0] if found is not None and found[1] > self._now() else None

    def set(self, key: str, value: str | bytes, *, nx: bool = False, px: float) -> bool | None:
        if nx and self.get(key) is not None:
            return None
        entry = (value.encode() if isinstance(value, str) else value, self._now() + px / 1000)
        self.values[key] = entry
        self.seen.setdefault(key, []).append(entry)
        return True

    def delete(self, *keys: str) -> int:
        return sum(self.values.pop(key, None) is not None for key in keys)

    def eval(self, script: str, _count: int, key: str, *arguments: Any) -> int:
        return {cache.NEWER_WINS: self._newer_wins, cache.DROP_OWN: self._drop_own}[script](key, *arguments)

    def _newer_wins(self, key: str, version: int, value: str, life_ms: int) -> int:
        found = self.get(key) or b""
        head = found.split(b":", 1)[0]
        known = int(head) if head.isdigit() else 0 if found else -1
        is_tombstone = found == head + b"::"
        if known > version or (known == version and is_tombstone):
            return 0
        self.set(key, value, px=life_ms)
        return 1

    def _drop_own(self, key: str, token: str) -> int:
        return self.delete(key) if self.get(key) == token.encode() else 0

    def publish(self, _channel: str, _message: str) -> int:
        return 0

    def flushdb(self) -> bool:
        self.values.clear()
        return True

    def ping(self) -> bool:
        return True
