"""A channel that answers at once, so that a benchmark measures us; its notifications carry a real RSA signature."""

import base64
import json
from collections.abc import Generator, Mapping
from datetime import datetime
from typing import Any, ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from payonce.channels.base import Channel
from payonce.channels.messages import (
    Acknowledgement,
    Capabilities,
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
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
QUERY_URL = ""  # set by the poll benchmark: where a query is asked


class InstantChannel(Channel):
    """Takes every prepay, knows every stream as open, and verifies RSA-SHA256 over a notification's bytes."""

    adapter: ClassVar[str] = "instant"
    public_key = KEY.public_key()

    def __init__(self, account: str, options: Mapping[str, Any]) -> None:
        super().__init__(account, options)
        methods = {"qr": MethodCapability(PrepayKind.QR, 7200)}
        self._capabilities = Capabilities(methods=methods, currencies=frozenset({"CNY"}), close_proof=CloseProof.ANSWER)

    @property
    def capabilities(self) -> Capabilities:
        """One method, one currency."""
        return self._capabilities

    def prepay(self, request: PrepayRequest) -> Talk:
        """Taken at once."""
        return Known(Prepay(PrepayKind.QR, f"pay:{request.number}", request.payable_until))
        yield

    def query(self, ref: PaymentRef) -> Talk:
        """Open; over HTTP where the poll benchmark says so."""
        if QUERY_URL:
            answer = yield HttpRequest("GET", f"{QUERY_URL}/{ref.number}")
            assert isinstance(answer, HttpResponse), answer
        return Known(PaymentView(ref.number, PaymentState.OPEN))

    def close(self, ref: PaymentRef) -> Talk:
        """Closed at once."""
        return Known(CloseAnswer(CloseState.CLOSED_PROVED))
        yield

    def refund(self, request: RefundRequest) -> Talk:
        """Done at once."""
        return Known(RefundView(request.refund_number, RefundState.DONE, request.amount_minor, request.currency))
        yield

    def query_refund(self, ref: RefundRef) -> Talk:
        """Never heard of."""
        return Known(RefundView(ref.refund_number, RefundState.NOT_FOUND))
        yield

    def parse_notification(self, request: NotificationRequest, at: datetime) -> Notice | NotAuthentic:
        """Verify the signature over the bytes as received, then read them."""
        try:
            signature = base64.b64decode(request.headers.get("signature", ""))
            self.public_key.verify(signature, request.body, padding.PKCS1v15(), hashes.SHA256())
        except (InvalidSignature, ValueError):
            return NotAuthentic("bad signature")
        data = json.loads(request.body)
        view = PaymentView(
            data["number"],
            PaymentState.PAID,
            "CNY",
            data["amount_minor"],
            channel_reference=data["reference"],
            paid_at=at,
        )
        return Notice(data["key"], "payment.paid", at, payment=view)

    def acknowledge(self, verdict: Verdict, reason: str = "") -> Acknowledgement:
        """Success, or not."""
        return Acknowledgement(200 if verdict is Verdict.ACCEPT else 500, b"success")


def signed(number: str, amount_minor: int) -> NotificationRequest:
    """A genuine notification about a payment."""
    body = json.dumps(
        {"number": number, "amount_minor": amount_minor, "reference": f"r-{number}", "key": f"k-{number}"}
    )
    signature = KEY.sign(body.encode(), padding.PKCS1v15(), hashes.SHA256())
    return NotificationRequest(body.encode(), {"signature": base64.b64encode(signature).decode()})
