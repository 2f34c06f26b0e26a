"""Close: tell the channel that an unpaid stream may no longer be paid, and believe only a definite answer.

Query, close, query; repeated by a sweep until proven, or until time alone proves it.
"""

import secrets
import time
from datetime import datetime, timedelta
from enum import StrEnum

from payonce.channels.messages import (
    CloseAnswer,
    CloseProof,
    CloseState,
    Known,
    Outcome,
    PaymentState,
    PaymentView,
    Refused,
    Unknown,
)
from payonce.orders.conf import get_settings
from payonce.orders.errors import AmendRefused
from payonce.orders.events import Journal
from payonce.orders.models import Order
from payonce.payments import cache, claims, clock, enqueue
from payonce.payments.call import call, capabilities_of, why_not
from payonce.payments.locks import Work, in_callers_transaction, under_lock
from payonce.payments.models import Stream
from payonce.payments.refs import payment_ref
from payonce.payments.settle import Evidence, Settled, apply_evidence, ask_again_about_ended, plan_check
from payonce.payments.statuses import WATCHED_STREAM_STATES, Confirmation, StreamState
from payonce.payments.transitions import streams as arrows
from payonce.payments.transitions.streams import StreamMove

ONE_MORE_EXCHANGE = timedelta(seconds=10)


class Closed(StrEnum):
    """What trying to close a stream came to."""

    PROVEN = "proven"
    PAID = "paid"
    IN_PROGRESS = "in_progress"  # the buyer has acted: wait for the answer
    UNPROVEN = "unproven"  # watched; the sweep goes on
    NOT_CLOSABLE = "not_closable"  # only time ends it; watched
    BUSY = "busy"  # another process is at it
    NOT_NEEDED = "not_needed"


def close_stream(
    number: str, by: str, *, reason: str = "asked to close", seconds: float = 0.0, start: bool = True
) -> Closed:
    """Close one stream, or with `start` False only go on with one that is closing.

    Goes on for up to `seconds` while the answer proves nothing. Raises OrderNotFound for an unknown number.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = _close_once(number, by, reason, start)
        if answer not in (Closed.UNPROVEN, Closed.BUSY) or time.monotonic() + 0.5 > deadline:
            return answer
        time.sleep(0.5)


def record_query(
    number: str, account: str, outcome: Outcome[PaymentView], way: Confirmation, asked_at: datetime, by: str
) -> Settled:
    """Apply the answer to a query about a stream, whoever asked. No answer changes no state; the ladder goes on."""

    def decide(work: Work) -> Settled:
        stream = work.stream(number)
        if isinstance(outcome, Known):
            return apply_evidence(work, stream, Evidence(account, outcome.value, way, asked_at))
        note_no_answer(work, stream, outcome)
        if stream.state in WATCHED_STREAM_STATES:
            plan_check(work, stream)
        elif stream.next_check_at is not None:
            ask_again_about_ended(work, stream)
        return Settled.NO_NEWS

    return under_lock(by, decide, stream=number)


def note_no_answer(work: Work, stream: Stream, outcome: Refused | Unknown) -> None:
    """Unknown is not failed: keep the state, remember that the last answer was unknown."""
    if stream.state not in WATCHED_STREAM_STATES:
        return
    stream.last_answer = why_not(outcome)[:64]
    stream.last_answer_at = work.at
    stream.is_answer_unknown = True


def _close_once(number: str, by: str, reason: str, start: bool) -> Closed:
    lease = secrets.token_hex(8)
    claimed = under_lock(by, lambda work: _claim(work, number, lease, reason, start), stream=number)
    if isinstance(claimed, Closed):
        return claimed
    stream, at = claimed
    ref = payment_ref(stream)
    first = call(stream.account, lambda channel: channel.query(ref))
    claims.record_answer(stream.account, first)
    record_query(number, stream.account, first, Confirmation.CLOSE, at, by)
    done = _state_after(number, by, lease, is_last=False)
    if done is not None:
        return done
    at = clock.about_now()
    outcome = call(stream.account, lambda channel: channel.close(ref))
    needs_query = _record_close(number, stream.account, outcome, at, by, lease)
    if needs_query:
        at = clock.about_now()
        second = call(stream.account, lambda channel: channel.query(ref))
        record_query(number, stream.account, second, Confirmation.CLOSE, at, by)
    is_closable = not (isinstance(outcome, Known) and outcome.value.state is CloseState.NOT_CLOSABLE)
    return _state_after(number, by, lease, is_last=True) or (Closed.UNPROVEN if is_closable else Closed.NOT_CLOSABLE)


def _claim(work: Work, number: str, lease: str, reason: str, start: bool) -> "Closed | tuple[Stream, datetime]":
    stream = work.stream(number)
    if start and stream.state in (StreamState.CREATED, StreamState.PENDING):
        is_called = stream.call_lease_until is not None and stream.call_lease_until > work.at
        if stream.state == StreamState.CREATED and is_called:
            return Closed.BUSY
        stream.nudged_at = work.at
        arrows.start_closing(work, stream, reason)
        _void(work)
    if stream.state != StreamState.CLOSING:
        return _RESULT_OF_STATE.get(StreamState(stream.state), Closed.NOT_NEEDED)
    if stream.call_lease_until is not None and stream.call_lease_until > work.at:
        stream.next_check_at = stream.call_lease_until  # should that process die, the sweep goes on then
        return Closed.BUSY
    _lease(work, stream, lease)
    stream.check_count += 1
    return stream, work.at


def _lease(work: Work, stream: Stream, lease: str) -> None:
    """Hold the stream for the next conversation: a close may be followed by its query in the same one."""
    arrows.lease_call(stream, lease, work.at + timedelta(seconds=get_settings().CALL_LEASE_SECONDS) + ONE_MORE_EXCHANGE)


def _record_close(
    number: str, account: str, outcome: Outcome[CloseAnswer], asked_at: datetime, by: str, lease: str
) -> bool:
    """Apply the answer to a close; True when only a query can tell what it came to."""

    def decide(work: Work) -> bool:
        stream = work.stream(number)
        if stream.call_lease == lease:
            _lease(work, stream, lease)
        if not isinstance(outcome, Known):
            note_no_answer(work, stream, outcome)
            return True
        answer = outcome.value
        if answer.payment is not None and answer.payment.state is not PaymentState.UNCLEAR:
            apply_evidence(work, stream, Evidence(account, answer.payment, Confirmation.CLOSE, asked_at, "answer"))
        elif answer.state is CloseState.CLOSED_PROVED:
            view = PaymentView(number=stream.channel_number, state=PaymentState.CLOSED)
            apply_evidence(work, stream, Evidence(account, view, Confirmation.CLOSE, asked_at, "answer"))
        elif answer.state is CloseState.IN_PROGRESS:
            view = PaymentView(number=stream.channel_number, state=PaymentState.IN_PROGRESS)
            apply_evidence(work, stream, Evidence(account, view, Confirmation.CLOSE, asked_at))
        return stream.state == StreamState.CLOSING

    return under_lock(by, decide, stream=number)


def _state_after(number: str, by: str, lease: str, *, is_last: bool) -> Closed | None:
    """How the stream stands now; None while it is still CLOSING. Renews the claim, or ends it and plans the next check.

    A process that was paused past its claim leaves the stream to whoever has taken it over.
    """

    def decide(work: Work) -> Closed | None:
        stream = work.stream(number)
        is_ours = stream.call_lease == lease
        if stream.state == StreamState.CLOSING and not is_last:
            if not is_ours:
                return Closed.BUSY
            _lease(work, stream, lease)
        elif is_ours:
            arrows.lease_call(stream, "", work.at)
            if stream.state == StreamState.CLOSING and _is_in_our_hands(stream):
                arrows.prove_closed(work, stream, "restraint")
            plan_check(work, stream)
            _void(work)
        if stream.state == StreamState.CLOSING:
            return None
        return _RESULT_OF_STATE.get(StreamState(stream.state), Closed.NOT_NEEDED)

    return under_lock(by, decide, stream=number)


def _is_in_our_hands(stream: Stream) -> bool:
    """Can nobody be paying it unless we let them? It was never handed out, or its capture is ours and was never asked.

    It stays watched all the same.
    """
    capabilities = capabilities_of(stream)
    is_withheld = capabilities is not None and capabilities.close_proof is CloseProof.RESTRAINT
    if is_withheld and not stream.capture_key:
        return True
    return stream.handed_out_at is None and not stream.is_answer_unknown


def watch_before_amend(order: Order, journal: Journal) -> None:
    """Before an order's amount changes: put every stream of the old amount on watch. Raises AmendRefused when money may be on its way."""
    work = in_callers_transaction(order, journal)
    for stream in work.streams:
        if arrows.start_closing(work, stream, "order amended") is StreamMove.BLOCKED:
            raise AmendRefused(
                f"Order {order.number} is being paid through {stream.account} right now: its amount cannot change. Try again in a minute."
            )
        if stream.state == StreamState.CLOSING:
            arrows.watch(work, stream)
    work.write_streams()


def void_after_amend(order: Order) -> None:
    """After the commit of an amended order: no old prepay is handed out; the sweep closes the old streams."""
    cache.void(order.number, order.version)
    enqueue.kick("payonce.close")


def _void(work: Work) -> None:
    work.after_commit(lambda: cache.void(work.order.number, work.order.version))


_RESULT_OF_STATE = {
    StreamState.CLOSED: Closed.PROVEN,
    StreamState.FAILED: Closed.PROVEN,
    StreamState.SUCCEEDED: Closed.PAID,
    StreamState.PROCESSING: Closed.IN_PROGRESS,
    StreamState.CAPTURING: Closed.IN_PROGRESS,
}
