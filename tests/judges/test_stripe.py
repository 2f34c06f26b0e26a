"""Programs that none of us wrote judge the Stripe adapter and the bank's Stripe API.

| judge | judges | what it says otherwise, and why we follow the documentation instead |
|---|---|---|
| stripe (Python) 16.1 | API, forms, events | nothing |
| stripe (Node) | API, events; signs for our verifier | nothing |
| Stripe's OpenAPI description of 2023-08-16 | objects | nothing (its expandable fields are cut to texts: nothing is expanded for it) |
| localstripe 1.15 | adapter | see `AT_LOCALSTRIPE` |
| stripe-stateful-mock 0.0.16 | key store, refunds | speaks charges of 2020 and no intents: refunds are asked by charge |
"""

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from payonce.channels.http import run, send
from payonce.channels.messages import (
    CloseState,
    HttpRequest,
    HttpResponse,
    Known,
    NotificationRequest,
    PaymentRef,
    PaymentState,
    RefundState,
    Refused,
    RefusedKind,
    TransportError,
    Unknown,
)
from payonce.channels.sandbox.testing import RunningSandbox, serve_in_thread
from payonce.channels.stripe import events, forms
from payonce.channels.stripe.adapter import StripeChannel
from tests.channels.inbox import Inbox, inbox
from tests.channels.stripe.world import PRICE, Merchant, listen
from tests.judges import environment

pytestmark = [pytest.mark.judges, pytest.mark.timeout(900)]
SCRIPTS = Path(__file__).parent / "scripts"
SCHEMAS = Path(__file__).resolve().parents[3] / "shared" / "schemas"
NODE_PACKAGES = ["stripe@23.1.0", "stripe-stateful-mock@0.0.16"]


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[RunningSandbox, Inbox]]:
    both = {"methods": ["web", "card"]}
    with inbox() as box, serve_in_thread({"stripe": {"skin": "stripe", "shop": both}}) as sandbox:
        listen(sandbox.accounts["stripe"], box.url)
        yield sandbox, box


@pytest.fixture
def merchant(world: tuple[RunningSandbox, Inbox]) -> Iterator[Merchant]:
    yield Merchant(world[0], "stripe")
    world[0].control.clear_faults()


def evidence(merchant: Merchant, box: Inbox, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Real events of each kind and the adapter's own forms, in a file for the judges' scripts."""
    for method in ("web", "card"):
        ref = merchant.paid_stream(method=method)
        merchant.refund(ref, f"{ref.number}r", 500)
        merchant.control.dispute(ref.number, account="stripe", amount_minor=200)
        assert merchant.control.wait_delivered(ref.number, 3, account="stripe")
    refund = merchant.refund_request(ref, "r1", 500, "duplicate")
    given = {
        **{name: merchant.options[name] for name in ("base_url", "secret_key", "webhook_secret")},
        "payload": '{"id": "evt_1"}',
        "forms": [
            ["session", forms.session_form(merchant.request(), PRICE)],
            ["intent", forms.intent_form(merchant.request(method="card"), PRICE)],
            ["refund", forms.refund_form(refund, "pi_1", 500)],
        ],
        "messages": [{"body": m.body.decode(), "headers": dict(m.headers)} for m in box.messages],
    }
    file = folder / "given.json"
    file.write_text(json.dumps(given))
    return file, given


def plan_errors(merchant: Merchant) -> None:
    """A decline, a throttled request and a 500, for the calls that the Python script makes in that order."""
    for nth, (code, status) in enumerate([("DECLINED", 402), ("rate_limit", 429), ("api_error", 500)]):
        # Each fault is counted on its own; a fault that answers removes itself, so the next one counts on.
        merchant.fault("prepay", "refuse", number="st_intent", code=code, status=status, nth=1 + nth + (nth > 0))


def test_stripes_python_library_accepts_api_forms_and_events(
    merchant: Merchant, world: tuple[RunningSandbox, Inbox], tmp_path: Path
) -> None:
    file, given = evidence(merchant, world[1], tmp_path)
    plan_errors(merchant)
    python = environment.python("stripe-sdk", ["stripe==16.1.0"])
    told = json.loads(environment.ask([str(python)], SCRIPTS / "stripe_sdk.py", str(file)))
    assert (told["verified"], told["forms"]) == (len(given["messages"]), 3)
    assert told["verified"] >= 6
    assert_verifies(merchant, told["header"])
    sums = merchant.sums("sdk_1")
    assert (sums["captured_minor"], sums["refunded_minor"], sums["captures"]) == (1_999, 1_999, 1)


def test_stripes_node_library_accepts_api_and_events_and_signs_for_us(
    merchant: Merchant, world: tuple[RunningSandbox, Inbox], tmp_path: Path
) -> None:
    file, given = evidence(merchant, world[1], tmp_path)
    folder = environment.node("stripe", NODE_PACKAGES)
    told = json.loads(environment.ask(["node"], SCRIPTS / "stripe_node.cjs", str(folder), str(file)))
    assert told["verified"] == len(given["messages"])
    assert_verifies(merchant, told["header"])


def assert_verifies(merchant: Merchant, header: str) -> None:
    """A signature that somebody else made is good for us, and its alteration is not."""
    secret, body = merchant.options["webhook_secret"], b'{"id": "evt_1"}'
    sent_at = events.verify(NotificationRequest(body, {"stripe-signature": header}), secret)
    assert isinstance(sent_at, datetime)
    assert abs((datetime.now(UTC) - sent_at).total_seconds()) < 300
    assert not isinstance(
        events.verify(NotificationRequest(body + b" ", {"stripe-signature": header}), secret), datetime
    )


def test_objects_fit_stripes_own_description(merchant: Merchant, tmp_path: Path) -> None:
    description = SCHEMAS / "stripe-2023-08-16-selected-paths.json"
    if not description.is_file():
        pytest.skip("Stripe's OpenAPI description is not at hand")
    made: dict[str, list[Any]] = {"checkout.session": [], "payment_intent": [], "refund": [], "event": [], "error": []}
    for method, schema, path in (
        ("web", "checkout.session", "checkout/sessions"),
        ("card", "payment_intent", "payment_intents"),
    ):
        ref = merchant.open_stream(method=method)
        for act in ("open_page", "begin", "pay"):
            assert getattr(merchant.control, act)(ref.number, account="stripe").ok
            made[schema].append(merchant.api("GET", f"/v1/{path}/{ref.channel_reference}")()[2])
        merchant.refund(merchant.ref(ref.number, merchant.view(ref).channel_reference), f"{ref.number}r", 500)
        ended = merchant.open_stream(method=method)
        run(merchant.channel.close(ended))
        made[schema].append(merchant.api("GET", f"/v1/{path}/{ended.channel_reference}")()[2])
        end = "expire" if method == "web" else "cancel"
        made["error"].append(merchant.api("POST", f"/v1/{path}/{ended.channel_reference}/{end}")()[2])
    made["refund"] += merchant.api("GET", "/v1/refunds")()[2]["data"]
    made["event"] += merchant.api("GET", "/v1/events")(limit="100")[2]["data"]
    made["balance_transaction"] = merchant.api("GET", "/v1/balance_transactions")()[2]["data"]
    assert all(made.values())
    assert validated(description, made, tmp_path) == {}
    # The check must be able to fail: a state that does not exist, an amount as a text.
    wrong = {**made["payment_intent"][-1], "status": "PAID", "amount": "1999"}
    found = validated(description, {"payment_intent": [wrong]}, tmp_path)["payment_intent"]
    assert {text.partition(":")[0] for text in found} >= {"status", "amount"}


def validated(description: Path, made: dict[str, list[Any]], folder: Path) -> dict[str, list[str]]:
    python = environment.python("schemas", ["openapi-schema-validator==0.6.3"])
    file = folder / "objects.json"
    file.write_text(json.dumps(made))
    found: dict[str, list[str]] = json.loads(
        environment.ask([str(python)], SCRIPTS / "stripe_schemas.py", str(description), str(file))
    )
    return found


# --- simulators that others wrote ---


@contextmanager
def started(command: list[str], folder: Path) -> Iterator[str]:
    """A simulator on a free port, with a temporary folder of its own: localstripe keeps a pickle there."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    process = subprocess.Popen(
        [*command, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(folder)}
    )
    try:
        assert process.stdout is not None
        while b"READY" not in (line := process.stdout.readline()):
            assert line, "the simulator ended"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate(timeout=10)


def post(url: str, **params: str) -> tuple[int, dict[str, Any]]:
    headers = {"authorization": "Bearer sk_test_12345", "content-type": "application/x-www-form-urlencoded"}
    reply = send(HttpRequest("POST", url, headers, urlencode(params).encode()))
    assert isinstance(reply, HttpResponse), reply
    return reply.status, json.loads(reply.body or b"{}")


AT_LOCALSTRIPE = (
    "refuses `description`, `allowed_payment_method_types`, `created` and a refund's `reason`",
    "has no `amount_received`, and `latest_charge` only among `charges`",
    "knows no keys: a repeat makes a second intent",
    "has no Checkout: its sessions are 404 without a code, so Unknown",
    "does not say `resource_missing` for an unknown id: Unknown",
    "takes refunds beyond the rest of a charge (not asked for here)",
)
OPTIONS = {"adapter": "stripe", "secret_key": "sk_test_" + "a1B2c3D4" * 4, "webhook_secret": "whsec_" + "k" * 32,
           "methods": ["web", "card"]}  # fmt: skip


REFUSED_THERE = ("description", "reason", "allowed_payment_method_types[0]")


def local_transport(request: HttpRequest) -> HttpResponse | TransportError:
    """Leaves out what localstripe refuses, and completes what its intents lack."""
    pairs = [pair for pair in parse_qsl(request.body.decode()) if pair[0] not in {*REFUSED_THERE}]
    url = re.sub(r"&created%5B[a-z]+%5D=[0-9]+", "", request.url)
    reply = send(HttpRequest(request.method, url, request.headers, urlencode(pairs).encode()))
    if not isinstance(reply, HttpResponse) or reply.status != 200:
        return reply
    record = json.loads(reply.body)
    for intent in record["data"] if record.get("object") == "list" else [record]:
        if intent.get("object") == "payment_intent":
            charges = intent["charges"]["data"]
            intent["amount_received"] = intent["amount"] if intent["status"] == "succeeded" else 0
            intent["latest_charge"] = charges[0] if charges else None
            for charge in charges:
                charge.setdefault("disputed", False)
    return HttpResponse(200, reply.headers, json.dumps(record).encode())


def test_adapter_pays_closes_and_refunds_at_localstripe(merchant: Merchant, tmp_path: Path) -> None:
    python = environment.python("stripe-local", ["localstripe==1.15.10", "setuptools<81"])
    with started([str(python), str(SCRIPTS / "stripe_local.py")], tmp_path) as url:
        channel = StripeChannel("local", {**OPTIONS, "base_url": url})
        request = merchant.request(method="card")
        made = run(channel.prepay(request), local_transport)
        assert isinstance(made, Known)
        ref = PaymentRef(request.number, PRICE, "USD", "card", made.value.channel_reference or "")
        assert state(run(channel.query(ref), local_transport)) == PaymentState.OPEN
        lost = PaymentRef(request.number, PRICE, "USD", "card", "", datetime.now(UTC) - timedelta(seconds=5))
        assert state(run(channel.query(lost), local_transport)) == PaymentState.OPEN
        card = {
            "type": "card",
            "card[number]": "4242424242424242",
            "card[exp_month]": "12",
            "card[exp_year]": "2030",
            "card[cvc]": "123",
        }
        _, method = post(f"{url}/v1/payment_methods", **card)
        post(f"{url}/v1/payment_intents/{ref.channel_reference}", payment_method=method["id"])
        status, paid = post(f"{url}/v1/payment_intents/{ref.channel_reference}/confirm")
        assert (status, paid["status"]) == (200, "succeeded")
        seen = run(channel.query(ref), local_transport)
        assert isinstance(seen, Known)
        assert (seen.value.state, seen.value.paid_minor, seen.value.currency) == (PaymentState.PAID, PRICE, "USD")
        assert state(run(channel.close(ref), local_transport)) == CloseState.ALREADY_PAID
        given_back = run(channel.refund(merchant.refund_request(ref, "local_r1", 500)), local_transport)
        assert state(given_back) == RefundState.DONE
        seen = run(channel.query(ref), local_transport)
        assert isinstance(seen, Known)
        assert seen.value.refunded_minor == 500
        other = merchant.request(method="card")
        opened = run(channel.prepay(other), local_transport)
        assert isinstance(opened, Known)
        end = PaymentRef(other.number, PRICE, "USD", "card", opened.value.channel_reference or "")
        assert state(run(channel.close(end), local_transport)) == CloseState.CLOSED_PROVED
        # The written differences, so that one that goes away is noticed.
        repeat = run(channel.prepay(request), local_transport)
        assert isinstance(repeat, Known)
        assert repeat.value.channel_reference != ref.channel_reference, "localstripe knows no keys"
        assert isinstance(run(channel.prepay(merchant.request()), local_transport), Unknown), (
            "localstripe has no Checkout"
        )
        none = PaymentRef("n", PRICE, "USD", "card", "pi_none")
        assert isinstance(run(channel.query(none), local_transport), Unknown), "localstripe's 404 has no code"


def test_key_store_agrees_with_the_stateful_mock(merchant: Merchant, tmp_path: Path) -> None:
    """The same series of requests at both: stored answers, other parameters, stored declines, refunds beyond the rest."""
    folder = environment.node("stripe", NODE_PACKAGES)
    with started(["node", str(SCRIPTS / "stripe_mock.cjs"), str(folder)], tmp_path) as url:
        theirs = series(url, "charges", {"source": "tok_visa"}, {"source": "tok_chargeDeclined"})
        ours = series(merchant.options["base_url"], "payment_intents", {}, {}, merchant)
        assert ours == theirs
        refunds_at_the_mock(merchant, url)


def series(
    url: str, path: str, good: dict[str, str], bad: dict[str, str], merchant: Merchant | None = None
) -> list[Any]:
    """Status, error type and whether it was a replay, of each request."""
    key = merchant.options["secret_key"] if merchant else "sk_test_12345"

    def ask(name: str, **params: str) -> tuple[int, str, str]:
        headers = {
            "authorization": f"Bearer {key}",
            "idempotency-key": name,
            "content-type": "application/x-www-form-urlencoded",
        }
        body = urlencode({"amount": "1999", "currency": "usd", **params}).encode()
        reply = send(HttpRequest("POST", f"{url}/v1/{path}", headers, body))
        assert isinstance(reply, HttpResponse)
        kind = json.loads(reply.body).get("error", {}).get("type", "")
        return reply.status, kind, reply.headers.get("idempotent-replayed", "")

    seen = [ask("s1", **good), ask("s1", **good), ask("s1", **good, description="other"), ask("s1", **good)]
    if merchant:
        merchant.fault("prepay", "refuse", code="DECLINED")
    seen += [ask("s2", **bad), ask("s2", **bad)]
    return seen


def refunds_at_the_mock(merchant: Merchant, url: str) -> None:
    """The adapter's refunds at a store of keys that none of us wrote; by charge, since the mock has no intents."""
    _, charge = post(f"{url}/v1/charges", amount=str(PRICE), currency="usd", source="tok_visa")

    def transport(request: HttpRequest) -> HttpResponse | TransportError:
        named = request.url.replace("payment_intent=pi_1", f"charge={charge['id']}")
        body = request.body.replace(b"payment_intent=pi_1", f"charge={charge['id']}".encode())
        headers = {**request.headers, "authorization": "Bearer sk_test_12345"}
        return send(HttpRequest(request.method, named, headers, body))

    channel = StripeChannel("mock", {**OPTIONS, "base_url": url})
    ref = PaymentRef("n1", PRICE, "USD", "card", "pi_1")
    first = run(channel.refund(merchant.refund_request(ref, "mock_r1", 500)), transport)
    again = run(channel.refund(merchant.refund_request(ref, "mock_r1", 500)), transport)
    assert isinstance(first, Known)
    assert isinstance(again, Known)
    assert (first.value, again.value.state) == (again.value, RefundState.DONE)
    other = run(channel.refund(merchant.refund_request(ref, "mock_r1", 600)), transport)
    over = run(channel.refund(merchant.refund_request(ref, "mock_r2", PRICE)), transport)
    rest = run(channel.refund(merchant.refund_request(ref, "mock_r3", PRICE - 500)), transport)
    spent = run(channel.refund(merchant.refund_request(ref, "mock_r4", 1)), transport)
    assert isinstance(other, Refused)
    assert isinstance(over, Refused)
    assert isinstance(spent, Refused)
    assert state(rest) == RefundState.DONE
    assert (other.kind, over.kind, spent.kind) == (RefusedKind.CONFLICT, RefusedKind.DECLINED, RefusedKind.DECLINED)
    assert spent.code == "charge_already_refunded"


def state(outcome: object) -> str:
    return str(outcome.value.state) if isinstance(outcome, Known) else repr(outcome)
