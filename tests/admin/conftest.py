"""Operators of every role, signed in, and orders by the state that they reach by real steps."""

from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from payonce.payments.models import Discrepancy, Stream
from payonce.payments.statuses import DiscrepancyState
from tests.factories import apply, open_order, paid_stream, pending_stream, view_of
from tests.scripted import ScriptedChannel


@pytest.fixture(autouse=True)
def _channels(scripted: type[ScriptedChannel], transactional_db: None) -> None:
    """Every test here has the scripted channels and commits for real: steps refuse to run inside a transaction."""


@pytest.fixture
def operator(transactional_db: None) -> Callable[..., Client]:
    """Sign a member of a ready group in: `operator("Finance", "fiona")`."""
    call_command("payonce_groups", stdout=StringIO())

    def sign_in(role: str, username: str = "") -> Client:
        user = User.objects.create_user(username or role.lower(), password="x", is_staff=True)
        user.groups.add(Group.objects.get(name=f"payonce {role}"))
        client = Client()
        client.force_login(user)
        return client

    return sign_in


@pytest.fixture
def superuser(transactional_db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root", password="x"))
    return client


def page_of(row: Any) -> str:
    meta = row._meta
    return reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[row.pk])


def list_of(model: Any, query: str = "") -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist") + query


def action_of(row: Any, action: str) -> str:
    meta = row._meta
    return reverse(f"admin:{meta.app_label}_{meta.model_name}_do", args=[row.pk, action])


def form_of(client: Client, row: Any, action: str, **values: str) -> dict[str, str]:
    """The confirmation page's form as a browser would send it."""
    response = client.get(action_of(row, action))
    assert response.status_code == 200, response
    form = response.context["form"]
    data = {field.html_name: str(field.value() or "") for field in form}
    return {**data, **values}


def confirm(client: Client, row: Any, action: str, **values: str) -> Any:
    """Open the confirmation page and send its form."""
    return client.post(action_of(row, action), form_of(client, row, action, **values), follow=True)


def texts(response: Any) -> str:
    """What the page told the operator."""
    return " ".join(str(message) for message in response.context["messages"])


def duplicate() -> tuple[Stream, Stream, Discrepancy]:
    """An order paid twice: its keeper, the surplus stream, and the case in a person's queue."""
    order = open_order()
    first = pending_stream(order, "scripted_a")
    second = pending_stream(order, "scripted_b")
    apply(second, view_of(second))
    apply(first, view_of(first))
    for row in (first, second):
        row.refresh_from_db()
    return (
        second,
        first,
        Discrepancy.objects.get(stream=first, state__in=[DiscrepancyState.OPEN, DiscrepancyState.REPAIRING]),
    )


__all__ = ["action_of", "confirm", "duplicate", "form_of", "list_of", "page_of", "paid_stream", "texts"]
