"""What each answer of Stripe's API means, what the requests say, and how keys and amounts are judged: no server needed."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest

from payonce.channels.checks import problems
from payonce.channels.errors import ChannelConfigError
from payonce.channels.http import run
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
from payonce.channels.stripe import account as accounts
from payonce.channels.stripe import forms, objects
from payonce.channels.stripe.adapter import StripeChannel

SECRET = "sk_test_" + "aB3dE5gH" * 4
WEBHOOK = "whsec_" + "kM7nP9qR" * 4
GOOD: dict[str, Any] = {
    "adapter": "stripe",
    "secret_key": SECRET,
    "webhook_secret": WEBHOOK,
    "methods": ["web", "card"],
}
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
REF = PaymentRef("n1", 1_999, "USD", "card", "pi_1", NOW, NOW + timedelta(hours=1))
REFUND = RefundRequest(REF, "n1rs1", 1_999, "USD", 1_999, "duplicate")
OPERATIONS = ("prepay", "query", "close", "refund", "query_refund", "statement")
Wire = Callable[[HttpRequest], HttpResponse | TransportError]


def channel(**options: Any) -> StripeChannel:
    return StripeChannel("stripe", {**GOOD, **options})


def request(**changes: Any) -> PrepayRequest:
    given: dict[str, Any] = {
        "number": "n1", "amount_minor": 1_999, "currency": "USD", "subject": "Book", "method": "web", "client_type": "pc",
        "payer": "", "payable_until": NOW + timedelta(hours=1), "notify_url": "", "return_url": "https://shop.example/r",
    }  # fmt: skip
    return PrepayRequest(**{**given, **changes})


def ask(operation: str, wire: Wire, made: StripeChannel | None = None) -> Any:
    used = made or channel()
    arguments: dict[str, Any] = {
        "prepay": request(), "query": REF, "close": REF, "refund": REFUND,
        "query_refund": RefundRef(REF, "n1rs1", 1_999), "statement": NOW.date(),
    }  # fmt: skip
    return run(getattr(used, operation)(arguments[operation]), wire)


def reply(status: int, body: Any, **headers: str) -> HttpResponse:
    return HttpResponse(
        status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(body).encode()
    )


def error(status: int, kind: str, code: str = "", **more: Any) -> HttpResponse:
    return reply(status, {"error": {"type": kind, "message": "as planned", **({"code": code} if code else {}), **more}})


def intent(status: str = "succeeded", **changes: Any) -> dict[str, Any]:
    return {
        "id": "pi_1", "object": "payment_intent", "amount": 1_999, "amount_received": 1_999 if status == "succeeded" else 0,
        "currency": "usd", "status": status, "metadata": {"payonce_number": "n1", "payonce_method": "card"},
        "latest_charge": {"id": "ch_1", "created": 1_793_000_000, "amount_refunded": 0, "disputed": False}
        if status == "succeeded" else None, "client_secret": "pi_1_secret_x", **changes,
    }  # fmt: skip


def session(status: str = "open", payment_status: str = "unpaid", inner: Any = None, **changes: Any) -> dict[str, Any]:
    return {
        "id": "cs_test_1", "object": "checkout.session", "client_reference_id": "n1", "metadata": {"payonce_number": "n1"},
        "status": status, "payment_status": payment_status, "amount_total": 1_999, "currency": "usd",
        "payment_intent": inner, "expires_at": 1_793_003_600, "url": "https://checkout.stripe.com/c/pay/cs_test_1", **changes,
    }  # fmt: skip


# --- the code table ---


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(401, "invalid_request_error"), RefusedKind.CONFIG),
        (error(401, "invalid_request_error", "api_key_expired"), RefusedKind.CONFIG),
        (error(403, "invalid_request_error", "more_permissions_required"), RefusedKind.CONFIG),
        (error(402, "card_error", "card_declined"), RefusedKind.DECLINED),
        (error(429, "invalid_request_error", "rate_limit"), RefusedKind.THROTTLED),
        (error(429, "invalid_request_error", "lock_timeout"), RefusedKind.THROTTLED),
    ],
    ids=["no key", "expired key", "no right", "declined", "too fast", "locked"],
)
def test_answers_that_mean_the_same_everywhere(operation: str, answer: HttpResponse, kind: RefusedKind) -> None:
    outcome = ask(operation, lambda _: answer)
    assert isinstance(outcome, Refused)
    assert outcome.kind is kind


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    "answer",
    [
        error(409, "idempotency_error", "idempotency_key_in_use"),
        error(409, "invalid_request_error"),
        error(500, "api_error"),
        error(503, "api_error"),
        error(418, "teapot_error"),
        error(404, "invalid_request_error"),
        reply(404, {"message": "no error object"}),
        reply(400, {"error": "text"}),
        reply(200, []),
        reply(204, {}),
        reply(302, {}),
        TransportError("read_timeout"),
    ],
    ids=["key in use", "conflict", "500", "503", "unlisted", "no such address", "404 of a proxy", "odd", "list", "204",
         "redirect", "time-out"],
)  # fmt: skip
def test_everything_else_is_unknown(operation: str, answer: HttpResponse | TransportError) -> None:
    assert isinstance(ask(operation, lambda _: answer), Unknown)


@pytest.mark.parametrize(
    ("operation", "code", "kind"),
    [
        ("prepay", "amount_too_small", RefusedKind.DECLINED),
        ("prepay", "amount_too_large", RefusedKind.DECLINED),
        ("prepay", "parameter_unknown", RefusedKind.CONFIG),
        ("prepay", "url_invalid", RefusedKind.CONFIG),
        ("prepay", "", RefusedKind.CONFIG),
        ("refund", "charge_already_refunded", RefusedKind.DECLINED),
        ("refund", "charge_disputed", RefusedKind.DECLINED),
        ("refund", "", RefusedKind.DECLINED),
        ("refund", "parameter_invalid_integer", RefusedKind.CONFIG),
        ("refund", "resource_missing", RefusedKind.CONFLICT),
    ],
)
def test_refused_request_by_operation_and_code(operation: str, code: str, kind: RefusedKind) -> None:
    outcome = ask(operation, lambda _: error(400, "invalid_request_error", code))
    assert isinstance(outcome, Refused)
    assert outcome.kind is kind


@pytest.mark.parametrize("operation", ["prepay", "refund"])
def test_key_used_with_other_parameters_is_a_conflict(operation: str) -> None:
    outcome = ask(operation, lambda _: error(400, "idempotency_error"))
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusedKind.CONFLICT


def test_wrong_keys_name_the_setting_and_where_to_find_it() -> None:
    outcome = ask("query", lambda _: error(401, "invalid_request_error", "api_key_expired"))
    assert '"secret_key"' in outcome.message
    assert "api_key_expired" in outcome.message


# --- what a payment is ---


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("requires_payment_method", PaymentState.OPEN),
        ("requires_confirmation", PaymentState.OPEN),
        ("requires_action", PaymentState.OPEN),
        ("processing", PaymentState.IN_PROGRESS),
        ("requires_capture", PaymentState.IN_PROGRESS),
        ("canceled", PaymentState.CLOSED),
        ("succeeded", PaymentState.PAID),
        ("something_new", PaymentState.UNCLEAR),
    ],
)
def test_state_of_an_intent(status: str, state: PaymentState) -> None:
    outcome = ask("query", lambda _: reply(200, intent(status)))
    assert isinstance(outcome, Known)
    assert outcome.value.state is state
    assert outcome.value.paid_minor == (1_999 if state is PaymentState.PAID else 0)


@pytest.mark.parametrize(
    ("record", "state"),
    [
        (session(), PaymentState.OPEN),
        (session("expired"), PaymentState.CLOSED),
        (session("complete", "paid", intent()), PaymentState.PAID),
        (session("complete", "paid", "pi_1"), PaymentState.PAID),
        (session("complete", "unpaid", intent("processing")), PaymentState.IN_PROGRESS),
        (session("complete", "unpaid", intent("requires_action")), PaymentState.IN_PROGRESS),
        (session("complete", "unpaid", "pi_1"), PaymentState.IN_PROGRESS),
        (session("complete", "unpaid", intent("requires_payment_method")), PaymentState.CLOSED),
        (session("open", "unpaid", intent("processing")), PaymentState.IN_PROGRESS),
        (session("open", "unpaid", intent()), PaymentState.PAID),
        (session("expired", "unpaid", intent()), PaymentState.PAID),
        (session("complete", "no_payment_required"), PaymentState.UNCLEAR),
        (session("something_new"), PaymentState.UNCLEAR),
    ],
    ids=["open", "expired", "paid", "paid, intent by id", "delayed", "voucher", "delayed, intent by id", "delayed failed",
         "race", "money wins", "money wins over expiry", "free", "new"],
)  # fmt: skip
def test_state_of_a_session(record: dict[str, Any], state: PaymentState) -> None:
    ref = PaymentRef("n1", 1_999, "USD", "web", "cs_test_1")
    outcome = run(channel().query(ref), lambda _: reply(200, record))
    assert isinstance(outcome, Known)
    assert outcome.value.state is state
    if state is PaymentState.PAID:
        assert (outcome.value.paid_minor, outcome.value.currency) == (1_999, "USD")
        assert outcome.value.channel_reference == "pi_1"


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata": {"payonce_number": "other"}},
        {"metadata": {}},
        {"amount_received": 0},
        {"amount_received": 19.99},
        {"amount_received": "1999"},
        {"currency": "dollars"},
        {"id": "pi_../v1/refunds"},
        {"latest_charge": {"created": 1, "amount_refunded": True}},
    ],
)
def test_paid_intent_with_a_wrong_field_is_unknown(changes: dict[str, Any]) -> None:
    assert isinstance(ask("query", lambda _: reply(200, intent(**changes))), Unknown)


def test_cancelled_intent_of_a_session_proves_nothing() -> None:
    """The session decides whether the buyer may still pay, with another intent."""
    made = intent("canceled", metadata={"payonce_number": "n1", "payonce_method": "web"})
    outcome = ask("query", lambda _: reply(200, made))
    assert isinstance(outcome, Known)
    assert outcome.value.state is PaymentState.UNCLEAR


@pytest.mark.parametrize(
    ("disputes", "disputed_minor"),
    [
        ([("needs_response", 1_999, "usd")], 1_999),
        ([("under_review", 500, "usd"), ("lost", 400, "usd")], 900),
        ([("won", 1_999, "usd"), ("warning_needs_response", 1_999, "usd"), ("prevented", 1, "usd")], 0),
        ([("lost", 3_000, "usd")], 1_999),
        ([("lost", 100, "eur")], 1_999),
    ],
    ids=["open", "two", "no money", "by its rate", "other currency"],
)
def test_disputes_are_asked_for_and_counted(disputes: list[tuple[str, int, str]], disputed_minor: int) -> None:
    rows = [{"id": f"dp_{n}", "status": s, "amount": a, "currency": c} for n, (s, a, c) in enumerate(disputes)]
    made = intent(latest_charge={"id": "ch_1", "created": 1_793_000_000, "amount_refunded": 0, "disputed": True})

    def wire(asked: HttpRequest) -> HttpResponse:
        if "/v1/disputes" in asked.url:
            return reply(200, {"object": "list", "data": rows, "has_more": False})
        return reply(200, made)

    outcome = ask("query", wire)
    assert isinstance(outcome, Known)
    assert (outcome.value.paid_minor, outcome.value.disputed_minor) == (1_999, disputed_minor)


def test_disputed_payment_whose_disputes_cannot_be_read_is_unknown() -> None:
    """Told without its dispute, it would be refunded a second time."""
    made = intent(latest_charge={"id": "ch_1", "created": 1_793_000_000, "amount_refunded": 0, "disputed": True})
    outcome = ask("query", lambda asked: error(500, "api_error") if "disputes" in asked.url else reply(200, made))
    assert isinstance(outcome, Unknown)


# --- closing ---


@pytest.mark.parametrize(
    ("carried", "state"),
    [
        ("canceled", CloseState.CLOSED_PROVED),
        ("processing", CloseState.IN_PROGRESS),
        ("succeeded", CloseState.ALREADY_PAID),
    ],
)
def test_refused_cancel_carries_the_intent(carried: str, state: CloseState) -> None:
    def wire(asked: HttpRequest) -> HttpResponse:
        if asked.method == "POST":
            refused = intent(carried, latest_charge="ch_1" if carried == "succeeded" else None)
            return error(400, "invalid_request_error", "payment_intent_unexpected_state", payment_intent=refused)
        return reply(200, intent(carried))

    outcome = ask("close", wire)
    assert isinstance(outcome, Known)
    assert outcome.value.state is state


def test_intent_of_a_session_is_never_cancelled() -> None:
    asked: list[HttpRequest] = []
    made = intent("requires_payment_method", metadata={"payonce_number": "n1", "payonce_method": "web"})

    def wire(sent: HttpRequest) -> HttpResponse:
        asked.append(sent)
        return reply(200, made)

    outcome = run(channel().close(PaymentRef("n1", 1_999, "USD", "web", "pi_1")), wire)
    assert isinstance(outcome, Known)
    assert outcome.value.state is CloseState.UNPROVED
    assert [sent.method for sent in asked] == ["GET"]


# --- refunds: which key is used ---


def refund_object(status: str = "succeeded", identifier: str = "re_1", **changes: Any) -> dict[str, Any]:
    return {
        "id": identifier, "object": "refund", "amount": 1_999, "currency": "usd", "status": status,
        "metadata": {"payonce_refund": "n1rs1", "payonce_number": "n1"}, **changes,
    }  # fmt: skip


def test_stored_decline_spends_its_key_and_the_next_key_is_a_new_try() -> None:
    keys: list[str] = []

    def wire(sent: HttpRequest) -> HttpResponse:
        keys.append(sent.headers["idempotency-key"])
        if len(keys) < 3:
            return HttpResponse(402, {"idempotent-replayed": "true"}, error(402, "card_error", "card_declined").body)
        return reply(200, refund_object())

    outcome = ask("refund", wire)
    assert isinstance(outcome, Known)
    assert outcome.value.state is RefundState.DONE
    assert keys == ["payonce:refund:n1rs1", "payonce:refund:n1rs1:2", "payonce:refund:n1rs1:3"]


@pytest.mark.parametrize(
    "answer",
    [
        HttpResponse(500, {"idempotent-replayed": "true"}, error(500, "api_error").body),
        HttpResponse(400, {"idempotent-replayed": "true"}, error(400, "idempotency_error").body),
        error(409, "idempotency_error", "idempotency_key_in_use"),
        error(402, "card_error", "card_declined"),
        TransportError("read_timeout"),
    ],
    ids=["stored 500", "other parameters", "in use", "fresh decline", "time-out"],
)
def test_key_without_a_stored_decline_is_never_passed_by(answer: HttpResponse | TransportError) -> None:
    """M6: a second key beside one whose outcome is open could move the money twice."""
    sent: list[HttpRequest] = []

    def wire(asked: HttpRequest) -> HttpResponse | TransportError:
        sent.append(asked)
        return answer

    assert not isinstance(ask("refund", wire), Known)
    assert len(sent) == 1


def test_stored_refund_is_fetched_again_and_one_that_failed_since_is_tried_under_the_next_key() -> None:
    sent: list[tuple[str, str]] = []

    def wire(asked: HttpRequest) -> HttpResponse:
        sent.append((asked.method, asked.headers.get("idempotency-key", asked.url.rpartition("/")[2])))
        if asked.method == "GET":
            return reply(200, refund_object("failed", failure_reason="declined"))
        if len(sent) == 1:
            return reply(200, refund_object("pending"), idempotent_replayed="true")
        return reply(200, refund_object("pending", "re_2"))

    outcome = ask("refund", wire)
    assert isinstance(outcome, Known)
    assert (outcome.value.state, outcome.value.channel_reference) == (RefundState.IN_PROGRESS, "re_2")
    assert sent == [("POST", "payonce:refund:n1rs1"), ("GET", "re_1"), ("POST", "payonce:refund:n1rs1:2")]


@pytest.mark.parametrize(
    ("statuses", "state"),
    [
        (["failed", "succeeded"], RefundState.DONE),
        (["succeeded", "failed"], RefundState.DONE),
        (["failed", "canceled"], RefundState.FAILED),
        (["requires_action"], RefundState.ATTENTION),
        (["pending"], RefundState.IN_PROGRESS),
        ([], RefundState.NOT_FOUND),
    ],
)
def test_refund_is_found_by_its_number_among_all_of_the_payment(statuses: list[str], state: RefundState) -> None:
    rows = [refund_object(status, f"re_{place}") for place, status in enumerate(statuses)]
    other = refund_object("succeeded", "re_9", metadata={"payonce_refund": "other"})
    outcome = ask("query_refund", lambda _: reply(200, {"object": "list", "data": [other, *rows], "has_more": False}))
    assert isinstance(outcome, Known)
    assert outcome.value.state is state


def test_list_that_does_not_end_proves_no_absence() -> None:
    pages = [0]

    def wire(_: HttpRequest) -> HttpResponse:
        pages[0] += 1
        row = refund_object("succeeded", f"re_{pages[0]}", metadata={"payonce_refund": "other"})
        return reply(200, {"object": "list", "data": [row], "has_more": True})

    assert isinstance(ask("query_refund", wire), Unknown)
    assert pages[0] <= 10


@pytest.mark.parametrize(
    ("reason", "told"),
    [("duplicate", "duplicate"), ("second_capture", "duplicate"), ("requested_by_customer", "requested_by_customer"),
     ("late", None), ("other", None)],
)  # fmt: skip
def test_reason_of_a_refund(reason: str, told: str | None) -> None:
    made = RefundRequest(REF, "n1rs1", 1_999, "USD", 1_999, reason)
    assert dict(forms.refund_form(made, "pi_1", 1_999)).get("reason") == told


# --- requests ---


@pytest.mark.parametrize("method", ["web", "card"])
def test_repeated_prepay_is_the_same_request_whenever_it_is_sent(method: str) -> None:
    sent: list[HttpRequest] = []

    def wire(asked: HttpRequest) -> TransportError:
        sent.append(asked)
        return TransportError("read_timeout")

    for moment in (NOW, NOW + timedelta(minutes=9)):
        run(channel().prepay(request(method=method, at=moment, client_ip=str(moment))), wire)
    assert (sent[0].body, sent[0].headers) == (sent[1].body, sent[1].headers)
    assert sent[0].headers["idempotency-key"] == "payonce:prepay:n1"
    assert sent[0].headers["stripe-version"] == forms.API_VERSION
    fields = dict(parse_qsl(sent[0].body.decode()))
    assert fields["metadata[payonce_number]"] == "n1"
    assert b"notify" not in sent[0].body


def test_connected_account_is_named_in_every_request() -> None:
    sent: list[HttpRequest] = []

    def wire(asked: HttpRequest) -> TransportError:
        sent.append(asked)
        return TransportError("read_timeout")

    for operation in OPERATIONS:
        ask(operation, wire, channel(connected_account="acct_1Abc"))
    assert {asked.headers.get("stripe-account") for asked in sent} == {"acct_1Abc"}
    assert "stripe-account" not in channel().settings.headers()


@pytest.mark.parametrize(
    ("amount_minor", "currency", "wire"),
    [(1_999, "USD", 1_999), (500, "JPY", 500), (5_120, "KWD", 5_120), (5_125, "KWD", None), (150, "ISK", 15_000)],
)
def test_amounts_as_stripe_counts_them(amount_minor: int, currency: str, wire: int | None) -> None:
    assert forms.to_wire(amount_minor, currency) == wire
    if wire is not None:
        assert objects.from_wire({"amount": wire}, "amount", currency) == amount_minor


def test_amount_that_stripe_cannot_express_is_never_sent() -> None:
    made = request(currency="KWD", amount_minor=1_005)
    outcome = run(channel().prepay(made), lambda _: pytest.fail("sent"))
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusedKind.CONFIG
    with pytest.raises(objects.MalformedError):
        objects.from_wire({"amount": 15_050}, "amount", "ISK")


def test_search_for_a_lost_id_looks_only_where_the_stream_can_be() -> None:
    asked: list[str] = []

    def wire(sent: HttpRequest) -> HttpResponse:
        asked.append(sent.url)
        return reply(200, {"object": "list", "data": [], "has_more": False})

    ref = PaymentRef("n1", 1_999, "USD", "web", "", NOW)
    outcome = run(channel().query(ref), wire)
    assert isinstance(outcome, Known)
    assert outcome.value.state is PaymentState.NOT_FOUND
    since = int((NOW - timedelta(minutes=5)).timestamp())
    assert len(asked) == 1
    assert f"created%5Bgte%5D={since}" in asked[0]


# --- capabilities and options ---


def test_promises_are_those_of_the_methods() -> None:
    """A PaymentIntent has no expiry: an account with that method proves nothing by time."""
    assert channel(methods=["web"]).capabilities.enforces_expiry
    assert not channel(methods=["web", "card"]).capabilities.enforces_expiry
    stated = channel().capabilities
    assert stated.replay_window_seconds is not None
    assert stated.replay_window_seconds < 24 * 3_600
    assert stated.refund_replay_window_seconds == stated.replay_window_seconds
    assert stated.methods["web"].lifetime_seconds < 24 * 3_600
    assert stated.methods["web"].lifetime_seconds_min > 30 * 60


@pytest.mark.parametrize(
    ("options", "identifier", "says"),
    [
        ({"secret_key": ""}, "E105", '"secret_key"'),
        ({"webhook_secret": ""}, "E105", '"webhook_secret"'),
        ({"secret_key": "pk_test_" + "a1B2c3D4" * 4}, "E106", "publishable"),
        ({"secret_key": WEBHOOK}, "E106", '"webhook_secret"'),
        ({"secret_key": "sk_test_short"}, "E106", "cut off"),
        ({"secret_key": SECRET + "\n"}, "E106", "no secret key"),
        ({"webhook_secret": SECRET}, "E106", "signing secret of its own"),
        ({"webhook_secret": "whsec_short"}, "E106", "cut off"),
        ({"methods": ["qr"]}, "E107", '"methods"'),
        ({"currencies": ["MGA"]}, "E107", '"currencies"'),
        ({"connected_account": "me"}, "E107", "acct_"),
        ({"base_url": "http://proxy.example"}, "E108", "https"),
        ({"secretkey": "x"}, "E104", 'Did you mean "secret_key"'),
    ],
)
def test_wrong_options_are_named_by_the_system_check(options: dict[str, Any], identifier: str, says: str) -> None:
    found = problems({"stripe": {**GOOD, **options}})
    assert identifier in [problem.id for problem in found]
    assert says in " ".join(problem.message for problem in found)
    texts = " ".join(problem.message + problem.hint for problem in found)
    assert SECRET not in texts
    assert WEBHOOK not in texts


def test_good_options_pass() -> None:
    assert [problem for problem in problems({"stripe": dict(GOOD)}) if not problem.deploy_only] == []


def test_a_shop_that_goes_live_with_a_test_key_is_told() -> None:
    """Test cards pay with money that does not exist."""
    live = {**GOOD, "secret_key": SECRET.replace("_test_", "_live_")}
    assert problems({"stripe": live}) == []
    (found,) = problems({"stripe": {**GOOD, "secret_key": SECRET.replace("_live_", "_test_")}})
    assert (found.id, found.deploy_only) == ("E111", True)


def test_missing_library_is_named_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ChannelConfigError, match=r"django-payonce\[stripe\]"):
        channel()
    (found,) = problems({"stripe": dict(GOOD)})
    assert (found.id, "stripe" in found.message) == ("E110", True)


def test_x4_keys_stand_in_no_text_of_the_channel() -> None:
    made = channel()
    texts = repr(made) + repr(made.settings) + str(made.settings.capabilities)
    assert SECRET not in texts
    assert WEBHOOK not in texts


def test_x4_evidence_holds_neither_secrets_nor_the_payer() -> None:
    record = session(
        "complete", "paid", intent(receipt_email="ann@example.com"), customer_details={"email": "ann@example.com"}
    )
    outcome = run(channel().query(PaymentRef("n1", 1_999, "USD", "web", "cs_test_1")), lambda _: reply(200, record))
    for secret in ("pi_1_secret_x", "ann@example.com", "checkout.stripe.com"):
        assert secret not in outcome.raw
