"""Cache, settings, messages, clocks: each test is named by what should hold."""

from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest

from payonce.orders.conf import find_problems
from payonce.payments import cache, sweep
from payonce.payments.models import Discrepancy, ShopMessage
from payonce.payments.surplus import decide_case
from tests.factories import apply, paid_stream, pending_stream, view_of
from tests.path.test_settle import late_stream


def entry(stream: str = "s1") -> cache.Entry:
    return cache.Entry("o1", stream, "a", "qr", "", "", 1000, "CNY", "qr", "value", "2030-01-01")


@pytest.mark.parametrize("late", [4, 3])
def test_a_result_of_an_older_version_is_not_cached_after_the_order_moved_on(scripted, late):
    """S8: version 5 voided the cache; a click that was decided before is late with its write."""
    cache.void("o1", 5)
    cache.store(entry(), late, timedelta(seconds=30))
    assert cache.read("o1") is None


def test_a_click_that_writes_its_cache_late_does_not_hand_out_a_closing_stream(scripted):
    """S8: with Redis healthy a cached prepay is open."""
    from payonce.payments import close
    from payonce.payments.pay import pay_order

    stream = pending_stream()
    stream.order.refresh_from_db()
    store, held = cache.store, []
    with mock.patch.object(cache, "store", lambda *arguments: held.append(arguments)):
        cache._client(cache.get_settings().REDIS_URL).flushdb()
        pay_order(stream.order.number, "scripted_a", "qr")  # decided, and then slow to write
    from payonce.channels.messages import CloseAnswer, CloseState, Known, PaymentState, PaymentView

    scripted.answers["scripted_a", "close"].append(Known(CloseAnswer(CloseState.UNPROVED)))
    assert close.close_stream(stream.number, by="operator:ann") == "unproven"
    for arguments in held:
        store(*arguments)
    found = cache.read(stream.order.number)
    assert found is None, PaymentView(stream.number, PaymentState.OPEN)


def test_an_endpoint_name_that_does_not_fit_is_refused_by_the_settings(scripted, settings):
    """Absence of validation here breaks every settle: the message row does not take the name."""
    raw = {**settings.PAYONCE, "MESSAGES": {"ENDPOINTS": {"e" * 33: {"url": "https://x.example", "secret": "whsec_x"}}}}
    if list(find_problems(raw)):
        return
    settings.PAYONCE = raw
    paid_stream()


@pytest.mark.parametrize(
    "endpoint", [{"url": "https://shop.example/"}, {"url": "https://shop.example/", "secret": "whsec_%"}]
)
def test_an_endpoint_with_a_wrong_secret_does_not_stop_the_others(scripted, settings, endpoint):
    """S11: one listener's mistake is that listener's."""
    settings.PAYONCE = {**settings.PAYONCE, "MESSAGES": {"ENDPOINTS": {"bad": endpoint}}}
    if list(find_problems(settings.PAYONCE)):
        return
    paid_stream()
    try:
        sweep.sweep_publish()
    except Exception:
        pass
    assert ShopMessage.objects.filter(listener="shop", state="DELIVERED").exists()


def test_an_operator_with_a_long_name_can_decide(scripted, settings):
    """Django's user names have up to 150 characters."""
    settings.PAYONCE = {**settings.PAYONCE, "LATE_PAYMENT": "ASK"}
    stream, view = late_stream(scripted, paid_after_seconds=100)
    apply(stream, view)
    assert decide_case(Discrepancy.objects.get().pk, "refund", "a" * 150) == "done"


def test_a_long_reason_to_close_an_order_does_not_break_closing(scripted):
    """The Python API takes any text."""
    from payonce.payments import expire

    stream = pending_stream()
    assert expire.close_order(stream.order.number, by="shop:shop", reason="the buyer asked us to cancel") == "closed"


def test_a_worker_whose_clock_is_ahead_still_runs_the_sweeps():
    """DESIGN 3.9: workers' clocks may be wrong. A task's absolute expiry is judged by the worker's clock."""
    from celery import Celery
    from celery.worker.request import Request

    from payonce.payments.beat import BEAT_SCHEDULE

    app = Celery("t", broker="memory://", set_as_current=False)

    @app.task(name="payonce.poll", shared=False)
    def poll():
        return 0

    options = BEAT_SCHEDULE["payonce-poll"]["options"]
    sent = app.amqp.as_task_v2("1", "payonce.poll", expires=options.get("expires"))
    message = mock.Mock(
        headers=sent.headers,
        properties=sent.properties,
        body=b"",
        content_type="application/json",
        content_encoding="utf-8",
    )
    message.payload = sent.body
    request = Request(message, app=app, decoded=True, headers=sent.headers, body=sent.body, task=poll)
    ahead = datetime.now(UTC) + timedelta(seconds=60)
    with mock.patch("celery.worker.request.datetime") as moved:
        moved.now.side_effect = lambda tz=None: ahead.astimezone(tz) if tz else ahead
        assert not request.maybe_expire()


def test_a_counted_retry_of_a_task_view(scripted):
    """A decided surplus stays decided: the same evidence again opens nothing (control)."""
    stream = paid_stream()
    apply(stream, view_of(stream))
    assert not Discrepancy.objects.exists()
