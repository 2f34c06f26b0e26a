"""Messages to the shop: what it was told, and resend or skip for what it was not."""

from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from payonce.payments import message_rows
from payonce.payments.admin import present, search, timeline
from payonce.payments.admin.actions import Action, Operator, Result, refused
from payonce.payments.admin.base import ConsoleAdmin, display
from payonce.payments.admin.facts import Fact, message_facts
from payonce.payments.models import ShopMessage
from payonce.payments.permissions import Permission
from payonce.payments.statuses import MessageState


def refuse_resend(row: ShopMessage, operator: Operator) -> Any:
    """Not while it is being sent anyway."""
    return _("It is being sent already.") if row.state == MessageState.PENDING and row.try_count == 0 else ""


def refuse_skip(row: ShopMessage, operator: Operator) -> Any:
    """Only what holds later messages back."""
    return "" if row.state == MessageState.PARKED else _("Only a message that waits for a person can be skipped.")


def act_resend(row: ShopMessage, operator: Operator, data: dict[str, Any]) -> Result:
    """Due at once."""
    if not message_rows.resend(row.pk, operator.by):
        return refused(gettext("There is no such message."))
    return Result(gettext("It is sent again now, with the same id: the shop drops it if it has it."))


def act_skip(row: ShopMessage, operator: Operator, data: dict[str, Any]) -> Result:
    """The later ones go out."""
    if not message_rows.skip(row.pk, operator.by):
        return refused(gettext("There is no such message."))
    return Result(gettext("Skipped: the order's later messages go out."))


RESEND = Action(
    "resend", _("Resend…"), Permission.DECIDE,
    lambda row: [_("The shop is told again, with the same event id. A case about it is resolved.")],
    refuse_resend, act_resend, message_facts,
)  # fmt: skip
SKIP = Action(
    "skip", _("Skip…"), Permission.DECIDE,
    lambda row: [_("The shop is never told this event; the order's later messages go out. Tell the shop by hand.")],
    refuse_skip, act_skip, message_facts,
)  # fmt: skip


class ShopMessageAdmin(ConsoleAdmin):
    """Messages, newest first."""

    list_display = (
        "shown_kind",
        "listener",
        "shown_state",
        "order_link",
        "sequence",
        "try_count",
        "last_answer",
        "shown_at",
    )
    list_select_related = ("order",)
    ordering = ("-pk",)
    sortable_by = ()
    object_actions = (RESEND, SKIP)

    @display(_("event"))
    def shown_kind(self, row: ShopMessage) -> str:
        """In words."""
        return timeline.name_of(row.kind)

    @display(_("state"))
    def shown_state(self, row: ShopMessage) -> str:
        """Shape and word."""
        return present.state_badge(row)

    @display(_("order"))
    def order_link(self, row: ShopMessage) -> str:
        """The order's page."""
        return present.link(self.link_to(row.order), row.order.number)

    @display(_("created at"))
    def shown_at(self, row: ShopMessage) -> str:
        """When it was owed."""
        return present.moment(row.created_at)

    def filter_found(self, queryset: Any, found: search.Found) -> Any:
        """Messages of the orders found."""
        return queryset.filter(order_id__in=search.order_ids(found))

    def page(self, request: HttpRequest, row: ShopMessage) -> dict[str, Any]:
        """The message as it is sent."""
        return {
            "heading": gettext("Message to %(listener)s") % {"listener": row.listener},
            "badge": present.state_badge(row),
            "summary": [
                Fact(gettext("Event"), timeline.name_of(row.kind)),
                Fact(gettext("Order"), present.link(self.link_to(row.order), row.order.number)),
                Fact(gettext("Sequence"), row.sequence),
                Fact(gettext("Tries"), row.try_count),
                Fact(gettext("Last answer"), row.last_answer or "–"),
                Fact(gettext("Created"), present.moment(row.created_at)),
                Fact(gettext("Delivered"), present.moment(row.delivered_at)),
                Fact(gettext("Next try"), present.moment(row.next_try_at)),
            ],
            "raw": row.body,
        }
