"""Statements (对账单): fetch what each account's channel lists for each day, keep the lines, have them compared with our rows.

Days are the channel's own. A day is asked for once it is surely over; "not ready yet" and no answer are only a delay, and
after three days a person is told. The comparison is `statement_check`.
"""

import logging
from collections.abc import Iterable
from datetime import date, datetime, timedelta

from django.db import DatabaseError, transaction
from django.db.models import Max, QuerySet

from payonce.channels import registry
from payonce.channels.errors import ChannelError
from payonce.channels.messages import Known, Refused, RefusedKind
from payonce.channels.messages import StatementLine as Line
from payonce.orders.conf import get_settings
from payonce.orders.locks import set_timeouts
from payonce.payments import clock, flight, statement_check
from payonce.payments.call import call, why_not
from payonce.payments.flight import Statement
from payonce.payments.locks import lock_case
from payonce.payments.models import Discrepancy, StatementDay, StatementLine
from payonce.payments.statuses import Decision, DiscrepancyKind, DiscrepancyState
from payonce.payments.transitions import cases
from payonce.payments.transitions.cases import CaseMove

log = logging.getLogger("payonce.statements")
READY_AFTER = timedelta(days=1, hours=4)
"""From the start of a day (UTC) until it is asked for: it is over everywhere that matters, and PayPal lists three hours late."""
DAYS_MAX = 31
CLAIM_SECONDS = 900
TRY_SECONDS, TRY_SELDOM_SECONDS = 1_800, 21_600
TELL_AFTER, TOLD_AGAIN_AFTER = timedelta(days=3), timedelta(days=30)
LATE = "late statements"
"""The subject of an account's one case about days that cannot be had."""
CLAIM = """
UPDATE payonce_statement_day SET next_try_at = payonce_now() + %s * interval '1 second', try_count = try_count + 1
WHERE id IN (
    SELECT id FROM payonce_statement_day WHERE next_try_at <= payonce_now() AND account = ANY(%s)
    ORDER BY next_try_at, day LIMIT %s FOR UPDATE SKIP LOCKED
) {returning}
"""


def run_due(limit: int = 10) -> int:
    """Plan the days that are over, and carry on those that are due. Returns how many were carried on."""
    plan_days()
    statement = Statement(
        CLAIM.format(returning=flight.returning(StatementDay)), [CLAIM_SECONDS, accounts_with_statements(), limit]
    )
    using = get_settings().DATABASE
    claimed = [flight.load(StatementDay, row, using) for row in flight.fly([statement], using)[0]]
    at = clock.read_now()
    for row in sorted(claimed, key=lambda row: row.day):
        try:
            if at - row.wanted_at >= TELL_AFTER:  # also where every try of it ends its process
                _tell_late(row, at)
            carry_on(row)
        except DatabaseError:
            log.exception("the statement of %s could not be carried on; it comes due again", row)
    return len(claimed)


def plan_days() -> int:
    """A row for each day that is over since the last one, of each account whose channel has statements. The first is yesterday's."""
    using = get_settings().DATABASE
    at, last = clock.read_now(), last_day()
    known = dict(StatementDay.objects.using(using).values_list("account").annotate(Max("day")))
    rows = [
        StatementDay(account=account, day=day, next_try_at=at, wanted_at=at)
        for account in accounts_with_statements()
        for day in _days(known.get(account), last)
    ]
    StatementDay.objects.using(using).bulk_create(rows, ignore_conflicts=True)
    return len(rows)


def last_day() -> date:
    """The newest day that is over."""
    return (clock.read_now() - READY_AFTER).date()


def accounts_with_statements() -> list[str]:
    """The configured accounts whose channel has statements."""
    found = []
    for account in registry.accounts():
        try:
            if registry.channel(account).capabilities.statement:
                found.append(account)
        except ChannelError:
            log.exception("the account %s is not configured: it has no statements", account)
    return found


def ask_again(account: str, day: date) -> StatementDay:
    """A day's row, to be fetched and compared from the start, whether it was before or not."""
    using, at = get_settings().DATABASE, clock.read_now()
    row, _is_new = StatementDay.objects.using(using).update_or_create(
        account=account, day=day,
        defaults={
            "fetched_at": None, "compared_at": None, "wanted_at": at, "next_try_at": at + timedelta(seconds=CLAIM_SECONDS),
        },
    )  # fmt: skip
    return row


def unfinished(accounts: list[str]) -> list[StatementDay]:
    """The days of these accounts that are not compared yet, oldest first."""
    rows = StatementDay.objects.using(get_settings().DATABASE)
    return list(rows.filter(account__in=accounts, compared_at=None).order_by("day", "account"))


def carry_on(row: StatementDay) -> StatementDay:
    """Fetch the day where that is left to do, then compare it. What cannot be done now comes due again. Returns the row.

    Raises DatabaseError when not even that can be written.
    """
    try:
        if row.fetched_at is None:
            outcome = call(row.account, lambda channel: channel.statement(row.day))
            if not isinstance(outcome, Known):
                is_refused = isinstance(outcome, Refused) and outcome.kind is RefusedKind.CONFIG
                _try_later(row, why_not(outcome), TRY_SELDOM_SECONDS if is_refused else TRY_SECONDS)
                return row
            _store(row, outcome.value)
        compared = statement_check.compare(row)
    except statement_check.NotAnswered as error:
        _try_later(row, str(error))
    except Exception as error:
        log.exception("the statement of %s cannot be compared; it comes due again", row)
        _try_later(row, f"{type(error).__name__}: {error}")
    else:
        _finish(row, compared)
    return row


def _days(known: date | None, last: date) -> Iterable[date]:
    first = last if known is None else known + timedelta(days=1)
    return [first + timedelta(days=index) for index in range(min((last - first).days + 1, DAYS_MAX))]


def _store(row: StatementDay, lines: tuple[Line, ...]) -> None:
    """Replace the day's lines. Two that fetched it at once store the same.

    Nothing does not replace something: channels forget old days, and a bill that is gone looks like an empty one.
    """
    using = get_settings().DATABASE
    at = clock.read_now()
    with transaction.atomic(using=using, durable=True):
        set_timeouts()
        kept = StatementLine.objects.using(using).filter(statement=row)
        row.fetched_at, row.line_count = at, len(lines) or kept.count()
        row.save(using=using, update_fields=["fetched_at", "line_count"])  # the second one waits here for the first
        if lines:
            kept.delete()
            StatementLine.objects.using(using).bulk_create([_line(row, line) for line in lines], batch_size=1_000)


def _line(row: StatementDay, line: Line) -> StatementLine:
    return StatementLine(
        statement=row, account=row.account, kind=line.kind, number=_clean(line.number, 128),
        channel_reference=_clean(line.channel_reference, 128), payment_number=_clean(line.payment_number, 128),
        payment_reference=_clean(line.payment_reference, 128),
        amount_minor=line.amount_minor, currency=line.currency[:3], at=line.at, state=_clean(line.state, 64),
        came_to=line.came_to.value,
    )  # fmt: skip


def _clean(text: str, length: int) -> str:
    return text.replace("\0", "")[:length]


def _finish(row: StatementDay, compared: statement_check.Compared) -> None:
    """Done, unless somebody had it fetched again meanwhile. The account's case ends once none of its days is late."""
    using, at = get_settings().DATABASE, clock.read_now()
    days = StatementDay.objects.using(using)
    with transaction.atomic(using=using, durable=True):
        set_timeouts()
        is_done = days.filter(pk=row.pk, fetched_at=row.fetched_at).update(
            compared_at=at, next_try_at=None, last_answer="", difference_count=compared.differences,
            foreign_count=compared.foreign,
        )  # fmt: skip
        if not is_done:
            return
        row.compared_at, row.next_try_at, row.last_answer = at, None, ""
        row.difference_count, row.foreign_count = compared.differences, compared.foreign
        if days.filter(account=row.account, compared_at=None, wanted_at__lte=at - TELL_AFTER).exists():
            return
        for told in _cases(row.account).exclude(state=DiscrepancyState.RESOLVED):
            case = lock_case(told.pk, using)
            if cases.resolve_alone(case, Decision.AUTOMATIC, "payonce", "fetched and compared", at) is CaseMove.MOVED:
                case.save(using=using, update_fields=["state", "decision", "decided_by", "note", "resolved_at"])


def _try_later(row: StatementDay, why: str, seconds: int = TRY_SECONDS) -> None:
    """No statement yet is only a delay. From the third day on a person is told, once for all days of the account."""
    using, at = get_settings().DATABASE, clock.read_now()
    is_late = at - row.wanted_at >= TELL_AFTER
    row.next_try_at = at + timedelta(seconds=TRY_SELDOM_SECONDS if is_late else seconds)
    row.last_answer = _clean(why, 200)
    row.save(using=using, update_fields=["next_try_at", "last_answer"])
    if is_late:
        _tell_late(row, at)


def _tell_late(row: StatementDay, at: datetime) -> None:
    using = get_settings().DATABASE
    if _cases(row.account).filter(opened_at__gt=at - TOLD_AGAIN_AFTER).exists():
        return
    summary = f"The statement of {row.account} for {row.day} cannot be had or compared: {row.last_answer}"
    case = cases.new_alone(DiscrepancyKind.STATEMENT, row.account, LATE, summary, at)
    flight.fly([flight.insert(case, "ON CONFLICT DO NOTHING")], using)


def _cases(account: str) -> QuerySet[Discrepancy]:
    rows = Discrepancy.objects.using(get_settings().DATABASE)
    return rows.filter(kind=DiscrepancyKind.STATEMENT, account=account, subject=LATE, order=None)
