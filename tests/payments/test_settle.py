"""What each statement of a channel comes to, decision by decision: the stream, the case, the next question, what follows the commit."""

import json
from datetime import timedelta
from secrets import token_hex

import pytest

from payonce.orders.statuses import LateDecision
from payonce.payments import settle
from payonce.payments.settle import Evidence, Settled, apply_evidence, judge_late, moved_minor, plan_check
from payonce.payments.statuses import Confirmation
from tests.found.shops import JudgingShop
from tests.in_memory import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    case_of,
    refund_of,
    says,
    stream_in,
    surplus_in_memory,
    work_of,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("in_memory")
RUNG = NOW + 20 * MINUTE
"""The ladder's next rung after ten minutes is at thirty."""


def tell(work, stream, view, *, asked_at=NOW, account="", way=Confirmation.POLL):
    return apply_evidence(work, stream, Evidence(account or stream.account, view, way, asked_at))


def facts_of(work, kind):
    (event,) = [event for event in work.journal.events if event.kind == kind]
    return json.loads(event.body)["facts"]


# Who speaks, and of what.


@pytest.mark.parametrize(("account", "merchant"), [("scripted_b", "M-1"), ("scripted_a", "M-2")])
def test_money_under_our_number_at_somebody_elses_till_is_named_with_its_amount_and_moves_nothing(account, merchant):
    """X1, M1: truly signed, by other keys or for another merchant."""
    stream = stream_in("PENDING")
    work = work_of(stream)
    view = says(stream, "PAID", merchant=merchant, paid_minor=700, channel_reference="r" * 128)
    assert tell(work, stream, view, account=account) is Settled.WRONG_ACCOUNT
    assert (stream.state, stream.last_answer, stream.next_check_at) == ("PENDING", "", RUNG)
    case = work.case()
    assert (case.kind, case.amount_minor, case.stream, case.state) == ("mismatch", 700, stream, "OPEN")
    assert case.subject == "po1s01/" + "r" * 121, "it fits its column"
    assert json.loads(case.evidence) == {
        "account": account, "answer": "PAID", "channel_reference": "r" * 128, "currency": "CNY", "merchant": merchant,
    }  # fmt: skip
    assert not work.callbacks


def test_what_somebody_else_says_without_money_is_no_case():
    """X1."""
    stream = stream_in("PENDING")
    work = work_of(stream)
    assert tell(work, stream, says(stream, "CLOSED"), account="scripted_b") is Settled.WRONG_ACCOUNT
    assert (stream.state, stream.next_check_at, work.cases) == ("PENDING", RUNG, [])


@pytest.mark.parametrize("merchant", ["", "M-1"])
def test_our_own_merchant_named_or_not_is_ours(merchant):
    stream = stream_in("PENDING")
    assert tell(work_of(stream), stream, says(stream, "PAID", merchant=merchant)) is Settled.KEEPER


def adopted_beside(*others):
    """The keeper's origin and a second capture that was adopted under the same number."""
    first = stream_in("SUCCEEDED", 1)
    second = surplus_in_memory(2, "second_capture", origin_number=first.number)
    return first, second, work_of(first, second, *others)


def test_an_answer_about_an_adopted_capture_speaks_of_the_payment_that_its_reference_names():
    """M7: asked by number, the channel names the first capture; what it says about disputes is the keeper's."""
    first, second, work = adopted_beside()
    view = says(first, "PAID", disputed_minor=300)
    assert tell(work, second, view) is Settled.REPEAT
    assert (first.disputed_minor, second.disputed_minor, second.last_answer) == (300, 0, "")
    assert tell(work, second, says(second, "PAID", disputed_minor=200)) is Settled.REPEAT
    assert (first.disputed_minor, second.disputed_minor) == (300, 200)
    assert (first.last_answer, second.last_answer) == ("PAID", "PAID")


def test_an_answer_without_a_reference_about_an_adopted_capture_is_about_its_origin():
    """S2: it says nothing about the second capture."""
    first, second, work = adopted_beside()
    assert tell(work, second, says(first, "UNCLEAR")) is Settled.WAITING
    assert (first.last_answer, second.last_answer) == ("UNCLEAR", "")


def test_an_answer_about_an_adopted_capture_whose_origin_is_no_stream_of_the_order_is_its_own():
    """An orphan's money that a person gave to this order came under a number of no stream."""
    second = surplus_in_memory(2, "second_capture", origin_number="somebody-elses")
    assert tell(work_of(second), second, says(second, "UNCLEAR")) is Settled.WAITING
    assert second.last_answer == "UNCLEAR"


def test_an_answer_about_an_ordinary_stream_is_its_own_whatever_reference_it_names():
    stream = stream_in("PENDING", channel_reference=None)
    other = stream_in("CLOSED", 2)
    assert tell(work_of(stream, other), stream, says(stream, "PAID", channel_reference="r")) is Settled.KEEPER
    assert stream.channel_reference == "r"


# Old news.


@pytest.mark.parametrize("state", ["OPEN", "NOT_FOUND", "APPROVED", "IN_PROGRESS", "UNCLEAR"])
@pytest.mark.parametrize(("asked_at", "is_news"), [(NOW - MINUTE, True), (NOW - MINUTE - SECOND, False)])
def test_an_answer_is_old_when_it_was_asked_before_the_newest_answer_came(state, asked_at, is_news):
    """S2: and then the stream is only asked again by its ladder."""
    stream = stream_in("PENDING", last_answer="x", last_answer_at=NOW - MINUTE)
    work = work_of(stream)
    settled = tell(work, stream, says(stream, state), asked_at=asked_at)
    assert (settled is not Settled.NO_NEWS, stream.last_answer == state) == (is_news, is_news)
    assert stream.last_answer_at == (NOW if is_news else NOW - MINUTE)
    if not is_news:
        assert (stream.state, stream.next_check_at, work.journal.events) == ("PENDING", RUNG, [])


@pytest.mark.parametrize(("state", "settled"), [("PAID", Settled.KEEPER), ("CLOSED", Settled.CLOSED)])
def test_final_news_is_never_old(state, settled):
    """S2, S7: whenever it was asked, money is money, and a proof is a proof."""
    stream = stream_in("PENDING", last_answer_at=NOW)
    assert tell(work_of(stream), stream, says(stream, state), asked_at=NOW - HOUR) is settled


STIRS = {
    # (state, what comes unasked): when it is asked about
    ("CLOSED", "IN_PROGRESS"): NOW, ("CLOSED", "APPROVED"): NOW, ("CLOSED", "UNCLEAR"): NOW, ("CLOSED", "OPEN"): None,
    ("FAILED", "IN_PROGRESS"): NOW, ("FAILED", "APPROVED"): NOW, ("FAILED", "UNCLEAR"): NOW, ("FAILED", "NOT_FOUND"): None,
    ("SUCCEEDED", "IN_PROGRESS"): None, ("SUCCEEDED", "APPROVED"): NOW, ("SUCCEEDED", "UNCLEAR"): NOW,
    ("SUCCEEDED", "OPEN"): None,
}  # fmt: skip


@pytest.mark.parametrize(("state", "said"), STIRS)
def test_what_comes_unasked_about_an_ended_stream_changes_nothing_and_is_asked_about_where_it_stirs(state, said):
    """S2, X2: an old message told again, or the first sign of money: only a query can tell."""
    stream = stream_in(state, next_check_at=NOW + HOUR)
    work = work_of(stream)
    assert tell(work, stream, says(stream, said), asked_at=None) is Settled.NO_NEWS
    assert (stream.state, stream.next_check_at) == (state, STIRS[state, said])
    assert (work.journal.events, work.cases) == ([], [])


def test_an_old_answer_that_money_is_on_its_way_waits_for_the_ladder():
    """Only an ended stream that stirs is asked at once."""
    stream = stream_in("PENDING", last_answer_at=NOW)
    tell(work_of(stream), stream, says(stream, "IN_PROGRESS"), asked_at=NOW - MINUTE)
    assert stream.next_check_at == RUNG


@pytest.mark.parametrize("state", ["APPROVED", "UNCLEAR"])
@pytest.mark.parametrize(("asked_at", "check_at", "tasks"), [(None, NOW, ["payonce.poll"]), (NOW, RUNG, [])])
def test_unasked_news_that_only_a_query_completes_is_asked_about_at_once(state, asked_at, check_at, tasks, kicked):
    """L1: an approval waits for our capture; something unclear for its meaning."""
    stream = stream_in("PENDING")
    work = work_of(stream)
    tell(work, stream, says(stream, state), asked_at=asked_at)
    for callback in work.callbacks:
        callback()
    assert (stream.is_answer_unknown, kicked) == (state == "UNCLEAR", tasks)
    assert stream.next_check_at == (check_at if state == "APPROVED" or asked_at is None else NOW + 5 * MINUTE)


def test_an_answer_is_remembered_and_a_clear_one_ends_the_doubt():
    stream = stream_in("PENDING", is_answer_unknown=True)
    tell(work_of(stream), stream, says(stream, "OPEN"))
    assert (stream.last_answer, stream.last_answer_at, stream.is_answer_unknown) == ("OPEN", NOW, False)


# Streams that nobody asks about any more.


def given_up(**fields):
    """A stream whose ladder ended, with the case that says so, a case about another stream, and one of another kind."""
    stream, other = stream_in("CLOSING", 1, next_check_at=None, **fields), stream_in("CLOSING", 2)
    cases = [
        case_of("stream_unclear", stream, 1), case_of("inconsistent", stream, 2), case_of("contradiction", stream, 3),
        case_of("stream_unclear", other, 4),
    ]  # fmt: skip
    return stream, work_of(stream, other, cases=cases)


def test_the_answer_that_a_case_waited_for_ends_the_case():
    """S13: a person's queue holds only what still needs one."""
    stream, work = given_up()
    assert tell(work, stream, says(stream, "CLOSED")) is Settled.CLOSED
    assert [case.state for case in work.cases] == ["RESOLVED", "RESOLVED", "OPEN", "OPEN"]
    case = work.cases[0]
    assert (case.decision, case.decided_by, case.note) == ("automatic", "payonce", "answered: CLOSED")


@pytest.mark.parametrize(
    ("state", "fields"),
    [("CLOSING", {"payable_until": NOW - DAY, "created_at": NOW - 2 * DAY}), ("CLOSED", {"close_proof": "answer"})],
)
def test_the_answer_that_a_case_waited_for_ends_the_case_also_when_it_was_asked_for_again(state, fields):
    """S13: the channel stirred after the ladder's end, or after the stream's, and so the stream was due again."""
    stream = stream_in(state, next_check_at=NOW, **fields)
    work = work_of(stream, cases=[case_of("stream_unclear", stream)])
    assert tell(work, stream, says(stream, "PAID")) is Settled.KEEPER
    assert work.case().state == "RESOLVED"


def test_a_case_is_not_looked_for_where_the_ladder_still_asks():
    """L6: reading the cases costs a flight, and nearly every success needs none."""
    stream = stream_in("PENDING")
    work = work_of(stream)
    work._cases = None
    assert tell(work, stream, says(stream, "PAID")) is Settled.KEEPER
    assert work._cases is None


def test_an_answer_that_ends_nothing_ends_no_case():
    stream, work = given_up()
    assert tell(work, stream, says(stream, "OPEN")) is Settled.WAITING
    assert [case.state for case in work.cases] == ["OPEN"] * 4


def test_at_the_end_of_its_ladder_a_stream_without_an_answer_becomes_a_persons_case():
    """S13: never silence."""
    stream = stream_in("PENDING", last_answer="", payable_until=NOW - DAY, created_at=NOW - 2 * DAY)
    work = work_of(stream)
    plan_check(work, stream)
    case = work.case()
    assert (stream.next_check_at, case.kind, case.state, case.subject) == (None, "stream_unclear", "OPEN", "po1s01")
    assert (case.stream, case.amount_minor, json.loads(case.evidence)) == (stream, 1000, {"last_answer": ""})
    assert case.summary == "scripted_a gave no final answer about po1s01 (last: none)."


def test_a_stream_that_a_person_gave_up_becomes_no_second_case():
    """S13: the person's word stands."""
    stream = stream_in(
        "CLOSING", payable_until=NOW - DAY, created_at=NOW - 2 * DAY, close_reason="given up by a person"
    )
    work = work_of(stream)
    plan_check(work, stream)
    assert (stream.next_check_at, work.cases) == (None, [])


def test_a_watched_stream_is_asked_by_its_ladder_and_is_no_case():
    stream = stream_in("PENDING")
    work = work_of(stream)
    plan_check(work, stream)
    assert (stream.next_check_at, work.cases) == (RUNG, [])


@pytest.mark.parametrize(("proof", "check_at"), [("restraint", RUNG), ("answer", None), ("query", None)])
def test_a_stream_that_only_our_restraint_closed_is_watched_to_its_end(proof, check_at):
    """S4: the buyer was never given the way to pay; the channel may still think otherwise."""
    stream = stream_in("CLOSED", close_proof=proof)
    work = work_of(stream)
    plan_check(work, stream)
    assert (stream.next_check_at, work.cases) == (check_at, [])


def test_a_stream_that_only_our_restraint_closed_ends_without_a_case():
    """S13: at the end of its ladder nothing is unclear."""
    stream = stream_in("CLOSED", close_proof="restraint", payable_until=NOW - DAY, created_at=NOW - 2 * DAY)
    work = work_of(stream)
    plan_check(work, stream)
    assert (stream.next_check_at, work.cases) == (None, [])


@pytest.mark.parametrize("state", ["FAILED", "SUCCEEDED"])
def test_a_proof_of_closing_from_before_says_nothing_of_a_stream_that_ended_otherwise(state):
    """Money after a closing by restraint: nobody needs to ask any more."""
    stream = stream_in(state, close_proof="restraint", next_check_at=NOW)
    plan_check(work_of(stream), stream)
    assert stream.next_check_at is None


@pytest.mark.parametrize(
    ("nudged_at", "check_at"),
    [(NOW - DAY + SECOND, NOW + 10 * MINUTE), (NOW - DAY, None), (NOW - 2 * DAY, None), (None, None)],
)
def test_an_ended_stream_that_stirred_is_asked_about_for_a_day_and_then_told_to_a_person(nudged_at, check_at):
    """X2, S13."""
    stream = stream_in("CLOSED", nudged_at=nudged_at, last_answer="CLOSED")
    work = work_of(stream)
    settle.ask_again_about_ended(work, stream)
    assert stream.next_check_at == check_at
    if check_at is not None:
        assert not work.cases
        return
    case = work.case()
    assert (case.kind, case.stream, case.subject, case.state) == ("stream_unclear", stream, "po1s01", "OPEN")
    assert json.loads(case.evidence) == {"last_answer": "CLOSED"}


# Money.


def test_a_matching_success_settles_the_order():
    """M4, S1."""
    stream = stream_in("PENDING")
    work = work_of(stream)
    view = says(stream, "PAID", paid_at=NOW - 3 * SECOND)
    assert tell(work, stream, view, way=Confirmation.NOTIFICATION) is Settled.KEEPER
    assert (work.order.state, work.order.keeper, work.order.paid_at) == ("PAID", "po1s01", NOW - 3 * SECOND)
    assert (stream.state, stream.role, stream.confirmed_by, stream.next_check_at) == (
        "SUCCEEDED", "keeper", "notification", None,
    )  # fmt: skip
    assert (work.cases, work.refunds) == ([], [])


@pytest.mark.parametrize("paid_minor", [0, -1])
def test_a_success_without_an_amount_settles_nothing_and_is_a_contradiction(paid_minor):
    """S1: what was paid must be said."""
    stream = stream_in("PENDING")
    work = work_of(stream)
    assert tell(work, stream, says(stream, "PAID", paid_minor=paid_minor)) is Settled.CONTRADICTION
    assert (stream.state, work.order.state, work.case().kind) == ("PENDING", "OPEN", "contradiction")
    assert json.loads(work.case().evidence) == {"answer": "PAID", "channel_reference": "ref-1", "was": "PENDING"}


def test_the_smallest_amount_is_money():
    """M8: one minor unit settles an order of one."""
    stream = stream_in("PENDING", amount_minor=1)
    assert tell(work_of(stream, amount_minor=1), stream, says(stream, "PAID")) is Settled.KEEPER


@pytest.mark.parametrize(
    ("order", "stream", "paid"),
    [
        ({}, {}, {"paid_minor": 999}),
        ({}, {}, {"currency": "EUR"}),
        ({"amount_minor": 2000}, {}, {}),
        ({"amount_minor": 2000}, {}, {"paid_minor": 2000}),
        ({"currency": "EUR"}, {}, {}),
        ({"currency": "EUR"}, {}, {"currency": "EUR"}),
        ({}, {"amount_minor": 900}, {}),
    ],
)
def test_money_settles_only_what_its_stream_asked_for_and_its_order_costs(order, stream, paid):
    """S1, M9: the order was amended, or the channel took something else."""
    row = stream_in("PENDING", **stream)
    work = work_of(row, **order)
    view = says(row, "PAID", **paid)
    assert tell(work, row, view) is Settled.SURPLUS
    assert (work.order.state, row.role, row.surplus_reason) == ("OPEN", "surplus", "mismatched")
    is_same_currency = view.currency == row.currency
    assert [refund.amount_minor for refund in work.refunds] == ([view.paid_minor] if is_same_currency else [])
    case = work.case()
    assert (case.kind, case.amount_minor, case.state) == (
        "mismatch", view.paid_minor, "REPAIRING" if is_same_currency else "OPEN",
    )  # fmt: skip


def test_money_beside_the_keeper_is_a_duplicate_and_goes_back():
    """M3, M4."""
    keeper, stream = stream_in("SUCCEEDED", 1), stream_in("CLOSING", 2)
    work = work_of(keeper, stream)
    assert tell(work, stream, says(stream, "PAID")) is Settled.SURPLUS
    (refund,) = work.refunds
    assert (refund.stream, refund.amount_minor, refund.number, refund.reason) == (
        stream,
        1000,
        "po1s02rs1",
        "duplicate",
    )
    assert (work.order.keeper, work.case().kind, work.case().refund) == ("po1s01", "duplicate", refund)
    assert json.loads(work.case().evidence) == {
        "channel_reference": "ref-2", "expected_minor": 1000, "keeper": "po1s01",
    }  # fmt: skip


@pytest.mark.parametrize("told", [{"disputed_minor": 100}, {"reversed_minor": 100}, {"refunded_minor": 100}])
def test_money_that_left_before_it_was_known_to_have_come_is_named(told):
    """M1: the first success that we hear of says that a part is gone already."""
    stream = stream_in("PENDING")
    work = work_of(stream)
    assert tell(work, stream, says(stream, "PAID", **told)) is Settled.KEEPER
    assert work.case().amount_minor == 100


# Late money.


def late(state="CLOSED", **fields):
    stream = stream_in("CLOSED")
    known = {"state": state, "closed_at": NOW - 10 * MINUTE, "expires_at": NOW - 20 * MINUTE}
    return stream, work_of(stream, **{**known, **fields})


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("setting", "settled", "refunds", "case_state"),
    [
        ("REFUND", Settled.SURPLUS, 1, ["REPAIRING"]),
        ("ASK", Settled.SURPLUS, 0, ["OPEN"]),
        ("ACCEPT", Settled.KEEPER, 0, []),
    ],
)
def test_late_money_is_what_the_shop_says(setting, settled, refunds, case_state, settings):
    """M3."""
    settings.PAYONCE = {**settings.PAYONCE, "LATE_PAYMENT": setting}
    stream, work = late()
    assert tell(work, stream, says(stream, "PAID", paid_at=NOW - MINUTE)) is settled
    assert (len(work.refunds), [case.state for case in work.cases]) == (refunds, case_state)
    assert work.ran_hooks == ["late_payment"]
    assert stream.surplus_reason == ("late" if settled is Settled.SURPLUS else "")


@pytest.mark.django_db
def test_late_money_of_an_unknown_time_was_paid_now(settings):
    """The channel does not say when: then the order's end is past."""
    settings.PAYONCE = {**settings.PAYONCE, "SHOP": "tests.found.shops.JudgingShop"}
    JudgingShop.asked.clear()
    stream, work = late()
    tell(work, stream, says(stream, "PAID", paid_at=None))
    stream, work = late()
    tell(work, stream, says(stream, "PAID", paid_at=NOW - HOUR))
    assert JudgingShop.asked == [False, True]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("paid_at", "ends", "in_time"),
    [
        (NOW - 20 * MINUTE, {}, True),
        (NOW - 20 * MINUTE + SECOND, {}, False),
        (NOW - 15 * MINUTE, {"expires_at": None}, True),
        (NOW - 9 * MINUTE, {"expires_at": None}, False),
        (NOW - 9 * MINUTE, {"expires_at": NOW + HOUR}, False),
        (NOW, {"expires_at": None, "closed_at": None}, True),
    ],
)
def test_in_time_means_before_the_order_expired_and_before_it_was_closed(paid_at, ends, in_time, settings):
    """A shop that accepts late money in time must be told the truth about it."""
    settings.PAYONCE = {**settings.PAYONCE, "SHOP": "tests.found.shops.JudgingShop"}
    JudgingShop.asked.clear()
    work = late(**ends)[1]
    assert judge_late(work, paid_at) is LateDecision.ASK
    assert JudgingShop.asked == [in_time]


@pytest.mark.django_db
def test_a_shop_whose_judgement_raised_is_asked_once_and_a_person_decides(settings, caplog):
    """S7: and the log says what broke."""
    settings.PAYONCE = {**settings.PAYONCE, "SHOP": "tests.shops.RaisingShop"}
    assert judge_late(late()[1], NOW) is LateDecision.ASK
    assert [(record.name, record.levelname) for record in caplog.records] == [("payonce.settle", "ERROR")]


def test_a_shop_that_broke_the_transaction_is_not_asked_again(settings):
    """S7: the second try settles without it; the database is not even needed."""
    settings.PAYONCE = {**settings.PAYONCE, "LATE_PAYMENT": "ACCEPT"}
    stream, work = late()
    work.ran_hooks = None
    assert judge_late(work, NOW) is LateDecision.ASK
    assert tell(work, stream, says(stream, "PAID")) is Settled.SURPLUS
    assert (work.refunds, work.case().state) == ([], "OPEN")


def test_money_of_a_closing_order_is_in_time():
    """DESIGN 4: CLOSING refuses new payments while money still settles it; the shop is not asked."""
    stream, work = late("CLOSING")
    assert tell(work, stream, says(stream, "PAID")) is Settled.KEEPER


# The same money again.


def test_the_same_success_again_changes_nothing():
    """S2, X2."""
    stream = stream_in("SUCCEEDED")
    work = work_of(stream)
    for asked_at in (NOW, None):
        assert tell(work, stream, says(stream, "PAID"), asked_at=asked_at) is Settled.REPEAT
    assert (work.cases, work.journal.events, len(work.streams), work.callbacks) == ([], [], 1, [])


def test_a_reference_that_is_learnt_later_is_kept():
    """M7: a later success under another reference must be told apart from it."""
    stream = stream_in("SUCCEEDED", channel_reference=None)
    work = work_of(stream)
    assert tell(work, stream, says(stream, "PAID", channel_reference="first")) is Settled.REPEAT
    assert stream.channel_reference == "first"
    assert tell(work, stream, says(stream, "PAID", channel_reference="")) is Settled.REPEAT
    assert (stream.channel_reference, len(work.streams)) == ("first", 1)


def test_a_success_without_a_reference_beside_one_without_is_the_same():
    stream = stream_in("SUCCEEDED", channel_reference=None)
    work = work_of(stream)
    assert tell(work, stream, says(stream, "PAID", channel_reference="")) is Settled.REPEAT
    assert (stream.channel_reference, len(work.streams)) == (None, 1)


@pytest.mark.parametrize(
    ("told", "is_case"), [({"paid_minor": 900}, True), ({"currency": "EUR"}, True), ({"paid_minor": 0}, False)]
)
def test_another_amount_for_the_same_money_is_a_contradiction_for_a_person(told, is_case):
    """M1: what was recorded stays; a repeat that states no amount says nothing against it."""
    stream = stream_in("SUCCEEDED")
    work = work_of(stream)
    view = says(stream, "PAID", **told)
    assert tell(work, stream, view) is Settled.REPEAT
    assert (stream.captured_minor, stream.captured_currency) == (1000, "CNY")
    assert [(case.kind, case.subject, case.amount_minor, case.stream) for case in work.cases] == (
        [("contradiction", "po1s01", view.paid_minor, stream)] if is_case else []
    )
    if is_case:
        assert json.loads(work.case().evidence) == {"currency": view.currency, "was_minor": 1000}


def test_sums_that_come_unasked_only_grow_and_asked_for_may_shrink():
    """S2: an old message told again is older than what is known; an answer is not."""
    stream = stream_in("SUCCEEDED", disputed_minor=500)
    work = work_of(stream)
    tell(work, stream, says(stream, "PAID", disputed_minor=300), asked_at=None)
    assert (stream.disputed_minor, work.cases) == (500, [])
    tell(work, stream, says(stream, "PAID", disputed_minor=300), asked_at=NOW)
    assert (stream.disputed_minor, work.case().amount_minor) == (300, 300)


@pytest.mark.parametrize(
    ("told_minor", "asked_at", "check_at"),
    [
        (1, None, NOW),
        (100, None, NOW),
        (399, None, NOW),
        (401, None, NOW),
        (401, NOW, None),
        (100, NOW, None),
        (400, None, NOW),
        (400, NOW, None),
        (0, None, None),
    ],
)
def test_a_sum_of_refunds_that_comes_unasked_is_asked_about(told_minor, asked_at, check_at, kicked):
    """M1: it may be older than our refund, and hide all or a part of what somebody gave back at the channel, also where it equals ours."""
    stream = stream_in("SUCCEEDED")
    refund = refund_of(stream, "SUCCEEDED", amount_minor=400)
    work = work_of(stream, refunds=[refund])
    tell(work, stream, says(stream, "PAID", refunded_minor=told_minor), asked_at=asked_at)
    assert stream.next_check_at == check_at
    assert [case.amount_minor for case in work.cases] == ([1] if told_minor > 400 else [])


# A second capture.


def second(stream, **told):
    return says(stream, "PAID", **{"channel_reference": "second", **told})


@pytest.mark.parametrize("is_listed", [False, True])
def test_another_reference_under_the_same_number_is_surplus_of_its_own(is_listed):
    """M3, M7: told by itself, or listed beside the first."""
    stream = stream_in("SUCCEEDED", payer="p", client_type="app")
    work = work_of(stream)
    view = says(stream, "PAID", captures=(second(stream),)) if is_listed else second(stream)
    assert tell(work, stream, view) is (Settled.REPEAT if is_listed else Settled.SURPLUS)
    adopted = work.streams[1]
    assert (adopted.number, adopted.attempt, adopted.origin_number) == ("po1s02", 2, "po1s01")
    assert (adopted.account, adopted.method, adopted.client_type, adopted.payable_until, adopted.created_at) == (
        "scripted_a", "qr", "app", stream.payable_until, NOW,
    )  # fmt: skip
    assert (adopted.state, adopted.role, adopted.surplus_reason, adopted.channel_reference, adopted.confirmed_by) == (
        "SUCCEEDED", "surplus", "second_capture", "second", "poll",
    )  # fmt: skip
    assert (adopted.amount_minor, adopted.captured_minor, adopted.currency) == (1000, 1000, "CNY")
    (refund,) = work.refunds
    assert (refund.stream, refund.number, work.case().kind, work.case().state) == (
        adopted, "po1s02rs1", "second_capture", "REPAIRING",
    )  # fmt: skip
    assert tell(work, stream, view) is Settled.REPEAT
    assert (len(work.streams), len(work.refunds), len(work.cases)) == (2, 1, 1)


def test_a_listed_capture_that_took_nothing_is_no_money():
    stream = stream_in("SUCCEEDED")
    work = work_of(stream)
    tell(work, stream, says(stream, "PAID", captures=(says(stream, "OPEN", channel_reference="second"),)))
    assert len(work.streams) == 1


def test_an_adopted_capture_takes_the_next_number_of_its_order():
    """M7: no two streams share a number."""
    stream, other = stream_in("SUCCEEDED", 3), stream_in("CLOSED", 1)
    work = work_of(stream, other)
    tell(work, stream, second(stream))
    assert work.streams[2].number == "po1s04"


def test_a_second_capture_in_another_currency_is_for_a_person():
    """M3: what to give back must not be guessed."""
    stream = stream_in("SUCCEEDED")
    work = work_of(stream)
    assert tell(work, stream, second(stream, currency="EUR")) is Settled.SURPLUS
    assert (work.refunds, work.case().state, work.streams[1].captured_currency) == ([], "OPEN", "EUR")


@pytest.mark.parametrize("paid_minor", [0, -1])
@pytest.mark.parametrize("is_listed", [False, True])
def test_a_second_capture_without_an_amount_is_a_contradiction_for_a_person(paid_minor, is_listed):
    """S7, S13: nothing verified is dropped in silence."""
    stream = stream_in("SUCCEEDED")
    work = work_of(stream)
    view = second(stream, paid_minor=paid_minor)
    tell(work, stream, says(stream, "PAID", captures=(view,)) if is_listed else view)
    assert (len(work.streams), work.refunds, work.case().kind, work.case().state) == (1, [], "contradiction", "OPEN")
    assert "under second" in work.case().summary


def test_a_second_capture_of_one_minor_unit_is_money():
    stream = stream_in("SUCCEEDED")
    work = work_of(stream)
    assert tell(work, stream, second(stream, paid_minor=1)) is Settled.SURPLUS
    assert work.refunds[0].amount_minor == 1


def test_a_reference_of_the_same_text_at_another_account_is_another_payment():
    """M7: a reference is unique only within its channel account."""
    stream = stream_in("SUCCEEDED", 1)
    elsewhere = surplus_in_memory(2, account="scripted_b", channel_reference="second")
    work = work_of(stream, elsewhere)
    assert tell(work, stream, second(stream)) is Settled.SURPLUS
    assert len(work.streams) == 3


@pytest.mark.parametrize(("asked_at", "known"), [(NOW, 100), (None, 300)])
def test_what_the_channel_says_about_an_adopted_capture_is_kept_and_judged(asked_at, known):
    """M1, S2: a dispute of the second capture is that stream's, and an old message does not lower it."""
    stream = stream_in("SUCCEEDED", 1)
    adopted = surplus_in_memory(2, "second_capture", origin_number="po1s01", channel_reference="second")
    work = work_of(stream, adopted)
    tell(work, stream, second(stream, disputed_minor=300), asked_at=asked_at)
    assert (work.case().kind, work.case().stream, work.case().amount_minor) == ("dispute", adopted, 300)
    tell(work, stream, second(stream, disputed_minor=100), asked_at=asked_at)
    assert (adopted.disputed_minor, stream.disputed_minor) == (known, 0)


# Money that left without us.


REFUNDS = {
    # (state, was sent, unanswered calls): what it may have moved of its 400
    ("AWAITING_APPROVAL", False, 0): 0, ("REQUESTED", False, 0): 0, ("REQUESTED", True, 0): 0, ("REQUESTED", True, 1): 400,
    ("SUBMITTED", True, 0): 400, ("UNKNOWN", True, 1): 400, ("ATTENTION", True, 0): 400, ("SUCCEEDED", True, 0): 400,
    ("SUCCEEDED", False, 0): 400, ("RETURNED", True, 0): 400, ("DECLINED", False, 0): 0, ("REJECTED", True, 0): 0,
    ("REJECTED", True, 1): 400,
}  # fmt: skip


@pytest.mark.parametrize(("state", "is_sent", "calls"), REFUNDS)
def test_what_our_own_refund_may_have_moved(state, is_sent, calls):
    """M1, M2: a definite no moved nothing, a call without an answer may have moved all; the channel's word counts also unsent."""
    stream = stream_in("SUCCEEDED")
    sent_at = NOW - MINUTE if is_sent else None
    row = refund_of(stream, state, amount_minor=400, first_sent_at=sent_at, open_call_count=calls)
    other = refund_of(stream_in("SUCCEEDED", 2), "SUCCEEDED", 2, amount_minor=300, first_sent_at=NOW)
    work = work_of(stream, refunds=[row, other])
    assert moved_minor(work, stream) == REFUNDS[state, is_sent, calls]
    assert moved_minor(work, stream, but=row) == 0


@pytest.mark.parametrize(("told", "amount"), [(400, None), (401, 1), (1000, 600)])
def test_only_what_left_beyond_our_own_refunds_left_without_us(told, amount):
    """M1."""
    stream = stream_in("SUCCEEDED")
    row = refund_of(stream, "SUCCEEDED", amount_minor=400, first_sent_at=NOW - MINUTE)
    work = work_of(stream, refunds=[row])
    tell(work, stream, says(stream, "PAID", refunded_minor=told))
    assert [(case.kind, case.amount_minor, case.subject) for case in work.cases] == (
        [] if amount is None else [("outside_refund", amount, "po1s01")]
    )
    if amount:
        assert json.loads(work.case().evidence) == {"refunded_minor": told}
        assert f"gave {amount} (minor units)" in work.case().summary


def test_money_that_is_disputed_and_reversed_is_one_case_of_both():
    """M1."""
    stream = stream_in("SUCCEEDED")
    work = work_of(stream)
    tell(work, stream, says(stream, "PAID", disputed_minor=300, reversed_minor=200))
    case = work.case()
    assert (case.kind, case.amount_minor, case.stream, case.subject) == ("dispute", 500, stream, "po1s01")
    assert json.loads(case.evidence) == {"disputed_minor": 300, "reversed_minor": 200}
    assert facts_of(work, "stream.facts")["reversed_minor"] == 200


# Not paid.


@pytest.mark.parametrize(
    ("state", "settled"), [("PENDING", Settled.CLOSED), ("CLOSED", Settled.REPEAT), ("FAILED", Settled.REPEAT)]
)
def test_a_proof_of_closing_closes_once_by_the_proof_that_it_is(state, settled):
    """S4."""
    stream = stream_in(state, close_proof="" if state == "PENDING" else "before")
    work = work_of(stream)
    evidence = Evidence("scripted_a", says(stream, "CLOSED"), Confirmation.CLOSE, NOW, proof="answer")
    assert apply_evidence(work, stream, evidence) is settled
    assert stream.close_proof == ("answer" if state == "PENDING" else "before")


@pytest.mark.parametrize("state", ["CLOSED", "OPEN", "NOT_FOUND"])
def test_what_denies_confirmed_money_is_a_contradiction_with_its_amount(state):
    """S2, S5: money stays; a person judges."""
    stream = stream_in("SUCCEEDED")
    work = work_of(stream)
    assert tell(work, stream, says(stream, state)) is Settled.CONTRADICTION
    case = work.case()
    assert (stream.state, case.kind, case.amount_minor, case.subject, case.stream) == (
        "SUCCEEDED", "contradiction", 1000, "po1s01", stream,
    )  # fmt: skip
    assert json.loads(case.evidence) == {"answer": state, "channel_reference": "", "was": "SUCCEEDED"}


@pytest.mark.parametrize(
    ("proof", "said", "settled"),
    [
        ("answer", "OPEN", Settled.CONTRADICTION),
        ("query", "OPEN", Settled.CONTRADICTION),
        ("expiry", "OPEN", Settled.NO_NEWS),
        ("restraint", "OPEN", Settled.NO_NEWS),
        ("answer", "NOT_FOUND", Settled.NO_NEWS),
    ],
)
def test_only_a_channel_that_proved_it_closed_contradicts_itself_by_open(proof, said, settled):
    """S4: a number that it forgot, or that we never let the buyer use, is no contradiction."""
    stream = stream_in("CLOSED", close_proof=proof)
    work = work_of(stream)
    assert tell(work, stream, says(stream, said)) is settled
    assert (stream.state, len(work.cases)) == ("CLOSED", 1 if settled is Settled.CONTRADICTION else 0)


ENDED = NOW - 91 * SECOND  # its `payable_until`: the channel's minute, our half of one and a second ago


@pytest.mark.parametrize("said", ["OPEN", "NOT_FOUND"])
@pytest.mark.parametrize(
    ("asked_at", "settled"),
    [(NOW, Settled.CLOSED), (NOW - SECOND, Settled.WAITING), (None, Settled.WAITING)],
)
def test_time_proves_closing_only_by_a_question_that_was_asked_after_it(said, asked_at, settled):
    """S4: what came unasked may have been sent long ago."""
    stream = stream_in("PENDING", payable_until=ENDED)
    work = work_of(stream)
    assert tell(work, stream, says(stream, said), asked_at=asked_at) is settled
    assert (stream.state, stream.close_proof) == (
        ("CLOSED", "expiry") if settled is Settled.CLOSED else ("PENDING", "")
    )


@pytest.mark.parametrize(
    ("state", "replay_safe_until", "becomes"),
    [
        ("PROCESSING", None, "PROCESSING"),
        ("CAPTURING", None, "CAPTURING"),
        ("CAPTURING", NOW + SECOND, "CAPTURING"),
        ("CAPTURING", NOW, "CLOSED"),
        ("CREATED", NOW + HOUR, "CLOSED"),
    ],
)
def test_time_proves_nothing_while_money_may_be_on_its_way(state, replay_safe_until, becomes):
    """S16: a capture that was asked for may still come until its key cannot be repeated."""
    stream = stream_in(state, payable_until=ENDED, replay_safe_until=replay_safe_until)
    tell(work_of(stream), stream, says(stream, "NOT_FOUND"))
    assert stream.state == becomes


@pytest.mark.parametrize(
    ("state", "said", "order", "becomes"),
    [
        ("PROCESSING", "OPEN", "OPEN", "PENDING"),
        ("PROCESSING", "OPEN", "CLOSING", "CLOSING"),
        ("PROCESSING", "OPEN", "CLOSED", "CLOSING"),
        ("PROCESSING", "NOT_FOUND", "CLOSING", "PROCESSING"),
        ("PENDING", "OPEN", "CLOSING", "PENDING"),
        ("CAPTURING", "OPEN", "OPEN", "CAPTURING"),
    ],
)
def test_a_buyer_who_may_pay_again_does_so_only_while_the_order_is_open(state, said, order, becomes):
    """S3, S16."""
    stream = stream_in(state)
    work = work_of(stream, state=order)
    assert tell(work, stream, says(stream, said)) is Settled.WAITING
    assert stream.state == becomes
    is_moved_on = state == "PROCESSING" and becomes == "CLOSING"
    assert (stream.nudged_at, stream.close_reason) == ((NOW, "order moved on") if is_moved_on else (None, ""))


@pytest.mark.parametrize(
    ("state", "settled", "becomes"),
    [
        ("PENDING", Settled.PROCESSING, "PROCESSING"),
        ("SUCCEEDED", Settled.NO_NEWS, "SUCCEEDED"),
        ("CLOSED", Settled.CONTRADICTION, "CLOSED"),
        ("FAILED", Settled.CONTRADICTION, "FAILED"),
    ],
)
def test_money_on_its_way_blocks_an_open_stream_and_contradicts_an_ended_one(state, settled, becomes):
    """S16, S2."""
    stream = stream_in(state)
    work = work_of(stream)
    assert tell(work, stream, says(stream, "IN_PROGRESS")) is settled
    assert (stream.state, len(work.cases)) == (becomes, settled is Settled.CONTRADICTION)


@pytest.mark.parametrize(
    ("state", "settled"), [("PENDING", Settled.APPROVED), ("CLOSED", Settled.NO_NEWS), ("SUCCEEDED", Settled.NO_NEWS)]
)
def test_an_approval_is_news_only_for_a_stream_that_waits(state, settled):
    stream = stream_in(state)
    assert tell(work_of(stream), stream, says(stream, "APPROVED")) is settled


# After the commit.


def run_callbacks(work):
    for callback in work.callbacks:
        callback()


def test_after_a_settle_the_shop_is_told_and_closing_goes_on_at_once(kicked):
    """L2, S11: a nudge each; a sweep would find the same work."""
    stream, other = stream_in("PENDING", 1), stream_in("CLOSING", 2, is_watched=True)
    work = work_of(stream, other)
    tell(work, stream, says(stream, "PAID"))
    run_callbacks(work)
    assert kicked == ["payonce.publish", "payonce.close"]


def test_after_surplus_its_refund_goes_out_at_once(kicked):
    """L2."""
    keeper, stream = stream_in("SUCCEEDED", 1), stream_in("CLOSING", 2)
    work = work_of(keeper, stream)
    tell(work, stream, says(stream, "PAID"))
    run_callbacks(work)
    assert kicked == ["payonce.publish", "payonce.refund"]


def test_without_a_change_nothing_follows(kicked):
    stream = stream_in("CLOSING")
    work = work_of(stream)
    tell(work, stream, says(stream, "OPEN"))
    run_callbacks(work)
    assert (work.journal.events, kicked) == ([], [])


def test_after_a_settle_the_cached_way_to_pay_is_void_and_whoever_waits_is_woken(shouts):
    """S8, L1: by the version that the order came to."""
    stream = stream_in("PENDING")
    work = work_of(stream, number=f"po{token_hex(4)}")
    tell(work, stream, says(stream, "PAID"))
    run_callbacks(work)
    number = work.order.number
    assert (work.order.version, shouts(number)) == (2, [f"{number}:2"])
    assert shouts.client.get(f"payonce:order:{number}") == b"1::"


def test_the_times_of_asking_about_an_ended_stream():
    assert (timedelta(days=1), timedelta(minutes=10)) == (settle.ENDED_ASKED_FOR, settle.ENDED_ASKED_EVERY)
