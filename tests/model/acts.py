"""What may happen to one order of a storm: the acts of its buyer, its shop, its operators, its channel and its attackers.

Each act does one thing through the product's own steps, on the storm's clock and dice. What it reads it reads as an observer,
on a connection of its own: only what is committed.
"""

import json
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from payonce.channels.sandbox import outbox
from payonce.channels.sandbox.control import ControlError
from payonce.channels.sandbox.outbox import Notification
from payonce.channels.sandbox.sender import Style
from payonce.orders.errors import AmendRefused, InvalidOrder, PlaceConflict
from payonce.orders.place import place_order
from payonce.payments import capture, close, expire, poll, refund
from payonce.payments.api.callers import Caller
from payonce.payments.api.idempotency import take_key
from payonce.payments.api.pay import PayView
from payonce.payments.api.problems import Problem
from payonce.payments.message_rows import resend, skip
from payonce.payments.pay import pay_order
from payonce.payments.pay_result import PayRequest
from payonce.payments.surplus import decide_case
from tests.model.world import ACCOUNTS

if TYPE_CHECKING:
    from tests.model.storm import Storm

FORGERIES = ("bad_signature", "no_signature", "altered_body", "wrong_account", "other_secret")
PERSONS = ("alice", "bob")
MILD = ("meanwhile", "placed again", "second capture", "dispute", "reverse", "outside_refund", "refund: returned")
STREAMS = """
SELECT s.number, s.account, s.state, s.amount_minor, s.surplus_reason, o.keeper FROM payonce_stream s
JOIN payonce_order o ON o.id = s.order_id WHERE o.number = %s AND s.origin_number = '' ORDER BY s.id DESC
"""
REFUNDS = """
SELECT r.number, r.state, r.requested_by FROM payonce_refund r JOIN payonce_stream s ON s.id = r.stream_id
JOIN payonce_order o ON o.id = s.order_id WHERE o.number = %s ORDER BY r.id DESC
"""
CASES = """
SELECT c.id, c.kind FROM payonce_discrepancy c JOIN payonce_order o ON o.id = c.order_id
WHERE o.number = %s AND c.state <> 'RESOLVED' ORDER BY c.id DESC
"""
PARKED = """
SELECT m.id FROM payonce_shop_message m JOIN payonce_order o ON o.id = m.order_id WHERE o.number = %s AND m.state = 'PARKED'
"""


@dataclass
class Tale:
    """One order of a storm: what it is, what is still to happen to it, and what went wrong around it."""

    reference: str
    amount: int
    life: int | None
    plot: deque[str]
    number: str = ""
    expires_at: datetime | None = None
    faults: Counter[str] = field(default_factory=Counter)
    told: set[str] = field(default_factory=set)
    key: str = ""
    body: str = ""

    @property
    def is_faulted(self) -> bool:
        """Did something fail around it? That others came between, or that money went odd ways, is not yet a fault."""
        return any(name not in MILD for name in self.faults)


class KeyedPay(PayView):
    """The pay view behind its door: what it does once the key is read."""

    caller = Caller("shop:shop", source="shop")  # type: ignore[assignment]


class Acts:
    """One method for each act; its name in a plot is the method's, and a plot may give it an argument after a colon."""

    def __init__(self, storm: "Storm") -> None:
        self.storm, self.world, self.dice = storm, storm.world, storm.dice
        self.control = storm.world.control

    def do(self, tale: Tale, act: str) -> None:
        """Do it."""
        name, _, argument = act.partition(":")
        getattr(self, name)(tale, *([argument] if argument else []))

    # --- what an act looks at ---

    def streams(self, tale: Tale) -> list[dict[str, Any]]:
        """The newest first."""
        return self.storm.rows(STREAMS, tale.number)

    def any_stream(self, tale: Tale) -> dict[str, Any] | None:
        """Mostly the newest one."""
        rows = self.streams(tale)
        return rows[0 if self.dice.random() < 0.6 else self.dice.randrange(len(rows))] if rows else None

    def messages(self, tale: Tale) -> list[Notification]:
        """What the bank owes about the order, the oldest first."""
        database = self.world.bank.database
        rows = [
            row for stream in self.streams(tale) for row in outbox.find(database, stream["account"], stream["number"])
        ]
        return sorted(rows, key=lambda row: row.id)

    # --- the shop ---

    def place(self, tale: Tale) -> None:
        if tale.expires_at is None and tale.life is not None:
            tale.expires_at = self.world.now + timedelta(seconds=tale.life)
        try:
            with self.storm.process(tale):
                placed = place_order(
                    "shop", tale.reference, amount_minor=tale.amount, currency="CNY", subject="Book", expires_at=tale.expires_at
                )  # fmt: skip
                self.world.log("place", "ok", {}, {"order": placed.order.number})
                tale.number = placed.order.number
        except (PlaceConflict, InvalidOrder):
            return  # amended meanwhile, or its time is over before it was ever placed
        if not tale.number:
            tale.plot.appendleft("place")  # a shop that got no answer asks again
            tale.faults["placed again"] += 1

    def amend(self, tale: Tale, amount: str = "") -> None:
        try:
            with self.storm.process(tale):
                place_order(
                    "shop", tale.reference, amount_minor=int(amount or self.dice.choice([500, 1000])), currency="CNY",
                    subject="Book", expires_at=tale.expires_at, amend=True,
                )  # fmt: skip
        except (AmendRefused, PlaceConflict, InvalidOrder, ValueError):
            pass

    def cancel(self, tale: Tale) -> None:
        with self.storm.process(tale):
            expire.close_order(tale.number, by="shop:shop")

    # --- the buyer ---

    def pay(self, tale: Tale, account: str = "") -> None:
        account = account or self.dice.choice(list(ACCOUNTS))
        args = {"order": tale.number, "channel": account, "method": "qr", "db_at": self.world.now.timestamp()}
        with self.storm.process(tale):
            result = pay_order(tale.number, account, "qr")
            self.world.log("pay", "ok", args, _facts(result))

    def pay_again(self, tale: Tale) -> None:
        """The same choice once more: a double click, or a page that was loaded again."""
        streams = self.streams(tale)
        self.pay(tale, streams[0]["account"] if streams else "")

    def switch(self, tale: Tale) -> None:
        """Another channel than the last one."""
        streams = self.streams(tale)
        last = streams[0]["account"] if streams else ""
        self.pay(tale, self.dice.choice([name for name in ACCOUNTS if name != last]))

    def keyed(self, tale: Tale, account: str = "") -> None:
        """The same Idempotency-Key again and again; sometimes with another body."""
        tale.key = tale.key or f"key-{tale.reference}"
        tale.body = tale.body or account or self.dice.choice(list(ACCOUNTS))
        other = self.dice.random() < 0.15
        account = self.dice.choice([name for name in ACCOUNTS if name != tale.body]) if other else tale.body
        body = {"channel": account, "method": "qr", "client_type": "", "payer": ""}
        args = {"order": tale.number, "channel": account, "method": "qr", "db_at": self.world.now.timestamp()}
        with self.storm.process(tale):
            try:
                held = take_key("shop:shop", "pay", tale.key, tale.number, body)
                result = KeyedPay()._pay_with_key(held, PayRequest(tale.number, account, "qr", "", "", ""))
            except Problem as problem:
                self.world.log("pay", "fail", args, {"code": problem.code})
                return
            if result.code == "prepay":
                args |= {"idempotency_key": tale.key, "caller": "shop:shop", "body": json.dumps(body)}
            self.world.log("pay", "ok", args, _facts(result))

    def open_page(self, tale: Tale) -> None:
        self._touch(tale, "open_page")

    def begin(self, tale: Tale) -> None:
        self._touch(tale, "begin")

    def decline(self, tale: Tale) -> None:
        self._touch(tale, "decline")

    def _touch(self, tale: Tale, act: str) -> None:
        stream = self.any_stream(tale)
        if stream is not None:
            getattr(self.control, act)(stream["number"], account=stream["account"])

    def wallet(self, tale: Tale, which: str = "0") -> None:
        """The buyer pays by the newest code, or by an older one."""
        self._tender(tale, int(which))

    def force(self, tale: Tale, which: str = "0") -> None:
        """Late bank money: it comes although the payment is closed or over."""
        self._tender(tale, int(which), force=True)

    def wrong_amount(self, tale: Tale) -> None:
        self._tender(tale, 0, less=1)

    def wrong_currency(self, tale: Tale) -> None:
        self._tender(tale, 0, currency="EUR")

    def _tender(self, tale: Tale, which: int, *, force: bool = False, less: int = 0, currency: str = "") -> None:
        rows = self.streams(tale)
        if not rows:
            return
        stream = rows[min(which, len(rows) - 1)]
        amount = stream["amount_minor"] - less
        acted = self.control.pay(
            stream["number"], account=stream["account"], amount_minor=amount, currency=currency, force=force
        )
        if acted.ok and acted.state == "PAID":
            self.world.took(stream["account"], stream["number"], amount)

    def second_capture(self, tale: Tale) -> None:
        """The bank takes it twice under one number."""
        stream = self.any_stream(tale)
        if stream is not None and self.control.second_capture(stream["number"], account=stream["account"]).ok:
            self.world.took(stream["account"], stream["number"], stream["amount_minor"])
            tale.faults["second capture"] += 1

    # --- the channel ---

    def notify(self, tale: Tale, how: str = "") -> None:
        """What was not told yet arrives: in order, the newest first, twice, or everything from the start once more."""
        messages = self.messages(tale)
        if how != "all":
            messages = [row for row in messages if row.key not in tale.told]
        if how == "reversed":
            messages.reverse()
        if messages and how:
            tale.faults[f"notification: {how}"] += 1
        for message in messages:
            for _ in range(2 if how == "twice" else 1):
                self._hand_over(tale, message, Style(), "notify")

    def lose(self, tale: Tale) -> None:
        """What was not told yet never will be."""
        lost = [row for row in self.messages(tale) if row.key not in tale.told]
        for message in lost:
            tale.told.add(message.key)
            self.storm.lost.add(message.key)
            tale.faults["notification: lose"] += 1
            self.world.log("lose", "ok")

    def forge(self, tale: Tale) -> None:
        message = self._message(tale)
        if message is not None:
            tale.faults["notification: forge"] += 1
            self._hand_over(tale, message, Style(forgery=self.dice.choice(FORGERIES)), "forge")

    def stale(self, tale: Tale) -> None:
        message = self._message(tale)
        if message is not None:
            tale.faults["notification: stale"] += 1
            self._hand_over(tale, message, Style(signed_ago_seconds=3600), "stale")

    def orphan(self, tale: Tale) -> None:
        """A true message about a number that matches no stream: of ours, or of somebody else."""
        message = self._message(tale)
        if message is not None and message.event.startswith("payment"):
            number = self.dice.choice([f"{tale.number}s77", "somebody-else-1"])
            tale.faults["notification: orphan"] += 1
            message = replace(message, key=f"{message.key}-{number}")
            self._hand_over(tale, message, Style(altered={"number": number}), "notify")

    def _message(self, tale: Tale) -> Notification | None:
        messages = self.messages(tale)
        return self.dice.choice(messages) if messages else None

    def _hand_over(self, tale: Tale, message: Notification, style: Style, log_as: str) -> None:
        with self.storm.process(tale):
            result = self.world.deliver(message, style, log_as)
            if log_as == "notify" and result.answer.status == 200:
                tale.told.add(message.key)

    def settle_refund(self, tale: Tale) -> None:
        """The bank goes on with a refund."""
        rows = [row for row in self.storm.bank_refunds(tale.number) if not row["outside"]]
        if rows:
            row = self.dice.choice(rows)
            state = self.dice.choice(["DONE", "DONE", "FAILED", "ATTENTION", "RETURNED"])
            acted = self.control.settle_refund(row["payment_number"], row["number"], state, account=row["account"])
            if acted.ok and state != "DONE":
                tale.faults[f"refund: {state.lower()}"] += 1

    def money_leaves(self, tale: Tale) -> None:
        """A dispute, a reversal, or a refund in the bank's own console."""
        stream, act = self.any_stream(tale), self.dice.choice(["dispute", "reverse", "outside_refund"])
        if stream is None:
            return
        amount = self.dice.choice([100, 500, 1000])
        tale.faults[act] += 1
        if act != "outside_refund":
            getattr(self.control, act)(stream["number"], account=stream["account"], amount_minor=amount)
            return
        try:
            self.control.outside_refund(stream["number"], amount, account=stream["account"])
        except ControlError:
            pass

    # --- operators ---

    def look(self, tale: Tale) -> None:
        stream = self.any_stream(tale)
        if stream is None:
            return
        act, number = self.dice.choice(["poll", "close", "nudge", "capture"]), stream["number"]
        with self.storm.process(tale):
            if act == "poll":
                poll.poll_stream(number, by="operator:alice")
            elif act == "close":
                close.close_stream(number, by="operator:alice")
            elif act == "capture":
                capture.capture_stream(number)
            else:
                poll.nudge(number)

    def ask_refund(self, tale: Tale, amount_minor: str = "") -> None:
        stream = self.any_stream(tale)
        if stream is None:
            return
        amount, by = int(amount_minor or self.dice.choice([1000, 500, 400])), self.dice.choice(PERSONS)
        with self.storm.process(tale):
            asked = refund.request_refund(stream["number"], amount, reason="duplicate", by=by)
            self.world.log("refund", "ok", {"order": tale.number}, {"refund": asked.number})

    def judge_refund(self, tale: Tale, act: str = "") -> None:
        rows = self.storm.rows(REFUNDS, tale.number)
        if not rows:
            return
        row, act = (
            self.dice.choice(rows),
            act or self.dice.choice(["approve", "decline", "retry", "write_off", "confirm"]),
        )
        done = {item["number"] for item in self.storm.bank_refunds(tale.number) if item["state"] == "DONE"}
        by = next(name for name in PERSONS if name != row["requested_by"])
        if self.dice.random() < 0.3:
            by = self.dice.choice(PERSONS)
        if act != "confirm" or row["number"] in done:  # a person confirms what the channel shows
            with self.storm.process(tale):
                getattr(refund, f"{act}_refund")(row["number"], by)

    def decide(self, tale: Tale) -> None:
        rows = self.storm.rows(CASES, tale.number)
        if rows:
            decision = self.dice.choice(["refund", "refund", "keep", "accept", "dismiss"])
            with self.storm.process(tale):
                decide_case(self.dice.choice(rows)["id"], decision, self.dice.choice(PERSONS))

    def parked(self, tale: Tale) -> None:
        rows = self.storm.rows(PARKED, tale.number)
        if rows:
            with self.storm.process(tale):
                self.dice.choice([resend, skip])(rows[0]["id"], by="operator:alice")

    # --- Redis and time ---

    def cache(self, tale: Tale, how: str = "") -> None:
        """Redis loses, changes or brings back what it knew about the order."""
        redis = self.storm.redis
        if redis is None:
            return
        key, gate = f"payonce:order:{tale.number}", f"payonce:gate:{tale.number}"
        how = how or self.dice.choice(["flush", "poison", "stale", "turn"])
        if how == "flush":
            is_hit = redis.delete(key, gate) > 0
        elif how == "turn":
            is_hit = bool(redis.set(gate, b"nobody", nx=True, px=20_000))
        elif how == "poison":
            is_hit = self._poison(tale, key)
        else:
            known = [entry for entry in redis.seen.get(key, ()) if entry[1] > self.world.now.timestamp()]
            is_hit = bool(known)
            if known:
                redis.values[key] = self.dice.choice(known)
        if is_hit:
            tale.faults[f"cache: {how}"] += 1

    def _poison(self, tale: Tale, key: str) -> bool:
        """Another order's entry, an altered one, or bytes of nobody."""
        redis = self.storm.redis
        assert redis is not None
        others = [
            entry[-1][0] for name, entry in redis.seen.items() if name.startswith("payonce:order:") and name != key
        ]
        mine = [entry[0] for entry in redis.seen.get(key, ())]
        choices = [
            b"\xff\x00nonsense",
            b"999999:0:{}",
            *others[-3:],
            *(value.replace(b'"qr"', b'"h5"') for value in mine),
        ]
        redis.set(key, self.dice.choice(choices), px=30_000)
        return True

    def late(self, tale: Tale) -> None:
        """The order's time is over."""
        self.storm.pass_time(70)
        self.storm.sweep("expire")

    def sweep_poll(self, tale: Tale) -> None:
        self.storm.pass_time(4)
        self.storm.sweep("poll")

    def sweep_refund(self, tale: Tale) -> None:
        self.storm.sweep("refund")


def _facts(result: Any) -> dict[str, Any]:
    facts = {"code": result.code.value, "stream": result.stream}
    if result.code == "prepay":
        facts |= {"amount_minor": result.amount_minor, "currency": result.currency}
    return facts
