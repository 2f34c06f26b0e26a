"""What waited while clocks were moved is not measured: it would say nothing about payonce."""

from datetime import UTC, datetime, timedelta

from torture.facts import OrderFacts
from torture.liveness import Waits
from torture.sources import Ledger

AT = datetime(2026, 3, 1, tzinfo=UTC)


def paid_after(seconds: float) -> OrderFacts:
    """An order that was paid so long after its buyer paid, and whose surplus was refunded at that moment."""
    at = AT + timedelta(seconds=seconds)
    keeper = {"id": 1, "number": "s", "account": "blue", "channel_reference": "c", "succeeded_at": at}
    surplus = {"id": 2, "number": "t", "account": "blue", "channel_reference": "d", "succeeded_at": AT}
    refund = {"stream_id": 2, "requested_by": "payonce", "approved_by": "", "accepted_at": at}
    return OrderFacts({"number": "o", "keeper": "s"}, streams=[keeper, surplus], refunds=[refund])


LEDGER = Ledger(
    captures=[{"account": "blue", "reference": "c", "paid_at": AT.timestamp()}],
    notifications=[{"account": "blue", "number": "s", "state": "LOST"}],
)


def waits_until(until: float) -> dict[str, list[float]]:
    waits = Waits()
    waits.add_orders([paid_after(7.0)], LEDGER, until)
    return waits.seconds


def test_what_ended_before_the_clocks_were_moved_is_measured() -> None:
    seconds = waits_until(AT.timestamp() + 7.0)
    assert (seconds["L1"], seconds["L2"]) == ([7.0], [7.0])


def test_what_ended_after_that_is_left_out() -> None:
    seconds = waits_until(AT.timestamp() + 6.9)
    assert (seconds["L1"], seconds["L2"]) == ([], [])
