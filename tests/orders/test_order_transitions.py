"""Every arrow of an order from every state: what happens and what is refused, by name."""

from datetime import UTC, datetime

import pytest

from payonce.orders import transitions
from payonce.orders.events import Journal
from payonce.orders.models import Order
from payonce.orders.statuses import OrderState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ARROWS = {
    "amend": lambda order, journal: transitions.amend(order, journal, 2000, "CNY"),
    "settle": lambda order, journal: transitions.settle(order, journal, "po1s01", None),
    "start_closing": lambda order, journal: transitions.start_closing(order, journal, "expired"),
    "close": transitions.close,
    "give_back": lambda order, journal: transitions.give_back(order, journal, 1000, "po1s01rp1"),
    "take_back": lambda order, journal: transitions.take_back(order, journal, 400, "po1s01rp1"),
}
TABLE = {
    # arrow: {state: (outcome, state after)}
    "amend": {
        "OPEN": ("moved", "OPEN"), "CLOSING": ("not_open", "CLOSING"), "CLOSED": ("not_open", "CLOSED"),
        "PAID": ("not_open", "PAID"), "REFUNDED": ("not_open", "REFUNDED"),
    },
    "settle": {
        "OPEN": ("moved", "PAID"), "CLOSING": ("moved", "PAID"), "CLOSED": ("moved", "PAID"),
        "PAID": ("has_keeper", "PAID"), "REFUNDED": ("has_keeper", "REFUNDED"),
    },
    "start_closing": {
        "OPEN": ("moved", "CLOSING"), "CLOSING": ("repeat", "CLOSING"), "CLOSED": ("repeat", "CLOSED"),
        "PAID": ("has_keeper", "PAID"), "REFUNDED": ("has_keeper", "REFUNDED"),
    },
    "close": {
        "OPEN": ("not_closing", "OPEN"), "CLOSING": ("moved", "CLOSED"), "CLOSED": ("repeat", "CLOSED"),
        "PAID": ("not_closing", "PAID"), "REFUNDED": ("not_closing", "REFUNDED"),
    },
    "give_back": {
        "OPEN": ("not_paid", "OPEN"), "CLOSING": ("not_paid", "CLOSING"), "CLOSED": ("not_paid", "CLOSED"),
        "PAID": ("moved", "REFUNDED"), "REFUNDED": ("not_paid", "REFUNDED"),
    },
    "take_back": {
        "OPEN": ("not_paid", "OPEN"), "CLOSING": ("not_paid", "CLOSING"), "CLOSED": ("not_paid", "CLOSED"),
        "PAID": ("too_much", "PAID"), "REFUNDED": ("moved", "PAID"),
    },
}  # fmt: skip


def order_in(state: str) -> Order:
    has_keeper = state in ("PAID", "REFUNDED")
    return Order(
        number="po1", source="shop", reference="A", amount_minor=1000, currency="CNY", state=OrderState(state),
        keeper="po1s09" if has_keeper else None, refunded_minor=1000 if state == "REFUNDED" else 0,
    )  # fmt: skip


@pytest.mark.parametrize(("arrow", "state"), [(arrow, state) for arrow in TABLE for state in OrderState.values])
def test_an_arrow_moves_an_order_as_the_table_says(arrow, state):
    """S2, S10: one event for a change, none for a repeat or a refusal."""
    order, journal = order_in(state), Journal(NOW, "system:test")
    outcome = ARROWS[arrow](order, journal)
    assert (outcome.value, order.state) == TABLE[arrow][state]
    assert len(journal.events) == (1 if outcome == "moved" else 0)
    assert order.version == len(journal.events)


def test_a_repeat_of_the_keepers_settle_changes_nothing():
    order, journal = order_in("PAID"), Journal(NOW, "system:test")
    assert transitions.settle(order, journal, "po1s09", NOW) == "repeat"
    assert journal.events == []


def test_amending_to_the_same_amount_changes_nothing():
    order, journal = order_in("OPEN"), Journal(NOW, "system:test")
    assert transitions.amend(order, journal, 1000, "CNY") == "repeat"


def test_a_part_given_back_leaves_the_order_paid():
    order, journal = order_in("PAID"), Journal(NOW, "system:test")
    assert transitions.give_back(order, journal, 400, "r") == "moved"
    assert (order.state, order.refunded_minor) == ("PAID", 400)
    assert transitions.give_back(order, journal, 601, "r") == "too_much"
    assert transitions.give_back(order, journal, 0, "r") == "too_much"
    assert transitions.take_back(order, journal, 400, "r") == "moved"
    assert (order.state, order.refunded_minor, journal.events[-1].state_to) == ("PAID", 0, "")
