"""What an operator does goes through the one step, once, and never on what has changed."""

import threading
from datetime import date
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connections
from django.test import Client

from payonce.channels.messages import CloseAnswer, CloseState, Known, RefundView, StatementLine, Unknown
from payonce.channels.messages import RefundState as Answer
from payonce.orders.locks import read_clock
from payonce.orders.models import Event
from payonce.payments.models import Discrepancy, Notification, Refund, ShopMessage, StatementDay, Stream
from payonce.payments.refund import request_refund, run_refund
from payonce.payments.statuses import (
    DiscrepancyKind,
    DiscrepancyState,
    MessageState,
    RefundState,
    StreamState,
)
from tests.admin.conftest import action_of, confirm, duplicate, form_of, page_of, texts
from tests.factories import answer_paid, apply, open_order, paid_stream, pending_stream, view_of
from tests.scripted import ScriptedChannel

REFUND = {"reason": "requested_by_customer"}


def parked_surplus(settings: Any) -> tuple[Stream, Discrepancy]:
    """Surplus money whose automatic refund the policy holds back for a person."""
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": {"AUTO": False}}
    _, surplus, case = duplicate()
    run_refund(Refund.objects.get(stream=surplus).number)
    case.refresh_from_db()
    assert case.state == DiscrepancyState.OPEN
    return surplus, case


# Ask and close.


def test_asking_applies_the_channels_answer_and_names_the_operator(operator: Any) -> None:
    stream = pending_stream()
    answer_paid(stream)
    response = confirm(operator("Support", "sue"), stream, "ask")
    stream.refresh_from_db()
    assert (stream.state, stream.confirmed_by) == (StreamState.SUCCEEDED, "operator")
    assert "now paid by this stream" in texts(response)
    assert Event.objects.get(kind="order.paid").actor == "operator:sue"
    assert LogEntry.objects.get().user.username == "sue"


def test_no_answer_is_told_as_unknown_and_changes_nothing(operator: Any) -> None:
    stream = pending_stream()
    ScriptedChannel.answers[stream.account, "query"].append(Unknown("time-out"))
    response = confirm(operator("Support"), stream, "ask")
    stream.refresh_from_db()
    assert stream.state == StreamState.PENDING
    assert "no clear answer (time-out)" in texts(response)


def test_closing_is_proven_by_the_channel(operator: Any) -> None:
    stream = pending_stream()
    response = confirm(operator("Support"), stream, "close")
    stream.refresh_from_db()
    assert stream.state == StreamState.CLOSED
    assert "nobody can pay it" in texts(response)


def test_closing_that_is_not_proven_says_so(operator: Any) -> None:
    stream = pending_stream()
    ScriptedChannel.answers[stream.account, "close"].append(Known(CloseAnswer(CloseState.UNPROVED)))
    response = confirm(operator("Support"), stream, "close")
    stream.refresh_from_db()
    assert stream.state == StreamState.CLOSING
    assert "not proven" in texts(response)


def test_closing_a_paid_stream_is_refused_with_the_reason(operator: Any) -> None:
    stream, client = paid_stream(), operator("Support")
    assert "give it back by a refund" in client.get(page_of(stream)).content.decode()
    page = client.get(action_of(stream, "close"))
    assert "It took money" in page.content.decode()
    assert b'type="submit"' not in page.content.split(b'<div class="payonce">')[1].split(b"</main>")[0]
    response = client.post(action_of(stream, "close"), form_of(client, stream, "close"), follow=True)
    assert "It took money" in texts(response)
    assert ScriptedChannel.count("close") == 0


def test_an_order_is_closed_after_its_streams(operator: Any) -> None:
    stream = pending_stream()
    confirm(operator("Support", "sue"), stream.order, "close")
    stream.order.refresh_from_db()
    assert stream.order.state == "CLOSED"
    assert Event.objects.get(kind="order.closed").actor == "operator:sue"


def test_a_paid_order_cannot_be_closed(operator: Any) -> None:
    order = paid_stream().order
    response = confirm(operator("Support"), order, "close")
    assert "It is paid" in texts(response)


# Refund.


def test_a_refund_is_reserved_under_the_operators_name(operator: Any) -> None:
    stream = paid_stream()
    response = confirm(operator("Finance", "fiona"), stream, "refund", amount="2.50", **REFUND)
    refund = Refund.objects.get()
    assert (refund.amount_minor, refund.state, refund.requested_by) == (250, RefundState.REQUESTED, "fiona")
    assert Event.objects.get(kind="refund.requested").actor == "operator:fiona"
    assert "2.50 CNY is on its way" in texts(response)
    assert ScriptedChannel.count("refund") == 0


def test_the_form_offers_all_that_is_left(operator: Any) -> None:
    stream = paid_stream()
    request_refund(stream.number, 300, reason="duplicate", by="x")
    run_refund(Refund.objects.get().number)
    stream.refresh_from_db()
    assert form_of(operator("Finance"), stream, "refund")["amount"] == "7.00"


@pytest.mark.parametrize(
    "amount", ["", "0", "-1", "1,000", "1.234", "１２", "1e3", "ten", "0.00", "99999999999999999999", "NaN", " "]
)
def test_an_amount_that_is_no_plain_number_is_refused(operator: Any, amount: str) -> None:
    stream, client = paid_stream(), operator("Finance")
    response = client.post(action_of(stream, "refund"), form_of(client, stream, "refund", amount=amount, **REFUND))
    assert response.status_code == 422
    assert not Refund.objects.exists()


def test_more_than_is_left_is_refused(operator: Any) -> None:
    response = confirm(operator("Finance"), paid_stream(), "refund", amount="10.01", **REFUND)
    assert "more than is left" in texts(response)
    assert not Refund.objects.exists()


def test_the_reason_other_needs_a_note(operator: Any) -> None:
    stream, client = paid_stream(), operator("Finance")
    form = form_of(client, stream, "refund", reason="other")
    assert client.post(action_of(stream, "refund"), form).status_code == 422
    assert client.post(action_of(stream, "refund"), {**form, "note": "broken on arrival"}).status_code == 302
    assert Refund.objects.get().note == "broken on arrival"


def test_the_same_post_twice_makes_one_refund_and_answers_with_it(operator: Any) -> None:
    stream, client = paid_stream(), operator("Finance")
    form = form_of(client, stream, "refund", amount="2.50", **REFUND)
    client.post(action_of(stream, "refund"), form)
    again = client.post(action_of(stream, "refund"), form, follow=True)
    refund = Refund.objects.get()
    assert refund.number in texts(again)
    assert "done once" in texts(again)


def test_the_same_form_with_another_amount_is_refused(operator: Any) -> None:
    stream, client = paid_stream(), operator("Finance")
    form = form_of(client, stream, "refund", amount="2.50", **REFUND)
    client.post(action_of(stream, "refund"), form)
    again = client.post(action_of(stream, "refund"), {**form, "amount": "3.50"}, follow=True)
    assert "other values" in texts(again)
    assert Refund.objects.count() == 1


def test_the_same_decision_twice_is_one_decision(operator: Any, settings: Any) -> None:
    _, case = parked_surplus(settings)
    client = operator("Finance")
    form = form_of(client, case, "decide", decision="keep", note="agreed")
    client.post(action_of(case, "decide"), form)
    assert "done once: keep" in texts(client.post(action_of(case, "decide"), form, follow=True))


def test_a_stale_form_is_refused_with_what_changed(operator: Any) -> None:
    stream = paid_stream()
    first, second = operator("Finance", "fiona"), operator("Finance", "fred")
    one = form_of(first, stream, "refund", amount="4.00", **REFUND)
    two = form_of(second, stream, "refund", amount="4.00", **REFUND)
    assert first.post(action_of(stream, "refund"), one).status_code == 302
    refused = second.post(action_of(stream, "refund"), two)
    html = refused.content.decode()
    assert refused.status_code == 409
    assert "this changed since you opened the page" in html
    assert "0.00 CNY → <strong>4.00 CNY</strong>" in html
    assert "fiona" in html
    assert Refund.objects.count() == 1


def test_two_operators_at_the_same_moment_make_one_refund(operator: Any) -> None:
    stream = paid_stream()
    clients = [operator("Finance", "fiona"), operator("Finance", "fred")]
    forms = [form_of(client, stream, "refund", amount="10.00", **REFUND) for client in clients]
    together, answers = threading.Barrier(2), []

    def send(client: Client, form: dict[str, str]) -> None:
        together.wait(60)
        answers.append(client.post(action_of(stream, "refund"), form).status_code)
        connections.close_all()

    threads = [threading.Thread(target=send, args=pair) for pair in zip(clients, forms, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [302, 409]
    assert Refund.objects.count() == 1


def test_a_forged_seen_text_is_refused(operator: Any) -> None:
    stream, client = paid_stream(), operator("Finance")
    form = form_of(client, stream, "refund", **REFUND)
    assert client.post(action_of(stream, "refund"), {**form, "seen": "x"}).status_code == 409
    assert client.post(action_of(stream, "refund"), {"seen": "x\x00", "token": "\x00"}).status_code == 409
    assert not Refund.objects.exists()


def test_a_stream_without_money_cannot_be_refunded(operator: Any) -> None:
    stream, client = pending_stream(), operator("Finance")
    assert "It took no money" in client.get(action_of(stream, "refund")).content.decode()


# Approval.


@pytest.fixture
def waiting(settings: Any) -> Refund:
    """A refund of fiona's that waits for a second person."""
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": {"APPROVAL_MINOR": 1}}
    request_refund(paid_stream().number, 400, reason="duplicate", by="operator:fiona")
    return Refund.objects.get()


def test_a_second_person_approves(operator: Any, waiting: Refund) -> None:
    confirm(operator("Approver", "anna"), waiting, "approve")
    waiting.refresh_from_db()
    assert (waiting.state, waiting.approved_by) == (RefundState.REQUESTED, "anna")
    assert Event.objects.get(kind="refund.approved").actor == "operator:anna"


def test_the_requester_never_approves(operator: Any, waiting: Refund) -> None:
    client = operator("Admin", "fiona")
    assert "another person must approve it" in client.get(page_of(waiting)).content.decode()
    response = confirm(client, waiting, "approve")
    waiting.refresh_from_db()
    assert waiting.state == RefundState.AWAITING_APPROVAL
    assert "another person" in texts(response)


def test_declining_frees_the_reservation(operator: Any, waiting: Refund) -> None:
    confirm(operator("Approver", "anna"), waiting, "decline", reason="not ours")
    waiting.refresh_from_db()
    assert waiting.state == RefundState.DECLINED
    assert Stream.objects.get().refundable_minor == 1000


def test_approving_twice_is_one_approval(operator: Any, waiting: Refund) -> None:
    anna, adam = operator("Approver", "anna"), operator("Approver", "adam")
    form = form_of(adam, waiting, "approve")
    confirm(anna, waiting, "approve")
    assert adam.post(action_of(waiting, "approve"), form).status_code == 409
    waiting.refresh_from_db()
    assert waiting.approved_by == "anna"


# Rejected refunds.


@pytest.fixture
def rejected() -> Refund:
    """A refund that the channel refused."""
    stream = paid_stream()
    request_refund(stream.number, 400, reason="duplicate", by="operator:fiona")
    refund = Refund.objects.get()
    ScriptedChannel.answers[stream.account, "refund"].append(
        Known(RefundView(refund.number, Answer.FAILED, 400, "CNY", code="no_balance"))
    )
    run_refund(refund.number)
    refund.refresh_from_db()
    assert refund.state == RefundState.REJECTED
    return refund


def test_a_rejected_refund_is_retried_under_its_number(operator: Any, rejected: Refund) -> None:
    confirm(operator("Finance", "fred"), rejected, "retry")
    rejected.refresh_from_db()
    assert rejected.state == RefundState.REQUESTED
    assert Refund.objects.count() == 1


def test_a_rejected_refund_is_written_off_and_another_may_follow(operator: Any, rejected: Refund) -> None:
    client = operator("Finance", "fred")
    confirm(client, rejected, "write-off")
    rejected.refresh_from_db()
    assert rejected.is_released
    assert "given up already" in client.get(page_of(rejected)).content.decode()
    confirm(client, rejected.stream, "refund", **REFUND)
    assert Refund.objects.count() == 2


def test_a_finished_refund_offers_nothing(operator: Any) -> None:
    request_refund(paid_stream().number, 400, reason="duplicate", by="x")
    refund = Refund.objects.get()
    run_refund(refund.number)
    client = operator("Admin")
    for action in ("approve", "decline", "retry", "write-off"):
        confirm(client, refund, action, **({"reason": "x"} if action == "decline" else {}))
    refund.refresh_from_db()
    assert refund.state == RefundState.SUCCEEDED


# Cases.


def test_surplus_money_is_refunded_by_decision(operator: Any, settings: Any) -> None:
    surplus, case = parked_surplus(settings)
    client = operator("Finance", "fiona")
    html = client.get(page_of(surplus.order)).content.decode()
    assert "Decide…" in html
    confirm(client, case, "decide", decision="refund")
    run_refund(Refund.objects.get(stream=surplus).number)
    case.refresh_from_db()
    assert (case.state, case.decided_by, case.decision) == (DiscrepancyState.RESOLVED, "fiona", "refund")
    assert Refund.objects.filter(stream=surplus).count() == 1


def test_surplus_money_is_kept_with_a_reason(operator: Any, settings: Any) -> None:
    surplus, case = parked_surplus(settings)
    client = operator("Finance")
    assert client.post(action_of(case, "decide"), form_of(client, case, "decide", decision="keep")).status_code == 422
    confirm(client, case, "decide", decision="keep", note="agreed with the buyer")
    case.refresh_from_db()
    assert (case.decision, case.note) == ("keep", "agreed with the buyer")
    assert Refund.objects.get(stream=surplus).state == RefundState.DECLINED


def test_surplus_money_is_never_just_dismissed(operator: Any, settings: Any) -> None:
    _, case = parked_surplus(settings)
    client = operator("Finance")
    form = form_of(client, case, "decide", decision="dismiss", note="go away")
    assert client.post(action_of(case, "decide"), form).status_code == 422
    case.refresh_from_db()
    assert case.state == DiscrepancyState.OPEN


def test_money_of_an_order_that_has_its_keeper_cannot_be_accepted(operator: Any, settings: Any) -> None:
    _, case = parked_surplus(settings)
    page = operator("Finance").get(action_of(case, "decide")).content.decode()
    assert 'value="accept"' not in page
    assert 'value="keep"' in page


def test_late_money_is_accepted_as_the_orders_payment(operator: Any, settings: Any) -> None:
    from payonce.payments.expire import close_order

    settings.PAYONCE = {**settings.PAYONCE, "LATE_PAYMENT": "ASK"}
    stream = pending_stream()
    close_order(stream.order.number, "shop:shop")
    apply(stream, view_of(stream))
    case = Discrepancy.objects.get()
    response = confirm(operator("Finance"), case, "decide", decision="accept", note="the buyer waits for it")
    stream.order.refresh_from_db()
    assert (stream.order.state, stream.order.keeper) == ("PAID", stream.number), texts(response)


def test_the_second_decision_is_refused_with_the_first(operator: Any, settings: Any) -> None:
    _, case = parked_surplus(settings)
    one, two = operator("Finance", "fiona"), operator("Finance", "fred")
    form = form_of(two, case, "decide", decision="refund")
    confirm(one, case, "decide", decision="keep", note="agreed")
    answer = two.post(action_of(case, "decide"), form)
    assert answer.status_code == 409
    assert "Decided already: keep the money, by fiona" in answer.content.decode()


# Messages and notifications.


@pytest.fixture
def parked() -> ShopMessage:
    """A message whose every retry failed."""
    from payonce.payments import message_rows

    paid_stream()
    message = ShopMessage.objects.get(kind="order.paid")
    message_rows.park(message, "HTTP 500")
    message.refresh_from_db()
    assert message.state == MessageState.PARKED
    return message


@pytest.mark.parametrize(("action", "state"), [("resend", MessageState.PENDING), ("skip", MessageState.SKIPPED)])
def test_a_parked_message_is_resent_or_skipped_and_its_case_resolved(
    operator: Any, parked: ShopMessage, action: str, state: str
) -> None:
    confirm(operator("Finance", "fiona"), parked, action)
    parked.refresh_from_db()
    assert parked.state == state
    case = Discrepancy.objects.get(kind=DiscrepancyKind.SHOP_NOT_TOLD)
    assert (case.state, case.decided_by) == (DiscrepancyState.RESOLVED, "fiona")


def test_the_case_of_an_untold_shop_points_to_the_message(operator: Any, parked: ShopMessage) -> None:
    case = Discrepancy.objects.get(kind=DiscrepancyKind.SHOP_NOT_TOLD)
    response = confirm(operator("Finance"), case, "decide")
    assert "Resend or skip the message instead" in texts(response)


def test_a_delivered_message_cannot_be_skipped(operator: Any) -> None:
    from payonce.payments.publish import deliver_due

    paid_stream()
    deliver_due()
    message = ShopMessage.objects.get(kind="order.paid", listener="shop")
    confirm(operator("Finance"), message, "skip")
    message.refresh_from_db()
    assert message.state == MessageState.DELIVERED


def stored_notification(stream: Stream) -> Notification:
    """A verified notification that could not be applied when it came."""
    from payonce.channels.messages import Notice, NotificationRequest
    from payonce.payments import inbox

    notice = Notice(dedupe_key="n-1", event="payment.paid", sent_at=None, payment=view_of(stream))
    inbox.keep_for_later(stream.account, NotificationRequest(b'{"buyer":"raw-bytes"}', {}), notice, OSError("x"))
    return Notification.objects.get()


def test_a_stored_notification_is_processed_again_once(operator: Any) -> None:
    stream = pending_stream()
    row, client = stored_notification(stream), operator("Admin")
    confirm(client, row, "process")
    stream.refresh_from_db()
    assert stream.state == StreamState.SUCCEEDED
    row.refresh_from_db()
    assert row.state == "PROCESSED"
    assert "It was applied" in client.get(page_of(row)).content.decode()


def test_the_raw_message_needs_its_permission_and_is_recorded(operator: Any) -> None:
    row = stored_notification(pending_stream())
    viewer, admin = operator("Viewer"), operator("Admin")
    address = page_of(row).replace("/change/", "/raw/")
    assert viewer.get(address).status_code == 403
    assert "raw-bytes" not in viewer.get(page_of(row)).content.decode()
    assert not LogEntry.objects.exists()
    assert "raw-bytes" in admin.get(address).content.decode().replace("&quot;", '"')
    assert LogEntry.objects.get().change_message == "viewed the raw message"


# Around every action.


def test_actions_work_where_the_shop_has_atomic_requests(operator: Any) -> None:
    stream = pending_stream()
    databases = connections.settings
    databases["default"]["ATOMIC_REQUESTS"] = True
    try:
        response = confirm(operator("Support"), stream, "close")
    finally:
        databases["default"]["ATOMIC_REQUESTS"] = False
    stream.refresh_from_db()
    assert stream.state == StreamState.CLOSED, texts(response)


def test_a_locked_order_is_told_as_busy(operator: Any, settings: Any) -> None:
    settings.PAYONCE = {**settings.PAYONCE, "LOCK_TIMEOUT_MS": 200}
    stream = paid_stream()
    client, held, done = operator("Finance"), threading.Event(), threading.Event()
    form = form_of(client, stream, "refund", **REFUND)

    def hold() -> None:
        from payonce.payments.locks import under_lock

        under_lock("system:test", lambda work: (held.set(), done.wait(20)), stream=stream.number)
        connections.close_all()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    try:
        response = client.post(action_of(stream, "refund"), form, follow=True)
    finally:
        done.set()
        thread.join()
    assert "busy" in texts(response)
    assert client.post(action_of(stream, "refund"), form).status_code == 302
    assert Refund.objects.count() == 1


def test_an_unknown_action_is_not_found(superuser: Client) -> None:
    assert superuser.get(action_of(open_order(), "explode")).status_code == 404


# Statements.


def test_a_statement_is_fetched_and_compared_again_by_one_click(operator: Any) -> None:
    ScriptedChannel.overrides["scripted_a"] = {"statement": True}
    stream = paid_stream()
    line = StatementLine("payment", stream.number, "other", stream.amount_minor, stream.currency, read_clock())
    ScriptedChannel.answers["scripted_a", "statement"].append(Known((line,)))
    answer_paid(stream, reference=stream.channel_reference)
    day = StatementDay.objects.create(account="scripted_a", day=date(2026, 3, 1), wanted_at=read_clock())
    response = confirm(operator("Support", "sue"), day, "compare")
    assert "Compared: 1 lines, 1 differences." in texts(response)
    assert Discrepancy.objects.get().kind == DiscrepancyKind.SECOND_CAPTURE
    assert LogEntry.objects.get().user.username == "sue"
    ScriptedChannel.answers["scripted_a", "statement"].append(Unknown("time-out"))
    response = confirm(operator("Support", "tim"), day, "compare")
    assert "tried again: time-out" in texts(response)


def test_a_statement_of_an_account_that_is_gone_cannot_be_fetched(operator: Any) -> None:
    day = StatementDay.objects.create(account="gone", day=date(2026, 3, 1), wanted_at=read_clock())
    assert "channel has no statements" in operator("Support").get(page_of(day)).content.decode()
