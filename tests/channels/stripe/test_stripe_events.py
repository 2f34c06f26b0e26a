"""Stripe's notifications: signed, in time, for this account and mode, and believed only for what they state."""

import dataclasses
import hashlib
import hmac
import json
import queue
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from payonce.channels.messages import NotAuthentic, Notice, NotificationRequest, PaymentState, RefundState, Verdict
from payonce.channels.stripe.adapter import StripeChannel
from tests.channels.inbox import Inbox
from tests.channels.stripe.world import PRICE, Merchant


def signed(merchant: Merchant, event: dict[str, Any], at: datetime | None = None) -> NotificationRequest:
    """An event signed by hand, as docs.stripe.com/webhooks describes it: HMAC-SHA256 over `t.body`."""
    body = json.dumps(event).encode()
    stamp = int((at or datetime.now(UTC)).timestamp())
    digest = hmac.new(merchant.options["webhook_secret"].encode(), f"{stamp}.".encode() + body, hashlib.sha256)
    return NotificationRequest(body, {"stripe-signature": f"t={stamp},v1={digest.hexdigest()}"})


def event(kind: str, inner: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "id": "evt_1", "object": "event", "type": kind, "created": 1_793_000_000, "livemode": False,
        "api_version": "2026-10-28.endive", "data": {"object": inner}, **changes,
    }  # fmt: skip


def read(merchant: Merchant, message: NotificationRequest, at: datetime | None = None) -> Notice | NotAuthentic:
    return merchant.channel.parse_notification(message, at or datetime.now(UTC))


def notice(merchant: Merchant, kind: str, inner: dict[str, Any], **changes: Any) -> Notice:
    found = read(merchant, signed(merchant, event(kind, inner, **changes)))
    assert isinstance(found, Notice), found
    return found


def drained(box: Inbox) -> list[NotificationRequest]:
    found = []
    while True:
        try:
            found.append(box.next(0.01))
        except queue.Empty:
            return found


def heard(merchant: Merchant, box: Inbox, number: str, kind: str) -> Notice:
    """The notice of one kind about a number that the bank delivered."""
    for message in reversed(box.messages):
        if number.encode() in message.body and json.loads(message.body)["type"] == kind:
            found = read(merchant, message)
            assert isinstance(found, Notice), found
            return found
    raise AssertionError(f"no {kind} about {number}")


INTENT = {
    "id": "pi_1", "object": "payment_intent", "amount": 1_999, "amount_received": 1_999, "currency": "usd",
    "status": "succeeded", "latest_charge": "ch_1", "metadata": {"payonce_number": "n1", "payonce_method": "card"},
}  # fmt: skip
SESSION = {
    "id": "cs_1", "object": "checkout.session", "client_reference_id": "n1", "metadata": {}, "status": "complete",
    "payment_status": "paid", "amount_total": 1_999, "currency": "usd", "payment_intent": "pi_1",
}  # fmt: skip


@pytest.mark.parametrize("method", ["web", "card"])
def test_whole_life_is_told(merchant: Merchant, box: Inbox, method: str) -> None:
    """Paid, refunded, disputed: each event is evidence of what it states."""
    ref = merchant.paid_stream(method=method)
    merchant.refund(ref, f"{ref.number}r", 500)
    merchant.control.outside_refund(ref.number, 100, account="stripe")
    merchant.control.dispute(ref.number, account="stripe", amount_minor=300)
    assert merchant.control.wait_delivered(ref.number, 4, account="stripe")
    kind = "checkout.session.completed" if method == "web" else "payment_intent.succeeded"
    paid = heard(merchant, box, ref.number, kind).payment
    assert paid is not None
    assert (paid.state, paid.paid_minor, paid.currency) == (PaymentState.PAID, PRICE, "USD")
    assert paid.channel_reference == ref.channel_reference
    given_back = heard(merchant, box, ref.number, "refund.updated").refund
    assert given_back is not None
    assert (given_back.refund_number, given_back.state, given_back.amount_minor, given_back.payment_number) == (
        f"{ref.number}r", RefundState.DONE, 500, ref.number,
    )  # fmt: skip
    outside = heard(merchant, box, ref.number, "charge.refunded").payment
    assert outside is not None
    assert (outside.paid_minor, outside.refunded_minor) == (PRICE, 600)
    disputes = [m for m in box.messages if b"charge.dispute" in m.body and ref.channel_reference.encode() in m.body]
    told = read(merchant, disputes[-1])
    assert isinstance(told, Notice)
    assert told.payment is not None
    assert (told.payment.number, told.payment.channel_reference) == ("", ref.channel_reference)


def test_closed_streams_are_told(merchant: Merchant, box: Inbox) -> None:
    from payonce.channels.http import run

    for method, kind in (("web", "checkout.session.expired"), ("card", "payment_intent.canceled")):
        ref = merchant.open_stream(method=method)
        run(merchant.channel.close(ref))
        assert merchant.control.wait_delivered(ref.number, account="stripe")
        told = heard(merchant, box, ref.number, kind).payment
        assert told is not None
        assert told.state is PaymentState.CLOSED


def test_failed_refund_is_told_with_its_reason(merchant: Merchant, box: Inbox) -> None:
    ref = merchant.paid_stream()
    merchant.fault("refund", "refund_failed", code="insufficient_funds")
    merchant.refund(ref, f"{ref.number}r")
    assert merchant.control.wait_delivered(ref.number, 2, account="stripe")
    told = heard(merchant, box, ref.number, "refund.failed").refund
    assert told is not None
    assert (told.state, told.code) == (RefundState.FAILED, "insufficient_funds")


def test_repeats_keep_the_events_id(merchant: Merchant, box: Inbox) -> None:
    """X2: deduplicated on the event's id, whatever signature a repeat carries."""
    ref = merchant.paid_stream()
    assert merchant.control.wait_delivered(ref.number, account="stripe")
    merchant.control.send_notification(ref.number, account="stripe", event="payment.paid", copies=2)
    mine = [read(merchant, message) for message in box.messages if ref.number.encode() in message.body]
    assert len(mine) == 3
    assert len({found.dedupe_key for found in mine}) == 1


@pytest.mark.parametrize("kind", ["bad_signature", "no_signature", "altered_body", "wrong_account", "other_secret"])
def test_x1_forgeries_of_every_kind_are_refused(merchant: Merchant, box: Inbox, kind: str) -> None:
    ref = merchant.paid_stream()
    assert merchant.control.wait_delivered(ref.number, account="stripe")
    drained(box)
    merchant.control.send_notification(ref.number, account="stripe", event="payment.paid", forgery=kind)
    found = read(merchant, box.next())
    assert isinstance(found, NotAuthentic)
    assert not found.stale


def test_x1_altered_but_truly_signed_message_tells_its_own_amount_and_merchant(merchant: Merchant, box: Inbox) -> None:
    """Recorded as it is: settling compares amount, currency and merchant."""
    ref = merchant.paid_stream()
    assert merchant.control.wait_delivered(ref.number, account="stripe")
    drained(box)
    altered = {"amount_minor": 1, "currency": "EUR", "merchant": "acct_9Other"}
    merchant.control.send_notification(ref.number, account="stripe", event="payment.paid", altered=altered)
    found = read(merchant, box.next())
    assert isinstance(found, Notice)
    assert found.payment is not None
    assert (found.payment.paid_minor, found.payment.currency, found.payment.merchant) == (1, "EUR", "acct_9Other")
    assert found.payment.merchant != merchant.channel.merchant


@pytest.mark.parametrize(("seconds", "fits"), [(-299, True), (299, True), (-301, False), (301, False), (86_400, False)])
def test_x2_age_is_judged_both_ways(merchant: Merchant, seconds: int, fits: bool) -> None:
    """The library alone lets a header from tomorrow pass."""
    now = datetime.now(UTC).replace(microsecond=0)
    found = read(
        merchant, signed(merchant, event("payment_intent.succeeded", INTENT), now + timedelta(seconds=seconds)), now
    )
    assert isinstance(found, Notice) is fits
    if not fits:
        assert isinstance(found, NotAuthentic)
        assert (found.stale, found.number, found.dedupe_key) == (True, "n1", "evt_1")


@pytest.mark.parametrize("kind", ["stale", "lose", "hold", "repeat", "swap", "acknowledgement_lost"])
def test_planned_faults_of_notifications_are_played(merchant: Merchant, box: Inbox, kind: str) -> None:
    ref = merchant.open_stream()
    merchant.fault("notify", kind, number=ref.number)
    merchant.control.pay(ref.number, account="stripe")
    wanted = {"lose": "LOST", "hold": "HELD", "swap": "HELD", "acknowledgement_lost": "DUE"}.get(kind, "DELIVERED")
    assert merchant.control.wait_notifications(ref.number, wanted, account="stripe")
    mine = [message for message in box.messages if ref.number.encode() in message.body]
    assert len(mine) == {"lose": 0, "hold": 0, "swap": 0, "repeat": 2}.get(kind, 1)
    if kind == "stale":
        found = read(merchant, mine[0])
        assert isinstance(found, NotAuthentic)
        assert (found.stale, found.number) == (True, ref.number)
    if kind == "swap":
        merchant.paid_stream()
        assert merchant.control.wait_delivered(ref.number, account="stripe")


def test_event_of_the_other_mode_is_refused(merchant: Merchant) -> None:
    """Play money never settles a real order, and the other way round."""
    live = event("payment_intent.succeeded", INTENT, livemode=True)
    found = read(merchant, signed(merchant, live))
    assert isinstance(found, NotAuthentic)
    assert found.reason == "wrong_mode"
    options = {**merchant.options, "secret_key": merchant.options["secret_key"].replace("sk_test_", "sk_live_")}
    assert isinstance(
        StripeChannel("live", options).parse_notification(signed(merchant, live), datetime.now(UTC)), Notice
    )


def test_event_of_a_connected_account_is_not_that_of_the_keys(merchant: Merchant) -> None:
    foreign = notice(merchant, "payment_intent.succeeded", INTENT, account="acct_9Other").payment
    own = notice(merchant, "payment_intent.succeeded", INTENT).payment
    assert foreign is not None
    assert own is not None
    assert (foreign.merchant, own.merchant) == ("acct_9Other", merchant.channel.merchant)
    platform = StripeChannel("platform", {**merchant.options, "connected_account": "acct_9Other"})
    assert platform.merchant == "acct_9Other"
    refund = {"id": "re_1", "object": "refund", "amount": 1, "currency": "usd", "status": "succeeded",
              "metadata": {"payonce_refund": "n1rs1"}}  # fmt: skip
    assert notice(merchant, "refund.updated", refund).refund is not None
    assert notice(merchant, "refund.updated", refund, account="acct_9Other").refund is None


@pytest.mark.parametrize(
    ("kind", "inner", "state"),
    [
        ("checkout.session.completed", SESSION, PaymentState.PAID),
        ("checkout.session.async_payment_succeeded", SESSION, PaymentState.PAID),
        ("checkout.session.completed", {**SESSION, "payment_status": "unpaid"}, PaymentState.IN_PROGRESS),
        ("checkout.session.async_payment_failed", {**SESSION, "payment_status": "unpaid"}, PaymentState.CLOSED),
        ("checkout.session.expired", {**SESSION, "status": "expired", "payment_status": "unpaid"}, PaymentState.CLOSED),
        ("payment_intent.succeeded", INTENT, PaymentState.PAID),
        ("payment_intent.processing", {**INTENT, "status": "processing"}, PaymentState.IN_PROGRESS),
        ("payment_intent.canceled", {**INTENT, "status": "canceled"}, PaymentState.CLOSED),
        ("payment_intent.payment_failed", {**INTENT, "status": "requires_payment_method"}, PaymentState.OPEN),
    ],
)
def test_what_events_state(merchant: Merchant, kind: str, inner: dict[str, Any], state: PaymentState) -> None:
    found = notice(merchant, kind, inner)
    assert found.payment is not None
    assert (found.payment.number, found.payment.state) == ("n1", state)
    assert found.payment.paid_minor == (1_999 if state is PaymentState.PAID else 0)


@pytest.mark.parametrize(
    ("kind", "status"),
    [("payment_intent.canceled", "canceled"), ("payment_intent.payment_failed", "requires_payment_method")],
)
def test_end_of_one_try_inside_a_session_says_nothing_about_the_stream(
    merchant: Merchant, kind: str, status: str
) -> None:
    of_checkout = {**INTENT, "status": status, "metadata": {"payonce_number": "n1", "payonce_method": "web"}}
    assert notice(merchant, kind, of_checkout).payment is None


@pytest.mark.parametrize(
    ("kind", "inner"),
    [
        ("customer.created", {"id": "cus_1", "object": "customer", "metadata": {"payonce_number": "n1"}}),
        ("payment_intent.succeeded", {**INTENT, "metadata": {}}),
        ("payment_intent.succeeded", {**INTENT, "metadata": {"payonce_number": "n1; DROP"}}),
        ("checkout.session.completed", {**SESSION, "client_reference_id": None}),
        ("checkout.session.completed", {**SESSION, "metadata": {"payonce_number": "another"}}),
        ("refund.updated", {"id": "re_1", "object": "refund", "amount": 1, "currency": "usd", "status": "succeeded"}),
    ],
)
def test_what_states_no_number_of_ours_is_about_nothing(merchant: Merchant, kind: str, inner: dict[str, Any]) -> None:
    found = notice(merchant, kind, inner)
    assert (found.payment, found.refund) == (None, None)


@pytest.mark.parametrize(
    "changes",
    [{"amount_received": 1.5}, {"amount_received": None}, {"currency": None}, {"status": None}, {"id": "x"}],
)
def test_signed_and_unreadable_must_come_again(merchant: Merchant, changes: dict[str, Any]) -> None:
    found = read(merchant, signed(merchant, event("payment_intent.succeeded", {**INTENT, **changes})))
    assert isinstance(found, NotAuthentic)
    assert found.reason.startswith("malformed:")


@pytest.mark.parametrize(
    "header",
    ["t=1", "v1=ab", "t=,v1=ab", "t=1,t=2,v1=ab", "t=\u0661,v1=ab", "t=99999999999999999,v1=ab", "t=-1,v1=ab",
     "t=1,v1=\u00e9", "x" * 9_000, ",,,===", "t=1,v0=ab"],
)  # fmt: skip
def test_x6_odd_signature_headers_are_refused(merchant: Merchant, header: str) -> None:
    found = read(merchant, NotificationRequest(b"{}", {"stripe-signature": header}))
    assert isinstance(found, NotAuthentic)


def test_second_timestamp_cannot_replace_the_signed_one(merchant: Merchant) -> None:
    """A header with two times: the library signs over one of them, the age must not be judged by the other."""
    old = signed(merchant, event("payment_intent.succeeded", INTENT), datetime.now(UTC) - timedelta(days=2))
    now = int(datetime.now(UTC).timestamp())
    for header in (f"{old.headers['stripe-signature']},t={now}", f"t={now},{old.headers['stripe-signature']}"):
        found = read(merchant, dataclasses.replace(old, headers={"stripe-signature": header}))
        assert isinstance(found, NotAuthentic)
        assert not found.stale


def test_rolled_secret_verifies_beside_the_old_one(merchant: Merchant) -> None:
    """While a secret is rolled, Stripe signs with both."""
    message = signed(merchant, event("payment_intent.succeeded", INTENT))
    stamp, _, own = message.headers["stripe-signature"].partition(",")
    both = {"stripe-signature": f"{stamp},v1={'0' * 64},{own}"}
    assert isinstance(read(merchant, dataclasses.replace(message, headers=both)), Notice)


def test_verdicts_end_the_repeats_or_ask_for_them(merchant: Merchant) -> None:
    statuses = {verdict: merchant.channel.acknowledge(verdict).status for verdict in Verdict}
    assert statuses == {Verdict.ACCEPT: 200, Verdict.RETRY: 500, Verdict.REJECT: 401}


def test_x4_raw_evidence_holds_no_payer(merchant: Merchant) -> None:
    inner = {**SESSION, "customer_details": {"email": "ann@example.com"}, "url": "https://checkout.stripe.com/secret"}
    raw = notice(merchant, "checkout.session.completed", inner).raw
    assert "ann@example.com" not in raw
    assert "checkout.stripe.com" not in raw
