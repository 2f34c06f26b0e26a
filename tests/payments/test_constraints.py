"""What the database itself refuses, whatever the code does: each constraint is met by a statement that breaks it and no other rule."""

import pytest
from django.db import IntegrityError, connection, transaction

from payonce.orders.models import Order
from payonce.payments.constraints import constraint_of
from payonce.payments.models import Refund, Stream
from payonce.payments.refund import request_refund
from tests.factories import apply, open_order, paid_stream, pending_stream, view_of


def refused(sql, *params):
    """The name of the constraint that refuses the statement."""
    with pytest.raises(IntegrityError) as error, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql, params)
    return constraint_of(error.value)


def two_streams():
    """Two streams of one order, the older one closed."""
    first = pending_stream()
    second = pending_stream(first.order, "scripted_b")
    first.refresh_from_db()
    assert (first.state, second.state) == ("CLOSED", "PENDING")
    return first, second


def keeper_and_surplus():
    """An order that was paid twice."""
    first, second = two_streams()
    apply(second, view_of(second))
    apply(first, view_of(first))
    return Stream.objects.get(pk=second.pk), Stream.objects.get(pk=first.pk)


def test_a_second_open_stream_of_an_order(scripted):
    """S3"""
    first, _second = two_streams()
    for state in ("CREATED", "PENDING", "PROCESSING", "CAPTURING"):
        sql = "UPDATE payonce_stream SET state = %s WHERE id = %s"
        assert refused(sql, state, first.pk) == "payonce_stream_one_open"


def test_the_same_attempt_twice(scripted):
    """S3"""
    first, second = two_streams()
    sql = "UPDATE payonce_stream SET attempt = %s WHERE id = %s"
    assert refused(sql, second.attempt, first.pk) == "payonce_stream_attempt"


def test_a_second_keeper_of_an_order(scripted):
    """M4"""
    _keeper, surplus = keeper_and_surplus()
    sql = "UPDATE payonce_stream SET role = 'keeper', surplus_reason = '' WHERE id = %s"
    assert refused(sql, surplus.pk) == "payonce_stream_one_keeper"


def test_another_keeper_of_a_paid_order(scripted):
    """M4"""
    keeper, surplus = keeper_and_surplus()
    sql = "UPDATE payonce_order SET keeper = %s WHERE id = %s"
    assert refused(sql, surplus.number, keeper.order_id) == "payonce_order_keeper_fixed"
    assert refused(sql, None, keeper.order_id) == "payonce_order_keeper_fixed"
    assert Order.objects.get().keeper == keeper.number


def test_one_channel_reference_for_two_streams(scripted):
    """M7"""
    keeper, surplus = keeper_and_surplus()
    sql = "UPDATE payonce_stream SET channel_reference = %s, account = %s WHERE id = %s"
    assert refused(sql, keeper.channel_reference, keeper.account, surplus.pk) == "payonce_stream_reference"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("captured_minor = captured_minor - 1", "payonce_stream_keeper_match"),
        ("captured_currency = 'EUR'", "payonce_stream_keeper_match"),
        ("amount_minor = 0, role = 'surplus', surplus_reason = 'duplicate'", "payonce_stream_amount"),
        ("state = 'PENDING'", "payonce_stream_money"),
        ("role = ''", "payonce_stream_money"),
        ("surplus_reason = 'duplicate'", "payonce_stream_surplus"),
        ("refund_reserved_minor = 1001", "payonce_stream_reserved"),
        ("refund_reserved_minor = -1", "payonce_stream_reserved"),
    ],
)
def test_a_keepers_row_that_cannot_be(scripted, change, name):
    """S1, M2: a keeper's money is that of its stream, and no more is reserved than was captured."""
    assert refused(f"UPDATE payonce_stream SET {change} WHERE id = %s", paid_stream().pk) == name


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("state = 'SUCCEEDED'", "payonce_stream_money"),
        ("captured_minor = 1000", "payonce_stream_money"),
        ("role = 'keeper', captured_minor = amount_minor, captured_currency = currency", "payonce_stream_money"),
        ("state = 'LOST'", "payonce_stream_state"),
    ],
)
def test_an_unpaid_streams_row_that_cannot_be(scripted, change, name):
    """S1: money and SUCCEEDED come together or not at all."""
    assert refused(f"UPDATE payonce_stream SET {change} WHERE id = %s", pending_stream().pk) == name


def asked_refund(amount=400):
    stream = paid_stream()
    return Refund.objects.get(number=request_refund(stream.number, amount, reason="duplicate", by="ann").number)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("approved_by = requested_by", "payonce_refund_two_persons"),
        ("amount_minor = 0", "payonce_refund_amount"),
        ("sequence = 0", "payonce_refund_amount"),
        ("is_released = true", "payonce_refund_released"),
        ("state = 'LOST'", "payonce_refund_state"),
    ],
)
def test_a_refunds_row_that_cannot_be(scripted, change, name):
    """S15, M2, M8"""
    assert refused(f"UPDATE payonce_refund SET {change} WHERE id = %s", asked_refund().pk) == name


COPY = """
INSERT INTO payonce_refund (number, stream_id, purpose, sequence, amount_minor, currency, state, is_released, reason, note,
    requested_by, approved_by, channel_reference, created_at, open_call_count, try_count, call_lease, last_answer)
SELECT number || 'x', stream_id, purpose, %s, amount_minor, currency, %s, false, reason, note, requested_by, '', '', created_at, 0, 0,
    '', '' FROM payonce_refund WHERE id = %s
"""


def test_two_refunds_of_a_stream_at_once_and_a_number_used_twice(scripted):
    """M6"""
    refund = asked_refund()
    for state in ("AWAITING_APPROVAL", "REQUESTED", "SUBMITTED", "UNKNOWN", "ATTENTION"):
        assert refused(COPY, refund.sequence + 1, state, refund.pk) == "payonce_refund_one_active"
    assert refused(COPY, refund.sequence, "SUCCEEDED", refund.pk) == "payonce_refund_sequence"


def test_a_notification_and_an_open_case_are_kept_once(scripted):
    """X2, M3"""
    order = open_order()
    notification = (
        "INSERT INTO payonce_notification (account, dedupe_key, state, event, number, result, count, headers, body, parsed,"
        " received_at, try_count, error) VALUES ('a', 'k', 'PROCESSED', '', '', '', 1, '', '', '', now(), 0, '')"
    )
    case = (
        "INSERT INTO payonce_discrepancy (kind, account, subject, state, order_id, amount_minor, currency, summary, evidence, note,"
        " decision, decided_by, opened_at) VALUES ('duplicate', 'a', 's', 'OPEN', %s, 1, 'CNY', '', '', '', '', '', now())"
    )
    with connection.cursor() as cursor:
        cursor.execute(notification)
        cursor.execute(case, [order.pk])
    assert refused(notification) == "payonce_notification_once"
    assert refused(case, order.pk) == "payonce_case_one_open"
