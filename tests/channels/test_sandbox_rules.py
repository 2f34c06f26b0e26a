"""The rules of the sandbox bank: numbers, closing, late money, refunds. Asked over HTTP, judged by its journal."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from payonce.channels.http import run
from payonce.channels.messages import CaptureRequest, CloseAnswer, CloseState, Known, Refused, RefusedKind, Unknown
from payonce.channels.sandbox.testing import RunningSandbox, serve_in_thread
from tests.channels.bank import PRICE, Shop, state_of

ACCOUNTS = {
    "plain": {},
    "query": {"close_proof": "query"},
    "hidden": {"not_found_before_buyer_acts": True},
    "captures": {"captures": True, "close_proof": "restraint"},
    "lenient": {"enforces_expiry": False},
    "limited": {"currencies": ["CNY"], "methods": ["qr"], "amount_minor_min": 100, "amount_minor_max": 5_000},
    "short": {"lifetime_seconds": 60, "refund_window_seconds": 3_600, "refund_count_max": 2},
    "whole": {"refunds_partial": False, "refund_interval_seconds": 30},
    "none": {"refunds": False},
    "slow": {"refund_seconds": 120},
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with serve_in_thread(ACCOUNTS) as running:
        yield running


class Shops:
    """`shops["plain"]` is the merchant of that account."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        self.sandbox = sandbox

    def __getitem__(self, account: str) -> Shop:
        return Shop(self.sandbox, account)


@pytest.fixture
def shop(sandbox: RunningSandbox) -> Iterator[Shops]:
    yield Shops(sandbox)
    sandbox.control.clear_faults()
    sandbox.control.set_clock(0)


def test_same_prepay_gives_the_live_prepay(shop: Shops) -> None:
    request = shop["plain"].request()
    first, second = shop["plain"].prepay(request), shop["plain"].prepay(request)
    assert isinstance(first, Known)
    assert first == second


def test_prepay_that_ran_out_is_renewed_under_the_same_number(shop: Shops) -> None:
    request = shop["short"].request()
    first = shop["short"].prepay(request)
    shop.sandbox.control.set_clock(90)
    assert shop.sandbox.control.pay(request.number).result == "EXPIRED"
    second = shop["short"].prepay(request)
    assert isinstance(first, Known)
    assert isinstance(second, Known)
    assert second.value.expires_at > first.value.expires_at
    assert shop.sandbox.control.pay(request.number).ok


@pytest.mark.parametrize(
    "change", [{"amount_minor": PRICE + 1}, {"currency": "USD"}, {"subject": "other"}, {"method": "h5"}, {"payer": "x"}]
)
def test_same_number_with_other_parameters_conflicts(shop: Shops, change: dict[str, object]) -> None:
    request = shop["plain"].request()
    shop["plain"].prepay(request)
    other = shop["plain"].request(request.number, **{"payable_until": request.payable_until, **change})
    outcome = shop["plain"].prepay(other)
    assert isinstance(outcome, Refused)
    assert (outcome.kind, outcome.code) == (RefusedKind.CONFLICT, "NUMBER_CONFLICT")


@pytest.mark.parametrize(
    ("change", "code", "kind"),
    [
        ({"method": "web"}, "METHOD_UNSUPPORTED", RefusedKind.CONFIG),
        ({"currency": "USD"}, "CURRENCY_UNSUPPORTED", RefusedKind.CONFIG),
        ({"amount_minor": 99}, "AMOUNT_OUT_OF_RANGE", RefusedKind.DECLINED),
        ({"amount_minor": 5_001}, "AMOUNT_OUT_OF_RANGE", RefusedKind.DECLINED),
        ({"amount_minor": 0}, "PARAM_INVALID", RefusedKind.CONFIG),
        ({"amount_minor": -1}, "PARAM_INVALID", RefusedKind.CONFIG),
        ({"amount_minor": 12.0}, "PARAM_INVALID", RefusedKind.CONFIG),
        ({"amount_minor": True}, "PARAM_INVALID", RefusedKind.CONFIG),
        ({"amount_minor": 10**16}, "PARAM_INVALID", RefusedKind.CONFIG),
        ({"notify_url": "javascript:1"}, "PARAM_INVALID", RefusedKind.CONFIG),
        ({"number": "\u0661\u0662"}, "PARAM_INVALID", RefusedKind.CONFIG),
        ({"number": "a/../b"}, "PARAM_INVALID", RefusedKind.CONFIG),
        ({"payable_until": datetime(2020, 1, 1, tzinfo=UTC)}, "EXPIRED", RefusedKind.CONFLICT),
    ],
)
def test_m8_prepay_that_the_bank_refuses(shop: Shops, change: dict[str, object], code: str, kind: RefusedKind) -> None:
    outcome = shop["limited"].prepay(shop["limited"].request(**change))
    assert isinstance(outcome, Refused), outcome
    assert (outcome.code, outcome.kind) == (code, kind)


@pytest.mark.parametrize("number", ["a/../b", "\u0661", "", "x" * 200, "a?b", "a#b", "%2e", "\ud800"])
def test_odd_number_is_asked_for_safely(shop: Shops, number: str) -> None:
    assert not isinstance(shop["plain"].query(number), Known)
    assert not isinstance(shop["plain"].prepay(shop["plain"].request(number)) if number else None, Known)


def test_buyer_pays_once(shop: Shops) -> None:
    number = shop["plain"].paid_stream()
    again = shop.sandbox.control.pay(number)
    assert (again.ok, again.result) == (False, "ALREADY_PAID")
    assert shop["plain"].sums(number)["captured_minor"] == PRICE


def test_expired_stream_takes_no_money(shop: Shops) -> None:
    number = shop["plain"].open_stream()
    shop.sandbox.control.set_clock(31 * 60)
    assert shop.sandbox.control.pay(number).result == "EXPIRED"
    assert shop.sandbox.control.begin(number).result == "EXPIRED"
    assert shop["plain"].sums(number)["captures"] == 0


def test_late_bank_confirmation_takes_money_after_expiry(shop: Shops) -> None:
    begun, forced = shop["plain"].open_stream(), shop["plain"].open_stream()
    assert shop.sandbox.control.begin(begun).state == "IN_PROGRESS"
    assert shop["plain"].view(begun).state == "IN_PROGRESS"
    shop.sandbox.control.set_clock(31 * 60)
    assert shop.sandbox.control.pay(begun).ok
    assert shop.sandbox.control.pay(forced, force=True).ok
    assert shop["plain"].sums(begun)["captures"] == shop["plain"].sums(forced)["captures"] == 1


def test_bank_that_does_not_enforce_expiry_takes_late_money(shop: Shops) -> None:
    number = shop["lenient"].open_stream()
    shop.sandbox.control.set_clock(31 * 60)
    assert shop.sandbox.control.pay(number).ok


def test_paid_at_can_lie_in_the_past(shop: Shops) -> None:
    number = shop["plain"].open_stream()
    at = datetime.now(UTC) - timedelta(hours=2)
    assert shop.sandbox.control.pay(number, at=at, force=True).ok
    assert shop["plain"].view(number).paid_at == at


def test_declined_stream_stays_payable(shop: Shops) -> None:
    number = shop["plain"].open_stream()
    assert shop.sandbox.control.decline(number).state == "OPEN"
    assert shop["plain"].view(number).state == "OPEN"
    assert shop.sandbox.control.pay(number).ok


@pytest.mark.parametrize("account", ["plain", "query"])
def test_closed_stream_is_proven_and_unpayable(shop: Shops, account: str) -> None:
    number = shop[account].open_stream()
    assert [state_of(shop[account].close(number)) for _ in range(2)] == ["CLOSED_PROVED"] * 2
    assert shop.sandbox.control.pay(number).result == "ALREADY_CLOSED"
    assert state_of(shop[account].prepay(shop[account].request(number))).startswith("Refused:")
    assert shop.sandbox.control.pay(number, force=True).ok, "money wins"
    assert shop[account].view(number).state == "PAID"


def test_close_in_progress_is_not_closed(shop: Shops) -> None:
    number = shop["plain"].open_stream()
    shop.sandbox.control.begin(number)
    assert state_of(shop["plain"].close(number)) == "IN_PROGRESS"
    assert shop.sandbox.control.pay(number).ok


def test_close_that_is_accepted_for_anything_is_not_proof(shop: Shops) -> None:
    assert shop["query"].close("never_registered") == Known(
        CloseAnswer(CloseState.UNPROVED, shop["query"].view("never_registered")), '{"code":"NOT_FOUND"}'
    )


def test_close_whose_proof_does_not_arrive_is_unproved(shop: Shops) -> None:
    number = shop["query"].open_stream()
    shop.sandbox.control.fault("query", "drop_before", number=number)
    assert state_of(shop["query"].close(number)) == "UNPROVED"
    assert state_of(shop["query"].close(number)) == "CLOSED_PROVED"


def test_hidden_stream_is_unknown_until_the_buyer_opens_it(shop: Shops) -> None:
    number = shop["hidden"].open_stream()
    assert shop["hidden"].view(number).state == "NOT_FOUND"
    assert state_of(shop["hidden"].close(number)) == "NOT_CLOSABLE"
    assert shop.sandbox.control.open_page(number).ok
    assert shop["hidden"].view(number).state == "OPEN"
    assert state_of(shop["hidden"].close(number)) == "CLOSED_PROVED"


def test_hidden_stream_can_be_paid_after_not_found(shop: Shops) -> None:
    number = shop["hidden"].open_stream()
    assert shop["hidden"].view(number).state == "NOT_FOUND"
    assert shop.sandbox.control.pay(number).ok
    assert shop["hidden"].view(number).state == "PAID"


def test_approved_money_waits_for_the_capture(shop: Shops) -> None:
    number = shop["captures"].open_stream()
    assert shop.sandbox.control.approve(number).state == "APPROVED"
    assert shop["captures"].view(number).state == "APPROVED"
    assert state_of(shop["captures"].close(number)) == "NOT_CLOSABLE"
    assert shop["captures"].sums(number)["captures"] == 0
    captured = run(shop["captures"].channel.capture(CaptureRequest(shop["captures"].ref(number), "key1")))
    assert state_of(captured) == "PAID"
    assert shop["captures"].sums(number)["captured_minor"] == PRICE


def test_second_capture_has_a_reference_of_its_own(shop: Shops) -> None:
    number = shop["plain"].paid_stream()
    second = shop.sandbox.control.second_capture(number, amount_minor=700)
    view = shop["plain"].view(number)
    assert [other.channel_reference for other in view.captures] == [second.reference]
    assert view.captures[0].paid_minor == 700
    assert shop["plain"].sums(number)["captures"] == 2
    assert state_of(shop["plain"].refund(number, "s1", 700, second.reference)) == "DONE"
    view = shop["plain"].view(number)
    assert (view.refunded_minor, view.captures[0].refunded_minor) == (0, 700)


def test_wrong_amount_and_currency_are_what_was_really_paid(shop: Shops) -> None:
    number = shop["plain"].open_stream()
    shop.sandbox.control.pay(number, amount_minor=1, currency="USD")
    view = shop["plain"].view(number)
    assert (view.state, view.paid_minor, view.currency) == ("PAID", 1, "USD")


def test_m2_refunds_never_exceed_the_capture(shop: Shops) -> None:
    number = shop["plain"].paid_stream()
    assert state_of(shop["plain"].refund(number, "r1", 1_000)) == "DONE"
    assert state_of(shop["plain"].refund(number, "r2", 1_000)) == "Refused:REFUND_EXCEEDS"
    assert state_of(shop["plain"].refund(number, "r2", 999)) == "DONE"
    assert shop["plain"].sums(number)["net_minor"] == 0


def test_m6_same_refund_number_is_the_same_refund(shop: Shops) -> None:
    number = shop["plain"].paid_stream()
    assert [state_of(shop["plain"].refund(number, "r1", 100)) for _ in range(3)] == ["DONE"] * 3
    assert state_of(shop["plain"].refund(number, "r1", 101)) == "Refused:NUMBER_CONFLICT"
    assert shop["plain"].sums(number)["refunded_minor"] == 100


def test_same_refund_number_of_another_payment_is_another_refund(shop: Shops) -> None:
    for number in (shop["plain"].paid_stream(), shop["plain"].paid_stream()):
        assert state_of(shop["plain"].refund(number, "shared", 100)) == "DONE"
        assert shop["plain"].sums(number)["refunded_minor"] == 100


def test_refund_limits_of_an_account(shop: Shops) -> None:
    old = shop["short"].open_stream()
    shop.sandbox.control.pay(old, at=datetime.now(UTC) - timedelta(hours=2), force=True)
    assert state_of(shop["short"].refund(old, "r1")) == "Refused:REFUND_WINDOW_PASSED"
    many = shop["short"].paid_stream()
    states = [state_of(shop["short"].refund(many, f"r{index}", 10)) for index in range(3)]
    assert states == ["DONE", "DONE", "Refused:REFUND_COUNT"]
    whole = shop["whole"].paid_stream()
    assert state_of(shop["whole"].refund(whole, "r1", 10)) == "Refused:REFUND_PARTIAL_UNSUPPORTED"
    assert state_of(shop["none"].refund(shop["none"].paid_stream(), "r1")) == "Refused:REFUNDS_UNSUPPORTED"


def test_refund_that_takes_time_is_done_later(shop: Shops) -> None:
    number = shop["slow"].paid_stream()
    assert state_of(shop["slow"].refund(number, "r1")) == "IN_PROGRESS"
    assert shop["slow"].sums(number)["refunded_minor"] == 0
    shop.sandbox.control.set_clock(121)
    assert state_of(shop["slow"].query_refund(number, "r1")) == "DONE"
    assert shop["slow"].sums(number)["refunded_minor"] == PRICE


def test_failed_refund_moves_nothing_and_is_tried_again_under_its_number(shop: Shops) -> None:
    number = shop["plain"].paid_stream()
    shop.sandbox.control.fault("refund", "refund_failed", number=number, code="NOT_ENOUGH")
    assert state_of(shop["plain"].refund(number, "r1")) == "FAILED"
    assert state_of(shop["plain"].query_refund(number, "r1")) == "FAILED"
    assert shop["plain"].sums(number)["refunded_minor"] == 0
    assert state_of(shop["plain"].refund(number, "r1")) == "DONE"
    assert shop["plain"].sums(number)["refunded_minor"] == PRICE


def test_refund_that_needs_a_person_keeps_its_money_reserved(shop: Shops) -> None:
    number = shop["plain"].paid_stream()
    shop.sandbox.control.fault("refund", "refund_attention", number=number)
    assert state_of(shop["plain"].refund(number, "r1")) == "ATTENTION"
    assert state_of(shop["plain"].refund(number, "r2", 1)) == "Refused:REFUND_EXCEEDS"
    assert shop.sandbox.control.settle_refund(number, "r1", "DONE").ok
    assert shop["plain"].sums(number)["refunded_minor"] == PRICE


def test_refund_under_way_fails_when_a_dispute_takes_its_money(shop: Shops) -> None:
    number = shop["plain"].paid_stream()
    shop.sandbox.control.fault("refund", "refund_pending", number=number)
    assert state_of(shop["plain"].refund(number, "r1")) == "IN_PROGRESS"
    assert shop.sandbox.control.dispute(number, amount_minor=1).ok
    assert shop.sandbox.control.settle_refund(number, "r1", "DONE").ok
    assert state_of(shop["plain"].query_refund(number, "r1")) == "FAILED"
    assert shop["plain"].sums(number)["refunded_minor"] == 0


def test_returned_refund_gives_the_money_back_to_the_merchant(shop: Shops) -> None:
    number = shop["plain"].paid_stream()
    shop["plain"].refund(number, "r1")
    assert shop.sandbox.control.settle_refund(number, "r1", "RETURNED").ok
    assert state_of(shop["plain"].query_refund(number, "r1")) == "RETURNED"
    assert shop["plain"].sums(number)["net_minor"] == PRICE
    assert shop["plain"].view(number).refunded_minor == 0
    assert not shop.sandbox.control.settle_refund(number, "r1", "FAILED").ok


def test_money_taken_back_is_told_and_cannot_be_refunded(shop: Shops) -> None:
    number = shop["plain"].paid_stream()
    assert shop.sandbox.control.dispute(number, amount_minor=500).ok
    assert shop.sandbox.control.reverse(number, amount_minor=499).ok
    assert shop.sandbox.control.outside_refund(number, 600).startswith("outside_")
    view = shop["plain"].view(number)
    assert (view.state, view.disputed_minor, view.reversed_minor, view.refunded_minor) == ("PAID", 500, 499, 600)
    assert state_of(shop["plain"].refund(number, "r1", 401)) == "Refused:REFUND_EXCEEDS"
    assert shop["plain"].sums(number)["net_minor"] == 400


def test_statement_is_paged_and_complete(shop: Shops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("payonce.channels.sandbox.dialect.STATEMENT_LINES_PER_PAGE", 2)
    numbers = [shop["query"].paid_stream() for _ in range(5)]
    outcome = run(shop["query"].channel.statement(datetime.now(UTC).date()))
    assert isinstance(outcome, Known)
    assert [line.number for line in outcome.value if line.number in numbers] == numbers
    assert run(shop["query"].channel.statement(datetime(2020, 1, 1, tzinfo=UTC).date())) == Known((), "0 lines")


def test_wrong_secret_is_a_matter_of_configuration(shop: Shops) -> None:
    outcome = Shop(shop.sandbox, "plain", secret="w" * 20 + "rong secret 123").query("n1")
    assert isinstance(outcome, Refused)
    assert (outcome.kind, outcome.code) == (RefusedKind.CONFIG, "SIGNATURE_INVALID")
    unknown = Shop(shop.sandbox, "plain", merchant="nobody").query("n1")
    assert isinstance(unknown, Refused)
    assert unknown.code == "ACCOUNT_UNKNOWN"


@pytest.mark.parametrize("seconds", [-301, 301])
def test_stale_request_is_refused_before_anything_happens(shop: Shops, seconds: int) -> None:
    late = shop["plain"]
    late.channel.clock = lambda: datetime.now(UTC).timestamp() + seconds
    request = late.request()
    outcome = late.prepay(request)
    assert isinstance(outcome, Refused)
    assert (outcome.kind, outcome.code) == (RefusedKind.CONFIG, "TIMESTAMP_STALE")
    assert shop.sandbox.control.ledger(request.number)["payments"] == []


def test_skewed_bank_is_not_believed(shop: Shops) -> None:
    number = shop["plain"].open_stream()
    shop.sandbox.control.set_skew("plain", 200)
    assert isinstance(shop["plain"].query(number), Known)
    shop.sandbox.control.fault("query", "stale_timestamp", seconds=-200, number=number)
    assert state_of(shop["plain"].query(number)) == "Unknown:stale_timestamp:200"
    shop.sandbox.control.set_skew("plain", 0)


def test_journal_refuses_update_and_delete(tmp_path: Path) -> None:
    with serve_in_thread({"blue": {}}, folder=tmp_path) as running:
        Shop(running, "blue").paid_stream()
    database = sqlite3.connect(tmp_path / "bank.sqlite3")
    for statement in ("UPDATE journal SET amount_minor = 1", "DELETE FROM journal"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            database.execute(statement)
    database.close()


def test_unknown_outcomes_are_unknown(shop: Shops) -> None:
    number = shop["plain"].open_stream()
    control = shop.sandbox.control
    for fault in ("error_before", "error_after", "drop_before", "drop_after", "truncate", "garbage", "no_signature"):
        control.fault("query", fault, number=number)
        assert isinstance(shop["plain"].query(number), Unknown), fault
    control.fault("query", "refuse", number=number, code="SOMETHING_NEW", status=200)
    assert state_of(shop["plain"].query(number)) == "Unknown:unlisted:SOMETHING_NEW"
    assert control.faults() == []
