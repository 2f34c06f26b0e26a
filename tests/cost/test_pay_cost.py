"""What a click on Pay costs: the hard gates, counted on the wire."""

import threading

from payonce.payments import cache
from payonce.payments.pay import PayCode, pay_order
from payonce.payments.tokens import sign_buyer_token
from tests.concurrency.interleave import IDLE_IN_TRANSACTION, count, run_together
from tests.factories import apply, open_order, pending_stream, view_of

PAY_ROUND_TRIPS_MAX = 8


def click(order, channel="scripted_a"):
    return pay_order(order.number, channel, "qr")


def test_a_first_click_costs_at_most_eight_round_trips_and_two_commits(scripted, wire):
    """Intent and answer: one commit each, and a flight for the lock and one for the writes in both."""
    order = open_order()
    wire.reset()
    assert click(order).code is PayCode.PREPAY
    assert wire.turns <= PAY_ROUND_TRIPS_MAX
    assert wire.turns == 6
    assert wire.commits == 2


def test_a_first_click_over_http_costs_no_more(bank, wire, client, settings):
    """The view adds nothing: no session, no user, no health check; the bank is the real one, over HTTP."""
    order = open_order()
    token = sign_buyer_token(order.number)
    wire.reset()
    answer = client.post(
        f"/api/orders/{order.number}/pay/", {"channel": "blue", "method": "qr"}, "application/json",
        headers={"authorization": f"Bearer {token}"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.content
    assert wire.turns <= PAY_ROUND_TRIPS_MAX
    assert wire.commits == 2


def test_a_click_from_the_database_costs_one_commit(scripted, wire, redis_client):
    """Redis was flushed: lock, read, commit; nothing is written."""
    order = open_order()
    click(order)
    redis_client.flushdb()
    wire.reset()
    assert click(order).code is PayCode.PREPAY
    assert wire.turns <= 3
    assert not [text for text in wire.queries if text.startswith(("INSERT", "UPDATE"))]


def test_a_repeated_click_costs_one_redis_command_and_no_sql(scripted, wire, redis_client, commands):
    """S8: one GET."""
    order = open_order()
    first = click(order)
    wire.reset()
    commands.taken()
    assert click(order) == first
    found = commands.taken()
    assert [command.split()[0].upper() for command in found] == ["GET"], found
    assert (wire.turns, wire.statements) == (0, [])


def test_a_click_on_a_paid_order_costs_the_same(scripted, wire, redis_client, commands):
    """S8: "already paid" is cached too."""
    stream = pending_stream()
    apply(stream, view_of(stream))
    assert click(stream.order, "scripted_b").code is PayCode.ALREADY_PAID
    wire.reset()
    commands.taken()
    assert click(stream.order, "scripted_b").code is PayCode.ALREADY_PAID
    assert len(commands.taken()) == 1
    assert wire.statements == []


def test_a_click_whose_turn_comes_just_after_another_click_was_done_costs_no_sql(
    scripted, wire, redis_client, monkeypatch
):
    """S8: it found nothing in the cache, the other click worked and left its result, and now the turn is free."""
    order = open_order()
    take_turn, others = cache.take_turn, []

    def take_turn_late(number):
        monkeypatch.setattr(cache, "take_turn", take_turn)
        others.append(click(order))
        wire.reset()
        return take_turn(number)

    monkeypatch.setattr(cache, "take_turn", take_turn_late)
    assert [click(order)] == others
    assert wire.statements == []


def test_a_thousand_clicks_cost_one_channel_call_and_two_commits(scripted, wire, redis_client, monkeypatch):
    """S8: 20 threads of 50 clicks. Redis is given the time that a busy machine takes."""
    monkeypatch.setattr(cache, "SOCKET_SECONDS", 30)
    cache.reset()
    order = open_order()
    wire.reset()
    run_together(*[lambda: [click(order) for _ in range(50)]] * 20)
    assert scripted.count("prepay") == 1
    assert wire.commits == 2


def test_no_pooled_connection_and_no_transaction_is_held_while_the_channel_is_called(scripted, pooled):
    """L6: a slow channel does not empty the pool."""
    seen = []

    def look(_):
        stats = pooled.get_stats()
        seen.append((stats["pool_size"] - stats["pool_available"], count(IDLE_IN_TRANSACTION)))

    for operation in ("prepay", "query", "close"):
        scripted.before[operation] = look
    order = open_order()
    assert click(order).code is PayCode.PREPAY
    assert click(order, "scripted_b").code is PayCode.PREPAY
    assert len(seen) >= 4
    assert set(seen) == {(0, 0)}


def test_more_clicks_than_connections_go_through_while_the_channel_is_slow(scripted, pooled):
    """L6: eight orders wait for the channel at the same time with a pool of four."""
    orders = [open_order() for _ in range(8)]
    together = threading.Barrier(8)
    scripted.before["prepay"] = lambda _: together.wait(20)
    results = run_together(*[lambda order=order: click(order) for order in orders])
    assert {getattr(result, "code", result) for result in results} == {PayCode.PREPAY}


def test_pooled_clicks_cost_no_round_trip_more(scripted, pooled, wire):
    """Taking a connection from the pool and giving it back is free on the wire."""
    order = open_order()
    wire.reset()
    assert click(order).code is PayCode.PREPAY
    assert wire.turns <= PAY_ROUND_TRIPS_MAX
    assert wire.commits == 2


def test_a_dead_redis_costs_no_round_trip_to_the_database(scripted, wire, settings):
    """S8: without Redis a first click costs the same SQL."""
    settings.PAYONCE = {**settings.PAYONCE, "REDIS_URL": ""}
    cache.reset()
    order = open_order()
    wire.reset()
    assert click(order).code is PayCode.PREPAY
    assert (wire.turns, wire.commits) == (6, 2)
