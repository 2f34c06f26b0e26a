"""Pay over HTTP: the step's outcome as an answer or a problem, with an optional Idempotency-Key."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request
from rest_framework.response import Response

from payonce.errors import PayonceError
from payonce.orders.conf import get_settings
from payonce.orders.statuses import OrderState
from payonce.payments import clock
from payonce.payments.api.base import ApiView, client_ip, described, find_order, read_body
from payonce.payments.api.bodies import PayAnswer, PayBody
from payonce.payments.api.idempotency import Key, KeyState, read_key, take_key
from payonce.payments.api.orders import PROBLEMS
from payonce.payments.api.problems import Problem
from payonce.payments.models import Stream
from payonce.payments.pay import pay
from payonce.payments.pay_result import HAND_OUT_MARGIN, PayCode, PayRequest, PayResult
from payonce.payments.statuses import BLOCKING_STREAM_STATES, StreamState

DETAILS: dict[PayCode, tuple[int, str]] = {
    PayCode.IN_PROGRESS: (409, "Another click on Pay is being worked on. Ask again in a moment."),
    PayCode.CONFIRMING: (409, "The buyer has acted and the money may be on its way. Do not pay again; ask again soon."),
    PayCode.NOT_PROVEN_CLOSED: (409, "An older way to pay this order cannot be proven closed yet. Ask again later."),
    PayCode.TOO_MANY_UNPROVEN: (409, "Too many older ways to pay this order are not proven closed. Ask again later."),
    PayCode.CLOSED: (410, "This order takes no payment any more."),
    PayCode.DECLINED: (422, "The channel declined this payment. Choose another way to pay."),
    PayCode.UNAVAILABLE: (503, "The channel does not answer properly. Nothing was lost: ask again."),
}
KEY_PARAMETER = OpenApiParameter(
    "Idempotency-Key", str, "header", description="A repeat with the same key and body answers with the present state"
)


class PayView(ApiView):
    """Apply for payment."""

    @described(
        operation_id="pay_order",
        summary="One way to pay the order, the same one to every click",
        request=PayBody,
        parameters=[KEY_PARAMETER],
        responses={200: PayAnswer, **PROBLEMS},
    )
    def post(self, request: Request, number: str) -> Response:
        """200 with a prepay or the news that the order is paid; everything else is a problem with a code."""
        self.caller.require_order(number)
        if self.caller.is_shop:
            find_order(self.caller, number)
        body = read_body(PayBody, request)
        wanted = PayRequest(
            order=number, channel=body["channel"], method=body["method"], client_type=body["client_type"],
            payer=body["payer"], client_ip=body.pop("client_ip", "") or client_ip(request),
        )  # fmt: skip
        key = read_key(request.META.get("HTTP_IDEMPOTENCY_KEY"))
        if not key:
            return answer_pay(pay(wanted, by=self.caller.name))
        scope = self.caller.name if self.caller.is_shop else f"buyer:{number}"
        held = take_key(scope, "pay", key, number, body)
        return answer_pay(self._pay_with_key(held, wanted))

    def _pay_with_key(self, key: Key, wanted: PayRequest) -> PayResult:
        made = key.made or (_made_before(key, wanted) if key.state is KeyState.TAKEN_OVER else "")
        if made:
            if key.state is KeyState.TAKEN_OVER:
                key.bind(made)
            return self._present(made, wanted)
        try:
            result = pay(wanted, by=self.caller.name)
        except PayonceError:
            key.let_go()  # refused before anything was made; after a broken database the lease ends instead
            raise
        if (
            result.code in (PayCode.PREPAY, PayCode.ALREADY_PAID, PayCode.DECLINED, PayCode.UNAVAILABLE)
            and result.stream
        ):
            key.bind(result.stream)
        else:
            key.let_go()
        return result

    def _present(self, made: str, wanted: PayRequest) -> PayResult:
        """The present state of the stream that a key made. One that never reached its channel is resumed."""
        stream = Stream.objects.using(get_settings().DATABASE).select_related("order").get(number=made)
        order = stream.order
        if order.state == OrderState.PAID or stream.state == StreamState.CREATED:
            return pay(wanted, by=self.caller.name)
        if stream.state in BLOCKING_STREAM_STATES:
            return _result(PayCode.CONFIRMING, stream, retry=3)
        if stream.state == StreamState.FAILED:
            return _result(PayCode.DECLINED, stream, detail=stream.failure_code)
        ends = stream.prepay_expires_at
        is_usable = ends is not None and min(ends, stream.payable_until) > clock.about_now() + HAND_OUT_MARGIN
        if stream.state == StreamState.PENDING and order.state == OrderState.OPEN and is_usable:
            return _result(PayCode.PREPAY, stream)
        raise _over(stream)


def answer_pay(result: PayResult) -> Response:
    """The outcome of pay as HTTP. Raises Problem for everything but a prepay and "already paid"."""
    if result.code not in (PayCode.PREPAY, PayCode.ALREADY_PAID):
        status, detail = DETAILS[result.code]
        reason = f" ({result.detail})" if result.detail else ""
        facts = {"order": result.order, **({"stream": result.stream} if result.stream else {})}
        raise Problem(status, result.code.value, detail + reason, result.retry_after_seconds or 1, facts)
    return Response(write_pay(result), headers={"Cache-Control": "no-store"})


def write_pay(result: PayResult) -> dict[str, Any]:
    """The body of a 200."""
    prepay = None
    if result.prepay_kind:
        prepay = {
            "kind": result.prepay_kind,
            "value": result.prepay_value,
            "expires_at": result.prepay_expires_at,
        }
    return {
        "result": result.code.value,
        "order": result.order,
        "stream": result.stream,
        "channel": result.channel,
        "method": result.method,
        "amount_minor": result.amount_minor,
        "currency": result.currency,
        "prepay": prepay,
    }


def _made_before(key: Key, wanted: PayRequest) -> str:
    """What a call that died had made under this key: the first stream of that choice since the key was first seen."""
    rows = Stream.objects.using(get_settings().DATABASE).filter(
        order__number=wanted.order, account=wanted.channel, method=wanted.method, client_type=wanted.client_type,
        payer=wanted.payer, origin_number="", created_at__gte=key.created_at,
    )  # fmt: skip
    return rows.order_by("attempt").values_list("number", flat=True).first() or ""


def _over(stream: Stream) -> Problem:
    return Problem(
        410, "prepay_over", "What this Idempotency-Key made can no longer be paid. Pay again with a new key.",
        facts={"order": stream.order.number, "stream": stream.number, "state": stream.state},
    )  # fmt: skip


def _result(code: PayCode, stream: Stream, retry: int = 0, detail: str = "") -> PayResult:
    is_prepay = code is PayCode.PREPAY and stream.prepay_expires_at is not None
    return PayResult(
        code, stream.order.number, stream.number, stream.account, stream.method, stream.amount_minor, stream.currency,
        stream.prepay_kind if is_prepay else "", stream.prepay_value if is_prepay else "",
        stream.prepay_expires_at.isoformat() if is_prepay and stream.prepay_expires_at else "", retry, detail,
    )  # fmt: skip
