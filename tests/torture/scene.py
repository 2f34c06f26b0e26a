"""A played run that a test breaks: rows behind the back of every constraint and trigger, the bank's books, the inbox, the history."""

import copy
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from torture.check import Report, check
from torture.rules import Mode
from torture.sources import Ledger, Row

CONSTRAINTS = """
SELECT format('ALTER TABLE %I DROP CONSTRAINT %I', conrelid::regclass::text, conname) AS sql FROM pg_constraint
WHERE conname LIKE 'payonce_%' AND contype IN ('c', 'u')
UNION ALL SELECT format('DROP INDEX %I', i.relname) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
WHERE x.indisunique AND i.relname LIKE 'payonce_%' AND NOT EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conindid = i.oid)
"""
BODY_KEYS = {"kind": "kind", "subject": "subject", "state_from": "from", "state_to": "to"}


@dataclass
class Run:
    """The played run: where its database is, the bank's books, the shop's inbox, the history, and its orders by name."""

    url: str
    ledger: Ledger
    inbox: list[Row]
    history: list[Row]
    orders: dict[str, str]


@contextmanager
def open_scene(run: Run) -> Iterator["Scene"]:
    """A transaction that never commits, in which no constraint and no trigger stands in the way."""
    with psycopg.Connection[Row].connect(run.url, row_factory=dict_row) as connection:
        connection.execute(
            "SET LOCAL session_replication_role = replica"
        )  # foreign keys and triggers sleep, and stay listed
        for row in connection.execute(CONSTRAINTS).fetchall():
            connection.execute(row["sql"])
        yield Scene(run, connection)
        connection.rollback()


class Scene:
    """What a test may break, by the names of the orders."""

    def __init__(self, run: Run, database: psycopg.Connection[Row]) -> None:
        self.numbers, self.database = run.orders, database
        self.ledger: Ledger = copy.deepcopy(run.ledger)
        self.inbox, self.history = copy.deepcopy(run.inbox), copy.deepcopy(run.history)

    def report(self, mode: Mode, liveness_scale: float = 0.0) -> Report:
        """What the checker says now."""
        return check(
            self.database,
            lambda: self.ledger,
            lambda: self.inbox,
            self.history,
            mode=mode,
            liveness_scale=liveness_scale,
        )

    # --- rows ---

    def rows(self, sql: str, *params: object) -> list[Row]:
        return self.database.execute(sql, params or None).fetchall()

    def order(self, name: str) -> Row:
        return self.rows("SELECT * FROM payonce_order WHERE number = %s", self.numbers[name])[0]

    def streams(self, name: str) -> list[Row]:
        return self.rows("SELECT * FROM payonce_stream WHERE order_id = %s ORDER BY id", self.order(name)["id"])

    def refunds(self, name: str) -> list[Row]:
        sql = "SELECT r.* FROM payonce_refund r JOIN payonce_stream s ON s.id = r.stream_id WHERE s.order_id = %s ORDER BY r.id"
        return self.rows(sql, self.order(name)["id"])

    def cases(self, name: str) -> list[Row]:
        return self.rows("SELECT * FROM payonce_discrepancy WHERE order_id = %s ORDER BY id", self.order(name)["id"])

    def messages(self, name: str) -> list[Row]:
        sql = "SELECT * FROM payonce_shop_message WHERE order_id = %s ORDER BY sequence"
        return self.rows(sql, self.order(name)["id"])

    def events(self, name: str) -> list[Row]:
        return self.rows("SELECT * FROM payonce_event WHERE order_id = %s ORDER BY sequence", self.order(name)["id"])

    def set(self, table: str, row: Row, **values: object) -> None:
        """Overwrite columns of one row."""
        places = ", ".join(f"{name} = %s" for name in values)
        self.database.execute(f"UPDATE payonce_{table} SET {places} WHERE id = %s", [*values.values(), row["id"]])

    def delete(self, table: str, row: Row) -> None:
        self.database.execute(f"DELETE FROM payonce_{table} WHERE id = %s", [row["id"]])

    def copy(self, table: str, row: Row, **values: object) -> None:
        """Insert a row like another one."""
        new = {name: value for name, value in {**row, **values}.items() if name != "id"}
        places = ", ".join(["%s"] * len(new))
        self.database.execute(f"INSERT INTO payonce_{table} ({', '.join(new)}) VALUES ({places})", list(new.values()))

    # --- the history of an order, rewritten so that its chain verifies ---

    def event(self, name: str, kind: str, *, subject: str = "", told: bool = False, **facts: object) -> None:
        """Append an event that moves no state; `told` owes it to the shop, too."""
        last = self.events(name)[-1]
        body = {**json.loads(last["body"]), "kind": kind, "subject": subject, "from": "", "to": "", "facts": facts}
        body["sequence"] = last["sequence"] + 1
        self.copy(
            "event",
            last,
            sequence=body["sequence"],
            kind=kind,
            subject=subject,
            state_from="",
            state_to="",
            body=canonical(body),
        )
        self.rechain(name)
        if told:
            message = self.messages(name)[-1]
            words = {**json.loads(message["body"]), "id": f"{self.numbers[name]}-{body['sequence']}", "kind": kind}
            self.copy(
                "shop_message", message, sequence=body["sequence"], kind=kind, body=json.dumps(words), state="PENDING"
            )

    def edit_event(self, name: str, of: str, *, nth: int = 0, facts: Row | None = None, **columns: str) -> None:
        """Change the n-th event of a kind, in its columns and its body, and chain the history anew."""
        row = [row for row in self.events(name) if row["kind"] == of][nth]
        body = json.loads(row["body"])
        body.update({BODY_KEYS[column]: value for column, value in columns.items()})
        body["facts"].update(facts or {})
        self.set("event", row, body=canonical(body), **columns)
        self.rechain(name)

    def rechain(self, name: str) -> None:
        """Make the hashes and the order's head right again."""
        head = ""
        events = self.events(name)
        for row in events:
            head = hashlib.sha256((head + row["body"]).encode()).hexdigest()
            self.set("event", row, hash=head)
        self.set("order", self.order(name), version=len(events), event_hash=head)

    # --- the bank's books ---

    def payment(self, name: str, which: int = 0) -> Row:
        number = self.streams(name)[which]["number"]
        return next(row for row in self.ledger.payments if row["number"] == number)

    def captures(self, name: str, which: int = 0) -> list[Row]:
        number = self.streams(name)[which]["number"]
        return [row for row in self.ledger.captures if row["number"] == number]

    def moves(self, refund: Row) -> list[Row]:
        return [row for row in self.ledger.journal if row["refund_number"] == refund["number"]]

    def move(self, name: str, kind: str, amount_minor: int, *, refund_number: str = "", reference: str = "") -> None:
        """Write a movement of money into the journal."""
        like = next(row for row in self.ledger.journal if row["number"] == self.streams(name)[0]["number"])
        self.ledger.journal.append(
            {**like, "kind": kind, "amount_minor": amount_minor, "refund_number": refund_number,
             "reference": reference or like["reference"]}
        )  # fmt: skip

    # --- the history of operations ---

    def done(self, op: str, how: str = "ok", *, after: float = 0.0, args: Row | None = None, **result: object) -> None:
        """Append one operation, `after` seconds after the last one."""
        number, at = f"planted-{len(self.history)}", self.history[-1]["at"] + after
        self.history.append({"id": number, "type": "invoke", "op": op, "at": at, "args": args or {}})
        self.history.append({"id": number, "type": how, "op": op, "at": at, "result": result})

    def operation(self, op: str, nth: int = 0) -> Row:
        """The line that ended the n-th operation of this kind."""
        return [line for line in self.history if line["op"] == op and line["type"] == "ok"][nth]

    @property
    def at(self) -> Any:
        """The database's time."""
        return self.rows("SELECT payonce_now() AS at")[0]["at"]

    def ago(self, hours: float) -> Any:
        return self.at - timedelta(hours=hours)


def canonical(body: Row) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
