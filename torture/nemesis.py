"""Plays a plan against a running site, and counts what truly happened: a fault that could not be done is not counted."""

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from config.processes import ProcessError
from torture.buyers import World
from torture.inbox import Inbox
from torture.plan import Fault, Plan
from torture.servers import RedisHurt, SqlHurt, held_leases, pending_messages
from torture.site import TortureSite

MEASURE_SECONDS_MAX = 90.0
LOOK_SECONDS = 0.5
TRIES, AGAIN_SECONDS = 3, 2.0
TARGETS = {
    "pg": "postgres",
    "disk": "postgres",
    "redis": "redis",
    "cache": "redis",
    "locks": "redis",
    "broker": "redis",
}


class Nemesis:
    """Does one fault after the other at their times. `done` counts them by kind; `failed` says what could not be done."""

    def __init__(
        self, site: TortureSite, world: World, inbox: Inbox, flood: Callable[[str, int], Awaitable[int]]
    ) -> None:
        self.site, self.world, self.inbox = site, world, inbox
        self.done: Counter[str] = Counter()
        self.failed: list[str] = []
        self._send_flood = flood
        self._redis, self._sql = RedisHurt(site), SqlHurt(site.direct_url)
        self._locks: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._heavy = 0  # how many heavy faults have begun
        self._active = 0  # and how many are going on

    async def play(self, plan: Plan, began: float) -> None:
        """Do every fault at its time after `began` (monotonic), and wait until the last one is over."""
        for number, fault in enumerate(plan.faults):
            await asyncio.sleep(max(0.0, began + fault.at - time.monotonic()))
            task = asyncio.create_task(self._do(number, fault))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _do(self, number: int, fault: Fault) -> None:
        is_heavy = fault.do != "bank_fault"
        self._heavy += is_heavy
        self._active += is_heavy
        name = str(fault.args.get("service") or TARGETS.get(fault.do.split("_")[0], fault.do))
        try:
            async with self._locks.setdefault(name if is_heavy else f"light {number}", asyncio.Lock()):
                arguments = {**fault.args, "number": number} if fault.do in ("kill", "shop_down") else fault.args
                if await self._try(fault.do, arguments, TRIES if is_heavy else 1):
                    self.done[fault.do] += 1
                else:
                    self.failed.append(f"{fault.do}: there was nobody to do it to")
        except (ProcessError, OSError, RuntimeError) as error:
            self.failed.append(
                f"{fault.do}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            )
        finally:
            self._active -= is_heavy

    async def _try(self, do: str, arguments: dict[str, Any], tries: int) -> bool:
        """Do it, again where its target was away. Raises what the last try raised."""
        for left in range(tries - 1, -1, -1):
            try:
                if await getattr(self, f"_{do}")(**arguments) is not False:
                    return True
            except (ProcessError, OSError):
                if not left:
                    raise
            if left:
                await asyncio.sleep(AGAIN_SECONDS)
        return False

    def _note(self, op: str, **args: Any) -> None:
        self.world.history.note(op, "nemesis", **args)

    # Processes.

    async def _kill(self, service: str, down: float, number: int) -> None:
        held = await asyncio.to_thread(held_leases, self.site.direct_url)
        self._note("kill", service=service, about=number)
        await asyncio.to_thread(self._kill_service, service, down)
        if service.startswith("worker"):
            self._measure("resumed", number, lambda: held & held_leases(self.site.direct_url, only_living=False))

    def _kill_service(self, service: str, down: float) -> None:
        self.site.kill(service, restart=not down)
        if down:
            time.sleep(down)
            self.site.start(service, wait=False)

    async def _pause(self, service: str, seconds: float) -> None:
        self._note("pause", service=service, seconds=seconds)
        self.site.pause(service)
        await asyncio.sleep(seconds)
        self.site.resume(service)

    async def _restart(self, service: str) -> None:
        await asyncio.to_thread(self.site.stop_service, service)
        await asyncio.to_thread(self.site.start, service, wait=False)

    async def _clock_skew(self, service: str, offset: int, seconds: float) -> bool:
        if self.site.wrong_clock is None:
            return False
        self.site.clock_file(service).write_text(f"{offset}\n")
        await asyncio.sleep(seconds)
        self.site.clock_file(service).write_text("0\n")
        return True

    # PostgreSQL, and the way to it.

    async def _proxy(self, do: str, **arguments: Any) -> dict[str, int]:
        return await asyncio.to_thread(self.site.proxy.send, do, **arguments)

    async def _commit_before(self, count: int, every: int) -> None:
        await self._proxy("cut", when="before", count=count, every=every)

    async def _commit_after(self, count: int, every: int) -> None:
        await self._proxy("cut", when="after", count=count, every=every)

    async def _pg_cut(self, share: float) -> None:
        await self._proxy("kill", share=share)

    async def _pg_stall(self, seconds: float) -> None:
        await self._proxy("stall", seconds=seconds)
        await asyncio.sleep(seconds)

    async def _pg_refuse(self, seconds: float) -> None:
        await self._proxy("refuse", seconds=seconds)
        await asyncio.sleep(seconds)

    async def _pg_kill(self, how: str, down: float) -> None:
        await asyncio.to_thread(self.site.kill_postgres, signal.Signals[how])
        await asyncio.sleep(down)
        await asyncio.to_thread(self.site.postgres.start)

    async def _pg_terminate(self, share: float) -> bool:
        return bool(await asyncio.to_thread(self._sql.terminate, share))

    async def _pg_crowd(self, seconds: float) -> bool:
        return bool(await asyncio.to_thread(self._sql.crowd, seconds))

    async def _deadlocks(self, seconds: float) -> bool:
        return bool(await asyncio.to_thread(self._sql.deadlock, seconds))

    async def _row_locks(self, seconds: float, rows: int) -> bool:
        return bool(await asyncio.to_thread(self._sql.hold_rows, seconds, rows))

    async def _disk_full(self, seconds: float) -> bool:
        disk = self.site.disk
        if disk is None:
            return False
        await asyncio.to_thread(disk.fill)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(disk.free)
        return True

    # Redis: lock, cache and broker.

    async def _redis_kill(self, down: float) -> None:
        await asyncio.to_thread(self._redis.kill, down)

    async def _redis_pause(self, seconds: float) -> bool:
        return await asyncio.to_thread(self._redis.pause, seconds)

    async def _redis_flush(self) -> None:
        await asyncio.to_thread(self._redis.flush)

    async def _redis_oom(self, seconds: float) -> None:
        await asyncio.to_thread(self._redis.out_of_memory, seconds)

    async def _redis_readonly(self, seconds: float) -> None:
        await asyncio.to_thread(self._redis.read_only, seconds)

    async def _redis_slow(self, milliseconds: int, times: int) -> None:
        await asyncio.to_thread(self._redis.slow, milliseconds, times)

    async def _cache_poison(self, share: float) -> bool:
        return bool(await asyncio.to_thread(self._redis.poison, share)) or not self.site.modes.cache

    async def _cache_stale(self, seconds: float) -> None:
        await asyncio.to_thread(self._redis.bring_back, seconds)

    async def _locks_lost(self, seconds: float) -> None:
        await asyncio.to_thread(self._redis.lose_locks, seconds)

    async def _broker_drop(self, seconds: float) -> None:
        await asyncio.to_thread(self._redis.drop_queue, seconds)

    async def _broker_flood(self, count: int) -> None:
        await asyncio.to_thread(self._redis.flood_queue, count)

    # The channel.

    async def _bank_fault(self, op: str, what: str, account: str, times: int, **arguments: Any) -> bool:
        return await self.world.bank.fault(op, what, account=account, times=times, **arguments)

    async def _outage(self, account: str, seconds: float) -> bool:
        self._note("outage", account=account, seconds=seconds)
        made = await self.world.bank.act("faults", account=account, op="*", do="outage", number="*", nth=1, times=None)
        await asyncio.sleep(seconds)
        if made:
            await self.world.bank.act("faults/clear", id=made["id"])
        return bool(made)

    async def _bank_skew(self, account: str, offset: int, seconds: float) -> bool:
        made = await self.world.bank.act("clock", account=account, skew_seconds=offset)
        await asyncio.sleep(seconds)
        await self.world.bank.act("clock", account=account, skew_seconds=0)
        return bool(made)

    # The shop.

    async def _shop_down(self, mode: str, seconds: float, number: int) -> None:
        if mode == "closed":
            await self.inbox.stop()
        else:
            self.inbox.mode = mode
        self._note("shop_failed", mode=mode)
        await asyncio.sleep(seconds)
        await self.put_shop_up()
        self._note("shop_up", about=number)
        at = time.time()
        self._measure("shop_told", number, lambda: pending_messages(self.site.direct_url, at))

    async def put_shop_up(self) -> None:
        """The shop's endpoint works."""
        self.inbox.mode = "up"
        if not self.inbox.is_open:
            await self.inbox.start()

    async def _flood(self, what: str, count: int) -> bool:
        return bool(await self._send_flood(what, count))

    # How long the repairs took.

    def _measure(self, op: str, number: int, left: Callable[[], object]) -> None:
        task = asyncio.create_task(self._until_nothing(op, number, left))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until_nothing(self, op: str, number: int, left: Callable[[], object]) -> None:
        """Note when nothing is left to repair, unless another fault came between: then this says nothing."""
        others, deadline = self._heavy, time.monotonic() + MEASURE_SECONDS_MAX
        while self._heavy == others and time.monotonic() < deadline:
            with contextlib.suppress(OSError, RuntimeError):
                if self._active <= 1 and not await asyncio.to_thread(left):
                    self._note(op, about=number)
                    return
            await asyncio.sleep(LOOK_SECONDS)
        if self._heavy == others:
            self._note(op, about=number)
