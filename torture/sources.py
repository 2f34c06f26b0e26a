"""Where the facts of a run come from: PostgreSQL, the channel's ledger, the shop's inbox and the history of operations."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

Row = dict[str, Any]


class SourceError(Exception):
    """A source cannot be read; the text says which and why."""


@dataclass(frozen=True)
class Ledger:
    """The channel's own books. `captures` carry account and number; amounts are minor units, times Unix seconds.

    `notes` are what a wire format keeps beside them, its values as JSON.
    """

    payments: list[Row] = field(default_factory=list)
    captures: list[Row] = field(default_factory=list)
    refunds: list[Row] = field(default_factory=list)
    journal: list[Row] = field(default_factory=list)
    notifications: list[Row] = field(default_factory=list)
    notes: list[Row] = field(default_factory=list)


_LEDGER_QUERIES = {
    "payments": "SELECT * FROM payment ORDER BY id",
    "captures": "SELECT payment.account, payment.number, capture.* FROM capture"
    " JOIN payment ON payment.id = capture.payment_id ORDER BY capture.id",
    "refunds": "SELECT payment.account, payment.number AS payment_number, capture.reference AS capture_reference, refund.*"
    " FROM refund JOIN payment ON payment.id = refund.payment_id JOIN capture ON capture.id = refund.capture_id"
    " ORDER BY refund.id",
    "journal": "SELECT * FROM journal ORDER BY id",
    "notifications": "SELECT account, number, event, state, attempts, created_at FROM notification ORDER BY id",
    "notes": "SELECT account, kind, key, value FROM note WHERE kind IN ('stated', 'order') ORDER BY account, kind, key",
}


def read_ledger(path: Path) -> Ledger:
    """Read the sandbox's SQLite file (or its folder), or a JSON dump of its control API, as one consistent picture."""
    if path.is_dir():
        path /= "bank.sqlite3"
    if not path.is_file():
        raise SourceError(f"there is no ledger {path}")
    if path.suffix == ".json":
        return ledger_of_dump(json.loads(path.read_text()))
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as database:
            database.row_factory = sqlite3.Row
            database.execute("PRAGMA busy_timeout = 5000")
            database.execute("BEGIN")
            found = {name: [dict(row) for row in database.execute(sql)] for name, sql in _LEDGER_QUERIES.items()}
    except sqlite3.Error as error:
        raise SourceError(f"the ledger {path} cannot be read: {error}") from error
    return Ledger(**found)


def ledger_of_dump(dump: Row) -> Ledger:
    """The ledger from what the control API's `ledger` call answers."""
    captured = {row["id"]: row["reference"] for row in dump["captures"]}
    refunds = [{**row, "capture_reference": captured.get(row["capture_id"], "")} for row in dump["refunds"]]
    return Ledger(dump["payments"], dump["captures"], refunds, dump["journal"], dump.get("notifications", []))


def read_lines(path: Path) -> list[Row]:
    """Read JSON lines. A last line that was cut off by a killed writer is left out; any other broken line is an error."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise SourceError(f"{path}: line {number} is not JSON") from error
    return rows


_TABLES = {
    "streams": ("payonce_stream", "order_id"),
    "events": ("payonce_event", "order_id, sequence"),
    "cases": ("payonce_discrepancy", "id"),
    "messages": ("payonce_shop_message", "order_id, listener, sequence"),
}
_REFUNDS = (
    "SELECT r.*, s.order_id FROM payonce_refund r JOIN payonce_stream s ON s.id = r.stream_id"
    " WHERE s.order_id = ANY(%s) ORDER BY r.id"
)
_DUPLICATE_REFERENCES = """
SELECT account, channel_reference, array_agg(number ORDER BY id) AS numbers FROM payonce_stream
WHERE channel_reference IS NOT NULL GROUP BY account, channel_reference HAVING count(*) > 1
"""
_MINOR_COLUMNS = """
SELECT table_name, column_name, data_type FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name LIKE 'payonce_%' AND column_name LIKE '%\\_minor'
"""
_GUARDS = """
SELECT tgname FROM pg_trigger WHERE tgrelid = 'payonce_event'::regclass AND NOT tgisinternal
    AND tgenabled IN ('O', 'A') AND (tgtype & 2) = 2 AND (tgtype & 24) = 24
"""


class Database:
    """One consistent picture of payonce's rows: a repeatable-read transaction, read in batches of orders."""

    def __init__(self, where: str | psycopg.Connection[Row]) -> None:
        """Open a URL, or look through a connection as it stands, inside its own transaction."""
        self._is_own = isinstance(where, str)
        try:
            if isinstance(where, str):
                self._connection = psycopg.Connection[Row].connect(where, row_factory=dict_row)
                self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                self._connection.read_only = True
            else:
                self._connection = where
            self.at = self.rows("SELECT payonce_now() AS at")[0]["at"]
        except psycopg.Error as error:
            raise SourceError(f"the database cannot be read: {error}") from error

    def close(self) -> None:
        """Give the connection back, unless it was lent."""
        if self._is_own:
            self._connection.close()

    def rows(self, sql: str, *params: object) -> list[Row]:
        """Every row of a query."""
        return self._connection.execute(sql, params or None).fetchall()

    def batches(self, size: int) -> Iterator[dict[str, list[Row]]]:
        """The orders, `size` at a time, each batch with every row that belongs to them."""
        last = 0
        while True:
            orders = self.rows("SELECT * FROM payonce_order WHERE id > %s ORDER BY id LIMIT %s", last, size)
            if not orders:
                return
            ids = [row["id"] for row in orders]
            last = ids[-1]
            found = {
                name: self.rows(f"SELECT * FROM {table} WHERE order_id = ANY(%s) ORDER BY {key}", ids)
                for name, (table, key) in _TABLES.items()
            }
            yield {"orders": orders, "refunds": self.rows(_REFUNDS, ids), **found}

    def numbers(self) -> dict[str, set[str]]:
        """Every stream's number as its channel knows it and as it is told to buyers, and every refund's number."""
        streams = self.rows("SELECT number, origin_number FROM payonce_stream")
        refunds = self.rows("SELECT number FROM payonce_refund")
        return {
            "streams": {row["origin_number"] or row["number"] for row in streams},
            "told": {row["number"] for row in streams},
            "refunds": {row["number"] for row in refunds},
        }

    def alone(self) -> dict[str, list[Row]]:
        """Rows that belong to no order, and what only the database as a whole can tell."""
        return {
            "cases": self.rows("SELECT * FROM payonce_discrepancy WHERE order_id IS NULL ORDER BY id"),
            "notifications": self.rows(
                "SELECT id, account, dedupe_key, state, number, result, count, next_try_at, received_at, error"
                " FROM payonce_notification ORDER BY id"
            ),
            "shared_references": self.rows(_DUPLICATE_REFERENCES),
            "amount_columns": self.rows(_MINOR_COLUMNS),
            "guards": self.rows(_GUARDS),
        }


@dataclass(frozen=True)
class Operation:
    """One operation of the history: invoked at, ended at (None: never), how (ok, fail, unknown), asked and answered."""

    op: str
    process: str
    invoked_at: float
    ended_at: float | None
    how: str
    args: Row
    result: Row


def operations(lines: Iterable[Row]) -> list[Operation]:
    """Pair the lines of a history by `id`. An invocation without an end is unknown: its client may have been killed.

    A line is {"id", "type": "invoke" | "ok" | "fail" | "unknown", "op", "process", "at" (Unix seconds), "args", "result"}.
    """
    invoked: dict[Any, Row] = {}
    found: list[Operation] = []
    for line in lines:
        if line["type"] == "invoke":
            invoked[line["id"]] = line
            continue
        began = invoked.pop(line["id"], line)
        found.append(_operation(began, line["type"], line))
    found += [_operation(began, "unknown", None) for began in invoked.values()]
    return sorted(found, key=lambda item: item.invoked_at)


def _operation(began: Row, how: str, ended: Row | None) -> Operation:
    result = dict(ended.get("result") or {}) if ended else {}
    args = {**(began.get("args") or {}), **((ended.get("args") or {}) if ended else {})}
    at = float(ended["at"]) if ended else None
    return Operation(began["op"], str(began.get("process", "")), float(began["at"]), at, how, args, result)
