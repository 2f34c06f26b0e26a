"""The world of the model: a real bank, a virtual clock, and a small ledger of what buyers really paid.

No time passes but what a story lets pass: for the database, the bank and the adapters alike. So a story is the same on a slow
machine as on a fast one.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import psycopg
from django.conf import settings
from django.db import OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.backends.utils import CursorWrapper
from django.test import override_settings
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from config.environment import with_database
from payonce.channels import http, registry
from payonce.channels.errors import ChannelError
from payonce.channels.http import blocking
from payonce.channels.messages import NotificationRequest, Outcome, PaymentView, Unknown
from payonce.channels.sandbox import outbox
from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.dialect import render_notification
from payonce.channels.sandbox.sender import Style
from payonce.orders.models import Order
from payonce.orders.shop import Shop, ShopEvent
from payonce.orders.statuses import LateDecision
from payonce.payments import cache, clock, enqueue, flight, notify, poll, sweep
from payonce.payments.claims import Claimed
from payonce.payments.models import Discrepancy, Refund, ShopMessage, Stream
from payonce.payments.refs import payment_ref
from tests.clock import StandingClock
from tests.model.bank import BankHere
from torture.check import Mode, check
from torture.hardness import Hardness
from torture.sources import Ledger, read_ledger

ACCOUNTS = {
    "sure": {"close_proof": "answer", "clock_skew_seconds": 2, "notification_horizon_seconds": 10_800},
    "shy": {
        "close_proof": "query", "not_found_before_buyer_acts": True, "clock_skew_seconds": 2,
        "notification_horizon_seconds": 10_800,
    },
    "hold": {
        "close_proof": "restraint", "captures": True, "clock_skew_seconds": 2, "notification_horizon_seconds": 10_800,
    },
}  # fmt: skip
"""A provable close; one that cannot be closed before the buyer acts; one whose capture is ours."""
POLICIES: tuple[dict[str, Any], ...] = (
    {"REFUND": {"APPROVAL_MINOR": 700}},
    {"REFUND": {"AUTO": False}},
    {"REFUND": {"MAX_MINOR": 600, "DELAY_SECONDS": 20}, "LATE_PAYMENT": "ACCEPT"},
    {"REFUND": {"DAILY_MINOR": 1200}, "LATE_PAYMENT": "ASK"},
    {"SWITCH": {"PROOF_SECONDS": 0, "UNPROVEN": "wait"}},
)
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
"""When every story begins: a day's budget never ends by chance in the middle of one."""
TABLES = (
    "payonce_event", "payonce_shop_message", "payonce_discrepancy", "payonce_refund", "payonce_notification",
    "payonce_idempotency", "payonce_channel_state", "payonce_statement_line", "payonce_statement_day", "payonce_stream",
    "payonce_order",
)  # fmt: skip
NEXT_DUE = """
SELECT min(at) - payonce_now() AS wait FROM (
    SELECT next_check_at AS at FROM payonce_stream UNION ALL SELECT next_try_at FROM payonce_refund
    UNION ALL SELECT next_expiry_at FROM payonce_order
    UNION ALL SELECT approval_expires_at FROM payonce_refund WHERE state = 'AWAITING_APPROVAL'
    UNION ALL SELECT next_try_at FROM payonce_notification WHERE state = 'RECEIVED'
    UNION ALL SELECT next_try_at FROM payonce_statement_day
    UNION ALL SELECT greatest(m.next_try_at, m.lease_until) FROM payonce_shop_message m WHERE m.state = 'PENDING'
        AND NOT EXISTS (SELECT 1 FROM payonce_shop_message o WHERE o.order_id = m.order_id AND o.listener = m.listener
            AND o.sequence < m.sequence AND o.state = 'PARKED')
) AS due
"""


OF_THE_DATABASE = ("execute", "fly", "commit")


class Killed(BaseException):
    """The process died here: nothing after it runs, whatever it was about to catch."""


@dataclass
class Life:
    """The life of one process: how many boundaries it crossed, where it is to die or to fail, and what became of it.

    It may be killed, meet one error of the database, or be cut off from the database until it ends.
    """

    plan: tuple[int, str, str] | None = None
    crossings: int = 0
    is_dead: bool = False
    is_cut: bool = False


class ModelShop(Shop):
    """Keeps what it is told as lines of an inbox; fails `failures` times, and judges late money as `verdict` says."""

    inbox: ClassVar[list[dict[str, Any]]] = []
    failures: ClassVar[int] = 0
    verdict: ClassVar[LateDecision | None] = None

    def order_event(self, event: ShopEvent) -> None:
        if type(self).failures > 0:
            type(self).failures -= 1
            raise RuntimeError("the shop is away")
        self.hear(event)

    def hear(self, event: ShopEvent) -> None:
        """Write it down."""
        self.inbox.append({**asdict(event), "at": event.at.isoformat()})

    def late_payment(self, order: Order, paid_at: datetime, in_time: bool) -> LateDecision:
        return self.verdict or super().late_payment(order, paid_at, in_time)


class World:
    """Everything that a story may do, and the small ledger of what the buyers really paid."""

    def __init__(self, bank: BankHere, clock: StandingClock, policy: dict[str, Any]) -> None:
        self.bank, self.control, self.clock = bank, bank.control, clock
        self.faults: Counter[str] = Counter()
        self.tasks: list[str] = []
        self.outages: dict[str, int] = {}
        self.base = {"SWITCH": {"PROOF_SECONDS": 0}, **policy}
        self.paid: Counter[tuple[str, str]] = Counter()
        self.history: list[dict[str, Any]] = []
        self.offset = 0.0
        self.hardness = Hardness()
        self.there: dict[str, int] = {}
        self._ids = itertools.count(1)
        self._payment_id = self._newest_payment()
        self._patches: list[Any] = []
        self._life = Life()
        self._witness: psycopg.Connection[dict[str, Any]] | None = None

    # --- beginning and end ---

    def begin(self) -> None:
        connections["default"].close()
        connection_created.connect(self._same_dice)
        self.clock.stand_at(NOON)
        with connections["default"].cursor() as cursor:
            cursor.execute(f"TRUNCATE {', '.join(TABLES)} RESTART IDENTITY CASCADE")
        ModelShop.inbox.clear()
        ModelShop.failures, ModelShop.verdict = 0, None
        conf = {
            **settings.PAYONCE, "CHANNELS": self.bank.accounts, "GRACE_SECONDS": 3, "POLL_CONCURRENCY": 1,
            "SHOP": "tests.model.world.ModelShop", **self.base,
        }  # fmt: skip
        self.enter(override_settings(PAYONCE=conf))
        self.enter(mock.patch.object(enqueue, "kick", self._crossing("broker", self.tasks.append)))
        self.enter(mock.patch.object(blocking, "send", self.bank.send))
        self.enter(mock.patch.object(clock, "time", SimpleNamespace(monotonic=lambda: 0.0)))
        self.enter(mock.patch.object(sweep, "_each", self.each))
        self.enter(mock.patch.object(poll, "_ask_all", self.ask_all))
        self.enter(mock.patch.object(flight, "fly", self._crossing("fly", flight.fly)))
        self.enter(mock.patch.object(http, "run", self._crossing("call", http.run)))
        self.enter(mock.patch.object(cache, "_try", self._crossing("redis", cache._try)))
        self.enter(mock.patch.object(ModelShop, "hear", self._crossing("hook", ModelShop.hear)))
        for owner, name in ((BaseDatabaseWrapper, "commit"), (CursorWrapper, "execute")):
            self.enter(mock.patch.object(owner, name, self._crossing(name, getattr(owner, name))))
        registry.reset()
        cache.reset()
        for account in ACCOUNTS:
            registry.channel(account).clock = lambda: self.now.timestamp()
        self.flush_cache()
        self.control.clear_faults()
        self.control.hold_notifications()
        self.sync()

    def end(self) -> None:
        if self._witness is not None:
            self._witness.close()
        for patch in reversed(self._patches):
            patch.__exit__(None, None, None)
        self._patches.clear()
        connection_created.disconnect(self._same_dice)
        registry.reset()

    def _same_dice(self, connection: Any, **_rest: Any) -> None:
        """Where a statement draws by chance, it draws the same every time."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT setseed(0.5)")

    def enter(self, patch: Any) -> None:
        """Put a patch in place until the end."""
        patch.__enter__()
        self._patches.append(patch)

    # --- time ---

    @property
    def now(self) -> datetime:
        """The story's time."""
        return NOON + timedelta(seconds=self.offset)

    def sync(self) -> None:
        """Set the bank and the database to the story's time."""
        self.clock.stand_at(self.now)
        self.bank.stand_at(self.now.timestamp())

    def advance(self, seconds: float) -> None:
        """Let time pass for the database, the bank and the adapters alike; cached results die of age."""
        self.offset += seconds
        self.sync()
        if seconds >= 10:
            self.flush_cache()

    def flush_cache(self) -> None:
        cache._try(lambda client: client.flushdb())

    # --- crashes ---

    @contextmanager
    def crash(self, plan: tuple[int, str, str] | None) -> Iterator[None]:
        """A process of its own, that dies (or fails) at the n-th crossing of a boundary, before or after it took effect.

        What is dead crosses nothing any more: whatever a `finally` would still like to tell Redis or the database is lost.
        """
        outer, self._life = self._life, Life(plan)
        try:
            yield
        except (Killed, OperationalError):
            self._let_go()
            self.log("caught", "ok")
        finally:
            self._life = outer

    @staticmethod
    def _let_go() -> None:
        """What the server does when a client is gone. A session that is as good as new serves the next process: that is cheaper."""
        connection = connections["default"]
        raw = connection.connection
        is_clean = raw is not None and not raw.closed and raw.info.transaction_status == TransactionStatus.IDLE
        if not is_clean or connection.in_atomic_block or connection.needs_rollback:
            connection.close()

    def _crossing(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def crossed(*args: Any, **kwargs: Any) -> Any:
            life = self._life
            if life.is_dead:
                raise Killed(name)
            if life.is_cut and name in OF_THE_DATABASE:
                raise OperationalError("the database does not answer")
            life.crossings += 1
            plan = life.plan if life.plan is not None and life.plan[0] == life.crossings else None
            if plan is not None and plan[1] == "before":
                if name == "commit":
                    args[0].rollback()  # what the server does when its client is gone
                self._die(plan, name)
            answer = real(*args, **kwargs)
            if plan is not None:
                self._die(plan, name)
            return answer

        return crossed

    def _die(self, plan: tuple[int, str, str], where: str) -> None:
        how = plan[2] if where in (*OF_THE_DATABASE, "call") else "kill"  # the others fail in ways of their own
        self._life.is_dead, self._life.is_cut = how == "kill", how == "cut"
        self.hit(f"{how} {plan[1]} {where}")
        raise Killed(where) if how == "kill" else OperationalError(f"the connection was lost at {where}")

    def hit(self, fault: str) -> None:
        """Count a fault."""
        self.faults[fault] += 1

    # --- what runs on threads in the product, one after the other here ---

    def each(self, numbers: list[str], step: Callable[[str], object]) -> int:
        """A sweep's rows."""
        for number in numbers:
            sweep._one(number, step)
        return len(numbers)

    def ask_all(self, claimed: list[Claimed]) -> Iterator[tuple[Claimed, Outcome[PaymentView]]]:
        """The poller's questions."""
        for item in claimed:
            try:
                channel = registry.channel(item.stream.account)
            except ChannelError as error:
                yield item, Unknown(f"not configured: {error}")
                continue
            yield item, http.run(channel.query(payment_ref(item.stream)))

    # --- history ---

    def log(self, op: str, how: str, args: dict[str, Any] | None = None, result: dict[str, Any] | None = None) -> None:
        """One operation, invoked and ended now."""
        number, at = next(self._ids), self.now.timestamp()
        self.history.append({"id": number, "type": "invoke", "op": op, "at": at, "args": args or {}})
        self.history.append({"id": number, "type": how, "op": op, "at": at, "result": result or {}})

    # --- what the buyer and the bank do ---

    def streams(self) -> list[Stream]:
        return list(Stream.objects.filter(origin_number="").order_by("id"))

    def took(self, account: str, number: str, amount: int) -> None:
        """The buyer's own note of money that left the wallet."""
        self.paid[account, number] += amount

    def learn(self) -> None:
        """Take over payments that a planned race of the bank made: the buyer was too quick to write them down."""
        for row in self.ledger().captures:
            if not row["capture_key"] and not self.paid[row["account"], row["number"]]:
                self.took(row["account"], row["number"], row["amount_minor"])

    def messages(self) -> list[outbox.Notification]:
        """Every notification that the bank owes about this story, the oldest first."""
        numbers = {stream.number for stream in self.streams()}
        return [message for message in outbox.find(self.bank.database) if message.number in numbers]

    def deliver(self, message: outbox.Notification, style: Style, log_as: str) -> notify.NotifyResult:
        """Hand the bytes to the door, signed at the time of the moment."""
        account = SandboxAccount.from_options(message.account, self.bank.accounts[message.account])
        headers, body = render_notification(account, message, self.now.timestamp(), style)
        headers = {name.lower(): value for name, value in headers.items()}
        result = notify.receive(message.account, NotificationRequest(body=body, headers=headers))
        args = {"account": message.account, "dedupe_key": message.key, "kind": style.forgery}
        self.log(log_as, "ok", args, {"status": result.answer.status, "outcome": result.outcome.value})
        return result

    # --- the truth ---

    def ledger(self) -> Ledger:
        """The bank's books about this story alone."""
        whole = read_ledger(self.bank.folder)
        mine = {row["number"] for row in whole.payments if row["id"] > self._payment_id}
        return replace(
            whole,
            payments=[row for row in whole.payments if row["number"] in mine],
            captures=[row for row in whole.captures if row["number"] in mine],
            refunds=[row for row in whole.refunds if row["payment_number"] in mine],
            journal=[row for row in whole.journal if row["number"] in mine],
            notifications=[row for row in whole.notifications if row["number"] in mine],
        )

    def _newest_payment(self) -> int:
        return max((row["id"] for row in read_ledger(self.bank.folder).payments), default=0)

    @property
    def witness(self) -> "psycopg.Connection[dict[str, Any]]":
        """A connection of the judge's own."""
        if self._witness is None:
            url = with_database(settings.DATABASE_URL, str(connections["default"].settings_dict["NAME"]))
            self._witness = psycopg.Connection[dict[str, Any]].connect(url, row_factory=dict_row)
            self._witness.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return self._witness

    def check(self, mode: Mode = Mode.ALWAYS) -> None:
        """No invariant is broken, and the bank took exactly what the buyers paid."""
        ledger = self.ledger()
        report = check(self.witness, lambda: ledger, lambda: list(ModelShop.inbox), self.history, mode=mode)
        self.witness.rollback()
        assert not report.violations, "\n" + "\n".join(map(str, report.violations))
        self.hardness = report.hardness
        taken: Counter[tuple[str, str]] = Counter()
        for row in ledger.captures:
            if not row["capture_key"]:
                taken[row["account"], row["number"]] += row["amount_minor"]
        assert taken == self.paid, (taken - self.paid, self.paid - taken)

    def look(self) -> None:
        """See what there is that a step could be about."""
        self.there = {
            "streams": len(self.streams()), "messages": len(self.messages()), "orders": Order.objects.count(),
            "bank refunds": len(self.ledger().refunds), "paid": len(self.paid),
            "refunds": Refund.objects.count(), "cases": Discrepancy.objects.exclude(state="RESOLVED").count(),
            "tasks": len(self.tasks), "parked": ShopMessage.objects.filter(state="PARKED").count(),
        }  # fmt: skip

    # --- healing ---

    def heal(self) -> None:
        """Faults end, the bank finishes what it began, the shop is back."""
        self.control.clear_faults()
        self.control.hold_notifications()
        ModelShop.failures = 0
        ledger = self.ledger()
        for row in ledger.refunds:
            if row["state"] == "IN_PROGRESS":
                self.control.settle_refund(row["payment_number"], row["number"], "DONE", account=row["account"])
        for row in ledger.payments:
            if row["state"] == "IN_PROGRESS":
                self.control.decline(row["number"], account=row["account"])

        # A stream that has its money, or was proven closed, is not asked about again: what the bank tells about it later
        # arrives in the end. What was lost about any other stays lost, and the sweeps must find it.
        done = {row.number for row in self.streams() if row.state in ("SUCCEEDED", "CLOSED", "FAILED")}
        for message in self.messages():
            if message.number in done:
                self.deliver(message, Style(), "notify")

    def drain(self, hours: float = 80.0) -> None:
        """Sweep until nothing is due, moving time on to whatever is due next: past the days after which a person is asked."""
        end = self.offset + timedelta(hours=hours).total_seconds()
        for number in range(1000):
            with connections["default"].cursor() as cursor:
                cursor.execute(NEXT_DUE)
                wait = cursor.fetchone()[0]
            if wait is None or (self.offset + wait.total_seconds() > end):
                return
            # What is due and was not taken waits for a breaker, a lease or its turn in a batch. Where something is asked about
            # every few seconds for hours, the sweeps come late after a while: it ends the same.
            late = 0.05 if number < 200 else 120
            self.advance(wait.total_seconds() + late if wait.total_seconds() > 0 else 2)
            for name in ("inbox", "poll", "close", "expire", "refund", "publish"):
                sweep.SWEEPS[name][0]()
        raise AssertionError(f"the sweeps never come to rest: {wait} is due")
