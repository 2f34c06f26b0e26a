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
from torture.shown import notification_key
from torture.site import TortureSite

REST_SECONDS_MAX = 420.0
SOON_SECONDS = 240
LOOK_SECONDS = 1.0
READ_ON_AT_ONCE = 15
DUE_SOON = """
SELECT 'stream ' || s.number || ' ' || s.state || ' next ' || COALESCE(next_check_at::text, '-') FROM payonce_stream s
    WHERE next_check_at <= payonce_now() + CASE s.state WHEN 'CLOSED' THEN 10 ELSE %(soon)s END * interval '1 second'
UNION ALL SELECT 'order ' || number || ' ' || state || ' next ' || COALESCE(next_expiry_at::text, '-') FROM payonce_order o
    WHERE state = 'OPEN' OR (state <> 'CLOSING' AND next_expiry_at <= payonce_now() + %(soon)s * interval '1 second')
        OR (state = 'CLOSING' AND NOT EXISTS (SELECT 1 FROM payonce_discrepancy d JOIN payonce_stream s ON s.id = d.stream_id
            WHERE s.order_id = o.id AND s.state = 'PROCESSING' AND d.kind = 'stream_unclear' AND d.state = 'OPEN'))
UNION ALL SELECT 'refund ' || number || ' ' || state || ' next ' || COALESCE(next_try_at::text, '-') FROM payonce_refund
    WHERE state IN ('REQUESTED', 'SUBMITTED', 'UNKNOWN') AND next_try_at <= payonce_now() + %(soon)s * interval '1 second'
"""
"""A closed stream is finished: that it is looked at once more at the ladder's next rung, minutes later, is no work that was left. An order
waits for ever around a bank that never decides, but a person was told."""
UNANSWERED = """
SELECT 'stream ' || account || ' ' || number || ' ' || state || ' answered ' || COALESCE(last_answer_at::text, '-')
    FROM payonce_stream WHERE state = 'CREATED' OR (state IN ('PENDING', 'PROCESSING', 'CAPTURING', 'CLOSING')
        AND (is_answer_unknown OR last_answer_at IS NULL OR last_answer_at < to_timestamp(%(healed)s)))
UNION ALL SELECT 'order ' || number || ' ' || state || ' next ' || COALESCE(next_expiry_at::text, '-') FROM payonce_order o
    WHERE state = 'OPEN' OR (state = 'CLOSING'
        AND NOT EXISTS (SELECT 1 FROM payonce_stream s WHERE s.order_id = o.id AND s.state = 'PROCESSING'))
UNION ALL SELECT 'refund ' || number || ' ' || state || ' answered ' || COALESCE(last_answer_at::text, '-') FROM payonce_refund
    WHERE state = 'REQUESTED' OR (state IN ('SUBMITTED', 'UNKNOWN')
        AND (last_answer_at IS NULL OR last_answer_at < to_timestamp(%(healed)s)))
"""
"""Where horizons are real, what no channel can answer before its time is over does not count. Every other stream and refund that is not
finished was asked after the healing, and answered, and every order is closed or paid but those around money on its way."""
ALWAYS = """
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
    began, healed, left = time.monotonic(), time.time(), ["the database does not answer"]
    answered_since = healed if site.modes.real_channels else None
    while left and time.monotonic() - began < seconds:
        with contextlib.suppress(OSError):
            left = await asyncio.to_thread(unfinished, site.direct_url, answered_since=answered_since)
        if left:
            await asyncio.sleep(LOOK_SECONDS)
    return time.monotonic() - began, left


def unfinished(url: str, soon: int = SOON_SECONDS, answered_since: float | None = None) -> list[str]:
    """What is not finished and will go on by itself soon, a line each.

    With `answered_since` (Unix seconds) what waits for nothing but the end of a channel's own time counts as finished.
    """
    first = DUE_SOON if answered_since is None else UNANSWERED
    with connect(url) as connection:
        params: dict[str, Any] = {"soon": soon, "healed": answered_since}
        return [str(row[0]) for row in connection.execute(first + ALWAYS, params)]


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
    skins = world.roster.skins
    for row in told:
        world.history.note(
            "notify",
            "bank",
            result={"status": 200},
            account=row["account"],
            dedupe_key=notification_key(row["account"] if row["account"] in skins else "", row["key"]),
            number=row["number"],
        )
    return len(told)
