"""What each answer of Alipay means, without a server: signatures, code table, states of trades and refunds."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from payonce.channels.alipay import AlipayChannel
from payonce.channels.alipay_answers import BUSINESS, GATEWAY
from payonce.channels.base import Conversation
from payonce.channels.http import run
from payonce.channels.keys import sign_rsa
from payonce.channels.messages import (
    CloseState,
    HttpRequest,
    HttpResponse,
    Known,
    PaymentRef,
    PaymentState,
    PrepayRequest,
    RefundRef,
    RefundRequest,
    RefundState,
    Refused,
    RefusedKind,
    TransportError,
    Unknown,
)
from payonce.channels.sandbox.skins.alipay_keys import new_key, private_of
from tests.channels.alipay.shop import Gateway, Halves, failed, halves, ok

NUMBER = "po_1"
TRADE = {"out_trade_no": NUMBER, "trade_no": "2026112622001400000000000001", "total_amount": "19.99"}
SHOWN = {**TRADE, "out_request_no": "r1", "refund_amount": "5.00"}
REF = PaymentRef(NUMBER, 1_999, "CNY")
REFUND = RefundRequest(REF, "r1", 500, "CNY", 1_999, "duplicate")
PREPAY = PrepayRequest(
    NUMBER, 1_999, "CNY", "A book", "qr", "pc", "", datetime(2026, 11, 26, 12, tzinfo=UTC), "https://shop.example/n",
    "https://shop.example/r",
)  # fmt: skip
SYSTEM_ERRORS = ("ACQ.SYSTEM_ERROR", "AQC.SYSTEM_ERROR")


@pytest.fixture(scope="module", params=["alipay", "alipay_cert"])
def pair(request: pytest.FixtureRequest) -> Halves:
    return halves(request.param)


@pytest.fixture(scope="module")
def channel(pair: Halves) -> AlipayChannel:
    return AlipayChannel("alipay", pair[1])


def conversation(channel: AlipayChannel, operation: str) -> Conversation[Any]:
    made = {
        "prepay": lambda: channel.prepay(PREPAY),
        "query": lambda: channel.query(REF),
        "close": lambda: channel.close(REF),
        "refund": lambda: channel.refund(REFUND),
        "query_refund": lambda: channel.query_refund(RefundRef(REF, "r1", 500)),
        "statement": lambda: channel.statement(datetime(2026, 11, 26, tzinfo=UTC).date()),
    }
    return made[operation]()


# --- the code table ---


@pytest.mark.parametrize(
    ("operation", "sub_code"), [(operation, code) for operation, codes in BUSINESS.items() for code in codes]
)
def test_listed_business_code_is_a_refusal_of_its_kind(
    pair: Halves, channel: AlipayChannel, operation: str, sub_code: str
) -> None:
    outcome = run(conversation(channel, operation), Gateway(pair[0], failed(sub_code)))
    assert isinstance(outcome, Refused), outcome
    assert (outcome.kind, outcome.code) == (BUSINESS[operation][sub_code], sub_code)


@pytest.mark.parametrize("operation", BUSINESS)
@pytest.mark.parametrize("code", [*GATEWAY, "20000", "10003", "40004", "99999", ""])
def test_gateway_code_without_a_reason(pair: Halves, channel: AlipayChannel, operation: str, code: str) -> None:
    """20000 means that nobody knows; the listed ones were refused before anything was done."""
    outcome = run(conversation(channel, operation), Gateway(pair[0], failed("isp.unknow-error", code)))
    if code in GATEWAY:
        assert isinstance(outcome, Refused)
        assert outcome.kind is GATEWAY[code]
    else:
        assert isinstance(outcome, Unknown)


@pytest.mark.parametrize("operation", BUSINESS)
@pytest.mark.parametrize("sub_code", [*SYSTEM_ERRORS, "ACQ.SOMETHING_NEW", "", "\x00", "x" * 500])
def test_system_errors_and_unlisted_reasons_are_unknown(
    pair: Halves, channel: AlipayChannel, operation: str, sub_code: str
) -> None:
    assert isinstance(run(conversation(channel, operation), Gateway(pair[0], failed(sub_code))), Unknown)


def test_refusals_name_the_setting_to_repair(pair: Halves, channel: AlipayChannel) -> None:
    outcome = run(channel.query(REF), Gateway(pair[0], failed("isv.invalid-signature", "40002")))
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusedKind.CONFIG
    assert '"private_key"' in outcome.message
    assert "原因" in outcome.message


# --- signatures ---


@pytest.mark.parametrize("operation", BUSINESS)
def test_success_signed_by_somebody_else_is_unknown(pair: Halves, channel: AlipayChannel, operation: str) -> None:
    """A 2xx whose signature does not verify may have had its effect."""
    gateway = Gateway(pair[0], ok(**TRADE, trade_status="TRADE_SUCCESS", qr_code="q", fund_change="Y"), key=new_key())
    outcome = run(conversation(channel, operation), gateway)
    assert isinstance(outcome, Unknown)
    assert outcome.reason == "bad_signature"
    assert len(gateway.methods) == 1


@pytest.mark.parametrize("operation", BUSINESS)
@pytest.mark.parametrize("name", ["error_response", "own"])
def test_unsigned_error_of_a_write_is_unknown_and_of_a_read_a_refusal(
    channel: AlipayChannel, operation: str, name: str
) -> None:
    def answer(request: HttpRequest) -> HttpResponse:
        method = request.url.split("method=")[1].split("&")[0]
        own = method.replace(".", "_") + "_response"
        body = {own if name == "own" else name: failed("isv.invalid-app-id", "40002")}
        return HttpResponse(200, {}, json.dumps(body).encode())

    outcome = run(conversation(channel, operation), answer)
    if operation in {"prepay", "close", "refund"}:
        assert isinstance(outcome, Unknown)
        assert outcome.reason == "unsigned:40002:isv.invalid-app-id"
    else:
        assert isinstance(outcome, Refused)
        assert (outcome.kind, outcome.code) == (RefusedKind.CONFIG, "isv.invalid-app-id")


@pytest.mark.parametrize("operation", BUSINESS)
def test_unsigned_success_and_unsigned_business_error_are_unknown(channel: AlipayChannel, operation: str) -> None:
    for record in (ok(**TRADE, trade_status="TRADE_CLOSED"), failed("ACQ.TRADE_NOT_EXIST")):

        def answer(request: HttpRequest, record: dict[str, Any] = record) -> HttpResponse:
            method = request.url.split("method=")[1].split("&")[0]
            return HttpResponse(200, {}, json.dumps({method.replace(".", "_") + "_response": record}).encode())

        assert isinstance(run(conversation(channel, operation), answer), Unknown)


def test_signature_covers_the_raw_text_whatever_its_spelling(pair: Halves, channel: AlipayChannel) -> None:
    """Spaces, escapes, braces in texts and a second mention of the member's name inside the content change nothing."""
    odd = ok(
        **TRADE, trade_status="TRADE_SUCCESS", subject='} "alipay_trade_query_response":{ \\" 书', nested={"sign": "x"}
    )
    outcome = run(channel.query(REF), Gateway(pair[0], odd, space=" \r\n\t"))
    assert isinstance(outcome, Known), outcome
    assert outcome.value.state is PaymentState.PAID


def test_true_signature_over_another_members_text_is_not_taken(pair: Halves, channel: AlipayChannel) -> None:
    paid, key = json.dumps(ok(**TRADE, trade_status="TRADE_SUCCESS")), private_of(pair[0]["keys"]["alipay_private_key"])
    genuine = json.dumps(failed("ACQ.TRADE_NOT_EXIST"))
    signature, number = sign_rsa(key, genuine.encode()), pair[0]["keys"].get("alipay_cert_sn", "")
    for body in (
        f'{{"x":{{"alipay_trade_query_response":{genuine}}},"alipay_trade_query_response":{paid},"sign":"{signature}"}}',
        f'{{"alipay_trade_query_response":{genuine},"alipay_trade_query_response":{paid},"alipay_cert_sn":"{number}","sign":"{signature}"}}',
        f'{{"alipay_trade_query_response":{paid},"alipay_trade_query_response":{paid},"sign":"","sign":"{signature}"}}',
        f'{{"error_response":{genuine},"alipay_trade_query_response":{paid},"sign":"{signature}"}}',
    ):
        outcome = run(channel.query(REF), lambda _, body=body: HttpResponse(200, {}, body.encode()))
        assert isinstance(outcome, Unknown), body


def test_an_answer_in_another_certificates_name_is_unknown_and_says_what_to_do(
    pair: Halves, channel: AlipayChannel
) -> None:
    if "alipay_cert_sn" not in pair[0]["keys"]:
        pytest.skip("certificate mode only")
    other = {**pair[0], "keys": {**pair[0]["keys"], "alipay_cert_sn": "0" * 32}}
    outcome = run(channel.query(REF), Gateway(other, ok(**TRADE, trade_status="TRADE_SUCCESS")))
    assert isinstance(outcome, Unknown)
    assert '"alipay_cert"' in outcome.reason


def test_during_a_change_over_both_certificates_verify() -> None:
    (old_bank, shop), (new_bank, new_shop) = halves("alipay_cert"), halves("alipay_cert")
    both = AlipayChannel("alipay", {**shop, "alipay_cert": shop["alipay_cert"] + new_shop["alipay_cert"]})
    for bank in (old_bank, new_bank):
        outcome = run(both.query(REF), Gateway(bank, ok(**TRADE, trade_status="WAIT_BUYER_PAY")))
        assert isinstance(outcome, Known), outcome


@pytest.mark.parametrize("status", [201, 302, 400, 404, 500, 502])
@pytest.mark.parametrize("operation", BUSINESS)
def test_signed_success_under_another_status_is_unknown(
    pair: Halves, channel: AlipayChannel, operation: str, status: int
) -> None:
    def answer(request: HttpRequest) -> HttpResponse:
        gateway = Gateway(pair[0], ok(**TRADE, trade_status="TRADE_CLOSED", qr_code="q", fund_change="Y"))
        return HttpResponse(status, {}, gateway(request).body)

    assert isinstance(run(conversation(channel, operation), answer), Unknown)


# --- trades ---


@pytest.mark.parametrize(
    ("status", "more", "state", "refunded"),
    [
        ("WAIT_BUYER_PAY", {}, PaymentState.OPEN, 0),
        ("TRADE_SUCCESS", {"send_pay_date": "2026-11-26 18:00:01"}, PaymentState.PAID, 0),
        ("TRADE_SUCCESS", {}, PaymentState.PAID, 0),
        ("TRADE_FINISHED", {"send_pay_date": "2026-11-26 18:00:01"}, PaymentState.PAID, 0),
        ("TRADE_CLOSED", {}, PaymentState.CLOSED, 0),
        ("TRADE_CLOSED", {"send_pay_date": "2026-11-26 18:00:01"}, PaymentState.PAID, 1_999),
        ("TRADE_PENDING", {}, PaymentState.UNCLEAR, 0),
    ],
)
def test_trade_status_is_read_and_paid_is_sticky(
    pair: Halves, channel: AlipayChannel, status: str, more: dict[str, str], state: PaymentState, refunded: int
) -> None:
    """TRADE_CLOSED of what was paid and given back stays PAID."""
    outcome = run(channel.query(REF), Gateway(pair[0], ok(**TRADE, **more, trade_status=status)))
    assert isinstance(outcome, Known), outcome
    view = outcome.value
    assert (view.state, view.refunded_minor) == (state, refunded)
    assert view.paid_minor == (1_999 if state is PaymentState.PAID else 0)
    assert view.channel_reference == TRADE["trade_no"]
    if "send_pay_date" in more:
        assert view.paid_at == datetime(2026, 11, 26, 10, 0, 1, tzinfo=UTC)


def test_a_trade_priced_in_another_currency_says_so(pair: Halves, channel: AlipayChannel) -> None:
    outcome = run(channel.query(REF), Gateway(pair[0], ok(**TRADE, trade_status="TRADE_SUCCESS", trans_currency="USD")))
    assert isinstance(outcome, Known)
    assert outcome.value.currency == "USD"


@pytest.mark.parametrize(
    "amount", ["", "19.999", "-1", "1e3", "19,99", "\u0661", "19.", ".5", " 1", 19.99, 19, None, True, "9" * 12]
)
def test_no_amount_is_guessed(pair: Halves, channel: AlipayChannel, amount: Any) -> None:
    record = ok(**{**TRADE, "total_amount": amount}, trade_status="TRADE_SUCCESS")
    assert isinstance(run(channel.query(REF), Gateway(pair[0], record)), Unknown)


@pytest.mark.parametrize("amount", ["0", "0.00"])
def test_money_of_nothing_is_no_money(pair: Halves, channel: AlipayChannel, amount: str) -> None:
    record = ok(**{**TRADE, "total_amount": amount}, trade_status="TRADE_SUCCESS")
    assert isinstance(run(channel.query(REF), Gateway(pair[0], record)), Unknown)


@pytest.mark.parametrize("operation", ["prepay", "query", "close", "refund", "query_refund"])
def test_an_answer_about_another_number_answers_nothing(pair: Halves, channel: AlipayChannel, operation: str) -> None:
    record = ok(**{**TRADE, "out_trade_no": "po_2"}, trade_status="TRADE_SUCCESS", qr_code="q", fund_change="Y",
                out_request_no="r1", refund_status="REFUND_SUCCESS", refund_amount="5.00")  # fmt: skip
    assert isinstance(run(conversation(channel, operation), Gateway(pair[0], record)), Unknown)


def test_a_trade_that_does_not_exist_is_not_found_and_not_closable(pair: Halves, channel: AlipayChannel) -> None:
    """S4: before the buyer scans, TRADE_NOT_EXIST proves nothing."""
    missing = failed("ACQ.TRADE_NOT_EXIST")
    seen = run(channel.query(REF), Gateway(pair[0], missing))
    assert isinstance(seen, Known)
    assert seen.value.state is PaymentState.NOT_FOUND
    closed = run(channel.close(REF), Gateway(pair[0], missing))
    assert isinstance(closed, Known)
    assert (closed.value.state, closed.value.payment) == (CloseState.NOT_CLOSABLE, None)


# --- close ---


def test_close_is_proven_by_its_own_answer(pair: Halves, channel: AlipayChannel) -> None:
    gateway = Gateway(pair[0], ok(**TRADE))
    outcome = run(channel.close(REF), gateway)
    assert isinstance(outcome, Known)
    assert outcome.value.state is CloseState.CLOSED_PROVED
    assert gateway.methods == ["alipay.trade.close"]


@pytest.mark.parametrize(
    "sub_code", ["ACQ.TRADE_STATUS_ERROR", "ACQ.REASON_TRADE_STATUS_INVALID", "ACQ.REASON_ILLEGAL_STATUS"]
)
@pytest.mark.parametrize(
    ("status", "more", "state"),
    [
        ("TRADE_SUCCESS", {}, CloseState.ALREADY_PAID),
        ("TRADE_CLOSED", {}, CloseState.CLOSED_PROVED),
        ("TRADE_CLOSED", {"send_pay_date": "2026-11-26 18:00:01"}, CloseState.ALREADY_PAID),
        ("WAIT_BUYER_PAY", {}, CloseState.UNPROVED),
        ("TRADE_PENDING", {}, CloseState.UNPROVED),
    ],
)
def test_a_close_that_the_state_forbids_is_asked_about(
    pair: Halves, channel: AlipayChannel, sub_code: str, status: str, more: dict[str, str], state: CloseState
) -> None:
    """S5: already paid as the answer to a close is a success, with its amount."""
    gateway = Gateway(pair[0], failed(sub_code), ok(**TRADE, **more, trade_status=status))
    outcome = run(channel.close(REF), gateway)
    assert isinstance(outcome, Known)
    assert outcome.value.state is state
    assert outcome.value.payment is not None
    assert gateway.methods == ["alipay.trade.close", "alipay.trade.query"]


# --- refunds ---


def test_refund_is_done_only_where_the_money_moved(pair: Halves, channel: AlipayChannel) -> None:
    """`refund_fee` is the sum over the trade: the refund's own amount is what was asked for."""
    gateway = Gateway(pair[0], ok(**TRADE, fund_change="Y", refund_fee="15.00"))
    outcome = run(channel.refund(REFUND), gateway)
    assert isinstance(outcome, Known)
    assert (outcome.value.state, outcome.value.amount_minor, outcome.value.currency) == (RefundState.DONE, 500, "CNY")
    assert gateway.methods == ["alipay.trade.refund"]


@pytest.mark.parametrize("change", [{"fund_change": "N"}, {}, {"fund_change": "y"}, {"fund_change": None}])
def test_refund_without_a_movement_is_decided_by_the_refund_query(
    pair: Halves, channel: AlipayChannel, change: dict[str, Any]
) -> None:
    """M6: nothing is sent twice, and what the query does not show stays unknown."""
    shown = ok(**TRADE, out_request_no="r1", refund_amount="5.00", refund_status="REFUND_SUCCESS")
    for answer, expected in ((shown, RefundState.DONE), (ok(), None)):
        gateway = Gateway(pair[0], ok(**TRADE, **change, refund_fee="5.00"), answer)
        outcome = run(channel.refund(REFUND), gateway)
        assert gateway.methods == ["alipay.trade.refund", "alipay.trade.fastpay.refund.query"]
        if expected is None:
            assert isinstance(outcome, Unknown)
        else:
            assert isinstance(outcome, Known)
            assert (outcome.value.state, outcome.value.amount_minor) == (expected, 500)


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ({"refund_status": "REFUND_SUCCESS"}, RefundState.DONE),
        ({"refund_status": "REFUND_PROCESSING"}, RefundState.IN_PROGRESS),
        ({"refund_amount": "0.00"}, RefundState.NOT_FOUND),
        ({"refund_amount": None, "refund_status": ""}, RefundState.NOT_FOUND),
        ({"refund_amount": None, "out_request_no": None, "out_trade_no": None}, RefundState.NOT_FOUND),
    ],
)
def test_refund_query_is_read(pair: Halves, channel: AlipayChannel, more: dict[str, Any], state: RefundState) -> None:
    record = {name: value for name, value in ok(**{**SHOWN, **more}).items() if value is not None}
    outcome = run(conversation(channel, "query_refund"), Gateway(pair[0], record))
    assert isinstance(outcome, Known)
    assert outcome.value.state is state
    assert outcome.value.amount_minor == (0 if state is RefundState.NOT_FOUND else 500)


@pytest.mark.parametrize(
    "more",
    [
        {"refund_status": "REFUND_FAIL"},
        {"refund_status": "REFUND_SUCCESS", "out_request_no": "r2"},
        {"refund_status": "REFUND_SUCCESS", "out_request_no": ""},
        {"refund_status": "REFUND_SUCCESS", "refund_amount": ""},
        {"refund_status": "REFUND_SUCCESS", "refund_amount": "0.00"},
        {},
    ],
)
def test_refund_query_that_says_something_else_is_unknown(
    pair: Halves, channel: AlipayChannel, more: dict[str, str]
) -> None:
    """An amount without a status was success on an older page and failure on a newer one: nobody knows."""
    record = ok(**{**SHOWN, **more})
    assert isinstance(run(conversation(channel, "query_refund"), Gateway(pair[0], record)), Unknown)


def test_refund_query_about_an_unknown_trade_is_not_found(pair: Halves, channel: AlipayChannel) -> None:
    outcome = run(conversation(channel, "query_refund"), Gateway(pair[0], failed("ACQ.TRADE_NOT_EXIST")))
    assert isinstance(outcome, Known)
    assert outcome.value.state is RefundState.NOT_FOUND


# --- evidence and transport ---


def test_evidence_names_no_buyer_and_holds_nothing_that_signs_or_pays(pair: Halves, channel: AlipayChannel) -> None:
    """X4."""
    record = ok(
        **TRADE, trade_status="TRADE_SUCCESS", buyer_logon_id="a***@b", buyer_user_id="2088canary", qr_code="canaryq"
    )
    outcome = run(channel.query(REF), Gateway(pair[0], record))
    assert isinstance(outcome, Known)
    for hidden in ("a***@b", "2088canary", "canaryq"):
        assert hidden not in repr(outcome)
    assert "TRADE_SUCCESS" in outcome.raw


@pytest.mark.parametrize("operation", BUSINESS)
def test_what_never_left_was_not_executed(channel: AlipayChannel, operation: str) -> None:
    refused = run(conversation(channel, operation), lambda _: TransportError("connect_refused", sent=False))
    assert isinstance(refused, Refused)
    assert refused.kind is RefusedKind.THROTTLED
    assert isinstance(run(conversation(channel, operation), lambda _: TransportError("read_timeout")), Unknown)
