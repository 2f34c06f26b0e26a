"""What the suite needs to know about an adapter and of the channel's other side."""

import itertools
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from payonce.channels.base import Channel, Conversation
from payonce.channels.http import run, send
from payonce.channels.messages import (
    HttpRequest,
    HttpResponse,
    Known,
    NotificationRequest,
    Outcome,
    PaymentRef,
    PrepayRequest,
    RefundRequest,
    TransportError,
)

T = TypeVar("T")

# Ways in which an answer is lost or spoilt after the channel did what was asked.
BREAKAGES = ("lost", "server_error", "truncated", "garbage", "bad_signature")
OPERATIONS = ("prepay", "query", "capture", "close", "refund", "query_refund")


@dataclass(frozen=True, slots=True)
class Moved:
    """The truth about one number: money taken and given back, in minor units, and how many captures."""

    captured_minor: int
    refunded_minor: int
    captures: int


class Simulator(ABC):
    """One channel account with its simulated other side.

    Override what is abstract, and `None` answers where you can.
    """

    channel: Channel
    currency = "CNY"
    amount_minor = 1_200
    notify_url = "http://127.0.0.1:9/"
    _numbers = itertools.count(1)

    def new_number(self) -> str:
        """A merchant number that was never used."""
        return f"c{secrets.token_hex(6)}_{next(self._numbers)}"

    @abstractmethod
    def pay(self, number: str) -> bool:
        """The buyer pays (or approves); False where the channel refuses."""

    @abstractmethod
    def moved(self, number: str) -> Moved:
        """What truly happened, from the simulator's own books."""

    @abstractmethod
    def break_next_answer(self, operation: str, breakage: str) -> bool:
        """Spoil the next answer of an operation after its effect; False where this breakage cannot be simulated."""

    @abstractmethod
    def calls(self, operation: str, number: str) -> int:
        """How often the channel was asked."""

    def notification(self, number: str) -> NotificationRequest | None:
        """The newest notification about a number, as received; None where notifications cannot be simulated."""
        return None

    def foreign_notification(self, number: str) -> NotificationRequest | None:
        """The same, truly signed, but by or for another account."""
        return None

    def sign(self, request: HttpRequest, status: int, body: bytes) -> HttpResponse | None:
        """A truly signed answer with any content; None where answers are not signed or cannot be made here."""
        return None

    def secrets(self) -> tuple[str, ...]:
        """Texts that may appear in no outcome."""
        return ()

    def send(self, request: HttpRequest) -> HttpResponse | TransportError:
        """One request to the simulator: over HTTP, or answered in memory where you override it."""
        return send(request)

    def run(self, conversation: Conversation[T]) -> T:
        """Run a conversation against the simulator."""
        return run(conversation, self.send)

    def now(self) -> datetime:
        """The time."""
        return datetime.now(UTC)

    def prepay_request(self, number: str, **changes: object) -> PrepayRequest:
        """A prepay that the channel accepts."""
        method = next(iter(self.channel.capabilities.methods))
        given: dict[str, object] = {
            "number": number,
            "amount_minor": self.amount_minor,
            "currency": self.currency,
            "subject": "Contract 合同",
            "method": method,
            "client_type": "pc",
            "payer": "",
            "payable_until": self.now().replace(microsecond=0) + timedelta(minutes=30),
            "notify_url": self.notify_url,
            "return_url": "http://127.0.0.1:9/return",
            **changes,
        }
        return PrepayRequest(**given)  # type: ignore[arg-type]

    def ref(self, number: str, channel_reference: str = "") -> PaymentRef:
        """Names a stream."""
        return PaymentRef(number, self.amount_minor, self.currency, channel_reference=channel_reference)

    def refund_request(self, number: str, reference: str, refund_number: str, amount_minor: int) -> RefundRequest:
        """A refund of a paid stream."""
        return RefundRequest(
            self.ref(number, reference), refund_number, amount_minor, self.currency, self.amount_minor, "contract"
        )

    def registered(self) -> str:
        """The number of a stream that can be paid."""
        number = self.new_number()
        known(self.run(self.channel.prepay(self.prepay_request(number))))
        return number

    def paid(self) -> tuple[str, str]:
        """Number and channel reference of a stream whose money was taken."""
        from payonce.channels.messages import CaptureRequest

        number = self.registered()
        assert self.pay(number), "the simulator refused to pay a fresh stream"
        if self.channel.capabilities.captures:
            view = known(self.run(self.channel.capture(CaptureRequest(self.ref(number), f"k{number}"))))
        else:
            view = known(self.run(self.channel.query(self.ref(number))))
        return number, view.channel_reference


def known(outcome: Outcome[T]) -> T:
    """The value of a Known outcome."""
    assert isinstance(outcome, Known), f"expected Known, got {outcome!r}"
    return outcome.value
