"""A channel whose answers a test writes down: for exact answers at exact moments. Races and whole stories use the real sandbox."""

import threading
from collections import defaultdict
from collections.abc import Callable, Generator
from datetime import date, datetime, timedelta
from typing import Any, ClassVar

from payonce.channels.base import Channel
from payonce.channels.messages import (
    Acknowledgement,
    Capabilities,
    CaptureRequest,
    CloseAnswer,
    CloseProof,
    CloseState,
    HttpRequest,
    HttpResponse,
    Known,
    MethodCapability,
    NotAuthentic,
    Notice,
    NotificationRequest,
    PaymentRef,
    PaymentState,
    PaymentView,
    Prepay,
    PrepayKind,
    PrepayRequest,
    RefundRef,
    RefundRequest,
    RefundState,
    RefundView,
    TransportError,
    Verdict,
)

Talk = Generator[HttpRequest, HttpResponse | TransportError, Any]
DEFAULT_CAPABILITIES: dict[str, Any] = {
    "methods": {
        "qr": MethodCapability(PrepayKind.QR, 7200),
        "web": MethodCapability(PrepayKind.REDIRECT, 7200),
    },
    "currencies": frozenset({"CNY", "EUR", "JPY"}),
    "close_proof": CloseProof.ANSWER,
    "clock_skew_seconds": 60,
}


class ScriptedChannel(Channel):
    """Answers what `answers[operation]` says, first in first out; by default everything goes well and nobody has paid."""

    adapter: ClassVar[str] = "scripted"
    answers: ClassVar[dict[tuple[str, str], list[Any]]] = defaultdict(list)
    calls: ClassVar[list[tuple[str, str, Any]]] = []
    before: ClassVar[dict[str, Callable[[Any], None]]] = {}
    overrides: ClassVar[dict[str, dict[str, Any]]] = {}
    notice: ClassVar[Callable[[NotificationRequest], Notice | NotAuthentic] | None] = None
    lock: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def forget(cls) -> None:
        cls.answers.clear()
        cls.calls.clear()
        cls.before.clear()
        cls.overrides.clear()
        cls.notice = None

    @classmethod
    def count(cls, operation: str, account: str | None = None) -> int:
        return sum(1 for name, who, _ in cls.calls if name == operation and account in (None, who))

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(**{**DEFAULT_CAPABILITIES, **self.overrides.get(self.account, {})})

    def _answer(self, operation: str, asked: Any, default: Any) -> Any:
        with self.lock:
            self.calls.append((operation, self.account, asked))
            queued = self.answers[self.account, operation]
            answer = queued.pop(0) if queued else default
        if operation in self.before:
            self.before[operation](asked)
        return answer(asked) if callable(answer) else answer

    def _talk(self, operation: str, asked: Any, default: Any) -> Talk:
        return self._answer(operation, asked, default)
        yield

    def prepay(self, request: PrepayRequest) -> Talk:
        prepay = Prepay(PrepayKind.QR, f"scripted:{request.number}", request.payable_until)
        return self._talk("prepay", request, Known(prepay))

    def query(self, ref: PaymentRef) -> Talk:
        return self._talk("query", ref, Known(PaymentView(ref.number, PaymentState.OPEN)))

    def capture(self, request: CaptureRequest) -> Talk:
        return self._talk("capture", request, Known(paid_view(request.payment)))

    def close(self, ref: PaymentRef) -> Talk:
        return self._talk("close", ref, Known(CloseAnswer(CloseState.CLOSED_PROVED)))

    def refund(self, request: RefundRequest) -> Talk:
        done = RefundView(request.refund_number, RefundState.DONE, request.amount_minor, request.currency, "rr")
        return self._talk("refund", request, Known(done))

    def query_refund(self, ref: RefundRef) -> Talk:
        return self._talk("query_refund", ref, Known(RefundView(ref.refund_number, RefundState.NOT_FOUND)))

    def statement(self, day: date) -> Talk:
        return self._talk("statement", day, Known(()))

    def parse_notification(self, request: NotificationRequest, at: datetime) -> Notice | NotAuthentic:
        return type(self).notice(request) if type(self).notice else NotAuthentic("no script")  # type: ignore[misc]

    def acknowledge(self, verdict: Verdict, reason: str = "") -> Acknowledgement:
        return Acknowledgement({"accept": 200, "retry": 500, "reject": 401}[verdict.value], verdict.value.encode())


def paid_view(ref: PaymentRef, *, reference: str = "", at: datetime | None = None, **changes: Any) -> PaymentView:
    """A matching success about a stream."""
    facts: dict[str, Any] = {
        "currency": ref.currency, "paid_minor": ref.amount_minor, "channel_reference": reference or f"ref-{ref.number}",
        "paid_at": at,
    }  # fmt: skip
    return PaymentView(ref.number, PaymentState.PAID, **{**facts, **changes})


def soon(seconds: float = 60.0) -> timedelta:
    return timedelta(seconds=seconds)
