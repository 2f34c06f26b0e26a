"""Any story ends with every order paid once. A small sample that is the same everywhere; `make model` plays for as long as you like."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clock import standing_clock
from tests.model.bank import bank_here
from tests.model.machine import Story
from tests.model.play import HARD_ENOUGH, new_story, play, too_gentle
from tests.model.world import ACCOUNTS, NOON
from torture.hardness import Hardness

SAMPLE_LEAST = {"orders": 10, "paid": 5, "surplus": 3, "faults": 10, "refunds": 2}


@pytest.fixture
def story(transactional_db: None, redis_client: Any) -> Iterator[type[Story]]:
    """The machine with a bank and a clock to play on."""
    with bank_here(ACCOUNTS) as bank, standing_clock(NOON) as clock:
        yield new_story(bank, clock)


@pytest.mark.timeout(0)
def test_any_story_keeps_every_invariant(story: type[Story]) -> None:
    """Every A invariant after each step, every Q invariant once all is healed and at rest."""
    play(story, examples=10, steps=20, seed_of_run=None)
    went = story.hardness
    found = {
        "orders": went["orders"], "paid": went["paid"], "faults": story.faults.total(),
        "surplus": sum(went[name] for name in ("duplicates", "late", "mismatched", "second_captures")),
        "refunds": went["refunds_automatic"] + went["refunds_operator"],
    }  # fmt: skip
    assert all(found[name] >= least for name, least in SAMPLE_LEAST.items()), f"the stories were too gentle: {found}"


def test_a_run_that_was_too_gentle_names_what_it_never_met(story: type[Story]) -> None:
    assert set(HARD_ENOUGH) <= set(too_gentle(story))
    story.hardness, story.faults = Hardness(), Counter(dict.fromkeys(HARD_ENOUGH, 1))
    assert too_gentle(story) == []
    del story.faults["kill before commit"]
    assert too_gentle(story) == ["kill before commit"]
