"""Statements: which days of which accounts were fetched and compared, and what they came to."""

from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from payonce.payments import statements
from payonce.payments.admin import present
from payonce.payments.admin.actions import Action, Operator, Result
from payonce.payments.admin.base import ConsoleAdmin, display
from payonce.payments.admin.facts import Fact
from payonce.payments.models import StatementDay
from payonce.payments.permissions import Permission


def refuse_compare(row: StatementDay, operator: Operator) -> Any:
    """Only where somebody can be asked."""
    if row.account in statements.accounts_with_statements():
        return ""
    return _("The account is not configured, or its channel has no statements.")


def act_compare(row: StatementDay, operator: Operator, data: dict[str, Any]) -> Result:
    """Fetch and compare now instead of waiting."""
    done = statements.carry_on(statements.ask_again(row.account, row.day))
    if done.compared_at is None:
        text = gettext("It could not be had or compared, and is tried again: %(why)s")
        return Result(text % {"why": done.last_answer}, "warning")
    facts = {"lines": done.line_count, "differences": done.difference_count}
    return Result(gettext("Compared: %(lines)s lines, %(differences)s differences.") % facts)


COMPARE = Action(
    "compare", _("Fetch and compare again"), Permission.ASK,
    lambda row: [_("The channel is asked for the day once more. No money moves: what differs is a case for a person.")],
    refuse_compare, act_compare, lambda row: {gettext("Statement"): str(row)},
)  # fmt: skip


class StatementAdmin(ConsoleAdmin):
    """Days, newest first."""

    list_display = ("shown_day", "account", "shown_state", "line_count", "difference_count", "foreign_count")
    list_filter = ("account",)
    ordering = ("-day",)
    sortable_by = ()
    search_fields = ()
    object_actions = (COMPARE,)

    @display(_("day"))
    def shown_day(self, row: StatementDay) -> str:
        """In the channel's own calendar."""
        return row.day.isoformat()

    @display(_("state"))
    def shown_state(self, row: StatementDay) -> str:
        """Shape and word."""
        return str(_badge(row))

    def page(self, request: HttpRequest, row: StatementDay) -> dict[str, Any]:
        """What became of the day."""
        return {
            "heading": gettext("Statement of %(account)s for %(day)s") % {"account": row.account, "day": row.day},
            "badge": _badge(row),
            "mode": present.mode_badge([row.account]),
            "summary": [
                Fact(gettext("Lines"), row.line_count),
                Fact(gettext("Differences"), row.difference_count),
                Fact(gettext("Lines about other numbers"), row.foreign_count),
                Fact(gettext("Fetched"), present.moment(row.fetched_at)),
                Fact(gettext("Compared"), present.moment(row.compared_at)),
                Fact(gettext("Tries"), row.try_count),
                Fact(gettext("Next try"), present.moment(row.next_try_at)),
                Fact(gettext("Last answer"), row.last_answer or "–"),
            ],
        }


def _badge(row: StatementDay) -> Any:
    if row.compared_at is None:
        return present.badge("wait", gettext("fetched, not compared") if row.fetched_at else gettext("not there yet"))
    return (
        present.badge("warn", gettext("differs")) if row.difference_count else present.badge("good", gettext("agrees"))
    )
