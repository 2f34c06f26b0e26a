"""The whole path of a payment through WeChat Pay, over real HTTP both ways; the bank's books are the truth."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from payonce.channels import registry
from payonce.channels.sandbox.testing import RunningSandbox, serve_in_thread
from payonce.orders.models import Order
from payonce.payments import cache, close, poll, statements
from payonce.payments.models import Discrepancy, Notification, Refund, Stream
from payonce.payments.pay import PayCode, pay_order
from payonce.payments.refund import request_refund, retry_refund, run_refund
from payonce.payments.refund_run import RefundRun
from tests.clock import Clock, movable_clock
from tests.factories import open_order

PRICE = 1000


@pytest.fixture(scope="module")
def running() -> Iterator[RunningSandbox]:
    """One bank: WeChat Pay, and another wallet to switch to."""
    with serve_in_thread({"wx": {"skin": "wechat_pay"}, "green": {}}) as sandbox:
        yield sandbox


@pytest.fixture
def bank(
    running: RunningSandbox, transactional_db: None, settings: Any, redis_client: Any, live_server: Any
) -> Iterator[RunningSandbox]:
    """The bank knows the way back to us."""
    settings.PAYONCE = {
        **settings.PAYONCE, "CHANNELS": running.accounts, "GRACE_SECONDS": 0, "BASE_URL": live_server.url,
        "SWITCH": {"PROOF_SECONDS": 0},
    }  # fmt: skip
    registry.reset()
    cache.reset()
    yield running
    running.control.clear_faults()
    wait_until_quiet(running)
    registry.reset()


def wait_until_quiet(running: RunningSandbox, seconds: float = 60) -> None:
    """Nothing is on its way to us any more: the database is emptied next, and the next test has another one's money."""
    deadline = time.monotonic() + seconds
    while any(
        message["state"] in {"NEW", "SENDING"} or (message["state"] == "DUE" and not message["attempts"])
        for message in running.control.notifications()
    ):
        assert time.monotonic() < deadline, running.control.notifications()
        time.sleep(0.02)


@pytest.fixture
def clock(bank: RunningSandbox) -> Iterator[Clock]:
    with movable_clock() as moved:
        yield moved


def click(order: Order, channel: str = "wx", method: str = "qr", **choice: Any) -> Stream:
    result = pay_order(order.number, channel, method, **choice)
    assert result.code is PayCode.PREPAY, result
    return Stream.objects.get(number=result.stream)


def told(bank: RunningSandbox, stream: Stream, count: int = 1) -> None:
    assert bank.control.wait_delivered(stream.number, count, account=stream.account)


def net(bank: RunningSandbox, order: Order) -> int:
    """What the merchant truly has for an order."""
    return sum(
        bank.control.sums(stream.number, account=stream.account)["net_minor"]
        for stream in Stream.objects.filter(order=order)
    )


def state_of(order: Order) -> tuple[str, str | None]:
    order.refresh_from_db()
    return str(order.state), order.keeper


@pytest.mark.parametrize(
    ("method", "choice"),
    [
        ("qr", {}),
        ("jsapi", {"payer": "oBuyer0001"}),
        ("h5", {"client_ip": "203.0.113.7", "client_type": "ios"}),
        ("app", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_notification_pays_the_order(bank: RunningSandbox, method: str, choice: dict[str, str]) -> None:
    """S1, S7: acknowledged with 204 after the commit."""
    order = open_order()
    stream = click(order, method=method, **choice)
    assert bank.control.pay(stream.number).ok
    told(bank, stream)
    assert state_of(order) == ("PAID", stream.number)
    assert bank.control.notifications(stream.number)[0]["last_result"].strip() == "204"
    stream.refresh_from_db()
    assert (stream.confirmed_by, stream.captured_minor) == ("notification", PRICE)
    assert net(bank, order) == PRICE


def test_a_second_click_hands_the_same_code_out(bank: RunningSandbox) -> None:
    order = open_order()
    first, second = (pay_order(order.number, "wx", "qr") for _ in range(2))
    assert first.stream == second.stream
    assert bank.control.calls("prepay", first.stream) == 1


def test_a_lost_notification_is_only_a_delay(bank: RunningSandbox, clock: Clock) -> None:
    """L1."""
    order = open_order()
    stream = click(order)
    bank.control.fault("notify", "lose", number=stream.number)
    assert bank.control.pay(stream.number).ok
    assert bank.control.wait_notifications(stream.number, "LOST")
    assert state_of(order)[0] == "OPEN"
    clock.advance(4)
    poll.poll_due()
    assert state_of(order) == ("PAID", stream.number)
    stream.refresh_from_db()
    assert stream.confirmed_by == "poll"


def test_switching_away_is_proven_by_the_query_after_the_close(bank: RunningSandbox) -> None:
    """S3, S4: the adapter's answer to a close is that of its query."""
    order = open_order()
    old = click(order)
    new = click(order, "green")
    old.refresh_from_db()
    assert (old.state, old.close_proof) == ("CLOSED", "answer")
    assert bank.control.calls("query", old.number) == 2  # ours before it, and the adapter's after it
    assert not bank.control.pay(old.number).ok
    assert bank.control.pay(new.number).ok
    told(bank, new)
    assert state_of(order) == ("PAID", new.number)
    assert net(bank, order) == PRICE


def test_switching_to_wechat_pay(bank: RunningSandbox) -> None:
    order = open_order()
    old = click(order, "green")
    new = click(order)
    old.refresh_from_db()
    assert old.state == "CLOSED"
    assert bank.control.pay(new.number).ok
    told(bank, new)
    assert state_of(order) == ("PAID", new.number)
    assert net(bank, order) == PRICE


def test_a_204_without_effect_is_found_out_and_both_are_watched(bank: RunningSandbox) -> None:
    """M1, M3, M4: paid twice, kept once."""
    order = open_order()
    old = click(order)
    bank.control.fault("close", "not_found", number=old.number, times=None)
    new = click(order, "green")
    old.refresh_from_db()
    assert (old.state, old.is_watched) == ("CLOSING", True)
    for stream in (new, old):
        assert bank.control.pay(stream.number).ok
        told(bank, stream)
    assert state_of(order) == ("PAID", new.number)
    assert run_refund(Refund.objects.get().number) is RefundRun.DONE
    assert net(bank, order) == PRICE
    assert bank.control.sums(old.number)["refunded_minor"] == PRICE


def test_a_buyer_who_pays_while_we_close_is_the_keeper(bank: RunningSandbox) -> None:
    """S5."""
    order = open_order()
    stream = click(order)
    bank.control.hold_notifications(stream.number)
    bank.control.fault("close", "race_pay", number=stream.number, winner="pay")
    assert pay_order(order.number, "green", "qr").code is PayCode.ALREADY_PAID
    assert state_of(order) == ("PAID", stream.number)
    assert net(bank, order) == PRICE


def test_late_money_of_an_old_code_is_surplus_and_goes_back_once(bank: RunningSandbox) -> None:
    """M3: also when the refund's answer is lost."""
    order = open_order()
    old = click(order)
    new = click(order, "green")
    assert bank.control.pay(new.number).ok
    told(bank, new)
    assert bank.control.pay(old.number, force=True).ok
    told(bank, old)
    assert state_of(order) == ("PAID", new.number)
    old.refresh_from_db()
    assert (old.state, old.role, old.surplus_reason) == ("SUCCEEDED", "surplus", "duplicate")
    assert run_refund(Refund.objects.get().number) is RefundRun.DONE
    assert net(bank, order) == PRICE
    assert Discrepancy.objects.get().state == "RESOLVED"


@pytest.mark.parametrize("fault", ["drop_after", "bad_signature", "error_after", "truncate"])
def test_a_refund_whose_answer_is_lost_is_made_once(bank: RunningSandbox, clock: Clock, fault: str) -> None:
    """M6: asked about under its own number."""
    order = open_order()
    stream = click(order)
    assert bank.control.pay(stream.number).ok
    told(bank, stream)
    number = request_refund(stream.number, 400, reason="out_of_stock", by="operator:anna").number
    bank.control.fault("refund", fault, number=stream.number)
    bank.control.hold_notifications(stream.number)
    assert run_refund(number) is RefundRun.UNKNOWN
    clock.advance(60)
    assert run_refund(number) is RefundRun.DONE
    assert bank.control.calls("refund", stream.number) == 1
    assert bank.control.sums(stream.number)["refunded_minor"] == 400
    assert net(bank, order) == PRICE - 400
    bank.control.release(stream.number)
    assert Refund.objects.get().state == "SUCCEEDED"


@pytest.mark.parametrize("fault", ["drop_before", "error_before"])
def test_a_refund_that_never_arrived_is_sent_again_under_its_number(
    bank: RunningSandbox, clock: Clock, fault: str
) -> None:
    """M6."""
    order = open_order()
    stream = click(order)
    assert bank.control.pay(stream.number).ok
    told(bank, stream)
    number = request_refund(stream.number, 400, reason="out_of_stock", by="operator:anna").number
    bank.control.fault("refund", fault, number=stream.number)
    assert run_refund(number) is RefundRun.UNKNOWN
    clock.advance(60)
    assert run_refund(number) is RefundRun.DONE
    refunds = bank.control.ledger(stream.number)["refunds"]
    assert [(row["number"], row["amount_minor"], row["state"]) for row in refunds] == [(number, 400, "DONE")]


def test_an_abnormal_refund_waits_for_a_person_and_its_end_is_told(bank: RunningSandbox) -> None:
    order = open_order()
    stream = click(order)
    assert bank.control.pay(stream.number).ok
    told(bank, stream)
    number = request_refund(stream.number, PRICE, reason="out_of_stock", by="operator:anna").number
    bank.control.fault("refund", "refund_attention", number=stream.number)
    assert run_refund(number) is RefundRun.ATTENTION
    assert Discrepancy.objects.get().kind == "refund_stuck"
    assert net(bank, order) == PRICE
    told(bank, stream, 2)
    assert bank.control.settle_refund(stream.number, number, "DONE").ok
    told(bank, stream, 3)
    assert Refund.objects.get().state == "SUCCEEDED"
    assert (state_of(order)[0], net(bank, order)) == ("REFUNDED", 0)


def test_a_refund_without_funds_is_repaired_by_a_person_under_the_same_number(bank: RunningSandbox) -> None:
    """M6: a failed refund keeps its number."""
    stream = click(open_order())
    assert bank.control.pay(stream.number).ok
    told(bank, stream)
    number = request_refund(stream.number, PRICE, reason="out_of_stock", by="operator:anna").number
    bank.control.fault("refund", "refuse", number=stream.number, code="NOT_ENOUGH")
    assert run_refund(number) is RefundRun.REJECTED
    retry_refund(number, "operator:ben")
    assert run_refund(number) is RefundRun.DONE
    assert [row["number"] for row in bank.control.ledger(stream.number)["refunds"]] == [number]


def test_a_probe_instead_of_a_prepay_leads_to_the_same_number(bank: RunningSandbox) -> None:
    """The order exists at WeChat Pay although the answer did not verify: another number would be a second order."""
    order = open_order()
    bank.control.fault("prepay", "bad_signature", account="wx")
    assert pay_order(order.number, "wx", "qr").code is PayCode.UNAVAILABLE
    stream = click(order)
    assert Stream.objects.count() == 1
    assert bank.control.pay(stream.number).ok
    told(bank, stream)
    assert net(bank, order) == PRICE


@pytest.mark.parametrize("forgery", ["bad_signature", "no_signature", "altered_body", "wrong_account", "other_secret"])
def test_a_forgery_is_refused_in_the_channels_words(bank: RunningSandbox, forgery: str) -> None:
    """X1."""
    order = open_order()
    stream = click(order)
    bank.control.hold_notifications(stream.number)
    assert bank.control.pay(stream.number).ok
    assert bank.control.wait_notifications(stream.number, "HELD")
    (answer,) = bank.control.send_notification(stream.number, forgery=forgery)
    assert answer.startswith('401 {"code":"FAIL"')
    assert state_of(order)[0] == "OPEN"
    assert Notification.objects.get().state == "FORGED"
    assert bank.control.release(stream.number) == ["204 "]
    assert state_of(order)[0] == "PAID"


def test_an_unseen_stale_notification_is_refused_and_asked_about(bank: RunningSandbox) -> None:
    """X2."""
    order = open_order()
    stream = click(order)
    bank.control.hold_notifications(stream.number)
    assert bank.control.pay(stream.number).ok
    assert bank.control.wait_notifications(stream.number, "HELD")
    (answer,) = bank.control.send_notification(stream.number, signed_ago_seconds=400)
    assert answer.startswith("401")
    assert state_of(order)[0] == "OPEN"
    poll.poll_due()
    assert state_of(order) == ("PAID", stream.number)
    assert bank.control.send_notification(stream.number)[0].startswith("204")
    assert bank.control.send_notification(stream.number, signed_ago_seconds=400)[0].startswith("204")


@pytest.mark.parametrize("altered", [{"amount_minor": 1}, {"currency": "USD"}, {"merchant": "1999999999"}], ids=str)
def test_verified_money_that_does_not_fit_never_settles(bank: RunningSandbox, altered: dict[str, Any]) -> None:
    """X1: acknowledged, recorded, and a person's."""
    order = open_order()
    stream = click(order)
    bank.control.hold_notifications(stream.number)
    assert bank.control.pay(stream.number).ok
    assert bank.control.wait_notifications(stream.number, "HELD")
    assert bank.control.send_notification(stream.number, altered=altered)[0].startswith("204")
    assert state_of(order)[0] == "OPEN"
    assert Discrepancy.objects.get().kind == "mismatch"


def test_an_order_that_wechat_pay_leaves_open_is_proven_unpayable_by_time(bank: RunningSandbox, clock: Clock) -> None:
    """S4: `time_expire` is the last moment to pay, and the order stays NOTPAY after it."""
    stream = click(open_order())
    bank.control.fault("close", "not_found", number=stream.number, times=None)
    assert close.close_stream(stream.number, by="system:test") == "unproven"
    seconds = 3 * 3_600.0
    bank.control.set_clock(seconds)
    try:
        registry.channel("wx").clock = lambda: time.time() + seconds  # type: ignore[attr-defined]
        clock.advance(seconds)
        close.close_stream(stream.number, by="system:test")
        assert not bank.control.pay(stream.number).ok
    finally:
        bank.control.set_clock(0)
    stream.refresh_from_db()
    assert (stream.state, stream.close_proof) == ("CLOSED", "expiry")


def test_a_switch_over_of_keys_loses_no_notification(settings: Any, bank: RunningSandbox) -> None:
    """While the old and the new key both sign, both are held; an account without the new one hears by polling."""
    order = open_order()
    stream = click(order)
    other = {**bank.accounts["wx"], "public_key_id": "PUB_KEY_ID_0999"}
    settings.PAYONCE = {**settings.PAYONCE, "CHANNELS": {**bank.accounts, "wx": other}}
    registry.reset()
    bank.control.hold_notifications(stream.number)
    assert bank.control.pay(stream.number).ok
    assert bank.control.wait_notifications(stream.number, "HELD")
    assert bank.control.release(stream.number)[0].startswith("401")
    assert state_of(order)[0] == "OPEN"
    settings.PAYONCE = {**settings.PAYONCE, "CHANNELS": bank.accounts}
    registry.reset()
    assert bank.control.send_notification(stream.number)[0].startswith("204")
    assert state_of(order) == ("PAID", stream.number)


def test_money_that_a_person_gave_back_at_wechat_pay_is_seen_in_its_bill(bank: RunningSandbox, clock: Clock) -> None:
    """M1: a query never says how much was given back there, so the bill is the only witness."""
    order, other = open_order(), open_order()
    stream, ours = click(order), click(other)
    for each in (stream, ours):
        assert bank.control.pay(each.number).ok
        told(bank, each)
    request_refund(ours.number, 400, reason="requested_by_customer", by="ann")
    run_refund(Refund.objects.get().number)
    bank.control.outside_refund(stream.number, 300)
    poll.poll_stream(stream.number, by="system:poll")
    assert not Discrepancy.objects.exists()
    try:
        for days in (1, 2):
            clock.advance(86_400)
            bank.control.advance_clock(86_400)
            bank.control.set_skew("wx", -86_400.0 * days)
            statements.plan_days()
            for day in statements.unfinished(["wx"]):
                statements.carry_on(day)
    finally:
        bank.control.set_clock(0)
        bank.control.set_skew("wx", 0)
    case = Discrepancy.objects.get(kind="outside_refund")
    assert (case.subject, case.amount_minor, case.state) == (stream.number, 300, "OPEN")
    assert not Discrepancy.objects.filter(subject__in=[ours.number, Refund.objects.get().number]).exists()
