"""What each answer of WeChat Pay means: states, codes, signatures, and what is asked in the first place."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from payonce.channels.keys import load_public_key, verify_rsa
from payonce.channels.messages import (
    CloseState,
    HttpResponse,
    Known,
    PaymentState,
    PrepayKind,
    RefundState,
    Refused,
    RefusedKind,
    TransportError,
    Unknown,
)
from payonce.channels.wechat_pay_wire import REFUSALS
from tests.channels.wechat_pay.offline import (
    NUMBER,
    PRICE,
    REF,
    REFUND,
    REFUND_REF,
    REFUNDED,
    Desk,
    conversations,
    error,
    order,
)
from tests.channels.wechat_pay.simulator import Merchant

NATIVE = {"code_url": "weixin://wxpay/bizpayurl?pr=abc"}


@pytest.fixture(scope="module")
def merchant() -> Merchant:
    return Merchant("public_key")


@pytest.fixture(scope="module")
def only_desk(merchant: Merchant) -> Desk:
    return Desk(merchant)


@pytest.fixture
def desk(only_desk: Desk) -> Desk:
    return only_desk.cleared()


# --- states ---


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("SUCCESS", PaymentState.PAID),
        ("REFUND", PaymentState.PAID),
        ("NOTPAY", PaymentState.OPEN),
        ("PAYERROR", PaymentState.OPEN),
        ("USERPAYING", PaymentState.IN_PROGRESS),
        ("CLOSED", PaymentState.CLOSED),
        ("REVOKED", PaymentState.CLOSED),
        ("ACCEPT", PaymentState.UNCLEAR),
    ],
)
def test_payment_states(desk: Desk, word: str, state: PaymentState) -> None:
    outcome = desk.run(desk.channel.query(REF), desk.signed(200, desk.paid(trade_state=word)))
    assert outcome.value.state is state
    assert outcome.value.paid_minor == (PRICE if state is PaymentState.PAID else 0)


def test_paid_is_the_amount_before_coupons_and_states_the_merchant(desk: Desk) -> None:
    view = desk.run(desk.channel.query(REF), desk.signed(200, desk.paid())).value
    assert (view.paid_minor, view.currency, view.channel_reference) == (PRICE, "CNY", "4200001")
    assert view.paid_at == datetime(2026, 5, 1, 2, tzinfo=UTC)
    assert view.merchant == desk.channel.merchant == desk.options["mchid"]
    assert view.refunded_minor == 0
    assert not desk.channel.capabilities.states_refunded


def test_another_merchant_is_stated_not_hidden(desk: Desk) -> None:
    view = desk.run(desk.channel.query(REF), desk.signed(200, desk.paid(mchid="1999999999"))).value
    assert view.merchant == "1999999999" != desk.channel.merchant


@pytest.mark.parametrize(
    "wrong",
    [
        {"out_trade_no": "another"}, {"transaction_id": ""}, {"amount": {"total": 19.99, "currency": "CNY"}},
        {"amount": {"total": "1999", "currency": "CNY"}}, {"amount": {"total": 0, "currency": "CNY"}}, {"amount": None},
        {"success_time": "yesterday"}, {"mchid": ""}, {"trade_state": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_success_that_is_not_whole_is_unknown(desk: Desk, wrong: dict[str, Any]) -> None:
    """M8: and no float is an amount."""
    assert isinstance(desk.run(desk.channel.query(REF), desk.signed(200, desk.paid(**wrong))), Unknown)


@pytest.mark.parametrize(
    ("word", "state", "code"),
    [
        ("SUCCESS", RefundState.DONE, ""),
        ("PROCESSING", RefundState.IN_PROGRESS, ""),
        ("CLOSED", RefundState.FAILED, "CLOSED"),
        ("ABNORMAL", RefundState.ATTENTION, "ABNORMAL"),
    ],
)
def test_refund_states(desk: Desk, word: str, state: RefundState, code: str) -> None:
    for conversation in (desk.channel.refund(REFUND), desk.channel.query_refund(REFUND_REF)):
        view = desk.run(conversation, desk.signed(200, {**REFUNDED, "status": word})).value
        assert (view.state, view.code, view.amount_minor, view.currency) == (state, code, PRICE, "CNY")
        assert (view.channel_reference, view.payment_number) == ("5030", NUMBER)


def test_an_unlisted_refund_state_or_another_number_is_unknown(desk: Desk) -> None:
    for change in ({"status": "NEW"}, {"out_refund_no": "other"}, {"amount": {}}):
        assert isinstance(desk.run(desk.channel.refund(REFUND), desk.signed(200, {**REFUNDED, **change})), Unknown)


# --- codes ---

CODES = [(operation, code, kind) for operation, codes in REFUSALS.items() for code, kind in codes.items()]


@pytest.mark.parametrize(("operation", "code", "kind"), CODES, ids=lambda value: str(value))
def test_listed_codes_are_refusals(desk: Desk, operation: str, code: str, kind: RefusedKind) -> None:
    if operation == "close" and code == "INVALID_REQUEST":
        pytest.skip("asked about instead")
    outcome = desk.run(conversations(desk.channel)[operation](), error(400, code))
    assert isinstance(outcome, Refused)
    assert (outcome.kind, outcome.code) == (kind, code)


@pytest.mark.parametrize("operation", ["prepay", "query", "close", "refund", "query_refund", "statement"])
@pytest.mark.parametrize(
    "reply",
    [error(400, "SOMETHING_NEW"), error(404, "SOMETHING_NEW"), error(500, "SYSTEM_ERROR"), error(502, "BAD"),
     error(500, "PARAM_ERROR"), HttpResponse(404, {}, b"<html>"), HttpResponse(302, {}, b""), HttpResponse(200, {}, b"")],
    ids=lambda reply: f"{reply.status}{reply.body[:30].decode()}",
)  # fmt: skip
def test_everything_else_is_unknown(desk: Desk, operation: str, reply: HttpResponse) -> None:
    """A 5xx is unknown whatever it says, and so is a success that nobody signed."""
    assert isinstance(desk.run(conversations(desk.channel)[operation](), reply), Unknown)


def test_a_user_who_is_typing_the_password_is_no_answer(desk: Desk) -> None:
    assert desk.run(desk.channel.prepay(order()), error(202, "USERPAYING")).reason == "unlisted:USERPAYING"


@pytest.mark.parametrize("code", ["ORDER_NOT_EXIST", "ORDERNOTEXIST"])
def test_an_unknown_number_is_not_found(desk: Desk, code: str) -> None:
    assert desk.run(desk.channel.query(REF), error(404, code)).value.state is PaymentState.NOT_FOUND


def test_an_unknown_refund_number_is_not_found_and_a_missing_order_is_not_that(desk: Desk) -> None:
    found = desk.run(desk.channel.query_refund(REFUND_REF), error(404, "RESOURCE_NOT_EXISTS"))
    assert found.value.state is RefundState.NOT_FOUND
    assert isinstance(desk.run(desk.channel.query(REF), error(404, "RESOURCE_NOT_EXISTS")), Unknown)


def test_a_request_that_never_left_may_simply_be_sent_later(desk: Desk) -> None:
    for start in conversations(desk.channel).values():
        outcome = desk.run(start(), TransportError("connect_refused", sent=False))
        assert (outcome.kind, outcome.code) == (RefusedKind.THROTTLED, "not_sent")


# --- signatures of answers ---


@pytest.mark.parametrize("operation", ["prepay", "query", "close", "refund", "query_refund", "statement"])
@pytest.mark.parametrize(
    ("forgery", "ago", "reason"),
    [
        ("bad_signature", 0, "signature_probe:200"),
        ("other_secret", 0, "bad_signature:200"),
        ("no_signature", 0, "missing_signature:200"),
        ("", 301, "stale_timestamp:200"),
        ("", -302, "stale_timestamp:200"),
    ],
)
def test_a_success_that_does_not_verify_is_unknown(
    desk: Desk, operation: str, forgery: str, ago: float, reason: str
) -> None:
    """The effect has usually taken place: WeChat Pay signs wrongly on purpose now and then."""
    outcome = desk.run(conversations(desk.channel)[operation](), desk.signed(200, NATIVE, forgery, ago))
    assert isinstance(outcome, Unknown)
    assert outcome.reason == reason


def test_another_algorithm_or_an_unknown_key_is_not_believed(desk: Desk) -> None:
    good = desk.signed(200, desk.paid())
    for name, value, reason in (
        ("wechatpay-signature-type", "WECHATPAY2-SM2-WITH-SM3", "bad_signature:200"),
        ("wechatpay-serial", "PUB_KEY_ID_99", "unknown_serial:200"),
        ("wechatpay-serial", "5157F09EFDC096DE15EBE81A47057A7232F1B8E1", "unknown_serial:200"),
        ("wechatpay-nonce", "", "missing_signature:200"),
        ("wechatpay-timestamp", "١٢٣", "bad_signature:200"),
        ("wechatpay-signature", "%%%", "bad_signature:200"),
    ):
        reply = HttpResponse(200, {**good.headers, name: value}, good.body)
        assert desk.run(desk.channel.query(REF), reply).reason == reason
    absent = {name: value for name, value in good.headers.items() if name != "wechatpay-signature-type"}
    assert isinstance(desk.run(desk.channel.query(REF), HttpResponse(200, absent, good.body)), Known)


# --- close ---


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("CLOSED", CloseState.CLOSED_PROVED),
        ("SUCCESS", CloseState.ALREADY_PAID),
        ("REFUND", CloseState.ALREADY_PAID),
        ("USERPAYING", CloseState.IN_PROGRESS),
        ("NOTPAY", CloseState.UNPROVED),
    ],
)
@pytest.mark.parametrize("first", ["204", "ORDERPAID", "ORDER_CLOSED", "INVALID_REQUEST", "USERPAYING"])
def test_a_close_is_what_the_query_after_it_says(desk: Desk, first: str, word: str, state: CloseState) -> None:
    """S4, S5: neither 204 nor an error about the state proves anything."""
    reply = desk.signed(204, b"") if first == "204" else error(400, first)
    answer = desk.run(desk.channel.close(REF), reply, desk.signed(200, desk.paid(trade_state=word))).value
    assert answer.state is state
    assert answer.payment is not None
    assert [(request.method, urlsplit(request.url).path.rpartition("/")[2]) for request in desk.sent] == [
        ("POST", "close"), ("GET", NUMBER),
    ]  # fmt: skip


def test_a_close_of_an_unknown_number_is_unproved(desk: Desk) -> None:
    answer = desk.run(desk.channel.close(REF), desk.signed(204, b""), error(404, "ORDER_NOT_EXIST")).value
    assert answer.state is CloseState.UNPROVED


def test_an_accepted_close_without_its_proof_is_unproved_and_a_refused_one_is_unknown(desk: Desk) -> None:
    answer = desk.run(desk.channel.close(REF), desk.signed(204, b""), TransportError("read_timeout")).value
    assert (answer.state, answer.payment) == (CloseState.UNPROVED, None)
    refused = desk.run(desk.channel.close(REF), error(400, "INVALID_REQUEST"), TransportError("read_timeout"))
    assert isinstance(refused, Unknown)


def test_a_204_that_does_not_verify_is_unknown(desk: Desk) -> None:
    reply = desk.signed(204, b"", "bad_signature")
    assert desk.run(desk.channel.close(REF), reply).reason == "signature_probe:204"


# --- what is asked ---


def test_the_order_says_when_it_ends_in_whole_seconds_and_stays_the_same(desk: Desk) -> None:
    until = datetime(2026, 5, 1, 2, 30, 15, 999_999, tzinfo=UTC)
    for _ in range(2):
        desk.run(desk.channel.prepay(order(payable_until=until)), desk.signed(200, NATIVE))
    assert desk.sent[0].body == desk.sent[1].body
    assert desk.last_body() == {
        "appid": desk.options["appid"], "mchid": desk.options["mchid"], "out_trade_no": NUMBER,
        "description": "A book 书", "time_expire": "2026-05-01T10:30:15+08:00",
        "notify_url": "https://shop.example/notify/", "amount": {"total": PRICE, "currency": "CNY"},
    }  # fmt: skip


def test_a_long_or_odd_subject_is_cut_to_what_fits(desk: Desk) -> None:
    desk.run(desk.channel.prepay(order(subject="\n书\0" + "书" * 100)), desk.signed(200, NATIVE))
    description = desk.last_body()["description"]
    assert len(description.encode()) <= 127
    assert description.isprintable()
    assert description.startswith("书 书")
    desk.run(desk.channel.prepay(order(subject="\n")), desk.signed(200, NATIVE))
    assert desk.last_body()["description"] == NUMBER


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"method": "web"}, "method_unsupported"),
        ({"currency": "USD"}, "currency_unsupported"),
        ({"number": "short"}, "number_not_allowed"),
        ({"number": "n" * 33}, "number_not_allowed"),
        ({"number": "with|bar"}, "number_not_allowed"),
        ({"number": "号码号码号码"}, "number_not_allowed"),
        ({"method": "jsapi", "payer": ""}, "payer_required"),
        ({"method": "h5", "client_ip": ""}, "client_ip_required"),
    ],
)
def test_what_cannot_be_asked_is_not_sent(desk: Desk, changes: dict[str, Any], code: str) -> None:
    outcome = desk.run(desk.channel.prepay(order(**{"payer": "o", **changes})))
    assert (outcome.kind, outcome.code, desk.sent) == (RefusedKind.CONFIG, code, [])


def test_the_page_gets_parameters_that_the_merchant_signed(desk: Desk, merchant: Merchant) -> None:
    outcome = desk.run(desk.channel.prepay(order("jsapi")), desk.signed(200, {"prepay_id": "wx201410272009395522657"}))
    assert outcome.value.kind is PrepayKind.APP
    given = json.loads(outcome.value.value)
    assert set(given) == {"appId", "timeStamp", "nonceStr", "package", "signType", "paySign"}
    assert (given["package"], given["signType"]) == ("prepay_id=wx201410272009395522657", "RSA")
    text = f"{given['appId']}\n{given['timeStamp']}\n{given['nonceStr']}\n{given['package']}\n"
    assert verify_rsa(load_public_key(merchant.keys["merchant_certificate"]), text.encode(), given["paySign"])
    assert desk.last_body()["payer"] == {"openid": "oSecretBuyer"}


def test_the_app_gets_parameters_under_its_own_appid(merchant: Merchant) -> None:
    desk = Desk(merchant, appids={"app": "wxapp000001"})
    outcome = desk.run(desk.channel.prepay(order("app")), desk.signed(200, {"prepay_id": "wx1"}))
    given = json.loads(outcome.value.value)
    assert (given["appid"], given["partnerid"], given["package"]) == (
        "wxapp000001",
        desk.channel.merchant,
        "Sign=WXPay",
    )
    text = f"{given['appid']}\n{given['timestamp']}\n{given['noncestr']}\nwx1\n"
    assert verify_rsa(load_public_key(merchant.keys["merchant_certificate"]), text.encode(), given["sign"])
    assert desk.last_body()["appid"] == "wxapp000001"


def test_the_browser_comes_back_from_h5_and_its_address_is_short_lived(desk: Desk) -> None:
    at = datetime.now(UTC)
    reply = desk.signed(200, {"h5_url": "https://wx.tenpay.com/checkmweb?prepay_id=wx1&package=2"})
    prepay = desk.run(desk.channel.prepay(order("h5", client_type="iOS", at=at)), reply).value
    query = parse_qs(urlsplit(prepay.value).query)
    assert query == {"prepay_id": ["wx1"], "package": ["2"], "redirect_url": ["https://shop.example/return/?a=1&b=2"]}
    assert prepay.expires_at <= at + timedelta(minutes=5)
    scene = {"payer_client_ip": "203.0.113.7", "h5_info": {"type": "iOS"}}
    assert desk.last_body()["scene_info"] == scene
    bad = desk.run(desk.channel.prepay(order("h5")), desk.signed(200, {"h5_url": "javascript:alert(1)"}))
    assert isinstance(bad, Unknown)


def test_a_prepay_never_outlives_its_order(desk: Desk) -> None:
    at = datetime.now(UTC)
    soon, late = at + timedelta(minutes=5), at + timedelta(hours=9)
    for until, ends in ((soon, soon), (late, at + timedelta(seconds=7_170))):
        prepay = desk.run(desk.channel.prepay(order(payable_until=until, at=at)), desk.signed(200, NATIVE)).value
        assert prepay.expires_at == ends


def test_a_refund_names_the_transaction_where_it_is_known(desk: Desk) -> None:
    desk.run(desk.channel.refund(REFUND), desk.signed(200, REFUNDED))
    body = desk.last_body()
    assert body["transaction_id"] == "4200001"
    assert "out_trade_no" not in body
    assert body["amount"] == {"refund": PRICE, "total": PRICE, "currency": "CNY"}
    assert (body["out_refund_no"], body["notify_url"]) == (REFUND.refund_number, "https://shop.example/notify/")


def test_every_request_is_signed_and_names_the_key_for_the_answer(desk: Desk, merchant: Merchant) -> None:
    desk.run(desk.channel.query(REF), desk.signed(200, desk.paid()))
    request = desk.sent[-1]
    scheme, _, rest = request.headers["authorization"].partition(" ")
    given = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    parts = urlsplit(request.url)
    text = f"GET\n{parts.path}?{parts.query}\n{given['timestamp']}\n{given['nonce_str']}\n\n"
    assert scheme == "WECHATPAY2-SHA256-RSA2048"
    assert verify_rsa(load_public_key(merchant.keys["merchant_certificate"]), text.encode(), given["signature"])
    assert request.headers["wechatpay-serial"] == desk.options["public_key_id"]
    assert request.headers["accept"] == "application/json"
    assert "content-type" not in request.headers


def test_the_address_is_the_real_one_by_default(merchant: Merchant) -> None:
    desk = Desk(merchant, base_url="")
    desk.run(desk.channel.query(REF), error(401, "SIGN_ERROR"))
    assert desk.sent[0].url.startswith("https://api.mch.weixin.qq.com/v3/pay/transactions/out-trade-no/")


def test_x4_nothing_kept_names_the_buyer_or_could_pay(desk: Desk, merchant: Merchant) -> None:
    """Canaries: the buyer's id, the prepay, the account at the bank, and every key."""
    echo = {"code": "PARAM_ERROR", "message": "m", "detail": {"field": "/payer/openid", "value": "oSecretBuyer"}}
    outcomes = [
        desk.run(desk.channel.query(REF), desk.signed(200, desk.paid())),
        desk.run(desk.channel.refund(REFUND), desk.signed(200, REFUNDED)),
        desk.run(desk.channel.prepay(order("jsapi")), HttpResponse(400, {}, json.dumps(echo).encode())),
        desk.run(desk.channel.query(REF), desk.signed(200, desk.paid(), "bad_signature")),
    ]
    prepay = desk.run(desk.channel.prepay(order()), desk.signed(200, NATIVE))
    kept = " ".join([*map(repr, outcomes), prepay.raw, repr(desk.channel), repr(desk.channel.settings)])
    keys = [merchant.keys["apiv3_key"], desk.options["private_key"].split("\n")[1]]
    for secret in ("oSecretBuyer", "招商银行", "bizpayurl", *keys):
        assert secret not in kept
