"""How stories are played, and how hard a long run of them must have been."""

from collections import Counter

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.clock import StandingClock
from tests.model.bank import BankHere
from tests.model.machine import Story
from torture.hardness import Hardness

BOUNDARIES = [
    f"{how} {when} {where}"
    for how in ("kill", "error")
    for when in ("before", "after")
    for where in ("execute", "fly", "commit", "call")
]
"""Where a step died or failed: before or after a statement, a flight of statements, a commit and a channel call."""
HARD_ENOUGH = (
    "paid", "duplicates", "late", "mismatched", "second_captures", "captures", "refunds_automatic", "refunds_operator",
    "refunds_approved", "refunds_unclear", "refunds_returned", "forged", "switches", "amended", "closed", "decided",
    "double_clicks", "lost_notifications", "repeated_notifications", "caught_exceptions", "shop_failures",
    "notification: forge", "notification: stale", "notification: orphan", "task: lose", "task: run twice",
    "channel: drop_before", "channel: drop_after", "channel: error_before", "channel: error_after",
    "channel: bad_signature", "channel: outage", *BOUNDARIES,
)  # fmt: skip
"""What a long run must have met at least once, by its rows and by its own count of faults."""


def new_story(bank: BankHere, clock: StandingClock) -> type[Story]:
    """A machine on this bank and clock, with counts of its own."""
    found: type[Story] = type("Story", (Story,), {})
    found.bank, found.clock = bank, clock
    found.hardness, found.faults, found.tally = Hardness(), Counter(), Counter()
    return found


def play(story: type[Story], *, examples: int, steps: int, seed_of_run: int | None) -> None:
    """Play so many stories. Without a seed they are the same ones every time. Raises AssertionError with the shortest bad story."""
    profile = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, print_blob=True, database=None,
        suppress_health_check=list(HealthCheck), derandomize=seed_of_run is None, report_multiple_bugs=False,
        phases=[Phase.generate, Phase.target, Phase.shrink],
    )  # fmt: skip
    run_state_machine_as_test(story if seed_of_run is None else seed(seed_of_run)(story), settings=profile)


def too_gentle(story: type[Story]) -> list[str]:
    """What a run never met although it should have."""
    return [name for name in HARD_ENOUGH if not story.hardness[name] and not story.faults[name]]
