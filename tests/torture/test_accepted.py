"""What the checker makes of late money that a person accepted as the payment, after it had been on its way back."""

from datetime import UTC, datetime

import pytest

from torture.facts import OrderFacts
from torture.rules.refunds import keeper_stays

SENT = datetime(2026, 1, 1, 12, tzinfo=UTC)


def violations(state: str, last: str, at: int) -> list[str]:
    """An automatic refund that was sent, whose last event came at this place; the person accepted at place 5."""
    refund = {
        "number": "po1s01rs1", "stream_id": 1, "purpose": "surplus", "sequence": 1, "amount_minor": 500, "state": state,
        "is_released": state in ("RETURNED", "REJECTED"), "requested_by": "payonce", "approved_by": "", "first_sent_at": SENT,
    }  # fmt: skip
    events = [
        {"kind": "stream.promoted", "subject": "po1s01", "sequence": 5},
        {"kind": last, "subject": "po1s01rs1", "sequence": at},
        {"kind": "case.resolved", "subject": "po1s01rs1", "sequence": 7},
    ]
    order = OrderFacts({"number": "po1", "keeper": "po1s01"}, [{"id": 1, "number": "po1s01"}], [refund], events)
    return [item.rule for item in keeper_stays(None, order)]  # type: ignore[arg-type]


@pytest.mark.parametrize(("state", "last"), [("RETURNED", "refund.returned"), ("REJECTED", "refund.rejected")])
def test_a_refund_that_ended_before_the_person_accepted_is_no_refund_of_the_keeper(state, last):
    assert violations(state, last, 4) == []
    assert violations(state, last, 6) == ["M5"]


def test_money_that_is_with_the_buyer_is_a_refund_of_the_keeper_whenever_it_went():
    assert violations("SUCCEEDED", "refund.succeeded", 4) == ["M5"]
    assert violations("UNKNOWN", "refund.unknown", 4) == ["M5"]
