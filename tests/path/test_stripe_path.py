"""The whole path through Stripe's API as the bank plays it, by web and by card; what happened is judged by the bank's ledger."""

from collections.abc import Iterator
from typing import Any

import pytest

from payonce.channels import registry
from payonce.channels.http import send
from payonce.channels.messages import HttpRequest, HttpResponse
from payonce.channels.sandbox import testing
from payonce.channels.sandbox.testing import RunningSandbox
from payonce.orders.models import Order
from payonce.payments import cache, close, expire, poll, statements, sweep
from payonce.payments.models import Discrepancy, Notification, Refund, Stream
from payonce.payments.pay import PayCode, pay_order
from payonce.payments.refund import request_refund, run_refund
from tests.channels.stripe.world import listen
from tests.clock import movable_clock
from tests.factories import open_order

AMOUNT = 1_000


@pytest.fixture
def shop(transactional_db: None, settings: Any, redis_client: Any, live_server: Any) -> Iterator[RunningSandbox]:
    """A shop with Stripe, a wallet that closes, and one that only time ends. Stripe's notifications reach the shop's own server."""
    accounts = {
        "stripe": {"skin": "stripe", "shop": {"methods": ["web", "card"]}},
        "blue": {"clock_skew_seconds": 1},
        "stubborn": {"close_proof": "expiry", "not_found_before_buyer_acts": True},
    }
    with testing.serve_in_thread(accounts) as running:
        settings.PAYONCE = {
            **settings.PAYONCE, "CHANNELS": running.accounts, "GRACE_SECONDS": 0, "BASE_URL": live_server.url,
            "SWITCH": {"PROOF_SECONDS": 0},
        }  # fmt: skip
        registry.reset()
        cache.reset()
        listen(running.accounts["stripe"], f"{live_server.url}/notify/stripe/")
        yield running
    registry.reset()


def stream_of(order: Order, channel: str = "stripe", method: str = "web") -> Stream:
    result = pay_order(order.number, channel, method)
    assert result.code is PayCode.PREPAY, result
    return Stream.objects.get(number=result.stream)


def settled(bank: RunningSandbox, stream: Stream, count: int = 1) -> None:
    assert bank.control.wait_delivered(stream.number, count, account=stream.account)


@pytest.mark.parametrize("method", ["web", "card"])
def test_buyer_pays_and_the_notification_settles_the_order(shop: RunningSandbox, method: str) -> None:
    order = open_order()
    result = pay_order(order.number, "stripe", method)
    again = pay_order(order.number, "stripe", method)
    assert (again.stream, again.prepay_value) == (result.stream, result.prepay_value)
    if method == "web":
        paid = send(HttpRequest("POST", result.prepay_value + "/pay"))
        assert isinstance(paid, HttpResponse)
    else:
        assert shop.control.pay(result.stream, account="stripe").ok
    stream = Stream.objects.get(number=result.stream)
    settled(shop, stream)
    order.refresh_from_db()
    stream.refresh_from_db()
    assert (order.state, order.keeper, stream.confirmed_by) == ("PAID", stream.number, "notification")
    assert (stream.channel_reference or "").startswith("pi_")
    assert shop.control.sums(stream.number)["net_minor"] == AMOUNT
    assert pay_order(order.number, "stripe", method).code is PayCode.ALREADY_PAID


def test_lost_notification_is_found_by_asking(shop: RunningSandbox) -> None:
    order = open_order()
    stream = stream_of(order)
    shop.control.fault("notify", "lose", account="stripe")
    assert shop.control.pay(stream.number, account="stripe").ok
    assert poll.nudge(stream.number)
    poll.poll_due()
    order.refresh_from_db()
    assert (order.state, order.keeper) == ("PAID", stream.number)
    assert not Notification.objects.exists()


def test_lost_answer_to_the_prepay_ends_in_one_session(shop: RunningSandbox) -> None:
    """The next click asks first, finds the session by the number, and repeats under the same key."""
    order = open_order()
    shop.control.fault("prepay", "drop_after", account="stripe")
    first = pay_order(order.number, "stripe", "web")
    assert first.code is PayCode.UNAVAILABLE
    second = pay_order(order.number, "stripe", "web")
    assert second.code is PayCode.PREPAY
    assert second.stream == first.stream
    payments = shop.control.ledger(account="stripe")["payments"]
    assert [payment["number"] for payment in payments] == [second.stream]


@pytest.mark.parametrize("method", ["web", "card"])
def test_switching_away_closes_stripe_for_good(shop: RunningSandbox, method: str) -> None:
    order = open_order()
    old = stream_of(order, method=method)
    new = stream_of(order, "blue", "qr")
    old.refresh_from_db()
    assert (old.state, old.close_proof) == ("CLOSED", "answer")
    assert not shop.control.pay(old.number, account="stripe").ok
    assert shop.control.pay(new.number, account="blue").ok


def test_switching_to_stripe_from_a_channel_that_cannot_close_watches_it_and_gives_its_money_back(
    shop: RunningSandbox,
) -> None:
    """An old QR paid late is surplus: M3."""
    order = open_order()
    old = stream_of(order, "stubborn", "qr")
    new = stream_of(order)
    old.refresh_from_db()
    assert (old.state, old.is_watched) == ("CLOSING", True)
    assert shop.control.pay(new.number, account="stripe").ok
    settled(shop, new)
    assert shop.control.pay(old.number, account="stubborn").ok
    settled(shop, old)
    refund = Refund.objects.get()
    assert refund.stream_id == old.pk
    run_refund(refund.number)
    order.refresh_from_db()
    assert order.keeper == new.number
    assert shop.control.sums(old.number, account="stubborn")["net_minor"] == 0
    assert shop.control.sums(new.number, account="stripe")["net_minor"] == AMOUNT


@pytest.mark.parametrize("method", ["web", "card"])
def test_old_stripe_stream_that_could_not_be_closed_is_paid_late_and_refunded_once(
    shop: RunningSandbox, method: str
) -> None:
    order = open_order()
    old = stream_of(order, method=method)
    with shop.control.outage("stripe"):
        new = stream_of(order, "blue", "qr")
    old.refresh_from_db()
    assert (old.state, old.is_watched) == ("CLOSING", True)
    assert shop.control.pay(new.number, account="blue").ok
    settled(shop, new)
    assert shop.control.pay(old.number, account="stripe").ok
    settled(shop, old)
    old.refresh_from_db()
    assert (old.role, old.surplus_reason) == ("surplus", "duplicate")
    run_refund(Refund.objects.get().number)
    assert Refund.objects.get().state == "SUCCEEDED"
    assert Discrepancy.objects.get().state == "RESOLVED"
    assert shop.control.sums(old.number, account="stripe")["net_minor"] == 0
    assert shop.control.sums(new.number, account="blue")["net_minor"] == AMOUNT


def test_refund_whose_answer_is_lost_moves_money_once(shop: RunningSandbox) -> None:
    """M6: the list of the payment's refunds tells what became of the number."""
    order = open_order()
    stream = stream_of(order)
    shop.control.pay(stream.number, account="stripe")
    settled(shop, stream)
    number = request_refund(stream.number, 400, reason="out_of_stock", by="operator:ann").number
    shop.control.fault("notify", "lose", account="stripe", times=None)
    shop.control.fault("refund", "drop_after", account="stripe")
    assert run_refund(number) == "unknown"
    Refund.objects.update(next_try_at=order.created_at)
    assert run_refund(number) == "done"
    assert shop.control.sums(stream.number)["refunded_minor"] == 400
    assert shop.control.calls("refund", account="stripe") == 1


def test_declined_refund_is_retried_under_its_number_and_moves_money_once(shop: RunningSandbox) -> None:
    """The decline is stored under the number's first key for a day: a person's retry must not meet it again."""
    from payonce.payments.refund import retry_refund

    order = open_order()
    stream = stream_of(order)
    shop.control.pay(stream.number, account="stripe")
    settled(shop, stream)
    number = request_refund(stream.number, AMOUNT, reason="out_of_stock", by="operator:ann").number
    shop.control.fault("refund", "refuse", account="stripe", code="DECLINED")
    assert run_refund(number) == "rejected"
    retry_refund(number, by="operator:bea")
    assert run_refund(number) == "done"
    assert shop.control.sums(stream.number)["refunded_minor"] == AMOUNT
    assert [row["number"] for row in shop.control.ledger(stream.number)["refunds"]] == [number]


def test_dispute_that_names_no_number_opens_a_case(shop: RunningSandbox) -> None:
    order = open_order()
    stream = stream_of(order)
    shop.control.pay(stream.number, account="stripe")
    settled(shop, stream)
    assert shop.control.dispute(stream.number, account="stripe").ok
    settled(shop, stream, 2)
    poll.poll_due()
    stream.refresh_from_db()
    assert stream.disputed_minor == AMOUNT
    assert Discrepancy.objects.get().kind == "dispute"


def test_closing_an_order_ends_its_session(shop: RunningSandbox) -> None:
    order = open_order()
    stream = stream_of(order)
    assert expire.close_order(order.number, by="system:test") == "closed"
    assert not shop.control.pay(stream.number, account="stripe").ok
    assert shop.control.sums(stream.number)["captures"] == 0


def test_buyer_who_has_acted_cannot_be_switched_away_from(shop: RunningSandbox) -> None:
    """S16: a delayed method is complete and unpaid; its money may come any moment."""
    order = open_order()
    stream = stream_of(order)
    assert shop.control.begin(stream.number, account="stripe").ok
    assert close.close_stream(stream.number, by="system:test") == "in_progress"
    assert pay_order(order.number, "blue", "qr").code is PayCode.CONFIRMING
    assert shop.control.pay(stream.number, account="stripe").ok
    settled(shop, stream)
    order.refresh_from_db()
    assert (order.state, order.keeper) == ("PAID", stream.number)


@pytest.mark.parametrize("kind", ["bad_signature", "no_signature", "altered_body", "other_secret"])
def test_x1_forged_notification_changes_nothing(shop: RunningSandbox, kind: str) -> None:
    order = open_order()
    stream = stream_of(order)
    shop.control.hold_notifications()
    shop.control.pay(stream.number, account="stripe")
    assert shop.control.wait_notifications(stream.number, "HELD", account="stripe")
    (answer,) = shop.control.send_notification(stream.number, account="stripe", forgery=kind)
    assert answer.startswith("401")
    order.refresh_from_db()
    assert order.state == "OPEN"


@pytest.mark.parametrize(
    ("altered", "state"),
    [({"amount_minor": 1}, "mismatched"), ({"currency": "EUR"}, "mismatched"), ({"merchant": "acct_9Other"}, "")],
)
def test_x1_verified_but_mismatched_money_never_settles(
    shop: RunningSandbox, altered: dict[str, Any], state: str
) -> None:
    order = open_order()
    stream = stream_of(order)
    shop.control.hold_notifications()
    shop.control.pay(stream.number, account="stripe")
    assert shop.control.wait_notifications(stream.number, "HELD", account="stripe")
    (answer,) = shop.control.send_notification(stream.number, account="stripe", altered=altered)
    assert answer.startswith("200")
    order.refresh_from_db()
    stream.refresh_from_db()
    assert (order.state, stream.surplus_reason) == ("OPEN", state)
    assert Discrepancy.objects.filter(kind="mismatch").count() == 1


def test_stale_notification_is_refused_and_makes_the_channel_asked(shop: RunningSandbox) -> None:
    """X2."""
    order = open_order()
    stream = stream_of(order)
    shop.control.hold_notifications()
    shop.control.pay(stream.number, account="stripe")
    assert shop.control.wait_notifications(stream.number, "HELD", account="stripe")
    (answer,) = shop.control.send_notification(stream.number, account="stripe", signed_ago_seconds=3_600)
    assert answer.startswith("401")
    sweep.sweep_poll()
    order.refresh_from_db()
    assert (order.state, order.keeper) == ("PAID", stream.number)


def test_a_refund_made_in_the_dashboard_is_seen_in_the_statement(shop: RunningSandbox) -> None:
    """M1: it carries no number of ours, and its notification was lost."""
    with movable_clock() as clock:
        order = open_order()
        stream = stream_of(order)
        assert shop.control.pay(stream.number, account="stripe").ok
        settled(shop, stream)
        shop.control.fault("notify", "lose", times=None)
        shop.control.outside_refund(stream.number, 300, account="stripe")
        for _ in range(2):
            clock.advance(86_400)
            statements.plan_days()
            for day in statements.unfinished(["stripe"]):
                statements.carry_on(day)
        case = Discrepancy.objects.get()
        assert (case.kind, case.subject, case.amount_minor) == ("outside_refund", stream.number, 300)
