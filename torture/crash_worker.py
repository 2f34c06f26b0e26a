"""A worker of the crash enumeration: a warm process that forks a child for each life and each afterlife of a scenario."""

import gc
import json
import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Literal

from torture.crash_points import Crossings, When, wrap
from torture.crash_scenarios import SCENARIOS, Scenario
from torture.crash_site import Site
from torture.crash_world import World, changed_settings, judge, world_at

Then = Literal["leave", "resume"]
CHILD_SECONDS = 60
LEASE_SECONDS = 21  # what the dead process held has run out by then


@dataclass(frozen=True)
class Death:
    """Where a process dies in a scenario, and what the others do then: nothing more, or the clients try again and go on."""

    scenario: str
    point: int
    when: When
    then: Then

    def command(self) -> str:
        """How to play it again."""
        return f"python -m torture.crash --scenario {self.scenario} --point {self.point} --when {self.when} --then {self.then}"


@dataclass
class Outcome:
    """What came of one death: `problems` is empty when payonce recovered."""

    death: Death | None = None
    crossing: str = ""
    problems: list[str] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    distinct: list[tuple[int, When]] = field(
        default_factory=list
    )  # deaths that leave another world than the one before
    seconds: float = 0.0


def serve(site: Site, pipe: Connection) -> None:
    """Answer requests until the pipe closes: a scenario's name is counted, a death is played."""
    with world_at(site) as world:
        warm_up(world)
        gc.freeze()  # a child that collects would copy every page of what it shares with us
        pipe.send("ready")
        while True:
            try:
                request = pipe.recv()
            except EOFError:
                return
            began = time.monotonic()
            outcome = count(world, SCENARIOS[request]) if isinstance(request, str) else play(world, request)
            outcome.seconds = time.monotonic() - began
            pipe.send(outcome)


def warm_up(world: World) -> None:
    """Live through one scenario here, so that children find everything imported, and let go of every connection."""
    world.clear()
    _live(world, SCENARIOS["switch-both-paid"], None, lambda: None)
    world.heal()
    world.let_go()


def count(world: World, scenario: Scenario) -> Outcome:
    """Play a scenario without a death; its crossings by name, and whatever is wrong already."""
    world.clear()
    lived = in_child(lambda progress: _live(world, scenario, Crossings(look=world.look), progress))
    if lived.killed or "names" not in lived.answer:
        return Outcome(
            problems=[f"the scenario {scenario.name} fails by itself: {lived.answer.get('error', 'killed')}"]
        )
    healed = in_child(lambda _progress: _after(world, scenario, None))
    problems = _problems(world, healed, expects=True)
    return Outcome(problems=problems, points=lived.answer["names"], distinct=find_distinct(**lived.answer))


def find_distinct(
    names: Sequence[str], worlds: Sequence[Sequence[str]], firsts: Sequence[int]
) -> list[tuple[int, When]]:
    """The deaths that do not leave the very world of the death before them in the same step.

    What nobody else can see yet (a read, a statement whose transaction dies with the process) changes no world. A call of a
    channel always counts: the bank may have used up a planned fault, which no book shows.
    """
    found: list[tuple[int, When]] = []
    last = ""
    for point, (name, (before, after)) in enumerate(zip(names, worlds, strict=True)):
        if point in firsts or before != last:
            found.append((point, "before"))
        if after != before or name.startswith("channel"):
            found.append((point, "after"))
        last = after
    return found


def play(world: World, death: Death) -> Outcome:
    """Play a scenario up to a death, let payonce recover, and ask the checker."""
    scenario = SCENARIOS[death.scenario]
    world.clear()
    crossings = Crossings(death.point, death.when)
    lived = in_child(lambda progress: _live(world, scenario, crossings, progress))
    if not lived.killed:
        why = lived.answer.get("error", f"there are only {len(lived.answer.get('names', ()))} crossings")
        return Outcome(death, problems=[f"the process did not die: {why}"])
    resumed = lived.steps if death.then == "resume" else None
    healed = in_child(lambda _progress: _after(world, scenario, resumed))
    return Outcome(death, problems=_problems(world, healed, expects=death.then == "resume"))


def _live(
    world: World, scenario: Scenario, crossings: Crossings | None, progress: Callable[[], None]
) -> dict[str, Any]:
    with changed_settings(**scenario.settings):
        if crossings is not None:
            wrap(crossings)
        firsts = []
        for step in scenario.steps:
            firsts.append(len(crossings.names) if crossings is not None else 0)
            step(world)
            progress()
    names, worlds = (crossings.names, crossings.worlds) if crossings is not None else ([], [])
    return {"names": names, "worlds": worlds, "firsts": firsts}


def _after(world: World, scenario: Scenario, resumed: int | None) -> dict[str, Any]:
    """The new process: time has passed, the clients may go on at the step that died, and the sweeps run until rest."""
    world.wake_up()
    world.is_told = scenario.is_told  # a bank repeats what was not acknowledged
    world.is_listed = scenario.is_listed
    with changed_settings(**scenario.settings):
        world.advance(LEASE_SECONDS)
        if resumed is not None:
            for step in scenario.steps[resumed:]:
                step(world)
        problem = world.heal()
        expected = "" if problem else scenario.expects(world) if _is_placed(world) else "there is no order"
    return {"problem": problem, "expected": expected}


def _is_placed(world: World) -> bool:
    from payonce.orders.models import Order

    return bool(Order.objects.exists())


def _problems(world: World, healed: "Ended", *, expects: bool) -> list[str]:
    if healed.killed or "error" in healed.answer:
        return [f"the restarted process failed: {healed.answer.get('error', 'killed')}"]
    found = [healed.answer["problem"], healed.answer["expected"] if expects else ""]
    problems = [text for text in found if text] + [str(item) for item in judge(world).violations]
    return problems + world.story() if problems else []


# --- processes ---


@dataclass(frozen=True)
class Ended:
    """How a child ended: killed by its own hand, after so many steps, or with an answer."""

    killed: bool
    steps: int
    answer: dict[str, Any]


def in_child(work: Callable[[Callable[[], None]], dict[str, Any]]) -> Ended:
    """Run `work` in a forked child. Its calls of the function that it is given count as steps that were finished."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _run_child(work, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    steps, _, answer = text.partition(b"{")
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if os.WIFSIGNALED(status) and not killed:
        return Ended(False, len(steps), {"error": f"ended by signal {os.WTERMSIG(status)}"})
    return Ended(killed, len(steps), json.loads(b"{" + answer) if answer else {})


def _run_child(work: Callable[[Callable[[], None]], dict[str, Any]], write_end: int) -> None:
    gc.disable()
    signal.alarm(CHILD_SECONDS)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what the parent does on a signal is not the child's way to end
    try:
        answer = work(lambda: _write(write_end, b"."))
    except BaseException:  # noqa: BLE001 - it is told to the parent
        answer = {"error": traceback.format_exc()[-3000:]}
    try:
        _write(write_end, json.dumps(answer).encode())
    finally:
        os._exit(0)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def describe(outcome: Outcome) -> dict[str, Any]:
    """An outcome for a machine."""
    death = asdict(outcome.death) if outcome.death else {}
    return {**death, "crossing": outcome.crossing, "problems": outcome.problems, "seconds": round(outcome.seconds, 3)}
