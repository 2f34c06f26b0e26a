"""Any story ends with every order paid once. `PAYONCE_MODEL_EXAMPLES` and `PAYONCE_MODEL_STEPS` make the run longer."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from payonce.channels.sandbox import testing
from tests.clock import movable_clock
from tests.model.machine import Story
from tests.model.world import ACCOUNTS

EXAMPLES = int(os.environ.get("PAYONCE_MODEL_EXAMPLES", "12"))
STEPS = int(os.environ.get("PAYONCE_MODEL_STEPS", "25"))


@pytest.fixture
def story(transactional_db: None, redis_client: Any) -> Iterator[type[Story]]:
    """The machine with a bank and a clock to play on."""
    with testing.serve_in_thread(ACCOUNTS) as bank, movable_clock() as clock:
        Story.bank, Story.clock = bank, clock
        yield Story


@pytest.mark.timeout(0)
def test_any_story_keeps_every_invariant(story: type[Story]) -> None:
    profile = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, print_blob=True, database=None,
        suppress_health_check=list(HealthCheck), derandomize="PAYONCE_MODEL_EXAMPLES" not in os.environ,
        phases=[Phase.generate, Phase.shrink], report_multiple_bugs=False,
    )  # fmt: skip
    run_state_machine_as_test(story, settings=profile)
