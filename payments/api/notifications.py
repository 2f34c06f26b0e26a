"""Where channels deliver their notifications."""

import logging

from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.views.decorators.csrf import csrf_exempt

from payonce.channels.messages import NotificationRequest
from payonce.payments import notify
from payonce.payments.api.base import outside_transactions
from payonce.payments.api.problems import Problem, answer_problem

log = logging.getLogger("payonce.notify")


@csrf_exempt
@outside_transactions
def take_notification(request: HttpRequest, account: str) -> HttpResponse:
    """A channel's notification: bounded, verified as received, answered in the channel's own words."""
    if request.method != "POST":
        problem = Problem(405, "method_not_allowed", "Notifications are sent by POST.")
        answer = answer_problem(problem, request)
        answer.headers["Allow"] = "POST"
        return answer
    try:
        body = _read_body(request)
    except UnreadablePostError:
        return HttpResponse(b"unreadable", status=400, content_type="text/plain")
    if body is None:
        return HttpResponse(b"too large", status=413, content_type="text/plain")
    headers = {name.lower(): value for name, value in request.headers.items()}
    message = NotificationRequest(body=body, headers=headers, query=str(request.META.get("QUERY_STRING", "")))
    try:
        result = notify.receive(account, message)
    except Exception:
        # Not verified or not durable, so never a success: a genuine sender comes again.
        log.exception("a notification for %s could not be read", account)
        return HttpResponse(b"try again", status=503, content_type="text/plain", headers={"Retry-After": "5"})
    said = result.answer
    return HttpResponse(said.body, status=said.status, content_type=said.content_type)


def _read_body(request: HttpRequest) -> bytes | None:
    """The exact bytes, or None when there are too many; no more than the bound is ever read."""
    length = str(request.META.get("CONTENT_LENGTH") or "0")
    if length.isascii() and length.isdecimal() and int(length[:12]) > notify.BODY_BYTES_MAX:
        return None
    body = request.read(notify.BODY_BYTES_MAX + 1)
    return None if len(body) > notify.BODY_BYTES_MAX else body
