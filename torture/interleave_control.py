"""Lets exactly one of several threads move at a time, from one boundary to the next, by a schedule that can be replayed.

A boundary is where other processes could see or change something: a flight or statement to the database, a commit, a Redis
command, a call of a channel, the shop's hook. A thread that PostgreSQL holds at a row lock is seen in `pg_locks`, never guessed by time.
"""

import itertools
import queue
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import psycopg

LETTERS = "ABC"
STUCK_SECONDS = 30.0
STEPS_MAX = 2_000
WAITING = "SELECT pid FROM pg_locks WHERE NOT granted AND pid = ANY(%s)"


class State(Enum):
    """Where a thread is."""

    MOVING = "moving"
    READY = "ready"  # stands before a boundary
    ASLEEP = "asleep"  # waits for others by sleeping
    BLOCKED = "blocked"  # the database holds it at a lock
    DONE = "done"


class StuckError(Exception):
    """Nothing moves any more: the text says who stands where."""


class Actor:
    """One thread with a database connection of its own; it takes jobs until it is ended."""

    def __init__(self, letter: str) -> None:
        self.letter = letter
        self.pid = 0
        self.state = State.DONE
        self.place = ""
        self.answer: Any = None
        self.controller: Controller | None = None
        self.go = threading.Semaphore(0)
        self._jobs: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"actor-{letter}", daemon=True)
        self._thread.start()
        self._ready.wait(STUCK_SECONDS)

    def begin(self, controller: "Controller", job: Callable[[], Any]) -> None:
        """Start a job; it stands before its first move."""
        self.controller, self.answer, self.state, self.place = controller, None, State.READY, "start"
        self._jobs.put(job)

    def end(self) -> None:
        """Close the connection and end the thread."""
        self._jobs.put(None)
        self._thread.join(STUCK_SECONDS)

    def _work(self) -> None:
        from django.db import connection

        _here.actor = self
        self._connect()
        self._ready.set()
        while (job := self._jobs.get()) is not None:
            self.go.acquire()
            try:
                self.answer = job()
            except Exception as error:  # noqa: BLE001 - the exception is the answer
                self.answer = error
            if connection.in_atomic_block or connection.connection is None or connection.connection.closed:
                connection.close()
                self._connect()
            controller, self.controller = self.controller, None
            assert controller is not None
            controller.arrive(self, State.DONE, "end")
        connection.close()

    def _connect(self) -> None:
        from django.db import connection

        connection.ensure_connection()
        self.pid = connection.connection.info.backend_pid


_here = threading.local()


def pause(name: str, state: State = State.READY) -> None:
    """A boundary: stand here until it is this thread's turn. Threads that nobody schedules pass."""
    actor: Actor | None = getattr(_here, "actor", None)
    if actor is not None and actor.controller is not None:
        actor.controller.arrive(actor, state, name)
        actor.go.acquire()


@dataclass
class Choice:
    """One decision: who moved, who could have, and whether the one before could have gone on."""

    chosen: str
    could: tuple[str, ...]
    before: str

    @property
    def could_go_on(self) -> bool:
        """Could the thread that moved before have moved again? Then choosing another one is a preemption."""
        return self.before in self.could


@dataclass
class Trace:
    """How one schedule went."""

    choices: list[Choice] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    waits: int = 0  # how often a thread was held at a lock
    strayed: bool = False  # the schedule named a thread that could not move

    @property
    def letters(self) -> str:
        """Who moved, move by move."""
        return "".join(choice.chosen for choice in self.choices)


class Controller:
    """Runs one schedule."""

    def __init__(self, session: psycopg.Connection[Any], actors: Sequence[Actor]) -> None:
        self._session = session
        self._actors = actors
        self._changed = threading.Condition()

    def arrive(self, actor: Actor, state: State, place: str) -> None:
        """Called by a thread that stands before a boundary, sleeps, or is done."""
        with self._changed:
            actor.state, actor.place = state, place
            self._changed.notify_all()

    def run(self, jobs: Sequence[Callable[[], Any]], prefix: str) -> Trace:
        """Move by `prefix`, then without any preemption until everybody is done. Raises StuckError."""
        trace, before = Trace(), ""
        playing = [actor for actor, _ in zip(self._actors, jobs, strict=False)]
        for actor, job in zip(playing, jobs, strict=False):
            actor.begin(self, job)
        while any(actor.state is not State.DONE for actor in playing):
            could = self._find_movable(playing)
            wanted = prefix[len(trace.choices)] if len(trace.choices) < len(prefix) else ""
            trace.strayed = trace.strayed or bool(wanted and wanted not in could)
            chosen = wanted if wanted in could else before if before in could else could[0]
            trace.choices.append(Choice(chosen, could, before))
            actor = playing[LETTERS.index(chosen)]
            trace.places.append(f"{chosen} {actor.place}")
            if len(trace.choices) > STEPS_MAX:
                raise StuckError("the schedule never ends")
            trace.waits += self._move(actor, playing)
            before = chosen
        trace.answers = {actor.letter: actor.answer for actor in playing}
        return trace

    def _find_movable(self, playing: Sequence[Actor]) -> tuple[str, ...]:
        """Who can move: those before a boundary; sleepers only when nobody else can."""
        deadline = time.monotonic() + STUCK_SECONDS
        while True:
            ready = tuple(actor.letter for actor in playing if actor.state is State.READY)
            if ready:
                return ready
            asleep = tuple(actor.letter for actor in playing if actor.state is State.ASLEEP)
            if asleep:
                return asleep
            if time.monotonic() > deadline:
                raise StuckError(_tell(playing))
            self._settle(playing)  # all are held by locks: the database finds the deadlock

    def _move(self, actor: Actor, playing: Sequence[Actor]) -> int:
        """Let one thread move to its next boundary, or into a lock; threads that its move set free move up to theirs."""
        held = sum(one.state is State.BLOCKED for one in playing)
        actor.state = State.MOVING
        actor.go.release()
        self._settle(playing)
        return max(0, sum(one.state is State.BLOCKED for one in playing) - held)

    def _settle(self, playing: Sequence[Actor]) -> None:
        """Wait until nobody moves. Who arrived since the look at the locks may have freed others: then look again."""
        deadline = time.monotonic() + STUCK_SECONDS
        while True:
            with self._changed:
                if any(actor.state is State.MOVING for actor in playing):
                    self._changed.wait(0.002)
                watched = [actor for actor in playing if actor.state in (State.MOVING, State.BLOCKED)]
                moving = [actor for actor in watched if actor.state is State.MOVING]
            waiting = self._waiting(watched) if watched else set()
            with self._changed:
                for actor in watched:
                    if actor.state in (State.MOVING, State.BLOCKED):
                        actor.state = State.BLOCKED if actor.pid in waiting else State.MOVING
                is_quiet = not any(actor.state is State.MOVING for actor in playing)
                if is_quiet and all(actor.state is State.BLOCKED for actor in moving):
                    return
            if time.monotonic() > deadline:
                raise StuckError(_tell(playing))

    def _waiting(self, actors: Sequence[Actor]) -> set[int]:
        rows = self._session.execute(WAITING, [[actor.pid for actor in actors]]).fetchall()
        return {row[0] for row in rows}


def _tell(playing: Sequence[Actor]) -> str:
    return "nothing moves: " + ", ".join(f"{actor.letter} is {actor.state.value} at {actor.place}" for actor in playing)


def write_schedule(letters: str) -> str:
    """`AAABB` as `A3B2`."""
    return "".join(f"{letter}{len(list(run))}" for letter, run in itertools.groupby(letters))


def read_schedule(text: str) -> str:
    """`A3B2` as `AAABB`. Raises ValueError."""
    if not re.fullmatch(rf"([{LETTERS}]\d{{1,4}})*", text):
        raise ValueError(f"{text!r} is no schedule: write for example A3B2A5")
    return "".join(letter * int(count) for letter, count in re.findall(r"([A-Z])(\d+)", text))


def preemptions(choices: Sequence[Choice]) -> int:
    """How often a thread that could have gone on was made to wait."""
    return sum(choice.could_go_on and choice.chosen != choice.before for choice in choices)


def branches(trace: Trace, start: int, preemptions_max: int) -> list[str]:
    """Every schedule that differs from this one first at a move from `start` on, within the bound."""
    found = []
    for place in range(start, len(trace.choices)):
        choice = trace.choices[place]
        spent = preemptions(trace.choices[:place]) + choice.could_go_on
        if spent <= preemptions_max:
            letters = trace.letters[:place]
            found += [letters + other for other in choice.could if other != choice.chosen and other != choice.before]
    return found
