"""Each planned fault does what its name says, before or after the effect, on exactly the call that was meant."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from payonce.channels.http import close_idle_connections, run
from payonce.channels.messages import Known, Refused, RefusedKind, Unknown
from payonce.channels.sandbox.control import ControlError, SandboxControl
from payonce.channels.sandbox.testing import RunningSandbox, serve, serve_in_thread
from tests.channels.bank import PRICE, Shop, state_of
from tests.channels.inbox import inbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with serve_in_thread({"blue": {}, "green": {}}) as running:
        yield running


@pytest.fixture
def shop(sandbox: RunningSandbox) -> Iterator[Shop]:
    yield Shop(sandbox, "blue")
    sandbox.control.clear_faults()


@pytest.mark.parametrize("do", ["error_before", "drop_before"])
def test_fault_before_the_effect_leaves_nothing(shop: Shop, do: str) -> None:
    shop.control.fault("prepay", do, account="blue")
    request = shop.request()
    assert isinstance(shop.prepay(request), Unknown)
    assert shop.control.ledger(request.number)["payments"] == []
    assert shop.control.calls("prepay", request.number) == 1


@pytest.mark.parametrize("do", ["error_after", "drop_after", "truncate", "bad_signature", "no_signature", "garbage"])
def test_s7_fault_after_the_effect_leaves_the_effect(shop: Shop, do: str) -> None:
    shop.control.fault("prepay", do, account="blue")
    request = shop.request()
    assert isinstance(shop.prepay(request), Unknown)
    assert len(shop.control.ledger(request.number)["payments"]) == 1
    assert isinstance(shop.prepay(request), Known), "the same request is the same payment"


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_error_status_can_be_chosen(shop: Shop, status: int) -> None:
    shop.control.fault("query", "error_before", account="blue", status=status)
    assert state_of(shop.query("n1")) == f"Unknown:status_{status}"


@pytest.mark.parametrize("seconds", [3_600, -3_600])
def test_answer_with_another_time_is_not_believed(shop: Shop, seconds: int) -> None:
    number = shop.open_stream()
    shop.control.fault("query", "stale_timestamp", account="blue", seconds=seconds)
    assert state_of(shop.query(number)) == "Unknown:stale_timestamp:200"


def test_slow_answers_end_at_the_time_limit(sandbox: RunningSandbox) -> None:
    shop = Shop(sandbox, "blue", timeout_seconds=1)
    for do, seconds in (("delay_before", 5), ("delay_after", 5), ("slow_drip", 0.3)):
        shop.control.fault("query", do, account="blue", seconds=seconds)
        started = time.monotonic()
        assert isinstance(shop.query("n1"), Unknown), do
        assert 0.9 < time.monotonic() - started < 4.5  # the bank itself takes longer


def test_fault_hits_the_nth_call_of_its_number_only(shop: Shop) -> None:
    mine, other = shop.open_stream(), shop.open_stream()
    shop.control.fault("query", "error_before", number=mine, nth=2, times=2)
    assert [state_of(shop.query(other)) for _ in range(3)] == ["OPEN"] * 3
    assert [isinstance(shop.query(mine), Unknown) for _ in range(5)] == [False, True, True, False, False]
    assert shop.control.faults() == []


def test_lasting_fault_ends_when_it_is_removed(shop: Shop) -> None:
    number = shop.open_stream()
    fault = shop.control.fault("query", "error_before", number=number, times=None)
    assert all(isinstance(shop.query(number), Unknown) for _ in range(3))
    assert [each["fired"] for each in shop.control.faults()] == [3]
    assert shop.control.remove_fault(fault)
    assert not shop.control.remove_fault(fault)
    assert isinstance(shop.query(number), Known)


def test_planned_refusal_has_no_effect(shop: Shop) -> None:
    shop.control.fault("prepay", "refuse", account="blue", code="DECLINED")
    request = shop.request()
    outcome = shop.prepay(request)
    assert isinstance(outcome, Refused)
    assert (outcome.kind, outcome.code) == (RefusedKind.DECLINED, "DECLINED")
    assert shop.control.ledger(request.number)["payments"] == []
    shop.control.fault("prepay", "refuse", account="blue", code="RATE_LIMITED")
    assert isinstance(throttled := shop.prepay(request), Refused)
    assert throttled.kind is RefusedKind.THROTTLED
    paid = shop.paid_stream()
    shop.control.fault("refund", "refuse", account="blue", code="NOT_ENOUGH")
    assert state_of(shop.refund(paid, "r1")) == "Refused:NOT_ENOUGH"
    assert shop.sums(paid)["refunded_minor"] == 0


def test_known_stream_can_be_denied_for_a_while(shop: Shop) -> None:
    number = shop.paid_stream()
    shop.control.fault("query", "not_found", number=number)
    assert [shop.view(number).state for _ in range(2)] == ["NOT_FOUND", "PAID"]


@pytest.mark.parametrize(("winner", "closed", "captures"), [("pay", "ALREADY_PAID", 1), ("close", "CLOSED_PROVED", 0)])
def test_close_races_with_the_buyer(shop: Shop, winner: str, closed: str, captures: int) -> None:
    number = shop.open_stream()
    shop.control.fault("close", "race_pay", number=number, winner=winner)
    assert state_of(shop.close(number)) == closed
    assert shop.sums(number)["captures"] == captures
    assert shop.control.calls("pay", number) == 1


def test_pending_refund_reaches_its_planned_end(shop: Shop) -> None:
    number = shop.paid_stream()
    shop.control.fault("refund", "refund_pending", number=number, then="FAILED", seconds=60)
    assert state_of(shop.refund(number, "r1")) == "IN_PROGRESS"
    shop.control.advance_clock(61)
    assert state_of(shop.query_refund(number, "r1")) == "FAILED"
    shop.control.set_clock(0)
    assert shop.sums(number)["net_minor"] == PRICE


def test_wrong_amount_and_currency_at_the_counter(shop: Shop) -> None:
    shop.control.fault("pay", "wrong_amount", account="blue", amount_minor=PRICE - 1)
    assert shop.view(shop.paid_stream()).paid_minor == PRICE - 1
    shop.control.fault("pay", "wrong_currency", account="blue", currency="USD")
    assert shop.view(shop.paid_stream()).currency == "USD"


def test_gate_holds_a_call_between_its_effect_and_its_answer(shop: Shop) -> None:
    """An exact interleaving without sleeping: the refund is done, its answer still under way."""
    number = shop.paid_stream()
    shop.control.fault("refund", "gate_after", number=number, name="between")
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(shop.refund, number, "r1")
        assert shop.control.wait_at_gate("between")
        assert shop.sums(number)["refunded_minor"] == PRICE
        assert not answer.done()
        shop.control.open_gate("between")
        assert state_of(answer.result(5)) == "DONE"
    assert not shop.control.wait_at_gate("between", seconds=0), "a used gate starts anew"


def test_clearing_faults_opens_the_gates(shop: Shop) -> None:
    number = shop.open_stream()
    shop.control.fault("query", "gate_before", number=number, name="g")
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(shop.query, number)
        assert shop.control.wait_at_gate("g")
        shop.control.clear_faults()
        assert state_of(answer.result(5)) == "OPEN"


def test_outage_on_a_shared_door_breaks_each_call_of_that_account(sandbox: RunningSandbox, shop: Shop) -> None:
    with sandbox.control.outage("blue"):
        assert [isinstance(shop.query("n1"), Unknown) for _ in range(3)] == [True] * 3
        assert isinstance(Shop(sandbox, "green").query("n1"), Known)
    assert isinstance(shop.query("n1"), Known)


@pytest.mark.parametrize("start", [serve_in_thread, serve])
def test_outage_on_a_door_of_its_own_refuses_connections(start: Any) -> None:
    with start({"blue": {}, "green": {}}, own_doors=True) as sandbox:
        shop = Shop(sandbox, "blue")
        number = shop.open_stream()
        with sandbox.control.outage("blue"):
            close_idle_connections()
            outcome = shop.query(number)
            assert isinstance(outcome, Refused)
            assert (outcome.kind, outcome.code, outcome.message) == (
                RefusedKind.THROTTLED,
                "not_sent",
                "connect_refused",
            )
            assert sandbox.control.calls("query", number) == 0
            assert isinstance(Shop(sandbox, "green").query(number), Known)
        assert shop.view(number).state == "OPEN"


def test_statement_can_omit_and_invent_lines(shop: Shop) -> None:
    number = shop.paid_stream()
    today = shop.control.set_clock(0).date()
    shop.control.fault("statement", "omit", account="blue", name=number)
    shop.control.fault("statement", "invent", account="blue", name="never_made", amount_minor=77)
    disturbed, true = (run(shop.channel.statement(today)) for _ in range(2))
    assert isinstance(disturbed, Known)
    assert isinstance(true, Known)
    assert number not in {line.number for line in disturbed.value}
    assert [line.amount_minor for line in disturbed.value if line.number == "never_made"] == [77]
    assert number in {line.number for line in true.value}


def test_journal_can_be_read_page_by_page(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("payonce.channels.sandbox.control_api.JOURNAL_ROWS_PER_PAGE", 2)
    numbers = [shop.paid_stream() for _ in range(5)]
    assert [row["number"] for row in shop.control.journal() if row["number"] in numbers] == numbers
    assert [row["id"] for row in shop.control.journal()] == [row["id"] for row in shop.control.ledger()["journal"]]


def test_counts_tell_operations_numbers_and_accounts_apart(sandbox: RunningSandbox, shop: Shop) -> None:
    number = shop.open_stream()
    for _ in range(3):
        shop.query(number)
    assert (shop.control.calls("prepay", number), shop.control.calls("query", number)) == (1, 3)
    assert shop.control.calls("query", number, account="green") == 0
    assert shop.control.calls("close", number) == 0


def test_many_buyers_at_once_pay_once(sandbox: RunningSandbox, shop: Shop) -> None:
    number = shop.open_stream()
    start = threading.Barrier(20)

    def pay(_: int) -> bool:
        start.wait(60)
        return shop.control.pay(number).ok

    with ThreadPoolExecutor(20) as threads:
        assert sum(threads.map(pay, range(20))) == 1
    assert shop.sums(number)["captures"] == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"op": "query", "do": "explode"}, "has no fault 'explode'"),
        ({"op": "pay", "do": "drop_after"}, "has no fault 'drop_after'"),
        ({"op": "nothing", "do": "drop_after"}, "nothing"),
        ({"op": "query", "do": "drop_after", "account": "red"}, "no account 'red'"),
        ({"op": "query", "do": "drop_after", "nth": 0}, "start at 1"),
        ({"op": "query", "do": "drop_after", "speed": 1}, "unknown argument 'speed'"),
        ({"op": "notify", "do": "forge", "kind": "magic"}, "kind must be one of"),
    ],
)
def test_fault_that_could_never_fire_is_refused(sandbox: RunningSandbox, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ControlError, match=message):
        sandbox.control.fault(**fields)


def test_control_needs_its_token(sandbox: RunningSandbox) -> None:
    with pytest.raises(ControlError, match="token"):
        SandboxControl(sandbox.url, "wrong").ledger()
    assert SandboxControl(sandbox.url, "wrong").health()["ok"] is True


@pytest.mark.parametrize(
    ("method", "name", "fields"),
    [
        ("POST", "pay", {}),
        ("POST", "pay", {"number": "\u0661"}),
        ("POST", "pay", {"number": "n1", "amount_minor": 1.5}),
        ("POST", "pay", {"number": "n1", "force": "yes"}),
        ("POST", "pay", {"number": "n1", "at": "yesterday"}),
        ("POST", "clock", {"offset_seconds": "1"}),
        ("POST", "gate", {"name": "g", "action": "break"}),
        ("POST", "nothing", {}),
        ("GET", "pay", {}),
    ],
)
def test_wrong_control_call_says_what_is_wrong(
    sandbox: RunningSandbox, method: str, name: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(ControlError):
        sandbox.control.call(method, name, **fields)


def test_control_without_a_sandbox_says_so() -> None:
    with pytest.raises(ControlError, match="does not answer: connect_refused"):
        SandboxControl("http://127.0.0.1:9", "t" * 20).health()


def test_number_of_two_accounts_must_name_one(sandbox: RunningSandbox) -> None:
    number = Shop(sandbox, "blue").paid_stream()
    Shop(sandbox, "green").prepay(Shop(sandbox, "green").request(number))
    with pytest.raises(ControlError, match="several accounts"):
        sandbox.control.pay(number)
    assert sandbox.control.pay(number, account="green").ok
    with pytest.raises(ControlError, match="name one"):
        sandbox.control.sums(number)


def test_acts_on_an_unknown_number_are_not_found(sandbox: RunningSandbox) -> None:
    control = sandbox.control
    acts = [control.pay, control.begin, control.decline, control.open_page, control.second_capture, control.dispute]
    assert {act("nobody_knows").result for act in acts} == {"NOT_FOUND"}
    assert control.sums("nobody_knows")["net_minor"] == 0


def test_clock_of_the_bank_moves_only_when_told(sandbox: RunningSandbox) -> None:
    before = sandbox.control.set_clock(0)
    after = sandbox.control.advance_clock(3_600)
    assert 3_599 < (after - before).total_seconds() < 3_660
    sandbox.control.set_clock(0)


def test_two_banks_cannot_share_a_ledger(sandbox: RunningSandbox) -> None:
    with (
        pytest.raises(RuntimeError, match="another sandbox already uses"),
        serve_in_thread({"blue": {}}, folder=sandbox.folder),
    ):
        pass


def test_notification_during_an_outage_still_leaves_the_bank(sandbox: RunningSandbox) -> None:
    with inbox() as box:
        shop = Shop(sandbox, "blue", box.url)
        number = shop.open_stream()
        with sandbox.control.outage("blue"):
            assert sandbox.control.pay(number).ok
            payment = shop.read(box.next()).payment
    assert payment is not None
    assert payment.number == number
