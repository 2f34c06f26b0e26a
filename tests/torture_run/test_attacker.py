"""What an attacker counts as a finding: an answer that nobody meant to give, and not a wish to hear a notification again."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from torture.accounts import MIXED
from torture.attacker import WISHES, Attacker
from torture.buyers import World
from torture.clients import Bank, History, Web

pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body")  # which is the point of it


def attacked(folder: Path, status: int, body: bytes, attack: Callable[[Attacker], Awaitable[None]]) -> World:
    """What the world knows after an attack on a site that answers everything so."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    async def play() -> World:
        app = web.Application(client_max_size=8_000_000)
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        history = History(folder / "history.jsonl")
        try:
            async with aiohttp.ClientSession() as session:
                world = World(Web([url], session, history), Bank(url, "t", session), history, {}, 7, "r", url, MIXED)
                await attack(Attacker(world))
        finally:
            history.close()
            await runner.cleanup()
        return world

    return asyncio.run(play())


async def nonsense(attacker: Attacker) -> None:
    for _ in range(30):
        await attacker.send_nonsense()


@pytest.mark.parametrize("body", WISHES)
def test_a_channel_that_is_asked_to_repeat_is_no_finding_at_its_own_door(tmp_path: Path, body: bytes) -> None:
    """With the database away a notification cannot even be refused durably: 500 in the channel's words is right there, and only there."""
    world = attacked(tmp_path, 500, body, nonsense)
    assert world.findings == []
    assert world.web.broken
    assert not any("/notify/" in text for text in world.web.broken)


def test_any_other_500_is_kept_at_every_door(tmp_path: Path) -> None:
    """X6."""
    world = attacked(tmp_path, 500, b"Traceback", nonsense)
    assert any("/notify/" in text for text in world.web.broken)
    assert len(world.web.broken) == 30


def test_nonsense_that_is_refused_is_no_finding(tmp_path: Path) -> None:
    world = attacked(tmp_path, 404, b"", nonsense)
    assert (world.findings, world.web.broken) == ([], [])


@pytest.mark.parametrize(("status", "is_found"), [(200, True), (204, True), (401, False), (503, False)])
def test_a_forgery_that_is_accepted_is_a_finding(tmp_path: Path, status: int, is_found: bool) -> None:
    """X1."""

    async def forge(attacker: Attacker) -> None:
        await attacker._forge("by hand", "alipay", b"out_trade_no=1", {})

    world = attacked(tmp_path, status, b"", forge)
    assert [rule for rule, _text in world.findings] == ["X1"] * is_found
