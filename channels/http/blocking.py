"""The blocking driver, for web requests and tasks: urllib3 with pools that belong to one process."""

import contextlib
import http.client
import os
import ssl
import threading
from collections.abc import Callable, Hashable
from typing import TypeVar

import urllib3
from urllib3.exceptions import HTTPError, IncompleteRead, ProtocolError, ReadTimeoutError
from urllib3.exceptions import SSLError as PoolSSLError
from urllib3.response import BaseHTTPResponse

from payonce.channels.base import Conversation
from payonce.channels.http.bounded import AddressRule, current, new_manager
from payonce.channels.http.exchange import Exchange, is_sendable, outgoing_headers
from payonce.channels.messages import HttpRequest, HttpResponse, TransportError

T = TypeVar("T")
Transport = Callable[[HttpRequest], HttpResponse | TransportError]
_CHUNK_BYTES = 65_536


class _Pools:
    """Connection pools of this process. A child of fork starts with none: two processes must not share a socket."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._managers: dict[Hashable, urllib3.PoolManager] = {}

    def manager(self, key: Hashable) -> urllib3.PoolManager:
        with self._lock:
            manager = self._managers.get(key)
            if manager is None:
                manager = self._managers[key] = new_manager()
            return manager

    def clear(self) -> None:
        with self._lock:
            managers, self._managers = list(self._managers.values()), {}
        for manager in managers:
            manager.clear()


_pools = _Pools()
os.register_at_fork(after_in_child=_pools.forget)


def run(conversation: Conversation[T], transport: Transport | None = None) -> T:
    """Run an adapter's conversation to its outcome. `transport` replaces the network, for tests."""
    exchange = transport or send
    with contextlib.closing(conversation):
        try:
            request = next(conversation)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        while True:
            answer = exchange(request)
            try:
                request = conversation.send(answer)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]


def send(request: HttpRequest) -> HttpResponse | TransportError:
    """Send one request once, within its limits. Never raises for what the network or the other side does."""
    return send_within(request, pool="channels", rule=None)


def close_idle_connections() -> None:
    """Close this process's kept-alive connections; later requests open new ones."""
    _pools.clear()


def send_within(request: HttpRequest, *, pool: Hashable, rule: AddressRule | None) -> HttpResponse | TransportError:
    """`send` from one named pool, to addresses that `rule` allows. A pool must always be used with the same rule."""
    if not is_sendable(request):
        return TransportError("invalid_request", sent=False)
    exchange = Exchange(request)
    outer = current.exchange, current.rule
    current.exchange, current.rule = exchange, rule
    try:
        return _exchange(_pools.manager(pool), request)
    except (HTTPError, http.client.HTTPException, OSError, ValueError) as error:
        return TransportError(_reason(error, exchange), sent=exchange.sent)
    finally:
        current.exchange, current.rule = outer


def _exchange(manager: urllib3.PoolManager, request: HttpRequest) -> HttpResponse | TransportError:
    target = urllib3.util.parse_url(request.url)
    response = manager.connection_from_url(request.url).urlopen(
        request.method,
        target.request_uri,
        body=request.body or None,
        headers=outgoing_headers(request.headers),
        retries=False,
        redirect=False,
        assert_same_host=False,
        timeout=urllib3.Timeout(connect=request.timeout_connect, read=request.timeout_read),
        preload_content=False,
        decode_content=False,
    )
    body = _read_up_to(response, request.bytes_max)
    if body is None:
        return TransportError("body_too_large")
    headers = {name.lower(): value for name, value in response.headers.items()}
    return HttpResponse(status=response.status, headers=headers, body=body)


def _read_up_to(response: BaseHTTPResponse, bytes_max: int) -> bytes | None:
    """The exact bytes of the body, or None when there are more than `bytes_max`.

    A connection that was not read out is closed.
    """
    chunks: list[bytes] = []
    size = 0
    whole = False
    try:
        while chunk := response.read(min(_CHUNK_BYTES, bytes_max + 1), decode_content=False):
            size += len(chunk)
            if size > bytes_max:
                return None
            chunks.append(chunk)
        whole = True
        return b"".join(chunks)
    finally:
        if whole:
            response.release_conn()
        else:
            response.close()


def _reason(error: BaseException, exchange: Exchange) -> str:
    """Name of what went wrong. It never quotes the error, whose text can hold a URL with secrets."""
    if exchange.failure:
        return exchange.failure
    if exchange.expired:
        return "total_timeout"
    inner = error.args[1] if isinstance(error, ProtocolError) and len(error.args) > 1 else error
    if isinstance(inner, TimeoutError | ReadTimeoutError):
        return "read_timeout"
    if isinstance(inner, IncompleteRead | http.client.IncompleteRead):
        return "truncated"
    if isinstance(inner, ssl.SSLError | PoolSSLError):
        return "tls"
    if isinstance(inner, http.client.RemoteDisconnected | OSError):
        return "connection_lost"
    if isinstance(error, ValueError) and not exchange.sent:
        return "invalid_request"
    return "garbled"
