"""Template filters of the console.

Django imports every tag library while it sets templates up, which django-unfold does while it is itself being imported: so
the console, which takes unfold's base class, is only imported when a filter runs.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from django import template
from django.db import models

if TYPE_CHECKING:
    from types import ModuleType

register = template.Library()


def _present() -> "ModuleType":
    from payonce.payments.admin import present

    return present


@register.filter
def money(amount_minor: int, currency: str) -> str:
    """`{{ refund.amount_minor|money:refund.currency }}`."""
    shown: str = _present().money(amount_minor, currency)
    return shown


@register.filter
def moment(at: datetime | None) -> str:
    """A time to the second."""
    shown: str = _present().moment(at)
    return shown


@register.filter
def copyable(text: Any) -> str:
    """A number that one click selects."""
    shown: str = _present().copyable(text) if text else ""
    return shown


@register.filter
def badge(tone: str, word: Any) -> str:
    """`{{ "good"|badge:word }}`."""
    shown: str = _present().badge(tone, word)
    return shown


@register.filter
def state_badge(row: models.Model) -> str:
    """A row's state."""
    shown: str = _present().state_badge(row)
    return shown


@register.filter
def event_name(kind: str) -> str:
    """An event's kind in words."""
    from payonce.payments.admin import timeline

    return timeline.name_of(kind)


@register.filter
def reason_name(reason: str) -> str:
    """Why a refund is made, in words."""
    from payonce.payments.admin import words

    return words.say("reason", reason)


@register.filter
def case_sentence(case: Any) -> str:
    """What a case is about."""
    from payonce.payments.admin import facts

    return facts.case_sentence(case)


@register.filter
def case_note(case: Any) -> str:
    """Why a case is a person's, or what was decided about it."""
    from payonce.payments.admin import facts

    return facts.case_note(case)


@register.simple_tag(takes_context=True)
def row_url(context: template.Context, row: models.Model) -> str:
    """The page of a row on this admin site."""
    page = context["page"]
    return str(page.link_to(row))
