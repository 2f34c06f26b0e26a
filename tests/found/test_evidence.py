"""Evidence and streams: each test is named by what should hold."""

import dataclasses

import pytest
from django.db import connection

from payonce.channels import registry
from payonce.channels.messages import (
    CloseAnswer,
    CloseState,
    Known,
    NotAuthentic,
    Notice,
    NotificationRequest,
    PaymentState,
    PaymentView,
    RefundState,
    RefundView,
    Unknown,
)
from payonce.orders.models import Order
from payonce.orders.place import place_order
from payonce.payments import expire, sweep
from payonce.payments.models import ApiClient, Discrepancy, Notification, ShopMessage, Stream
from payonce.payments.notify import receive
from payonce.payments.pay import PayCode, pay_order
from payonce.payments.surplus import decide_case
from tests.factories import answer_paid, apply, created_stream, open_order, paid_stream, pending_stream, view_of
from tests.path.test_settle import late_stream, two_open_ways

DAY = 86_400


def notify(scripted, key="n-1", account="scripted_a", **content):
    scripted.notice = lambda request: Notice(dedupe_key=key, event="e", sent_at=None, **content)
    return receive(account, NotificationRequest(body=b"{}", headers={}))


def test_a_stream_whose_answer_can_never_be_applied_becomes_a_case(scripted, clock):
    """S13, M7: the channel names a reference that paid another order already."""
    paid_stream()
    taken = Stream.objects.get().channel_reference
    second = pending_stream()
    scripted.answers["scripted_a", "query"] += [Known(view_of(second, reference=taken))] * 200
    for _ in range(40):
        sweep.sweep_poll()
        sweep.sweep_reconcile()
        clock.advance(3600)
    assert Discrepancy.objects.filter(state="OPEN").exists()


@pytest.mark.parametrize(
    "odd", [{"reference": "r" * 129}, {"currency": "CNYX"}, {"paid_minor": 2**63}, {"reference": "a\0b"}]
)
def test_money_with_an_odd_field_is_recorded_or_becomes_a_case(scripted, clock, odd):
    """S7, S13: a verified success whose text does not fit a column is money all the same."""
    stream = pending_stream()
    scripted.answers["scripted_a", "query"] += [Known(view_of(stream, **odd))] * 200
    for _ in range(40):
        sweep.sweep_poll()
        sweep.sweep_reconcile()
        clock.advance(3600)
    stream.refresh_from_db()
    assert stream.state == "SUCCEEDED" or Discrepancy.objects.filter(state="OPEN").exists()


def test_a_stale_notification_about_an_ended_stream_triggers_a_query(scripted):
    """X2: unseen and outside the replay window: refused, and a query is triggered, whatever we believed of the stream."""
    stream = pending_stream()
    apply(stream, PaymentView(stream.number, PaymentState.CLOSED))
    scripted.notice = lambda request: NotAuthentic("stale", stale=True, number=stream.number, dedupe_key="k")
    receive("scripted_a", NotificationRequest(body=b"{}", headers={}))
    answer_paid(stream)
    sweep.sweep_poll()
    stream.refresh_from_db()
    assert stream.state == "SUCCEEDED"


def test_two_orphan_payments_under_one_number_are_both_named(scripted):
    """M1: every deviation is named with its amount."""
    number = "po0000000000000s01"
    for reference, amount in (("r1", 500), ("r2", 700)):
        view = PaymentView(number, PaymentState.PAID, "CNY", amount, channel_reference=reference)
        notify(scripted, reference, payment=view)
    assert sorted(Discrepancy.objects.filter(kind="orphan").values_list("amount_minor", flat=True)) == [500, 700]


def test_money_of_another_account_is_named_with_its_amount_also_after_a_message_without_money(scripted):
    """M1: first "open", then "paid", both by the wrong account."""
    stream = pending_stream()
    apply(stream, PaymentView(stream.number, PaymentState.OPEN), account="scripted_b")
    apply(stream, view_of(stream), account="scripted_b")
    assert 1000 in Discrepancy.objects.values_list("amount_minor", flat=True)


def test_a_refund_made_outside_and_told_by_the_channel_becomes_a_case(scripted):
    """M1: the refund's number is not ours, the payment's is."""
    stream = paid_stream()
    view = RefundView("console-77", RefundState.DONE, 1000, "CNY", "rr", payment_number=stream.number)
    notify(scripted, refund=view)
    assert Discrepancy.objects.exists() or Stream.objects.get().next_check_at is not None


@pytest.mark.parametrize("ended", ["paid", "closed"])
def test_a_stream_that_waits_again_after_its_order_ended_is_closed(scripted, ended):
    """S3: PROCESSING cannot be closed; when the buyer may pay again and the order is over, it must not stay open."""
    older, newer = two_open_ways(scripted)
    if ended == "paid":
        apply(newer, PaymentView(newer.number, PaymentState.IN_PROGRESS))
        apply(older, view_of(older))
        late = newer
    else:
        scripted.answers["scripted_b", "close"].append(Known(CloseAnswer(CloseState.CLOSED_PROVED)))
        assert expire.close_order(older.order.number, by="shop:shop") == "closed"
        apply(older, PaymentView(older.number, PaymentState.IN_PROGRESS))
        late = older
    late.refresh_from_db()
    assert late.state == "PROCESSING"
    apply(late, PaymentView(late.number, PaymentState.OPEN))
    late.refresh_from_db()
    assert late.state == "CLOSING"


def test_a_shop_rule_checked_at_commit_does_not_lose_the_money(scripted, settings, transactional_db):
    """S7: the hook's row is refused by a deferred trigger of the shop; the settle goes on without the hook."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE review_shop_row (reference text)")
        cursor.execute(
            "CREATE FUNCTION review_refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$"
        )
        cursor.execute(
            "CREATE CONSTRAINT TRIGGER review_refuse AFTER INSERT ON review_shop_row DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION review_refuse()"
        )
    settings.PAYONCE = {**settings.PAYONCE, "SHOP": "tests.found.shops.DeferredShop"}
    try:
        stream = pending_stream()
        try:
            apply(stream, view_of(stream))
        finally:
            stream.refresh_from_db()
            assert stream.state == "SUCCEEDED"
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE review_shop_row; DROP FUNCTION review_refuse()")


@pytest.fixture
def field_shop(scripted, settings):
    """A shop row marked by the ready adapter."""
    from tests.found.shops import FieldShop

    settings.PAYONCE = {**settings.PAYONCE, "SHOP": "tests.found.shops.FieldShop", "LATE_PAYMENT": "ASK"}
    FieldShop.failures.clear()
    yield FieldShop
    FieldShop.failures.clear()


def shop_row(reference):
    from django.utils import timezone

    return ApiClient.objects.create(
        name=reference, source="s", token_hash=reference, is_active=False, created_at=timezone.now()
    )


def test_the_ready_shop_adapter_marks_its_row_although_the_hook_in_the_transaction_failed(scripted, field_shop):
    """S11, S14: order paid here, shop not told."""
    order = open_order()
    row = shop_row(order.reference)
    field_shop.failures.append(RuntimeError("lock time-out in the shop's table"))
    paid_stream(order)
    sweep.sweep_publish()
    row.refresh_from_db()
    assert row.is_active


def test_late_money_accepted_by_a_person_reaches_the_shop_like_any_payment(scripted, field_shop):
    """S11: `order_paid_in_transaction` runs wherever an order becomes paid."""
    stream, view = late_stream(scripted, paid_after_seconds=100)
    row = shop_row(stream.order.reference)
    apply(stream, view)
    assert decide_case(Discrepancy.objects.get().pk, "accept", "alice") == "done"
    sweep.sweep_publish()
    row.refresh_from_db()
    assert row.is_active


def test_accepting_surplus_as_the_payment_closes_the_other_open_streams(scripted):
    """S3: the order is paid, and the buyer still holds another way to pay it."""
    older, newer = two_open_ways(scripted)
    order = older.order
    place_order("shop", order.reference, amount_minor=2000, currency="CNY", subject="A book", amend=True)
    third = pending_stream(order, "scripted_c")
    apply(older, view_of(older, paid_minor=1000))
    place_order("shop", order.reference, amount_minor=1000, currency="CNY", subject="A book", amend=True)
    scripted.answers["scripted_c", "close"] += [Known(CloseAnswer(CloseState.NOT_CLOSABLE))] * 5
    fourth = pending_stream(order, "scripted_b")
    case = Discrepancy.objects.get(kind="mismatch")
    assert decide_case(case.pk, "accept", "alice") == "done", third
    fourth.refresh_from_db()
    assert fourth.state == "CLOSING"


def test_streams_of_an_account_that_is_no_longer_configured_come_to_a_person(scripted, settings, clock):
    """S13: an account was renamed in the settings; its streams must not be forgotten."""
    pending_stream()
    settings.PAYONCE = {
        **settings.PAYONCE,
        "CHANNELS": {"scripted_b": {"adapter": "tests.scripted.ScriptedChannel"}},
    }
    registry.reset()
    for _ in range(30):
        clock.advance(2 * 3600)
        sweep.sweep_poll()
        sweep.sweep_close()
        sweep.sweep_expire()
        sweep.sweep_reconcile()
    assert Discrepancy.objects.filter(state="OPEN").exists()


def test_one_adapter_that_raises_does_not_keep_other_accounts_from_being_asked(scripted, clock):
    """L1: a bug in one adapter, on one payload, is that stream's."""
    broken, good = pending_stream(channel="scripted_a"), pending_stream(channel="scripted_b")

    def fail(ref):
        raise KeyError("unexpected answer")

    scripted.answers["scripted_a", "query"] += [fail] * 50
    scripted.answers["scripted_b", "query"] += [Known(view_of(good))] * 50
    for _ in range(5):
        clock.advance(60)
        sweep.sweep_poll()
    good.refresh_from_db()
    assert good.state == "SUCCEEDED", broken


def test_one_stored_notification_that_cannot_be_read_does_not_hold_the_others(scripted, clock):
    """L3: a row of another release at the head of the inbox."""
    from payonce.payments import inbox

    stream = pending_stream()
    notice = Notice(dedupe_key="good", event="e", sent_at=None, payment=view_of(stream))
    request = NotificationRequest(body=b"{}", headers={})
    bad = dataclasses.replace(notice, dedupe_key="bad")
    inbox.keep_for_later("scripted_a", request, bad, ValueError("x"))
    inbox.keep_for_later("scripted_a", request, notice, ValueError("x"))
    Notification.objects.filter(dedupe_key="bad").update(parsed='{"of": "another release"}')
    for _ in range(3):
        clock.advance(60)
        sweep.sweep_inbox()
    stream.refresh_from_db()
    assert stream.state == "SUCCEEDED"


@pytest.mark.parametrize("state", [PaymentState.IN_PROGRESS])
def test_a_stream_being_confirmed_past_the_channels_limit_no_longer_blocks_its_order(scripted, clock, state):
    """DESIGN 4: PROCESSING blocks until answered or past the channel's limit; a person closes the case."""
    stream = pending_stream(open_order(expires_at=None))
    apply(stream, PaymentView(stream.number, state))
    scripted.answers["scripted_a", "query"] += [Unknown("time-out")] * 500
    for _ in range(60):
        clock.advance(3600)
        sweep.sweep_poll()
    case = Discrepancy.objects.get(kind="stream_unclear")
    decide_case(case.pk, "dismiss", "alice", "the channel's support says it never came")
    assert pay_order(stream.order.number, "scripted_b", "qr").code is PayCode.PREPAY


def test_a_capture_that_was_lost_does_not_hold_a_closing_order_for_ever(scripted, clock):
    """S13: CAPTURING past the replay window of its key, order closing."""
    from payonce.payments import capture

    scripted.overrides["scripted_a"] = {"captures": True, "replay_window_seconds": 60}
    stream = pending_stream(open_order(expires_at=None))
    scripted.answers["scripted_a", "capture"].append(Unknown("time-out"))
    apply(stream, PaymentView(stream.number, PaymentState.APPROVED))
    capture.capture_stream(stream.number)
    clock.advance(120)
    expire.close_order(stream.order.number, by="shop:shop")
    for _ in range(60):
        clock.advance(3600)
        scripted.answers["scripted_a", "query"].append(Known(PaymentView(stream.number, PaymentState.OPEN)))
        sweep.sweep_poll()
        sweep.sweep_expire()
    assert Order.objects.get().state == "CLOSED"


def test_a_slow_click_does_not_close_the_stream_that_a_faster_click_handed_out(scripted, clock, settings):
    """S3: the slow click's lease ended; the same stream was resumed and is in the buyer's hands."""
    settings.PAYONCE = {**settings.PAYONCE, "REDIS_URL": ""}
    order = open_order()
    faster = []

    def overtaken(request):
        scripted.before.pop("prepay")
        clock.advance(16)
        faster.append(pay_order(order.number, "scripted_a", "qr"))

    scripted.before["prepay"] = overtaken
    slow = pay_order(order.number, "scripted_a", "qr")
    assert faster[0].code is PayCode.PREPAY
    assert slow.stream == faster[0].stream
    assert Stream.objects.get().state == "PENDING"


def test_answers_to_closing_close_the_breaker_too(scripted, clock):
    """L5: after an outage the account has only streams to close; they must not go one by one for ever."""
    from payonce.payments import claims
    from payonce.payments.models import ChannelState

    scripted.answers["scripted_a", "close"] += [Known(CloseAnswer(CloseState.UNPROVED))] * 4
    for _ in range(4):
        two_step = pending_stream(channel="scripted_a")
        expire.close_order(two_step.order.number, by="shop:shop")
    claims.record_health({}, {"scripted_a": 5}, {"scripted_a": "time-out"}, 5)
    clock.advance(60)
    sweep.sweep_close()
    assert ChannelState.objects.get(name="scripted_a").failure_count == 0


def test_findings_that_are_known_do_not_hide_new_ones(scripted, clock):
    """S13: the limit of one look must not be used up by what a person has already."""
    from payonce.payments import reconcile

    for _ in range(2):
        created_stream()
    clock.advance(600)
    Stream.objects.update(next_check_at=None)
    for _ in range(5):
        reconcile.check_own_rows(limit=1)
    assert Discrepancy.objects.count() == 2


def test_the_shop_is_told_that_an_order_was_amended(scripted):
    """S11: `order.amended` is one of the published events."""
    order = open_order()
    place_order("shop", order.reference, amount_minor=2000, currency="CNY", subject="A book", amend=True)
    assert ShopMessage.objects.filter(kind="order.amended").exists()


def test_a_returned_refund_is_told_as_a_refund(scripted):
    """S12: `order.refund_returned` is about a refund, not about a stream of that number."""
    import json

    from payonce.payments.locks import under_lock
    from payonce.payments.refund import request_refund, run_refund
    from payonce.payments.refund_answer import apply_view

    stream = paid_stream()
    asked = request_refund(stream.number, 1000, reason="duplicate", by="alice")
    run_refund(asked.number)
    view = RefundView(asked.number, RefundState.RETURNED, 1000, "CNY")
    under_lock("channel:test", lambda work: apply_view(work, work.refund(asked.number), view), refund=asked.number)
    told = json.loads(ShopMessage.objects.get(kind="order.refund_returned").body)
    assert (told["stream"], told["refund"]) != (asked.number, "")


def test_a_contradiction_about_a_closed_stream_is_kept_also_when_it_came_unasked(scripted):
    """S13, DESIGN 3.13: "the buyer has acted" about a stream proven closed by its time."""
    stream = pending_stream()
    apply(stream, PaymentView(stream.number, PaymentState.CLOSED))
    notify(scripted, payment=PaymentView(stream.number, PaymentState.IN_PROGRESS))
    stream.refresh_from_db()
    assert Discrepancy.objects.exists() or stream.next_check_at is not None


def test_an_unclear_stream_that_was_answered_leaves_no_open_case(scripted, clock):
    """M1: the case says that there is no answer; the answer came."""
    stream = pending_stream()
    scripted.answers["scripted_a", "query"] += [Known(PaymentView(stream.number, PaymentState.UNCLEAR))] * 99
    for _ in range(40):
        clock.advance(3600)
        sweep.sweep_poll()
    assert Discrepancy.objects.get().kind == "stream_unclear"
    apply(stream, view_of(stream))
    assert not Discrepancy.objects.exclude(state="RESOLVED").exists()
