"""A storm: a batch of many orders at once in one database, on the virtual clock, each hit by faults; then healed, drained and judged.

Everything happens on one thread and is drawn from one seed, so a batch can be played again alone. Concurrency is played where it
can change anything: while a process waits for a channel it holds no transaction, and there another process may come between.
"""

import random
import re
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

import psycopg
from django.conf import settings
from django.db import connections
from psycopg.rows import dict_row

from config.environment import with_database
from payonce.channels import http
from payonce.channels.messages import HttpRequest, HttpResponse, Outcome, PaymentView, TransportError
from payonce.channels.sandbox import dialect, outbox
from payonce.channels.sandbox.faults import Fault
from payonce.channels.sandbox.sender import Style
from payonce.orders.shop import ShopEvent
from payonce.orders.statuses import LateDecision
from payonce.payments import cache, sweep, tasks
from payonce.payments.claims import Claimed
from tests.clock import StandingClock
from tests.model.acts import Acts, Tale
from tests.model.bank import BankHere
from tests.model.plots import new_tale
from tests.model.redis_here import RedisHere
from tests.model.world import ACCOUNTS, NEXT_DUE, POLICIES, ModelShop, World
from torture.check import Mode
from torture.hardness import Hardness
from torture.sources import read_ledger

MODES = ("plain", "no-cache", "two-beats")
BATCH = 150
AT_ONCE = 14
"""So many orders are in the middle of their plot at the same time; the others wait, or are at rest."""
DOES: dict[str, tuple[str, ...]] = {
    "*": ("drop_before", "drop_after", "error_before", "error_after", "bad_signature", "no_signature", "garbage",
          "truncate", "stale_timestamp", "refused", "late"),
    "prepay": ("pay_before_answer", "pay_before_answer", "refuse"),
    "close": ("race_pay", "race_pay", "race_pay"),
    "refund": ("refund_pending", "refund_pending", "refund_failed", "refund_attention"),
}  # fmt: skip
"""What may go wrong at a call: anywhere, and at one operation. Refused is a connection; late is a request that arrives after the
caller's time-out."""
HARD_ENOUGH = (
    "paid", "duplicates", "late", "mismatched", "second_captures", "captures", "refunds_automatic", "refunds_operator",
    "refunds_approved", "refunds_unclear", "refunds_returned", "forged", "switches", "amended", "closed", "decided",
    "double_clicks", "lost_notifications", "repeated_notifications", "caught_exceptions", "meanwhile", "channel: outage",
    *(f"notification: {how}" for how in ("forge", "stale", "orphan", "lose", "twice", "reversed", "all")),
    *(f"channel: {do}" for do in sorted({name for names in DOES.values() for name in names})),
    *(f"{how} {when} {where}" for how in ("kill", "error", "cut") for when in ("before", "after")
      for where in ("execute", "fly", "commit", "call")),
    *(f"kill {when} {where}" for when in ("before", "after") for where in ("hook", "broker")),
    "shop: failed", "shop: failed after all", "task: lose", "task: run twice",
)  # fmt: skip
"""What a long run must have met at least once."""
STEPS_OF_DRAIN = (3, 5, 10, 20, 30, 60, 60, 120, 300, 600, 900, 1800, 3600, 3600, 7200, 7200, 10_800, 21_600, 43_200)
DRAIN_HOURS = 80
NUMBER = re.compile(r"\bpo[0-9a-z]{13}")
_OF = "JOIN payonce_order o ON o.id = x.order_id WHERE o.number = %s ORDER BY x.id"
EVIDENCE = (
    f"SELECT x.sequence, x.at, x.kind, x.subject, x.state_from, x.state_to, x.actor, x.body FROM payonce_event x {_OF}",
    f"SELECT x.* FROM payonce_stream x {_OF}",
    f"SELECT x.* FROM payonce_discrepancy x {_OF}",
    "SELECT x.* FROM payonce_refund x JOIN payonce_stream s ON s.id = x.stream_id"
    " JOIN payonce_order o ON o.id = s.order_id WHERE o.number = %s ORDER BY x.id",
)
SWEEPS = ("inbox", "poll", "close", "expire", "refund", "publish")


@dataclass
class Batch:
    """How one batch went. `violation` is empty where every invariant held."""

    number: int
    orders: int = 0
    faulted: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    hardness: Hardness = field(default_factory=Hardness)
    steps: int = 0
    violation: str = ""
    trace: list[str] = field(default_factory=list)


class StormWorld(World):
    """A world in which sweeps may be disturbed between their rows, and channels at any call."""

    def __init__(self, bank: BankHere, clock: StandingClock, policy: dict[str, Any], storm: "Storm") -> None:
        super().__init__(bank, clock, policy)
        self.storm = storm

    def hit(self, fault: str) -> None:
        super().hit(fault)
        self.storm.blame(fault)

    def flush_cache(self) -> None:
        """Entries die of age by themselves, on the story's clock."""

    def each(self, numbers: list[str], step: Callable[[str], object]) -> int:
        """The rows in the order of the tales: what is due at the same moment comes from the database in any order."""
        for number in sorted(numbers, key=self.storm.place_of):
            self.storm.about = number
            sweep._one(number, step)
            self.storm.come_between(number)
        self.storm.about = ""
        return len(numbers)

    def ask_all(self, claimed: list[Claimed]) -> Iterator[tuple[Claimed, Outcome[PaymentView]]]:
        """The answers arrive in any order, some of them after other work was done."""
        claimed = sorted(claimed, key=lambda item: item.stream.pk)
        self.storm.dice.shuffle(claimed)
        kept: list[tuple[Claimed, Outcome[PaymentView]]] = []
        for item, outcome in super().ask_all(claimed):
            self.storm.about = item.stream.number
            if self.storm.dice.random() < 0.3:
                kept.append((item, outcome))
            else:
                yield item, outcome
        self.storm.come_between("")
        for item, outcome in kept:
            self.storm.about = item.stream.number
            yield item, outcome
        self.storm.about = ""


class Storm:
    """One batch."""

    def __init__(
        self, bank: BankHere, clock: StandingClock, seed: str, mode: str = "plain", orders: int = BATCH
    ) -> None:
        self.dice = random.Random(seed)
        self.mode, self.bank = mode, bank
        policy = self.dice.choice(({}, {}, POLICIES[0], *POLICIES))
        self.verdict = self.dice.choice([None, None, *LateDecision])
        policy = {**policy, "REDIS_URL": "" if mode == "no-cache" else "redis://in.this.process"}
        self.world = StormWorld(bank, clock, policy, self)
        self.redis = None if mode == "no-cache" else RedisHere(lambda: self.world.now.timestamp() + self._waited)
        self.tales = [new_tale(self.dice, f"A-{number}") for number in range(orders)]
        self.by_number: dict[str, Tale] = {}
        self.acts = Acts(self)
        self.batch = Batch(0)
        self.about = ""
        self.lost: set[str] = set()
        self.out: set[str] = set()
        self.refused: set[str] = set()
        self._late: list[tuple[float, HttpRequest]] = []
        self._raced: list[tuple[str, str]] = []
        self._doing = ""
        self._waited = 0.0
        self._depth = 0
        self._is_over = False
        self._observer: psycopg.Connection[dict[str, Any]] | None = None

    # --- the whole ---

    def play(self) -> Batch:
        """Play it to its end."""
        batch = self.batch
        try:
            self._begin()
            self._rage()
            self._rest()
        except Exception as error:
            # What a step raises beyond its refusals is as bad as a broken invariant, and must be played again as well.
            is_judged = isinstance(error, AssertionError) and str(error)
            batch.violation = str(error) if is_judged else "".join(traceback.format_exception(error))
            batch.trace += self._evidence(batch.violation)
        finally:
            self._end()
        for tale in self.tales:
            batch.orders += bool(tale.number)
            batch.faulted += bool(tale.number) and tale.is_faulted
            batch.faults.update(tale.faults)
        batch.hardness = self.world.hardness
        return batch

    def _begin(self) -> None:
        world = self.world
        world.begin()
        ModelShop.verdict = self.verdict
        waiting = SimpleNamespace(monotonic=lambda: self._waited, sleep=self._sleep)
        world.enter(mock.patch.object(cache, "time", waiting))
        world.enter(mock.patch.object(http.blocking, "send", self._send))
        if self.redis is not None:
            world.enter(mock.patch.object(cache, "_client", lambda _url: self.redis))
            world.enter(mock.patch.object(cache, "_try", self._disturbed(cache._try)))
        world.enter(mock.patch.object(ModelShop, "order_event", self._hear))
        self.bank.disturb(self._draw)
        # The bank plays many batches, all on the same days: its statements begin with this one's.
        begun = max((row["id"] for row in read_ledger(self.bank.folder).journal), default=0)
        lines = dialect.statement_lines
        listed = lambda books, account, start, after: lines(books, account, start, max(after, begun))  # noqa: E731
        world.enter(mock.patch.object(dialect, "statement_lines", listed))
        url = with_database(settings.DATABASE_URL, str(connections["default"].settings_dict["NAME"]))
        self._observer = psycopg.Connection[dict[str, Any]].connect(url, row_factory=dict_row, autocommit=True)

    def _end(self) -> None:
        if self._observer is not None:
            self._observer.close()
        self.world.end()

    def _rage(self) -> None:
        waiting = deque(self.tales)
        live: list[Tale] = []
        steps_in_all = sum(len(tale.plot) for tale in self.tales)
        looks = {int(steps_in_all * share) for share in (0.4, 0.8)}
        while live or waiting:
            while waiting and len(live) < AT_ONCE:
                live.append(waiting.popleft())
            tale = self.dice.choice(live)
            self._step(tale)
            if not tale.plot and not self._see_to_it(tale):
                live.remove(tale)
            if self.dice.random() < 0.12:
                self._tick()
            if self.batch.steps in looks:
                looks.discard(self.batch.steps)
                self.look_at(Mode.ALWAYS)

    def _step(self, tale: Tale) -> None:
        act = tale.plot.popleft()
        if not tale.number and act != "place":
            tale.plot.clear()  # its shop gave up before it was placed
            return
        self.batch.steps += 1
        self.note(f"{tale.reference} {act}")
        self.acts.do(tale, act)
        if tale.number:
            self.by_number[tale.number] = tale

    def _see_to_it(self, tale: Tale) -> bool:
        """Nobody gets away without a fault: more acts for an order that met none."""
        if tale.is_faulted or not tale.number:
            return False
        tale.plot.extend(
            self.dice.choice(
                [("forge", "pay"), ("notify:twice", "stale"), ("pay", "orphan"), ("pay", "look"), ("cache:turn", "pay")]
            )
        )
        return self.batch.steps < 40 * len(self.tales)

    def look_at(self, mode: Mode) -> None:
        """Let the judge look."""
        self.world.check(mode)

    # --- beats, brokers, and what comes between ---

    def _tick(self) -> None:
        """Some time passes, and a beat's sweeps are due."""
        dice = self.dice
        self.pass_time(
            dice.choice([1, 1, 2, 2, 3, 5, 5, 8, 10, 15, 30, 70] if dice.random() < 0.97 else [300, 700, 3700])
        )
        self._change_outage()
        for name in dice.sample([*SWEEPS, "publish", "poll"], dice.randrange(1, 4)):
            self.sweep(name)
        if dice.random() < 0.05:
            self.sweep("reconcile")
        if dice.random() < 0.05:
            self.sweep("statement")
        if self.world.tasks and dice.random() < 0.7:
            name = self.world.tasks.pop(dice.randrange(len(self.world.tasks))).removeprefix("payonce.")
            fate = dice.choice(["run", "run twice", "lose", "lose"])
            self.batch.faults[f"task: {fate}"] += fate != "run"
            self.note(f"task {name} {fate}")
            for _ in range({"lose": 0, "run": 1, "run twice": 2}[fate]):
                with self.process(None):
                    getattr(tasks, name).run()

    def sweep(self, name: str) -> None:
        """One sweep of one beat; with two beats, that of the other one comes after it or in its middle."""
        self.note(f"sweep {name}")
        with self.process(None):
            sweep.SWEEPS[name][0]()
        if self.mode == "two-beats" and self._depth == 0:
            with self.process(None):
                sweep.SWEEPS[name][0]()

    def come_between(self, number: str) -> None:
        """Here no transaction is open, and another process may do something of its own, about the same order or any other."""
        chance = 0.0 if self._is_over else 0.25 if self.mode == "two-beats" else 0.06
        if self._depth >= 2 or self.dice.random() >= chance:
            return
        tale = self.tale_of(number) if self.dice.random() < 0.8 else None
        about, self._depth = self.about, self._depth + 1
        try:
            if tale is None or not tale.number or self.dice.random() < 0.4:  # nobody knows its number yet
                self.sweep(self.dice.choice(SWEEPS))
            else:
                act = self.dice.choice(
                    ["pay_again", "pay", "switch", "keyed", "notify", "wallet", "cancel", "look", "amend"]
                )
                self.note(f"  meanwhile {tale.reference} {act}")
                tale.faults["meanwhile"] += 1
                self.acts.do(tale, act)
        finally:
            self.about, self._depth = about, self._depth - 1

    def _change_outage(self) -> None:
        account = self.dice.choice(sorted(ACCOUNTS))
        if account in self.out:
            self.out.discard(account)
        elif self.dice.random() < 0.06:
            self.out.add(account)
            self.note(f"outage of {account}")

    def pass_time(self, seconds: float) -> None:
        """Time passes; what was still on its way to the bank arrives there."""
        self.world.advance(seconds)
        self.note(f"{seconds} s pass")
        now = self.world.now.timestamp()
        due = [item for item in self._late if item[0] <= now]
        self._late = [item for item in self._late if item[0] > now]
        for _, request in due:
            self.bank.send(request)

    # --- one process ---

    @contextmanager
    def process(self, tale: Tale | None) -> Iterator[None]:
        """What one process does: it may die or fail at any boundary, and what it was about is blamed for that."""
        plan = None
        if not self._is_over and self.dice.random() < 0.15:
            plan = (
                self.dice.randrange(1, 18),
                self.dice.choice(["before", "after"]),
                self.dice.choice(["kill", "kill", "error", "cut"]),
            )
        about, self.about = self.about, tale.reference if tale is not None else ""
        try:
            with self.world.crash(plan):
                yield
        finally:
            self.about = about

    def tale_of(self, number: str) -> Tale | None:
        """The order that a reference, or a number of an order, stream or refund, belongs to."""
        if number.startswith("A-"):
            return self.tales[int(number[2:])]
        found = self.by_number.get(number[:15])
        if found is None and number:
            rows = self.rows("SELECT reference FROM payonce_order WHERE number = %s", number[:15])
            found = self.tales[int(rows[0]["reference"][2:])] if rows else None
            if found is not None:
                self.by_number[number[:15]] = found
        return found

    def place_of(self, number: str) -> tuple[str, str]:
        """Where a number of this run stands among the others: by the order's reference, then by what it adds to its order."""
        tale = self.tale_of(number)
        return (tale.reference if tale is not None else "", number[15:])

    def blame(self, fault: str, number: str = "") -> None:
        """A fault hit the order that is being worked on."""
        self.note(f"  {fault} at {number or self.about}")
        tale = self.tale_of(number or self.about)
        (tale.faults if tale is not None else self.batch.faults)[fault] += 1

    # --- channels, Redis, the shop ---

    def _draw(self, account: str, op: str, number: str) -> list[Fault]:
        """What the bank does wrong at this call."""
        if self._is_over or op in ("pay", "notify"):
            return []
        if account in self.out:
            self.blame("channel: outage", number)
            return [Fault(0, account, op, number, "drop_before")]
        do = self._doing
        self._doing = ""
        if not do:
            return []
        arguments = {"winner": self.dice.choice(["pay", "close"])} if do == "race_pay" else {}
        if do in ("race_pay", "pay_before_answer"):
            self._raced.append((account, number))
        if do == "refuse":
            self.refused.add(number)
        self.blame(f"channel: {do}", number)
        return [Fault(0, account, op, number, do, arguments=arguments)]

    def _send(self, request: HttpRequest) -> HttpResponse | TransportError:
        """One request on its way to the bank and back."""
        if self._is_over:
            return self.bank.send(request)
        number = request.url.partition("/payments/")[2].partition("/")[0] or self.about
        self.come_between(number)
        do = self._choose(request)
        if do == "refused":
            self.blame("channel: refused", number)
            return TransportError("connect_refused", sent=False)
        if do == "late":
            self.blame("channel: late", number)
            self._late.append((self.world.now.timestamp() + self.dice.choice([1, 5, 12, 20]), request))
            return TransportError("read_timeout")
        self._doing = do
        try:
            answer = self.bank.send(request)
        finally:
            self._doing = ""
            self._learn()
        self.come_between(number)
        return answer

    def _choose(self, request: HttpRequest) -> str:
        path = request.url.rpartition("/v1/")[2]
        op = "prepay" if path == "payments" else path.rpartition("/")[2].replace("refunds", "refund")
        own = DOES.get(op, ()) if request.method == "POST" else ()
        if self.dice.random() >= (0.3 if "/refunds" in path else 0.16 if own else 0.08):
            return ""
        return self.dice.choice(own if own and self.dice.random() < 0.5 else DOES["*"])

    def _learn(self) -> None:
        """Write down what buyers paid in a race that the bank played."""
        for account, number in self._raced:
            if (account, number) in self.world.paid:
                continue
            rows = self.bank.database.execute(
                "SELECT capture.amount_minor, capture.capture_key FROM capture JOIN payment ON payment.id = capture.payment_id"
                " WHERE payment.account = ? AND payment.number = ?", (account, number),
            ).fetchall()  # fmt: skip
            if rows and not rows[0]["capture_key"]:
                self.world.took(account, number, rows[0]["amount_minor"])
        self._raced.clear()

    def _disturbed(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def command(command: Callable[[Any], Any], otherwise: Any = None) -> Any:
            chance = 1.0 if self._is_over else self.dice.random()
            if chance < 0.012:
                self.blame("redis: down")
                return otherwise
            answer = real(command, otherwise)
            if chance < 0.02:
                self.blame("redis: answer lost")
                return otherwise
            return answer

        return command

    def _sleep(self, _seconds: float) -> None:
        self._waited += 0.5  # the waiting of a click is not worth playing in small steps

    def _hear(self, event: ShopEvent) -> None:
        """The shop is told; now and then it fails, before or after it took that in."""
        shop, chance = ModelShop(), 1.0 if self._is_over else self.dice.random()
        self.about = event.order
        if chance < 0.05:
            self.blame("shop: failed", event.order)
            raise RuntimeError("the shop is away")
        shop.hear(event)
        if chance < 0.09:
            self.blame("shop: failed after all", event.order)
            raise RuntimeError("the shop's answer is lost")

    # --- what is seen from outside ---

    def rows(self, sql: str, *params: object) -> list[dict[str, Any]]:
        """What is committed."""
        assert self._observer is not None
        return self._observer.execute(sql, params).fetchall()

    def bank_refunds(self, order: str) -> list[dict[str, Any]]:
        """The bank's refunds of one order."""
        rows = self.bank.database.execute(
            "SELECT payment.account, payment.number AS payment_number, refund.* FROM refund"
            " JOIN payment ON payment.id = refund.payment_id WHERE payment.number LIKE ? ORDER BY refund.id", (f"{order}s%",),
        )  # fmt: skip
        return [dict(row) for row in rows]

    def _evidence(self, text: str) -> list[str]:
        """Everything about the orders that a violation names."""
        found: list[str] = []
        if self._observer is None:
            return found
        for tale in {id(tale): tale for number in NUMBER.findall(text) if (tale := self.tale_of(number))}.values():
            found.append(f"--- {tale.reference} is {tale.number}")
            for sql in EVIDENCE:
                found += [
                    " ".join(f"{key}={value}" for key, value in row.items()) for row in self.rows(sql, tale.number)
                ]
        return found

    def note(self, line: str) -> None:
        """One line of the trace."""
        self.batch.trace.append(line)

    # --- the end ---

    def _rest(self) -> None:
        """Faults end, everything is told, time passes beyond every horizon, and the judge looks at what is left."""
        self._is_over = True
        self.out.clear()
        self.pass_time(30)
        self._heal()
        for seconds in STEPS_OF_DRAIN:
            self._drain(seconds)
        while self.world.offset < DRAIN_HOURS * 3600:
            self._drain(21_600)
        for _ in range(60):  # what is still looked at now and then is in a person's queue, or the judge objects
            wait = self.rows(NEXT_DUE)[0]["wait"]
            if wait is None or wait.total_seconds() > 0:
                break
            self._drain(5)
        else:
            raise AssertionError(f"the sweeps never come to rest: {wait} is due")
        self.look_at(Mode.REST)
        self._judge_refusals()

    def _judge_refusals(self) -> None:
        """S4: what failed was refused by the channel, so its books do not know it, unless it refused what it had taken."""
        failed = {row["number"] for row in self.rows("SELECT number FROM payonce_stream WHERE state = 'FAILED'")}
        known = {row["number"] for row in self.world.ledger().payments}
        wrong = sorted((failed & known) - self.refused)
        assert not wrong, f"S4: {', '.join(wrong)} failed, and the channel never refused it"

    def _drain(self, seconds: float) -> None:
        self.pass_time(seconds)
        for name in SWEEPS:
            for _ in range(20):
                if not sweep.SWEEPS[name][0]():
                    break
        sweep.SWEEPS["statement"][0]()

    def _heal(self) -> None:
        """What the bank began it ends. Of streams that nobody asks about any more, what it has to say arrives at last.

        But for the money it took: that a payment came, also twice or after a close, stands in its statement.
        """
        ledger, control = self.world.ledger(), self.world.control
        for row in ledger.refunds:
            if row["state"] == "IN_PROGRESS":
                control.settle_refund(row["payment_number"], row["number"], "DONE", account=row["account"])
        for row in ledger.payments:
            if row["state"] == "IN_PROGRESS":
                control.decline(row["number"], account=row["account"])
        told = set().union(*(tale.told for tale in self.tales)) - self.lost
        states = "SELECT number FROM payonce_stream WHERE state IN ('SUCCEEDED', 'CLOSED', 'FAILED')"
        done = {row["number"] for row in self.rows(states)}
        for message in outbox.find(self.bank.database):
            if message.number in done and message.key not in told and message.event != "payment.paid":
                self.world.deliver(message, Style(), "notify")
