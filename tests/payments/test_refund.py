"""What people and shops may ask about refunds: every refusal at its edge, who is recorded, and what follows the commit."""

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from payonce.orders.models import Event
from payonce.payments import refund
from payonce.payments.errors import RefundNotFound
from payonce.payments.models import Discrepancy, Refund, Stream
from payonce.payments.refund import RefundCode, request_refund, seen_token
from payonce.payments.transitions.refunds import RefundMove
from tests.in_memory import (
    HOUR,
    NOW,
    SECOND,
    case_of,
    refund_of,
    store,
    stream_in,
    surplus_in_memory,
    work_of,
)

pytestmark = pytest.mark.usefixtures("in_memory")
ASK = {"reason": "duplicate", "by": "ann"}
YEAR = timedelta(days=365)


def stored(state="", *, case="", **fields) -> tuple[Stream, Refund | None]:
    """The keeper of a paid order and, with a state, a refund of 400 of it; both in the database."""
    keeper = stream_in("SUCCEEDED")
    rows = [refund_of(keeper, state, **{"amount_minor": 400, **fields})] if state else []
    work = work_of(keeper, refunds=rows)
    if case:
        work.cases.append(case_of("refund_stuck", keeper, refund=rows[0], state=case))
        work.cases[0].order = work.order
    store(work, timezone.now())
    return keeper, rows[0] if rows else None


def told(kind):
    event = Event.objects.get(kind=kind)
    return event.actor, json.loads(event.body)["facts"]


# Refusals, at their edges.


def refuse(amount=100, seen="", can=None, at_scripted=None, **fields):
    at_scripted.overrides["scripted_a"] = can or {}
    stream = stream_in(fields.pop("state", "SUCCEEDED"), **fields)
    return refund._refuse(work_of(stream), stream, amount, seen)


@pytest.mark.parametrize("state", ["PENDING", "CLOSED"])
def test_only_money_that_was_taken_can_go_back(state, in_memory):
    assert refuse(state=state, at_scripted=in_memory) is RefundCode.NOT_PAID


@pytest.mark.parametrize(
    ("amount", "reserved", "refused"),
    [(1, 0, None), (1000, 0, None), (1001, 0, RefundCode.TOO_MUCH), (0, 0, RefundCode.TOO_MUCH), (-1, 0, RefundCode.TOO_MUCH),
     (700, 300, None), (701, 300, RefundCode.TOO_MUCH)],
)  # fmt: skip
def test_no_more_than_is_left_and_no_less_than_one_goes_back(amount, reserved, refused, in_memory):
    """M2."""
    assert refuse(amount, refund_reserved_minor=reserved, at_scripted=in_memory) is refused


def test_a_page_from_before_the_money_changed_is_refused(in_memory):
    """M2: two people with the same page."""
    assert seen_token(stream_in("SUCCEEDED", refund_reserved_minor=300)) == "po1s01:1000:300"
    assert refuse(seen="po1s01:1000:0", at_scripted=in_memory) is None
    assert refuse(seen="po1s01:1000:0", refund_reserved_minor=300, at_scripted=in_memory) is RefundCode.STALE
    assert refuse(seen="", refund_reserved_minor=300, at_scripted=in_memory) is None


def test_a_channel_that_cannot_refund_or_is_not_configured_any_more_refuses(in_memory):
    assert refuse(can={"refunds": False}, at_scripted=in_memory) is RefundCode.NO_REFUNDS
    assert refuse(account="no_longer_configured", at_scripted=in_memory) is RefundCode.NO_REFUNDS


@pytest.mark.parametrize(
    ("times", "refused"),
    [
        ({"paid_at": NOW - YEAR}, None),
        ({"paid_at": NOW - YEAR - SECOND}, RefundCode.NO_REFUNDS),
        ({"paid_at": NOW - YEAR - SECOND, "succeeded_at": NOW}, RefundCode.NO_REFUNDS),
        ({"paid_at": NOW, "succeeded_at": NOW - 2 * YEAR}, None),
        ({"paid_at": None, "succeeded_at": NOW - YEAR - SECOND}, RefundCode.NO_REFUNDS),
        ({"paid_at": None, "succeeded_at": NOW - YEAR}, None),
        ({"paid_at": None, "succeeded_at": None}, None),
    ],
)
def test_the_window_of_the_channel_begins_when_the_buyer_paid(times, refused, in_memory):
    """Or when we learnt of it, where the channel does not say."""
    assert refuse(**times, at_scripted=in_memory) is refused


@pytest.mark.parametrize(("can", "amount", "refused"), [
    ({"refunds_partial": False}, 999, RefundCode.NO_PARTIAL), ({"refunds_partial": False}, 1000, None), ({}, 999, None),
])  # fmt: skip
def test_a_channel_that_refunds_only_all_of_it_refuses_a_part(can, amount, refused, in_memory):
    assert refuse(amount, can=can, at_scripted=in_memory) is refused


# Asking.


@pytest.mark.django_db
@pytest.mark.parametrize("reason", ["requested_by_customer", "duplicate", "out_of_stock", "fraudulent", "other"])
def test_every_reason_that_is_offered_is_taken_and_kept(reason):
    """The texts are part of the API."""
    keeper, _ = stored()
    assert request_refund(keeper.number, 1, reason=reason, by="ann", note="as agreed").code is RefundCode.REQUESTED
    assert Refund.objects.get().reason == reason


@pytest.mark.parametrize("amount", [1.0, "100", True, None])
def test_an_amount_that_is_no_whole_number_is_refused_before_anything_is_locked(amount):
    """M8."""
    with pytest.raises(TypeError, match="whole number of minor units"):
        request_refund("po1s01", amount, **ASK)


@pytest.mark.parametrize(("reason", "note"), [("", "x"), ("because", "x"), ("other", ""), ("other", " \t")])
def test_a_reason_that_says_nothing_is_refused_before_anything_is_locked(reason, note):
    assert request_refund("po1s01", 1, reason=reason, by="ann", note=note).code is RefundCode.INVALID_REASON
    assert refund.REASONS == ("requested_by_customer", "duplicate", "out_of_stock", "fraudulent", "other"), (
        "the API's texts"
    )


@pytest.mark.django_db
def test_a_request_is_recorded_to_the_last_field_and_carried_out_at_once(kicked):
    """M6, S10, S15."""
    keeper, _ = stored()
    asked = request_refund(keeper.number, 400, note="  " + "n" * 600, **ASK)
    row = Refund.objects.get()
    assert (asked.code, asked.number, asked.state, asked.refundable_minor) == (
        RefundCode.REQUESTED, f"{keeper.number}rp1", "REQUESTED", 600,
    )  # fmt: skip
    assert (row.number, row.state, row.amount_minor, row.currency, row.purpose) == (
        asked.number, "REQUESTED", 400, "CNY", "operator",
    )  # fmt: skip
    assert (row.reason, row.requested_by, row.approved_by, row.note) == ("duplicate", "ann", "", "n" * 500)
    assert (row.next_try_at, row.approval_expires_at, row.first_sent_at) == (row.created_at, None, None)
    assert told("refund.requested")[0] == "operator:ann"
    assert kicked == ["payonce.publish", "payonce.refund"]


@pytest.mark.django_db
def test_a_shop_that_asks_is_recorded_as_the_shop():
    keeper, _ = stored()
    request_refund(keeper.number, 1, reason="duplicate", by="shop:shop")
    assert told("refund.requested")[0] == "shop:shop"


@pytest.mark.django_db
@pytest.mark.parametrize(("amount", "waits"), [(600, True), (599, False)])
def test_from_the_limit_on_a_request_waits_for_a_second_person(amount, waits, settings, kicked):
    """S15: until the approval expires."""
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": {"APPROVAL_MINOR": 600, "APPROVAL_HOURS": 5}}
    keeper, _ = stored()
    asked = request_refund(keeper.number, amount, **ASK)
    row = Refund.objects.get()
    if waits:
        assert (asked.code, asked.state, row.state) == (
            RefundCode.AWAITING_APPROVAL,
            "AWAITING_APPROVAL",
            "AWAITING_APPROVAL",
        )
        assert (row.next_try_at, row.approval_expires_at) == (None, row.created_at + 5 * HOUR)
    else:
        assert (asked.code, asked.state, row.state) == (RefundCode.REQUESTED, "REQUESTED", "REQUESTED")
        assert (row.next_try_at, row.approval_expires_at) == (row.created_at, None)


@pytest.mark.django_db
def test_what_was_asked_for_of_another_stream_does_not_count_toward_the_limit(settings):
    """S15."""
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": {"APPROVAL_MINOR": 600}}
    keeper, extra = stream_in("SUCCEEDED", 1), surplus_in_memory(2)
    own = refund_of(keeper, "SUCCEEDED", 1, amount_minor=200, first_sent_at=NOW - HOUR)
    store(work_of(keeper, extra, refunds=[own]), timezone.now())
    assert request_refund(extra.number, 500, **ASK).code is RefundCode.REQUESTED
    assert request_refund(keeper.number, 500, **ASK).code is RefundCode.AWAITING_APPROVAL


@pytest.mark.django_db
def test_a_second_request_waits_for_the_first_and_is_told_what_is_left():
    """M2, M6."""
    keeper, _ = stored("UNKNOWN")
    asked = request_refund(keeper.number, 100, **ASK)
    assert (asked.code, asked.number, asked.refundable_minor) == (RefundCode.IN_PROGRESS, "", 600)
    assert Refund.objects.count() == 1
    asked = request_refund(keeper.number, 601, **ASK)
    assert (asked.code, asked.refundable_minor) == (RefundCode.TOO_MUCH, 600)


@pytest.mark.django_db
def test_a_request_that_was_made_before_answers_with_its_refund_as_it_is_now():
    """S9: the same key again makes no second refund, whatever else is asked."""
    keeper, row = stored("SUBMITTED")
    bound = []

    def bind(work, number):
        bound.append(number)
        return row.number

    asked = request_refund(keeper.number, 5000, bind=bind, **ASK)
    assert (asked.code, asked.number, asked.state, asked.refundable_minor) == (
        RefundCode.REQUESTED, row.number, "SUBMITTED", 600,
    )  # fmt: skip
    assert (bound, Refund.objects.count()) == ([""], 1)


@pytest.mark.django_db
@pytest.mark.parametrize(("amount", "bound"), [(400, ["", "po1s01rp1"]), (1001, [""])])
def test_a_new_request_is_bound_to_its_refund_in_the_same_commit_and_a_refused_one_is_not(amount, bound):
    """S9, S7."""
    keeper, _ = stored()
    found = []
    request_refund(keeper.number, amount, bind=lambda work, number: found.append(number) or "", **ASK)
    assert found == bound


# A second person.


@pytest.mark.django_db
def test_an_approval_sends_the_refund_on_its_way(kicked):
    """S15."""
    _, row = stored("AWAITING_APPROVAL", approval_expires_at=NOW + HOUR)
    assert refund.approve_refund(row.number, "operator:ann") is RefundMove.SAME_PERSON
    assert kicked == []
    assert refund.approve_refund(row.number, "bob") is RefundMove.MOVED
    row.refresh_from_db()
    assert (row.state, row.approved_by) == ("REQUESTED", "bob")
    assert told("refund.approved") == ("operator:bob", {"approved_by": "bob"})
    assert kicked == ["payonce.publish", "payonce.refund"]


@pytest.mark.django_db
def test_a_refund_that_is_taken_back_leaves_its_case_to_a_person(kicked):
    """S13, M2."""
    keeper, row = stored("REQUESTED", case="REPAIRING")
    assert refund.decline_refund(row.number, "bob") is RefundMove.MOVED
    row.refresh_from_db()
    keeper.refresh_from_db()
    assert (row.state, row.approved_by, keeper.refund_reserved_minor) == ("DECLINED", "bob", 0)
    assert told("refund.declined") == ("operator:bob", {"reason": "declined"})
    case = Discrepancy.objects.get()
    assert (case.state, case.note) == ("OPEN", f"{row.number} was declined: declined")
    assert kicked == ["payonce.publish", "payonce.refund"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("state", "sent", "answer"),
    [("UNKNOWN", NOW - HOUR, RefundMove.NOT_AWAITING), ("REQUESTED", NOW - HOUR, RefundMove.NOT_AWAITING)],
)
def test_a_refund_that_was_sent_is_not_taken_back_and_its_case_stays_in_repair(state, sent, answer, kicked):
    """M6."""
    _, row = stored(state, case="REPAIRING", first_sent_at=sent)
    assert refund.decline_refund(row.number, "bob", "no") is answer
    assert (Discrepancy.objects.get().state, kicked) == ("REPAIRING", [])


# After the channel's no, and without an answer.


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("approved_by", "by", "becomes"),
    [
        ("", "bob", "bob"),
        ("", "operator:bob", "bob"),
        ("", "ann", ""),
        ("", "operator:ann", ""),
        ("carol", "bob", "carol"),
    ],
)
def test_whoever_retries_anothers_refund_stands_for_it(approved_by, by, becomes, kicked):
    """S15, M6."""
    _, row = stored("REJECTED", approved_by=approved_by, first_sent_at=NOW - HOUR)
    assert refund.retry_refund(row.number, by) is RefundMove.MOVED
    row.refresh_from_db()
    assert (row.state, row.approved_by) == ("REQUESTED", becomes)
    assert told("refund.retried")[0] == f"operator:{by.removeprefix('operator:')}"
    assert kicked == ["payonce.publish", "payonce.refund"]


@pytest.mark.django_db
def test_a_retry_of_what_was_not_rejected_changes_nothing(kicked):
    _, row = stored("SUBMITTED", first_sent_at=NOW - HOUR)
    assert refund.retry_refund(row.number, "bob") is RefundMove.NOT_REJECTED
    row.refresh_from_db()
    assert (row.state, row.approved_by, kicked) == ("SUBMITTED", "", [])


@pytest.mark.django_db
@pytest.mark.parametrize(("calls", "answer", "left"), [(0, RefundMove.MOVED, 1000), (1, RefundMove.NOT_PROVEN, 600)])
def test_a_number_is_given_up_only_with_proof(calls, answer, left, kicked):
    """M6."""
    keeper, row = stored("REJECTED", open_call_count=calls, first_sent_at=NOW - HOUR)
    assert refund.write_off_refund(row.number, "bob") is answer
    keeper.refresh_from_db()
    assert keeper.refundable_minor == left
    assert kicked == (["payonce.publish", "payonce.refund"] if answer is RefundMove.MOVED else [])
    if answer is RefundMove.MOVED:
        assert told("refund.written_off")[0] == "operator:bob"


@pytest.mark.django_db
@pytest.mark.parametrize("state", ["UNKNOWN", "ATTENTION", "REJECTED"])
def test_a_person_who_saw_the_money_go_may_say_so_where_no_answer_does(state, kicked):
    """S13, M1."""
    keeper, row = stored(state, first_sent_at=NOW - HOUR, open_call_count=1)
    assert refund.confirm_refund(row.number, "operator:bob") is RefundMove.MOVED
    row.refresh_from_db()
    assert (row.state, row.approved_by, row.open_call_count) == ("SUCCEEDED", "bob", 0)
    assert Stream.objects.get().order.refunded_minor == 400
    assert told("refund.succeeded")[0] == "operator:bob"
    assert kicked == ["payonce.publish", "payonce.refund"]


@pytest.mark.django_db
@pytest.mark.parametrize("state", ["AWAITING_APPROVAL", "REQUESTED", "SUBMITTED", "SUCCEEDED", "DECLINED", "RETURNED"])
def test_a_refund_that_nobody_doubts_is_not_confirmed(state, kicked):
    """M1, S15."""
    _, row = stored(state, is_released=state in ("DECLINED", "RETURNED"))
    assert refund.confirm_refund(row.number, "bob") is RefundMove.NOT_ACTIVE
    row.refresh_from_db()
    assert (row.state, Event.objects.count(), kicked) == (state, 0, [])


@pytest.mark.django_db
@pytest.mark.parametrize(
    "step",
    [refund.approve_refund, refund.decline_refund, refund.retry_refund, refund.write_off_refund, refund.confirm_refund],
)
def test_a_refund_that_does_not_exist_is_an_error_of_the_caller(step):
    with pytest.raises(RefundNotFound, match="There is no refund nowhere"):
        step("nowhere", "bob")
