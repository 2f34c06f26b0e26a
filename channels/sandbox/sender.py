"""Delivers the bank's notifications: with the retry table of a real channel, and the faults planned for them."""

import asyncio
import contextlib
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from payonce.channels.http import AsyncDriver
from payonce.channels.messages import HttpRequest, HttpResponse
from payonce.channels.sandbox import outbox, refunds
from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.faults import Disturbance, FaultPlan
from payonce.channels.sandbox.outbox import Notification
from payonce.channels.sandbox.skins import OWN
from payonce.channels.sandbox.store import Store

if TYPE_CHECKING:
    from payonce.channels.sandbox.skins.base import Skin

DELIVERY_SECONDS = 5.0
DELIVERIES_MAX = 64
_IDLE_SECONDS = 1.0
_log = logging.getLogger("payonce.sandbox")


@dataclass(frozen=True, slots=True)
class Style:
    """How a message is written: truly by default. `forgery` names a way to fake it, `altered` replaces true fields."""

    forgery: str = ""
    altered: Mapping[str, Any] = field(default_factory=dict)
    signed_ago_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one copy: a text such as "200 success" or "connect_refused", and whether it ends the repeats."""

    text: str
    is_accepted: bool = False


class Sender:
    """One task that plans, sends and repeats. `wake` tells it that something may be due."""

    def __init__(
        self,
        store: Store,
        plan: FaultPlan,
        accounts: Mapping[str, SandboxAccount],
        skins: "Mapping[str, Skin]",
        now: Callable[[str], float],
        speed: float,
    ) -> None:
        if speed <= 0:
            raise ValueError("speed must be above 0")
        self._store = store
        self._plan = plan
        self._accounts = accounts
        self._skins = skins
        self._now = now
        self._speed = speed
        self._driver = AsyncDriver(connections_max=DELIVERIES_MAX * 2)
        self._awake = asyncio.Event()
        self._progress = asyncio.Condition()
        self._planned: dict[int, Disturbance] = {}
        self._swapped: dict[str, list[int]] = defaultdict(list)
        self._followers: dict[int, list[int]] = {}
        self._deliveries: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Look again at what is due."""
        self._awake.set()

    async def start(self) -> None:
        """Begin. What was being sent when the last process ended is sent again."""
        await self._driver.__aenter__()
        at = self._now("")
        await self._store.call(lambda database: outbox.resume(database, at))
        self._task = asyncio.create_task(self._run(), name="sandbox-sender")

    async def stop(self) -> None:
        """Stop at once; unfinished deliveries are due again at the next start."""
        tasks = [task for task in (self._task, *self._deliveries) if task is not None]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._driver.__aexit__(None, None, None)

    async def _run(self) -> None:
        while True:
            try:
                await self._step()
            except (sqlite3.Error, OSError):
                # A full disk must not silence the bank for good.
                _log.exception("the sandbox could not read or plan its notifications; it tries again")
                await asyncio.sleep(1.0)

    async def _step(self) -> None:
        self._awake.clear()
        at = self._now("")
        await self.settle_due_refunds()
        new = await self._store.call(outbox.new_notifications)
        untold = [message.id for message in new if not self._tells(message)]
        decisions = [self._decide(message, at) for message in new if message.id not in untold]
        free = DELIVERIES_MAX - len(self._deliveries)
        claimed, next_due_at = await self._store.call(
            lambda database: _plan_and_claim(database, untold, decisions, at, free)
        )
        if new:
            await self._tell_progress()
        for message in claimed:
            task = asyncio.create_task(self._deliver(message))
            self._deliveries.add(task)
            task.add_done_callback(self._forget)
        full = len(self._deliveries) >= DELIVERIES_MAX
        if not new and not claimed:
            # What is overdue and yet was not taken belongs to an account that is no longer served: it is not urgent.
            wait = None if full or next_due_at is None else next_due_at - at
            await self._sleep(_IDLE_SECONDS if wait is not None and wait <= 0 else wait)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._deliveries.discard(task)
        self._awake.set()

    async def _sleep(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if seconds is None else max(0.0, seconds)):
                await self._awake.wait()

    def gaps(self, account: str) -> list[float]:
        """The retry table of an account, in seconds at this bank's speed."""
        served = self._accounts.get(account)
        skin = self._skins[OWN if served is None else served.skin]
        return [seconds / self._speed for seconds in skin.retry_seconds]

    def _tells(self, message: Notification) -> bool:
        account = self._accounts.get(message.account)
        return account is None or self._skins[account.skin].tells(message)

    async def settle_due_refunds(self) -> None:
        """Bring every refund whose time has come to its state."""
        at = self._now("")

        def settle(database: sqlite3.Connection) -> None:
            for account, payment_number, refund_number, state in refunds.due_refunds(database, at, self._accounts):
                owner = self._accounts[account]
                refunds.settle_refund(database, owner, payment_number, refund_number, state, "", at)

        await self._store.call(settle)

    def _decide(self, message: Notification, at: float) -> tuple[int, str, float | None]:
        """What becomes of a new message: its row id, its state, and when it is due."""
        faults = self._plan.arrive(message.account, "notify", message.number)
        waiting = self._swapped.pop(message.account, [])
        if waiting:
            self._followers[message.id] = waiting
        if "lose" in faults:
            return message.id, "LOST", None
        self._planned[message.id] = faults
        if "swap" in faults:
            self._swapped[message.account].append(message.id)
            return message.id, "HELD", None
        if "hold" in faults:
            return message.id, "HELD", None
        delay = faults.get("delay")
        return message.id, "DUE", at + (delay.seconds() if delay else 0.0)

    async def _deliver(self, message: Notification) -> None:
        faults = self._planned.pop(message.id, Disturbance([]))
        try:
            results = await self._attempt(message, faults)
        except Exception as error:  # noqa: BLE001 - a message that cannot be written must not stay in SENDING
            _log.exception("notification %s could not be written", message.key)
            results = [Reply(f"not sent: {type(error).__name__}")]
        delivered = any(reply.is_accepted for reply in results) and "acknowledgement_lost" not in faults
        at, followers = self._now(""), self._followers.pop(message.id, [])
        text, gaps = ", ".join(reply.text for reply in results), self.gaps(message.account)

        def record(database: sqlite3.Connection) -> None:
            outbox.record_attempt(database, message.id, text, delivered=delivered, at=at, gaps=gaps)
            outbox.make_due(database, followers, at)

        await self._store.call(record)
        await self._tell_progress()

    async def _attempt(self, message: Notification, faults: Disturbance) -> list[Reply]:
        style = Style()
        if fault := faults.get("stale"):
            style = Style(signed_ago_seconds=fault.seconds(3_600))
        if fault := faults.get("altered"):
            style = Style(altered={name: value for name, value in fault.arguments.items() if name != "name"})
        if fault := faults.get("forge"):
            await self.send(message, Style(forgery=str(fault.arguments.get("kind", "bad_signature"))))
        repeat = faults.get("repeat")
        copies = max(1, int(repeat.arguments.get("copies", 2))) if repeat else 1
        return list(await asyncio.gather(*(self.send(message, style) for _ in range(copies))))

    async def send(self, message: Notification, style: Style) -> Reply:
        """Send one copy now and return what came back."""
        account = self._accounts.get(message.account)
        if account is None:
            return Reply("account_unknown")
        skin = self._skins[account.skin]
        at = self._now(message.account) - style.signed_ago_seconds
        headers, body = skin.render(account, message, at, style)
        limits = (2.0, DELIVERY_SECONDS, DELIVERY_SECONDS, 65_536)
        reply = await self._driver.send(HttpRequest("POST", message.url, headers, body, *limits))
        if not isinstance(reply, HttpResponse):
            return Reply(reply.reason)
        text = f"{reply.status} {reply.body[:40].decode('ascii', 'replace')}"
        return Reply(text, skin.is_acknowledged(reply.status, reply.body))

    async def deliver_now(
        self, messages: Sequence[Notification], style: Style, copies: int = 1, *, at_once: bool = False
    ) -> list[str]:
        """Send these outside their schedule, in order or all at once, and return every answer."""
        wanted = [message for message in messages for _ in range(copies)]
        if at_once:
            results = list(await asyncio.gather(*(self.send(message, style) for message in wanted)))
        else:
            results = [await self.send(message, style) for message in wanted]
        if not style.forgery:
            accepted = {m.id for m, reply in zip(wanted, results, strict=True) if reply.is_accepted}
            await self._store.call(lambda database: outbox.mark_delivered(database, accepted))
        await self._tell_progress()
        return [reply.text for reply in results]

    async def wait_until_sent(self, account: str, number: str, seconds: float) -> bool:
        """Wait until nothing of this number is being sent or due now; False when the time is up."""

        def is_settled(messages: list[Notification]) -> bool:
            at = self._now("")
            return not any(
                m.state in {"NEW", "SENDING"} or (m.state == "DUE" and (m.due_at or 0.0) <= at) for m in messages
            )

        return await self.wait_for(account, number, is_settled, seconds)

    async def wait_for(
        self, account: str, number: str, done: Callable[[list[Notification]], bool], seconds: float
    ) -> bool:
        """Wait until the messages of a number satisfy `done`; False when the time is up."""
        try:
            async with asyncio.timeout(seconds), self._progress:
                while not done(await self._store.call(lambda database: outbox.find(database, account, number))):
                    await self._progress.wait()
        except TimeoutError:
            return False
        return True

    async def _tell_progress(self) -> None:
        async with self._progress:
            self._progress.notify_all()


def _plan_and_claim(
    database: sqlite3.Connection,
    untold: list[int],
    decisions: list[tuple[int, str, float | None]],
    at: float,
    free: int,
) -> tuple[list[Notification], float | None]:
    outbox.drop(database, untold)
    outbox.plan(database, decisions)
    claimed = outbox.claim_due(database, at, free)
    return claimed, outbox.next_due_at(database)
