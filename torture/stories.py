"""The stories that buyers and their shop live through, and how often each is told."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence

from torture.accounts import REAL_CHANNELS, Roster
from torture.buyers import FOLLOWED_MAX, Buyer, Story
from torture.clients import pause


def _channel(buyer: Buyer) -> str:
    weights = buyer.world.roster.weights
    return buyer.rng.choices(tuple(weights), tuple(weights.values()))[0]


def _two(buyer: Buyer) -> tuple[str, str]:
    first = _channel(buyer)
    return first, buyer.rng.choice([name for name in buyer.world.roster.names if name != first])


async def _think(buyer: Buyer, most: float = 1.0) -> None:
    await pause(buyer.rng.uniform(0.02, most))


async def single(buyer: Buyer) -> None:
    """Click, pay, done."""
    channel = _channel(buyer)
    stream = await buyer.get_way(channel)
    if stream:
        await _think(buyer)
        await buyer.pay(stream, channel)


async def double_click(buyer: Buyer) -> None:
    """Several clicks at once, on any of the web processes."""
    channel = _channel(buyer)
    await asyncio.gather(*(buyer.click(channel) for _ in range(buyer.rng.randint(2, 3))))
    stream = await buyer.get_way(channel)
    if stream:
        await buyer.pay(stream, channel)


async def same_key(buyer: Buyer) -> None:
    """A client that repeats its call under one Idempotency-Key."""
    channel, key = _channel(buyer), f"{buyer.world.run}-{buyer.index}"
    stream = await buyer.get_way(channel, key=key)
    await buyer.click(channel, key=key)
    if stream:
        await buyer.pay(stream, channel)


async def switch(buyer: Buyer) -> None:
    """Look at one wallet, pay in another."""
    first, second = _two(buyer)
    old = await buyer.get_way(first)
    if old and buyer.rng.random() < 0.4:
        await buyer.open_page(old, first)
    stream = await buyer.get_way(second)
    if stream:
        await _think(buyer)
        await buyer.pay(stream, second)


async def both(buyer: Buyer) -> None:
    """Two codes on two phones, and both are paid; late bank money passes the bank's own refusal."""
    first, second = _two(buyer)
    old = await buyer.get_way(first)
    if old and first in buyer.world.roster.hidden:
        await buyer.open_page(old, first)
    new = await buyer.get_way(second)
    pays = [(old, first), (new, second)]
    buyer.rng.shuffle(pays)
    force = buyer.rng.random() < 0.5
    await asyncio.gather(*(buyer.pay(stream, channel, force=force) for stream, channel in pays if stream))


async def switch_while_paying(buyer: Buyer) -> None:
    """The old wallet takes the money just while it is being closed."""
    first, second = _two(buyer)
    old = await buyer.get_way(first)
    if not old:
        return
    winner = buyer.rng.choice(("pay", "close"))
    await buyer.world.bank.fault("close", "race_pay", account=first, number=old, winner=winner)
    stream = await buyer.get_way(second)
    if stream:
        await buyer.pay(stream, second)


async def lost(buyer: Buyer) -> None:
    """The notification never comes; the buyer waits on the page, or goes home."""
    channel = _channel(buyer)
    stream = await buyer.get_way(channel)
    if stream:
        await buyer.world.bank.fault("notify", "lose", account=channel, number=stream)
        await buyer.pay(stream, channel)


async def repeated(buyer: Buyer) -> None:
    """The notification comes in copies, out of order, unacknowledged, late, or after a forgery."""
    channel, rng = _channel(buyer), buyer.rng
    stream = await buyer.get_way(channel)
    if not stream:
        return
    do, arguments = rng.choice(
        [("repeat", {"copies": rng.randint(2, 4)}), ("acknowledgement_lost", {}), ("delay", {"seconds": rng.uniform(1, 8)}),
         ("forge", {"kind": rng.choice(FORGERIES)}), ("stale", {"seconds": 3_600}), ("swap", {})]
    )  # fmt: skip
    await buyer.world.bank.fault("notify", do, account=channel, number=stream, **arguments)
    await buyer.pay(stream, channel)


FORGERIES = ("bad_signature", "no_signature", "altered_body", "wrong_account", "other_secret")


async def altered(buyer: Buyer) -> None:
    """Another amount than asked for was truly paid, or the bank itself says something wrong."""
    channel = buyer.rng.choice(buyer.world.roster.altering)
    stream = await buyer.get_way(channel)
    if not stream:
        return
    await buyer.pay(stream, channel, amount_minor=max(1, buyer.rng.randint(1, 100_000)))


async def second_capture(buyer: Buyer) -> None:
    """The bank takes the money twice under one number."""
    channel = buyer.rng.choice(buyer.world.roster.altering)
    stream = await buyer.get_way(channel)
    if stream and await buyer.pay(stream, channel):
        await _think(buyer)
        await buyer.world.bank.act("second_capture", number=stream, account=channel)
        buyer.world.forced.append(
            (channel, stream)
        )  # a settled stream is not asked about: who took twice says so in the end


async def slow_bank(buyer: Buyer) -> None:
    """The buyer acts, the bank is not done for a while; the buyer clicks on something else meanwhile."""
    first, second = buyer.rng.sample(buyer.world.roster.slow, 2)
    stream = await buyer.get_way(first)
    if not stream:
        return
    await buyer.world.bank.act("begin", number=stream, account=first)
    await _think(buyer, 4.0)
    if buyer.rng.random() < 0.4:
        await buyer.click(second)
    if buyer.rng.random() < 0.8:
        await buyer.pay(stream, first)
        return
    await buyer.world.bank.act("decline", number=stream, account=first)
    stream = await buyer.get_way(second)
    if stream:
        await buyer.pay(stream, second)


async def late(buyer: Buyer) -> None:
    """Bank money comes after the order is closed."""
    channel = _channel(buyer)
    stream = await buyer.get_way(channel)
    if stream:
        order = buyer.order
        assert order is not None
        await pause(max(0.0, order.expires_at - time.time()) + buyer.rng.uniform(0.0, 12.0))
        await buyer.pay(stream, channel, force=True)


async def late_lost(buyer: Buyer) -> None:
    """The same, and nobody says so."""
    channel = _channel(buyer)
    stream = await buyer.get_way(channel)
    if stream:
        order = buyer.order
        assert order is not None
        await buyer.world.bank.fault("notify", "lose", account=channel, number=stream)
        await pause(max(0.0, order.expires_at - time.time()) + buyer.rng.uniform(-1.0, 3.0))
        await buyer.pay(stream, channel, force=True)


async def expired(buyer: Buyer) -> None:
    """Somebody looks and goes away."""
    if buyer.rng.random() < 0.7:
        await buyer.get_way(_channel(buyer))


async def cancelled(buyer: Buyer) -> None:
    """The shop cancels, sometimes while the buyer pays."""
    channel = _channel(buyer)
    stream = await buyer.get_way(channel) if buyer.rng.random() < 0.8 else ""
    if stream and buyer.rng.random() < 0.6:
        await asyncio.gather(buyer.close(), buyer.pay(stream, channel))
    else:
        await buyer.close()


async def closing_race(buyer: Buyer) -> None:
    """The buyer pays in the last moment of the order."""
    channel = _channel(buyer)
    stream = await buyer.get_way(channel)
    if stream:
        order = buyer.order
        assert order is not None
        await pause(max(0.0, order.expires_at - time.time()) + buyer.rng.uniform(-0.8, 0.2))
        await buyer.pay(stream, channel)


async def amended(buyer: Buyer) -> None:
    """The price changes while a way to pay is open, and the old one may be paid."""
    first, second = _two(buyer)
    old = await buyer.get_way(first)
    order = buyer.order
    assert order is not None
    await buyer.amend(order.amount_minor + 100)
    new = await buyer.get_way(second)
    if old and buyer.rng.random() < 0.5:
        await buyer.pay(old, first, force=buyer.rng.random() < 0.5)
    if new:
        await buyer.pay(new, second)


async def refunded(buyer: Buyer) -> None:
    """An operator gives back a part, or everything, by a client that repeats itself."""
    channel, rng = _channel(buyer), buyer.rng
    stream = await buyer.get_way(channel)
    order = buyer.order
    if not stream or order is None or not await buyer.pay(stream, channel):
        return
    keeper = await buyer.until_paid()
    if not keeper:
        return
    amount = order.amount_minor if rng.random() < 0.5 else rng.randint(1, order.amount_minor)
    key = f"{buyer.world.run}-refund-{buyer.index}"
    await asyncio.gather(*(buyer.refund(keeper, amount, key) for _ in range(rng.randint(1, 2))))
    if rng.random() < 0.3:
        await buyer.refund(keeper, rng.randint(1, order.amount_minor), key + "-again")


async def watched(buyer: Buyer) -> None:
    """The buyer's page follows the order live."""
    channel = _channel(buyer)
    stream = await buyer.get_way(channel)
    if not stream:
        return
    if len(buyer.world.followed) < FOLLOWED_MAX:
        await asyncio.gather(buyer.follow(8.0), buyer.pay(stream, channel))
    else:
        await buyer.pay(stream, channel)
        await buyer.look(wait=10)


async def through_all(buyer: Buyer) -> None:
    """WeChat Pay, Alipay, Stripe, PayPal: the buyer changes their mind each time, and pays the last code, an old one, or both."""
    rng, codes = buyer.rng, list[tuple[str, str]]()
    for channel in REAL_CHANNELS:
        stream = await buyer.get_way(channel)
        if not stream:
            break
        codes.append((stream, channel))
        if rng.random() < 0.4:
            await buyer.open_page(stream, channel)
        await _think(buyer, 0.5)
    if not codes:
        return
    old = rng.choice(codes[:-1] or codes)
    paid = rng.choice(([codes[-1]], [old], [old, codes[-1]], [codes[-1], old], [*codes], []))
    force = rng.random() < 0.3
    for stream, channel in paid:
        await buyer.pay(stream, channel, force=force and (stream, channel) != codes[-1])
        await _think(buyer, 2.0)
    buyer.world.unpaid += [(channel, stream) for stream, channel in codes if (stream, channel) not in paid]


STORIES: dict[Story, int] = {
    single: 26, double_click: 12, same_key: 4, switch: 9, both: 8, switch_while_paying: 3, lost: 7, repeated: 8, altered: 2,
    second_capture: 2, slow_bank: 3, late: 3, late_lost: 1, expired: 3, cancelled: 3, closing_race: 2, amended: 2, refunded: 4,
    watched: 1,
}  # fmt: skip
"""Each story with its share in percent."""


MIXED_STORIES = {**STORIES, through_all: 20, lost: 12, late: 5, second_capture: 6}
"""The same, where every real channel has an account. What a channel has rules of its own for is told more often."""


def chooser(roster: Roster) -> Callable[[random.Random], tuple[str, Story]]:
    """How to draw one, for the accounts of a run."""
    told = MIXED_STORIES if roster.skins else STORIES
    stories: Sequence[Story] = list(told)

    def choose(rng: random.Random) -> tuple[str, Story]:
        story = rng.choices(stories, list(told.values()))[0]
        return getattr(story, "__name__", "story"), story

    return choose
