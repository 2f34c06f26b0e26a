"""When to ask again: pure arithmetic on times that the caller read from the database."""

from datetime import datetime, timedelta

from payonce.channels.messages import Capabilities
from payonce.payments.models import Stream
from payonce.payments.statuses import StreamState

LADDER_SECONDS = (3, 10, 20, 30, 45, 60, 80, 100, 120, 300, 600, 1_800, 3_600)
"""Ages of a stream at which it is asked about; close together in the first two minutes, while a buyer may still wait."""
LADDER_STEP_SECONDS = 7_200
RISK_INTERVAL_SECONDS_MIN = 5
REFUND_TRY_SECONDS = (2, 5, 15, 30, 45, 60, 60, 60, 60, 60, 60, 120, 300, 600, 1_800, 3_600)
"""Gaps between the tries of a refund: for some minutes never more than one, so that the end of a disturbance is soon noticed."""
REFUND_GIVE_UP_SECONDS = 3 * 86_400
REFUND_WAIT_SECONDS = 7 * 86_400
REFUND_CONFLICT_SECONDS = 60
"""How long after its first sending a refund may be refused as a contradiction before a person is told: it rarely heals by itself."""
MESSAGE_TRY_SECONDS = (15, 60, 300, 1_800, 7_200, 21_600, 43_200, 86_400)
NOTIFICATION_TRY_SECONDS = (2, 10, 30, 60, 300, 600)
BREAKER_FAILURES = 5
LISTENER_FAILURES = 3
BREAKER_SECONDS = 30
NUDGE_SECONDS_MIN = 3
CLAIM_SECONDS = 20
"""How long a claimed row is another worker's business; a killed worker's rows come due again after it."""
CHECK_AFTER_CREATE = timedelta(seconds=LADDER_SECONDS[0])


def unpayable_after(stream: Stream, capabilities: Capabilities | None, grace_seconds: int) -> datetime:
    """The moment after which time alone can prove that a stream was not paid: its `payable_until`, the channel's skew and our grace."""
    skew = capabilities.clock_skew_seconds if capabilities else 300
    return stream.payable_until + timedelta(seconds=skew + grace_seconds)


def is_past_payable(stream: Stream, capabilities: Capabilities | None, grace_seconds: int, asked_at: datetime) -> bool:
    """Does "not found" or "still open", asked at `asked_at`, prove that the stream can no longer be paid?"""
    if capabilities is None or not capabilities.enforces_expiry:
        return False
    return asked_at > unpayable_after(stream, capabilities, grace_seconds)


def next_check_at(
    stream: Stream, at: datetime, capabilities: Capabilities | None, grace_seconds: int
) -> datetime | None:
    """The stream's next check, or None at the end of the ladder (the caller then opens a case).

    The ladder runs from creation to the later of the channel's notification horizon and the moment that proves expiry, with
    one look just after that moment. A stream at risk is asked sooner, at intervals that grow from when the risk began.
    """
    horizon = capabilities.notification_horizon_seconds if capabilities else 90_000
    last_look = unpayable_after(stream, capabilities, grace_seconds) + timedelta(seconds=1)
    end = max(stream.created_at + timedelta(seconds=horizon), last_look)
    if at >= end:
        return None
    candidates = [_next_rung(stream.created_at, at), end]
    if at < last_look:
        candidates.append(last_look)
    if is_at_risk(stream):
        since = max(at - (stream.nudged_at or stream.created_at), timedelta(0))
        candidates.append(at + max(since / 2, timedelta(seconds=RISK_INTERVAL_SECONDS_MIN)))
    return min(candidates)


def is_at_risk(stream: Stream) -> bool:
    """May money come that nobody expects, or is an answer missing?"""
    return stream.state in (StreamState.CLOSING, StreamState.CAPTURING) or stream.is_watched or stream.is_answer_unknown


def backoff(at: datetime, tries: int, ladder: tuple[int, ...]) -> datetime:
    """The time of try number `tries` + 1; the last rung repeats."""
    return at + timedelta(seconds=ladder[min(tries, len(ladder) - 1)])


def _next_rung(created_at: datetime, at: datetime) -> datetime:
    age = (at - created_at).total_seconds()
    for rung in LADDER_SECONDS:
        if rung > age + 0.5:
            return created_at + timedelta(seconds=rung)
    return at + timedelta(seconds=LADDER_STEP_SECONDS)
