"""Health, metrics and the API's own description."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import Client

from tests.api.conftest import assert_problem
from tests.factories import apply, paid_stream, pending_stream, view_of

CHECKOUT = Path(__file__).resolve().parents[2]


def test_committed_description_is_what_the_code_says(tmp_path):
    made = tmp_path / "openapi.yaml"
    call_command("spectacular", "--file", str(made), "--validate", "--fail-on-warn")
    assert made.read_text() == (CHECKOUT / "docs" / "openapi.yaml").read_text(), "run `make schema`"


def test_description_and_its_page_are_served_without_a_token(transactional_db):
    schema = Client().get("/api/schema/")
    assert schema.status_code == 200
    assert b"openapi: 3.1.0" in schema.content
    page = Client().get("/api/docs/")
    assert page.status_code == 200
    text = page.content.decode()
    assert "/api/orders/{number}/pay/" in text
    assert "<script" not in text
    for shown in (
        "string | null",
        "list of StreamAnswer</a>",
        "PrepayAnswer</a> | null",
        "requested_by_customer | duplicate",
    ):
        assert shown in text
    assert "[&#x27;" not in text  # no list as Python writes it
    assert not re.search(r'(src|href)="(https?:)?//', text)


BARE = """
SECRET_KEY = "x" * 50
USE_TZ = True
ALLOWED_HOSTS = ["testserver"]
ROOT_URLCONF = "bare_urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "never asked"}}
INSTALLED_APPS = [
    "django.contrib.contenttypes", "django.contrib.auth", "payonce.orders", "payonce.payments", "rest_framework", "drf_spectacular",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
PAYONCE = {"BASE_URL": "https://shop.example"}
"""
BARE_URLS = """
from django.urls import include, path
urlpatterns = [path("pay/", include("payonce.payments.urls"))]
"""
DESCRIBE = """
import django; django.setup()
from django.core import checks
from django.test import Client
print([Client().get(path).status_code for path in ("/pay/api/schema/", "/pay/api/docs/")])
found = checks.run_checks(include_deployment_checks=True)
print([problem.msg for problem in found if problem.id.startswith("drf_spectacular.E")])
"""


def test_description_needs_nothing_in_the_shops_own_rest_framework_settings(tmp_path):
    """What README says to add is enough: no DEFAULT_SCHEMA_CLASS, and `check --deploy` finds nothing of ours wrong."""
    (tmp_path / "bare_settings.py").write_text(BARE)
    (tmp_path / "bare_urls.py").write_text(BARE_URLS)
    paths = {"DJANGO_SETTINGS_MODULE": "bare_settings", "PYTHONPATH": f"{tmp_path}{os.pathsep}{CHECKOUT}"}
    done = subprocess.run(
        [sys.executable, "-c", DESCRIBE], env={**os.environ, **paths}, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["[200, 200]", "[]"], done.stderr


def test_the_root_of_this_project_leads_somewhere():
    assert Client().get("/").headers["Location"] == "/admin/"


def test_healthz_asks_nobody(django_assert_num_queries, transactional_db):
    with django_assert_num_queries(0):
        assert Client().get("/healthz").json() == {"status": "ok"}


def test_readyz_tells_what_is_away(scripted, settings):
    assert Client().get("/readyz").json() == {"status": "ok", "database": "ok", "redis": "ok"}
    settings.PAYONCE = {**settings.PAYONCE, "REDIS_URL": "redis://127.0.0.1:1/0"}
    answer = Client().get("/readyz")
    assert (answer.status_code, answer.json()["redis"]) == (200, "away")


def test_readyz_is_503_without_the_database(scripted, monkeypatch):
    from django.db import OperationalError

    from payonce.payments import flight

    def away(*args):
        raise OperationalError("away")

    monkeypatch.setattr(flight, "fly", away)
    answer = Client().get("/readyz")
    assert (answer.status_code, answer.json()["database"]) == (503, "away")


def test_metrics_need_a_token_or_staff(scripted, settings, django_user_model):
    """X3."""
    assert_problem(Client().get("/metrics"), 401, "not_authenticated")
    assert_problem(Client().get("/metrics", headers={"authorization": "Bearer "}), 401, "not_authenticated")
    settings.PAYONCE = {**settings.PAYONCE, "METRICS_TOKEN": "m" * 32}
    assert_problem(Client().get("/metrics", headers={"authorization": "Bearer x"}), 401, "not_authenticated")
    assert Client().get("/metrics", headers={"authorization": "Bearer " + "m" * 32}).status_code == 200
    client = Client()
    client.force_login(django_user_model.objects.create_user("bob"))
    assert client.get("/metrics").status_code == 401
    client.force_login(django_user_model.objects.create_user("sue", is_staff=True))
    assert client.get("/metrics").status_code == 200


def test_metrics_count_what_waits(scripted, settings):
    settings.PAYONCE = {**settings.PAYONCE, "METRICS_TOKEN": "m" * 32}
    pending_stream()
    stream = paid_stream()
    apply(stream, view_of(stream, reference="second"))
    text = Client().get("/metrics", headers={"authorization": "Bearer " + "m" * 32}).content.decode()
    lines = text.splitlines()
    assert 'payonce_streams_watched{account="scripted_a",state="PENDING"} 1' in lines
    assert 'payonce_refunds_unfinished{state="REQUESTED"} 1' in lines
    for line in lines:
        assert re.fullmatch(r'# (HELP|TYPE) payonce_\w+ .+|payonce_\w+(\{(\w+="[^"]*",?)+\})? -?\d+', line), line


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/api/docs/"])
def test_these_addresses_only_tell(transactional_db, path):
    assert Client().post(path).status_code == 405
