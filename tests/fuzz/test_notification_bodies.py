"""Any body and any headers at the notification's door: refused without a trace of a 5xx, whatever is in them (X1, X6)."""

import json
import time
from typing import Any

import pytest
from hypothesis import strategies as st

from payonce.orders.models import Order
from payonce.payments import notify
from payonce.payments.models import Notification, Stream
from tests.api.conftest import everything
from tests.factories import open_order
from tests.fuzz.budget import fuzz
from tests.fuzz.conftest import Site, pay
from tests.fuzz.messages import ACCOUNT, NONCE, SIGNATURE, TIMESTAMP, Message, newest_message

HEADER_VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=80)
HEADER_NAMES = st.sampled_from(
    [ACCOUNT, TIMESTAMP, NONCE, SIGNATURE, "content-type", "content-encoding", "host", "x-forwarded-host", "cookie",
     "authorization", "expect", "range", "accept-language", "if-match"]
)  # fmt: skip
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), st.text(max_size=20),
              st.sampled_from(["PAID", "CLOSED", "DONE", "po0000000000000s01", "2026-11-26T12:00:00Z", ""])),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)),
    max_leaves=8,
)  # fmt: skip


@pytest.fixture
def message(site: Site) -> Message:
    stream = pay(open_order())
    assert site.bank.control.pay(stream.number).ok
    return newest_message(site.bank, stream.number, time.time())


@st.composite
def mutations(draw: st.DrawFn) -> Any:
    """How a record is bent: a path into it (by positions), and what is put there, or that it is left out."""
    path = draw(st.lists(st.integers(0, 30), min_size=1, max_size=3))
    return path, draw(st.sampled_from(["replace", "remove", "add", "rename"])), draw(JSON)


def bend(record: Any, path: list[int], how: str, value: Any) -> Any:
    """A copy of the record, bent at one place."""
    if not isinstance(record, dict) or not record:
        return value
    name = sorted(record)[path[0] % len(record)]
    if len(path) > 1 and isinstance(record[name], dict):
        return {**record, name: bend(record[name], path[1:], how, value)}
    if how == "remove":
        return {key: item for key, item in record.items() if key != name}
    if how == "add":
        return {**record, f"{name}_": value}
    if how == "rename":
        return {f"{key}x" if key == name else key: item for key, item in record.items()}
    return {**record, name: value}


@pytest.mark.timeout(0)
def test_unsigned_nonsense_is_refused(site: Site, message: Message):
    """X1, X6: any bytes under any headers."""
    before = everything()

    def send(body: bytes, headers: list[tuple[str, str]], keeps_signature: bool) -> None:
        kept = message.headers if keeps_signature else {}
        given = {**kept, **dict(headers)}
        if keeps_signature and body == message.body and not set(given.items()) ^ set(kept.items()):
            return
        try:
            answer = site.send("POST", "/notify/blue/", body, given)
        except UnicodeEncodeError:
            return
        assert answer.status in (400, 401, 413, 417), (answer.status, answer.data[:200])
        assert everything() == before

    bodies = st.one_of(st.binary(max_size=400), JSON.map(lambda value: json.dumps(value).encode()))
    ran = fuzz(
        "unsigned", send, 60, body=bodies, headers=st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=4),
        keeps_signature=st.booleans(),
    )  # fmt: skip
    assert ran >= 60


@pytest.mark.timeout(0)
def test_a_bent_message_under_its_old_signature_is_refused(site: Site, message: Message):
    """X1: whatever field is changed after signing."""
    before = everything()

    def send(mutation: Any) -> None:
        body = json.dumps(bend(json.loads(message.body), *mutation), separators=(",", ":")).encode()
        if body != message.body:
            assert site.send("POST", "/notify/blue/", body, message.headers).status == 401
            assert everything() == before

    fuzz("bent", send, 40, mutation=mutations())


@pytest.mark.timeout(0)
def test_a_bank_that_signs_nonsense_breaks_nothing(site: Site, message: Message):
    """X1, S1, X6: a true signature over a bent message never makes a 5xx, and pays only what it truly says."""
    number = 0

    def send(mutation: Any, account: str) -> None:
        nonlocal number
        number += 1
        record = bend({**json.loads(message.body), "id": f"bent-{number}-{time.time_ns()}"}, *mutation)
        body = json.dumps(record, separators=(",", ":")).encode()
        answer = site.send("POST", f"/notify/{account}/", body, message.signed(body, at=time.time()))
        assert answer.status in (200, 401), (answer.status, body)
        if answer.status == 200:
            assert Notification.objects.filter(account=account, dedupe_key=str(record["id"])[:128]).exists()
        order, stream = Order.objects.get(), Stream.objects.get(origin_number="")
        if order.state == "PAID":
            assert (stream.captured_minor, stream.captured_currency) == (order.amount_minor, order.currency)

    fuzz("signed", send, 60, mutation=mutations(), account=st.sampled_from(["blue", "blue", "blue", "green"]))


def test_a_body_that_is_too_large_is_refused(site: Site):
    """X6: at every address that reads one, before it is looked into."""
    body = b"x" * (notify.BODY_BYTES_MAX + 1)
    for path in ("/notify/blue/", "/api/orders/", "/api/orders/po0/pay/", "/cashier/x.y.z/"):
        answer = site.send("POST", path, body, {"content-type": "application/json"})
        assert answer.status in (401, 403, 404, 413), (path, answer.status)
    assert site.send("POST", "/notify/blue/", body).status == 413
    assert not Notification.objects.exists()
