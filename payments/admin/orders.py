"""Orders: the list, and the page that says what happened, what is wrong, and what to do."""

from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from payonce.orders.models import Order
from payonce.orders.statuses import OrderState
from payonce.payments.admin import diagnose, dossier, present, search
from payonce.payments.admin.actions import Action, Operator, Result
from payonce.payments.admin.base import ConsoleAdmin, display
from payonce.payments.admin.facts import order_cards, order_facts, order_summary
from payonce.payments.expire import Expired, close_order
from payonce.payments.permissions import Permission


def refuse_close(order: Order, operator: Operator) -> Any:
    """Only an order that is not paid."""
    return {
        OrderState.PAID: _("It is paid: give money back by a refund of its stream."),
        OrderState.REFUNDED: _("It was paid and given back."),
        OrderState.CLOSED: _("It is closed already."),
    }.get(OrderState(order.state), "")


def act_close(order: Order, operator: Operator, data: dict[str, Any]) -> Result:
    """Close its streams, then the order."""
    closed = close_order(order.number, operator.by)
    texts = {
        Expired.CLOSED: (gettext("Closed: no stream of it can be paid any more."), "success"),
        Expired.CLOSING: (gettext("Being closed: a stream is not proven closed yet. It goes on by itself."), "warning"),
        Expired.PAID: (gettext("It was paid in the meantime, so it is not closed."), "warning"),
        Expired.NOT_DUE: (gettext("Nothing to close."), "info"),
    }
    text, level = texts[closed]
    return Result(text, level, made=closed.value)


CLOSE_ORDER = Action(
    "close", _("Close order…"), Permission.CLOSE,
    lambda order: [
        _("No new payment is accepted from now on. Every open stream is closed at its channel first; the order is closed"
          " only when none can be paid any more. Money that comes anyway is recorded, never lost."),
    ],
    refuse_close, act_close, order_facts,
)  # fmt: skip


class OrderAdmin(ConsoleAdmin):
    """Orders, newest first."""

    list_display = ("number", "reference", "shown_state", "shown_amount", "shown_at", "source", "subject")
    list_filter = ("state",)
    ordering = ("-created_at",)
    sortable_by = ("shown_at",)
    page_template = "payonce/admin/order.html"
    object_actions = (CLOSE_ORDER,)

    @display(_("state"))
    def shown_state(self, row: Order) -> str:
        """Shape and word."""
        return present.state_badge(row)

    @display(_("amount"))
    def shown_amount(self, row: Order) -> str:
        """What must be paid."""
        return present.money(row.amount_minor, row.currency)

    @display(_("placed at"), ordering="-created_at")
    def shown_at(self, row: Order) -> str:
        """When it was placed."""
        return present.moment(row.created_at)

    def filter_found(self, queryset: Any, found: search.Found) -> Any:
        """Orders by number or reference, or of the streams and refunds found."""
        return queryset.filter(pk__in=search.order_ids(found))

    def page(self, request: HttpRequest, row: Order) -> dict[str, Any]:
        """Everything about the order."""
        everything = dossier.read(row)
        return {
            "heading": gettext("Order %(number)s") % {"number": row.number},
            "badge": present.state_badge(row),
            "mode": present.mode_badge(stream.account for stream in everything.streams),
            "diagnosis": diagnose.order(everything, self),
            "summary": order_summary(everything, self),
            "cards": order_cards(everything, self),
            "dossier": everything,
            "age": present.age(row.created_at, everything.now),
        }
