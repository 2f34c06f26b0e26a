"""Claim due streams for one worker: one statement, rows skipped while another holds them, a lease in the row.

The claim is the row's own `next_check_at`, moved on by a lease: a killed worker's rows come due again by themselves. An
account whose breaker is open is left alone; one that is being tried again gets a single row.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from payonce.channels import registry
from payonce.channels.messages import Known, Outcome
from payonce.orders.conf import get_settings
from payonce.payments import clock, flight, schedule
from payonce.payments.call import why_not
from payonce.payments.flight import Statement
from payonce.payments.models import Stream

CLAIM = """
UPDATE payonce_stream SET next_check_at = payonce_now() + %s * interval '1 second', check_count = check_count + 1
WHERE id IN (
    SELECT due.id FROM unnest(%s::text[]) AS account(name)
    LEFT JOIN payonce_channel_state AS health ON health.name = account.name
    CROSS JOIN LATERAL (
        SELECT id FROM payonce_stream AS s
        WHERE s.account = account.name AND s.next_check_at <= payonce_now() AND (s.state = 'CLOSING') = %s
        ORDER BY s.next_check_at
        LIMIT CASE WHEN health.open_until > payonce_now() THEN 0 WHEN health.failure_count >= %s THEN 1 ELSE %s END
        FOR UPDATE SKIP LOCKED
    ) AS due
) {returning}, payonce_now()
"""
HEALTH = """
INSERT INTO payonce_channel_state AS health
    (name, failure_count, open_until, last_success_at, last_failure_at, last_failure, foreign_count)
SELECT t.name, CASE WHEN t.successes > 0 THEN 0 ELSE t.failures END,
    CASE WHEN t.successes = 0 AND t.failures >= %s THEN payonce_now() + %s * interval '1 second' END,
    CASE WHEN t.successes > 0 THEN payonce_now() END,
    CASE WHEN t.failures > 0 THEN payonce_now() END, t.reason, 0
FROM unnest(%s::text[], %s::int[], %s::int[], %s::text[]) AS t(name, successes, failures, reason)
ON CONFLICT (name) DO UPDATE SET
    failure_count = CASE WHEN excluded.last_success_at IS NOT NULL THEN 0 ELSE health.failure_count + excluded.failure_count END,
    open_until = CASE
        WHEN excluded.last_success_at IS NOT NULL THEN NULL
        WHEN health.failure_count + excluded.failure_count >= %s THEN payonce_now() + %s * interval '1 second'
        ELSE health.open_until END,
    last_success_at = COALESCE(excluded.last_success_at, health.last_success_at),
    last_failure_at = COALESCE(excluded.last_failure_at, health.last_failure_at),
    last_failure = CASE WHEN excluded.last_failure_at IS NOT NULL THEN excluded.last_failure ELSE health.last_failure END
"""


class Claimed(NamedTuple):
    """A claimed stream, and the database's time when it was claimed: what a query sent now was asked at."""

    stream: Stream
    at: datetime


def claim_streams(*, closing: bool, per_account: int) -> list[Claimed]:
    """Claim up to `per_account` due streams of every configured account: those being closed, or all others."""
    using = get_settings().DATABASE
    statement = Statement(
        CLAIM.format(returning=flight.returning(Stream)),
        [schedule.CLAIM_SECONDS, list(registry.accounts()), closing, schedule.BREAKER_FAILURES, per_account],
    )
    rows = flight.fly([statement], using)[0]
    if rows:
        clock.remember(rows[0][-1])
    return [Claimed(flight.load(Stream, row[:-1], using), row[-1]) for row in rows]


def health_statement(
    successes: Mapping[str, int],
    failures: Mapping[str, int],
    reasons: Mapping[str, str],
    failures_max: int = schedule.BREAKER_FAILURES,
) -> Statement:
    """Count answers and failures per name; enough failures in a row open its breaker, one answer closes it."""
    names = sorted({*successes, *failures})
    limits = [failures_max, schedule.BREAKER_SECONDS]
    counts = [[successes.get(name, 0) for name in names], [failures.get(name, 0) for name in names]]
    return Statement(HEALTH, [*limits, names, *counts, [reasons.get(name, "")[:200] for name in names], *limits])


def record_answer(account: str, outcome: Outcome[Any]) -> None:
    """Count one answer, or its absence, of an account that was asked about a single stream."""
    if isinstance(outcome, Known):
        record_health({account: 1}, {}, {}, schedule.BREAKER_FAILURES)
    else:
        record_health({}, {account: 1}, {account: why_not(outcome)}, schedule.BREAKER_FAILURES)


def record_health(
    successes: Mapping[str, int], failures: Mapping[str, int], reasons: Mapping[str, str], failures_max: int
) -> None:
    """Write what `health_statement` says."""
    flight.fly([health_statement(successes, failures, reasons, failures_max)], get_settings().DATABASE)
