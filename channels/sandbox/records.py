"""Rows of the bank as frozen records, and the one way to load them."""

import sqlite3
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Capture:
    """Money taken once. `reference` is the bank's own id of it."""

    id: int
    payment_id: int
    reference: str
    capture_key: str
    amount_minor: int
    currency: str
    paid_at: float
    refunded_minor: int
    disputed_minor: int
    reversed_minor: int

    @property
    def rest_minor(self) -> int:
        """What is left of it at the merchant."""
        return self.amount_minor - self.refunded_minor - self.disputed_minor - self.reversed_minor


@dataclass(frozen=True, slots=True)
class Payment:
    """One number of one account, with the captures that it has in order of time."""

    id: int
    account: str
    number: str
    token: str
    state: str
    amount_minor: int
    currency: str
    subject: str
    method: str
    client_type: str
    payer: str
    notify_url: str
    return_url: str
    payable_until: float
    prepay_expires_at: float
    created_at: float
    seen_at: float | None
    closed_at: float | None
    declined_count: int
    captures: tuple[Capture, ...] = ()


@dataclass(frozen=True, slots=True)
class Refund:
    """One refund number of one payment. `outside` marks money that the merchant gave back without payonce."""

    id: int
    payment_id: int
    capture_id: int
    number: str
    reference: str
    state: str
    amount_minor: int
    currency: str
    code: str
    notify_url: str
    outside: int
    created_at: float
    settled_at: float | None
    due_at: float | None
    due_state: str | None


@dataclass(frozen=True, slots=True)
class Result:
    """What an operation came to. `code` is a `Code`, or whatever a planned fault says."""

    code: str
    payment: Payment | None = None
    refund: Refund | None = None
    capture: Capture | None = None
    message: str = ""


def find_payment(database: sqlite3.Connection, account: str, number: str) -> Payment | None:
    """The payment of this number."""
    row = database.execute("SELECT * FROM payment WHERE account = ? AND number = ?", (account, number)).fetchone()
    return None if row is None else _payment(database, row)


def find_payment_by_token(database: sqlite3.Connection, token: str) -> Payment | None:
    """The payment whose wallet page this token opens."""
    row = database.execute("SELECT * FROM payment WHERE token = ?", (token,)).fetchone()
    return None if row is None else _payment(database, row)


def get_payment(database: sqlite3.Connection, payment_id: int) -> Payment:
    """The payment of this row id."""
    return _payment(database, database.execute("SELECT * FROM payment WHERE id = ?", (payment_id,)).fetchone())


def find_accounts(database: sqlite3.Connection, number: str) -> list[str]:
    """The accounts that know this number."""
    rows = database.execute("SELECT account FROM payment WHERE number = ? ORDER BY account", (number,))
    return [row["account"] for row in rows]


def find_refund(database: sqlite3.Connection, payment_id: int, number: str) -> Refund | None:
    """The refund of this number within one payment."""
    row = database.execute("SELECT * FROM refund WHERE payment_id = ? AND number = ?", (payment_id, number)).fetchone()
    return None if row is None else Refund(**row_dict(row))


def refunds_of(database: sqlite3.Connection, capture_id: int) -> list[Refund]:
    """All refunds of one capture, the oldest first."""
    rows = database.execute("SELECT * FROM refund WHERE capture_id = ? ORDER BY id", (capture_id,))
    return [Refund(**row_dict(row)) for row in rows]


def row_dict(row: sqlite3.Row) -> dict[str, Any]:
    """A row as a dict."""
    return dict(zip(row.keys(), row, strict=True))


def _payment(database: sqlite3.Connection, row: sqlite3.Row) -> Payment:
    captures: tuple[Capture, ...] = ()
    if row["state"] == "PAID":
        rows = database.execute("SELECT * FROM capture WHERE payment_id = ? ORDER BY id", (row["id"],))
        captures = tuple(Capture(**row_dict(inner)) for inner in rows)
    return Payment(**row_dict(row), captures=captures)
