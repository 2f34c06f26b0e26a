"""Publishing: each event at least once, in order per order, and the shop's own effects commit with the money or not at all."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from payonce.channels.signing import new_webhook_secret, verify_webhook
from payonce.orders.models import Order
from payonce.payments import message_rows, publish, schedule, sweep
from payonce.payments.models import Discrepancy, ShopMessage
from payonce.payments.refund import request_refund, run_refund
from payonce.payments.signals import order_event
from tests.factories import apply, paid_stream, pending_stream, view_of
from tests.shops import MarkingShop, RecordingShop


@pytest.fixture
def recording(scripted, settings):
    settings.PAYONCE = {**settings.PAYONCE, "SHOP": "tests.shops.RecordingShop"}
    RecordingShop.forget()
    yield RecordingShop
    RecordingShop.forget()


@pytest.fixture
def marking(scripted, settings):
    settings.PAYONCE = {**settings.PAYONCE, "SHOP": "tests.shops.MarkingShop"}
    MarkingShop.breaks, MarkingShop.calls = "", 0
    yield MarkingShop
    MarkingShop.breaks, MarkingShop.calls = "", 0


def test_the_shop_is_told_once_in_order(recording):
    """S11."""
    stream = paid_stream()
    asked = request_refund(stream.number, 1000, reason="duplicate", by="alice")
    run_refund(asked.number)
    publish.deliver_due()
    publish.deliver_due()
    assert [event.kind for event in recording.told] == ["order.paid", "refund.succeeded", "order.refunded"]
    assert [event.reference for event in recording.paid] == [stream.order.reference]
    assert recording.paid[0].id == f"{stream.order.number}-{recording.paid[0].sequence}"
    assert (recording.paid[0].state, recording.told[-1].state) == ("PAID", "REFUNDED")


def test_a_failing_shop_is_told_again_and_later_events_wait(recording, clock):
    """S11: in order per order."""
    recording.failures.append(RuntimeError("away"))
    stream = paid_stream()
    asked = request_refund(stream.number, 1000, reason="duplicate", by="alice")
    run_refund(asked.number)
    publish.deliver_due()
    assert recording.told == []
    clock.advance(20)
    publish.deliver_due()
    assert [event.kind for event in recording.told] == ["order.paid", "refund.succeeded", "order.refunded"]


def test_after_the_last_try_a_message_is_parked_for_a_person_who_resends_it(recording, clock):
    stream = paid_stream()
    recording.failures.extend([RuntimeError("away")] * 20)
    for _ in range(len(schedule.MESSAGE_TRY_SECONDS) + 2):
        clock.advance(90_000)
        publish.deliver_due()
    message = ShopMessage.objects.get(kind="order.paid")
    assert message.state == "PARKED"
    assert Discrepancy.objects.filter(kind="shop_not_told", state="OPEN", order=stream.order).exists()
    recording.failures.clear()
    assert message_rows.resend(message.pk, "operator:alice")
    clock.advance(60)
    publish.deliver_due()
    assert recording.told[0].kind == "order.paid"
    assert Discrepancy.objects.get(kind="shop_not_told").state == "RESOLVED"


def test_a_skipped_message_lets_the_later_ones_out(recording, clock):
    recording.failures.extend([RuntimeError("away")] * 20)
    stream = paid_stream()
    for _ in range(len(schedule.MESSAGE_TRY_SECONDS) + 2):
        clock.advance(90_000)
        publish.deliver_due()
    recording.failures.clear()
    assert message_rows.skip(ShopMessage.objects.get(kind="order.paid").pk, "operator:alice")
    clock.advance(60)
    publish.deliver_due()
    assert "order.paid" not in [event.kind for event in recording.told]
    assert "case.opened" in [event.kind for event in recording.told]
    assert stream.order.messages.filter(state="PENDING").count() == 0


def test_django_signals_mirror_the_events(recording):
    seen = []

    def receiver(sender, event, **kwargs):
        seen.append(event.kind)

    order_event.connect(receiver)
    try:
        paid_stream()
        publish.deliver_due()
    finally:
        order_event.disconnect(receiver)
    assert seen == ["order.paid"]


def test_the_shops_own_effects_commit_with_the_money(marking):
    paid_stream()
    order = Order.objects.get()
    assert (order.state, order.basket_key, marking.calls) == ("PAID", "marked", 1)


@pytest.mark.parametrize("how", ["raise", "step", "rollback"])
def test_a_broken_hook_undoes_its_own_work_and_never_the_money(marking, how):
    marking.breaks = how
    stream = pending_stream()
    assert apply(stream, view_of(stream)) == "keeper"
    order = Order.objects.get()
    assert (order.state, order.basket_key) == ("PAID", "")


class Endpoint:
    """A real HTTP endpoint of a shop."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                endpoint.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(endpoint.status)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def endpoint(scripted, settings):
    running = Endpoint()
    secret = new_webhook_secret()
    url = f"http://127.0.0.1:{running.server.server_port}/hook"
    settings.PAYONCE = {
        **settings.PAYONCE,
        "MESSAGES": {"ENDPOINTS": {"erp": {"url": url, "secret": secret}}, "PRIVATE_HOSTS": ["127.0.0.1"]},
    }
    running.secret = secret  # type: ignore[attr-defined]
    yield running
    running.stop()


def test_a_signed_message_reaches_an_endpoint(endpoint):
    stream = paid_stream()
    sweep.sweep_publish()
    ((headers, body),) = endpoint.got
    at = int(headers["webhook-timestamp"])
    assert verify_webhook(endpoint.secret, headers, body, at).value == "good"
    told = json.loads(body)
    assert (told["kind"], told["reference"], told["amount_minor"]) == ("order.paid", stream.order.reference, 1000)
    assert headers["webhook-id"] == told["id"]


def test_an_endpoint_that_is_down_is_told_when_it_is_back(endpoint, clock):
    """L4: the first success makes everything parked due."""
    endpoint.status = 500
    for _ in range(3):
        paid_stream()
    for _ in range(6):
        sweep.sweep_publish()
        clock.advance(40)
    endpoint.got.clear()
    endpoint.status = 200
    clock.advance(60)
    sweep.sweep_publish()
    clock.advance(1)
    sweep.sweep_publish()
    assert len({headers["webhook-id"] for headers, _ in endpoint.got}) == 3
    assert not ShopMessage.objects.filter(listener="erp").exclude(state="DELIVERED").exists()


def test_a_private_address_is_not_called(endpoint, settings):
    """X5."""
    settings.PAYONCE = {**settings.PAYONCE, "MESSAGES": {**settings.PAYONCE["MESSAGES"], "PRIVATE_HOSTS": []}}
    paid_stream()
    sweep.sweep_publish()
    assert endpoint.got == []
    assert "forbidden" in ShopMessage.objects.get(listener="erp").last_answer


def test_a_message_that_was_delivered_cannot_be_skipped_afterwards(recording):
    paid_stream()
    publish.deliver_due()
    message = ShopMessage.objects.get(kind="order.paid")
    message_rows.skip(message.pk, "operator:alice")
    message.refresh_from_db()
    assert message.state == "DELIVERED"
