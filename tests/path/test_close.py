"""Closing a stream: only a definite answer proves it."""

import pytest

from payonce.channels.messages import CloseAnswer, CloseProof, CloseState, Known, PaymentState, PaymentView, Unknown
from payonce.orders.models import Order
from payonce.orders.place import place_order
from payonce.payments import capture, close
from payonce.payments.models import Stream
from payonce.payments.pay import PayCode, pay_order
from payonce.payments.refs import payment_ref
from tests.factories import answer_paid, apply, created_stream, pending_stream, view_of
from tests.scripted import paid_view

UNPROVED = Known(CloseAnswer(CloseState.UNPROVED))
NOT_CLOSABLE = Known(CloseAnswer(CloseState.NOT_CLOSABLE))


def test_already_paid_as_the_answer_to_a_close_is_a_success(scripted):
    """S5."""
    stream = pending_stream()
    view = paid_view(payment_ref(stream))
    scripted.answers["scripted_a", "close"].append(Known(CloseAnswer(CloseState.ALREADY_PAID, view)))
    assert close.close_stream(stream.number, by="system:test") == "paid"
    stream.refresh_from_db()
    assert (stream.state, stream.role, stream.confirmed_by) == ("SUCCEEDED", "keeper", "close")
    assert Order.objects.get(pk=stream.order_id).state == "PAID"


def test_already_paid_without_the_amount_is_asked_about(scripted):
    """S5: the amount comes from a query, never from what we hoped for."""
    stream = pending_stream()
    scripted.answers["scripted_a", "query"].append(Known(PaymentView(stream.number, PaymentState.OPEN)))
    scripted.answers["scripted_a", "close"].append(Known(CloseAnswer(CloseState.ALREADY_PAID)))
    answer_paid(stream)
    assert close.close_stream(stream.number, by="system:test") == "paid"


def test_an_accepted_close_that_proves_nothing_is_followed_by_a_query(scripted):
    stream = pending_stream()
    scripted.answers["scripted_a", "close"].append(UNPROVED)
    scripted.answers["scripted_a", "query"] += [
        Known(PaymentView(stream.number, PaymentState.OPEN)),
        Known(PaymentView(stream.number, PaymentState.CLOSED)),
    ]
    assert close.close_stream(stream.number, by="system:test") == "proven"
    stream.refresh_from_db()
    assert stream.close_proof == "query"


@pytest.mark.parametrize("answer", [UNPROVED, Unknown("time-out")])
def test_an_unproven_close_stays_closing_and_is_asked_again(scripted, answer):
    """S4."""
    stream = pending_stream()
    scripted.answers["scripted_a", "close"].append(answer)
    assert close.close_stream(stream.number, by="system:test") == "unproven"
    stream.refresh_from_db()
    assert stream.state == "CLOSING"
    assert stream.next_check_at is not None
    assert close.close_stream(stream.number, by="system:test") == "proven"


def test_a_stream_whose_buyer_has_acted_is_not_closed(scripted):
    """S16."""
    stream = pending_stream()
    apply(stream, PaymentView(stream.number, PaymentState.IN_PROGRESS))
    assert close.close_stream(stream.number, by="system:test") == "in_progress"
    assert scripted.count("close") == 0


def test_a_stream_that_was_never_handed_out_is_closed_by_our_own_restraint_and_stays_watched(scripted):
    stream = created_stream()
    scripted.answers["scripted_a", "close"].append(NOT_CLOSABLE)
    close.close_stream(stream.number, by="system:test")
    stream.refresh_from_db()
    assert (stream.state, stream.close_proof) == ("CLOSED", "restraint")
    assert stream.next_check_at is not None


def test_money_for_a_stream_closed_by_restraint_still_counts(scripted):
    """Money wins, also after CLOSED."""
    stream = created_stream()
    scripted.answers["scripted_a", "close"].append(NOT_CLOSABLE)
    close.close_stream(stream.number, by="system:test")
    assert apply(stream, view_of(stream)) == "keeper"


def test_withholding_the_capture_closes_a_stream(scripted):
    scripted.overrides["scripted_a"] = {"captures": True, "close_proof": CloseProof.RESTRAINT}
    stream = pending_stream()
    scripted.answers["scripted_a", "close"].append(NOT_CLOSABLE)
    assert close.close_stream(stream.number, by="system:test") == "proven"
    assert capture.capture_stream(stream.number) == "not_wanted"
    assert scripted.count("capture") == 0


def test_switching_waits_where_the_setting_says_so(scripted, settings):
    settings.PAYONCE = {**settings.PAYONCE, "SWITCH": {"UNPROVEN": "wait", "PROOF_SECONDS": 0}}
    stream = pending_stream()
    scripted.answers["scripted_a", "close"].append(NOT_CLOSABLE)
    result = pay_order(stream.order.number, "scripted_b", "qr")
    assert result.code is PayCode.NOT_PROVEN_CLOSED
    assert result.retry_after_seconds > 3000
    assert Stream.objects.count() == 1


def test_an_unproven_older_stream_is_recorded_as_watched_before_a_new_one_opens(scripted):
    """S3."""
    stream = pending_stream()
    scripted.answers["scripted_a", "close"].append(NOT_CLOSABLE)
    assert pay_order(stream.order.number, "scripted_b", "qr").code is PayCode.PREPAY
    stream.refresh_from_db()
    assert (stream.state, stream.is_watched) == ("CLOSING", True)


def test_at_most_three_unproven_streams_stand_beside_each_other(scripted):
    for account in ("scripted_a", "scripted_b", "scripted_c"):
        scripted.overrides[account] = {"close_proof": CloseProof.EXPIRY}
        scripted.answers[account, "close"] += [NOT_CLOSABLE] * 20
    stream = pending_stream()
    order = stream.order
    assert pay_order(order.number, "scripted_b", "qr").code is PayCode.PREPAY
    assert pay_order(order.number, "scripted_c", "qr").code is PayCode.PREPAY
    result = pay_order(order.number, "scripted_a", "qr")
    assert result.code is PayCode.TOO_MANY_UNPROVEN
    assert result.detail == min(Stream.objects.values_list("payable_until", flat=True)).isoformat()
    assert Stream.objects.count() == 3


def test_choosing_again_what_cannot_be_closed_takes_that_stream_back(scripted):
    scripted.overrides["scripted_a"] = {"not_found_before_buyer_acts": True}
    scripted.answers["scripted_a", "close"] += [NOT_CLOSABLE] * 5
    stream = pending_stream()
    order = stream.order
    assert pay_order(order.number, "scripted_b", "qr").code is PayCode.PREPAY
    again = pay_order(order.number, "scripted_a", "qr")
    assert again.code is PayCode.PREPAY
    assert Stream.objects.filter(account="scripted_b").get().state == "CLOSED"
    assert again.stream == stream.number
    stream.refresh_from_db()
    assert (stream.state, stream.is_watched) == ("PENDING", False)


def test_switching_finds_the_older_stream_paid(scripted):
    stream = pending_stream()
    answer_paid(stream)
    result = pay_order(stream.order.number, "scripted_b", "qr")
    assert (result.code, result.stream) == (PayCode.ALREADY_PAID, stream.number)
    assert Stream.objects.count() == 1


def test_what_cannot_be_closed_is_not_taken_back_for_another_amount(scripted):
    """M9, S8: after a change of the price the same choice gets a new stream, and the old one stays watched."""
    scripted.overrides["scripted_a"] = {"not_found_before_buyer_acts": True}
    scripted.answers["scripted_a", "close"] += [NOT_CLOSABLE] * 5
    old = pending_stream()
    place_order("shop", old.order.reference, amount_minor=1200, currency="CNY", subject="A book", amend=True)
    again = pay_order(old.order.number, "scripted_a", "qr")
    assert (again.code, again.amount_minor) == (PayCode.PREPAY, 1200)
    assert again.stream != old.number
    old.refresh_from_db()
    assert (old.state, old.is_watched) == ("CLOSING", True)
