"""Pay: hand the buyer one way to pay an order, the same one to every click.

Cached result, gate, decide under the order's lock, close an older stream, insert, prepay. The Redis parts only save work.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

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
from payonce.payments.call import call, replay_safe_until
from payonce.payments.errors import AlreadyOpen, UnknownChannel
from payonce.payments.locks import Work, require_no_transaction, under_lock
from payonce.payments.models import Stream
from payonce.payments.pay_result import (
    HAND_OUT_MARGIN,
    PayCode,
    PayRequest,
    PayResult,
    answer,
    choice,
    find_cached,
    hand_out,
    keep_paid,
)
from payonce.payments.refs import notify_url, payment_ref, return_url
from payonce.payments.statuses import BLOCKING_STREAM_STATES, Confirmation, StreamState
from payonce.payments.transitions import streams as arrows
from payonce.payments.transitions.streams import StreamMove

WAIT_SECONDS = 2.0
ROUNDS = 5


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
    found = find_cached(request)
    if found is not None:
        return found
    capabilities = _capabilities(request)
    token = cache.take_turn(request.order)
    if token is None:
        waited = cache.wait_turn(request.order, WAIT_SECONDS, lambda: find_cached(request))
        if isinstance(waited, PayResult):
            return waited
        if waited is None:
            return answer(PayCode.IN_PROGRESS, request, retry=1)
        token = waited
    try:
        # Whoever had the turn until now may have left the result since we looked.
        return find_cached(request) or _work_it_out(request, capabilities, by)
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
    return answer(PayCode.IN_PROGRESS, request, retry=2)


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
        return hand_out(work, wanted, request)
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
        keep_paid(work, keeper, request)
        return answer(PayCode.ALREADY_PAID, request, stream=keeper, order=order)
    is_expired = order.expires_at is not None and order.expires_at <= work.at
    if order.state != OrderState.OPEN or is_expired:
        return answer(PayCode.CLOSED, request, detail="expired" if is_expired else order.state.lower())
    if order.currency not in capabilities.currencies:
        raise UnknownChannel("currency_not_supported", f"{request.channel} does not take {order.currency}.")
    if not capabilities.amount_minor_min <= order.amount_minor <= capabilities.amount_minor_max:
        raise UnknownChannel(
            "amount_not_supported", f"{request.channel} does not take an amount of {order.amount_minor}."
        )
    if any(row.state in BLOCKING_STREAM_STATES for row in work.streams):
        return answer(PayCode.CONFIRMING, request, retry=3)
    return None


def _join_open(
    work: Work, stream: Stream, request: PayRequest, capabilities: Capabilities
) -> "PayResult | _Call | None":
    """What an open stream means for this click; None when it was put to closing."""
    is_same = _is_same(stream, request, work.order)
    if stream.state == StreamState.PENDING and is_same and _is_usable(stream, work.at):
        return hand_out(work, stream, request)
    if stream.state == StreamState.CREATED:
        if stream.call_lease_until is not None and stream.call_lease_until > work.at:
            return answer(PayCode.IN_PROGRESS, request, retry=2)
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
        return answer(PayCode.NOT_PROVEN_CLOSED, request, retry=wait)
    if len(closing) >= switch.UNPROVEN_MAX:
        return answer(PayCode.TOO_MANY_UNPROVEN, request, retry=wait, detail=ends.isoformat())
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
        return answer(PayCode.UNAVAILABLE, request, retry=3) if _is_still_created(step) else None
    stream = step.stream
    message = PrepayRequest(
        number=stream.number, amount_minor=stream.amount_minor, currency=stream.currency, subject=step.subject,
        method=stream.method, client_type=stream.client_type, payer=stream.payer, payable_until=stream.payable_until,
        notify_url=notify_url(stream.account), return_url=return_url(stream.account), client_ip=request.client_ip, at=step.at,
    )  # fmt: skip
    outcome = call(stream.account, lambda channel: channel.prepay(message))
    result = under_lock(by, lambda work: _store(work, request, step, outcome), order=request.order)
    if result is None:
        # Discarded: close it at the channel, unless another click resumed it and handed it out.
        close.close_stream(stream.number, by="system:pay", seconds=get_settings().SWITCH.PROOF_SECONDS, start=False)
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
        return hand_out(work, stream, request)
    _void_after(work)
    if isinstance(outcome, Known):
        arrows.start_closing(work, stream, "order moved on")
        return None
    if isinstance(outcome, Refused) and outcome.kind in (RefusedKind.DECLINED, RefusedKind.CONFIG):
        arrows.fail(work, stream, outcome.code)
        code = PayCode.DECLINED if outcome.kind is RefusedKind.DECLINED else PayCode.UNAVAILABLE
        return answer(code, request, stream=stream, order=order, detail=outcome.code, retry=5)
    if isinstance(outcome, Refused) and outcome.kind is RefusedKind.CONFLICT:
        arrows.start_closing(work, stream, "number refused")
        return None
    stream.is_answer_unknown = isinstance(outcome, Unknown)
    stream.replay_safe_until = replay_safe_until(stream.replay_safe_until, outcome)
    stream.last_answer = (outcome.reason if isinstance(outcome, Unknown) else outcome.code)[:64]
    stream.last_answer_at = work.at
    stream.next_check_at = work.at + schedule.CHECK_AFTER_CREATE
    arrows.lease_call(stream, "", work.at)
    return answer(PayCode.UNAVAILABLE, request, stream=stream, order=order, retry=3, detail=stream.last_answer)


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


def _is_same(stream: Stream, request: PayRequest, order: Order) -> bool:
    chosen = (stream.account, stream.method, stream.client_type, stream.payer)
    return chosen == choice(request) and not _is_stale_amount(stream, order)


def _is_stale_amount(stream: Stream, order: Order) -> bool:
    return (stream.amount_minor, stream.currency) != (order.amount_minor, order.currency)


def _is_usable(stream: Stream, at: datetime) -> bool:
    ends = stream.prepay_expires_at
    return bool(stream.prepay_value) and ends is not None and min(ends, stream.payable_until) > at + HAND_OUT_MARGIN


def _void_after(work: Work) -> None:
    """The order moves on: whatever an older version handed out may not be handed out again."""
    work.callbacks.insert(0, lambda: cache.void(work.order.number, work.order.version))
