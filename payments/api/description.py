"""The API's own description: OpenAPI 3.1 at `/api/schema/`, and a page to read at `/api/docs/` without any script."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.views import SpectacularAPIView

from payonce.payments.api.base import outside_transactions
from payonce.payments.api.problems import Problem, answer_problem

METHODS = ("get", "post", "put", "patch", "delete")
OURS = "payonce.payments."


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How `BearerAuthentication` looks in the description."""

    target_class = "payonce.payments.api.callers.BearerAuthentication"
    name = "bearer"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        """HTTP bearer: a shop client's or a buyer's token."""
        return {"type": "http", "scheme": "bearer", "description": "A shop client's token, or a buyer's for one order"}


class OperatorScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How a signed-in operator looks in the description."""

    target_class = "payonce.payments.api.refunds.OperatorAuthentication"
    name = "operator"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        """Django's session cookie."""
        return {"type": "apiKey", "in": "cookie", "name": "sessionid", "description": "A signed-in member of staff"}


def keep_ours(endpoints: list[tuple[str, str, str, Any]]) -> list[tuple[str, str, str, Any]]:
    """Leave a project's own API out of the description that payonce serves."""
    return [item for item in endpoints if getattr(item[3], "cls", type(item[3])).__module__.startswith(OURS)]


SETTINGS = {
    "TITLE": "payonce",
    "DESCRIPTION": "Makes sure that an order is paid once.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "PREPROCESSING_HOOKS": ["payonce.payments.api.description.keep_ours"],
}
describe = outside_transactions(
    SpectacularAPIView.as_view(
        custom_settings=SETTINGS, authentication_classes=[], permission_classes=[], throttle_classes=[], schema=None
    )
)


@require_safe
@outside_transactions
def read_docs(request: HttpRequest) -> HttpResponse:
    """Every call, its fields and its answers on one page that loads nothing from elsewhere."""
    from drf_spectacular.settings import patched_settings

    with patched_settings(SETTINGS):
        schema: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    context = {"calls": list(_calls(schema)), "bodies": list(_bodies(schema)), "info": schema["info"]}
    headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
    response = render(request, "payonce/api_docs.html", context)
    for name, value in headers.items():
        response.headers[name] = value
    return response


@csrf_exempt
@outside_transactions
def nothing_here(request: HttpRequest, rest: str) -> HttpResponse:
    """An address below `/api/` that is none of ours: a problem, like every other error of the API."""
    hint = "" if rest.endswith("/") else " Addresses end with a slash."
    return answer_problem(Problem(404, "not_found", f"There is no such address.{hint}"), request)


def _calls(schema: dict[str, Any]) -> Any:
    for address, operations in schema["paths"].items():
        for method in METHODS:
            if method in operations:
                found = operations[method]
                body = found.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
                answers = {
                    status: _name(answer.get("content", {}).get("application/json", {}).get("schema", {}))
                    for status, answer in found["responses"].items()
                }
                yield {
                    "method": method.upper(), "address": address, "summary": found.get("summary", ""),
                    "said": found.get("description", ""), "parameters": found.get("parameters", []),
                    "body": _name(body), "answers": answers,
                }  # fmt: skip


def _bodies(schema: dict[str, Any]) -> Any:
    named = schema["components"]["schemas"]
    for name, body in named.items():
        if body.get("properties"):
            fields = [
                {"name": field, "types": list(_types(about, named)), "said": about.get("description", "")}
                for field, about in body["properties"].items()
            ]
            yield {"name": name, "said": body.get("description", ""), "fields": fields}


def _types(about: dict[str, Any], named: dict[str, Any]) -> Any:
    """Each thing that a field can be: its text, and the body that it names where it does."""
    for one in about.get("oneOf", about.get("anyOf", about.get("allOf", [about]))):
        if "enum" in (choice := named.get(_name(one), one)):
            yield " | ".join(map(str, choice["enum"])), ""
        elif "$ref" in one:
            yield _name(one), _name(one)
        elif one.get("type") == "array":
            yield from ((f"list of {text}", name) for text, name in _types(one.get("items", {}), named))
        elif "type" in one:
            found = one["type"]
            yield " | ".join(found if isinstance(found, list) else [found]), ""


def _name(schema: dict[str, Any]) -> str:
    reference: str = schema.get("$ref", "")
    return reference.rpartition("/")[2]
