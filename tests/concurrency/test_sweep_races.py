"""Two workers with the same work at the same moment: rows are claimed once, and money and messages go out once."""

import threading

import pytest

from payonce.payments import claims, message_rows, notify, poll, publish, sweep
from payonce.payments.locks import under_lock
from payonce.payments.models import Discrepancy, Notification, ShopMessage, Stream
from payonce.payments.refund import request_refund, run_refund
from payonce.payments.transitions import streams as arrows
from tests.concurrency.interleave import (
    STREAM_ROW,
    Threads,
    count,
    held_row,
    new_session,
    queue_at,
    queue_at_order,
    run_together,
    wait_for_lock_waiters,
    wait_until,
)
from tests.concurrency.recording import sequences
from tests.concurrency.soundness import assert_sound
from tests.concurrency.test_settle_races import notice_of, notification
from tests.factories import paid_stream, pending_stream

pytestmark = pytest.mark.concurrency
MESSAGE_ROW = "SELECT 1 FROM payonce_shop_message WHERE id = %s FOR UPDATE"


def asked(channel, operation):
    return sorted(getattr(what, "number", "") for name, _, what in channel.calls if name == operation)


def due_streams(clock, number):
    streams = [pending_stream() for _ in range(number)]
    clock.advance(4)
    return streams


def test_two_pollers_ask_about_each_stream_once(patient, clock):
    """L3: a claim is the row's own; the second poller takes other rows or none."""
    streams = due_streams(clock, 12)
    reports = run_together(lambda: poll.poll_due(6), lambda: poll.poll_due(6))
    assert sum(report.asked for report in reports) == 12
    assert asked(patient, "query") == sorted(stream.number for stream in streams)


def test_a_poller_passes_a_row_that_is_being_settled(patient, clock):
    """L3: who claims waits for nobody."""
    streams = due_streams(clock, 3)
    with held_row(STREAM_ROW, streams[0].number):
        assert poll.poll_due().asked == 2
    assert poll.poll_due().asked == 1
    assert asked(patient, "query") == sorted(stream.number for stream in streams)


def test_control_two_pollers_without_the_claim_lock_ask_twice(patient, clock, monkeypatch):
    """L3: two claims that both read the rows as due, and then wrote: each stream is asked about twice."""
    streams = due_streams(clock, 3)
    unlocked = claims.CLAIM.replace("FOR UPDATE SKIP LOCKED", "")
    assert unlocked != claims.CLAIM
    monkeypatch.setattr(claims, "CLAIM", unlocked)
    with held_row("SELECT 1 FROM payonce_stream ORDER BY id FOR UPDATE"):
        threads = Threads([poll.poll_due] * 2)
        wait_for_lock_waiters(2, threads)
    threads.results()
    assert asked(patient, "query") == sorted([stream.number for stream in streams] * 2)


def test_answers_are_written_back_past_a_row_that_somebody_holds(patient, clock):
    """L6: one order that is being worked on does not hold up the answers about all others."""
    streams = due_streams(clock, 3)
    held = []

    def hold_the_first(ref):
        if ref.number == streams[0].number:
            session = new_session(autocommit=False)
            session.execute(STREAM_ROW, [ref.number])
            held.append(session)

    patient.before["query"] = hold_the_first
    try:
        assert poll.poll_due().answered == 3
        answered = set(Stream.objects.exclude(last_answer="").values_list("number", flat=True))
        assert answered == {stream.number for stream in streams[1:]}
    finally:
        held[0].close()


def test_a_nudge_does_not_wait_for_a_row_that_somebody_holds(patient):
    """L6: the buyer comes back while the stream is being settled: no request waits for that."""
    stream = pending_stream()
    with held_row(STREAM_ROW, stream.number):
        assert run_together(lambda: poll.nudge(stream.number)) == [False]
    assert poll.nudge(stream.number) is True


def test_two_publishers_tell_each_event_once_and_in_order(recording):
    """S11: the second publisher tells neither what the first one holds nor anything later of the same order."""
    orders = [told_later() for _ in range(5)]
    second_done = threading.Event()
    recording.before = lambda _: threading.current_thread().name == "race-0" and second_done.wait(20)

    def second():
        wait_for_claims(3)
        told = publish.deliver_due()
        second_done.set()
        return told

    first_told, second_told = run_together(lambda: publish.deliver_due(3), second)
    assert first_told >= 3
    assert second_told >= 2
    assert first_told + second_told == ShopMessage.objects.count()
    assert set(ShopMessage.objects.values_list("state", flat=True)) == {"DELIVERED"}
    for order in orders:
        found = sequences(order.number)
        assert found == sorted(set(found))
        assert len(found) == ShopMessage.objects.filter(order=order).count() == 3


def told_later():
    """An order that was paid and fully refunded: three messages are owed."""
    stream = paid_stream()
    number = request_refund(stream.number, 1000, reason="duplicate", by="ann").number
    run_refund(number)
    return stream.order


def wait_for_claims(number):
    """Wait until messages are claimed."""
    claimed = "SELECT count(*) FROM payonce_shop_message WHERE state = 'PENDING' AND lease_until > payonce_now()"
    wait_until(lambda: count(claimed) >= number, "the first publisher's claim")


def test_control_two_publishers_without_the_claim_lock_tell_twice(recording, monkeypatch):
    """S11: two claims that both read the message as due."""
    paid_stream()
    message = ShopMessage.objects.get()
    unlocked = message_rows.CLAIM.replace("FOR UPDATE SKIP LOCKED", "")
    assert unlocked != message_rows.CLAIM
    monkeypatch.setattr(message_rows, "CLAIM", unlocked)
    queue_at(MESSAGE_ROW, message.pk, *[publish.deliver_due] * 2)
    assert len(recording.told) == 2


def test_two_close_sweeps_ask_the_channel_once_per_stream(patient):
    """S6: what is being closed is claimed in the row."""
    streams = [pending_stream(), pending_stream()]
    for stream in streams:
        under_lock(
            "system:test", lambda work: arrows.start_closing(work, work.streams[0], "test"), stream=stream.number
        )
    assert sum(run_together(sweep.sweep_close, sweep.sweep_close)) == 2
    assert asked(patient, "close") == sorted(stream.number for stream in streams)
    assert set(Stream.objects.values_list("state", flat=True)) == {"CLOSED"}


def test_two_expiry_sweeps_close_each_order_once(patient, clock):
    """S16, S10: one closing, one closed event per order."""
    orders = [pending_stream().order for _ in range(4)]
    clock.advance(2 * 3600)
    run_together(sweep.sweep_expire, sweep.sweep_expire)
    for order in orders:
        order.refresh_from_db()
        assert order.state == "CLOSED"
        kinds = list(order.events.values_list("kind", flat=True))
        assert (kinds.count("order.closing"), kinds.count("order.closed")) == (1, 1)
    assert_sound(*orders)


def test_two_inbox_sweeps_apply_each_stored_notification_once(patient, clock, monkeypatch):
    """S7, X2: what was stored because it could not be applied is applied by one of them."""
    stream = pending_stream()
    patient.notice = notice_of(stream)
    with monkeypatch.context() as broken:
        broken.setattr(notify, "apply_notice", lambda *_: 1 / 0)
        assert notify.receive("scripted_a", notification()).answer.status == 200
    clock.advance(5)
    assert sorted(run_together(sweep.sweep_inbox, sweep.sweep_inbox)) == [0, 1]
    assert Notification.objects.get().state == "PROCESSED"
    stream.order.refresh_from_db()
    assert stream.order.state == "PAID"
    assert_sound(stream.order)


def test_two_reconcile_sweeps_open_one_case(patient):
    """S13: the same contradiction found twice at once is one case."""
    stream = paid_stream()
    Stream.objects.update(refund_reserved_minor=1)
    assert queue_at_order(stream.order.number, sweep.sweep_reconcile, sweep.sweep_reconcile) == [1, 1]
    assert list(Discrepancy.objects.values_list("kind", "subject")) == [("inconsistent", stream.number)]
