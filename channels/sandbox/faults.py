"""What is to go wrong: a plan of faults per account, operation and number, and the counts of calls.

A fault fires on the `nth` matching call after it was set, and then `times` times (None: until it is removed). The
plan and the counts live in memory: they belong to a test, not to the bank, and a restarted bank is healthy.

| do | where | means (arguments) | |---|---|---| | delay_before, delay_after | any operation | wait `seconds` before
or after the effect | | gate_before, gate_after | any operation | wait until the gate `name` is opened | |
error_before, error_after | any operation | answer `status` (500) without, or after, the effect | | drop_before,
drop_after | any operation | break the connection without, or after, the effect | | truncate | any operation | break
off in the middle of the answer | | slow_drip | any operation | send the answer byte by byte, `seconds` apart | |
bad_signature, no_signature | any operation | sign the answer wrongly, or not at all | | stale_timestamp | any
operation | sign the answer `seconds` (3600) ago; negative is the future | | garbage | any operation | a signed answer
that is no JSON | | refuse | any operation | answer `code` (and `status`) without the effect | | not_found | query,
close, query_refund | answer NOT_FOUND although it is known | | outage | any operation | every call of the account
fails; see `front doors` in `server` | | pay_before_answer | prepay | the buyer pays, and the notification is
delivered, before the prepay is answered | | race_pay | close | a buyer pays at the same moment; `winner` is pay or
close | | refund_pending | refund | in progress; `then` a state after `seconds`, or until it is settled by hand | |
refund_failed, refund_attention | refund | the refund ends so, with `code` | | wrong_amount, wrong_currency | pay |
the buyer pays `amount_minor`, or in `currency` | | omit, invent | statement | leaves out the lines of the number
`name`; adds a payment `name` of `amount_minor` | | lose, hold | notify | never sent; kept until released | | delay |
notify | sent after `seconds` | | repeat | notify | sent `copies` times at once | | swap | notify | sent after the
account's next notification (out of order) | | forge | notify | preceded by a forgery: `kind` is bad_signature,
no_signature, altered_body, wrong_account, other_secret | | stale | notify | signed `seconds` (3600) ago | | altered |
notify | truly signed, but telling `amount_minor`, `currency` or `merchant` of its own | | acknowledgement_lost |
notify | delivered, and yet repeated as if not acknowledged |
"""

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

OPERATIONS = frozenset(
    {"prepay", "query", "capture", "close", "refund", "query_refund", "statement", "pay", "notify", "*"}
)
_ANYWHERE = frozenset(
    {"delay_before", "delay_after", "gate_before", "gate_after", "error_before", "error_after", "drop_before",
     "drop_after", "truncate", "slow_drip", "bad_signature", "no_signature", "stale_timestamp", "garbage", "refuse",
     "not_found", "outage"}
)  # fmt: skip
_ONLY = {
    "prepay": frozenset({"pay_before_answer"}),
    "close": frozenset({"race_pay"}),
    "statement": frozenset({"omit", "invent"}),
    "refund": frozenset({"refund_pending", "refund_failed", "refund_attention"}),
    "pay": frozenset({"wrong_amount", "wrong_currency"}),
    "notify": frozenset(
        {"lose", "hold", "delay", "repeat", "swap", "forge", "stale", "altered", "acknowledgement_lost"}
    ),
}
ARGUMENTS = frozenset(
    {"seconds", "name", "status", "code", "winner", "then", "amount_minor", "currency", "copies", "kind", "merchant"}
)
FORGERIES = frozenset({"bad_signature", "no_signature", "altered_body", "wrong_account", "other_secret"})


class FaultError(ValueError):
    """A fault that cannot be planned; the text says why."""


class DropError(Exception):
    """The connection is to be broken without an answer."""


class FailedError(Exception):
    """The operation is to be answered with a bare HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


@dataclass(slots=True)
class Fault:
    """One planned fault. `account` and `number` may be "*"."""

    id: int
    account: str
    op: str
    number: str
    do: str
    nth: int = 1
    times: int | None = 1
    arguments: dict[str, Any] = field(default_factory=dict)
    seen: int = 0
    fired: int = 0

    def matches(self, account: str, op: str, number: str) -> bool:
        """True where this fault concerns the call."""
        return self.account in {account, "*"} and self.op in {op, "*"} and self.number in {number, "*"}

    def fires(self) -> bool:
        """Count a matching call, and say whether it is one of those to disturb."""
        self.seen += 1
        if self.seen < self.nth or (self.times is not None and self.fired >= self.times):
            return False
        self.fired += 1
        return True

    def seconds(self, default: float = 0.0) -> float:
        """The argument `seconds`."""
        return float(self.arguments.get("seconds", default))

    def describe(self) -> dict[str, Any]:
        """The fault as the control API shows it."""
        return {
            "id": self.id, "account": self.account, "op": self.op, "number": self.number, "do": self.do,
            "nth": self.nth, "times": self.times, "seen": self.seen, "fired": self.fired, **self.arguments,
        }  # fmt: skip


class FaultPlan:
    """All planned faults, the counts of calls, and the gates."""

    def __init__(self) -> None:
        self._faults: dict[int, Fault] = {}
        self._ids = itertools.count(1)
        self.calls: Counter[tuple[str, str, str]] = Counter()
        self.gates = Gates()

    def add(self, account: str, op: str, number: str, do: str, nth: int, times: int | None, **arguments: Any) -> Fault:
        """Plan a fault. Raises FaultError for one that could never fire."""
        allowed = _ONLY.get(op, frozenset()) | (frozenset() if op in {"pay", "notify"} else _ANYWHERE)
        if op not in OPERATIONS or do not in allowed:
            raise FaultError(f"operation {op!r} has no fault {do!r}; it has: {', '.join(sorted(allowed)) or 'none'}")
        unknown = set(arguments) - ARGUMENTS
        if unknown:
            raise FaultError(f"unknown argument {min(unknown)!r}")
        if nth < 1 or (times is not None and times < 1):
            raise FaultError("nth and times start at 1")
        if do == "forge" and arguments.get("kind", "bad_signature") not in FORGERIES:
            raise FaultError(f"kind must be one of {', '.join(sorted(FORGERIES))}")
        fault = Fault(next(self._ids), account, op, number, do, nth, times, arguments)
        self._faults[fault.id] = fault
        return fault

    def arrive(self, account: str, op: str, number: str) -> "Disturbance":
        """Count a call and return what is to happen to it."""
        self.calls[account, op, number] += 1
        firing = [f for f in list(self._faults.values()) if f.matches(account, op, number) and f.fires()]
        for fault in firing:
            if fault.times is not None and fault.fired >= fault.times:
                self._faults.pop(fault.id, None)
        return Disturbance(firing)

    def is_out(self, account: str) -> bool:
        """True while an outage of the account is planned."""
        return any(f.do == "outage" and f.account in {account, "*"} for f in self._faults.values())

    def all(self) -> list[Fault]:
        """What is still planned."""
        return list(self._faults.values())

    def remove(self, fault_id: int) -> bool:
        """Remove one fault."""
        return self._faults.pop(fault_id, None) is not None

    def clear(self, account: str = "*", op: str = "*", do: str = "*") -> int:
        """Remove the matching faults and open all gates; "*" matches everything."""
        chosen = [
            f.id
            for f in self._faults.values()
            if (account == "*" or f.account == account) and (op == "*" or f.op == op) and (do == "*" or f.do == do)
        ]
        for fault_id in chosen:
            del self._faults[fault_id]
        self.gates.open_all()
        return len(chosen)


class Disturbance:
    """The faults that hit one call."""

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = {fault.do: fault for fault in faults}

    def get(self, do: str) -> Fault | None:
        """The fault of this kind, if it hits the call."""
        return self._faults.get(do)

    def __contains__(self, do: str) -> bool:
        return do in self._faults


class Gates:
    """Named places at which a call waits until a test lets it go on: interleavings without sleeping."""

    def __init__(self) -> None:
        self._open: dict[str, asyncio.Event] = {}
        self._arrivals: Counter[str] = Counter()
        self._arrived: dict[str, asyncio.Condition] = {}

    async def pass_through(self, name: str) -> None:
        """Announce the arrival and wait for the gate."""
        self._arrivals[name] += 1
        condition = self._condition(name)
        async with condition:
            condition.notify_all()
        await self._event(name).wait()

    async def wait_for(self, name: str, arrivals: int, seconds: float) -> bool:
        """Wait until so many calls have arrived; False when the time is up."""
        condition = self._condition(name)
        try:
            async with asyncio.timeout(seconds), condition:
                await condition.wait_for(lambda: self._arrivals[name] >= arrivals)
        except TimeoutError:
            return False
        return True

    def open(self, name: str) -> None:
        """Let everybody through; a later use of the same name starts closed again."""
        self._event(name).set()
        del self._open[name]
        self._arrivals.pop(name, None)

    def open_all(self) -> None:
        """Let everybody through everywhere."""
        for name in list(self._open):
            self.open(name)

    def _event(self, name: str) -> asyncio.Event:
        return self._open.setdefault(name, asyncio.Event())

    def _condition(self, name: str) -> asyncio.Condition:
        return self._arrived.setdefault(name, asyncio.Condition())
