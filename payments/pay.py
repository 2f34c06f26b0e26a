"""Pay: hand the buyer one way to pay an order, the same one to every click.

Cached result, gate, decide under the order's lock, close an older stream, insert, prepay. The Redis parts only save work.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from payonce.channels import registry
from payonce.channels.errors import ChannelError
from payonce.channels.messages import (
    Capabilities,
    Known,
    PaymentState,
    Prepay,
    PrepayRequest,
    Refused,
    RefusedKind,
    Unknown,
)
from payonce.orders.conf import get_settings
from payonce.orders.errors import OrderNotFound
from payonce.orders.models import Order
from payonce.orders.statuses import OrderState
from payonce.payments import cache, close, schedule, surplus
from payonce.payments.call import call
from payonce.payments.errors import AlreadyOpen, UnknownChannel
from payonce.payments.locks import Work, require_no_transaction, under_lock
from payonce.payments.models import Stream
from payonce.payments.refs import notify_url, payment_ref, return_url
from payonce.payments.statuses import BLOCKING_STREAM_STATES, Confirmation, StreamState
from payonce.payments.transitions import streams as arrows
from payonce.payments.transitions.streams import StreamMove

WAIT_SECONDS = 2.0
HAND_OUT_MARGIN = timedelta(seconds=5)
ROUNDS = 5


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


@dataclass(frozen=True, slots=True)
class _Call:
    """Decided: register this stream at the channel, as the holder of the lease."""

    stream: Stream
    lease: str
    is_resumed: bool
    subject: str
    at: datetime


@dataclass(frozen=True, slots=True)
class _Close:
    """Decided: these older streams come first."""

    numbers: tuple[str, ...]


def pay_order(
    order: str,
    channel: str,
    method: str,
    *,
    client_type: str = "",
    payer: str = "",
    client_ip: str = "",
    by: str = "buyer",
) -> PayResult:
    """Let the buyer pay `order` through the account `channel` by `method`. Every repeat of the call gets the same stream.

    Raises OrderNotFound, UnknownChannel (its `code` says what does not fit), InsideTransaction.
    """
    request = PayRequest(order, channel, method, client_type, payer, client_ip)
    return pay(request, by=by)


def pay(request: PayRequest, by: str = "buyer") -> PayResult:
    """As `pay_order`, for a ready request."""
    require_no_transaction()
    found = _cached(request)
    if found is not None:
        return found
    capabilities = _capabilities(request)
    token = cache.take_turn(request.order)
    if token is None:
        waited = cache.wait_turn(request.order, WAIT_SECONDS, lambda: _cached(request))
        if isinstance(waited, PayResult):
            return waited
        if waited is None:
            return _answer(PayCode.IN_PROGRESS, request, retry=1)
        token = waited
    try:
        return _work_it_out(request, capabilities, by)
    finally:
        cache.end_turn(request.order, token)


def _work_it_out(request: PayRequest, capabilities: Capabilities, by: str) -> PayResult:
    tried: set[str] = set()
    for _round in range(ROUNDS):
        try:
            step = under_lock(
                by, lambda work: _decide(work, request, capabilities, frozenset(tried)), order=request.order
            )
        except AlreadyOpen:
            continue  # another click was first: read what it made
        except OrderNotFound as error:
            raise OrderNotFound(f"There is no order {request.order}.") from error
        if isinstance(step, PayResult):
            return step
        if isinstance(step, _Close):
            for number in step.numbers:
                close.close_stream(number, by="system:pay", seconds=get_settings().SWITCH.PROOF_SECONDS)
                tried.add(number)
            continue
        result = _register(request, step, by)
        if result is not None:
            return result
    return _answer(PayCode.IN_PROGRESS, request, retry=2)


def _decide(
    work: Work, request: PayRequest, capabilities: Capabilities, tried: frozenset[str]
) -> "PayResult | _Call | _Close":
    """Under the order's lock: what this click may do now. Runs again, in the inserting transaction, after every wait."""
    refused = _refuse_order(work, request, capabilities)
    if refused is not None:
        return refused
    stream = work.open_stream
    if stream is not None:
        answer = _join_open(work, stream, request, capabilities)
        if answer is not None:
            return answer
    closing = [row for row in work.streams if row.state == StreamState.CLOSING]
    wanted = _find_wanted(work, closing, request, capabilities)
    others = [row for row in closing if row is not wanted]
    untried = tuple(row.number for row in others if row.number not in tried)
    if untried:
        _void_after(work)
        return _Close(untried)
    refused = _pass_unproven(work, others, request)
    if refused is not None:
        return refused
    if wanted is not None and arrows.take_back(work, wanted) is StreamMove.MOVED:
        return _hand_out(work, wanted, request)
    return _insert(work, request, capabilities)


def _find_wanted(work: Work, closing: list[Stream], request: PayRequest, capabilities: Capabilities) -> Stream | None:
    """A stream that cannot be closed before the buyer acts and is just what the buyer chose again."""
    if not capabilities.not_found_before_buyer_acts:
        return None
    return next((row for row in closing if _is_same(row, request, work.order) and _is_usable(row, work.at)), None)


def _refuse_order(work: Work, request: PayRequest, capabilities: Capabilities) -> PayResult | None:
    order = work.order
    if order.state == OrderState.PAID:
        keeper = work.stream(str(order.keeper))
        _cache_paid(work, keeper, request)
        return _answer(PayCode.ALREADY_PAID, request, stream=keeper, order=order)
    is_expired = order.expires_at is not None and order.expires_at <= work.at
    if order.state != OrderState.OPEN or is_expired:
        return _answer(PayCode.CLOSED, request, detail="expired" if is_expired else order.state.lower())
    if order.currency not in capabilities.currencies:
        raise UnknownChannel("currency_not_supported", f"{request.channel} does not take {order.currency}.")
    if not capabilities.amount_minor_min <= order.amount_minor <= capabilities.amount_minor_max:
        raise UnknownChannel(
            "amount_not_supported", f"{request.channel} does not take an amount of {order.amount_minor}."
        )
    if any(row.state in BLOCKING_STREAM_STATES for row in work.streams):
        return _answer(PayCode.CONFIRMING, request, retry=3)
    return None


def _join_open(
    work: Work, stream: Stream, request: PayRequest, capabilities: Capabilities
) -> "PayResult | _Call | None":
    """What an open stream means for this click; None when it was put to closing."""
    is_same = _is_same(stream, request, work.order)
    if stream.state == StreamState.PENDING and is_same and _is_usable(stream, work.at):
        return _hand_out(work, stream, request)
    if stream.state == StreamState.CREATED:
        if stream.call_lease_until is not None and stream.call_lease_until > work.at:
            return _answer(PayCode.IN_PROGRESS, request, retry=2)
        may_repeat = stream.replay_safe_until is None or stream.replay_safe_until > work.at
        if is_same and may_repeat and stream.payable_until > work.at + HAND_OUT_MARGIN:
            return _lease(work, stream, is_resumed=True)
    reason = "prepay expired" if is_same else "buyer chose another way"
    stream.nudged_at = work.at
    arrows.start_closing(work, stream, reason)
    return None


def _pass_unproven(work: Work, closing: list[Stream], request: PayRequest) -> PayResult | None:
    """May a new stream open beside older ones that are not proven closed? Records them as watched, or refuses."""
    switch = get_settings().SWITCH
    if not closing:
        return None
    ends = min(row.payable_until for row in closing)
    wait = max(1, int((ends - work.at).total_seconds()))
    if switch.UNPROVEN == "wait":
        return _answer(PayCode.NOT_PROVEN_CLOSED, request, retry=wait)
    if len(closing) >= switch.UNPROVEN_MAX:
        return _answer(PayCode.TOO_MANY_UNPROVEN, request, retry=wait, detail=ends.isoformat())
    for row in closing:
        row.nudged_at = work.at
        arrows.watch(work, row)
    return None


def _insert(work: Work, request: PayRequest, capabilities: Capabilities) -> _Call:
    order = work.order
    method = capabilities.methods[request.method]
    attempt = max((row.attempt for row in work.streams), default=0) + 1
    window = capabilities.replay_window_seconds
    stream = Stream(
        number=surplus.stream_number(order.number, attempt), order=order, attempt=attempt, account=request.channel,
        method=request.method, client_type=request.client_type, payer=request.payer, amount_minor=order.amount_minor,
        currency=order.currency, created_at=work.at, first_sent_at=work.at,
        payable_until=_payable_until(order, work.at, method.lifetime_seconds, method.lifetime_seconds_min),
        replay_safe_until=None if window is None else work.at + timedelta(seconds=window),
        next_check_at=work.at + schedule.CHECK_AFTER_CREATE,
    )  # fmt: skip
    arrows.create(work, stream)
    _void_after(work)
    return _lease(work, stream, is_resumed=False)


def _payable_until(order: Order, at: datetime, lifetime: int, lifetime_min: int) -> datetime:
    """Never later than the order's own expiry by more than the channel's minimum."""
    until = at + timedelta(seconds=min(lifetime, get_settings().VALID_SECONDS))
    if order.expires_at is not None:
        until = min(until, order.expires_at)
    return max(until, at + timedelta(seconds=lifetime_min))


def _lease(work: Work, stream: Stream, *, is_resumed: bool) -> _Call:
    lease = secrets.token_hex(8)
    arrows.lease_call(stream, lease, work.at + timedelta(seconds=get_settings().CALL_LEASE_SECONDS))
    return _Call(stream, lease, is_resumed, work.order.subject, work.at)


def _register(request: PayRequest, step: _Call, by: str) -> PayResult | None:
    """Call the channel and apply its answer in a second transaction; None means: decide again."""
    if step.is_resumed and not _may_repeat_prepay(step):
        return _answer(PayCode.UNAVAILABLE, request, retry=3) if _is_still_created(step) else None
    stream = step.stream
    message = PrepayRequest(
        number=stream.number, amount_minor=stream.amount_minor, currency=stream.currency, subject=step.subject,
        method=stream.method, client_type=stream.client_type, payer=stream.payer, payable_until=stream.payable_until,
        notify_url=notify_url(stream.account), return_url=return_url(stream.account), client_ip=request.client_ip, at=step.at,
    )  # fmt: skip
    outcome = call(stream.account, lambda channel: channel.prepay(message))
    result = under_lock(by, lambda work: _store(work, request, step, outcome), order=request.order)
    if result is None:
        close.close_stream(stream.number, by="system:pay", seconds=get_settings().SWITCH.PROOF_SECONDS)
    return result


def _store(
    work: Work, request: PayRequest, step: _Call, outcome: Known[Prepay] | Refused | Unknown
) -> PayResult | None:
    """Hand the answer out only if the order is still OPEN, the stream CREATED and the lease ours; else discard it."""
    stream = work.stream(step.stream.number)
    order = work.order
    if stream.state != StreamState.CREATED or stream.call_lease != step.lease:
        return None
    if isinstance(outcome, Known) and order.state == OrderState.OPEN and not _is_stale_amount(stream, order):
        arrows.take_prepay(work, stream, outcome.value)
        return _hand_out(work, stream, request)
    _void_after(work)
    if isinstance(outcome, Known):
        arrows.start_closing(work, stream, "order moved on")
        return None
    if isinstance(outcome, Refused) and outcome.kind in (RefusedKind.DECLINED, RefusedKind.CONFIG):
        arrows.fail(work, stream, outcome.code)
        code = PayCode.DECLINED if outcome.kind is RefusedKind.DECLINED else PayCode.UNAVAILABLE
        return _answer(code, request, stream=stream, order=order, detail=outcome.code, retry=5)
    if isinstance(outcome, Refused) and outcome.kind is RefusedKind.CONFLICT:
        arrows.start_closing(work, stream, "number refused")
        return None
    stream.is_answer_unknown = isinstance(outcome, Unknown)
    stream.last_answer = (outcome.reason if isinstance(outcome, Unknown) else outcome.code)[:64]
    stream.last_answer_at = work.at
    stream.next_check_at = work.at + schedule.CHECK_AFTER_CREATE
    arrows.lease_call(stream, "", work.at)
    return _answer(PayCode.UNAVAILABLE, request, stream=stream, order=order, retry=3, detail=stream.last_answer)


def _may_repeat_prepay(step: _Call) -> bool:
    """Query first: an earlier call under this number may have reached the channel, or the buyer may even have paid."""
    outcome = call(step.stream.account, lambda channel: channel.query(payment_ref(step.stream)))
    close.record_query(step.stream.number, step.stream.account, outcome, Confirmation.PAY, step.at, by="system:pay")
    return isinstance(outcome, Known) and outcome.value.state in (PaymentState.NOT_FOUND, PaymentState.OPEN)


def _is_still_created(step: _Call) -> bool:
    """After an unclear query: is the stream still to be registered? Ends our lease if so."""

    def decide(work: Work) -> bool:
        stream = work.stream(step.stream.number)
        if stream.call_lease == step.lease:
            arrows.lease_call(stream, "", work.at)
        return stream.state == StreamState.CREATED

    return under_lock("system:pay", decide, stream=step.stream.number)


def _hand_out(work: Work, stream: Stream, request: PayRequest) -> PayResult:
    result = _answer(PayCode.PREPAY, request, stream=stream, order=work.order)
    assert stream.prepay_expires_at is not None
    life = min(stream.prepay_expires_at, stream.payable_until) - work.at - HAND_OUT_MARGIN
    work.after_commit(lambda: cache.store(_entry(result, request), work.order.version, life))
    return result


def _cache_paid(work: Work, keeper: Stream, request: PayRequest) -> None:
    result = _answer(PayCode.ALREADY_PAID, request, stream=keeper, order=work.order)
    work.after_commit(lambda: cache.store(_entry(result, request), work.order.version, timedelta(seconds=30)))


def _cached(request: PayRequest) -> PayResult | None:
    entry = cache.read(request.order)
    if entry is None:
        return None
    if not entry.prepay_kind:
        code = PayCode.ALREADY_PAID
    elif (entry.channel, entry.method, entry.client_type, entry.payer) == _choice(request):
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


def _answer(
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


def _capabilities(request: PayRequest) -> Capabilities:
    try:
        capabilities = registry.channel(request.channel).capabilities
    except ChannelError as error:
        raise UnknownChannel("unknown_channel", str(error)) from error
    if request.method not in capabilities.methods:
        known = ", ".join(sorted(capabilities.methods))
        raise UnknownChannel(
            "unknown_method", f"{request.channel} has no method {request.method!r}. Use one of: {known}."
        )
    return capabilities


def _choice(request: PayRequest) -> tuple[str, str, str, str]:
    return (request.channel, request.method, request.client_type, request.payer)


def _is_same(stream: Stream, request: PayRequest, order: Order) -> bool:
    chosen = (stream.account, stream.method, stream.client_type, stream.payer)
    return chosen == _choice(request) and not _is_stale_amount(stream, order)


def _is_stale_amount(stream: Stream, order: Order) -> bool:
    return (stream.amount_minor, stream.currency) != (order.amount_minor, order.currency)


def _is_usable(stream: Stream, at: datetime) -> bool:
    ends = stream.prepay_expires_at
    return bool(stream.prepay_value) and ends is not None and min(ends, stream.payable_until) > at + HAND_OUT_MARGIN


def _void_after(work: Work) -> None:
    """The order moves on: whatever an older version handed out may not be handed out again."""
    work.callbacks.insert(0, lambda: cache.void(work.order.number, work.order.version))
