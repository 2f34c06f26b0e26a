"""The bank's database: SQLite in WAL mode. The journal of true money movements refuses update and delete."""

import sqlite3
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS payment (
    id INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    number TEXT NOT NULL,
    token TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('OPEN', 'APPROVED', 'IN_PROGRESS', 'PAID', 'CLOSED')),
    amount_minor INTEGER NOT NULL CHECK (typeof(amount_minor) = 'integer' AND amount_minor > 0),
    currency TEXT NOT NULL,
    subject TEXT NOT NULL,
    method TEXT NOT NULL,
    client_type TEXT NOT NULL,
    payer TEXT NOT NULL,
    notify_url TEXT NOT NULL,
    return_url TEXT NOT NULL,
    payable_until REAL NOT NULL,
    prepay_expires_at REAL NOT NULL,
    created_at REAL NOT NULL,
    seen_at REAL,
    closed_at REAL,
    declined_count INTEGER NOT NULL DEFAULT 0,
    UNIQUE (account, number)
) STRICT;
CREATE INDEX IF NOT EXISTS payment_state ON payment (state, id);

CREATE TABLE IF NOT EXISTS capture (
    id INTEGER PRIMARY KEY,
    payment_id INTEGER NOT NULL REFERENCES payment (id),
    reference TEXT NOT NULL UNIQUE,
    capture_key TEXT NOT NULL,
    amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
    currency TEXT NOT NULL,
    paid_at REAL NOT NULL,
    refunded_minor INTEGER NOT NULL DEFAULT 0 CHECK (refunded_minor >= 0),
    disputed_minor INTEGER NOT NULL DEFAULT 0 CHECK (disputed_minor >= 0),
    reversed_minor INTEGER NOT NULL DEFAULT 0 CHECK (reversed_minor >= 0),
    CHECK (refunded_minor + disputed_minor + reversed_minor <= amount_minor)
) STRICT;
CREATE INDEX IF NOT EXISTS capture_payment ON capture (payment_id, id);

CREATE TABLE IF NOT EXISTS refund (
    id INTEGER PRIMARY KEY,
    payment_id INTEGER NOT NULL REFERENCES payment (id),
    capture_id INTEGER NOT NULL REFERENCES capture (id),
    number TEXT NOT NULL,
    reference TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('IN_PROGRESS', 'DONE', 'FAILED', 'ATTENTION', 'RETURNED')),
    amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
    currency TEXT NOT NULL,
    code TEXT NOT NULL DEFAULT '',
    notify_url TEXT NOT NULL,
    outside INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    settled_at REAL,
    due_at REAL,
    due_state TEXT,
    UNIQUE (payment_id, number)
) STRICT;
CREATE INDEX IF NOT EXISTS refund_capture ON refund (capture_id, id);
CREATE INDEX IF NOT EXISTS refund_due ON refund (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE IF NOT EXISTS journal (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    account TEXT NOT NULL,
    number TEXT NOT NULL,
    kind TEXT NOT NULL
        CHECK (kind IN ('capture', 'refund', 'refund_returned', 'dispute', 'reversal')),
    reference TEXT NOT NULL,
    refund_number TEXT NOT NULL,
    amount_minor INTEGER NOT NULL CHECK (typeof(amount_minor) = 'integer' AND amount_minor <> 0),
    currency TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS journal_number ON journal (account, number, id);
CREATE INDEX IF NOT EXISTS journal_at ON journal (account, at);
CREATE TRIGGER IF NOT EXISTS journal_no_update BEFORE UPDATE ON journal
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER IF NOT EXISTS journal_no_delete BEFORE DELETE ON journal
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

CREATE TABLE IF NOT EXISTS notification (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    number TEXT NOT NULL,
    event TEXT NOT NULL,
    url TEXT NOT NULL,
    content TEXT NOT NULL,
    created_at REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('NEW', 'HELD', 'DUE', 'SENDING', 'DELIVERED', 'LOST', 'EXHAUSTED')),
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at REAL,
    last_result TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX IF NOT EXISTS notification_due ON notification (due_at) WHERE state = 'DUE';
CREATE INDEX IF NOT EXISTS notification_new ON notification (id) WHERE state = 'NEW';
CREATE INDEX IF NOT EXISTS notification_number ON notification (account, number, id);

CREATE TABLE IF NOT EXISTS note (
    account TEXT NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (account, kind, key)
) STRICT;
"""

SYNCHRONOUS = ("FULL", "NORMAL", "OFF")


def open_database(path: Path, synchronous: str = "FULL") -> sqlite3.Connection:
    """Open or create the bank's database. FULL survives a power cut, NORMAL the death of the process."""
    if synchronous not in SYNCHRONOUS:
        raise ValueError(f"synchronous must be one of {', '.join(SYNCHRONOUS)}")
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"PRAGMA synchronous = {synchronous}")
    database.execute("PRAGMA foreign_keys = ON")
    database.execute("PRAGMA busy_timeout = 5000")
    database.executescript(_SCHEMA)
    return database
