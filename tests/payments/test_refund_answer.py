"""What a channel's answer about a refund does to its row, its order and its cases: answer by answer."""

import json

import pytest

from payonce.channels.messages import Known, RefundState, RefundView, Refused, RefusedKind, Unknown
from payonce.payments import refund_answer, schedule
from payonce.payments.refund_answer import apply_outcome, apply_view, means_not_sent, short, succeed_by_person
from payonce.payments.transitions.refunds import RefundMove
from tests.in_memory import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    case_of,
    refund_of,
    stream_in,
    surplus_in_memory,
    work_of,
)

pytestmark = pytest.mark.usefixtures("in_memory")
SOON = NOW + 2 * SECOND
"""The first gap between two tries."""


def view(state, amount=0, currency="", **more):
    return RefundView("n", RefundState(state), amount, currency, **more)


def of_keeper(state, *, order=None, cases=(), **fields):
    """A refund of 400 of the keeper's 1000, and the work on its order."""
    keeper = stream_in("SUCCEEDED", 1)
    row = refund_of(keeper, state, **{"amount_minor": 400, "next_try_at": NOW - SECOND, **fields})
    return row, work_of(keeper, refunds=[row], cases=list(cases), **(order or {}))


def of_surplus(state, *, cases=None, others=(), **fields):
    """The automatic refund of surplus money, and the case that it repairs."""
    keeper, extra = stream_in("SUCCEEDED", 1), surplus_in_memory(2)
    known = {"purpose": "surplus", "requested_by": "payonce", "next_try_at": NOW - SECOND, "first_sent_at": NOW - HOUR}
    row = refund_of(extra, state, **{**known, **fields})
    made = [case_of("duplicate", extra, 1, refund_id=1, state="REPAIRING")] if cases is None else cases(extra)
    return row, work_of(keeper, extra, refunds=[row, *others], cases=made)


def answer(work, row, outcome, *, asked_only=False, may_repeat=True, is_late=False):
    apply_outcome(work, row, outcome, asked_only=asked_only, may_repeat=may_repeat, is_late=is_late)


NO = Refused(RefusedKind.DECLINED, "NOT_ENOUGH")
LOST = Unknown("time-out")


# Before it is sent again.


@pytest.mark.parametrize(
    ("outcome", "may_repeat", "is_retried", "not_sent"),
    [
        (Known(view("NOT_FOUND")), True, False, True),
        (Known(view("NOT_FOUND")), True, True, True),
        (Known(view("NOT_FOUND")), False, True, False),
        (Known(view("FAILED")), True, True, True),
        (Known(view("FAILED")), True, False, False),
        (Known(view("FAILED")), False, True, False),
        (Known(view("DONE")), True, True, False),
        (Known(view("IN_PROGRESS")), True, True, False),
        (LOST, True, True, False),
        (NO, True, True, False),
    ],
)
def test_a_number_is_sent_again_only_where_the_channel_says_that_nothing_happened(
    outcome, may_repeat, is_retried, not_sent
):
    """M6: a failure is an answer; after it only a person sends the number again. No answer says nothing."""
    assert means_not_sent(outcome, may_repeat, is_retried) is not_sent


# Calls and their count.


@pytest.mark.parametrize(
    ("outcome", "asked_only", "before", "after"),
    [
        (Known(view("IN_PROGRESS")), False, 2, 1),
        (Known(view("IN_PROGRESS")), False, 1, 0),
        (Known(view("IN_PROGRESS")), False, 0, 0),
        (Known(view("IN_PROGRESS")), True, 2, 2),
        (NO, False, 2, 1),
        (NO, True, 2, 2),
        (LOST, False, 2, 2),
        (LOST, True, 2, 2),
    ],
)
def test_only_a_definite_answer_to_a_call_ends_that_call(outcome, asked_only, before, after):
    """M6: as long as one is open, the number may still move money, and is not given up."""
    row, work = of_keeper("UNKNOWN", open_call_count=before)
    answer(work, row, outcome, asked_only=asked_only)
    assert row.open_call_count == after


@pytest.mark.parametrize(("asked_only", "until"), [(False, NOW + MINUTE), (True, NOW + HOUR)])
def test_the_end_of_the_window_that_a_lost_call_names_is_kept_and_that_of_a_query_is_not(asked_only, until):
    """M6."""
    row, work = of_keeper("REQUESTED", replay_safe_until=NOW + HOUR)
    answer(work, row, Unknown("time-out", replay_safe_until=NOW + MINUTE), asked_only=asked_only)
    assert row.replay_safe_until == until


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (Known(view("ATTENTION")), "ATTENTION"),
        (NO, "declined: NOT_ENOUGH"),
        (LOST, "unknown: time-out"),
        (Refused(RefusedKind.CONFIG, "x" * 200), "config: " + "x" * 120),
        (Unknown("x" * 200), "unknown: " + "x" * 119),
    ],
)
def test_the_last_answer_is_told_in_a_few_words_that_fit(outcome, told):
    row, work = of_keeper("SUBMITTED")
    answer(work, row, outcome)
    assert (row.last_answer, row.last_answer_at, short(outcome)) == (told, NOW, told)


# No definite answer.


@pytest.mark.parametrize(
    ("outcome", "asked_only", "reason"),
    [
        (LOST, False, "unknown: time-out"),
        (LOST, True, "unknown: time-out"),
        (NO, True, "declined: NOT_ENOUGH"),
        (Refused(RefusedKind.THROTTLED, "429"), True, "throttled: 429"),
        (Refused(RefusedKind.CONFLICT, "USED"), False, "conflict: USED"),
    ],
)
def test_without_a_definite_answer_the_outcome_is_unknown_and_asked_about_again(outcome, asked_only, reason):
    """M6: also when a question, and not the refund, was refused."""
    row, work = of_keeper("REQUESTED")
    answer(work, row, outcome, asked_only=asked_only)
    assert (row.state, row.next_try_at, work.cases) == ("UNKNOWN", SOON, [])
    (event,) = work.journal.events
    assert (event.kind, json.loads(event.body)["facts"]) == ("refund.unknown", {"reason": reason})


@pytest.mark.parametrize(
    ("sent_at", "is_told"),
    [(NOW - MINUTE, True), (NOW - MINUTE + SECOND, False), (NOW - DAY, True), (None, False)],
)
def test_a_refund_that_the_channels_state_forbids_comes_to_a_person_a_minute_after_it_was_first_sent(sent_at, is_told):
    """M3: somebody may have given the money back there; it goes on being asked about."""
    row, work = of_surplus("UNKNOWN", first_sent_at=sent_at)
    answer(work, row, Refused(RefusedKind.CONFLICT, "USED"))
    case = work.case()
    assert (row.state, row.next_try_at) == ("UNKNOWN", SOON)
    assert (case.state, case.note) == (
        ("OPEN", "po1s02rs1 gets nowhere (conflict: USED): look it up at the channel.")
        if is_told
        else ("REPAIRING", "")
    )


def test_a_throttled_refund_was_not_executed_and_is_sent_later():
    row, work = of_keeper("REQUESTED")
    answer(work, row, Refused(RefusedKind.THROTTLED, "429"))
    assert (row.state, row.next_try_at, work.kinds, work.cases) == ("REQUESTED", SOON, [], [])


@pytest.mark.parametrize("state", ["REJECTED", "DECLINED", "RETURNED", "AWAITING_APPROVAL"])
@pytest.mark.parametrize(
    "outcome", [Refused(RefusedKind.THROTTLED, "429"), Refused(RefusedKind.CONFLICT, "USED"), LOST]
)
def test_what_a_paused_process_heard_makes_nothing_due_that_nobody_tries_any_more(state, outcome):
    """S13: such a row would be due for ever."""
    row, work = of_keeper(state, next_try_at=None, first_sent_at=NOW - HOUR)
    answer(work, row, outcome, is_late=True)
    assert (row.state, row.next_try_at, work.cases) == (state, None, [])


@pytest.mark.parametrize(
    ("state", "may_repeat", "becomes"),
    [
        ("REQUESTED", False, "UNKNOWN"),
        ("SUBMITTED", True, "UNKNOWN"),
        ("SUBMITTED", False, "UNKNOWN"),
        ("ATTENTION", False, "ATTENTION"),
    ],
)
def test_a_number_that_the_channel_does_not_know_and_that_may_not_be_sent_again_is_asked_about_later(
    state, may_repeat, becomes
):
    """M6."""
    row, work = of_keeper(state)
    answer(work, row, Known(view("NOT_FOUND")), asked_only=True, may_repeat=may_repeat)
    assert (row.state, row.next_try_at) == (becomes, SOON)


@pytest.mark.parametrize("state", ["REQUESTED", "UNKNOWN"])
def test_a_number_that_the_channel_does_not_know_and_that_may_be_sent_again_stays_as_it_is(state):
    row, work = of_keeper(state)
    apply_view(work, row, view("NOT_FOUND"))
    assert (row.state, row.next_try_at, work.kinds) == (state, NOW - SECOND, [])


GIVE_UP, WAIT = 3 * DAY, 7 * DAY


@pytest.mark.parametrize(
    ("state", "age", "is_case"),
    [
        ("UNKNOWN", GIVE_UP, False),
        ("UNKNOWN", GIVE_UP + SECOND, True),
        ("SUBMITTED", GIVE_UP + SECOND, False),
        ("SUBMITTED", WAIT, False),
        ("SUBMITTED", WAIT + SECOND, True),
    ],
)
def test_what_gets_nowhere_for_days_goes_on_and_also_comes_to_a_person(state, age, is_case):
    """S13: what the channel accepted may take a week."""
    row, work = of_keeper(state, created_at=NOW - age, try_count=3, last_answer="IN_PROGRESS")
    refund_answer.try_later(work, row)
    assert row.next_try_at == NOW + 30 * SECOND
    assert [(case.kind, case.summary) for case in work.cases] == (
        [("refund_stuck", "po1s01rp1 gets nowhere (IN_PROGRESS): look it up at the channel.")] if is_case else []
    )


# Taken, and stopped.


def test_a_refund_that_the_channel_works_on_is_asked_about_later():
    row, work = of_keeper("UNKNOWN", open_call_count=1)
    answer(work, row, Known(view("IN_PROGRESS", channel_reference="rr")), asked_only=True)
    assert (row.state, row.channel_reference, row.next_try_at) == ("SUBMITTED", "rr", SOON)


def test_a_refund_that_needs_a_person_at_the_channel_is_asked_about_every_hour_and_told_once():
    """S13, M6: it keeps its reservation."""
    row, work = of_keeper("SUBMITTED")
    for _ in range(2):
        apply_view(work, row, view("ATTENTION", code="BANK"))
        assert (row.state, row.next_try_at) == ("ATTENTION", NOW + HOUR)
    assert (work.kinds, work.case().summary) == (
        ["refund.attention", "case.opened"], "po1s01rp1 needs a person at the channel (BANK).",
    )  # fmt: skip
    assert work.stream_of(row).refund_reserved_minor == 400


# A definite no.


@pytest.mark.parametrize("kind", [RefusedKind.DECLINED, RefusedKind.CONFIG])
def test_a_refused_refund_keeps_its_reservation_and_a_person_decides(kind):
    """M6, S13."""
    row, work = of_surplus("REQUESTED", open_call_count=1)
    answer(work, row, Refused(kind, "NOT_ENOUGH"))
    assert (row.state, row.open_call_count, row.next_try_at, row.is_released) == ("REJECTED", 0, None, False)
    case = work.case()
    assert (case.state, case.note) == ("OPEN", f"The channel refused po1s02rs1 ({kind.value}: NOT_ENOUGH).")
    answer(work, row, Refused(kind, "AGAIN"))
    assert (case.note, len(work.kinds)) == (f"The channel refused po1s02rs1 ({kind.value}: NOT_ENOUGH).", 2)


@pytest.mark.parametrize(("code", "recorded", "told"), [("BANK", "BANK", "BANK"), ("", "failed", "no code")])
def test_a_failed_refund_moved_nothing_under_any_call_and_a_person_decides(code, recorded, told):
    """M6."""
    row, work = of_surplus("UNKNOWN", open_call_count=2)
    answer(work, row, Known(view("FAILED", code=code)), asked_only=True)
    assert (row.state, row.open_call_count, row.next_try_at, row.is_released) == ("REJECTED", 0, None, False)
    event = next(event for event in work.journal.events if event.kind == "refund.rejected")
    assert json.loads(event.body)["facts"] == {"code": recorded}
    assert work.case().note == f"po1s02rs1 failed at the channel ({told}): retry it, or write it off."
    events = len(work.kinds)
    answer(work, row, Known(view("FAILED", code="AGAIN")), asked_only=True)
    assert len(work.kinds) == events


@pytest.mark.parametrize(
    ("state", "calls", "becomes", "next_try_at"),
    [("UNKNOWN", 0, "REJECTED", None), ("UNKNOWN", 1, "UNKNOWN", NOW), ("SUBMITTED", 0, "REJECTED", None)],
)
def test_a_failure_told_unasked_counts_only_where_no_later_call_is_open(state, calls, becomes, next_try_at):
    """M6: it may be an old message told again, from before a retry; then the channel is asked."""
    row, work = of_surplus(state, open_call_count=calls)
    apply_view(work, row, view("FAILED"))
    assert (row.state, row.next_try_at, row.open_call_count) == (becomes, next_try_at, calls)


def test_a_failure_that_a_paused_process_heard_is_no_fresh_answer():
    """M6, S2: its claim was taken over; what it heard may be older than the call of the next one."""
    row, work = of_surplus("UNKNOWN", open_call_count=1)
    answer(work, row, Known(view("FAILED")), asked_only=True, is_late=True)
    assert (row.state, row.next_try_at, row.open_call_count) == ("UNKNOWN", NOW, 1)


# Done.


def test_money_that_is_back_is_the_orders_and_its_refund_is_over():
    """M1: of the keeper's 1000, 400."""
    row, work = of_keeper("UNKNOWN", open_call_count=2)
    answer(work, row, Known(view("DONE", 400, "CNY", channel_reference="rr")))
    assert (row.state, row.open_call_count, row.next_try_at, row.finished_at) == ("SUCCEEDED", 0, None, NOW)
    assert (work.order.refunded_minor, work.order.state, work.cases) == (400, "PAID", [])


@pytest.mark.parametrize(("known_minor", "check_at"), [(0, None), (1, NOW), (399, NOW), (400, NOW), (401, NOW)])
def test_a_refund_that_is_done_beside_a_sum_that_the_channel_told_before_is_asked_about(known_minor, check_at):
    """M1: that sum may be what somebody else gave back, also where it equals this refund."""
    row, work = of_keeper("REQUESTED")
    (stream,) = work.streams
    stream.channel_refunded_minor = known_minor
    answer(work, row, Known(view("DONE", 400, "CNY")))
    assert (row.state, stream.next_check_at) == ("SUCCEEDED", check_at)


@pytest.mark.parametrize(
    ("asked_by", "approved_by", "decision", "who"),
    [("payonce", "", "automatic", "payonce"), ("payonce", "ann", "refund", "ann"), ("ann", "", "refund", "ann")],
)
def test_surplus_that_is_back_ends_its_case_by_whoever_decided(asked_by, approved_by, decision, who):
    """M3, S14: it was never the order's money."""
    row, work = of_surplus("REQUESTED", requested_by=asked_by, approved_by=approved_by)
    answer(work, row, Known(view("DONE")))
    case = work.case()
    assert (case.state, case.decision, case.decided_by, case.note) == (
        "RESOLVED", decision, who, "refunded under po1s02rs1",
    )  # fmt: skip
    assert (work.order.refunded_minor, row.state) == (0, "SUCCEEDED")


@pytest.mark.parametrize(
    ("said", "is_done"),
    [
        ((400, "CNY"), True), ((0, ""), True), ((400, ""), True), ((0, "CNY"), True), ((399, "CNY"), False), ((1, "CNY"), False),
        ((1000, ""), False), ((400, "EUR"), False), ((0, "EUR"), False),
    ],
)  # fmt: skip
def test_done_with_another_amount_or_currency_is_a_contradiction_and_no_success(said, is_done):
    """M1, S2: the reservation stays, a person looks, and it is asked about."""
    row, work = of_keeper("SUBMITTED", order={"currency": "CNY"})
    apply_view(work, row, view("DONE", *said))
    if is_done:
        assert (row.state, work.order.refunded_minor, work.cases) == ("SUCCEEDED", 400, [])
        return
    assert (row.state, row.next_try_at, work.order.refunded_minor) == ("UNKNOWN", SOON, 0)
    case = work.case()
    assert (case.kind, case.subject, case.amount_minor, case.refund) == ("contradiction", "po1s01rp1", 400, row)
    assert case.summary == f"Refund po1s01rp1: the channel reports {said[0]} {said[1]} for it."
    assert (case.stream, json.loads(case.evidence)) == (row.stream, {"answer": "DONE"})
    unknown = next(event for event in work.journal.events if event.kind == "refund.unknown")
    assert json.loads(unknown.body)["facts"] == {"reason": "another amount or currency"}


@pytest.mark.parametrize(
    ("state", "becomes"), [("IN_PROGRESS", "SUBMITTED"), ("ATTENTION", "ATTENTION"), ("FAILED", "REJECTED")]
)
def test_only_the_amount_of_what_is_done_is_compared(state, becomes):
    """Before that a channel may state the sum of all refunds, or nothing useful."""
    row, work = of_keeper("UNKNOWN")
    apply_view(work, row, view(state, 5, "EUR"))
    assert (row.state, [case.kind for case in work.cases if case.kind == "contradiction"]) == (becomes, [])


@pytest.mark.parametrize("state", ["DONE", "IN_PROGRESS", "NOT_FOUND", "ATTENTION"])
@pytest.mark.parametrize("amount", [0, 5])
def test_after_done_only_that_it_failed_or_came_back_is_news(state, amount):
    """S2: and a recheck that finds it done is over."""
    row, work = of_keeper("SUCCEEDED", order={"refunded_minor": 400})
    apply_view(work, row, view(state, amount), may_repeat=False, is_asked=True)
    assert (row.state, row.next_try_at, row.last_answer) == ("SUCCEEDED", None, state)
    assert (work.kinds, work.cases) == ([], [])


def test_a_refund_that_was_given_up_and_is_done_while_its_money_went_elsewhere_is_a_contradiction():
    """M2: the sum of all refunds would be more than the capture; a person sees it."""
    keeper = stream_in("SUCCEEDED", 1, refund_reserved_minor=700)
    row = refund_of(keeper, "REJECTED", amount_minor=400, is_released=True, open_call_count=1)
    work = work_of(keeper, refunds=[row])
    apply_view(work, row, view("DONE"))
    assert (row.state, row.open_call_count, keeper.refund_reserved_minor, work.order.refunded_minor) == (
        "REJECTED",
        0,
        700,
        0,
    )
    assert work.case().summary == (
        "Refund po1s01rp1: it was given up here and is done at the channel, and other refunds used the money."
    )


def test_done_that_is_told_after_returned_gives_the_order_nothing():
    """S2: the newer news stays."""
    row, work = of_keeper("RETURNED", is_released=True)
    apply_view(work, row, view("DONE"))
    assert (row.state, work.order.refunded_minor, work.cases, work.kinds) == ("RETURNED", 0, [], [])


@pytest.mark.parametrize(("is_asked", "next_try_at"), [(False, NOW), (True, None)])
def test_done_that_is_told_unasked_after_a_failure_is_asked_about_once_more(is_asked, next_try_at):
    """M1: it may be the older news, told late, of a refund that came back; then only the channel can tell."""
    row, work = of_keeper("REJECTED", is_released=True)
    apply_view(work, row, view("DONE"), is_asked=is_asked)
    assert (row.state, row.next_try_at, work.order.refunded_minor) == ("SUCCEEDED", next_try_at, 400)


def test_done_that_is_told_unasked_before_any_failure_is_believed():
    row, work = of_keeper("UNKNOWN")
    apply_view(work, row, view("DONE"))
    assert (row.state, row.next_try_at) == ("SUCCEEDED", None)


def test_a_refund_that_the_channel_contradicts_makes_it_be_asked_what_became_of_the_money():
    """M1: somebody may have given it back there."""
    row, work = of_keeper("UNKNOWN")
    answer(work, row, Refused(RefusedKind.CONFLICT, "REFUND_EXCEEDS"))
    assert row.stream.next_check_at == NOW


# Which cases a refund ends.


def ended(kind, *, part=1000, linked=False, subject="po1s02", about_keeper=False, others=()):
    """Whether a case of this kind is over once a refund of `part` of the surplus is back."""

    def made(extra):
        return [case_of(kind, extra, 1, subject=subject, refund_id=1 if linked else None)]

    row, work = of_surplus("REQUESTED", cases=made, amount_minor=part, others=others)
    if about_keeper:
        row.stream.role = "keeper"
    apply_view(work, row, view("DONE"))
    return work.case().state == "RESOLVED"


@pytest.mark.parametrize("kind", ["duplicate", "late_payment", "mismatch", "second_capture"])
@pytest.mark.parametrize("linked", [True, False])
def test_a_case_about_surplus_ends_when_all_of_it_is_back_whoever_asked(kind, linked):
    """M3, S13."""
    assert ended(kind, linked=linked)
    assert not ended(kind, linked=linked, part=999)


@pytest.mark.parametrize("kind", ["dispute", "outside_refund", "contradiction"])
def test_another_case_ends_with_the_money_only_when_this_refund_was_its_repair(kind):
    assert not ended(kind)
    assert ended(kind, linked=True)
    assert not ended(kind, linked=True, part=999)


def test_a_stuck_refunds_case_ends_with_that_refund_however_large_it_was():
    """S13."""
    assert ended("refund_stuck", linked=True, part=300)
    assert not ended("refund_stuck", linked=False, part=300)
    assert not ended("refund_stuck", linked=False, part=1000)


def test_a_case_whose_repair_gave_back_a_part_is_a_persons_again():
    """M3, S13: the rest would wait for ever; nobody else asks about it."""

    def made(extra):
        return [case_of("mismatch", extra, 1, refund_id=1, state="REPAIRING")]

    row, work = of_surplus("SUBMITTED", cases=made, amount_minor=400)
    apply_view(work, row, view("DONE"))
    case = work.case()
    assert (row.state, case.state, case.note) == (
        "SUCCEEDED",
        "OPEN",
        "po1s02rs1 gave back a part: decide about the rest.",
    )
    assert work.kinds == ["refund.succeeded", "case.handed_to_person"]


def test_a_case_that_another_refund_repairs_stays_with_that_one_when_a_part_is_back():
    """M3."""

    def made(extra):
        return [case_of("mismatch", extra, 1, refund_id=9, state="REPAIRING")]

    other = refund_of(surplus_in_memory(2), "SUBMITTED", 9, amount_minor=600)
    row, work = of_surplus("SUBMITTED", cases=made, amount_minor=400, others=[other])
    apply_view(work, row, view("DONE"))
    assert (work.case().state, work.kinds) == ("REPAIRING", ["refund.succeeded"])


def test_a_case_about_another_subject_or_about_the_keeper_does_not_end_with_surplus_money():
    assert not ended("mismatch", subject="po1s02/somebody-elses")
    assert not ended("duplicate", about_keeper=True, part=1000)


@pytest.mark.parametrize(
    ("state", "stream", "is_ended"), [("SUCCEEDED", 2, True), ("UNKNOWN", 2, False), ("SUCCEEDED", 3, False)]
)
def test_all_of_it_is_back_when_the_done_refunds_of_the_stream_sum_up_to_it(state, stream, is_ended):
    """M3: a second part of 400 beside these 600."""
    elsewhere = surplus_in_memory(stream)
    other = refund_of(elsewhere, state, 9, amount_minor=400, first_sent_at=NOW - HOUR)
    assert ended("duplicate", part=600, others=[other]) is is_ended


# Returned.


@pytest.mark.parametrize(("state", "is_asked"), [("RETURNED", False), ("RETURNED", True), ("FAILED", True)])
def test_money_that_came_back_is_the_orders_again_and_a_person_gives_it_another_way(state, is_asked):
    """M1, M2: reservation freed, the sum of what was given back less, and never silence."""
    row, work = of_keeper("SUCCEEDED", order={"refunded_minor": 400})
    apply_view(work, row, view(state), is_asked=is_asked)
    assert (row.state, row.is_released, row.stream.refund_reserved_minor) == ("RETURNED", True, 0)
    assert (work.order.refunded_minor, work.order.state) == (0, "PAID")
    case = work.case()
    assert (case.kind, case.state, case.refund, case.amount_minor) == ("refund_stuck", "OPEN", row, 400)
    assert case.summary == "po1s01rp1 came back from the buyer's bank: give the money back another way."


def test_a_returned_refund_that_was_being_asked_about_once_more_is_due_no_more():
    """S13: no sweep takes a returned one, so it would be overdue for ever."""
    row, work = of_keeper("SUCCEEDED", order={"refunded_minor": 400}, next_try_at=NOW + MINUTE)
    apply_view(work, row, view("RETURNED"), is_asked=True)
    assert (row.state, row.next_try_at) == ("RETURNED", None)


def test_surplus_money_that_came_back_is_not_the_orders():
    """M1."""
    row, work = of_surplus("SUCCEEDED", cases=lambda extra: [])
    apply_view(work, row, view("RETURNED"))
    assert (row.state, work.order.refunded_minor, work.order.state) == ("RETURNED", 0, "PAID")
    assert work.kinds == ["refund.returned", "case.opened"]


def test_a_failure_told_unasked_after_done_is_asked_about():
    """S2: an old message, or money that came back: only the channel can tell."""
    row, work = of_keeper("SUCCEEDED", order={"refunded_minor": 400}, next_try_at=None)
    apply_view(work, row, view("FAILED"))
    assert (row.state, row.next_try_at, work.order.refunded_minor, work.kinds) == ("SUCCEEDED", NOW, 400, [])


def test_returned_before_it_was_known_to_be_done_is_a_failure():
    """M6: the money surely is not with the buyer; whoever told it, and whatever call is open."""
    row, work = of_keeper("UNKNOWN", open_call_count=1)
    apply_view(work, row, view("RETURNED"))
    assert (row.state, row.open_call_count, work.case().kind, work.order.refunded_minor) == (
        "REJECTED",
        0,
        "refund_stuck",
        0,
    )


# People.


@pytest.mark.parametrize(
    ("approved_by", "by", "becomes"), [("", "bob", "bob"), ("", "ann", ""), ("carol", "bob", "carol")]
)
def test_what_a_person_saw_at_the_channel_counts_as_done_and_names_that_person(approved_by, by, becomes):
    """S15, M1: nobody approves what they asked for, and the first approval stays."""
    row, work = of_keeper("ATTENTION", approved_by=approved_by)
    assert succeed_by_person(work, row, by) is RefundMove.MOVED
    assert (row.state, row.approved_by, work.order.refunded_minor) == ("SUCCEEDED", becomes, 400)


def test_what_a_person_saw_after_a_failure_is_not_asked_about_again():
    """S15: the person's word is fresh."""
    row, work = of_keeper("REJECTED", is_released=True)
    assert succeed_by_person(work, row, "bob") is RefundMove.MOVED
    assert (row.state, row.next_try_at) == ("SUCCEEDED", None)


def test_what_a_person_saw_cannot_undo_that_it_came_back():
    row, work = of_keeper("RETURNED", is_released=True)
    assert succeed_by_person(work, row, "bob") is RefundMove.WAS_RETURNED


def test_the_cases_that_a_refund_was_repairing_are_handed_over_and_no_others():
    """S13."""
    row, work = of_surplus("REQUESTED")
    other = case_of("dispute", row.stream, 2, refund_id=77, state="REPAIRING")
    work.cases.append(other)
    refund_answer.hand_cases_over(work, row, "declined")
    assert [(case.state, case.note) for case in work.cases] == [("OPEN", "declined"), ("REPAIRING", "")]


def test_a_person_is_told_in_the_case_that_there_is_or_in_a_new_one():
    """S13: there is always one."""
    row, work = of_surplus("UNKNOWN")
    other = case_of("dispute", row.stream, 2, refund_id=77, state="REPAIRING")
    work.cases.append(other)
    refund_answer.to_person(work, row, "look")
    assert [(case.state, case.note) for case in work.cases] == [("OPEN", "look"), ("REPAIRING", "")]
    row, work = of_keeper("UNKNOWN", cases=[other])
    refund_answer.to_person(work, row, "look")
    case = work.cases[1]
    assert (case.kind, case.subject, case.summary, case.state) == ("refund_stuck", "po1s01rp1", "look", "OPEN")
    assert (case.refund, case.stream, case.amount_minor, other.state) == (row, row.stream, 400, "REPAIRING")


def test_the_times_that_people_rely_on():
    """DESIGN 5: how long a refund may take before a person hears of it."""
    assert (
        GIVE_UP.total_seconds(), WAIT.total_seconds(),
    ) == (schedule.REFUND_GIVE_UP_SECONDS, schedule.REFUND_WAIT_SECONDS)  # fmt: skip
