"""Notifications: the inbox. The raw body needs a permission of its own, and looking at it is recorded."""

from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from payonce.orders.conf import get_settings
from payonce.payments import notify
from payonce.payments.admin import confirm, present, search, words
from payonce.payments.admin.actions import Action, Operator, Result, Tool
from payonce.payments.admin.base import ConsoleAdmin, display
from payonce.payments.admin.facts import Fact
from payonce.payments.models import Notification, Refund, Stream
from payonce.payments.permissions import Permission
from payonce.payments.statuses import NotificationState


def refuse_process(row: Notification, operator: Operator) -> Any:
    """Only what is stored and not applied yet."""
    if row.state == NotificationState.FORGED:
        return _("It was refused: nothing of it is believed or kept.")
    if row.state == NotificationState.PROCESSED:
        return _("It was applied. To know more, ask the channel about the stream.")
    return ""


def act_process(row: Notification, operator: Operator, data: dict[str, Any]) -> Result:
    """Apply it now instead of at the next sweep."""
    came_to = notify.apply_stored(row.pk)
    if came_to is None:
        return Result(gettext("It could not be applied; the sweep tries again. The row says why."), "warning")
    return Result(gettext("Applied: %(outcome)s.") % {"outcome": came_to.value}, made=came_to.value)


PROCESS = Action(
    "process", _("Process again"), Permission.MANAGE,
    lambda row: [_("The stored, verified notification is applied now. Applying one twice changes nothing.")],
    refuse_process, act_process, lambda row: {gettext("State"): str(row.get_state_display())},
)  # fmt: skip


class NotificationAdmin(ConsoleAdmin):
    """The inbox, newest first."""

    list_display = ("shown_key", "shown_state", "account", "event", "number", "shown_result", "count", "shown_at")
    list_filter = ("state",)
    ordering = ("-received_at",)
    sortable_by = ("shown_at",)
    object_actions = (PROCESS,)

    def all_rows(self) -> Any:
        """Never the body: it is read on its own page."""
        return super().all_rows().defer("body", "headers")

    @display(_("result"))
    def shown_result(self, row: Notification) -> str:
        """What it came to."""
        return words.say("result", row.result)

    @display(_("dedupe key"))
    def shown_key(self, row: Notification) -> str:
        """What makes it one."""
        return row.dedupe_key

    @display(_("state"))
    def shown_state(self, row: Notification) -> str:
        """Shape and word."""
        return present.state_badge(row)

    @display(_("received at"), ordering="-received_at")
    def shown_at(self, row: Notification) -> str:
        """When it came."""
        return present.moment(row.received_at)

    def filter_found(self, queryset: Any, found: search.Found) -> Any:
        """Notifications about one of the numbers, or about what was found."""
        using = get_settings().DATABASE
        streams = Stream.objects.using(using).filter(pk__in=search.stream_ids(found))
        refunds = Refund.objects.using(using).filter(pk__in=search.refund_ids(found))
        numbers = {*found.terms, *refunds.values_list("number", flat=True)}
        for number, origin in streams.values_list("number", "origin_number"):
            numbers.add(origin or number)
        return queryset.filter(number__in=numbers)

    def tools(self, request: HttpRequest, row: Notification) -> list[Tool]:
        """Process again, and the raw message."""
        allowed = request.user.has_perm(Permission.VIEW_RAW)
        why_not = "" if allowed else gettext("Your account has no permission for this.")
        raw = Tool(gettext("Raw message (recorded)"), self.link("raw", row.pk), why_not, is_money=False)
        return [*super().tools(request, row), raw]

    def extra_urls(self) -> list[Any]:
        """The raw message."""
        view = transaction.non_atomic_requests(using=get_settings().DATABASE)(self.admin_site.admin_view(self.raw_view))
        return [path("<int:object_id>/raw/", view, name=self.url_name("raw"))]

    def raw_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """The exact bytes as text. Who looked is recorded in the row's history before anything is shown."""
        row = self.row_or_404(request, object_id)
        confirm.require(request.user.has_perm(Permission.VIEW_RAW))
        self.log_change(request, row, "viewed the raw message")
        context = self.page_context(
            request, row, title=gettext("Raw message"), headers=row.headers,
            body=bytes(row.body).decode("utf-8", errors="backslashreplace"),
        )  # fmt: skip
        return TemplateResponse(request, "payonce/admin/raw.html", context)

    def page(self, request: HttpRequest, row: Notification) -> dict[str, Any]:
        """What it said and what it came to."""
        stream = Stream.objects.using(get_settings().DATABASE).filter(number=row.number).first() if row.number else None
        return {
            "heading": gettext("Notification of %(account)s") % {"account": row.account},
            "badge": present.state_badge(row),
            "mode": present.mode_badge([row.account]),
            "summary": [
                Fact(gettext("Dedupe key"), present.copyable(row.dedupe_key)),
                Fact(gettext("About"), present.copyable(row.number)),
                Fact(gettext("Stream"), present.link(self.link_to(stream), stream.number) if stream else "–"),
                Fact(gettext("Event"), row.event or "–"),
                Fact(gettext("Came to"), words.say("result", row.result) or "–"),
                Fact(gettext("Times"), row.count),
                Fact(gettext("Received"), present.moment(row.received_at)),
                Fact(gettext("Processed"), present.moment(row.processed_at)),
                Fact(gettext("Next try"), present.moment(row.next_try_at)),
                Fact(gettext("Tries"), row.try_count),
                Fact(gettext("Error"), row.error or "–"),
            ],
        }
