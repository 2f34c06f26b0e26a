"""Stands between payonce and PostgreSQL, and breaks what is between them: the answer to a COMMIT above all.

    python -m torture.proxy --listen PORT --upstream PORT --control SOCKET

A commit is cut *before* (it never reaches the server, which rolls back) or *after* (the server has committed, and the
client never hears it). Connections can also be stalled, killed and refused. Orders come as JSON lines on the unix socket.
"""

import argparse
import asyncio
import contextlib
import json
import random
import signal
import socket
from collections import Counter, deque
from pathlib import Path
from typing import Any

from torture.wire import CANCEL_REQUEST, GSS_REQUEST, SSL_REQUEST, Commits, Messages, committed

HOST = "127.0.0.1"
BEFORE, AFTER = "before", "after"


class Switchboard:
    """All links, and what is to happen to the next commits. `counts` says what did happen."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.links: set[Link] = set()
        self.cuts: deque[tuple[str, int]] = deque()
        self.counts: Counter[str] = Counter()
        self.is_refusing = False
        self._stalls = 0
        self._passed = 0

    @property
    def is_stalled(self) -> bool:
        """Does nothing pass at the moment?"""
        return self._stalls > 0

    def cut(self, when: str, count: int, every: int = 1) -> None:
        """Cut so many of the next commits, each `every`-th one."""
        self.cuts.extend((when, every) for _ in range(count))

    def next_commit(self) -> str:
        """What happens to the commit that is just passing: before, after, or nothing."""
        self.counts["commits"] += 1
        if not self.cuts:
            return ""
        self._passed += 1
        when, every = self.cuts[0]
        if self._passed < every:
            return ""
        self._passed = 0
        self.cuts.popleft()
        return when

    async def stall(self, seconds: float) -> None:
        """Nothing passes in either direction for a while; nothing is lost."""
        self._stalls += 1
        self.counts["stalls"] += 1
        for link in list(self.links):
            link.hold(is_held=True)
        await asyncio.sleep(seconds)
        self._stalls -= 1
        if not self._stalls:
            for link in list(self.links):
                link.hold(is_held=False)

    async def refuse(self, seconds: float) -> None:
        """Break every connection, and refuse new ones for a while."""
        self.is_refusing = True
        self.counts["refusals"] += 1
        self.kill(1.0)
        await asyncio.sleep(seconds)
        self.is_refusing = False

    def kill(self, share: float) -> int:
        """Break this share of the connections, whatever they are doing."""
        chosen = [link for link in list(self.links) if random.random() < share]
        for link in chosen:
            link.end()
        self.counts["killed"] += len(chosen)
        return len(chosen)


class Link:
    """One client's connection and its own connection to the server."""

    def __init__(self, board: Switchboard) -> None:
        self.board = board
        self.client: asyncio.Transport | None = None
        self.server: asyncio.Transport | None = None
        self._is_started = False
        self._is_cancelling = False
        self._is_swallowing = False
        self._startup = b""
        self._waiting = bytearray()
        self._asked, self._answered = Messages(), Messages()
        self._commits = Commits()

    def begin(self, client: asyncio.Transport) -> None:
        """A client came."""
        if self.board.is_refusing:
            client.abort()
            return
        self.client = client
        self.board.links.add(self)
        self._task = asyncio.get_running_loop().create_task(self._reach_server())
        if self.board.is_stalled:
            self.hold(is_held=True)

    async def _reach_server(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_connection(lambda: ServerSide(self), HOST, self.board.upstream)
        except OSError:
            self.end()
            return
        if self.client is None:
            transport.abort()
            return
        self.server = transport
        if self._waiting:
            transport.write(bytes(self._waiting))
            self._waiting.clear()
        if self.board.is_stalled:
            self.hold(is_held=True)

    def hold(self, *, is_held: bool) -> None:
        """Stop or go on reading from both sides."""
        for transport in (self.client, self.server):
            if transport is not None and not transport.is_closing():
                (transport.pause_reading if is_held else transport.resume_reading)()

    def end(self) -> None:
        """Break both connections at once. The server rolls back what was open."""
        self.board.links.discard(self)
        client, server, self.client, self.server = self.client, self.server, None, None
        for transport in (client, server):
            if transport is not None:
                transport.abort()

    def from_client(self, data: bytes) -> None:
        """Bytes of the client."""
        if not self._is_started:
            data = self._start(self._startup + data)
            if not data:
                return
        if self._is_cancelling:
            self._send(data)
            return
        whole, messages = self._asked.feed(data)
        for start in self._commits.find(whole, messages):
            when = self.board.next_commit()
            if when == BEFORE:
                self._send(whole[:start])
                self.board.counts["cut_before"] += 1
                self._leave_server()
                return
            if when == AFTER:
                self._is_swallowing = True
        self._send(whole)

    def _leave_server(self) -> None:
        """End in order, so that the server reads all that was sent, finds the client gone, and rolls back."""
        server, self.server = self.server, None
        if server is not None:
            server.close()
        self.end()

    def from_server(self, data: bytes) -> None:
        """Bytes of the server."""
        whole, messages = self._answered.feed(data)
        if self._is_swallowing:
            found = committed(whole, messages)
            if found is not None:
                self._is_swallowing = False
                start, took_effect = found
                if took_effect:
                    if self.client is not None:
                        self.client.write(whole[:start])
                    self.board.counts["cut_after"] += 1
                    self._finish_client()
                    return
        if self.client is not None and whole:
            self.client.write(whole)

    def _finish_client(self) -> None:
        client, self.client = self.client, None
        if client is not None:
            client.close()
        self.end()

    def _start(self, data: bytes) -> bytes:
        """The packets before the first message have no type. Encryption is declined; returns what is left for later."""
        while len(data) >= 8:
            size, code = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
            if len(data) < size:
                break
            packet, data = data[:size], data[size:]
            if code in (SSL_REQUEST, GSS_REQUEST):
                if self.client is not None:
                    self.client.write(b"N")
                continue
            self._is_cancelling = code == CANCEL_REQUEST
            self._is_started, self._startup = True, b""
            self._send(packet)
            return data
        self._startup = data
        return b""

    def _send(self, data: bytes) -> None:
        if not data:
            return
        if self.server is None:
            self._waiting += data
        else:
            self.server.write(data)


class ClientSide(asyncio.Protocol):
    """The side of a link that payonce talks to."""

    def __init__(self, board: Switchboard) -> None:
        self._link = Link(board)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        self._link.begin(_quick(transport))

    def data_received(self, data: bytes) -> None:
        """It sent something."""
        self._link.from_client(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._link.end()


class ServerSide(asyncio.Protocol):
    """The side of a link that talks to PostgreSQL."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        _quick(transport)

    def data_received(self, data: bytes) -> None:
        """The server sent something."""
        self._link.from_server(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server is gone: what it said before is still delivered."""
        self._link._finish_client()  # noqa: SLF001 - the two halves are one link


def _quick(transport: asyncio.BaseTransport) -> Any:
    found = transport.get_extra_info("socket")
    if found is not None:
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return transport


class Control:
    """The orders that a nemesis gives: one JSON object a line, answered by one."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Obey until the caller hangs up."""
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                answer = self.obey(json.loads(line))
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        writer.close()

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Do one thing; the answer holds the counts."""
        board, do = self._board, order.get("do")
        if do == "cut":
            board.cut(str(order["when"]), int(order.get("count", 1)), int(order.get("every", 1)))
        elif do == "kill":
            board.kill(float(order.get("share", 1.0)))
        elif do in ("stall", "refuse"):
            task = asyncio.get_running_loop().create_task(getattr(board, do)(float(order["seconds"])))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif do == "heal":
            board.cuts.clear()
        return {"links": len(board.links), **board.counts}


class ProxyControl:
    """Gives orders to a running proxy."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, do: str, **arguments: Any) -> dict[str, int]:
        """One order; returns the proxy's counts. Raises OSError when it does not run."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self._path))
            connection.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            answer: dict[str, int] = json.loads(connection.makefile().readline())
            return answer


async def serve(listen: int, upstream: int, control: Path) -> None:
    """Run until SIGTERM or SIGINT. Once `control` exists, it answers, and clients are served."""
    board, loop, ended = Switchboard(upstream), asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    door = await loop.create_server(lambda: ClientSide(board), HOST, listen, backlog=512)
    bound = control.with_name(f"{control.name}.bound")
    orders = await asyncio.start_unix_server(Control(board).serve, str(bound))
    async with door, orders:
        bound.replace(control)  # a socket is there from its bind on, and refuses until it listens: here it answers
        await ended.wait()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m torture.proxy", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--listen", type=int, required=True)
    parser.add_argument("--upstream", type=int, required=True)
    parser.add_argument("--control", type=Path, required=True)
    options = parser.parse_args()
    options.control.unlink(missing_ok=True)
    try:
        import uvloop
    except ImportError:
        runner = asyncio.Runner()
    else:
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with runner:
        runner.run(serve(options.listen, options.upstream, options.control))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
