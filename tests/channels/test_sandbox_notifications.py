"""Notifications of the sandbox: signed, repeated by a real channel's table, and lost, late, swapped or forged on demand."""

import os
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from payonce.channels.messages import NotAuthentic, Notice, NotificationRequest
from payonce.channels.sandbox.testing import RunningSandbox, serve, serve_in_thread
from tests.channels.bank import PRICE, Shop
from tests.channels.inbox import Inbox, inbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with serve_in_thread({"blue": {}, "green": {}, "captures": {"captures": True}}) as running:
        yield running


@pytest.fixture
def box() -> Iterator[Inbox]:
    with inbox() as running:
        yield running


@pytest.fixture
def shop(sandbox: RunningSandbox, box: Inbox) -> Iterator[Shop]:
    yield Shop(sandbox, "blue", box.url)
    sandbox.control.clear_faults()
    sandbox.control.set_clock(0)


def judge(shop: Shop, message: NotificationRequest) -> Notice | NotAuthentic:
    return shop.channel.parse_notification(message, datetime.now(UTC))


def test_payment_is_told_once_when_acknowledged(shop: Shop, box: Inbox) -> None:
    number = shop.paid_stream()
    notice = shop.read(box.next())
    assert notice.event == "payment.paid"
    assert notice.payment is not None
    assert (notice.payment.number, notice.payment.paid_minor, notice.payment.merchant) == (number, PRICE, "blue")
    assert notice.payment.channel_reference == shop.view(number).channel_reference
    assert shop.control.wait_delivered(number)
    assert [row["state"] for row in shop.control.notifications(number)] == ["DELIVERED"]
    assert box.is_empty()


@pytest.mark.parametrize(
    "answer", [(500, b"success"), (200, b"SUCCESS"), (200, b""), (204, b"success"), (302, b"success")]
)
def test_message_is_repeated_by_the_table_until_the_right_acknowledgement(
    shop: Shop, box: Inbox, answer: tuple[int, bytes]
) -> None:
    box.answer = lambda _: answer if len(box.messages) < 3 else (200, b"success")
    number = shop.paid_stream()
    keys = [shop.read(box.next()).dedupe_key]
    for seconds in (16, 32):
        assert box.is_empty()
        assert shop.control.wait_notifications(number, "DUE", attempts=len(keys))
        shop.control.set_clock(seconds)
        message = box.next()
        judged = shop.channel.parse_notification(message, datetime.now(UTC))
        assert isinstance(judged, Notice)
        keys.append(judged.dedupe_key)
    assert shop.control.wait_delivered(number)
    assert len(set(keys)) == 1
    assert [row["attempts"] for row in shop.control.notifications(number)] == [3]


def test_repeats_are_sped_up_and_end(box: Inbox) -> None:
    box.answer = lambda _: (500, b"no")
    with serve_in_thread({"blue": {}}, speed=1_000_000) as sandbox:
        shop = Shop(sandbox, "blue", box.url)
        number = shop.paid_stream()
        for _ in range(16):
            box.next()
        assert shop.control.wait_notifications(number, "EXHAUSTED")
        assert [row["state"] for row in shop.control.notifications(number)] == ["EXHAUSTED"]


def test_lost_message_never_arrives_and_a_later_one_does(shop: Shop, box: Inbox) -> None:
    shop.control.fault("notify", "lose", account="blue")
    lost, told = shop.paid_stream(), shop.paid_stream()
    payment = shop.read(box.next()).payment
    assert payment is not None
    assert payment.number == told
    assert shop.control.wait_notifications(lost, "LOST")
    assert shop.control.resend(lost) == 1
    payment = shop.read(box.next()).payment
    assert payment is not None
    assert payment.number == lost


def test_held_messages_are_released_newest_first(shop: Shop, box: Inbox) -> None:
    shop.control.hold_notifications(account="blue")
    number = shop.paid_stream()
    shop.refund(number, "r1", 100)
    assert shop.control.wait_notifications(number, "HELD", 2)
    assert box.is_empty()
    assert shop.control.release(number, newest_first=True) == ["200 success", "200 success"]
    assert [shop.read(box.next()).event for _ in range(2)] == ["refund.done", "payment.paid"]
    assert shop.control.wait_notifications(shop.paid_stream(), "HELD")
    assert box.is_empty(), "the account is still held"
    assert shop.control.release() == ["200 success"]
    shop.paid_stream()
    assert [shop.read(box.next()).event for _ in range(2)] == ["payment.paid"] * 2, "nothing is held any more"


def test_message_released_to_a_deaf_shop_goes_on_by_the_table(shop: Shop, box: Inbox) -> None:
    with shop.control.notifications_held(account="blue"):
        number = shop.paid_stream()
        assert shop.control.wait_notifications(number, "HELD", 1)
        box.answer = lambda _: (500, b"no")
    box.answer = lambda _: (200, b"success")
    box.next()
    shop.control.set_clock(20)
    box.next()
    assert shop.control.wait_delivered(number)


def test_repeated_message_arrives_at_once_and_is_one(shop: Shop, box: Inbox) -> None:
    """All five are in the shop's hands before the first is answered: the barrier opens only for the last."""
    barrier = threading.Barrier(5)

    def together(_: NotificationRequest) -> tuple[int, bytes]:
        barrier.wait(60)
        return 200, b"success"

    box.answer = together
    shop.control.fault("notify", "repeat", account="blue", copies=5)
    number = shop.paid_stream()
    assert len({shop.read(box.next()).dedupe_key for _ in range(5)}) == 1
    assert shop.control.wait_delivered(number)


def test_swapped_messages_arrive_out_of_order(shop: Shop, box: Inbox) -> None:
    shop.control.fault("notify", "swap", account="blue")
    number = shop.paid_stream()
    shop.refund(number, "r1", 100)
    assert [shop.read(box.next()).event for _ in range(2)] == ["refund.done", "payment.paid"]


def test_late_message_waits_for_the_clock(shop: Shop, box: Inbox) -> None:
    shop.control.fault("notify", "delay", account="blue", seconds=3_600)
    late, soon = shop.paid_stream(), shop.paid_stream()
    assert shop.control.wait_delivered(soon)
    assert len(box.messages) == 1
    shop.control.set_clock(3_601)
    assert shop.control.wait_delivered(late)


def test_lost_acknowledgement_brings_the_message_again(shop: Shop, box: Inbox) -> None:
    shop.control.fault("notify", "acknowledgement_lost", account="blue")
    number = shop.paid_stream()
    first = shop.read(box.next())
    assert shop.control.wait_notifications(number, "DUE", attempts=1)
    shop.control.set_clock(16)
    assert shop.read(box.next()).dedupe_key == first.dedupe_key


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("bad_signature", "bad_signature"),
        ("other_secret", "bad_signature"),
        ("altered_body", "bad_signature"),
        ("no_signature", "missing_signature"),
        ("wrong_account", "wrong_account"),
    ],
)
def test_x1_forgery_precedes_the_genuine_message(shop: Shop, box: Inbox, kind: str, reason: str) -> None:
    shop.control.fault("notify", "forge", account="blue", kind=kind)
    number = shop.paid_stream()
    assert judge(shop, box.next()) == NotAuthentic(reason)
    payment = shop.read(box.next()).payment
    assert payment is not None
    assert payment.number == number


def test_x1_message_for_another_account_is_not_authentic(shop: Shop, sandbox: RunningSandbox, box: Inbox) -> None:
    Shop(sandbox, "green", box.url).paid_stream()
    assert judge(shop, box.next()) == NotAuthentic("wrong_account")


def test_x2_stale_message_names_its_stream(shop: Shop, box: Inbox) -> None:
    shop.control.fault("notify", "stale", account="blue", seconds=3_600)
    number = shop.paid_stream()
    judged = judge(shop, box.next())
    assert isinstance(judged, NotAuthentic)
    assert (judged.stale, judged.number, judged.reason) == (True, number, "stale_timestamp")
    assert judged.dedupe_key == shop.control.notifications(number)[0]["key"]


def test_altered_message_is_truly_signed_and_states_what_it_states(shop: Shop, box: Inbox) -> None:
    shop.control.fault("notify", "altered", account="blue", amount_minor=1, currency="USD", merchant="other")
    shop.paid_stream()
    payment = shop.read(box.next()).payment
    assert payment is not None
    assert (payment.paid_minor, payment.currency, payment.merchant) == (1, "USD", "other")


def test_message_can_be_sent_by_hand_in_any_style(shop: Shop, box: Inbox) -> None:
    number = shop.paid_stream()
    box.next()
    assert shop.control.send_notification(number, copies=3, at_once=True) == ["200 success"] * 3
    for _ in range(3):
        assert isinstance(judge(shop, box.next()), Notice)
    shop.control.send_notification(number, forgery="bad_signature")
    assert isinstance(judge(shop, box.next()), NotAuthentic)
    shop.control.send_notification(number, signed_ago_seconds=-600)
    judged = judge(shop, box.next())
    assert isinstance(judged, NotAuthentic)
    assert judged.stale


def test_refund_results_are_told(shop: Shop, box: Inbox) -> None:
    number = shop.paid_stream()
    box.next()
    shop.control.fault("refund", "refund_pending", number=number)
    shop.refund(number, "r1", 100)
    shop.control.settle_refund(number, "r1", "DONE")
    notice = shop.read(box.next())
    assert notice.payment is None
    assert notice.refund is not None
    assert (notice.event, notice.refund.state, notice.refund.amount_minor) == ("refund.done", "DONE", 100)
    assert notice.refund.payment_number == number
    shop.control.settle_refund(number, "r1", "RETURNED")
    assert shop.read(box.next()).event == "refund.returned"


def test_every_movement_of_money_is_told(sandbox: RunningSandbox, shop: Shop, box: Inbox) -> None:
    number = shop.paid_stream()
    shop.control.second_capture(number)
    shop.control.dispute(number, amount_minor=10)
    shop.control.reverse(number, amount_minor=10)
    shop.control.outside_refund(number, 10)
    events = sorted(shop.read(box.next()).event for _ in range(5))
    assert events == ["payment.dispute", "payment.paid", "payment.paid", "payment.refunded", "payment.reversal"]
    approving = Shop(sandbox, "captures", box.url)
    sandbox.control.approve(approving.open_stream())
    assert approving.read(box.next()).event == "payment.approved"


def test_second_capture_is_told_with_its_own_reference(shop: Shop, box: Inbox) -> None:
    number = shop.paid_stream()
    first = shop.read(box.next()).payment
    second = shop.control.second_capture(number)
    told = shop.read(box.next()).payment
    assert first is not None
    assert told is not None
    assert told.channel_reference == second.reference != first.channel_reference


def test_message_can_arrive_before_the_prepay_is_answered(shop: Shop, box: Inbox) -> None:
    order: list[str] = []
    box.answer = lambda _: (order.append("told"), (200, b"success"))[1]
    shop.control.fault("prepay", "pay_before_answer", account="blue")
    number = shop.open_stream()
    order.append("answered")
    assert order == ["told", "answered"]
    assert shop.view(number).state == "PAID"


def test_unreachable_shop_is_tried_again(shop: Shop, box: Inbox) -> None:
    number = shop.paid_stream(notify_url="http://127.0.0.1:9/")
    assert shop.control.wait_notifications(number, "DUE", attempts=1)
    row = shop.control.notifications(number)[0]
    assert (row["state"], row["last_result"]) == ("DUE", "connect_refused")
    assert box.is_empty()


def test_s7_owed_messages_survive_the_death_of_the_bank(box: Inbox, tmp_path: Path) -> None:
    accounts = {"blue": {"secret": "a secret that stays the same 12345"}}
    with serve(accounts, folder=tmp_path, synchronous="FULL") as sandbox:
        shop = Shop(sandbox, "blue", box.url)
        sandbox.control.fault("notify", "delay", seconds=1)
        number = shop.paid_stream()
        assert shop.control.wait_notifications(number, "DUE")
        os.kill(sandbox.pid, signal.SIGKILL)
    with serve(accounts, folder=tmp_path) as sandbox:
        shop = Shop(sandbox, "blue", box.url)
        payment = shop.read(box.next()).payment
        assert payment is not None
        assert payment.number == number
        assert shop.sums(number)["captured_minor"] == PRICE


def test_a_bank_that_lives_later_tells_by_its_own_clock_and_answers_by_its_shops(shop: Shop, box: Inbox) -> None:
    """A shop whose database's clock was moved with the bank's, while its machines keep the true time."""
    later = datetime.now(UTC) + timedelta(seconds=7_200)
    shop.control.set_clock(7_200)
    shop.control.set_skew("blue", -7_200, calls_only=True)
    try:
        number = shop.paid_stream(payable_until=later + timedelta(hours=1))
        message = box.next()
    finally:
        shop.control.set_skew("blue", 0, calls_only=True)
    notice = shop.channel.parse_notification(message, later)
    assert isinstance(notice, Notice)
    assert notice.payment is not None
    assert notice.payment.number == number
    stale = judge(shop, message)
    assert isinstance(stale, NotAuthentic)
    assert stale.stale
