"""Name resolution within a time limit, and the rule which addresses a message to an outside party may reach."""

import ipaddress
import queue
import socket
import threading

Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def resolve(host: str, port: int, seconds: float) -> list[Address]:
    """All addresses of `host`, in the resolver's order. Raises socket.gaierror, or TimeoutError after `seconds`.

    The system's resolver has no time limit of its own, so a name is looked up on a short-lived thread.
    """
    if _is_literal(host):
        return _lookup(host, port)
    answers: queue.SimpleQueue[list[Address] | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(_lookup(host, port))
        except (OSError, UnicodeError) as error:
            answers.put(error if isinstance(error, OSError) else socket.gaierror(str(error)))

    threading.Thread(target=look_up, name="payonce-resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError("name resolution took too long") from None
    if isinstance(answer, OSError):
        raise answer
    return answer


def is_public(text: str) -> bool:
    """True only for an address of the open internet, also when an IPv6 address carries an IPv4 address inside."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return is_public(str(inner))
        if address.is_site_local:
            return False
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
    )


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _lookup(host: str, port: int) -> list[Address]:
    return [(family, address) for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
