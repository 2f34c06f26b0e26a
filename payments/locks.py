"""The one home of row locks and of their order: order, then streams, then refunds, each by primary key.

`under_lock` opens a durable transaction, locks an order with its streams in one flight, reads the database's clock after
the lock was granted, lets a decision change the rows in memory, writes every change and event in one flight, and commits.
Lock first, read in a second statement: a subquery that reads state inside the locking statement would answer from the
snapshot before the wait. (The key's own look-up may be a subquery: a stream never changes its order.)
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from django.db import DatabaseError, IntegrityError, InternalError, connections, models, transaction

from payonce.orders.conf import get_settings
from payonce.orders.errors import OrderNotFound
from payonce.orders.events import Journal
from payonce.orders.models import Order
from payonce.payments import clock, flight
from payonce.payments.constraints import domain_error
from payonce.payments.errors import InsideTransaction, StreamNotFound
from payonce.payments.flight import Statement
from payonce.payments.messages import messages_for, shop_event
from payonce.payments.models import Discrepancy, Refund, Stream
from payonce.payments.statuses import OPEN_STREAM_STATES, DiscrepancyState

T = TypeVar("T")
log = logging.getLogger("payonce.locks")
RETRIED_SQLSTATES = frozenset({"40001", "40P01"})  # serialization failure, deadlock: nothing was committed
TRIES = 3
TIMEOUTS = (
    "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true),"
    " set_config('idle_in_transaction_session_timeout', %s, true)"
)
ORDER_KEYS = {
    "order": "number = %s",
    "order_id": "id = %s",
    "stream": "id = (SELECT order_id FROM payonce_stream WHERE number = %s)",
    "refund": "id = (SELECT s.order_id FROM payonce_refund r JOIN payonce_stream s ON s.id = r.stream_id WHERE r.number = %s)",
    "reference": "id = (SELECT order_id FROM payonce_stream WHERE account = %s AND channel_reference = %s)",
}


@dataclass
class Work:
    """One order under its lock: what was read, what changes, and what to do after the commit."""

    using: str
    order: Order
    streams: list[Stream]
    journal: Journal
    extra: list[list[flight.Row]] = field(default_factory=list)
    new: list[models.Model] = field(default_factory=list)
    raw: list[Statement] = field(default_factory=list)
    callbacks: list[Callable[[], None]] = field(default_factory=list)
    hooks: list[Callable[[Any], None]] = field(default_factory=list)
    ran_hooks: list[str] | None = field(
        default_factory=list
    )  # the shop's own code that ran so far; None: it is not asked
    paid_event: Any = None
    _refunds: list[Refund] | None = None
    _cases: list[Discrepancy] | None = None

    @property
    def at(self) -> Any:
        """The database's time after the lock was granted."""
        return self.journal.at

    @property
    def refunds(self) -> list[Refund]:
        """The order's refunds, locked; read on first use, in a second flight."""
        if self._refunds is None:
            self._refunds = self.read_rows(
                Refund, "stream_id IN (SELECT id FROM payonce_stream WHERE order_id = %s) ORDER BY id FOR UPDATE"
            )
        return self._refunds

    @property
    def has_refunds(self) -> bool:
        """Were refunds looked at, and is there one?"""
        return bool(self._refunds)

    @property
    def cases(self) -> list[Discrepancy]:
        """The order's unresolved cases, locked; read on first use."""
        if self._cases is None:
            self._cases = self.read_rows(
                Discrepancy, f"order_id = %s AND state <> '{DiscrepancyState.RESOLVED}' ORDER BY id FOR UPDATE"
            )
        return self._cases

    @property
    def open_stream(self) -> Stream | None:
        """The one stream that the buyer may be paying."""
        return next((stream for stream in self.streams if stream.state in OPEN_STREAM_STATES), None)

    def stream(self, number: str) -> Stream:
        """The stream of this number. Raises StreamNotFound when it is not the order's."""
        for stream in self.streams:
            if stream.number == number:
                return stream
        raise StreamNotFound(f"Order {self.order.number} has no stream {number}.")

    def refund(self, number: str) -> Refund:
        """The refund of this number, which exists."""
        return next(refund for refund in self.refunds if refund.number == number)

    def stream_of(self, refund: Refund) -> Stream:
        """The stream that a refund gives back, as this work holds it."""
        return next(stream for stream in self.streams if stream.pk == refund.stream_id)

    def add(self, row: models.Model) -> None:
        """Insert a new row with the other writes."""
        self.new.append(row)
        if isinstance(row, Refund):
            self.refunds.append(row)
        elif isinstance(row, Discrepancy) and row.order_id is not None:
            self.cases.append(row)

    def add_now(self, row: models.Model) -> None:
        """Insert a row that others will point at, and learn its id (one more round trip, on cold paths only)."""
        row.pk = flight.fly([*self._updates(), flight.insert(row, "RETURNING id")], self.using)[-1][0][0]
        flight.remember(row)
        row._state.adding = False
        row._state.db = self.using
        if isinstance(row, Stream):
            self.streams.append(row)
        elif isinstance(row, Refund):
            self.refunds.append(row)

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Run once after the commit. A failure there is logged: every follow-up would be found by a sweep anyway."""
        self.callbacks.append(callback)

    def flush(self) -> None:
        """Write every change in one flight: rows, events, messages."""
        self.new.extend(messages_for(self.order, self.journal.events))
        if self.hooks:
            paid = next(event for event in self.journal.events if event.kind == "order.paid")
            self.paid_event = shop_event(self.order, paid)
        inserts = [flight.insert(row) for row in (*self.new, *self.journal.events)]
        written = self._updates() + inserts + self.raw
        self.new, self.raw, self.journal.events = [], [], []
        if written:
            flight.fly(written, self.using)

    def write_streams(self) -> None:
        """Write the changed streams only: the caller of an amendment writes its order and events itself."""
        found = [flight.update(stream) for stream in self.streams]
        written = [statement for statement in found if statement is not None]
        if written:
            flight.fly(written, self.using)

    def _updates(self) -> list[Statement]:
        # A stream that closes is written before one that opens: the index lets only one be open at any moment.
        streams = sorted(self.streams, key=lambda stream: stream.state in OPEN_STREAM_STATES)
        rows = [self.order, *streams, *(self._refunds or ()), *(self._cases or ())]
        found = [flight.update(row) for row in rows if row.pk is not None]
        return [statement for statement in found if statement is not None]

    def read_rows(self, model: type[flight.M], condition: str) -> list[flight.M]:
        """Rows that belong to the order; the condition's one placeholder is the order's id."""
        rows = flight.fly([flight.select(model, condition, [self.order.pk])], self.using)[0]
        return [flight.load(model, row, self.using) for row in rows]


def under_lock(by: str, decide: Callable[[Work], T], *, extra: tuple[Statement, ...] = (), **key: Any) -> T:
    """Lock the order named by one key (order, order_id, stream, refund or reference), run `decide`, write, commit, return its answer.

    A deadlock or serialization failure is retried from the lock on, so `decide` must be free of effects of its own.
    `extra` statements travel in the opening flight; their rows are in `Work.extra`. Raises OrderNotFound, InsideTransaction,
    a domain error for a violated constraint, or Django's OperationalError (lock not granted in time, connection lost).
    """
    tries, with_hooks = TRIES, True
    while True:
        ran_hooks: list[str] = []
        tries -= 1
        try:
            work, answer = _once(by, decide, extra, key, ran_hooks if with_hooks else None)
        except DatabaseError as error:
            is_retried = getattr(error.__cause__, "sqlstate", None) in RETRIED_SQLSTATES
            if ran_hooks and not is_retried:
                log.exception("the shop's %s broke the settle; settling without it (%s)", " and ".join(ran_hooks), key)
                with_hooks = False
                continue
            if is_retried and tries > 0:
                log.info("retrying after %s (%s)", type(error.__cause__).__name__, key)
                continue
            if isinstance(error, IntegrityError):
                raise domain_error(error) from error
            raise
        for callback in work.callbacks:
            _run_after_commit(callback)
        return answer


def lock_budget(work: Work, account: str) -> None:
    """Let one automatic refund of an account at a time look at the day's budget, until this transaction ends."""
    flight.fly(
        [Statement("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"payonce:budget:{account}"])], work.using
    )


def lock_case(case_id: int, using: str) -> Discrepancy:
    """Lock a case that belongs to no order. Needs an open transaction."""
    return Discrepancy.objects.using(using).select_for_update().get(pk=case_id)


def in_callers_transaction(order: Order, journal: Journal) -> Work:
    """The work on an order that the caller locked in its own open transaction (amending); the caller writes the order and events."""
    using = get_settings().DATABASE
    work = Work(using, order, [], journal)
    work.streams = work.read_rows(Stream, "order_id = %s ORDER BY id FOR UPDATE")
    return work


def _once(
    by: str, decide: Callable[[Work], T], extra: tuple[Statement, ...], key: dict[str, Any], ran_hooks: list[str] | None
) -> tuple[Work, T]:
    using = require_no_transaction()
    with transaction.atomic(using=using, durable=True):
        work = open_work(by, extra, key, using)
        work.ran_hooks = ran_hooks
        answer = decide(work)
        work.flush()
        if ran_hooks is not None:
            for hook in work.hooks:
                ran_hooks.append("order_paid_in_transaction")
                _run_hook(hook, work)
        if connections[using].needs_rollback:  # leaving the block would roll back without a word
            raise InternalError("the shop's own code broke the transaction")
    return work, answer


def _run_hook(hook: Callable[[Any], None], work: Work) -> None:
    """The shop's own database effects, in a savepoint: if it raises, they are undone and the money is recorded all the same."""
    try:
        with transaction.atomic(using=work.using):
            hook(work.paid_event)
    except Exception:
        log.exception(
            "the shop's order_paid_in_transaction failed for order %s; its own work was undone", work.order.number
        )


def require_no_transaction() -> str:
    """The alias of the database that steps use. Raises InsideTransaction when a transaction is open on it."""
    using = get_settings().DATABASE
    if connections[using].in_atomic_block and not _is_test_transaction(using):
        raise InsideTransaction(
            "This step was called inside a transaction. Call it after the commit (transaction.on_commit), or mark the"
            " view non_atomic_requests: a channel may only be called about committed rows."
        )
    return using


def _is_test_transaction(using: str) -> bool:
    """Django's TestCase wraps tests in a transaction that `durable=True` knows and lets pass; so do we."""
    blocks = connections[using].atomic_blocks
    return bool(blocks) and all(getattr(block, "_from_testcase", False) for block in blocks)


def open_work(by: str, extra: tuple[Statement, ...], key: dict[str, Any], using: str) -> Work:
    """The opening flight: time-outs, locks, clock. Raises OrderNotFound."""
    ((name, value),) = key.items()
    conf = get_settings()
    params = list(value) if isinstance(value, tuple) else [value]
    condition = ORDER_KEYS[name]
    timeouts = [str(conf.LOCK_TIMEOUT_MS), str(conf.STATEMENT_TIMEOUT_MS), str(conf.IDLE_TIMEOUT_MS)]
    streams = f"id = (SELECT id FROM payonce_order WHERE {condition})"
    results = flight.fly(
        [
            Statement(TIMEOUTS, timeouts),
            flight.select(Order, f"{condition} FOR UPDATE", params),
            flight.select(Stream, f"order_{streams} ORDER BY id FOR UPDATE", params),
            *extra,
            Statement("SELECT payonce_now()"),
        ],
        using,
    )
    if not results[1]:
        raise OrderNotFound(f"No order is known by {name} {value}.")
    clock.remember(results[-1][0][0])
    order = flight.load(Order, results[1][0], using)
    streams_read = [flight.load(Stream, row, using) for row in results[2]]
    for stream in streams_read:
        stream.order = order
    return Work(using, order, streams_read, Journal(at=results[-1][0][0], by=by), extra=results[3:-1])


def _run_after_commit(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:
        log.exception("a follow-up after the commit failed; a sweep will do it")
