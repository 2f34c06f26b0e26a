"""A process is killed while it takes a notification, captures, or applies what was stored: no evidence and no money is lost."""

import json

import pytest

from payonce.channels import registry
from payonce.payments import notify, poll
from payonce.payments.inbox import Received
from payonce.payments.models import Notification, Stream
from tests.channels.inbox import inbox
from tests.concurrency.soundness import assert_sound, stored_notifications
from tests.crash.test_recovery_points import assert_paid_once, named, net_minor, pay_at_bank
from tests.factories import open_order, pending_stream

pytestmark = pytest.mark.crash


@pytest.fixture
def box(world, settings):
    """Where the bank's notifications arrive; the test hands them to a child."""
    with inbox() as received:
        received.answer = lambda _: (500, b"not yet")
        settings.PAYONCE = {**settings.PAYONCE, "BASE_URL": received.url.removesuffix("/notify/")}
        registry.reset()
        yield received


def paid_notification(bank, box):
    """A stream that was paid, and the genuine notification about it."""
    stream = pending_stream(channel="blue")
    assert pay_at_bank(bank, stream).ok
    message = box.next()
    while stream.number.encode() not in message.body:
        message = box.next()  # an older one, repeated by the bank
    return stream, message


def received_in(children, message, kill=None):

    return children.run("receive", "blue", message.body.hex(), json.dumps(message.headers), kill=kill)


NOTIFY_POINTS = ("before commit", "after commit", "at the end")


@pytest.mark.parametrize("is_repeated", [True, False], ids=["the bank repeats it", "the bank gives up"])
def test_notification(children, world, box, healing, is_repeated):
    """S7, X2: verified and not committed: nothing was acknowledged, so it comes again or the poller finds it; committed: a repeat."""
    _, message = paid_notification(world, box)
    done = received_in(children, message)
    assert (done.answer, done.points) == (Received.APPLIED, NOTIFY_POINTS)
    for place, point in enumerate(NOTIFY_POINTS):
        stream, message = paid_notification(world, box)
        with named(point), healing() as heal:
            assert received_in(children, message, kill=place).killed
            stream.refresh_from_db()
            assert stream.state == ("PENDING" if place == 0 else "SUCCEEDED")
            if is_repeated:
                result = notify.receive("blue", message)
                assert result.outcome is (Received.APPLIED if place == 0 else Received.REPEAT)
                assert result.answer.status == 200
            heal(2)
            assert_paid_once(world, stream.order)


def test_stored_notification(children, world, box, healing, monkeypatch):
    """S7: it was acknowledged and not applied; the sweep that dies over it leaves it for the next one."""
    for place in range(12):
        stream, message = paid_notification(world, box)
        with monkeypatch.context() as broken:
            broken.setattr(notify, "apply_notice", lambda *_: 1 / 0)
            assert notify.receive("blue", message).outcome is Received.STORED
        with healing() as heal, named(f"at crossing {place}"):
            heal.clock.advance(3)
            ended = children.run("inbox", kill=place)
            if not ended.killed:
                assert {"after write", "before commit", "after commit"} <= set(ended.points)
                break
            heal.clock.advance(25)
            notify.apply_received()
            row = Notification.objects.get(number=stream.number)
            assert (row.state, stored_notifications(row.dedupe_key)) == ("PROCESSED", 1)
            stream.refresh_from_db()
            assert (stream.state, stream.confirmed_by) == ("SUCCEEDED", "notification")
            assert_sound(stream.order)


def test_capture(children, world, healing, settings):
    """S6, M1: our own capture: the key is committed before the call, and the money is taken once."""
    accounts = settings.PAYONCE["CHANNELS"]
    settings.PAYONCE = {**settings.PAYONCE, "CHANNELS": {**accounts, "blue": {**accounts["blue"], "captures": True}}}
    registry.reset()
    for place in range(12):
        stream = pending_stream(channel="blue")
        approved = world.control.approve(stream.number, account="blue")
        assert approved.ok, approved
        with healing() as heal, named(f"at crossing {place}"):
            ended = children.run("capture", stream.number, kill=place)
            if not ended.killed:
                assert {"before capture", "after capture", "after commit"} <= set(ended.points)
                break
            heal(4)
            assert world.control.sums(stream.number)["captures"] == 1
            assert_paid_once(world, stream.order)


def test_a_prepay_whose_answer_and_process_were_lost_is_paid_all_the_same(children, world, healing):
    """M1: the buyer got the code from the channel's own app: money under a stream that we never saw answered is recorded."""

    order = open_order()
    with healing() as heal:
        assert children.run("pay", order.number, "blue", kill=3).killed  # after prepay, before its commit
        stream = Stream.objects.get(order=order)
        assert stream.state == "CREATED"
        assert pay_at_bank(world, stream).ok
        heal(2)
        assert_paid_once(world, order)
        assert net_minor(world, order) == 1000


def test_a_worker_that_wakes_after_its_lease_does_no_harm(world, healing, monkeypatch):
    """L3, M4: paused between the claim and the query, while another poller did the work: its answer is a repeat."""
    stream = pending_stream(channel="blue")
    assert pay_at_bank(world, stream).ok
    ask_all = poll._ask_all
    with healing() as heal:

        def paused(claimed):
            monkeypatch.setattr(poll, "_ask_all", ask_all)
            heal.clock.advance(25)
            assert poll.poll_due().applied == {"keeper": 1}
            return ask_all(claimed)

        heal.clock.advance(4)
        monkeypatch.setattr(poll, "_ask_all", paused)
        assert poll.poll_due().applied == {"repeat": 1}
        heal(1)
        assert_paid_once(world, stream.order)
