"""A channel for measuring: prepay and notifications cost nothing, a query is one HTTP request to a server of the benchmark."""

import json
from collections.abc import Generator
from datetime import datetime
from typing import Any, ClassVar

from payonce.channels.base import Channel
from payonce.channels.messages import (
    Acknowledgement,
    Capabilities,
    CloseProof,
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
    TransportError,
    Unknown,
    Verdict,
)

Talk = Generator[HttpRequest, HttpResponse | TransportError, Any]


class BenchWallet(Channel):
    """Says yes to everything. A notification's body is the stream's number."""

    adapter: ClassVar[str] = "bench"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            methods={"qr": MethodCapability(PrepayKind.QR, 7200)},
            currencies=frozenset({"CNY"}),
            close_proof=CloseProof.ANSWER,
        )

    def prepay(self, request: PrepayRequest) -> Talk:
        return Known(Prepay(PrepayKind.QR, f"bench:{request.number}", request.payable_until))
        yield

    def query(self, ref: PaymentRef) -> Talk:
        answer = yield HttpRequest("GET", f"{self.options['base_url']}/query/{ref.number}")
        if not isinstance(answer, HttpResponse):
            return Unknown(answer.reason)
        return Known(PaymentView(ref.number, PaymentState(json.loads(answer.body)["state"])))

    def parse_notification(self, request: NotificationRequest, at: datetime) -> Notice | NotAuthentic:
        number = request.body.decode()
        view = PaymentView(
            number, PaymentState.PAID, currency="CNY", paid_minor=1000, channel_reference=f"ref-{number}", paid_at=at
        )
        return Notice(dedupe_key=f"n-{number}", event="paid", sent_at=at, payment=view)

    def acknowledge(self, verdict: Verdict, reason: str = "") -> Acknowledgement:
        return Acknowledgement(200 if verdict is Verdict.ACCEPT else 500, verdict.value.encode())

    close = capture = refund = query_refund = query  # type: ignore[assignment]
