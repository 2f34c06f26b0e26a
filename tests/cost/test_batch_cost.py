"""What pollers, publishers and sweeps cost: statements per batch, which do not grow with its rows."""

import pytest

from payonce.payments import claims, poll, publish, reconcile, sweep
from tests.concurrency.interleave import IDLE_IN_TRANSACTION, count
from tests.factories import open_order, paid_stream, pending_stream

POLL_STATEMENTS_MAX = 3


@pytest.mark.parametrize("rows", [1, 40])
def test_a_poll_without_news_costs_three_statements_per_batch(scripted, clock, wire, rows):
    """Claim, health, write back: however many streams were asked about."""
    for _ in range(rows):
        pending_stream()
    clock.advance(4)
    wire.reset()
    assert poll.poll_due().asked == rows
    assert len(wire.statements) <= POLL_STATEMENTS_MAX
    assert wire.turns == 2


def test_a_poll_without_due_rows_costs_one_statement(scripted, wire):
    """Asked every two seconds, for ever."""
    pending_stream()
    wire.reset()
    assert poll.poll_due().asked == 0
    assert (wire.turns, wire.commits, len(wire.statements)) == (1, 0, 1)


def test_no_transaction_and_no_pooled_connection_is_held_while_channels_are_asked(scripted, clock, pooled):
    """L6, S6: the claim is committed, and the connection is back in the pool, before the first query goes out."""
    for _ in range(3):
        pending_stream()
    clock.advance(4)
    seen = []

    def look(_):
        stats = pooled.get_stats()
        seen.append((stats["pool_size"] - stats["pool_available"], count(IDLE_IN_TRANSACTION)))

    scripted.before["query"] = look
    assert poll.poll_due().asked == 3
    assert seen == [(0, 0)] * 3


@pytest.mark.parametrize("orders", [1, 20])
def test_messages_cost_the_same_per_batch(scripted, wire, orders):
    """S11: claim and record, not one statement per message."""
    for _ in range(orders):
        paid_stream()
    wire.reset()
    assert publish.deliver_due() == orders
    # A batch, its record and its health, and the look that finds no second batch.
    assert wire.turns <= 5
    assert len(wire.statements) <= 9


@pytest.mark.parametrize("name", ["poll", "close", "refund", "expire", "publish", "inbox"])
def test_a_sweep_with_nothing_to_do_writes_nothing(scripted, wire, name):
    """Beat starts each of them every few seconds."""
    paid_stream()
    publish.deliver_due()
    wire.reset()
    sweep.SWEEPS[name][0]()
    assert wire.commits == 0
    assert len(wire.statements) <= 2


@pytest.mark.parametrize("rows", [1, 12])
def test_looking_for_contradictions_costs_the_same_for_any_number_of_rows(scripted, wire, rows):
    """One statement per kind of contradiction, one about accounts and one about second orders."""
    for _ in range(rows):
        paid_stream()
    wire.reset()
    assert sweep.sweep_reconcile() == 0
    assert len(wire.statements) <= len(reconcile.FINDINGS) + 2


def test_a_claim_of_many_rows_is_one_statement_and_one_commit(scripted, clock, wire):
    """L3: fifty rows in one round trip."""
    for _ in range(50):
        pending_stream(open_order())
    clock.advance(4)
    wire.reset()
    assert len(claims.claim_streams(closing=False, per_account=50)) == 50
    assert (wire.turns, wire.commits, len(wire.statements)) == (1, 1, 1)
