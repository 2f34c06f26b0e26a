"""A click on Pay over HTTP, and what an Idempotency-Key means."""

import threading
from datetime import timedelta

import pytest
import redis
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from payonce.channels.messages import (
    Known,
    PaymentState,
    PaymentView,
    Prepay,
    PrepayKind,
    Refused,
    RefusedKind,
    Unknown,
)
from payonce.payments.models import IdempotencyRecord, Stream
from tests.api.conftest import assert_problem, buyer_of, everything
from tests.factories import apply, created_stream, open_order, paid_stream, pending_stream, view_of

PAY = {"channel": "scripted_a", "method": "qr"}


def path_of(order):
    return f"/api/orders/{order.number}/pay/"


def test_pay_answers_exactly_what_was_promised(scripted):
    order = open_order()
    answer = buyer_of(order).post(path_of(order), PAY)
    assert answer.status_code == 200
    body = answer.json()
    prepay = body.pop("prepay")
    stream = Stream.objects.get()
    assert body == {
        "result": "prepay", "order": order.number, "stream": stream.number, "channel": "scripted_a", "method": "qr",
        "amount_minor": 1000, "currency": "CNY",
    }  # fmt: skip
    assert (prepay["kind"], prepay["value"]) == ("qr", f"scripted:{stream.number}")
    assert prepay["expires_at"] == stream.prepay_expires_at.isoformat()


def test_paid_order_answers_already_paid_without_a_prepay(scripted):
    stream = paid_stream()
    body = buyer_of(stream.order).post(path_of(stream.order), PAY).json()
    assert (body["result"], body["stream"], body["prepay"]) == ("already_paid", stream.number, None)


def test_repeated_click_over_http_asks_redis_once_and_the_database_never(scripted, redis_client, monkeypatch):
    """S8: the whole answer to a repeated click, through every middleware."""
    order = open_order()
    buyer = buyer_of(order)
    first = buyer.post(path_of(order), PAY)
    commands = []
    plain = redis.Redis.execute_command
    monkeypatch.setattr(
        redis.Redis, "execute_command", lambda *args, **kwargs: (commands.append(args[1]), plain(*args, **kwargs))[1]
    )
    with CaptureQueriesContext(connection) as captured:
        again = buyer.post(path_of(order), PAY)
    assert again.json() == first.json()
    assert [query["sql"] for query in captured.captured_queries] == []
    assert commands == ["GET"]
    assert scripted.count("prepay") == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_are_refused_with_the_right_one(scripted, method):
    order = open_order()
    answer = buyer_of(order).call(method, path_of(order), PAY if method != "GET" else None)
    assert_problem(answer, 405, "method_not_allowed")
    assert answer["Allow"] == "POST"


def test_outcomes_that_are_not_a_prepay_are_problems(scripted, settings):
    """S16, S6: each with its code, and Retry-After where asking again helps."""
    stream = pending_stream()
    apply(stream, PaymentView(stream.number, PaymentState.IN_PROGRESS))
    other = {**PAY, "channel": "scripted_b"}
    assert_problem(buyer_of(stream.order).post(path_of(stream.order), other), 409, "being_confirmed")
    declined = open_order()
    scripted.answers["scripted_a", "prepay"].append(Refused(RefusedKind.DECLINED, "LIMIT"))
    assert_problem(buyer_of(declined).post(path_of(declined), PAY), 422, "declined")
    silent = open_order()
    scripted.answers["scripted_a", "prepay"].append(Unknown("time-out"))
    problem = assert_problem(buyer_of(silent).post(path_of(silent), PAY), 503, "channel_unavailable")
    assert problem["stream"] == Stream.objects.get(order=silent).number


def test_expired_order_takes_no_payment(scripted, clock):
    order = open_order()
    clock.advance(timedelta(hours=2))
    before = everything()
    assert_problem(buyer_of(order).post(path_of(order), PAY), 410, "order_closed")
    assert everything() == before


def test_closed_order_takes_no_payment(scripted, shop):
    order = open_order()
    shop.post(f"/api/orders/{order.number}/close/")
    before = everything()
    assert_problem(buyer_of(order).post(path_of(order), PAY), 410, "order_closed")
    assert everything() == before


def test_atomic_requests_does_not_break_a_step(scripted, monkeypatch, shop):
    """S6: no transaction of the project surrounds a call to a channel."""
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    placed = shop.post("/api/orders/", {"reference": "X", "amount_minor": 100, "currency": "CNY", "subject": "A book"})
    number = placed.json()["order"]
    assert shop.post(f"/api/orders/{number}/pay/", PAY).json()["result"] == "prepay"
    assert shop.get(f"/api/orders/{number}/").status_code == 200
    assert shop.post(f"/api/orders/{number}/close/").status_code == 200


class TestIdempotencyKey:
    """S9."""

    def test_same_key_and_body_answers_the_present_state(self, scripted):
        order = open_order()
        buyer = buyer_of(order)
        first = buyer.post(path_of(order), PAY, idempotency_key='"k-1"')
        again = buyer.post(path_of(order), PAY, idempotency_key="k-1")
        assert first.json() == again.json()
        assert IdempotencyRecord.objects.get().made == first.json()["stream"]
        stream = Stream.objects.get()
        apply(stream, view_of(stream))
        assert buyer.post(path_of(order), PAY, idempotency_key="k-1").json()["result"] == "already_paid"
        assert scripted.count("prepay") == 1

    def test_prepay_that_is_over_is_not_replayed(self, scripted):
        order = open_order()
        buyer = buyer_of(order)
        made = buyer.post(path_of(order), PAY, idempotency_key="k-1").json()["stream"]
        assert buyer.post(path_of(order), {**PAY, "channel": "scripted_b"}).json()["result"] == "prepay"
        problem = assert_problem(buyer.post(path_of(order), PAY, idempotency_key="k-1"), 410, "prepay_over")
        assert problem["stream"] == made
        assert Stream.objects.count() == 2

    def test_same_key_with_another_body_is_refused(self, scripted):
        order = open_order()
        buyer = buyer_of(order)
        buyer.post(path_of(order), PAY, idempotency_key="k-1")
        before = everything()
        for body in ({**PAY, "channel": "scripted_b"}, {**PAY, "method": "web"}):
            answer = buyer.post(path_of(order), body, idempotency_key="k-1")
            assert_problem(answer, 422, "idempotency_key_reused")
        assert everything() == before

    def test_same_key_for_another_order_is_refused(self, scripted, shop):
        first, second = open_order(), open_order()
        shop.post(path_of(first), PAY, idempotency_key="k-1")
        assert_problem(shop.post(path_of(second), PAY, idempotency_key="k-1"), 422, "idempotency_key_reused")
        assert not Stream.objects.filter(order=second).exists()

    def test_key_of_another_caller_is_another_key(self, scripted, shop):
        order = open_order()
        buyer_of(order).post(path_of(order), PAY, idempotency_key="k-1")
        other = {**PAY, "channel": "scripted_b"}
        assert shop.post(path_of(order), other, idempotency_key="k-1").status_code == 200

    def test_running_key_says_so_and_makes_nothing(self, scripted):
        order = open_order()
        buyer = buyer_of(order)
        inside, go_on = threading.Event(), threading.Event()
        scripted.before["prepay"] = lambda _request: (inside.set(), go_on.wait(20))
        answers = []

        def click():
            answers.append(buyer.post(path_of(order), PAY, idempotency_key="k-1"))
            connections.close_all()

        thread = threading.Thread(target=click)
        thread.start()
        assert inside.wait(60)
        problem = buyer.post(path_of(order), PAY, idempotency_key="k-1")
        go_on.set()
        thread.join()
        assert_problem(problem, 409, "idempotency_key_running")
        assert int(problem["Retry-After"]) > 1
        assert answers[0].json()["result"] == "prepay"
        assert scripted.count("prepay") == 1

    def test_key_of_a_call_that_died_resumes_the_same_stream(self, scripted, clock):
        """The call died after its channel answered and before its key was bound."""
        stream = pending_stream()
        order = stream.order
        buyer = buyer_of(order)
        buyer.post(path_of(order), PAY, idempotency_key="k-1")
        IdempotencyRecord.objects.update(made="")
        assert_problem(buyer.post(path_of(order), PAY, idempotency_key="k-1"), 409, "idempotency_key_running")
        clock.advance(timedelta(seconds=41))
        assert buyer.post(path_of(order), PAY, idempotency_key="k-1").json()["stream"] == stream.number
        assert IdempotencyRecord.objects.get().made == stream.number

    def test_key_of_a_call_that_died_does_not_make_a_second_stream(self, scripted, clock):
        """What it made was closed meanwhile: the key has had its effect."""
        order = open_order()
        buyer = buyer_of(order)
        made = buyer.post(path_of(order), PAY, idempotency_key="k-1").json()["stream"]
        IdempotencyRecord.objects.update(made="")
        buyer.post(path_of(order), {**PAY, "channel": "scripted_b"})
        clock.advance(timedelta(seconds=41))
        problem = assert_problem(buyer.post(path_of(order), PAY, idempotency_key="k-1"), 410, "prepay_over")
        assert problem["stream"] == made
        assert Stream.objects.filter(account="scripted_a").count() == 1

    def test_stream_without_an_answer_is_resumed_under_its_number(self, scripted, clock):
        order = open_order()
        buyer = buyer_of(order)
        scripted.answers["scripted_a", "prepay"].append(Unknown("time-out"))
        first = assert_problem(buyer.post(path_of(order), PAY, idempotency_key="k-1"), 503, "channel_unavailable")
        again = buyer.post(path_of(order), PAY, idempotency_key="k-1").json()
        assert (again["result"], again["stream"]) == ("prepay", first["stream"])

    def test_refused_call_leaves_the_key_free(self, scripted):
        order = open_order()
        buyer = buyer_of(order)
        assert_problem(
            buyer.post(path_of(order), {**PAY, "channel": "no"}, idempotency_key="k-1"), 422, "unknown_channel"
        )
        assert buyer.post(path_of(order), PAY, idempotency_key="k-1").status_code == 200

    @pytest.mark.parametrize("key", ["", "   ", "x" * 256, "schlüssel", '""'])
    def test_malformed_key_is_refused(self, scripted, key):
        order = open_order()
        answer = buyer_of(order).post(path_of(order), PAY, idempotency_key=key)
        assert_problem(answer, 400, "idempotency_key_invalid")
        assert not Stream.objects.exists()


def test_created_stream_is_resumed_by_the_next_click(scripted):
    stream = created_stream()
    body = buyer_of(stream.order).post(path_of(stream.order), PAY).json()
    assert body["stream"] == stream.number


def test_channel_that_names_the_reference_of_another_payment_is_no_mistake_of_ours(scripted):
    """X6, M7: the first one keeps it."""
    ends = timezone.now() + timedelta(hours=1)
    scripted.answers["scripted_a", "prepay"] += [Known(Prepay(PrepayKind.QR, "x", ends, "same"))] * 2
    first, second = open_order(), open_order()
    assert buyer_of(first).post(f"/api/orders/{first.number}/pay/", PAY).status_code == 200
    assert_problem(buyer_of(second).post(f"/api/orders/{second.number}/pay/", PAY), 409, "conflict")
