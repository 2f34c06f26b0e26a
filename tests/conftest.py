"""Fixtures for every test: real servers, started when the first test needs them and stopped after the last."""

import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import current_app
from django.conf import settings
from django.db import connections

from config import embedded
from config.environment import with_database
from payonce.channels import registry
from payonce.channels.sandbox import testing
from payonce.channels.sandbox.testing import RunningSandbox
from payonce.payments import cache, enqueue
from tests.clock import Clock, movable_clock
from tests.scripted import ScriptedChannel


@pytest.fixture(scope="session")
def embedded_servers() -> Iterator[embedded.Servers]:
    """Real PostgreSQL and Redis, shared with every other test run of this checkout; with URLs set, those."""
    with embedded.servers("test") as running:
        yield running


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    embedded_servers: embedded.Servers, django_db_modify_db_settings_parallel_suffix: None
) -> None:
    """Make pytest-django wait for the servers before it creates its database."""


@pytest.fixture
def redis_client(embedded_servers: embedded.Servers) -> Iterator[redis.Redis]:
    """A client of this worker's own Redis database, empty before and after the test."""
    if not settings.REDIS_URL:
        pytest.skip("no Redis here")
    client = redis.Redis.from_url(settings.REDIS_URL)
    client.flushdb()
    yield client
    client.flushdb()
    client.close()


@pytest.fixture
def process_environment(transactional_db: None) -> dict[str, str]:
    """The environment for a process that a test starts: it sees this test's database and Redis."""
    current = connections["default"].settings_dict
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "DATABASE_URL": with_database(settings.DATABASE_URL, current["NAME"]),
        "REDIS_URL": settings.REDIS_URL,
    }


@pytest.fixture
def scripted(transactional_db: None, settings: Any, redis_client: redis.Redis) -> Iterator[type[ScriptedChannel]]:
    """Two accounts whose answers the test writes down, on a clean database and an empty Redis."""
    settings.PAYONCE = {
        **settings.PAYONCE,
        "CHANNELS": {
            name: {"adapter": "tests.scripted.ScriptedChannel"} for name in ("scripted_a", "scripted_b", "scripted_c")
        },
        "SWITCH": {"PROOF_SECONDS": 0},
    }
    ScriptedChannel.forget()
    registry.reset()
    cache.reset()
    yield ScriptedChannel
    ScriptedChannel.forget()
    registry.reset()


@pytest.fixture
def clock(scripted: type[ScriptedChannel]) -> Iterator[Clock]:
    """The database's clock, which the test may move on."""
    with movable_clock() as moved:
        yield moved


@pytest.fixture
def bank(transactional_db: None, settings: Any, redis_client: redis.Redis) -> Iterator[RunningSandbox]:
    """The real sandbox over HTTP with two wallets; its notifications are held until the test hands them over."""
    wallets = {"blue": {"clock_skew_seconds": 1}, "green": {"clock_skew_seconds": 1}}
    with testing.serve_in_thread(wallets) as running:
        settings.PAYONCE = {**settings.PAYONCE, "CHANNELS": running.accounts, "GRACE_SECONDS": 0}
        registry.reset()
        cache.reset()
        yield running
    registry.reset()


@pytest.fixture
def in_memory(settings: Any) -> Iterator[type[ScriptedChannel]]:
    """The scripted accounts without any server, for decisions about rows that are never stored."""
    accounts = {name: {"adapter": "tests.scripted.ScriptedChannel"} for name in ("scripted_a", "scripted_b")}
    accounts["scripted_a"]["merchant"] = "M-1"
    settings.PAYONCE = {**settings.PAYONCE, "CHANNELS": accounts, "REDIS_URL": "", "GRACE_SECONDS": 30}
    ScriptedChannel.forget()
    registry.reset()
    registry.channel("scripted_a")  # what a test before this one left behind is told by its own name
    yield ScriptedChannel
    ScriptedChannel.forget()
    registry.reset()


@pytest.fixture
def kicked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tasks that are handed to Celery's broker, instead of a broker."""
    sent: list[str] = []
    monkeypatch.setattr(current_app.conf, "broker_url", "memory://")
    monkeypatch.setattr(current_app, "send_task", lambda task, **options: sent.append(task))
    monkeypatch.setattr(enqueue, "_paused_until", 0.0)
    return sent


class Shouts:
    """What was shouted about an order since the test began. Every test run at this Redis shouts into the one channel."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.listener = client.pubsub()
        self.listener.subscribe("payonce:orders")

    def __call__(self, order_number: str) -> list[str]:
        """Up to now: a shout of our own marks the end."""
        heard: list[str] = []
        end = secrets.token_hex(8)
        self.client.publish("payonce:orders", end)
        for message in self.listener.listen():
            text = message["data"].decode() if message["type"] == "message" else ""
            if text == end:
                return heard
            heard += [text] if text.startswith(f"{order_number}:") else []
        raise AssertionError("the connection ended")


@pytest.fixture
def shouts(
    in_memory: None, redis_client: redis.Redis, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shouts]:
    """Redis for decisions in memory; a busy machine does not make it look dead."""
    settings.PAYONCE = {**settings.PAYONCE, "REDIS_URL": settings.REDIS_URL}
    monkeypatch.setattr(cache, "SOCKET_SECONDS", 30)
    cache.reset()
    heard = Shouts(redis_client)
    yield heard
    heard.listener.close()
    cache.reset()
