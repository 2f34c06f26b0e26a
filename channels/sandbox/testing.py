"""Starts a real sandbox for tests: in a process of its own, or faster, on a thread of this one.

with serve({"blue": {}, "green": {"close_proof": "query"}}) as sandbox:
    PAYONCE["CHANNELS"] = sandbox.accounts
    sandbox.control.pay(number)
"""

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import payonce
from payonce.channels.sandbox.control import SandboxControl
from payonce.channels.sandbox.server import HOST, SandboxServer, ServerOptions, control_token, listen, serve_until
from payonce.channels.sandbox.skins import OWN, skin_class

READY_SECONDS = 30.0
STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class RunningSandbox:
    """A sandbox that serves. `accounts` is ready to be `PAYONCE["CHANNELS"]`; `pid` is 0 for one on a thread."""

    url: str
    accounts: dict[str, dict[str, Any]]
    control: SandboxControl
    folder: Path
    pid: int = 0


@contextlib.contextmanager
def serve(
    accounts: Mapping[str, Mapping[str, Any]],
    *,
    folder: Path | None = None,
    own_doors: bool = False,
    synchronous: str = "NORMAL",
    speed: float = 1.0,
) -> Iterator[RunningSandbox]:
    """Run the bank in a process of its own. It ends with the block, and also when this process is killed.

    Missing secrets and addresses are filled in; an account with a `skin` gets a port of its own, and both halves of its
    keys. With `own_doors` each account has a port of its own, so that
    `control.outage` refuses its connections. Give a `folder` to keep the ledger, for example over a restart.
    """
    with _prepared(accounts, folder, own_doors, synchronous, speed) as prepared:
        options, opened = prepared.options, prepared.opened
        descriptors = {str(port): sock.fileno() for port, sock in opened.items()}
        given = {"accounts": options.accounts, "folder": str(options.folder), "port": options.port,
                 "synchronous": synchronous, "speed": speed, "token": options.token, "descriptors": descriptors}  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-m", "payonce.channels.sandbox.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=tuple(descriptors.values()),
            env={**os.environ, "PYTHONPATH": _import_path()},
            start_new_session=True,
        )
        try:
            _hand_over(process, given)
            for sock in opened.values():
                sock.close()
            yield _running(prepared, process.pid)
        finally:
            _end(process)


@contextlib.contextmanager
def serve_in_thread(
    accounts: Mapping[str, Mapping[str, Any]],
    *,
    folder: Path | None = None,
    own_doors: bool = False,
    synchronous: str = "OFF",
    speed: float = 1.0,
) -> Iterator[RunningSandbox]:
    """The same bank on a thread of this process: starts in milliseconds. Arguments as for `serve`."""
    with _prepared(accounts, folder, own_doors, synchronous, speed) as prepared:
        runner = _Runner(prepared.options, prepared.opened)
        runner.start()
        try:
            yield _running(prepared, 0)
        finally:
            runner.stop()


class _Runner:
    """An event loop on a thread, with the bank in it."""

    def __init__(self, options: ServerOptions, opened: dict[int, socket.socket]) -> None:
        self._options = options
        self._opened = opened
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="sandbox", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._ready.wait(READY_SECONDS)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        if self._loop is not None and self._ended is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            raise RuntimeError("the sandbox's thread did not end")

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that started this one
            self._failure = error
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        await serve_until(SandboxServer(self._options, self._opened), self._ended, self._ready.set)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A bank that is ready to start: its options, its open sockets by port, and each account's options for the shop."""

    options: ServerOptions
    opened: dict[int, socket.socket]
    shops: dict[str, dict[str, Any]]


@contextlib.contextmanager
def _prepared(
    accounts: Mapping[str, Mapping[str, Any]], folder: Path | None, own_doors: bool, synchronous: str, speed: float
) -> Iterator[_Prepared]:
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="payonce-sandbox-")))
        main = stack.enter_context(listen(0))
        opened = {main.getsockname()[1]: main}
        port = main.getsockname()[1]
        completed: dict[str, dict[str, Any]] = {}
        shops: dict[str, dict[str, Any]] = {}
        for name, options in accounts.items():
            skin = options.get("skin", OWN)
            own = stack.enter_context(listen(0)) if own_doors or skin != OWN else main
            opened[own.getsockname()[1]] = own
            url = f"http://{HOST}:{own.getsockname()[1]}"
            completed[name], shops[name] = _both_halves(name, skin, url, options)
        yield _Prepared(
            ServerOptions(completed, folder, port, synchronous, speed, control_token(folder)), opened, shops
        )


def _both_halves(name: str, skin: str, url: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """An account's options for the bank and for the shop. `shop` in the options is for the shop alone, `notify_url` for the skin."""
    given = {key: value for key, value in options.items() if key not in {"shop", "notify_url"}}
    base = {"adapter": "sandbox", "base_url": url, "secret": secrets.token_urlsafe(32)}
    if skin == OWN:
        return {**base, **given}, {**base, **given}
    found = skin_class(skin)
    bank, shop = found.new_account(name, url, options.get("notify_url", ""))
    return {**base, **found.account_options, **bank, **given}, {**shop, **options.get("shop", {})}


def _running(prepared: _Prepared, pid: int) -> RunningSandbox:
    options = prepared.options
    url = f"http://{HOST}:{options.port}"
    accounts = {name: dict(given) for name, given in prepared.shops.items()}
    return RunningSandbox(url, accounts, SandboxControl(url, options.token), options.folder, pid)


def _import_path() -> str:
    root = str(Path(payonce.__file__).parent.parent)
    rest = os.environ.get("PYTHONPATH", "")
    return f"{root}{os.pathsep}{rest}" if rest else root


def _hand_over(process: subprocess.Popen[bytes], given: dict[str, Any]) -> None:
    """Give the configuration, and wait for the READY line."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the sandbox's process has no pipes")
    process.stdin.write(json.dumps(given).encode() + b"\n")
    process.stdin.flush()
    watchdog = threading.Timer(READY_SECONDS, process.kill)
    watchdog.start()
    try:
        line = process.stdout.readline()
    finally:
        watchdog.cancel()
    if not line.startswith(b"READY "):
        raise RuntimeError(
            f"the sandbox did not start (exit status {process.wait(STOP_SECONDS)}); its message is above"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End our own child: its input closes, then by signal, then by force."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
