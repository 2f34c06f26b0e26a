"""When a stream is asked about again: where the ladder ends, and what is asked sooner."""

from datetime import UTC, datetime, timedelta

import pytest

from payonce.payments import schedule
from payonce.payments.models import Stream
from tests.scripted import ScriptedChannel

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def stream(payable_seconds, **fields):
    until = NOW + timedelta(seconds=payable_seconds)
    return Stream(number="po1s01", state="PENDING", created_at=NOW, payable_until=until, **fields)


def capabilities(**changes):
    ScriptedChannel.overrides["scripted_a"] = changes
    try:
        return ScriptedChannel("scripted_a", {}).capabilities
    finally:
        ScriptedChannel.overrides.clear()


@pytest.mark.parametrize(
    ("horizon", "payable", "end"),
    [
        (90_000, 7_200, 90_000),  # the channel tells for longer than the buyer can pay
        (
            600,
            7_200,
            7_200 + 60 + 30 + 1,
        ),  # the buyer can pay for longer than the channel tells; skew, grace and one second
    ],
)
def test_the_ladder_ends_at_the_later_of_horizon_and_expiry(horizon, payable, end):
    """S13, L1: neither the channel's last notification nor the last moment to pay is missed."""
    able = capabilities(notification_horizon_seconds=horizon, clock_skew_seconds=60)
    asked = stream(payable)
    last = NOW + timedelta(seconds=end)
    assert schedule.next_check_at(asked, last - timedelta(seconds=1), able, 30) == last
    assert schedule.next_check_at(asked, last, able, 30) is None


def test_one_look_follows_just_after_the_end_of_the_time_to_pay():
    """S4: the answer to it may prove expiry."""
    able = capabilities(notification_horizon_seconds=90_000, clock_skew_seconds=60)
    asked = stream(4_000)
    look = NOW + timedelta(seconds=4_091)
    assert schedule.next_check_at(asked, NOW + timedelta(seconds=3_700), able, 30) == look
    assert schedule.next_check_at(asked, look, able, 30) == look + timedelta(seconds=7_200)
    assert not schedule.is_past_payable(asked, able, 30, look - timedelta(seconds=1))
    assert schedule.is_past_payable(asked, able, 30, look)


def test_a_stream_at_risk_is_asked_sooner_and_ever_more_seldom():
    """L1: from when the risk began, at least every five seconds apart."""
    able = capabilities()
    asked = stream(7_200, is_answer_unknown=True, nudged_at=NOW + timedelta(seconds=1_000))
    for since, pause in ((0, 5), (4, 5), (20, 10), (200, 100)):
        at = NOW + timedelta(seconds=1_000 + since)
        assert schedule.next_check_at(asked, at, able, 30) == at + timedelta(seconds=pause)
