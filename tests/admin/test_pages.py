"""Every page opens, is read-only for everyone, and shows what an operator must see."""

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from payonce.orders.models import Event, Order
from payonce.payments.admin import PAGES
from payonce.payments.models import Discrepancy, Refund, ShopMessage, Stream
from payonce.payments.refund import request_refund
from tests.admin.conftest import duplicate, list_of, page_of
from tests.factories import open_order, paid_stream, pending_stream


@pytest.mark.parametrize("model", PAGES, ids=lambda model: model.__name__)
def test_every_list_opens(superuser: Client, model: Any) -> None:
    duplicate()
    assert superuser.get(list_of(model)).status_code == 200


@pytest.mark.parametrize("model", PAGES, ids=lambda model: model.__name__)
def test_nobody_adds_changes_or_deletes(superuser: Client, model: Any, rf: Any) -> None:
    request = rf.get("/")
    request.user = User.objects.get(username="root")
    page = admin.site._registry[model]
    assert not page.has_add_permission(request)
    assert not page.has_change_permission(request)
    assert not page.has_delete_permission(request)
    assert "delete_selected" not in page.get_actions(request)
    base = f"admin:{model._meta.app_label}_{model._meta.model_name}"
    assert superuser.get(reverse(f"{base}_add")).status_code == 403


@pytest.mark.parametrize("path", ["change", "delete"])
def test_a_post_to_a_row_changes_nothing(superuser: Client, path: str) -> None:
    order = open_order()
    address = reverse(f"admin:payonce_orders_order_{path}", args=[order.pk])
    assert superuser.post(address, {"state": "PAID", "post": "yes"}).status_code in (403, 405)
    assert Order.objects.get(pk=order.pk).state == "OPEN"


def test_the_order_page_tells_the_whole_story(superuser: Client) -> None:
    keeper, surplus, case = duplicate()
    html = superuser.get(page_of(keeper.order)).content.decode()
    for text in (keeper.number, surplus.number, "★ keeper", "paid twice", "10.00 CNY", keeper.order.reference):
        assert text in html
    assert "hash chain verified" in html
    assert page_of(case) in html
    assert "Decide…" not in html or "Order paid" in html


def test_the_timeline_has_every_event_with_who_and_what(superuser: Client) -> None:
    stream = paid_stream()
    html = superuser.get(page_of(stream.order)).content.decode()
    response = superuser.get(page_of(stream.order))
    entries = response.context["dossier"].timeline.entries
    assert [entry.sequence for entry in entries] == list(range(1, Event.objects.filter(order=stream.order).count() + 1))
    assert {"Order placed", "Stream created", "Handed to the buyer", "Money taken", "Order paid"} <= {
        e.what for e in entries
    }
    assert "payonce (test)" in html
    paid = next(entry for entry in entries if entry.what == "Order paid")
    assert (paid.state_from, paid.state_to) == ("open", "paid")


def test_a_history_that_was_altered_says_so(superuser: Client, django_db_blocker: Any) -> None:
    stream = paid_stream()
    Order.objects.filter(pk=stream.order_id).update(event_hash="0" * 64)
    html = superuser.get(page_of(stream.order)).content.decode()
    assert "History does not verify" in html
    assert "tell an administrator" in html


def test_every_row_has_a_page(superuser: Client) -> None:
    keeper, _, _ = duplicate()
    request_refund(keeper.number, 100, reason="duplicate", by="operator:someone")
    for model in (Order, Stream, Refund, Discrepancy, Event, ShopMessage):
        for row in model.objects.all():
            response = superuser.get(page_of(row))
            assert response.status_code == 200, row
            assert "payonce-head" in response.content.decode()


def test_an_unknown_row_is_not_found(superuser: Client) -> None:
    assert superuser.get(reverse("admin:payonce_orders_order_change", args=[10**12])).status_code == 404
    assert superuser.get(reverse("admin:payonce_orders_order_change", args=["1 or 1"])).status_code == 404


def test_amounts_have_exactly_the_currencys_decimals(superuser: Client) -> None:
    order = open_order(currency="JPY", amount_minor=1500)
    assert "1,500 JPY" in superuser.get(page_of(order)).content.decode()
    order = open_order(currency="KWD", amount_minor=1500)
    assert "1.500 KWD" in superuser.get(page_of(order)).content.decode()


def test_no_page_shows_a_secret(superuser: Client, settings: Any) -> None:
    secret = "planted-secret-" + "x" * 32
    channels = {**settings.PAYONCE["CHANNELS"]}
    channels["sandbox_x"] = {"adapter": "sandbox", "base_url": "http://127.0.0.1:1", "merchant": "m", "secret": secret}
    settings.PAYONCE = {**settings.PAYONCE, "CHANNELS": channels}
    stream = pending_stream()
    for address in (*map(list_of, PAGES), page_of(stream), page_of(stream.order)):
        assert secret not in superuser.get(address).content.decode(), address


def test_the_pages_have_no_inline_script_or_style(superuser: Client) -> None:
    keeper, _, case = duplicate()
    for row in (keeper, keeper.order, case):
        content = superuser.get(page_of(row)).content.decode().split('<div class="payonce">')[1].split("</main>")[0]
        assert "<script" not in content
        assert "style=" not in content
        assert " onclick" not in content


def test_signed_out_people_see_nothing(client: Client) -> None:
    order = open_order()
    assert client.get(page_of(order)).status_code == 302


def test_an_expired_looking_overview_counts_open_cases(superuser: Client, settings: Any) -> None:
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": {"AUTO": False}}
    from payonce.payments.refund import run_refund

    _, _, case = duplicate()
    run_refund(case.refund.number)
    from payonce.payments.models import Overview

    response = superuser.get(list_of(Overview))
    tiles = {tile.label: tile.count for tile in response.context["queues"]}
    assert tiles["Needs decision"] == "1"
    assert tiles["Duplicates and late payments"] == "1"
    assert tiles["Shop not told"] == "0"
