"""The bank of the sandbox on this very thread: the same accounts, ledger, wire format and controls, without a socket or a loop.

Its clock stands until it is moved, and it sends nothing by itself: whoever plays reads what it owes and hands that over.
"""

import sqlite3
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from payonce.channels.messages import HttpRequest, HttpResponse, TransportError
from payonce.channels.sandbox.app import App
from payonce.channels.sandbox.asgi import Request
from payonce.channels.sandbox.bank import Bank
from payonce.channels.sandbox.control import ControlError, SandboxControl
from payonce.channels.sandbox.control_api import ControlApi, RefusedError
from payonce.channels.sandbox.faults import DropError, Fault, FaultError
from payonce.channels.sandbox.schema import open_database
from payonce.channels.sandbox.sender import Sender
from payonce.channels.sandbox.store import Store
from payonce.channels.sandbox.wire import MalformedError

R = TypeVar("R")
URL = "http://127.0.0.1:9"
"""Where the accounts point; nothing ever connects."""
TOKEN = "of-nobody-but-this-process"


def drive(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run to its end what never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("the bank in process may not wait")


class _Here(Store):
    """The ledger, used on the thread that asks."""

    def open(self) -> None:
        self.database = open_database(self._folder / "bank.sqlite3", self._synchronous)

    async def call(self, work: Callable[[sqlite3.Connection], R]) -> R:
        self.database.execute("BEGIN IMMEDIATE")
        try:
            result = work(self.database)
        except BaseException:
            self.database.execute("ROLLBACK")
            raise
        self.database.execute("COMMIT")
        return result


class _Silent(Sender):
    """Sends nothing: what is owed stays in the outbox, to be read there."""

    def wake(self) -> None:
        """Nobody sleeps."""

    async def wait_until_sent(self, account: str, number: str, seconds: float) -> bool:
        return True


class _StandingBank(Bank):
    stands_at = 0.0

    def now(self, account: str = "") -> float:
        return self.stands_at + self.offset_seconds + (self.skew_seconds.get(account, 0.0) if account else 0.0)


class ControlHere(SandboxControl):
    """The control API without HTTP."""

    def __init__(self, bank: Bank) -> None:
        super().__init__(URL, TOKEN)
        self._api = ControlApi(bank, TOKEN)

    def call(self, method: str, name: str, /, **fields: Any) -> dict[str, Any]:
        handler = self._api._handlers[method, name]
        try:
            return drive(handler(fields))
        except (RefusedError, FaultError, MalformedError) as error:
            raise ControlError(f"control call {name}: {error}") from error


@dataclass(frozen=True)
class BankHere:
    """The bank. `accounts` is ready to be `PAYONCE["CHANNELS"]`, `send` to take the place of the HTTP driver's."""

    accounts: dict[str, dict[str, Any]]
    folder: Path
    bank: _StandingBank
    app: App
    control: ControlHere

    @property
    def database(self) -> sqlite3.Connection:
        """The open ledger."""
        store = self.bank.store
        assert isinstance(store, _Here)
        return store.database

    def stand_at(self, seconds: float) -> None:
        """It is this moment now, in Unix seconds; refunds whose time has come are settled."""
        self.bank.stands_at = seconds
        drive(self.bank.sender.settle_due_refunds())

    def send(self, request: HttpRequest) -> HttpResponse | TransportError:
        """One request of a merchant, answered at once. A broken connection is a lost answer."""
        parts = urlsplit(request.url)
        headers = {name.lower(): value for name, value in request.headers.items()}
        inbound = Request(request.method, parts.path, parts.query, headers, request.body)
        try:
            answer = drive(self.app._serve(inbound, 9))
        except DropError:
            return TransportError("connection_lost")
        if answer.truncate:
            return TransportError("truncated")
        return HttpResponse(answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.body)

    def disturb(self, draw: Callable[[str, str, str], list[Fault]]) -> None:
        """Let `draw(account, op, number)` say what else is to happen to each call."""
        plan, planned = self.bank.plan, self.bank.plan.arrive

        def arrive(account: str, op: str, number: str) -> Any:
            found = planned(account, op, number)
            found._faults.update({fault.do: fault for fault in draw(account, op, number)})
            return found

        plan.arrive = arrive  # type: ignore[method-assign]


@contextmanager
def bank_here(accounts: Mapping[str, Mapping[str, Any]]) -> Iterator[BankHere]:
    """A bank with an empty ledger, until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="payonce-model-") as place:
        folder = Path(place)
        given = {
            name: {
                "adapter": "sandbox",
                "base_url": URL,
                "secret": f"{name}: the secret of this account in this play",
                **options,
            }
            for name, options in accounts.items()
        }
        bank = _StandingBank(given, folder, synchronous="OFF")
        bank.store = store = _Here(folder, "OFF")
        bank.sender = _Silent(store, bank.plan, bank.accounts, bank.skins, bank.now, 1.0)
        store.open()
        try:
            yield BankHere(given, folder, bank, App(bank, TOKEN), ControlHere(bank))
        finally:
            store.database.close()
