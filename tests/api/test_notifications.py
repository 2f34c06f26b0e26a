"""Notifications over real HTTP: the bank's own signatures, forgeries, sizes and shapes (X1, X2, X6, S7)."""

import http.client
from urllib.parse import urlsplit

import pytest
from django.db import OperationalError
from django.test import Client

from payonce.channels import registry
from payonce.orders.models import Order
from payonce.payments import cache, notify
from payonce.payments.models import Notification
from payonce.payments.pay import PayCode, pay_order
from tests.api.conftest import everything
from tests.factories import open_order, pending_stream


@pytest.fixture
def paid_at_bank(bank, live_server, settings):
    """The number of a stream whose money the bank has; its notification waits to be handed over."""
    settings.PAYONCE = {**settings.PAYONCE, "BASE_URL": live_server.url}
    registry.reset()
    cache.reset()
    order = open_order()
    result = pay_order(order.number, "blue", "qr")
    assert result.code is PayCode.PREPAY
    bank.control.hold_notifications()
    assert bank.control.pay(result.stream).ok
    assert bank.control.wait_notifications(result.stream, account="blue", state="HELD")
    return result.stream


def test_genuine_notification_pays_the_order_and_is_acknowledged(bank, paid_at_bank):
    """S7."""
    assert bank.control.release() == ["200 success"]
    assert Order.objects.get().state == "PAID"


def test_repeats_are_acknowledged_and_change_nothing(bank, paid_at_bank):
    """X2."""
    bank.control.release()
    before = everything()
    assert bank.control.send_notification(paid_at_bank, copies=5, at_once=True) == ["200 success"] * 5
    assert everything() == before


@pytest.mark.parametrize("forgery", ["bad_signature", "no_signature", "altered_body", "wrong_account", "other_secret"])
def test_forgery_is_refused_and_changes_nothing(bank, paid_at_bank, forgery):
    """X1: one security record, no success answer."""
    before = everything()
    (answer,) = bank.control.send_notification(paid_at_bank, forgery=forgery)
    assert answer.startswith("401")
    assert everything() == before
    assert Notification.objects.get().state == "FORGED"


def test_changed_amount_under_a_true_signature_settles_nothing(bank, paid_at_bank):
    """X1: verified but mismatched is recorded, acknowledged, and never settles."""
    (answer,) = bank.control.send_notification(paid_at_bank, altered={"paid_minor": 1})
    assert answer == "200 success"
    assert Order.objects.get().state == "OPEN"


def test_notification_about_an_unknown_stream_is_acknowledged_and_settles_nothing(bank, paid_at_bank):
    """S7: durable as a case or a count, so the channel need not send it again."""
    (answer,) = bank.control.send_notification(paid_at_bank, altered={"number": "po0000000000000s01"})
    assert answer == "200 success"
    assert Order.objects.get().state == "OPEN"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"number": "\\u0000"}',
        b'{"a":' * 5000,
        b"9" * 10_000,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_nonsense_is_refused_without_a_server_error(bank, body):
    """X6."""
    for headers in ({}, {"x-payonce-signature": "\x00" * 3}, {"content-type": "a/b; charset=utf-32"}):
        for query in ("", "?x=%00&number=%F0"):
            answer = Client().generic("POST", f"/notify/blue/{query}", body, headers=headers)
            assert answer.status_code == 401, answer.content
    assert everything()["notifications"] == 0


def test_oversized_notification_is_refused_before_it_is_verified(scripted, monkeypatch):
    """X6: the length that is announced, and the length that comes."""
    monkeypatch.setattr(notify, "receive", lambda *args: pytest.fail("was verified"))
    answer = Client().generic("POST", "/notify/scripted_a/", b"x" * (notify.BODY_BYTES_MAX + 1))
    assert answer.status_code == 413


def test_largest_notification_is_read_whole(scripted):
    seen = []
    scripted.notice = lambda request: seen.append(len(request.body)) or _not_authentic()
    answer = Client().generic("POST", "/notify/scripted_a/", b"x" * notify.BODY_BYTES_MAX)
    assert answer.status_code == 401
    assert seen == [notify.BODY_BYTES_MAX]


def _not_authentic():
    from payonce.channels.messages import NotAuthentic

    return NotAuthentic("test")


def test_chunked_notification_without_a_length_is_bounded(scripted, live_server):
    """X6: WSGI servers pass a body without Content-Length as empty; nothing waits for more than that."""
    parts = urlsplit(live_server.url)
    link = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    link.request(
        "POST", "/notify/scripted_a/", iter([b"x" * 1000] * 400), {"Transfer-Encoding": "chunked"}, encode_chunked=True
    )
    status = link.getresponse().status
    link.close()
    assert status in (400, 401, 413)


def test_unknown_account_is_not_found(scripted):
    answer = Client().post("/notify/nobody/", b"{}", content_type="application/json")
    assert answer.status_code == 404
    assert everything()["notifications"] == 0


def test_account_without_its_keys_is_unavailable(scripted, settings):
    """No configuration never means acceptance."""
    settings.PAYONCE = {**settings.PAYONCE, "CHANNELS": {"blue": {"adapter": "sandbox"}}}
    registry.reset()
    assert Client().post("/notify/blue/", b"{}", content_type="application/json").status_code == 503


def test_other_methods_are_refused(scripted):
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
        answer = Client().generic(method, "/notify/scripted_a/")
        assert (answer.status_code, answer["Allow"]) == (405, "POST")


def test_notification_needs_no_csrf_token_and_no_session(scripted):
    scripted.notice = lambda request: _not_authentic()
    client = Client(enforce_csrf_checks=True)
    answer = client.post("/notify/scripted_a/", b"{}", content_type="application/json")
    assert answer.status_code == 401
    assert not client.cookies


def test_headers_arrive_with_lower_case_names_and_the_query_as_sent(scripted):
    seen = []
    scripted.notice = lambda request: seen.append(request) or _not_authentic()
    Client().generic("POST", "/notify/scripted_a/?B=%2F&a=1", b"raw \x00\xff", headers={"X-Signature": "Abc"})
    assert seen[0].body == b"raw \x00\xff"
    assert seen[0].headers["x-signature"] == "Abc"
    assert seen[0].query == "B=%2F&a=1"


def test_database_that_is_away_is_never_a_success(scripted, monkeypatch):
    """S7: acknowledged means durable."""
    stream = pending_stream()
    from payonce.channels.messages import Notice
    from payonce.payments import inbox
    from tests.factories import view_of

    scripted.notice = lambda request: Notice("n1", "payment.paid", None, payment=view_of(stream))

    def away(*args):
        raise OperationalError("away")

    monkeypatch.setattr(inbox, "state_of", away)
    answer = Client().post("/notify/scripted_a/", b"{}", content_type="application/json")
    assert answer.status_code >= 500
    assert b"success" not in answer.content


def test_adapter_that_breaks_is_never_a_success(scripted):
    """X6: handled, logged, and a genuine sender comes again."""

    def broken(request):
        raise KeyError("field")

    scripted.notice = broken
    answer = Client().post("/notify/scripted_a/", b"{}", content_type="application/json")
    assert answer.status_code == 503
    assert int(answer["Retry-After"]) > 0
