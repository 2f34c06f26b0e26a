"""Refunds over HTTP: one Idempotency-Key, one refund, whatever dies in between (S9, M2, M6)."""

import threading

import pytest
from django.db import connections

from payonce.payments import locks
from payonce.payments.models import IdempotencyRecord, Refund
from tests.api.conftest import assert_problem, everything
from tests.factories import paid_stream, pending_stream

BODY = {"amount_minor": 400, "reason": "requested_by_customer"}


def path_of(stream):
    return f"/api/streams/{stream.number}/refunds/"


def test_refund_is_reserved_and_told_exactly(scripted, shop):
    stream = paid_stream()
    answer = shop.post(path_of(stream), BODY)
    assert answer.status_code == 201
    refund = Refund.objects.get()
    assert answer.json() == {
        "refund": refund.number, "stream": stream.number, "order": stream.order.number, "state": "REQUESTED",
        "amount_minor": 400, "currency": "CNY", "reason": "requested_by_customer", "refundable_minor": 600,
    }  # fmt: skip
    assert (refund.requested_by, refund.purpose) == ("shop:shop", "operator")


def test_same_key_makes_one_refund(scripted, shop):
    """S9."""
    stream = paid_stream()
    first = shop.post(path_of(stream), BODY, idempotency_key="r-1")
    again = shop.post(path_of(stream), BODY, idempotency_key="r-1")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert Refund.objects.count() == 1
    answer = shop.post(path_of(stream), {**BODY, "amount_minor": 500}, idempotency_key="r-1")
    assert_problem(answer, 422, "idempotency_key_reused")
    assert Refund.objects.count() == 1


class Died(BaseException):
    """The process is gone: no handler of the application runs."""


@pytest.mark.crash
@pytest.mark.parametrize("moment", ["before the reservation", "after the commit"])
def test_process_that_dies_around_the_reservation_leaves_one_refund(scripted, shop, monkeypatch, clock, moment):
    """S9, M2: the key is bound in the commit that reserves the money, so the next call finds it."""
    stream = paid_stream()
    plain = locks._once

    def dying(by, decide, extra, key, hooks):
        if moment == "after the commit":
            plain(by, decide, extra, key, hooks)
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(locks, "_once", dying)
        with pytest.raises(Died):
            shop.post(path_of(stream), BODY, idempotency_key="r-1")
    survived = Refund.objects.count()
    assert survived == (1 if moment == "after the commit" else 0)
    if not survived:
        assert_problem(shop.post(path_of(stream), BODY, idempotency_key="r-1"), 409, "idempotency_key_running")
        IdempotencyRecord.objects.update(lease_until="2020-01-01T00:00:00Z")
    answer = shop.post(path_of(stream), BODY, idempotency_key="r-1")
    assert answer.status_code == (200 if survived else 201)
    assert answer.json()["refund"] == Refund.objects.get().number


@pytest.mark.concurrency
def test_call_that_was_paused_past_its_lease_makes_no_second_refund(scripted, shop, monkeypatch):
    """S9: both calls hold the key; the order's lock puts them in a row and the second sees what the first bound."""
    stream = paid_stream()
    plain, paused, go_on = locks.under_lock, threading.Event(), threading.Event()
    answers = []

    def pausing(*args, **kwargs):
        if threading.current_thread().name == "paused":
            paused.set()
            assert go_on.wait(20)
        return plain(*args, **kwargs)

    monkeypatch.setattr("payonce.payments.refund.under_lock", pausing)

    def ask():
        answers.append(shop.post(path_of(stream), BODY, idempotency_key="r-1"))
        connections.close_all()

    thread = threading.Thread(target=ask, name="paused")
    thread.start()
    assert paused.wait(60)
    IdempotencyRecord.objects.update(lease_until="2020-01-01T00:00:00Z")
    first = shop.post(path_of(stream), BODY, idempotency_key="r-1")
    Refund.objects.update(state="REJECTED", is_released=False)  # not even when the first one is over
    go_on.set()
    thread.join()
    assert first.status_code == 201
    assert answers[0].json()["refund"] == first.json()["refund"]
    assert Refund.objects.count() == 1


def test_two_keys_are_two_wishes_and_the_second_waits(scripted, shop):
    """M6: one unfinished refund per stream."""
    stream = paid_stream()
    shop.post(path_of(stream), BODY, idempotency_key="r-1")
    problem = assert_problem(shop.post(path_of(stream), BODY, idempotency_key="r-2"), 409, "in_progress")
    assert problem["refundable_minor"] == 600
    assert not IdempotencyRecord.objects.filter(key="r-2").exists()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({**BODY, "amount_minor": 1001}, 422, "too_much"),
        ({**BODY, "amount_minor": 0}, 422, "invalid_request"),
        ({**BODY, "amount_minor": -1}, 422, "invalid_request"),
        ({**BODY, "amount_minor": 4.0}, 422, "invalid_request"),
        ({**BODY, "amount_minor": "400"}, 422, "invalid_request"),
        ({**BODY, "amount_minor": True}, 422, "invalid_request"),
        ({**BODY, "amount_minor": 10**30}, 422, "invalid_request"),
        ({**BODY, "reason": "because"}, 422, "invalid_request"),
        ({**BODY, "reason": "other"}, 422, "invalid_request"),
        ({**BODY, "currency": "CNY"}, 422, "invalid_request"),
        ({"amount_minor": 400}, 422, "invalid_request"),
    ],
)
def test_refund_that_cannot_be_is_refused(scripted, shop, body, status, code):
    """M2, M8."""
    stream = paid_stream()
    before = everything()
    assert_problem(shop.post(path_of(stream), body), status, code)
    assert everything() == before


def test_stream_without_money_is_not_refunded(scripted, shop):
    stream = pending_stream()
    assert_problem(shop.post(path_of(stream), BODY), 422, "not_paid")


def test_unknown_stream_is_not_found(scripted, shop):
    assert_problem(shop.post("/api/streams/po0000000000000s01/refunds/", BODY), 404, "not_found")
