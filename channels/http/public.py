"""Posting to an address that somebody else chose: a shop's message endpoint.

Whoever can set such a URL must not reach our own network with it. The name is resolved once, every address it has
must be public, and the connection goes to the address that was checked, so a name that changes its answer between
check and call gains nothing. TLS still verifies the name.
"""

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from payonce.channels.http.addresses import is_public
from payonce.channels.http.blocking import send_within
from payonce.channels.messages import HttpRequest, HttpResponse, TransportError

TIMEOUT_CONNECT_SECONDS = 3.0
TIMEOUT_READ_SECONDS = 8.0
TIMEOUT_TOTAL_SECONDS = 10.0
BYTES_MAX = 65_536


def post_to_public(
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    allow_private_hosts: Collection[str] = (),
    timeout_total: float = TIMEOUT_TOTAL_SECONDS,
) -> HttpResponse | TransportError:
    """POST `body` to a public address and return the answer, a redirect included.

    `allow_private_hosts` holds host names, or `host:port`, that may also be private: for a shop beside us, and for
    tests. Anything else that is not public is `TransportError("forbidden_address", sent=False)`.
    """
    request = HttpRequest(
        method="POST",
        url=url,
        headers=headers,
        body=body,
        timeout_connect=min(TIMEOUT_CONNECT_SECONDS, timeout_total),
        timeout_read=min(TIMEOUT_READ_SECONDS, timeout_total),
        timeout_total=timeout_total,
        bytes_max=BYTES_MAX,
    )
    if _may_be_private(url, allow_private_hosts):
        # These connections were not checked, so they stay out of the pool of those that were.
        return send_within(request, pool="private shop", rule=None)
    return send_within(request, pool="public shop", rule=_allows)


def _allows(host: str, address: str) -> bool:
    return is_public(address)


def _may_be_private(url: str, allowed: Collection[str]) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        return False
    names = {name.lower() for name in allowed}
    host = (parts.hostname or "").lower()
    return bool(host) and (host in names or f"{host}:{port}" in names)
