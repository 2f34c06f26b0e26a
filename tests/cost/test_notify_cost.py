"""What a notification costs, with the real sandbox's signature: the hard gates, counted on the wire."""

import pytest
from django.db import connection

from payonce.channels import registry
from payonce.channels.messages import NotificationRequest
from payonce.orders.models import Event
from payonce.payments.inbox import Received
from payonce.payments.models import Notification
from payonce.payments.notify import receive
from tests.channels.inbox import inbox
from tests.concurrency.interleave import ORDER_ROW, STREAM_ROW, held_row, new_session
from tests.factories import pending_stream


@pytest.fixture
def box(bank, settings):
    """Where the bank's notifications arrive."""
    with inbox() as received:
        received.answer = lambda _: (500, b"not yet")
        settings.PAYONCE = {**settings.PAYONCE, "BASE_URL": received.url.removesuffix("/notify/")}
        registry.reset()
        yield received


def paid(bank, box):
    """A stream that was paid at the bank, and the genuine signed notification about it."""
    stream = pending_stream(channel="blue")
    assert bank.control.pay(stream.number).ok
    message = box.next()
    while stream.number.encode() not in message.body:
        message = box.next()
    return stream, message


def warm(bank, box):
    """A process that has taken a notification before: it knows the database's time and has the channel."""
    assert receive("blue", paid(bank, box)[1]).outcome is Received.APPLIED


def test_a_notification_costs_four_round_trips_and_one_commit(bank, box, wire):
    """Look up; lock and read; write; commit. Signature, inbox row, events, message and both states included."""
    warm(bank, box)
    stream, message = paid(bank, box)
    wire.reset()
    assert receive("blue", message).outcome is Received.APPLIED
    assert (wire.turns, wire.commits) == (4, 1)
    stream.refresh_from_db()
    assert stream.role == "keeper"
    assert Notification.objects.filter(number=stream.number, state="PROCESSED").count() == 1
    assert Event.objects.filter(order=stream.order, kind="order.paid").count() == 1
    assert stream.order.messages.count() == 1


def test_a_notification_over_http_costs_no_more(bank, box, wire, client):
    """The view adds no statement: no session, no user, no transaction of its own."""
    warm(bank, box)
    _, message = paid(bank, box)
    wire.reset()
    assert post(client, message).content == b"success"
    assert (wire.turns, wire.commits) == (4, 1)


def post(client, message):
    kind = message.headers["content-type"]
    return client.post("/notify/blue/", message.body, kind, headers=dict(message.headers))


def test_a_repeated_notification_costs_one_read(bank, box, wire, client):
    """X2: one plain SELECT: it waits for no lock, and no transaction gets an id."""
    _, message = paid(bank, box)
    assert post(client, message).status_code == 200
    wire.reset()
    assert post(client, message).content == b"success"
    assert (wire.turns, wire.commits) == (1, 0)
    (only,) = wire.statements
    assert only.startswith("SELECT state FROM payonce_notification")
    assert "FOR" not in only.split("WHERE")[1]


def test_a_repeated_notification_waits_for_nobody(bank, box):
    """X2: the order and the stream are held by somebody else, and the repeat is answered all the same."""
    stream, message = paid(bank, box)
    receive("blue", message)
    with held_row(ORDER_ROW, stream.order.number), held_row(STREAM_ROW, stream.number):
        assert receive("blue", message).outcome is Received.REPEAT


def wal_bytes():
    """The write-ahead log that this test's own session has made."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid(), pg_stat_force_next_flush()")
        pid = cursor.fetchone()[0]
    with new_session() as session:
        row = session.execute("SELECT wal_bytes FROM pg_stat_get_backend_wal(%s)", [pid]).fetchone()
    return int(row[0])


def test_a_repeated_notification_writes_no_log(bank, box):
    """X2: nothing reaches the write-ahead log; the first one did."""
    if connection.pg_version < 180_000:
        pytest.skip("this PostgreSQL does not count the log of one session")
    _, message = paid(bank, box)
    before = wal_bytes()
    receive("blue", message)
    after_first = wal_bytes()
    for _ in range(3):
        receive("blue", message)
    assert before < after_first == wal_bytes()


def test_a_pooled_notification_costs_no_round_trip_more(bank, box, pooled, wire):
    """A web process's pool is free on the wire."""
    warm(bank, box)
    _, message = paid(bank, box)
    connection.close()
    wire.reset()
    assert receive("blue", message).outcome is Received.APPLIED
    assert (wire.turns, wire.commits) == (4, 1)


def test_a_forged_notification_costs_one_statement(bank, box, wire):
    """X1: one count per account and minute."""
    _, message = paid(bank, box)
    wire.reset()
    forged = NotificationRequest(message.body.replace(b"1000", b"9000"), message.headers)
    assert receive("blue", forged).outcome is Received.FORGED
    assert len(wire.statements) == 1
