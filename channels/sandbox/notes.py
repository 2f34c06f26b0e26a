"""What a skin remembers beside the ledger, such as its own ids of a payment or stored answers: JSON by account, kind and key."""

import json
import sqlite3
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Note:
    """One remembered value and when it was written, in Unix seconds."""

    key: str
    value: Any
    at: float


def find_note(database: sqlite3.Connection, account: str, kind: str, key: str) -> Note | None:
    """The note of this key."""
    query = "SELECT key, value, at FROM note WHERE account = ? AND kind = ? AND key = ?"
    row = database.execute(query, (account, kind, key)).fetchone()
    return None if row is None else Note(row["key"], json.loads(row["value"]), row["at"])


def find_notes(database: sqlite3.Connection, account: str, kind: str, since: float = 0.0) -> list[Note]:
    """All notes of a kind written since then, the newest first."""
    query = "SELECT key, value, at FROM note WHERE account = ? AND kind = ? AND at >= ? ORDER BY at DESC, rowid DESC"
    return [
        Note(row["key"], json.loads(row["value"]), row["at"]) for row in database.execute(query, (account, kind, since))
    ]


def write_note(database: sqlite3.Connection, account: str, kind: str, key: str, value: Any, at: float) -> None:
    """Write a note, or replace it."""
    database.execute(
        "INSERT INTO note (account, kind, key, value, at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (account, kind, key) DO UPDATE SET value = excluded.value, at = excluded.at",
        (account, kind, key, json.dumps(value), at),
    )


def drop_notes(database: sqlite3.Connection, account: str, kind: str, before: float) -> None:
    """Forget the notes of a kind that were written before then."""
    database.execute("DELETE FROM note WHERE account = ? AND kind = ? AND at < ?", (account, kind, before))
