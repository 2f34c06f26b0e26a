"""One sentence on what is wrong with an order or a stream, and the one proper action."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.utils.text import capfirst
from django.utils.translation import gettext

from payonce.orders.statuses import OrderState
from payonce.payments.admin import present
from payonce.payments.admin.dossier import Dossier
from payonce.payments.admin.facts import case_note, case_sentence
from payonce.payments.amounts import to_text
from payonce.payments.models import Discrepancy, Refund, Stream
from payonce.payments.statuses import (
    WATCHED_STREAM_STATES,
    DiscrepancyKind,
    MessageState,
    RefundState,
    StreamRole,
    StreamState,
)

if TYPE_CHECKING:
    from payonce.payments.admin.base import ConsoleAdmin


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The sentence, how bad it is (good, wait, busy, warn, bad, end), and where to act."""

    tone: str
    text: str
    label: str = ""
    url: str = ""

    @property
    def shape(self) -> str:
        """Never colour alone."""
        return present.SHAPES[self.tone]


def order(everything: Dossier, page: "ConsoleAdmin") -> Diagnosis:
    """The most pressing thing about an order."""
    if not everything.timeline.is_verified:
        return Diagnosis("bad", gettext("The history does not verify: tell an administrator before anything else."))
    return (
        _open_case(everything, page)
        or _waiting_refund(everything.refunds, page)
        or _parked_message(everything, page)
        or _unclear_stream(everything.streams, page)
        or _running_refund(everything)
        or _order_state(everything)
    )


def stream(row: Stream, everything: Dossier, page: "ConsoleAdmin") -> Diagnosis:
    """The most pressing thing about a stream."""
    mine = [case for case in everything.open_cases if case.stream_id == row.pk]
    return (
        _first_case(mine, page)
        or _waiting_refund(everything.refunds_of(row), page)
        or _unclear_stream([row], page)
        or _stream_state(row)
    )


def _open_case(everything: Dossier, page: "ConsoleAdmin") -> Diagnosis | None:
    return _first_case(everything.open_cases, page)


def _first_case(cases: "list[Discrepancy]", page: "ConsoleAdmin") -> Diagnosis | None:
    for case in cases:
        text = f"{case_sentence(case)} {case_note(case)}".strip()
        is_untold = case.kind == DiscrepancyKind.SHOP_NOT_TOLD
        label = gettext("Look at the case") if is_untold else gettext("Decide…")
        return Diagnosis("warn", f"{capfirst(case.get_kind_display())}: {text}", label, page.link_to(case))
    return None


def _waiting_refund(refunds: Any, page: "ConsoleAdmin") -> Diagnosis | None:
    texts = {
        RefundState.AWAITING_APPROVAL: (
            gettext("Refund %(number)s of %(amount)s waits for a second person."), gettext("Approve or decline")
        ),
        RefundState.REJECTED: (gettext("Refund %(number)s of %(amount)s was refused by the channel."), gettext("Retry or write off")),
        RefundState.ATTENTION: (gettext("Refund %(number)s of %(amount)s needs a person at the channel."), gettext("Look at the refund")),
    }  # fmt: skip
    for refund in refunds:
        if refund.state in texts and not refund.is_released:
            text, label = texts[refund.state]
            return Diagnosis("warn", text % _named(refund), label, page.link_to(refund))
    return None


def _named(refund: Refund) -> dict[str, str]:
    return {"number": refund.number, "amount": to_text(refund.amount_minor, refund.currency)}


def _parked_message(everything: Dossier, page: "ConsoleAdmin") -> Diagnosis | None:
    for message in everything.messages:
        if message.state == MessageState.PARKED:
            text = gettext("%(listener)s was not told about event %(sequence)d.")
            facts = {"listener": message.listener, "sequence": message.sequence}
            return Diagnosis("warn", text % facts, gettext("Resend or skip the message"), page.link_to(message))
    return None


def _unclear_stream(streams: Any, page: "ConsoleAdmin") -> Diagnosis | None:
    for row in streams:
        if row.state in WATCHED_STREAM_STATES and row.is_answer_unknown:
            text = gettext("%(account)s gave no clear answer about %(number)s (%(answer)s).")
            facts = {"account": row.account, "number": row.number, "answer": row.last_answer or "–"}
            return Diagnosis("warn", text % facts, gettext("Ask the channel now"), page.link_to(row))
    return None


def _running_refund(everything: Dossier) -> Diagnosis | None:
    for refund in everything.refunds:
        if refund.state in (RefundState.REQUESTED, RefundState.SUBMITTED, RefundState.UNKNOWN):
            text = gettext("Refund %(number)s of %(amount)s is on its way: nothing to do.")
            return Diagnosis("busy", text % _named(refund))
    return None


def _order_state(everything: Dossier) -> Diagnosis:
    keeper = everything.order.keeper or ""
    extra = any(row.role == StreamRole.SURPLUS for row in everything.streams)
    texts = {
        OrderState.OPEN: ("wait", gettext("Not paid yet: the buyer may be paying.")),
        OrderState.CLOSING: ("busy", gettext("Being closed: waits until no stream can be paid any more.")),
        OrderState.CLOSED: ("end", gettext("Closed and not paid: nothing to do.")),
        OrderState.PAID: ("good", gettext("Paid once, by %(keeper)s: nothing to do.") % {"keeper": keeper}),
        OrderState.REFUNDED: ("end", gettext("Paid by %(keeper)s and given back: nothing to do.") % {"keeper": keeper}),
    }
    tone, text = texts[OrderState(everything.order.state)]
    if extra:
        text += " " + gettext("Surplus money was taken and dealt with: see the streams.")
    return Diagnosis(tone, text)


def _stream_state(row: Stream) -> Diagnosis:
    texts = {
        StreamState.CREATED: ("wait", gettext("The channel has not surely answered yet: asked again by itself.")),
        StreamState.PENDING: ("wait", gettext("The buyer can pay it.")),
        StreamState.PROCESSING: ("busy", gettext("The buyer has acted: waits for the channel's answer.")),
        StreamState.CAPTURING: ("busy", gettext("The money is being captured.")),
        StreamState.CLOSING: ("busy", gettext("Not wanted any more; not proven closed yet: watched.")),
        StreamState.CLOSED: ("end", gettext("Proven closed: nobody can pay it.")),
        StreamState.FAILED: ("end", gettext("Refused by the channel: nobody can pay it.")),
    }
    if row.state == StreamState.SUCCEEDED:
        if row.role == StreamRole.KEEPER:
            return Diagnosis("good", gettext("It paid the order: nothing to do."))
        return Diagnosis("end", gettext("Surplus money, dealt with: nothing to do."))
    tone, text = texts[StreamState(row.state)]
    return Diagnosis(tone, text)
