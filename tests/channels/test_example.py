"""The example of the documentation, a channel in one file, keeps the contract: what a third party's adapter has to do to be judged."""

import importlib.util
import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from payonce.channels.contract import ChannelContract, Moved, Simulator
from payonce.channels.messages import HttpRequest, HttpResponse, NotificationRequest, TransportError

PATH = Path(__file__).resolve().parents[2] / "docs" / "examples" / "paper_wallet.py"
SPEC = importlib.util.spec_from_file_location("paper_wallet", PATH)
assert SPEC is not None
assert SPEC.loader is not None
paper_wallet = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(paper_wallet)


class PaperSimulator(Simulator):
    """The wallet's other side, in memory: no server is needed to run the contract."""

    currency = "EUR"

    def __init__(self) -> None:
        self.secret = secrets.token_urlsafe(32)
        self.channel = paper_wallet.PaperWallet("paper", {"merchant": "shop-17", "secret": self.secret})
        self.payments: dict[str, dict[str, Any]] = {}
        self.refunds: dict[tuple[str, str], dict[str, Any]] = {}
        self.counts: dict[tuple[str, str], int] = {}
        self.broken: dict[str, str] = {}

    def send(self, request: HttpRequest) -> HttpResponse | TransportError:
        """Do what is asked, then spoil the answer where that was planned."""
        parts = request.url.removeprefix("https://api.paper-wallet.example/").split("/")
        body = json.loads(request.body or b"{}")
        number = parts[1] if len(parts) > 1 else body["number"]
        name = {("POST", 1): "prepay", ("GET", 2): "query", ("POST", 3): "refund", ("GET", 4): "query_refund"}[
            request.method, len(parts)
        ]
        name = "close" if parts[-1] == "close" else name
        self.counts[name, number] = self.counts.get((name, number), 0) + 1
        status, record = getattr(self, f"_{name}")(number, body, parts[-1])
        text = json.dumps(record).encode()
        match self.broken.pop(name, ""):
            case "lost":
                return TransportError("read_timeout")
            case "server_error":
                return HttpResponse(500, {}, b"{}")
            case "truncated":
                return HttpResponse(200, {}, text[: len(text) // 2])
            case "garbage":
                return HttpResponse(200, {}, b"<html>")
        return HttpResponse(status, {}, text)

    def _prepay(self, number: str, body: dict[str, Any], _last: str) -> tuple[int, dict[str, Any]]:
        made = {"number": number, "amount": body["amount"], "currency": body["currency"], "code": f"paper:{number}"}
        known = self.payments.setdefault(number, {**made, "state": "open", "refunded": 0})
        same = known["state"] == "open" and known["amount"] == body["amount"]
        return (200, known) if same else (409, {"error": "number_used"})

    def _query(self, number: str, _body: dict[str, Any], _last: str) -> tuple[int, dict[str, Any]]:
        known = self.payments.get(number)
        return (200, known) if known else (404, {"error": "unknown_number"})

    def _close(self, number: str, body: dict[str, Any], last: str) -> tuple[int, dict[str, Any]]:
        known = self.payments.get(number)
        if known is not None and known["state"] == "open":
            known["state"] = "closed"
        return self._query(number, body, last)

    def _refund(self, number: str, body: dict[str, Any], _last: str) -> tuple[int, dict[str, Any]]:
        payment, key = self.payments.get(number), (number, body["number"])
        if payment is None or payment["state"] != "paid":
            return 409, {"error": "not_paid"}
        known = self.refunds.get(key)
        if known is not None:
            return (200, known) if known["amount"] == body["amount"] else (409, {"error": "number_used"})
        if payment["refunded"] + body["amount"] > payment["amount"]:
            return 409, {"error": "too_much"}
        payment["refunded"] += body["amount"]
        self.refunds[key] = {**body, "state": "done"}
        return 200, self.refunds[key]

    def _query_refund(self, number: str, _body: dict[str, Any], last: str) -> tuple[int, dict[str, Any]]:
        known = self.refunds.get((number, last))
        return (200, known) if known else (404, {"error": "unknown_number"})

    def pay(self, number: str) -> bool:
        payment = self.payments[number]
        if payment["state"] != "open":
            return False
        payment |= {"state": "paid", "reference": f"P-{number}", "paid_at": datetime.now(UTC).isoformat()}
        return True

    def moved(self, number: str) -> Moved:
        payment = self.payments.get(number, {})
        is_paid = payment.get("state") == "paid"
        return Moved(payment["amount"], payment["refunded"], 1) if is_paid else Moved(0, 0, 0)

    def break_next_answer(self, operation: str, breakage: str) -> bool:
        if breakage == "bad_signature":
            return False  # the wallet signs no answers
        self.broken[operation] = breakage
        return True

    def calls(self, operation: str, number: str) -> int:
        return self.counts.get((operation, number), 0)

    def notification(self, number: str) -> NotificationRequest:
        return self._signed(number, self.secret)

    def foreign_notification(self, number: str) -> NotificationRequest:
        return self._signed(number, "another secret of another shop")

    def _signed(self, number: str, secret: str) -> NotificationRequest:
        body = json.dumps({"id": f"n-{number}", "payment": self.payments[number]}).encode()
        sent = datetime.now(UTC).isoformat()
        return NotificationRequest(body, {"paper-time": sent, "paper-signature": paper_wallet.sign(secret, sent, body)})

    def sign(self, request: HttpRequest, status: int, body: bytes) -> HttpResponse:
        return HttpResponse(status, {}, body)

    def secrets(self) -> tuple[str, ...]:
        return (self.secret,)


class TestTheExampleKeepsTheContract(ChannelContract):
    @pytest.fixture
    def simulator(self) -> PaperSimulator:
        return PaperSimulator()
