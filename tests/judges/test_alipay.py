"""Alipay's SDKs judge the bank's gateway and the adapter: python-alipay-sdk in both key modes, and the official Node SDK.

Each runs the whole life of a payment against the gateway, refuses its bad signatures, comes to the very signatures that the
adapter makes and to the same certificate numbers, and verifies its notifications (genuine ones only).

| difference | why |
|---|---|
| python-alipay-sdk sends everything in the address of a GET | the gateway takes both; the adapter posts as the official SDKs do |
| python-alipay-sdk names QUICK_WAP_PAY for mobile web pages | Alipay's page says QUICK_WAP_WAY; the gateway takes both |
| both SDKs send no `time_expire` of their own | then an order stays payable for fifteen days; the adapter always sends it |
| the Node SDK checks answers only with `validateSign` | it is asked to; without it any answer would be believed |
| the Node SDK drops empty fields of a notification, python-alipay-sdk keeps them | Alipay's pages disagree; the adapter tries both |
| the Node SDK's old `checkNotifySign` decodes twice | `checkNotifySignV2` is the judge; the old one where no `%` is in the way |
| both take a notification with a doubled field (the last or the first wins before they see it) | the adapter refuses it |
"""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from payonce.channels.alipay import AlipayChannel
from payonce.channels.alipay_wire import BEIJING
from payonce.channels.contract.simulator import known
from payonce.channels.messages import NotificationRequest
from payonce.channels.sandbox.testing import serve_in_thread
from tests.channels.alipay.shop import MODES, AlipaySimulator, account_options, form_of, query_of
from tests.channels.inbox import inbox
from tests.judges import environment

pytestmark = [pytest.mark.judges, pytest.mark.timeout(900)]
SCRIPTS = Path(__file__).parent / "scripts"
FORGERIES = ("bad_signature", "altered_body", "other_secret")


def signed_by_adapter(simulator: AlipaySimulator) -> list[dict[str, str]]:
    """Every field of each kind of request that the adapter signs."""
    channel = simulator.channel
    assert isinstance(channel, AlipayChannel)
    found = []
    for method in ("web", "h5", "app"):
        request = simulator.prepay_request(simulator.new_number(), method=method, subject="书 & 100 % + ~*'()")
        found.append(query_of(known(simulator.run(channel.prepay(request))).value))
    return [*found, channel._signed("alipay.trade.query", {"out_trade_no": "书"}, {})]


def notifications_of(simulator: AlipaySimulator) -> list[dict[str, Any]]:
    """A genuine message, and forgeries that only a check of the signature can tell. `wrong_account` is truly signed."""
    number = simulator.new_number()
    for subject in ("A book 书", "100 % + 书 = & ~"):
        number = simulator.new_number()
        known(simulator.run(simulator.channel.prepay(simulator.prepay_request(number, subject=subject))))
        assert simulator.pay(number)
    genuine = [simulator.notification(number), simulator.notification(number, forgery="wrong_account")]
    forged = [simulator.notification(number, forgery=kind) for kind in FORGERIES]
    adapter = [is_believed(simulator, message) for message in [genuine[0], *forged]]
    assert adapter == [True, False, False, False]
    return [{"fields": form_of(m), "genuine": True} for m in genuine] + [
        {"fields": form_of(m), "genuine": False} for m in forged
    ]


def is_believed(simulator: AlipaySimulator, message: NotificationRequest) -> bool:
    from payonce.channels.messages import Notice

    return isinstance(simulator.channel.parse_notification(message, simulator.now()), Notice)


@pytest.fixture
def case(tmp_path: Path) -> Any:
    """The running gateway, and the file that tells a judge where it is."""
    made = {mode: account_options(skin) for mode, skin in MODES.items()}
    with inbox() as box, serve_in_thread({mode: options for mode, (options, _) in made.items()}) as sandbox:
        accounts: dict[str, Any] = {}
        for mode, (_, (bank, _)) in made.items():
            simulator = AlipaySimulator(sandbox, mode, bank, box)
            for number in ("judge_bad_signature", "judge_no_signature", "judge_node_bad_signature"):
                fault = "no_signature" if "no_" in number else "bad_signature"
                sandbox.control.fault("query", fault, account=mode, number=number)
            accounts[mode] = {
                **{name: value for name, value in sandbox.accounts[mode].items() if name != "adapter"},
                "notify_url": box.url,
                "app_public_key": bank["keys"]["app_public_key"],
                "signed": signed_by_adapter(simulator),
                "notifications": notifications_of(simulator),
            }
        now = datetime.now(BEIJING)
        given = {"accounts": accounts, "today": now.date().isoformat(),
                 "expire": (now + timedelta(minutes=30)).strftime("%Y-%m-%d %H:%M:%S")}  # fmt: skip
        file = tmp_path / "given.json"
        file.write_text(json.dumps(given))
        yield file, sandbox


def test_python_alipay_sdk_accepts_both_modes(case: Any) -> None:
    file, sandbox = case
    python = environment.python("alipay", ["python-alipay-sdk==3.4.0"])
    passed = environment.ask([str(python)], SCRIPTS / "alipay_python.py", str(file))
    assert int(passed) > 60
    for mode in MODES:
        sums = sandbox.control.sums(f"py_{mode}", account=mode)
        assert (sums["captured_minor"], sums["refunded_minor"]) == (1_234, 234)


def test_official_node_sdk_accepts_both_modes(case: Any) -> None:
    file, sandbox = case
    folder = environment.node("alipay", ["alipay-sdk@4.14.0"])
    passed = environment.ask(["node"], SCRIPTS / "alipay_node.cjs", str(file), cwd=folder)
    assert int(passed) > 40
    for mode in MODES:
        sums = sandbox.control.sums(f"node_{mode}", account=mode)
        assert (sums["captured_minor"], sums["refunded_minor"]) == (1_234, 1_234)
