"""An order with its streams, refunds and cases that were never stored: for tests that look at one decision, to its last field.

A step opens its `Work` with `under_lock`; here a test makes it. No test of this kind needs a server, so each takes milliseconds.
"""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from django.db import models

from payonce.channels.messages import PaymentState, PaymentView
from payonce.orders.events import Journal
from payonce.orders.models import Order
from payonce.payments.locks import Work
from payonce.payments.models import Discrepancy, Refund, Stream

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


class UnstoredWork(Work):
    """Rows get ids and stay in memory."""

    ids = count(101)

    def add(self, row: models.Model) -> None:
        row.pk = next(self.ids)
        super().add(row)

    def add_now(self, row: models.Model) -> None:
        row.pk = next(self.ids)
        rows: dict[type[models.Model], list[Any]] = {Stream: self.streams, Refund: self.refunds}
        rows[type(row)].append(row)

    @property
    def kinds(self) -> list[str]:
        """What happened, in order."""
        return [event.kind for event in self.journal.events]

    def case(self) -> Discrepancy:
        """The only case there is."""
        (only,) = self.cases
        return only


def work_of(
    *streams: Stream, refunds: list[Refund] | None = None, cases: list[Discrepancy] | None = None, **fields: Any
) -> UnstoredWork:
    """The work on an order of 1000 that holds these rows; by default OPEN, or PAID by its keeper."""
    keeper = next((row.number for row in streams if row.role == "keeper"), None)
    known = {"state": "PAID" if keeper else "OPEN", "keeper": keeper, "created_at": NOW - HOUR, **fields}
    order = Order(
        pk=1, source="shop", reference="A-1", **{"number": "po1", "amount_minor": 1000, "currency": "CNY", **known}
    )
    work = UnstoredWork(
        "default", order, list(streams), Journal(NOW, "system:test"), _refunds=refunds or [], _cases=cases or []
    )
    for stream in streams:
        stream.order = order
    for case in work.cases:
        case.order = order
    return work


def stream_in(state: str, number: int = 1, **fields: Any) -> Stream:
    """A stream of 1000 at `scripted_a`, made ten minutes ago and payable for two hours."""
    known: dict[str, Any] = {
        "attempt": number, "account": "scripted_a", "method": "qr", "amount_minor": 1000, "currency": "CNY",
        "created_at": NOW - 10 * MINUTE, "payable_until": NOW + 110 * MINUTE, "next_check_at": NOW - SECOND,
    }  # fmt: skip
    if state == "SUCCEEDED":
        money = {"captured_minor": 1000, "captured_currency": "CNY", "channel_reference": f"ref-{number}"}
        known |= {"role": "keeper", "succeeded_at": NOW - MINUTE, "next_check_at": None, **money}
    return Stream(pk=number, number=f"po1s{number:02d}", state=state, **{**known, **fields})


def surplus_in_memory(number: int = 1, reason: str = "duplicate", **fields: Any) -> Stream:
    """A stream that took 1000 and is not its order's keeper."""
    return stream_in("SUCCEEDED", number, role="surplus", surplus_reason=reason, **fields)


def refund_of(stream: Stream, state: str, number: int = 1, **fields: Any) -> Refund:
    """A refund of all of the stream's money, asked for by `ann` an hour ago; its stream holds the reservation."""
    known: dict[str, Any] = {
        "purpose": "operator", "sequence": number, "amount_minor": stream.captured_minor, "currency": "CNY", "reason": "other",
        "requested_by": "ann", "created_at": NOW - HOUR,
    }  # fmt: skip
    letter = "s" if fields.get("purpose") == "surplus" else "p"
    row = Refund(
        pk=number, number=f"{stream.number}r{letter}{number}", stream=stream, state=state, **{**known, **fields}
    )
    if not row.is_released:
        stream.refund_reserved_minor += row.amount_minor
    return row


def case_of(kind: str, stream: Stream | None, number: int = 1, **fields: Any) -> Discrepancy:
    """A person's open case about the stream."""
    known: dict[str, Any] = {"state": "OPEN", "subject": stream.number if stream else "", "opened_at": NOW - HOUR}
    account = stream.account if stream else ""
    return Discrepancy(pk=number, kind=kind, stream=stream, account=account, **{**known, **fields})


def says(stream: Stream, state: str, **facts: Any) -> PaymentView:
    """What the channel says about the stream; a success matches it unless a fact differs."""
    if state == "PAID":
        paid = {"currency": stream.currency, "paid_minor": stream.amount_minor}
        facts = {**paid, "channel_reference": stream.channel_reference or f"ref-{stream.pk}", **facts}
    return PaymentView(stream.channel_number, PaymentState(state), **facts)


def store(work: UnstoredWork, at: datetime = NOW) -> None:
    """Write the rows after all, under ids of the database, for a step that opens its own work; at `at` as old as they were at `NOW`."""
    rows: list[models.Model] = [work.order, *work.streams, *work.refunds, *work.cases]
    for row in rows:
        row.pk = None
        for field in row._meta.concrete_fields:
            value = getattr(row, field.attname)
            if isinstance(value, datetime):
                setattr(row, field.attname, value + (at - NOW))
            elif field.is_relation:
                setattr(row, field.name, getattr(row, field.name))  # its id is known by now
        row.save(force_insert=True)
