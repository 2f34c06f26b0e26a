"""Statements that travel together: one round trip to PostgreSQL for a list of them, over Django's own connection.

The only module that runs raw SQL. A row is read into and written from a model instance, so that the rules see models.
Errors are Django's (`wrap_database_errors`), and any error inside a transaction marks it for rollback: a raw error that is
swallowed inside `atomic` would otherwise look like a commit.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from django.db import connections, models
from psycopg import Cursor
from psycopg.pq import TransactionStatus

M = TypeVar("M", bound=models.Model)
Row = tuple[Any, ...]


class Statement(NamedTuple):
    """One SQL text with its parameters (`%s` placeholders)."""

    sql: str
    params: Sequence[Any] = ()


def fly(statements: Sequence[Statement], using: str) -> list[list[Row]]:
    """Run the statements in one round trip; return the rows of each (an empty list for one that returns none).

    Raises Django's database errors. Inside a transaction, BEGIN travels along with the first flight.
    """
    connection = connections[using]
    connection.ensure_connection()
    connection.validate_no_broken_transaction()
    try:
        with connection.wrap_database_errors:
            return _fly(statements, connection.connection)
    except BaseException:
        if connection.in_atomic_block:
            connection.needs_rollback = True
        raise


def _fly(statements: Sequence[Statement], raw: Any) -> list[list[Row]]:
    begins = _begins_plainly(raw)
    if len(statements) == 1 and not begins:
        return [_rows(Cursor(raw).execute(statements[0].sql, statements[0].params))]
    with _travelling_begin(raw) if begins else raw.pipeline():  # its end is the one sync
        cursors = [Cursor(raw).execute(statement.sql, statement.params) for statement in statements]
    return [_rows(cursor) for cursor in cursors]


def _begins_plainly(raw: Any) -> bool:
    """Would the next statement open a transaction by a BEGIN without options?"""
    options = (raw.isolation_level, raw.read_only, raw.deferrable)
    return not raw.autocommit and raw.info.transaction_status == TransactionStatus.IDLE and options == (None,) * 3


@contextmanager
def _travelling_begin(raw: Any) -> Iterator[None]:
    """A pipeline whose first statement is BEGIN. psycopg's own BEGIN waits for its answer, also in a pipeline: a round trip."""
    raw.autocommit = True  # no traffic: psycopg only stops opening the transaction itself
    try:
        with raw.pipeline():
            Cursor(raw).execute("BEGIN")
            yield
    finally:
        raw._autocommit = False  # noqa: SLF001 - the setter refuses inside the transaction that now is open


def _rows(cursor: Any) -> list[Row]:
    # `description` would build an object for each column of each answer.
    return cursor.fetchall() if cursor.pgresult.nfields else []


class Table(NamedTuple):
    """A model's columns as flight uses them."""

    name: str
    names: tuple[str, ...]  # attribute names, in column order
    columns: str
    converters: tuple[tuple[int, Callable[[Any], Any]], ...]
    fields: dict[str, Any]


@lru_cache(maxsize=32)
def table_of(model: type[models.Model]) -> Table:
    """The model's table, read once."""
    fields = list(model._meta.concrete_fields)
    converters = tuple((index, bytes) for index, field in enumerate(fields) if isinstance(field, models.BinaryField))
    return Table(
        name=model._meta.db_table,
        names=tuple(field.attname for field in fields),
        columns=", ".join(f'"{field.column}"' for field in fields),
        converters=converters,
        fields={field.attname: field for field in fields},
    )


def select(model: type[models.Model], condition: str, params: Sequence[Any] = ()) -> Statement:
    """All columns of the model's rows that meet the condition (which may end in ORDER BY … FOR UPDATE)."""
    table = table_of(model)
    return Statement(f'SELECT {table.columns} FROM "{table.name}" WHERE {condition}', params)


def returning(model: type[models.Model]) -> str:
    """A RETURNING clause that `load` can read."""
    return f"RETURNING {table_of(model).columns}"


def load(model: type[M], row: Row, using: str) -> M:
    """A model instance of a row read by `select`. Remembers the values read, for `update`."""
    table = table_of(model)
    values = list(row)
    for index, convert in table.converters:
        values[index] = convert(values[index])
    instance = model.from_db(using, table.names, values)
    instance._payonce_read = tuple(values)  # type: ignore[attr-defined]
    return instance


def insert(instance: models.Model, suffix: str = "") -> Statement:
    """Insert a new instance; the database makes its id. `suffix` is for example ON CONFLICT … or RETURNING id."""
    table = table_of(type(instance))
    names = [name for name in table.names if name != "id"]
    columns = ", ".join(f'"{table.fields[name].column}"' for name in names)
    places = ", ".join(["%s"] * len(names))
    params = [_plain(getattr(instance, name)) for name in names]
    return Statement(f'INSERT INTO "{table.name}" ({columns}) VALUES ({places}) {suffix}', params)


def update(instance: models.Model) -> Statement | None:
    """Write what changed since `load`; None when nothing did. The caller holds the row's lock."""
    table = table_of(type(instance))
    read = instance._payonce_read  # type: ignore[attr-defined]
    changed = [name for name, before in zip(table.names, read, strict=True) if getattr(instance, name) != before]
    if not changed:
        return None
    places = ", ".join(f'"{table.fields[name].column}" = %s' for name in changed)
    params = [*(_plain(getattr(instance, name)) for name in changed), instance.pk]
    remember(instance)
    return Statement(f'UPDATE "{table.name}" SET {places} WHERE id = %s', params)


def remember(instance: models.Model) -> None:
    """Take the instance's present values as those of the database."""
    table = table_of(type(instance))
    instance._payonce_read = tuple(getattr(instance, name) for name in table.names)  # type: ignore[attr-defined]


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
