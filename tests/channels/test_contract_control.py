"""A control: adapters with the classic mistakes must fail the public contract, or it proves nothing."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from payonce.channels.base import Conversation
from payonce.channels.contract import ChannelContract
from payonce.channels.http import run, send
from payonce.channels.messages import (
    CloseAnswer,
    CloseState,
    HttpResponse,
    Known,
    NotAuthentic,
    Notice,
    NotificationRequest,
    Outcome,
    PaymentRef,
    Prepay,
    PrepayRequest,
    RefundRequest,
    RefundView,
    Refused,
    RefusedKind,
    Unknown,
)
from payonce.channels.sandbox.adapter import SandboxChannel
from payonce.channels.sandbox.testing import serve_in_thread
from tests.channels.inbox import inbox
from tests.channels.test_contract_sandbox import SandboxSimulator


class FailsOnTimeout(SandboxChannel):
    """A time-out is read as a failure."""

    def prepay(self, request: PrepayRequest) -> Conversation[Outcome[Prepay]]:
        outcome = yield from super().prepay(request)
        return Refused(RefusedKind.DECLINED, "TIMEOUT") if isinstance(outcome, Unknown) else outcome


class RepeatsWrites(SandboxChannel):
    """A lost answer is answered by asking again, unasked."""

    def refund(self, request: RefundRequest) -> Conversation[Outcome[RefundView]]:
        outcome = yield from super().refund(request)
        return (yield from super().refund(request)) if isinstance(outcome, Unknown) else outcome


class TrustsNotFound(SandboxChannel):
    """What the channel does not know counts as closed."""

    def close(self, ref: PaymentRef) -> Conversation[Outcome[CloseAnswer]]:
        outcome = yield from super().close(ref)
        if isinstance(outcome, Known) and outcome.value.state in {CloseState.UNPROVED, CloseState.NOT_CLOSABLE}:
            return Known(CloseAnswer(CloseState.CLOSED_PROVED))
        return outcome


class BelievesAnybody(SandboxChannel):
    """The signature of a notification is not looked at."""

    def parse_notification(self, request: NotificationRequest, at: Any) -> Notice | NotAuthentic:
        judged = super().parse_notification(request, at)
        return Notice("k", "e", None) if isinstance(judged, NotAuthentic) else judged


class Raises(SandboxChannel):
    """Whatever is unexpected becomes an exception."""

    def query(self, ref: PaymentRef) -> Conversation[Any]:
        outcome = yield from super().query(ref)
        return outcome.value


@pytest.fixture(scope="module")
def make() -> Iterator[Callable[[type[SandboxChannel]], SandboxSimulator]]:
    with inbox() as box, serve_in_thread({"blue": {}}) as sandbox:

        def build(adapter: type[SandboxChannel]) -> SandboxSimulator:
            simulator = SandboxSimulator(sandbox, "blue", box)
            simulator.channel = adapter("blue", sandbox.accounts["blue"])
            return simulator

        yield build


def test_contract_finds_a_time_out_read_as_failure(make: Callable[..., SandboxSimulator]) -> None:
    with pytest.raises(AssertionError):
        ChannelContract().test_no_answer_is_unknown(make(FailsOnTimeout))


def test_contract_finds_a_write_that_is_repeated(make: Callable[..., SandboxSimulator]) -> None:
    simulator = make(RepeatsWrites)
    with pytest.raises(AssertionError):
        ChannelContract().test_m6_refund_whose_answer_is_spoilt_moves_money_once(simulator, simulator.paid(), "lost")


def test_contract_finds_trust_in_not_found(make: Callable[..., SandboxSimulator]) -> None:
    with pytest.raises(AssertionError):
        ChannelContract().test_s4_close_of_an_unknown_number_proves_nothing(make(TrustsNotFound))


def test_contract_finds_a_believed_forgery(make: Callable[..., SandboxSimulator]) -> None:
    simulator = make(BelievesAnybody)
    number, _ = simulator.paid()
    with pytest.raises(AssertionError):
        ChannelContract().test_x1_altered_body_is_not_authentic(simulator, (number, simulator.notification(number)))


def test_contract_finds_an_exception(make: Callable[..., SandboxSimulator]) -> None:
    with pytest.raises(AttributeError):
        ChannelContract().test_no_answer_is_unknown(make(Raises))


def test_answer_of_another_request_is_not_believed(make: Callable[..., SandboxSimulator]) -> None:
    """A recorded answer, genuine and fresh, played to a later question."""
    simulator = make(SandboxChannel)
    number, _ = simulator.paid()
    recorded: list[HttpResponse] = []

    def record(request: Any) -> Any:
        reply = send(request)
        if isinstance(reply, HttpResponse):
            recorded.append(reply)
        return reply

    assert isinstance(run(simulator.channel.query(simulator.ref(number)), record), Known)
    replayed = run(simulator.channel.query(simulator.ref(number)), lambda _: recorded[0])
    assert isinstance(replayed, Unknown)
    assert replayed.reason == "bad_signature:200"
