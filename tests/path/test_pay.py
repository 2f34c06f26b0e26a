"""A click on Pay: the same stream for every repeat, and never a second one beside an open one."""

import threading

from django.db import connection

from payonce.channels.messages import PaymentState, PaymentView
from payonce.orders.events import verify_chain
from payonce.orders.models import Event
from payonce.orders.place import place_order
from payonce.payments.models import Stream
from payonce.payments.pay import PayCode, pay_order
from tests.factories import apply, created_stream, open_order, paid_stream, pending_stream


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


def test_the_stream_is_committed_before_the_channel_hears_of_it(scripted):
    """S6: when the channel is called, the row with its number is there for everybody to see."""
    order, seen = open_order(), []

    def look(asked):
        def read():
            seen.extend(Stream.objects.filter(number=asked.number).values_list("state", "amount_minor"))
            connection.close()

        other = threading.Thread(target=read)
        other.start()
        other.join()

    scripted.before["prepay"] = look
    assert pay_order(order.number, "scripted_a", "qr").code is PayCode.PREPAY
    assert seen == [("CREATED", 1000)]


def test_a_prepay_without_an_answer_has_not_failed(scripted):
    """S4: unknown is not failed; the same number is asked about and registered again."""
    stream = created_stream()
    assert (stream.state, stream.is_answer_unknown) == ("CREATED", True)
    result = pay_order(stream.order.number, "scripted_a", "qr")
    assert (result.code, result.stream) == (PayCode.PREPAY, stream.number)
    assert [name for name, _, _ in scripted.calls] == ["prepay", "query", "prepay"]
    assert Stream.objects.count() == 1


def test_only_the_holder_of_the_lease_stores_the_prepay(scripted):
    """S3: a call that was taken over meanwhile stores nothing, and what it registered is not closed under the other's feet."""
    order = open_order()

    def take_over(asked):
        scripted.before.clear()
        Stream.objects.filter(number=asked.number).update(call_lease="another", prepay_value="")

    scripted.before["prepay"] = take_over
    result = pay_order(order.number, "scripted_a", "qr")
    stream = Stream.objects.get()
    assert (stream.state, stream.call_lease, stream.handed_out_at) == ("CREATED", "another", None)
    assert result.code is PayCode.IN_PROGRESS


def test_after_a_change_of_the_price_no_click_gets_the_old_prepay(scripted):
    """S8, M9: the cached prepay of the old amount is void at once."""
    order = open_order()
    old = pay_order(order.number, "scripted_a", "qr")
    place_order("shop", order.reference, amount_minor=1200, currency="CNY", subject="A book", amend=True)
    new = pay_order(order.number, "scripted_a", "qr")
    assert (old.amount_minor, new.amount_minor) == (1000, 1200)
    assert new.stream != old.stream


def test_a_cached_prepay_is_for_its_payer_and_client_alone(scripted):
    """S8: another payer or client type gets a stream of its own."""
    order = open_order()
    first = pay_order(order.number, "scripted_a", "qr", payer="ann", client_type="app")
    assert pay_order(order.number, "scripted_a", "qr", payer="ann", client_type="app") == first
    second = pay_order(order.number, "scripted_a", "qr", payer="bob", client_type="app")
    third = pay_order(order.number, "scripted_a", "qr", payer="bob", client_type="web")
    assert len({first.stream, second.stream, third.stream}) == 3
    assert list(Stream.objects.order_by("attempt").values_list("payer", "client_type")) == [
        ("ann", "app"), ("bob", "app"), ("bob", "web"),
    ]  # fmt: skip


def test_a_buyer_who_has_acted_gets_no_other_way_to_pay(scripted):
    """S16, S3: money that may be on its way blocks the switch, and nothing is asked to close."""
    stream = pending_stream()
    apply(stream, PaymentView(stream.number, PaymentState.IN_PROGRESS))
    for channel in ("scripted_a", "scripted_b"):
        assert pay_order(stream.order.number, channel, "qr").code is PayCode.CONFIRMING
    assert (scripted.count("close"), scripted.count("prepay"), Stream.objects.count()) == (0, 1, 1)
    stream.refresh_from_db()
    assert stream.state == "PROCESSING"
