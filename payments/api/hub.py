"""Who waits for which order in this process: one Redis subscription and one batched look every 2 s, for all of them together.

A change is announced on `payonce:orders` as `number:version`. An announcement may be lost (no Redis, a process that died
before it spoke): the batched look finds the version anyway. Nobody who waits holds a database connection.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import redis.asyncio
from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError, connections
from redis.exceptions import RedisError

from payonce.orders.conf import get_settings
from payonce.orders.models import Order

log = logging.getLogger("payonce.api")
LOOK_SECONDS = 2.0
LISTEN_SECONDS = 20.0
STOP_SECONDS = 0.2
CHANNEL = "payonce:orders"


@dataclass(eq=False)
class Watch:
    """One waiter. `seen` is the version it knows; it is woken by a newer one."""

    seen: int
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    async def changed(self, seconds: float) -> bool:
        """Wait for a newer version, for at most so long. True when there may be one."""
        try:
            async with asyncio.timeout(seconds):
                await self.woken.wait()
        except TimeoutError:
            return False
        self.woken.clear()
        return True


class Hub:
    """The waiters of one event loop. Its two tasks run while there are any."""

    def __init__(self) -> None:
        """Nobody waits yet."""
        self._watches: dict[str, set[Watch]] = defaultdict(set)
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def watch(self, number: str, seen: int) -> AsyncIterator[Watch]:
        """Be told about the order from now on. Register first, then read, so that nothing falls in between."""
        waiter = Watch(seen)
        self._watches[number].add(waiter)
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._look())]
        try:
            yield waiter
        finally:
            self._watches[number].discard(waiter)
            if not self._watches[number]:
                del self._watches[number]
            if not self._watches:
                await self._stop()

    def tell(self, number: str, version: int) -> None:
        """Wake whoever knows an older version of the order."""
        for waiter in self._watches.get(number, ()):
            if version > waiter.seen:
                waiter.woken.set()

    async def _stop(self) -> None:
        running, self._tasks = set(self._tasks), []
        while running:  # a client library may swallow a cancellation that meets it while it connects
            for task in running:
                task.cancel()
            _done, running = await asyncio.wait(running, timeout=STOP_SECONDS)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                found = await sync_to_async(read_versions, thread_sensitive=False)(list(self._watches))
            except (DatabaseError, InterfaceError) as error:
                log.warning("the versions of %d awaited orders cannot be read: %s", len(self._watches), error)
                continue
            for number, version in found:
                self.tell(number, version)

    async def _listen(self) -> None:
        url = get_settings().REDIS_URL
        while url:
            client = redis.asyncio.Redis.from_url(url, socket_connect_timeout=LOOK_SECONDS)
            try:
                async with client.pubsub(ignore_subscribe_messages=True) as subscription:
                    await subscription.subscribe(CHANNEL)
                    while True:
                        message = await subscription.get_message(timeout=LISTEN_SECONDS)
                        self._take(message["data"] if message else None)
            except (RedisError, OSError) as error:
                log.info("no announcements from Redis (%s); looking every %s s", type(error).__name__, LOOK_SECONDS)
            finally:
                await client.aclose()
            await asyncio.sleep(LOOK_SECONDS)

    def _take(self, data: object) -> None:
        number, _, version = data.decode(errors="replace").partition(":") if isinstance(data, bytes) else ("", "", "")
        if version.isascii() and version.isdecimal():
            self.tell(number, int(version))


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def hub() -> Hub:
    """The hub of the running event loop."""
    return _hubs.setdefault(asyncio.get_running_loop(), Hub())


def read_versions(numbers: list[str]) -> list[tuple[str, int]]:
    """The versions of these orders, in one query; the connection is given back at once."""
    using = get_settings().DATABASE
    try:
        return list(Order.objects.using(using).filter(number__in=numbers).values_list("number", "version"))
    finally:
        connections[using].close()
