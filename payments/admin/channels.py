"""Channels: health of every outside party and of every configured account, with fingerprints of keys and never a key."""

import hashlib
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from payonce.channels import registry
from payonce.channels.errors import ChannelError
from payonce.orders.conf import get_settings
from payonce.payments import clock
from payonce.payments.admin import confirm, present
from payonce.payments.admin.base import ConsoleAdmin, display
from payonce.payments.admin.facts import Fact
from payonce.payments.models import ChannelState
from payonce.payments.schedule import BREAKER_FAILURES

NEVER_SECRET = ("adapter", "display_name", "base_url")
"""Shown whatever the adapter is. Of what an adapter does not declare as harmless, only a fingerprint is shown."""


@dataclass(frozen=True, slots=True)
class Health:
    """One outside party: how it does, and since when."""

    name: str
    kind: str
    badge: Any
    facts: tuple[Fact, ...]


def fingerprint(value: Any) -> str:
    """Tells two keys apart and reveals neither: the first 12 hex digits of a SHA-256."""
    data = value if isinstance(value, bytes) else str(value).encode()
    return "sha256:" + hashlib.sha256(b"payonce-fingerprint:" + data).hexdigest()[:12]


def overall() -> list[Health]:
    """Configured accounts first, then endpoints and processes that have reported."""
    rows = {row.name: row for row in ChannelState.objects.using(get_settings().DATABASE).order_by("name")[:200]}
    accounts = [_account(name, rows.pop(name, None)) for name in get_settings().CHANNELS]
    return accounts + [_other(row) for row in rows.values()]


def health_badge(row: ChannelState | None) -> Any:
    """The breaker in a shape and a word."""
    if row is None or (row.last_success_at is None and row.last_failure_at is None):
        return present.badge("wait", gettext("not asked yet"))
    if row.open_until is not None and row.open_until > clock.about_now():
        return present.badge("bad", gettext("breaker open"))
    if row.failure_count >= BREAKER_FAILURES:
        return present.badge("warn", gettext("being tried again"))
    if row.failure_count:
        return present.badge("warn", gettext("failing"))
    return present.badge("good", gettext("answers"))


def _account(name: str, row: ChannelState | None) -> Health:
    options = get_settings().CHANNELS[name]
    try:
        registry.channel(name)
        problem = ""
    except ChannelError as error:
        problem = type(error).__name__
    harmless = _harmless(name)
    facts = [_option(key, value, harmless) for key, value in options.items()]
    if problem:
        facts.insert(0, Fact(gettext("Not usable"), problem))
    badge = present.badge("bad", gettext("not configured")) if problem else health_badge(row)
    return Health(name, gettext("channel account"), badge, (*facts, *_times(row)))


def _other(row: ChannelState) -> Health:
    kind, _colon, rest = row.name.partition(":")
    names = {"message": gettext("endpoint of the shop"), "process": gettext("process")}
    known = names.get(kind) if rest else None
    return Health(rest or row.name, known or gettext("account that is not configured"), health_badge(row), _times(row))


def _harmless(account: str) -> frozenset[str]:
    """The options that the account's adapter declares, and not as secret."""
    try:
        specs = registry.channel(account).option_specs
    except ChannelError:
        specs = ()
    return frozenset(NEVER_SECRET) | {spec.name for spec in specs if not spec.secret}


def _option(key: str, value: Any, harmless: frozenset[str]) -> Fact:
    if key in harmless:
        return Fact(key, str(value))
    return Fact(key, present.copyable(fingerprint(value)))


def _times(row: ChannelState | None) -> tuple[Fact, ...]:
    if row is None:
        return ()
    heard = (
        [Fact(gettext("Last notification"), present.moment(row.last_notification_at))]
        if row.last_notification_at
        else []
    )
    return (
        *heard,
        Fact(gettext("Failures in a row"), row.failure_count),
        Fact(gettext("Not asked before"), present.moment(row.open_until)),
        Fact(gettext("Last success"), present.moment(row.last_success_at)),
        Fact(gettext("Last failure"), present.moment(row.last_failure_at)),
        Fact(gettext("Last failure text"), row.last_failure or "–"),
        Fact(gettext("Notifications about other numbers"), row.foreign_count),
    )


class ChannelAdmin(ConsoleAdmin):
    """One page for all: a shop has a handful of channels."""

    list_display = ("name", "shown_health")
    search_fields = ()

    @display(_("health"))
    def shown_health(self, row: ChannelState) -> str:
        """The breaker."""
        return str(health_badge(row))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """All of them, configured or not."""
        confirm.require(self.has_view_permission(request) and request.method in ("GET", "HEAD"))
        context = self.page_context(request, title=gettext("Channels"), parties=overall())
        return TemplateResponse(request, "payonce/admin/channels.html", context)

    def page(self, request: HttpRequest, row: ChannelState) -> dict[str, Any]:
        """The row alone."""
        return {"heading": row.name, "badge": health_badge(row), "summary": list(_times(row))}
