"""Overview: what waits for a person, what is late, and how the channels do. Each number links to its list."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Min, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext

from payonce.orders.conf import get_settings
from payonce.payments import clock
from payonce.payments.admin import channels, confirm, present
from payonce.payments.admin.base import COUNT_MAX, ConsoleAdmin
from payonce.payments.admin.cases import UNMATCHED_KINDS
from payonce.payments.admin.facts import SURPLUS_KINDS
from payonce.payments.admin.refunds import STUCK_STATES
from payonce.payments.models import Discrepancy, Notification, Refund, ShopMessage, Stream
from payonce.payments.statuses import (
    DiscrepancyKind,
    DiscrepancyState,
    MessageState,
    NotificationState,
    RefundState,
)


@dataclass(frozen=True, slots=True)
class Tile:
    """One number: what it counts, since when, and where its rows are."""

    label: str
    count: str
    oldest: str
    url: str
    tone: str

    @property
    def shape(self) -> str:
        """Never colour alone."""
        return present.SHAPES[self.tone]


def _capped(rows: "QuerySet[Any]") -> int:
    return rows.order_by().values("pk")[: COUNT_MAX + 1].count()


class OverviewAdmin(ConsoleAdmin):
    """The console's first page."""

    search_fields = ()

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Counts from indexed queries."""
        confirm.require(self.has_view_permission(request) and request.method in ("GET", "HEAD"))
        now = clock.about_now()
        context = self.page_context(
            request, title=gettext("Overview"), queues=self._queues(now), work=self._work(now), parties=channels.overall(),
            search_url=reverse(f"{self.admin_site.name}:payonce_orders_order_changelist"), now=now,
        )  # fmt: skip
        return TemplateResponse(request, "payonce/admin/overview.html", context)

    def _queues(self, now: Any) -> list[Tile]:
        """What waits for a person: one grouped query over open cases, and one over refunds."""
        using = get_settings().DATABASE
        rows = Discrepancy.objects.using(using).filter(state=DiscrepancyState.OPEN).order_by()
        cases = {row["kind"]: row for row in rows.values("kind").annotate(found=Count("pk"), oldest=Min("opened_at"))}
        refunds = {
            row["state"]: row
            for row in Refund.objects.using(using)
            .filter(Q(state=RefundState.AWAITING_APPROVAL) | Q(state__in=STUCK_STATES, is_released=False))
            .order_by().values("state").annotate(found=Count("pk"), oldest=Min("created_at"))
        }  # fmt: skip
        return [
            self._tile(gettext("Needs decision"), cases, tuple(DiscrepancyKind), "needsdecision", now),
            self._tile(gettext("Duplicates and late payments"), cases, SURPLUS_KINDS, "surplusmoney", now),
            self._tile(
                gettext("Refunds waiting approval"), refunds, (RefundState.AWAITING_APPROVAL,), "refundstoapprove", now
            ),
            self._tile(gettext("Refunds failed or stuck"), refunds, STUCK_STATES, "stuckrefunds", now),
            self._tile(gettext("Unmatched money"), cases, UNMATCHED_KINDS, "unmatchedmoney", now),
            self._tile(gettext("Shop not told"), cases, (DiscrepancyKind.SHOP_NOT_TOLD,), "shopnottold", now),
        ]

    def _tile(self, label: str, rows: dict[Any, Any], keys: tuple[Any, ...], model: str, now: Any) -> Tile:
        mine = [rows[key] for key in keys if key in rows]
        count = sum(row["found"] for row in mine)
        oldest = present.age(min((row["oldest"] for row in mine), default=None), now)
        url = reverse(f"{self.admin_site.name}:payonce_payments_{model}_changelist")
        return Tile(label, str(count), oldest, url, "warn" if count else "good")

    def _work(self, now: Any) -> list[Tile]:
        """What payonce itself is at: each from its own partial index."""
        using = get_settings().DATABASE
        streams = Stream.objects.using(using).filter(next_check_at__isnull=False)
        refunds = Refund.objects.using(using).filter(next_try_at__isnull=False)
        owed = ShopMessage.objects.using(using).filter(state=MessageState.PENDING)
        inbox = Notification.objects.using(using).filter(next_try_at__isnull=False, state=NotificationState.RECEIVED)
        return [
            self._waiting(gettext("Streams being watched"), streams, "next_check_at", "stream", now),
            self._waiting(gettext("Refunds at work"), refunds, "next_try_at", "refund", now),
            self._waiting(gettext("Messages to the shop pending"), owed, "next_try_at", "shopmessage", now),
            self._waiting(gettext("Notifications not applied yet"), inbox, "next_try_at", "notification", now),
        ]

    def _waiting(self, label: str, rows: "QuerySet[Any]", column: str, model: str, now: Any) -> Tile:
        count = _capped(rows)
        due = rows.filter(**{f"{column}__lt": now}).order_by(column).values_list(column, flat=True).first()
        overdue = gettext("%(span)s overdue") % {"span": present.age(due, now)} if due else "–"
        url = reverse(f"{self.admin_site.name}:payonce_payments_{model}_changelist")
        is_late = due is not None and (now - due).total_seconds() > 60
        text = f"{COUNT_MAX:,}+" if count > COUNT_MAX else str(count)
        return Tile(label, text, overdue, url, "warn" if is_late else "good")
