"""Buyers and their shop: each order is one small story, drawn from the seed, told to payonce and to the bank over HTTP."""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import aiohttp

from torture.accounts import Roster
from torture.clients import Answer, Bank, Fields, History, Web, pause

PATIENCE_SECONDS = 12.0
STRAGGLERS_MAX = 3_000
FOLLOWED_MAX = 60
RECENT = 400


@dataclass
class Purchase:
    """One order as its buyer and its shop know it."""

    number: str
    token: str
    reference: str
    amount_minor: int
    source: str
    expires_at: float


@dataclass
class World:
    """What every story shares.

    `recent` is what an attacker can overhear: numbers and tokens of other buyers. `forced` was paid past the bank's own
    refusal, or twice: a bank that proved that nothing can come, and then takes money, must at least say so in the end. `unpaid` are
    old codes that somebody still has. `names` are those of each account that are no secrets.
    """

    web: Web
    bank: Bank
    history: History
    clients: dict[str, str]
    seed: int
    run: str
    streaming_url: str
    roster: Roster
    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)
    recent: deque[Purchase] = field(default_factory=lambda: deque(maxlen=RECENT))
    paid: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=RECENT))
    broken_stories: list[str] = field(default_factory=list)
    forced: list[tuple[str, str]] = field(default_factory=list)
    unpaid: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=RECENT))
    followed: dict[str, tuple[str, int]] = field(default_factory=dict)
    findings: list[tuple[str, str]] = field(default_factory=list)


class Buyer:
    """One buyer with one order. All chance comes from the seed and the order's place in the run."""

    def __init__(self, world: World, index: int) -> None:
        self.world = world
        self.index = index
        self.rng = random.Random(f"{world.seed}-{index}")
        self.process = f"buyer-{index}"
        self.order: Purchase | None = None
        self.make_room: Callable[[], None] = lambda: None

    # The shop's side.

    async def place(self, seconds: float = 0.0) -> Purchase | None:
        """The shop places the order; it asks again while the answer is unknown, since placing is idempotent."""
        rng, world = self.rng, self.world
        source = "shop" if rng.random() < 0.9 else "other"
        seconds = seconds or rng.uniform(22.0, 40.0)
        until = time.time() + seconds
        body = {
            "reference": f"{world.run}-{self.index}", "amount_minor": rng.randint(100, 99_999), "currency": "CNY",
            "subject": "Torture", "expires_at": (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(),
        }  # fmt: skip
        answer = await self._until_known(lambda: self._place(body, source))
        if answer is None or answer.status not in (200, 201):
            return None
        found = answer.body
        self.order = Purchase(
            found["order"], found["buyer_token"], str(body["reference"]), int(body["amount_minor"]), source, until
        )
        world.recent.append(self.order)
        world.told["placed"] += 1
        return self.order

    async def _place(self, body: Fields, source: str) -> Answer:
        began = self.world.history.begin("place", self.process, reference=body["reference"])
        answer = await self.world.web.call("POST", "/api/orders/", self.world.clients[source], body)
        order = answer.body.get("order", "") if answer.how == "ok" else ""
        self.world.history.end(
            began, answer.how, "place", self.process, {"order": order}, status=answer.status, order=order
        )
        return answer

    async def amend(self, amount_minor: int) -> Answer:
        """The shop changes the price."""
        order = self._order()
        body = {
            "reference": order.reference,
            "amount_minor": amount_minor,
            "currency": "CNY",
            "subject": "Torture",
            "amend": True,
        }
        answer = await self._place(body, order.source)
        if answer.how == "ok":
            order.amount_minor = int(answer.body["amount_minor"])
        return answer

    async def close(self) -> Answer:
        """The shop cancels the order."""
        order = self._order()
        began = self.world.history.begin("close", self.process, order=order.number)
        path = f"/api/orders/{order.number}/close/"
        answer = await self.world.web.call("POST", path, self.world.clients[order.source], {})
        self.world.history.end(began, answer.how, "close", self.process, status=answer.status)
        return answer

    async def refund(self, stream: str, amount_minor: int, key: str) -> Answer:
        """An operator of the shop gives money back through the API."""
        order = self._order()
        body = {"amount_minor": amount_minor, "reason": "customer_request"}
        began = self.world.history.begin("refund", self.process, order=order.number)
        answer = await self.world.web.call(
            "POST",
            f"/api/streams/{stream}/refunds/",
            self.world.clients[order.source],
            body,
            {"Idempotency-Key": f'"{key}"'},
        )
        args = {"idempotency_key": key, "caller": order.source, "body": json.dumps(body)}
        number = answer.body.get("refund", "") if answer.how == "ok" else ""
        self.world.history.end(began, answer.how, "refund", self.process, args, refund=number, code=answer.code)
        return answer

    # The buyer's side.

    async def click(self, channel: str, *, key: str = "") -> Answer:
        """One click on Pay."""
        order = self._order()
        body = {"channel": channel, "method": self.world.roster.method(channel)}
        args = {"order": order.number, **body, "db_at": time.time()}
        began = self.world.history.begin("pay", self.process, **args)
        headers = {"Idempotency-Key": f'"{key}"'} if key else {}
        answer = await self.world.web.call("POST", f"/api/orders/{order.number}/pay/", order.token, body, headers)
        result = {name: answer.body[name] for name in ("stream", "amount_minor", "currency") if name in answer.body}
        bound = (
            {"idempotency_key": key, "caller": order.number, "body": channel} if key and answer.code == "prepay" else {}
        )
        self.world.history.end(began, answer.how, "pay", self.process, bound, code=answer.code, **result)
        return answer

    async def get_way(self, channel: str, *, key: str = "") -> str:
        """Click until something is handed out; returns the stream's number, or nothing when the buyer gives up."""
        answer = await self._until_known(lambda: self.click(channel, key=key), again=(409, 503, 0, 500))
        self.make_room()  # from here on the buyer looks at a phone, not at the shop
        return str(answer.body["stream"]) if answer is not None and answer.code == "prepay" else ""

    async def open_page(self, stream: str, channel: str) -> None:
        """Scan the code."""
        await self.world.bank.act("open", number=stream, account=channel)

    async def pay(self, stream: str, channel: str, **tender: object) -> bool:
        """Pay at the bank; True when it took the money (or the approval)."""
        found = await self.world.bank.act("pay", number=stream, account=channel, **tender)
        is_taken = found.get("result") == "OK"
        self.world.told["paid at the bank"] += is_taken
        if is_taken:
            self.world.paid.append((channel, stream))
        if tender.get("force"):
            self.world.forced.append((channel, stream))
        return is_taken

    async def look(self, *, wait: int = 0) -> Fields:
        """Ask how the order stands."""
        order, headers = self._order(), {"Prefer": f"wait={wait}"} if wait else {}
        url = self.world.streaming_url if wait else ""
        answer = await self.world.web.call("GET", f"/api/orders/{order.number}/", order.token, None, headers, url=url)
        if answer.status == 200:
            result = {"version": answer.body["version"], "state": answer.body["state"]}
            self.world.history.note("pull", self.process, result=result, order=order.number)
        return answer.body

    async def until_paid(self, seconds: float = 15.0) -> str:
        """Wait on the page until the order is paid; returns the keeper."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = await self.look()
            if found.get("state") == "PAID":
                return str(found["keeper"])
            await pause(self.rng.uniform(0.5, 1.5))
        return ""

    async def follow(self, seconds: float) -> None:
        """Follow the order's events live, from where this buyer stopped reading."""
        world, order = self.world, self._order()
        _token, last = world.followed.get(order.number, (order.token, 0))
        world.followed[order.number] = (order.token, await read_live(world, order.number, order.token, last, seconds))

    async def _until_known(
        self, ask: Callable[[], Awaitable[Answer]], again: tuple[int, ...] = (503, 0, 500)
    ) -> Answer | None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = await ask()
            if answer.status not in again:
                return answer
            if time.monotonic() > deadline:
                return None
            await pause(self.rng.uniform(0.3, 0.9) + min(answer.retry_after_seconds, 2.0))

    def _order(self) -> Purchase:
        if self.order is None:
            raise RuntimeError("nothing was placed yet")
        return self.order


async def read_live(world: World, number: str, token: str, last: int, seconds: float) -> int:
    """Read server-sent events for a while and note the order's states; returns the last sequence that was read."""
    headers = {"authorization": f"Bearer {token}", "last-event-id": str(last)}
    limit = aiohttp.ClientTimeout(total=seconds, connect=3)
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):
        url = f"{world.streaming_url}/api/orders/{number}/events/"
        async with world.web.session.get(url, headers=headers, timeout=limit) as reply:
            async for line in reply.content:
                if not line.startswith(b"data: "):
                    continue
                event = json.loads(line[6:])
                if event["sequence"] != last + 1:
                    world.findings.append(
                        ("S11", f"{number}: the live stream went from event {last} to {event['sequence']}")
                    )
                last = event["sequence"]
                if event["kind"].startswith("order.") and event["to"]:
                    result = {"version": last, "state": event["to"]}
                    world.history.note("push", "follower", result=result, order=number)
    return last


Story = Callable[[Buyer], Awaitable[None]]


class Crowd:
    """Keeps so many buyers in front of the shop. Who has a code to pay, or waits for something, makes room for others."""

    def __init__(self, world: World, choose: Callable[[random.Random], tuple[str, Story]], size: int) -> None:
        self.world = world
        self._choose = choose
        self._room = asyncio.Semaphore(size)
        self._next = 0
        self._running: set[asyncio.Task[None]] = set()
        self.is_open = True

    async def run(self) -> None:
        """Serve until `is_open` is False."""
        while self.is_open:
            await self._room.acquire()
            if len(self._running) > STRAGGLERS_MAX:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            task = asyncio.create_task(self._serve(self._next))
            self._next += 1
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def finish(self, seconds: float) -> None:
        """Let those who are still there end their story, for a while."""
        if self._running:
            _done, late = await asyncio.wait(set(self._running), timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _serve(self, index: int) -> None:
        buyer, leaving = Buyer(self.world, index), asyncio.Event()

        def make_room() -> None:
            if not leaving.is_set():
                leaving.set()
                self._room.release()

        buyer.make_room = make_room
        name, story = self._choose(buyer.rng)
        try:
            placed = await buyer.place(EXPIRIES.get(name, 0.0))
            if placed is None:
                await pause(0.3)
                return
            self.world.told[name] += 1
            await story(buyer)
        except Exception as error:  # noqa: BLE001 - a story that breaks is a defect of the storm, and is told at the end
            self.world.broken_stories.append(f"story {name}: {type(error).__name__}: {error}"[:200])
        finally:
            make_room()


EXPIRIES = {"late": 6.0, "expired": 8.0, "late_lost": 6.0, "closing_race": 9.0, "through_all": 75.0}
"""Stories whose order is over soon, or lasts long, with its life in seconds."""
