"""Placing and amending at the same moment as each other, as a click, and as money."""

import pytest

from payonce.orders.errors import AmendRefused, PlaceConflict
from payonce.orders.models import Event, Order
from payonce.orders.place import Placed, place_order
from payonce.payments.flight import table_of
from payonce.payments.models import Discrepancy, Refund, Stream
from payonce.payments.pay import PayCode, pay_order
from payonce.payments.settle import Settled
from tests.concurrency.interleave import Threads, new_session, queue_at_order, wait_for_lock_waiters
from tests.concurrency.soundness import assert_sound
from tests.factories import apply, open_order, pending_stream, view_of

pytestmark = pytest.mark.concurrency


def place(reference, amount=1000, amend=False):
    return lambda: place_order("shop", reference, amount_minor=amount, currency="CNY", subject="A book", amend=amend)


def race_for_a_new_reference(*steps):
    """Let every step wait for an insert of the same reference that is then rolled back: none of them finds a row to lock."""
    template = open_order(reference="template")
    names = [name for name in table_of(Order).names if name != "id"]
    values = ", ".join({"number": "'held'", "reference": "'R-1'"}.get(name, name) for name in names)
    with new_session(autocommit=False) as session:
        session.execute(
            f"INSERT INTO payonce_order ({', '.join(names)}) SELECT {values} FROM payonce_order WHERE id = %s",
            [template.pk],
        )
        threads = Threads(steps)
        wait_for_lock_waiters(len(steps), threads)
        session.rollback()
    return threads.results()


def test_the_same_reference_placed_six_times_at_once_is_one_order(patient):
    """S9: no row can be locked before there is one: the unique constraint decides."""
    results = race_for_a_new_reference(*[place("R-1")] * 6)
    assert all(isinstance(result, Placed) for result in results), results
    assert sum(result.is_new for result in results) == 1
    assert len({result.order.pk for result in results}) == 1
    order = Order.objects.get(reference="R-1")
    assert Event.objects.filter(order=order).count() == 1
    assert_sound(order)


def test_the_same_reference_with_two_amounts_at_once_keeps_the_first(patient):
    """M9: the other one is told of the conflict; no amount changes silently."""
    results = race_for_a_new_reference(place("R-1", 1000), place("R-1", 2000))
    placed = [result for result in results if isinstance(result, Placed)]
    refused = [result for result in results if isinstance(result, PlaceConflict)]
    assert (len(placed), len(refused)) == (1, 1)
    assert Order.objects.get(reference="R-1").amount_minor == placed[0].order.amount_minor


def test_a_click_and_a_new_amount_at_once_hand_out_the_new_amount_only(no_redis):
    """M9: a stream of the old amount is watched or closed, and what the buyer gets is for the present amount."""
    order = open_order()
    clicked, amended = queue_at_order(
        order.number,
        lambda: pay_order(order.number, "scripted_a", "qr"),
        place(order.reference, 2000, amend=True),
    )
    assert isinstance(amended, Placed)
    assert amended.is_amended
    assert clicked.code in (PayCode.PREPAY, PayCode.IN_PROGRESS)
    again = pay_order(order.number, "scripted_a", "qr")
    assert (again.code, again.amount_minor) == (PayCode.PREPAY, 2000)
    stale = Stream.objects.filter(amount_minor=1000)
    assert set(stale.values_list("state", flat=True)) <= {"CLOSED", "CLOSING"}
    assert_sound(order)


def test_a_new_amount_while_the_prepay_is_in_the_air_is_not_answered_with_the_old_one(patient):
    """M9: the answer for 1000 arrives when the order asks for 2000: it is discarded and closed."""
    order = open_order()
    calls = []

    def amend_once(_):
        if not calls:
            calls.append(place(order.reference, 2000, amend=True)())

    patient.before["prepay"] = amend_once
    result = pay_order(order.number, "scripted_a", "qr")
    assert (result.code, result.amount_minor) == (PayCode.PREPAY, 2000)
    streams = [(row.amount_minor, row.state, row.handed_out_at is None) for row in Stream.objects.order_by("id")]
    assert streams == [(1000, "CLOSED", True), (2000, "PENDING", False)]
    assert result.stream == Stream.objects.get(amount_minor=2000).number
    assert_sound(order)


def test_money_and_a_new_amount_at_once(patient):
    """M9: the old amount settles the order that asked for it, or is surplus of the order that no longer does."""
    stream = pending_stream()
    order = stream.order
    paid, amended = queue_at_order(
        order.number, lambda: apply(stream, view_of(stream)), place(order.reference, 2000, amend=True)
    )
    order.refresh_from_db()
    if paid is Settled.KEEPER:
        assert isinstance(amended, AmendRefused)
        assert (order.state, order.amount_minor) == ("PAID", 1000)
    else:
        assert (paid, order.state, order.amount_minor) == (Settled.SURPLUS, "OPEN", 2000)
        assert Discrepancy.objects.get().kind == "mismatch"
        assert Refund.objects.get().amount_minor == 1000
    assert_sound(order)
