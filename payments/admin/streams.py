"""Streams: the list, the page of one, and what an operator can do: ask, close, refund."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from payonce.orders.conf import get_settings
from payonce.payments import clock, refund
from payonce.payments.admin import bulk, diagnose, dossier, present, search
from payonce.payments.admin.actions import Action, ConfirmForm, Operator, Result, refused, stale
from payonce.payments.admin.base import ConsoleAdmin, display
from payonce.payments.admin.facts import Fact, order_cards, stream_facts, stream_summary
from payonce.payments.admin.words import REASON_NAMES
from payonce.payments.amounts import AmountError, exponent_of, to_minor, to_plain, to_text
from payonce.payments.call import capabilities_of
from payonce.payments.close import Closed, close_stream
from payonce.payments.models import Refund, Stream
from payonce.payments.permissions import Permission
from payonce.payments.poll import poll_stream
from payonce.payments.refund import RefundCode
from payonce.payments.settle import Settled
from payonce.payments.statuses import ACTIVE_REFUND_STATES, StreamState


class RefundForm(ConfirmForm):
    """Amount, reason and note of a refund."""

    amount = forms.CharField(label=_("Amount"), max_length=20, widget=forms.TextInput({"inputmode": "decimal"}))
    reason = forms.ChoiceField(label=_("Reason"), choices=REASON_NAMES)
    note = forms.CharField(
        label=_("Note"), max_length=500, required=False, widget=forms.Textarea({"rows": 3}),
        help_text=_("Required for the reason “other”. Seen by operators only."),
    )  # fmt: skip

    def __init__(self, *args: Any, row: Stream, **kwargs: Any) -> None:
        super().__init__(*args, row=row, **kwargs)
        currency = row.captured_currency
        self.fields["amount"].initial = to_plain(row.refundable_minor, currency)
        self.fields["amount"].help_text = gettext(
            "In %(currency)s, with at most %(count)d decimals. All of it: %(all)s."
        ) % {
            "currency": currency,
            "count": exponent_of(currency),
            "all": to_text(row.refundable_minor, currency),
        }

    def clean_amount(self) -> int:
        """The amount in minor units, within what is left."""
        typed = self.cleaned_data["amount"]
        try:
            amount = to_minor(typed, self.row.captured_currency)
        except AmountError:
            raise forms.ValidationError(gettext("Write a plain number such as 12.50, with a point.")) from None
        if amount <= 0:
            raise forms.ValidationError(gettext("The amount must be more than zero."))
        return amount

    def clean(self) -> dict[str, Any]:
        """A reason that says nothing needs a note."""
        data = super().clean() or self.cleaned_data
        if data.get("reason") == "other" and not data.get("note", "").strip():
            self.add_error("note", gettext("Say why, since the reason is “other”."))
        return data


# What each action does, and why it cannot be taken.


def refuse_ask(stream: Stream, operator: Operator) -> Any:
    """Only a configured channel can be asked."""
    return "" if capabilities_of(stream) else _("The channel account is not configured here.")


def act_ask(stream: Stream, operator: Operator, data: dict[str, Any]) -> Result:
    """Query the channel and apply its answer."""
    settled = poll_stream(stream.number, operator.by)
    after = Stream.objects.using(get_settings().DATABASE).get(pk=stream.pk)
    if settled is Settled.NO_NEWS and after.is_answer_unknown:
        text = gettext("The channel gave no clear answer (%(answer)s). It will be asked again by itself.")
        return Result(text % {"answer": after.last_answer}, "warning")
    texts = {
        Settled.KEEPER: gettext("It was paid: the order is now paid by this stream."),
        Settled.SURPLUS: gettext("It was paid, and the order does not need it: see the case."),
        Settled.CLOSED: gettext("The channel proved that it can no longer be paid."),
        Settled.PROCESSING: gettext("The buyer has acted; the channel has not confirmed it yet."),
        Settled.APPROVED: gettext("The buyer has approved it; it is being captured."),
        Settled.WAITING: gettext("Not paid yet."),
        Settled.CONTRADICTION: gettext("The channel contradicts what it said before: see the case."),
    }
    text = texts.get(settled, gettext("Nothing new: the channel says what is known here already."))
    return Result(text, "warning" if settled in (Settled.SURPLUS, Settled.CONTRADICTION) else "success")


def refuse_close(stream: Stream, operator: Operator) -> Any:
    """Only what may still be paid, and where no money is on its way."""
    return {
        StreamState.SUCCEEDED: _("It took money: give it back by a refund."),
        StreamState.CLOSED: _("It is closed already."),
        StreamState.FAILED: _("The channel refused it: nobody can pay it."),
        StreamState.PROCESSING: _("The buyer has acted: wait for the channel's answer."),
        StreamState.CAPTURING: _("The money is being captured: wait for the channel's answer."),
    }.get(StreamState(stream.state), "") or refuse_ask(stream, operator)


def act_close(stream: Stream, operator: Operator, data: dict[str, Any]) -> Result:
    """Close it at the channel."""
    closed = close_stream(stream.number, operator.by, reason="closed by operator")
    texts = {
        Closed.PROVEN: (gettext("Closed: nobody can pay it any more."), "success"),
        Closed.PAID: (gettext("It was paid in the meantime: the money is recorded."), "warning"),
        Closed.IN_PROGRESS: (gettext("The buyer has acted: it cannot be closed until the channel answers."), "warning"),
        Closed.UNPROVEN: (gettext("Asked, but not proven closed yet. It is watched and asked again."), "warning"),
        Closed.NOT_CLOSABLE: (
            gettext("This channel cannot close it: it is watched until its time is over."),
            "warning",
        ),
        Closed.BUSY: (gettext("Another process is asking about it right now."), "info"),
        Closed.NOT_NEEDED: (gettext("Nothing to close."), "info"),
    }
    text, level = texts[closed]
    return Result(text, level, made=closed.value)


def refuse_refund(stream: Stream, operator: Operator) -> Any:
    """Only money that was taken, is not reserved by another refund, and that the channel can give back."""
    if stream.state != StreamState.SUCCEEDED:
        return _("It took no money.")
    using = get_settings().DATABASE
    active = Refund.objects.using(using).filter(stream_id=stream.pk, state__in=ACTIVE_REFUND_STATES).first()
    if active is not None:
        return gettext("Refund %(number)s is not finished (%(state)s).") % {
            "number": active.number,
            "state": active.get_state_display(),
        }
    if stream.refundable_minor <= 0:
        return _("Everything of it was given back, or is reserved by a refund.")
    capabilities = capabilities_of(stream)
    if capabilities is None:
        return _("The channel account is not configured here.")
    paid_at = stream.paid_at or stream.succeeded_at or clock.about_now()
    is_late = clock.about_now() - paid_at > timedelta(seconds=capabilities.refund_window_seconds)
    if not capabilities.refunds or is_late:
        return _("The channel cannot refund it, or its refund window is over: give the money back by other means.")
    return ""


def act_refund(stream: Stream, operator: Operator, data: dict[str, Any]) -> Result:
    """Reserve the refund; a worker sends it."""
    answer = refund.request_refund(
        stream.number, data["amount"], reason=data["reason"], note=data["note"], by=operator.by,
        seen=refund.seen_token(stream),
    )  # fmt: skip
    amount = to_text(data["amount"], stream.captured_currency)
    facts = {
        "number": answer.number,
        "amount": amount,
        "left": to_text(answer.refundable_minor, stream.captured_currency),
    }
    if answer.code is RefundCode.REQUESTED:
        return Result(gettext("Refund %(number)s of %(amount)s is on its way.") % facts, made=answer.number)
    if answer.code is RefundCode.AWAITING_APPROVAL:
        text = gettext("Refund %(number)s of %(amount)s waits for a second person.")
        return Result(text % facts, made=answer.number)
    if answer.code in (RefundCode.STALE, RefundCode.IN_PROGRESS):
        return stale()
    texts = {
        RefundCode.NOT_PAID: gettext("It took no money."),
        RefundCode.TOO_MUCH: gettext("%(amount)s is more than is left (%(left)s).") % facts,
        RefundCode.NO_REFUNDS: gettext("The channel cannot refund it, or its window is over."),
        RefundCode.NO_PARTIAL: gettext("This channel can only give everything back at once."),
        RefundCode.INVALID_REASON: gettext("The reason is not complete."),
    }
    return refused(texts[answer.code])


def refund_context(stream: Stream) -> dict[str, Any]:
    """Amounts to decide by."""
    refunds = list(Refund.objects.using(get_settings().DATABASE).filter(stream_id=stream.pk).order_by("pk")[:20])
    return {"refunds": refunds, "cannot_be_undone": True}


def explain_refund(stream: Stream) -> Sequence[Any]:
    """What the page says above the form."""
    texts: list[Any] = [
        _("The money goes back through the channel that took it, under one refund number. It cannot be undone.")
    ]
    from_minor = get_settings().REFUND.APPROVAL_MINOR
    if from_minor is not None:
        amount = to_text(from_minor, stream.captured_currency)
        texts.append(gettext("From %(amount)s on, a second person must approve it.") % {"amount": amount})
    if stream.role == "keeper":
        texts.append(_("This is the order's payment: when all of it is given back, the order becomes refunded."))
    else:
        texts.append(_("This is surplus money: the order's state does not change."))
    return texts


ASK = Action(
    "ask", _("Ask the channel now"), Permission.ASK,
    lambda stream: [_("payonce asks the channel what happened to this stream, and applies the answer. No money moves.")],
    refuse_ask, act_ask,
)  # fmt: skip
CLOSE = Action(
    "close", _("Close at the channel…"), Permission.CLOSE,
    lambda stream: [_("payonce asks the channel first. If it is paid, the money is recorded; if not, the channel is told to"
                      " let nobody pay it any more. Closing counts only once the channel proves it.")],
    refuse_close, act_close, stream_facts,
)  # fmt: skip
REFUND = Action(
    "refund", _("Refund…"), Permission.REFUND, explain_refund, refuse_refund, act_refund, stream_facts, RefundForm,
    is_money=True, context=refund_context,
)  # fmt: skip


class StreamAdmin(ConsoleAdmin):
    """Streams, newest first."""

    list_display = (
        "number",
        "shown_state",
        "shown_role",
        "shown_amount",
        "account",
        "method",
        "order_link",
        "shown_at",
    )
    list_filter = ("state",)
    list_select_related = ("order",)
    ordering = ("-created_at",)
    sortable_by = ("shown_at",)
    page_template = "payonce/admin/stream.html"
    object_actions = (ASK, CLOSE, REFUND)
    actions = ("ask_selected",)

    @display(_("state"))
    def shown_state(self, row: Stream) -> str:
        """Shape and word."""
        return present.state_badge(row)

    @display(_("role"))
    def shown_role(self, row: Stream) -> str:
        """Keeper or surplus, and why."""
        return (
            str(row.get_surplus_reason_display() if row.surplus_reason else row.get_role_display()) if row.role else "–"
        )

    @display(_("amount"))
    def shown_amount(self, row: Stream) -> str:
        """What was asked for."""
        return present.money(row.amount_minor, row.currency)

    @display(_("order"))
    def order_link(self, row: Stream) -> str:
        """The order's page."""
        return present.link(self.link_to(row.order), row.order.number)

    @display(_("created at"), ordering="-created_at")
    def shown_at(self, row: Stream) -> str:
        """When it was made."""
        return present.moment(row.created_at)

    @admin.action(description=_("Ask the channel about the selected streams…"), permissions=["ask"])
    def ask_selected(self, request: HttpRequest, queryset: Any) -> Any:
        """Only opens the confirmation page."""
        return bulk.open_page(self, queryset, "ask")

    def has_ask_permission(self, request: HttpRequest) -> bool:
        """For the list's action."""
        return request.user.has_perm(Permission.ASK)

    def extra_urls(self) -> list[Any]:
        """The page that confirms asking about many."""
        return [bulk.url(self, bulk.ASK)]

    def filter_found(self, queryset: Any, found: search.Found) -> Any:
        """Streams by number or channel reference, or of what was found."""
        return queryset.filter(pk__in=search.stream_ids(found))

    def page(self, request: HttpRequest, row: Stream) -> dict[str, Any]:
        """The stream, beside the others of its order."""
        everything = dossier.read(row.order)
        return {
            "heading": gettext("Stream %(number)s") % {"number": row.number},
            "badge": present.state_badge(row),
            "mode": present.mode_badge([row.account]),
            "diagnosis": diagnose.stream(row, everything, self),
            "summary": stream_summary(row, self),
            "cards": order_cards(everything, self, here=row),
            "dossier": everything,
            "mine": everything.refunds_of(row),
            "order_url": self.link_to(row.order),
            "entries": [
                entry for entry in everything.timeline.entries
                if entry.subject.startswith(row.number) or entry.what == row.number
            ],
        }  # fmt: skip


__all__ = ["ASK", "CLOSE", "REFUND", "Fact", "RefundForm", "StreamAdmin"]
