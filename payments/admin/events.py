"""Events: the append-only ledger, newest first."""

import json
from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from payonce.orders.conf import get_settings
from payonce.orders.models import Event
from payonce.payments.admin import present, search, timeline
from payonce.payments.admin.base import ConsoleAdmin, display
from payonce.payments.admin.facts import Fact


class EventAdmin(ConsoleAdmin):
    """Every event of every order."""

    list_display = ("shown_kind", "subject", "order_link", "sequence", "shown_move", "shown_actor", "shown_at")
    list_select_related = ("order",)
    ordering = ("-at",)
    sortable_by = ("shown_at",)

    @display(_("event"))
    def shown_kind(self, row: Event) -> str:
        """In words."""
        return timeline.name_of(row.kind)

    @display(_("order"))
    def order_link(self, row: Event) -> str:
        """The order's page."""
        return present.link(self.link_to(row.order), row.order.number)

    @display(_("from → to"))
    def shown_move(self, row: Event) -> str:
        """The state change."""
        return f"{row.state_from or '∅'} → {row.state_to}" if row.state_to else "–"

    @display(_("who"))
    def shown_actor(self, row: Event) -> str:
        """In words."""
        return present.who(row.actor)

    @display(_("at"), ordering="-at")
    def shown_at(self, row: Event) -> str:
        """When."""
        return present.moment(row.at)

    def filter_found(self, queryset: Any, found: search.Found) -> Any:
        """Events of the orders found."""
        return queryset.filter(order_id__in=search.order_ids(found))

    def page(self, request: HttpRequest, row: Event) -> dict[str, Any]:
        """The event with its body and hash."""
        history = timeline.read(row.order, get_settings().DATABASE)
        return {
            "heading": timeline.name_of(row.kind),
            "badge": present.badge("good" if history.is_verified else "bad", timeline.verified_text(history)),
            "summary": [
                Fact(gettext("Order"), present.link(self.link_to(row.order), row.order.number)),
                Fact(gettext("Sequence"), row.sequence),
                Fact(gettext("About"), present.copyable(row.subject)),
                Fact(gettext("From → to"), self.shown_move(row)),
                Fact(gettext("Who"), present.who(row.actor)),
                Fact(gettext("At"), present.moment(row.at)),
                Fact(gettext("Hash"), present.copyable(row.hash)),
            ],
            "evidence": [Fact(label, value) for label, value in timeline.facts_of(row.body, row.order.currency)],
            "raw": json.dumps(json.loads(row.body), indent=2, ensure_ascii=False, sort_keys=True),
        }
