"""What the stories see of the running site: the shop's and the buyers' HTTP, the bank's controls, and the database.

Nothing of the app is imported to judge the app: its rows are read by SQL.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
import urllib3

from config.supervisor import Supervisor
from payonce.channels.sandbox.control import SandboxControl

HTTP_SECONDS = 30.0
RETRY_SECONDS = 20.0
LOOK_SECONDS = 0.1
WALLET_A = "sandbox_a"
WALLET_B = "sandbox_b"


class StoryFailed(Exception):
    """A story did not end as it must; the text says what was expected and what was found."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What web answered."""

    status: int
    body: dict[str, Any]
    retry_after_seconds: float = 0.0


class Caller:
    """One bearer of a token at the HTTP API: the shop, or the buyer of one order."""

    def __init__(self, base_url: str, token: str) -> None:
        self._base_url = base_url
        self._token = token
        self._pool = urllib3.PoolManager(retries=False, timeout=HTTP_SECONDS)

    def get(self, path: str) -> Answer:
        """One GET."""
        return self._send("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Answer:
        """One POST of JSON."""
        return self._send("POST", path, json.dumps(body).encode())

    def _send(self, method: str, path: str, body: bytes | None) -> Answer:
        headers = {"authorization": f"Bearer {self._token}", "accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/json"
        reply = self._pool.request(method, self._base_url + path, body=body, headers=headers)
        try:
            found = json.loads(reply.data)
        except ValueError as error:
            raise StoryFailed(f"{method} {path} answered {reply.status} without JSON") from error
        return Answer(reply.status, found, float(reply.headers.get("retry-after", 0)))


@dataclass(frozen=True)
class Purchase:
    """One order of one buyer, and what it must end as."""

    number: str
    reference: str
    amount_minor: int
    cashier_url: str
    ends_as: str
    buyer: Caller

    def pay(self, account: str, method: str = "qr") -> dict[str, Any]:
        """Click on Pay until it hands something out: a 409 or 503 is asked again when its Retry-After says so."""
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            answer = self.click(account, method)
            if answer.status == 200:
                return answer.body
            if answer.status not in {409, 503} or time.monotonic() > deadline:
                raise StoryFailed(f"Pay on {self.reference} answered {answer.status}: {answer.body}")
            time.sleep(max(0.2, answer.retry_after_seconds))

    def click(self, account: str, method: str = "qr") -> Answer:
        """One click on Pay."""
        return self.buyer.post(f"/api/orders/{self.number}/pay/", {"channel": account, "method": method})

    def status(self) -> dict[str, Any]:
        """How the order stands, as its buyer is told."""
        answer = self.buyer.get(f"/api/orders/{self.number}/")
        if answer.status != 200:
            raise StoryFailed(f"the status of {self.reference} answered {answer.status}: {answer.body}")
        return answer.body

    @property
    def state(self) -> str:
        """The order's state."""
        return str(self.status()["state"])

    def is_finished(self) -> bool:
        """Is it what it must end as, with nothing left to repair?"""
        found = self.status()
        return found["final"] is True and found["state"] == self.ends_as


@dataclass(frozen=True)
class Site:
    """The running site, as the stories use it."""

    supervisor: Supervisor
    bank: SandboxControl
    shop: Caller
    run: str
    earlier: frozenset[tuple[str, str]] = frozenset()
    """Accounts and numbers that the bank's ledger had before this run: `make demo` keeps its bank."""

    @property
    def web(self) -> str:
        """Where web answers."""
        return self.supervisor.urls["web"]

    @property
    def sweeper(self) -> str:
        """The service that does the work behind the pages: Celery's worker, or the sweeps where there is no Redis."""
        return "worker" if "worker" in self.supervisor.names else "sweep"

    def place(self, name: str, amount_minor: int, ends_as: str = "PAID", **fields: Any) -> Purchase:
        """The shop places an order over HTTP and gets its buyer's token."""
        reference = f"{self.run}-{name}"
        body = {
            "reference": reference,
            "amount_minor": amount_minor,
            "currency": "CNY",
            "subject": f"Demo {name}",
            **fields,
        }
        answer = self.shop.post("/api/orders/", body)
        if answer.status != 201:
            raise StoryFailed(f"placing {reference} answered {answer.status}: {answer.body}")
        buyer = Caller(self.web, answer.body["buyer_token"])
        return Purchase(answer.body["order"], reference, amount_minor, answer.body["cashier_url"], ends_as, buyer)

    def rows(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        """Read the database by SQL, past the app."""
        with psycopg.connect(self.supervisor.database_url, autocommit=True, connect_timeout=10) as connection:
            cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
            return cursor.execute(statement.encode(), parameters).fetchall()


def until(question: Callable[[], object], seconds: float, what: str) -> float:
    """Ask until the answer is yes and return how long that took. Raises StoryFailed at the deadline."""
    began = time.monotonic()
    while not question():
        if time.monotonic() - began > seconds:
            raise StoryFailed(f"after {seconds:.0f} s still not: {what}")
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - began
