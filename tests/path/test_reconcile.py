"""Contradictions between our own rows, made by hand where the database lets them be, reach a person once."""

import pytest
from django.db import connection

from payonce.orders.locks import read_clock
from payonce.payments import reconcile, sweep
from payonce.payments.models import Discrepancy, Refund, Stream
from payonce.payments.refund import request_refund
from tests.factories import open_order, paid_stream, pending_stream

KEEPER_TRIGGER = "ALTER TABLE payonce_order {} TRIGGER payonce_order_keeper_fixed"


def run(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


@pytest.fixture
def free_keeper(scripted):
    run(KEEPER_TRIGGER.format("DISABLE"))
    yield
    run(KEEPER_TRIGGER.format("ENABLE"))


def test_sound_rows_have_no_finding(scripted):
    paid_stream()
    pending_stream(open_order())
    assert list(reconcile.find_contradictions()) == []


def test_a_keeper_that_its_order_does_not_know_reaches_a_person_once(free_keeper):
    stream = paid_stream()
    run("UPDATE payonce_order SET keeper = NULL, state = 'OPEN'")
    assert sweep.sweep_reconcile() == 1
    assert sweep.sweep_reconcile() == 0
    case = Discrepancy.objects.get()
    assert (case.kind, case.subject) == ("inconsistent", stream.number)


def test_a_reservation_that_is_not_the_sum_of_the_refunds_reaches_a_person(scripted):
    stream = paid_stream()
    Stream.objects.filter(pk=stream.pk).update(refund_reserved_minor=7)
    assert sweep.sweep_reconcile() == 1


def test_an_open_stream_that_nobody_would_ask_about_reaches_a_person(scripted, clock):
    stream = pending_stream()
    Stream.objects.filter(pk=stream.pk).update(next_check_at=None)
    assert sweep.sweep_reconcile() == 0
    clock.advance(301)
    assert sweep.sweep_reconcile() == 1


@pytest.mark.parametrize("has_refund", [False, True])
def test_a_case_that_no_refund_repairs_reaches_a_person(has_refund, scripted, clock):
    """S13: whatever left it so."""
    stream = paid_stream()
    if has_refund:
        request_refund(stream.number, 100, reason="duplicate", by="ann")
    refund = Refund.objects.first()
    case = Discrepancy.objects.create(
        order=stream.order, stream=stream, refund=refund, kind="mismatch", state="REPAIRING", subject=stream.number,
        account=stream.account, opened_at=read_clock(),
    )  # fmt: skip
    assert sweep.sweep_reconcile() == 0
    clock.advance(301)
    if refund is not None:
        assert sweep.sweep_reconcile() == 0
        Refund.objects.update(state="REJECTED", next_try_at=None)
    assert sweep.sweep_reconcile() == 1
    assert sweep.sweep_reconcile() == 0
    found = Discrepancy.objects.exclude(pk=case.pk).get()
    assert (found.kind, found.subject, found.state) == ("inconsistent", stream.number, "OPEN")


def test_a_second_order_of_the_same_buyer_and_basket_is_suspected_and_never_refunded(scripted):
    first = open_order(buyer_key="b", basket_key="k")
    second = open_order(buyer_key="b", basket_key="k")
    paid_stream(first)
    paid_stream(second)
    assert sweep.sweep_reconcile() == 1
    case = Discrepancy.objects.get()
    assert (case.kind, case.subject, case.state) == ("second_order", second.number, "OPEN")
    assert scripted.count("refund") == 0
