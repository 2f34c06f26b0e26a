"""Holding a status until it changes, and the stream of events, under ASGI."""

import asyncio
import json
import time

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.test import AsyncClient

from payonce.orders.models import Event
from payonce.payments import cache, tokens
from payonce.payments.api import hub as hub_module
from payonce.payments.models import Stream
from tests.factories import apply, open_order, paid_stream, pending_stream, view_of

pytestmark = pytest.mark.django_db(transaction=True)
SOON = 25.0
"""Seconds: below the 30 of a held request, so that its end is never taken for an answer to a change."""


@pytest.fixture(autouse=True)
async def close_connections():
    """The test's own thread for synchronous work gives its connection back."""
    yield
    await sync_to_async(connections.close_all)()


def settle(stream):
    try:
        apply(stream, view_of(stream))
    finally:
        connections.close_all()


async def make(state):
    """A stream in this state, with its order read."""

    def make_now():
        return Stream.objects.select_related("order").get(pk=state().pk)

    return await sync_to_async(make_now)()


async def get(order, suffix="", **headers):
    token = tokens.sign_buyer_token(order.number)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return await AsyncClient().get(
        f"/api/orders/{order.number}/{suffix}", headers={"authorization": f"Bearer {token}", **given}
    )


async def read_until(response, count):
    """Events from the stream until there are so many."""
    found = []
    async for part in response.streaming_content:
        text = part.decode()
        if text.startswith("id:"):
            found.append(json.loads(text.split("data: ", 1)[1]))
        if len(found) >= count:
            break
    await response.streaming_content.aclose()
    return found


async def until(is_so, what):
    """Wait for what can be observed, however busy the machine is."""
    deadline = time.monotonic() + SOON
    while not is_so():
        assert time.monotonic() < deadline, f"still waiting: {what}"
        await asyncio.sleep(0.01)


async def until_held(order, number=1):
    """So many callers know the order as it is, and wait for the next change."""

    def are_held():
        watches = hub_module.hub()._watches.get(order.number, ())
        return [watch.seen for watch in watches] == [order.version] * number

    await until(are_held, f"{number} who wait for {order.number}")


async def change_while_waiting(stream, order, **headers):
    """The answer to a held request about an order that changes meanwhile; not the one that its end would bring."""
    began = time.monotonic()
    waiting = asyncio.create_task(get(order, prefer="wait=30", **headers))
    await until_held(order)
    assert not waiting.done()
    await sync_to_async(settle, thread_sensitive=False)(stream)
    answer = await waiting
    assert time.monotonic() - began < SOON
    return answer


async def test_held_status_answers_when_it_is_told_of_the_change(scripted, monkeypatch):
    """S12: what the buyer pulls is what the last push implied. Nobody looks by himself here."""
    monkeypatch.setattr(hub_module, "LOOK_SECONDS", 3600.0)
    stream = await make(pending_stream)
    order = stream.order

    async def tell_again():  # the one announcement may come before the subscription
        while True:
            await asyncio.sleep(0.05)
            await sync_to_async(cache.wake, thread_sensitive=False)(order.number, order.version + 1)

    telling = asyncio.create_task(tell_again())
    try:
        answer = await change_while_waiting(stream, order)
    finally:
        telling.cancel()
    assert (answer.status_code, answer.json()["state"]) == (200, "PAID")
    assert answer["Preference-Applied"] == "wait=30"


async def test_held_status_needs_no_redis(scripted, monkeypatch):
    """S12: an announcement that is lost costs two seconds and nothing else."""
    stream = await make(pending_stream)
    monkeypatch.setattr(cache, "wake", lambda number, version: None)
    answer = await change_while_waiting(stream, stream.order)
    assert answer.json()["state"] == "PAID"


async def test_status_that_changed_meanwhile_is_not_held(scripted):
    stream = await make(pending_stream)
    tag = (await get(stream.order))["ETag"]
    await sync_to_async(settle)(stream)
    began = time.monotonic()
    answer = await get(stream.order, prefer="wait=30", if_none_match=tag)
    assert answer.json()["state"] == "PAID"
    assert time.monotonic() - began < SOON


async def test_held_status_ends_with_304_when_nothing_changes(scripted):
    order = await sync_to_async(open_order)()
    tag = (await get(order))["ETag"]
    answer = await get(order, prefer="wait=1", if_none_match=tag)
    assert answer.status_code == 304


async def test_final_status_and_problems_are_never_held(scripted):
    stream = await make(paid_stream)
    other = await sync_to_async(open_order)()
    began = time.monotonic()
    assert (await get(stream.order, prefer="wait=30")).json()["final"] is True
    foreign = await AsyncClient().get(
        f"/api/orders/{stream.order.number}/",
        headers={"authorization": f"Bearer {tokens.sign_buyer_token(other.number)}", "prefer": "wait=30"},
    )
    assert foreign.status_code == 404
    assert time.monotonic() - began < SOON


async def test_waiting_holds_no_database_connection(scripted):
    """L6: a hundred buyers may wait; none holds a connection while nothing happens."""
    order = await sync_to_async(open_order)()

    def count() -> int:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
            return cursor.fetchone()[0]

    before = await sync_to_async(count)()
    waiting = [asyncio.create_task(get(order, prefer="wait=30")) for _ in range(20)]
    await until_held(order, 20)
    assert await sync_to_async(count)() <= before + 1
    assert len(hub_module.hub()._tasks) == 2
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert not hub_module.hub()._watches


async def test_events_stream_begins_with_the_history_and_goes_on(scripted):
    stream = await make(pending_stream)
    response = await get(stream.order, "events/")
    assert response["Content-Type"] == "text/event-stream"
    reading = asyncio.create_task(read_until(response, 5))
    await until_held(stream.order)
    assert not reading.done()
    await sync_to_async(settle, thread_sensitive=False)(stream)
    found = await asyncio.wait_for(reading, SOON)
    assert [item["sequence"] for item in found] == [1, 2, 3, 4, 5]
    kinds = [kind async for kind in Event.objects.order_by("sequence").values_list("kind", flat=True)]
    assert [item["kind"] for item in found] == kinds[:5]
    assert "order.paid" in kinds
    assert not any("by" in item for item in found)


async def test_events_stream_resumes_after_the_last_event(scripted):
    """S12: nothing is lost between two connections and nothing comes twice."""
    stream = await make(paid_stream)
    response = await get(stream.order, "events/", last_event_id="3")
    assert [item["sequence"] for item in await read_until(response, 2)] == [4, 5]
