"""Acting on many rows: the list only opens a confirmation page; the ids are frozen there, counted and totalled per currency."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.core import signing
from django.db import OperationalError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from payonce.orders.conf import get_settings
from payonce.payments import poll, refund
from payonce.payments.admin import confirm
from payonce.payments.admin.actions import Operator
from payonce.payments.amounts import to_text
from payonce.payments.permissions import Permission

if TYPE_CHECKING:
    from payonce.payments.admin.base import ConsoleAdmin

log = logging.getLogger("payonce.admin")
SALT = "payonce.admin.bulk"


@dataclass(frozen=True, slots=True)
class BulkAction:
    """One thing that can be done with many rows. `act(row, operator)` calls the step and names what it came to."""

    name: str
    label: Any
    permission: str
    rows_max: int
    explanation: Any
    act: Callable[[Any, Operator], str]
    has_total: bool = False


ASK = BulkAction(
    "ask", _("Ask the channel about many streams"), Permission.ASK, 500,
    _("The streams become due at once: the poller asks their channels within seconds and applies the answers."),
    lambda row, operator: gettext("made due") if poll.nudge(row.number) else gettext("not waiting for an answer"),
)  # fmt: skip
APPROVE = BulkAction(
    "approve", _("Approve many refunds"), Permission.APPROVE, 50,
    _("The money of all these refunds goes back to the buyers. It cannot be undone."),
    lambda row, operator: refund.approve_refund(row.number, operator.by).value.replace("_", " "), has_total=True,
)  # fmt: skip


def url(page: "ConsoleAdmin", action: BulkAction) -> URLPattern:
    """The address of the confirmation page; it runs steps, so no transaction may be open."""

    def view(request: HttpRequest) -> HttpResponse:
        confirm.require(page.has_view_permission(request) and request.user.has_perm(action.permission))
        return _respond(page, request, action)

    wrapped = transaction.non_atomic_requests(using=get_settings().DATABASE)(page.admin_site.admin_view(view))
    return path(f"many/{action.name}/", wrapped, name=page.url_name(f"many_{action.name}"))


def open_page(page: "ConsoleAdmin", rows: Any, name: str) -> HttpResponse:
    """Freeze the chosen ids in the address of the confirmation page."""
    ids = list(rows.values_list("pk", flat=True)[:501])
    return HttpResponseRedirect(f"{page.link(f'many_{name}')}?ids={signing.dumps(ids, salt=SALT)}")


def totals(rows: Sequence[Any]) -> list[str]:
    """The sum of each currency."""
    sums = Counter[str]()
    for row in rows:
        sums[row.currency] += row.amount_minor
    return [to_text(amount, currency) for currency, amount in sorted(sums.items())]


def _respond(page: "ConsoleAdmin", request: HttpRequest, action: BulkAction) -> HttpResponse:
    frozen = request.POST.get("ids") if request.method == "POST" else request.GET.get("ids")
    try:
        ids = signing.loads(frozen or "", salt=SALT)
    except signing.BadSignature:
        page.message_user(request, gettext("Choose the rows in the list first."), messages.ERROR)
        return HttpResponseRedirect(page.link("changelist"))
    rows = list(page.all_rows().filter(pk__in=ids).order_by("pk"))
    if len(ids) > action.rows_max:
        text = gettext("At most %(count)d at once. Nothing was done.") % {"count": action.rows_max}
        page.message_user(request, text, messages.ERROR)
        return HttpResponseRedirect(page.link("changelist"))
    if request.method != "POST":
        context = page.page_context(
            request, title=str(action.label), action=action, rows=rows, ids=frozen,
            totals=totals(rows) if action.has_total else [],
        )  # fmt: skip
        return TemplateResponse(request, "payonce/admin/bulk.html", context)
    operator = Operator.of(request)
    outcomes = Counter(_act(action, row, operator) for row in rows)
    text = ", ".join(f"{outcome}: {count}" for outcome, count in outcomes.most_common())
    page.message_user(request, text or gettext("Nothing to do."), messages.SUCCESS)
    return HttpResponseRedirect(page.link("changelist"))


def _act(action: BulkAction, row: Any, operator: Operator) -> str:
    """One row's outcome; a row that is busy stops none of the others, and the operator hears how many were done."""
    try:
        return action.act(row, operator)
    except OperationalError:
        log.exception("%s on %s could not be done", action.name, row)
        return gettext("The database was busy with this order. Nothing is lost: look at the page, and try again.")
