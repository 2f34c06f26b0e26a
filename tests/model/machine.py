"""The stories: what buyers, operators, shops, channels, attackers and broken machines may do, in any order."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar

from hypothesis import event, target
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from payonce.channels.sandbox.control import ControlError
from payonce.channels.sandbox.sender import Style
from payonce.orders.errors import AmendRefused, PlaceConflict
from payonce.orders.models import Order
from payonce.orders.place import place_order
from payonce.orders.statuses import LateDecision
from payonce.payments import capture, close, expire, notify, poll, refund, sweep, tasks
from payonce.payments.message_rows import resend, skip
from payonce.payments.models import Discrepancy, Notification, Refund, ShopMessage
from payonce.payments.pay import pay_order
from payonce.payments.surplus import decide_case
from tests.clock import StandingClock
from tests.model.bank import BankHere
from tests.model.world import ACCOUNTS, POLICIES, ModelShop, World
from torture.hardness import Hardness
from torture.rules import Mode

ORDERS_MAX = 3
some = st.integers(0, 11)
accounts = st.sampled_from(sorted(ACCOUNTS))
persons = st.sampled_from(["alice", "bob"])
crashes = st.one_of(
    st.none(), st.none(),
    st.tuples(st.integers(1, 9), st.sampled_from(["before", "after"]), st.sampled_from(["kill", "error"])),
)  # fmt: skip
"""Where a step dies or fails: at its n-th boundary (a statement, a flight, a commit, a channel call), before or after."""
answers = st.sampled_from(["", "", "", "drop_before", "drop_after", "error_before", "error_after", "bad_signature"])
FORGERIES = ("bad_signature", "no_signature", "altered_body", "wrong_account", "other_secret")


OPENINGS = ("placed", "paid", "paid twice", "paid late", "taken twice", "amended", "captured", "sent back in parts")
SURPLUS = ("duplicates", "late", "mismatched", "second_captures")


def there(name: str) -> Any:
    """A rule that needs such rows: without them it would do nothing."""
    return precondition(lambda self: self.world.there[name] > 0)


def pick(rows: list[Any], which: int) -> Any:
    """One of the rows, or None."""
    return rows[which % len(rows)] if rows else None


class Story(RuleBasedStateMachine):
    """One story on a clean database. After each step every invariant holds; at the end all is healed, drained and at rest."""

    bank: ClassVar[BankHere]
    clock: ClassVar[StandingClock]
    hardness: ClassVar[Hardness] = Hardness()
    faults: ClassVar[Counter[str]] = Counter()
    tally: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None
        self.steps = 0
        self.is_broken = False

    @initialize(
        policy=st.sampled_from(POLICIES),
        verdict=st.sampled_from([None, None, *LateDecision]),
        opening=st.sampled_from(OPENINGS),
        accounts=st.permutations(sorted(ACCOUNTS)),
    )
    def begin(self, policy: dict[str, Any], verdict: LateDecision | None, opening: str, accounts: list[str]) -> None:
        self.world = World(self.bank, self.clock, policy)
        self.world.begin()
        ModelShop.verdict = verdict
        self.holds()
        for act, *args in self.opening(opening, *accounts):
            act(*args)
            self.holds()

    def opening(self, name: str, first: str, second: str, _third: str) -> Iterator[tuple[Any, ...]]:
        """How the story begins: the ways in which money goes astray, so that what follows is not about empty tables."""
        yield self.place, 1000, 60 if name == "paid late" else 900, None
        if name == "placed":
            return
        if name == "captured":
            first = "hold"
        if name in ("amended", "paid twice"):
            yield self.pay, 0, first, "", None
        if name == "amended":
            yield self.amend, 0, 500, None
        yield self.pay, 0, second if name in ("amended", "paid twice") else first, "", None
        if name == "paid late":
            yield self.close_order, 0, None
            yield self.advance, 70
            yield self.sweep_expire, 2, None
        yield self.pay_in_wallet, 0, "force" if name == "paid late" else "pay"
        if name == "captured":
            yield self.sweep_poll, "", 1, None
        if name == "paid twice":
            yield self.pay_in_wallet, 1, "force"
        if name == "taken twice":
            yield self.pay_twice_under_one_number, 0
        yield self.all_notifications, False, None
        if name == "sent back in parts":
            yield self.ask_refund, 0, 400, "alice", None
            yield self.sweep_refund, "", "refund", 1, None

    def teardown(self) -> None:
        if self.world is None:
            return
        try:
            if not self.is_broken:
                self.world.heal()
                self.world.drain()
                self.world.check(Mode.REST)
                self._count()
        finally:
            self.world.end()

    def _count(self) -> None:
        """What this story went through, for the statistics of hypothesis and for those of the run."""
        hardness, faults = self.world.hardness, self.world.faults
        self.hardness.update(hardness)
        self.faults.update(faults)
        struck = hardness["orders"] if faults else 0
        self.tally.update(
            {
                "stories": 1,
                "steps": self.steps,
                "orders": hardness["orders"],
                "faulted_orders": struck,
                "faults": faults.total(),
            }
        )
        for name in sorted(name for name, count in {**hardness, **faults}.items() if count):
            event(name)
        target(
            float(sum(hardness[name] for name in (*SURPLUS, "refunds_operator", "refunds_unclear"))),
            label="money astray",
        )

    @invariant()
    def holds(self) -> None:
        if self.world is None:
            return
        self.steps += 1
        self.world.look()
        try:
            self.world.check()
        except AssertionError:
            self.is_broken = True
            raise

    def stream(self, which: int) -> Any:
        """The newest streams come first, so that small numbers make simple stories."""
        return pick(self.world.streams()[::-1], which)

    # --- the shop ---

    @precondition(lambda self: self.world.there["orders"] < ORDERS_MAX)
    @rule(amount=st.sampled_from([1000, 500]), life=st.sampled_from([900, 60, None]), crash=crashes)
    def place(self, amount: int, life: int | None, crash: Any) -> None:
        expires_at = None if life is None else self.world.now + timedelta(seconds=life)
        with self.world.crash(crash):
            place_order(
                "shop",
                f"A-{Order.objects.count()}",
                amount_minor=amount,
                currency="CNY",
                subject="Book",
                expires_at=expires_at,
            )

    @rule(which=some, amount=st.sampled_from([1000, 500]), crash=crashes)
    def amend(self, which: int, amount: int, crash: Any) -> None:
        order = pick(list(Order.objects.order_by("-id")), which)
        if order is None:
            return
        with self.world.crash(crash):
            try:
                place_order(
                    "shop",
                    order.reference,
                    amount_minor=amount,
                    currency="CNY",
                    subject="Book",
                    expires_at=order.expires_at,
                    amend=True,
                )
            except (AmendRefused, PlaceConflict, ValueError):
                pass
            except Exception as error:
                if type(error).__name__ != "InvalidOrder":
                    raise

    @rule(which=some, crash=crashes)
    def close_order(self, which: int, crash: Any) -> None:
        order = pick(list(Order.objects.order_by("-id")), which)
        if order is not None:
            with self.world.crash(crash):
                expire.close_order(order.number, by="shop:shop")

    @rule(failures=st.integers(1, 9))
    def shop_goes_away(self, failures: int) -> None:
        ModelShop.failures = failures

    # --- the buyer ---

    @there("orders")
    @rule(which=some, account=accounts, fault=st.one_of(answers, st.just("pay_before_answer")), crash=crashes)
    def pay(self, which: int, account: str, fault: str, crash: Any) -> None:
        order = pick(list(Order.objects.order_by("-id")), which)
        if order is None:
            return
        world = self.world
        args = {"order": order.number, "channel": account, "method": "qr", "db_at": world.now.timestamp()}
        with self.channel_fault(["prepay"], fault, account), world.crash(crash):
            result = pay_order(order.number, account, "qr")
            facts = {"code": result.code.value, "stream": result.stream}
            if result.code == "prepay":
                facts |= {"amount_minor": result.amount_minor, "currency": result.currency}
            world.log("pay", "ok", args, facts)
        world.learn()

    @there("streams")
    @rule(which=some, act=st.sampled_from(["open_page", "begin", "decline"]))
    def touch_wallet(self, which: int, act: str) -> None:
        stream = self.stream(which)
        if stream is not None:
            getattr(self.world.control, act)(stream.number, account=stream.account)

    @there("streams")
    @rule(which=some, how=st.sampled_from(["pay", "pay", "force", "wrong amount", "wrong currency"]))
    def pay_in_wallet(self, which: int, how: str) -> None:
        stream = self.stream(which)
        if stream is None:
            return
        amount = stream.amount_minor - 1 if how == "wrong amount" else stream.amount_minor
        acted = self.world.control.pay(
            stream.number, account=stream.account, amount_minor=amount, currency="EUR" if how == "wrong currency" else "",
            force=how == "force",
        )  # fmt: skip
        if acted.ok and acted.state == "PAID":
            self.world.took(stream.account, stream.number, amount)

    @there("paid")
    @rule(which=some)
    def pay_twice_under_one_number(self, which: int) -> None:
        stream = self.stream(which)
        if stream is not None and self.world.control.second_capture(stream.number, account=stream.account).ok:
            self.world.took(stream.account, stream.number, stream.amount_minor)

    @there("orders")
    @rule(which=some, account=accounts, notified=st.booleans())
    def click_and_pay(self, which: int, account: str, notified: bool) -> None:
        """The common way, in one step, so that stories get far."""
        self.pay(which, account, "", None)
        self.holds()
        self.pay_in_wallet(0, "pay")
        if notified:
            self.all_notifications(False, None)

    @there("orders")
    @rule(which=some, first=accounts, second=accounts)
    def pay_in_two_wallets(self, which: int, first: str, second: str) -> None:
        """Two QR codes on the table: the new one is paid, then the old one."""
        self.pay(which, first, "", None)
        self.holds()
        self.pay(which, second, "", None)
        self.holds()
        self.pay_in_wallet(0, "pay")
        self.pay_in_wallet(1, "force")

    # --- the channel ---

    @there("messages")
    @rule(
        which=some,
        how=st.sampled_from(["deliver", "deliver", "repeat", "forge", "stale", "lose"]),
        kind=some,
        crash=crashes,
    )
    def notification(self, which: int, how: str, kind: int, crash: Any) -> None:
        world = self.world
        message = pick(world.messages()[::-1], which)
        if message is None:
            return
        if how != "deliver":
            world.faults[f"notification: {how}"] += 1
        if how == "lose":
            world.log("lose", "ok")
            return
        style = Style(forgery=pick(list(FORGERIES), kind)) if how == "forge" else Style()
        if how == "stale":
            style = Style(signed_ago_seconds=3600)
        with world.crash(crash):
            for _ in range(2 if how == "repeat" else 1):
                world.deliver(message, style, {"forge": "forge", "stale": "stale"}.get(how, "notify"))

    @there("messages")
    @rule(is_newest_first=st.booleans(), crash=crashes)
    def all_notifications(self, is_newest_first: bool, crash: Any) -> None:
        """Everything that the bank ever told about this story, once more, in or out of order."""
        messages = self.world.messages()
        with self.world.crash(crash):
            for message in messages[::-1] if is_newest_first else messages:
                self.world.deliver(message, Style(), "notify")

    @there("messages")
    @rule(which=some, number=st.sampled_from(["po0000000000000s01", "somebody-else-1"]), crash=crashes)
    def money_that_nobody_expects(self, which: int, number: str, crash: Any) -> None:
        """A true message about a number that matches no stream: of ours (an orphan) or of somebody else."""
        message = pick([row for row in self.world.messages() if row.event.startswith("payment")], which)
        if message is not None:
            self.world.faults["notification: orphan"] += 1
            with self.world.crash(crash):
                self.world.deliver(
                    replace(message, key=f"{message.key}-{number}"), Style(altered={"number": number}), "notify"
                )

    @rule(which=some, crash=crashes)
    def stored_notification(self, which: int, crash: Any) -> None:
        """An operator applies what a failure left in the inbox."""
        row = pick(list(Notification.objects.filter(state="RECEIVED").order_by("id")), which)
        if row is not None:
            with self.world.crash(crash):
                notify.apply_stored(row.pk)

    @there("bank refunds")
    @rule(which=some, state=st.sampled_from(["DONE", "FAILED", "ATTENTION", "RETURNED"]))
    def bank_settles_refund(self, which: int, state: str) -> None:
        row = pick(self.world.ledger().refunds[::-1], which)
        if row is not None and not row["outside"]:
            self.world.control.settle_refund(row["payment_number"], row["number"], state, account=row["account"])

    @there("paid")
    @rule(
        which=some,
        act=st.sampled_from(["dispute", "reverse", "outside_refund"]),
        amount=st.sampled_from([100, 500, 1000]),
    )
    def money_leaves(self, which: int, act: str, amount: int) -> None:
        stream = self.stream(which)
        if stream is None:
            return
        if act != "outside_refund":
            getattr(self.world.control, act)(stream.number, account=stream.account, amount_minor=amount)
            return
        try:
            self.world.control.outside_refund(stream.number, amount, account=stream.account)
        except ControlError:
            pass

    # --- the sweeps ---

    @there("streams")
    @rule(fault=answers, times=st.integers(1, 2), crash=crashes)
    def sweep_poll(self, fault: str, times: int, crash: Any) -> None:
        self._sweep("poll", ["query", "capture"], fault, times, crash)

    @there("streams")
    @rule(fault=answers, race=st.sampled_from(["", "", "pay", "close"]), times=st.integers(1, 2), crash=crashes)
    def sweep_close(self, fault: str, race: str, times: int, crash: Any) -> None:
        if race:
            self.world.control.fault("close", "race_pay", winner=race)
        self._sweep("close", ["close"], fault, times, crash)
        self.world.learn()

    @rule(times=st.integers(1, 2), crash=crashes)
    def sweep_expire(self, times: int, crash: Any) -> None:
        self._sweep("expire", [], "", times, crash)

    @there("refunds")
    @rule(
        fault=st.one_of(answers, st.sampled_from(["refund_pending", "refund_failed", "refund_attention"])),
        op=st.sampled_from(["refund", "refund", "query_refund", "query"]), times=st.integers(1, 2), crash=crashes,
    )  # fmt: skip
    def sweep_refund(self, fault: str, op: str, times: int, crash: Any) -> None:
        self._sweep("refund", ["refund" if fault.startswith("refund_") else op], fault, times, crash)

    @rule(name=st.sampled_from(["publish", "publish", "inbox", "reconcile"]), times=st.integers(1, 2), crash=crashes)
    def sweep_other(self, name: str, times: int, crash: Any) -> None:
        self._sweep(name, [], "", times, crash)

    def _sweep(self, name: str, ops: list[str], fault: str, times: int, crash: Any) -> None:
        with self.channel_fault(ops, fault), self.world.crash(crash):
            for _ in range(times):
                sweep.SWEEPS[name][0]()

    @contextmanager
    def channel_fault(self, ops: list[str], do: str, account: str = "*") -> Iterator[None]:
        """One call of each operation goes wrong at the channel; what did is counted."""
        control = self.world.control
        planned = [control.fault(op, do, account=account) for op in ops if do]
        try:
            yield
        finally:
            struck = sum(not control.remove_fault(number) for number in planned)
            if struck:
                self.world.faults[f"channel: {do}"] += struck

    @there("tasks")
    @rule(which=some, fate=st.sampled_from(["run", "run twice", "lose"]), crash=crashes)
    def broker(self, which: int, fate: str, crash: Any) -> None:
        """A task that was handed to the broker arrives, arrives twice, or never does."""
        name = self.world.tasks.pop(which % len(self.world.tasks)).removeprefix("payonce.")
        if fate != "run":
            self.world.faults[f"task: {fate}"] += 1
        for _ in range(("lose", "run", "run twice").index(fate)):
            with self.world.crash(crash):
                getattr(tasks, name).run()

    @there("streams")
    @rule(which=some, act=st.sampled_from(["poll", "close", "nudge", "capture"]), crash=crashes)
    def operator_looks(self, which: int, act: str, crash: Any) -> None:
        stream = self.stream(which)
        if stream is None:
            return
        with self.world.crash(crash):
            if act == "poll":
                poll.poll_stream(stream.number, by="operator:alice")
            elif act == "close":
                close.close_stream(stream.number, by="operator:alice")
            elif act == "capture":
                capture.capture_stream(stream.number)
            else:
                poll.nudge(stream.number)

    # --- operators ---

    @there("paid")
    @rule(which=some, amount=st.sampled_from([1000, 500, 400]), by=persons, crash=crashes)
    def ask_refund(self, which: int, amount: int, by: str, crash: Any) -> None:
        stream = self.stream(which)
        if stream is None:
            return
        with self.world.crash(crash):
            asked = refund.request_refund(stream.number, amount, reason="duplicate", by=by)
            self.world.log("refund", "ok", {"order": stream.order.number}, {"refund": asked.number})

    @there("refunds")
    @rule(
        which=some,
        act=st.sampled_from(["approve", "decline", "retry", "write_off", "confirm"]),
        by=persons,
        crash=crashes,
    )
    def judge_refund(self, which: int, act: str, by: str, crash: Any) -> None:
        row = pick(list(Refund.objects.order_by("-id")), which)
        done = {item["number"] for item in self.world.ledger().refunds if item["state"] == "DONE"}
        if row is not None and (act != "confirm" or row.number in done):  # a person confirms what the channel shows
            with self.world.crash(crash):
                getattr(refund, f"{act}_refund")(row.number, by)

    @there("cases")
    @rule(which=some, decision=st.sampled_from(["refund", "keep", "accept", "dismiss"]), by=persons, crash=crashes)
    def decide(self, which: int, decision: str, by: str, crash: Any) -> None:
        case = pick(list(Discrepancy.objects.exclude(state="RESOLVED").order_by("-id")), which)
        if case is not None:
            with self.world.crash(crash):
                decide_case(case.pk, decision, by)

    @there("parked")
    @rule(which=some, act=st.sampled_from([resend, skip]))
    def parked_message(self, which: int, act: Any) -> None:
        row = pick(list(ShopMessage.objects.filter(state="PARKED").order_by("-id")), which)
        if row is not None:
            act(row.pk, by="operator:alice")

    # --- time and machines ---

    @rule(seconds=st.sampled_from([2, 10, 30, 70, 700, 3600, 8000]))
    def advance(self, seconds: int) -> None:
        self.world.advance(seconds)

    @rule()
    def flush_cache(self) -> None:
        self.world.flush_cache()

    @rule(account=accounts)
    def outage(self, account: str) -> None:
        """The channel is down, until it is up again."""
        world = self.world
        if account in world.outages:
            world.control.remove_fault(world.outages.pop(account))
        else:
            world.outages[account] = world.control.fault("*", "outage", account=account, times=None)
            world.faults["channel: outage"] += 1
