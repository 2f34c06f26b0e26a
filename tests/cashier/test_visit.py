"""How the buyer is known: token, cookie, the return of the browser (X3, L1)."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from payonce.payments import poll, tokens
from payonce.payments.models import Stream
from tests.api.conftest import everything
from tests.cashier.conftest import Browser
from tests.concurrency.interleave import ORDER_ROW, held_row
from tests.factories import answer_paid, open_order, paid_stream, pending_stream


def test_wrong_foreign_and_old_addresses_show_the_same_neutral_page(scripted, monkeypatch):
    """X3."""
    order = open_order()
    with monkeypatch.context() as patched:
        patched.setattr("time.time", lambda: 1_000_000_000.0)
        old = tokens.sign_buyer_token(order.number)
    token = tokens.sign_buyer_token(order.number)
    pages = set()
    for wrong in (
        "nonsense",
        order.number,
        old,
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        tokens.sign_buyer_token("po0"),
    ):
        answer = Client().get(f"/cashier/{wrong}/")
        assert answer.status_code == 404
        assert answer["Cache-Control"] == "no-store"
        pages.add(answer.content)
        assert Client().get(f"/cashier/{wrong}/state/").status_code == 404
        assert Client().post(f"/cashier/{wrong}/", {"way": "scripted_a:qr"}).status_code == 404
    assert len(pages) == 1
    assert order.number not in pages.pop().decode()
    assert not Stream.objects.exists()


def test_cookies_know_the_one_order_after_the_first_visit(scripted):
    """X3: HttpOnly, SameSite=Lax, one for that order's page only and one for the return address only."""
    browser = Browser(open_order())
    browser.open()
    number = browser.order.number
    found = {
        name: (cookie["path"], cookie["httponly"], cookie["samesite"]) for name, cookie in browser.page.cookies.items()
    }
    assert found == {
        f"payonce_buyer_{number}": (f"/cashier/{number}/", True, "Lax"),
        f"payonce_back_{number}": ("/return/", True, "Lax"),
    }
    assert "Choose how to pay" in browser.open(f"/cashier/{number}/")
    other = open_order()
    assert browser.client.get(f"/cashier/{other.number}/").status_code == 404


@pytest.mark.parametrize("key", ["", "0" * 32, None])
def test_form_of_another_site_is_refused(scripted, key):
    """X3: the cookie alone pays nothing."""
    browser = Browser(open_order())
    browser.open()
    data = {"way": "scripted_a:qr", **({} if key is None else {"form_key": key})}
    answer = browser.client.post(f"/cashier/{browser.order.number}/", data)
    assert answer.status_code == 303
    assert answer["Location"].endswith("?notice=changed")
    assert not Stream.objects.exists()


@pytest.mark.parametrize("charset", ["utf-8", "unicode_escape", "utf-7", "nonsense"])
def test_form_that_is_no_text_is_refused(scripted, charset):
    """X6: a form may name a character set in which it holds half a surrogate pair."""
    browser = Browser(open_order())
    browser.open()
    body = b'--x\r\nContent-Disposition: form-data; name="form_key"\r\n\r\n\\ud800+2AA-\r\n--x--\r\n'
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    answer = browser.client.generic("POST", browser.path, body, content_type=kind)
    assert answer.status_code == 303
    assert answer["Location"].endswith("?notice=changed")


def test_click_on_an_order_that_is_held_may_be_repeated(scripted, settings):
    """L6, X6: the lock is not granted in time; the buyer is told, and loses nothing."""
    settings.PAYONCE = {**settings.PAYONCE, "LOCK_TIMEOUT_MS": 100}
    browser = Browser(open_order())
    browser.open()
    with held_row(ORDER_ROW, browser.order.number):
        answer = browser.choose("scripted_a:qr")
    assert answer.status_code == 303
    assert answer["Location"].endswith("?notice=busy")
    assert "Scan with scripted_a" in browser.pay("scripted_a:qr")


def test_state_says_what_the_page_needs_and_no_more(scripted):
    browser = Browser(pending_stream().order)
    body = browser.state().json()
    assert set(body) == {"state", "screen", "final", "version", "next_poll_ms", "actions", "server_time"}
    assert (body["state"], body["screen"], body["final"], body["actions"]) == ("OPEN", "pay_now", False, ["pay"])


def test_lost_notification_is_found_while_the_buyer_waits(scripted):
    """L1: each poll of the page makes the open stream due, so the next sweep asks about it."""
    stream = pending_stream()
    answer_paid(stream)
    Stream.objects.update(next_check_at=timezone.now() + timedelta(hours=1))
    assert poll.poll_due().asked == 0
    browser = Browser(stream.order)
    browser.state()
    assert poll.poll_due().asked == 1
    assert browser.state().json()["state"] == "PAID"


def test_check_now_makes_the_stream_due(scripted):
    stream = pending_stream()
    browser = Browser(stream.order)
    browser.open()
    Stream.objects.update(next_check_at=timezone.now() + timedelta(hours=1), nudged_at=None)
    browser.client.post(browser.path, {"form_key": browser.form_key, "check": "1"})
    assert poll.poll_due().asked == 1
    assert Stream.objects.count() == 1


def test_return_is_a_hint_and_never_evidence(scripted):
    """It nudges the stream at most every 3 s, says nothing about the order, and changes no state."""
    stream = pending_stream()
    before = everything()
    Stream.objects.update(next_check_at=timezone.now() + timedelta(hours=1))
    answer = Client().get("/return/scripted_a/", {"number": stream.number, "trade_status": "SUCCESS", "paid": "1"})
    assert answer.status_code == 200
    assert stream.order.number not in answer.content.decode()
    first = Stream.objects.get()
    assert first.next_check_at <= timezone.now()
    for row in before["streams"]:
        assert row["state"] == first.state
    Client().get("/return/scripted_a/", {"number": stream.number})
    assert Stream.objects.get().nudged_at == first.nudged_at


def test_return_leads_the_orders_buyer_back_to_the_page(scripted):
    """X3: the cookie of the order is needed."""
    stream = pending_stream()
    browser = Browser(stream.order)
    browser.open()
    back = browser.client.get("/return/scripted_a/", {"out_trade_no": stream.number})
    assert (back.status_code, back["Location"]) == (302, f"/cashier/{stream.order.number}/")
    stranger = Browser(open_order())
    stranger.open()
    assert stranger.client.get("/return/scripted_a/", {"number": stream.number}).status_code == 200


@pytest.mark.parametrize(
    "query", ["", "?number=", "?number=%00", "?number=" + "9" * 500, "?number=%F0%9F", "?number=a&number=b"]
)
def test_return_with_nonsense_is_a_neutral_page(scripted, query):
    """X6."""
    answer = Client().get("/return/scripted_a/" + query)
    assert answer.status_code == 200
    assert Client().post("/return/scripted_a/" + query).status_code == 405


def test_return_of_another_account_does_not_nudge(scripted):
    stream = pending_stream()
    Stream.objects.update(next_check_at=timezone.now() + timedelta(hours=1))
    Client().get("/return/scripted_b/", {"number": stream.number})
    assert poll.poll_due().asked == 0


def test_page_stores_no_session_and_reads_little(scripted):
    stream = paid_stream()
    browser = Browser(stream.order)
    browser.open()
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as captured:
        browser.open()
    assert len(captured) <= 2
    assert "sessionid" not in browser.client.cookies
