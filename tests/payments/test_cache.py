"""The Redis half by itself, against a real Redis: what is kept and for how long, who gets the turn, and what a Redis that fails costs."""

import logging
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache

import pytest
import redis

from payonce.orders.conf import get_settings
from payonce.payments import cache
from payonce.payments.cache import Entry

ENTRY = Entry("po1", "po1s01", "a", "qr", "web", "ann", 1000, "CNY", "qr", "text", "2026-01-01T00:00:00+00:00")
LIFE = timedelta(seconds=10)
KEY = "payonce:order:po1"
GATE = "payonce:gate:po1"


@pytest.fixture
def store(redis_client):
    cache.reset()
    yield redis_client
    cache.reset()


class Broken:
    """A client whose every command fails; it counts them."""

    def __init__(self, error=None):
        self.error = error or redis.ConnectionError("gone")
        self.asked = 0

    def __getattr__(self, name):
        self.asked += 1
        raise self.error


@pytest.fixture
def broken(monkeypatch):
    cache.reset()
    client = Broken()
    monkeypatch.setattr(cache, "_client", lru_cache(lambda url: client))
    yield client
    monkeypatch.undo()
    cache.reset()


def test_an_entry_is_read_as_it_was_stored(store):
    """S8"""
    cache.store(ENTRY, 3, LIFE)
    assert cache.read("po1") == ENTRY
    assert store.get(KEY).startswith(b"3:")
    assert cache.read("po2") is None


@pytest.mark.parametrize(
    ("life", "kept_ms"),
    [
        (timedelta(milliseconds=1999), 1_999),
        (timedelta(seconds=29), 29_000),
        (timedelta(hours=1), 30_000),
        (timedelta(seconds=30.001), 30_000),
    ],
)
def test_an_entry_lives_as_long_as_its_prepay_and_at_most_thirty_seconds(monkeypatch, life, kept_ms):
    """S8: the bound of how stale it may be while Redis fails."""
    told = []
    monkeypatch.setattr(cache, "_put", lambda *arguments: told.append(arguments))
    cache.store(ENTRY, 3, life)
    assert [(order, version, kept) for order, version, _text, kept in told] == [("po1", 3, kept_ms)]


def test_a_life_reaches_redis_in_milliseconds(store):
    cache.store(ENTRY, 3, LIFE)
    assert 1_000 < store.pttl(KEY) <= 10_000


def test_tombstones_and_turns_last_exactly_so_long(monkeypatch):
    asked = []

    class Recorder:
        def set(self, key, value, **how):
            asked.append((key, how))
            return True

        def eval(self, script, count, key, version, value, life_ms):
            asked.append((key, count, version, value, life_ms))

    cache.reset()
    monkeypatch.setattr(cache, "_client", lru_cache(lambda url: Recorder()))
    cache.void("po1", 4)
    cache.take_turn("po1")
    assert asked == [(KEY, 1, 3, "3::", 600_000), (GATE, {"nx": True, "px": 20_000})]


def test_the_shortest_life_is_kept_and_one_that_is_over_is_not(monkeypatch):
    """S8: an expired prepay is never handed out."""
    told = []
    monkeypatch.setattr(cache, "_put", lambda *arguments: told.append(arguments))
    for life in (timedelta(0), timedelta(microseconds=999), timedelta(seconds=-1)):
        cache.store(ENTRY, 3, life)
    assert told == []
    cache.store(ENTRY, 3, timedelta(milliseconds=1))
    assert len(told) == 1


def test_a_newer_version_wins_and_the_same_one_may_be_renewed(store):
    """S8: a slow process does not bring an older result back."""
    newer = replace(ENTRY, prepay_value="newer")
    cache.store(ENTRY, 3, LIFE)
    cache.store(newer, 3, LIFE)
    assert cache.read("po1") == newer
    cache.store(ENTRY, 2, LIFE)
    assert cache.read("po1") == newer
    cache.store(ENTRY, 10, LIFE)
    assert cache.read("po1") == ENTRY, "versions are numbers and not texts"


def test_an_order_that_moved_on_voids_what_was_and_what_comes_late(store):
    """S8: nothing older than the order's version is handed out or written, and the new version's result is."""
    cache.store(ENTRY, 3, LIFE)
    cache.void("po1", 4)
    assert cache.read("po1") is None
    assert store.get(KEY) == b"3::"
    assert store.pttl(KEY) > 500_000, "longer than any process that works with the old state"
    cache.store(ENTRY, 3, LIFE)
    assert cache.read("po1") is None
    cache.store(ENTRY, 4, LIFE)
    assert cache.read("po1") == ENTRY
    cache.void("po1", 4)
    assert cache.read("po1") == ENTRY, "it is of that version already"


def test_what_was_altered_torn_or_written_by_another_release_is_not_read(store):
    """S8: a signature of this order over this text, and fields that we know."""
    cache.store(ENTRY, 3, LIFE)
    genuine = store.get(KEY)
    wrong_fields = '{"order": "po1"}'
    for value in (
        genuine.replace(b"1000", b"1001"), b"3:" + genuine.partition(b":")[2][1:], genuine[:-1], b"3:", b"3::", b"\xff\xfe:x:y",
        f"3:{cache._sign('po1', wrong_fields)}:{wrong_fields}".encode(), f"3:{cache._sign('po1', '')}:".encode(),
        f"3:{cache._sign('po1', 'x')}:x".encode(),
    ):  # fmt: skip
        store.set(KEY, value)
        assert cache.read("po1") is None, value
    store.set("payonce:order:po2", genuine)
    assert cache.read("po2") is None, "another order's"
    store.set(KEY, genuine)
    assert cache.read("po1") == ENTRY


def test_a_signature_is_of_this_purpose_alone():
    """X1: a text that the shop signed with the same secret for something else is not an entry."""
    from django.utils.crypto import salted_hmac

    text = salted_hmac("payonce.cache", "po1:{}", algorithm="sha256").hexdigest()
    assert cache._sign("po1", "{}") == text
    assert len(text) == 64


def test_one_of_many_gets_the_turn_and_only_its_holder_ends_it(store):
    token = cache.take_turn("po1")
    assert len(token) == 16
    assert store.get(GATE) == token.encode()
    assert 10_000 < store.pttl(GATE) <= 20_000, "above the channel's total time-out, and not for ever"
    assert cache.take_turn("po1") is None
    assert cache.take_turn("po2") not in (None, "", token)
    cache.end_turn("po1", "another")
    cache.end_turn("po1", "")
    assert cache.take_turn("po1") is None
    cache.end_turn("po1", token)
    assert cache.take_turn("po1") not in (None, "", token)


def test_whoever_waits_gets_the_result_or_the_turn_or_gives_up(store):
    found = iter([None, None, "the result"])
    token = cache.take_turn("po1")
    assert cache.wait_turn("po1", 60, lambda: next(found)) == "the result"

    def ends_its_turn():
        cache.end_turn("po1", token)

    mine = cache.wait_turn("po1", 60, ends_its_turn)
    assert store.get(GATE) == mine.encode() != token.encode()
    assert cache.wait_turn("po1", 0.05, lambda: None) is None
    assert cache.wait_turn("po1", 0, pytest.fail) is None, "no time, no question"


def test_whoever_waits_pauses_between_two_looks_and_ends_in_time(store, monkeypatch):
    """A loop without a pause would hold a core of the web server while the channel is asked."""
    slept, now = [], [100.0]

    def sleep(seconds):
        slept.append(seconds)
        now[0] += 0.25

    monkeypatch.setattr(cache, "time", type("Time", (), {"sleep": sleep, "monotonic": lambda: now[0]}))
    cache.take_turn("po1")
    assert cache.wait_turn("po1", 1, lambda: None) is None
    assert slept == [0.02] * 4


def test_one_kick_of_many_starts_a_task_until_it_begins(store):
    assert cache.claim_kick("poll", 5_000) is True
    assert cache.claim_kick("poll", 5_000) is False
    assert 0 < store.pttl("payonce:kick:poll") <= 5_000
    assert cache.claim_kick("publish", 5_000) is True
    cache.end_kick("poll")
    assert cache.claim_kick("poll", 5_000) is True
    assert cache.claim_kick("publish", 5_000) is False


def test_whoever_waits_for_an_order_is_told_its_version(store):
    """S12"""
    with store.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe("payonce:orders")
        listener.get_message(timeout=30)
        cache.wake("po1", 7)
        assert listener.get_message(timeout=30)["data"] == b"po1:7"


def test_without_redis_everyone_goes_ahead(broken):
    """S8: the database path does the same, slower."""
    assert cache.read("po1") is None
    assert cache.take_turn("po1") == ""
    assert cache.wait_turn("po1", 60, lambda: None) == ""
    assert cache.claim_kick("poll", 1_000) is True
    cache.store(ENTRY, 3, LIFE)
    cache.void("po1", 4)
    cache.end_turn("po1", "token")
    cache.end_kick("poll")
    cache.wake("po1", 7)
    assert cache.is_answering() is False
    assert broken.asked == 1, "after an error Redis is left alone for a while"


def test_a_redis_that_failed_is_asked_again_after_two_seconds(broken, monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(cache, "time", type("Time", (), {"monotonic": lambda: now[0]}))
    caplog.set_level(logging.WARNING, logger="payonce.cache")
    assert cache.read("po1") is None
    for at, asked in ((100.0, 1), (101.99, 1), (102.0, 2), (103.9, 2), (104.0, 3)):
        now[0] = at
        cache.read("po1")
        assert broken.asked == asked, at
    assert [record.getMessage() for record in caplog.records] == [
        "Redis does not answer (ConnectionError); going on without it"
    ] * 3
    cache.reset()
    cache.read("po1")
    assert broken.asked == 4, "a fresh process knows of no failure"


@pytest.mark.parametrize(
    "error", [redis.TimeoutError("slow"), redis.ResponseError("OOM"), OSError("reset"), ValueError("port")]
)
def test_however_redis_fails_the_work_goes_on(broken, error):
    broken.error = error
    assert cache.take_turn("po1") == ""


def test_a_mistake_of_ours_is_not_taken_for_a_failure_of_redis(broken):
    broken.error = TypeError("ours")
    with pytest.raises(TypeError):
        cache.read("po1")


def test_no_redis_is_configured(settings, broken):
    settings.PAYONCE = {**settings.PAYONCE, "REDIS_URL": ""}
    assert cache.take_turn("po1") == ""
    assert cache.is_answering() is False
    assert broken.asked == 0


def test_a_healthy_redis_answers_and_its_client_is_made_once(store):
    assert cache.is_answering() is True
    url = get_settings().REDIS_URL
    client = cache._client(url)
    assert cache._client(url) is client
    cache.reset()
    assert cache._client(url) is not client, "a forked process never shares its parent's connections"


def test_a_redis_that_hangs_costs_a_quarter_of_a_second_and_is_not_tried_twice(settings):
    """L6: time-outs on connecting and reading, and no retry behind our back."""
    client = cache._client("redis://127.0.0.1:1/0")
    given = client.connection_pool.connection_kwargs
    assert (given["socket_timeout"], given["socket_connect_timeout"]) == (0.25, 0.25)
    assert (given["retry"], given["retry_on_timeout"]) == (None, False)
    cache.reset()
