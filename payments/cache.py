"""The Redis half: a cached result per order, and a gate that lets one of many clicks work. It only saves work.

Every function gives up at once when Redis is slow or gone; the database path then does the same, slower. An entry is
`version:signature:json`, never written over a newer version, and a tombstone (`version::`) when the order moved on.
"""

import json
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

import redis
from django.utils.crypto import constant_time_compare, salted_hmac

from payonce.orders.conf import get_settings

T = TypeVar("T")
log = logging.getLogger("payonce.cache")
ENTRY_MS_MAX = 30_000
TOMBSTONE_MS = 600_000
GATE_MS = 20_000  # above the channel's total time-out
SOCKET_SECONDS = 0.25
PAUSE_SECONDS = 2.0  # after an error Redis is left alone for so long
NEWER_WINS = """
local now = redis.call('GET', KEYS[1])
local version = now and tonumber(string.match(now, '^(%d+):') or '0') or -1
local is_tombstone = now and string.match(now, '^%d+::$')
if version > tonumber(ARGV[1]) or (version == tonumber(ARGV[1]) and is_tombstone) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
DROP_OWN = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
_paused_until = 0.0


@dataclass(frozen=True, slots=True)
class Entry:
    """What a repeated click gets: a live prepay of an open stream, or "already paid" (`prepay_kind` empty)."""

    order: str
    stream: str
    channel: str
    method: str
    client_type: str
    payer: str
    amount_minor: int
    currency: str
    prepay_kind: str = ""
    prepay_value: str = ""
    prepay_expires_at: str = ""


def read(order_number: str) -> Entry | None:
    """The order's cached result: one command. None when there is none, it was altered, or Redis does not answer."""
    text = _try(lambda client: client.get(_key(order_number)))
    if not text:
        return None
    _version, _, signed = text.decode(errors="replace").partition(":")
    signature, _, body = signed.partition(":")
    if not constant_time_compare(signature, _sign(order_number, body)):
        return None
    try:
        return Entry(**json.loads(body))
    except (TypeError, ValueError):  # ours, but of another release
        return None


def store(entry: Entry, version: int, life: timedelta) -> None:
    """Keep a result for at most 30 s and never past `life`; an entry or tombstone of a newer version wins."""
    life_ms = min(ENTRY_MS_MAX, int(life.total_seconds() * 1000))
    if life_ms <= 0:
        return
    body = json.dumps(asdict(entry))
    _put(entry.order, version, f"{version}:{_sign(entry.order, body)}:{body}", life_ms)


def void(order_number: str, version: int) -> None:
    """The order moved on to `version`: nothing of an older version may be handed out, or be written late."""
    _put(order_number, version - 1, f"{version - 1}::", TOMBSTONE_MS)


def take_turn(order_number: str) -> str | None:
    """Try to be the one that works on this order; return a token for `end_turn`. An empty token means: no Redis, go ahead."""
    token = secrets.token_hex(8)
    taken = _try(lambda client: client.set(_gate(order_number), token, nx=True, px=GATE_MS), otherwise="no redis")
    return "" if taken == "no redis" else token if taken else None


def end_turn(order_number: str, token: str) -> None:
    """Let the next one in; only the holder's own turn is ended."""
    if token:
        _try(lambda client: client.eval(DROP_OWN, 1, _gate(order_number), token))


def wait_turn(order_number: str, seconds: float, find: Callable[[], T | None]) -> T | str | None:
    """Wait while another one works: its result by `find`, or a token once the turn is free, or None after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.02)
        found = find()
        if found is not None:
            return found
        token = take_turn(order_number)
        if token is not None:
            return token
    return None


def claim_kick(name: str, milliseconds: int) -> bool:
    """True for the first of many who want the same task started; also when Redis does not answer."""
    key = f"payonce:kick:{name}"
    return bool(_try(lambda client: client.set(key, "1", nx=True, px=milliseconds), otherwise=True))


def end_kick(name: str) -> None:
    """The task starts: who commits from now on may start it again."""
    _try(lambda client: client.delete(f"payonce:kick:{name}"))


def wake(order_number: str, version: int) -> None:
    """Tell whoever waits for this order that it changed."""
    _try(lambda client: client.publish("payonce:orders", f"{order_number}:{version}"))


def _put(order_number: str, version: int, value: str, life_ms: int) -> None:
    _try(lambda client: client.eval(NEWER_WINS, 1, _key(order_number), version, value, life_ms))


def _try(command: Callable[[Any], Any], otherwise: Any = None) -> Any:
    global _paused_until
    url = get_settings().REDIS_URL
    if not url or time.monotonic() < _paused_until:
        return otherwise
    try:
        return command(_client(url))
    except (redis.RedisError, OSError, ValueError) as error:
        _paused_until = time.monotonic() + PAUSE_SECONDS
        log.warning("Redis does not answer (%s); going on without it", type(error).__name__)
        return otherwise


def is_answering() -> bool:
    """Does Redis answer?"""
    return bool(_try(lambda client: client.ping()))


def reset() -> None:
    """Forget that Redis failed, and its connections (after a fork, or in tests)."""
    global _paused_until
    _paused_until = 0.0
    _client.cache_clear()


@lru_cache(maxsize=2)
def _client(url: str) -> "redis.Redis":
    return redis.Redis.from_url(
        url, socket_timeout=SOCKET_SECONDS, socket_connect_timeout=SOCKET_SECONDS, retry=None, retry_on_timeout=False
    )


def _key(order_number: str) -> str:
    return f"payonce:order:{order_number}"


def _gate(order_number: str) -> str:
    return f"payonce:gate:{order_number}"


def _sign(order_number: str, body: str) -> str:
    return salted_hmac("payonce.cache", f"{order_number}:{body}", algorithm="sha256").hexdigest()
