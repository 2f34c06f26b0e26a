"""PayPal's skin as the contract's other side."""

import base64
import json
from datetime import UTC, datetime, timedelta

from payonce.channels.contract import Moved, Simulator
from payonce.channels.http import send
from payonce.channels.messages import HttpRequest, HttpResponse, NotificationRequest, PaymentRef, Prepay, PrepayRequest
from payonce.channels.paypal import PayPalChannel
from payonce.channels.sandbox.testing import RunningSandbox
from tests.channels.inbox import Inbox

FAULT_OF_BREAKAGE = {"lost": "drop_after", "server_error": "error_after", "truncated": "truncate", "garbage": "garbage"}


def register_webhook(options: dict[str, str], url: str) -> None:
    """Tell PayPal where its events go, as a merchant does at the developer dashboard or by the API."""
    basic = base64.b64encode(f"{options['client_id']}:{options['client_secret']}".encode()).decode()
    token = post(options["base_url"] + "/v1/oauth2/token", b"grant_type=client_credentials", f"Basic {basic}")
    body = json.dumps({"url": url, "event_types": [{"name": "*"}]}).encode()
    post(
        options["base_url"] + "/v1/notifications/webhooks", body, f"Bearer {token['access_token']}", "application/json"
    )


def post(
    url: str, body: bytes, authorization: str, content_type: str = "application/x-www-form-urlencoded"
) -> dict[str, str]:
    """One call that must succeed."""
    headers = {"authorization": authorization, "content-type": content_type}
    reply = send(HttpRequest("POST", url, headers, body))
    assert isinstance(reply, HttpResponse)
    assert reply.status in (200, 201), reply.body
    record: dict[str, str] = json.loads(reply.body)
    return record


class RememberingPayPal(PayPalChannel):
    """Keeps the order's id of each number, as the stream's row does in payonce."""

    def __init__(self, account: str, options: dict[str, str]) -> None:
        super().__init__(account, options)
        self.ids: dict[str, str] = {}

    def prepay(self, request: PrepayRequest):
        """As PayPal's, and note the reference."""
        outcome = yield from super().prepay(request)
        value = getattr(outcome, "value", None)
        if isinstance(value, Prepay) and value.channel_reference:
            self.ids[request.number] = value.channel_reference
        return outcome


class PayPalSimulator(Simulator):
    """One app of a running skin."""

    currency = "USD"

    def __init__(self, sandbox: RunningSandbox, account: str, box: Inbox) -> None:
        self.account = account
        self.control = sandbox.control
        self.box = box
        self.options = sandbox.accounts[account]
        self.channel = RememberingPayPal(account, self.options)
        register_webhook(self.options, box.url)

    def ref(self, number: str, channel_reference: str = "") -> PaymentRef:
        assert isinstance(self.channel, RememberingPayPal)
        return super().ref(number, channel_reference or self.channel.ids.get(number, ""))

    def pay(self, number: str) -> bool:
        return self.control.pay(number, account=self.account).ok

    def moved(self, number: str) -> Moved:
        sums = self.control.sums(number, account=self.account)
        return Moved(sums["captured_minor"], sums["refunded_minor"], sums["captures"])

    def break_next_answer(self, operation: str, breakage: str) -> bool:
        if breakage not in FAULT_OF_BREAKAGE:
            return False  # PayPal signs no answers
        shown = "query" if operation == "query_refund" else operation  # a refund is found in its order
        self.control.fault(shown, FAULT_OF_BREAKAGE[breakage], account=self.account)
        return True

    def calls(self, operation: str, number: str) -> int:
        shown = "query" if operation == "query_refund" else operation
        return self.control.calls(shown, number, account=self.account)

    def notification(self, number: str) -> NotificationRequest:
        self.control.send_notification(number, account=self.account, event="payment.paid")
        wanted = (number.encode(), b"PAYMENT.CAPTURE.COMPLETED")
        return [message for message in self.box.messages if all(text in message.body for text in wanted)][-1]

    def foreign_notification(self, number: str) -> NotificationRequest:
        self.control.wait_delivered(number, 2, account=self.account)  # the approval and the capture
        self.control.send_notification(number, account=self.account, event="payment.paid", forgery="wrong_account")
        return [message for message in self.box.messages if number.encode() in message.body][-1]

    def sign(self, request: HttpRequest, status: int, body: bytes) -> HttpResponse:
        return HttpResponse(status, {"content-type": "application/json"}, body)

    def secrets(self) -> tuple[str, ...]:
        assert isinstance(self.channel, PayPalChannel)
        return (self.options["client_secret"], self.channel._token.value or "no token yet, no secret")

    def until(self) -> datetime:
        """A moment that an order can be paid until."""
        return datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=30)
