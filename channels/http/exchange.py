"""What both drivers agree on: the headers that leave, the limits of one exchange, and the names of transport errors."""

import socket
import ssl
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from payonce.channels.messages import HttpRequest

USER_AGENT = "payonce"
SCHEMES = frozenset({"http", "https"})


class TotalTimeoutError(TimeoutError):
    """The exchange used up its total time."""


class ForbiddenAddressError(OSError):
    """The name resolved to an address that may not be called."""


class Exchange:
    """The limits and the progress of one request and its answer.

    `sent` turns true when the first byte of the request may have left.
    """

    def __init__(self, request: HttpRequest) -> None:
        self.deadline = time.monotonic() + request.timeout_total
        self.timeout_connect = request.timeout_connect
        self.timeout_read = request.timeout_read
        self.sent = False
        self.failure = ""

    @property
    def expired(self) -> bool:
        """True once the total time is used up."""
        return time.monotonic() >= self.deadline

    def remaining(self, seconds: float) -> float:
        """Seconds that the next step may take, at most `seconds`. Raises TotalTimeoutError when none are left."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TotalTimeoutError("total time used up")
        return min(seconds, left)


def outgoing_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The caller's headers plus ours. The body must stay as the channel signed it, so no compression is invited."""
    names = {name.lower() for name in headers}
    result = dict(headers)
    if "accept-encoding" not in names:
        result["accept-encoding"] = "identity"
    if "user-agent" not in names:
        result["user-agent"] = USER_AGENT
    return result


def is_sendable(request: HttpRequest) -> bool:
    """False for what no driver can send as it stands: a relative or foreign URL, or a line break in a header."""
    try:
        parts = urlsplit(request.url)
        port_fits = parts.port is None or 0 < parts.port < 65_536
    except ValueError:
        return False
    texts = [request.url, request.method, *request.headers, *request.headers.values()]
    clean = not any(character in text for text in texts for character in "\r\n\0")
    ascii_only = request.url.isascii() and " " not in request.url
    return (
        parts.scheme in SCHEMES
        and bool(parts.hostname)
        and parts.username is None
        and port_fits
        and clean
        and ascii_only
    )


def connect_failure(error: BaseException) -> str:
    """Name of the reason why no connection came about."""
    if isinstance(error, ForbiddenAddressError):
        return "forbidden_address"
    if isinstance(error, TotalTimeoutError):
        return "total_timeout"
    if isinstance(error, TimeoutError):
        return "connect_timeout"
    if isinstance(error, ssl.SSLError | ssl.CertificateError):
        return "tls"
    if isinstance(error, socket.gaierror):
        return "dns"
    if isinstance(error, ConnectionRefusedError):
        return "connect_refused"
    return "connect_failed"
