"""Refunds: one number moves money at most once, whatever happens to the answers. Invariants M2 and M6."""

from datetime import timedelta

import pytest

from payonce.channels.contract.simulator import BREAKAGES, Moved, Simulator, known
from payonce.channels.messages import RefundRef, RefundState, Refused, Unknown


class RefundContract:
    """What holds for money given back."""

    @pytest.fixture
    def paid(self, simulator: Simulator) -> tuple[str, str]:
        """Number and reference of a paid stream, where the channel can refund."""
        if not simulator.channel.capabilities.refunds:
            pytest.skip("no refunds")
        return simulator.paid()

    def test_full_refund_moves_all_once(self, simulator: Simulator, paid: tuple[str, str]) -> None:
        request = simulator.refund_request(*paid, f"r{paid[0]}", simulator.amount_minor)
        for _ in range(3):
            view = known(simulator.run(simulator.channel.refund(request)))
            assert view.refund_number == request.refund_number
            assert view.state in {RefundState.DONE, RefundState.IN_PROGRESS}
        assert simulator.moved(paid[0]) == Moved(simulator.amount_minor, simulator.amount_minor, 1)

    def test_unknown_refund_number_is_not_found(self, simulator: Simulator, paid: tuple[str, str]) -> None:
        ref = RefundRef(simulator.ref(*paid), f"none{paid[0]}", simulator.amount_minor)
        assert known(simulator.run(simulator.channel.query_refund(ref))).state is RefundState.NOT_FOUND

    def test_refund_query_tells_amount_and_state(self, simulator: Simulator, paid: tuple[str, str]) -> None:
        request = simulator.refund_request(*paid, f"r{paid[0]}", simulator.amount_minor)
        known(simulator.run(simulator.channel.refund(request)))
        ref = RefundRef(request.payment, request.refund_number, request.amount_minor)
        view = known(simulator.run(simulator.channel.query_refund(ref)))
        assert view.state in {RefundState.DONE, RefundState.IN_PROGRESS}
        assert (view.amount_minor, view.currency) == (simulator.amount_minor, simulator.currency)

    def test_same_number_with_another_amount_moves_nothing(self, simulator: Simulator, paid: tuple[str, str]) -> None:
        if not simulator.channel.capabilities.refunds_partial:
            pytest.skip("no partial refunds")
        first = simulator.refund_request(*paid, f"r{paid[0]}", 100)
        known(simulator.run(simulator.channel.refund(first)))
        other = simulator.refund_request(*paid, f"r{paid[0]}", 200)
        assert isinstance(simulator.run(simulator.channel.refund(other)), Refused | Unknown)
        assert simulator.moved(paid[0]).refunded_minor == 100

    def test_partial_refunds_never_exceed_the_capture(self, simulator: Simulator, paid: tuple[str, str]) -> None:
        stated = simulator.channel.capabilities
        if not stated.refunds_partial or stated.refund_interval_seconds:
            pytest.skip("no partial refunds in a row")
        part = simulator.amount_minor // 2
        for index in range(2):
            request = simulator.refund_request(*paid, f"r{paid[0]}_{index}", part)
            known(simulator.run(simulator.channel.refund(request)))
        over = simulator.refund_request(*paid, f"r{paid[0]}_over", part)
        assert isinstance(simulator.run(simulator.channel.refund(over)), Refused)
        assert simulator.moved(paid[0]).refunded_minor == 2 * part

    def test_refund_of_an_unpaid_stream_is_refused(self, simulator: Simulator) -> None:
        if not simulator.channel.capabilities.refunds:
            pytest.skip("no refunds")
        number = simulator.registered()
        request = simulator.refund_request(number, "", f"r{number}", simulator.amount_minor)
        assert isinstance(simulator.run(simulator.channel.refund(request)), Refused)
        assert simulator.moved(number) == Moved(0, 0, 0)

    @pytest.mark.parametrize("breakage", BREAKAGES)
    def test_m6_refund_whose_answer_is_spoilt_moves_money_once(
        self, simulator: Simulator, paid: tuple[str, str], breakage: str
    ) -> None:
        if not simulator.break_next_answer("refund", breakage):
            pytest.skip(f"{breakage} cannot be simulated")
        request = simulator.refund_request(*paid, f"r{paid[0]}", simulator.amount_minor)
        assert isinstance(simulator.run(simulator.channel.refund(request)), Unknown)
        assert simulator.calls("refund", paid[0]) == 1, "an adapter never repeats a write by itself"
        assert simulator.moved(paid[0]).refunded_minor == simulator.amount_minor
        ref = RefundRef(request.payment, request.refund_number, request.amount_minor)
        asked = known(simulator.run(simulator.channel.query_refund(ref)))
        assert asked.state in {RefundState.DONE, RefundState.IN_PROGRESS}
        known(simulator.run(simulator.channel.refund(request)))
        assert simulator.moved(paid[0]).refunded_minor == simulator.amount_minor

    def test_statement_holds_the_payment_and_its_refund(self, simulator: Simulator, paid: tuple[str, str]) -> None:
        if not simulator.channel.capabilities.statement:
            pytest.skip("no statement")
        before = simulator.now()
        request = simulator.refund_request(*paid, f"r{paid[0]}", simulator.amount_minor)
        known(simulator.run(simulator.channel.refund(request)))
        days = {(before - timedelta(minutes=5)).date(), simulator.now().date()}
        lines = [line for day in days for line in known(simulator.run(simulator.channel.statement(day)))]
        found = {line.kind: line for line in lines if paid[0] in {line.number, line.payment_number}}
        assert {line.amount_minor for line in found.values()} == {simulator.amount_minor}
        assert set(found) == {"payment", "refund"}
        asked = known(simulator.run(simulator.channel.query(simulator.ref(*paid))))
        ref = RefundRef(request.payment, request.refund_number, request.amount_minor)
        asked_refund = known(simulator.run(simulator.channel.query_refund(ref)))
        payment, refund = found["payment"], found["refund"]
        assert payment.number == paid[0]
        assert payment.channel_reference in {"", asked.channel_reference}, "as a query names it, or none"
        assert payment.currency == refund.currency == asked.currency
        assert (refund.number, refund.payment_number) == (request.refund_number, paid[0])
        assert refund.came_to is asked_refund.state
