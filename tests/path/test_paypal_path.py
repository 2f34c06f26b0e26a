"""The whole path with PayPal's wire format: the buyer approves, we capture, and withholding the capture is the close."""

from datetime import timedelta

import pytest
from django.utils import timezone

from payonce.channels import registry
from payonce.channels.sandbox import testing
from payonce.orders.models import Order
from payonce.payments import cache
from payonce.payments.expire import close_order
from payonce.payments.models import Discrepancy, Refund, Stream
from payonce.payments.pay import PayCode, pay_order
from payonce.payments.poll import poll_due, poll_stream
from payonce.payments.refund import request_refund
from payonce.payments.refund_run import RefundRun, run_refund
from tests.channels.paypal.simulator import register_webhook
from tests.factories import open_order


@pytest.fixture
def world(transactional_db, settings, redis_client, live_server):
    """PayPal beside a plain wallet, over HTTP; PayPal's events are held until the test hands them over."""
    with testing.serve_in_thread({"paypal": {"skin": "paypal"}, "blue": {"clock_skew_seconds": 1}}) as running:
        settings.PAYONCE = {
            **settings.PAYONCE, "CHANNELS": running.accounts, "GRACE_SECONDS": 0, "BASE_URL": live_server.url,
            "SWITCH": {"PROOF_SECONDS": 0},
        }  # fmt: skip
        registry.reset()
        cache.reset()
        register_webhook(running.accounts["paypal"], f"{live_server.url}/notify/paypal/")
        running.control.hold_notifications()
        yield running
    registry.reset()


def opened(order=None):
    """An order whose buyer was sent to PayPal."""
    order = order or open_order(currency="USD", amount_minor=1_999)
    result = pay_order(order.number, "paypal", "web")
    assert (result.code, result.prepay_kind) == (PayCode.PREPAY, "redirect")
    assert "/checkoutnow?token=" in result.prepay_value
    return Stream.objects.select_related("order").get(number=result.stream)


def paid_once(world, stream):
    """S1, by the bank's own books: one capture, nothing given back, the order PAID by this stream."""
    order = Order.objects.get(pk=stream.order_id)
    sums = world.control.sums(stream.number, account="paypal")
    assert (order.state, order.keeper) == ("PAID", stream.number)
    assert (sums["captures"], sums["net_minor"]) == (1, order.amount_minor)


def test_an_approval_is_captured_and_its_event_settles_the_order(world):
    """S6: nothing moves before our capture."""
    stream = opened()
    assert world.control.approve(stream.number, account="paypal").ok
    assert world.control.sums(stream.number, account="paypal")["captured_minor"] == 0
    assert world.control.release(stream.number, account="paypal") == ["200 "]
    assert poll_due().answered == 1  # the approval made it due at once
    paid_once(world, stream)
    world.control.hold_notifications()
    assert set(world.control.send_notification(stream.number, account="paypal", copies=3, at_once=True)) == {"200 "}
    paid_once(world, stream)


def test_an_approval_whose_event_was_lost_is_found_by_polling(world):
    """L1."""
    stream = opened()
    world.control.approve(stream.number, account="paypal")
    poll_stream(stream.number, "test")
    paid_once(world, stream)


@pytest.mark.parametrize("fault", ["drop_after", "error_after", "garbage", "truncate"])
def test_a_capture_whose_answer_is_lost_takes_the_money_once(world, fault):
    """M6, S6: asked again under the same key, or found by a query."""
    stream = opened()
    world.control.approve(stream.number, account="paypal")
    world.control.fault("capture", fault, account="paypal")
    poll_stream(stream.number, "test")
    stream.refresh_from_db()
    assert stream.state in ("CAPTURING", "SUCCEEDED")
    poll_stream(stream.number, "test")
    paid_once(world, stream)


def test_a_prepay_whose_answer_is_lost_is_resumed_under_the_same_number(world):
    """S8: one order at PayPal."""
    order = open_order(currency="USD")
    world.control.fault("prepay", "drop_after", account="paypal")
    assert pay_order(order.number, "paypal", "web").code is PayCode.UNAVAILABLE
    stream = Stream.objects.get()
    stream = opened(order)
    assert Stream.objects.count() == 1
    assert world.control.calls("prepay", stream.number, account="paypal") == 2
    world.control.approve(stream.number, account="paypal")
    poll_stream(stream.number, "test")
    paid_once(world, stream)


def test_switching_away_closes_by_our_restraint_and_a_later_approval_is_never_captured(world):
    """S3, S4: the old page stays open in another tab, and approving there moves nothing."""
    stream = opened()
    assert pay_order(stream.order.number, "blue", "qr").code is PayCode.PREPAY
    stream.refresh_from_db()
    assert (stream.state, stream.close_proof) == ("CLOSED", "restraint")
    other = Stream.objects.exclude(pk=stream.pk).get()
    world.control.pay(other.number, account="blue")
    world.control.approve(stream.number, account="paypal")
    world.control.release()
    poll_stream(other.number, "test")
    order = Order.objects.get()
    assert (order.state, order.keeper) == ("PAID", other.number)
    assert world.control.sums(stream.number, account="paypal")["captured_minor"] == 0


def test_switching_to_paypal_closes_the_wallet_first(world):
    """S3."""
    order = open_order(currency="USD")
    first = pay_order(order.number, "blue", "qr")
    opened(order)
    assert Stream.objects.get(number=first.stream).state == "CLOSED"
    assert not world.control.pay(first.stream, account="blue").ok


def test_an_approval_after_the_order_was_cancelled_moves_nothing(world):
    """S16, M1."""
    stream = opened()
    close_order(stream.order.number, "shop")
    world.control.approve(stream.number, account="paypal")
    poll_stream(stream.number, "test")
    assert Order.objects.get().state == "CLOSED"
    assert world.control.sums(stream.number, account="paypal")["captured_minor"] == 0


def test_money_that_paypal_took_by_itself_after_the_close_is_given_back(world):
    """M3: some alternative ways to pay capture at the approval; such money is late, and goes back."""
    stream = opened()
    close_order(stream.order.number, "shop")
    world.control.advance_clock(2)  # PayPal's times are whole seconds
    assert world.control.pay(stream.number, account="paypal", force=True).ok
    poll_stream(stream.number, "test")
    assert run_refund(Refund.objects.get().number) is RefundRun.DONE
    sums = world.control.sums(stream.number, account="paypal")
    assert (sums["captured_minor"], sums["net_minor"]) == (1_999, 0)


@pytest.mark.parametrize("fault", ["drop_after", "error_after"])
def test_a_refund_whose_answer_is_lost_moves_money_once(world, fault):
    """M2, M6: it is found in the order by our refund number."""
    stream = opened()
    world.control.approve(stream.number, account="paypal")
    poll_stream(stream.number, "test")
    made = request_refund(stream.number, 500, by="operator:ann", reason="other", note="damaged")
    world.control.fault("refund", fault, account="paypal")
    assert run_refund(made.number) is RefundRun.UNKNOWN
    Refund.objects.update(next_try_at=timezone.now() - timedelta(seconds=1))
    assert run_refund(made.number) is RefundRun.DONE
    sums = world.control.sums(stream.number, account="paypal")
    assert (sums["refunded_minor"], sums["net_minor"]) == (500, 1_499)
    assert world.control.calls("refund", stream.number, account="paypal") == 1


def test_a_second_capture_of_one_order_is_adopted_and_given_back(world):
    """M3, M7: it is named by the order and its own id."""
    stream = opened()
    world.control.approve(stream.number, account="paypal")
    poll_stream(stream.number, "test")
    assert world.control.second_capture(stream.number, account="paypal").ok
    poll_stream(stream.number, "test")
    adopted = Stream.objects.exclude(pk=stream.pk).get()
    assert adopted.channel_reference.startswith(f"{Stream.objects.get(pk=stream.pk).channel_reference}/")
    assert run_refund(Refund.objects.get().number) is RefundRun.DONE
    sums = world.control.sums(stream.number, account="paypal")
    assert (sums["captures"], sums["net_minor"]) == (2, 1_999)


@pytest.mark.parametrize("forgery", ["bad_signature", "no_signature", "altered_body", "wrong_account", "other_secret"])
def test_a_forged_event_changes_nothing(world, forgery):
    """X1."""
    stream = opened()
    world.control.approve(stream.number, account="paypal")
    (answer,) = world.control.send_notification(stream.number, account="paypal", forgery=forgery)
    assert answer.startswith("401")
    assert Stream.objects.get().state == "PENDING"


def test_an_event_about_another_amount_never_settles(world):
    """X1, S1."""
    stream = opened()
    world.control.pay(stream.number, account="paypal", force=True)
    (answer,) = world.control.send_notification(
        stream.number, account="paypal", event="payment.paid", altered={"amount_minor": 1}
    )
    assert answer.startswith("200")
    assert Order.objects.get().keeper is None
    assert (Stream.objects.get().state, Stream.objects.get().surplus_reason) == ("SUCCEEDED", "mismatched")
    assert Discrepancy.objects.get().amount_minor == 1


def test_without_its_certificates_events_are_refused(world, settings):
    """X1: an account that is not fully configured answers 503."""
    stream = opened()
    world.control.approve(stream.number, account="paypal")
    accounts = {
        **settings.PAYONCE["CHANNELS"],
        "paypal": {**settings.PAYONCE["CHANNELS"]["paypal"], "webhook_certificates": []},
    }
    settings.PAYONCE = {**settings.PAYONCE, "CHANNELS": accounts}
    registry.reset()
    (answer,) = world.control.send_notification(stream.number, account="paypal")
    assert answer.startswith("503")
