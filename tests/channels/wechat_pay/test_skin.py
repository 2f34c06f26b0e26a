"""The simulated WeChat Pay is as strict and as odd as the real one."""

import base64
import dataclasses
import json
import re
import secrets
import time
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from payonce.channels.http import run, send
from payonce.channels.keys import load_public_key, verify_rsa
from payonce.channels.messages import (
    CloseState,
    HttpResponse,
    Known,
    PaymentState,
    RefundRef,
    RefundState,
    Refused,
    RefusedKind,
    Unknown,
)
from tests.channels.wechat_pay.simulator import WeChatSimulator


def ask(simulator: WeChatSimulator, method: str, path: str, record: Any = None, **headers: str) -> HttpResponse:
    """One signed request with any content."""
    body = b"" if record is None else json.dumps(record).encode()
    request = simulator.channel._request(method, str(simulator.options["base_url"]) + path, body)
    reply = send(dataclasses.replace(request, headers={**request.headers, **headers}))
    assert isinstance(reply, HttpResponse), reply
    return reply


def code(reply: HttpResponse) -> tuple[int, str]:
    assert not any(name.startswith("wechatpay-") for name in reply.headers), "errors carry no signature"
    return reply.status, json.loads(reply.body)["code"]


def native(simulator: WeChatSimulator, **changes: Any) -> dict[str, Any]:
    given = {
        "appid": simulator.options["appid"], "mchid": simulator.options["mchid"], "description": "A book",
        "out_trade_no": simulator.new_number(), "notify_url": "https://shop.example/notify/", "amount": {"total": 100},
        **changes,
    }  # fmt: skip
    return {name: value for name, value in given.items() if value is not ...}


# --- who asks ---


def test_time_is_judged_before_the_signature(simulator: WeChatSimulator) -> None:
    path = f"/v3/pay/transactions/out-trade-no/abcdef?mchid={simulator.options['mchid']}"
    good = simulator.channel._request("GET", str(simulator.options["base_url"]) + path, b"").headers["authorization"]
    old = re.sub(r'timestamp="\d+"', f'timestamp="{int(time.time()) - 301}"', good)
    assert "5分钟" in json.loads(ask(simulator, "GET", path, authorization=old).body)["message"]
    changes = {
        "timestamp": re.sub(r'timestamp="\d+"', f'timestamp="{int(time.time()) - 9}"', good),
        "signature": good.replace('signature="', 'signature="A'),
        "serial": re.sub(r'serial_no="\w+"', 'serial_no="1DDE55AD98ED"', good),
        "mchid": re.sub(r'mchid="\d+"', 'mchid="1900000001"', good),
        "missing": good.replace("nonce_str", "nonce"),
        "scheme": good.replace("RSA2048", "RSA1024"),
        "nothing": "",
    }
    for changed in changes.values():
        assert code(ask(simulator, "GET", path, authorization=changed)) == (401, "SIGN_ERROR")
    assert code(ask(simulator, "GET", path)) == (404, "ORDER_NOT_EXIST")


def test_a_shop_whose_clock_is_wrong_is_refused_as_misconfigured(simulator: WeChatSimulator) -> None:
    number = simulator.registered()
    simulator.control.set_skew(simulator.account, 400)
    try:
        outcome = run(simulator.channel.query(simulator.ref(number)))
    finally:
        simulator.control.set_skew(simulator.account, 0)
    assert isinstance(outcome, Refused)
    assert (outcome.kind, outcome.code) == (RefusedKind.CONFIG, "SIGN_ERROR")


def test_a_changed_body_or_query_breaks_the_signature(simulator: WeChatSimulator) -> None:
    url = f"{simulator.options['base_url']}/v3/pay/transactions/native"
    request = simulator.channel._request("POST", url, json.dumps(native(simulator)).encode())
    for changed in (
        dataclasses.replace(request, body=request.body.replace(b"100", b"001")),
        dataclasses.replace(request, url=url + "?x=1"),
    ):
        reply = send(changed)
        assert isinstance(reply, HttpResponse)
        assert code(reply) == (401, "SIGN_ERROR")


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        ("native", {"out_trade_no": "short"}, "PARAM_ERROR"),
        ("native", {"out_trade_no": "书书书书书书"}, "PARAM_ERROR"),
        ("native", {"amount": {"total": 1.5}}, "PARAM_ERROR"),
        ("native", {"amount": {"total": "100"}}, "PARAM_ERROR"),
        ("native", {"amount": {"total": 0}}, "PARAM_ERROR"),
        ("native", {"amount": ...}, "PARAM_ERROR"),
        ("native", {"amount": {"total": 1, "currency": "USD"}}, "PARAM_ERROR"),
        ("native", {"description": "x" * 128}, "PARAM_ERROR"),
        ("native", {"description": ...}, "PARAM_ERROR"),
        ("native", {"notify_url": ...}, "PARAM_ERROR"),
        ("native", {"notify_url": "https://shop.example/?a=1"}, "PARAM_ERROR"),
        ("native", {"time_expire": "2020-01-01T00:00:00+08:00"}, "PARAM_ERROR"),
        ("native", {"time_expire": "tomorrow"}, "PARAM_ERROR"),
        ("native", {"mchid": "1900000001"}, "PARAM_ERROR"),
        ("native", {"appid": "wxother"}, "APPID_MCHID_NOT_MATCH"),
        ("jsapi", {}, "PARAM_ERROR"),
        ("h5", {"scene_info": {"payer_client_ip": "1.2.3.4", "h5_info": {"type": "Windows"}}}, "PARAM_ERROR"),
    ],
    ids=str,
)
def test_wrong_parameters_are_refused(
    simulator: WeChatSimulator, kind: str, changes: dict[str, Any], expected: str
) -> None:
    reply = ask(simulator, "POST", f"/v3/pay/transactions/{kind}", native(simulator, **changes))
    assert code(reply) == (400, expected)


def test_what_does_not_exist_is_not_found(simulator: WeChatSimulator) -> None:
    for method, path in (("GET", "/v3/nothing"), ("DELETE", "/v3/certificates"), ("POST", "/v3/pay/transactions/pos")):
        assert code(ask(simulator, method, path)) == (404, "RESOURCE_NOT_EXISTS")


# --- numbers ---


@pytest.mark.parametrize("expiry", [..., "2099-01-01T00:00:00+08:00"], ids=["without an end", "with an end"])
def test_an_order_again_is_the_same_order_and_a_changed_one_is_refused(simulator: WeChatSimulator, expiry: Any) -> None:
    order = native(simulator, time_expire=expiry)
    first, again = (ask(simulator, "POST", "/v3/pay/transactions/native", order) for _ in range(2))
    assert first.status == again.status == 200
    for change in ({"amount": {"total": 101}}, {"description": "Other"}, {"time_expire": "2099-01-02T00:00:00+08:00"}):
        changed = ask(simulator, "POST", "/v3/pay/transactions/native", {**order, **change})
        assert code(changed) == (400, "INVALID_REQUEST")
    simulator.pay(order["out_trade_no"])
    assert code(ask(simulator, "POST", "/v3/pay/transactions/native", order)) == (400, "ORDERPAID")


def test_a_closed_number_is_burnt(simulator: WeChatSimulator) -> None:
    request = simulator.prepay_request(simulator.new_number())
    run(simulator.channel.prepay(request))
    run(simulator.channel.close(simulator.ref(request.number)))
    outcome = run(simulator.channel.prepay(request))
    assert isinstance(outcome, Refused)
    assert (outcome.kind, outcome.code) == (RefusedKind.CONFLICT, "ORDER_CLOSED")
    assert not simulator.pay(request.number)


def test_closing_is_answered_with_204_whatever_happens(simulator: WeChatSimulator) -> None:
    """Also for a number that nobody ordered, and again: 204 is no proof. It is signed, over an empty body."""
    body = {"mchid": simulator.options["mchid"]}
    known = simulator.registered()
    for number in (known, known, "mistyped0001"):
        reply = ask(simulator, "POST", f"/v3/pay/transactions/out-trade-no/{number}/close", body)
        assert (reply.status, reply.body) == (204, b"")
        text = f"{reply.headers['wechatpay-timestamp']}\n{reply.headers['wechatpay-nonce']}\n\n".encode()
        key = load_public_key(str(simulator.options["public_key"]))
        assert verify_rsa(key, text, reply.headers["wechatpay-signature"])


def test_a_paid_number_cannot_be_closed_and_one_being_paid_not_either(simulator: WeChatSimulator) -> None:
    body = {"mchid": simulator.options["mchid"]}
    paid, begun = simulator.paid()[0], simulator.registered()
    simulator.control.begin(begun, account=simulator.account)
    path = "/v3/pay/transactions/out-trade-no/{}/close"
    assert code(ask(simulator, "POST", path.format(paid), body)) == (400, "ORDERPAID")
    assert code(ask(simulator, "POST", path.format(begun), body)) == (202, "USERPAYING")
    answer = run(simulator.channel.close(simulator.ref(begun)))
    assert isinstance(answer, Known)
    assert answer.value.state is CloseState.IN_PROGRESS


def test_an_expired_order_stays_unpaid_and_takes_no_money(simulator: WeChatSimulator) -> None:
    """`time_expire` is the last moment to pay; it closes nothing."""
    number = simulator.registered()
    with simulator.days_later(1):
        assert not simulator.pay(number)
        view = run(simulator.channel.query(simulator.ref(number)))
    assert isinstance(view, Known)
    assert view.value.state is PaymentState.OPEN
    assert simulator.moved(number).captures == 0


@pytest.mark.parametrize("winner", ["pay", "close"])
def test_a_close_that_races_with_the_buyer_tells_who_was_first(simulator: WeChatSimulator, winner: str) -> None:
    number = simulator.registered()
    simulator.control.fault("close", "race_pay", account=simulator.account, winner=winner)
    answer = run(simulator.channel.close(simulator.ref(number)))
    assert isinstance(answer, Known)
    expected = {"pay": (CloseState.ALREADY_PAID, 1), "close": (CloseState.CLOSED_PROVED, 0)}[winner]
    assert (answer.value.state, simulator.moved(number).captures) == expected


def test_a_close_whose_effect_did_not_happen_is_found_out(simulator: WeChatSimulator) -> None:
    number = simulator.registered()
    simulator.control.fault("close", "not_found", account=simulator.account)
    answer = run(simulator.channel.close(simulator.ref(number)))
    assert isinstance(answer, Known)
    assert answer.value.state is CloseState.UNPROVED
    assert simulator.pay(number)


def test_a_buyer_may_pay_before_the_order_is_answered(simulator: WeChatSimulator) -> None:
    simulator.control.fault("prepay", "pay_before_answer", account=simulator.account)
    request = simulator.prepay_request(simulator.new_number())
    assert isinstance(run(simulator.channel.prepay(request)), Known)
    assert simulator.moved(request.number).captures == 1


# --- refunds ---


def refund(simulator: WeChatSimulator, paid: tuple[str, str], name: str, amount: int, **changes: Any) -> Any:
    request = simulator.refund_request(*paid, f"{name}{paid[0]}", amount)
    return run(simulator.channel.refund(dataclasses.replace(request, **changes)))


def state(simulator: WeChatSimulator, paid: tuple[str, str], name: str) -> RefundState:
    ref = RefundRef(simulator.ref(*paid), f"{name}{paid[0]}", 0)
    outcome = run(simulator.channel.query_refund(ref))
    assert isinstance(outcome, Known), outcome
    return outcome.value.state


def test_a_failed_refund_is_tried_again_under_its_own_number(simulator: WeChatSimulator) -> None:
    """M6: a new number would be a second refund."""
    paid = simulator.paid()
    simulator.control.fault("refund", "refund_failed", account=simulator.account)
    assert refund(simulator, paid, "r", 1_200).value.state is RefundState.FAILED
    assert simulator.moved(paid[0]).refunded_minor == 0
    assert refund(simulator, paid, "r", 1_200).value.state is RefundState.DONE
    assert simulator.moved(paid[0]).refunded_minor == 1_200


def test_an_abnormal_refund_needs_a_person_and_then_is_done(simulator: WeChatSimulator) -> None:
    paid = simulator.paid()
    simulator.control.fault("refund", "refund_attention", account=simulator.account)
    assert refund(simulator, paid, "r", 1_200).value.state is RefundState.ATTENTION
    assert refund(simulator, paid, "r", 1_200).value.state is RefundState.ATTENTION
    assert simulator.moved(paid[0]).refunded_minor == 0
    simulator.control.settle_refund(paid[0], f"r{paid[0]}", "DONE", account=simulator.account)
    assert state(simulator, paid, "r") is RefundState.DONE


def test_a_refund_in_progress_goes_on_by_itself(simulator: WeChatSimulator) -> None:
    paid = simulator.paid()
    simulator.control.fault("refund", "refund_pending", account=simulator.account)
    assert refund(simulator, paid, "r", 1_200).value.state is RefundState.IN_PROGRESS
    simulator.control.settle_refund(paid[0], f"r{paid[0]}", "FAILED", account=simulator.account)
    assert state(simulator, paid, "r") is RefundState.FAILED


def test_partial_refunds_wait_a_minute_and_never_exceed_the_payment(simulator: WeChatSimulator) -> None:
    """M2."""
    paid = simulator.paid()
    assert refund(simulator, paid, "a", 700).value.state is RefundState.DONE
    soon = refund(simulator, paid, "b", 500)
    assert (soon.kind, soon.code) == (RefusedKind.THROTTLED, "FREQUENCY_LIMITED")
    with simulator.days_later(0.001):
        over = refund(simulator, paid, "c", 501)
        assert (over.kind, over.code) == (RefusedKind.CONFLICT, "INVALID_REQUEST")
        assert refund(simulator, paid, "b", 500).value.state is RefundState.DONE
    assert simulator.moved(paid[0]).refunded_minor == 1_200
    view = run(simulator.channel.query(simulator.ref(*paid)))
    assert view.value.state is PaymentState.PAID
    assert '"trade_state":"REFUND"' in view.raw


@pytest.mark.parametrize(
    ("changes", "kind", "expected"),
    [
        ({"captured_minor": 1_201}, RefusedKind.CONFLICT, "INVALID_REQUEST"),
        ({"captured_minor": 600}, RefusedKind.CONFIG, "PARAM_ERROR"),
        ({"refund_number": "书" * 9}, RefusedKind.CONFIG, "PARAM_ERROR"),
        ({"refund_number": "x" * 65}, RefusedKind.CONFIG, "PARAM_ERROR"),
    ],
    ids=str,
)
def test_a_refund_that_does_not_fit_moves_nothing(
    simulator: WeChatSimulator, changes: dict[str, Any], kind: RefusedKind, expected: str
) -> None:
    paid = simulator.paid()
    outcome = refund(simulator, paid, "r", 1_200, **changes)
    assert (outcome.kind, outcome.code) == (kind, expected)
    assert simulator.moved(paid[0]).refunded_minor == 0


def test_a_refund_number_belongs_to_one_payment(simulator: WeChatSimulator) -> None:
    one, other = simulator.paid(), simulator.paid()
    name = f"shared{secrets.token_hex(4)}"
    assert isinstance(refund(simulator, one, "", 100, refund_number=name), Known)
    outcome = refund(simulator, other, "", 100, refund_number=name)
    assert (outcome.kind, outcome.code) == (RefusedKind.CONFLICT, "INVALID_REQUEST")


def test_refunds_end_after_a_year(simulator: WeChatSimulator) -> None:
    paid = simulator.paid()
    with simulator.days_later(366):
        assert refund(simulator, paid, "r", 1_200).code == "INVALID_REQUEST"
    assert simulator.moved(paid[0]).refunded_minor == 0


def test_a_merchant_without_money_is_told_so(simulator: WeChatSimulator) -> None:
    paid = simulator.paid()
    simulator.control.fault("refund", "refuse", account=simulator.account, code="NOT_ENOUGH")
    outcome = refund(simulator, paid, "r", 1_200)
    assert (outcome.kind, outcome.code) == (RefusedKind.DECLINED, "NOT_ENOUGH")
    assert refund(simulator, paid, "r", 1_200).value.state is RefundState.DONE


# --- faults ---

FAULTS = [
    ("delay_before", {"seconds": 0.01}, Known), ("delay_after", {"seconds": 0.01}, Known),
    ("slow_drip", {"seconds": 0.0001}, Known), ("drop_before", {}, Unknown), ("drop_after", {}, Unknown),
    ("error_before", {}, Unknown), ("error_after", {"status": 502}, Unknown), ("truncate", {}, Unknown),
    ("garbage", {}, Unknown), ("bad_signature", {}, Unknown), ("bad_signature", {"kind": "other_secret"}, Unknown),
    ("no_signature", {}, Unknown), ("stale_timestamp", {}, Unknown), ("stale_timestamp", {"seconds": -3_600}, Unknown),
    ("refuse", {"code": "SYSTEM_ERROR"}, Unknown), ("refuse", {"code": "RATE_LIMITED"}, Refused),
    ("refuse", {"code": "NO_AUTH", "status": 403}, Refused), ("refuse", {"code": "BRAND_NEW"}, Unknown),
]  # fmt: skip


@pytest.mark.parametrize("operation", ["prepay", "query", "refund", "query_refund"])
@pytest.mark.parametrize(("fault", "arguments", "kind"), FAULTS, ids=str)
def test_every_fault_can_be_played(
    simulator: WeChatSimulator, operation: str, fault: str, arguments: dict[str, Any], kind: type
) -> None:
    number, reference = simulator.paid()
    channel, request = simulator.channel, simulator.refund_request(number, reference, f"r{number}", 100)
    if operation == "query_refund":
        run(channel.refund(request))
    conversation = {
        "prepay": lambda: channel.prepay(simulator.prepay_request(simulator.new_number())),
        "query": lambda: channel.query(simulator.ref(number)),
        "refund": lambda: channel.refund(request),
        "query_refund": lambda: channel.query_refund(RefundRef(simulator.ref(number), f"r{number}", 100)),
    }[operation]()
    simulator.control.fault(operation, fault, account=simulator.account, **arguments)
    assert isinstance(run(conversation), kind)
    assert not simulator.control.faults()


def test_an_outage_refuses_the_connection_and_ends(simulator: WeChatSimulator) -> None:
    number = simulator.registered()
    with simulator.control.outage(simulator.account):
        outcome = run(simulator.channel.query(simulator.ref(number)))
        assert isinstance(outcome, Unknown | Refused)
        assert not isinstance(outcome, Refused) or outcome.code == "not_sent"
    assert isinstance(run(simulator.channel.query(simulator.ref(number))), Known)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("drop_after", Unknown), ("truncate", Unknown), ("garbage", Unknown), ("bad_signature", Unknown),
     ("no_signature", Unknown), ("stale_timestamp", Unknown), ("error_after", Unknown)],
)  # fmt: skip
def test_a_close_whose_answer_is_spoilt_is_unknown_and_asked_again(
    simulator: WeChatSimulator, fault: str, kind: type
) -> None:
    number = simulator.registered()
    simulator.control.fault("close", fault, account=simulator.account)
    assert isinstance(run(simulator.channel.close(simulator.ref(number))), kind)
    again = run(simulator.channel.close(simulator.ref(number)))
    assert isinstance(again, Known)
    assert again.value.state is CloseState.CLOSED_PROVED


# --- certificates ---


def test_platform_certificates_come_sealed_and_only_where_there_are_any(world: dict[str, WeChatSimulator]) -> None:
    old = world["certificate"]
    listed = json.loads(ask(old, "GET", "/v3/certificates").body)["data"][0]
    sealed = listed["encrypt_certificate"]
    opened = AESGCM(old.keys["apiv3_key"].encode()).decrypt(
        sealed["nonce"].encode(), base64.b64decode(sealed["ciphertext"]), sealed["associated_data"].encode()
    )
    assert f"{x509.load_pem_x509_certificate(opened).serial_number:X}" == listed["serial_no"]
    assert [opened.decode()] == old.options["platform_certificates"]
    assert code(ask(world["public_key"], "GET", "/v3/certificates")) == (404, "RESOURCE_NOT_EXISTS")


def test_a_bill_address_works_for_five_minutes_and_for_its_merchant(world: dict[str, WeChatSimulator]) -> None:
    simulator, other = world["public_key"], world["certificate"]
    simulator.paid()
    day = simulator.now().date().isoformat()
    with simulator.days_later(2):
        offered = json.loads(ask(simulator, "GET", f"/v3/bill/tradebill?bill_date={day}").body)
        path = offered["download_url"].removeprefix(str(simulator.options["base_url"]))
        found = ask(simulator, "GET", path)
        assert found.status == 200
        assert "wechatpay-signature" not in found.headers
        assert found.body.startswith("交易时间".encode())
        other.channel.clock = simulator.channel.clock
        try:
            assert code(ask(other, "GET", path)) == (400, "INVALID_REQUEST")
        finally:
            other.channel.clock = time.time
    with simulator.days_later(2.01):
        assert code(ask(simulator, "GET", path)) == (400, "INVALID_REQUEST")
