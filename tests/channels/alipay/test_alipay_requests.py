"""What the adapter sends: signed fields, absolute expiry, and signed pages that call nobody."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from payonce.channels.alipay import AlipayChannel
from payonce.channels.alipay_wire import MalformedError, minor_of, signed_text, yuan
from payonce.channels.http import run
from payonce.channels.keys import load_private_key, verify_rsa
from payonce.channels.messages import (
    HttpRequest,
    Known,
    PaymentRef,
    PrepayKind,
    PrepayRequest,
    RefundRequest,
    TransportError,
)
from tests.channels.alipay.shop import Gateway, halves, ok, query_of

UNTIL = datetime(2026, 11, 26, 16, 30, 59, 999_999, tzinfo=UTC)
BANK, SHOP = halves("alipay")
_, CERTIFIED = halves("alipay_cert")


def request(**changes: Any) -> PrepayRequest:
    given: dict[str, Any] = {
        "number": "po_1", "amount_minor": 1_999, "currency": "CNY", "subject": "A book", "method": "web",
        "client_type": "pc", "payer": "", "payable_until": UNTIL, "notify_url": "https://shop.example/notify/alipay/",
        "return_url": "https://shop.example/return/alipay/?a=1&b=2",
    }  # fmt: skip
    return PrepayRequest(**{**given, **changes})


def nobody(_: HttpRequest) -> TransportError:
    raise AssertionError("a page is made without a call")


def sent(conversation: Any) -> tuple[dict[str, str], dict[str, Any], HttpRequest]:
    """The fields, the content and the request of the first call."""
    caught: list[HttpRequest] = []

    def catch(request: HttpRequest) -> TransportError:
        caught.append(request)
        return TransportError("read_timeout")

    run(conversation, catch)
    fields = dict(parse_qsl(urlsplit(caught[0].url).query)) | dict(parse_qsl(caught[0].body.decode()))
    return fields, json.loads(fields["biz_content"]), caught[0]


def verified(shop: dict[str, Any], fields: dict[str, str]) -> bool:
    key = load_private_key(shop["private_key"]).public_key()
    return verify_rsa(key, signed_text(fields).encode(), fields["sign"])


@pytest.mark.parametrize("shop", [SHOP, CERTIFIED], ids=["public_key", "certificate"])
@pytest.mark.parametrize(
    ("method", "call", "product", "kind"),
    [
        ("web", "alipay.trade.page.pay", "FAST_INSTANT_TRADE_PAY", PrepayKind.REDIRECT),
        ("h5", "alipay.trade.wap.pay", "QUICK_WAP_WAY", PrepayKind.REDIRECT),
        ("app", "alipay.trade.app.pay", "QUICK_MSECURITY_PAY", PrepayKind.APP),
    ],
)
def test_pages_are_signed_here_and_call_nobody(
    shop: dict[str, Any], method: str, call: str, product: str, kind: PrepayKind
) -> None:
    channel = AlipayChannel("alipay", shop)
    outcome = run(channel.prepay(request(method=method)), nobody)
    assert isinstance(outcome, Known)
    prepay = outcome.value
    assert (prepay.kind, prepay.expires_at) == (kind, UNTIL.replace(microsecond=0))
    assert prepay.value.startswith("https://gateway.example/gateway.do?") is (kind is PrepayKind.REDIRECT)
    fields = query_of(prepay.value)
    assert verified(shop, fields)
    assert (fields["method"], fields["sign_type"], fields["app_id"]) == (call, "RSA2", shop["app_id"])
    assert fields["notify_url"] == "https://shop.example/notify/alipay/"
    assert (fields.get("return_url") == "https://shop.example/return/alipay/?a=1&b=2") is (method != "app")
    assert ({"app_cert_sn", "alipay_root_cert_sn"} <= set(fields)) is (shop is CERTIFIED)
    content = json.loads(fields["biz_content"])
    assert (content["product_code"], content["out_trade_no"], content["total_amount"]) == (product, "po_1", "19.99")


@pytest.mark.parametrize("method", ["qr", "web", "h5", "app"])
def test_expiry_is_absolute_in_beijing_time_and_never_later_than_asked(method: str) -> None:
    """`timeout_express` would start only when the buyer pays: with it, a code of yesterday could be paid today."""
    conversation = AlipayChannel("alipay", SHOP).prepay(request(method=method))
    if method == "qr":
        content = sent(conversation)[1]
    else:
        outcome = run(conversation, nobody)
        assert isinstance(outcome, Known)
        content = json.loads(query_of(outcome.value.value)["biz_content"])
    assert content["time_expire"] == "2026-11-27 00:30:59"
    assert not {"timeout_express", "qr_code_timeout_express"} & set(content)


def test_every_call_is_signed_with_its_sign_type_and_bounded_in_time() -> None:
    channel = AlipayChannel("alipay", {**SHOP, "timeout_seconds": 7})
    channel.clock = lambda: datetime(2026, 11, 26, 16, 0, 1, tzinfo=UTC).timestamp()
    fields, content, call = sent(channel.prepay(request(method="qr")))
    assert verified(SHOP, fields)
    assert "sign_type=RSA2" in signed_text(fields)
    assert (fields["timestamp"], fields["charset"], fields["version"]) == ("2026-11-27 00:00:01", "utf-8", "1.0")
    assert content["product_code"] == "FACE_TO_FACE_PAYMENT"
    assert (call.timeout_connect, call.timeout_read, call.timeout_total) == (3.0, 7.0, 7.0)
    assert "biz_content" not in call.url


@pytest.mark.parametrize(
    ("until", "expires_at"),
    [
        (datetime(2026, 11, 26, 13, 0, 0, 500_000, tzinfo=UTC), datetime(2026, 11, 26, 13, tzinfo=UTC)),
        (datetime(2026, 11, 27, tzinfo=UTC), datetime(2026, 11, 26, 14, tzinfo=UTC)),
    ],
)
def test_a_qr_text_dies_after_two_hours_or_with_its_order(until: datetime, expires_at: datetime) -> None:
    channel = AlipayChannel("alipay", SHOP)
    channel.clock = lambda: datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()
    gateway = Gateway(BANK, ok(out_trade_no="po_1", qr_code="https://qr.alipay.com/bax1"))
    outcome = run(channel.prepay(request(method="qr", payable_until=until)), gateway)
    assert isinstance(outcome, Known)
    assert (outcome.value.kind, outcome.value.value) == (PrepayKind.QR, "https://qr.alipay.com/bax1")
    assert outcome.value.expires_at == expires_at
    assert channel.capabilities.methods["qr"].lifetime_seconds == timedelta(hours=2).total_seconds()


@pytest.mark.parametrize(
    ("subject", "written"),
    [
        ("A/B=C&D", "A／B＝C＆D"),
        ("book\x00\n\ud800 书", "book 书"),
        ("", "po_1"),
        ("\t\n", "po_1"),
        ("x" * 300, "x" * 256),
    ],
)
def test_subject_holds_nothing_that_alipay_refuses(subject: str, written: str) -> None:
    assert sent(AlipayChannel("alipay", SHOP).prepay(request(method="qr", subject=subject)))[1]["subject"] == written


def test_trade_number_goes_along_once_it_is_known() -> None:
    channel = AlipayChannel("alipay", SHOP)
    first, second = PaymentRef("po_1", 1, "CNY"), PaymentRef("po_1", 1, "CNY", channel_reference="2026112622001")
    assert sent(channel.query(first))[1] == {"out_trade_no": "po_1"}
    assert sent(channel.close(second))[1] == {"out_trade_no": "po_1", "trade_no": "2026112622001"}
    refund = RefundRequest(second, "r1", 5, "CNY", 10, "")
    assert sent(channel.refund(refund))[1] == {
        "out_trade_no": "po_1", "trade_no": "2026112622001", "refund_amount": "0.05", "out_request_no": "r1",
        "refund_reason": "refund",
    }  # fmt: skip


def test_nothing_is_ever_cancelled() -> None:
    """`alipay.trade.cancel` gives the money back where the buyer was faster."""
    channel, ref = AlipayChannel("alipay", SHOP), PaymentRef("po_1", 1, "CNY")
    refund = channel.refund(RefundRequest(ref, "r", 1, "CNY", 1, ""))
    calls = [sent(each)[0]["method"] for each in (channel.close(ref), refund)]
    assert calls == ["alipay.trade.close", "alipay.trade.refund"]


@pytest.mark.parametrize(
    ("minor", "text"), [(1, "0.01"), (10, "0.10"), (100, "1.00"), (1_999, "19.99"), (10_000_000_000, "100000000.00")]
)
def test_amounts_are_written_by_digits(minor: int, text: str) -> None:
    """M8."""
    assert yuan(minor) == text
    assert minor_of({"a": text}, "a") == minor


@pytest.mark.parametrize(("text", "minor"), [("20", 2_000), ("20.5", 2_050), ("0.1", 10), ("0", 0)])
def test_amounts_with_fewer_decimals_are_read(text: str, minor: int) -> None:
    assert minor_of({"a": text}, "a") == minor


def test_missing_amount_is_named() -> None:
    with pytest.raises(MalformedError, match="total_amount"):
        minor_of({}, "total_amount")


def test_signed_text_is_that_of_alipays_documented_example() -> None:
    """The example of Alipay's page about asynchronous notifications: sorted, decoded, without `sign` and `sign_type`.

    Its `gmt_create` is left out here: the page's own text forgets it.
    """
    fields = {
        "total_amount": "2.00", "buyer_id": "2088102116773037", "body": "大乐透2.1", "charset": "utf-8",
        "trade_no": "2016071921001003030200089909", "refund_fee": "0.00", "notify_time": "2016-07-19 14:10:49",
        "subject": "大乐透2.1", "sign_type": "RSA2", "notify_type": "trade_status_sync", "sign": "kPbQIjX",
        "out_trade_no": "0719141034-6418", "gmt_close": "2016-07-19 14:10:46", "gmt_payment": "2016-07-19 14:10:47",
        "trade_status": "TRADE_SUCCESS", "version": "1.0", "app_id": "2015102700040153", "seller_id": "2088102119685838",
        "notify_id": "4a91b7a78a503640467525113fb7d8bg8e",
    }  # fmt: skip
    assert signed_text(fields, leave_out=frozenset({"sign", "sign_type"})) == (
        "app_id=2015102700040153&body=大乐透2.1&buyer_id=2088102116773037&charset=utf-8&gmt_close=2016-07-19 14:10:46"
        "&gmt_payment=2016-07-19 14:10:47&notify_id=4a91b7a78a503640467525113fb7d8bg8e"
        "&notify_time=2016-07-19 14:10:49&notify_type=trade_status_sync&out_trade_no=0719141034-6418&refund_fee=0.00"
        "&seller_id=2088102119685838&subject=大乐透2.1&total_amount=2.00&trade_no=2016071921001003030200089909"
        "&trade_status=TRADE_SUCCESS&version=1.0"
    )
