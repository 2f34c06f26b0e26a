"""Poll: ask channels about streams by the clock, so that a lost notification (掉单) is only a delay.

One statement claims a batch; the queries run concurrently in an asyncio loop on its own thread, where no database is
touched; this thread applies the answers as they arrive. Answers without news are written back in one statement.
"""

import asyncio
import logging
import queue
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from django.db import OperationalError

from payonce.channels import registry
from payonce.channels.errors import ChannelError
from payonce.channels.http import AsyncDriver
from payonce.channels.messages import Known, Outcome, PaymentState, PaymentView, Unknown
from payonce.orders.conf import get_settings
from payonce.payments import capture, claims, close, flight, schedule
from payonce.payments.call import call, capabilities_of, let_go_of_database, why_not
from payonce.payments.claims import Claimed
from payonce.payments.flight import Statement
from payonce.payments.locks import Work, under_lock
from payonce.payments.models import Stream
from payonce.payments.refs import payment_ref
from payonce.payments.settle import Settled, plan_check
from payonce.payments.statuses import Confirmation, DiscrepancyKind, StreamState
from payonce.payments.transitions.cases import open_case

log = logging.getLogger("payonce.poll")
NO_NEWS = {
    PaymentState.OPEN: (StreamState.CREATED, StreamState.PENDING),
    PaymentState.NOT_FOUND: (StreamState.CREATED, StreamState.PENDING),
    PaymentState.IN_PROGRESS: (StreamState.PROCESSING,),
}
WRITE_BACK = """
UPDATE payonce_stream AS s SET next_check_at = t.next_at, last_answer = t.answer, last_answer_at = t.at, is_answer_unknown = t.unknown
FROM unnest(%s::bigint[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::text[], %s::timestamptz[], %s::bool[])
    AS t(id, state, claimed, next_at, answer, at, unknown)
WHERE s.id = t.id AND s.state = t.state AND s.next_check_at = t.claimed
    AND s.id IN (SELECT id FROM payonce_stream WHERE id = ANY(%s::bigint[]) FOR UPDATE SKIP LOCKED)
"""
"""A row that somebody is settling is passed over: their news is newer, and the claim's lease makes the row due again."""


@dataclass
class PollReport:
    """How a sweep went."""

    asked: int = 0
    answered: int = 0
    applied: Counter[str] = field(default_factory=Counter)


def poll_due(per_account: int | None = None) -> PollReport:
    """Claim one batch of due streams, ask the channels, apply the answers. Safe beside any number of other pollers."""
    report = PollReport()
    claimed = claims.claim_streams(closing=False, per_account=per_account or get_settings().POLL_BATCH)
    if not claimed:
        return report
    let_go_of_database()
    quiet: list[tuple[Claimed, Outcome[PaymentView]]] = []
    good, bad, reasons = Counter[str](), Counter[str](), dict[str, str]()
    for item, outcome in _ask_all(claimed):
        report.asked += 1
        account = item.stream.account
        if isinstance(outcome, Known):
            good[account] += 1
            report.answered += 1
        else:
            bad[account] += 1
            reasons[account] = why_not(outcome)
        if _is_quiet(item, outcome):
            quiet.append((item, outcome))
        else:
            report.applied[_apply(item, outcome)] += 1
    statements = [claims.health_statement(good, bad, reasons)]
    if quiet:
        statements.append(_write_back(quiet))
    flight.fly(statements, get_settings().DATABASE)
    return report


class Asked(NamedTuple):
    """What the channel answered, and what it came to."""

    outcome: Outcome[PaymentView]
    settled: Settled


def poll_stream(number: str, by: str) -> Settled:
    """Ask the channel about one stream now and apply the answer. Raises OrderNotFound for an unknown number."""
    return ask(number, by, Confirmation.OPERATOR if by.startswith("operator:") else Confirmation.POLL).settled


def ask(number: str, by: str, way: Confirmation) -> Asked:
    """As `poll_stream`; `way` is recorded as how money that comes out became known."""
    stream, at = under_lock(by, lambda work: (work.stream(number), work.at), stream=number)
    outcome = call(stream.account, lambda channel: channel.query(payment_ref(stream)))
    settled = close.record_query(number, stream.account, outcome, way, at, by)
    _capture_if_approved(settled, stream)
    return Asked(outcome, settled)


def nudge(number: str, *, ended: bool = False) -> bool:
    """Someone waits for this stream (a return, a waiting page): make it due, at most every 3 s. True if it was.

    `ended` includes streams that nothing would ask about any more: the channel itself said something about it.
    """
    due = "(next_check_at > payonce_now() OR (next_check_at IS NULL AND %s))"
    statement = Statement(
        "UPDATE payonce_stream SET next_check_at = payonce_now(), nudged_at = payonce_now() WHERE id = ("
        f"SELECT id FROM payonce_stream WHERE number = %s AND {due}"
        " AND (nudged_at IS NULL OR nudged_at < payonce_now() - %s * interval '1 second') FOR UPDATE SKIP LOCKED"
        ") RETURNING id",
        [number, ended, schedule.NUDGE_SECONDS_MIN],
    )
    return bool(flight.fly([statement], get_settings().DATABASE)[0])


def ask_about_refunds(number: str) -> None:
    """The channel said something about this payment that we may not believe: ask about each refund of it that was sent."""
    statement = Statement(
        "UPDATE payonce_refund SET next_try_at = payonce_now() WHERE id IN ("
        "SELECT r.id FROM payonce_refund AS r JOIN payonce_stream AS s ON s.id = r.stream_id WHERE s.number = %s"
        " AND r.state IN ('SUBMITTED', 'UNKNOWN', 'ATTENTION', 'SUCCEEDED') AND r.first_sent_at IS NOT NULL"
        " FOR UPDATE OF r SKIP LOCKED)",
        [number],
    )
    flight.fly([statement], get_settings().DATABASE)


def _apply(item: Claimed, outcome: Outcome[PaymentView]) -> str:
    stream = item.stream
    try:
        settled = close.record_query(stream.number, stream.account, outcome, Confirmation.POLL, item.at, "system:poll")
        _capture_if_approved(settled, stream)
    except OperationalError:
        log.warning("the database was not free to take the answer about %s; it is asked again", stream.number)
        return "failed"
    except Exception:
        # The claim's lease makes the row due again: one stream that cannot be applied must not stop the others.
        log.exception("the answer about %s could not be applied; it is asked again", stream.number)
        tell_person(stream.number)
        return "failed"
    return settled.value


def tell_person(number: str) -> None:
    """What is answered about a stream cannot be applied, and may be money: a person looks, while it is asked again."""

    def decide(work: Work) -> None:
        stream = work.stream(number)
        text = f"What {stream.account} answers about {number} cannot be applied: see the log."
        open_case(work, DiscrepancyKind.INCONSISTENT, number, text, stream=stream)
        plan_check(work, stream)

    try:
        under_lock("system:poll", decide, stream=number)
    except Exception:
        log.exception("no case could be opened for %s; its claim comes due again", number)


def _capture_if_approved(settled: Settled, stream: Stream) -> None:
    capabilities = capabilities_of(stream)
    if settled is Settled.APPROVED and capabilities is not None and capabilities.captures:
        capture.capture_stream(stream.number)


def _is_quiet(item: Claimed, outcome: Outcome[PaymentView]) -> bool:
    """Does the answer change nothing but the time of the next one? Then no lock is taken for it."""
    stream = item.stream
    capabilities = capabilities_of(stream)
    grace = get_settings().GRACE_SECONDS
    if schedule.next_check_at(stream, item.at, capabilities, grace) is None:
        return False
    if not isinstance(outcome, Known):
        return True
    view = outcome.value
    if stream.state not in NO_NEWS.get(view.state, ()) or view.captures:
        return False
    return not schedule.is_past_payable(stream, capabilities, grace, item.at)


def _write_back(quiet: list[tuple[Claimed, Outcome[PaymentView]]]) -> Statement:
    columns: list[list[object]] = [[] for _ in range(7)]
    grace = get_settings().GRACE_SECONDS
    for item, outcome in quiet:
        stream, claimed_until = item.stream, item.stream.next_check_at
        stream.is_answer_unknown = not isinstance(outcome, Known)
        answer = outcome.value.state.value if isinstance(outcome, Known) else why_not(outcome)
        next_at = schedule.next_check_at(stream, item.at, capabilities_of(stream), grace)
        row = (stream.pk, str(stream.state), claimed_until, next_at, answer[:64], item.at, stream.is_answer_unknown)
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    return Statement(WRITE_BACK, [*columns, columns[0]])


def _ask_all(claimed: list[Claimed]) -> Iterator[tuple[Claimed, Outcome[PaymentView]]]:
    """Run every query concurrently on another thread; yield the outcomes as they arrive."""
    answers: queue.SimpleQueue[tuple[Claimed, Outcome[PaymentView]] | None] = queue.SimpleQueue()
    thread = threading.Thread(target=lambda: _run_loop(claimed, answers), name="payonce-poll", daemon=True)
    thread.start()
    while (answer := answers.get()) is not None:
        yield answer
    thread.join()


def _run_loop(
    claimed: list[Claimed], answers: "queue.SimpleQueue[tuple[Claimed, Outcome[PaymentView]] | None]"
) -> None:
    try:
        asyncio.run(_ask_concurrently(claimed, answers))
    except Exception:
        log.exception("the poller's loop failed; unanswered rows come due again")
    finally:
        answers.put(None)


async def _ask_concurrently(
    claimed: list[Claimed], answers: "queue.SimpleQueue[tuple[Claimed, Outcome[PaymentView]] | None]"
) -> None:
    limit = asyncio.Semaphore(get_settings().POLL_CONCURRENCY)
    async with AsyncDriver() as driver:

        async def ask(item: Claimed) -> None:
            async with limit:
                try:
                    channel = registry.channel(item.stream.account)
                    outcome = await driver.run(channel.query(payment_ref(item.stream)))
                except ChannelError as error:
                    outcome = Unknown(f"not configured: {error}")
                answers.put((item, outcome))

        async with asyncio.TaskGroup() as group:
            for item in claimed:
                group.create_task(ask(item))
