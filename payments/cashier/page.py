"""Renders the cashier page: what the template needs, the QR code as SVG, and headers that let nothing else in."""

import base64
import hashlib
import json
from typing import Any
from urllib.parse import urlsplit

import segno
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.cache import patch_vary_headers
from django.utils.safestring import SafeString

from payonce.channels.messages import PrepayKind
from payonce.payments.api.standing import Standing
from payonce.payments.cashier import choices, screens
from payonce.payments.cashier.screens import Screen
from payonce.payments.cashier.visit import Visit
from payonce.payments.models import Stream

NOTICES = frozenset({"declined", "unavailable", "busy", "waiting", "changed"})
REFRESH_SECONDS_MIN = 3


def render_page(request: HttpRequest, visit: Visit, standing: Standing, notice: str = "") -> HttpResponse:
    """The page as the order stands."""
    screen = screens.screen_of(standing)
    stream = standing.open_stream if screen in (Screen.PAY_NOW, Screen.CODE_EXPIRED) else None
    interval = standing.next_poll_ms
    context = {
        "screen": screen.value,
        "order": standing.order,
        "amount": choices.write_amount(standing.order.amount_minor, standing.order.currency),
        "visit": visit,
        "notice": notice if notice in NOTICES else "",
        "choices": choices.choices_for(standing.order) if _may_choose(screen) else [],
        "stream": stream,
        "current": f"{stream.account}:{stream.method}" if stream else "",
        "channel_name": choices.channel_name(stream.account) if stream else "",
        "handover": _handover(stream) if stream and screen is Screen.PAY_NOW else {},
        "is_switching": screens.is_switching(standing),
        "is_nothing_taken": screens.is_nothing_taken(standing),
        "surplus": _surplus(standing),
        "refresh_seconds": max(REFRESH_SECONDS_MIN, interval // 1000) if interval else 0,
        "poll": {"screen": screen.value, "version": standing.order.version, "ms": interval},
    }
    action = str(context["handover"].get("action", "")) if isinstance(context["handover"], dict) else ""
    return respond(request, "payonce/cashier/order.html", context, form_target=action)


def respond(
    request: HttpRequest, template: str, context: dict[str, Any], *, status: int = 200, form_target: str = ""
) -> HttpResponse:
    """Render a template of the cashier with its style and script inside, allowed by their hashes alone."""
    style = render_to_string("payonce/cashier/style.css", request=request)
    script = render_to_string("payonce/cashier/script.js", request=request) if context.get("poll") else ""
    page = render_to_string(
        template, {**context, "style": SafeString(style), "script": SafeString(script)}, request=request
    )
    response = HttpResponse(page, status=status)
    for name, value in _headers(style, script, form_target).items():
        response.headers[name] = value
    patch_vary_headers(response, ("Accept-Language", "Cookie"))
    return response


def _headers(style: str, script: str, form_target: str) -> dict[str, str]:
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(form_target)) if form_target else ""
    policy = [
        "default-src 'none'",
        f"style-src '{_hash(style)}'",
        *([f"script-src '{_hash(script)}'"] if script else []),
        "connect-src 'self'",
        f"form-action 'self' {origin}".strip(),
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
    return {
        "Content-Security-Policy": "; ".join(policy),
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Robots-Tag": "noindex",
    }


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _may_choose(screen: Screen) -> bool:
    return screen in (Screen.CHOOSE, Screen.PAY_NOW, Screen.CODE_EXPIRED)


def _handover(stream: Stream) -> dict[str, Any]:
    """How the page hands the buyer over: a code to scan, a link, or a form. Only http(s) addresses become links."""
    value, kind = stream.prepay_value, stream.prepay_kind
    if kind == PrepayKind.FORM:
        try:
            form = json.loads(value)
            fields = {str(name): str(item) for name, item in form["fields"].items()}
            return {"kind": "form", "action": _link(str(form["action"])), "fields": fields}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {"kind": "unusable"}
    if kind == PrepayKind.QR:
        return {"kind": "qr", "svg": _draw(value), "text": value, "link": _link(value)}
    link = _link(value)
    return {"kind": "redirect", "link": link} if link else {"kind": "unusable"}


def _link(value: str) -> str:
    return value if value.startswith(("https://", "http://")) else ""


def _draw(value: str) -> SafeString:
    code = segno.make(value, error="m", micro=False)
    svg = code.svg_inline(border=4, dark="#000", light="#fff", svgclass=None, lineclass=None, omitsize=True)
    return SafeString(svg.replace("<svg ", '<svg role="img" aria-labelledby="code-title" ', 1))


def _surplus(standing: Standing) -> list[dict[str, str]]:
    return [
        {
            "amount": choices.write_amount(stream.captured_minor, stream.captured_currency or stream.currency),
            "channel": choices.channel_name(stream.account),
            "state": screens.given_back(standing, stream).value,
        }
        for stream in standing.surplus
    ]
