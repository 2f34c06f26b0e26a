"""The asyncio driver, for the poller's hundreds of concurrent queries: aiohttp, one session per driver."""

import asyncio
import contextlib
from types import SimpleNamespace, TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from yarl import URL

from payonce.channels.base import Conversation
from payonce.channels.http.exchange import is_sendable, outgoing_headers
from payonce.channels.messages import HttpRequest, HttpResponse, TransportError

T = TypeVar("T")
_NEVER_ROUND_UP = 86_400.0


class AsyncDriver:
    """Runs many conversations at once in one event loop.

    Use it as `async with AsyncDriver() as driver: await driver.run(conversation)`.

    `connections_max` bounds the sockets; a request above it waits, and its waiting counts towards its total time. The
    driver belongs to the loop and the process that entered it.
    """

    def __init__(self, *, connections_max: int = 512, connections_max_per_host: int = 0) -> None:
        self._connections_max = connections_max
        self._connections_max_per_host = connections_max_per_host
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = new_session(self._connections_max, self._connections_max_per_host)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def run(self, conversation: Conversation[T]) -> T:
        """Run an adapter's conversation to its outcome."""
        return await run_async(conversation, self._entered())

    async def send(self, request: HttpRequest) -> HttpResponse | TransportError:
        """Send one request once, within its limits."""
        return await send_async(request, self._entered())

    def _entered(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("enter the driver first: async with AsyncDriver() as driver")
        return self._session


async def run_async(conversation: Conversation[T], session: aiohttp.ClientSession) -> T:
    """Run an adapter's conversation over a session made by `AsyncDriver` (or `new_session`)."""
    with contextlib.closing(conversation):
        try:
            request = next(conversation)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        while True:
            answer = await send_async(request, session)
            try:
                request = conversation.send(answer)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]


def new_session(connections_max: int, connections_max_per_host: int = 0) -> aiohttp.ClientSession:
    """A session without cookies, proxies from the environment, decompression or repeats.

    Call it inside the running loop.
    """
    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(_mark_sent)
    trace.on_connection_reuseconn.append(_mark_sent)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections_max, limit_per_host=connections_max_per_host),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        trace_configs=[trace],
    )
    # aiohttp repeats an idempotent request once when a kept-alive connection breaks; here nobody repeats unasked.
    session._retry_connection = False  # noqa: SLF001 - there is no public switch
    return session


async def send_async(request: HttpRequest, session: aiohttp.ClientSession) -> HttpResponse | TransportError:
    """Send one request once, within its limits. Never raises for what the network or the other side does."""
    if not is_sendable(request):
        return TransportError("invalid_request", sent=False)
    progress = SimpleNamespace(sent=False)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + request.timeout_total
    try:
        return await _exchange(request, session, progress)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        expired = loop.time() >= deadline
        return TransportError(_reason(error, expired=expired, sent=progress.sent), sent=progress.sent)


async def _exchange(
    request: HttpRequest, session: aiohttp.ClientSession, progress: SimpleNamespace
) -> HttpResponse | TransportError:
    timeout = aiohttp.ClientTimeout(
        total=request.timeout_total,
        sock_connect=request.timeout_connect,
        sock_read=request.timeout_read,
        ceil_threshold=_NEVER_ROUND_UP,
    )
    async with session.request(
        request.method,
        URL(request.url, encoded=True),
        headers=outgoing_headers(request.headers),
        data=request.body or None,
        allow_redirects=False,
        timeout=timeout,
        skip_auto_headers=("content-type",),
        trace_request_ctx=progress,
    ) as response:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > request.bytes_max:
                response.close()
                return TransportError("body_too_large")
        return HttpResponse(status=response.status, headers=_joined(response.headers), body=bytes(body))


async def _mark_sent(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
    context.trace_request_ctx.sent = True


def _joined(headers: Any) -> dict[str, str]:
    result: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        result[key] = f"{result[key]}, {value}" if key in result else value
    return result


def _reason(error: BaseException, *, expired: bool, sent: bool) -> str:
    """Name of what went wrong, in the words of the blocking driver."""
    if expired:
        return "total_timeout"
    if not sent:
        return _connect_reason(error)
    if isinstance(error, TimeoutError):
        return "read_timeout"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "truncated"
    if isinstance(error, OSError | aiohttp.ServerDisconnectedError):
        return "connection_lost"
    return "garbled"


def _connect_reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "connect_timeout"
    if isinstance(error, aiohttp.ClientSSLError):
        return "tls"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "dns"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "connect_refused" if isinstance(error.os_error, ConnectionRefusedError) else "connect_failed"
    return "invalid_request" if isinstance(error, ValueError) else "connect_failed"
