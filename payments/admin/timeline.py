"""An order's history as a person reads it: who did what, from which state to which, how long after, and whether it verifies."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from payonce.orders.errors import EventChainBroken
from payonce.orders.events import verify_chain
from payonce.orders.models import Event, Order
from payonce.orders.statuses import OrderState
from payonce.payments.admin import present, sentences, words
from payonce.payments.amounts import to_text
from payonce.payments.statuses import DiscrepancyState, RefundState, StreamState

EVENT_NAMES: dict[str, Any] = {
    "order.placed": _("Order placed"), "order.amended": _("Amount changed"), "order.paid": _("Order paid"),
    "order.closing": _("Closing the order"), "order.closed": _("Order closed"),
    "order.partly_refunded": _("Order partly refunded"), "order.refunded": _("Order refunded"),
    "order.refund_returned": _("A refund came back"),
    "stream.created": _("Stream created"), "stream.pending": _("Handed to the buyer"),
    "stream.processing": _("The buyer has acted"), "stream.capturing": _("Capture asked"),
    "stream.closing": _("Closing the stream"), "stream.closed": _("Stream proven closed"),
    "stream.watched": _("Closing not provable: watched"), "stream.taken_back": _("Chosen again"),
    "stream.failed": _("Refused by the channel"), "stream.succeeded": _("Money taken"),
    "stream.adopted": _("Money found that no stream explains"), "stream.promoted": _("Accepted as the order's payment"),
    "stream.facts": _("The channel reports new amounts"),
    "refund.requested": _("Refund decided"), "refund.approved": _("Refund approved"),
    "refund.declined": _("Refund declined"), "refund.submitted": _("Refund at the channel"),
    "refund.unknown": _("Refund: outcome unknown"), "refund.attention": _("Refund needs a person at the channel"),
    "refund.succeeded": _("Money given back"), "refund.rejected": _("Refund refused"),
    "refund.retried": _("Refund sent again"), "refund.written_off": _("Refund given up"),
    "refund.returned": _("Refund came back from the bank"),
    "case.opened": _("Case opened"), "case.grown": _("More money at stake"), "case.repairing": _("Repair started"),
    "case.handed_to_person": _("Handed to a person"), "case.resolved": _("Case resolved"),
    "message.pending": _("Message sent again"), "message.skipped": _("Message skipped"),
}  # fmt: skip
FACT_NAMES: dict[str, Any] = {
    "account": _("channel"), "method": _("method"), "amount_minor": _("amount"), "captured_minor": _("captured"),
    "refunded_minor": _("refunded"), "was_minor": _("was"), "disputed_minor": _("disputed"),
    "reversed_minor": _("reversed"), "expected_minor": _("expected"), "currency": _("currency"), "reason": _("reason"),
    "role": _("role"), "surplus": _("why surplus"), "channel_reference": _("channel reference"),
    "confirmed_by": _("confirmed by"), "expires_at": _("expires"), "proof": _("proof"), "code": _("code"),
    "approved_by": _("approved by"), "purpose": _("purpose"), "case": _("case"), "summary": _("summary"),
    "decision": _("decision"), "why": _("why"), "origin": _("number at the channel"), "was": _("was"),
    "payable_until": _("payable until"), "was_currency": _("was"), "keeper": _("keeper"),
}  # fmt: skip
STATE_NAMES: dict[str, Any] = {
    kind: dict(states.choices)
    for kind, states in (
        ("order", OrderState), ("stream", StreamState), ("refund", RefundState), ("case", DiscrepancyState)
    )
}  # fmt: skip


HIDDEN_FACTS = ("currency", "summary")
"""Said elsewhere on the page: in the amounts, and in the list of cases."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the timeline."""

    sequence: int
    at: datetime
    after: str
    who: str
    what: str
    subject: str
    state_from: str
    state_to: str
    tone: str
    facts: tuple[tuple[str, str], ...]
    hash: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """The lines, oldest first, and whether the hash chain verifies; `broken` says where it does not."""

    entries: tuple[Entry, ...]
    is_verified: bool
    broken: str

    @property
    def verified(self) -> str:
        """One sentence for the badge."""
        return verified_text(self)


def read(order: Order, using: str) -> Timeline:
    """An order's whole history, verified. An event that commits while we read is no broken history: read again."""
    for _try in range(3):
        events = list(Event.objects.using(using).filter(order_id=order.pk).order_by("sequence"))
        if events and events[-1].hash == order.event_hash:
            break
        order.refresh_from_db(using=using, fields=["version", "event_hash"])
    return build(order, events)


def build(order: Order, events: Iterable[Event]) -> Timeline:
    """The timeline of these events, which are the order's whole history."""
    rows = list(events)
    broken = ""
    try:
        verify_chain(order, rows)
    except EventChainBroken as error:
        broken = str(error)
    entries, previous = [], None
    for event in rows:
        entries.append(_entry(event, previous, order.currency))
        previous = event.at
    return Timeline(tuple(entries), not broken, broken)


def name_of(kind: str) -> str:
    """An event's kind in words."""
    return str(EVENT_NAMES.get(kind, kind))


def facts_of(body: str, currency: str) -> tuple[tuple[str, str], ...]:
    """An event's facts as label and text; amounts in their currency."""
    facts = json.loads(body).get("facts", {})
    money_in = facts.get("currency") or currency
    return tuple(
        (str(FACT_NAMES.get(name, name)), _fact(name, value, money_in))
        for name, value in facts.items()
        if name not in HIDDEN_FACTS
    )


def _fact(name: str, value: Any, currency: str) -> str:
    if name.endswith("_minor") and isinstance(value, int):
        return to_text(value, currency)
    if name.endswith(("_at", "_until")) and isinstance(value, str):
        return value[:19].replace("T", " ") + " UTC"
    return sentences.in_own_language(words.say(name, value))


def _entry(event: Event, previous: datetime | None, currency: str) -> Entry:
    about = event.kind.partition(".")[0]
    names = STATE_NAMES.get(about, {})
    tones = present.TONES_OF.get({"case": "discrepancy"}.get(about, about), {})
    return Entry(
        sequence=event.sequence, at=event.at, after="" if previous is None else "+" + present.span(event.at - previous),
        who=present.who(event.actor), what=name_of(event.kind), subject=event.subject,
        state_from=str(names.get(event.state_from, event.state_from)), tone=tones.get(event.state_to, "wait"),
        state_to=str(names.get(event.state_to, event.state_to)), facts=facts_of(event.body, currency), hash=event.hash,
    )  # fmt: skip


def verified_text(timeline: Timeline) -> str:
    """One sentence for the badge."""
    if timeline.is_verified:
        return gettext("%(count)d events, hash chain verified") % {"count": len(timeline.entries)}
    return gettext("History does not verify: %(why)s") % {"why": timeline.broken}
