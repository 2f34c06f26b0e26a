"""How the console shows things: a state as shape and word, a number to copy, an amount, a moment, a person."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.db import models
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext

from payonce.channels import registry
from payonce.channels.errors import ChannelError
from payonce.orders.statuses import OrderState
from payonce.payments.amounts import to_text
from payonce.payments.statuses import DiscrepancyState, MessageState, NotificationState, RefundState, StreamState

SHAPES = {"good": "●", "wait": "○", "busy": "◐", "warn": "▲", "bad": "✖", "end": "■"}
"""Never colour alone."""
TONES: dict[Any, str] = {
    OrderState.OPEN: "wait", OrderState.CLOSING: "busy", OrderState.CLOSED: "end", OrderState.PAID: "good",
    OrderState.REFUNDED: "end",
}  # fmt: skip
TONES_OF: dict[str, dict[str, str]] = {
    "order": {str(state): tone for state, tone in TONES.items()},
    "stream": {
        StreamState.CREATED: "wait", StreamState.PENDING: "wait", StreamState.PROCESSING: "busy",
        StreamState.CAPTURING: "busy", StreamState.CLOSING: "busy", StreamState.CLOSED: "end", StreamState.FAILED: "bad",
        StreamState.SUCCEEDED: "good",
    },
    "refund": {
        RefundState.AWAITING_APPROVAL: "warn", RefundState.REQUESTED: "busy", RefundState.SUBMITTED: "busy",
        RefundState.UNKNOWN: "warn", RefundState.ATTENTION: "warn", RefundState.SUCCEEDED: "good",
        RefundState.REJECTED: "bad", RefundState.DECLINED: "end", RefundState.RETURNED: "bad",
    },
    "notification": {
        NotificationState.RECEIVED: "warn", NotificationState.PROCESSED: "good", NotificationState.FORGED: "bad",
    },
    "discrepancy": {
        DiscrepancyState.OPEN: "warn", DiscrepancyState.REPAIRING: "busy", DiscrepancyState.RESOLVED: "good",
    },
    "shopmessage": {
        MessageState.PENDING: "wait", MessageState.DELIVERED: "good", MessageState.PARKED: "warn",
        MessageState.SKIPPED: "end",
    },
}  # fmt: skip


def badge(tone: str, word: Any) -> SafeString:
    """A shape and a word."""
    return format_html(
        '<span class="payonce-state payonce-{}"><span aria-hidden="true">{}</span> {}</span>', tone, SHAPES[tone], word
    )


def state_badge(row: models.Model) -> SafeString:
    """The row's state."""
    concrete: type[models.Model] = row._meta.concrete_model or type(row)
    state: Any = row
    return badge(TONES_OF[concrete._meta.model_name or ""].get(state.state, "wait"), state.get_state_display())


def money(amount_minor: int, currency: str) -> SafeString:
    """An amount with its exact decimals."""
    return format_html('<span class="payonce-money">{}</span>', to_text(amount_minor, currency))


def copyable(text: Any) -> SafeString | str:
    """A number that one click selects."""
    return format_html('<code class="payonce-copy">{}</code>', text) if text else "–"


def moment(at: datetime | None) -> SafeString | str:
    """A time in the site's time zone, to the second."""
    if at is None:
        return "–"
    local = timezone.localtime(at)
    return format_html(
        '<time class="payonce-time" datetime="{}">{}</time>', local.isoformat(), date_format(local, "Y-m-d H:i:s")
    )


def span(length: timedelta) -> str:
    """A length of time in its largest unit: `40 ms`, `12 s`, `3 min`, `5 h`, `2 days`."""
    seconds = length.total_seconds()
    if seconds < 1:
        return gettext("%(count)d ms") % {"count": max(round(seconds * 1000), 0)}
    if seconds < 120:
        return gettext("%(count)d s") % {"count": int(seconds)}
    if seconds < 7_200:
        return gettext("%(count)d min") % {"count": int(seconds // 60)}
    if seconds < 172_800:
        return gettext("%(count)d h") % {"count": int(seconds // 3_600)}
    days = int(seconds // 86_400)
    return ngettext("%(count)d day", "%(count)d days", days) % {"count": days}


def age(at: datetime | None, now: datetime) -> str:
    """How long ago."""
    return "–" if at is None else span(now - at)


def link(url: str, text: Any) -> SafeString | str:
    """A link where there is an address."""
    return format_html('<a href="{}">{}</a>', url, text) if url else str(text)


def who(actor: str) -> str:
    """An event's actor in words."""
    kind, _, name = actor.partition(":")
    words = {
        "operator": gettext("operator %(name)s"), "channel": gettext("channel %(name)s"),
        "shop": gettext("shop %(name)s"), "system": gettext("payonce (%(name)s)"),
    }  # fmt: skip
    if actor == "buyer":
        return gettext("buyer")
    return words[kind] % {"name": name} if kind in words else actor


def adapter_of(account: str) -> str:
    """The short name of the account's adapter, or an empty text when it is not configured."""
    try:
        return registry.channel(account).adapter
    except ChannelError:
        return ""


def mode_badge(accounts: Iterable[str]) -> SafeString:
    """TEST where a sandbox takes part, LIVE otherwise; nothing where no configured account is known."""
    adapters = {adapter_of(account) for account in accounts} - {""}
    if not adapters:
        return SafeString("")
    is_test = "sandbox" in adapters
    name = gettext("TEST") if is_test else gettext("LIVE")
    return format_html('<span class="payonce-mode payonce-mode-{}">{}</span>', "test" if is_test else "live", name)


def lines(texts: Iterable[Any]) -> SafeString:
    """Texts, each on a line of its own."""
    return format_html_join(SafeString("<br>"), "{}", ((text,) for text in texts))
