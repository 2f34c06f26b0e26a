"""Every arrow of a refund from every state, with what it does to the reservation."""

from datetime import UTC, datetime, timedelta

import pytest

from payonce.orders.events import Journal
from payonce.orders.models import Order
from payonce.payments.locks import Work
from payonce.payments.models import Refund, Stream
from payonce.payments.statuses import RefundState
from payonce.payments.transitions import refunds

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MOVED, REPEAT = "moved", "repeat"
ARROWS = {
    "approve": lambda work, refund: refunds.approve(work, refund, "bob"),
    "decline": lambda work, refund: refunds.decline(work, refund, "bob", "no"),
    "submit": lambda work, refund: refunds.submit(work, refund, "ref"),
    "lose_sight": lambda work, refund: refunds.lose_sight(work, refund, "time-out"),
    "need_attention": lambda work, refund: refunds.need_attention(work, refund, "ABNORMAL"),
    "succeed": lambda work, refund: refunds.succeed(work, refund, "ref"),
    "reject": lambda work, refund: refunds.reject(work, refund, "no"),
    "retry": refunds.retry,
    "write_off": refunds.write_off,
    "return_money": refunds.return_money,
}
STATES = (
    "AWAITING_APPROVAL",
    "REQUESTED",
    "SUBMITTED",
    "UNKNOWN",
    "ATTENTION",
    "SUCCEEDED",
    "REJECTED",
    "DECLINED",
    "RETURNED",
)
TABLE = {
    # arrow: outcome from each of STATES; an entry "→ X" means moved to X
    "approve": ("REQUESTED", "not_awaiting", "not_awaiting", "not_awaiting", "not_awaiting", "not_awaiting", "not_awaiting",
                "not_awaiting", "not_awaiting"),
    "decline": ("DECLINED", "DECLINED", "not_awaiting", "not_awaiting", "not_awaiting", "not_awaiting", "not_awaiting", REPEAT,
                "not_awaiting"),
    "submit": ("not_active", "SUBMITTED", REPEAT, "SUBMITTED", "SUBMITTED", "not_active", "not_active", "not_active",
               "not_active"),
    "lose_sight": ("not_active", "UNKNOWN", "UNKNOWN", REPEAT, "not_active", "not_active", "not_active", "not_active",
                   "not_active"),
    "need_attention": ("not_active", "ATTENTION", "ATTENTION", "ATTENTION", REPEAT, "not_active", "not_active", "not_active",
                       "not_active"),
    "succeed": ("SUCCEEDED", "SUCCEEDED", "SUCCEEDED", "SUCCEEDED", "SUCCEEDED", REPEAT, "SUCCEEDED", "SUCCEEDED", "was_returned"),
    "reject": ("not_active", "REJECTED", "REJECTED", "REJECTED", "REJECTED", "not_active", REPEAT, "not_active", "not_active"),
    "retry": ("not_rejected", REPEAT, "not_rejected", "not_rejected", "REQUESTED", "not_rejected", "REQUESTED", "not_rejected",
              "not_rejected"),
    "write_off": ("not_rejected", "not_rejected", "not_rejected", "not_rejected", "not_rejected", "not_rejected", "REJECTED",
                  REPEAT, REPEAT),
    "return_money": ("not_succeeded", "not_succeeded", "not_succeeded", "not_succeeded", "not_succeeded", "RETURNED",
                     "not_succeeded", "not_succeeded", REPEAT),
}  # fmt: skip


def work_with(state: str, **changes) -> tuple[Work, Refund]:
    """One refund of 400 of a stream that captured 1000, as the database would hold it."""
    order = Order(number="po1", amount_minor=1000, currency="CNY", state="PAID", keeper="po1s01")
    released = state in ("DECLINED", "RETURNED")
    stream = Stream(
        pk=1, number="po1s01", order=order, state="SUCCEEDED", role="keeper", captured_minor=1000, captured_currency="CNY",
        refund_reserved_minor=0 if released else 400,
    )  # fmt: skip
    fields = {"requested_by": "alice", "approval_expires_at": NOW + timedelta(hours=1), **changes}
    refund = Refund(
        pk=1, number="po1s01rp1", stream=stream, purpose="operator", sequence=1, amount_minor=400, currency="CNY",
        state=RefundState(state), is_released=released, **fields,
    )  # fmt: skip
    work = Work("default", order, [stream], Journal(NOW, "system:test"), _refunds=[refund], _cases=[])
    return work, refund


@pytest.mark.parametrize(("arrow", "index"), [(arrow, index) for arrow in TABLE for index in range(len(STATES))])
def test_an_arrow_moves_a_refund_as_the_table_says(arrow, index):
    """M2, S2, S10: the reservation always equals the refunds that are not released."""
    state, expected = STATES[index], TABLE[arrow][index]
    work, refund = work_with(state)
    outcome = ARROWS[arrow](work, refund)
    if expected in RefundState.values:
        assert (outcome.value, refund.state) == (MOVED, expected)
    else:
        assert (outcome.value, refund.state) == (expected, state)
    assert len(work.journal.events) == (1 if outcome == MOVED else 0)
    reserved = 0 if refund.is_released else refund.amount_minor
    assert work.streams[0].refund_reserved_minor == reserved


def test_the_requester_is_not_the_approver():
    """S15."""
    work, refund = work_with("AWAITING_APPROVAL")
    assert refunds.approve(work, refund, "alice") == "same_person"


def test_an_approval_after_its_time_is_refused():
    work, refund = work_with("AWAITING_APPROVAL", approval_expires_at=NOW)
    assert refunds.approve(work, refund, "bob") == "expired"


def test_the_same_approval_twice_is_one():
    work, refund = work_with("AWAITING_APPROVAL")
    assert refunds.approve(work, refund, "bob") == MOVED
    assert refunds.approve(work, refund, "bob") == REPEAT


def test_a_refund_that_was_sent_cannot_be_declined():
    work, refund = work_with("REQUESTED", first_sent_at=NOW)
    assert refunds.decline(work, refund, "bob", "no") == "not_awaiting"


@pytest.mark.parametrize("arrow", [refunds.retry, lambda work, refund: refunds.succeed(work, refund, "")])
def test_a_released_refund_takes_its_reservation_again_only_where_it_fits(arrow):
    """M2."""
    work, refund = work_with("REJECTED")
    assert refunds.write_off(work, refund) == MOVED
    work.streams[0].refund_reserved_minor = 700
    assert arrow(work, refund) == "too_much"
    work.streams[0].refund_reserved_minor = 600
    assert arrow(work, refund) == MOVED
    assert work.streams[0].refund_reserved_minor == 1000


def test_a_retry_waits_for_another_refund_of_the_stream():
    work, refund = work_with("REJECTED")
    other = work_with("REQUESTED")[1]
    other.pk, other.stream = 2, work.streams[0]
    work.refunds.append(other)
    assert refunds.retry(work, refund) == "another_active"
