"""How the adapter reads truly signed answers and messages: evidence only where every field is what it must be."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from payonce.channels.base import Conversation
from payonce.channels.http import run
from payonce.channels.messages import (
    CloseState,
    HttpRequest,
    HttpResponse,
    Known,
    NotAuthentic,
    Notice,
    NotificationRequest,
    Outcome,
    PaymentRef,
    PaymentState,
    RefundRef,
    Unknown,
)
from payonce.channels.sandbox.adapter import SandboxChannel
from payonce.channels.sandbox.wire import write_object
from payonce.channels.signing import HEADER_ACCOUNT, HEADER_NONCE, sign_answer, sign_notification

SECRET = "a secret of more than thirty-two characters"
REF = PaymentRef("n1", 100, "CNY")
PAID: dict[str, Any] = {
    "number": "n1", "state": "PAID", "merchant": "blue", "currency": "CNY", "paid_minor": 100, "refunded_minor": 0,
    "reference": "cap_1", "paid_at": "2026-01-02T03:04:05Z", "captures": [],
}  # fmt: skip
REFUND = {"number": "n1", "refund_number": "r1", "state": "DONE", "amount_minor": 100, "currency": "CNY"}


def channel(**options: Any) -> SandboxChannel:
    return SandboxChannel("blue", {"base_url": "http://127.0.0.1:1", "secret": SECRET, **options})


def answered(
    start: Callable[[SandboxChannel], Conversation[Outcome[Any]]], *replies: tuple[int, dict[str, Any]], **options: Any
) -> Outcome[Any]:
    """Run one operation against these signed answers."""
    left = list(replies)

    def reply(request: HttpRequest) -> HttpResponse:
        status, record = left.pop(0)
        body = write_object(record)
        signature = sign_answer(SECRET, request.headers[HEADER_NONCE], status, body, time.time())
        return HttpResponse(status, signature.headers(), body)

    return run(start(channel(**options)), reply)


def test_paid_answer_is_evidence() -> None:
    outcome = answered(lambda c: c.query(REF), (200, {"code": "OK", "payment": PAID}))
    assert isinstance(outcome, Known)
    assert (outcome.value.state, outcome.value.paid_minor) == (PaymentState.PAID, 100)
    assert outcome.value.paid_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"number": "n2"}, "number"),
        ({"number": "\u0661"}, "number"),
        ({"number": None}, "number"),
        ({"state": 1}, "state"),
        ({"reference": ""}, "paid_minor"),
        ({"paid_minor": 0}, "paid_minor"),
        ({"paid_minor": 100.0}, "paid_minor"),
        ({"paid_minor": "100"}, "paid_minor"),
        ({"paid_minor": True}, "paid_minor"),
        ({"paid_minor": -100}, "paid_minor"),
        ({"paid_minor": 10**16}, "paid_minor"),
        ({"refunded_minor": 1.5}, "refunded_minor"),
        ({"currency": "cny"}, "currency"),
        ({"currency": ""}, "paid_minor"),
        ({"paid_at": "2026-01-02T03:04:05"}, "paid_at"),
        ({"paid_at": "yesterday"}, "paid_at"),
        ({"paid_at": 1}, "paid_at"),
        ({"paid_at": "0001-01-01T00:00:00+23:59"}, "paid_at"),
        ({"merchant": "a\0b"}, "merchant"),
        ({"captures": {}}, "captures"),
        ({"captures": [1]}, "captures"),
        ({"captures": [{**PAID, "paid_minor": 1.0}]}, "paid_minor"),
    ],
)
def test_m8_one_wrong_field_makes_the_answer_unknown(change: dict[str, Any], field: str) -> None:
    outcome = answered(lambda c: c.query(REF), (200, {"code": "OK", "payment": {**PAID, **change}}))
    assert isinstance(outcome, Unknown)
    assert outcome.reason == f"malformed:{field}"


def test_state_that_nobody_knows_is_unclear() -> None:
    outcome = answered(lambda c: c.query(REF), (200, {"code": "OK", "payment": {**PAID, "state": "FROZEN"}}))
    assert isinstance(outcome, Known)
    assert outcome.value.state is PaymentState.UNCLEAR


@pytest.mark.parametrize("record", [{}, {"code": 1}, {"code": ""}, {"code": "\u0661"}, {"code": "OK"}])
def test_answer_without_its_parts_is_unknown(record: dict[str, Any]) -> None:
    assert isinstance(answered(lambda c: c.query(REF), (200, record)), Unknown)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ((200, {"code": "CLOSED"}), CloseState.CLOSED_PROVED),
        ((200, {"code": "CLOSED", "payment": {**PAID, "state": "CLOSED"}}), CloseState.CLOSED_PROVED),
        ((200, {"code": "CLOSED", "payment": PAID}), None),
        ((409, {"code": "ALREADY_PAID", "payment": PAID}), CloseState.ALREADY_PAID),
        ((409, {"code": "ALREADY_PAID"}), None),
        ((409, {"code": "ALREADY_PAID", "payment": {**PAID, "state": "OPEN"}}), None),
        ((409, {"code": "IN_PROGRESS"}), CloseState.IN_PROGRESS),
        ((404, {"code": "NOT_FOUND"}), CloseState.UNPROVED),
        ((200, {"code": "OK"}), None),
        ((200, {"code": "DONE"}), None),
        ((503, {"code": "CLOSED"}), None),
    ],
)
def test_s5_close_is_proven_only_by_a_consistent_answer(
    reply: tuple[int, dict[str, Any]], found: CloseState | None
) -> None:
    outcome = answered(lambda c: c.close(REF), reply)
    assert (outcome.value.state if isinstance(outcome, Known) else None) is found
    assert found is not None or isinstance(outcome, Unknown)


@pytest.mark.parametrize("state", ["PAID", "CLOSED", "IN_PROGRESS", "OPEN", "APPROVED", "FROZEN"])
def test_accepted_close_says_what_the_query_proves(state: str) -> None:
    proven = {"PAID": "ALREADY_PAID", "CLOSED": "CLOSED_PROVED", "IN_PROGRESS": "IN_PROGRESS"}
    for options, otherwise in (({"close_proof": "query"}, "UNPROVED"), ({"close_proof": "expiry"}, "NOT_CLOSABLE")):
        query = (200, {"code": "OK", "payment": {**PAID, "state": state}})
        replies = [(202, {"code": "ACCEPTED"}), query] if otherwise == "UNPROVED" else [query]
        outcome = answered(lambda c: c.close(REF), *replies, **options)
        assert isinstance(outcome, Known)
        assert outcome.value.state == proven.get(state, otherwise)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"refund_number": "r2"}, "refund_number"),
        ({"state": "MAYBE"}, "state"),
        ({"amount_minor": 1.0}, "amount_minor"),
    ],
)
def test_wrong_refund_answer_is_unknown(change: dict[str, Any], field: str) -> None:
    reply = (200, {"code": "OK", "refund": {**REFUND, **change}})
    outcome = answered(lambda c: c.query_refund(RefundRef(REF, "r1", 100)), reply)
    assert isinstance(outcome, Unknown)
    assert outcome.reason == f"malformed:{field}"


def test_statement_that_does_not_advance_is_unknown() -> None:
    page = (200, {"code": "OK", "lines": [], "next_after": 0})
    assert isinstance(answered(lambda c: c.statement(datetime.now(UTC).date()), page), Unknown)
    line = {"kind": "gift", "number": "n1", "reference": "c", "amount_minor": 1, "currency": "CNY"}
    bad = (200, {"code": "OK", "lines": [line], "next_after": None})
    assert isinstance(answered(lambda c: c.statement(datetime.now(UTC).date()), bad), Unknown)


def judged(record: dict[str, Any]) -> Notice | NotAuthentic:
    body = write_object(record)
    headers = {HEADER_ACCOUNT: "blue", **sign_notification(SECRET, "blue", body, time.time()).headers()}
    return channel().parse_notification(NotificationRequest(body, headers), datetime.now(UTC))


MESSAGE: dict[str, Any] = {"id": "ntf_1", "event": "payment.paid", "sent_at": "2026-01-02T03:04:05Z", "payment": PAID}


def test_message_about_neither_is_still_a_message() -> None:
    notice = judged({**MESSAGE, "payment": None, "event": "merchant.greeting"})
    assert isinstance(notice, Notice)
    assert (notice.payment, notice.refund) == (None, None)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "x" * 129}, "id"),
        ({"id": "\u0661"}, "id"),
        ({"event": None}, "event"),
        ({"sent_at": None}, "sent_at"),
        ({"payment": 1}, "payment"),
        ({"refund": REFUND}, "refund"),
        ({"payment": {**PAID, "paid_minor": 1.0}}, "paid_minor"),
    ],
)
def test_signed_message_that_cannot_be_read_is_not_accepted(change: dict[str, Any], field: str) -> None:
    assert judged({**MESSAGE, **change}) == NotAuthentic(f"malformed:{field}")


def test_x4_raw_answers_hide_who_pays_and_how() -> None:
    record = {"code": "OK", "payment": {**PAID, "payer": "openid-123", "client_ip": "8.8.8.8"}, "value": "weixin://pay"}
    outcome = answered(lambda c: c.query(REF), (200, record))
    assert isinstance(outcome, Known)
    assert not any(text in outcome.raw for text in ("openid-123", "8.8.8.8", "weixin"))
    assert "cap_1" in outcome.raw


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_signed_5xx_is_unknown(status: int) -> None:
    """S4: whatever its body says, an answer with a 5xx is not definite."""
    for record in ({"code": "OK", "payment": PAID}, {"code": "DECLINED"}):
        outcome = answered(lambda c: c.query(REF), (status, record))
        assert isinstance(outcome, Unknown), outcome
        assert outcome.reason == f"status_{status}"
