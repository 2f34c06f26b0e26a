"""Prepay, query, capture and close."""

from datetime import timedelta

import pytest

from payonce.channels.contract.simulator import Moved, Simulator, known
from payonce.channels.messages import (
    CaptureRequest,
    CloseProof,
    CloseState,
    PaymentState,
    Refused,
    RefusedKind,
    Unknown,
)


class PaymentContract:
    """What holds from the prepay to the money."""

    def test_capabilities_are_stated(self, simulator: Simulator) -> None:
        stated = simulator.channel.capabilities
        assert stated.methods
        assert all(method.lifetime_seconds >= method.lifetime_seconds_min > 0 for method in stated.methods.values())
        assert all(len(code) == 3 and code.isupper() for code in stated.currencies)
        assert simulator.currency in stated.currencies
        assert 0 < stated.amount_minor_min <= simulator.amount_minor <= stated.amount_minor_max
        assert stated.captures or stated.close_proof is not CloseProof.RESTRAINT

    def test_each_method_hands_out_what_it_states(self, simulator: Simulator) -> None:
        for name, method in simulator.channel.capabilities.methods.items():
            request = simulator.prepay_request(simulator.new_number(), method=name)
            prepay = known(simulator.run(simulator.channel.prepay(request)))
            assert prepay.kind is method.prepay_kind
            assert prepay.value
            assert prepay.expires_at.tzinfo is not None
            assert prepay.expires_at <= request.payable_until + timedelta(seconds=method.lifetime_seconds_min)

    def test_same_prepay_again_is_the_same_stream(self, simulator: Simulator) -> None:
        request = simulator.prepay_request(simulator.new_number())
        known(simulator.run(simulator.channel.prepay(request)))
        known(simulator.run(simulator.channel.prepay(request)))
        assert simulator.pay(request.number)
        assert not simulator.pay(request.number) or simulator.channel.capabilities.captures
        assert simulator.moved(request.number).captures <= 1

    def test_same_number_with_another_amount_is_refused(self, simulator: Simulator) -> None:
        request = simulator.prepay_request(simulator.new_number())
        known(simulator.run(simulator.channel.prepay(request)))
        other = simulator.prepay_request(
            request.number, amount_minor=simulator.amount_minor + 1, payable_until=request.payable_until
        )
        outcome = simulator.run(simulator.channel.prepay(other))
        assert isinstance(outcome, Unknown) or (
            isinstance(outcome, Refused) and outcome.kind in {RefusedKind.CONFLICT, RefusedKind.CONFIG}
        )

    def test_prepay_of_a_paid_number_is_no_definite_failure(self, simulator: Simulator) -> None:
        """DECLINED would let the caller open a new stream beside the paid one."""
        number, _ = simulator.paid()
        outcome = simulator.run(simulator.channel.prepay(simulator.prepay_request(number)))
        assert not (isinstance(outcome, Refused) and outcome.kind is RefusedKind.DECLINED)
        assert simulator.moved(number).captures == 1

    def test_unknown_number_is_not_found(self, simulator: Simulator) -> None:
        view = known(simulator.run(simulator.channel.query(simulator.ref(simulator.new_number()))))
        assert view.state is PaymentState.NOT_FOUND

    def test_unpaid_stream_is_open(self, simulator: Simulator) -> None:
        view = known(simulator.run(simulator.channel.query(simulator.ref(simulator.registered()))))
        hidden = simulator.channel.capabilities.not_found_before_buyer_acts
        assert view.state is (PaymentState.NOT_FOUND if hidden else PaymentState.OPEN)
        assert view.paid_minor == 0

    def test_paid_stream_states_its_money(self, simulator: Simulator) -> None:
        number, reference = simulator.paid()
        view = known(simulator.run(simulator.channel.query(simulator.ref(number))))
        assert (view.number, view.state) == (number, PaymentState.PAID)
        assert (view.paid_minor, view.currency) == (simulator.amount_minor, simulator.currency)
        assert type(view.paid_minor) is int
        assert view.channel_reference == reference != ""
        assert view.paid_at is None or view.paid_at.tzinfo is not None

    def test_paid_stays_paid_after_a_full_refund(self, simulator: Simulator) -> None:
        number, reference = simulator.paid()
        if not simulator.channel.capabilities.refunds:
            pytest.skip("no refunds")
        request = simulator.refund_request(number, reference, f"r{number}", simulator.amount_minor)
        known(simulator.run(simulator.channel.refund(request)))
        view = known(simulator.run(simulator.channel.query(simulator.ref(number, reference))))
        assert (view.state, view.paid_minor) == (PaymentState.PAID, simulator.amount_minor)
        stated = simulator.channel.capabilities.states_refunded
        assert view.refunded_minor == (simulator.moved(number).refunded_minor if stated else 0)

    def test_close_says_what_it_proves(self, simulator: Simulator) -> None:
        number = simulator.registered()
        answer = known(simulator.run(simulator.channel.close(simulator.ref(number))))
        stated = simulator.channel.capabilities
        if answer.state is CloseState.CLOSED_PROVED:
            assert not simulator.pay(number)
            assert simulator.moved(number) == Moved(0, 0, 0)
        elif stated.close_proof in {CloseProof.ANSWER, CloseProof.QUERY}:
            assert stated.not_found_before_buyer_acts
            assert answer.state in {CloseState.NOT_CLOSABLE, CloseState.UNPROVED}
        else:
            assert answer.state is CloseState.NOT_CLOSABLE

    def test_close_again_says_the_same(self, simulator: Simulator) -> None:
        number = simulator.registered()
        first = known(simulator.run(simulator.channel.close(simulator.ref(number))))
        again = known(simulator.run(simulator.channel.close(simulator.ref(number))))
        assert first.state is again.state

    def test_s5_close_of_a_paid_stream_is_evidence_of_money(self, simulator: Simulator) -> None:
        number, reference = simulator.paid()
        answer = known(simulator.run(simulator.channel.close(simulator.ref(number, reference))))
        assert answer.state is CloseState.ALREADY_PAID
        assert answer.payment is not None
        assert (answer.payment.state, answer.payment.channel_reference) == (PaymentState.PAID, reference)

    def test_s4_close_of_an_unknown_number_proves_nothing(self, simulator: Simulator) -> None:
        outcome = simulator.run(simulator.channel.close(simulator.ref(simulator.new_number())))
        assert known(outcome).state in {CloseState.UNPROVED, CloseState.NOT_CLOSABLE}

    def test_capture_takes_approved_money_once_per_key(self, simulator: Simulator) -> None:
        if not simulator.channel.capabilities.captures:
            pytest.skip("the capture is the channel's")
        number = simulator.registered()
        request = CaptureRequest(simulator.ref(number), f"k{number}")
        early = simulator.run(simulator.channel.capture(request))
        assert isinstance(early, Refused | Unknown)
        assert simulator.pay(number)
        approved = known(simulator.run(simulator.channel.query(simulator.ref(number))))
        assert (approved.state, approved.paid_minor) == (PaymentState.APPROVED, 0)
        assert simulator.moved(number).captures == 0
        first = known(simulator.run(simulator.channel.capture(request)))
        again = known(simulator.run(simulator.channel.capture(request)))
        assert first.channel_reference == again.channel_reference
        other = simulator.run(simulator.channel.capture(CaptureRequest(simulator.ref(number), f"other{number}")))
        assert isinstance(other, Refused | Unknown)
        assert simulator.moved(number) == Moved(simulator.amount_minor, 0, 1)
