"""Refunds: the list, two queues, the page of one, and approve, decline, retry, write off."""

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from payonce.payments import clock, refund
from payonce.payments.admin import bulk, present, search, words
from payonce.payments.admin.actions import Action, ConfirmForm, Operator, Result, refused
from payonce.payments.admin.base import ConsoleAdmin, display
from payonce.payments.admin.facts import Fact, refund_facts
from payonce.payments.models import Refund
from payonce.payments.permissions import Permission
from payonce.payments.statuses import RefundState
from payonce.payments.transitions.refunds import RefundMove

STUCK_STATES = (RefundState.REJECTED, RefundState.ATTENTION, RefundState.UNKNOWN, RefundState.RETURNED)
MOVE_TEXTS: dict[RefundMove, Any] = {
    RefundMove.REPEAT: _("It was done already."),
    RefundMove.ANOTHER_ACTIVE: _("Another refund of the stream is not finished."),
    RefundMove.TOO_MUCH: _("It is more than is left of the money taken."),
    RefundMove.NOT_AWAITING: _("It does not wait for approval any more."),
    RefundMove.SAME_PERSON: _("You asked for it: another person must approve it."),
    RefundMove.EXPIRED: _("The time for its approval is over."),
    RefundMove.NOT_ACTIVE: _("It is finished."),
    RefundMove.NOT_REJECTED: _("The channel has not refused it."),
    RefundMove.NOT_PROVEN: _("A call under its number is unanswered and may have moved money: wait for the answer."),
    RefundMove.NOT_SUCCEEDED: _("It has not succeeded."),
    RefundMove.WAS_RETURNED: _("It was done, and came back."),
}


class DeclineForm(ConfirmForm):
    """Why it is declined."""

    reason = forms.CharField(label=_("Reason"), max_length=64)


def refuse_approve(row: Refund, operator: Operator) -> Any:
    """Only while it waits, and never by its requester."""
    if row.state != RefundState.AWAITING_APPROVAL:
        return MOVE_TEXTS[RefundMove.NOT_AWAITING]
    if row.requested_by.removeprefix("operator:") == operator.username:
        return MOVE_TEXTS[RefundMove.SAME_PERSON]
    if row.approval_expires_at is not None and row.approval_expires_at <= clock.about_now():
        return MOVE_TEXTS[RefundMove.EXPIRED]
    return ""


def refuse_decline(row: Refund, operator: Operator) -> Any:
    """Only while it waits, or before it was ever sent."""
    if row.state == RefundState.AWAITING_APPROVAL:
        return ""
    if row.state == RefundState.REQUESTED and row.first_sent_at is None:
        return ""
    return _("The channel was asked already, or it is finished.")


def refuse_retry(row: Refund, operator: Operator) -> Any:
    """Only what the channel refused, or what needed a person there."""
    return "" if row.state in (RefundState.REJECTED, RefundState.ATTENTION) else MOVE_TEXTS[RefundMove.NOT_REJECTED]


def refuse_write_off(row: Refund, operator: Operator) -> Any:
    """Only what surely moved nothing: refused, or unanswered past its time and looked up at the channel."""
    if row.is_released:
        return _("It was given up already.")
    is_past = row.replay_safe_until is not None and row.replay_safe_until <= clock.about_now()
    if row.state == RefundState.UNKNOWN and is_past:
        return ""
    if row.state != RefundState.REJECTED:
        return MOVE_TEXTS[RefundMove.NOT_REJECTED]
    return MOVE_TEXTS[RefundMove.NOT_PROVEN] if row.open_call_count > 0 and not is_past else ""


def act_approve(row: Refund, operator: Operator, data: dict[str, Any]) -> Result:
    """The second person's yes."""
    return _result(refund.approve_refund(row.number, operator.by), _("Approved: it is on its way."))


def act_decline(row: Refund, operator: Operator, data: dict[str, Any]) -> Result:
    """A no; the reservation is free again."""
    return _result(refund.decline_refund(row.number, operator.by, data["reason"]), _("Declined: no money moves."))


def act_retry(row: Refund, operator: Operator, data: dict[str, Any]) -> Result:
    """Again, under the same number."""
    return _result(refund.retry_refund(row.number, operator.by), _("It is sent again under the same number."))


def act_write_off(row: Refund, operator: Operator, data: dict[str, Any]) -> Result:
    """Give the number up."""
    return _result(refund.write_off_refund(row.number, operator.by), _("Given up: another refund may follow."))


def _result(move: RefundMove, done: Any) -> Result:
    return Result(str(done)) if move is RefundMove.MOVED else refused(str(MOVE_TEXTS[move]))


APPROVE = Action(
    "approve", _("Approve…"), Permission.APPROVE,
    lambda row: [_("The money goes back to the buyer. It cannot be undone.")],
    refuse_approve, act_approve, refund_facts, is_money=True,
)  # fmt: skip
DECLINE = Action(
    "decline", _("Decline…"), Permission.APPROVE,
    lambda row: [_("No money moves; the amount may be refunded again later. A case that this refund was to repair goes to"
                   " a person's queue.")],
    refuse_decline, act_decline, refund_facts, DeclineForm,
)  # fmt: skip
RETRY = Action(
    "retry", _("Retry…"), Permission.REFUND,
    lambda row: [_("Send it again under the same number, after its cause was repaired (balance, limits, account). The same"
                   " number moves money at most once.")],
    refuse_retry, act_retry, refund_facts, is_money=True,
)  # fmt: skip
WRITE_OFF = Action(
    "write-off", _("Write off…"), Permission.REFUND,
    lambda row: [_("Only if this number moved nothing: look it up at the channel first. It is given up: its amount is free for another"
                   " refund, and its case stays open until someone decides it.")],
    refuse_write_off, act_write_off, refund_facts, is_money=True,
)  # fmt: skip


class RefundAdmin(ConsoleAdmin):
    """Refunds, newest first."""

    list_display: tuple[str, ...] = (
        "number",
        "shown_state",
        "shown_amount",
        "stream_link",
        "purpose",
        "reason",
        "requested_by",
        "shown_at",
    )
    list_filter: ClassVar[tuple[str, ...]] = ("state",)
    list_select_related = ("stream", "stream__order")
    ordering = ("-created_at",)
    sortable_by: ClassVar[tuple[str, ...]] = ("shown_at",)
    object_actions = (APPROVE, DECLINE, RETRY, WRITE_OFF)

    @display(_("state"))
    def shown_state(self, row: Refund) -> str:
        """Shape and word."""
        return present.state_badge(row)

    @display(_("amount"))
    def shown_amount(self, row: Refund) -> str:
        """What goes back."""
        return present.money(row.amount_minor, row.currency)

    @display(_("stream"))
    def stream_link(self, row: Refund) -> str:
        """The stream that took the money."""
        return present.link(self.link_to(row.stream), row.stream.number)

    @display(_("requested at"), ordering="-created_at")
    def shown_at(self, row: Refund) -> str:
        """When it was decided."""
        return present.moment(row.created_at)

    def filter_found(self, queryset: Any, found: search.Found) -> Any:
        """Refunds by number, or of the streams and orders found."""
        return queryset.filter(pk__in=search.refund_ids(found))

    def page(self, request: HttpRequest, row: Refund) -> dict[str, Any]:
        """The refund and its approval."""
        order = row.stream.order
        return {
            "heading": gettext("Refund %(number)s") % {"number": row.number},
            "badge": present.state_badge(row),
            "mode": present.mode_badge([row.stream.account]),
            "summary": [
                Fact(gettext("Refund number"), present.copyable(row.number)),
                Fact(gettext("Amount"), present.money(row.amount_minor, row.currency)),
                Fact(gettext("Stream"), present.link(self.link_to(row.stream), row.stream.number)),
                Fact(gettext("Order"), present.link(self.link_to(order), order.number)),
                Fact(gettext("Channel reference"), present.copyable(row.channel_reference)),
                Fact(gettext("Purpose"), row.get_purpose_display()),
                Fact(gettext("Reason"), words.say("reason", row.reason)),
                Fact(gettext("Note"), row.note or "–"),
                Fact(gettext("Requested by"), row.requested_by),
                Fact(gettext("Decided by"), row.approved_by or "–"),
                Fact(gettext("Approval expires"), present.moment(row.approval_expires_at)),
                Fact(gettext("Requested"), present.moment(row.created_at)),
                Fact(gettext("First sent"), present.moment(row.first_sent_at)),
                Fact(gettext("Accepted by the channel"), present.moment(row.accepted_at)),
                Fact(gettext("Finished"), present.moment(row.finished_at)),
                Fact(gettext("Next try"), present.moment(row.next_try_at)),
                Fact(gettext("Last answer"), row.last_answer or "–"),
                Fact(gettext("Given up"), gettext("yes") if row.is_released else gettext("no")),
            ],
        }


class RefundsToApproveAdmin(RefundAdmin):
    """The queue of refunds that wait for a second person, oldest first."""

    list_display = ("number", "shown_amount", "stream_link", "reason", "note", "requested_by", "shown_at")
    list_filter = ()
    ordering = ("created_at",)
    actions = ("approve_selected",)

    def get_queryset(self, request: HttpRequest) -> Any:
        """What waits."""
        return super().get_queryset(request).filter(state=RefundState.AWAITING_APPROVAL)

    @admin.action(description=_("Approve the selected refunds…"), permissions=["approve"])
    def approve_selected(self, request: HttpRequest, queryset: Any) -> Any:
        """Only opens the confirmation page, which lists the amounts."""
        return bulk.open_page(self, queryset, "approve")

    def has_approve_permission(self, request: HttpRequest) -> bool:
        """For the list's action."""
        return request.user.has_perm(Permission.APPROVE)

    def extra_urls(self) -> list[Any]:
        """The page that confirms approving many."""
        return [bulk.url(self, bulk.APPROVE)]


class StuckRefundsAdmin(RefundAdmin):
    """The queue of refunds that need a person, oldest first."""

    list_display = ("number", "shown_state", "shown_amount", "stream_link", "last_answer", "shown_at")
    list_filter = ()
    ordering = ("created_at",)

    def get_queryset(self, request: HttpRequest) -> Any:
        """Refused and not given up, at the channel for a person, without an answer, or come back."""
        return super().get_queryset(request).filter(state__in=STUCK_STATES, is_released=False)
