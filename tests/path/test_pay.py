"""A click on Pay: the same stream for every repeat, and never a second one beside an open one."""

from payonce.orders.events import verify_chain
from payonce.orders.models import Event
from payonce.payments.models import Stream
from payonce.payments.pay import PayCode, pay_order
from tests.factories import open_order, paid_stream, pending_stream


def test_first_click_hands_out_a_prepay(scripted):
    order = open_order()
    result = pay_order(order.number, "scripted_a", "qr")
    assert result.code is PayCode.PREPAY
    assert result.prepay_value == f"scripted:{result.stream}"
    stream = Stream.objects.get()
    assert stream.state == "PENDING"
    assert stream.handed_out_at is not None
    order.refresh_from_db()
    assert verify_chain(order, Event.objects.filter(order=order)) == 3


def test_repeated_click_gets_the_same_stream(scripted, redis_client):
    order = open_order()
    first = pay_order(order.number, "scripted_a", "qr")
    second = pay_order(order.number, "scripted_a", "qr")
    redis_client.flushdb()
    third = pay_order(order.number, "scripted_a", "qr")
    assert first == second == third
    assert scripted.count("prepay") == 1


def test_paid_order_answers_already_paid(scripted):
    stream = paid_stream()
    result = pay_order(stream.order.number, "scripted_b", "qr")
    assert result.code is PayCode.ALREADY_PAID
    assert result.stream == stream.number
    assert scripted.count("prepay") == 1


def test_switching_channel_closes_the_older_stream_first(scripted):
    stream = pending_stream()
    result = pay_order(stream.order.number, "scripted_b", "qr")
    assert result.code is PayCode.PREPAY
    stream.refresh_from_db()
    assert stream.state == "CLOSED"
    names = [name for name, _, _ in scripted.calls]
    assert names.index("close") < names.index("prepay", 1)
