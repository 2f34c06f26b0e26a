"""Torture: the whole site as real processes under buyers, an attacker and a nemesis; then it must heal, and the checker judges.

    make torture MINUTES=5 SEED=7
    python -m torture.run --minutes 5 --seed 7 [--replay FILE|SEED] [--mode no-cache] [--mode two-beats] [--mode lossy-broker]
                                  [--mode real-channels] [--json]

The seed gives the modes, every fault with its time, and every buyer's story; all of it is printed before the start. What
the machine decides (who runs when) is not in the seed: a replay makes the same storm, not the same instructions.

Exit status: 0 nothing was violated, 1 something was, 2 wrong usage, 3 too gentle (INVALID), 4 a server cannot be had.
"""

import argparse
import asyncio
import secrets
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import psycopg

from config.environment import STATE_FOLDER
from config.processes import ProcessError
from torture import rest, stories
from torture.attacker import Attacker
from torture.buyers import Crowd, World
from torture.check import check
from torture.clients import Bank, History, Web
from torture.facts import Violation
from torture.forgeries import public_names
from torture.inbox import Inbox
from torture.keep import keep
from torture.nemesis import Nemesis
from torture.passing import Passing
from torture.plan import Plan, PlanError, expand, read_plan
from torture.report import GENTLE, UNAVAILABLE, USAGE, Result, write_json, write_text
from torture.rules import Mode
from torture.shown import closes_of, in_the_channels_words
from torture.site import Modes, TortureSite, open_site
from torture.sources import SourceError, read_ledger, read_lines

PROGRESS_SECONDS = 10.0
FINISH_SECONDS = 45.0
WEB_WEIGHTS = {"web_a": 1, "web_b": 3}
"""Most calls go to the WSGI process, as the manual advises for pay, notify and status."""
JUDGED = ("L3", "L4", "L5")
"""Bounds that are measured while nothing else goes wrong, and so can be judged."""
Say = Callable[[str], None]


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit status."""
    options = _options(arguments)
    try:
        plan = _plan(options)
    except PlanError as error:
        print(error, file=sys.stderr)
        return USAGE
    say: Say = (
        (lambda text: print(text, file=sys.stderr, flush=True))
        if options.json
        else (lambda text: print(text, flush=True))
    )
    for line in plan.lines():
        say(line)
    folder = STATE_FOLDER / "torture" / f"{plan.seed}-{time.strftime('%H%M%S')}-{secrets.token_hex(2)}"
    folder.mkdir(parents=True)
    plan.write(folder / "plan.json")
    try:
        result = asyncio.run(run(plan, folder, say, size=options.buyers, scale=options.liveness, is_kept=options.keep))
    except (ProcessError, SourceError, OSError, psycopg.OperationalError) as error:
        print(f"torture: {error}", file=sys.stderr)
        return UNAVAILABLE
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("torture: stopped before the end, which proves nothing", file=sys.stderr)
        return GENTLE
    (folder / "result.json").write_text(write_json(result) + "\n")
    print(write_json(result) if options.json else "\n".join(write_text(result)), flush=True)
    if not result.kept_in:
        shutil.rmtree(folder, ignore_errors=True)
    return result.status


async def run(plan: Plan, folder: Path, say: Say, *, size: int, scale: float, is_kept: bool = False) -> Result:
    """Start the site in `folder`, let the storm go over it, heal it, and judge. Raises ProcessError, SourceError."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    if task is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
    inbox = Inbox(folder / "inbox.jsonl")
    port = await inbox.start()
    manager = open_site(folder, plan.modes, port, say)
    entering = asyncio.ensure_future(asyncio.to_thread(manager.__enter__))
    try:
        site = await asyncio.shield(entering)
    except asyncio.CancelledError:  # what is being started must be there before it can be ended
        await entering
        await asyncio.to_thread(manager.__exit__, None, None, None)
        raise
    try:
        inbox.secret = site.webhook_secret
        say(f"READY {' '.join(f'{name}={url}' for name, url in site.urls.items())}")
        result = await _storm_and_judge(plan, site, inbox, say, size, scale)
        if result.violations or is_kept:
            await asyncio.to_thread(keep, site)
            result.kept_in = str(site.folder)
        return result
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)
        await inbox.stop()


async def _storm_and_judge(plan: Plan, site: TortureSite, inbox: Inbox, say: Say, size: int, scale: float) -> Result:
    connector = aiohttp.TCPConnector(limit=0, limit_per_host=0, keepalive_timeout=20)
    result = Result(plan)
    history = History(site.history)
    with closing(history):
        async with aiohttp.ClientSession(connector=connector) as session:
            world = _world(plan, site, session, history)
            attacker = Attacker(world)
            nemesis = Nemesis(site, world, inbox, attacker.flood)
            await _storm(plan, world, attacker, nemesis, result, say, size)
            history.note("healed", "nemesis")
            result.rest_seconds, left = await rest.wait_for_rest(site)
            history.note("rest", "nemesis")
            say(f"at rest after {result.rest_seconds:.0f} s")
            if plan.modes.real_channels:
                passing = Passing(site, world, say)
                left += await passing.run()
                result.passed_seconds, result.moved_at = passing.ahead, passing.began_at
            await rest.read_on(world)
            rest.note_acknowledged(world, _bank_notifications(site.bank))
            result.commits = await asyncio.to_thread(site.proxy.send, "stats")
    result.violations += [Violation("L5", f"not at rest: {line}") for line in left[:5]]
    _collect(result, site, world, attacker, nemesis)
    began = time.monotonic()
    await asyncio.to_thread(_judge, result, site, scale)
    say(f"judged in {time.monotonic() - began:.0f} s")
    return result


def _world(plan: Plan, site: TortureSite, session: aiohttp.ClientSession, history: History) -> World:
    urls = [url for name, url in site.webs.items() for _ in range(WEB_WEIGHTS[name])]
    bank = Bank(site.urls["sandbox"], (site.bank / "control-token").read_text().strip(), session)
    web = Web(urls, session, history)
    names = {name: public_names(options) for name, options in site.accounts.items()}
    return World(
        web, bank, history, site.clients, plan.seed, secrets.token_hex(3), site.webs["web_a"], plan.modes.roster, names
    )


async def _storm(
    plan: Plan, world: World, attacker: Attacker, nemesis: Nemesis, result: Result, say: Say, size: int
) -> None:
    crowd = Crowd(world, stories.chooser(world.roster), size)
    began = time.monotonic()
    serving, attacking = asyncio.create_task(crowd.run()), asyncio.create_task(attacker.run())
    playing = asyncio.create_task(nemesis.play(plan, began))
    while (left := began + plan.seconds - time.monotonic()) > 0:
        await asyncio.wait({serving, attacking, playing}, timeout=min(PROGRESS_SECONDS, left))
        for task in (serving, attacking, playing):
            if task.done() and task.exception() is not None:
                await task
        if playing.done():
            await asyncio.sleep(min(PROGRESS_SECONDS, max(0.0, began + plan.seconds - time.monotonic())))
        spent, told = time.monotonic() - began, world.told
        say(
            f"{spent:5.0f} s: {told['placed']:,} orders ({told['placed'] / spent:.1f}/s), {sum(nemesis.done.values())} faults"
        )
    crowd.is_open = attacker.is_active = False
    result.storm_seconds = time.monotonic() - began
    await playing
    await serving
    await attacking
    say("healing")
    await rest.heal(nemesis.site, world, nemesis)
    await crowd.finish(FINISH_SECONDS)


def _bank_notifications(folder: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(f"file:{folder / 'bank.sqlite3'}?mode=ro", uri=True)) as books:
        books.row_factory = sqlite3.Row
        return [dict(row) for row in books.execute("SELECT key, account, number, state FROM notification")]


def _collect(result: Result, site: TortureSite, world: World, attacker: Attacker, nemesis: Nemesis) -> None:
    result.faults, result.failed = nemesis.done, nemesis.failed + world.broken_stories
    result.security, result.answers, result.stories = attacker.counts, world.web.statuses, world.told
    if site.disk is None:
        result.skipped["disk_full"] = "only root may mount a small disk"
    if site.wrong_clock is None:
        result.skipped["clock_skew"] = "there is no C compiler"
    result.violations += [Violation(rule, text) for rule, text in world.findings]
    result.violations += [Violation("X6", text) for text in world.web.broken]


def _judge(result: Result, site: TortureSite, scale: float) -> None:
    skins = {name: name for name in site.modes.roster.skins}
    closes = closes_of(site.direct_url)
    report = check(
        site.direct_url, lambda: in_the_channels_words(read_ledger(site.bank), skins, closes), lambda: read_lines(site.inbox),
        read_lines(site.history), mode=Mode.REST, prefix="tt", measured_until=result.moved_at,
    )  # fmt: skip
    result.violations += report.violations
    result.hardness, result.figures, result.tally = report.hardness, report.waits.figures(), report.tally
    if scale:
        result.violations += [item for item in report.waits.judge(scale) if item.rule in JUDGED]


def _plan(options: argparse.Namespace) -> Plan:
    replay = options.replay
    if replay and Path(replay).exists():
        path = Path(replay)
        return read_plan(path / "plan.json" if path.is_dir() else path)
    if replay and not replay.isdecimal():
        raise PlanError(f"--replay {replay}: neither a plan's file nor a seed")
    seed = int(replay) if replay else options.seed
    if seed is None:
        seed = secrets.randbelow(10**9)
    modes = None
    if options.mode:
        modes = Modes(
            "no-cache" not in options.mode, 2 if "two-beats" in options.mode else 1, "lossy-broker" in options.mode,
            "real-channels" in options.mode,
        )  # fmt: skip
    return expand(seed, options.minutes * 60, modes)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m torture.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", "--budget", type=float, default=5.0, help="how long the storm lasts (default: 5)")
    parser.add_argument("--seed", type=int, help="a number; without one it is drawn, and printed")
    parser.add_argument("--replay", default="", metavar="FILE|SEED", help="play the plan of an earlier run again")
    parser.add_argument("--mode", action="append", default=[], choices=["plain", "no-cache", "two-beats", "lossy-broker", "real-channels"],
                        help="instead of the seed's modes")  # fmt: skip
    parser.add_argument("--buyers", type=int, default=16, help="how many stand at the cashier at once (default: 16)")
    parser.add_argument("--liveness", type=float, default=2.0, metavar="SCALE",
                        help="judge L3-L5 with their bounds stretched by this factor (0: only measure; default: 2)")  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="keep everything of a run that found nothing, too")
    parser.add_argument("--json", action="store_true", help="the summary as one JSON object; progress goes to stderr")
    options = parser.parse_args(arguments)
    if not 0 < options.minutes <= 24 * 60 or options.buyers < 1:
        parser.error("--minutes and --buyers must be above 0")
    return options


if __name__ == "__main__":
    sys.exit(main())
