"""A lock that is not granted in time, a deadlock, a step inside a transaction: a clear error, and nothing written."""

import time

import pytest
from django.db import OperationalError, connection, transaction
from psycopg.errors import DeadlockDetected

from payonce.channels.messages import Notice
from payonce.orders.errors import PlaceConflict
from payonce.orders.models import Event, Order
from payonce.orders.place import place_order
from payonce.payments import capture, close, expire, locks, notify, poll, publish, refund, surplus, sweep
from payonce.payments.errors import InsideTransaction
from payonce.payments.inbox import Received
from payonce.payments.locks import under_lock
from payonce.payments.models import Discrepancy, Notification, Refund, Stream
from payonce.payments.pay import pay_order
from payonce.payments.settle import Settled
from payonce.payments.statuses import Decision
from tests.concurrency.interleave import (
    IDLE_IN_TRANSACTION,
    ORDER_ROW,
    STREAM_ROW,
    Threads,
    count,
    held_row,
    new_session,
    wait_for_lock_waiters,
    wait_until,
)
from tests.concurrency.soundness import assert_sound
from tests.concurrency.test_settle_races import notice_of, notification, two_pending
from tests.factories import apply, paid_stream, pending_stream, view_of

pytestmark = pytest.mark.concurrency


@pytest.fixture
def hurried(no_redis, settings):
    """A lock time-out of a fifth of a second."""
    settings.PAYONCE = {**settings.PAYONCE, "LOCK_TIMEOUT_MS": 200}
    return no_redis


class Scene:
    """A surplus stream with its refund and case, in an order that has a keeper; and what each step would do to it."""

    def __init__(self, scripted):
        self.keeper, self.surplus = two_pending(scripted)
        apply(self.keeper, view_of(self.keeper))
        apply(self.surplus, view_of(self.surplus))
        self.order = Order.objects.get()
        self.refund = Refund.objects.get()
        self.case = Discrepancy.objects.get()

    def steps(self):
        order, stream, back = self.order.number, self.surplus, self.refund.number
        return {
            "pay": lambda: pay_order(order, "scripted_a", "qr"),
            "settle": lambda: apply(stream, view_of(stream)),
            "close": lambda: close.close_stream(stream.number, by="operator:ann"),
            "close_order": lambda: expire.close_order(order, by="shop:shop"),
            "expire": lambda: expire.expire_order(order),
            "capture": lambda: capture.capture_stream(stream.number),
            "poll_one": lambda: poll.poll_stream(stream.number, by="operator:ann"),
            "request_refund": lambda: refund.request_refund(stream.number, 1, reason="duplicate", by="ann"),
            "approve": lambda: refund.approve_refund(back, "bob"),
            "decline": lambda: refund.decline_refund(back, "bob"),
            "retry": lambda: refund.retry_refund(back, "bob"),
            "write_off": lambda: refund.write_off_refund(back, "bob"),
            "run_refund": lambda: refund.run_refund(back),
            "decide": lambda: surplus.decide_case(self.case.pk, Decision.KEEP, "bob"),
        }

    def written(self):
        return (
            list(Order.objects.values()), list(Stream.objects.values()), list(Refund.objects.values()),
            list(Discrepancy.objects.values()), Event.objects.count(),
        )  # fmt: skip


STEPS = (
    "pay", "settle", "close", "close_order", "expire", "capture", "poll_one", "request_refund", "approve", "decline", "retry",
    "write_off", "run_refund", "decide",
)  # fmt: skip


def test_every_step_gives_up_at_a_held_order_within_the_time_out(hurried):
    """L6: a clear error, nothing written, no channel called, no transaction left open."""
    scene = Scene(hurried)
    assert set(scene.steps()) == set(STEPS)
    before, calls = scene.written(), len(hurried.calls)
    with held_row(ORDER_ROW, scene.order.number):
        for name, step in scene.steps().items():
            begun = time.monotonic()
            with pytest.raises(OperationalError, match="lock timeout"):
                step()
            assert time.monotonic() - begun < 8, name  # the statement's own limit is longer
    assert scene.written() == before
    assert len(hurried.calls) == calls
    assert count(IDLE_IN_TRANSACTION) == 0
    assert_sound(scene.order)


def test_placing_and_amending_give_up_at_a_held_order(hurried):
    """L6: also the step that the shop may call in its own transaction."""
    order = pending_stream().order
    with held_row(ORDER_ROW, order.number), pytest.raises(OperationalError, match="lock timeout"):
        place_order("shop", order.reference, amount_minor=5, currency="CNY", subject="A book", amend=True)
    order.refresh_from_db()
    assert order.amount_minor == 1000


def test_a_notification_for_a_held_order_is_stored_alone_and_applied_later(hurried, clock):
    """S7, L6: it cannot be applied in time: it commits as received, is acknowledged, and a sweep applies it."""
    stream = pending_stream()
    hurried.notice = notice_of(stream)
    with held_row(ORDER_ROW, stream.order.number):
        result = notify.receive("scripted_a", notification())
        assert (result.outcome, result.answer.status) == (Received.STORED, 200)
        assert Notification.objects.get().state == "RECEIVED"
    clock.advance(5)
    assert sweep.sweep_inbox() == 1
    stream.order.refresh_from_db()
    assert stream.order.state == "PAID"
    assert_sound(stream.order)


def test_a_deadlock_is_retried_and_the_decision_made_again(patient, caplog):
    """The database chose our step as the victim: it starts again from the lock and comes to the same end."""
    stream = pending_stream()
    caplog.set_level("INFO", logger="payonce.locks")
    with new_session(autocommit=False) as other:
        other.execute("SET LOCAL deadlock_timeout = '60s'")
        other.execute(STREAM_ROW, [stream.number])
        threads = Threads([lambda: apply(stream, view_of(stream))])
        wait_for_lock_waiters(1, threads)  # it holds the order's row and waits for the stream's
        other.execute(ORDER_ROW, [stream.order.number])  # granted when the database ends the step's first try
        other.commit()
    assert threads.results() == [Settled.KEEPER]
    assert "retrying after DeadlockDetected" in caplog.text
    assert_sound(stream.order)


def test_deadlocks_are_retried_a_bounded_number_of_times(patient):
    """A step that never gets through raises, and wrote nothing."""
    stream = pending_stream()
    tries = []

    def decide(work):
        tries.append(work.order.version)
        work.journal.write(work.order, "test.event")
        work.flush()
        raise OperationalError("deadlock detected") from DeadlockDetected("deadlock detected")

    with pytest.raises(OperationalError):
        under_lock("system:test", decide, stream=stream.number)
    assert len(tries) == locks.TRIES == 3
    assert len(set(tries)) == 1
    assert_sound(stream.order)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_inside_a_transaction_is_refused(patient, name):
    """S6: the channel may only be called about committed rows, and the error says what to do."""
    scene = Scene(patient)
    before, calls = scene.written(), len(patient.calls)
    with transaction.atomic(), pytest.raises(InsideTransaction, match="transaction"):
        scene.steps()[name]()
    assert scene.written() == before
    assert len(patient.calls) == calls


def test_a_notification_inside_a_transaction_is_not_acknowledged(patient):
    """S7: what is stored in somebody's open transaction is not durable."""
    stream = pending_stream()
    patient.notice = notice_of(stream)
    with transaction.atomic(), pytest.raises(InsideTransaction):
        notify.receive("scripted_a", notification())
    assert not Notification.objects.exists()


def test_pollers_and_publishers_inside_a_transaction_are_refused(patient, clock):
    """S6: their claim would be undone after the calls were made."""
    pending_stream()
    paid_stream()
    clock.advance(60)
    asked = len(patient.calls)
    for step in (poll.poll_due, publish.deliver_due):
        with transaction.atomic(), pytest.raises(InsideTransaction):
            step()
    assert len(patient.calls) == asked


def test_placing_inside_the_shops_transaction_leaves_it_its_own_time_outs(patient):
    """The shop's transaction may wait longer than ours, before and after; also when the order is refused."""

    def shown() -> list[str]:
        names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
        with connection.cursor() as cursor:
            return [cursor.execute(f"SHOW {name}").fetchone()[0] for name in names]

    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = '7min'")
        before = shown()
        for amount, amend in ((5, False), (5, False), (6, True)):
            place_order("shop", "T-2", amount_minor=amount, currency="CNY", subject="A book", amend=amend)
            assert shown() == before
        with pytest.raises(PlaceConflict), transaction.atomic():
            place_order("shop", "T-2", amount_minor=9, currency="CNY", subject="A book")
        assert shown() == before


def test_placing_inside_the_shops_transaction_is_allowed_and_undone_with_it(patient):
    """S7: the shop's order and ours commit together."""
    with transaction.atomic():
        placed = place_order("shop", "T-1", amount_minor=5, currency="CNY", subject="A book")
        assert placed.is_new
        transaction.set_rollback(True)
    assert not Order.objects.exists()


def test_no_channel_is_ever_called_with_a_transaction_open(no_redis, clock):
    """S6, L6: through the whole story: pay, switch, close, poll, settle, refund, notify, expire."""
    seen = []

    def look(what):
        seen.append(what)
        assert connection.in_atomic_block is False
        assert count(IDLE_IN_TRANSACTION) == 0

    for operation in ("prepay", "query", "close", "refund", "query_refund", "capture"):
        no_redis.before[operation] = look
    first, second = two_pending(no_redis)
    clock.advance(5)
    poll.poll_due()
    apply(first, view_of(first))
    view = view_of(second)
    no_redis.notice = lambda request: Notice(dedupe_key="n-2", event="paid", sent_at=None, payment=view)
    assert notify.receive("scripted_b", notification()).answer.status == 200
    assert sweep.sweep_refund() == 1
    late = pending_stream()
    clock.advance(2 * 3600)
    sweep.sweep_expire()
    late.order.refresh_from_db()
    assert late.order.state == "CLOSED"
    assert Refund.objects.get().state == "SUCCEEDED"
    assert len(seen) >= 6
    assert_sound(first.order, late.order)


def test_a_step_leaves_no_time_out_behind_on_the_shops_connection(patient):
    """The connection is the shop's: what a step sets ends with its transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        before = cursor.fetchone()
        pending_stream()
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == before


def test_a_backend_that_was_ended_while_it_waited_is_an_error_and_not_a_payment(patient):
    """S1: the connection is lost at the lock: nothing was written, and the next try settles."""
    stream = pending_stream()
    terminate = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with held_row(ORDER_ROW, stream.order.number):
        threads = Threads([lambda: apply(stream, view_of(stream))])
        wait_for_lock_waiters(1, threads)
        assert count(terminate) == 1
        wait_until(lambda: bool(threads.ended()), "the step's end")
    assert isinstance(threads.results()[0], OperationalError)
    assert apply(stream, view_of(stream)) is Settled.KEEPER
    assert_sound(stream.order)
