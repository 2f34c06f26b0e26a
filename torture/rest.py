"""After the storm: everything is put right, and then payonce must come to rest by itself."""

import asyncio
import contextlib
import os
import signal
import time
from typing import Any

from torture.buyers import World, read_live
from torture.nemesis import Nemesis
from torture.servers import connect
from torture.site import TortureSite

REST_SECONDS_MAX = 420.0
SOON_SECONDS = 240
LOOK_SECONDS = 1.0
READ_ON_AT_ONCE = 15
UNFINISHED = """
SELECT 'stream ' || s.number || ' ' || s.state || ' next ' || COALESCE(next_check_at::text, '-') FROM payonce_stream s
    WHERE next_check_at <= payonce_now() + %(soon)s * interval '1 second'
UNION ALL SELECT 'order ' || number || ' ' || state || ' next ' || COALESCE(next_expiry_at::text, '-') FROM payonce_order
    WHERE state IN ('OPEN', 'CLOSING') OR next_expiry_at <= payonce_now() + %(soon)s * interval '1 second'
UNION ALL SELECT 'refund ' || number || ' ' || state || ' next ' || COALESCE(next_try_at::text, '-') FROM payonce_refund
    WHERE state IN ('REQUESTED', 'SUBMITTED', 'UNKNOWN') AND next_try_at <= payonce_now() + %(soon)s * interval '1 second'
UNION ALL SELECT 'message ' || id || ' to ' || listener || ' tried ' || try_count FROM payonce_shop_message WHERE state = 'PENDING'
UNION ALL SELECT 'notification ' || dedupe_key FROM payonce_notification
    WHERE state = 'RECEIVED' AND next_try_at <= payonce_now() + %(soon)s * interval '1 second'
"""


async def heal(site: TortureSite, world: World, nemesis: Nemesis) -> None:
    """End every fault: clocks, disk, servers, processes, the bank, the shop. Raises ProcessError when something stays down."""
    await asyncio.to_thread(_heal_machines, site)
    await nemesis.put_shop_up()
    for _ in range(20):
        if await world.bank.act("faults/clear"):
            break
        await asyncio.sleep(0.5)
    await world.bank.act("clock", offset_seconds=0.0)
    await world.bank.act("notify/release", number="", account="", order="oldest", at_once=False)
    for account, number in world.forced:
        await world.bank.act("notify/resend", number=number, account=account)


def _heal_machines(site: TortureSite) -> None:
    for path in site.folder.glob("*.clock"):
        path.write_text("0\n")
    for name in list(site.paused):
        site.resume(name)
    if site.disk is not None:
        site.disk.free()
    site.postgres.start()
    pid = site.redis.pid()
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    site.redis.start()
    with contextlib.suppress(Exception):
        admin = site.redis_admin()
        admin.config_set("maxmemory", 0)
        admin.replicaof("NO", "ONE")
        admin.close()
    site.proxy.send("heal")
    for name in site.names:
        site.start(name, wait=False)
    site.wait_ready(*site.names)


async def wait_for_rest(site: TortureSite, seconds: float = REST_SECONDS_MAX) -> tuple[float, list[str]]:
    """Wait until nothing is due soon any more. Returns how long that took, and what is left where the time was over."""
    began, left = time.monotonic(), ["the database does not answer"]
    while left and time.monotonic() - began < seconds:
        with contextlib.suppress(OSError):
            left = await asyncio.to_thread(unfinished, site.direct_url)
        if left:
            await asyncio.sleep(LOOK_SECONDS)
    return time.monotonic() - began, left


def unfinished(url: str, soon: int = SOON_SECONDS) -> list[str]:
    """What is not finished and will go on by itself soon, a line each."""
    with connect(url) as connection:
        params: dict[str, Any] = {"soon": soon}
        return [str(row[0]) for row in connection.execute(UNFINISHED, params)]


async def read_on(world: World) -> None:
    """Everybody who followed an order live reads on to its end, and asks once more how it stands."""

    async def one(number: str, token: str, last: int) -> None:
        async with room:
            await read_live(world, number, token, last, 2.0)
            answer = await world.web.call("GET", f"/api/orders/{number}/", token)
        if answer.status == 200:
            result = {"version": answer.body["version"], "state": answer.body["state"]}
            world.history.note("pull", "follower", result=result, order=number)

    room = asyncio.Semaphore(READ_ON_AT_ONCE)
    await asyncio.gather(*(one(number, token, last) for number, (token, last) in world.followed.items()))


def note_acknowledged(world: World, rows: list[dict[str, Any]]) -> int:
    """Write down which of the bank's notifications were acknowledged: their effect must be durable. Returns how many."""
    told = [row for row in rows if row["state"] == "DELIVERED"]
    for row in told:
        world.history.note(
            "notify",
            "bank",
            result={"status": 200},
            account=row["account"],
            dedupe_key=row["key"],
            number=row["number"],
        )
    return len(told)
