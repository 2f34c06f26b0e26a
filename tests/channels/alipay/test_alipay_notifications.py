"""Notifications of Alipay: forms that are believed only with its signature, for this application, without a doubled field."""

import base64
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest

from payonce.channels.alipay import AlipayChannel
from payonce.channels.alipay_wire import signed_text
from payonce.channels.keys import sign_rsa
from payonce.channels.messages import NotAuthentic, Notice, NotificationRequest, PaymentState, Verdict
from payonce.channels.sandbox.skins.alipay_keys import new_key, private_of
from tests.channels.alipay.shop import halves, sign_form

BANK, SHOP = halves("alipay")
CHANNEL = AlipayChannel("alipay", SHOP)
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
FIELDS = {
    "app_id": SHOP["app_id"], "seller_id": SHOP["seller_id"], "buyer_id": "2088000000canary", "charset": "utf-8",
    "buyer_logon_id": "canary***@example.com", "notify_id": "2026112600222180000001", "notify_type": "trade_status_sync",
    "notify_time": "2026-11-26 20:00:03", "out_trade_no": "po_1", "trade_no": "2026112622001400000000000001",
    "trade_status": "TRADE_SUCCESS", "total_amount": "19.99", "receipt_amount": "15.00", "subject": "A & B=C 书 +%",
    "gmt_payment": "2026-11-26 20:00:01", "version": "1.0",
}  # fmt: skip


def parse(body: bytes, at: datetime = NOW) -> Notice | NotAuthentic:
    return CHANNEL.parse_notification(NotificationRequest(body, {}), at)


def told(**changes: Any) -> Notice | NotAuthentic:
    """A truly signed message with fields changed, or left out where they are None."""
    fields = {name: value for name, value in {**FIELDS, **changes}.items() if value is not None}
    return parse(sign_form(BANK, fields))


def test_a_payment_is_stated_with_its_gross_amount_its_seller_and_no_buyer() -> None:
    """The gross amount counts, not what is left after Alipay's coupons. X4: no buyer in the evidence."""
    notice = told()
    assert isinstance(notice, Notice), notice
    assert notice.payment is not None
    view = notice.payment
    assert (view.number, view.state, view.paid_minor, view.currency) == ("po_1", PaymentState.PAID, 1_999, "CNY")
    assert (view.merchant, view.channel_reference) == (CHANNEL.merchant, FIELDS["trade_no"])
    assert view.paid_at == datetime(2026, 11, 26, 12, 0, 1, tzinfo=UTC)
    assert (notice.dedupe_key, notice.event) == (FIELDS["notify_id"], "trade.TRADE_SUCCESS")
    assert notice.sent_at == datetime(2026, 11, 26, 12, 0, 3, tzinfo=UTC)
    assert "canary" not in repr(notice)
    assert FIELDS["notify_id"] in notice.raw


@pytest.mark.parametrize(
    ("changes", "state", "refunded"),
    [
        ({"trade_status": "TRADE_FINISHED"}, PaymentState.PAID, 0),
        ({"refund_fee": "5.00"}, PaymentState.PAID, 500),
        ({"trade_status": "TRADE_CLOSED"}, PaymentState.PAID, 1_999),
        ({"trade_status": "TRADE_CLOSED", "gmt_payment": None, "refund_fee": "19.99"}, PaymentState.PAID, 1_999),
        ({"trade_status": "TRADE_CLOSED", "gmt_payment": None}, PaymentState.CLOSED, 0),
        ({"trade_status": "WAIT_BUYER_PAY", "gmt_payment": None}, PaymentState.OPEN, 0),
        ({"trade_status": "SOMETHING_NEW"}, PaymentState.UNCLEAR, 0),
    ],
)
def test_every_status_is_read(changes: dict[str, Any], state: PaymentState, refunded: int) -> None:
    """Also those that are sent only where the merchant asked for them."""
    notice = told(**changes)
    assert isinstance(notice, Notice), notice
    assert notice.payment is not None
    assert (notice.payment.state, notice.payment.refunded_minor) == (state, refunded)


def test_money_for_another_seller_is_stated_as_theirs() -> None:
    """Truly signed for our application: it is recorded, and its merchant keeps it from settling anything."""
    notice = told(seller_id="2088999999999999")
    assert isinstance(notice, Notice)
    assert notice.payment is not None
    assert notice.payment.merchant == "2088999999999999" != CHANNEL.merchant


def test_message_for_another_application_is_not_ours() -> None:
    """X1."""
    assert told(app_id="2021000000000000") == NotAuthentic("wrong_account")
    assert told(app_id=None) == NotAuthentic("wrong_account")


@pytest.mark.parametrize("name", ["trade_status", "total_amount", "app_id", "out_trade_no", "sign", "notify_id", "new"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_x1_a_doubled_field_is_refused(name: str, place: str) -> None:
    """One reader would verify the first, another believe the second."""
    body = sign_form(BANK, {**FIELDS, "new": "1"})
    extra = urlencode({name: "TRADE_SUCCESS"}).encode()
    doubled = extra + b"&" + body if place == "before" else body + b"&" + extra
    assert parse(doubled) == NotAuthentic("malformed:duplicated_field")


@pytest.mark.parametrize("empty", [False, True])
def test_empty_fields_are_taken_in_both_readings(empty: bool) -> None:
    """Alipay's pages disagree whether the signature covers them; they change no meaning."""
    fields = {**FIELDS, "passback_params": "", "body": ""}
    signature = sign_rsa(private_of(BANK["keys"]["alipay_private_key"]), signed_text(fields, empty=empty).encode())
    notice = parse(urlencode({**fields, "sign_type": "RSA2", "sign": signature}).encode())
    assert isinstance(notice, Notice)


@pytest.mark.parametrize("sign_type", ["RSA", "", "rsa2", "RSA2 ", "HMAC"])
def test_x1_the_algorithm_is_pinned(sign_type: str) -> None:
    """`sign_type` is not covered by the signature, so it is never negotiated."""
    fields = {**FIELDS, "sign": sign_rsa(private_of(BANK["keys"]["alipay_private_key"]), signed_text(FIELDS).encode())}
    assert isinstance(parse(urlencode({**fields, "sign_type": sign_type}).encode()), NotAuthentic)
    assert isinstance(parse(urlencode({**fields, "sign_type": "RSA2"}).encode()), Notice)


def test_x1_a_signature_has_one_spelling() -> None:
    """Base64 has spare bits before its padding: another character there stands for the same bytes, and is an altered message."""
    signature = sign_rsa(private_of(BANK["keys"]["alipay_private_key"]), signed_text(FIELDS).encode())
    assert signature.endswith("==")
    other = signature[:-3] + chr(ord(signature[-3]) + 1) + "=="
    assert base64.b64decode(other) == base64.b64decode(signature)
    assert isinstance(parse(urlencode({**FIELDS, "sign_type": "RSA2", "sign": signature}).encode()), Notice)
    respelt = parse(urlencode({**FIELDS, "sign_type": "RSA2", "sign": other}).encode())
    assert respelt == NotAuthentic("bad_signature")


def test_x1_other_keys_verify_nothing() -> None:
    other = {**BANK, "keys": {**BANK["keys"], "alipay_private_key": halves("alipay")[0]["keys"]["alipay_private_key"]}}
    assert parse(sign_form(other, FIELDS)) == NotAuthentic("bad_signature")
    unsigned = urlencode({**FIELDS, "sign_type": "RSA2"}).encode()
    assert parse(unsigned) == NotAuthentic("missing_signature")
    assert new_key().key_size == 2_048


@pytest.mark.parametrize("age_days", [0, 1, 400])
def test_x2_no_age_is_refused(age_days: int) -> None:
    """Alipay documents no limit and repeats for a day; `notify_id` is what makes a repeat a repeat."""
    body = sign_form(BANK, FIELDS)
    first, later = parse(body), parse(body, NOW.replace(year=NOW.year + age_days // 365))
    assert isinstance(first, Notice)
    assert isinstance(later, Notice)
    assert first.dedupe_key == later.dedupe_key


@pytest.mark.parametrize(
    "changes",
    [
        {"notify_id": None}, {"notify_id": "x" * 129}, {"total_amount": None}, {"total_amount": "0.00"},
        {"total_amount": "1e3"}, {"total_amount": "19.999"}, {"out_trade_no": None}, {"trade_no": None},
        {"trade_status": None}, {"seller_id": None}, {"gmt_payment": "yesterday"}, {"notify_time": "2026-13-01 00:00:00"},
        {"trans_currency": "yuan"}, {"out_trade_no": "x" * 65},
    ],
)  # fmt: skip
def test_signed_and_unreadable_is_not_acknowledged(changes: dict[str, Any]) -> None:
    """It must come again and be looked at."""
    refused = told(**changes)
    assert isinstance(refused, NotAuthentic)
    assert refused.reason.startswith("malformed:")


def test_other_kinds_of_messages_are_acknowledged_and_believed_in_nothing() -> None:
    notice = told(notify_type="open_app_auth_notify")
    assert isinstance(notice, Notice)
    assert (notice.payment, notice.refund, notice.event) == (None, None, "open_app_auth_notify")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"&", b"a", b"=1", b"a=%", b"a=%G0", b"a=%ff", "a=书".encode(), b"a=1&&b=2", b"&".join(b"a%d=1" % i for i in range(300)),
        b"{}", b"\x00", b"sign=x&sign_type=RSA2",
    ],
)  # fmt: skip
def test_x6_broken_forms_are_refused(body: bytes) -> None:
    assert isinstance(parse(body), NotAuthentic)


def test_acknowledgement_is_exactly_success() -> None:
    assert (CHANNEL.acknowledge(Verdict.ACCEPT).status, CHANNEL.acknowledge(Verdict.ACCEPT).body) == (200, b"success")
    assert CHANNEL.acknowledge(Verdict.RETRY).body == CHANNEL.acknowledge(Verdict.REJECT).body == b"fail"
