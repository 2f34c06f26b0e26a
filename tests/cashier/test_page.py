"""What the buyer sees and does on the cashier page, without any script."""

import re
from datetime import timedelta

import pytest

from payonce.channels.messages import Known, PaymentState, PaymentView, Prepay, PrepayKind, Refused, RefusedKind
from payonce.orders.conf import get_settings
from payonce.payments import refund as refunds
from payonce.payments.close import close_stream
from payonce.payments.expire import close_order, expire_order
from payonce.payments.models import Refund, Stream
from tests.factories import apply, created_stream, open_order, paid_stream, pending_stream, view_of


def test_first_visit_offers_every_way_that_fits(scripted, browse):
    browser = browse(open_order())
    text = browser.open()
    assert "Choose how to pay" in text
    assert "CN¥10.00" in text
    assert len(browser.ways) == 6
    scripted.overrides["scripted_b"] = {"currencies": frozenset({"EUR"})}
    browser.open()
    assert not any(way.startswith("scripted_b") for way in browser.ways)


def test_click_leads_back_to_the_page_with_a_code(scripted, browse):
    """POST → 303 → GET: reloading pays nothing again."""
    browser = browse(open_order())
    browser.open()
    text = browser.pay("scripted_a:qr")
    stream = Stream.objects.get()
    assert "Scan with scripted_a" in text
    assert f"scripted:{stream.number}" in text
    page = browser.page.content.decode()
    assert re.search(r'<svg role="img" aria-labelledby="code-title"[^>]*>', page)
    assert 'fill="#fff"' in page


def test_double_click_and_second_tab_get_the_same_stream(scripted, browse):
    """S3: the same form, sent twice, from two browsers."""
    order = open_order()
    one, other = browse(order), browse(order)
    for browser in (one, other):
        browser.open()
    for browser in (one, one, other):
        browser.pay("scripted_a:qr")
    assert Stream.objects.count() == 1
    assert scripted.count("prepay") == 1


def test_another_way_closes_the_older_one_first_and_says_so(scripted, browse):
    browser = browse(open_order())
    browser.open()
    browser.pay("scripted_a:qr")
    assert "the payment with scripted_a is closed first" in browser.text
    assert "scripted_a:qr" not in browser.ways
    assert "Scan with scripted_b" in browser.pay("scripted_b:qr")
    assert list(Stream.objects.order_by("attempt").values_list("state", flat=True)) == ["CLOSED", "PENDING"]


@pytest.mark.parametrize("value", ["javascript:alert(1)", "data:text/html,x", "weixin://wxpay"])
def test_prepay_that_is_no_web_address_never_becomes_a_link(scripted, browse, value):
    from django.utils import timezone

    ends = timezone.now() + timedelta(hours=1)
    scripted.answers["scripted_a", "prepay"].append(Known(Prepay(PrepayKind.REDIRECT, value, ends)))
    browser = browse(open_order())
    browser.open()
    browser.pay("scripted_a:web")
    assert value not in browser.page.content.decode()
    assert "own app" in browser.text


def test_form_prepay_becomes_a_form_that_only_goes_there(scripted, browse):
    import json

    from django.utils import timezone

    ends = timezone.now() + timedelta(hours=1)
    value = json.dumps({"action": "https://bank.example/pay?x=1", "fields": {"a": '"><b>', "n": 3}})
    scripted.answers["scripted_a", "prepay"].append(Known(Prepay(PrepayKind.FORM, value, ends)))
    browser = browse(open_order())
    browser.open()
    browser.pay("scripted_a:web")
    page = browser.page.content.decode()
    assert 'action="https://bank.example/pay?x=1"' in page
    assert 'value="&quot;&gt;&lt;b&gt;"' in page
    assert "form-action 'self' https://bank.example;" in browser.page["Content-Security-Policy"]


def in_progress(stream):
    apply(stream, PaymentView(stream.number, PaymentState.IN_PROGRESS))


def test_payment_that_is_being_confirmed_shows_no_button_that_pays(scripted, browse):
    """S16."""
    stream = pending_stream()
    in_progress(stream)
    browser = browse(stream.order)
    text = browser.open()
    assert "being confirmed" in text
    assert "don't pay again" in text.replace("&#x27;", "'")
    assert browser.ways == []
    assert "check now" in text


def test_paid_page_pays_nothing_and_is_final(scripted, browse):
    stream = paid_stream()
    browser = browse(stream.order)
    assert "Your payment has arrived" in browser.open()
    assert "<form" not in browser.page.content.decode()
    assert "http-equiv" not in browser.page.content.decode()
    assert browser.state().json()["final"] is True


def test_duplicate_is_shown_until_it_is_given_back(scripted, browse):
    stream = paid_stream()
    apply(stream, view_of(stream, reference="second"))
    browser = browse(stream.order)
    text = browser.open()
    assert "Paid" in text
    assert "on its way back to you" in text
    assert refunds.run_refund(Refund.objects.get().number) is refunds.RefundRun.DONE
    assert "was given back to you" in browser.open()


def test_duplicate_whose_refund_is_stuck_promises_nothing(scripted, browse):
    stream = paid_stream()
    apply(stream, view_of(stream, reference="second"))
    Refund.objects.update(state="REJECTED", next_try_at=None)
    text = browse(stream.order).open()
    assert "The shop is looking into it" in text
    assert "on its way" not in text


def test_no_money_was_taken_is_said_only_when_closing_is_proven(scripted, browse, clock):
    """S4."""
    proven = pending_stream()
    close_order(proven.order.number, by="shop:shop")
    assert "No money was taken" in browse(proven.order).open()
    scripted.overrides["scripted_a"] = {}
    from payonce.channels.messages import Unknown

    unproven = pending_stream()
    scripted.answers["scripted_a", "query"].extend([Unknown("time-out")] * 5)
    scripted.answers["scripted_a", "close"].extend([Unknown("time-out")] * 5)
    close_order(unproven.order.number, by="shop:shop")
    text = browse(unproven.order).open()
    assert "No money was taken" not in text
    assert "checking whether a payment" in text


def test_expired_order_offers_nothing(scripted, browse, clock):
    order = open_order()
    clock.advance(timedelta(hours=2))
    browser = browse(order)
    from payonce.payments import tokens

    browser.path = f"/cashier/{tokens.sign_buyer_token(order.number)}/"
    assert "This order is over" in browser.open()
    assert browser.ways == []
    expire_order(order.number)
    assert "This order has expired" in browser.open()


def test_code_that_is_over_can_be_renewed(scripted, browse, clock):
    order = open_order(expires_at=None)
    stream = pending_stream(order)
    clock.advance(timedelta(hours=3))
    browser = browse(stream.order)
    assert "This code is over" in browser.open()
    assert "Get a new code" in browser.text
    assert "scripted_a:qr" in browser.ways


def test_late_money_is_told_as_late(scripted, browse):
    stream = pending_stream()
    close_order(stream.order.number, by="shop:shop")
    from django.utils import timezone

    apply(stream, view_of(stream, at=timezone.now()))
    assert "after this order was closed" in browse(stream.order).open()


def test_channel_that_declines_or_is_away_is_told_and_another_way_is_left(scripted, browse):
    browser = browse(open_order())
    browser.open()
    scripted.answers["scripted_a", "prepay"].append(Refused(RefusedKind.DECLINED, "LIMIT"))
    assert "was declined" in browser.pay("scripted_a:qr")
    scripted.answers["scripted_b", "prepay"].append(Refused(RefusedKind.CONFIG, "KEYS"))
    assert "not available at the moment" in browser.pay("scripted_b:qr")
    assert "Scan with scripted_c" in browser.pay("scripted_c:qr")


def test_stream_without_an_answer_can_be_tried_again(scripted, browse, clock):
    stream = created_stream()
    browser = browse(stream.order)
    browser.open()
    browser.pay("scripted_a:qr")
    assert Stream.objects.get().state == "PENDING"


def test_switching_tells_not_to_pay_the_older_one_again(scripted, browse):
    from payonce.channels.messages import Unknown

    stream = pending_stream()
    scripted.answers["scripted_a", "close"].extend([Unknown("time-out")] * 3)
    close_stream(stream.number, by="system:test")
    text = browse(stream.order).open()
    assert "is being closed" in text
    assert "please do not pay again" in text


@pytest.mark.parametrize("way", ["", "nope:qr", "scripted_a", "scripted_a:telepathy", "a:b:c", "\x00:qr", "x" * 5000])
def test_way_that_is_not_offered_changes_nothing(scripted, browse, way):
    """X6."""
    browser = browse(open_order())
    browser.open()
    answer = browser.choose(way)
    assert answer.status_code == 303
    assert not Stream.objects.exists()


def test_notice_in_the_address_is_one_of_ours_or_nothing(scripted, browse):
    browser = browse(open_order())
    assert "alert" not in browser.open(browser.path + "?notice=<script>alert(1)</script>")


def test_subject_is_text_and_never_markup(scripted, browse):
    browser = browse(open_order(subject="<img src=x onerror=alert(1)>"))
    browser.open()
    assert "<img" not in browser.page.content.decode()


def test_page_is_small_and_loads_nothing_from_elsewhere(scripted, browse):
    browser = browse(open_order())
    browser.open()
    browser.pay("scripted_a:qr")
    page = browser.page.content.decode()
    assert len(browser.page.content) <= 30_000
    assert not re.search(r'(?:src|href|action)="(?:https?:)?//', page)
    assert not re.search(r"\sstyle=|\son\w+=", page)
    policy = browser.page["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert browser.page["Cache-Control"] == "no-store"
    assert browser.page["Referrer-Policy"] == "no-referrer"


def test_page_refreshes_itself_without_a_script(scripted, browse):
    browser = browse(pending_stream().order)
    browser.open()
    assert re.search(r'<noscript><meta http-equiv="refresh" content="\d+"></noscript>', browser.page.content.decode())


def test_amounts_have_the_digits_of_their_currency(scripted, browse):
    """M8."""
    from payonce.payments.cashier.choices import write_amount

    assert write_amount(1999, "EUR") == "€19.99"
    assert write_amount(1999, "JPY") == "¥1,999"
    assert write_amount(1999, "KWD").endswith("1.999")
    assert write_amount(10**12, "CNY") == "CN¥10,000,000,000.00"


def test_settings_bound_the_cookie(scripted, browse):
    browser = browse(open_order())
    browser.open()
    for cookie in browser.client.cookies.values():
        assert cookie["max-age"] == get_settings().BUYER_TOKEN_SECONDS
