"""Live updates: a status that is held until it changes (`Prefer: wait=25`), and a stream of events (SSE).

Both are plain async views. Under WSGI there is nothing to wait on: `wait` is ignored and the stream answers 406.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import connections
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.request import Request
from rest_framework.response import Response

from payonce.orders.conf import get_settings
from payonce.orders.models import Event
from payonce.payments.api.base import ApiView, described, find_order, outside_transactions
from payonce.payments.api.hub import hub
from payonce.payments.api.orders import PROBLEMS, OrderView
from payonce.payments.api.problems import Problem

WAIT_SECONDS_MAX = 30
STREAM_SECONDS = 300
HEARTBEAT_SECONDS = 15
EVENTS_PER_READ = 200


class EventsView(ApiView):
    """Who may follow an order's events; the stream itself is `follow_events`."""

    @described(
        operation_id="follow_events",
        summary="Server-sent events of an order, from its first or after Last-Event-ID (ASGI only)",
        parameters=[
            OpenApiParameter("Last-Event-ID", int, "header", description="Sequence of the last event that was received")
        ],
        responses={(200, "text/event-stream"): OpenApiResponse(str, description="One event per change"), **PROBLEMS},
    )
    def get(self, request: Request, number: str) -> Response:
        """200 for whoever may follow the order."""
        find_order(self.caller, number)
        if not isinstance(request._request, ASGIRequest):  # noqa: SLF001 - DRF has no public name for it
            raise Problem(
                406, "needs_asgi", "This server cannot stream. Ask for the status instead, with If-None-Match."
            )
        return Response()


_status = OrderView.as_view()
_may_follow = EventsView.as_view()


@csrf_exempt
@outside_transactions
async def show_status(request: HttpRequest, number: str) -> HttpResponseBase:
    """The status; with `Prefer: wait=…` under ASGI, once it is another one than the caller has, or the time is over."""
    seconds = _seconds_to_wait(request)
    if not seconds or not isinstance(request, ASGIRequest):
        return await sync_to_async(_status)(request, number=number)  # type: ignore[no-any-return]
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    known = str(request.META.get("HTTP_IF_NONE_MATCH", ""))
    async with hub().watch(number, seen=2**62) as watch:
        while True:
            watch.woken.clear()
            response = await sync_to_async(_ask)(_status, request, number)
            tag = response.headers.get("ETag", "")
            known = known or tag
            is_final = bool((response.data or {}).get("final"))
            left = until - loop.time()
            if response.status_code >= 400 or tag not in known or is_final or left <= 0:
                break
            watch.seen = int(re.sub(r"\D", "", tag))
            await watch.changed(left)
    response.headers["Preference-Applied"] = f"wait={seconds}"
    return response


@csrf_exempt
@outside_transactions
async def follow_events(request: HttpRequest, number: str) -> HttpResponseBase:
    """The order's events as they come. Ends after some minutes; the client resumes by the last event's number."""
    response: Response = await sync_to_async(_ask)(_may_follow, request, number)
    if response.status_code != 200 or request.method == "HEAD":
        return response
    last = str(request.META.get("HTTP_LAST_EVENT_ID", ""))
    after = int(last) if last.isascii() and last.isdecimal() and len(last) <= 18 else 0
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(_events(number, after), content_type="text/event-stream", headers=headers)


# The API description reads the class behind an address.
show_status.cls, show_status.initkwargs = OrderView, {}  # type: ignore[attr-defined]
follow_events.cls, follow_events.initkwargs = EventsView, {}  # type: ignore[attr-defined]


async def _events(number: str, after: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    until = loop.time() + STREAM_SECONDS
    async with hub().watch(number, seen=after) as watch:
        yield b"retry: 3000\n\n"
        while loop.time() < until:
            watch.woken.clear()
            rows = await sync_to_async(read_events, thread_sensitive=False)(number, after)
            for row in rows:
                after = watch.seen = row["sequence"]
                yield f"id: {after}\nevent: {row['kind']}\ndata: {json.dumps(row)}\n\n".encode()
            if len(rows) < EVENTS_PER_READ and not await watch.changed(HEARTBEAT_SECONDS):
                yield b": still here\n\n"


def read_events(number: str, after: int) -> list[dict[str, Any]]:
    """An order's events after a sequence, as the buyer may see them: no operator's name, no evidence."""
    using = get_settings().DATABASE
    try:
        rows = Event.objects.using(using).filter(order__number=number, sequence__gt=after).order_by("sequence")
        return [
            {
                "order": number,
                "sequence": row.sequence,
                "kind": row.kind,
                "subject": row.subject,
                "from": row.state_from,
                "to": row.state_to,
                "at": row.at.isoformat(),
            }
            for row in rows[:EVENTS_PER_READ]
        ]
    finally:
        connections[using].close()


def _ask(view: Any, request: HttpRequest, number: str) -> Response:
    """Run a view that reads, and give the connection back before anybody waits."""
    try:
        answer: Response = view(request, number=number)
        return answer
    finally:
        connections[get_settings().DATABASE].close()


def _seconds_to_wait(request: HttpRequest) -> int:
    found = re.search(r"(?:^|[,;\s])wait=([0-9]{1,6})(?:$|[,;\s])", str(request.META.get("HTTP_PREFER", "")))
    return min(int(found.group(1)), WAIT_SECONDS_MAX) if found else 0
