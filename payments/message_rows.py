"""Messages to the shop as rows: claim in order per order and listener, record, and put back or park."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from payonce.orders.conf import get_settings
from payonce.payments import clock, flight, schedule
from payonce.payments.flight import Statement
from payonce.payments.locks import Work, under_lock
from payonce.payments.models import ShopMessage
from payonce.payments.statuses import Decision, DiscrepancyKind, MessageState
from payonce.payments.transitions import cases

if TYPE_CHECKING:
    from payonce.payments.publish import Delivery

CLAIM_SECONDS = 25
"""Above what a batch takes; whoever is killed with one delays it by no more than this and the sweep's interval."""
CLAIM = """
WITH due AS (
    SELECT m.id FROM payonce_shop_message AS m
    LEFT JOIN payonce_channel_state AS health ON health.name = 'message:' || m.listener
    WHERE m.state = 'PENDING' AND m.next_try_at <= payonce_now()
      AND (m.lease_until IS NULL OR m.lease_until <= payonce_now())
      AND (health.open_until IS NULL OR health.open_until <= payonce_now())
      AND (health.failure_count IS NULL OR health.failure_count < %s)
      AND NOT EXISTS (
        SELECT 1 FROM payonce_shop_message AS older
        WHERE older.order_id = m.order_id AND older.listener = m.listener AND older.sequence < m.sequence
          AND older.state IN ('PENDING', 'PARKED'))
    ORDER BY m.next_try_at LIMIT %s
), probe AS (
    SELECT (SELECT m.id FROM payonce_shop_message AS m WHERE m.state = 'PENDING' AND m.listener = substr(health.name, 9)
        AND NOT EXISTS (
            SELECT 1 FROM payonce_shop_message AS older
            WHERE older.order_id = m.order_id AND older.listener = m.listener AND older.sequence < m.sequence
              AND older.state IN ('PENDING', 'PARKED'))
        ORDER BY random() LIMIT 1) AS id
    FROM payonce_channel_state AS health
    WHERE health.name LIKE 'message:%%' AND health.failure_count >= %s AND health.open_until <= payonce_now()
)
UPDATE payonce_shop_message SET lease_until = payonce_now() + %s * interval '1 second'
WHERE id IN (
    SELECT m.id FROM payonce_shop_message AS m
    WHERE m.id = ANY(ARRAY(SELECT id FROM due) || ARRAY(SELECT id FROM probe))
      AND m.state = 'PENDING' AND (m.lease_until IS NULL OR m.lease_until <= payonce_now())
    FOR UPDATE SKIP LOCKED
) {returning}
"""
"""Due messages of listeners that answer, and one message of each listener that is down and may be tried again: any one, since
the oldest may be the very one that it cannot take.

The lease is judged again when the row is locked, so that two workers never hold the same message.
"""
DELIVERED = """
UPDATE payonce_shop_message AS m SET state = 'DELIVERED', delivered_at = payonce_now(), next_try_at = NULL, last_answer = t.answer,
    try_count = m.try_count + 1, lease_until = NULL
FROM unnest(%s::bigint[], %s::text[]) AS t(id, answer) WHERE m.id = t.id AND m.state = 'PENDING'
"""
FAILED = """
UPDATE payonce_shop_message AS m SET next_try_at = t.next_at, last_answer = t.answer, lease_until = NULL,
    try_count = m.try_count + 1
FROM unnest(%s::bigint[], %s::text[], %s::timestamptz[]) AS t(id, answer, next_at) WHERE m.id = t.id AND m.state = 'PENDING'
"""
RECOVERED = """
UPDATE payonce_shop_message SET next_try_at = payonce_now()
WHERE state = 'PENDING' AND listener = ANY(%s) AND try_count > 0 AND next_try_at > payonce_now()
  AND listener IN (SELECT substr(name, 9) FROM payonce_channel_state WHERE name LIKE 'message:%%' AND failure_count >= %s)
"""
RELEASED = "UPDATE payonce_shop_message SET lease_until = NULL WHERE id = ANY(%s)"


def claim_due(limit: int) -> list[ShopMessage]:
    """Claim due messages that are the oldest undelivered one of their order and listener."""
    using = get_settings().DATABASE
    statement = Statement(
        CLAIM.format(returning=flight.returning(ShopMessage)),
        [schedule.LISTENER_FAILURES, limit, schedule.LISTENER_FAILURES, CLAIM_SECONDS],
    )
    rows = [flight.load(ShopMessage, row, using) for row in flight.fly([statement], using)[0]]
    return sorted(rows, key=lambda row: (row.order_id, row.sequence))


def record(results: Sequence[tuple[ShopMessage, "Delivery", str]]) -> None:
    """Record a batch: told, to be tried again, or parked after the last try.

    A listener that was down and answers again makes all its messages due. A message that was only the probe of a listener
    that is down, before its own time, loses no try.
    """
    at = clock.read_now()
    told = [(row, text) for row, how, text in results if how == "delivered"]
    failed = [(row, text) for row, how, text in results if how != "delivered" and _is_due(row, at)]
    probes = [row.pk for row, how, _ in results if how != "delivered" and not _is_due(row, at)]
    parked = [(row, text) for row, text in failed if row.try_count + 1 >= len(schedule.MESSAGE_TRY_SECONDS)]
    again = [item for item in failed if item not in parked]
    statements = []
    if told:
        statements.append(Statement(DELIVERED, [[row.pk for row, _ in told], [text[:200] for _, text in told]]))
        statements.append(Statement(RECOVERED, [sorted({row.listener for row, _ in told}), schedule.LISTENER_FAILURES]))
    if probes:
        statements.append(Statement(RELEASED, [probes]))
    if again:
        times = [schedule.backoff(at, row.try_count, schedule.MESSAGE_TRY_SECONDS) for row, _ in again]
        statements.append(Statement(FAILED, [[row.pk for row, _ in again], [text[:200] for _, text in again], times]))
    if statements:
        flight.fly(statements, get_settings().DATABASE)
    for row, text in parked:
        park(row, text)


def _is_due(message: ShopMessage, at: datetime) -> bool:
    return message.next_try_at is not None and message.next_try_at <= at


def park(message: ShopMessage, text: str) -> None:
    """The last try failed: hold the order's later messages and ask a person."""

    def decide(work: Work) -> None:
        work.raw.append(
            Statement(
                "UPDATE payonce_shop_message SET state = %s, next_try_at = NULL, lease_until = NULL, last_answer = %s,"
                " try_count = try_count + 1"
                " WHERE id = %s AND state = %s",
                [MessageState.PARKED.value, text[:200], message.pk, MessageState.PENDING.value],
            )
        )
        cases.open_case(
            work, DiscrepancyKind.SHOP_NOT_TOLD, _case_subject(message),
            f"{message.listener} was not told {message.kind} of {work.order.reference}: {text}",
        )  # fmt: skip

    under_lock("system:publish", decide, order_id=message.order_id)


def resend(message_id: int, by: str) -> bool:
    """A person sends a message again (also a delivered one). False when there is no such message."""
    return _set(message_id, MessageState.PENDING, by)


def skip(message_id: int, by: str) -> bool:
    """A person gives a parked message up, so that the order's later ones go out."""
    return _set(message_id, MessageState.SKIPPED, by)


def _set(message_id: int, state: MessageState, by: str) -> bool:
    row = ShopMessage.objects.using(get_settings().DATABASE).filter(pk=message_id).first()
    if row is None:
        return False

    def decide(work: Work) -> None:
        work.raw.append(
            Statement(
                "UPDATE payonce_shop_message SET state = %s, try_count = 0, delivered_at = NULL, lease_until = NULL,"
                " next_try_at = CASE WHEN %s = 'PENDING' THEN payonce_now() END WHERE id = %s"
                " AND (%s = 'PENDING' OR state IN ('PENDING', 'PARKED'))",
                [state.value, state.value, message_id, state.value],
            )
        )
        work.journal.write(work.order, f"message.{state.lower()}", subject=f"{row.listener}:{row.sequence}"[:40])
        for case in work.cases:
            if case.kind == DiscrepancyKind.SHOP_NOT_TOLD and case.subject == _case_subject(row):
                cases.resolve(
                    work, case, Decision.DISMISS, by.removeprefix("operator:"), f"message {state.value.lower()}"
                )

    under_lock(by, decide, order_id=row.order_id)
    return True


def _case_subject(message: ShopMessage) -> str:
    return f"{message.order_id}-{message.sequence}:{message.listener}"
