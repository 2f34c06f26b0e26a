"""The little of ASGI that the bank needs: reading a request up to a size, and answering, also badly on purpose."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from payonce.channels.sandbox.faults import DropError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_BYTES_MAX = 1_000_000


class TooLargeError(Exception):
    """The request's body is larger than the bank reads."""


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request. `target` is path and query exactly as received; header names are lower-case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def target(self) -> str:
        """What the caller signed."""
        return self.path + (f"?{self.query}" if self.query else "")


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer. `truncate` breaks off in the middle, `drip_seconds` sends it byte by byte."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    truncate: bool = False
    drip_seconds: float = 0.0


async def read_request(scope: Scope, receive: Receive) -> Request:
    """The whole request. Raises TooLargeError."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise DropError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > BODY_BYTES_MAX:
            raise TooLargeError
        chunks.append(chunk)
        if not message.get("more_body"):
            break
    raw_path = scope.get("raw_path") or scope["path"].encode()
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    return Request(
        scope["method"], raw_path.decode("latin-1"), scope["query_string"].decode("latin-1"), headers, b"".join(chunks)
    )


async def send_response(send: Send, response: Response) -> None:
    """Send an answer. A truncated one ends by DropError after half of its body."""
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.items()]
    headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if response.truncate:
        await send({"type": "http.response.body", "body": response.body[: len(response.body) // 2], "more_body": True})
        raise DropError
    if response.drip_seconds:
        for position in range(len(response.body)):
            await send(
                {"type": "http.response.body", "body": response.body[position : position + 1], "more_body": True}
            )
            await asyncio.sleep(response.drip_seconds)
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.body", "body": response.body})
