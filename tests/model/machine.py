"""The stories: what buyers, operators, shops, channels, attackers and broken machines may do, in any order."""

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from payonce.channels.sandbox.sender import Style
from payonce.channels.sandbox.testing import RunningSandbox
from payonce.orders.errors import AmendRefused, PlaceConflict
from payonce.orders.models import Order
from payonce.orders.place import place_order
from payonce.orders.statuses import LateDecision
from payonce.payments import close, expire, poll, refund, sweep
from payonce.payments.message_rows import resend, skip
from payonce.payments.models import Discrepancy, Refund, ShopMessage
from payonce.payments.pay import pay_order
from payonce.payments.surplus import decide_case
from tests.clock import Clock
from tests.model.world import ACCOUNTS, POLICIES, ModelShop, World
from torture.rules import Mode

ORDERS_MAX = 3
some = st.integers(0, 11)
accounts = st.sampled_from(sorted(ACCOUNTS))
persons = st.sampled_from(["alice", "bob"])
crashes = st.one_of(
    st.none(), st.none(), st.none(),
    st.tuples(st.integers(1, 12), st.sampled_from(["before", "after"]), st.sampled_from(["kill", "error"])),
)  # fmt: skip
answers = st.sampled_from(["", "", "", "drop_before", "drop_after", "error_before", "error_after", "bad_signature"])
FORGERIES = ("bad_signature", "no_signature", "altered_body", "wrong_account", "other_secret")


def pick(rows: list[Any], which: int) -> Any:
    """One of the rows, or None."""
    return rows[which % len(rows)] if rows else None


class Story(RuleBasedStateMachine):
    """One story on a clean database. After each step every invariant holds; at the end all is healed, drained and at rest."""

    bank: ClassVar[RunningSandbox]
    clock: ClassVar[Clock]

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None

    @initialize(policy=st.sampled_from(POLICIES), verdict=st.sampled_from([None, None, *LateDecision]))
    def begin(self, policy: dict[str, Any], verdict: LateDecision | None) -> None:
        self.world = World(self.bank, self.clock, policy)
        self.world.begin()
        ModelShop.verdict = verdict

    def teardown(self) -> None:
        if self.world is None:
            return
        try:
            self.world.heal()
            self.world.drain()
            self.world.check(Mode.REST)
        finally:
            self.world.end()

    @invariant()
    def holds(self) -> None:
        if self.world is not None:
            self.world.check()

    def stream(self, which: int) -> Any:
        """The newest streams come first, so that small numbers make simple stories."""
        return pick(self.world.streams()[::-1], which)

    # --- the shop ---

    @precondition(lambda self: Order.objects.count() < ORDERS_MAX)
    @rule(amount=st.sampled_from([1000, 500]), life=st.sampled_from([900, 60, None]), crash=crashes)
    def place(self, amount: int, life: int | None, crash: Any) -> None:
        expires_at = None if life is None else self._now() + timedelta(seconds=life)
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

    @rule(which=some, account=accounts, fault=answers, crash=crashes)
    def pay(self, which: int, account: str, fault: str, crash: Any) -> None:
        order = pick(list(Order.objects.order_by("-id")), which)
        if order is None:
            return
        world = self.world
        at = self._now()
        if fault:
            world.control.fault("prepay", fault, account=account)
        args = {"order": order.number, "channel": account, "method": "qr", "db_at": at.timestamp()}
        with world.crash(crash):
            result = pay_order(order.number, account, "qr")
            facts = {"code": result.code.value, "stream": result.stream}
            if result.code == "prepay":
                facts |= {"amount_minor": result.amount_minor, "currency": result.currency}
            world.log("pay", "ok", args, facts)
        world.control.clear_faults(op="prepay")

    @rule(which=some, act=st.sampled_from(["open_page", "begin", "decline"]))
    def touch_wallet(self, which: int, act: str) -> None:
        stream = self.stream(which)
        if stream is not None:
            getattr(self.world.control, act)(stream.number, account=stream.account)

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

    @rule(which=some)
    def pay_twice_under_one_number(self, which: int) -> None:
        stream = self.stream(which)
        if stream is not None and self.world.control.second_capture(stream.number, account=stream.account).ok:
            self.world.took(stream.account, stream.number, stream.amount_minor)

    # --- the channel ---

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
        if how == "lose":
            world.log("lose", "ok")
            return
        style = Style(forgery=pick(list(FORGERIES), kind)) if how == "forge" else Style()
        if how == "stale":
            style = Style(signed_ago_seconds=3600)
        with world.crash(crash):
            for _ in range(2 if how == "repeat" else 1):
                world.deliver(message, style, {"forge": "forge", "stale": "stale"}.get(how, "notify"))

    @rule(which=some, state=st.sampled_from(["DONE", "FAILED", "ATTENTION", "RETURNED"]))
    def bank_settles_refund(self, which: int, state: str) -> None:
        row = pick(self.world.ledger().refunds[::-1], which)
        if row is not None and not row["outside"]:
            self.world.control.settle_refund(row["payment_number"], row["number"], state, account=row["account"])

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
        from payonce.channels.sandbox.control import ControlError

        try:
            self.world.control.outside_refund(stream.number, amount, account=stream.account)
        except ControlError:
            pass

    # --- the sweeps ---

    @rule(fault=answers, times=st.integers(1, 2), crash=crashes)
    def sweep_poll(self, fault: str, times: int, crash: Any) -> None:
        self._sweep("poll", ["query", "capture"], fault, times, crash)

    @rule(fault=answers, race=st.sampled_from(["", "", "pay", "close"]), times=st.integers(1, 2), crash=crashes)
    def sweep_close(self, fault: str, race: str, times: int, crash: Any) -> None:
        self._sweep("close", ["close"], fault, times, crash)

    @rule(times=st.integers(1, 2), crash=crashes)
    def sweep_expire(self, times: int, crash: Any) -> None:
        self._sweep("expire", [], "", times, crash)

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
        for op in ops if fault else ():
            self.world.control.fault(op, fault)
        with self.world.crash(crash):
            for _ in range(times):
                sweep.SWEEPS[name][0]()
        for op in ops:
            self.world.control.clear_faults(op=op)

    @rule(which=some, act=st.sampled_from(["poll", "close", "nudge"]), crash=crashes)
    def operator_looks(self, which: int, act: str, crash: Any) -> None:
        stream = self.stream(which)
        if stream is None:
            return
        with self.world.crash(crash):
            if act == "poll":
                poll.poll_stream(stream.number, by="operator:alice")
            elif act == "close":
                close.close_stream(stream.number, by="operator:alice")
            else:
                poll.nudge(stream.number)

    # --- operators ---

    @rule(which=some, amount=st.sampled_from([1000, 500, 400]), by=persons, crash=crashes)
    def ask_refund(self, which: int, amount: int, by: str, crash: Any) -> None:
        stream = self.stream(which)
        if stream is None:
            return
        with self.world.crash(crash):
            asked = refund.request_refund(stream.number, amount, reason="duplicate", by=by)
            self.world.log("refund", "ok", {"order": stream.order.number}, {"refund": asked.number})

    @rule(which=some, act=st.sampled_from(["approve", "decline", "retry", "write_off"]), by=persons, crash=crashes)
    def judge_refund(self, which: int, act: str, by: str, crash: Any) -> None:
        row = pick(list(Refund.objects.order_by("-id")), which)
        if row is not None:
            with self.world.crash(crash):
                getattr(refund, f"{act}_refund")(row.number, by)

    @rule(which=some, decision=st.sampled_from(["refund", "keep", "accept", "dismiss"]), by=persons, crash=crashes)
    def decide(self, which: int, decision: str, by: str, crash: Any) -> None:
        case = pick(list(Discrepancy.objects.exclude(state="RESOLVED").order_by("-id")), which)
        if case is not None:
            with self.world.crash(crash):
                decide_case(case.pk, decision, by)

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

    def _now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.world.offset)
