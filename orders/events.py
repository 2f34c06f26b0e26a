"""The append-only history: how an event is built, chained to the one before, and verified."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from payonce.orders.errors import EventChainBroken
from payonce.orders.models import Event, Order


@dataclass
class Journal:
    """The events of one transaction. `at` is the database's time after the lock was granted; `by` is who acts.

    `by` is one of `buyer`, `shop:<source>`, `operator:<user>`, `channel:<account>` or `system:<step>`.
    """

    at: datetime
    by: str
    events: list[Event] = field(default_factory=list)

    def write(
        self, order: Order, kind: str, *, subject: str = "", before: str = "", after: str = "", **facts: Any
    ) -> Event:
        """Append one event to the order's history and move the order's head. Facts hold no personal data and no secret."""
        order.version += 1
        body = canonical(
            {
                "order": order.number,
                "sequence": order.version,
                "kind": kind,
                "subject": subject,
                "from": before,
                "to": after,
                "by": self.by,
                "at": self.at.astimezone(UTC).isoformat(timespec="microseconds"),
                "facts": {name: value for name, value in facts.items() if value not in (None, "")},
            }
        )
        order.event_hash = chain_hash(order.event_hash, body)
        event = Event(
            order=order,
            sequence=order.version,
            kind=kind,
            subject=subject,
            state_from=before,
            state_to=after,
            actor=self.by[:160],
            at=self.at,
            body=body,
            hash=order.event_hash,
        )
        self.events.append(event)
        return event


def canonical(body: dict[str, Any]) -> str:
    """JSON text with sorted keys and no spare space. A float is a mistake, since amounts are integers (raises TypeError)."""
    _refuse_floats(body)
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def chain_hash(previous: str, body: str) -> str:
    """Hex sha256 over the previous event's hash followed by this event's body."""
    return hashlib.sha256((previous + body).encode()).hexdigest()


def verify_chain(order: Order, events: Iterable[Event]) -> int:
    """Check gaps and hashes of an order's whole history, oldest first; return its length.

    Raises EventChainBroken with the first sequence that does not verify.
    """
    previous, sequence = "", 0
    for event in events:
        sequence += 1
        if event.sequence != sequence:
            raise EventChainBroken(f"Order {order.number}: event {sequence} is missing (found {event.sequence}).")
        previous = chain_hash(previous, event.body)
        if event.hash != previous:
            raise EventChainBroken(f"Order {order.number}: event {sequence} does not match its hash.")
    if order.version != sequence or order.event_hash != previous:
        raise EventChainBroken(
            f"Order {order.number}: the head says {order.version} events, the history has {sequence}."
        )
    return sequence


def _refuse_floats(value: Any) -> None:
    if isinstance(value, float):
        raise TypeError("An event holds no float: amounts are integer minor units.")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        _refuse_floats(item)
