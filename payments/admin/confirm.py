"""The confirmation page: GET shows what would happen, POST calls the one step, once, unless the page was stale."""

import logging
import secrets
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.core import signing
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext

from payonce.errors import PayonceError
from payonce.payments.admin import once
from payonce.payments.admin.actions import Action, ConfirmForm, Operator, Result, refused, stale
from payonce.payments.errors import InsideTransaction

if TYPE_CHECKING:
    from payonce.payments.admin.base import ConsoleAdmin

log = logging.getLogger("payonce.admin")
SALT = "payonce.admin.seen"
NOT_VALUES = ("csrfmiddlewaretoken", "seen", "token")
LEVELS = {"success": messages.SUCCESS, "info": messages.INFO, "warning": messages.WARNING, "error": messages.ERROR}


def require(allowed: bool) -> None:
    """Raise PermissionDenied unless allowed."""
    if not allowed:
        raise PermissionDenied


def respond(page: "ConsoleAdmin", request: HttpRequest, row: Any, action: Action) -> HttpResponse:
    """Answer a request for a confirmation page of an action on a row. The caller checked the permissions."""
    if request.method != "POST":
        return _show(page, request, row, action, _new_form(row, action))
    operator = Operator.of(request)
    values = {name: str(value) for name, value in request.POST.items() if name not in NOT_VALUES}
    route = f"admin:{page.url_name(action.name)}:{row.pk}"
    token = request.POST.get("token", "")[:64].replace("\x00", "")
    claimed = once.claim(operator.by, route, token, values)
    if claimed.why_not:
        return _repeat(page, request, row, claimed)
    form = action.form(request.POST, row=row)
    try:
        result = _run(row, action, form, operator)
    except BaseException:
        once.give_up(claimed.record)
        raise
    if result is not None and result.is_done:
        once.finish(claimed.record, result.made)
        page.log_change(request, row, f"{action.name}: {result.made}")
    else:
        once.give_up(claimed.record)
    if result is not None and not result.is_done and not result.is_stale:
        fresh = page.row_or_404(request, row.pk)
        if what_changed(fresh, action, request.POST.get("seen", "")):
            result = stale()  # refused for what someone else did in this moment: show that
    if result is None:
        return _show(page, request, row, action, form, status=422)
    if result.is_stale:
        return _look_again(page, request, row, action)
    messages.add_message(request, LEVELS[result.level], result.text)
    return HttpResponseRedirect(page.link("change", row.pk))


def _run(row: Any, action: Action, form: ConfirmForm, operator: Operator) -> Result | None:
    """What the form came to; None when a field is wrong. What changed and what is refused comes before the fields."""
    if what_changed(row, action, form.data.get("seen", "")):
        return stale()
    why_not = str(action.refusal(row, operator))
    if why_not:
        return refused(why_not)
    if not form.is_valid():
        return None
    try:
        return action.act(row, operator, form.cleaned_data)
    except InsideTransaction:
        raise
    except OperationalError:
        log.exception("%s on %s could not be done", action.name, row)
        return refused(
            gettext("The database was busy with this order. Nothing is lost: look at the page, and try again.")
        )
    except PayonceError as error:
        log.warning("%s on %s was refused: %s", action.name, row, error)
        return refused(str(error))


def what_changed(row: Any, action: Action, seen: str) -> list[tuple[str, str, str]]:
    """(label, what the page showed, what is so now) for each fact that differs; a forged or foreign text differs wholly."""
    now = dict(action.facts(row))
    try:
        then: dict[str, str] = signing.loads(seen, salt=SALT)
    except signing.BadSignature:
        return [(gettext("form"), gettext("not made for you"), "")]
    return [
        (label, then.get(label, ""), now.get(label, ""))
        for label in {**then, **now}
        if then.get(label, "") != now.get(label, "")
    ]


def _new_form(row: Any, action: Action) -> ConfirmForm:
    initial = {"seen": signing.dumps(dict(action.facts(row)), salt=SALT), "token": secrets.token_urlsafe(24)}
    return action.form(row=row, initial=initial)


def _show(
    page: "ConsoleAdmin", request: HttpRequest, row: Any, action: Action, form: ConfirmForm, *, status: int = 200,
    changed: list[tuple[str, str, str]] | None = None,
) -> HttpResponse:  # fmt: skip
    context = page.page_context(
        request, row, title=str(action.label), action=action, form=form, changed=changed or [],
        facts=action.facts(row).items(), why_not=str(action.refusal(row, Operator.of(request))),
        explanations=action.explain(row), **action.context(row),
    )  # fmt: skip
    return TemplateResponse(request, "payonce/admin/confirm.html", context, status=status)


def _look_again(page: "ConsoleAdmin", request: HttpRequest, row: Any, action: Action) -> HttpResponse:
    """Nothing was done: show what changed, and a new form that knows it."""
    fresh = page.row_or_404(request, row.pk)
    changed = what_changed(fresh, action, request.POST.get("seen", ""))
    return _show(page, request, fresh, action, _new_form(fresh, action), status=409, changed=changed or [("", "", "")])


def _repeat(page: "ConsoleAdmin", request: HttpRequest, row: Any, claimed: once.Claim) -> HttpResponse:
    texts = {
        "made": gettext("This form was sent before. It was done once: %(made)s.") % {"made": claimed.record.made},
        "running": gettext("This form was sent before and is still at work. Reload this page in a moment."),
        "other": gettext("This form was sent before with other values. Open it again."),
    }
    level = messages.INFO if claimed.why_not == "made" else messages.WARNING
    messages.add_message(request, level, texts[claimed.why_not])
    return HttpResponseRedirect(page.link("change", row.pk))
