"""Both drivers keep the same promises: every wait ends, nothing is sent twice, "not sent" is said only if certain."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator

import pytest

from payonce.channels.http import AsyncDriver, close_idle_connections, run, send
from payonce.channels.messages import HttpRequest, HttpResponse, TransportError
from tests.channels.conftest import Tls
from tests.channels.raw_server import RawServer, answer, raw_server, refused_port, replies, replies_and_closes

WELL_BELOW_THE_NEXT_LIMIT = 7.0
"""Seconds: the limits that these tests do not set are 8 (read) and 10 (total); a busy machine adds to those that they do."""

Send = Callable[[HttpRequest], HttpResponse | TransportError]


def send_by_async_driver(request: HttpRequest) -> HttpResponse | TransportError:
    async def once() -> HttpResponse | TransportError:
        async with AsyncDriver() as driver:
            return await driver.send(request)

    return asyncio.run(once())


@pytest.fixture(params=["blocking", "asyncio"])
def deliver(request: pytest.FixtureRequest) -> Iterator[Send]:
    yield send if request.param == "blocking" else send_by_async_driver
    close_idle_connections()


PATIENCE_SECONDS = 120.0
"""Where a busy machine may take its time: the test is about something else."""


def get(url: str, **limits: float) -> HttpRequest:
    return HttpRequest("GET", url, **limits)  # type: ignore[arg-type]


def test_answer_keeps_status_lower_case_headers_and_exact_bytes(deliver: Send) -> None:
    with raw_server(replies(answer(b"\x00\xff\r\n", "418 Teapot", "X-Mixed-Case: Yes"))) as server:
        reply = deliver(HttpRequest("POST", server.url + "/a?b=c%2Fd", {"X-Asked": "1"}, b"body"))
    assert isinstance(reply, HttpResponse)
    assert (reply.status, reply.body, reply.headers["x-mixed-case"]) == (418, b"\x00\xff\r\n", "Yes")
    head = server.requests[0]
    assert head.startswith(b"POST /a?b=c%2Fd HTTP/1.1\r\n")
    assert head.endswith(b"\r\n\r\nbody")


def test_compressed_body_stays_as_it_was_signed(deliver: Send) -> None:
    with raw_server(replies(answer(b"\x1f\x8bnot really gzip", "200 OK", "content-encoding: gzip"))) as server:
        reply = deliver(get(server.url))
    assert isinstance(reply, HttpResponse)
    assert reply.body == b"\x1f\x8bnot really gzip"
    assert b"accept-encoding: identity" in server.requests[0].lower()


def test_redirect_is_an_answer_and_is_not_followed(deliver: Send) -> None:
    with raw_server(replies(answer(b"", "302 Found", "location: /elsewhere"))) as server:
        reply = deliver(get(server.url))
    assert isinstance(reply, HttpResponse)
    assert (reply.status, len(server.requests)) == (302, 1)


def test_proxy_of_the_environment_is_ignored(deliver: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{refused_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with raw_server(replies(answer())) as server:
        assert isinstance(deliver(get(server.url)), HttpResponse)


def test_refused_connection_was_surely_not_sent(deliver: Send) -> None:
    assert deliver(get(f"http://127.0.0.1:{refused_port()}/")) == TransportError("connect_refused", sent=False)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/",
        "/relative",
        "http://",
        "http://127.0.0.1:99999/",
        "http://user:word@127.0.0.1/",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\u00e9",
        "http://[::1/",
    ],
)
def test_unsendable_url_was_surely_not_sent(deliver: Send, url: str) -> None:
    assert deliver(get(url)) == TransportError("invalid_request", sent=False)


def test_line_break_in_a_header_was_surely_not_sent(deliver: Send) -> None:
    request = HttpRequest("GET", "http://127.0.0.1/", {"x": "a\r\nhost: evil"})
    assert deliver(request) == TransportError("invalid_request", sent=False)


def test_unresolvable_name_was_surely_not_sent(deliver: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert deliver(get("http://shop.invalid/")) == TransportError("dns", sent=False)


def test_name_that_is_looked_up_for_ever_ends_at_the_connect_limit(
    deliver: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    genuine = socket.getaddrinfo

    def hang(host: str, *args: object, **kwargs: object) -> object:
        if host == "slow.invalid":
            answered.wait(10)
        return genuine(host, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    waker = threading.Timer(0.8, answered.set)  # asyncio waits for its resolver's thread at the end
    waker.start()
    started = time.monotonic()
    reply = deliver(get("http://slow.invalid/", timeout_connect=0.2, timeout_total=0.4))
    assert isinstance(reply, TransportError)
    assert (reply.reason in {"connect_timeout", "total_timeout"}, reply.sent) == (True, False)
    assert time.monotonic() - started < WELL_BELOW_THE_NEXT_LIMIT
    waker.join()


def test_server_that_never_answers_ends_at_the_read_limit(deliver: Send) -> None:
    with raw_server(lambda _c, _r: None) as server:
        started = time.monotonic()
        assert deliver(get(server.url, timeout_read=0.2)) == TransportError("read_timeout", sent=True)
    assert time.monotonic() - started < WELL_BELOW_THE_NEXT_LIMIT


@pytest.mark.parametrize("head", [b"", answer(b"x" * 1_000)[:-1_000]], ids=["headers", "body"])
def test_slow_drip_ends_at_the_total_limit(deliver: Send, head: bytes) -> None:
    def drip(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(head)
        text = b"" if head else b"HTTP/1.1 200 OK\r\nx: "
        connection.sendall(text)
        while not server.stopping.wait(0.05):
            connection.sendall(b"y")

    with raw_server(drip) as server:
        started = time.monotonic()
        reply = deliver(get(server.url, timeout_read=30.0, timeout_total=2.0))
        elapsed = time.monotonic() - started
    assert reply == TransportError("total_timeout", sent=True)
    assert 1.9 < elapsed < WELL_BELOW_THE_NEXT_LIMIT


def test_body_above_the_limit_is_dropped(deliver: Send) -> None:
    with raw_server(replies(answer(b"x" * 1_001))) as server:
        request = HttpRequest("GET", server.url, bytes_max=1_000)
        assert deliver(request) == TransportError("body_too_large", sent=True)
        assert isinstance(deliver(HttpRequest("GET", server.url, bytes_max=1_001)), HttpResponse)


def test_truncated_body_is_no_answer(deliver: Send) -> None:
    with raw_server(replies_and_closes(answer(b"x" * 100)[:-50])) as server:
        assert deliver(get(server.url)) == TransportError("truncated", sent=True)


def test_dropped_connection_counts_as_sent(deliver: Send) -> None:
    with raw_server(replies_and_closes(b"")) as server:
        assert deliver(HttpRequest("POST", server.url, {}, b"x")) == TransportError("connection_lost", sent=True)
        assert len(server.requests) == 1


@pytest.mark.parametrize("noise", [b"not http at all\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00" * 4_000])
def test_garbage_is_no_answer(deliver: Send, noise: bytes) -> None:
    with raw_server(replies_and_closes(noise)) as server:
        reply = deliver(get(server.url))
    assert isinstance(reply, TransportError)
    assert reply.sent


def test_tls_with_an_unknown_certificate_was_surely_not_sent(deliver: Send, tls: Tls) -> None:
    with raw_server(replies(answer()), tls.server) as server:
        assert deliver(get(server.url.replace("127.0.0.1", "localhost"))) == TransportError("tls", sent=False)
        assert server.requests == []


def test_tls_handshake_that_hangs_ends_at_the_connect_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        started = time.monotonic()
        assert send(get(url, timeout_connect=0.3)) == TransportError("connect_timeout", sent=False)
    assert time.monotonic() - started < WELL_BELOW_THE_NEXT_LIMIT


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_broken_kept_alive_connection_is_not_repeated(method: str) -> None:
    """The second request reaches a server that hangs up: nobody may send it a second time."""

    def script(connection: socket.socket, _request: bytes) -> None:
        if len(server.requests) == 1:
            connection.sendall(answer())
        else:
            connection.shutdown(socket.SHUT_RDWR)

    async def two() -> HttpResponse | TransportError:
        async with AsyncDriver() as driver:
            await driver.send(HttpRequest(method, server.url))
            return await driver.send(HttpRequest(method, server.url))

    with raw_server(script) as server:
        send(HttpRequest(method, server.url))
        assert send(HttpRequest(method, server.url)) == TransportError("connection_lost", sent=True)
        assert (len(server.requests), server.connections) == (2, 1)
    with raw_server(script) as server:
        assert asyncio.run(two()) == TransportError("connection_lost", sent=True)
        assert (len(server.requests), server.connections) == (2, 1)


def test_connections_are_kept_alive() -> None:
    with raw_server(replies(answer())) as server:
        for _ in range(3):
            assert isinstance(send(get(server.url)), HttpResponse)
        assert server.connections == 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # servers fork with threads, too
def test_child_of_fork_opens_its_own_connection() -> None:
    with raw_server(replies(answer())) as server:
        assert isinstance(send(get(server.url)), HttpResponse)
        child = os.fork()
        if child == 0:
            os._exit(0 if isinstance(send(get(server.url)), HttpResponse) else 1)
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert isinstance(send(get(server.url)), HttpResponse)
        assert server.connections == 2


def conversation_of(*urls: str) -> Generator[HttpRequest, HttpResponse | TransportError, list[int]]:
    statuses = []
    for url in urls:
        reply = yield get(url)
        statuses.append(reply.status if isinstance(reply, HttpResponse) else 0)
    return statuses


def test_run_sends_each_request_of_a_conversation_in_turn() -> None:
    with raw_server(replies(answer())) as server:
        assert run(conversation_of(server.url + "/1", server.url + "/2")) == [200, 200]
    assert [request.split()[1] for request in server.requests] == [b"/1", b"/2"]


def test_run_takes_another_transport_and_an_empty_conversation() -> None:
    assert run(conversation_of("x", "y"), lambda _: TransportError("none")) == [0, 0]
    assert run(conversation_of()) == []


def test_run_closes_the_conversation_when_the_transport_fails() -> None:
    closed = []

    def conversation() -> Generator[HttpRequest, HttpResponse | TransportError, None]:
        try:
            yield get("x")
        finally:
            closed.append(True)

    def broken(_: HttpRequest) -> HttpResponse:
        raise RuntimeError("a bug in a transport")

    with pytest.raises(RuntimeError):
        run(conversation(), broken)
    assert closed == [True]


def test_hundreds_of_conversations_run_at_once() -> None:
    """All 200 are in flight before the first is answered: the barrier opens only for the last."""
    barrier = threading.Barrier(200)

    def patient(url: str) -> Generator[HttpRequest, HttpResponse | TransportError, list[int]]:
        limits = {f"timeout_{part}": PATIENCE_SECONDS for part in ("connect", "read", "total")}
        reply = yield get(url, **limits)
        return [reply.status if isinstance(reply, HttpResponse) else 0]

    def script(connection: socket.socket, _request: bytes) -> None:
        barrier.wait(PATIENCE_SECONDS)
        connection.sendall(answer())

    async def all_at_once(server: RawServer) -> list[list[int]]:
        async with AsyncDriver() as driver:
            return await asyncio.gather(*(driver.run(patient(server.url)) for _ in range(200)))

    with raw_server(script) as server:
        assert asyncio.run(all_at_once(server)) == [[200]] * 200


def test_waiting_for_a_free_connection_counts_towards_the_total_and_was_not_sent() -> None:
    async def two(server: RawServer) -> list[HttpResponse | TransportError]:
        async with AsyncDriver(connections_max=1) as driver:
            first = asyncio.ensure_future(driver.send(get(server.url, timeout_total=1.0)))
            await asyncio.sleep(0)
            second = driver.send(get(server.url, timeout_total=0.3))
            return list(await asyncio.gather(first, second))

    with raw_server(lambda _c, _r: None) as server:
        first, second = asyncio.run(two(server))
    assert first == TransportError("total_timeout", sent=True)
    assert second == TransportError("total_timeout", sent=False)


def test_driver_that_was_not_entered_says_how() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        asyncio.run(AsyncDriver().send(get("http://127.0.0.1/")))
