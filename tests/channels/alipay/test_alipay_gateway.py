"""The adapter against the bank's Alipay gateway over HTTP: what is odd about the real one, and every planned fault."""

import json
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from payonce.channels.alipay import AlipayChannel
from payonce.channels.alipay_wire import BEIJING, signed_text
from payonce.channels.contract.simulator import known
from payonce.channels.http import run, send
from payonce.channels.keys import sign_rsa
from payonce.channels.messages import (
    CloseState,
    HttpRequest,
    HttpResponse,
    Known,
    NotAuthentic,
    Notice,
    PaymentState,
    RefundRef,
    RefundState,
    Refused,
    RefusedKind,
    TransportError,
    Unknown,
)
from payonce.channels.sandbox.skins.alipay_keys import private_of
from tests.channels.alipay.shop import AlipaySimulator, account_options, form_of, query_of

# --- no trade before the buyer acts ---


@pytest.mark.parametrize("method", ["web", "h5", "app"])
def test_a_page_is_nothing_to_alipay_until_a_buyer_opens_it(simulator: AlipaySimulator, method: str) -> None:
    request = simulator.prepay_request(simulator.new_number(), method=method)
    prepay = known(simulator.run(simulator.channel.prepay(request)))
    ref = simulator.ref(request.number)
    assert simulator.calls("prepay", request.number) == 0
    assert known(simulator.run(simulator.channel.query(ref))).state is PaymentState.NOT_FOUND
    assert known(simulator.run(simulator.channel.close(ref))).state is CloseState.NOT_CLOSABLE
    simulator.follow(prepay.value)
    seen = known(simulator.run(simulator.channel.query(ref)))
    assert (seen.state, seen.paid_minor) == (PaymentState.OPEN, 0)
    assert simulator.pay(request.number)
    paid = known(simulator.run(simulator.channel.query(ref)))
    assert (paid.state, paid.paid_minor) == (PaymentState.PAID, simulator.amount_minor)
    assert paid.channel_reference == seen.channel_reference


def test_an_address_that_somebody_altered_is_refused(alipay: AlipaySimulator) -> None:
    prepay = known(alipay.run(alipay.channel.prepay(alipay.prepay_request(alipay.new_number(), method="web"))))
    reply = alipay.open_page(prepay.value.replace("12.00", "00.01"))
    assert b"isv.invalid-signature" in reply.body


def test_a_second_address_with_another_amount_is_refused_when_it_is_opened(alipay: AlipaySimulator) -> None:
    """Both were signed here, so nobody refuses them before."""
    request = alipay.prepay_request(alipay.new_number(), method="web")
    other = alipay.prepay_request(request.number, method="web", amount_minor=5, payable_until=request.payable_until)
    first, second = (known(alipay.run(alipay.channel.prepay(each))) for each in (request, other))
    alipay.follow(first.value)
    assert b"ACQ.CONTEXT_INCONSISTENT" in alipay.open_page(second.value).body


def test_an_opened_trade_can_be_closed_once_and_its_address_is_dead(simulator: AlipaySimulator) -> None:
    request = simulator.prepay_request(simulator.new_number(), method="web")
    prepay = known(simulator.run(simulator.channel.prepay(request)))
    simulator.follow(prepay.value)
    for _ in range(2):  # the second close is refused by the state, and a query proves the same
        answer = known(simulator.run(simulator.channel.close(simulator.ref(request.number))))
        assert answer.state is CloseState.CLOSED_PROVED
    assert not simulator.pay(request.number)
    assert b"ACQ.TRADE_HAS_CLOSE" in simulator.open_page(prepay.value).body
    assert simulator.moved(request.number).captures == 0


def test_closing_what_is_being_paid_proves_nothing(alipay: AlipaySimulator) -> None:
    number = alipay.registered()
    alipay.control.begin(number, account=alipay.account)
    answer = known(alipay.run(alipay.channel.close(alipay.ref(number))))
    assert answer.state is CloseState.UNPROVED


def test_a_trade_that_nobody_paid_in_time_closes_by_itself(alipay: AlipaySimulator) -> None:
    request = alipay.prepay_request(alipay.new_number())
    known(alipay.run(alipay.channel.prepay(request)))
    alipay.control.open_page(request.number, account=alipay.account)
    alipay.control.advance_clock(31 * 60)
    assert not alipay.pay(request.number)
    seen = known(alipay.run(alipay.channel.query(alipay.ref(request.number))))
    assert seen.state is PaymentState.CLOSED
    closed = known(alipay.run(alipay.channel.close(alipay.ref(request.number))))
    assert closed.state is CloseState.CLOSED_PROVED


def test_paid_is_sticky_after_everything_was_given_back(alipay: AlipaySimulator) -> None:
    """The query then answers TRADE_CLOSED, as it does for what was never paid."""
    number, reference = alipay.paid()
    known(
        alipay.run(alipay.channel.refund(alipay.refund_request(number, reference, f"r{number}", alipay.amount_minor)))
    )
    outcome = alipay.run(alipay.channel.query(alipay.ref(number)))
    assert isinstance(outcome, Known)
    assert "TRADE_CLOSED" in outcome.raw
    assert (outcome.value.state, outcome.value.refunded_minor) == (PaymentState.PAID, alipay.amount_minor)


def test_a_partial_refund_shows_in_no_query(alipay: AlipaySimulator) -> None:
    """Stated in the capabilities' notes: what was given back outside shows only in the bill."""
    number, reference = alipay.paid()
    known(alipay.run(alipay.channel.refund(alipay.refund_request(number, reference, f"r{number}", 100))))
    view = known(alipay.run(alipay.channel.query(alipay.ref(number))))
    assert (view.state, view.refunded_minor) == (PaymentState.PAID, 0)
    assert "query" in alipay.channel.capabilities.notes


# --- refunds ---


def test_a_repeated_refund_moves_nothing_and_is_done(alipay: AlipaySimulator) -> None:
    """The repeat answers `fund_change` N, and the refund query says that it is done."""
    number, reference = alipay.paid()
    request = alipay.refund_request(number, reference, f"r{number}", 500)
    for calls in (0, 1):
        view = known(alipay.run(alipay.channel.refund(request)))
        assert (view.state, view.amount_minor) == (RefundState.DONE, 500)
        assert alipay.calls("query_refund", number) == calls
    assert alipay.moved(number).refunded_minor == 500


def test_two_refunds_within_three_seconds_are_too_many(alipay: AlipaySimulator) -> None:
    number, reference = alipay.paid()
    known(alipay.run(alipay.channel.refund(alipay.refund_request(number, reference, f"a{number}", 100))))
    again = alipay.refund_request(number, reference, f"b{number}", 100)
    refused = alipay.run(alipay.channel.refund(again))
    assert isinstance(refused, Refused)
    assert refused.kind is RefusedKind.THROTTLED
    alipay.control.advance_clock(4)
    view = known(alipay.run(alipay.channel.refund(again)))
    assert view.amount_minor == 100
    assert alipay.moved(number).refunded_minor == 200


@pytest.mark.parametrize(
    ("fault", "arguments"), [("refund_pending", {}), ("refund_attention", {})], ids=["pending", "attention"]
)
def test_a_refund_that_is_not_done_is_unknown_until_the_query_shows_it(
    alipay: AlipaySimulator, fault: str, arguments: dict[str, Any]
) -> None:
    number, reference = alipay.paid()
    request = alipay.refund_request(number, reference, f"r{number}", 500)
    alipay.control.fault("refund", fault, account=alipay.account, **arguments)
    assert isinstance(alipay.run(alipay.channel.refund(request)), Unknown)
    ref = RefundRef(request.payment, request.refund_number, 500)
    assert known(alipay.run(alipay.channel.query_refund(ref))).state is RefundState.NOT_FOUND
    alipay.control.settle_refund(number, request.refund_number, "DONE", account=alipay.account)
    assert known(alipay.run(alipay.channel.query_refund(ref))).state is RefundState.DONE
    assert known(alipay.run(alipay.channel.refund(request))).state is RefundState.DONE
    assert alipay.moved(number).refunded_minor == 500


def test_a_refund_without_the_money_for_it_is_declined_and_may_be_tried_again(alipay: AlipaySimulator) -> None:
    number, reference = alipay.paid()
    request = alipay.refund_request(number, reference, f"r{number}", 500)
    alipay.control.fault("refund", "refund_failed", account=alipay.account)
    refused = alipay.run(alipay.channel.refund(request))
    assert isinstance(refused, Refused)
    assert (refused.kind, refused.code) == (RefusedKind.DECLINED, "ACQ.SELLER_BALANCE_NOT_ENOUGH")
    assert known(alipay.run(alipay.channel.refund(request))).state is RefundState.DONE


def test_refunding_too_much_another_amount_or_too_late_is_refused(alipay: AlipaySimulator) -> None:
    number, reference = alipay.paid()
    over = alipay.run(alipay.channel.refund(alipay.refund_request(number, reference, "over", alipay.amount_minor + 1)))
    assert isinstance(over, Refused)
    assert over.code == "ACQ.REASON_TRADE_REFUND_FEE_ERR"
    known(alipay.run(alipay.channel.refund(alipay.refund_request(number, reference, f"r{number}", 100))))
    other = alipay.run(alipay.channel.refund(alipay.refund_request(number, reference, f"r{number}", 200)))
    assert isinstance(other, Refused)
    assert (other.kind, other.code) == (RefusedKind.CONFLICT, "ACQ.DISCORDANT_REPEAT_REQUEST")
    alipay.control.advance_clock(366 * 86_400)
    late = alipay.run(alipay.channel.refund(alipay.refund_request(number, reference, "late", 100)))
    assert isinstance(late, Refused)
    assert late.code == "ACQ.TRADE_HAS_FINISHED"
    finished = alipay.run(alipay.channel.query(alipay.ref(number)))
    assert isinstance(finished, Known)
    assert "TRADE_FINISHED" in finished.raw
    assert finished.value.state is PaymentState.PAID
    assert alipay.moved(number).refunded_minor == 100


def test_a_second_capture_is_told_and_refunded_under_its_own_trade_number(alipay: AlipaySimulator) -> None:
    number, reference = alipay.paid()
    alipay.control.second_capture(number, account=alipay.account)
    notice = alipay.channel.parse_notification(alipay.notification(number), alipay.now())
    assert isinstance(notice, Notice)
    assert notice.payment is not None
    assert notice.payment.channel_reference != reference
    request = alipay.refund_request(number, notice.payment.channel_reference, f"r{number}", alipay.amount_minor)
    assert known(alipay.run(alipay.channel.refund(request))).state is RefundState.DONE
    first = known(alipay.run(alipay.channel.query(alipay.ref(number, reference))))
    assert (first.channel_reference, first.refunded_minor) == (reference, 0)


# --- who asks, and how errors look ---


def raw(simulator: AlipaySimulator, call: str, content: dict[str, Any], /, **changes: str | None) -> dict[str, Any]:
    """A request with fields changed before it is signed, or with a signature of its own; always answered by status 200."""
    channel = simulator.channel
    assert isinstance(channel, AlipayChannel)
    fields = {**channel._signed(call, content, {}), **{name: value for name, value in changes.items() if value}}
    fields = {name: value for name, value in fields.items() if changes.get(name, "") is not None}
    if "sign" not in changes:
        key = private_of(simulator.options["private_key"])
        fields["sign"] = sign_rsa(key, signed_text(fields).encode())
    reply = send(HttpRequest("POST", simulator.options["base_url"], {"content-type": "application/x-www-form-urlencoded"},
                             urlencode(fields).encode()))  # fmt: skip
    assert isinstance(reply, HttpResponse)
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/html;charset=utf-8"
    return dict(json.loads(reply.body))


@pytest.mark.parametrize(
    ("changes", "code", "sub_code", "is_signed"),
    [
        ({"app_id": "2021999999999999"}, "40002", "isv.invalid-app-id", False),
        ({"app_id": None}, "40001", "isv.missing-app-id", False),
        ({"method": "alipay.trade.nothing"}, "40002", "isv.invalid-method", False),
        ({"method": None}, "40001", "isv.missing-method", False),
        ({"sign": "AAAA"}, "40002", "isv.invalid-signature", True),
        ({"sign": None}, "40001", "isv.missing-signature", False),
        ({"sign_type": "RSA"}, "40002", "isv.invalid-signature-type", True),
        ({"charset": "gbk"}, "40002", "isv.invalid-charset", True),
        ({"version": "2.0"}, "40002", "isv.invalid-version", True),
        ({"timestamp": "now"}, "40002", "isv.invalid-timestamp", True),
        ({"format": "xml"}, "40002", "isv.invalid-format", True),
        ({"biz_content": "[]"}, "40002", "isv.invalid-parameter", True),
    ],
)
def test_the_gateway_refuses_what_is_not_signed_for_it(
    simulator: AlipaySimulator, changes: dict[str, str | None], code: str, sub_code: str, is_signed: bool
) -> None:
    answer = raw(simulator, "alipay.trade.query", {"out_trade_no": "po_1"}, **changes)
    record = next(value for name, value in answer.items() if name.endswith("_response"))
    assert (record["code"], record["sub_code"]) == (code, sub_code)
    assert ("sign" in answer) is is_signed


def test_certificate_mode_asks_for_both_certificate_numbers(world: Any) -> None:
    sandbox, box, banks = world
    certified = AlipaySimulator(sandbox, "certificate", banks["certificate"], box)
    plain = AlipaySimulator(sandbox, "public_key", banks["public_key"], box)
    for name, sub_code in (
        ("app_cert_sn", "isv.missing-app-cert-sn"),
        ("alipay_root_cert_sn", "isv.missing-alipay-root-cert-sn"),
    ):
        answer = raw(certified, "alipay.trade.query", {"out_trade_no": "x"}, **{name: None})
        assert answer["alipay_trade_query_response"]["sub_code"] == sub_code
        assert answer["alipay_cert_sn"] == banks["certificate"]["keys"]["alipay_cert_sn"]
        answer = raw(certified, "alipay.trade.query", {"out_trade_no": "x"}, **{name: "0" * 32})
        assert answer["alipay_trade_query_response"]["sub_code"] == sub_code.replace("missing", "invalid")
        answer = raw(plain, "alipay.trade.query", {"out_trade_no": "x"}, **{name: "0" * 32})
        assert answer["alipay_trade_query_response"]["code"] == "40002"


def test_wrong_keys_of_the_shop_are_named_by_reads_and_unknown_for_writes(simulator: AlipaySimulator) -> None:
    """The keys of another application, against our gateway: reads say which setting is wrong."""
    options, (_, shop) = account_options("alipay")
    own = {**simulator.options, "private_key": shop["private_key"]}
    if "app_cert" in own:
        pytest.skip("certificate mode recognises it before any call")
    channel = AlipayChannel("alipay", own)
    refused = run(channel.query(simulator.ref("po_1")))
    assert isinstance(refused, Refused)
    assert (refused.kind, refused.code) == (RefusedKind.CONFIG, "isv.invalid-signature")
    stranger = AlipayChannel("alipay", {**simulator.options, "app_id": "2021000000000000"})
    asked = run(stranger.query(simulator.ref("po_1")))
    assert isinstance(asked, Refused)
    assert '"app_id"' in asked.message
    assert isinstance(run(stranger.prepay(simulator.prepay_request("po_1"))), Unknown)
    deaf = AlipayChannel("alipay", {**simulator.options, "alipay_public_key": shop["alipay_public_key"]})
    assert run(deaf.query(simulator.ref("po_1"))).reason == "bad_signature"
    assert options["skin"] == "alipay"


@pytest.mark.parametrize(
    "content",
    [
        {"out_trade_no": "a-b", "total_amount": "1.00", "subject": "x"},
        {"out_trade_no": "x" * 65, "total_amount": "1.00", "subject": "x"},
        {"out_trade_no": "ok", "total_amount": "1.001", "subject": "x"},
        {"out_trade_no": "ok", "total_amount": "0.00", "subject": "x"},
        {"out_trade_no": "ok", "total_amount": "1.00", "subject": "a/b"},
        {"out_trade_no": "ok", "total_amount": "1.00", "subject": ""},
        {"out_trade_no": "ok", "total_amount": "1.00", "subject": "x", "time_expire": "tomorrow"},
        {"out_trade_no": "ok", "total_amount": "1.00", "subject": "x", "product_code": "FAST_INSTANT_TRADE_PAY"},
        {"out_trade_no": "ok", "total_amount": "1.00"},
    ],
)
def test_the_gateway_refuses_orders_that_alipay_refuses(alipay: AlipaySimulator, content: dict[str, str]) -> None:
    answer = raw(alipay, "alipay.trade.precreate", content)["alipay_trade_precreate_response"]
    assert (answer["code"], answer["sub_code"]) == ("40004", "ACQ.INVALID_PARAMETER")


def test_a_relative_expiry_does_not_end_a_code(alipay: AlipaySimulator) -> None:
    """Why the adapter always sends `time_expire`."""
    number = alipay.new_number()
    content = {"out_trade_no": number, "total_amount": "12.00", "subject": "x", "timeout_express": "1m"}
    assert raw(alipay, "alipay.trade.precreate", content)["alipay_trade_precreate_response"]["code"] == "10000"
    alipay.control.advance_clock(3_600)
    assert alipay.pay(number)


# --- planned faults ---


@pytest.mark.parametrize("operation", ["prepay", "query", "close", "refund", "query_refund", "statement"])
@pytest.mark.parametrize(
    "fault", ["drop_before", "error_before", "no_signature", "bad_signature", "garbage", "truncate"]
)
def test_planned_fault_makes_the_answer_unknown(alipay: AlipaySimulator, operation: str, fault: str) -> None:
    from payonce.channels.contract.garbage import conversations

    number, _ = alipay.paid()
    alipay.control.fault(operation, fault, account=alipay.account)
    outcome = alipay.run(conversations(alipay, number)[operation])
    assert isinstance(outcome, Unknown) or (operation == "statement" and isinstance(outcome, Refused)), outcome
    assert not alipay.control.faults()


def test_unknown_error_after_the_effect_is_unknown_and_the_money_moved_once(alipay: AlipaySimulator) -> None:
    """Code 20000 with status 200 says nothing about what was done."""
    number, reference = alipay.paid()
    request = alipay.refund_request(number, reference, f"r{number}", 500)
    alipay.control.fault("refund", "error_after", account=alipay.account, status=200)
    outcome = alipay.run(alipay.channel.refund(request))
    assert isinstance(outcome, Unknown)
    assert "20000" in outcome.reason
    assert alipay.moved(number).refunded_minor == 500
    assert known(alipay.run(alipay.channel.refund(request))).state is RefundState.DONE
    assert alipay.moved(number).refunded_minor == 500


@pytest.mark.parametrize(
    ("operation", "code", "kind"),
    [
        ("prepay", "ACQ.APPLY_PC_MERCHANT_CODE_ERROR", RefusedKind.CONFLICT),
        ("prepay", "DECLINED", RefusedKind.DECLINED),
        ("query", "RATE_LIMITED", RefusedKind.THROTTLED),
        ("refund", "NOT_ENOUGH", RefusedKind.DECLINED),
        ("close", "40006", RefusedKind.CONFIG),
        ("refund", "SYSTEM_ERROR", None),
        ("close", "ACQ.SYSTEM_ERROR", None),
    ],
)
def test_planned_refusals_come_in_alipays_words(
    alipay: AlipaySimulator, operation: str, code: str, kind: RefusedKind | None
) -> None:
    from payonce.channels.contract.garbage import conversations

    number = alipay.registered()
    alipay.control.fault(operation, "refuse", account=alipay.account, code=code)
    outcome = alipay.run(conversations(alipay, number)[operation])
    assert outcome.kind is kind if isinstance(outcome, Refused) else kind is None and isinstance(outcome, Unknown)


def test_planned_not_found_hides_what_is_known(alipay: AlipaySimulator) -> None:
    number, reference = alipay.paid()
    request = alipay.refund_request(number, reference, f"r{number}", 500)
    known(alipay.run(alipay.channel.refund(request)))
    for operation in ("query", "query_refund", "close"):
        alipay.control.fault(operation, "not_found", account=alipay.account)
    assert known(alipay.run(alipay.channel.query(alipay.ref(number)))).state is PaymentState.NOT_FOUND
    ref = RefundRef(request.payment, request.refund_number, 500)
    assert known(alipay.run(alipay.channel.query_refund(ref))).state is RefundState.NOT_FOUND
    assert known(alipay.run(alipay.channel.close(alipay.ref(number)))).state is CloseState.NOT_CLOSABLE


def test_outage_refuses_connections_and_ends(alipay: AlipaySimulator) -> None:
    number = alipay.registered()
    with alipay.control.outage(alipay.account):
        outcome = alipay.run(alipay.channel.query(alipay.ref(number)))
        assert isinstance(outcome, Refused | Unknown)
    assert known(alipay.run(alipay.channel.query(alipay.ref(number)))).state is PaymentState.NOT_FOUND


@pytest.mark.parametrize("winner", ["pay", "close"])
def test_close_racing_with_the_buyer_ends_one_way(alipay: AlipaySimulator, winner: str) -> None:
    number = alipay.registered()
    alipay.control.open_page(number, account=alipay.account)
    alipay.control.fault("close", "race_pay", account=alipay.account, winner=winner)
    answer = known(alipay.run(alipay.channel.close(alipay.ref(number))))
    taken = alipay.moved(number).captured_minor
    expected = (CloseState.ALREADY_PAID, alipay.amount_minor) if winner == "pay" else (CloseState.CLOSED_PROVED, 0)
    assert (answer.state, taken) == expected


def test_buyer_may_pay_before_the_code_is_answered(alipay: AlipaySimulator) -> None:
    alipay.control.fault("prepay", "pay_before_answer", account=alipay.account)
    request = alipay.prepay_request(alipay.new_number())
    known(alipay.run(alipay.channel.prepay(request)))
    assert alipay.moved(request.number).captured_minor == alipay.amount_minor


@pytest.mark.parametrize(("fault", "seen"), [("wrong_amount", (7, "CNY")), ("wrong_currency", (1_200, "USD"))])
def test_wrong_money_is_told_as_it_is(alipay: AlipaySimulator, fault: str, seen: tuple[int, str]) -> None:
    number = alipay.registered()
    alipay.control.fault("pay", fault, account=alipay.account, amount_minor=7, currency="USD")
    assert alipay.pay(number)
    view = known(alipay.run(alipay.channel.query(alipay.ref(number))))
    assert (view.paid_minor, view.currency) == seen
    notice = alipay.channel.parse_notification(alipay.notification(number), alipay.now())
    assert isinstance(notice, Notice)
    assert notice.payment is not None
    assert (notice.payment.paid_minor, notice.payment.currency) == seen


# --- notifications ---


def test_only_payments_are_told_and_exactly_success_ends_the_repeats(alipay: AlipaySimulator) -> None:
    alipay.box.answer = lambda _: (200, b"SUCCESS")
    try:
        number, reference = alipay.paid()
        assert alipay.control.wait_notifications(number, "DUE", account=alipay.account, attempts=1)
        waiting = alipay.control.notifications(number, account=alipay.account)[0]
        assert waiting["due_at"] - alipay.now().timestamp() > 180  # four minutes, the first gap of the real table
    finally:
        alipay.box.answer = lambda _: (200, b"success")
    alipay.control.resend(number, account=alipay.account)
    assert alipay.control.wait_delivered(number, account=alipay.account)
    known(
        alipay.run(alipay.channel.refund(alipay.refund_request(number, reference, f"r{number}", alipay.amount_minor)))
    )
    events = [message["event"] for message in alipay.control.notifications(number, account=alipay.account)]
    assert [event for event in events if event != "payment.paid"] in (
        [],
        ["refund.done"],
    )  # the latter: not planned yet
    assert b"refund" not in b"".join(m.body for m in alipay.box.messages if number.encode() in m.body)


def test_retry_table_is_alipays() -> None:
    from payonce.channels.sandbox.skins.alipay import AlipaySkin

    assert AlipaySkin.retry_seconds == tuple(60 * minutes for minutes in (4, 10, 10, 60, 120, 360, 900))
    assert timedelta(seconds=sum(AlipaySkin.retry_seconds)) == timedelta(hours=24, minutes=24)


@pytest.mark.parametrize("kind", ["bad_signature", "no_signature", "altered_body", "wrong_account", "other_secret"])
def test_x1_forgeries_are_refused(simulator: AlipaySimulator, kind: str) -> None:
    number, _ = simulator.paid()
    forged = simulator.notification(number, forgery=kind)
    assert isinstance(simulator.channel.parse_notification(forged, simulator.now()), NotAuthentic)


def test_a_repeat_has_the_same_notify_id_and_its_own_time(simulator: AlipaySimulator) -> None:
    number, _ = simulator.paid()
    first = form_of(simulator.notification(number))
    late = form_of(simulator.notification(number, signed_ago_seconds=-3_600))
    assert first["notify_id"] == late["notify_id"]
    assert first["notify_time"] != late["notify_time"]


def test_truly_signed_but_altered_messages_tell_what_they_tell(alipay: AlipaySimulator) -> None:
    number, _ = alipay.paid()
    message = alipay.notification(
        number, altered={"amount_minor": 5, "merchant": "2088000000000001", "currency": "USD"}
    )
    notice = alipay.channel.parse_notification(message, alipay.now())
    assert isinstance(notice, Notice)
    assert notice.payment is not None
    told = (notice.payment.paid_minor, notice.payment.currency, notice.payment.merchant)
    assert told == (5, "USD", "2088000000000001")


def test_notification_agrees_with_the_query(simulator: AlipaySimulator) -> None:
    number, reference = simulator.paid()
    notice = simulator.channel.parse_notification(simulator.notification(number), simulator.now())
    view = known(simulator.run(simulator.channel.query(simulator.ref(number))))
    assert isinstance(notice, Notice)
    assert notice.payment is not None
    assert (notice.payment.channel_reference, notice.payment.paid_minor) == (reference, view.paid_minor)
    assert notice.payment.paid_at == view.paid_at
    assert notice.payment.merchant == simulator.channel.merchant


# --- the bill ---


def bill_of(alipay: AlipaySimulator, day: date) -> Any:
    return alipay.run(alipay.channel.statement(day))


def test_bill_leaves_out_and_invents_what_is_planned(alipay: AlipaySimulator) -> None:
    (first, _), (second, _) = alipay.paid(), alipay.paid()
    today = alipay.now().date()
    alipay.next_day()
    alipay.control.fault("statement", "omit", account=alipay.account, name=first)
    alipay.control.fault("statement", "invent", account=alipay.account, name="po_ghost", amount_minor=4_200)
    lines = {line.number: line for line in known(bill_of(alipay, today))}
    assert first not in lines
    assert second in lines
    assert (lines["po_ghost"].kind, lines["po_ghost"].amount_minor) == ("payment", 4_200)


def test_a_day_without_a_bill_is_empty_once_it_is_long_past(alipay: AlipaySimulator) -> None:
    assert known(bill_of(alipay, date(2026, 1, 1))) == ()
    yesterday = (datetime.now(BEIJING) - timedelta(days=1)).date()
    early = bill_of(alipay, yesterday)
    assert isinstance(early, Refused)
    assert early.kind is RefusedKind.THROTTLED


def test_bill_address_dies_after_half_a_minute(alipay: AlipaySimulator) -> None:
    alipay.paid()
    today = alipay.now().date()
    alipay.next_day()
    steps = alipay.channel.statement(today)
    reply = send(next(steps))
    assert isinstance(reply, HttpResponse)
    download = steps.send(reply)
    alipay.control.advance_clock(31)
    late = send(download)
    assert isinstance(late, HttpResponse)
    with pytest.raises(StopIteration) as ended:
        steps.send(late)
    assert ended.value.value == Unknown("malformed:archive", raw=ended.value.value.raw)


@pytest.mark.parametrize(
    "answer", [TransportError("read_timeout"), HttpResponse(500, {}, b""), HttpResponse(200, {}, b"PK\x03\x04"), HttpResponse(200, {}, b"")]
)  # fmt: skip
def test_spoilt_download_is_unknown(alipay: AlipaySimulator, answer: Any) -> None:
    alipay.paid()
    today = alipay.now().date()
    alipay.next_day()
    steps = alipay.channel.statement(today)
    reply = send(next(steps))
    assert isinstance(reply, HttpResponse)
    steps.send(reply)
    with pytest.raises(StopIteration) as ended:
        steps.send(answer)
    assert isinstance(ended.value.value, Unknown)


def test_pages_hold_what_the_buyer_needs_and_no_key(alipay: AlipaySimulator) -> None:
    """X4."""
    prepay = known(alipay.run(alipay.channel.prepay(alipay.prepay_request(alipay.new_number(), method="web"))))
    assert not any(secret in prepay.value for secret in alipay.secrets())
    assert dict(parse_qsl(urlsplit(prepay.value).query))["sign"] == query_of(prepay.value)["sign"]
