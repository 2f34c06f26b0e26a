"""Money that is not its order's payment: what payonce does by itself, and what each decision of a person comes to."""

import json
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from payonce.orders.errors import PayonceError
from payonce.payments import surplus
from payonce.payments.errors import DiscrepancyNotFound, InsideTransaction
from payonce.payments.models import Discrepancy
from payonce.payments.surplus import Decided, decide_case, new_refund
from payonce.payments.transitions.cases import new_alone
from tests.in_memory import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    case_of,
    refund_of,
    stream_in,
    surplus_in_memory,
    work_of,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("in_memory")


def decide(work, decision, by="bob", note="", number=1):
    return surplus._decide(work, number, decision, by, note)


def with_refunds(settings, **rules):
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": rules}


def duplicate(*refunds, kind="duplicate", case=None, others=(), **fields):
    """The keeper, its duplicate of 1000, and the duplicate's open case; `refunds` are (state, fields) of the duplicate."""
    keeper, extra = stream_in("SUCCEEDED", 1), surplus_in_memory(2, **fields)
    rows = [refund_of(extra, state, number, **more) for number, (state, more) in enumerate(refunds, 1)]
    about = case_of(kind, extra, 1, **(case or {}))
    return extra, about, work_of(keeper, extra, *others, refunds=rows, cases=[about])


# By itself.


@pytest.mark.parametrize(
    ("automatic", "fields", "can", "is_refunded"),
    [
        (True, {}, {}, True),
        (False, {}, {}, False),
        (True, {}, {"refunds": False}, False),
        (True, {"captured_currency": "EUR"}, {}, False),
        (True, {"account": "no_longer_configured"}, {}, False),
    ],
)
def test_surplus_is_refunded_by_itself_only_where_that_is_surely_right(automatic, fields, can, is_refunded, in_memory):
    """M3: otherwise a person's queue has it."""
    in_memory.overrides["scripted_a"] = can
    extra = surplus_in_memory(2, **fields)
    work = work_of(stream_in("SUCCEEDED", 1), extra)
    surplus.take_in(work, extra, automatic=automatic)
    case = work.case()
    assert (case.kind, case.subject, case.amount_minor, case.stream) == ("duplicate", "po1s02", 1000, extra)
    assert case.state == ("REPAIRING" if is_refunded else "OPEN")
    assert json.loads(case.evidence) == {"channel_reference": "ref-2", "expected_minor": 1000, "keeper": "po1s01"}
    assert (
        case.summary
        == f"po1s02 took 1000 {extra.captured_currency} (minor units) that order po1 does not need: duplicate."
    )
    if not is_refunded:
        assert (case.refund, work.refunds, extra.refund_reserved_minor) == (None, [], 0)
        return
    (refund,) = work.refunds
    assert (refund.number, refund.purpose, refund.sequence, refund.amount_minor) == ("po1s02rs1", "surplus", 1, 1000)
    assert (refund.state, refund.reason, refund.requested_by, refund.next_try_at) == (
        "REQUESTED", "duplicate", "payonce", NOW,
    )  # fmt: skip
    assert (case.refund, extra.refund_reserved_minor) == (refund, 1000)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("duplicate", "duplicate"),
        ("late", "late_payment"),
        ("mismatched", "mismatch"),
        ("second_capture", "second_capture"),
    ],
)
def test_each_reason_of_surplus_has_its_kind_of_case(reason, kind):
    extra = surplus_in_memory(1, reason)
    work = work_of(extra)
    surplus.take_in(work, extra, automatic=False)
    assert work.case().kind == kind


def test_the_delay_holds_an_automatic_refund_back_and_not_a_persons(settings):
    """A shop may want an hour to look first; whoever decided has looked."""
    with_refunds(settings, DELAY_SECONDS=3600)
    extra = surplus_in_memory()
    work = work_of(extra)
    surplus.take_in(work, extra, automatic=True)
    assert work.refunds[0].next_try_at == NOW + HOUR
    extra, _, work = duplicate()
    assert decide(work, "refund") is Decided.DONE
    assert work.refunds[0].next_try_at == NOW


def test_an_automatic_refund_never_waits_for_a_second_person(settings):
    """M3: the limits of automatic refunds are others."""
    with_refunds(settings, APPROVAL_MINOR=1)
    extra = surplus_in_memory()
    work = work_of(extra)
    surplus.take_in(work, extra, automatic=True)
    assert work.refunds[0].state == "REQUESTED"


def test_a_refunds_number_is_a_function_of_stream_purpose_and_sequence():
    """M6: refunds of other streams and of another purpose have sequences of their own."""
    first, second = surplus_in_memory(1), surplus_in_memory(2)
    rows = [
        refund_of(first, "DECLINED", 1, purpose="surplus", is_released=True),
        refund_of(first, "DECLINED", 2, purpose="surplus", is_released=True),
        refund_of(first, "SUCCEEDED", 3, purpose="operator"),
        refund_of(second, "SUCCEEDED", 7, purpose="surplus"),
    ]
    work = work_of(first, second, refunds=rows)
    made = new_refund(work, first, "surplus", 600, "late", "ann")
    assert (made.number, made.sequence, made.purpose, made.stream) == ("po1s01rs3", 3, "surplus", first)
    assert (made.amount_minor, made.currency, made.reason, made.requested_by, made.created_at) == (
        600,
        "CNY",
        "late",
        "ann",
        NOW,
    )
    assert new_refund(work, first, "operator", 1, "other", "ann").number == "po1s01rp4"
    assert new_refund(work, second, "operator", 1, "other", "ann").number == "po1s02rp1"


def test_the_numbers_of_an_orders_attempts_are_padded():
    assert (surplus.stream_number("po1", 1), surplus.stream_number("po1", 12), surplus.stream_number("po1", 100)) == (
        "po1s01", "po1s12", "po1s100",
    )  # fmt: skip


# A person decides: which case, and about what.


def test_a_case_that_was_decided_meanwhile_is_a_repeat():
    work = duplicate()[2]
    assert decide(work, "dismiss", number=2) is Decided.REPEAT
    assert (work.case().state, work.kinds) == ("OPEN", [])


@pytest.mark.parametrize("decision", ["refund", "accept", "keep"])
@pytest.mark.parametrize("about", ["no stream", "another order's stream", "the keeper"])
def test_only_surplus_money_is_refunded_accepted_or_kept(decision, about):
    """M5: a dispute of the keeper is no reason to give the payment back."""
    keeper = stream_in("SUCCEEDED", 1)
    stream = {"no stream": None, "another order's stream": surplus_in_memory(9), "the keeper": keeper}[about]
    work = work_of(keeper, cases=[case_of("dispute", stream)])
    assert decide(work, decision) is Decided.NOT_SURPLUS
    assert (work.case().state, work.refunds, work.kinds, work.callbacks) == ("OPEN", [], [], [])


def test_a_case_is_decided_about_its_own_stream():
    """M3: two surplus streams; only the case's one goes back."""
    other = surplus_in_memory(3)
    extra, case, work = duplicate(others=[other])
    assert decide(work, "refund") is Decided.DONE
    assert [(row.stream, row.amount_minor) for row in work.refunds] == [(extra, 1000)]
    assert (case.state, case.refund) == ("REPAIRING", work.refunds[0])


def test_a_dismissed_case_is_over_with_the_persons_word(kicked):
    """S13, S10."""
    _, case, work = duplicate(kind="contradiction")
    assert decide(work, "dismiss", "ann", "their support explained it") is Decided.DONE
    assert (case.state, case.decision, case.decided_by, case.note) == (
        "RESOLVED", "dismiss", "ann", "their support explained it",
    )  # fmt: skip
    for callback in work.callbacks:
        callback()
    assert (work.kinds, kicked) == (["case.resolved"], ["payonce.refund", "payonce.publish"])


@pytest.mark.parametrize(("kind", "is_given_up"), [("stream_unclear", True), ("contradiction", False)])
def test_dismissing_an_unclear_stream_gives_that_stream_up(kind, is_given_up):
    """S13, S16: past the channel's limit a person's word ends what no answer ended; it stays watched for money."""
    stream, other = stream_in("PROCESSING", 1), stream_in("CLOSING", 2)
    work = work_of(stream, other, cases=[case_of(kind, stream)])
    assert decide(work, "dismiss") is Decided.DONE
    assert (stream.state, stream.is_watched, stream.close_reason) == (
        ("CLOSING", True, "given up by a person") if is_given_up else ("PROCESSING", False, "")
    )
    assert (other.is_watched, other.close_reason, work.cases[0].state) == (False, "", "RESOLVED")


@pytest.mark.parametrize(
    ("state", "fields", "ends_as"),
    [
        ("REQUESTED", {"next_try_at": None}, ("DECLINED", None)),
        ("REQUESTED", {"next_try_at": NOW + MINUTE}, ("REQUESTED", NOW + MINUTE)),
        ("REQUESTED", {"next_try_at": None, "first_sent_at": NOW - HOUR}, ("REQUESTED", NOW)),
        ("UNKNOWN", {"next_try_at": None, "first_sent_at": NOW - HOUR}, ("UNKNOWN", NOW)),
        ("REJECTED", {"next_try_at": None, "first_sent_at": NOW - HOUR}, ("REJECTED", None)),
    ],
)
def test_a_parked_refund_does_not_outlive_the_case_that_a_person_dismisses(state, fields, ends_as):
    """S13: what was never sent frees its reservation, what was sent is asked about; what goes on by itself goes on."""
    extra, case, work = duplicate((state, fields), case={"refund_id": 1})
    assert decide(work, "dismiss", "ann") is Decided.DONE
    (row,) = work.refunds
    assert (row.state, row.next_try_at, case.state) == (*ends_as, "RESOLVED")
    assert extra.refund_reserved_minor == (0 if row.state == "DECLINED" else 1000)


def test_a_dismissed_case_takes_only_its_own_parked_refund_back_and_says_so():
    """S13, S10: the refund of other money still waits for its own case's person."""
    other = surplus_in_memory(3)
    _, _, work = duplicate(("REQUESTED", {"next_try_at": None}), case={"refund_id": 1}, others=[other])
    work.refunds.append(refund_of(other, "REQUESTED", 9))
    assert decide(work, "dismiss", "bob") is Decided.DONE
    assert [(row.state, row.approved_by) for row in work.refunds] == [("DECLINED", "bob"), ("REQUESTED", "")]
    declined = next(event for event in work.journal.events if event.kind == "refund.declined")
    assert json.loads(declined.body)["facts"] == {"reason": "dismissed"}


def test_a_parked_refund_stays_while_another_case_is_about_it():
    """S13: that one's person still decides."""
    _, case, work = duplicate(("REQUESTED", {"next_try_at": None}), case={"refund_id": 1})
    other = case_of("refund_stuck", work.streams[1], 2, refund_id=1)
    work.cases.append(other)
    assert decide(work, "dismiss") is Decided.DONE
    assert (case.state, other.state, work.refunds[0].state) == ("RESOLVED", "OPEN", "REQUESTED")


def test_after_a_decision_the_cached_way_to_pay_is_void(shouts):
    """S8."""
    _, _, work = duplicate()
    assert decide(work, "dismiss") is Decided.DONE
    for callback in work.callbacks:
        callback()
    assert (work.order.version, shouts.client.get("payonce:order:po1")) == (1, b"0::")


# Refund it.


def test_surplus_without_a_refund_gets_one_for_all_that_is_left(kicked):
    """M3."""
    extra, case, work = duplicate(refund_reserved_minor=300)
    assert decide(work, "refund", "bob") is Decided.DONE
    (row,) = work.refunds
    assert (row.number, row.amount_minor, row.purpose, row.reason) == ("po1s02rs1", 700, "surplus", "duplicate")
    assert (row.state, row.requested_by, row.approved_by, row.next_try_at) == ("REQUESTED", "bob", "", NOW)
    assert (case.state, case.refund, extra.refund_reserved_minor) == ("REPAIRING", row, 1000)
    for callback in work.callbacks:
        callback()
    assert (work.kinds, kicked) == (["refund.requested", "case.repairing"], ["payonce.refund", "payonce.publish"])


@pytest.mark.parametrize(("reserved", "answer"), [(1000, Decided.NO_MONEY_LEFT), (999, Decided.DONE)])
def test_where_nothing_is_left_there_is_nothing_to_refund(reserved, answer):
    """M2: and one minor unit is something."""
    _, case, work = duplicate(refund_reserved_minor=reserved)
    assert decide(work, "refund") is answer
    assert [row.amount_minor for row in work.refunds] == ([1] if answer is Decided.DONE else [])
    assert case.state == ("REPAIRING" if answer is Decided.DONE else "OPEN")


@pytest.mark.parametrize(
    ("first", "reserved", "amount"),
    [({"amount_minor": 400}, 0, 400), ({"amount_minor": 400}, 700, 300), ({"amount_minor": 1000}, 0, 1000)],
)
@pytest.mark.parametrize("purpose", ["operator", "surplus"])
def test_a_refund_that_was_given_up_is_followed_by_another_of_at_most_its_amount(first, reserved, amount, purpose):
    """M1, M6: for the same purpose, under the next number, and never more than is left."""
    gone = ("DECLINED", {**first, "is_released": True, "purpose": purpose})
    _, case, work = duplicate(gone, refund_reserved_minor=reserved)
    assert decide(work, "refund") is Decided.DONE
    row = work.refunds[1]
    assert (row.sequence, row.purpose, row.amount_minor, case.refund) == (2, purpose, amount, row)


@pytest.mark.parametrize("state", ["REQUESTED", "SUBMITTED", "UNKNOWN"])
@pytest.mark.parametrize(
    ("asked_by", "approved_by", "becomes"), [("payonce", "", "bob"), ("bob", "", ""), ("payonce", "ann", "ann")]
)
def test_a_refund_that_waits_is_tried_again_now_as_decided_by_that_person(state, asked_by, approved_by, becomes):
    """S15, M6: the same number; nobody approves what they asked for, and the first approval stays."""
    parked = (state, {"requested_by": asked_by, "approved_by": approved_by, "first_sent_at": NOW - HOUR})
    _, case, work = duplicate(parked)
    assert decide(work, "refund", "bob") is Decided.DONE
    (row,) = work.refunds
    assert (row.state, row.next_try_at, row.approved_by) == (state, NOW, becomes)
    assert (case.state, case.refund) == ("REPAIRING", row)


@pytest.mark.parametrize("state", ["REJECTED", "ATTENTION"])
def test_a_refund_that_stopped_at_the_channel_is_retried_under_its_number(state):
    """M6."""
    _, case, work = duplicate((state, {"requested_by": "payonce"}))
    assert decide(work, "refund", "bob") is Decided.DONE
    (row,) = work.refunds
    assert (row.state, row.next_try_at, row.approved_by, case.refund) == ("REQUESTED", NOW, "bob", row)


def test_a_rejected_refund_beside_another_one_under_way_is_not_retried():
    """M2, M6: one refund of a stream at a time."""
    rows = [("REJECTED", {"amount_minor": 400}), ("UNKNOWN", {"amount_minor": 300})]
    _, case, work = duplicate(*rows, case={"refund_id": 1})
    assert decide(work, "refund") is Decided.REFUNDING
    assert (work.refunds[0].state, case.state, work.kinds) == ("REJECTED", "OPEN", [])


def test_a_refund_under_way_beside_one_that_was_given_up_blocks_a_third():
    """M2."""
    rows = [("DECLINED", {"amount_minor": 400, "is_released": True}), ("UNKNOWN", {"amount_minor": 300})]
    _, case, work = duplicate(*rows, case={"refund_id": 1})
    assert decide(work, "refund") is Decided.REFUNDING
    assert (len(work.refunds), case.state, work.kinds) == (2, "OPEN", [])


def test_a_refund_that_waits_for_approval_is_not_sent_by_a_decision_on_a_case():
    """S15."""
    _, case, work = duplicate(("AWAITING_APPROVAL", {}))
    assert decide(work, "refund") is Decided.REFUNDING
    assert (work.refunds[0].state, work.refunds[0].approved_by, case.state) == ("AWAITING_APPROVAL", "", "OPEN")


def test_a_part_that_was_given_back_does_not_end_the_case_of_the_rest():
    """M3."""
    _, case, work = duplicate(("SUCCEEDED", {"amount_minor": 300, "first_sent_at": NOW - HOUR}))
    assert decide(work, "refund") is Decided.DONE
    assert [(row.amount_minor, row.purpose) for row in work.refunds] == [(300, "operator"), (700, "surplus")]
    assert case.refund is work.refunds[1]


def test_a_stuck_refund_that_was_done_after_all_is_not_given_again():
    """M1, M2: the case of one refund is about that refund, not about what else is left."""
    done = ("SUCCEEDED", {"amount_minor": 300, "first_sent_at": NOW - HOUR})
    _, case, work = duplicate(done, kind="refund_stuck", case={"refund_id": 1})
    assert decide(work, "refund") is Decided.REFUNDING
    assert (len(work.refunds), case.state) == (1, "OPEN")


def test_a_returned_refund_of_the_keeper_may_be_given_again():
    """M1: here a person says so, and no more than what came back."""
    keeper = stream_in("SUCCEEDED", 1)
    returned = refund_of(keeper, "RETURNED", amount_minor=300, is_released=True)
    work = work_of(keeper, refunds=[returned], cases=[case_of("refund_stuck", keeper, refund_id=1)])
    assert decide(work, "refund") is Decided.DONE
    row = work.refunds[1]
    assert (row.amount_minor, row.purpose, row.reason, row.requested_by) == (300, "operator", "returned", "bob")


@pytest.mark.parametrize(("linked", "retried"), [({"refund_id": 1}, 1), ({}, 2)])
def test_the_case_s_own_refund_comes_before_the_newest_one(linked, retried):
    """M6."""
    rows = [("REJECTED", {"amount_minor": 400}), ("REJECTED", {"amount_minor": 300})]
    _, case, work = duplicate(*rows, case=linked)
    assert decide(work, "refund") is Decided.DONE
    assert [row.state for row in work.refunds] == [
        "REQUESTED" if row.pk == retried else "REJECTED" for row in work.refunds
    ]
    assert case.refund_id == retried


def test_refunds_of_other_streams_are_other_money():
    """M3."""
    other = surplus_in_memory(3)
    elsewhere = refund_of(other, "REQUESTED", 9)
    _, case, work = duplicate(others=[other])
    work.refunds.append(elsewhere)
    assert decide(work, "refund") is Decided.DONE
    assert (case.refund.number, elsewhere.next_try_at) == ("po1s02rs1", None)


@pytest.mark.parametrize(("limit", "waits"), [(1000, True), (1001, False), (None, False)])
def test_a_large_refund_that_one_person_decides_waits_for_a_second(limit, waits, settings):
    """S15."""
    with_refunds(settings, APPROVAL_MINOR=limit, APPROVAL_HOURS=5)
    _, case, work = duplicate()
    assert decide(work, "refund", "bob") is Decided.DONE
    (row,) = work.refunds
    assert (row.state, row.approval_expires_at, row.next_try_at, row.approved_by) == (
        ("AWAITING_APPROVAL", NOW + 5 * HOUR, None, "") if waits else ("REQUESTED", None, NOW, "")
    )
    assert case.state == "REPAIRING"


@pytest.mark.parametrize(("is_other_stream", "waits"), [(False, True), (True, False)])
def test_only_what_was_asked_for_of_the_same_stream_counts_toward_the_second_person(is_other_stream, waits, settings):
    """S15."""
    with_refunds(settings, APPROVAL_MINOR=1000)
    other = surplus_in_memory(3)
    extra, _, work = duplicate(others=[other])
    stream = other if is_other_stream else extra
    work.refunds.append(refund_of(stream, "SUCCEEDED", 9, amount_minor=300, first_sent_at=NOW))
    if is_other_stream:
        extra.refund_reserved_minor = 300
    assert decide(work, "refund") is Decided.DONE
    assert (work.refunds[1].amount_minor, work.refunds[1].state) == (700, "AWAITING_APPROVAL" if waits else "REQUESTED")


# Accept it.


def late(*refunds, stream=None, order=None, others=()):
    extra = surplus_in_memory(1, "late", **{"paid_at": NOW - MINUTE, **(stream or {})})
    rows = [refund_of(extra, state, number, **more) for number, (state, more) in enumerate(refunds, 1)]
    case = case_of("late_payment", extra)
    return extra, case, work_of(extra, *others, refunds=rows, cases=[case], **{"state": "CLOSED", **(order or {})})


def test_late_money_that_a_person_accepts_is_the_payment(kicked):
    """M4, S3: its refund that was not sent is taken back, other ways to pay close."""
    waiting, ended = stream_in("CLOSING", 2, is_watched=True), stream_in("FAILED", 3)
    pending = stream_in("PENDING", 4)
    extra, case, work = late(("REQUESTED", {"requested_by": "payonce"}), others=[waiting, ended, pending])
    assert decide(work, "accept", "ann", "agreed") is Decided.DONE
    assert (extra.role, extra.surplus_reason, extra.refund_reserved_minor) == ("keeper", "", 0)
    assert (work.order.state, work.order.keeper, work.order.paid_at) == ("PAID", "po1s01", NOW - MINUTE)
    assert (work.refunds[0].state, work.refunds[0].approved_by) == ("DECLINED", "ann")
    assert (case.state, case.decision, case.decided_by, case.note) == ("RESOLVED", "accept", "ann", "agreed")
    assert (pending.state, pending.close_reason, pending.nudged_at) == ("CLOSING", "another stream paid", NOW)
    assert (waiting.state, waiting.nudged_at) == ("CLOSING", NOW)
    assert (ended.state, ended.nudged_at, extra.nudged_at, work.hooks) == ("FAILED", None, None, [])
    for callback in work.callbacks:
        callback()
    assert kicked == ["payonce.refund", "payonce.publish"]


def test_the_shops_own_effects_commit_with_an_accepted_payment(settings):
    """S11."""
    settings.PAYONCE = {**settings.PAYONCE, "SHOP": "tests.shops.MarkingShop"}
    work = late()[2]
    assert decide(work, "accept") is Decided.DONE
    assert [hook.__name__ for hook in work.hooks] == ["order_paid_in_transaction"]


def test_an_order_that_is_paid_accepts_no_second_payment():
    """M4."""
    _, case, work = duplicate()
    assert decide(work, "accept") is Decided.HAS_KEEPER
    assert (case.state, work.order.keeper, work.kinds) == ("OPEN", "po1s01", [])


@pytest.mark.parametrize(
    ("stream", "order"),
    [
        ({"captured_minor": 900}, {}),
        ({"captured_minor": 900}, {"amount_minor": 900}),
        ({"captured_minor": 900, "amount_minor": 900}, {}),
        ({"captured_currency": "EUR"}, {}),
        ({"captured_currency": "EUR"}, {"currency": "EUR"}),
    ],
)
def test_money_that_is_not_the_amount_is_not_accepted(stream, order):
    """S1, M9."""
    extra, case, work = late(stream=stream, order=order)
    assert decide(work, "accept") is Decided.MISMATCHED
    assert (extra.role, case.state, work.order.state, work.kinds) == ("surplus", "OPEN", "CLOSED", [])


@pytest.mark.parametrize("decision", ["accept", "keep"])
@pytest.mark.parametrize("state", ["REQUESTED", "UNKNOWN", "SUBMITTED", "REJECTED"])
def test_money_whose_refund_was_sent_is_neither_accepted_nor_kept(decision, state):
    """M1, M5: it may be gone, whatever the last answer was."""
    extra, case, work = late((state, {"first_sent_at": NOW - HOUR}))
    assert decide(work, decision) is Decided.REFUNDING
    assert (extra.role, extra.refund_reserved_minor, case.state, work.kinds) == ("surplus", 1000, "OPEN", [])


# Keep it.


def test_money_that_is_kept_takes_its_unsent_refund_back_and_other_cases_go_to_a_person():
    """M3, S13."""
    extra, case, work = duplicate(("REQUESTED", {}), case={"refund_id": 1, "state": "REPAIRING"})
    other = case_of("dispute", extra, 2, refund_id=1, state="REPAIRING")
    unrelated = case_of("dispute", stream_in("SUCCEEDED", 8), 3, refund_id=77, state="REPAIRING")
    work.cases.extend([other, unrelated])
    assert decide(work, "keep", "bob", "agreed") is Decided.DONE
    assert (work.refunds[0].state, work.refunds[0].approved_by, extra.refund_reserved_minor) == ("DECLINED", "bob", 0)
    declined = next(event for event in work.journal.events if event.kind == "refund.declined")
    assert json.loads(declined.body)["facts"] == {"reason": "kept"}
    assert (case.state, case.decision, case.note) == ("RESOLVED", "keep", "agreed")
    assert (other.state, other.note, unrelated.state) == ("OPEN", "po1s02rp1 was taken back by bob.", "REPAIRING")
    assert work.kinds == ["refund.declined", "case.handed_to_person", "case.resolved"]


def test_money_is_kept_although_a_refund_of_another_stream_was_sent():
    other = surplus_in_memory(3)
    _, case, work = duplicate(others=[other])
    work.refunds.append(refund_of(other, "UNKNOWN", 9, first_sent_at=NOW))
    assert decide(work, "keep") is Decided.DONE
    assert (case.state, work.refunds[0].state, work.refunds[0].is_released) == ("RESOLVED", "UNKNOWN", False)


def test_a_refund_of_another_stream_is_not_taken_back_with_this_one():
    """M3: its reservation and its case stay."""
    other = surplus_in_memory(3)
    _, _, work = duplicate(("REQUESTED", {}), others=[other])
    work.refunds.append(refund_of(other, "REQUESTED", 9))
    assert decide(work, "keep") is Decided.DONE
    assert [row.state for row in work.refunds] == ["DECLINED", "REQUESTED"]


@pytest.mark.parametrize(("part", "answer"), [(999, Decided.DONE), (1000, Decided.REFUNDING)])
def test_what_was_not_given_back_may_be_kept(part, answer):
    """M3: a part that is surely back does not stand against it; with all of it back nothing is left to keep."""
    _, case, work = duplicate(("SUCCEEDED", {"amount_minor": part, "first_sent_at": NOW - HOUR}))
    assert decide(work, "keep") is answer
    assert case.state == ("RESOLVED" if answer is Decided.DONE else "OPEN")


def test_what_another_stream_gave_back_is_no_part_of_this_ones_money():
    """M1."""
    other = surplus_in_memory(3)
    _, _, work = duplicate(("SUCCEEDED", {"amount_minor": 300, "first_sent_at": NOW - HOUR}), others=[other])
    work.refunds.append(refund_of(other, "SUCCEEDED", 9, first_sent_at=NOW))
    assert decide(work, "keep") is Decided.DONE


def test_a_part_whose_refund_has_no_answer_yet_stands_against_keeping():
    """M1: it may be gone."""
    _, case, work = duplicate(("UNKNOWN", {"amount_minor": 300, "first_sent_at": NOW - HOUR}))
    assert decide(work, "keep") is Decided.REFUNDING
    assert case.state == "OPEN"


def test_a_refund_that_was_given_up_after_it_was_sent_does_not_stand_against_keeping():
    """M3: written off means proven to have moved nothing."""
    _, case, work = duplicate(("REJECTED", {"is_released": True, "first_sent_at": NOW - HOUR}))
    assert decide(work, "keep") is Decided.DONE
    assert (case.state, work.refunds[0].state) == ("RESOLVED", "REJECTED")


# Cases that belong to no order.


@pytest.fixture
def alone(db) -> Discrepancy:
    """Money that matches no stream of ours."""
    case = new_alone("orphan", "scripted_a", "r-1", "money", timezone.now() - timedelta(hours=1), 500, "CNY")
    case.save()
    return case


@pytest.mark.parametrize("decision", ["dismiss", "keep"])
def test_a_case_of_no_order_is_closed_by_whoever_looked_into_it(alone, decision):
    """S13, L6: with the time-outs of every step."""
    assert decide_case(alone.pk, decision, "operator:ann", "refunded in their console") is Decided.DONE
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("3s",)
    alone.refresh_from_db()
    assert (alone.state, alone.decision, alone.decided_by, alone.note) == (
        "RESOLVED", decision, "ann", "refunded in their console",
    )  # fmt: skip
    resolved_at = alone.resolved_at
    assert resolved_at - alone.opened_at > HOUR - SECOND
    assert decide_case(alone.pk, "dismiss", "bob", "again") is Decided.REPEAT
    alone.refresh_from_db()
    assert (alone.decided_by, alone.resolved_at) == ("ann", resolved_at)


@pytest.mark.parametrize("decision", ["refund", "accept"])
def test_a_case_of_no_order_moves_no_money(alone, decision):
    """M6: there is no stream whose refund it could be."""
    assert decide_case(alone.pk, decision, "ann") is Decided.NOT_SURPLUS
    alone.refresh_from_db()
    assert alone.state == "OPEN"


def test_a_decision_inside_somebody_elses_transaction_is_refused(alone):
    """S7: what was answered must be durable."""
    with transaction.atomic(), pytest.raises(InsideTransaction):
        decide_case(alone.pk, "dismiss", "ann")


def test_a_case_that_does_not_exist_is_an_error_of_the_caller(db):
    with pytest.raises(DiscrepancyNotFound, match="There is no case 7"):
        decide_case(7, "dismiss", "ann")
    assert issubclass(DiscrepancyNotFound, PayonceError)
