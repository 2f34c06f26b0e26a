"""`/healthz`: the process runs. `/readyz`: it can work, and what of its surroundings is away."""

from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from payonce.orders.conf import get_settings
from payonce.payments import cache, flight
from payonce.payments.api.base import outside_transactions
from payonce.payments.flight import Statement

NO_STORE = {"Cache-Control": "no-store"}


@require_safe
@outside_transactions
def healthz(request: HttpRequest) -> HttpResponse:
    """200 as long as the process answers; asks nobody."""
    return JsonResponse({"status": "ok"}, headers=NO_STORE)


@require_safe
@outside_transactions
def readyz(request: HttpRequest) -> HttpResponse:
    """200 when payments work: the database answers and is migrated. Redis only makes them faster."""
    database = _database()
    redis = "off" if not get_settings().REDIS_URL else "ok" if cache.is_answering() else "away"
    body = {"status": "ok" if database == "ok" else "unavailable", "database": database, "redis": redis}
    return JsonResponse(body, status=200 if database == "ok" else 503, headers=NO_STORE)


def _database() -> str:
    try:
        flight.fly([Statement("SELECT id FROM payonce_stream LIMIT 1")], get_settings().DATABASE)
    except (DatabaseError, InterfaceError) as error:
        return "not migrated" if getattr(error.__cause__, "sqlstate", "") == "42P01" else "away"
    return "ok"
