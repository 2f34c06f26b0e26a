"""A worker of the interleaving search: plays one schedule after the other of a pair, and judges each."""

import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

import psycopg

from torture.crash_site import Site
from torture.crash_world import World, changed_settings, is_unseen, judge, world_at
from torture.interleave_control import (
    LETTERS,
    Actor,
    Controller,
    State,
    StuckError,
    Trace,
    branches,
    pause,
    preemptions,
    write_schedule,
)
from torture.interleave_pairs import PAIRS, Pair

UNIQUE = """
SELECT t.relname, i.relname, c.conname FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
LEFT JOIN pg_constraint c ON c.conindid = i.oid AND c.contype = 'u'
WHERE x.indisunique AND NOT x.indisprimary
    AND t.relname IN ('payonce_order', 'payonce_event', 'payonce_stream', 'payonce_refund', 'payonce_discrepancy',
        'payonce_shop_message', 'payonce_notification')
"""
TRIES = 3


@dataclass(frozen=True)
class Search:
    """What to search: all schedules of a pair, a sample of them, or one. `control` takes the locks and indexes away."""

    pair: str
    sample: int | None = None
    seed: int = 1
    until: float | None = None
    replay: str | None = None
    control: bool = False
    stops: bool = False  # at the first violation
    preemptions_max: int | None = None  # else the pair's own bound


@dataclass
class Found:
    """What a search came to. `violations` are (schedule, problems)."""

    pair: str
    schedules: int = 0
    preempted: int = 0
    waits: int = 0
    moves_max: int = 0
    complete: bool = True
    violations: list[tuple[str, list[str]]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    seconds: float = 0.0


def serve(site: Site, pipe: Connection) -> None:
    """Answer searches until the pipe closes."""
    with world_at(site) as world:
        logging.disable(logging.CRITICAL)
        pipe.send("ready")
        while True:
            try:
                search = pipe.recv()
            except EOFError:
                return
            pipe.send(run(world, search))


def run(world: World, search: Search) -> Found:
    """Search the schedules of one pair."""
    pair, began, found = PAIRS[search.pair], time.monotonic(), Found(search.pair)
    with ExitStack() as stack:
        stack.enter_context(changed_settings(LOCK_TIMEOUT_MS=60_000, STATEMENT_TIMEOUT_MS=90_000, **pair.settings))
        if search.control:
            stack.enter_context(without_locks(world))
        stack.enter_context(boundaries())
        session = stack.enter_context(psycopg.connect(world.site.database_url, autocommit=True))
        actors = [Actor(letter) for letter, _ in zip(LETTERS, pair.operations, strict=False)]
        controller = Controller(session, actors)
        try:
            _explore(world, pair, search, controller, found)
        except StuckError as error:
            found.violations.append(("", [str(error)]))
        finally:
            for actor in actors:
                actor.end()
            world.let_go()
    found.seconds = time.monotonic() - began
    return found


def _explore(world: World, pair: Pair, search: Search, controller: Controller, found: Found) -> None:
    """Depth first through all schedules within the bound; a sample takes branches at random."""
    waiting = [search.replay or ""]
    bound = pair.preemptions_max if search.preemptions_max is None else search.preemptions_max
    chance = random.Random(f"{search.seed} {pair.name}")
    while waiting:
        is_late = search.until is not None and time.monotonic() > search.until
        if is_late or (search.sample is not None and found.schedules >= search.sample):
            found.complete = False
            return
        prefix = waiting.pop(chance.randrange(len(waiting)) if search.sample is not None else -1)
        trace, problems = _play_as_asked(world, pair, controller, prefix)
        found.schedules += 1
        found.waits += trace.waits
        found.preempted += preemptions(trace.choices) > 0
        found.moves_max = max(found.moves_max, len(trace.choices))
        if problems:
            found.violations.append((write_schedule(trace.letters), problems))
        if search.replay is not None:
            found.places = trace.places
            return
        if problems and search.stops:
            found.complete = False
            return
        waiting += branches(trace, len(prefix), bound)


def _play_as_asked(world: World, pair: Pair, controller: Controller, prefix: str) -> tuple[Trace, list[str]]:
    """Play a schedule again where something outside of it (a lock of the server's own) made another one of it."""
    for _ in range(TRIES):
        trace, problems = _play(world, pair, controller, prefix)
        if problems or not trace.strayed:
            return trace, problems
    return trace, ["the schedule does not fit: it names a thread that could not move"]


def _play(world: World, pair: Pair, controller: Controller, prefix: str) -> tuple[Trace, list[str]]:
    """One schedule: set up, race, drain, judge."""
    world.clear()
    world.acknowledged.clear()
    world.is_told = True
    for step in pair.setup:
        step(world)
    trace = controller.run([operation(world) for operation in pair.operations], prefix)
    raised = [
        f"{letter} raised {type(answer).__name__}: {answer}"
        for letter, answer in trace.answers.items()
        if isinstance(answer, Exception) and type(answer).__name__ not in pair.may_raise
    ]
    problem = _heal(world)
    problems = [*raised, *([problem] if problem else [])]
    if not problems and (expected := pair.expects(world)):
        problems.append(expected)
    problems += [str(item) for item in judge(world).violations]
    if problems:
        answers = ", ".join(f"{letter}: {answer}" for letter, answer in trace.answers.items())
        problems += [f"answers: {answers}", *world.story()]
    return trace, problems


def _heal(world: World) -> str:
    try:
        return world.heal()
    except Exception as error:  # noqa: BLE001 - a sweep that raises is a finding, not the end of the search
        return f"the sweeps raised {type(error).__name__}: {error}"


@contextmanager
def boundaries() -> Iterator[None]:
    """Make every boundary a place where a scheduled thread stands until it is its turn."""
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.backends.utils import CursorWrapper

    from config.shop import DemoShop
    from payonce.channels import http
    from payonce.orders.conf import get_settings
    from payonce.payments import cache, flight, pay, poll

    def before(function: Any, name: str) -> Any:
        def stopping(*args: Any, **kwargs: Any) -> Any:
            if not is_unseen() and (name != "redis" or get_settings().REDIS_URL):
                pause(name)
            return function(*args, **kwargs)

        return stopping

    def sleep(_seconds: float) -> None:
        pause("sleep", State.ASLEEP)

    with ExitStack() as stack:
        for owner, name, label in (
            (flight, "_fly", "flight"), (BaseDatabaseWrapper, "_commit", "commit"), (cache, "_try", "redis"),
            (http, "run", "channel"), (poll, "_ask_all", "channels"), (DemoShop, "order_event", "hook"),
            (CursorWrapper, "execute", "sql"),
        ):  # fmt: skip
            stack.enter_context(mock.patch.object(owner, name, before(getattr(owner, name), label)))
        clock = mock.Mock(wraps=time)
        clock.sleep = sleep
        stack.enter_context(mock.patch.object(cache, "time", clock))
        stack.enter_context(mock.patch.object(pay, "WAIT_SECONDS", 3600.0))
        yield


@contextmanager
def without_locks(world: World) -> Iterator[None]:
    """The control: no row is locked, no unique index and no trigger stands behind. The search must find what breaks."""
    from payonce.payments import flight

    select = flight.select

    def select_unlocked(model: Any, condition: str, params: Sequence[Any] = ()) -> flight.Statement:
        return select(model, condition.replace(" FOR UPDATE", ""), params)

    with psycopg.connect(world.site.database_url, autocommit=True) as session:
        for table, index, constraint in session.execute(UNIQUE).fetchall():
            session.execute(
                f'ALTER TABLE {table} DROP CONSTRAINT "{constraint}"' if constraint else f'DROP INDEX "{index}"'
            )
        session.execute("ALTER TABLE payonce_order DISABLE TRIGGER USER")
    with mock.patch.object(flight, "select", select_unlocked):
        yield
