"""WeChat Pay's judges: wechatpayv3 (Python, with the public key and with platform certificates) and wechatpay-axios-plugin (Node).

Neither is ours. Both speak to the simulated WeChat Pay as a shop does, and judge its answers, its notifications and the
adapter's own signatures. Where they differ from the adapter, and why:

| | wechatpayv3 2.0.4 | wechatpay-axios-plugin 0.9.6 | adapter |
|---|---|---|---|
| message of another time | believed at any age | answers: 5 min; notifications: the caller's business | 5 min, both ways |
| unknown key | downloads certificates, on anybody's request | an error | refused, no traffic |
| no signature headers | an exception about the algorithm | an error | Unknown |
| 2xx that does not verify | an exception, as if it had failed | an error | Unknown: the effect may have happened |
| bill download | not verified | not verified | proved by the digest in the signed answer |
"""

import json
import re
import secrets
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from payonce.channels.http import run, send
from payonce.channels.keys import load_certificate
from payonce.channels.messages import HttpRequest, HttpResponse, NotificationRequest, RefundRef, TransportError
from payonce.channels.sandbox.faults import FORGERIES
from payonce.channels.sandbox.skins.wechat_pay_wire import platform_serial
from payonce.channels.sandbox.testing import serve_in_thread
from payonce.channels.wechat_pay_wire import BEIJING
from tests.channels.inbox import inbox
from tests.channels.wechat_pay.simulator import Merchant, WeChatSimulator
from tests.judges import environment

pytestmark = pytest.mark.judges
SCRIPTS = Path(__file__).parent / "scripts"
SCHEMAS = Path(__file__).resolve().parents[3] / "shared" / "schemas" / "wechatpay-v3-selected.json"
MODES = ("public_key", "certificate")
# The third-party description wants these in the answer to a query, where the real one has no words about the order and,
# before it is paid, no payer's amount.
NOT_IN_ANSWERS = {f"'{name}' is a required property" for name in ("description", "notify_url", "payer_total")}


@pytest.fixture(scope="module")
def world() -> Iterator[dict[str, WeChatSimulator]]:
    merchants = {mode: Merchant(mode) for mode in MODES}
    with inbox() as box, serve_in_thread({mode: each.bank for mode, each in merchants.items()}) as sandbox:
        box.answer = lambda _: (204, b"")
        made = {mode: WeChatSimulator(sandbox, mode, each, box) for mode, each in merchants.items()}
        for simulator in made.values():
            simulator.token = (sandbox.folder / "control-token").read_text().strip()  # type: ignore[attr-defined]
        yield made


def case(simulator: WeChatSimulator) -> dict[str, Any]:
    """What a script is given."""
    options, keys = simulator.options, simulator.keys
    certificate = keys["platform_certificate"]
    is_public = keys["mode"] == "public_key"
    account = {
        **{name: options.get(name, "") for name in ("base_url", "mchid", "appid", "private_key", "apiv3_key", "certificate",
                                                    "public_key", "public_key_id")},
        "name": simulator.account, "mode": keys["mode"],
        "serial": f"{load_certificate(str(options['certificate'])).serial_number:X}",
        "verifiers": {options["public_key_id"]: options["public_key"]} if is_public else {platform_serial(keys): certificate},
    }  # fmt: skip
    number, reference = simulator.paid()
    refund = simulator.refund_request(number, reference, f"r{number}", 300)
    simulator.run(simulator.channel.refund(refund))
    genuine = [simulator.notification(number), simulator.notification(number, "refund.done")]
    return {
        "account": account,
        "control": {"url": simulator.control.base_url, "token": simulator.token},  # type: ignore[attr-defined]
        "numbers": [f"judge{secrets.token_hex(5)}{letter}" for letter in "abc"],
        "day": datetime.now(BEIJING).date().isoformat(),
        "paid_number": number,
        "genuine": [told(message) for message in genuine],
        "forged": {name: told(simulator.forged(number, name)) for name in sorted(FORGERIES)},
        **adapters_signatures(simulator),
    }


def told(message: NotificationRequest) -> dict[str, Any]:
    """The headers with which it is judged, and the body."""
    headers = {name: value for name, value in message.headers.items() if name.startswith("wechatpay-")}
    return {"headers": headers, "body": message.body.decode()}


def adapters_signatures(simulator: WeChatSimulator) -> dict[str, Any]:
    """Requests that the adapter signed, and the client parameters that it signed, with their fields in order."""
    channel, sent = simulator.channel, list[HttpRequest]()

    def transport(request: HttpRequest) -> TransportError:
        sent.append(request)
        return TransportError("read_timeout")

    order = simulator.prepay_request("judged_request_01", subject="书 and more")
    for conversation in (
        channel.prepay(order), channel.query(simulator.ref("judged_request_01")), channel.close(simulator.ref("judged_request_01")),
        channel.refund(simulator.refund_request("judged_request_01", "", "judged_refund_01", 1)),
        channel.statement(datetime.now(BEIJING).date()),
    ):  # fmt: skip
        run(conversation, transport)
    requests = []
    for request in sent:
        given = dict(re.findall(r'(\w+)="([^"]*)"', request.headers["authorization"]))
        parts = urlsplit(request.url)
        requests.append({
            "method": request.method, "target": parts.path + (f"?{parts.query}" if parts.query else ""),
            "body": request.body.decode(), "timestamp": given["timestamp"], "nonce": given["nonce_str"],
            "signature": given["signature"],
        })  # fmt: skip
    page, app = (client_parameters(simulator, method) for method in ("jsapi", "app"))
    return {
        "requests": requests,
        "to_sign": [
            [page["appId"], page["timeStamp"], page["nonceStr"], page["package"]],
            [app["appid"], app["timestamp"], app["noncestr"], app["prepayid"]],
        ],
        "signed": [page["paySign"], app["sign"]],
    }


def client_parameters(simulator: WeChatSimulator, method: str) -> dict[str, str]:
    outcome = simulator.run(simulator.channel.prepay(simulator.prepay_request(simulator.new_number(), method=method)))
    return dict(json.loads(outcome.value.value))


def assert_accepts(seen: dict[str, Any], given: dict[str, Any]) -> None:
    """What every client of WeChat Pay must have seen."""
    number = given["numbers"][0]
    assert seen["order"][0] == seen["order_again"][0] == 200
    assert seen["order"][1]["code_url"].startswith("weixin://wxpay/bizpayurl")
    assert seen["order_changed"] == [400, "INVALID_REQUEST"]
    assert set(seen["jsapi"][1]) == set(seen["app"][1]) == {"prepay_id"}
    assert set(seen["h5"][1]) == {"h5_url"}
    assert [seen[name][1]["trade_state"] for name in ("open", "paid", "closed", "refunded")] == [
        "NOTPAY", "SUCCESS", "CLOSED", "REFUND",
    ]  # fmt: skip
    assert (seen["paid"][1]["amount"]["total"], seen["paid"][1]["out_trade_no"]) == (1200, number)
    assert seen["unknown"] == [404, "ORDER_NOT_EXIST"]
    assert seen["close_paid"] == [400, "ORDERPAID"]
    assert [status for status, _ in seen["close"]] == [204, 204, 204]
    first, again = seen["refund"]
    assert first[1]["status"] == "SUCCESS"
    assert first[1]["refund_id"] == again[1]["refund_id"] == seen["refund_query"][1]["refund_id"]
    assert seen["refund_changed"] == [400, "INVALID_REQUEST"]
    assert seen["refund_unknown"] == [404, "RESOURCE_NOT_EXISTS"]
    for fault in ("bad_signature", "no_signature", "other_secret"):
        assert seen[fault][0] == 0, f"{fault} was believed"
    assert seen["error_after"] == [500, "SYSTEM_ERROR"]
    (paid, paid_event, payment), (back, back_event, refund) = seen["genuine"]
    assert (paid, paid_event, back, back_event) == (1, "TRANSACTION.SUCCESS", 1, "REFUND.SUCCESS")
    assert (payment["out_trade_no"], payment["amount"]["total"]) == (given["paid_number"], 1200)
    assert (refund["out_trade_no"], refund["amount"]["refund"]) == (given["paid_number"], 300)
    assert set(seen["forged"]) == FORGERIES
    assert not any(read for read, *_ in seen["forged"].values())
    assert seen["signed"] == given["signed"], "the client's parameters are signed otherwise"


@pytest.mark.parametrize("mode", MODES)
def test_wechatpayv3_accepts_the_simulated_wechat_pay(
    world: dict[str, WeChatSimulator], tmp_path: Path, mode: str
) -> None:
    simulator = world[mode]
    given = case(simulator)
    (tmp_path / "given.json").write_text(json.dumps(given))
    python = environment.python("wechat_pay", ["wechatpayv3==2.0.4"])
    said = environment.ask([str(python)], SCRIPTS / "wechat_pay_python.py", str(tmp_path / "given.json"))
    seen = json.loads(said)
    assert_accepts(seen, given)
    assert set(seen["bill"][1]) == {"hash_type", "hash_value", "download_url"}
    assert seen["bill_file"] == [200, "1f8b"]  # gzip
    # In certificate mode its constructor downloads them, and opens them with the APIv3 key.
    assert seen["certificates"] == ([] if mode == "public_key" else [platform_serial(simulator.keys)])


@pytest.mark.parametrize("mode", MODES)
def test_wechatpay_axios_plugin_accepts_the_simulated_wechat_pay(
    world: dict[str, WeChatSimulator], tmp_path: Path, mode: str
) -> None:
    given = case(world[mode])
    (tmp_path / "given.json").write_text(json.dumps(given))
    folder = environment.node("wechat_pay", ["wechatpay-axios-plugin@0.9.6"])
    seen = json.loads(
        environment.ask(["node"], SCRIPTS / "wechat_pay_node.js", str(tmp_path / "given.json"), cwd=folder)
    )
    assert_accepts(seen, given)
    assert seen["stale_timestamp"][0] == 0
    assert seen["requests"] == [True] * 5


def test_requests_and_answers_fit_the_published_description(world: dict[str, WeChatSimulator]) -> None:
    if not SCHEMAS.is_file():
        pytest.skip("the published descriptions are not beside this checkout")
    lines = whole_conversation(world["public_key"])
    assert {name for name, _ in lines} == {
        *(f"{kind} {side}" for kind in ("native", "jsapi", "app", "h5", "refund") for side in ("request", "answer")),
        "close request", "query answer", "refund-query answer", "tradebill answer",
    }  # fmt: skip
    assert set(problems(lines)) == NOT_IN_ANSWERS
    # The judge can say no.
    spoilt = json.loads(json.dumps(lines).replace('"SUCCESS"', '"PAID"').replace('"total": 1200', '"total": "1200"'))
    assert any("is not one of" in problem for problem in problems(spoilt))
    assert any("is not of type 'integer'" in problem for problem in problems(spoilt))


def whole_conversation(simulator: WeChatSimulator) -> list[tuple[str, Any]]:
    """Every request of the adapter and every answer of the simulator in one payment, and which of them it is."""
    lines: list[tuple[str, Any]] = []

    def recorded(name: str) -> Any:
        def transport(request: HttpRequest) -> HttpResponse:
            reply = send(request)
            assert isinstance(reply, HttpResponse)
            if name and request.body:
                lines.append((f"{name} request", json.loads(request.body)))
            if reply.status == 200 and reply.body[:1] == b"{":
                lines.append((f"{name or 'query'} answer", json.loads(reply.body)))
            return reply

        return transport

    channel = simulator.channel
    names = {"qr": "native", "jsapi": "jsapi", "app": "app", "h5": "h5"}
    for method, name in names.items():
        number = simulator.new_number()
        run(channel.prepay(simulator.prepay_request(number, method=method)), recorded(name))
        run(channel.query(simulator.ref(number)), recorded("query"))
    close = recorded("close")
    run(channel.close(simulator.ref(number)), lambda request: (close if request.body else recorded("query"))(request))
    number, reference = simulator.paid()
    run(channel.query(simulator.ref(number)), recorded("query"))
    run(channel.refund(simulator.refund_request(number, reference, f"r{number}", 1200)), recorded("refund"))
    run(channel.query_refund(RefundRef(simulator.ref(number), f"r{number}", 1200)), recorded("refund-query"))
    run(channel.query(simulator.ref(number)), recorded("query"))
    with simulator.days_later():
        run(channel.statement(datetime.now(BEIJING).date()), recorded("tradebill"))
    return lines


def problems(lines: list[tuple[str, Any]]) -> list[str]:
    """What the description has against these records."""
    description = json.loads(SCHEMAS.read_text())
    rows = []
    for line, record in lines:
        name, _, side = line.partition(" ")
        ((method, operation),) = description[name]["operations"].items()
        bodies = [index for index, given in enumerate(operation["parameters"]) if given.get("in") == "body"]
        where = f"parameters/{bodies[0]}" if side == "request" else "responses/200"
        rows.append(json.dumps([str(SCHEMAS), f"#/{name}/operations/{method}/{where}/schema", record]))
    python = environment.python("schemas", ["openapi-schema-validator==0.6.3"])
    command = [str(python), str(SCRIPTS / "validate.py"), "[]"]
    done = subprocess.run(command, input="\n".join(rows), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [problem.partition(": ")[2] for problem in json.loads(done.stdout)]
