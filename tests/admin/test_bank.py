"""What an operator does reaches the real sandbox bank over HTTP."""

from typing import Any

from payonce.channels.sandbox.testing import RunningSandbox
from payonce.payments.models import Refund
from payonce.payments.refund import run_refund
from payonce.payments.statuses import RefundState, StreamState
from tests.admin.conftest import confirm, texts
from tests.factories import pending_stream


def test_asking_finds_money_whose_notification_was_lost(bank: RunningSandbox, operator: Any) -> None:
    bank.control.hold_notifications()
    stream = pending_stream(channel="blue")
    assert bank.control.pay(stream.number).ok
    confirm(operator("Support"), stream, "ask")
    stream.refresh_from_db()
    assert (stream.state, stream.role) == (StreamState.SUCCEEDED, "keeper")


def test_a_closed_stream_can_no_longer_be_paid(bank: RunningSandbox, operator: Any) -> None:
    stream = pending_stream(channel="blue")
    confirm(operator("Support"), stream, "close")
    stream.refresh_from_db()
    assert stream.state == StreamState.CLOSED
    assert not bank.control.pay(stream.number).ok


def test_closing_what_was_just_paid_records_the_money(bank: RunningSandbox, operator: Any) -> None:
    bank.control.hold_notifications()
    stream = pending_stream(channel="blue")
    assert bank.control.pay(stream.number).ok
    assert "paid in the meantime" in texts(confirm(operator("Support"), stream, "close"))
    stream.refresh_from_db()
    assert stream.state == StreamState.SUCCEEDED


def test_an_outage_is_told_as_unknown(bank: RunningSandbox, operator: Any) -> None:
    stream = pending_stream(channel="blue")
    with bank.control.outage("blue"):
        assert "no clear answer" in texts(confirm(operator("Support"), stream, "ask"))
    stream.refresh_from_db()
    assert stream.state == StreamState.PENDING


def test_a_refund_moves_exactly_the_amount_of_the_form(bank: RunningSandbox, operator: Any) -> None:
    bank.control.hold_notifications()
    stream, client = pending_stream(channel="blue"), operator("Finance")
    assert bank.control.pay(stream.number).ok
    confirm(client, stream, "ask")
    confirm(client, stream, "refund", amount="2.50", reason="out_of_stock")
    run_refund(Refund.objects.get().number)
    assert Refund.objects.get().state == RefundState.SUCCEEDED
    assert bank.control.sums(stream.number)["refunded_minor"] == 250
