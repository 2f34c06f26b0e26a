"""The client of the sandbox's control API: how tests, the demo and torture act as buyers and break things.

    control.pay(number)                                     # the buyer pays
    control.fault("refund", "drop_after", account="blue")   # the next refund's answer is lost
    with control.notifications_held(number): …              # nothing is told until the block ends
    control.sums(number)["net_minor"]                       # the truth about the money

It speaks only to 127.0.0.1 and raises ControlError for a call that is wrong.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from payonce.channels.errors import ChannelError
from payonce.channels.http import send
from payonce.channels.messages import HttpRequest, TransportError
from payonce.channels.sandbox.wire import format_moment, read_object, write_object

_WAIT_SECONDS = 10.0


class ControlError(ChannelError):
    """The sandbox does not answer, or refused a control call; the text says why."""


@dataclass(frozen=True, slots=True)
class Acted:
    """What an act came to. `ok` is False where the bank refused; `result` then says why."""

    result: str
    state: str = ""
    reference: str = ""

    @property
    def ok(self) -> bool:
        """True where the bank did it."""
        return self.result == "OK"


class SandboxControl:
    """Steers one running sandbox.

    Safe to share between threads. `account` may be left out where one account knows the number.
    """

    def __init__(self, base_url: str, token: str) -> None:
        self.base_url = base_url.rstrip("/")
        self._token = token

    @classmethod
    def from_folder(cls, base_url: str, folder: Path) -> "SandboxControl":
        """Read the token from the data folder of a sandbox on this machine."""
        return cls(base_url, (folder / "control-token").read_text().strip())

    # --- buyers ---

    def pay(
        self,
        number: str,
        *,
        account: str = "",
        amount_minor: int | None = None,
        currency: str = "",
        at: datetime | None = None,
        force: bool = False,
    ) -> Acted:
        """A buyer pays. `force` passes the bank's refusals (closed, expired), as late bank money does."""
        return self._act("pay", **_tender(number, account, amount_minor, currency, at, force))

    def second_capture(
        self, number: str, *, account: str = "", amount_minor: int | None = None, currency: str = ""
    ) -> Acted:
        """Money is taken again under a number that is paid, with a reference of its own."""
        return self._act("second_capture", **_tender(number, account, amount_minor, currency, None, False))

    def open_page(self, number: str, *, account: str = "") -> Acted:
        """The buyer scans the code or follows the link."""
        return self._act("open", number=number, account=account)

    def begin(self, number: str, *, account: str = "") -> Acted:
        """The buyer has acted, the bank is not done: IN_PROGRESS. `pay` or `decline` ends it."""
        return self._act("begin", number=number, account=account)

    def approve(self, number: str, *, account: str = "") -> Acted:
        """The buyer approves, where the capture is the merchant's."""
        return self._act("approve", number=number, account=account)

    def decline(self, number: str, *, account: str = "") -> Acted:
        """The buyer or the bank says no; the number stays payable."""
        return self._act("decline", number=number, account=account)

    # --- what the bank does by itself ---

    def settle_refund(self, number: str, refund_number: str, state: str, *, account: str = "", code: str = "") -> Acted:
        """Bring a pending refund to DONE, FAILED or ATTENTION, or a done one to RETURNED."""
        return self._act(
            "settle_refund", number=number, refund_number=refund_number, state=state, account=account, code=code
        )

    def dispute(self, number: str, *, account: str = "", amount_minor: int | None = None) -> Acted:
        """The payer's bank takes money back; by default all that is left."""
        return self._act("dispute", **_tender(number, account, amount_minor, "", None, False))

    def reverse(self, number: str, *, account: str = "", amount_minor: int | None = None) -> Acted:
        """The channel itself takes money back; by default all that is left."""
        return self._act("reverse", **_tender(number, account, amount_minor, "", None, False))

    def outside_refund(self, number: str, amount_minor: int, *, account: str = "") -> str:
        """The merchant gives money back in the bank's own console, past payonce. Returns the refund number."""
        fields = self.call("POST", "outside_refund", number=number, amount_minor=amount_minor, account=account)
        if fields["result"] != "OK":
            raise ControlError(f"outside refund of {number}: {fields['result']}")
        return str(fields["refund_number"])

    # --- faults ---

    def fault(
        self,
        op: str,
        do: str,
        *,
        account: str = "*",
        number: str = "*",
        nth: int = 1,
        times: int | None = 1,
        **arguments: Any,
    ) -> int:
        """Plan a fault (see `faults` for what there is) and return its id. `times=None` lasts until it is removed."""
        fields = {"op": op, "do": do, "account": account, "number": number, "nth": nth, "times": times, **arguments}
        return int(self.call("POST", "faults", **fields)["id"])

    def faults(self) -> list[dict[str, Any]]:
        """What is still planned, with the counts of matching and disturbed calls."""
        return list(self.call("GET", "faults")["faults"])

    def remove_fault(self, fault_id: int) -> bool:
        """Remove one fault; False when it is gone already."""
        return bool(self.call("POST", "faults/clear", id=fault_id)["removed"])

    def clear_faults(self, *, account: str = "*", op: str = "*", do: str = "*") -> int:
        """Remove all matching faults, open all gates, and return how many were removed."""
        return int(self.call("POST", "faults/clear", account=account, op=op, do=do)["removed"])

    @contextlib.contextmanager
    def outage(self, account: str) -> Iterator[None]:
        """The account is down for the block: refused on a door of its own, broken connections on a shared one."""
        fault_id = self.fault("*", "outage", account=account, times=None)
        try:
            yield
        finally:
            self.remove_fault(fault_id)

    def open_gate(self, name: str) -> None:
        """Let the calls that wait at this gate go on."""
        self.call("POST", "gate", name=name, action="open")

    def wait_at_gate(self, name: str, arrivals: int = 1, seconds: float = _WAIT_SECONDS) -> bool:
        """Wait until so many calls have arrived at the gate; False when the time is up."""
        fields = {"name": name, "action": "wait", "arrivals": arrivals, "seconds": seconds}
        return bool(self.call("POST", "gate", **fields)["reached"])

    # --- notifications ---

    def hold_notifications(self, number: str = "*", *, account: str = "*") -> int:
        """Keep new notifications back until `release`. Returns the fault's id."""
        return self.fault("notify", "hold", account=account, number=number, times=None)

    def release(
        self, number: str = "", *, account: str = "", newest_first: bool = False, at_once: bool = False
    ) -> list[str]:
        """Deliver what is held and return each answer. Those not accepted go on by the retry table.

        Holding stops where it was asked for with the same `number` (and `account`, where given); with neither, it
        stops altogether.
        """
        self._wait_until_decided(number, account)
        for fault in self.faults():
            named = fault["number"] == (number or fault["number"]) and account in {"", fault["account"]}
            if fault["do"] == "hold" and named:
                self.remove_fault(fault["id"])
        order = "newest" if newest_first else "oldest"
        return list(
            self.call("POST", "notify/release", number=number, account=account, order=order, at_once=at_once)["results"]
        )

    def _wait_until_decided(self, number: str, account: str) -> None:
        """The sender has seen what is new, and keeps back what it must: else that would be sent by itself, and not by `release`."""
        until = time.monotonic() + _WAIT_SECONDS
        while any(row["state"] == "NEW" for row in self.notifications(number, account=account)):
            if time.monotonic() > until:
                return
            time.sleep(0.01)

    @contextlib.contextmanager
    def notifications_held(self, number: str = "*", *, account: str = "*") -> Iterator[None]:
        """Nothing is told during the block; what was held is delivered at its end."""
        self.hold_notifications(number, account=account)
        try:
            yield
        finally:
            self.release("" if number == "*" else number, account="" if account == "*" else account)

    def send_notification(
        self,
        number: str,
        *,
        account: str = "",
        event: str = "",
        copies: int = 1,
        at_once: bool = False,
        forgery: str = "",
        signed_ago_seconds: float = 0.0,
        altered: dict[str, Any] | None = None,
    ) -> list[str]:
        """Send a number's newest notification (of one event) now, outside its schedule, and return the answers.

        An answer reads like "200 success", "401 reject" or "connect_refused". `forgery` is bad_signature,
        no_signature, altered_body, wrong_account or other_secret; `altered` replaces fields and signs them truly.
        """
        fields = {"number": number, "account": account, "event": event, "copies": copies, "at_once": at_once,
                  "forgery": forgery, "signed_ago_seconds": signed_ago_seconds, "altered": altered or {}}  # fmt: skip
        return list(self.call("POST", "notify/send", **fields)["results"])

    def resend(self, number: str, *, account: str = "") -> int:
        """Make all of a number's notifications due again, through the schedule."""
        return int(self.call("POST", "notify/resend", number=number, account=account)["count"])

    def wait_delivered(self, number: str, count: int = 1, *, account: str = "", seconds: float = _WAIT_SECONDS) -> bool:
        """Wait until so many of a number's notifications were acknowledged; False when the time is up."""
        return self.wait_notifications(number, "DELIVERED", count, account=account, seconds=seconds)

    def wait_notifications(
        self,
        number: str,
        state: str,
        count: int = 1,
        *,
        account: str = "",
        attempts: int = 0,
        seconds: float = _WAIT_SECONDS,
    ) -> bool:
        """Wait until so many of a number's notifications are HELD, DUE, DELIVERED, LOST or EXHAUSTED, after `attempts`."""
        fields = {"number": number, "state": state, "count": count, "account": account, "attempts": attempts}
        return bool(self.call("POST", "notify/wait", **fields, seconds=seconds)["reached"])

    def notifications(self, number: str = "", *, account: str = "") -> list[dict[str, Any]]:
        """Every notification with its state, attempts and last answer."""
        return list(self.call("GET", "notify", number=number, account=account)["notifications"])

    # --- truth ---

    def ledger(self, number: str = "", *, account: str = "") -> dict[str, Any]:
        """Payments, captures, refunds, the journal, and `sums` as {account: {number: {…_minor}}}."""
        return self.call("GET", "ledger", number=number, account=account)

    def journal(self) -> Iterator[dict[str, Any]]:
        """Every movement of money, the oldest first, fetched page by page: for ledgers too large for `ledger()`."""
        after = 0
        while rows := self.call("GET", "journal", after=after)["journal"]:
            yield from rows
            after = rows[-1]["id"]

    def sums(self, number: str, *, account: str = "") -> dict[str, int]:
        """One number's captures (count), captured, refunded, returned, disputed, reversed and net, in minor units.

        A number that no account knows has zeros. Several accounts with the same number: name one.
        """
        found = [of[number] for of in self.ledger(number, account=account)["sums"].values() if number in of]
        if len(found) > 1:
            raise ControlError(f"several accounts took money for {number}: name one")
        zeros = dict.fromkeys(("captured_minor", "refunded_minor", "returned_minor", "disputed_minor",
                               "reversed_minor", "captures", "net_minor"), 0)  # fmt: skip
        return found[0] if found else zeros

    def calls(self, op: str = "", number: str = "", *, account: str = "") -> int:
        """How often an operation was called, effects or not. `pay` counts buyers, `notify` notifications."""
        return int(self.call("GET", "calls", op=op, number=number, account=account)["count"])

    def all_calls(self) -> list[dict[str, Any]]:
        """Each account, op and number with its count."""
        return list(self.call("GET", "calls")["calls"])

    # --- clock ---

    def set_clock(self, offset_seconds: float) -> datetime:
        """Let the bank's clock be this far ahead of the machine's. Returns the bank's time."""
        return datetime.fromisoformat(self.call("POST", "clock", offset_seconds=offset_seconds)["time"])

    def advance_clock(self, seconds: float) -> datetime:
        """Move the bank's clock on. Returns the bank's time."""
        return datetime.fromisoformat(self.call("POST", "clock", advance_seconds=seconds)["time"])

    def set_skew(self, account: str, seconds: float, *, calls_only: bool = False) -> None:
        """Let the clock with which one account's messages are signed and checked be wrong by so much.

        With `calls_only` that of its notifications stays as it is.
        """
        self.call("POST", "clock", account=account, skew_seconds=seconds, calls_only=calls_only)

    def health(self) -> dict[str, Any]:
        """The server's process id and time."""
        return self.call("GET", "health")

    def call(self, method: str, name: str, /, **fields: Any) -> dict[str, Any]:
        """One control call by name. Raises ControlError."""
        url = f"{self.base_url}/_ctl/{name}"
        body = b""
        if method == "GET":
            url += "?" + urlencode({key: value for key, value in fields.items() if value != ""})
        else:
            body = write_object(fields)
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        reply = send(HttpRequest(method, url, headers, body, 3.0, 70.0, 75.0, 256_000_000))
        if isinstance(reply, TransportError):
            raise ControlError(f"the sandbox at {self.base_url} does not answer: {reply.reason}")
        answer = read_object(reply.body) if reply.body else {}
        if reply.status != 200:
            raise ControlError(f"control call {name}: {answer.get('error', reply.status)}")
        return answer

    def _act(self, name: str, **fields: Any) -> Acted:
        answer = self.call("POST", name, **fields)
        return Acted(str(answer["result"]), str(answer.get("state", "")), str(answer.get("reference", "")))


def _tender(
    number: str, account: str, amount_minor: int | None, currency: str, at: datetime | None, force: bool
) -> dict[str, Any]:
    fields: dict[str, Any] = {"number": number, "account": account, "currency": currency, "force": force}
    if amount_minor is not None:
        fields["amount_minor"] = amount_minor
    if at is not None:
        fields["at"] = format_moment(at)
    return fields
