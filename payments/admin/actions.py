"""What an operator can do with a row: a tool on its page, a confirmation page, and the one step that does it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django import forms
from django.http import HttpRequest

Facts = Mapping[str, str]
"""What a page showed, as label and text: it says what changed when a form turns out to be stale."""


@dataclass(frozen=True, slots=True)
class Operator:
    """The signed-in user, as steps and events name it."""

    username: str

    @classmethod
    def of(cls, request: HttpRequest) -> "Operator":
        """Who sends this request."""
        return cls(request.user.get_username())

    @property
    def by(self) -> str:
        """The actor of events: `operator:<username>`."""
        return f"operator:{self.username}"


@dataclass(frozen=True, slots=True)
class Result:
    """What an action came to. `made` is the number or word that a repeat of the same POST answers with.

    One that did nothing has `is_done` False and the reason as its text; a stale one lets the operator look again.
    """

    text: str
    level: str = "success"
    is_done: bool = True
    is_stale: bool = False
    made: str = "done"


def refused(text: str) -> Result:
    """The step did nothing, for this reason."""
    return Result(text, "error", is_done=False)


def stale() -> Result:
    """What the operator saw is no longer so; the page says what changed."""
    return Result("", "error", is_done=False, is_stale=True)


@dataclass(frozen=True, slots=True)
class Tool:
    """An action as its row's page shows it: a link, or the reason why not."""

    label: str
    url: str
    why_not: str
    is_money: bool


class ConfirmForm(forms.Form):
    """The form of every confirmation page. `seen` is what the page showed, signed; `token` makes the POST count once."""

    seen = forms.CharField(widget=forms.HiddenInput, max_length=4000)
    token = forms.CharField(widget=forms.HiddenInput, max_length=64)

    def __init__(self, *args: Any, row: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.row = row


def _no_facts(row: Any) -> Facts:
    return {}


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that an operator can do. Texts are lazy translations.

    `refusal(row, operator)` is why it cannot be done now, or an empty text. `act(row, operator, data)` calls the one step.
    `facts(row)` is what the decision rests on.
    """

    name: str
    label: Any
    permission: str
    explain: Callable[[Any], Sequence[Any]]
    refusal: Callable[[Any, Operator], Any]
    act: Callable[[Any, Operator, dict[str, Any]], Result]
    facts: Callable[[Any], Facts] = _no_facts
    form: type[ConfirmForm] = ConfirmForm
    is_money: bool = False
    context: Callable[[Any], dict[str, Any]] = field(default=lambda row: {})

    def tool(self, row: Any, operator: Operator, url: str, is_allowed: bool) -> Tool:
        """The action on the row's page; a disabled one says why."""
        from django.utils.translation import gettext

        why_not = (
            str(self.refusal(row, operator)) if is_allowed else gettext("Your account has no permission for this.")
        )
        return Tool(str(self.label), url, why_not, self.is_money)
