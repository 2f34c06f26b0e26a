"""Lists stay cheap on large tables, find by exact number, and never act on rows that are not shown."""

from typing import Any

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from payonce.orders.models import Event, Order
from payonce.payments.admin import PAGES, base, search
from payonce.payments.models import (
    ChannelState,
    Discrepancy,
    NeedsDecision,
    Notification,
    Overview,
    Refund,
    RefundsToApprove,
    ShopMessage,
    Stream,
)
from payonce.payments.refund import request_refund
from payonce.payments.statuses import RefundState
from tests.admin.conftest import duplicate, list_of, page_of, texts
from tests.concurrency.interleave import ORDER_ROW, held_row
from tests.factories import open_order, paid_stream, pending_stream

LISTS = [model for model in PAGES if model not in (Overview, ChannelState)]
SESSION_AND_USER = 2


def asked(client: Client, address: str) -> list[str]:
    with CaptureQueriesContext(
        connection,
    ) as context:
        assert client.get(address).status_code == 200
    return [query["sql"] for query in context.captured_queries]


@pytest.mark.parametrize("model", LISTS, ids=lambda model: model.__name__)
def test_a_list_asks_at_most_four_queries_however_many_rows(superuser: Client, model: Any) -> None:
    for _ in range(3):
        duplicate()
    first = asked(superuser, list_of(model))
    for _ in range(4):
        duplicate()
    second = asked(superuser, list_of(model))
    assert len(second) == len(first) <= 4 + SESSION_AND_USER, "\n".join(second)


def test_the_overview_asks_few_queries(superuser: Client) -> None:
    duplicate()
    assert len(asked(superuser, list_of(Overview))) <= 14 + SESSION_AND_USER


def test_an_order_page_asks_the_same_number_of_queries_for_any_history(superuser: Client) -> None:
    def count(order: Order) -> int:
        return len(asked(superuser, page_of(order)))

    keeper, _, _ = duplicate()
    plain = count(paid_stream().order)
    request_refund(keeper.number, 100, reason="duplicate", by="x")
    assert count(keeper.order) == plain <= 12


@pytest.mark.parametrize("model", LISTS, ids=lambda model: model.__name__)
def test_lists_offer_only_indexed_orders(model: Any) -> None:
    page = admin.site._registry[model]
    assert page.date_hierarchy is None
    assert page.list_per_page == 50
    assert page.show_full_result_count is False
    indexed = {index.fields[-1].lstrip("-") for index in page.opts.concrete_model._meta.indexes} | {"pk"}
    for name in page.sortable_by:
        assert getattr(page, name).admin_order_field.lstrip("-") in indexed
    for name in page.ordering:
        assert name.lstrip("-") in indexed


def test_a_count_is_given_up_at_its_cap(superuser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        open_order()
    monkeypatch.setattr(base, "COUNT_MAX", 3)
    html = superuser.get(list_of(Order)).content.decode()
    assert "3+ orders" in html
    assert str(base.CappedCount(10_000)) == "10,000+"


# Search.


def test_each_number_is_found_and_jumps_to_its_page(superuser: Client) -> None:
    keeper, _, _ = duplicate()
    request_refund(keeper.number, 100, reason="duplicate", by="x")
    refund = Refund.objects.get(stream=keeper)
    wanted = {
        keeper.order.number: keeper.order, keeper.order.reference: keeper.order, keeper.number: keeper,
        keeper.channel_reference: keeper, refund.number: refund,
    }  # fmt: skip
    for text, row in wanted.items():
        response = superuser.get(list_of(Order), {"q": f"  {text}\t"})
        assert response.status_code == 302, text
        assert response.url == page_of(row)


def test_a_pasted_list_shows_all_of_it(superuser: Client) -> None:
    one, two, other = paid_stream(), paid_stream(), paid_stream()
    response = superuser.get(list_of(Order), {"q": f"{one.number}, {two.order.reference};nothing"})
    html = response.content.decode()
    assert one.order.number in html
    assert two.order.number in html
    assert other.order.number not in html


def test_a_reference_with_spaces_is_found(superuser: Client) -> None:
    order = open_order(reference="INV 2026 7")
    assert superuser.get(list_of(Order), {"q": "INV 2026 7"}).url == page_of(order)


def test_what_no_number_can_hold_is_not_looked_up(superuser: Client) -> None:
    stream = pending_stream()
    assert superuser.get(list_of(Order, f"?q={stream.number}%00")).status_code == 302
    assert superuser.get(list_of(Stream, "?q=%00")).status_code == 200


def test_nothing_found_is_an_empty_list(superuser: Client) -> None:
    open_order(reference="AAA")
    response = superuser.get(list_of(Order), {"q": "AA"})
    assert response.context["cl"].result_count == 0


def test_two_sources_with_one_reference_are_both_listed(superuser: Client) -> None:
    open_order(source="a", reference="R-1")
    open_order(source="b", reference="R-1")
    assert superuser.get(list_of(Order), {"q": "R-1"}).context["cl"].result_count == 2


@pytest.mark.parametrize("model", LISTS, ids=lambda model: model.__name__)
def test_every_list_finds_by_order_number(superuser: Client, model: Any) -> None:
    keeper, surplus, _ = duplicate()
    response = superuser.get(list_of(model), {"q": f"{keeper.order.number} {surplus.number}"})
    assert response.status_code == 200
    if model in (Order, Stream, Event, Discrepancy, ShopMessage):
        assert response.context["cl"].result_count > 0


def test_look_ups_are_exact_single_table_and_indexed(superuser: Client) -> None:
    order = open_order()
    with CaptureQueriesContext(connection) as context:
        search.find(f"{order.number} other")
    assert len(context.captured_queries) == 5
    for query in context.captured_queries:
        assert " OR " not in query["sql"]
        assert " JOIN " not in query["sql"]
        assert "UPPER" not in query["sql"]
        with connection.cursor() as cursor:
            cursor.execute("SET enable_seqscan = off")
            cursor.execute("EXPLAIN " + query["sql"])
            plan = "\n".join(row[0] for row in cursor.fetchall())
            cursor.execute("SET enable_seqscan = on")
        assert "Index" in plan, plan
        assert "Seq Scan" not in plan, plan


def test_at_most_200_numbers_are_looked_up(superuser: Client) -> None:
    response = superuser.get(list_of(Order), {"q": " ".join(f"n{number}" for number in range(300))})
    assert "first 200" in texts(response)
    assert len(search.find(" ".join(f"n{number}" for number in range(300))).terms) == search.TERMS_MAX + 1


def test_a_hit_that_the_user_may_not_see_is_not_jumped_to(client: Client) -> None:
    from django.contrib.auth.models import Permission, User

    stream = paid_stream()
    user = User.objects.create_user("orders", password="x", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_order"))
    client.force_login(user)
    assert client.get(list_of(Order), {"q": stream.number}).status_code == 200


# Acting on many.


def act(client: Client, model: Any, action: str, rows: Any, **extra: str) -> Any:
    return client.post(
        list_of(model), {"action": action, "_selected_action": [str(row.pk) for row in rows], "index": "0", **extra}, follow=True
    )  # fmt: skip


def test_a_list_action_only_opens_its_confirmation_page(superuser: Client) -> None:
    stream = pending_stream()
    before = Stream.objects.get(pk=stream.pk).next_check_at
    response = act(superuser, Stream, "ask_selected", [stream])
    assert response.templates[0].name == "payonce/admin/bulk.html"
    assert Stream.objects.get(pk=stream.pk).next_check_at == before
    superuser.post(response.request["PATH_INFO"], {"ids": response.context["ids"]})
    assert Stream.objects.get(pk=stream.pk).next_check_at < before


def test_many_refunds_are_approved_after_their_amounts_were_shown(operator: Any, settings: Any) -> None:
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": {"APPROVAL_MINOR": 1}}
    anna = operator("Approver", "anna")
    for by in ("fiona", "fiona", "anna"):
        request_refund(paid_stream().number, 400, reason="duplicate", by=by)
    response = act(anna, RefundsToApprove, "approve_selected", Refund.objects.all())
    assert "12.00 CNY" in response.content.decode()
    done = anna.post(response.request["PATH_INFO"], {"ids": response.context["ids"]}, follow=True)
    assert "moved: 2" in texts(done)
    assert "same person: 1" in texts(done)
    assert Refund.objects.filter(state=RefundState.AWAITING_APPROVAL).count() == 1


def test_a_refund_whose_order_is_held_stops_none_of_the_others(operator: Any, settings: Any) -> None:
    """L6: one row is busy; the others are approved, and the operator hears of both."""
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": {"APPROVAL_MINOR": 1}, "LOCK_TIMEOUT_MS": 100}
    anna, streams = operator("Approver", "anna"), [paid_stream(), paid_stream(), paid_stream()]
    for stream in streams:
        request_refund(stream.number, 400, reason="duplicate", by="fiona")
    response = act(anna, RefundsToApprove, "approve_selected", Refund.objects.all())
    with held_row(ORDER_ROW, streams[0].order.number):
        done = anna.post(response.request["PATH_INFO"], {"ids": response.context["ids"]}, follow=True)
    assert "moved: 2" in texts(done)
    assert "busy" in texts(done)
    assert Refund.objects.filter(state=RefundState.AWAITING_APPROVAL).count() == 1


def test_select_all_across_pages_is_refused(superuser: Client) -> None:
    streams = [pending_stream(), pending_stream()]
    response = act(superuser, Stream, "ask_selected", streams, select_across="1")
    assert "Nothing was done" in texts(response)
    assert response.templates[0].name != "payonce/admin/bulk.html"


def test_forged_ids_are_refused(superuser: Client) -> None:
    from django.urls import reverse

    stream = pending_stream()
    address = reverse("admin:payonce_payments_stream_many_ask")
    for ids in ("", "1", f"[{stream.pk}]"):
        assert "in the list first" in texts(superuser.post(address, {"ids": ids}, follow=True))
    assert superuser.post(address, {"ids": "x"}).status_code == 302


def test_a_viewer_gets_no_list_actions(operator: Any) -> None:
    client = operator("Viewer")
    stream = pending_stream()
    before = Stream.objects.get(pk=stream.pk).next_check_at
    act(client, Stream, "ask_selected", [stream])
    assert Stream.objects.get(pk=stream.pk).next_check_at == before


def test_queues_show_only_what_waits(superuser: Client) -> None:
    duplicate()  # repaired by itself: not in a queue
    assert superuser.get(list_of(NeedsDecision)).context["cl"].result_count == 0
    assert superuser.get(list_of(Discrepancy)).context["cl"].result_count == 1


def test_the_list_of_notifications_never_reads_bodies(superuser: Client) -> None:
    sql = " ".join(asked(superuser, list_of(Notification)))
    assert '"payonce_notification"."body"' not in sql
