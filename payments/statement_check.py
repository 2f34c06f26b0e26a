"""Compare a day of a channel's statement with our rows, in both directions. No money moves on the word of a statement alone.

Where a line and our rows differ, the channel is asked about the payment first, since its answer is the better evidence. What
still differs is a case for a person; money under a second reference becomes a surplus stream, so that it can be refunded.
"""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Any

from payonce.channels import registry
from payonce.channels.errors import ChannelError
from payonce.channels.messages import Known, PaymentState, PaymentView, RefundView
from payonce.channels.messages import RefundState as Answer
from payonce.orders.conf import get_settings
from payonce.payments import clock, flight, poll, refund_answer
from payonce.payments.flight import Statement
from payonce.payments.locks import Work, under_lock
from payonce.payments.models import Discrepancy, StatementDay, StatementLine, Stream
from payonce.payments.refund_run import follow_up
from payonce.payments.settle import adopt_second_capture, moved_minor
from payonce.payments.statement_sql import (
    DIFFERENT_PAYMENTS,
    DIFFERENT_REFUNDS,
    FOREIGN,
    LATE_DAYS,
    MISSING_PAYMENTS,
    MISSING_REFUNDS,
    REFUND_DAYS,
    REFUND_OF_OURS,
    UNKNOWN_REFUNDS,
)
from payonce.payments.statuses import (
    TRIED_REFUND_STATES,
    Confirmation,
    DiscrepancyKind,
    RefundState,
    StreamState,
)
from payonce.payments.transitions import cases

BY = "system:statement"
STRANGERS_MAX = 20
"""More lines than these about numbers of ours that nobody here knows are one case together: another installation uses the account."""


class NotAnswered(Exception):
    """The channel does not answer a question that the comparison needs: it is made again later."""


@dataclass
class Compared:
    """How many lines or rows differed, and how many lines were about other people's numbers."""

    differences: int = 0
    foreign: int = 0


@dataclass
class _Look:
    """One comparison: what was asked already, what was not answered, and lines about numbers that nobody here knows."""

    row: StatementDay
    asked: dict[str, bool] = field(default_factory=dict)
    unanswered: list[str] = field(default_factory=list)
    strangers: int = 0


def compare(row: StatementDay) -> Compared:
    """Compare a fetched day with our rows. Safe to run again. Raises NotAnswered at its end, and what `under_lock` raises."""
    using, prefix, look = get_settings().DATABASE, get_settings().NUMBER_PREFIX, _Look(row)
    compared = Compared()
    for condition, judge in ((DIFFERENT_PAYMENTS, _judge_payment), (DIFFERENT_REFUNDS, _judge_refund)):
        rows = flight.fly([flight.select(StatementLine, condition, [row.pk, prefix])], using)[0]
        compared.differences += sum(judge(look, flight.load(StatementLine, found, using)) for found in rows)
    _tell_strangers(look)
    compared.differences += _tell_missing(row)
    compared.foreign = int(flight.fly([Statement(FOREIGN, [row.pk, prefix])], using)[0][0][0])
    if look.unanswered:
        raise NotAnswered(f"no answer about {', '.join(look.unanswered[:5])}")
    return compared


# --- lines ---


def _judge_payment(look: _Look, line: StatementLine) -> bool:
    """Ask about the payment, once; what still differs becomes a case. False for one that is not ours to judge."""
    number = _stream_of(line.account, line.number, line.channel_reference)
    if not number:
        return _judge_stranger(look, line, line.number)
    if not _ask(look, number):
        return True

    def decide(work: Work) -> None:
        if _is_settled(work, line):
            return
        stream = _named(work, line, number)
        if _is_second(line, stream):
            adopt_second_capture(work, stream, _view(line, stream), Confirmation.STATEMENT, automatic=False)
            follow_up(work)
            return
        ours = f"{stream.captured_minor} {stream.captured_currency or stream.currency}"
        _open_once(
            work, stream.number,
            f"{line.account} lists {line.amount_minor} {line.currency} (minor units) for {stream.number} in its statement;"
            f" here it took {ours}.",
            stream=stream, amount_minor=line.amount_minor, currency=line.currency, channel_reference=line.channel_reference,
            was=stream.state, at=line.at,
        )  # fmt: skip

    under_lock(BY, decide, stream=number)
    return True


def _judge_refund(look: _Look, line: StatementLine) -> bool:
    """A line about a refund of ours is news about it; another one is money that was given back without us."""
    if flight.fly([Statement(REFUND_OF_OURS, [line.number, line.account])], get_settings().DATABASE)[0]:
        under_lock(BY, lambda work: _apply_refund(work, line), refund=line.number)
        return True
    number = _stream_of(line.account, line.payment_number, line.payment_reference)
    if not number:
        return _judge_stranger(look, line, line.payment_number)
    if line.came_to == Answer.FAILED:
        return False
    if not _ask(look, number):
        return True
    under_lock(BY, lambda work: _tell_outside(work, number), stream=number)
    return True


def _judge_stranger(look: _Look, line: StatementLine, number: str) -> bool:
    """A number of ours that is no stream of the account: another account's of the same merchant, somebody else's, or a case."""
    using = get_settings().DATABASE
    found = list(Stream.objects.using(using).filter(number=number).values_list("account", flat=True))
    if found and _is_same_merchant(found[0], line.account):
        return False  # its own account's statement lists it too
    look.strangers += 1
    if look.strangers > STRANGERS_MAX:
        return True
    kind = DiscrepancyKind.ORPHAN if line.kind == "payment" else DiscrepancyKind.STATEMENT
    text = f"{line.account} reports {line.amount_minor} {line.currency} (minor units) under {number}, which is no stream of ours."
    if found:
        kind, text = (
            DiscrepancyKind.MISMATCH,
            f"{line.account} reports {number} for itself, but it is a stream of {found[0]}.",
        )
    elif line.kind == "refund":
        text = (
            f"{line.account} lists {line.amount_minor} {line.currency} (minor units) given back of {number},"
            " which is no stream of ours."
        )
    mark = line.channel_reference or (line.at.isoformat() if line.at else "")
    _open_alone_once(kind, line.account, f"{number}/{mark}"[:128], text, line.amount_minor, line.currency)
    return True


def _tell_strangers(look: _Look) -> None:
    more = look.strangers - STRANGERS_MAX
    if more <= 0:
        return
    text = (
        f"{look.row.account} lists {more} more lines of {look.row.day} under numbers like ours that nobody here knows:"
        ' does another installation use the account? Give each its own PAYONCE["NUMBER_PREFIX"].'
    )
    _open_alone_once(DiscrepancyKind.STATEMENT, look.row.account, "strangers", text)


# --- payments ---


def _ask(look: _Look, number: str) -> bool:
    """Did the channel answer about the stream? It is asked once in a comparison."""
    if number not in look.asked:
        look.asked[number] = isinstance(poll.ask(number, BY, Confirmation.STATEMENT).outcome, Known)
        if not look.asked[number]:
            look.unanswered.append(number)
    return look.asked[number]


def _stream_of(account: str, number: str, reference: str) -> str:
    """The stream of the account that a reference, or else a number, names; empty where none does."""
    statement = Statement(
        "SELECT number FROM payonce_stream WHERE account = %s AND channel_reference = %s AND channel_reference <> ''"
        " UNION ALL SELECT number FROM payonce_stream WHERE account = %s AND number = %s",
        [account, reference, account, number],
    )
    rows = flight.fly([statement], get_settings().DATABASE)[0]
    return str(rows[0][0]) if rows else ""


def _named(work: Work, line: StatementLine, number: str) -> Stream:
    """The stream that the line is about: by its reference, which may have become known a moment ago, or by its number."""
    key = (line.account, line.channel_reference)
    return next((row for row in work.streams if (row.account, row.channel_reference) == key), work.stream(number))


def _is_second(line: StatementLine, stream: Stream) -> bool:
    """Does the line name a payment other than the one that the stream has?"""
    named = (line.channel_reference, stream.channel_reference)
    return all(named) and named[0] != named[1] and stream.state == StreamState.SUCCEEDED


def _is_settled(work: Work, line: StatementLine) -> bool:
    """Do the streams of the order agree with the line by now?"""
    taken = (line.amount_minor, line.currency)
    mine = [row for row in work.streams if row.account == line.account]
    same = [row for row in mine if (row.captured_minor, row.captured_currency) == taken]
    if line.channel_reference:
        return any(row.channel_reference == line.channel_reference for row in same)
    listed = StatementLine.objects.using(work.using).filter(
        account=line.account, kind="payment", number=line.number, amount_minor=line.amount_minor, currency=line.currency
    )
    named = [row for row in same if line.number in (row.number, row.origin_number)]
    return len(named) >= listed.values("at").distinct().count()


def _view(line: StatementLine, stream: Stream) -> PaymentView:
    return PaymentView(
        stream.channel_number, PaymentState.PAID, line.currency, line.amount_minor,
        channel_reference=line.channel_reference, paid_at=line.at,
    )  # fmt: skip


# --- refunds ---


def _apply_refund(work: Work, line: StatementLine) -> None:
    """A line that says done, or failed, is news as a notification is; one that cannot be so is a case."""
    refund = work.refund(line.number)
    is_same = (line.amount_minor, line.currency) == (refund.amount_minor, refund.currency)
    is_news = line.came_to in (Answer.DONE, Answer.FAILED)
    if is_same and is_news and (refund.state in TRIED_REFUND_STATES or refund.state == RefundState.REJECTED):
        answer = Answer(line.came_to)
        view = RefundView(refund.number, answer, line.amount_minor, line.currency, line.channel_reference)
        refund_answer.apply_view(work, refund, view)
        follow_up(work)
        return
    _open_once(
        work, refund.number,
        f"{line.account} lists {line.amount_minor} {line.currency} (minor units) given back under {refund.number};"
        f" here it is {refund.amount_minor} {refund.state}.",
        stream=work.stream_of(refund), refund=refund, amount_minor=line.amount_minor, currency=line.currency,
        was=refund.state, at=line.at,
    )  # fmt: skip


def _tell_outside(work: Work, number: str) -> None:
    """Money of this stream that was given back without us: what the query just told, or the statements' sum where that is more."""
    stream = work.stream(number)
    statement = Statement(UNKNOWN_REFUNDS, [stream.account, stream.channel_number, stream.channel_reference])
    amount = int(flight.fly([statement], work.using)[0][0][0])
    if stream.channel_refunded_minor >= moved_minor(work, stream) + amount:
        return
    cases.open_case(
        work, DiscrepancyKind.OUTSIDE_REFUND, stream.number,
        f"{stream.account} gave {amount} (minor units) of {stream.number} back without us.",
        stream=stream, amount_minor=amount,
    )  # fmt: skip


# --- what no statement names ---


def _tell_missing(row: StatementDay) -> int:
    """Money that we have and no statement names, once every statement is here that could name it."""
    payments = _numbers(MISSING_PAYMENTS, row.account, row.day - timedelta(days=LATE_DAYS))
    refunds = _numbers(MISSING_REFUNDS, row.account, row.day - timedelta(days=LATE_DAYS + REFUND_DAYS))
    for number in payments:
        under_lock(BY, partial(_tell_payment, number=number), stream=number)
    for number in refunds:
        under_lock(BY, partial(_tell_refund, number=number), refund=number)
    return len(payments) + len(refunds)


def _tell_payment(work: Work, number: str) -> None:
    stream = work.stream(number)
    _open_once(
        work, number, _not_named(number, stream.account), stream=stream, amount_minor=stream.captured_minor,
        channel_reference=stream.channel_reference, paid_at=stream.paid_at,
    )  # fmt: skip


def _tell_refund(work: Work, number: str) -> None:
    refund = work.refund(number)
    stream = work.stream_of(refund)
    _open_once(
        work, number, _not_named(number, stream.account), stream=stream, refund=refund,
        amount_minor=refund.amount_minor, channel_reference=refund.channel_reference,
    )  # fmt: skip


def _not_named(number: str, account: str) -> str:
    return f"{number} is done here, and the statements of {account} around that day do not name it."


def _numbers(sql: str, account: str, since: date) -> list[str]:
    statement = Statement(sql, [account, datetime.combine(since, time(), UTC)])
    return [str(row[0]) for row in flight.fly([statement], get_settings().DATABASE)[0]]


# --- cases ---


def _open_once(work: Work, subject: str, summary: str, **facts: Any) -> None:
    """What a person resolved is not opened again by the same words: a day may be compared several times."""
    known = Discrepancy.objects.using(work.using).filter(
        kind=DiscrepancyKind.STATEMENT, subject=subject, summary=summary
    )
    if not known.exists():
        cases.open_case(work, DiscrepancyKind.STATEMENT, subject, summary, **facts)


def _open_alone_once(
    kind: DiscrepancyKind, account: str, subject: str, summary: str, amount_minor: int = 0, currency: str = ""
) -> None:
    using = get_settings().DATABASE
    if not Discrepancy.objects.using(using).filter(kind=kind, account=account, subject=subject).exists():
        case = cases.new_alone(kind, account, subject, summary, clock.read_now(), amount_minor, currency)
        flight.fly([flight.insert(case, "ON CONFLICT DO NOTHING")], using)


def _is_same_merchant(one: str, other: str) -> bool:
    try:
        channels = [registry.channel(one), registry.channel(other)]
    except ChannelError:
        return True  # an account that is gone: renamed, most likely
    return len({(type(channel), channel.merchant) for channel in channels}) == 1
