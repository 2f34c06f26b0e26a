"""The bank itself: accounts, clock, ledger, faults and notifications, without any wire format.

A skin (the JSON `dialect`, or one of `skins`) asks `perform` for an operation and renders its result; the wallet and the
control API act through the same methods.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from payonce.channels.sandbox import ledger, refunds, skins
from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.codes import Code
from payonce.channels.sandbox.faults import Disturbance, DropError, FailedError, FaultPlan
from payonce.channels.sandbox.ledger import Tender
from payonce.channels.sandbox.records import Result
from payonce.channels.sandbox.sender import Sender
from payonce.channels.sandbox.store import Store

R = TypeVar("R")
SETTLE_SECONDS = 5.0
Change = Callable[[sqlite3.Connection, float], Result]
Effect = Callable[[sqlite3.Connection, float, Disturbance], Result]


class Bank:
    """One bank with several merchant accounts. All its methods run in one event loop."""

    def __init__(
        self,
        accounts: Mapping[str, Mapping[str, Any]],
        folder: Path,
        *,
        synchronous: str = "FULL",
        speed: float = 1.0,
    ) -> None:
        self.accounts = {name: SandboxAccount.from_options(name, options) for name, options in accounts.items()}
        self.by_merchant = {account.merchant: account for account in self.accounts.values()}
        if len(self.by_merchant) != len(self.accounts):
            raise ValueError("two sandbox accounts have the same merchant")
        self.speed = speed
        self.plan = FaultPlan()
        self.store = Store(folder, synchronous)
        self.offset_seconds = 0.0
        self.skew_seconds: dict[str, float] = {}
        # The same for what the bank answers alone, not for what it tells by itself: for a shop whose machines did not follow when
        # this bank's clock was moved, while its database did.
        self.call_skew_seconds: dict[str, float] = {}
        self.skins = {name: skins.skin_class(name)(self) for name in {skins.OWN, *_skins_of(self.accounts)}}
        self.sender = Sender(self.store, self.plan, self.accounts, self.skins, self.telling_now, speed)

    def now(self, account: str = "") -> float:
        """The bank's time in Unix seconds; for requests and answers of one account, with that account's skew."""
        return self.telling_now(account) + self.call_skew_seconds.get(account, 0.0)

    def telling_now(self, account: str = "") -> float:
        """The same for notifications."""
        return time.time() + self.offset_seconds + self.skew_seconds.get(account, 0.0)

    async def start(self) -> None:
        """Open the ledger and begin to deliver what is owed."""
        self.store.start(asyncio.get_running_loop())
        await self.sender.start()

    async def stop(self) -> None:
        """Let the deliveries of the moment end, and close the ledger."""
        self.plan.gates.open_all()
        await self.sender.stop()
        self.store.stop()

    async def change(self, effect: Change) -> Result:
        """Run a change of the ledger, then wake the sender if the change owes a notification."""
        at = self.now()
        result = await self.store.call(lambda database: effect(database, at))
        self.sender.wake()
        return result

    async def read(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Read from the ledger."""
        return await self.store.call(work)

    async def perform(
        self, account: SandboxAccount, op: str, number: str, effect: Effect, *, changes: bool = True
    ) -> tuple[Result, Disturbance]:
        """One operation of a merchant with its planned faults; those of the answer are the skin's to play.

        Raises DropError for a connection to be broken and FailedError for a bare status.
        """
        faults = self.plan.arrive(account.name, op, number)
        await self._before(faults)
        result = _planned_refusal(faults)
        if result is None and "race_pay" in faults:
            result = await self._race(account, number, effect, faults)
        elif result is None:
            at = self.now()
            result = await self.store.call(lambda database: effect(database, at, faults))
            if changes:
                self.sender.wake()
        if "pay_before_answer" in faults:
            await self.pay(account, number, Tender())
            await self.sender.wait_until_sent(account.name, number, SETTLE_SECONDS)
        await self._after(faults)
        return result, faults

    async def _before(self, faults: Disturbance) -> None:
        if fault := faults.get("delay_before"):
            await asyncio.sleep(fault.seconds())
        if fault := faults.get("gate_before"):
            await self.plan.gates.pass_through(str(fault.arguments.get("name", "gate")))
        if "drop_before" in faults or "outage" in faults:
            raise DropError
        if fault := faults.get("error_before"):
            raise FailedError(int(fault.arguments.get("status", 500)))

    async def _after(self, faults: Disturbance) -> None:
        if fault := faults.get("delay_after"):
            await asyncio.sleep(fault.seconds())
        if fault := faults.get("gate_after"):
            await self.plan.gates.pass_through(str(fault.arguments.get("name", "gate")))
        if "drop_after" in faults:
            raise DropError
        if fault := faults.get("error_after"):
            raise FailedError(int(fault.arguments.get("status", 500)))

    async def _race(self, account: SandboxAccount, number: str, effect: Effect, faults: Disturbance) -> Result:
        fault = faults.get("race_pay")
        if fault is not None and fault.arguments.get("winner", "pay") == "pay":
            await self.pay(account, number, Tender())
            return await self.change(lambda database, at: effect(database, at, faults))
        result = await self.change(lambda database, at: effect(database, at, faults))
        await self.pay(account, number, Tender())
        return result

    async def pay(self, account: SandboxAccount, number: str, tender: Tender) -> Result:
        """A buyer pays."""
        faults = self.plan.arrive(account.name, "pay", number)
        amount, currency = tender.amount_minor, tender.currency
        if fault := faults.get("wrong_amount"):
            amount = int(fault.arguments.get("amount_minor", 1))
        if fault := faults.get("wrong_currency"):
            currency = str(fault.arguments.get("currency", "XXX"))
        disturbed = Tender(amount, currency, tender.paid_at, tender.force)
        return await self.change(lambda database, at: ledger.pay(database, account, number, disturbed, at))


def _skins_of(accounts: Mapping[str, SandboxAccount]) -> set[str]:
    return {account.skin for account in accounts.values()}


def refund_course(account: SandboxAccount, faults: Disturbance) -> refunds.Course:
    """How a refund will go on."""
    if fault := faults.get("refund_pending"):
        then = fault.arguments.get("then")
        return refunds.Course("IN_PROGRESS", str(then) if then else None, fault.seconds())
    if fault := faults.get("refund_failed"):
        return refunds.Course("FAILED", code=str(fault.arguments.get("code", "NOT_ENOUGH")))
    if fault := faults.get("refund_attention"):
        return refunds.Course("ATTENTION", code=str(fault.arguments.get("code", "ACCOUNT_ABNORMAL")))
    if account.refund_seconds:
        return refunds.Course("IN_PROGRESS", "DONE", float(account.refund_seconds))
    return refunds.Course()


def _planned_refusal(faults: Disturbance) -> Result | None:
    if "not_found" in faults:
        return Result(Code.NOT_FOUND)
    if fault := faults.get("refuse"):
        return Result(str(fault.arguments.get("code", Code.DECLINED)))
    return None
