"""Attacks on the signature of a notification, over real HTTP: each is refused, counted, and changes nothing (X1, X2)."""

import base64
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from django.db.models import Sum

from payonce.channels.signing import sign_answer, sign_request
from payonce.orders.models import Order
from payonce.payments.models import Notification, Stream
from tests.api.conftest import everything
from tests.clock import movable_clock
from tests.factories import open_order
from tests.fuzz.conftest import Site, pay
from tests.fuzz.messages import ACCOUNT, NONCE, SIGNATURE, TIMESTAMP, Message, newest_message

Sent = tuple[Mapping[str, str] | list[tuple[str, str]], bytes]
Attack = Callable[[Message], Sent]


@pytest.fixture
def message(site: Site) -> Message:
    """A genuine notification that the buyer paid; nobody has delivered it yet."""
    stream = pay(open_order())
    assert site.bank.control.pay(stream.number).ok
    return newest_message(site.bank, stream.number, time.time())


def altered(message: Message, **fields: Any) -> bytes:
    """The body with other fields of the payment, written as the bank writes."""
    record = json.loads(message.body)
    record["payment"].update(fields)
    return json.dumps(record, separators=(",", ":")).encode()


def alter(**fields: Any) -> Attack:
    return lambda message: (message.headers, altered(message, **fields))


def with_headers(**changes: str | None) -> Attack:
    return lambda message: (message.but(**changes), message.body)


def change_signature(change: Callable[[str], str]) -> Attack:
    return lambda message: (message.but(sandbox_signature=change(message.headers[SIGNATURE])), message.body)


def digest_of(value: str) -> str:
    return value.partition("=")[2]


def reflected_request(message: Message) -> Sent:
    """What payonce itself signs with the same key: a request to the bank."""
    made = sign_request(
        message.account.secret, message.account.merchant, "POST", "/v1/payments", message.body, message.at
    )
    return {**message.headers, **made.headers()}, message.body


def reflected_answer(message: Message) -> Sent:
    """What the bank signs with the same key: an answer, here to a request whose nonce is the merchant's name."""
    made = sign_answer(message.account.secret, message.account.merchant, 200, message.body, message.at)
    return {**message.headers, **made.headers()}, message.body


def two_signatures(first_is_good: bool) -> Attack:
    def attack(message: Message) -> Sent:
        good, bad = message.headers[SIGNATURE], "hmac-sha256=" + "0" * 64
        pairs = [item for item in message.headers.items() if item[0] != SIGNATURE]
        order = (good, bad) if first_is_good else (bad, good)
        return [*pairs, *((SIGNATURE, value) for value in order)], message.body

    return attack


def two_accounts(message: Message) -> Sent:
    pairs = [item for item in message.headers.items() if item[0] != ACCOUNT]
    return [*pairs, (ACCOUNT, message.account.merchant), (ACCOUNT, message.other.merchant)], message.body


def shifted(message: Message) -> Sent:
    """The first character of the nonce moved to the end of the timestamp: another cut of the same text."""
    digits = message.headers[TIMESTAMP] + "1"
    return message.but(sandbox_timestamp=digits, sandbox_nonce=message.headers[NONCE][1:]), message.body


ATTACKS: dict[str, Attack] = {
    # the key
    "empty key": lambda message: (message.signed_with(b""), message.body),
    "key of no configuration": lambda message: (message.signed_with(b"None"), message.body),
    "key of spaces": lambda message: (message.signed_with(b" "), message.body),
    "the account's name as the key": lambda message: (message.signed_with(message.account.merchant.encode()), message.body),
    "half the key": lambda message: (message.signed_with(message.account.secret[:16].encode()), message.body),
    "another account's key": lambda message: (message.signed_with(message.other.secret.encode()), message.body),
    "another account's key and name": lambda message: (
        message.signed(message.body, secret=message.other.secret, merchant=message.other.merchant), message.body
    ),
    "our name over another's key": lambda message: (message.signed(message.body, secret=message.other.secret), message.body),
    # what is signed
    "our own request, reflected": reflected_request,
    "the bank's answer, reflected": reflected_answer,
    "another domain": lambda message: (
        message.signed_with(message.account.secret.encode(), "statement", message.account.merchant), message.body
    ),
    "less is signed": lambda message: (message.signed_with(message.account.secret.encode(), "notification"), message.body),
    # the body after signing
    "paid amount altered": alter(paid_minor=1),
    "amount altered": alter(amount_minor=1, paid_minor=1),
    "state altered": alter(state="CLOSED"),
    "reference altered": alter(reference="cap_mine"),
    "number altered": alter(number="po0000000000000s01"),
    "currency altered": alter(currency="JPY"),
    "a field added": alter(extra=1),
    "id altered": lambda message: (message.headers, json.dumps({**json.loads(message.body), "id": "new"}).encode()),
    "written anew": lambda message: (message.headers, json.dumps(json.loads(message.body), indent=1).encode()),
    "keys in another order": lambda message: (
        message.headers, json.dumps(dict(reversed(json.loads(message.body).items())), separators=(",", ":")).encode()
    ),
    "escaped differently": lambda message: (message.headers, message.body.replace(b"PAID", b"\\u0050AID")),
    "a field twice": lambda message: (message.headers, b'{"event":"payment.closed",' + message.body[1:]),
    "a line break at the end": lambda message: (message.headers, message.body + b"\n"),
    "a space before": lambda message: (message.headers, b" " + message.body),
    "a byte order mark": lambda message: (message.headers, b"\xef\xbb\xbf" + message.body),
    "in UTF-16": lambda message: (message.headers, message.body.decode().encode("utf-16")),
    "in base64": lambda message: (message.headers, base64.b64encode(message.body)),
    "twice": lambda message: (message.headers, message.body * 2),
    "cut off": lambda message: (message.headers, message.body[:-1]),
    "empty": lambda message: (message.headers, b""),
    # the algorithm
    "no algorithm": change_signature(lambda value: f"none={digest_of(value)}"),
    "none at all": change_signature(lambda value: "none="),
    "without a name": change_signature(digest_of),
    "MD5 by its name": lambda message: (
        message.signed_with(message.account.secret.encode(), name="hmac-md5", digest="md5"), message.body
    ),
    "SHA-1 by its name": lambda message: (
        message.signed_with(message.account.secret.encode(), name="hmac-sha1", digest="sha1"), message.body
    ),
    "SHA-512 by its name": lambda message: (
        message.signed_with(message.account.secret.encode(), name="hmac-sha512", digest="sha512"), message.body
    ),
    "SHA-1 under the right name": lambda message: (
        message.signed_with(message.account.secret.encode(), digest="sha1"), message.body
    ),
    "a public key's algorithm": change_signature(lambda value: f"rsa-sha256={digest_of(value)}"),
    "the name in capitals": change_signature(str.upper),
    # the signature
    "one character changed": change_signature(lambda value: value[:-1] + ("0" if value[-1] != "0" else "1")),
    "one character less": change_signature(lambda value: value[:-1]),
    "one character more": change_signature(lambda value: value + "0"),
    "in capitals": change_signature(lambda value: "hmac-sha256=" + digest_of(value).upper()),
    "in base64 too": change_signature(
        lambda value: "hmac-sha256=" + base64.b64encode(bytes.fromhex(digest_of(value))).decode()
    ),
    "only its name": change_signature(lambda value: "hmac-sha256="),
    "a list": change_signature(lambda value: f"hmac-sha256={'0' * 64},{value}"),
    "two of them, good first": two_signatures(True),
    "two of them, good last": two_signatures(False),
    "very long": change_signature(lambda value: value + "0" * 5000),
    "not ASCII": change_signature(lambda value: value[:-2] + "\xe9"),
    # the other headers
    "no signature": with_headers(sandbox_signature=None),
    "no timestamp": with_headers(sandbox_timestamp=None),
    "no nonce": with_headers(sandbox_nonce=None),
    "no account": with_headers(sandbox_account=None),
    "nothing": lambda message: ({}, message.body),
    "another nonce": with_headers(sandbox_nonce="0" * 32),
    "a nonce with a line break in it": with_headers(sandbox_nonce="00000000%0a00000000"),
    "another account": lambda message: (message.but(sandbox_account=message.other.merchant), message.body),
    "the account in capitals": lambda message: (message.but(sandbox_account=message.account.merchant.upper()), message.body),
    "two accounts": two_accounts,
    "another time": lambda message: (message.but(sandbox_timestamp=str(int(message.at) + 1)), message.body),
    "the time with a sign": lambda message: (message.but(sandbox_timestamp=f"+{int(message.at)}"), message.body),
    "the time with a fraction": lambda message: (message.but(sandbox_timestamp=f"{int(message.at)}.0"), message.body),
    "the time as a float": lambda message: (message.but(sandbox_timestamp=f"{message.at:e}"), message.body),
    "the time below zero": with_headers(sandbox_timestamp="-1"),
    "the time without an end": with_headers(sandbox_timestamp="9" * 400),
    "digits moved from nonce to time": shifted,
    "names with underscores": lambda message: (
        {name.replace("-", "_"): value for name, value in message.headers.items()}, message.body
    ),
    # a true signature that is too old or too early, never seen before
    "stale": lambda message: (message.signed(message.body, at=message.at - 3600), message.body),
    "a year old": lambda message: (message.signed(message.body, at=message.at - 31_536_000), message.body),
    "from the future": lambda message: (message.signed(message.body, at=message.at + 3600), message.body),
    "at the beginning of time": lambda message: (message.signed(message.body, at=0), message.body),
    # a true signature over what is no notification
    "signed: a field twice": lambda message: (
        message.signed(b'{"event":"payment.closed",' + message.body[1:]), b'{"event":"payment.closed",' + message.body[1:]
    ),
    "signed: not JSON": lambda message: (message.signed(b"{"), b"{"),
    "signed: a list": lambda message: (message.signed(b"[]"), b"[]"),
    "signed: no id": lambda message: (message.signed(without_id(message)), without_id(message)),
    "signed: a broken amount": lambda message: (
        message.signed(altered(message, paid_minor=999.5)), altered(message, paid_minor=999.5)
    ),
    "signed: an amount as text": lambda message: (
        message.signed(altered(message, paid_minor="1000")), altered(message, paid_minor="1000")
    ),
    "signed: an amount below zero": lambda message: (
        message.signed(altered(message, paid_minor=-1000)), altered(message, paid_minor=-1000)
    ),
}  # fmt: skip


def without_id(message: Message) -> bytes:
    record = json.loads(message.body)
    del record["id"]
    return json.dumps(record).encode()


def refused_count() -> int:
    return Notification.objects.filter(state="FORGED").aggregate(total=Sum("count"))["total"] or 0


STALE = {"stale", "a year old", "from the future", "at the beginning of time"}
"""Truly signed: the stream that they name is asked about, and nothing else changes."""


def rows_but_plans() -> dict[str, Any]:
    """Everything that an attack must not change; when a stream is asked about next is no news about it."""
    found = everything()
    for row in found["streams"]:
        del row["next_check_at"], row["nudged_at"]
    return found


@pytest.mark.timeout(600)
def test_every_attack_is_refused_counted_and_changes_nothing(site: Site, message: Message):
    """X1: no success answer, no state change, one more in the security record; and the genuine message still works.

    Every attack goes against one running site: to start it anew for each would take minutes and show nothing more.
    """
    failures = []
    for name, attack in ATTACKS.items():
        before, count = rows_but_plans() if name in STALE else everything(), refused_count()
        headers, body = attack(message)
        answer = site.send("POST", "/notify/blue/", body, headers)
        same = (rows_but_plans() if name in STALE else everything()) == before
        said = (answer.status, same, refused_count() - count)
        if said not in ((401, True, 1), (400, True, 0)):  # 400: the server itself does not read such a request
            failures.append((name, said, answer.data[:80]))
    assert not failures
    answer = site.send("POST", "/notify/blue/", message.body, message.headers)
    assert (answer.status, answer.data) == (200, b"success")
    assert Order.objects.get().state == "PAID"


def test_an_unseen_stale_message_makes_payonce_ask(site: Site, message: Message):
    """X2: refused, and a query is triggered."""
    Stream.objects.update(next_check_at="2099-01-01T00:00:00Z", nudged_at=None)
    stale = message.signed(message.body, at=message.at - 3600)
    assert site.send("POST", "/notify/blue/", message.body, stale).status == 401
    assert Stream.objects.get().next_check_at.year < 2099


def test_a_forged_stale_message_makes_payonce_ask_nothing(site: Site, message: Message):
    Stream.objects.update(next_check_at="2099-01-01T00:00:00Z", nudged_at=None)
    forged = message.signed(message.body, at=message.at - 3600, secret=message.other.secret)
    assert site.send("POST", "/notify/blue/", message.body, forged).status == 401
    assert Stream.objects.get().next_check_at.year == 2099


PATHS = (
    "/notify/green/", "/notify/BLUE/", "/notify/blue", "/notify//blue/", "/notify/blue/x/", "/notify/green/../blue/x/",
    "/notify/bl%75e%00/", "/notify/blue%2f/", "/NOTIFY/blue/",
)  # fmt: skip


def test_a_genuine_message_counts_only_at_its_own_door(site: Site, message: Message):
    """X1: the address decides nothing but which keys verify."""
    before = everything()
    found = {path: site.send("POST", path, message.body, message.headers).status for path in PATHS}
    assert set(found.values()) <= {301, 400, 401, 404}, found
    assert everything() == before
    assert site.send("POST", "/notify/blue/?account=green&x=%00", message.body, message.headers).status == 200
    assert Order.objects.get().state == "PAID"


TRICKS: tuple[dict[str, str], ...] = (
    {"host": "evil.example"}, {"host": "127.0.0.1.evil.example"}, {"host": "127.0.0.1:80@evil.example"}, {"host": ""},
    {"x-forwarded-host": "evil.example", "x-forwarded-for": "10.0.0.1", "forwarded": "for=10.0.0.1;host=evil.example"},
    {"x-original-url": "/notify/green/", "x-rewrite-url": "/notify/green/"}, {"x-http-method-override": "GET"},
    {"content-encoding": "gzip"}, {"content-type": "text/plain; charset=utf-16"},
)  # fmt: skip


def test_headers_around_the_signature_make_no_difference(site: Site, message: Message):
    """X1: a forgery stays one behind any of them; a genuine message is read as it was signed, or not at all."""
    before = everything()
    for tricks in TRICKS:
        forged = {**message.signed(message.body, secret=message.other.secret), **tricks}
        assert site.send("POST", "/notify/blue/", message.body, forged).status in (400, 401), tricks
    assert everything() == before
    found = {
        str(tricks): site.send("POST", "/notify/blue/", message.body, {**message.headers, **tricks}).status
        for tricks in TRICKS
    }
    assert set(found.values()) == {200, 400}, found
    assert [found[str(tricks)] for tricks in TRICKS[:3]] == [400] * 3
    assert Order.objects.get().state == "PAID"


def test_a_processed_message_is_a_success_at_any_age_and_changes_nothing(site: Site, message: Message):
    """X2: the same bytes again, three times at each age, however old the signature has become."""
    assert site.send("POST", "/notify/blue/", message.body, message.headers).status == 200
    with movable_clock() as clock:
        before = everything()
        for age_seconds in (0, 299, 2, 86_400, 40_000_000):
            clock.advance(age_seconds)
            for _time in range(3):
                answer = site.send("POST", "/notify/blue/", message.body, message.headers)
                assert (answer.status, answer.data) == (200, b"success"), age_seconds
        assert everything() == before


def test_a_processed_message_under_a_forged_signature_is_no_success(site: Site, message: Message):
    """X1, X2: knowing an old message's id opens nothing."""
    assert site.send("POST", "/notify/blue/", message.body, message.headers).status == 200
    before = everything()
    for key in (b"", message.other.secret.encode()):
        assert site.send("POST", "/notify/blue/", message.body, message.signed_with(key)).status == 401
    assert everything() == before


def test_a_refused_message_is_stored_nowhere(site: Site, message: Message):
    """X1: of a forgery only a count remains."""
    body = message.body.replace(b"payment.paid", b"planted-by-the-forger")
    assert site.send("POST", "/notify/blue/", body, message.headers).status == 401
    row = Notification.objects.get()
    assert (row.state, bytes(row.body), row.headers, row.parsed, row.number) == ("FORGED", b"", "", "", "")
    assert b"planted" not in repr(row.__dict__).encode()
