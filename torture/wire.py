"""PostgreSQL's wire protocol, as far as a proxy must understand it: message boundaries, and which message commits.

Source: PostgreSQL's documentation, "Frontend/Backend Protocol" (message formats of version 3.0). A transaction is committed by
a simple Query, or by an Execute of a portal whose statement was parsed from COMMIT (or END); in a pipeline the Parse, Bind and
Execute may travel together with others, and a prepared statement may have been parsed long before.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

SSL_REQUEST = 80877103
GSS_REQUEST = 80877104
CANCEL_REQUEST = 80877102
COMMITS = frozenset({b"COMMIT", b"END", b"COMMIT TRANSACTION", b"END TRANSACTION", b"COMMIT WORK"})
_LONGEST = max(len(text) for text in COMMITS) + 8  # room for spaces and a semicolon
QUERY, PARSE, BIND, EXECUTE, CLOSE = b"QPBEC"
COMMAND_COMPLETE, ERROR = b"CE"


class Messages:
    """Cuts a stream of bytes into whole messages; a message that is not whole yet waits for its rest."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> tuple[bytes, list[tuple[int, int, int]]]:
        """All whole messages so far as one piece, and each as (type, start, end) within it."""
        if self._rest:
            data = self._rest + data
        found: list[tuple[int, int, int]] = []
        position, length = 0, len(data)
        while position + 5 <= length:
            end = position + 1 + int.from_bytes(data[position + 1 : position + 5], "big")
            if end > length:
                break
            found.append((data[position], position, end))
            position = end
        self._rest = data[position:]
        return (data if not self._rest else data[:position]), found


def is_commit(sql: bytes) -> bool:
    """Does this text commit a transaction?"""
    return len(sql) <= _LONGEST and sql.strip(b" \t\r\n;").upper() in COMMITS


@dataclass
class Commits:
    """Knows of one session which statements and portals commit. `find` yields where in a piece a commit is executed."""

    statements: set[bytes] = field(default_factory=set)
    portals: set[bytes] = field(default_factory=set)

    def find(self, data: bytes, messages: list[tuple[int, int, int]]) -> Iterator[int]:
        """Start of each message that commits, in order."""
        for kind, start, end in messages:
            if kind == QUERY:
                if end - start <= _LONGEST + 6 and is_commit(data[start + 5 : end - 1]):
                    yield start
            elif kind == PARSE:
                name, sql, _ = _texts(data, start, end)
                self._note(self.statements, name, is_commit(sql))
            elif kind == BIND:
                portal, statement, _ = _texts(data, start, end)
                self._note(self.portals, portal, statement in self.statements)
            elif kind == EXECUTE:
                if self.portals and data[start + 5 : data.index(b"\0", start + 5)] in self.portals:
                    yield start
            elif kind == CLOSE and data[start + 5 : start + 6] == b"S":
                self.statements.discard(data[start + 6 : end - 1])

    @staticmethod
    def _note(names: set[bytes], name: bytes, is_member: bool) -> None:
        if is_member:
            names.add(name)
        elif names:
            names.discard(name)


def _texts(data: bytes, start: int, end: int) -> tuple[bytes, bytes, int]:
    """The two zero-terminated texts at the beginning of a Parse or a Bind; a long second text is left empty."""
    first = data.index(b"\0", start + 5, end)
    second = data.find(b"\0", first + 1, min(end, first + 2 + _NAME_MAX))
    return data[start + 5 : first], data[first + 1 : second] if second >= 0 else b"", second


_NAME_MAX = 64


def committed(data: bytes, messages: list[tuple[int, int, int]]) -> tuple[int, bool] | None:
    """Where the server answers a commit that was executed, and whether it took effect; None when it does not say yet.

    A failed transaction answers COMMIT with the tag ROLLBACK, and a deferred constraint with an error.
    """
    for kind, start, end in messages:
        if kind == ERROR:
            return start, False
        if kind == COMMAND_COMPLETE:
            tag = data[start + 5 : end - 1]
            if tag in (b"COMMIT", b"ROLLBACK"):
                return start, tag == b"COMMIT"
    return None
