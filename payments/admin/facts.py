"""Labels and values: what the pages list, and what a decision rests on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext

from payonce.orders.models import Order
from payonce.payments.admin import present, sentences, words
from payonce.payments.admin.actions import Facts
from payonce.payments.admin.dossier import Dossier, given_back_minor, on_its_way_minor
from payonce.payments.amounts import to_text
from payonce.payments.models import Discrepancy, Refund, ShopMessage, Stream
from payonce.payments.statuses import DiscrepancyKind, StreamRole

if TYPE_CHECKING:
    from payonce.payments.admin.base import ConsoleAdmin


SURPLUS_KINDS = (DiscrepancyKind.DUPLICATE, DiscrepancyKind.LATE_PAYMENT, DiscrepancyKind.SECOND_CAPTURE)


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a page: its label and its value, ready for the template."""

    label: str
    value: Any


@dataclass(frozen=True, slots=True)
class Card:
    """One stream beside its siblings."""

    number: str
    url: str
    badge: Any
    role: str
    is_keeper: bool
    is_here: bool
    facts: tuple[Fact, ...]


# What a decision rests on: a form that showed other values is refused, with the difference.


def stream_facts(row: Stream) -> Facts:
    """State and money of a stream."""
    currency = row.captured_currency or row.currency
    return {
        gettext("State"): str(row.get_state_display()),
        gettext("Taken"): to_text(row.captured_minor, currency),
        gettext("Reserved for refunds or given back"): to_text(row.refund_reserved_minor, currency),
        gettext("Still refundable"): to_text(row.refundable_minor, currency),
    }


def order_facts(row: Order) -> Facts:
    """State and money of an order."""
    return {
        gettext("State"): str(row.get_state_display()),
        gettext("Amount"): to_text(row.amount_minor, row.currency),
    }


def refund_facts(row: Refund) -> Facts:
    """What is approved, retried or given up."""
    return {
        gettext("State"): str(row.get_state_display()),
        gettext("Amount"): to_text(row.amount_minor, row.currency),
        gettext("Requested by"): row.requested_by,
        gettext("Reason"): f"{words.say('reason', row.reason)} {row.note}".strip(),
        gettext("Given up"): gettext("yes") if row.is_released else gettext("no"),
    }


def case_facts(row: Discrepancy) -> Facts:
    """What a case is about, and how it stands."""
    facts = {
        gettext("Case"): str(row.get_kind_display()),
        gettext("State"): str(row.get_state_display()),
        gettext("About"): row.subject,
    }
    if row.amount_minor:
        facts[gettext("Amount")] = to_text(row.amount_minor, row.currency)
    if row.stream is not None:
        facts |= {f"{gettext('Stream')}: {label}": text for label, text in stream_facts(row.stream).items()}
    if row.refund is not None:
        facts[gettext("Refund")] = f"{row.refund.number}: {row.refund.get_state_display()}"
    return facts


def case_sentence(row: Discrepancy) -> str:
    """What a case is about, with its amount as people write it where the money is simply not needed."""
    if row.kind in SURPLUS_KINDS and row.amount_minor:
        facts = {"number": row.subject, "amount": to_text(row.amount_minor, row.currency)}
        return gettext("%(number)s took %(amount)s that its order does not need.") % facts
    return sentences.in_own_language(row.summary)


def case_note(row: Discrepancy) -> str:
    """Why it is a person's, or what was decided; a person's own words as they are."""
    return sentences.in_own_language(row.note)


def message_facts(row: ShopMessage) -> Facts:
    """How a message to the shop stands."""
    return {gettext("State"): str(row.get_state_display()), gettext("Last answer"): row.last_answer or "–"}


# What the pages list.


def order_summary(everything: Dossier, page: "ConsoleAdmin") -> list[Fact]:
    """Ids to copy, and the money."""
    order, keeper = everything.order, everything.keeper
    refunds = everything.refunds_of(keeper) if keeper else []
    currency = order.currency
    refundable = keeper.refundable_minor if keeper else 0
    facts = [
        Fact(gettext("Shop reference"), present.copyable(order.reference)),
        Fact(gettext("Order number"), present.copyable(order.number)),
        Fact(gettext("Source"), order.source),
        Fact(gettext("Subject"), order.subject),
        Fact(gettext("Amount"), present.money(order.amount_minor, currency)),
        Fact(gettext("Paid"), present.money(keeper.captured_minor if keeper else 0, currency)),
        Fact(gettext("Refunded"), present.money(given_back_minor(refunds), currency)),
        Fact(gettext("Refund pending"), present.money(on_its_way_minor(refunds), currency)),
        Fact(gettext("Still refundable"), present.money(refundable, currency)),
        Fact(gettext("Surplus money taken"), present.money(everything.surplus_minor, currency)),
        Fact(gettext("Confirmed by"), str(keeper.get_confirmed_by_display()) if keeper else "–"),
        Fact(gettext("Placed"), present.moment(order.created_at)),
        Fact(gettext("Expires"), present.moment(order.expires_at)),
        Fact(gettext("Paid at"), present.moment(order.paid_at)),
    ]
    if order.close_reason:
        facts.append(Fact(gettext("Why closed"), words.say("reason", order.close_reason)))
    return facts


def stream_summary(row: Stream, page: "ConsoleAdmin") -> list[Fact]:
    """Ids to copy, the money, and when it is looked at next."""
    currency = row.captured_currency or row.currency
    facts = [
        Fact(gettext("Stream number"), present.copyable(row.number)),
        Fact(gettext("Channel reference"), present.copyable(row.channel_reference)),
        Fact(gettext("Order"), present.link(page.link_to(row.order), row.order.number)),
        Fact(gettext("Shop reference"), present.copyable(row.order.reference)),
        Fact(gettext("Channel"), f"{row.account} · {row.method}"),
        Fact(gettext("Amount"), present.money(row.amount_minor, row.currency)),
        Fact(gettext("Taken"), present.money(row.captured_minor, currency)),
        Fact(gettext("Reserved for refunds or given back"), present.money(row.refund_reserved_minor, currency)),
        Fact(gettext("Still refundable"), present.money(row.refundable_minor, currency)),
        Fact(gettext("Confirmed by"), str(row.get_confirmed_by_display())),
        Fact(gettext("Created"), present.moment(row.created_at)),
        Fact(gettext("Payable until"), present.moment(row.payable_until)),
        Fact(gettext("Paid at (channel)"), present.moment(row.paid_at)),
        Fact(gettext("Next automatic check"), present.moment(row.next_check_at)),
        Fact(gettext("Last answer"), f"{row.last_answer or '–'}{' (?)' if row.is_answer_unknown else ''}"),
        Fact(gettext("Checks"), row.check_count),
    ]
    optional = (
        (gettext("Number at the channel"), row.origin_number and present.copyable(row.origin_number)),
        (gettext("Why closing"), words.say("reason", row.close_reason)),
        (gettext("Proof of closing"), row.close_proof),
        (gettext("Failure code"), row.failure_code),
        (gettext("Disputed"), row.disputed_minor and present.money(row.disputed_minor, currency)),
        (gettext("Reversed"), row.reversed_minor and present.money(row.reversed_minor, currency)),
    )
    return facts + [Fact(label, value) for label, value in optional if value]


def role_text(row: Stream) -> str:
    """What the stream is to its order."""
    if row.role == StreamRole.KEEPER:
        return gettext("keeper: this is the order's payment")
    if row.role == StreamRole.SURPLUS:
        return gettext("surplus: %(why)s") % {"why": row.get_surplus_reason_display()}
    return gettext("took no money")


def order_cards(everything: Dossier, page: "ConsoleAdmin", here: Stream | None = None) -> list[Card]:
    """All streams of the order side by side."""
    return [
        Card(
            row.number, page.link_to(row), present.state_badge(row), role_text(row), row.role == StreamRole.KEEPER,
            here is not None and row.pk == here.pk, tuple(_card_facts(row, everything)),
        )
        for row in everything.streams
    ]  # fmt: skip


def _card_facts(row: Stream, everything: Dossier) -> list[Fact]:
    currency = row.captured_currency or row.currency
    refunds = everything.refunds_of(row)
    facts = [
        Fact(gettext("Channel"), f"{row.account} · {row.method}"),
        Fact(gettext("Channel reference"), present.copyable(row.channel_reference)),
        Fact(gettext("Amount"), present.money(row.amount_minor, row.currency)),
    ]
    if row.captured_minor:
        facts += [
            Fact(gettext("Taken"), present.money(row.captured_minor, currency)),
            Fact(gettext("Refunded"), present.money(given_back_minor(refunds), currency)),
            Fact(gettext("Confirmed by"), str(row.get_confirmed_by_display())),
        ]
    if row.next_check_at:
        facts.append(Fact(gettext("Next automatic check"), present.moment(row.next_check_at)))
    return [*facts, Fact(gettext("Created"), present.moment(row.created_at))]
