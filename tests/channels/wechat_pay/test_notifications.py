"""Notifications: verified, decrypted, in time; what WeChat Pay sends on purpose, and what somebody else sends."""

import json
import time
from datetime import timedelta
from typing import Any

import pytest

from payonce.channels.messages import (
    NotAuthentic,
    Notice,
    NotificationRequest,
    PaymentState,
    RefundState,
    Verdict,
)
from payonce.channels.sandbox.faults import FORGERIES
from payonce.channels.sandbox.skins import wechat_pay_wire
from payonce.channels.sandbox.skins.wechat_pay import WeChatPay
from tests.channels.wechat_pay.offline import PAID, REFUNDED
from tests.channels.wechat_pay.simulator import MODES, WeChatSimulator

REASONS = {
    "bad_signature": "signature_probe",
    "no_signature": "missing_signature",
    "altered_body": "bad_signature",
    "wrong_account": "malformed:ciphertext: is apiv3_key right?",
    "other_secret": "bad_signature",
}


def test_every_forgery_has_its_reason() -> None:
    assert set(REASONS) == FORGERIES


@pytest.mark.parametrize(("forgery", "reason"), REASONS.items())
def test_x1_a_forgery_is_not_authentic(simulator: WeChatSimulator, forgery: str, reason: str) -> None:
    message = simulator.forged(simulator.paid()[0], forgery)
    judged = simulator.channel.parse_notification(message, simulator.now())
    assert judged == NotAuthentic(reason)


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_verifies_what_its_merchant_is_sent(world: dict[str, WeChatSimulator], mode: str) -> None:
    """In a change-over both keys sign, one message now with this one, the next with that."""
    simulator = world[mode]
    number, _ = simulator.paid()
    serials = {simulator.notification(number).headers["wechatpay-serial"] for _ in range(4)}
    public, platform = simulator.keys["public_key_id"], wechat_pay_wire.platform_serial(simulator.keys)
    assert serials == {"public_key": {public}, "certificate": {platform}, "switching": {public, platform}}[mode]


def test_an_account_that_was_not_switched_yet_refuses_the_other_key(world: dict[str, WeChatSimulator]) -> None:
    """Nobody is asked for that key: a message that is not verified makes no traffic."""
    old, new = world["certificate"], world["public_key"]
    message = new.notification(new.paid()[0])
    assert old.channel.parse_notification(message, old.now()) == NotAuthentic("unknown_serial")


def test_altered_money_and_merchant_are_verified_and_stated(simulator: WeChatSimulator) -> None:
    """X1: verified but mismatched is for the caller to judge, so it must be told truly."""
    number, _ = simulator.paid()
    simulator.control.wait_delivered(number, account=simulator.account)
    simulator.control.send_notification(
        number, account=simulator.account, altered={"amount_minor": 5, "merchant": "1999999999"}
    )
    assert simulator.box is not None
    notice = simulator.channel.parse_notification(simulator.box.messages[-1], simulator.now())
    assert isinstance(notice, Notice)
    assert notice.payment is not None
    assert (notice.payment.paid_minor, notice.payment.merchant) == (5, "1999999999")
    assert notice.payment.merchant != simulator.channel.merchant


@pytest.mark.parametrize(
    ("fault", "event", "state"),
    [
        ("", "refund.done", RefundState.DONE),
        ("refund_failed", "refund.failed", RefundState.FAILED),
        ("refund_attention", "refund.attention", RefundState.ATTENTION),
    ],
)
def test_ends_of_refunds_are_told(simulator: WeChatSimulator, fault: str, event: str, state: RefundState) -> None:
    number, reference = simulator.paid()
    if fault:
        simulator.control.fault("refund", fault, account=simulator.account)
    simulator.run(simulator.channel.refund(simulator.refund_request(number, reference, f"r{number}", 700)))
    notice = simulator.channel.parse_notification(simulator.notification(number, event), simulator.now())
    assert isinstance(notice, Notice)
    assert notice.refund is not None
    assert notice.payment is None
    told = notice.refund
    assert (told.refund_number, told.state, told.amount_minor) == (f"r{number}", state, 700)
    assert told.payment_number == number
    assert "支付用户零钱" not in notice.raw


def test_stale_messages_are_named_and_five_minutes_are_allowed(simulator: WeChatSimulator) -> None:
    """X2."""
    number, _ = simulator.paid()
    message = simulator.notification(number)
    fresh = simulator.channel.parse_notification(message, simulator.now())
    assert isinstance(fresh, Notice)
    for seconds in (-302, 302):
        judged = simulator.channel.parse_notification(message, simulator.now() + timedelta(seconds=seconds))
        assert judged == NotAuthentic("stale_timestamp", stale=True, number=number, dedupe_key=fresh.dedupe_key)
    for seconds in (-250, 250):
        assert isinstance(
            simulator.channel.parse_notification(message, simulator.now() + timedelta(seconds=seconds)), Notice
        )


def test_the_key_stays_the_same_over_repeats_and_is_the_channels(simulator: WeChatSimulator) -> None:
    number, _ = simulator.paid()
    first, second = (simulator.notification(number) for _ in range(2))
    assert first.body != second.body  # sealed anew
    told = [simulator.channel.parse_notification(each, simulator.now()) for each in (first, second)]
    assert {each.dedupe_key for each in told if isinstance(each, Notice)} == {json.loads(first.body)["id"]}


def content(simulator: WeChatSimulator, **changes: Any) -> dict[str, Any]:
    return {**PAID, "mchid": simulator.channel.merchant, **changes}


def test_a_verified_message_about_something_else_is_neither(simulator: WeChatSimulator) -> None:
    notice = simulator.channel.parse_notification(simulator.message({"x": 1}, "PAYSCORE.USER_PAID"), simulator.now())
    assert isinstance(notice, Notice)
    assert (notice.payment, notice.refund, notice.event) == (None, None, "PAYSCORE.USER_PAID")


@pytest.mark.parametrize("number", ["shop-123*", "with|bar|1"])
def test_somebody_elses_number_under_the_same_merchant_is_read(simulator: WeChatSimulator, number: str) -> None:
    """It must be acknowledged and counted, not asked for again for a day."""
    message = simulator.message(content(simulator, out_trade_no=number))
    notice = simulator.channel.parse_notification(message, simulator.now())
    assert isinstance(notice, Notice)
    assert notice.payment is not None
    assert (notice.payment.number, notice.payment.state) == (number, PaymentState.PAID)


@pytest.mark.parametrize(
    ("event", "change", "reason"),
    [
        ("TRANSACTION.SUCCESS", {"amount": {"total": 1.5}}, "malformed:total"),
        ("TRANSACTION.SUCCESS", {"transaction_id": None}, "malformed:transaction_id"),
        ("REFUND.SUCCESS", {"mchid": "1999999999"}, "malformed:mchid"),
        ("REFUND.SUCCESS", {"refund_status": "NEW"}, "malformed:status"),
    ],
)
def test_what_is_signed_and_cannot_be_read_must_come_again(
    simulator: WeChatSimulator, event: str, change: dict[str, Any], reason: str
) -> None:
    refund = {**REFUNDED, "refund_status": "SUCCESS"}
    del refund["status"]
    base = content(simulator) if event.startswith("TRANSACTION") else {**refund, "mchid": simulator.channel.merchant}
    judged = simulator.channel.parse_notification(simulator.message({**base, **change}, event), simulator.now())
    assert judged == NotAuthentic(reason)
    assert simulator.channel.acknowledge(Verdict.REJECT).status >= 400


@pytest.mark.parametrize(
    "change",
    [{"id": ""}, {"id": "号"}, {"create_time": "now"}, {"event_type": None}, {"resource": None}, {"resource": {}},
     {"resource": {"algorithm": "AEAD_AES_128_GCM"}}, {"resource": {"algorithm": "AEAD_AES_256_GCM", "nonce": "short",
                                                                    "ciphertext": "%%", "associated_data": ""}}],
    ids=str,
)  # fmt: skip
def test_a_signed_envelope_that_is_not_whole_is_not_believed(
    simulator: WeChatSimulator, change: dict[str, Any]
) -> None:
    message = simulator.message(content(simulator), **change)
    judged = simulator.channel.parse_notification(message, simulator.now())
    assert isinstance(judged, NotAuthentic)
    assert judged.reason.startswith("malformed:")


@pytest.mark.parametrize("associated", ["", None])
def test_a_resource_without_associated_data_is_read(simulator: WeChatSimulator, associated: str | None) -> None:
    sealed = wechat_pay_wire.seal(simulator.keys["apiv3_key"], json.dumps(content(simulator)).encode(), "")
    message = simulator.message({}, resource={**sealed, "associated_data": associated})
    assert isinstance(simulator.channel.parse_notification(message, simulator.now()), Notice)


def test_the_algorithm_is_pinned(simulator: WeChatSimulator) -> None:
    message = simulator.message(content(simulator))
    for name, value in (
        ("wechatpay-signature-type", "WECHATPAY2-SM2-WITH-SM3"),
        ("wechatpay-signature-type", ""),
        ("wechatpay-serial", ""),
        ("wechatpay-serial", "PUB_KEY_ID_1"),
    ):
        changed = NotificationRequest(message.body, {**message.headers, name: value})
        assert isinstance(simulator.channel.parse_notification(changed, simulator.now()), NotAuthentic)


def test_acknowledgements_are_the_channels_words(simulator: WeChatSimulator) -> None:
    said = {verdict: simulator.channel.acknowledge(verdict, "because of a secret") for verdict in Verdict}
    assert (said[Verdict.ACCEPT].status, said[Verdict.ACCEPT].body) == (204, b"")
    for verdict in (Verdict.RETRY, Verdict.REJECT):
        assert json.loads(said[verdict].body)["code"] == "FAIL"
        assert b"secret" not in said[verdict].body


def test_x4_a_notification_keeps_no_buyer(simulator: WeChatSimulator) -> None:
    notice = simulator.channel.parse_notification(simulator.message(content(simulator)), simulator.now())
    assert "oSecretBuyer" not in repr(notice)
    assert simulator.keys["apiv3_key"] not in repr(notice)


def test_a_notification_tells_who_paid_and_how_and_neither_is_kept(simulator: WeChatSimulator) -> None:
    request = simulator.prepay_request(simulator.new_number(), method="jsapi")
    simulator.run(simulator.channel.prepay(request))
    assert simulator.pay(request.number)
    message = simulator.notification(request.number)
    told = json.loads(simulator.channel.settings.decrypt(json.loads(message.body)["resource"]))
    assert (told["trade_type"], told["payer"]) == ("JSAPI", {"openid": request.payer})
    assert request.payer not in repr(simulator.channel.parse_notification(message, simulator.now()))


def test_a_message_signed_long_ago_with_the_right_key_is_stale_not_bad(simulator: WeChatSimulator) -> None:
    body = simulator.message(content(simulator)).body
    old = NotificationRequest(body, simulator.headers(body, at=time.time() - 86_400))
    judged = simulator.channel.parse_notification(old, simulator.now())
    assert isinstance(judged, NotAuthentic)
    assert (judged.stale, judged.number) == (True, PAID["out_trade_no"])


# --- what the simulated WeChat Pay does to its own messages ---


def tried(simulator: WeChatSimulator, fault: str, attempts: int = 1, state: str = "DELIVERED", **arguments: Any) -> Any:
    """Pay under a planned fault; the messages that arrived for it, forgeries included, and the paid number."""
    number = simulator.registered()
    if fault:
        simulator.control.fault("notify", fault, account=simulator.account, number=number, **arguments)
    assert simulator.pay(number)
    assert simulator.control.wait_notifications(number, state, account=simulator.account, attempts=attempts)
    return arrived(simulator, number), number


def arrived(simulator: WeChatSimulator, number: str) -> list[NotificationRequest]:
    assert simulator.box is not None
    (told,) = simulator.control.notifications(number, account=simulator.account)
    return [message for message in simulator.box.messages if json.loads(message.body)["id"] == told["key"]]


def judged(simulator: WeChatSimulator, messages: list[NotificationRequest]) -> list[Any]:
    return [simulator.channel.parse_notification(message, simulator.now()) for message in messages]


@pytest.mark.parametrize(("kind", "reason"), REASONS.items())
def test_a_planned_forgery_comes_before_the_true_message(simulator: WeChatSimulator, kind: str, reason: str) -> None:
    messages, _ = tried(simulator, "forge", kind=kind)
    forged, genuine = judged(simulator, messages)
    assert forged == NotAuthentic(reason)
    assert isinstance(genuine, Notice)


def test_planned_repeats_delays_and_changes_are_played(simulator: WeChatSimulator) -> None:
    assert len(tried(simulator, "repeat", copies=3)[0]) == 3
    assert len(tried(simulator, "delay", seconds=0.05)[0]) == 1
    assert tried(simulator, "lose", attempts=0, state="LOST")[0] == []
    (stale,) = judged(simulator, tried(simulator, "stale")[0])
    assert stale.stale
    (altered,) = judged(simulator, tried(simulator, "altered", amount_minor=7, currency="USD")[0])
    assert (altered.payment.paid_minor, altered.payment.currency) == (7, "USD")


def test_a_lost_acknowledgement_and_a_refusal_are_followed_by_a_repeat(simulator: WeChatSimulator) -> None:
    """204 and 200 end the repeats; everything else is asked again after fifteen seconds."""
    tried(simulator, "acknowledgement_lost", state="DUE")
    assert simulator.box is not None
    kept = simulator.box.answer
    try:
        simulator.box.answer = lambda _: (500, b'{"code":"FAIL"}')
        tried(simulator, "", state="DUE")
        simulator.box.answer = lambda _: (200, b"")
        tried(simulator, "")
    finally:
        simulator.box.answer = kept


def test_a_message_out_of_order_follows_the_next_one(simulator: WeChatSimulator) -> None:
    first = simulator.registered()
    simulator.control.fault("notify", "swap", account=simulator.account, number=first)
    assert simulator.pay(first)
    assert simulator.control.wait_notifications(first, "HELD", account=simulator.account)
    second = simulator.paid()[0]
    for number in (second, first):
        assert simulator.control.wait_delivered(number, account=simulator.account)
    assert simulator.box is not None
    order = [simulator.box.messages.index(arrived(simulator, number)[0]) for number in (second, first)]
    assert order == sorted(order)


def test_the_channel_repeats_for_a_day_and_four_minutes() -> None:
    assert len(WeChatPay.retry_seconds) == 15
    assert sum(WeChatPay.retry_seconds) == 86_640


@pytest.mark.parametrize(
    ("fault", "arguments", "told"),
    [("wrong_amount", {"amount_minor": 900}, (900, "CNY")), ("wrong_currency", {"currency": "USD"}, (1_200, "USD"))],
)
def test_money_that_was_not_asked_for_is_told_as_it_came(
    simulator: WeChatSimulator, fault: str, arguments: dict[str, Any], told: tuple[int, str]
) -> None:
    number = simulator.registered()
    simulator.control.fault("pay", fault, account=simulator.account, number=number, **arguments)
    assert simulator.pay(number)
    view = simulator.run(simulator.channel.query(simulator.ref(number))).value
    assert (view.paid_minor, view.currency) == told
    notice = simulator.channel.parse_notification(simulator.notification(number), simulator.now())
    assert isinstance(notice, Notice)
    assert notice.payment is not None
    assert (notice.payment.paid_minor, notice.payment.currency) == told


def test_money_given_back_in_the_console_is_not_told(simulator: WeChatSimulator) -> None:
    """Only the trade state changes: how much went back is said nowhere but in the bill."""
    number, _ = simulator.paid()
    simulator.control.outside_refund(number, 300, account=simulator.account)
    outcome = simulator.run(simulator.channel.query(simulator.ref(number)))
    assert '"trade_state":"REFUND"' in outcome.raw
    assert (outcome.value.state, outcome.value.refunded_minor) == (PaymentState.PAID, 0)
    assert [told["event"] for told in simulator.control.notifications(number)] == ["payment.paid"]
