"""`/metrics` for Prometheus: how much waits, for how long, and how the channels are. From the database, by partial indexes."""

from collections.abc import Iterator
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.http import require_safe

from payonce.orders.conf import get_settings
from payonce.orders.statuses import OrderState
from payonce.payments import flight
from payonce.payments.api.base import outside_transactions
from payonce.payments.api.problems import Problem, answer_problem
from payonce.payments.flight import Statement
from payonce.payments.statuses import (
    WATCHED_STREAM_STATES,
    DiscrepancyState,
    MessageState,
    NotificationState,
    RefundState,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_AGE = "coalesce(extract(epoch FROM payonce_now() - min({}))::bigint, 0)"
UNFINISHED_REFUNDS = [
    state.value for state in RefundState if state not in (RefundState.SUCCEEDED, RefundState.DECLINED)
]
BACKLOGS: dict[str, tuple[str, Statement]] = {
    "streams_watched": (
        "Streams that may still be paid, by channel account and state",
        Statement(
            "SELECT account, state, count(*) FROM payonce_stream WHERE state = ANY(%s) GROUP BY 1, 2",
            [[state.value for state in WATCHED_STREAM_STATES]],
        ),
    ),
    "refunds_unfinished": (
        "Refunds that are not done, by state",
        Statement(
            "SELECT state, count(*) FROM payonce_refund WHERE state = ANY(%s) AND NOT is_released GROUP BY 1",
            [UNFINISHED_REFUNDS],
        ),
    ),
    "cases_open": (
        "Discrepancies that are not resolved, by kind and state",
        Statement(
            "SELECT kind, state, count(*) FROM payonce_discrepancy WHERE state <> %s GROUP BY 1, 2",
            [DiscrepancyState.RESOLVED.value],
        ),
    ),
    "messages_owed": (
        "Messages owed to the shop, by listener and state",
        Statement(
            "SELECT listener, state, count(*) FROM payonce_shop_message WHERE state = ANY(%s) GROUP BY 1, 2",
            [[MessageState.PENDING.value, MessageState.PARKED.value]],
        ),
    ),
    "orders_closing": (
        "Orders that are being closed",
        Statement("SELECT count(*) FROM payonce_order WHERE state = %s", [OrderState.CLOSING.value]),
    ),
    "notifications_unapplied": (
        "Notifications that are stored and not applied",
        Statement(
            "SELECT count(*) FROM payonce_notification WHERE next_try_at IS NOT NULL AND state = %s",
            [NotificationState.RECEIVED.value],
        ),
    ),
    "notifications_refused_last_hour": (
        "Notifications refused in the last hour, by channel account: forged, altered or stale",
        Statement(
            "SELECT account, sum(count)::bigint FROM payonce_notification"
            " WHERE received_at > payonce_now() - interval '1 hour' AND state = %s GROUP BY 1",
            [NotificationState.FORGED.value],
        ),
    ),
    "stream_check_overdue_seconds": (
        "How long the most overdue stream has waited to be asked about",
        Statement(
            f"SELECT greatest(0, {_AGE.format('next_check_at')}) FROM payonce_stream WHERE next_check_at IS NOT NULL"
        ),
    ),
    "refund_overdue_seconds": (
        "How long the most overdue refund has waited for its next try",
        Statement(
            f"SELECT greatest(0, {_AGE.format('next_try_at')}) FROM payonce_refund WHERE next_try_at IS NOT NULL"
        ),
    ),
    "message_overdue_seconds": (
        "How long the most overdue message to the shop has waited",
        Statement(
            f"SELECT greatest(0, {_AGE.format('next_try_at')}) FROM payonce_shop_message WHERE state = %s",
            [MessageState.PENDING.value],
        ),
    ),
    "case_age_seconds": (
        "Age of the oldest discrepancy that waits for a person",
        Statement(
            f"SELECT {_AGE.format('opened_at')} FROM payonce_discrepancy WHERE state = %s",
            [DiscrepancyState.OPEN.value],
        ),
    ),
    "channel_failures_in_a_row": (
        "Failures in a row of each outside party and process",
        Statement("SELECT name, failure_count FROM payonce_channel_state"),
    ),
    "channel_is_paused": (
        "1 while an outside party is not asked because it failed",
        Statement("SELECT name, coalesce(open_until > payonce_now(), false)::int FROM payonce_channel_state"),
    ),
    "channel_silent_seconds": (
        "Time since the last success of each outside party and process",
        Statement(
            "SELECT name, extract(epoch FROM payonce_now() - last_success_at)::bigint FROM payonce_channel_state"
            " WHERE last_success_at IS NOT NULL"
        ),
    ),
    "notifications_foreign_total": (
        "Verified notifications about numbers that are not ours",
        Statement("SELECT name, foreign_count FROM payonce_channel_state WHERE foreign_count > 0"),
    ),
}
LABELS = {
    "streams_watched": ("account", "state"), "refunds_unfinished": ("state",), "cases_open": ("kind", "state"),
    "messages_owed": ("listener", "state"), "notifications_refused_last_hour": ("account",),
    "channel_failures_in_a_row": ("name",), "channel_is_paused": ("name",), "channel_silent_seconds": ("name",),
    "notifications_foreign_total": ("name",),
}  # fmt: skip


@require_safe
@outside_transactions
def metrics(request: HttpRequest) -> HttpResponse:
    """The text for a scraper that shows `PAYONCE["METRICS_TOKEN"]`, or for a signed-in member of staff."""
    if not _may_read(request):
        problem = Problem(401, "not_authenticated", "Show the metrics token as a bearer token, or sign in as staff.")
        return answer_problem(problem, request)
    answers = flight.fly([statement for _help, statement in BACKLOGS.values()], get_settings().DATABASE)
    text = "\n".join(_lines(answers)) + "\n"
    return HttpResponse(text, content_type=CONTENT_TYPE, headers={"Cache-Control": "no-store"})


def _may_read(request: HttpRequest) -> bool:
    wanted = get_settings().METRICS_TOKEN
    given = str(request.META.get("HTTP_AUTHORIZATION", ""))
    if wanted and constant_time_compare(given, f"Bearer {wanted}"):
        return True
    user: Any = getattr(request, "user", None)
    return user is not None and user.is_active and user.is_staff


def _lines(answers: list[list[flight.Row]]) -> Iterator[str]:
    for (name, (said, _statement)), rows in zip(BACKLOGS.items(), answers, strict=True):
        kind = "counter" if name.endswith("_total") else "gauge"
        yield f"# HELP payonce_{name} {said}"
        yield f"# TYPE payonce_{name} {kind}"
        labels = LABELS.get(name, ())
        for *values, number in rows:
            pairs = ",".join(f'{label}="{_escape(value)}"' for label, value in zip(labels, values, strict=True))
            yield f"payonce_{name}{'{' + pairs + '}' if pairs else ''} {number}"


def _escape(value: str) -> str:
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
