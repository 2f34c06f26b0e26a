"""Odd corners of Stripe over HTTP: lost answers, keys, closing against paying, refunds beyond the key's day, disputes, statements."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from payonce.channels.http import run
from payonce.channels.messages import (
    CloseState,
    Known,
    PaymentState,
    RefundState,
    Refused,
    RefusedKind,
    Unknown,
)
from payonce.channels.stripe.objects import statement_line
from tests.channels.stripe.world import PRICE, Merchant

DAY = 86_400


def state(outcome: object) -> str:
    return str(outcome.value.state) if isinstance(outcome, Known) else repr(outcome)


# --- prepay ---


@pytest.mark.parametrize("method", ["web", "card"])
def test_lost_answer_to_a_prepay_is_found_by_the_number_and_repeated_under_its_key(
    merchant: Merchant, method: str
) -> None:
    request = merchant.request(method=method)
    merchant.fault("prepay", "drop_after")
    assert isinstance(merchant.prepay(request), Unknown)
    ref = merchant.ref(request.number, method=method, first_sent_at=datetime.now(UTC))
    assert merchant.view(ref).state is PaymentState.OPEN
    again = merchant.prepay(request)
    assert isinstance(again, Known)
    assert merchant.control.ledger(f"{request.number}__2")["payments"] == []


def test_prepay_that_never_arrived_is_not_found_and_then_made(merchant: Merchant) -> None:
    request = merchant.request()
    merchant.fault("prepay", "drop_before")
    assert isinstance(merchant.prepay(request), Unknown)
    ref = merchant.ref(request.number, method="web", first_sent_at=datetime.now(UTC))
    assert merchant.view(ref).state is PaymentState.NOT_FOUND
    assert isinstance(merchant.prepay(request), Known)


def test_lost_id_is_found_behind_many_others(merchant: Merchant) -> None:
    request = merchant.request()
    merchant.fault("prepay", "drop_after")
    merchant.prepay(request)
    for _ in range(105):
        merchant.open_stream()
    ref = merchant.ref(request.number, method="web", first_sent_at=datetime.now(UTC))
    assert merchant.view(ref).state is PaymentState.OPEN


@pytest.mark.parametrize("method", ["web", "card"])
def test_repeated_prepay_of_a_closed_stream_hands_nothing_out(merchant: Merchant, method: str) -> None:
    """The key's stored answer still says open: only the object itself tells how it is now."""
    request = merchant.request(method=method)
    first = merchant.prepay(request)
    assert isinstance(first, Known)
    ref = dataclasses.replace(merchant.ref(request.number, first.value.channel_reference or ""), method=method)
    assert state(run(merchant.channel.close(ref))) == CloseState.CLOSED_PROVED
    again = merchant.prepay(request)
    assert isinstance(again, Refused)
    assert again.kind is RefusedKind.CONFLICT


def test_stored_500_stays_unknown_for_as_long_as_the_key_lives(merchant: Merchant) -> None:
    request = merchant.request(payable_until=datetime.now(UTC) + timedelta(hours=23))
    merchant.fault("prepay", "refuse", code="api_error", status=500)
    for _ in range(3):
        assert isinstance(merchant.prepay(request), Unknown)
    merchant.control.set_clock(DAY + 1)
    late = merchant.prepay(dataclasses.replace(request, payable_until=request.payable_until + timedelta(hours=2)))
    assert isinstance(late, Known), "the key was pruned: a new request"


def test_key_in_use_is_unknown_and_nothing_is_made_twice(merchant: Merchant) -> None:
    from concurrent.futures import ThreadPoolExecutor

    request = merchant.request()
    merchant.fault("prepay", "gate_before", name="slow", number=request.number)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(merchant.prepay, request)
        assert merchant.control.wait_at_gate("slow")
        second = merchant.prepay(request)
        merchant.control.open_gate("slow")
        assert isinstance(first.result(20), Known)
    assert isinstance(second, Unknown)
    assert "idempotency_key_in_use" in second.reason
    assert merchant.control.ledger(f"{request.number}__2")["payments"] == []


def test_declined_prepay_is_stored_under_its_key(merchant: Merchant) -> None:
    request = merchant.request()
    merchant.fault("prepay", "refuse", code="DECLINED")
    for _ in range(2):
        outcome = merchant.prepay(request)
        assert isinstance(outcome, Refused)
        assert outcome.kind is RefusedKind.DECLINED
    assert isinstance(merchant.prepay(merchant.request()), Known), "a new stream has a key of its own"


def test_session_that_would_expire_too_soon_is_refused(merchant: Merchant) -> None:
    outcome = merchant.prepay(merchant.request(payable_until=datetime.now(UTC) + timedelta(minutes=20)))
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusedKind.CONFIG


def test_amount_below_the_least_charge_is_declined(merchant: Merchant) -> None:
    outcome = merchant.prepay(merchant.request(amount_minor=49))
    assert isinstance(outcome, Refused)
    assert (outcome.kind, outcome.code) == (RefusedKind.DECLINED, "amount_too_small")


def test_prepay_of_each_method_is_handed_over(merchant: Merchant) -> None:
    web, card = merchant.prepay(merchant.request()), merchant.prepay(merchant.request(method="card"))
    assert isinstance(web, Known)
    assert isinstance(card, Known)
    assert "/wallet/pay/" in web.value.value
    assert card.value.value.startswith(str(card.value.channel_reference) + "_secret_")


def test_wrong_and_expired_keys_are_configuration(merchant: Merchant) -> None:
    for key in ("sk_test_" + "a1B2c3D4" * 4, "sk_test_expired" + "a1B2c3D4" * 4):
        wrong = Merchant.__new__(Merchant)
        wrong.__dict__ = {**merchant.__dict__, "options": {**merchant.options, "secret_key": key}}
        wrong.channel = type(merchant.channel)("stripe", wrong.options)
        outcome = wrong.prepay(wrong.request())
        assert isinstance(outcome, Refused)
        assert outcome.kind is RefusedKind.CONFIG
        assert '"secret_key"' in outcome.message
        assert key not in repr(outcome)


# --- paying, closing ---


@pytest.mark.parametrize("method", ["web", "card"])
def test_close_and_pay_at_the_same_moment_end_in_one_truth(merchant: Merchant, method: str) -> None:
    """S5: whoever wins, the answer tells."""
    for winner, expected in (("pay", CloseState.ALREADY_PAID), ("close", CloseState.CLOSED_PROVED)):
        ref = merchant.open_stream(method=method)
        merchant.fault("close", "race_pay", winner=winner, number=ref.number)
        outcome = run(merchant.channel.close(ref))
        assert state(outcome) == expected
        assert merchant.sums(ref.number)["captures"] == (winner == "pay")
        if winner == "pay":
            assert isinstance(outcome, Known)
            assert outcome.value.payment is not None
            assert outcome.value.payment.paid_minor == PRICE


def test_delayed_method_is_in_progress_and_cannot_be_closed(merchant: Merchant) -> None:
    """A session that is complete and unpaid: the buyer has acted, the bank has not."""
    for method in ("web", "card"):
        ref = merchant.open_stream(method=method)
        assert merchant.control.begin(ref.number, account="stripe").ok
        assert merchant.view(ref).state is PaymentState.IN_PROGRESS
        assert state(run(merchant.channel.close(ref))) == CloseState.IN_PROGRESS
        assert merchant.control.pay(ref.number, account="stripe").ok
        assert merchant.view(ref).state is PaymentState.PAID


def test_lost_answer_to_a_close_is_unknown_and_the_next_close_proves_it(merchant: Merchant) -> None:
    for method in ("web", "card"):
        ref = merchant.open_stream(method=method)
        merchant.fault("close", "drop_after")
        assert isinstance(run(merchant.channel.close(ref)), Unknown)
        assert state(run(merchant.channel.close(ref))) == CloseState.CLOSED_PROVED


def test_expired_session_is_closed_and_takes_no_money(merchant: Merchant) -> None:
    ref = merchant.open_stream()
    merchant.control.set_clock(3_600)
    assert merchant.view(ref).state is PaymentState.CLOSED
    assert not merchant.control.pay(ref.number, account="stripe").ok
    assert state(run(merchant.channel.close(ref))) == CloseState.CLOSED_PROVED


def test_intent_outlives_every_expiry_until_it_is_cancelled(merchant: Merchant) -> None:
    ref = merchant.open_stream(method="card")
    merchant.control.set_clock(30 * DAY)
    assert merchant.view(ref).state is PaymentState.OPEN
    assert state(run(merchant.channel.close(ref))) == CloseState.CLOSED_PROVED
    assert not merchant.control.pay(ref.number, account="stripe").ok


def test_late_bank_money_on_an_expired_session_is_paid(merchant: Merchant) -> None:
    ref = merchant.open_stream()
    assert state(run(merchant.channel.close(ref))) == CloseState.CLOSED_PROVED
    assert merchant.control.pay(ref.number, account="stripe", force=True).ok
    assert merchant.view(ref).state is PaymentState.PAID


def test_wrong_amount_and_currency_are_stated_as_they_are(merchant: Merchant) -> None:
    ref = merchant.open_stream()
    merchant.fault("pay", "wrong_amount", amount_minor=1)
    merchant.control.pay(ref.number, account="stripe")
    other = merchant.open_stream(method="card")
    merchant.fault("pay", "wrong_currency", currency="EUR")
    merchant.control.pay(other.number, account="stripe")
    assert (merchant.view(ref).paid_minor, merchant.view(ref).currency) == (1, "USD")
    assert (merchant.view(other).paid_minor, merchant.view(other).currency) == (PRICE, "EUR")


def test_second_intent_under_one_number_is_refunded_by_its_own_reference(merchant: Merchant) -> None:
    ref = merchant.paid_stream()
    assert merchant.control.second_capture(ref.number, account="stripe").ok
    status, _, listed = merchant.api("GET", "/v1/payment_intents")()
    assert status == 200
    extra = next(
        row["id"]
        for row in listed["data"]
        if row["metadata"].get("payonce_number") == ref.number and row["id"] != ref.channel_reference
    )
    second = dataclasses.replace(ref, channel_reference=extra)
    assert merchant.view(second).channel_reference == extra
    assert state(merchant.refund(second, f"{ref.number}_second_rs1")) == RefundState.DONE
    assert merchant.view(ref).refunded_minor == 0
    assert merchant.view(second).refunded_minor == PRICE


# --- refunds ---


def test_refund_after_a_stored_decline_goes_out_under_a_new_key_once(merchant: Merchant) -> None:
    """M6: the number stays, the spent key does not; the money moves once."""
    ref = merchant.paid_stream()
    merchant.fault("refund", "refuse", code="DECLINED")
    declined = merchant.refund(ref, f"{ref.number}_r1")
    assert isinstance(declined, Refused)
    assert merchant.sums(ref.number)["refunded_minor"] == 0
    for _ in range(3):
        assert state(merchant.refund(ref, f"{ref.number}_r1")) == RefundState.DONE
    assert merchant.sums(ref.number)["refunded_minor"] == PRICE


def test_refund_under_a_new_key_whose_answer_is_lost_is_not_made_again(merchant: Merchant) -> None:
    ref = merchant.paid_stream()
    merchant.fault("refund", "refuse", code="DECLINED")
    merchant.refund(ref, f"{ref.number}_r1", 500)
    merchant.fault("refund", "drop_after", nth=2)
    assert isinstance(merchant.refund(ref, f"{ref.number}_r1", 500), Unknown)
    assert state(merchant.query_refund(ref, f"{ref.number}_r1")) == RefundState.DONE
    assert state(merchant.refund(ref, f"{ref.number}_r1", 500)) == RefundState.DONE
    assert merchant.sums(ref.number)["refunded_minor"] == 500


def test_after_a_day_the_key_is_forgotten_and_only_the_list_knows_the_refund(merchant: Merchant) -> None:
    """Why nothing is repeated past the window: the same request would be a second refund there."""
    ref = merchant.paid_stream()
    merchant.fault("refund", "drop_after")
    assert isinstance(merchant.refund(ref, f"{ref.number}_r1", 500), Unknown)
    merchant.control.set_clock(DAY + 60)
    assert state(merchant.query_refund(ref, f"{ref.number}_r1")) == RefundState.DONE
    assert merchant.sums(ref.number)["refunded_minor"] == 500
    merchant.refund(ref, f"{ref.number}_r1", 500)
    assert merchant.sums(ref.number)["refunded_minor"] == 1_000, "the control: the key no longer protects"
    window = merchant.channel.capabilities.refund_replay_window_seconds
    assert window is not None
    assert window < DAY


def test_refund_in_progress_then_failed_is_told_so_and_can_be_tried_again(merchant: Merchant) -> None:
    ref = merchant.paid_stream()
    merchant.fault("refund", "refund_pending")
    assert state(merchant.refund(ref, f"{ref.number}_r1")) == RefundState.IN_PROGRESS
    assert merchant.control.settle_refund(
        ref.number, f"{ref.number}_r1", "FAILED", account="stripe", code="DECLINED"
    ).ok
    failed = merchant.query_refund(ref, f"{ref.number}_r1")
    assert (state(failed), failed.value.code) == (RefundState.FAILED, "declined")
    assert state(merchant.refund(ref, f"{ref.number}_r1")) == RefundState.DONE
    assert state(merchant.query_refund(ref, f"{ref.number}_r1")) == RefundState.DONE
    assert merchant.sums(ref.number)["refunded_minor"] == PRICE


def test_refund_that_came_back_has_failed(merchant: Merchant) -> None:
    ref = merchant.paid_stream()
    assert state(merchant.refund(ref, f"{ref.number}_r1")) == RefundState.DONE
    assert merchant.control.settle_refund(ref.number, f"{ref.number}_r1", "RETURNED", account="stripe").ok
    assert state(merchant.query_refund(ref, f"{ref.number}_r1")) == RefundState.FAILED
    assert merchant.view(ref).refunded_minor == 0


def test_refund_that_needs_the_buyers_bank_account_needs_a_person(merchant: Merchant) -> None:
    ref = merchant.paid_stream()
    merchant.fault("refund", "refund_attention")
    assert state(merchant.refund(ref, f"{ref.number}_r1")) == RefundState.ATTENTION


def test_refund_of_all_again_is_refused_and_moves_nothing(merchant: Merchant) -> None:
    ref = merchant.paid_stream()
    assert state(merchant.refund(ref, f"{ref.number}_r1")) == RefundState.DONE
    again = merchant.refund(ref, f"{ref.number}_r2")
    assert isinstance(again, Refused)
    assert again.code == "charge_already_refunded"
    assert merchant.sums(ref.number)["refunded_minor"] == PRICE


def test_refund_made_in_the_dashboard_is_seen_in_the_payment(merchant: Merchant) -> None:
    ref = merchant.paid_stream()
    merchant.control.outside_refund(ref.number, 300, account="stripe")
    assert merchant.view(ref).refunded_minor == 300


# --- disputes, statement ---


def test_dispute_is_stated_beside_the_payment(merchant: Merchant) -> None:
    for method in ("web", "card"):
        ref = merchant.paid_stream(method=method)
        assert merchant.control.dispute(ref.number, account="stripe", amount_minor=700).ok
        seen = merchant.view(ref)
        assert (seen.state, seen.paid_minor, seen.disputed_minor) == (PaymentState.PAID, PRICE, 700)


def test_statement_names_payments_refunds_and_their_numbers(merchant: Merchant) -> None:
    ref = merchant.paid_stream()
    merchant.refund(ref, f"{ref.number}_n_r1", 500)
    unpaid = merchant.open_stream()
    lines = run(merchant.channel.statement(datetime.now(UTC).date()))
    assert isinstance(lines, Known)
    mine = [line for line in lines.value if ref.number in {line.number, line.payment_number}]
    told = {(line.kind, line.number, line.amount_minor, line.channel_reference[:3]) for line in mine}
    assert told == {("payment", ref.number, PRICE, "pi_"), ("refund", f"{ref.number}_n_r1", 500, "re_")}
    assert mine[0].currency == "USD"
    assert not [line for line in lines.value if line.number == unpaid.number]


def test_a_refund_that_failed_later_and_what_has_no_source() -> None:
    source = {"id": "re_1", "object": "refund", "amount": 300, "currency": "eur", "status": "failed", "payment_intent": "pi_1",
              "metadata": {"payonce_refund": "pos01rs1", "payonce_number": "pos01"}}  # fmt: skip
    row = {"type": "refund_failure", "created": 1_770_000_000, "source": source}
    line = statement_line(row)
    assert line is not None
    assert (line.came_to, line.number, line.payment_reference) == (RefundState.FAILED, "pos01rs1", "pi_1")
    for kind, other in (("refund_failure", {**source, "object": "charge"}), ("charge", None), ("refund", None)):
        assert statement_line({**row, "type": kind, "source": other}) is None


def test_statement_is_read_over_several_pages(merchant: Merchant) -> None:
    numbers = {merchant.paid_stream().number for _ in range(3)}
    for _ in range(70):
        ref = merchant.paid_stream()
        merchant.refund(ref, f"{ref.number}r")
    lines = run(merchant.channel.statement(datetime.now(UTC).date()))
    assert isinstance(lines, Known)
    assert numbers <= {line.number for line in lines.value}
    done = [line.channel_reference for line in lines.value if line.came_to is RefundState.DONE]
    assert len(set(done)) == len(done)  # a refund that failed later stands there twice, and failed both times
    assert {line.payment_reference[:3] for line in lines.value if line.kind == "refund"} == {"pi_"}


def test_statement_faults_are_played(merchant: Merchant) -> None:
    ref = merchant.paid_stream()
    merchant.fault("statement", "omit", name=ref.number)
    merchant.fault("statement", "invent", name="ghost_1", amount_minor=77)
    lines = run(merchant.channel.statement(datetime.now(UTC).date()))
    assert isinstance(lines, Known)
    numbers = {line.number: line.amount_minor for line in lines.value}
    assert ref.number not in numbers
    assert numbers["ghost_1"] == 77


def test_outage_and_slow_answers_are_unknown_or_not_sent(merchant: Merchant) -> None:
    ref = merchant.open_stream()
    with merchant.control.outage("stripe"):
        # A kept connection may break under the first question; the next finds the door closed.
        refused = [run(merchant.channel.query(ref)) for _ in range(2)][-1]
        assert isinstance(refused, Refused)
        assert refused.kind is RefusedKind.THROTTLED
    merchant.fault("query", "not_found")
    assert merchant.view(ref).state is PaymentState.NOT_FOUND
    hasty = type(merchant.channel)("stripe", {**merchant.options, "timeout_seconds": 1})
    merchant.fault("query", "slow_drip")
    assert isinstance(run(hasty.query(ref)), Unknown)
    merchant.fault("query", "delay_after", seconds=3)
    assert isinstance(run(hasty.query(ref)), Unknown)
