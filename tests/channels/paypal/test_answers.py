"""What each answer and event of PayPal means, its options, and what never leaves the adapter."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from payonce.channels import checks
from payonce.channels.errors import ChannelConfigError
from payonce.channels.http import run
from payonce.channels.messages import (
    CaptureRequest,
    HttpRequest,
    HttpResponse,
    Known,
    NotAuthentic,
    Notice,
    NotificationRequest,
    PaymentRef,
    PaymentState,
    PrepayRequest,
    RefundRef,
    RefundRequest,
    RefundState,
    Refused,
    RefusedKind,
    Unknown,
)
from payonce.channels.paypal import PayPalChannel
from payonce.channels.paypal_events import read_statement
from payonce.channels.paypal_wire import MalformedError, read_amount, write_amount
from payonce.channels.sandbox.skins.certificates import new_certificate
from payonce.channels.sandbox.skins.paypal import PayPalSkin

CANARIES = ("CANARYCLIENTSECRET0001", "CANARYTOKEN0002", "canary-buyer@example.com", "CANARYPAYERID3")
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
REF = PaymentRef("n1", 1_999, "USD", channel_reference="ORDER1")
TOKEN = HttpResponse(200, {}, json.dumps({"access_token": CANARIES[1], "expires_in": 32_400}).encode())


@pytest.fixture(scope="module")
def options() -> dict[str, Any]:
    made = PayPalSkin.new_account("paypal", "https://api-m.paypal.com")[1]
    return {**made, "client_secret": CANARIES[0], "merchant": "MERCHANT23456"}


@pytest.fixture
def channel(options: dict[str, Any]) -> PayPalChannel:
    return PayPalChannel("paypal", options)


def order(status: str = "COMPLETED", captures: Any = None, refunds: Any = None, **changes: Any) -> dict[str, Any]:
    payments = {"captures": captures, **({"refunds": refunds} if refunds else {})}
    unit = {"custom_id": "n1", "amount": {"currency_code": "USD", "value": "19.99"},
            "payee": {"merchant_id": "MERCHANT23456", "email_address": CANARIES[2]},
            **({"payments": payments} if captures else {})}  # fmt: skip
    return {"id": "ORDER1", "status": status, "create_time": "2026-03-01T11:00:00Z", "purchase_units": [unit],
            "payer": {"payer_id": CANARIES[3], "email_address": CANARIES[2]},
            "links": [{"rel": "payer-action", "href": "https://www.paypal.com/checkoutnow?token=ORDER1"}], **changes}  # fmt: skip


def capture(status: str = "COMPLETED", value: str = "19.99", **changes: Any) -> dict[str, Any]:
    return {"id": "CAP1", "status": status, "amount": {"currency_code": "USD", "value": value}, "custom_id": "n1",
            "create_time": "2026-03-01T11:30:00Z", **changes}  # fmt: skip


def refund(status: str = "COMPLETED", value: str = "5.00", number: str = "r1") -> dict[str, Any]:
    return {"id": "REF1", "status": status, "amount": {"currency_code": "USD", "value": value}, "custom_id": number,
            "links": [{"rel": "up", "href": "https://api-m.paypal.com/v2/payments/captures/CAP1"}]}  # fmt: skip


def error(status: int, name: str, issue: str = "") -> HttpResponse:
    details = [{"issue": issue, "description": "why"}] if issue else []
    return HttpResponse(
        status, {}, json.dumps({"name": name, "message": "no", "debug_id": "d1", "details": details}).encode()
    )


def ask(conversation: Any, *answers: Any) -> tuple[Any, list[HttpRequest]]:
    """The outcome where PayPal gives a token, then these answers; and what it was asked after the token."""
    left = [
        answer if isinstance(answer, HttpResponse) else HttpResponse(200, {}, json.dumps(answer).encode())
        for answer in answers
    ]
    asked: list[HttpRequest] = []

    def transport(request: HttpRequest) -> HttpResponse:
        if request.url.endswith("/v1/oauth2/token"):
            return TOKEN
        asked.append(request)
        return left.pop(0)

    return run(conversation, transport), asked


def prepay_request(**changes: Any) -> PrepayRequest:
    given = {"number": "n1", "amount_minor": 1_999, "currency": "USD", "subject": "A book", "method": "web", "client_type": "",
             "payer": "", "payable_until": NOW + timedelta(minutes=30), "notify_url": "https://shop.example/notify/",
             "return_url": "https://shop.example/return/", **changes}  # fmt: skip
    return PrepayRequest(**given)


@pytest.mark.parametrize(
    ("answer", "state", "paid"),
    [
        (order("CREATED"), PaymentState.OPEN, 0),
        (order("PAYER_ACTION_REQUIRED"), PaymentState.OPEN, 0),
        (order("APPROVED"), PaymentState.APPROVED, 0),
        (order("VOIDED"), PaymentState.CLOSED, 0),
        (order("SOMETHING_NEW"), PaymentState.UNCLEAR, 0),
        (order(captures=[capture()]), PaymentState.PAID, 1_999),
        (order(captures=[capture("REFUNDED")]), PaymentState.PAID, 1_999),
        (order(captures=[capture("PARTIALLY_REFUNDED")]), PaymentState.PAID, 1_999),
        (order(captures=[capture("PENDING")]), PaymentState.IN_PROGRESS, 0),
        (order(captures=[capture("DECLINED")]), PaymentState.CLOSED, 0),
        (order(captures=[capture("FAILED")]), PaymentState.UNCLEAR, 0),
        (order("APPROVED", captures=[capture()]), PaymentState.PAID, 1_999),
    ],
)
def test_money_is_the_state_of_the_capture(channel, answer, state, paid):
    outcome, _ = ask(channel.query(REF), answer)
    assert (outcome.value.state, outcome.value.paid_minor) == (state, paid)
    assert outcome.value.channel_reference == "ORDER1"


def test_refunds_that_are_done_are_summed_and_paid_stays_paid(channel):
    shown = order(captures=[capture("PARTIALLY_REFUNDED")], refunds=[refund(), refund("PENDING"), refund("FAILED")])
    outcome, _ = ask(channel.query(REF), shown)
    assert (outcome.value.state, outcome.value.refunded_minor, outcome.value.merchant) == (
        PaymentState.PAID,
        500,
        "MERCHANT23456",
    )


def test_an_order_of_another_number_is_no_evidence(channel):
    shown = order(captures=[capture()])
    shown["purchase_units"][0]["custom_id"] = "n2"
    assert isinstance(ask(channel.query(REF), shown)[0], Unknown)


@pytest.mark.parametrize("value", ["19.999", "1e3", "-5.00", "19,99", "", " 19.99", "١٩.٩٩", 19.99, 1999, None, "NaN"])
def test_amounts_are_exact_texts(value):
    """M8: no float and no other digits."""
    with pytest.raises(MalformedError):
        read_amount({"currency_code": "USD", "value": value})


def test_amounts_have_the_currencys_own_decimals():
    assert write_amount(1_999, "USD")["value"] == "19.99"
    assert write_amount(1_999, "JPY")["value"] == "1999"
    assert read_amount({"currency_code": "JPY", "value": "1999"}) == (1_999, "JPY")
    assert Decimal(write_amount(5, "EUR")["value"]) == Decimal("0.05")
    with pytest.raises(MalformedError):
        read_amount({"currency_code": "JPY", "value": "19.99"})


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(422, "UNPROCESSABLE_ENTITY", "INSTRUMENT_DECLINED"), RefusedKind.DECLINED),
        (error(422, "UNPROCESSABLE_ENTITY", "ORDER_ALREADY_CAPTURED"), RefusedKind.CONFLICT),
        (error(422, "UNPROCESSABLE_ENTITY", "ORDER_NOT_APPROVED"), RefusedKind.CONFLICT),
        (error(403, "NOT_AUTHORIZED", "PERMISSION_DENIED"), RefusedKind.CONFIG),
        (error(429, "RATE_LIMIT_REACHED"), RefusedKind.THROTTLED),
        (error(422, "UNPROCESSABLE_ENTITY", "SOMETHING_NEW"), None),
        (error(409, "RESOURCE_CONFLICT", "PREVIOUS_REQUEST_IN_PROGRESS"), None),
        (error(422, "UNPROCESSABLE_ENTITY", "PREVIOUS_REQUEST_IN_PROGRESS"), None),
        (error(500, "INTERNAL_SERVER_ERROR"), None),
        (HttpResponse(422, {}, b"<html>proxy</html>"), None),
        (HttpResponse(302, {}, b"{}"), None),
    ],
)
def test_only_a_listed_code_is_a_definite_no(channel, answer, kind):
    """S4: everything else is unknown."""
    outcome, _ = ask(channel.capture(CaptureRequest(REF, "n1c1")), answer)
    assert isinstance(outcome, Unknown) if kind is None else outcome.kind is kind


def test_a_capture_that_is_answered_and_declined_is_a_decline(channel):
    outcome, asked = ask(channel.capture(CaptureRequest(REF, "n1c1")), order(captures=[capture("DECLINED")]))
    assert (outcome.kind, outcome.code) == (RefusedKind.DECLINED, "CAPTURE_DECLINED")
    assert asked[0].headers["paypal-request-id"] == "n1c1"


@pytest.mark.parametrize("status", ["APPROVED", "COMPLETED", "VOIDED"])
def test_a_repeated_prepay_of_an_order_that_moved_on_is_a_conflict(channel, status):
    outcome, _ = ask(channel.prepay(prepay_request()), order(status))
    assert outcome.kind is RefusedKind.CONFLICT


def test_a_prepay_never_hands_out_a_foreign_address(channel):
    shown = order("PAYER_ACTION_REQUIRED", links=[{"rel": "payer-action", "href": "javascript:alert(1)"}])
    assert isinstance(ask(channel.prepay(prepay_request()), shown)[0], Unknown)


def test_a_refused_token_is_fetched_anew_once_and_nothing_is_done_twice(channel):
    denied = error(401, "AUTHENTICATION_FAILURE")
    outcome, asked = ask(channel.query(REF), denied, order("APPROVED"))
    assert (outcome.value.state, len(asked)) == (PaymentState.APPROVED, 2)
    outcome, asked = ask(channel.query(REF), denied, denied)
    assert (outcome.kind, len(asked)) == (RefusedKind.CONFIG, 2)


def test_a_token_is_used_until_shortly_before_its_end(channel):
    at = [1_000.0]
    channel.clock = lambda: at[0]
    fetched: list[str] = []

    def transport(request: HttpRequest) -> HttpResponse:
        if request.url.endswith("/v1/oauth2/token"):
            fetched.append(request.url)
            return TOKEN
        return HttpResponse(200, {}, json.dumps(order("APPROVED")).encode())

    for moment in (1_000.0, 1_500.0, 33_300.0, 33_500.0):
        at[0] = moment
        run(channel.query(REF), transport)
    assert len(fetched) == 2


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("COMPLETED", RefundState.DONE),
        ("PENDING", RefundState.IN_PROGRESS),
        ("FAILED", RefundState.FAILED),
        ("CANCELLED", RefundState.FAILED),
    ],
)
def test_refund_states(channel, status, state):
    request = RefundRequest(REF, "r1", 500, "USD", 1_999, "duplicate")
    outcome, asked = ask(channel.refund(request), order(captures=[capture()]), refund(status))
    assert (outcome.value.state, outcome.value.amount_minor) == (state, 500)
    assert (asked[1].headers["paypal-request-id"], json.loads(asked[1].body)["custom_id"]) == ("r1", "r1")
    outcome, _ = ask(
        channel.query_refund(RefundRef(REF, "r1", 500)), order(captures=[capture()], refunds=[refund(status)])
    )
    assert outcome.value.state is state


def test_a_refund_number_that_paypal_used_before_for_another_amount_is_a_conflict(channel):
    """M6: PayPal answers a repeat with the first request's state, whatever the repeat asks."""
    request = RefundRequest(REF, "r1", 700, "USD", 1_999, "duplicate")
    outcome, _ = ask(channel.refund(request), order(captures=[capture()]), refund())
    assert (outcome.kind, outcome.code) == (RefusedKind.CONFLICT, "other_refund")


def test_a_statement_is_read_page_by_page(channel):
    def line(code: str, value: str, status: str = "S") -> dict[str, Any]:
        return {"transaction_info": {
            "transaction_id": "T1", "transaction_event_code": code, "transaction_status": status, "custom_field": "n1",
            "invoice_id": "n1", "transaction_amount": {"currency_code": "USD", "value": value},
            "transaction_initiation_date": "2026-03-01T11:30:00+0000"}}  # fmt: skip

    first = {
        "transaction_details": [line("T0006", "19.99"), line("T0006", "1.00", "P"), line("T1105", "-3.00")],
        "total_pages": 2,
    }
    second = {"transaction_details": [line("T1107", "-5.00")], "total_pages": 2}
    outcome, asked = ask(channel.statement(date(2026, 3, 1)), first, second)
    assert [(row.kind, row.amount_minor) for row in outcome.value] == [("payment", 1_999), ("refund", 500)]
    assert "page=2" in asked[1].url


@pytest.mark.parametrize("missing", ["client_id", "client_secret", "merchant", "webhook_id", "webhook_certificates"])
def test_a_missing_key_names_the_setting_and_the_way_to_it(options, missing):
    left = {name: value for name, value in options.items() if name != missing}
    with pytest.raises(ChannelConfigError, match=missing):
        PayPalChannel("paypal", left)
    found = checks.problems({"paypal": left})
    assert any(missing in problem.message and problem.hint for problem in found)


def test_a_wrong_certificate_is_named(options):
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for wrong in ("nonsense", public, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"):
        with pytest.raises(ChannelConfigError, match="webhook_certificates"):
            PayPalChannel("paypal", {**options, "webhook_certificates": [wrong]})


def event(
    key: Any, webhook_id: str, resource: dict[str, Any], *, kind: str = "PAYMENT.CAPTURE.COMPLETED", at: datetime = NOW
):
    """A signed message."""
    import zlib

    from payonce.channels.keys import load_private_key, sign_rsa

    body = json.dumps(
        {"id": "WH-1", "event_type": kind, "create_time": "2026-03-01T11:59:00Z", "resource": resource}
    ).encode()
    sent_at = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    signed = f"t1|{sent_at}|{webhook_id}|{zlib.crc32(body)}".encode()
    return NotificationRequest(body, {
        "paypal-transmission-id": "t1", "paypal-transmission-time": sent_at, "paypal-auth-algo": "SHA256withRSA",
        "paypal-transmission-sig": sign_rsa(load_private_key(key), signed), "paypal-cert-url": "https://evil.example/cert",
    })  # fmt: skip


@pytest.fixture(scope="module")
def signer() -> tuple[str, str, str]:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    private, certificate = new_certificate(key, "messageverificationcerts.paypal.com")
    expired = new_certificate(key, "messageverificationcerts.paypal.com", days=-30)[1]
    return private, certificate, expired


PAID = capture(supplementary_data={"related_ids": {"order_id": "ORDER1"}}, payee={"merchant_id": "MERCHANT23456"})


def test_an_event_is_evidence_by_number_amount_and_merchant(options, signer):
    channel = PayPalChannel("paypal", {**options, "webhook_certificates": [signer[1]]})
    at = datetime.now(UTC)
    notice = channel.parse_notification(event(signer[0], options["webhook_id"], PAID, at=at), at)
    assert isinstance(notice, Notice)
    assert notice.payment is not None
    assert (notice.payment.number, notice.payment.paid_minor, notice.payment.merchant) == ("n1", 1_999, "MERCHANT23456")
    assert (notice.payment.channel_reference, notice.dedupe_key) == ("ORDER1", "WH-1")


@pytest.mark.parametrize(("days", "stale"), [(3.9, False), (4.1, True), (-0.01, True), (-0.004, False)])
def test_an_event_out_of_its_time_is_named_as_stale(options, signer, days, stale):
    """X2: our own window: PayPal documents none, and tries for three days."""
    channel = PayPalChannel("paypal", {**options, "webhook_certificates": [signer[1]]})
    at = datetime.now(UTC)
    sent_at = at - timedelta(days=days)
    judged = channel.parse_notification(event(signer[0], options["webhook_id"], PAID, at=sent_at), at)
    assert isinstance(judged, NotAuthentic) is stale
    if stale:
        assert (judged.stale, judged.number, judged.dedupe_key) == (True, "n1", "WH-1")


def test_an_expired_certificate_signs_nothing(options, signer):
    channel = PayPalChannel("paypal", {**options, "webhook_certificates": [signer[2]]})
    at = datetime.now(UTC)
    judged = channel.parse_notification(event(signer[0], options["webhook_id"], PAID, at=at), at)
    assert (judged.reason, judged.stale) == ("bad_signature", False)


def test_a_signature_attack_is_refused(options, signer):
    """X1: another webhook's id, another algorithm, another spelling of the same signature, another certificate."""
    channel = PayPalChannel("paypal", {**options, "webhook_certificates": [signer[1]]})
    at = datetime.now(UTC)
    genuine = event(signer[0], options["webhook_id"], PAID, at=at)
    other_key = new_certificate(rsa.generate_private_key(public_exponent=65_537, key_size=2_048), "paypal.com")[0]
    headers = genuine.headers
    attacks = [
        event(signer[0], "OTHERWEBHOOK", PAID, at=at),
        event(other_key, options["webhook_id"], PAID, at=at),
        NotificationRequest(genuine.body, {**headers, "paypal-auth-algo": "none"}),
        NotificationRequest(genuine.body, {**headers, "paypal-auth-algo": "SHA1withRSA"}),
        NotificationRequest(
            genuine.body, {**headers, "paypal-transmission-sig": headers["paypal-transmission-sig"] + "\n"}
        ),
        NotificationRequest(json.dumps(json.loads(genuine.body), indent=1).encode(), headers),
    ]
    assert all(isinstance(channel.parse_notification(attack, at), NotAuthentic) for attack in attacks)
    assert isinstance(channel.parse_notification(genuine, at), Notice)


def test_a_refund_without_our_number_is_about_nothing_and_a_dispute_asks_for_a_query(options, signer):
    channel = PayPalChannel("paypal", {**options, "webhook_certificates": [signer[1]]})
    at = datetime.now(UTC)
    outside = {name: value for name, value in refund().items() if name != "custom_id"}
    notice = channel.parse_notification(
        event(signer[0], options["webhook_id"], outside, kind="PAYMENT.CAPTURE.REFUNDED", at=at), at
    )
    assert (notice.payment, notice.refund) == (None, None)
    dispute = {"dispute_id": "PP-D-1", "disputed_transactions": [{"seller_transaction_id": "CAP1", "custom": "n1"}]}
    notice = channel.parse_notification(
        event(signer[0], options["webhook_id"], dispute, kind="CUSTOMER.DISPUTE.CREATED", at=at), at
    )
    assert (notice.payment.number, notice.payment.state) == ("n1", PaymentState.UNCLEAR)


def test_no_secret_and_no_person_is_kept(channel, options):
    """X4: keys, token, the payer's id and address appear in no outcome and no text of the adapter."""
    shown = order(captures=[capture()], refunds=[refund()])
    outcomes = [
        ask(channel.query(REF), shown)[0],
        ask(channel.prepay(prepay_request()), order("PAYER_ACTION_REQUIRED"))[0],
        ask(channel.capture(CaptureRequest(REF, "k")), error(422, "UNPROCESSABLE_ENTITY", "X"))[0],
        ask(channel.refund(RefundRequest(REF, "r1", 500, "USD", 1_999, "x")), shown, refund())[0],
        ask(channel.query_refund(RefundRef(REF, "r1", 500)), shown)[0],
    ]
    assert any(isinstance(outcome, Known) for outcome in outcomes)
    assert any(isinstance(outcome, Unknown | Refused) for outcome in outcomes)
    texts = [repr(outcome) for outcome in outcomes] + [repr(channel), repr(channel._token), str(channel)]
    assert not any(canary in text for canary in CANARIES for text in texts)


def test_a_shop_that_goes_live_at_the_sandbox_is_told(options):
    assert checks.problems({"paypal": {name: value for name, value in options.items() if name != "base_url"}}) == []
    (found,) = checks.problems({"paypal": {**options, "base_url": "https://api-m.sandbox.paypal.com"}})
    assert (found.id, found.deploy_only) == ("E111", True)


def listed(code: str, status: str, currency: str = "EUR", number: str = "po1") -> list[Any]:
    info = {
        "transaction_event_code": code, "transaction_status": status, "transaction_id": "C1", "custom_field": number,
        "invoice_id": "po1", "transaction_amount": {"value": "10.00", "currency_code": currency},
        "transaction_initiation_date": "2026-03-01T10:00:00+0000",
    }  # fmt: skip
    lines, _pages = read_statement({"total_pages": 1, "transaction_details": [{"transaction_info": info}]})
    return lines


@pytest.mark.parametrize(
    ("code", "status", "came_to"),
    [("T0006", "S", [RefundState.DONE]), ("T0006", "V", [RefundState.DONE]), ("T0006", "P", []), ("T0006", "D", []),
     ("T1107", "S", [RefundState.DONE]), ("T1107", "P", [RefundState.IN_PROGRESS]), ("T1107", "D", [])],
)  # fmt: skip
def test_a_statements_line_says_what_became_of_it(code, status, came_to):
    """A payment that was given back since was a payment; a refund on its way is not listed again."""
    assert [line.came_to for line in listed(code, status)] == came_to


def test_a_line_in_a_foreign_currency_stops_the_day_only_if_it_is_ours():
    assert listed("T0006", "S", "XTS", number="") == []
    with pytest.raises(MalformedError):
        listed("T0006", "S", "XTS")
