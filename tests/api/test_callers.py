"""Who may call what: every endpoint with every role (X3)."""

import re

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.urls import get_resolver

from payonce.payments import tokens
from payonce.payments.models import ApiClient
from payonce.payments.refund import RefundRun, run_refund
from tests.api.conftest import Api, assert_problem, buyer_of, everything
from tests.factories import open_order, paid_stream, pending_stream

BOOK = {"reference": "B-1", "amount_minor": 1999, "currency": "CNY", "subject": "A book"}
PAY = {"channel": "scripted_a", "method": "qr"}
REFUND = {"amount_minor": 400, "reason": "requested_by_customer"}
CALLS = {
    "place": ("POST", "/api/orders/", BOOK),
    "status": ("GET", "/api/orders/{order}/", None),
    "events": ("GET", "/api/orders/{order}/events/", None),
    "pay": ("POST", "/api/orders/{order}/pay/", PAY),
    "close": ("POST", "/api/orders/{order}/close/", {}),
    "refund": ("POST", "/api/streams/{paid}/refunds/", REFUND),
}
# What each role gets: nobody and broken tokens never come in; what is another's looks as if it were not there.
MATRIX = {
    "nobody": dict.fromkeys(CALLS, "not_authenticated"),
    "nonsense": dict.fromkeys(CALLS, "token_invalid"),
    "altered_buyer": dict.fromkeys(CALLS, "token_invalid"),
    "old_buyer": dict.fromkeys(CALLS, "token_expired"),
    "revoked_shop": dict.fromkeys(CALLS, "token_invalid"),
    "other_buyer": {**dict.fromkeys(CALLS, "not_found"), "place": "not_allowed", "refund": "not_allowed"},
    "other_shop": {**dict.fromkeys(CALLS, "not_found"), "place": 201},
    "buyer": {"place": "not_allowed", "status": 200, "events": 406, "pay": 200, "close": "not_allowed", "refund": "not_allowed"},
    "shop": {"place": 201, "status": 200, "events": 406, "pay": 200, "close": 200, "refund": 201},
}  # fmt: skip
STATUS = {"not_authenticated": 401, "token_invalid": 401, "token_expired": 401, "not_allowed": 403, "not_found": 404}


@pytest.fixture
def roles(scripted, shop, other_shop, nobody, settings, monkeypatch):
    order = open_order()
    buyer = buyer_of(order)
    revoked = tokens.new_client_token()
    call_command("payonce_client", "create", "revoked", "--json")
    ApiClient.objects.filter(name="revoked").update(token_hash=tokens.hash_client_token(revoked), is_active=False)
    with monkeypatch.context() as patched:
        patched.setattr("time.time", lambda: 1_000_000_000.0)
        old = buyer_of(order)
    return order, {
        "nobody": nobody,
        "nonsense": Api("no-token-of-ours"),
        "altered_buyer": Api(buyer.token.replace(order.number, open_order().number)),
        "old_buyer": old,
        "revoked_shop": Api(revoked),
        "other_buyer": buyer_of(open_order()),
        "other_shop": other_shop,
        "buyer": buyer,
        "shop": shop,
    }


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("role", MATRIX)
def test_role_gets_what_is_its_own(roles, role, call):
    """X3: every endpoint with every role."""
    order, callers = roles
    paid = paid_stream()
    method, path, body = CALLS[call]
    before = everything()
    answer = callers[role].call(method, path.format(order=order.number, paid=paid.number), body)
    expected = MATRIX[role][call]
    if isinstance(expected, int):
        assert answer.status_code == expected, answer.content
    else:
        assert_problem(answer, STATUS[expected], expected)
        assert everything() == before


def test_matrix_covers_every_address_of_the_api():
    """X3: an address that is added must be added to the matrix too."""
    patterns = get_resolver("payonce.payments.urls").url_patterns
    names = {
        pattern.name for pattern in patterns if str(pattern.pattern).lstrip("^").startswith("api/") and pattern.name
    }
    assert names == {"orders", "order", "pay", "close", "refunds", "events", "schema", "docs"}


def test_unknown_order_and_anothers_order_look_the_same(scripted, shop, other_shop):
    """X3: an answer does not tell whether a number exists."""
    stream = pending_stream()
    there = other_shop.get(f"/api/orders/{stream.order.number}/").json()
    nowhere = other_shop.get("/api/orders/po0000000000000/").json()
    assert {**there, "instance": ""} == {**nowhere, "instance": ""}


def test_operator_refunds_with_a_session_and_the_right(scripted, client, django_user_model):
    """X3: staff without the right are nobody, and the right is the one that the console asks for."""
    from django.contrib.auth.models import Permission

    stream = paid_stream()
    path = f"/api/streams/{stream.number}/refunds/"
    user = django_user_model.objects.create_user("olga", password="x", is_staff=True)
    client.force_login(user)
    assert client.post(path, REFUND, content_type="application/json").status_code == 401
    user.user_permissions.add(Permission.objects.get(codename="add_refund"))
    assert client.post(path, REFUND, content_type="application/json").status_code == 401
    user.user_permissions.add(Permission.objects.get(codename="refund"))
    answer = client.post(path, REFUND, content_type="application/json")
    assert answer.status_code == 201
    assert stream.refunds.get().requested_by == "olga"


def test_operator_with_a_long_name_may_send_an_idempotency_key(scripted, client, django_user_model):
    """S9: Django's user names have up to 150 characters, and two that begin alike are two callers."""
    stream = paid_stream()
    for number, last in enumerate("ab", start=1):
        client.force_login(django_user_model.objects.create_superuser("u" * 149 + last))
        answer = client.post(
            f"/api/streams/{stream.number}/refunds/", {**REFUND, "amount_minor": 1}, content_type="application/json",
            headers={"Idempotency-Key": "k"},
        )  # fmt: skip
        assert answer.status_code == 201, answer.content
        assert run_refund(answer.json()["refund"]) is RefundRun.DONE
        assert stream.refunds.count() == number


def test_operator_without_csrf_token_is_refused(scripted, django_user_model):
    from django.test import Client

    stream = paid_stream()
    client = Client(enforce_csrf_checks=True)
    client.force_login(django_user_model.objects.create_superuser("root"))
    answer = client.post(f"/api/streams/{stream.number}/refunds/", REFUND, content_type="application/json")
    assert_problem(answer, 403, "not_allowed")
    assert not stream.refunds.exists()


def test_buyer_token_is_short_and_fits_in_an_address(scripted):
    token = tokens.sign_buyer_token(open_order().number)
    assert len(token) <= 80
    assert re.fullmatch(r"[A-Za-z0-9._:=-]+", token)


def test_client_command_prints_the_token_once_and_keeps_its_hash(transactional_db, capsys):
    """X4: the token is in no row."""
    import json

    call_command("payonce_client", "create", "Bookshop", "--source", "books", "--json")
    made = json.loads(capsys.readouterr().out)
    row = ApiClient.objects.get(name="Bookshop")
    assert (made["source"], row.source) == ("books", "books")
    assert row.token_hash == tokens.hash_client_token(made["token"])
    assert made["token"] not in str(row.__dict__)
    with pytest.raises(CommandError) as refused:
        call_command("payonce_client", "create", "Bookshop")
    assert refused.value.returncode == 2
    call_command("payonce_client", "revoke", "Bookshop")
    assert_problem(Api(made["token"]).get("/api/orders/po0/"), 401, "token_invalid")
    with pytest.raises(CommandError):
        call_command("payonce_client", "revoke", "Bookshop")
