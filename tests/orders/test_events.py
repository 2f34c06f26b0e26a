"""The history: no gap, no alteration, no float."""

import pytest

from payonce.orders.errors import EventChainBroken
from payonce.orders.events import canonical, verify_chain
from payonce.orders.models import Event, Order
from tests.factories import paid_stream


@pytest.fixture
def history(scripted):
    paid_stream()
    order = Order.objects.get()
    return order, list(Event.objects.filter(order=order))


def test_a_whole_history_verifies(history):
    order, events = history
    assert verify_chain(order, events) == order.version == len(events)


def test_a_missing_event_is_found(history):
    order, events = history
    for gap in range(len(events)):
        with pytest.raises(EventChainBroken):
            verify_chain(order, events[:gap] + events[gap + 1 :])


@pytest.mark.parametrize("field", ["body", "hash"])
def test_an_altered_event_is_found(history, field):
    order, events = history
    setattr(events[1], field, getattr(events[1], field).replace("a", "b"))
    with pytest.raises(EventChainBroken, match="event 2"):
        verify_chain(order, events)


def test_an_event_holds_no_float():
    """M8."""
    assert canonical({"b": 1, "a": [1, "x"]}) == '{"a":[1,"x"],"b":1}'
    for body in ({"a": 1.0}, {"a": {"b": [0.5]}}):
        with pytest.raises(TypeError, match="no float"):
            canonical(body)
