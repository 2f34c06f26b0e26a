"""What a click on Pay asked and came to, and how a result is kept in the cache."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from payonce.orders.models import Order
from payonce.payments import cache
from payonce.payments.locks import Work
from payonce.payments.models import Stream

HAND_OUT_MARGIN = timedelta(seconds=5)
"""A prepay with less life than this is not handed out any more."""


class PayCode(StrEnum):
    """What a click on Pay came to."""

    PREPAY = "prepay"
    ALREADY_PAID = "already_paid"
    IN_PROGRESS = "in_progress"  # another click is being worked on
    CONFIRMING = "being_confirmed"  # the buyer has acted; the money may be on its way
    CLOSED = "order_closed"  # closed, expired or refunded: it takes no payment
    NOT_PROVEN_CLOSED = "older_stream_open"  # an older way to pay cannot be proven closed, and the setting says wait
    TOO_MANY_UNPROVEN = "too_many_open_streams"
    DECLINED = "declined"  # the channel refused this payment
    UNAVAILABLE = "channel_unavailable"  # throttled, misconfigured or not answering; nothing was lost


@dataclass(frozen=True, slots=True)
class PayRequest:
    """What the buyer chose. `payer` is the channel's id of the payer where the method needs one (openid)."""

    order: str
    channel: str
    method: str
    client_type: str = ""
    payer: str = ""
    client_ip: str = ""


@dataclass(frozen=True, slots=True)
class PayResult:
    """The outcome. `prepay_*` are set for PREPAY only; `retry_after_seconds` says when asking again makes sense."""

    code: PayCode
    order: str
    stream: str = ""
    channel: str = ""
    method: str = ""
    amount_minor: int = 0
    currency: str = ""
    prepay_kind: str = ""
    prepay_value: str = ""
    prepay_expires_at: str = ""
    retry_after_seconds: int = 0
    detail: str = ""


def find_cached(request: PayRequest) -> PayResult | None:
    entry = cache.read(request.order)
    if entry is None:
        return None
    if not entry.prepay_kind:
        code = PayCode.ALREADY_PAID
    elif (entry.channel, entry.method, entry.client_type, entry.payer) == choice(request):
        code = PayCode.PREPAY
    else:
        return None
    return PayResult(
        code, entry.order, entry.stream, entry.channel, entry.method, entry.amount_minor, entry.currency, entry.prepay_kind,
        entry.prepay_value, entry.prepay_expires_at,
    )  # fmt: skip


def _entry(result: PayResult, request: PayRequest) -> cache.Entry:
    return cache.Entry(
        order=result.order, stream=result.stream, channel=result.channel, method=result.method,
        client_type=request.client_type, payer=request.payer, amount_minor=result.amount_minor, currency=result.currency,
        prepay_kind=result.prepay_kind, prepay_value=result.prepay_value, prepay_expires_at=result.prepay_expires_at,
    )  # fmt: skip


def answer(
    code: PayCode,
    request: PayRequest,
    *,
    stream: Stream | None = None,
    order: Order | None = None,
    retry: int = 0,
    detail: str = "",
) -> PayResult:
    is_prepay = code is PayCode.PREPAY and stream is not None and stream.prepay_expires_at is not None
    return PayResult(
        code, request.order, stream.number if stream else "", stream.account if stream else request.channel,
        stream.method if stream else request.method, order.amount_minor if order else 0, order.currency if order else "",
        stream.prepay_kind if is_prepay and stream else "", stream.prepay_value if is_prepay and stream else "",
        stream.prepay_expires_at.isoformat() if is_prepay and stream and stream.prepay_expires_at else "", retry, detail,
    )  # fmt: skip


def choice(request: PayRequest) -> tuple[str, str, str, str]:
    return (request.channel, request.method, request.client_type, request.payer)


def hand_out(work: Work, stream: Stream, request: PayRequest) -> PayResult:
    result = answer(PayCode.PREPAY, request, stream=stream, order=work.order)
    assert stream.prepay_expires_at is not None
    life = min(stream.prepay_expires_at, stream.payable_until) - work.at - HAND_OUT_MARGIN
    work.after_commit(lambda: cache.store(_entry(result, request), work.order.version, life))
    return result


def keep_paid(work: Work, keeper: Stream, request: PayRequest) -> None:
    result = answer(PayCode.ALREADY_PAID, request, stream=keeper, order=work.order)
    work.after_commit(lambda: cache.store(_entry(result, request), work.order.version, timedelta(seconds=30)))
