"""urllib3 connections whose every wait ends at the exchange's deadline.

urllib3's own time-outs restart with each received byte, so a server that drips one byte a second holds a worker for
ever. Here the socket asks the running exchange how long it may still wait before every connect, handshake step, send
and receive.
"""

import io
import select
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from payonce.channels.http.addresses import Address, resolve
from payonce.channels.http.exchange import Exchange, ForbiddenAddressError, connect_failure

AddressRule = Callable[[str, str], bool]


class _Current(threading.local):
    exchange: Exchange | None = None
    rule: AddressRule | None = None


current = _Current()


def _exchange() -> Exchange:
    exchange = current.exchange
    if exchange is None:
        raise RuntimeError("this connection belongs to channels.http: use its send() or run()")
    return exchange


class _BoundedReader(io.RawIOBase):
    """Reads from a socket, never past the deadline."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        # The unbuffered file keeps the socket alive after the connection object let go of it, as http.client expects.
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        exchange = _exchange()
        self._sock.settimeout(exchange.remaining(exchange.timeout_read))
        return self._file.readinto(buffer)  # type: ignore[no-any-return]

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class _BoundedSocket:
    """Stands in for the socket of a connection; only sending and reading differ."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def sendall(self, data: Any) -> None:
        exchange = _exchange()
        view = memoryview(data).cast("B")
        while view:
            self._sock.settimeout(exchange.remaining(exchange.timeout_read))
            exchange.sent = True
            view = view[self._sock.send(view) :]

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(_BoundedReader(self._sock))


class _BoundedContext(ssl.SSLContext):
    """A TLS context whose handshake ends at the deadline."""

    def wrap_socket(self, sock: socket.socket, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        kwargs["do_handshake_on_connect"] = False
        wrapped = super().wrap_socket(sock, *args, **kwargs)
        exchange = _exchange()
        try:
            _handshake(wrapped, exchange)
        except BaseException as error:
            exchange.failure = connect_failure(error)
            wrapped.close()
            raise
        return wrapped


def _handshake(sock: ssl.SSLSocket, exchange: Exchange) -> None:
    sock.settimeout(0)
    while True:
        try:
            return sock.do_handshake()
        except ssl.SSLWantReadError:
            ready = select.select([sock], [], [], exchange.remaining(exchange.timeout_connect))[0]
        except ssl.SSLWantWriteError:
            ready = select.select([], [sock], [], exchange.remaining(exchange.timeout_connect))[1]
        if not ready:
            raise TimeoutError("TLS handshake took too long")


def _connect(host: str, port: int, options: Any) -> socket.socket:
    """Connect to the first of the host's addresses that answers, all of which the rule must allow."""
    exchange = _exchange()
    try:
        addresses = resolve(host, port, exchange.remaining(exchange.timeout_connect))
        if current.rule is not None and not all(current.rule(host, str(address[0])) for _, address in addresses):
            raise ForbiddenAddressError(host)
        return _connect_any(addresses, exchange, options)
    except OSError as error:
        exchange.failure = connect_failure(error)
        raise


def _connect_any(addresses: list[Address], exchange: Exchange, options: Any) -> socket.socket:
    failure: OSError = ConnectionError("the name has no address")
    for family, address in addresses:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            for option in options or ():
                sock.setsockopt(*option)
            sock.settimeout(exchange.remaining(exchange.timeout_connect))
            sock.connect(address)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise failure


class BoundedHTTPConnection(HTTPConnection):
    """Plain HTTP within the exchange's limits."""

    def _new_conn(self) -> socket.socket:
        return _connect(self._dns_host, self.port, self.socket_options)

    def connect(self) -> None:
        super().connect()
        self.sock = _BoundedSocket(self.sock)


class BoundedHTTPSConnection(HTTPSConnection):
    """HTTPS within the exchange's limits."""

    def _new_conn(self) -> socket.socket:
        return _connect(self._dns_host, self.port, self.socket_options)

    def connect(self) -> None:
        super().connect()
        self.sock = _BoundedSocket(self.sock)


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = BoundedHTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = BoundedHTTPSConnection


def new_manager() -> urllib3.PoolManager:
    """A pool of bounded connections that verify certificates against the system's store."""
    context = _BoundedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs()
    manager = urllib3.PoolManager(num_pools=64, maxsize=64, block=False, retries=False, ssl_context=context)
    manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return manager
