"""The ledger as tests read it: every row, and sums per number that come from the journal alone."""

import sqlite3
from typing import Any

from payonce.channels.sandbox.records import row_dict

_SIDES = {
    "capture": "captured_minor",
    "refund": "refunded_minor",
    "refund_returned": "returned_minor",
    "dispute": "disputed_minor",
    "reversal": "reversed_minor",
}
_PAYMENTS = "SELECT * FROM payment WHERE (? = '' OR account = ?) AND (? = '' OR number = ?) ORDER BY id"
_CAPTURES = (
    "SELECT payment.account, payment.number, capture.* FROM capture JOIN payment ON payment.id = capture.payment_id"
    " WHERE (? = '' OR account = ?) AND (? = '' OR number = ?) ORDER BY capture.id"
)
_REFUNDS = (
    "SELECT payment.account, payment.number AS payment_number, refund.* FROM refund"
    " JOIN payment ON payment.id = refund.payment_id"
    " WHERE (? = '' OR account = ?) AND (? = '' OR payment.number = ?) ORDER BY refund.id"
)
_JOURNAL = "SELECT * FROM journal WHERE (? = '' OR account = ?) AND (? = '' OR number = ?) ORDER BY id"


def dump(database: sqlite3.Connection, account: str = "", number: str = "") -> dict[str, Any]:
    """All rows, or those of one account or number, and `sums` as {account: {number: {…}}} in minor units."""
    chosen = (account, account, number, number)
    journal = [row_dict(row) for row in database.execute(_JOURNAL, chosen)]
    payments = [row_dict(row) for row in database.execute(_PAYMENTS, chosen)]
    for payment in payments:
        del payment["token"]
    return {
        "payments": payments,
        "captures": [row_dict(row) for row in database.execute(_CAPTURES, chosen)],
        "refunds": [row_dict(row) for row in database.execute(_REFUNDS, chosen)],
        "journal": journal,
        "sums": sums(journal),
    }


def journal_page(database: sqlite3.Connection, after: int, count: int) -> list[dict[str, Any]]:
    """Movements with an id above `after`, the oldest first."""
    rows = database.execute("SELECT * FROM journal WHERE id > ? ORDER BY id LIMIT ?", (after, count))
    return [row_dict(row) for row in rows]


def sums(journal: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    """Per account and number: each side as a positive amount, the count of captures, and what the merchant has."""
    result: dict[str, dict[str, dict[str, int]]] = {}
    for row in journal:
        entry = result.setdefault(row["account"], {}).setdefault(
            row["number"], {**dict.fromkeys(_SIDES.values(), 0), "captures": 0, "net_minor": 0}
        )
        entry[_SIDES[row["kind"]]] += abs(row["amount_minor"])
        entry["captures"] += row["kind"] == "capture"
        entry["net_minor"] += row["amount_minor"]
    return result
