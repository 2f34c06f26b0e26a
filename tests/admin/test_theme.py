"""The same pages work on Django's own admin and on django-unfold."""

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin import sites
from django.contrib.auth.models import User
from django.test import Client
from django.urls import clear_url_caches

from payonce.orders.models import Order
from payonce.payments.admin import PAGES, register
from payonce.payments.admin.base import is_unfold_wanted, with_theme
from payonce.payments.admin.orders import OrderAdmin
from payonce.payments.models import Refund
from tests.admin.conftest import action_of, confirm, duplicate, list_of, page_of
from tests.factories import paid_stream


@pytest.fixture
def unfold(settings: Any) -> Iterator[None]:
    """A site whose console is registered again with unfold installed."""
    pytest.importorskip("unfold")
    plain = admin.site
    settings.INSTALLED_APPS = ["unfold", *settings.INSTALLED_APPS]  # unfold puts its own site in place of Django's
    from unfold.sites import UnfoldAdminSite

    site = UnfoldAdminSite()
    admin.site = sites.site = site
    register(site)
    _reload_urls()
    yield
    admin.site = sites.site = plain
    _reload_urls()


def _reload_urls() -> None:
    clear_url_caches()
    importlib.reload(importlib.import_module("config.urls"))


def test_auto_follows_the_installed_apps(settings: Any) -> None:
    assert is_unfold_wanted() is apps.is_installed("unfold")
    settings.PAYONCE = {**settings.PAYONCE, "UNFOLD": False}
    assert not is_unfold_wanted()
    assert with_theme(OrderAdmin) is OrderAdmin


def test_a_shop_can_put_its_own_base_below(settings: Any) -> None:
    unfold_admin = pytest.importorskip("unfold.admin")
    made = type("Mine", (OrderAdmin, unfold_admin.ModelAdmin), {})(Order, admin.site)
    assert made.list_per_page == 50
    assert not made.has_delete_permission(None)


def test_every_page_opens_on_unfold(unfold: None) -> None:
    from unfold.admin import ModelAdmin

    client = Client()
    client.force_login(User.objects.create_superuser("root", password="x"))
    keeper, surplus, case = duplicate()
    assert isinstance(admin.site._registry[Order], ModelAdmin)
    for model in PAGES:
        assert client.get(list_of(model)).status_code == 200, model
    for row in (keeper, surplus, case, keeper.order):
        html = client.get(page_of(row)).content.decode()
        assert "payonce-head" in html
        assert "payonce/admin.css" in html
    assert client.get(action_of(keeper, "refund")).status_code == 200


def test_a_refund_works_on_unfold(unfold: None) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root", password="x"))
    confirm(client, paid_stream(), "refund", amount="1.00", reason="duplicate")
    assert Refund.objects.get().requested_by == "root"
