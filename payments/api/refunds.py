"""Refunds over HTTP, by the shop or by an operator who is signed in. One Idempotency-Key makes at most one refund."""

from typing import Any

from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request
from rest_framework.response import Response

from payonce.orders.conf import get_settings
from payonce.payments.api.base import ApiView, described, read_body
from payonce.payments.api.bodies import RefundAnswer, RefundBody
from payonce.payments.api.callers import BearerAuthentication, Caller
from payonce.payments.api.idempotency import KeyState, read_key, take_key
from payonce.payments.api.orders import PROBLEMS
from payonce.payments.api.pay import KEY_PARAMETER
from payonce.payments.api.problems import Problem, invalid, not_found
from payonce.payments.models import Refund, Stream
from payonce.payments.permissions import Permission
from payonce.payments.refund import RefundCode, RefundRequested, request_refund

REFUSED: dict[RefundCode, tuple[int, str]] = {
    RefundCode.NOT_PAID: (422, "This stream took no money."),
    RefundCode.TOO_MUCH: (422, "The amount is more than can still be refunded."),
    RefundCode.IN_PROGRESS: (409, "Another refund of this stream is not finished. Ask again when it is."),
    RefundCode.STALE: (409, "The amounts changed since you looked. Look again."),
    RefundCode.NO_REFUNDS: (
        422,
        "The channel cannot refund this payment any more. Give the money back by other means.",
    ),
    RefundCode.NO_PARTIAL: (422, "The channel refunds the whole amount only."),
}


class OperatorAuthentication(SessionAuthentication):
    """A member of staff who is signed in and may refund. Django's CSRF protection applies."""

    def authenticate(self, request: Any) -> tuple[Any, None] | None:
        """The operator as a caller; None for everybody else."""
        user: Any = getattr(request._request, "user", None)  # noqa: SLF001 - as DRF itself finds the signed-in user
        if user is None or not (user.is_active and user.is_staff and user.has_perm(Permission.REFUND)):
            return None
        self.enforce_csrf(request)
        return Caller(name=f"operator:{user.get_username()}", is_operator=True), None


class RefundsView(ApiView):
    """Give money of a stream back."""

    authentication_classes = (BearerAuthentication, OperatorAuthentication)

    @described(
        operation_id="request_refund",
        summary="Give money of a stream back; the channel is asked by a worker",
        request=RefundBody,
        parameters=[KEY_PARAMETER],
        responses={200: RefundAnswer, 201: RefundAnswer, **PROBLEMS},
    )
    def post(self, request: Request, number: str) -> Response:
        """201 for a new refund, 200 when this Idempotency-Key made it before."""
        caller = self.caller
        if not caller.is_operator:
            caller.require_shop()
        body = read_body(RefundBody, request)
        if body["reason"] == "other" and not body["note"]:
            raise invalid({"note": 'The reason "other" needs a note.'})
        stream = Stream.objects.using(get_settings().DATABASE).select_related("order").filter(number=number).first()
        if stream is None:
            raise not_found()
        caller.require_source(stream.order.source)
        header = read_key(request.META.get("HTTP_IDEMPOTENCY_KEY"))
        if not header:
            return _answer(stream, self._ask(number, body), status=201)
        key = take_key(caller.name, "refund", header, number, body)
        if key.state is KeyState.REPEAT:
            return _answer(stream, RefundRequested(RefundCode.REQUESTED, key.made), status=200)
        asked = self._ask(number, body, bind=key.bind_under_lock)
        if not asked.number:
            key.let_go()
        return _answer(stream, asked, status=201)

    def _ask(self, number: str, body: dict[str, Any], **binding: Any) -> RefundRequested:
        by = self.caller.name.removeprefix("operator:")
        return request_refund(number, body["amount_minor"], reason=body["reason"], note=body["note"], by=by, **binding)


def _answer(stream: Stream, asked: RefundRequested, status: int) -> Response:
    if not asked.number:
        code, detail = REFUSED[asked.code]
        raise Problem(code, asked.code.value, detail, 5, {"refundable_minor": asked.refundable_minor})
    rows = Refund.objects.using(stream._state.db).select_related("stream")
    refund = rows.get(number=asked.number)
    answer = {
        "refund": refund.number,
        "stream": stream.number,
        "order": stream.order.number,
        "state": refund.state,
        "amount_minor": refund.amount_minor,
        "currency": refund.currency,
        "reason": refund.reason,
        "refundable_minor": refund.stream.refundable_minor,
    }
    return Response(answer, status=status, headers={"Cache-Control": "no-store"})
