"""Floors: the very statements of a path, sent in as few round trips as the database allows, and nothing else.

A path is run once and its statements are written down; the floor replays them for another order, one flight per transaction.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connection, connections

from benchmarks.world import ORDER_IDS, STREAM_IDS
from payonce.payments import flight
from payonce.payments.flight import Statement

Transaction = list[Statement]
NEW_STREAM = 'INSERT INTO "payonce_stream"'


@contextmanager
def recorded() -> Iterator[list[Transaction]]:
    """Write down the statements that run inside the block, grouped by transaction."""
    found: list[Transaction] = []
    fly, is_open = flight.fly, [False]

    def fly_and_record(statements: Sequence[Statement], using: str) -> Any:
        within = connections[using].in_atomic_block
        if not (within and is_open[0]):
            found.append([])
        found[-1] += [Statement(text, list(params)) for text, params in statements]
        is_open[0] = within
        if within:
            connections[using].on_commit(lambda: is_open.__setitem__(0, False))
        return fly(statements, using)

    flight.fly = fly_and_record
    try:
        yield found
    finally:
        flight.fly = fly


class Replay:
    """The floor of one recorded path."""

    def __init__(self, transactions: list[Transaction], number: str) -> None:
        self.transactions = transactions
        self.number = number
        self.place = int(number[3:])
        self.stream_id = self._id_of_new_stream()

    def _id_of_new_stream(self) -> int | None:
        from payonce.payments.models import Stream

        if not any(text.startswith(NEW_STREAM) for part in self.transactions for text, _ in part):
            return None
        return Stream.objects.get(order__number=self.number).pk

    def run(self, session: psycopg.Connection[Any], number: str) -> None:
        """Do for the order `number` what was recorded: one round trip per transaction."""
        place, stream_id = int(number[3:]), None
        for transaction in self.transactions:
            cursors = []
            with session.pipeline():
                session.execute("BEGIN")
                for text, params in transaction:
                    is_new = text.startswith(NEW_STREAM)
                    moved = [self._moved(value, number, place, stream_id) for value in params]
                    cursors.append((is_new, session.execute(f"{text} RETURNING id" if is_new else text, moved)))
                session.execute("COMMIT")
            for is_new, cursor in cursors:
                rows = cursor.fetchall() if cursor.description else []
                stream_id = rows[0][0] if is_new else stream_id

    def _moved(self, value: Any, number: str, place: int, stream_id: int | None) -> Any:
        if isinstance(value, str):
            return value.replace(self.number, number)
        if isinstance(value, bytes):
            return value.replace(self.number.encode(), number.encode())
        if value == ORDER_IDS + self.place:
            return ORDER_IDS + place
        if value == STREAM_IDS + self.place:
            return STREAM_IDS + place
        if self.stream_id is not None and value == self.stream_id and not isinstance(value, bool):
            return stream_id
        return value


def record(path: Callable[[str], object], number: str, order: str) -> Replay:
    """Run a path once and make its floor."""
    with recorded() as found:
        path(number)
    return Replay(found, order)


def new_session() -> psycopg.Connection[Any]:
    """A raw connection to the database of the run, in autocommit."""
    now = connection.settings_dict
    return psycopg.connect(
        host=now["HOST"] or None, port=now["PORT"] or None, user=now["USER"], password=now["PASSWORD"] or None,
        dbname=now["NAME"], autocommit=True, prepare_threshold=None,
    )  # fmt: skip
