"""Runs the bank on 127.0.0.1, as a process of its own or inside another event loop.

Each account may have a front door (a port) of its own: then an outage of the account closes that door, and callers
see their connection refused. On a shared door an outage breaks each connection after the request was read.
"""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.app import App
from payonce.channels.sandbox.bank import Bank

try:
    import uvicorn
except ImportError as error:
    raise ImportError("the sandbox server needs uvicorn: pip install 'django-payonce[server]'") from error

HOST = "127.0.0.1"
TOKEN_FILE = "control-token"  # noqa: S105 - a file's name
_BACKLOG = 1_024


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to run the bank. `speed` divides the gaps between repeats of a notification."""

    accounts: Mapping[str, Mapping[str, Any]]
    folder: Path
    port: int
    synchronous: str = "FULL"
    speed: float = 1.0
    token: str = field(default="", repr=False)


class _Listener(uvicorn.Server):
    """A uvicorn server that leaves the process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: whoever runs the bank decides when it ends."""
        yield


class _Door:
    """One listening port."""

    def __init__(self, app: App, port: int, accounts: list[str], opened: socket.socket | None) -> None:
        self.port = port
        self.accounts = accounts
        self._app = app
        self._opened = opened
        self._listener: _Listener | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """True while it accepts connections."""
        return self._listener is not None

    async def open(self) -> None:
        """Listen. Raises OSError when somebody else has the port."""
        sock, self._opened = self._opened or listen(self.port), None
        config = uvicorn.Config(
            self._app, lifespan="off", ws="none", log_config=None, log_level="warning", access_log=False,
            proxy_headers=False, server_header=False, date_header=False, timeout_keep_alive=60,
            timeout_graceful_shutdown=1, backlog=_BACKLOG,
        )  # fmt: skip
        self._listener = _Listener(config)
        self._task = asyncio.create_task(self._listener.serve(sockets=[sock]))
        while not self._listener.started:
            if self._task.done():
                await self._task
                raise RuntimeError(f"port {self.port} could not be served")
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        """Refuse connections and end those that are open."""
        if self._listener is not None and self._task is not None:
            self._listener.should_exit = True
            self._listener.force_exit = True
            await self._task
        self._listener = self._task = None


class SandboxServer:
    """The bank behind its doors."""

    def __init__(self, options: ServerOptions, opened: Mapping[int, socket.socket] | None = None) -> None:
        self.token = options.token or control_token(options.folder)
        self.bank = Bank(options.accounts, options.folder, synchronous=options.synchronous, speed=options.speed)
        self.url = f"http://{HOST}:{options.port}"
        self._app = App(self.bank, self.token)
        self._app.after_control = self._update_doors
        ports = _ports(self.bank.accounts, options.port)
        self._app.accounts_by_port = _alone(ports)
        self._doors = [_Door(self._app, port, names, (opened or {}).get(port)) for port, names in ports.items()]

    async def start(self) -> None:
        """Open the ledger, then the doors."""
        await self.bank.start()
        try:
            for door in self._doors:
                await door.open()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the doors, then the ledger."""
        self.bank.plan.gates.open_all()
        for door in self._doors:
            await door.close()
        await self.bank.stop()

    async def _update_doors(self) -> None:
        for door in self._doors:
            is_out = bool(door.accounts) and all(self.bank.plan.is_out(name) for name in door.accounts)
            if is_out and door.is_open:
                await door.close()
            elif not is_out and not door.is_open:
                await door.open()


def _ports(accounts: Mapping[str, SandboxAccount], main: int) -> dict[int, list[str]]:
    """Each port with the accounts that live behind it alone. The main door stays open, for the controls."""
    ports: dict[int, list[str]] = {main: []}
    for account in accounts.values():
        port = urlsplit(account.base_url).port
        if port is not None and port != main:
            ports.setdefault(port, []).append(account.name)
    return ports


def _alone(ports: Mapping[int, list[str]]) -> dict[int, str]:
    """The account behind each port that only one has."""
    return {port: names[0] for port, names in ports.items() if len(names) == 1}


def listen(port: int) -> socket.socket:
    """A socket that listens on 127.0.0.1; port 0 takes a free one."""
    # With its protocol named, asyncio recognises it as TCP and sends small answers without delay.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((HOST, port))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def control_token(folder: Path) -> str:
    """The token of the control API, made once per data folder and readable by its owner only."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / TOKEN_FILE
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_urlsafe(24))
    return file.read_text().strip()


async def serve_until(server: SandboxServer, ended: asyncio.Event, ready: Callable[[], None]) -> None:
    """Serve, say that it is ready, and stop when `ended` is set."""
    await server.start()
    try:
        ready()
        await ended.wait()
    finally:
        await server.stop()


def run_forever(options: ServerOptions, ready: Callable[[SandboxServer], None]) -> None:
    """Serve in this process until SIGINT or SIGTERM. Raises OSError when the port is taken."""

    async def main() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
        server = SandboxServer(options)
        await serve_until(server, ended, lambda: ready(server))

    run_loop(main)


def run_loop(main: Callable[[], Any]) -> None:
    """Run a coroutine function on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())


def main() -> None:
    """`python -m payonce.channels.sandbox.server`: the process behind `testing.serve`.

    Standard input gives one line of JSON (so that no secret stands on a command line), and its end ends the server,
    also when the parent was killed.
    """
    given = json.loads(sys.stdin.readline())
    descriptors = given.pop("descriptors")
    options = ServerOptions(folder=Path(given.pop("folder")), **given)
    opened = {int(port): socket.socket(fileno=number) for port, number in descriptors.items()}

    async def serve() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
        loop.add_reader(0, lambda: None if os.read(0, 1) else ended.set())
        server = SandboxServer(options, opened)
        await serve_until(server, ended, lambda: print(f"READY sandbox {server.url}", flush=True))

    run_loop(serve)


if __name__ == "__main__":
    main()
