"""Every error of the API as RFC 9457 problem details, with a `code` that a program can match."""

import logging
import sys
from dataclasses import dataclass, field
from typing import Any

from django.core import signals
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import DatabaseError, InterfaceError
from django.http import Http404, HttpRequest, JsonResponse
from rest_framework import exceptions
from rest_framework.response import Response

from payonce.orders.errors import AmendRefused, InvalidOrder, OrderNotFound, PlaceConflict
from payonce.payments.errors import ConstraintViolated, RefundNotFound, StreamNotFound, UnknownChannel

log = logging.getLogger("payonce.api")
CONTENT_TYPE = "application/problem+json"
TITLES = {
    400: "The request cannot be read",
    401: "Who are you?",
    403: "Not allowed",
    404: "Not found",
    405: "This address does not do that",
    406: "Not available in this form",
    409: "Not now",
    410: "Over",
    413: "The body is too large",
    415: "The body has the wrong content type",
    422: "The request cannot be done",
    429: "Too many requests",
    500: "Our mistake",
    503: "Not available at the moment",
}
RETRIED = (409, 429, 503)
"""Statuses that say: the same request may succeed later. They always carry Retry-After."""


@dataclass
class Problem(Exception):
    """An error to be told to the caller. `code` is stable; `facts` become further members of the body."""

    status: int
    code: str
    detail: str
    retry_after_seconds: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def body(self, instance: str) -> dict[str, Any]:
        """The members of the problem, `instance` being the path that was asked."""
        return {
            "type": f"urn:payonce:problem:{self.code}",
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "instance": instance,
            **self.facts,
        }

    @property
    def headers(self) -> dict[str, str]:
        """Retry-After where repeating makes sense; never a stored answer."""
        found = {"Cache-Control": "no-store"}
        if self.status in RETRIED:
            found["Retry-After"] = str(max(1, self.retry_after_seconds or 1))
        elif self.status == 401:
            found["WWW-Authenticate"] = 'Bearer realm="payonce"'
        return found


def answer_problem(problem: Problem, request: HttpRequest) -> JsonResponse:
    """A problem as the answer of a plain Django view."""
    return JsonResponse(
        problem.body(request.path), status=problem.status, content_type=CONTENT_TYPE, headers=problem.headers
    )


def handle_exception(error: Exception, context: dict[str, Any]) -> Response:
    """DRF's exception handler for payonce's views: whatever was raised becomes a problem."""
    request = context["request"]
    problem = problem_of(error)
    if problem is None:
        log.error("an API call failed unexpectedly", exc_info=error)
        signals.got_request_exception.send(sender=None, request=request, exc_info=sys.exc_info())
        problem = Problem(500, "internal_error", "Something is wrong here; it was logged. Nothing was lost: ask again.")
    headers = problem.headers
    if isinstance(error, exceptions.MethodNotAllowed):
        headers["Allow"] = ", ".join(context["view"].allowed_methods)
    return Response(problem.body(request.path), status=problem.status, headers=headers, content_type=CONTENT_TYPE)


def problem_of(error: Exception) -> Problem | None:
    """The problem that an exception means; None for one that nobody expected."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, exceptions.APIException):
        return _of_drf(error)
    if isinstance(error, Http404 | OrderNotFound | StreamNotFound | RefundNotFound):
        return not_found()
    if isinstance(error, PermissionDenied):
        return Problem(403, "not_allowed", "You may not do this.")
    if isinstance(error, SuspiciousOperation):
        return Problem(400, "malformed", "The request cannot be read.")
    if isinstance(error, InvalidOrder):
        return invalid({error.field: str(error)})
    if isinstance(error, UnknownChannel):
        return Problem(422, error.code, str(error))
    if isinstance(error, PlaceConflict):
        return Problem(422, "place_conflict", str(error))
    if isinstance(error, AmendRefused):
        return Problem(409, "amend_refused", str(error), retry_after_seconds=60)
    if isinstance(error, ConstraintViolated):
        log.warning("a write was refused by a rule of the database: %s", error)
        return Problem(409, "conflict", "Someone else was first, or the channel contradicts itself. Ask again.", 5)
    if isinstance(error, DatabaseError | InterfaceError):
        return _of_database(error)
    return None


def not_found() -> Problem:
    """There is no such thing, or it is not the caller's: both look the same."""
    return Problem(404, "not_found", "There is nothing at this address that you may see.")


def invalid(errors: dict[str, str]) -> Problem:
    """Fields that are not acceptable, each with a sentence."""
    listed = [{"field": _sayable(name), "detail": _sayable(text)} for name, text in errors.items()]
    return Problem(422, "invalid_request", " ".join(item["detail"] for item in listed), facts={"errors": listed})


def _sayable(text: str) -> str:
    """The text, which may repeat what was sent: half a surrogate pair is JSON, and cannot be answered as it is."""
    return text.encode("utf-8", "backslashreplace").decode()


def _of_database(error: Exception) -> Problem | None:
    """A lock that was not granted in time, or a server that is away, passes; any other database error is a mistake of ours."""
    sqlstate = getattr(error.__cause__, "sqlstate", None) or ""
    if sqlstate == "55P03":
        return Problem(503, "busy", "Someone else is working on this order. Ask again in a moment.", 1)
    if sqlstate[:2] in ("", "08", "53", "57", "40", "25"):
        log.warning("the database does not answer: %s", error)
        return Problem(503, "database_unavailable", "The database does not answer. Nothing was lost: ask again.", 3)
    return None


def _of_drf(error: exceptions.APIException) -> Problem:
    if isinstance(error, exceptions.ValidationError):
        return invalid(dict(_flatten(error.detail)))
    code = {
        exceptions.ParseError: "malformed",
        exceptions.NotAuthenticated: "not_authenticated",
        exceptions.AuthenticationFailed: "token_invalid",
        exceptions.PermissionDenied: "not_allowed",
        exceptions.NotFound: "not_found",
        exceptions.MethodNotAllowed: "method_not_allowed",
        exceptions.UnsupportedMediaType: "unsupported_media_type",
        exceptions.Throttled: "throttled",
    }.get(type(error), str(getattr(error, "default_code", "error")))
    wait = int(getattr(error, "wait", 0) or 0)
    return Problem(error.status_code, code, _text(error.detail), retry_after_seconds=wait or None)


def _flatten(detail: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(detail, dict):
        return [
            pair for key, value in detail.items() for pair in _flatten(value, f"{name}.{key}" if name else str(key))
        ]
    return [(name or "body", _text(detail))]


def _text(detail: Any) -> str:
    if isinstance(detail, list | tuple):
        return " ".join(_text(item) for item in detail)
    return str(detail)
