"""A process is killed with SIGKILL at every recovery point of a step. The sweeps alone heal it; the bank's ledger is the witness."""

from contextlib import contextmanager

import pytest

from payonce.orders.models import Event, Order
from payonce.payments.models import Discrepancy, Refund, Stream
from payonce.payments.pay import PayCode, pay_order
from payonce.payments.refund import request_refund
from payonce.payments.settle import Settled
from tests.concurrency.soundness import assert_sound
from tests.crash.shop import told
from tests.factories import apply, open_order, pending_stream

pytestmark = pytest.mark.crash


@contextmanager
def named(point):
    """Say in a failure at which recovery point the process died."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"killed {point}")
        raise


def net_minor(bank, order):
    """What the bank holds for an order, over all its streams' numbers."""
    ledger = bank.control.ledger()
    return sum(
        sums["net_minor"]
        for account in ledger["sums"].values()
        for number, sums in account.items()
        if number.startswith(order.number)
    )


def pay_at_bank(bank, stream):
    return bank.control.pay(stream.number, account=stream.account)


def assert_paid_once(bank, order):
    """M1, M4, S1, S10, S11: one keeper, the bank holds the price once, the history verifies, the shop was told in order."""
    order.refresh_from_db()
    assert order.state == "PAID"
    assert net_minor(bank, order) == order.amount_minor
    assert Event.objects.filter(order=order, kind="order.paid").count() == 1
    assert_sound(order)
    assert_shop_told(order)


def assert_shop_told(order):
    owed = list(order.messages.order_by("sequence").values_list("sequence", flat=True))
    heard = told(order.number)
    assert sorted(set(heard)) == owed
    firsts = [sequence for place, sequence in enumerate(heard) if sequence not in heard[:place]]
    assert firsts == owed
    assert set(order.messages.values_list("state", flat=True)) <= {"DELIVERED"}


PAY_POINTS = (
    "before commit", "after commit", "before prepay", "after prepay", "before commit", "after commit", "at the end",
)  # fmt: skip


def test_pay(children, world, healing):
    """S6, S3: the intent is committed first; the next click carries the same stream on, wherever the first one died."""
    assert children.run("pay", open_order().number, "blue").points == PAY_POINTS
    for place, point in enumerate(PAY_POINTS):
        order = open_order()
        with named(point), healing() as heal:
            assert children.run("pay", order.number, "blue", kill=place).killed
            assert Stream.objects.filter(order=order).count() == (0 if place == 0 else 1)
            heal(1)
            result = pay_order(order.number, "blue", "qr")
            assert result.code is PayCode.PREPAY
            stream = Stream.objects.get(order=order)
            assert pay_at_bank(world, stream).ok
            heal(2)
            assert_paid_once(world, order)


def test_pay_whose_buyer_never_comes_back(children, world, healing):
    """S13: whatever a dead click left behind is closed with its order."""
    for place, point in enumerate(PAY_POINTS):
        order = open_order()
        with named(point), healing() as heal:
            assert children.run("pay", order.number, "blue", kill=place).killed
            children.run("close_order", order.number)
            heal(4)
            order.refresh_from_db()
            assert order.state == "CLOSED"
            assert set(order.streams.values_list("state", flat=True)) <= {"CLOSED"}
            assert net_minor(world, order) == 0
            assert_sound(order)


def test_switching_channel(children, world, healing):
    """S3, S4, M3: the buyer switches, the process dies between closing the old stream and its commit, and pays what is payable."""
    first = pending_stream(channel="blue")
    points = children.run("pay", first.order.number, "green").points
    assert points.count("before close") == 1
    for place, point in enumerate(points):
        old = pending_stream(channel="blue")
        with named(point), healing() as heal:
            assert children.run("pay", old.order.number, "green", kill=place).killed
            is_paid = pay_at_bank(world, old).ok  # refused where the bank had closed it
            heal(3)
            result = pay_order(old.order.number, "green", "qr")
            assert result.code is (PayCode.ALREADY_PAID if is_paid else PayCode.PREPAY)
            if not is_paid:
                assert pay_at_bank(world, Stream.objects.get(number=result.stream)).ok
            heal(3)
            assert_paid_once(world, old.order)


def test_paying_both_wallets_after_a_crash(children, world, healing):
    """M3: the old wallet was paid before its close reached the bank, the new one too: one is kept, one is given back."""
    points = children.run("pay", pending_stream(channel="blue").order.number, "green").points
    for place in (place for place, point in enumerate(points) if point == "before query" or "commit" in point):
        old = pending_stream(channel="blue")
        with named(points[place]), healing() as heal:
            assert children.run("pay", old.order.number, "green", kill=place).killed
            pay_at_bank(world, old)
            for stream in Stream.objects.filter(order=old.order, account="green", state="PENDING"):
                pay_at_bank(world, stream)
            heal(6)
            if old.order.streams.filter(state="SUCCEEDED").exists():
                assert_paid_once(world, old.order)
            assert net_minor(world, old.order) in (0, 1000)


def test_refund(children, world, healing):
    """M3, M6: the same number moves the money once, wherever the worker died."""
    points = children.run("run_refund", refund_of_surplus(world)[0]).points
    assert points.count("before refund") == 1
    for place, point in enumerate(points):
        number, order = refund_of_surplus(world)
        with named(point), healing() as heal:
            assert children.run("run_refund", number, kill=place).killed
            heal(4)
            assert Refund.objects.get(number=number).state == "SUCCEEDED"
            rows = [row for row in world.control.ledger()["refunds"] if row["number"] == number]
            assert len(rows) == 1
            assert Discrepancy.objects.get(order=order).state == "RESOLVED"
            assert_paid_once(world, order)


def refund_of_surplus(bank):
    """An order that was paid in two wallets; its one automatic refund is due."""
    first = pending_stream(channel="blue")
    assert pay_at_bank(bank, first).ok
    second = pending_second(bank, first.order)
    assert pay_at_bank(bank, second).ok
    assert apply(first, view_at_bank(first)) is Settled.KEEPER
    assert apply(second, view_at_bank(second)) is Settled.SURPLUS
    return Refund.objects.get(stream=second).number, first.order


def pending_second(bank, order):
    """A second open wallet: the answers to the first one's query and close were lost."""
    bank.control.fault("query", "drop_before", account="blue", times=None)
    bank.control.fault("close", "drop_before", account="blue", times=None)
    try:
        return pending_stream(order, "green")
    finally:
        bank.control.clear_faults(account="blue")


def view_at_bank(stream):
    from payonce.channels.messages import Known
    from payonce.payments.call import call
    from payonce.payments.refs import payment_ref

    outcome = call(stream.account, lambda channel: channel.query(payment_ref(stream)))
    assert isinstance(outcome, Known)
    return outcome.value


def test_asking_for_a_refund(children, world, healing):
    """M2, S7: reserved and recorded together, or not at all; then it is carried out once."""
    points = children.run("request_refund", paid_at_bank(world).number).points
    for place, point in enumerate(points):
        stream = paid_at_bank(world)
        with named(point), healing() as heal:
            assert children.run("request_refund", stream.number, kill=place).killed
            again = request_refund(stream.number, 1000, reason="duplicate", by="bob")
            assert again.code in ("requested", "too_much")
            heal(2)
            stream.order.refresh_from_db()
            assert (stream.order.state, net_minor(world, stream.order)) == ("REFUNDED", 0)
            assert Refund.objects.get(stream=stream).state == "SUCCEEDED"
            assert_sound(stream.order)
            assert_shop_told(stream.order)


def paid_at_bank(bank):
    stream = pending_stream(channel="blue")
    assert pay_at_bank(bank, stream).ok
    assert apply(stream, view_at_bank(stream)) is Settled.KEEPER
    return stream


def test_poll(children, world, healing):
    """L3, S1: claimed and then dead: the lease ends, and the next poller finds the money."""
    for place in range(20):
        stream = pending_stream(channel="blue")
        assert pay_at_bank(world, stream).ok
        with healing() as heal, named(f"at crossing {place}"):
            heal.clock.advance(4)
            ended = children.run("poll", kill=place)
            if not ended.killed:
                assert {"after write", "after query", "after commit"} <= set(ended.points)
                assert place == len(ended.points)
                break
            heal(2)
            assert_paid_once(world, stream.order)


def test_poll_without_news(children, world, healing):
    """L3: a poller that died between the answer and writing it back loses nothing."""
    for place in range(12):
        stream = pending_stream(channel="blue")
        with healing() as heal, named(f"at crossing {place}"):
            heal.clock.advance(4)
            if not children.run("poll", kill=place).killed:
                break
            assert pay_at_bank(world, stream).ok
            heal(2)
            assert_paid_once(world, stream.order)


def test_publish(children, world, healing):
    """S11: told but not recorded: told again; recorded is never lost; in order per order."""
    for place in range(20):
        stream = paid_at_bank(world)
        request_refund(stream.number, 400, reason="duplicate", by="ann")
        with healing() as heal, named(f"at crossing {place}"):
            ended = children.run("publish", kill=place)
            if not ended.killed:
                assert {"after hook", "before write"} <= set(ended.points)
                break
            heal(3)
            assert_shop_told(stream.order)
            assert_sound(stream.order)


def test_closing_an_order(children, world, healing):
    """S4, S13: between CLOSING and CLOSED: the sweep goes on; nothing is payable at the end."""
    points = children.run("close_order", pending_stream(channel="blue").order.number).points
    for place, point in enumerate(points):
        stream = pending_stream(channel="blue")
        with named(point), healing() as heal:
            assert children.run("close_order", stream.order.number, kill=place).killed
            children.run("close_order", stream.order.number) if place == 0 else None
            heal(4)
            stream.order.refresh_from_db()
            assert stream.order.state == "CLOSED"
            assert not pay_at_bank(world, stream).ok
            assert net_minor(world, stream.order) == 0
            assert_sound(stream.order)
            assert_shop_told(stream.order)


def test_money_that_comes_while_the_order_is_closing_and_the_process_dead(children, world, healing):
    """M1, S5: paid between the crash and the sweep: it settles the order, or is given back."""
    points = children.run("close_order", pending_stream(channel="blue").order.number).points
    for place, point in enumerate(points):
        stream = pending_stream(channel="blue")
        with named(point), healing() as heal:
            assert children.run("close_order", stream.order.number, kill=place).killed
            is_paid = pay_at_bank(world, stream).ok
            heal(6)
            order = Order.objects.get(pk=stream.order.pk)
            assert net_minor(world, order) == (1000 if order.state == "PAID" else 0)
            assert order.state == ("PAID" if is_paid else "CLOSED") or place == 0
            assert_sound(order)
            assert_shop_told(order)
