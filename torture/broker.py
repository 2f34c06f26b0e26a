"""A broker that loses a fifth of what it is given, repeats some of it, and lets some overtake the rest: Redis under bad luck."""

import random
from typing import Any

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport.redis import Channel as RedisChannel
from kombu.transport.redis import Transport as RedisTransport

SCHEME = "badluck"
LOST, REPEATED, OVERTAKING = 0.20, 0.05, 0.05


class Channel(RedisChannel):  # type: ignore[misc]
    """Takes every message with thanks; what becomes of it is another question."""

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        luck = random.random()
        if luck < LOST:
            return
        super()._put(queue, message, **kwargs)
        if luck < LOST + REPEATED:
            super()._put(queue, message, **kwargs)
        elif luck < LOST + REPEATED + OVERTAKING:
            with self.conn_or_acquire() as client:
                client.rpush(queue, client.lpop(queue) or b"") if client.llen(queue) > 1 else None


class Transport(RedisTransport):  # type: ignore[misc]
    """Redis as Celery uses it, with `Channel`."""

    Channel = Channel


def take_over(url: str) -> str:
    """Register the transport in this process, and return the URL that uses it."""
    TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"
    return url.replace("redis", SCHEME, 1)
