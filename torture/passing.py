"""Time passes after the storm, since real channels have horizons of hours and days: the clocks of the database and of the bank move on.

Between the steps the site's own beats and workers do what has come due. Clocks of processes, leases of Redis and signatures of calls stay
as they are: the bank judges and signs calls by the true time, and tells by its own. Old codes are paid meanwhile, hours late.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

from torture.buyers import World
from torture.rest import LOOK_SECONDS
from torture.servers import connect
from torture.site import TortureSite

STEPS_SECONDS = (
    20, 20, 40, 120, 300, 900, 1_800, 3_600, 3_600, 7_200, 7_200, *(14_400 for _ in range(17)), *(86_400 for _ in range(5))
)  # fmt: skip
"""Together more than the longest horizons: PayPal tells a payment again for three days, a refund may wait for seven."""
STEP_SECONDS_MAX = 30.0
END_SECONDS_MAX = 120.0
LATE_AFTER_SECONDS = (500, 5_000, 30_000, 100_000)
LATE_AT_ONCE = 6
MOVABLE = """
CREATE TABLE IF NOT EXISTS payonce_test_clock (offset_seconds double precision NOT NULL);
CREATE OR REPLACE FUNCTION payonce_now() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    'SELECT clock_timestamp() + COALESCE((SELECT sum(offset_seconds) FROM payonce_test_clock), 0) * interval ''1 second'''
"""
UNFINISHED = """
SELECT what, extract(epoch FROM at - payonce_now())::float8 FROM (
    SELECT 'stream ' || number || ' ' || state AS what, next_check_at AS at FROM payonce_stream WHERE next_check_at IS NOT NULL
    UNION ALL SELECT 'order ' || number || ' ' || state, next_expiry_at FROM payonce_order AS o
        WHERE state = 'OPEN' OR (state = 'CLOSING' AND NOT EXISTS (
            SELECT 1 FROM payonce_discrepancy AS d JOIN payonce_stream AS s ON s.id = d.stream_id
            WHERE s.order_id = o.id AND s.state = 'PROCESSING' AND d.kind = 'stream_unclear' AND d.state = 'OPEN'))
    UNION ALL SELECT 'refund ' || number || ' ' || state, next_try_at FROM payonce_refund AS r
        WHERE state IN ('REQUESTED', 'SUBMITTED', 'UNKNOWN') AND NOT EXISTS (
            SELECT 1 FROM payonce_discrepancy AS d WHERE d.state = 'OPEN' AND (d.stream_id = r.stream_id OR d.subject = r.number))
    UNION ALL SELECT 'message ' || id || ' to ' || listener, next_try_at FROM payonce_shop_message WHERE state = 'PENDING'
    UNION ALL SELECT 'notification ' || dedupe_key, next_try_at FROM payonce_notification WHERE state = 'RECEIVED'
) AS unfinished ORDER BY at NULLS LAST
"""
"""All that is not finished and not in a person's queue, with the seconds until it is looked at again. (A refund that waits at the channel
is asked about for ever, and an order waits around a bank that never decides; but a person is told.)"""


class Passing:
    """Moves the clocks of one site. `ahead` is how far they are by now, in seconds; `began_at` when that began, in Unix seconds."""

    def __init__(self, site: TortureSite, world: World, say: Callable[[str], None]) -> None:
        self.site, self.world = site, world
        self.ahead = 0.0
        self.began_at = time.time()
        self._say = say
        self._late = list(LATE_AFTER_SECONDS)

    async def run(self) -> list[str]:
        """Let time pass until nothing is due any more; returns what is left when even the longest horizon is over."""
        await asyncio.to_thread(self._make_movable)
        for step in STEPS_SECONDS:
            due = await asyncio.to_thread(next_due, self.site.direct_url)
            if due is None and not self._late:
                break
            await self.move(max(float(step), due or 0.0))
            await self._pay_late()
            left = await self._until_taken(STEP_SECONDS_MAX)
            self._say(f"{self.ahead / 3_600:6.2f} h later" + ("" if left is None else f", next look in {left:.0f} s"))
        return await self._left_over()

    async def _left_over(self) -> list[str]:
        """What is not finished although every horizon is over."""
        deadline = time.monotonic() + END_SECONDS_MAX
        while True:
            left = await asyncio.to_thread(unfinished, self.site.direct_url)
            if not left or time.monotonic() > deadline:
                return [f"{what} (next look in {seconds:.0f} s)" for what, seconds in left]
            await asyncio.sleep(LOOK_SECONDS)

    async def move(self, seconds: float) -> None:
        """So much time passes: first for the database, so that nothing is over at the bank before it is over there."""
        await asyncio.to_thread(_execute, self.site.direct_url, f"INSERT INTO payonce_test_clock VALUES ({seconds:f})")
        self.ahead += seconds
        await self._tell_bank(offset_seconds=self.ahead)
        for name in self.world.roster.names:
            await self._tell_bank(account=name, skew_seconds=-self.ahead, calls_only=True)

    async def _tell_bank(self, **fields: Any) -> None:
        for _ in range(10):
            if await self.world.bank.act("clock", **fields):
                return
            await asyncio.sleep(0.5)
        raise OSError("the bank does not take its clock")

    async def _pay_late(self) -> None:
        """Some old codes are paid, hours late: some past the bank's own refusal, as late bank money is."""
        if not self._late or self.ahead < self._late[0]:
            return
        self._late.pop(0)
        world = self.world
        for place in range(min(LATE_AT_ONCE, len(world.unpaid))):
            account, number = world.unpaid.popleft()
            found = await world.bank.act("pay", number=number, account=account, force=place % 2 == 0)
            world.told["paid hours later" if found.get("result") == "OK" else "refused hours later"] += 1

    async def _until_taken(self, seconds: float) -> float | None:
        """Wait until somebody has taken up everything that is due; returns the seconds until something is due again.

        What is still being done then meets the next step as a slow worker would.
        """
        deadline = time.monotonic() + seconds
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            due: float | None = 0.0
            with contextlib.suppress(OSError):
                due = await asyncio.to_thread(next_due, self.site.direct_url)
            if due is None or due > 0 or time.monotonic() > deadline:
                return due

    def _make_movable(self) -> None:
        _execute(self.site.direct_url, MOVABLE)


def unfinished(url: str) -> list[tuple[str, float]]:
    """What is not finished, with the seconds until it is looked at again: negative when that is late."""
    with connect(url) as connection:
        return [(str(what), math.inf if at is None else float(at)) for what, at in connection.execute(UNFINISHED)]


def next_due(url: str) -> float | None:
    """In how many seconds the next thing is looked at; None when nothing is."""
    return next((seconds for _what, seconds in unfinished(url) if seconds < math.inf), None)


def _execute(url: str, sql: str) -> None:
    with connect(url) as connection:
        connection.execute(sql.encode())
