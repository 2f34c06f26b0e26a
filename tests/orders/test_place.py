"""Placing an order: once per source and reference, with clear refusals."""

from datetime import datetime, timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from payonce.orders.errors import AmendRefused, InvalidOrder, PlaceConflict
from payonce.orders.models import Event, Order
from payonce.orders.place import place_from_shop, place_order
from tests.factories import paid_stream, pending_stream

FIELDS = {"amount_minor": 1000, "currency": "CNY", "subject": "A book"}


def test_placing_twice_finds_the_same_order(scripted):
    first = place_order("shop", "A-1", **FIELDS)
    second = place_order("shop", "A-1", **FIELDS)
    assert (first.is_new, second.is_new, first.order.pk) == (True, False, second.order.pk)
    assert Event.objects.count() == 1


def test_two_sources_may_use_the_same_reference(scripted):
    assert place_order("a", "1", **FIELDS).order.pk != place_order("b", "1", **FIELDS).order.pk


def test_another_amount_is_refused_with_what_to_do(scripted):
    place_order("shop", "A-1", **FIELDS)
    with pytest.raises(PlaceConflict, match="new reference, or ask to amend"):
        place_order("shop", "A-1", **{**FIELDS, "amount_minor": 1001})
    with pytest.raises(PlaceConflict):
        place_order("shop", "A-1", **{**FIELDS, "currency": "EUR"})


def test_amending_watches_the_old_streams_and_changes_the_amount(scripted):
    """M9."""
    stream = pending_stream()
    placed = place_order("shop", stream.order.reference, **{**FIELDS, "amount_minor": 5}, amend=True)
    assert placed.is_amended
    stream.refresh_from_db()
    assert (stream.state, stream.is_watched) == ("CLOSING", True)
    assert Order.objects.get().amount_minor == 5


def test_a_paid_order_cannot_be_amended(scripted):
    stream = paid_stream()
    with pytest.raises(AmendRefused, match="PAID"):
        place_order("shop", stream.order.reference, **{**FIELDS, "amount_minor": 5}, amend=True)


def test_placing_rolls_back_with_the_shops_own_transaction(scripted):
    with pytest.raises(RuntimeError), transaction.atomic():
        place_order("shop", "A-1", **FIELDS)
        raise RuntimeError("the shop changed its mind")
    assert not Order.objects.exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount_minor", 0), ("amount_minor", -1), ("amount_minor", 10**13), ("amount_minor", 10.0), ("amount_minor", "1000"),
        ("amount_minor", True), ("amount_minor", None), ("currency", "cny"), ("currency", "XYZ"), ("currency", ""),
        ("currency", None), ("currency", "ＣＮＹ"), ("subject", ""), ("subject", "x" * 201), ("subject", "a\nb"),
        ("subject", None), ("expires_at", datetime(2030, 1, 1)), ("expires_at", timezone.now() - timedelta(days=1)),  # noqa: DTZ001
        ("return_url", "javascript:alert(1)"), ("return_url", "https://" + "x" * 500),
    ],
)  # fmt: skip
def test_a_field_that_is_not_acceptable_is_named(scripted, field, value):
    """M8."""
    with pytest.raises(InvalidOrder) as caught:
        place_order("shop", "A-1", **{**FIELDS, field: value})
    assert caught.value.field == field
    assert not Order.objects.exists()


@pytest.mark.parametrize(
    ("source", "reference"), [("", "1"), ("s" * 65, "1"), ("s", ""), ("s", "r" * 129), ("s", "a\x00b")]
)
def test_a_name_that_is_not_acceptable_is_refused(scripted, source, reference):
    with pytest.raises(InvalidOrder):
        place_order(source, reference, **FIELDS)


def test_the_shop_says_what_is_to_be_paid(scripted, settings):
    settings.PAYONCE = {**settings.PAYONCE, "SHOP": "tests.shops.PricedShop"}
    placed = place_from_shop("book-1")
    assert (placed.order.amount_minor, placed.order.currency, placed.order.subject) == (4200, "EUR", "Book 1")


def test_events_can_be_neither_changed_nor_deleted(scripted):
    """S10: by the database itself."""
    place_order("shop", "A-1", **FIELDS)
    for sql in ("UPDATE payonce_event SET actor = 'x'", "DELETE FROM payonce_event"):
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(sql)


def test_a_keeper_can_not_be_changed_by_any_statement(scripted):
    """M4: by the database itself."""
    paid_stream()
    for value in ("'other'", "NULL"):
        with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"UPDATE payonce_order SET keeper = {value}")
