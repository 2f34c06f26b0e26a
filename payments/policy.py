"""Policy of refunds that payonce makes by itself: may this one go out now, and if not, why a person must decide."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum

from django.db.models import Q, Sum

from payonce.orders.conf import RefundSettings
from payonce.payments.models import Refund, Stream
from payonce.payments.statuses import RefundPurpose, StreamRole

AUTOMATON = "payonce"
"""Who requested a refund that no person asked for."""


class PolicyAnswer(StrEnum):
    """Whether an automatic refund may be sent; everything but ALLOWED parks it for a person."""

    ALLOWED = "allowed"
    KEEPER = "keeper"  # the keeper is never refunded automatically
    OFF = "automatic refunds are off"
    OVER_MAX = "larger than the cap of one automatic refund"
    OVER_DAILY = "the account's budget of this day is used up"
    DRY_RUN = "dry run"


def person_of(by: str) -> str:
    """Who asked, as a refund and a case name a person: `ann`, with and without `operator:`.

    A user who is called like the automaton keeps the prefix: what a person asked for is never taken as automatic.
    """
    name = by.removeprefix("operator:")[:150]
    return f"operator:{name}" if name == AUTOMATON else name


def needs_second_person(amount_minor: int, refunds: Iterable[Refund], limit_minor: int | None) -> bool:
    """Must a second person approve it? What people asked for and nobody approved counts together over the stream's `refunds`.

    Otherwise a large refund would only have to be asked for in small parts.
    """
    if limit_minor is None:
        return False
    alone = [row for row in refunds if not (row.is_released or row.approved_by or row.requested_by == AUTOMATON)]
    return amount_minor + sum(row.amount_minor for row in alone) >= limit_minor


def is_automatic(refund: Refund) -> bool:
    """Did nobody ask for it, and nobody decide it?"""
    return refund.purpose == RefundPurpose.SURPLUS and refund.requested_by == AUTOMATON and not refund.approved_by


def judge(refund: Refund, stream: Stream, settings: RefundSettings, spent_today_minor: int) -> PolicyAnswer:
    """May this refund go out? One that a person asked for or decided is never held back by the automatic limits."""
    if not is_automatic(refund):
        return PolicyAnswer.DRY_RUN if settings.DRY_RUN else PolicyAnswer.ALLOWED
    if stream.role != StreamRole.SURPLUS:
        return PolicyAnswer.KEEPER
    if not settings.AUTO:
        return PolicyAnswer.OFF
    if settings.MAX_MINOR is not None and refund.amount_minor > settings.MAX_MINOR:
        return PolicyAnswer.OVER_MAX
    if settings.DAILY_MINOR is not None and spent_today_minor + refund.amount_minor > settings.DAILY_MINOR:
        return PolicyAnswer.OVER_DAILY
    return PolicyAnswer.DRY_RUN if settings.DRY_RUN else PolicyAnswer.ALLOWED


def spent_today_minor(account: str, currency: str, at: datetime, using: str, but: str = "") -> int:
    """What automatic refunds of the account moved (or may have moved) in the 24 hours before `at`, in minor units.

    One that is claimed counts before it is sent: its worker has judged the budget already. `but` is the number of the refund being judged.
    """
    is_sent = Q(first_sent_at__gt=at - timedelta(days=1))
    is_claimed = Q(first_sent_at=None) & ~Q(call_lease="")
    rows = Refund.objects.using(using).filter(
        is_sent | is_claimed, purpose=RefundPurpose.SURPLUS, approved_by="", currency=currency, stream__account=account,
        is_released=False,
    ).exclude(number=but)  # fmt: skip
    return int(rows.aggregate(total=Sum("amount_minor", default=0))["total"])
