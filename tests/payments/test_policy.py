"""When payonce may give money back by itself, what a second person must approve, and what counts against an account's day."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from payonce.orders.conf import RefundSettings
from payonce.orders.models import Order
from payonce.payments import policy
from payonce.payments.models import Refund, Stream
from payonce.payments.policy import PolicyAnswer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SURPLUS = Stream(role="surplus")


def automatic(**fields):
    return Refund(**{"purpose": "surplus", "requested_by": "payonce", "amount_minor": 400, **fields})


def test_only_what_nobody_asked_for_and_nobody_decided_is_automatic():
    """M5, S15: the rows of older installations say `payonce` too, so the name never changes."""
    assert policy.is_automatic(automatic()) is True
    assert policy.is_automatic(automatic(purpose="operator")) is False
    assert policy.is_automatic(automatic(requested_by="ann")) is False
    assert policy.is_automatic(automatic(approved_by="bob")) is False


@pytest.mark.parametrize(
    ("changed", "spent_minor", "answer"),
    [
        ({}, 10**9, PolicyAnswer.ALLOWED),
        ({"AUTO": False}, 0, PolicyAnswer.OFF),
        ({"MAX_MINOR": 400}, 0, PolicyAnswer.ALLOWED),
        ({"MAX_MINOR": 399}, 0, PolicyAnswer.OVER_MAX),
        ({"MAX_MINOR": 0}, 0, PolicyAnswer.OVER_MAX),
        ({"DAILY_MINOR": 1000}, 600, PolicyAnswer.ALLOWED),
        ({"DAILY_MINOR": 1000}, 601, PolicyAnswer.OVER_DAILY),
        ({"DAILY_MINOR": 0}, 0, PolicyAnswer.OVER_DAILY),
        ({"MAX_MINOR": 399, "DAILY_MINOR": 0}, 0, PolicyAnswer.OVER_MAX),
        ({"DRY_RUN": True}, 0, PolicyAnswer.DRY_RUN),
        ({"DRY_RUN": True, "AUTO": False}, 0, PolicyAnswer.OFF),
    ],
)
def test_an_automatic_refund_goes_out_within_its_limits_to_the_last_cent(changed, spent_minor, answer):
    assert policy.judge(automatic(), SURPLUS, replace(RefundSettings(), **changed), spent_minor) is answer


@pytest.mark.parametrize("role", ["keeper", ""])
def test_the_keeper_is_never_given_back_automatically(role):
    """M5: whatever the settings are."""
    for conf in (RefundSettings(), RefundSettings(AUTO=False), RefundSettings(DRY_RUN=True)):
        assert policy.judge(automatic(), Stream(role=role), conf, 0) is PolicyAnswer.KEEPER


def test_what_a_person_asked_for_or_decided_is_held_back_by_a_dry_run_alone():
    tight = RefundSettings(AUTO=False, MAX_MINOR=0, DAILY_MINOR=0)
    for row in (automatic(purpose="operator", requested_by="ann"), automatic(approved_by="ann")):
        for stream in (SURPLUS, Stream(role="keeper")):
            assert policy.judge(row, stream, tight, 10**9) is PolicyAnswer.ALLOWED
            assert policy.judge(row, stream, replace(tight, DRY_RUN=True), 10**9) is PolicyAnswer.DRY_RUN


def test_a_person_is_known_by_name_and_never_taken_for_the_automaton():
    """S15: `ann` and `operator:ann` are one person; a name fits its column."""
    assert policy.person_of("operator:ann") == policy.person_of("ann") == "ann"
    assert policy.person_of("operator:payonce") == policy.person_of("payonce") == "operator:payonce"
    assert policy.person_of("operator:" + "n" * 151) == "n" * 150


def test_parts_that_nobody_approved_count_together_towards_the_second_person():
    """S15: a large refund cannot be asked for in small parts."""
    part = Refund(amount_minor=300, requested_by="ann")
    assert policy.needs_second_person(699, [part], 1000) is False
    assert policy.needs_second_person(700, [part], 1000) is True
    assert policy.needs_second_person(400, [part, part], 1000) is True
    assert policy.needs_second_person(10**9, [part], None) is False
    for other in (
        Refund(amount_minor=300, requested_by="ann", is_released=True),
        Refund(amount_minor=300, requested_by="ann", approved_by="bob"),
        Refund(amount_minor=300, requested_by="payonce"),
    ):
        assert policy.needs_second_person(700, [other], 1000) is False


def stream_of(account="a", currency="CNY"):
    count = Stream.objects.count()
    order = Order.objects.create(
        number=f"po{count}", source="shop", reference=f"r{count}", amount_minor=1000, currency=currency, created_at=NOW
    )
    return Stream.objects.create(
        number=f"po{count}s01", order=order, attempt=1, account=account, method="qr", amount_minor=1000, currency=currency,
        state="SUCCEEDED", role="surplus", surplus_reason="late", captured_minor=1000, payable_until=NOW, created_at=NOW,
    )  # fmt: skip


def made(number, stream=None, **fields):
    stream = stream or stream_of()
    fixed = {
        "number": number, "stream": stream, "sequence": 1, "currency": stream.currency, "state": "SUBMITTED", "reason": "late",
        "created_at": NOW - DAY * 9, "first_sent_at": NOW,
    }  # fmt: skip
    row = automatic(**{**fixed, **fields})
    row.save(force_insert=True)
    return row


@pytest.mark.django_db
def test_what_was_sent_within_a_day_counts_and_so_does_what_is_about_to_be_sent():
    assert policy.spent_today_minor("a", "CNY", NOW, "default") == 0
    made("sent", amount_minor=1, first_sent_at=NOW - DAY + timedelta(seconds=1))
    made("done", amount_minor=10, state="SUCCEEDED")
    made("unknown", amount_minor=100, state="UNKNOWN")
    made("claimed", amount_minor=1000, state="REQUESTED", first_sent_at=None, call_lease="held")
    spent = policy.spent_today_minor("a", "CNY", NOW, "default")
    assert (spent, type(spent)) == (1111, int)
    assert policy.spent_today_minor("a", "CNY", NOW, "default", but="claimed") == 111


@pytest.mark.django_db
def test_nothing_else_counts_against_an_accounts_day():
    made("a day ago", first_sent_at=NOW - DAY)
    made("not claimed", state="REQUESTED", first_sent_at=None)
    made("sent before and asked about now", first_sent_at=NOW - DAY * 2, state="UNKNOWN", call_lease="held")
    made("asked by a person", purpose="operator", requested_by="ann")
    made("decided by a person", approved_by="ann")
    made("given up", state="REJECTED", is_released=True)
    made("of another account", stream_of("b"))
    made("of another currency", stream_of(currency="EUR"))
    assert policy.spent_today_minor("a", "CNY", NOW, "default") == 0
    assert policy.spent_today_minor("b", "CNY", NOW, "default") == 400
    assert policy.spent_today_minor("a", "EUR", NOW, "default") == 400
