"""An attacker: forges and replays notifications, acts on other buyers' orders, and sends what nobody would send."""

import asyncio
import json
import random
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable

import aiohttp

from torture.buyers import Buyer, Purchase, World
from torture.forgeries import KINDS, Claim, forge

FORGERIES = ("bad_signature", "no_signature", "altered_body", "wrong_account", "other_secret")
GAP_SECONDS = 0.4
FLOOD_AT_ONCE = 40
WISHES = (b"retry", b"fail", b'{"code":"FAIL","message":"retry"}')
"""How a channel is asked, with 500, to send its message again: in its own words."""


class Attacker:
    """One of them, with all its tricks. `counts` says what it tried; what succeeded is in the world's findings."""

    def __init__(self, world: World, hands: int = 4) -> None:
        self.world = world
        self.hands = hands
        self.rng = random.Random(f"attacker-{world.seed}")
        self.counts: Counter[str] = Counter()
        self.is_active = True
        self._tricks: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (4, self.forge_by_hand), (3, self.forge_from_truth), (3, self.replay), (5, self.probe_order),
            (2, self.probe_refund), (2, self.bend_token), (3, self.send_nonsense),
        ]  # fmt: skip

    async def run(self) -> None:
        """One trick after the other, with several hands."""
        await asyncio.gather(*(self._go_on() for _ in range(self.hands)))

    async def _go_on(self) -> None:
        weights = [weight for weight, _trick in self._tricks]
        while self.is_active:
            await asyncio.sleep(self.rng.uniform(0.5, 1.5) * GAP_SECONDS)
            await self.rng.choices(self._tricks, weights)[0][1]()

    # Notifications.

    async def forge_by_hand(self) -> None:
        """ "This was paid", in the attacker's own words, with a signature of the attacker's own."""
        order = self._victim()
        if order is None:
            return
        account, number = self.rng.choice(self.world.roster.names), self._stream() or order.number
        kind = self.rng.choice(KINDS)
        skin = account if account in self.world.roster.skins else ""
        claim = Claim(account, number, order.amount_minor, self.world.names.get(account, {}))
        headers, body = forge(skin, claim, kind)
        await self._forge(f"by hand: {kind}", account, body, headers)

    async def _forge(self, kind: str, account: str, body: bytes, headers: dict[str, str]) -> None:
        began = self.world.history.begin("forge", "attacker", kind=kind, account=account)
        status = await self._post(f"/notify/{account}/", body, headers)
        how = "ok" if status and status < 500 else "unknown"
        self.world.history.end(began, how, "forge", "attacker", status=status)
        self.counts["forged notifications"] += 1
        self._judge("X1", status, f"a forged notification ({kind}) for {account}")

    async def forge_from_truth(self) -> None:
        """A genuine message, changed or signed by somebody else."""
        paid = self._paid()
        if paid is None:
            return
        kind = self.rng.choice(FORGERIES)
        began = self.world.history.begin("forge", "attacker", kind=kind, account=paid[0])
        sent = await self.world.bank.act("notify/send", account=paid[0], number=paid[1], forgery=kind)
        status = _status(sent)
        self.world.history.end(began, "ok" if 0 < status < 500 else "unknown", "forge", "attacker", status=status)
        self.counts["forged notifications"] += 1
        self._judge("X1", status, f"a forged notification ({kind}) for {paid[1]}")

    async def replay(self) -> None:
        """A genuine message that was acknowledged comes again, also as one of long ago, also several times at once."""
        paid = self._paid()
        if paid is None:
            return
        account, number = paid
        told = await self._told(account, number)
        if not told:
            return
        newest = told[-1]
        if newest["state"] != "DELIVERED":
            return
        age = self.rng.choice((0.0, 0.0, 3_600.0, 80_000.0))
        began = self.world.history.begin("replay", "attacker", account=account, dedupe_key=newest["key"], age=age)
        sent = await self.world.bank.act(
            "notify/send",
            account=account,
            number=number,
            signed_ago_seconds=age,
            copies=self.rng.randint(1, 3),
            at_once=True,
        )
        status = max((_status_of(text) for text in sent.get("results", [])), default=0)
        how = "ok" if 0 < status < 500 else "unknown"
        self.world.history.end(began, how, "replay", "attacker", status=status)
        self.counts["replayed notifications"] += 1

    async def _told(self, account: str, number: str) -> list[dict[str, str]]:
        bank = self.world.bank
        limit = aiohttp.ClientTimeout(total=10)
        headers = {"authorization": f"Bearer {bank.token}"}
        try:
            url = f"{bank.url}/_ctl/notify?account={account}&number={number}"
            async with bank.session.get(url, headers=headers, timeout=limit) as reply:
                found: list[dict[str, str]] = (await reply.json())["notifications"] if reply.status == 200 else []
                return found
        except (aiohttp.ClientError, TimeoutError, OSError):
            return []

    # Other people's orders.

    async def probe_order(self) -> None:
        """Read, pay, follow and close an order with the token of another one, or of another shop."""
        mine, other = self._victim(), self._victim()
        if mine is None or other is None or mine.number == other.number:
            return
        shop = self.world.clients["other" if other.source == "shop" else "shop"]
        token, whose = self.rng.choice(((mine.token, "another buyer"), (shop, "another shop"), ("", "nobody")))
        base = f"/api/orders/{other.number}/"
        method, path, body = self.rng.choice(
            (("GET", base, None), ("GET", base + "events/", None), ("POST", base + "pay/", {"channel": "blue", "method": "qr"}),
             ("POST", base + "close/", {}))
        )  # fmt: skip
        await self._probe(method, path, token, body, whose)

    async def probe_refund(self) -> None:
        """Ask for somebody's money back as a buyer, as another shop, or as nobody."""
        paid, mine = self._paid(), self._victim()
        if paid is None or mine is None:
            return
        token, whose = self.rng.choice(
            ((mine.token, "a buyer"), ("", "nobody"), ("pos_" + secrets.token_urlsafe(32), "a made-up shop"))
        )
        body = {"amount_minor": 1, "reason": "customer_request"}
        await self._probe("POST", f"/api/streams/{paid[1]}/refunds/", token, body, whose)

    async def bend_token(self) -> None:
        """A buyer's token, bent to fit another order."""
        mine, other = self._victim(), self._victim()
        if mine is None or other is None or mine.number == other.number:
            return
        bent = self.rng.choice(
            (
                mine.token.replace(mine.number, other.number),
                mine.token[:-1],
                mine.token + "A",
                other.number,
                mine.token.swapcase(),
            )
        )
        await self._probe("GET", f"/api/orders/{other.number}/", bent, None, "a bent token")
        await self._probe("GET", f"/cashier/{bent}/", "", None, "a bent token")

    async def _probe(self, method: str, path: str, token: str, body: dict[str, object] | None, whose: str) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        data = None if body is None else json.dumps(body).encode()
        status = await self._send(method, path, data, {**headers, "content-type": "application/json"})
        self.counts["probes of others' orders"] += 1
        if path.startswith("/cashier/") and status in (302, 303):
            return  # sent to a page that says "not yours"
        self._judge("X3", status, f"{method} {path.split('/')[-2]} of another's order by {whose}")

    # Nonsense.

    async def send_nonsense(self) -> None:
        """What no client sends: sizes, encodings, numbers, methods."""
        rng, order = self.rng, self._victim()
        number, account = order.number if order else "tt1", rng.choice(self.world.roster.names)
        method, path, body = rng.choice(
            (
                ("POST", f"/notify/{account}/", b"x" * 2_000_000),
                ("POST", f"/notify/{account}/", bytes(rng.randrange(256) for _ in range(200))),
                ("POST", "/notify/nobody/", b"{}"), ("PUT", f"/notify/{account}/", b"{}"),
                ("GET", f"/api/orders/{number}%00/", None), ("GET", "/api/orders/%D9%A1%D9%A2/", None),
                ("POST", "/api/orders/", b"{" * 5_000), ("POST", f"/api/orders/{number}/pay/", b"\xff\xfe"),
                ("GET", "/cashier/" + "a" * 300 + "/", None), ("GET", f"/return/{account}/?number=%00'--", None),
                ("DELETE", f"/api/orders/{number}/", None), ("GET", "/api/streams/1e9/refunds/", None),
            )
        )  # fmt: skip
        status = await self._send(method, path, body, {"content-type": "application/json"})
        self.counts["nonsense"] += 1
        # What nobody meant to answer is kept by `_send`.
        self.counts["refused" if 0 < status < 500 else "not answered"] += 1

    async def flood(self, what: str, count: int) -> int:
        """A lot at once: garbage at the notification door, or clicks on one order. Returns how much was sent."""
        room, victim = asyncio.Semaphore(FLOOD_AT_ONCE), self._victim()
        if what == "clicks" and victim is None:
            return 0
        buyer = Buyer(self.world, -1 - count)
        buyer.order, buyer.process = victim, "flood"
        account = self.world.roster.names[count % len(self.world.roster.names)]

        async def one() -> None:
            async with room:
                if what == "clicks":
                    await buyer.click(account)
                else:
                    await self._forge("flood", account, secrets.token_bytes(40), {})

        await asyncio.gather(*(one() for _ in range(count)))
        self.counts["flood"] += count
        return count

    # Tools.

    def _victim(self) -> Purchase | None:
        return self.rng.choice(self.world.recent) if self.world.recent else None

    def _paid(self) -> tuple[str, str] | None:
        return self.rng.choice(self.world.paid) if self.world.paid else None

    def _stream(self) -> str:
        paid = self._paid()
        return paid[1] if paid else ""

    def _judge(self, rule: str, status: int, what: str) -> None:
        if 200 <= status < 300:
            self.world.findings.append((rule, f"{what} was answered {status}"))
        elif 400 <= status < 500:
            self.counts["refused"] += 1
        else:
            self.counts["not answered"] += 1

    async def _post(self, path: str, body: bytes, headers: dict[str, str]) -> int:
        return await self._send("POST", path, body, {"content-type": "application/json", **headers})

    async def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> int:
        web = self.world.web
        limit = aiohttp.ClientTimeout(total=15, connect=3)
        url = self.rng.choice(web.urls) + path
        try:
            async with web.session.request(
                method, url, data=body, headers=headers, timeout=limit, allow_redirects=False
            ) as reply:
                status, said = reply.status, await reply.content.read(200)
                is_wish_for_repeat = path.startswith("/notify/") and said in WISHES
                if status >= 500 and status != 503 and not is_wish_for_repeat:
                    web.broken.append(f"{method} {path[:80]} answered {status}")
                return status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return 0


def _status(sent: dict[str, object]) -> int:
    results = sent.get("results")
    return _status_of(str(results[0])) if isinstance(results, list) and results else 0


def _status_of(text: str) -> int:
    first = text.split(" ", maxsplit=1)[0]
    return int(first) if first.isdecimal() else 0
