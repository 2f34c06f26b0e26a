"""A message to a shop's URL reaches only public addresses, and exactly the address that was checked. Invariant X5."""

import socket

import pytest

from payonce.channels.http import close_idle_connections, post_to_public
from payonce.channels.http.addresses import is_public
from payonce.channels.messages import HttpResponse, TransportError
from tests.channels.conftest import Tls
from tests.channels.raw_server import answer, raw_server, replies

FORBIDDEN = TransportError("forbidden_address", sent=False)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd12::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "2002:a00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "nonsense",
    ],
)
def test_address_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_address_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"])
def test_x5_private_host_is_refused_and_nothing_connects(host: str) -> None:
    with raw_server(replies(answer())) as server:
        assert post_to_public(f"http://{host}:{server.port}/hook", {}, b"{}") == FORBIDDEN
        assert (server.connections, server.requests) == (0, [])


def names_point_to(monkeypatch: pytest.MonkeyPatch, answers: dict[str, list[list[str]]]) -> list[str]:
    """Make each name resolve to the next of its answers; real literals still work."""
    asked: list[str] = []
    genuine = socket.getaddrinfo

    def look_up(host: str, port: int, *args: object, **kwargs: object) -> object:
        if host not in answers:
            return genuine(host, port, *args, **kwargs)  # type: ignore[arg-type]
        asked.append(host)
        addresses = answers[host][min(len(asked), len(answers[host])) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def test_x5_name_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names_point_to(monkeypatch, {"shop.example": [["8.8.8.8", "10.0.0.1"]]})
    assert post_to_public("http://shop.example/hook", {}, b"{}") == FORBIDDEN


def test_x5_name_is_resolved_once_so_a_changing_answer_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = names_point_to(monkeypatch, {"rebind.example": [["127.0.0.1"], ["8.8.8.8"]]})
    assert post_to_public("http://rebind.example/hook", {}, b"{}") == FORBIDDEN
    assert asked == ["rebind.example"]


def test_allowed_private_host_is_reached_with_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names_point_to(monkeypatch, {"shop.example": [["127.0.0.1"]]})
    with raw_server(replies(answer(b"", "204 No Content"))) as server:
        url = f"http://shop.example:{server.port}/hook?x=1"
        reply = post_to_public(url, {"webhook-id": "m1"}, b"{}", allow_private_hosts=["SHOP.example"])
        again = post_to_public(url, {}, b"{}", allow_private_hosts=[f"shop.example:{server.port}"])
        elsewhere = post_to_public(url, {}, b"{}", allow_private_hosts=["shop.example:1", "example"])
    assert isinstance(reply, HttpResponse)
    assert isinstance(again, HttpResponse)
    assert elsewhere == FORBIDDEN
    assert f"host: shop.example:{server.port}".encode() in server.requests[0].lower()
    assert server.requests[0].startswith(b"POST /hook?x=1 ")


def test_tls_is_verified_against_the_name(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.trusted))
    close_idle_connections()
    names_point_to(monkeypatch, {"shop.example": [["127.0.0.1"]], "other.example": [["127.0.0.1"]]})
    with raw_server(replies(answer()), tls.server) as server:
        good = f"https://shop.example:{server.port}/"
        bad = f"https://other.example:{server.port}/"
        assert isinstance(post_to_public(good, {}, b"{}", allow_private_hosts=["shop.example"]), HttpResponse)
        assert post_to_public(bad, {}, b"{}", allow_private_hosts=["other.example"]) == TransportError(
            "tls", sent=False
        )
    close_idle_connections()


def test_redirect_is_not_followed() -> None:
    with raw_server(replies(answer(b"", "307 Temporary Redirect", "location: http://127.0.0.1:1/"))) as server:
        reply = post_to_public(server.url, {}, b"{}", allow_private_hosts=["127.0.0.1"])
    assert isinstance(reply, HttpResponse)
    assert (reply.status, len(server.requests)) == (307, 1)


@pytest.mark.parametrize(
    "url", ["http://user:pw@8.8.8.8/", "file:///etc/passwd", "gopher://8.8.8.8/", "nonsense", "http://[::1/"]
)
def test_unusable_url_is_not_sent(url: str) -> None:
    assert post_to_public(url, {}, b"{}") == TransportError("invalid_request", sent=False)
