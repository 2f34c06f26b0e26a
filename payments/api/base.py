"""What all API views share: who may call, how bodies are read, how errors look, and that no transaction surrounds a step."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django.db import connections, transaction
from django.http import HttpRequest
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import extend_schema
from rest_framework.authentication import BaseAuthentication
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from payonce.orders.conf import get_settings
from payonce.orders.models import Order
from payonce.payments.api.callers import BearerAuthentication, Caller
from payonce.payments.api.fields import StrictJSONParser, StrictSerializer
from payonce.payments.api.problems import handle_exception, not_found

View = TypeVar("View", bound=Callable[..., Any])


def outside_transactions(view: View) -> View:
    """Mark a view so that a project with ATOMIC_REQUESTS opens no transaction around it: a step opens its own."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


def described(**about: Any) -> Callable[[View], View]:
    """`extend_schema` for a method of a view, whatever schema class the project chose for its own API.

    By itself it builds on REST_FRAMEWORK["DEFAULT_SCHEMA_CLASS"], which a shop need not have set.
    """

    def describe(method: View) -> View:
        method.kwargs = {"schema": AutoSchema}  # type: ignore[attr-defined]  # where extend_schema looks first
        return extend_schema(**about)(method)

    return describe


class OneForm(BaseContentNegotiation):
    """There is one form of every answer; what the client would rather have is not asked."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        """The parser for the body's content type; None makes a 415."""
        wanted = (request.content_type or "").partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == wanted), None)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> tuple[Any, str]:
        """Always the first."""
        return renderers[0], renderers[0].media_type


class ApiView(APIView):
    """Root of payonce's API views. They depend on nothing in a project's REST_FRAMEWORK setting but its throttles."""

    authentication_classes: Sequence[type[BaseAuthentication]] = (BearerAuthentication,)
    permission_classes = (IsAuthenticated,)
    parser_classes = (StrictJSONParser,)
    renderer_classes: Sequence[type[BaseRenderer]] = (JSONRenderer,)
    content_negotiation_class = OneForm
    http_method_names = ["get", "post", "head"]
    schema = AutoSchema()

    def get_exception_handler(self) -> Callable[..., Any]:
        """Problem details, whatever the project uses for its own API."""
        return handle_exception

    @property
    def caller(self) -> Caller:
        """Who calls."""
        found: Any = self.request.user
        assert isinstance(found, Caller)
        return found

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        """The view function, never inside a request's transaction."""
        return outside_transactions(super().as_view(**initkwargs))


def read_body(serializer: type[StrictSerializer], request: Request) -> dict[str, Any]:
    """The checked fields of the body. Raises ValidationError."""
    reader = serializer(data=request.data)
    reader.is_valid(raise_exception=True)
    found: dict[str, Any] = reader.validated_data
    return found


def find_order(caller: Caller, number: str) -> Order:
    """The order, if it is the caller's. Raises Problem (404): another's order looks as if there were none."""
    caller.require_order(number)
    order = Order.objects.using(get_settings().DATABASE).filter(number=number).first()
    if order is None:
        raise not_found()
    caller.require_source(order.source)
    return order


def client_ip(request: HttpRequest | Request) -> str:
    """The address that connected. Behind a proxy, the project's own middleware sets REMOTE_ADDR."""
    return str(request.META.get("REMOTE_ADDR") or "")
