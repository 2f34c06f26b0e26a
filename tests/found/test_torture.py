"""What storms over the whole site brought to light: each test is named by what should hold."""

import psycopg
import pytest
from django.db import OperationalError, connection

from payonce.payments import message_rows, publish, schedule, tasks
from tests.clock import Clock
from tests.factories import paid_stream

LIVENESS_SECONDS = 30
SWEEP_SECONDS = 5


def terminate_own_session() -> None:
    """PostgreSQL ends this thread's session, as a restart or an administrator does."""
    connection.ensure_connection()
    raw = connection.connection
    with psycopg.connect(raw.info.dsn, password=raw.info.password, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [raw.info.backend_pid])


@pytest.mark.parametrize("task", [tasks.poll, tasks.close, tasks.refund, tasks.expire, tasks.publish, tasks.inbox])
def test_a_worker_that_lost_its_database_connection_takes_a_new_one(transactional_db: None, task) -> None:
    """L3: a task may fail with the connection, the next one works."""
    terminate_own_session()
    with pytest.raises(OperationalError):
        task()
    assert task() == 0


def test_messages_of_a_killed_worker_are_sent_within_the_bound(scripted, clock: Clock) -> None:
    """L3: what a worker had claimed when it was killed comes due again soon enough for the next sweep to keep the bound."""
    paid_stream()
    claimed = message_rows.claim_due(10)
    assert claimed
    assert message_rows.claim_due(10) == []
    clock.advance(LIVENESS_SECONDS - SWEEP_SECONDS)
    assert [row.pk for row in message_rows.claim_due(10)] == [row.pk for row in claimed]


def test_a_batch_to_a_silent_endpoint_ends_within_its_claim() -> None:
    """S11: nobody sends a message again while the worker that claimed it may still be at it."""
    from payonce.channels.http.public import TIMEOUT_TOTAL_SECONDS

    rounds = -(-publish.BATCH // publish.THREADS)
    assert rounds * TIMEOUT_TOTAL_SECONDS <= message_rows.CLAIM_SECONDS


def test_a_refund_without_an_answer_is_asked_about_soon_after_a_disturbance_of_minutes() -> None:
    """L2, L5: no gap of the first seven minutes is longer than one minute; before, the seventh try waited for five."""
    at, gaps = 0, []
    for seconds in schedule.REFUND_TRY_SECONDS:
        if at >= 7 * 60:
            break
        gaps.append(seconds)
        at += seconds
    assert max(gaps) <= 60
