"""The lock and what is done under it: which row each key finds, what is read and written when, retries, follow-ups, the shop's own code."""

from datetime import timedelta

import pytest
from django.db import InternalError, OperationalError, connection, transaction
from django.test import TestCase
from django.test.utils import CaptureQueriesContext
from psycopg.errors import DeadlockDetected, LockNotAvailable, SerializationFailure

from payonce.orders.errors import OrderNotFound
from payonce.orders.events import Journal
from payonce.orders.models import Event, Order
from payonce.payments import clock, flight, locks
from payonce.payments.errors import AlreadyOpen, InsideTransaction, StreamNotFound
from payonce.payments.flight import Statement
from payonce.payments.locks import Work, under_lock
from payonce.payments.models import Discrepancy, Refund, ShopMessage, Stream
from payonce.payments.transitions import cases, refunds, streams
from tests.clock import movable_clock
from tests.factories import apply, open_order, paid_stream, pending_stream, view_of

LOCK_TIMEOUT = Statement("SHOW lock_timeout")


@pytest.fixture
def twice_paid(scripted):
    """The surplus stream of an order that was paid twice, with its refund and its case."""
    first = pending_stream()
    second = pending_stream(first.order, "scripted_b")
    apply(second, view_of(second))
    apply(first, view_of(first))
    return Stream.objects.select_related("order").get(pk=first.pk)


def looked(**key):
    """The number of the order that a key finds, and its streams."""
    return under_lock("system:test", lambda work: (work.order.number, [row.number for row in work.streams]), **key)


def test_every_key_finds_the_order_and_all_its_streams(twice_paid):
    other = paid_stream(channel="scripted_c")
    order = twice_paid.order
    refund = Refund.objects.get(stream=twice_paid)
    expected = (order.number, [f"{order.number}s01", f"{order.number}s02"])
    for key in (
        {"order": order.number}, {"order_id": order.pk}, {"stream": twice_paid.number}, {"refund": refund.number},
        {"reference": (twice_paid.account, twice_paid.channel_reference)},
    ):  # fmt: skip
        assert looked(**key) == expected, key
    assert looked(reference=(other.account, other.channel_reference)) == (other.order.number, [other.number])


@pytest.mark.parametrize(
    "key", [{"order": "none"}, {"order_id": 0}, {"stream": "none"}, {"refund": "none"}, {"reference": ("a", "none")}]
)
def test_a_key_that_finds_nothing_is_named(transactional_db, key):
    ((name, value),) = key.items()
    with pytest.raises(OrderNotFound) as error:
        looked(**key)
    assert (name in str(error.value), str(value) in str(error.value)) == (True, True)


def test_the_opening_flight_brings_time_outs_rows_time_and_what_was_asked_besides(scripted, settings):
    """L6: the limits end with the transaction. The time is the database's, read after the lock was granted."""
    settings.PAYONCE = {
        **settings.PAYONCE,
        "LOCK_TIMEOUT_MS": 1234,
        "STATEMENT_TIMEOUT_MS": 2345,
        "IDLE_TIMEOUT_MS": 3456,
    }
    stream = pending_stream()
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    extra = tuple(Statement(f"SHOW {name}") for name in names)
    clock._last = None

    def look(work):
        (row,) = work.streams
        assert row.order is work.order
        assert clock._last[0] == work.at == work.journal.at
        assert work.journal.by == "system:test"
        return work.extra, work.at

    with movable_clock() as moved:
        before = clock.read_now()
        moved.advance(timedelta(days=1))
        found, at = under_lock("system:test", look, extra=extra, stream=stream.number)
    assert timedelta(days=1) <= at - before < timedelta(days=1, minutes=5)
    assert found == [[("1234ms",)], [("2345ms",)], [("3456ms",)]]
    assert flight.fly([LOCK_TIMEOUT], "default") == [[("0",)]]


def test_refunds_and_unresolved_cases_are_read_once_when_they_are_needed(twice_paid):
    """M2: they are locked, and read after the order's lock was granted."""
    first = Discrepancy.objects.get()
    other = paid_stream(channel="scripted_c")
    apply(other, view_of(other, disputed_minor=5))

    def look(work):
        assert (work._refunds, work._cases, work.has_refunds) == (None, None, False)
        (row,), (case,) = work.refunds, work.cases
        assert (row.stream_id, case.pk, work.has_refunds) == (twice_paid.pk, first.pk, True)
        assert (work.refunds[0] is row, work.cases[0] is case) == (True, True)
        assert (work.refund(row.number) is row, work.stream_of(row).pk) == (True, twice_paid.pk)
        cases.resolve(work, case, "keep", "ann")

    under_lock("system:test", look, order=twice_paid.order.number)
    assert under_lock("system:test", lambda work: work.cases, order=twice_paid.order.number) == []
    assert under_lock("system:test", lambda work: (work.refunds, work.has_refunds), order=other.order.number) == (
        [],
        False,
    )


def test_a_stream_is_found_by_its_number_and_one_of_another_order_is_not(twice_paid):
    other = pending_stream(channel="scripted_c")

    def look(work):
        assert work.stream(twice_paid.number).pk == twice_paid.pk
        with pytest.raises(StreamNotFound, match=other.number):
            work.stream(other.number)

    under_lock("system:test", look, order=twice_paid.order.number)


def plain_work(**fields):
    order = Order(pk=1, number="po1", amount_minor=1000, currency="CNY")
    return Work("default", order, [], Journal(None, "system:test"), **fields)


def test_the_open_stream_is_the_one_that_the_buyer_may_be_paying():
    """S3"""
    work = plain_work()
    for state in ("CLOSING", "CLOSED", "FAILED", "SUCCEEDED"):
        work.streams.append(Stream(state=state))
    assert work.open_stream is None
    for state in ("CREATED", "PENDING", "PROCESSING", "CAPTURING"):
        row = Stream(state=state)
        work.streams.append(row)
        assert work.open_stream is row
        work.streams.remove(row)


def test_a_new_row_is_inserted_with_the_rest_and_seen_by_who_looks_next():
    """M2, M3: a second decision in the same work counts what the first one added."""
    work = plain_work(_refunds=[], _cases=[])
    rows = [Refund(), Discrepancy(order=work.order), Discrepancy(), ShopMessage(), Stream(order=work.order)]
    for row in rows:
        work.add(row)
    assert work.new == rows
    assert (work.refunds, work.cases, work.streams) == (rows[:1], rows[1:2], [])


def surplus_row(work, number, **fields):
    fixed = {
        "order": work.order, "attempt": 9, "account": "scripted_a", "method": "qr", "amount_minor": 5, "currency": "CNY",
        "payable_until": work.at, "created_at": work.at, "origin_number": "other", "confirmed_by": "poll",
    }  # fmt: skip
    return Stream(number=number, **{**fixed, **fields})


def test_a_row_that_others_point_at_is_inserted_at_once_with_all_that_changed_before(scripted):
    """S3, M2: its id is known, what changes afterwards is written at the end, and it is the order's from then on."""
    stream = pending_stream()

    def decide(work):
        (old,) = work.streams
        streams.start_closing(work, old, "test")
        row = surplus_row(work, "po-new", state="CREATED")
        row._state.db = "where the shop's router would look"
        work.add_now(row)  # the index lets one be open: the closing of the old one must travel along, first
        assert flight.fly([Statement("SELECT state FROM payonce_stream WHERE id = %s", [old.pk])], "default") == [
            [("CLOSING",)]
        ]
        assert (row._state.adding, row._state.db, row.pk > old.pk) == (False, "default", True)
        assert work.streams == [old, row]
        assert flight.update(row) is None
        row.failure_code = "later"
        return row.pk

    key = under_lock("system:test", decide, order=stream.order.number)
    assert Stream.objects.get(pk=key).failure_code == "later"
    assert Stream.objects.count() == 2


def test_a_refund_that_was_inserted_at_once_is_one_of_the_orders_refunds(twice_paid):
    """M2"""

    def decide(work):
        stream = work.stream(twice_paid.number)
        (old,) = work.refunds
        refunds.decline(work, old, "ann", "test")
        row = Refund(
            number="po-r2", stream=stream, purpose="surplus", sequence=2, amount_minor=10, currency="CNY", reason="late",
            requested_by="payonce", created_at=work.at,
        )  # fmt: skip
        assert refunds.reserve(work, stream, row, "REQUESTED") == "moved"
        assert (work.refunds, work.streams.count(row)) == ([old, row], 0)
        return row.pk, stream.refund_reserved_minor

    key, reserved_minor = under_lock("system:test", decide, order=twice_paid.order.number)
    assert (Refund.objects.get(number="po-r2").pk, reserved_minor) == (key, 10)
    twice_paid.refresh_from_db()
    assert twice_paid.refund_reserved_minor == 10


def test_everything_is_written_in_one_flight_and_nothing_twice(twice_paid, monkeypatch):
    """S10: changed rows, the event, the message that it owes, and raw statements; a second flush has nothing to do."""
    flights = []
    fly = flight.fly
    monkeypatch.setattr(
        flight, "fly", lambda statements, using: flights.append(len(statements)) or fly(statements, using)
    )

    def decide(work):
        work.streams[0].last_answer = "new"
        work.refunds[0].note = "new"
        work.cases[0].note = "new"
        work.order.close_reason = "new"
        work.journal.write(work.order, "case.opened", subject="x")
        work.raw.append(Statement("UPDATE payonce_stream SET failure_code = 'raw'"))
        flights.clear()
        work.flush()
        assert flights == [7], "four rows, an event, a message, a raw one"
        work.flush()
        assert flights == [7]

    before = ShopMessage.objects.count()
    under_lock("system:test", decide, order=twice_paid.order.number)
    twice_paid.order.refresh_from_db()
    written = (
        Stream.objects.filter(last_answer="new").count(), Refund.objects.get().note, Discrepancy.objects.get().note,
        twice_paid.order.close_reason, Stream.objects.filter(failure_code="raw").count(), ShopMessage.objects.count() - before,
    )  # fmt: skip
    assert written == (1, "new", "new", "new", 2, 1)


def test_a_stream_may_open_again_in_the_work_that_closes_the_newer_one(scripted):
    """S3: at most one is open at any moment, also between two statements of one flight."""
    older = pending_stream()
    newer = pending_stream(older.order, "scripted_b")
    Stream.objects.filter(pk=older.pk).update(state="CLOSING")

    def decide(work):
        first, second = work.streams
        assert (first.pk, second.pk) == (older.pk, newer.pk)
        assert streams.start_closing(work, second, "test") == "moved"
        assert streams.take_back(work, first) == "moved"

    under_lock("system:test", decide, order=older.order.number)
    assert [row.state for row in Stream.objects.order_by("pk")] == ["PENDING", "CLOSING"]


def test_a_look_writes_nothing(scripted):
    order = open_order()
    with CaptureQueriesContext(connection), movable_clock():
        version = Order.objects.get().version
        under_lock("system:test", lambda work: None, order=order.number)
    assert (Order.objects.get().version, Event.objects.count()) == (version, 1)


def test_amending_writes_its_streams_alone(scripted, monkeypatch):
    """The caller of an amendment writes the order and the events itself."""
    stream = pending_stream()
    with transaction.atomic():
        order = Order.objects.select_for_update().get()
        work = locks.in_callers_transaction(order, Journal(clock.read_now(), "system:test"))
        (row,) = work.streams
        assert (row.pk, work.order is order, work.using) == (stream.pk, True, "default")
        row.last_answer = "new"
        order.close_reason = "not ours to write"
        work.write_streams()
        monkeypatch.setattr(flight, "fly", lambda *_: pytest.fail("nothing has changed since"))
        work.write_streams()
    stream.refresh_from_db()
    stream.order.refresh_from_db()
    assert (stream.last_answer, stream.order.close_reason) == ("new", "")


class Failing:
    """A decision that fails so often before it succeeds."""

    def __init__(self, times, cause):
        self.times = times
        self.cause = cause
        self.tries = 0

    def __call__(self, work):
        self.tries += 1
        if self.tries <= self.times:
            raise OperationalError("not now") from self.cause
        return "done"


@pytest.mark.parametrize("cause", [DeadlockDetected("x"), SerializationFailure("x")])
def test_a_deadlock_is_retried_twice_and_no_more(scripted, cause):
    """A retry reads back first: nothing of the failed try was committed."""
    order = open_order()
    decide = Failing(2, cause)
    assert under_lock("system:test", decide, order=order.number) == "done"
    assert decide.tries == 3
    endless = Failing(99, cause)
    with pytest.raises(OperationalError):
        under_lock("system:test", endless, order=order.number)
    assert endless.tries == 3


@pytest.mark.parametrize("cause", [LockNotAvailable("x"), None, RuntimeError("x")])
def test_any_other_error_is_not_retried(scripted, cause):
    """S7: after a lost connection the commit may have happened."""
    decide = Failing(1, cause)
    with pytest.raises(OperationalError, match="not now"):
        under_lock("system:test", decide, order=open_order().number)
    assert decide.tries == 1


def test_a_violated_constraint_is_a_domain_error_and_undoes_everything(scripted):
    """S3"""
    stream = pending_stream()

    def decide(work):
        work.journal.write(work.order, "test.event")
        work.add(surplus_row(work, "po-new", state="CREATED"))

    events = Event.objects.count()
    with pytest.raises(AlreadyOpen):
        under_lock("system:test", decide, order=stream.order.number)
    assert (Stream.objects.count(), Event.objects.count()) == (1, events)


def test_follow_ups_run_in_order_after_the_commit_and_one_that_fails_stops_no_other(scripted, caplog):
    """S7: what follows a commit may be lost; a sweep finds it."""
    order, ran = open_order(), []

    def decide(work):
        work.journal.write(work.order, "test.event")
        work.after_commit(lambda: ran.append((connection.in_atomic_block, Event.objects.count())))
        work.after_commit(lambda: ran.append(1 // 0))
        work.after_commit(lambda: ran.append("last"))
        return "answer"

    assert under_lock("system:test", decide, order=order.number) == "answer"
    assert ran == [(False, 2), "last"]
    assert "a sweep will do it" in caplog.text


def test_no_follow_up_runs_for_what_was_undone(scripted):
    ran = []

    def decide(work):
        work.after_commit(lambda: ran.append("undone"))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        under_lock("system:test", decide, order=open_order().number)
    assert ran == []


def settle_with(hook):
    """A decision that records an order's payment and lets the shop do something in the same transaction."""

    def decide(work):
        decide.seen.append(work.ran_hooks)
        work.journal.write(work.order, "test.event")
        paid = work.journal.write(work.order, "order.paid", subject="s")
        assert paid is None or paid.kind == "order.paid"
        if work.ran_hooks is not None:
            work.hooks.append(hook)
        return "recorded"

    decide.seen = []
    return decide


def test_the_shop_is_told_of_the_payment_inside_the_transaction(scripted):
    """S11"""
    order, told = open_order(), []

    def hook(event):
        told.append((event.kind, event.order, event.sequence, connection.in_atomic_block, Event.objects.count()))

    assert under_lock("system:test", settle_with(hook), order=order.number) == "recorded"
    assert told == [("order.paid", order.number, 3, True, 3)]


def test_a_shop_that_raises_loses_its_own_work_alone(scripted, caplog):
    """S7: the money is recorded all the same."""
    order = open_order()

    def hook(event):
        Order.objects.update(subject="the shop's")
        raise ValueError("the shop's mistake")

    decide = settle_with(hook)
    assert under_lock("system:test", decide, order=order.number) == "recorded"
    order.refresh_from_db()
    assert (order.subject, Event.objects.count(), len(decide.seen)) == ("A book", 3, 1)
    assert "its own work was undone" in caplog.text


def test_a_shop_that_breaks_the_transaction_is_not_asked_again(scripted, caplog):
    """S7: the step starts again without the shop's code, and the log says whose it was."""
    order = open_order()

    def hook(event):
        with connection.cursor() as cursor:
            cursor.execute("ROLLBACK")

    decide = settle_with(hook)
    assert under_lock("system:test", decide, order=order.number) == "recorded"
    assert decide.seen == [["order_paid_in_transaction"], None]
    assert Event.objects.count() == 3
    assert "order_paid_in_transaction broke the settle" in caplog.text


def test_a_deadlock_after_the_shops_code_ran_is_retried_with_it(scripted):
    """S11: the shop's work belongs to the payment; only a shop that breaks it is left out."""
    order, told = open_order(), []

    def hook(event):
        told.append(event.kind)

    decide = settle_with(hook)
    tries = []

    def fails_once(work):
        answer = decide(work)
        if work.ran_hooks is not None and not tries:
            tries.append(1)
            work.ran_hooks.append("late_payment")
            raise OperationalError("not now") from DeadlockDetected("x")
        return answer

    assert under_lock("system:test", fails_once, order=order.number) == "recorded"
    assert (told, [seen is None for seen in decide.seen]) == (["order.paid"], [False, False])


def test_deadlocks_beside_the_shops_code_are_bounded_too(scripted):
    tries = []

    def decide(work):
        tries.append(work.ran_hooks is None)
        work.ran_hooks.append("late_payment")
        raise OperationalError("not now") from DeadlockDetected("x")

    with pytest.raises(OperationalError):
        under_lock("system:test", decide, order=open_order().number)
    assert tries == [False] * 3


def test_a_step_is_refused_inside_any_open_transaction(scripted):
    """S6"""
    assert locks.require_no_transaction() == "default"
    order = open_order()
    with transaction.atomic(), pytest.raises(InsideTransaction, match="on_commit"):
        under_lock("system:test", lambda work: None, order=order.number)
    with pytest.raises(InsideTransaction), transaction.atomic(), transaction.atomic():
        locks.require_no_transaction()


class StepsInAShopsTestCase(TestCase):
    """A shop's own tests wrap everything in transactions that Django marks as theirs."""

    def test_a_step_runs_in_djangos_test_case_but_not_inside_a_block_of_the_test(self):
        assert locks.require_no_transaction() == "default"
        with transaction.atomic(), pytest.raises(InsideTransaction):
            locks.require_no_transaction()


def test_a_block_that_django_did_not_mark_is_the_shops(transactional_db):
    """S6: what cannot be recognised is refused."""
    with transaction.atomic():
        blocks = connection.atomic_blocks
        kept = list(blocks)
        blocks[:] = [object()]
        try:
            assert locks._is_test_transaction("default") is False
        finally:
            blocks[:] = kept


@pytest.mark.django_db(transaction=True)
def test_a_transaction_without_blocks_is_nobodys_test():
    """Autocommit off, as some pools do it, is an open transaction too."""
    connection.set_autocommit(False)
    try:
        assert connection.in_atomic_block is False
        assert locks._is_test_transaction("default") is False
    finally:
        connection.rollback()
        connection.set_autocommit(True)


def test_the_days_budget_is_looked_at_by_one_at_a_time_until_the_commit(scripted):
    """M3: an advisory lock of the account, which ends with the transaction."""
    order = open_order()
    count = Statement("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")

    def decide(work):
        locks.lock_budget(work, "a")
        locks.lock_budget(work, "b")
        return flight.fly([count], "default")[0][0][0]

    assert under_lock("system:test", decide, order=order.number) == 2
    assert flight.fly([count], "default") == [[(0,)]]


def test_a_case_of_no_order_is_locked_by_its_key(transactional_db):
    case = cases.new_alone("orphan", "a", "x", "text", clock.read_now())
    case.save()
    with transaction.atomic(), CaptureQueriesContext(connection) as asked:
        assert locks.lock_case(case.pk, "default") == case
    assert "FOR UPDATE" in asked.captured_queries[-1]["sql"]
    with pytest.raises(transaction.TransactionManagementError):
        locks.lock_case(case.pk, "default")


def test_what_would_roll_back_without_a_word_is_never_told_as_done(scripted):
    """S7"""
    with pytest.raises(InternalError, match="broke the transaction"):
        under_lock("system:test", lambda work: setattr(connection, "needs_rollback", True), order=open_order().number)
