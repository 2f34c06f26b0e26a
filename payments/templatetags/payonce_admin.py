"""Template filters of the console."""

from datetime import datetime
from typing import Any

from django import template
from django.db import models

from payonce.payments.admin import present, timeline

register = template.Library()


@register.filter
def money(amount_minor: int, currency: str) -> str:
    """`{{ refund.amount_minor|money:refund.currency }}`."""
    return present.money(amount_minor, currency)


@register.filter
def moment(at: datetime | None) -> str:
    """A time to the second."""
    return present.moment(at)


@register.filter
def copyable(text: Any) -> str:
    """A number that one click selects."""
    return present.copyable(text) if text else ""


@register.filter
def badge(tone: str, word: Any) -> str:
    """`{{ "good"|badge:word }}`."""
    return present.badge(tone, word)


@register.filter
def state_badge(row: models.Model) -> str:
    """A row's state."""
    return present.state_badge(row)


@register.filter
def event_name(kind: str) -> str:
    """An event's kind in words."""
    return timeline.name_of(kind)


@register.simple_tag(takes_context=True)
def row_url(context: template.Context, row: models.Model) -> str:
    """The page of a row on this admin site."""
    page = context["page"]
    return str(page.link_to(row))
