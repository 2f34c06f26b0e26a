"""Fixtures of the cost tests: the wire, and a web process's pool of connections."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.db import connection, connections

from tests.cost.wire import RedisCommands, Wire, relay, watched_redis


@pytest.fixture
def wire(transactional_db: None) -> Iterator[Wire]:
    """Counts round trips, commits and statements."""
    with relay() as counted:
        yield counted


@pytest.fixture
def commands(redis_client: redis.Redis) -> Iterator[RedisCommands]:
    """Shows the Redis commands."""
    with watched_redis(redis_client) as watched:
        yield watched


@pytest.fixture
def pooled(transactional_db: None) -> Iterator[Any]:
    """Pooled connections, as in a web process. Gives the pool."""
    found = connection.settings_dict
    before = (found["OPTIONS"], found["CONN_HEALTH_CHECKS"])
    connections.close_all()
    found["OPTIONS"] = {**found["OPTIONS"], "pool": {"min_size": 1, "max_size": 4, "timeout": 10}}
    found["CONN_HEALTH_CHECKS"] = False
    try:
        connection.ensure_connection()
        yield connection.pool
    finally:
        connections.close_all()
        connection.close_pool()
        found["OPTIONS"], found["CONN_HEALTH_CHECKS"] = before
