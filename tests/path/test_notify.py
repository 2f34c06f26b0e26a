"""Notifications: verified, stored once, applied in one transaction, acknowledged after the commit."""

import pytest
from django.db import OperationalError

from payonce.channels.messages import (
    Known,
    NotAuthentic,
    Notice,
    NotificationRequest,
    PaymentState,
    PaymentView,
    RefundState,
    RefundView,
)
from payonce.orders.models import Event, Order
from payonce.payments import inbox, notify, poll
from payonce.payments.models import ChannelState, Discrepancy, Notification, Refund, Stream
from payonce.payments.notify import Received, receive
from payonce.payments.refund import request_refund
from tests.factories import apply, paid_stream, pending_stream, view_of

REQUEST = NotificationRequest(b'{"raw": true}', {"content-type": "application/json", "authorization": "secret"})


def tell(
    scripted,
    view: PaymentView | None = None,
    *,
    key: str = "n1",
    refund: RefundView | None = None,
    account="scripted_a",
):
    """The account receives a genuine notification."""
    scripted.notice = lambda request: Notice(key, "payment.paid", None, payment=view, refund=refund)
    return receive(account, REQUEST)


def test_a_notification_settles_the_order_and_is_kept(scripted):
    """S7: the acknowledgement follows the commit of both."""
    stream = pending_stream()
    result = tell(scripted, view_of(stream))
    assert (result.outcome, result.answer.status) == (Received.APPLIED, 200)
    assert Order.objects.get().state == "PAID"
    stream.refresh_from_db()
    assert stream.confirmed_by == "notification"
    row = Notification.objects.get()
    assert (row.state, row.result, bytes(row.body), row.number) == ("PROCESSED", "keeper", REQUEST.body, stream.number)
    assert "secret" not in row.headers


@pytest.mark.parametrize("state", [PaymentState.APPROVED, PaymentState.UNCLEAR])
def test_news_that_only_a_query_can_complete_makes_the_stream_due_at_once(scripted, state):
    """L1: an approval that waits for our capture must not wait for the ladder's next rung."""
    stream = pending_stream()
    assert tell(scripted, PaymentView(stream.number, state)).answer.status == 200
    stream.refresh_from_db()
    assert (stream.state, stream.next_check_at) == ("PENDING", stream.last_answer_at)


def test_unclear_news_about_money_that_was_taken_is_asked_about(scripted):
    """M1: a dispute that names no sum."""
    stream = paid_stream()
    tell(scripted, PaymentView(stream.number, PaymentState.UNCLEAR))
    assert Stream.objects.get().next_check_at is not None


def test_a_repeat_is_a_success_and_changes_nothing(scripted):
    """X2."""
    stream = pending_stream()
    tell(scripted, view_of(stream))
    events = Event.objects.count()
    for _ in range(3):
        result = tell(scripted, view_of(stream))
        assert (result.outcome, result.answer.status) == (Received.REPEAT, 200)
    assert (Event.objects.count(), Notification.objects.count()) == (events, 1)


def test_a_forged_notification_is_counted_and_believed_in_nothing(scripted):
    """X1: one row per account and minute, however many come."""
    stream = pending_stream()
    scripted.notice = lambda request: NotAuthentic("bad signature")
    for _ in range(5):
        result = receive("scripted_a", REQUEST)
        assert (result.outcome, result.answer.status) == (Received.FORGED, 401)
    stream.refresh_from_db()
    assert stream.state == "PENDING"
    assert sum(Notification.objects.values_list("count", flat=True)) == 5
    assert Notification.objects.count() <= 2
    assert not any(bytes(row.body) for row in Notification.objects.all())


def test_a_genuine_but_stale_unseen_notification_is_refused_and_triggers_a_query(scripted):
    """X2."""
    stream = pending_stream()
    scripted.notice = lambda request: NotAuthentic("too old", stale=True, number=stream.number, dedupe_key="n1")
    result = receive("scripted_a", REQUEST)
    assert (result.outcome, result.answer.status) == (Received.STALE, 401)
    before = stream.next_check_at
    stream.refresh_from_db()
    assert stream.next_check_at < before


def test_a_processed_notification_is_a_success_at_any_age(scripted):
    """X2."""
    stream = pending_stream()
    tell(scripted, view_of(stream))
    scripted.notice = lambda request: NotAuthentic("too old", stale=True, number=stream.number, dedupe_key="n1")
    assert receive("scripted_a", REQUEST).answer.status == 200


def test_unknown_and_unconfigured_accounts_are_refused(scripted, settings):
    assert receive("nobody", REQUEST).answer.status == 404
    settings.PAYONCE = {**settings.PAYONCE, "CHANNELS": {"empty": {"adapter": "sandbox"}}}
    assert receive("empty", REQUEST).answer.status == 503


def test_verified_but_mismatched_money_is_acknowledged(scripted):
    """X1."""
    stream = pending_stream()
    result = tell(scripted, view_of(stream, paid_minor=5))
    assert result.answer.status == 200
    assert Order.objects.get().state == "OPEN"
    assert Discrepancy.objects.get().kind == "mismatch"


def test_money_under_a_number_of_ours_that_is_no_stream_is_an_orphan_case(scripted):
    stream = pending_stream()
    view = PaymentView("po_unknown", PaymentState.PAID, currency="CNY", paid_minor=1000, channel_reference="r")
    result = tell(scripted, view)
    assert (result.outcome, result.answer.status) == (Received.ORPHAN, 200)
    case = Discrepancy.objects.get()
    assert (case.kind, case.subject, case.amount_minor) == ("orphan", "po_unknown/r", 1000)
    assert tell(scripted, view).outcome is Received.REPEAT
    assert stream.state == "PENDING"


def test_a_notification_about_somebody_elses_number_is_acknowledged_and_counted(scripted):
    view = PaymentView("other-123", PaymentState.PAID, currency="CNY", paid_minor=1000, channel_reference="r")
    assert tell(scripted, view).outcome is Received.FOREIGN
    assert not Discrepancy.objects.exists()
    assert ChannelState.objects.get(name="scripted_a").foreign_count == 1


def test_another_accounts_notification_settles_nothing(scripted):
    """X1: wrong account."""
    stream = pending_stream()
    result = tell(scripted, view_of(stream), account="scripted_b")
    assert result.answer.status == 200
    stream.refresh_from_db()
    assert stream.state == "PENDING"
    assert Discrepancy.objects.get().kind == "mismatch"


def test_if_applying_fails_the_notification_is_stored_acknowledged_and_applied_by_the_sweep(
    scripted, monkeypatch, clock
):
    """S7: nothing verified is ever dropped."""
    stream = pending_stream()
    with monkeypatch.context() as patched:
        patched.setattr(notify, "apply_evidence", _raise(RuntimeError("a bug")))
        result = tell(scripted, view_of(stream))
    assert (result.outcome, result.answer.status) == (Received.STORED, 200)
    assert Notification.objects.get().state == "RECEIVED"
    assert Order.objects.get().state == "OPEN"
    clock.advance(60)
    assert notify.apply_received() == 1
    assert Order.objects.get().state == "PAID"
    row = Notification.objects.get()
    assert (row.state, row.error, row.result) == ("PROCESSED", "", "keeper")


def test_a_stored_notification_that_stays_unappliable_reaches_a_person(scripted, monkeypatch, clock):
    stream = pending_stream()
    monkeypatch.setattr(notify, "apply_evidence", _raise(RuntimeError("a bug")))
    tell(scripted, view_of(stream))
    for _ in range(inbox.TRIES_BEFORE_CASE):
        clock.advance(3600)
        assert notify.apply_received() == 0
    assert Discrepancy.objects.get().kind == "inconsistent"
    assert Notification.objects.get().next_try_at is not None


def test_what_cannot_be_stored_is_not_acknowledged(scripted, monkeypatch):
    """S7."""
    stream = pending_stream()
    monkeypatch.setattr(notify, "apply_notice", _raise(OperationalError("gone")))
    monkeypatch.setattr(inbox, "keep_for_later", _raise(OperationalError("gone")))
    result = tell(scripted, view_of(stream))
    assert (result.outcome, result.answer.status) == (Received.NOT_DURABLE, 500)


def test_a_refund_notification_finishes_the_refund(scripted):
    stream = paid_stream()
    asked = request_refund(stream.number, 1000, reason="duplicate", by="alice")
    view = RefundView(asked.number, RefundState.DONE, 1000, "CNY", "rr", stream.number)
    assert tell(scripted, refund=view).outcome is Received.APPLIED
    assert Refund.objects.get().state == "SUCCEEDED"
    assert Order.objects.get().state == "REFUNDED"


def test_a_refund_notification_of_another_account_changes_nothing(scripted):
    stream = paid_stream()
    asked = request_refund(stream.number, 1000, reason="duplicate", by="alice")
    view = RefundView(asked.number, RefundState.DONE, 1000, "CNY", "rr")
    tell(scripted, refund=view, account="scripted_b")
    assert Refund.objects.get().state == "REQUESTED"


def test_out_of_order_news_about_a_paid_stream_changes_nothing(scripted):
    stream = pending_stream()
    tell(scripted, view_of(stream))
    tell(scripted, PaymentView(stream.number, PaymentState.OPEN), key="n0")
    stream.refresh_from_db()
    assert stream.state == "SUCCEEDED"
    assert not Discrepancy.objects.exists()


def test_a_reference_that_paid_another_stream_pays_no_second_one(scripted):
    """M7: it is kept and reaches a person, and is acknowledged."""
    first = paid_stream()
    second = pending_stream()
    result = tell(scripted, view_of(second, reference=str(first.channel_reference)))
    assert result.answer.status == 200
    second.refresh_from_db()
    assert second.state == "PENDING"
    assert Stream.objects.filter(channel_reference=first.channel_reference).count() == 1
    assert Notification.objects.get().state == "RECEIVED"


def _raise(error: Exception):
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.mark.parametrize("state", ["OPEN", "CLOSED"])
def test_a_notification_that_is_no_money_moves_only_what_it_proves(scripted, state):
    stream = pending_stream()
    tell(scripted, PaymentView(stream.number, PaymentState(state)))
    stream.refresh_from_db()
    assert stream.state == {"OPEN": "PENDING", "CLOSED": "CLOSED"}[state]
    assert apply(stream, view_of(stream)) == "keeper"


def test_news_that_names_only_the_channels_reference_makes_the_channel_asked(scripted):
    """A dispute states no number of ours: the payment is asked for, and its answer is the evidence."""
    stream = paid_stream()
    assert stream.next_check_at is None
    nothing = PaymentView("", PaymentState.UNCLEAR, channel_reference=stream.channel_reference)
    assert tell(scripted, nothing, key="n2").outcome == Received.APPLIED
    stream.refresh_from_db()
    assert (stream.state, stream.next_check_at is not None) == ("SUCCEEDED", True)
    scripted.answers["scripted_a", "query"].append(Known(view_of(stream, disputed_minor=1000)))
    poll.poll_due()
    stream.refresh_from_db()
    assert (stream.disputed_minor, Discrepancy.objects.get().kind) == (1000, "dispute")
    assert Notification.objects.get(dedupe_key="n2").result == "asked"


def test_news_that_names_an_unknown_reference_is_counted_and_asks_nobody(scripted):
    stream = paid_stream()
    for account, reference in (("scripted_a", "somebody's"), ("scripted_b", stream.channel_reference)):
        view = PaymentView("", PaymentState.UNCLEAR, channel_reference=reference)
        assert tell(scripted, view, key=f"n-{account}", account=account).outcome == Received.FOREIGN
    stream.refresh_from_db()
    assert stream.next_check_at is None
