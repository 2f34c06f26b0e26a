"""Redis stopped, hanging, flushed, stale or poisoned: slower, never wrong. The database decides."""

import socket
from contextlib import suppress
from datetime import timedelta

import pytest

from payonce.payments import cache
from payonce.payments.models import Stream
from payonce.payments.pay import PayCode, pay_order
from payonce.payments.settle import Settled
from tests.concurrency.interleave import run_together
from tests.concurrency.soundness import assert_sound
from tests.factories import apply, open_order, pending_stream, view_of

pytestmark = pytest.mark.concurrency


def click(order, channel="scripted_a"):
    return pay_order(order.number, channel, "qr")


def key(order):
    return f"payonce:order:{order.number}"


def use_redis(settings, url):
    settings.PAYONCE = {**settings.PAYONCE, "REDIS_URL": url}
    cache.reset()


@pytest.fixture
def silent_server():
    """A server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        server.setblocking(False)
        yield server


def connections_to(server):
    """How many there have been."""
    found = 0
    with suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            found += 1
    return found


@pytest.fixture
def dead_port():
    """A port on which nobody listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        yield server.getsockname()[1]


def test_redis_is_stopped(patient, settings, dead_port):
    """S8: every click reaches the database, and there is still one stream and one call."""
    use_redis(settings, f"redis://127.0.0.1:{dead_port}/0")
    order = open_order()
    results = run_together(*[lambda: click(order)] * 10)
    assert {result.code for result in results} <= {PayCode.PREPAY, PayCode.IN_PROGRESS}
    assert Stream.objects.count() == 1
    assert patient.count("prepay") == 1
    assert_sound(order)


def test_redis_hangs(patient, settings, silent_server, monkeypatch):
    """S8, L6: a Redis that never answers costs a quarter of a second once, then it is left alone for a while."""
    monkeypatch.setattr(cache, "PAUSE_SECONDS", 600.0)
    use_redis(settings, f"redis://127.0.0.1:{silent_server.getsockname()[1]}/0")
    order = open_order()
    assert click(order).code is PayCode.PREPAY
    assert click(order).code is PayCode.PREPAY
    assert connections_to(silent_server) == 1
    assert Stream.objects.count() == 1


def test_redis_stops_between_two_clicks(patient, settings, dead_port):
    """S8: the stream that was handed out from the cache is handed out from the database."""
    order = open_order()
    first = click(order)
    use_redis(settings, f"redis://127.0.0.1:{dead_port}/0")
    assert click(order) == first
    assert patient.count("prepay") == 1


def test_redis_is_flushed_between_clicks(patient, redis_client):
    """S8: flushing never makes a second stream."""
    order = open_order()
    first = click(order)
    for _ in range(5):
        redis_client.flushdb()
        assert click(order) == first
    assert Stream.objects.count() == 1
    assert patient.count("prepay") == 1


def test_redis_is_flushed_while_clicks_wait_for_each_other(patient, redis_client):
    """S3, S8: the gate is gone while its holder is at the channel: the others find the call's lease in the row."""
    order = open_order()
    patient.before["prepay"] = lambda _: redis_client.flushdb()
    results = run_together(*[lambda: click(order)] * 10)
    assert {result.code for result in results} <= {PayCode.PREPAY, PayCode.IN_PROGRESS}
    assert Stream.objects.count() == 1
    assert patient.count("prepay") == 1


def test_an_entry_that_was_altered_is_not_believed(patient, redis_client):
    """S8: another QR under the old signature is ignored, and the order's own one is handed out."""
    order = open_order()
    first = click(order)
    stored = redis_client.get(key(order))
    redis_client.set(key(order), stored.replace(b"scripted:", b"attacker:"))
    assert click(order) == first


def test_the_entry_of_another_order_is_not_believed(patient, redis_client):
    """S8: a genuine entry under the wrong key does not open another buyer's payment."""
    mine, other = open_order(), open_order()
    first, second = click(mine), click(other)
    redis_client.set(key(mine), redis_client.get(key(other)))
    assert click(mine) == first
    assert first.stream != second.stream


@pytest.mark.parametrize(
    "value",
    [b"", b"x", b":", b"::", b"1:2", b"1:2:3", b"\xff\xfe:\x00:{}", b"9" * 400, b"1:" + b"a" * 64 + b":{}"],
    ids=repr,
)
def test_garbage_under_the_key_is_ignored(patient, redis_client, value):
    """S8: whatever lies there, the click is answered from the database."""
    order = open_order()
    first = click(order)
    redis_client.set(key(order), value)
    assert click(order) == first


def test_an_entry_of_another_release_is_ignored(patient, redis_client):
    """S8: during a rolling update the older process's entry has other fields."""
    order = open_order()
    first = click(order)
    body = '{"order": "x", "unknown_field": 1}'
    redis_client.set(key(order), f"9:{cache._sign(order.number, body)}:{body}")
    assert click(order) == first


def test_a_key_of_another_type_is_ignored(patient, redis_client):
    """S8: somebody made it a list."""
    order = open_order()
    first = click(order)
    redis_client.delete(key(order))
    redis_client.rpush(key(order), "x")
    redis_client.set(f"payonce:gate:{order.number}", "somebody else's", px=300)
    cache.reset()
    assert click(order) == first


def test_a_stale_entry_shows_an_old_prepay_and_pays_nobody_twice(patient, redis_client):
    """S8, M3: Redis brought an entry back from before a switch: the buyer may see the old QR; its money is surplus at worst."""
    stream = pending_stream()
    order = stream.order
    old = redis_client.get(key(order))
    redis_client.flushdb()
    click(order, "scripted_b")
    redis_client.set(key(order), old, px=30_000)
    assert click(order).stream == stream.number  # stale, for as long as an entry lives
    second = Stream.objects.get(account="scripted_b")
    assert apply(second, view_of(second)) is Settled.KEEPER
    assert apply(stream, view_of(stream)) is Settled.SURPLUS
    assert_sound(order)


def test_no_entry_outlives_half_a_minute(patient, redis_client):
    """S8: what Redis could be stale about is over after 30 s."""
    order = open_order()
    click(order)
    assert 0 < redis_client.pttl(key(order)) <= 30_000


def test_a_late_writer_does_not_bring_an_old_prepay_back(patient, redis_client):
    """S8: an entry of before the payment, written after it, loses against the order's newer version."""
    stream = pending_stream()
    order = stream.order
    old = cache.read(order.number)
    order.refresh_from_db()
    version = order.version
    apply(stream, view_of(stream))

    cache.store(old, version, timedelta(seconds=30))
    assert cache.read(order.number) is None
    assert click(order).code is PayCode.ALREADY_PAID


def test_a_gate_that_was_left_behind_delays_and_blocks_nobody_for_long(patient, redis_client):
    """S9: its holder was killed. The others wait two seconds, then say so; the gate ends by itself."""
    order = open_order()
    redis_client.set(f"payonce:gate:{order.number}", "a dead worker's", px=20_000)
    result = click(order)
    assert (result.code, result.retry_after_seconds) == (PayCode.IN_PROGRESS, 1)
    redis_client.pexpire(f"payonce:gate:{order.number}", 1)
    assert click(order).code is PayCode.PREPAY
