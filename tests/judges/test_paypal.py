"""PayPal's own SDK and its published interface descriptions accept our skin, and what our adapter sends.

Differences from the live API, as far as they are known: ids of captures and refunds have 19 characters here and 17 there (the
description allows 20); `links` are fewer; only the wallet as a source of payment; webhooks can be registered but not listed.
"""

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from payonce.channels.http import run, send
from payonce.channels.messages import CaptureRequest, HttpRequest, HttpResponse, RefundRequest, TransportError
from payonce.channels.sandbox.testing import RunningSandbox, serve_in_thread
from tests.channels.inbox import Inbox, inbox
from tests.channels.paypal.simulator import PayPalSimulator
from tests.judges import environment

pytestmark = [pytest.mark.judges, pytest.mark.timeout(900)]
SCRIPTS = Path(__file__).parent / "scripts"
SCHEMAS = Path(__file__).resolve().parents[3] / "shared" / "schemas"


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[RunningSandbox, Inbox]]:
    with inbox() as box, serve_in_thread({"paypal": {"skin": "paypal"}}) as sandbox:
        yield sandbox, box


def test_paypals_sdk_pays_and_refunds_once(world):
    sandbox, _ = world
    python = environment.python("paypal", ["paypal-server-sdk==2.4.0"])
    now = datetime.now(UTC)
    options = sandbox.accounts["paypal"]
    given = {
        **{name: options[name] for name in ("base_url", "client_id", "client_secret")},
        "account": "paypal", "number": "sdk1", "control_url": sandbox.url, "control_token": sandbox.control._token,
        "start": (now - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "end": (now + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }  # fmt: skip
    seen = json.loads(environment.ask([str(python)], SCRIPTS / "paypal_sdk.py", json.dumps(given)))
    assert seen["statuses"] == [201, 200, 201, 200, 201, 200]
    assert seen["same"] == [True, True]
    assert seen["states"] == ["PAYER_ACTION_REQUIRED", "APPROVED", "COMPLETED", "PARTIALLY_REFUNDED", "COMPLETED"]
    assert (seen["refund"], seen["search"]) == ("sdk1r1", ["-5.00", "19.99"])
    assert "payer-action" in seen["links"]
    assert seen["refused"] == {
        "captured": [422, "ORDER_ALREADY_CAPTURED"],
        "unknown": [404, "INVALID_RESOURCE_ID"],
        "exceeded": [422, "REFUND_AMOUNT_EXCEEDED"],
    }
    sums = sandbox.control.sums("sdk1", account="paypal")
    assert (sums["captures"], sums["captured_minor"], sums["refunded_minor"]) == (1, 1_999, 500)


def test_requests_answers_and_events_fit_the_published_descriptions(world):
    if not SCHEMAS.is_dir():
        pytest.skip("the published descriptions are not beside this checkout")
    sandbox, box = world
    simulator = PayPalSimulator(sandbox, "paypal", box)
    lines = _conversation(simulator)
    python = environment.python("schemas", ["openapi-schema-validator==0.6.3"])
    text = "\n".join(json.dumps([str(SCHEMAS / file), name, record]) for file, name, record in lines)
    assert _problems(python, text) == []
    assert len(lines) >= 10
    # The judge can say no: the same records with a state that does not exist.
    spoilt = text.replace('"COMPLETED"', '"PAID"')
    assert any("enum" in problem for problem in _problems(python, spoilt))


def _problems(python: Path, text: str) -> list[str]:
    command = [str(python), str(SCRIPTS / "validate.py"), "[]"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[str] = json.loads(done.stdout)
    return found


def _conversation(simulator: PayPalSimulator) -> list[tuple[str, str, Any]]:
    """Every request and answer of one whole payment, and its event, with the schema that each must fit."""
    lines: list[tuple[str, str, Any]] = []

    def recorded(request: HttpRequest) -> HttpResponse | TransportError:
        reply = send(request)
        assert isinstance(reply, HttpResponse)
        asked = json.loads(request.body) if request.body[:1] == b"{" else None
        answered = json.loads(reply.body)
        if request.url.endswith("/refund"):
            lines.extend(
                [("paypal-payments-v2.json", "refund_request", asked), ("paypal-payments-v2.json", "refund", answered)]
            )
        elif "/v2/checkout/orders" in request.url and reply.status < 300:
            if asked:
                lines.append(("paypal-orders-v2.json", "order_request", asked))
            lines.append(("paypal-orders-v2.json", "order", answered))
        return reply

    channel, number = simulator.channel, simulator.new_number()
    run(channel.prepay(simulator.prepay_request(number)), recorded)
    run(channel.query(simulator.ref(number)), recorded)
    assert simulator.pay(number)
    run(channel.query(simulator.ref(number)), recorded)
    run(channel.capture(CaptureRequest(simulator.ref(number), f"k{number}")), recorded)
    refund = RefundRequest(simulator.ref(number), f"r{number}", 100, "USD", simulator.amount_minor, "duplicate")
    run(channel.refund(refund), recorded)
    run(channel.query(simulator.ref(number)), recorded)
    lines.append(("paypal-webhooks-v1.json", "event", json.loads(simulator.notification(number).body)))
    return lines
