"""Discrepancies: the list of cases, their queues, and a person's decision."""

import json
from typing import Any, ClassVar

from django import forms
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from payonce.orders.conf import get_settings
from payonce.payments import clock
from payonce.payments.admin import present, search
from payonce.payments.admin.actions import Action, ConfirmForm, Operator, Result, refused
from payonce.payments.admin.base import ConsoleAdmin, display
from payonce.payments.admin.facts import SURPLUS_KINDS, Fact, case_facts, case_note, case_sentence
from payonce.payments.amounts import to_text
from payonce.payments.models import Discrepancy
from payonce.payments.permissions import Permission
from payonce.payments.statuses import (
    Decision,
    DiscrepancyKind,
    DiscrepancyState,
    RefundState,
    StreamRole,
)
from payonce.payments.surplus import Decided, decide_case

UNMATCHED_KINDS = (
    DiscrepancyKind.ORPHAN, DiscrepancyKind.MISMATCH, DiscrepancyKind.STATEMENT, DiscrepancyKind.OUTSIDE_REFUND,
    DiscrepancyKind.CONTRADICTION,
)  # fmt: skip
RETRIED_STATES = (RefundState.REJECTED, RefundState.ATTENTION, RefundState.UNKNOWN)
MEANINGS: dict[Decision, Any] = {
    Decision.REFUND: _("Refund it: the money goes back to the buyer under one refund number. It cannot be undone."),
    Decision.KEEP: _("Keep the money: nothing is given back. Your note says why."),
    Decision.ACCEPT: _(
        "Accept it as the order's payment: the order becomes paid by this stream, and the shop is told."
    ),
    Decision.DISMISS: _("Nothing to do: it was looked into and settled by other means. Your note says how."),
}


def decisions_for(case: Discrepancy) -> list[Decision]:
    """What may be decided about a case as it stands; empty where another page repairs it."""
    if case.state == DiscrepancyState.RESOLVED or case.kind == DiscrepancyKind.SHOP_NOT_TOLD:
        return []
    stream, refund, order = case.stream, case.refund, case.order
    if case.kind == DiscrepancyKind.REFUND_STUCK and stream is not None:
        again = refund is not None and (
            refund.state in RETRIED_STATES or (refund.is_released and stream.refundable_minor > 0)
        )
        return [Decision.REFUND, Decision.DISMISS] if again else [Decision.DISMISS]
    if stream is None or stream.role != StreamRole.SURPLUS:
        return [Decision.DISMISS]
    if stream.refundable_minor <= 0 and (refund is None or refund.state == RefundState.SUCCEEDED):
        return [Decision.DISMISS]
    found = [Decision.REFUND, Decision.KEEP]
    taken = (stream.captured_minor, stream.captured_currency)
    is_match = order is not None and all(taken == (row.amount_minor, row.currency) for row in (order, stream))
    if order is not None and order.keeper is None and is_match:
        found.append(Decision.ACCEPT)
    return found


class DecideForm(ConfirmForm):
    """The decision and its reason."""

    decision = forms.ChoiceField(label=_("Decision"), widget=forms.RadioSelect)
    note = forms.CharField(
        label=_("Note"), max_length=500, required=False, widget=forms.Textarea({"rows": 3}),
        help_text=_("Required unless it is refunded. Kept with the case."),
    )  # fmt: skip

    def __init__(self, *args: Any, row: Discrepancy, **kwargs: Any) -> None:
        super().__init__(*args, row=row, **kwargs)
        field: Any = self.fields["decision"]
        field.choices = [(decision.value, MEANINGS[decision]) for decision in decisions_for(row)]

    def clean(self) -> dict[str, Any]:
        """A decision to do nothing with money needs a reason."""
        data = super().clean() or self.cleaned_data
        if data.get("decision") in (Decision.KEEP, Decision.DISMISS) and not data.get("note", "").strip():
            self.add_error("note", gettext("Say why."))
        return data


def refuse_decide(case: Discrepancy, operator: Operator) -> Any:
    """Only what is not resolved; a message is repaired on its own page."""
    if case.state == DiscrepancyState.RESOLVED:
        return gettext("Decided already: %(decision)s, by %(who)s.") % {
            "decision": case.get_decision_display(),
            "who": case.decided_by,
        }
    if case.kind == DiscrepancyKind.SHOP_NOT_TOLD:
        return _("Resend or skip the message instead: that resolves the case.")
    return ""


def act_decide(case: Discrepancy, operator: Operator, data: dict[str, Any]) -> Result:
    """Hand the decision to the step."""
    decision = Decision(data["decision"])
    decided = decide_case(case.pk, decision, operator.username, data["note"])
    if decided is Decided.DONE:
        texts = {
            Decision.REFUND: _refund_text(case),
            Decision.KEEP: gettext("The money is kept, and the case is resolved."),
            Decision.ACCEPT: gettext("The order is paid by this stream."),
        }
        return Result(texts.get(decision, gettext("The case is resolved.")), made=decision.value)
    refusals = {
        Decided.REPEAT: gettext("Someone has resolved it already."),
        Decided.NOT_SURPLUS: gettext("This case is not about surplus money: it can only be dismissed."),
        Decided.HAS_KEEPER: gettext("The order is paid by another stream: this cannot become its payment."),
        Decided.MISMATCHED: gettext("The amount or currency is not the order's."),
        Decided.REFUNDING: gettext("A refund of it was sent, refused or done: settle that refund first."),
        Decided.NO_MONEY_LEFT: gettext("Everything of it was given back."),
    }
    return refused(refusals[decided])


def _refund_text(case: Discrepancy) -> str:
    after = Discrepancy.objects.using(get_settings().DATABASE).select_related("refund").get(pk=case.pk)
    if after.refund is not None and after.refund.state == RefundState.AWAITING_APPROVAL:
        return gettext("Refund %(number)s waits for a second person.") % {"number": after.refund.number}
    return gettext("The refund is on its way.")


DECIDE = Action(
    "decide", _("Decide…"), Permission.DECIDE, lambda case: [case_sentence(case), case_note(case)] if case.note else [case_sentence(case)],
    refuse_decide, act_decide, case_facts, DecideForm, is_money=True,
)  # fmt: skip


class DiscrepancyAdmin(ConsoleAdmin):
    """Every case, newest first."""

    list_display: tuple[str, ...] = (
        "shown_subject",
        "kind",
        "shown_state",
        "shown_amount",
        "order_link",
        "shown_summary",
        "shown_at",
        "decided_by",
    )
    list_filter: ClassVar[tuple[str, ...]] = ("state",)
    list_select_related = ("order", "stream", "stream__order", "refund")
    ordering = ("-opened_at",)
    sortable_by: ClassVar[tuple[str, ...]] = ("shown_at",)
    object_actions = (DECIDE,)

    @display(_("about"))
    def shown_subject(self, row: Discrepancy) -> str:
        """The number it is about."""
        return row.subject

    @display(_("state"))
    def shown_state(self, row: Discrepancy) -> str:
        """Shape and word."""
        return present.state_badge(row)

    @display(_("amount"))
    def shown_amount(self, row: Discrepancy) -> str:
        """The money at stake."""
        return present.money(row.amount_minor, row.currency) if row.amount_minor else "–"

    @display(_("order"))
    def order_link(self, row: Discrepancy) -> str:
        """The order's page."""
        return present.link(self.link_to(row.order), row.order.number) if row.order else "–"

    @display(_("opened at"), ordering="-opened_at")
    def shown_at(self, row: Discrepancy) -> str:
        """When it was opened."""
        return present.moment(row.opened_at)

    @display(_("summary"))
    def shown_summary(self, row: Discrepancy) -> str:
        """The sentence that the step wrote."""
        return case_sentence(row)

    @display(_("age"))
    def shown_age(self, row: Discrepancy) -> str:
        """How long it waits."""
        return present.age(row.opened_at, clock.about_now())

    def filter_found(self, queryset: Any, found: search.Found) -> Any:
        """Cases of the orders found, and cases about one of the numbers."""
        return queryset.filter(order_id__in=search.order_ids(found))

    def page(self, request: HttpRequest, row: Discrepancy) -> dict[str, Any]:
        """The case with its evidence and decision."""
        order, stream, refund = row.order, row.stream, row.refund
        summary = [
            Fact(gettext("Case"), row.get_kind_display()),
            Fact(gettext("About"), present.copyable(row.subject)),
            Fact(gettext("Order"), present.link(self.link_to(order), order.number) if order else "–"),
            Fact(gettext("Stream"), present.link(self.link_to(stream), stream.number) if stream else "–"),
            Fact(gettext("Refund"), present.link(self.link_to(refund), refund.number) if refund else "–"),
            Fact(gettext("Channel"), row.account or "–"),
            Fact(gettext("Amount"), present.money(row.amount_minor, row.currency) if row.amount_minor else "–"),
            Fact(gettext("Opened"), present.moment(row.opened_at)),
            Fact(gettext("Resolved"), present.moment(row.resolved_at)),
            Fact(gettext("Decision"), row.get_decision_display() if row.decision else "–"),
            Fact(gettext("Decided by"), row.decided_by or "–"),
            Fact(gettext("Note"), case_note(row) or "–"),
        ]
        evidence = [Fact(name, _evidence(name, value, row.currency)) for name, value in _read(row.evidence).items()]
        return {
            "heading": f"{row.get_kind_display()}: {row.subject}",
            "badge": present.state_badge(row),
            "mode": present.mode_badge([row.account] if row.account else []),
            "lead": case_sentence(row),
            "summary": summary,
            "evidence": evidence,
        }


class QueueAdmin(DiscrepancyAdmin):
    """A queue: open cases of some kinds, oldest first."""

    list_display = ("shown_subject", "kind", "shown_amount", "order_link", "shown_summary", "shown_age", "account")
    list_filter = ()
    ordering = ("opened_at",)
    sortable_by = ()
    kinds: tuple[DiscrepancyKind, ...] = tuple(DiscrepancyKind)

    def get_queryset(self, request: HttpRequest) -> Any:
        """What waits for a person."""
        return super().get_queryset(request).filter(state=DiscrepancyState.OPEN, kind__in=self.kinds)


class SurplusMoneyAdmin(QueueAdmin):
    """Duplicates, late payments, second captures."""

    kinds = SURPLUS_KINDS


class UnmatchedMoneyAdmin(QueueAdmin):
    """Money that matches nothing, or not enough."""

    kinds = UNMATCHED_KINDS


class ShopNotToldAdmin(QueueAdmin):
    """The shop was not told."""

    kinds = (DiscrepancyKind.SHOP_NOT_TOLD,)


def _read(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return {name: value for name, value in found.items() if value not in (None, "")} if isinstance(found, dict) else {}


def _evidence(name: str, value: Any, currency: str) -> str:
    return to_text(value, currency) if name.endswith("_minor") and isinstance(value, int) else str(value)
