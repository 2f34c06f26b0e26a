"""Compare a day of a channel's statement with our rows, in both directions. No money moves on the word of a statement alone.

Where a line and our rows differ, the channel is asked about the payment first, since its answer is the better evidence. What
still differs is a case for a person; money under a second reference becomes a surplus stream, so that it can be refunded.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from payonce.channels.messages import Known, PaymentState, PaymentView, RefundView
from payonce.channels.messages import RefundState as Answer
from payonce.orders.conf import get_settings
from payonce.payments import clock, flight, poll, refund_answer
from payonce.payments.call import capabilities_of
from payonce.payments.flight import Statement
from payonce.payments.locks import Work, under_lock
from payonce.payments.models import Discrepancy, StatementDay, StatementLine, Stream
from payonce.payments.refund_run import follow_up
from payonce.payments.settle import adopt_second_capture
from payonce.payments.statuses import (
    TRIED_REFUND_STATES,
    Confirmation,
    DiscrepancyKind,
    RefundState,
    StreamState,
)
from payonce.payments.transitions import cases

BY = "system:statement"
REFUND_DAYS = 14
"""How long a refund may take from our asking to its line: a channel may list it once the buyer's bank has it."""
CREATED_BEFORE = timedelta(days=40)
"""How long before its payment a stream may have been made: only bounds the search."""
DIFFERENT_PAYMENTS = """
id IN (SELECT l.id FROM payonce_statement_line l WHERE l.statement_id = %s AND l.kind = 'payment'
AND NOT EXISTS (
    SELECT 1 FROM payonce_stream s WHERE s.account = l.account AND s.channel_reference = l.channel_reference
    AND s.state = 'SUCCEEDED' AND s.captured_minor = l.amount_minor AND s.captured_currency = l.currency
) AND NOT EXISTS (
    SELECT 1 FROM payonce_stream s WHERE s.account = l.account AND s.number = l.number
    AND (l.channel_reference = '' OR COALESCE(s.channel_reference, '') = '')
    AND s.state = 'SUCCEEDED' AND s.captured_minor = l.amount_minor AND s.captured_currency = l.currency
    AND (SELECT count(DISTINCT m.at) FROM payonce_statement_line m
         WHERE m.account = l.account AND m.number = l.number AND m.kind = 'payment')
        <= (SELECT count(*) FROM payonce_stream t WHERE t.order_id = s.order_id AND t.state = 'SUCCEEDED'
            AND l.number IN (t.number, t.origin_number))
)) ORDER BY id
"""
"""A line agrees with a stream by its reference; where it has none, by its number, if there are as many streams as lines."""
DIFFERENT_REFUNDS = """
id IN (SELECT l.id FROM payonce_statement_line l WHERE l.statement_id = %s AND l.kind = 'refund'
AND NOT EXISTS (
    SELECT 1 FROM payonce_refund r JOIN payonce_stream s ON s.id = r.stream_id
    WHERE r.number = l.number AND s.account = l.account AND (
        (l.came_to = 'DONE' AND r.state IN ('SUCCEEDED', 'RETURNED') AND r.amount_minor = l.amount_minor AND r.currency = l.currency)
        OR (l.came_to = 'FAILED' AND r.state <> 'SUCCEEDED')
        OR l.came_to NOT IN ('DONE', 'FAILED')
    )
)) ORDER BY id
"""
MISSING_PAYMENTS = """
SELECT s.number FROM payonce_stream s WHERE s.state = 'SUCCEEDED' AND s.account = %s
AND COALESCE(s.paid_at, s.succeeded_at) >= %s AND COALESCE(s.paid_at, s.succeeded_at) < %s AND s.created_at > %s
AND NOT EXISTS (SELECT 1 FROM payonce_statement_line l WHERE l.account = s.account AND l.kind = 'payment'
    AND l.number = CASE s.origin_number WHEN '' THEN s.number ELSE s.origin_number END)
AND NOT EXISTS (SELECT 1 FROM payonce_statement_line l WHERE l.account = s.account AND l.kind = 'payment'
    AND l.channel_reference = s.channel_reference AND l.channel_reference <> '')
AND NOT EXISTS (SELECT 1 FROM payonce_discrepancy d WHERE d.kind = 'statement' AND d.subject = s.number)
ORDER BY s.id
"""
MISSING_REFUNDS = """
SELECT r.number FROM payonce_refund r JOIN payonce_stream s ON s.id = r.stream_id
WHERE r.state = 'SUCCEEDED' AND s.account = %s AND r.first_sent_at >= %s AND r.first_sent_at < %s
AND NOT EXISTS (SELECT 1 FROM payonce_statement_line l WHERE l.account = s.account AND l.kind = 'refund' AND l.number = r.number)
AND NOT EXISTS (SELECT 1 FROM payonce_discrepancy d WHERE d.kind = 'statement' AND d.subject = r.number)
ORDER BY r.id
"""
UNKNOWN_REFUNDS = """
SELECT COALESCE(sum(amount), 0) FROM (
    SELECT max(l.amount_minor) AS amount FROM payonce_statement_line l
    WHERE l.account = %s AND l.kind = 'refund' AND l.came_to <> 'FAILED' AND l.payment_number = %s
    AND NOT EXISTS (SELECT 1 FROM payonce_refund r JOIN payonce_stream s ON s.id = r.stream_id
        WHERE r.number = l.number AND s.account = l.account)
    GROUP BY l.number, l.channel_reference
) AS each
"""


class NotAnswered(Exception):
    """The channel does not answer a question that the comparison needs: it is made again later."""


@dataclass
class Compared:
    """How many lines or rows differed, and how many lines were about other people's numbers."""

    differences: int = 0
    foreign: int = 0


def compare(row: StatementDay) -> Compared:
    """Compare a fetched day with our rows. Safe to run again. Raises NotAnswered, and what `under_lock` raises."""
    asked: set[str] = set()
    judged = [_judge_payment(line, asked) for line in _lines(DIFFERENT_PAYMENTS, row)]
    judged += [_judge_refund(line) for line in _lines(DIFFERENT_REFUNDS, row)]
    return Compared(judged.count(True) + _tell_missing(row), judged.count(False))


def _lines(condition: str, row: StatementDay) -> list[StatementLine]:
    using = get_settings().DATABASE
    rows = flight.fly([flight.select(StatementLine, condition, [row.pk])], using)[0]
    return [flight.load(StatementLine, found, using) for found in rows]


def _judge_payment(line: StatementLine, asked: set[str]) -> bool:
    """Ask about the payment, once; what still differs becomes a case. False for one that is nobody's here."""
    number = _stream_of(line, line.number)
    if not number:
        return _is_orphan(line, line.number, f"{line.number}/{line.channel_reference}")
    if number not in asked:
        _ask(number)
        asked.add(number)

    def decide(work: Work) -> None:
        stream = work.stream(number)
        if _is_settled(work, line):
            return
        if _is_second(line, stream):
            adopt_second_capture(work, stream, _view(line, stream), Confirmation.STATEMENT, automatic=False)
            follow_up(work)
            return
        ours = f"{stream.captured_minor} {stream.captured_currency or stream.currency}"
        cases.open_case(
            work, DiscrepancyKind.STATEMENT, stream.number,
            f"{line.account} lists {line.amount_minor} {line.currency} (minor units) for {stream.number} in its statement;"
            f" here it took {ours}.",
            stream=stream, amount_minor=line.amount_minor, currency=line.currency, channel_reference=line.channel_reference,
            was=stream.state, at=line.at,
        )  # fmt: skip

    under_lock(BY, decide, stream=number)
    return True


def _is_second(line: StatementLine, stream: Stream) -> bool:
    """Does the line name a payment other than the one that the stream has?"""
    named = (line.channel_reference, stream.channel_reference)
    return stream.state == StreamState.SUCCEEDED and all(named) and named[0] != named[1]


def _is_settled(work: Work, line: StatementLine) -> bool:
    """Does a stream of the order agree with the line by now?"""
    taken = (line.amount_minor, line.currency)
    mine = [row for row in work.streams if row.account == line.account]
    same = [row for row in mine if (row.captured_minor, row.captured_currency) == taken]
    if line.channel_reference:
        return any(row.channel_reference == line.channel_reference for row in same)
    listed = StatementLine.objects.using(work.using).filter(account=line.account, kind="payment", number=line.number)
    named = [row for row in same if line.number in (row.number, row.origin_number)]
    return len(named) >= listed.values("at").distinct().count()


def _view(line: StatementLine, stream: Stream) -> PaymentView:
    return PaymentView(
        stream.channel_number, PaymentState.PAID, line.currency, line.amount_minor,
        channel_reference=line.channel_reference, paid_at=line.at,
    )  # fmt: skip


def _judge_refund(line: StatementLine) -> bool:
    """A line about a refund of ours is news about it; another one is money that was given back without us."""
    statement = Statement(
        "SELECT r.number FROM payonce_refund r JOIN payonce_stream s ON s.id = r.stream_id WHERE r.number = %s AND s.account = %s",
        [line.number, line.account],
    )
    if line.number and flight.fly([statement], get_settings().DATABASE)[0]:
        under_lock(BY, lambda work: _apply_refund(work, line), refund=line.number)
        return True
    number = _stream_of(line, line.payment_number)
    if not number:
        return _is_orphan(line, line.payment_number, f"{line.payment_number}/{line.number or line.channel_reference}")
    if line.came_to == Answer.FAILED:
        return False
    under_lock(BY, lambda work: _tell_outside(work, number), stream=number)
    return True


def _apply_refund(work: Work, line: StatementLine) -> None:
    refund = work.refund(line.number)
    is_same = (line.amount_minor, line.currency) == (refund.amount_minor, refund.currency)
    if is_same and (refund.state in TRIED_REFUND_STATES or refund.state == RefundState.REJECTED):
        answer = Answer(line.came_to)
        view = RefundView(refund.number, answer, line.amount_minor, line.currency, line.channel_reference)
        refund_answer.apply_view(work, refund, view)
        follow_up(work)
        return
    cases.open_case(
        work, DiscrepancyKind.STATEMENT, refund.number,
        f"{line.account} lists {line.amount_minor} {line.currency} (minor units) given back under {refund.number};"
        f" here it is {refund.state}.",
        stream=work.stream_of(refund), refund=refund, amount_minor=line.amount_minor, currency=line.currency,
        ours_minor=refund.amount_minor, was=refund.state, at=line.at,
    )  # fmt: skip


def _tell_outside(work: Work, number: str) -> None:
    """Money of this stream that was given back without us: asked about where a query tells, otherwise the statements' sum."""
    stream = work.stream(number)
    capabilities = capabilities_of(stream)
    if capabilities is None or capabilities.states_refunded:
        stream.next_check_at = stream.nudged_at = work.at
        return
    statement = Statement(UNKNOWN_REFUNDS, [stream.account, stream.channel_number])
    amount = int(flight.fly([statement], work.using)[0][0][0])
    cases.open_case(
        work, DiscrepancyKind.OUTSIDE_REFUND, stream.number,
        f"{stream.account} gave {amount} (minor units) of {stream.number} back without us.",
        stream=stream, amount_minor=amount,
    )  # fmt: skip


def _stream_of(line: StatementLine, number: str) -> str:
    """The number of the stream that a payment's number or reference names on the line's account; empty where none does."""
    statement = Statement(
        "SELECT number FROM payonce_stream WHERE account = %s AND number = %s UNION ALL"
        " SELECT number FROM payonce_stream WHERE account = %s AND channel_reference = %s AND channel_reference <> ''",
        [line.account, number, line.account, line.channel_reference if line.kind == "payment" else ""],
    )
    rows = flight.fly([statement], get_settings().DATABASE)[0]
    return str(rows[0][0]) if rows else ""


def _is_orphan(line: StatementLine, number: str, subject: str) -> bool:
    """Money under a number of ours that matches no row here is a case of its own, once; another's number is only counted."""
    conf = get_settings()
    if not number.startswith(conf.NUMBER_PREFIX):
        return False
    kind = DiscrepancyKind.ORPHAN if line.kind == "payment" else DiscrepancyKind.STATEMENT
    what = f"{line.amount_minor} {line.currency} (minor units)"
    text = (
        f"{line.account} reports {what} under {number}, which is no stream of ours."
        if line.kind == "payment"
        else f"{line.account} lists {what} given back of {number}, which is no stream of ours."
    )
    known = Discrepancy.objects.using(conf.DATABASE).filter(kind=kind, account=line.account, subject=subject[:128])
    if not known.exists():
        case = cases.new_alone(kind, line.account, subject, text, clock.read_now(), line.amount_minor, line.currency)
        flight.fly([flight.insert(case, "ON CONFLICT DO NOTHING")], conf.DATABASE)
    return True


def _ask(number: str) -> None:
    if not isinstance(poll.ask(number, BY, Confirmation.STATEMENT).outcome, Known):
        raise NotAnswered(f"no answer about {number}")


def _tell_missing(row: StatementDay) -> int:
    """Money that we have and no statement names: looked for once the days around it are all here, since calendars differ."""
    days = StatementDay.objects.using(get_settings().DATABASE).filter(account=row.account, fetched_at__isnull=False)
    wide = timedelta(days=REFUND_DAYS + 1)
    near = set(days.filter(day__gte=row.day - wide, day__lte=row.day + wide).values_list("day", flat=True))
    found = 0
    for day in [row.day + timedelta(days=index) for index in (-1, 0, 1)]:
        if near >= {day - timedelta(days=1), day, day + timedelta(days=1)}:
            found += _tell_payments([row.account, *_span(day), _start(day) - CREATED_BEFORE])
    for index in range(-1, REFUND_DAYS + 1):
        day = row.day - timedelta(days=index)
        if near >= {day + timedelta(days=later) for later in range(-1, REFUND_DAYS + 1)}:
            found += _tell_refunds([row.account, *_span(day)])
    return found


def _tell_payments(params: list[Any]) -> int:
    numbers = _numbers(MISSING_PAYMENTS, params)
    for number in numbers:

        def tell(work: Work, number: str = number) -> None:
            stream = work.stream(number)
            cases.open_case(
                work, DiscrepancyKind.STATEMENT, number, _not_named(number, stream.account), stream=stream,
                amount_minor=stream.captured_minor, channel_reference=stream.channel_reference, paid_at=stream.paid_at,
            )  # fmt: skip

        under_lock(BY, tell, stream=number)
    return len(numbers)


def _tell_refunds(params: list[Any]) -> int:
    numbers = _numbers(MISSING_REFUNDS, params)
    for number in numbers:

        def tell(work: Work, number: str = number) -> None:
            refund = work.refund(number)
            stream = work.stream_of(refund)
            cases.open_case(
                work, DiscrepancyKind.STATEMENT, number, _not_named(number, stream.account), stream=stream,
                refund=refund, amount_minor=refund.amount_minor, channel_reference=refund.channel_reference,
            )  # fmt: skip

        under_lock(BY, tell, refund=number)
    return len(numbers)


def _numbers(sql: str, params: list[Any]) -> list[str]:
    return [str(row[0]) for row in flight.fly([Statement(sql, params)], get_settings().DATABASE)[0]]


def _not_named(number: str, account: str) -> str:
    return f"{number} is done here, and the statements of {account} around that day do not name it."


def _span(day: date) -> tuple[datetime, datetime]:
    return _start(day), _start(day) + timedelta(days=1)


def _start(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
