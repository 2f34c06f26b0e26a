"""What goes over the wire to PostgreSQL and Redis, counted by a relay between the client and the real server.

A round trip is a turn: the client sends, waits, and sends again. A commit is a COMMIT that the server confirmed, or a write
outside a transaction.
"""

import contextlib
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from django.db import connection, connections

WRITES = ("INSERT", "UPDATE", "DELETE")


@dataclass
class Wire:
    """What was seen since `reset`. `statements` holds the SQL texts, BEGIN and COMMIT included."""

    turns: int = 0
    commits: int = 0
    statements: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self) -> None:
        with self.lock:
            self.turns = self.commits = 0
            self.statements = []

    @property
    def queries(self) -> list[str]:
        """The statements without BEGIN and COMMIT."""
        return [text for text in self.statements if text.split(None, 1)[0] not in ("BEGIN", "COMMIT", "ROLLBACK")]


class _Talk:
    """One connection through the relay: both directions, taken apart into messages."""

    def __init__(self, wire: Wire, client: socket.socket, server: socket.socket) -> None:
        self.wire = wire
        self.client, self.server = client, server
        self.client_spoke_last = True
        self.tags: list[str] = []
        for source, target, take in ((client, server, self.from_client), (server, client, self.from_server)):
            threading.Thread(target=self._pump, args=(source, target, take), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, take: Any) -> None:
        rest = b""
        started = source is self.server
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self.wire.lock:
                    if source is self.client and not self.client_spoke_last and started:
                        self.wire.turns += 1
                    self.client_spoke_last = source is self.client
                    rest += data
                    if not started and len(rest) >= 4:  # the start-up message has no type
                        rest, started = rest[struct.unpack("!I", rest[:4])[0] :], True
                    rest = self._messages(rest, take)
                target.sendall(data)
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    @staticmethod
    def _messages(data: bytes, take: Any) -> bytes:
        while len(data) >= 5 and len(data) > (size := struct.unpack("!I", data[1:5])[0]):
            take(data[:1], data[5 : size + 1])
            data = data[size + 1 :]
        return data

    def from_client(self, kind: bytes, body: bytes) -> None:
        if kind == b"Q":
            self.wire.statements.append(body.rstrip(b"\0").decode())
        elif kind == b"P":
            self.wire.statements.append(body.split(b"\0")[1].decode())

    def from_server(self, kind: bytes, body: bytes) -> None:
        if kind == b"C":
            self.tags.append(body.rstrip(b"\0").decode())
        elif kind == b"Z" and body == b"I":
            wrote = any(tag.startswith(WRITES) and not tag.endswith(" 0") for tag in self.tags)
            self.wire.commits += "COMMIT" in self.tags or ("ROLLBACK" not in self.tags and wrote)
            self.tags = []


def _connect_upstream(host: str, port: str) -> socket.socket:
    if host.startswith("/"):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(f"{host}/.s.PGSQL.{port or 5432}")
        return sock
    return socket.create_connection((host or "127.0.0.1", int(port or 5432)))


def _disconnect() -> None:
    connections.close_all()
    if connection.settings_dict["OPTIONS"].get("pool"):
        connection.close_pool()


@contextlib.contextmanager
def relay() -> Iterator[Wire]:
    """Let Django's connections of the test's database go through a relay that counts."""
    found = connection.settings_dict
    host, port = found["HOST"], found["PORT"]
    folder = tempfile.mkdtemp(prefix="wire-")
    wire = Wire()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(Path(folder) / ".s.PGSQL.5432"))
    listener.listen(64)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                _Talk(wire, client, _connect_upstream(host, port))

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    _disconnect()
    found["HOST"], found["PORT"] = folder, "5432"
    try:
        connection.ensure_connection()
        wire.reset()
        yield wire
    finally:
        _disconnect()
        found["HOST"], found["PORT"] = host, port
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
        shutil.rmtree(folder)


class RedisCommands:
    """The commands that a Redis database was given, as its MONITOR shows them."""

    def __init__(self, client: redis.Redis, monitor: Any) -> None:
        self._client = client
        self._monitor = monitor
        self._database = client.get_connection_kwargs()["db"]

    def taken(self) -> list[str]:
        """The commands since the last call."""
        self._client.echo("until here")
        found = []
        while True:
            seen = self._monitor.next_command()
            if seen["command"].upper().startswith("ECHO"):
                return found
            if int(seen["db"]) == int(self._database):
                found.append(seen["command"])


@contextlib.contextmanager
def watched_redis(client: redis.Redis) -> Iterator[RedisCommands]:
    """Watch a Redis database."""
    with client.monitor() as monitor:
        commands = RedisCommands(client, monitor)
        commands.taken()
        yield commands
