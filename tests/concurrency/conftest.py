"""Fixtures of the races: waiting is bounded by the test, not by the product's own lock time-out."""

from collections.abc import Iterator
from typing import Any

import pytest

from payonce.payments import cache
from tests.concurrency.recording import RecordingShop
from tests.scripted import ScriptedChannel


@pytest.fixture
def patient(scripted: type[ScriptedChannel], settings: Any) -> type[ScriptedChannel]:
    """The scripted channel, with a lock time-out that a slow machine does not reach while a race is being set up."""
    settings.PAYONCE = {**settings.PAYONCE, "LOCK_TIMEOUT_MS": 60_000, "STATEMENT_TIMEOUT_MS": 90_000}
    return scripted


@pytest.fixture
def no_redis(patient: type[ScriptedChannel], settings: Any) -> type[ScriptedChannel]:
    """No Redis at all: every click reaches the database."""
    settings.PAYONCE = {**settings.PAYONCE, "REDIS_URL": ""}
    cache.reset()
    return patient


@pytest.fixture
def recording(patient: type[ScriptedChannel], settings: Any) -> Iterator[type[RecordingShop]]:
    """A shop that records what it is told."""
    settings.PAYONCE = {**settings.PAYONCE, "SHOP": "tests.concurrency.recording.RecordingShop"}
    RecordingShop.forget()
    yield RecordingShop
    RecordingShop.forget()
