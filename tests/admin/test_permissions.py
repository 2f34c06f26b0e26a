"""Every role may do what its group says, and nothing else; the check is in the view, not only on the page."""

from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.test import Client

from payonce.orders.models import Order
from payonce.payments.admin import PAGES
from payonce.payments.models import Refund, Stream
from payonce.payments.permissions import GROUPS
from payonce.payments.refund import request_refund
from tests.admin.conftest import action_of, duplicate, list_of, page_of
from tests.factories import paid_stream

MAY = {
    "ask": {"Support", "Finance", "Approver", "Admin"},
    "close": {"Support", "Finance", "Admin"},
    "refund": {"Finance", "Admin"},
    "decide": {"Finance", "Admin"},
    "approve": {"Approver", "Admin"},
    "decline": {"Approver", "Admin"},
    "retry": {"Finance", "Admin"},
    "write-off": {"Finance", "Admin"},
}


@pytest.mark.parametrize("role", GROUPS)
def test_a_role_opens_exactly_its_actions(operator: Any, role: str) -> None:
    client = operator(role)
    keeper, _, case = duplicate()
    request_refund(keeper.number, 100, reason="duplicate", by="someone")
    refund = Refund.objects.get(stream=keeper)
    rows = {"ask": keeper, "close": keeper, "refund": keeper, "decide": case}
    for action, roles in MAY.items():
        row = rows.get(action, refund)
        expected = 200 if role in roles else 403
        assert client.get(action_of(row, action)).status_code == expected, (role, action)
        if expected == 403:
            assert client.post(action_of(row, action), {"token": "x", "seen": "x"}).status_code == 403
            assert "no permission" in client.get(page_of(row)).content.decode()


@pytest.mark.parametrize("role", GROUPS)
def test_every_role_sees_every_page(operator: Any, role: str) -> None:
    client = operator(role)
    for model in PAGES:
        assert client.get(list_of(model)).status_code == 200, model


def test_staff_without_a_role_sees_nothing(client: Client) -> None:
    client.force_login(User.objects.create_user("stranger", password="x", is_staff=True))
    stream = paid_stream()
    for model in PAGES:
        assert client.get(list_of(model)).status_code == 403, model
    for row in (stream, stream.order):
        assert client.get(page_of(row)).status_code == 403
    for action in ("ask", "close", "refund"):
        assert client.post(action_of(stream, action), {}).status_code == 403
    assert Stream.objects.get().refund_reserved_minor == 0


def test_the_right_to_act_does_not_give_the_right_to_see(client: Client) -> None:
    from django.contrib.auth.models import Permission

    user = User.objects.create_user("half", password="x", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="refund"))
    client.force_login(user)
    assert client.get(action_of(paid_stream(), "refund")).status_code == 403


def test_a_change_permission_changes_nothing(client: Client) -> None:
    from django.contrib.auth.models import Permission

    user = User.objects.create_user("keen", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label__startswith="payonce"))
    client.force_login(user)
    order = paid_stream().order
    assert client.post(page_of(order), {"amount_minor": "1"}).status_code == 405
    assert client.post(page_of(order).replace("change", "delete"), {"post": "yes"}).status_code == 403
    assert Order.objects.get().amount_minor == 1000


def test_the_groups_can_be_made_again_and_take_nothing_away(transactional_db: None, capsys: Any) -> None:
    call_command("payonce_groups")
    group = Group.objects.get(name="payonce Viewer")
    before = group.permissions.count()
    call_command("payonce_groups")
    assert group.permissions.count() == before == len(PAGES)
    call_command("payonce_groups", prefix="shop ")
    assert Group.objects.filter(name="shop Admin").exists()
    assert "payonce Viewer: kept" in capsys.readouterr().out
