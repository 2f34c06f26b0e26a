"""The channel contract: what an adapter implements.

Adapters do no I/O, import no model and never raise for what a channel does.

Each operation is a generator. It yields an `HttpRequest`, is sent an `HttpResponse` or a `TransportError`, and
returns its outcome; several round trips read top to bottom in one function. `channels.http` has the two drivers that
run it.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from datetime import date, datetime
from typing import Any, ClassVar, TypeVar

from payonce.channels.messages import (
    Acknowledgement,
    Capabilities,
    CaptureRequest,
    CloseAnswer,
    HttpRequest,
    HttpResponse,
    NotAuthentic,
    Notice,
    NotificationRequest,
    Outcome,
    PaymentRef,
    PaymentView,
    Prepay,
    PrepayRequest,
    RefundRef,
    RefundRequest,
    RefundView,
    StatementLine,
    TransportError,
    Verdict,
)
from payonce.channels.options import Option

T = TypeVar("T")
Conversation = Generator[HttpRequest, HttpResponse | TransportError, T]


class Channel(ABC):
    """One account at one channel.

    Made once per process and account from `PAYONCE["CHANNELS"][account]`; holds keys, never state of a payment.
    """

    adapter: ClassVar[str]
    option_specs: ClassVar[tuple[Option, ...]] = ()  # empty: options are not checked by name

    def __init__(self, account: str, options: Mapping[str, Any]) -> None:
        """Keep the account's options.

        Raises ChannelConfigError that names the missing or wrong option and how to fix it.
        """
        self.account = account
        self.options = options

    @property
    def merchant(self) -> str:
        """Who takes the money by this account's keys, as messages state it; empty where messages do not state it."""
        return str(self.options.get("merchant", ""))

    @property
    def takes_real_money(self) -> bool:
        """False for a sandbox or a test mode, where anybody can pay with nothing: the deploy check refuses it."""
        return True

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this account can do."""

    @abstractmethod
    def prepay(self, request: PrepayRequest) -> Conversation[Outcome[Prepay]]:
        """Register the stream so that the buyer can pay it.

        The same request under the same number is the same stream.
        """

    @abstractmethod
    def query(self, ref: PaymentRef) -> Conversation[Outcome[PaymentView]]:
        """Ask what happened to a stream. Not found is an answer (`PaymentState.NOT_FOUND`), not a refusal."""

    def capture(self, request: CaptureRequest) -> Conversation[Outcome[PaymentView]]:
        """Take approved money, where the capture is ours (`capabilities.captures`)."""
        raise TypeError(f"channel {self.adapter} has no capture of its own: capabilities.captures must be False for it")

    @abstractmethod
    def close(self, ref: PaymentRef) -> Conversation[Outcome[CloseAnswer]]:
        """Ask the channel to let nobody pay this stream any more, and say what that proves."""

    @abstractmethod
    def refund(self, request: RefundRequest) -> Conversation[Outcome[RefundView]]:
        """Give money back under the caller's refund number.

        The same request under the same number moves money at most once.
        """

    @abstractmethod
    def query_refund(self, ref: RefundRef) -> Conversation[Outcome[RefundView]]:
        """Ask what happened to a refund number."""

    @abstractmethod
    def parse_notification(self, request: NotificationRequest, at: datetime) -> Notice | NotAuthentic:
        """Verify and read a notification; `at` is the time to judge its age by. Pure: no network, no database."""

    @abstractmethod
    def acknowledge(self, verdict: Verdict, reason: str = "") -> Acknowledgement:
        """Say the verdict in the channel's own words."""

    def statement(self, day: date) -> Conversation[Outcome[tuple[StatementLine, ...]]]:
        """Fetch the statement of one day, where `capabilities.statement`."""
        raise TypeError(f"channel {self.adapter} has no statement: capabilities.statement must be False for it")
