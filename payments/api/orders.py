"""Orders over HTTP: place, status, close."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.request import Request
from rest_framework.response import Response

from payonce.orders.errors import OrderNotFound
from payonce.orders.models import Order
from payonce.orders.place import Placed, place_from_shop, place_order
from payonce.payments import tokens
from payonce.payments.api.base import ApiView, described, find_order, read_body
from payonce.payments.api.bodies import (
    CloseBody,
    OrderBody,
    PlacedAnswer,
    ProblemAnswer,
    StatusAnswer,
)
from payonce.payments.api.problems import Problem, invalid
from payonce.payments.api.standing import entity_tag, read_standing, write_status
from payonce.payments.expire import Expired, close_order
from payonce.payments.links import cashier_url

PROBLEMS: dict[Any, Any] = {
    (status, "application/problem+json"): OpenApiResponse(ProblemAnswer, description="Problem details (RFC 9457)")
    for status in ("4XX", "5XX")
}
PRICE = ("amount_minor", "currency", "subject")


class OrdersView(ApiView):
    """Place an order."""

    @described(
        operation_id="place_order",
        summary="Place an order, or find it: idempotent on source and reference",
        request=OrderBody,
        responses={200: PlacedAnswer, 201: PlacedAnswer, **PROBLEMS},
    )
    def post(self, request: Request) -> Response:
        """201 for a new order, 200 for one that was placed before."""
        self.caller.require_shop()
        body = read_body(OrderBody, request)
        source = self.caller.source
        if body.pop("source", source) != source:
            raise Problem(403, "source_not_yours", f"This token places orders of the source {source!r} only.")
        placed = self._place(source, body)
        answer = {
            **write_status(read_standing(placed.order), is_shop=True),
            "buyer_token": (token := tokens.sign_buyer_token(placed.order.number)),
            "cashier_url": cashier_url(token),
        }
        return Response(answer, status=201 if placed.is_new else 200, headers={"Cache-Control": "no-store"})

    def _place(self, source: str, body: dict[str, Any]) -> Placed:
        given = [name for name in PRICE if name in body]
        if len(given) == len(PRICE):
            return place_order(source, body.pop("reference"), **body)
        if given:
            missing = [name for name in PRICE if name not in body]
            raise invalid({name: f"{name} is needed beside {', '.join(given)}." for name in missing})
        extra = [name for name in ("expires_at", "buyer_key", "basket_key") if name in body]
        if extra:
            raise invalid({name: f"{name} is the shop's to say when amount_minor is left out." for name in extra})
        try:
            return place_from_shop(
                body["reference"], source, amend=body.get("amend", False), return_url=body.get("return_url", "")
            )
        except OrderNotFound as error:
            raise invalid({"amount_minor": f"Say amount_minor, currency and subject. ({error})"}) from error


class OrderView(ApiView):
    """How an order stands."""

    @described(
        operation_id="get_order",
        summary="State, keeper, streams and next step of an order",
        parameters=[
            OpenApiParameter(
                "If-None-Match", str, "header", description="The ETag of the last answer: 304 if unchanged"
            ),
            OpenApiParameter("Prefer", str, "header", description="wait=25: under ASGI, hold until it changes"),
        ],
        responses={200: StatusAnswer, 304: None, **PROBLEMS},
    )
    def get(self, request: Request, number: str) -> Response:
        """200, or 304 without a body when the ETag still fits."""
        order = find_order(self.caller, number)
        tag = entity_tag(order)
        headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Authorization"}
        if tag in str(request.META.get("HTTP_IF_NONE_MATCH", "")):
            return Response(status=304, headers=headers)
        return Response(write_status(read_standing(order), is_shop=self.caller.is_shop), headers=headers)


class CloseView(ApiView):
    """Close an order."""

    @described(
        operation_id="close_order",
        summary="Take an order out of payment: its streams are closed first",
        request=CloseBody,
        responses={200: StatusAnswer, 202: StatusAnswer, **PROBLEMS},
    )
    def post(self, request: Request, number: str) -> Response:
        """200 once it is closed, 202 while its streams are not proven closed (a worker goes on)."""
        self.caller.require_order(number)
        self.caller.require_shop()
        order = find_order(self.caller, number)
        body = read_body(CloseBody, request)
        came_to = close_order(number, by=self.caller.name, reason=body["reason"])
        if came_to is Expired.PAID:
            raise Problem(422, "already_paid", f"Order {number} is paid. Give the money back by a refund.")
        fresh = Order.objects.using(order._state.db).get(pk=order.pk)
        status = 200 if came_to is Expired.CLOSED else 202
        return Response(write_status(read_standing(fresh), is_shop=True), status=status)
