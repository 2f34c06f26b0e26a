"""Settling: one keeper, and every other money is surplus with a case and at most one refund."""

from datetime import timedelta

import pytest

from payonce.channels.messages import CloseAnswer, CloseState, Known
from payonce.orders.models import Order
from payonce.orders.place import place_order
from payonce.payments import close, expire
from payonce.payments.locks import under_lock
from payonce.payments.models import Discrepancy, Refund, Stream
from payonce.payments.pay import pay_order
from payonce.payments.surplus import Decided, decide_case
from tests.factories import apply, open_order, paid_stream, pending_stream, view_of

NOT_CLOSABLE = Known(CloseAnswer(CloseState.NOT_CLOSABLE))


def two_open_ways(scripted) -> tuple[Stream, Stream]:
    """An order with a watched older stream and a pending newer one."""
    scripted.answers["scripted_a", "close"] += [NOT_CLOSABLE] * 5
    older = pending_stream()
    newer = pending_stream(older.order, "scripted_b")
    older.refresh_from_db()
    return older, newer


def late_stream(scripted, paid_after_seconds: float) -> tuple[Stream, object]:
    """A stream of an expired order, and a success of it paid that long after the order was placed."""
    order = open_order()
    stream = pending_stream(order)
    Order.objects.filter(pk=order.pk).update(expires_at=order.created_at + timedelta(seconds=1))
    assert expire.close_order(order.number, by="system:test") == "closed"
    return stream, view_of(stream, at=order.created_at + timedelta(seconds=paid_after_seconds))


def test_first_success_keeps_and_second_success_is_surplus(scripted):
    """M3, M4."""
    older, newer = two_open_ways(scripted)
    assert apply(older, view_of(older)) == "keeper"
    newer.refresh_from_db()
    assert newer.state == "CLOSING"
    assert apply(newer, view_of(newer)) == "surplus"
    newer.refresh_from_db()
    order = Order.objects.get()
    assert (order.state, order.keeper) == ("PAID", older.number)
    assert (newer.role, newer.surplus_reason) == ("surplus", "duplicate")
    refund = Refund.objects.get()
    assert (refund.stream, refund.amount_minor, refund.number) == (newer, 1000, f"{newer.number}rs1")
    case = Discrepancy.objects.get()
    assert (case.kind, case.state, case.refund) == ("duplicate", "REPAIRING", refund)


def test_a_repeat_is_the_same_stream_and_reference(scripted):
    stream = paid_stream()
    assert apply(stream, view_of(stream)) == "repeat"
    assert not Refund.objects.exists()
    assert not Discrepancy.objects.exists()


def test_another_reference_under_the_same_number_is_adopted_and_refunded_by_its_reference(scripted):
    stream = paid_stream()
    assert apply(stream, view_of(stream, reference="second")) == "surplus"
    assert apply(stream, view_of(stream, reference="second")) == "repeat"
    adopted = Stream.objects.exclude(pk=stream.pk).get()
    assert (adopted.role, adopted.surplus_reason, adopted.channel_reference) == ("surplus", "second_capture", "second")
    assert adopted.channel_number == stream.number
    assert Refund.objects.get().stream == adopted


@pytest.mark.parametrize(
    ("changes", "is_refunded"),
    [({"paid_minor": 999}, True), ({"paid_minor": 1001}, True), ({"currency": "EUR"}, False)],
)
def test_mismatched_money_never_settles(scripted, changes, is_refunded):
    """S1: recorded, a case, and a wrong currency is never refunded automatically."""
    stream = pending_stream()
    assert apply(stream, view_of(stream, **changes)) == "surplus"
    stream.refresh_from_db()
    assert (stream.state, stream.surplus_reason) == ("SUCCEEDED", "mismatched")
    assert Order.objects.get().state == "OPEN"
    assert Discrepancy.objects.get().kind == "mismatch"
    assert Refund.objects.exists() == is_refunded


def test_money_reported_by_another_account_changes_nothing_but_opens_a_case(scripted):
    stream = pending_stream()
    assert apply(stream, view_of(stream), account="scripted_b") == "wrong_account"
    stream.refresh_from_db()
    assert stream.state == "PENDING"
    assert Discrepancy.objects.get().kind == "mismatch"
    assert not Refund.objects.exists()


def test_a_payment_of_the_old_amount_never_settles_the_amended_order(scripted):
    """M9."""
    stream = pending_stream()
    order = stream.order
    place_order("shop", order.reference, amount_minor=2000, currency="CNY", subject="A book", amend=True)
    stream.refresh_from_db()
    assert (stream.state, stream.is_watched) == ("CLOSING", True)
    assert apply(stream, view_of(stream)) == "surplus"
    order.refresh_from_db()
    assert (order.state, order.amount_minor) == ("OPEN", 2000)
    assert Refund.objects.get().amount_minor == 1000


def test_late_money_is_given_back(scripted):
    stream, view = late_stream(scripted, paid_after_seconds=100)
    assert apply(stream, view) == "surplus"
    assert Order.objects.get().state == "CLOSED"
    assert Discrepancy.objects.get().kind == "late_payment"
    assert Refund.objects.get().amount_minor == 1000


def test_money_paid_in_time_but_learnt_late_is_for_a_person(scripted):
    stream, view = late_stream(scripted, paid_after_seconds=0)
    assert apply(stream, view) == "surplus"
    assert not Refund.objects.exists()
    case = Discrepancy.objects.get()
    assert (case.kind, case.state) == ("late_payment", "OPEN")
    assert decide_case(case.pk, "accept", "alice") is Decided.DONE
    order = Order.objects.get()
    stream.refresh_from_db()
    assert (order.state, order.keeper, stream.role) == ("PAID", stream.number, "keeper")
    case.refresh_from_db()
    assert (case.state, case.decision, case.decided_by) == ("RESOLVED", "accept", "alice")


def test_a_shop_that_accepts_late_money_makes_it_the_keeper(scripted, settings):
    settings.PAYONCE = {**settings.PAYONCE, "LATE_PAYMENT": "ACCEPT"}
    stream, view = late_stream(scripted, paid_after_seconds=100)
    assert apply(stream, view) == "keeper"
    assert Order.objects.get().state == "PAID"


def test_a_failing_late_payment_hook_means_a_person(scripted, settings):
    settings.PAYONCE = {**settings.PAYONCE, "SHOP": "tests.shops.RaisingShop"}
    stream, view = late_stream(scripted, paid_after_seconds=100)
    assert apply(stream, view) == "surplus"
    assert not Refund.objects.exists()
    assert Discrepancy.objects.get().state == "OPEN"


def test_money_during_closing_settles_the_order(scripted):
    order = open_order()
    stream = pending_stream(order)
    scripted.answers["scripted_a", "close"] += [NOT_CLOSABLE]
    under_lock("system:test", lambda work: _closing(work), order=order.number)
    assert apply(stream, view_of(stream)) == "keeper"


def _closing(work):
    from payonce.orders import transitions

    transitions.start_closing(work.order, work.journal, "cancelled")


def test_money_returned_outside_payonce_opens_a_case(scripted):
    stream = paid_stream()
    apply(stream, view_of(stream, refunded_minor=300))
    case = Discrepancy.objects.get()
    assert (case.kind, case.amount_minor) == ("outside_refund", 300)


def test_a_dispute_opens_a_case(scripted):
    stream = paid_stream()
    apply(stream, view_of(stream, disputed_minor=1000))
    assert Discrepancy.objects.get().kind == "dispute"


def test_money_after_a_proven_close_still_pays_the_order(scripted):
    """Money wins: the channel's proof was wrong, the money is real."""
    stream = pending_stream()
    close.close_stream(stream.number, by="system:test")
    assert apply(stream, view_of(stream)) == "keeper"


def test_an_order_in_flight_elsewhere_is_not_paid_twice_after_a_late_keeper(scripted):
    older, newer = two_open_ways(scripted)
    apply(newer, view_of(newer))
    assert pay_order(newer.order.number, "scripted_c", "qr").code == "already_paid"
    older.refresh_from_db()
    assert older.state == "CLOSING"
    assert apply(older, view_of(older)) == "surplus"


def test_money_paid_after_the_shop_cancelled_is_late_also_before_the_expiry(scripted):
    order = open_order()
    stream = pending_stream(order)
    expire.close_order(order.number, by="shop:shop")
    order.refresh_from_db()
    assert apply(stream, view_of(stream, at=order.closed_at + timedelta(seconds=5))) == "surplus"
    assert Refund.objects.exists()


def test_money_that_names_another_merchant_changes_nothing_but_opens_a_case(scripted, settings):
    """X1: truly signed, and not for us."""
    own = {"adapter": "tests.scripted.ScriptedChannel", "merchant": "M-1"}
    settings.PAYONCE = {**settings.PAYONCE, "CHANNELS": {"scripted_a": own}}
    stream = pending_stream()
    assert apply(stream, view_of(stream, merchant="M-2")) == "wrong_account"
    assert Discrepancy.objects.get().kind == "mismatch"
    assert apply(stream, view_of(stream, merchant="M-1")) == "keeper"
