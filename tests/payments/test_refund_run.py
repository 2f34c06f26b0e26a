"""Carrying a refund out, step by step: the claim, the policy, the look at the payment, the intent, the call and its record."""

import json
from datetime import timedelta
from secrets import token_hex

import pytest
from django.db import connection

from payonce.channels.messages import (
    Known,
    PaymentState,
    PaymentView,
    RefundRef,
    RefundState,
    RefundView,
    Refused,
    RefusedKind,
    Unknown,
)  # fmt: skip
from payonce.payments import refund_run
from payonce.payments.errors import RefundNotFound
from payonce.payments.models import Discrepancy, Refund, Stream
from payonce.payments.refs import payment_ref
from payonce.payments.refund_run import RefundRun, Ticket, run_refund
from tests.clock import standing_clock
from tests.in_memory import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    case_of,
    refund_of,
    store,
    stream_in,
    surplus_in_memory,
    work_of,
)  # fmt: skip

YEAR = timedelta(days=365)
DUE = {"next_try_at": NOW}


def due(state="REQUESTED", **fields):
    """A person's refund of the keeper that is due, and its work."""
    keeper = stream_in("SUCCEEDED")
    row = refund_of(keeper, state, **{**DUE, **fields})
    return row, work_of(keeper, refunds=[row])


def automatic(state="REQUESTED", stream=None, **fields):
    """The automatic refund of surplus money, and its work."""
    extra = surplus_in_memory(2, **(stream or {}))
    row = refund_of(extra, state, **{"purpose": "surplus", "requested_by": "payonce", **DUE, **fields})
    return row, work_of(stream_in("SUCCEEDED", 1), extra, refunds=[row])


def claim(row, work):
    return refund_run._claim(work, row.number)


@pytest.fixture
def rules(in_memory, settings):
    """Set the rules of refunds."""

    def put(**found):
        settings.PAYONCE = {**settings.PAYONCE, "REFUND": found}

    return put


# The claim.


@pytest.mark.usefixtures("in_memory")
def test_a_first_claim_takes_everything_that_the_calls_need():
    """S6, M6: and leases it, so that nobody else calls meanwhile."""
    row, work = automatic(amount_minor=400, channel_reference="rr", reason="late")
    ticket = claim(row, work)
    assert isinstance(ticket, Ticket)
    stream = work.stream_of(row)
    assert ticket == Ticket(
        number="po1s02rs1", lease=row.call_lease, account="scripted_a",
        ref=RefundRef(payment_ref(stream), "po1s02rs1", 400, "rr"), currency="CNY", captured_minor=1000, reason="late",
        notify_url=ticket.notify_url, asks_payment_first=True, asks_refund_first=False, may_repeat=True, is_retried=True, at=NOW,
    )  # fmt: skip
    assert ticket.notify_url.endswith("/notify/scripted_a/")
    assert (len(row.call_lease), row.call_lease_until) == (16, NOW + 15 * SECOND)
    assert (row.next_try_at, row.try_count, row.first_sent_at) == (NOW + 20 * SECOND, 1, None)
    assert (work.kinds, work.callbacks) == ([], [])


@pytest.mark.usefixtures("in_memory")
def test_each_claim_has_a_lease_of_its_own():
    """M6: whoever lost it must not pass for the next one."""
    assert claim(*due()).lease != claim(*due()).lease


@pytest.mark.usefixtures("in_memory")
def test_what_a_person_asked_for_does_not_ask_about_the_payment_first():
    assert claim(*due()).asks_payment_first is False


RUNS = {
    # state, was sent: asks about the refund first, may be sent again after it, a person retried it
    ("REQUESTED", False): (False, True, True), ("REQUESTED", True): (True, True, True), ("UNKNOWN", True): (True, True, False),
    ("SUBMITTED", True): (True, False, False), ("ATTENTION", True): (True, False, False), ("SUCCEEDED", True): (True, False, False),
}  # fmt: skip


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(("state", "is_sent"), RUNS)
def test_a_refund_that_was_sent_is_asked_about_and_only_an_open_one_may_be_sent_again(state, is_sent):
    """M6, S2: what the channel works on, or did, is never sent again."""
    ticket = claim(*due(state, first_sent_at=NOW - HOUR if is_sent else None))
    assert (ticket.asks_refund_first, ticket.may_repeat, ticket.is_retried) == RUNS[state, is_sent]


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(
    ("until", "may_repeat"), [(None, True), (NOW + SECOND, True), (NOW, False), (NOW - SECOND, False)]
)
def test_a_number_may_be_sent_again_only_inside_its_window(until, may_repeat):
    """M6: at its last moment the channel may take it as another refund already."""
    assert claim(*due("UNKNOWN", first_sent_at=NOW - HOUR, replay_safe_until=until)).may_repeat is may_repeat


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("state", ["AWAITING_APPROVAL", "REJECTED", "DECLINED", "RETURNED"])
def test_a_refund_that_a_person_must_decide_is_not_carried_out(state):
    """S15: and does not come up again by itself."""
    row, work = due(state, is_released=state in ("DECLINED", "RETURNED"))
    assert claim(row, work) is RefundRun.NOT_DUE
    assert (row.next_try_at, row.call_lease, row.try_count) == (None, "", 0)


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("state", ["REQUESTED", "SUBMITTED", "UNKNOWN", "ATTENTION", "SUCCEEDED"])
@pytest.mark.parametrize("next_try_at", [None, NOW + SECOND])
def test_a_refund_that_is_not_due_is_left_alone(state, next_try_at):
    row, work = due(state, next_try_at=next_try_at)
    assert claim(row, work) is RefundRun.NOT_DUE
    assert (row.next_try_at, row.call_lease, row.try_count) == (next_try_at, "", 0)


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(("until", "is_free"), [(NOW + SECOND, False), (NOW, True), (NOW - SECOND, True), (None, True)])
def test_a_refund_that_another_process_holds_waits_for_the_end_of_its_lease(until, is_free):
    """M6, L3."""
    row, work = due(call_lease="other", call_lease_until=until)
    answer = claim(row, work)
    if is_free:
        assert (row.call_lease, row.try_count) == (answer.lease, 1)
    else:
        assert (answer, row.call_lease, row.try_count, row.next_try_at) == (RefundRun.LATER, "other", 0, NOW)


def test_a_refund_that_the_policy_stops_is_parked_at_its_claim(rules):
    rules(AUTO=False)
    row, work = automatic()
    assert claim(row, work) is RefundRun.PARKED
    assert (row.call_lease, row.next_try_at, row.try_count) == ("", None, 0)


@pytest.mark.parametrize("found", [{"AUTO": False}, {"DRY_RUN": True}])
def test_a_refund_that_was_sent_is_asked_about_whatever_the_policy_says_now(found, rules):
    """M6, S13: an open outcome must be learnt; a question moves no money."""
    rules(**found)
    assert isinstance(claim(*automatic("UNKNOWN", first_sent_at=NOW - HOUR)), Ticket)


# The policy, and the channel.


def is_allowed(row, work):
    return refund_run._is_allowed(work, row, work.stream_of(row))


@pytest.mark.parametrize(
    ("found", "sent", "why"),
    [
        ({}, False, ""),
        ({"AUTO": False}, False, "automatic refunds are off"),
        ({"AUTO": False}, True, ""),
        ({"MAX_MINOR": 999}, False, "larger than the cap of one automatic refund"),
        ({"MAX_MINOR": 999}, True, ""),
        ({"DRY_RUN": True}, False, "dry run"),
        ({"DRY_RUN": True}, True, "dry run"),
        ({"AUTO": False, "DRY_RUN": True}, True, "dry run"),
    ],
)
def test_the_policy_stops_what_was_not_sent_and_a_dry_run_everything(found, sent, why, rules):
    """A repeat under the same number was allowed before."""
    rules(**found)
    row, work = automatic(first_sent_at=NOW - HOUR if sent else None)
    assert is_allowed(row, work) is (not why)
    assert row.last_answer == (f"parked: {why}" if why else "")


@pytest.mark.parametrize("sent", [None, NOW - HOUR])
def test_no_automatic_refund_of_a_keeper_is_sent_not_even_again(sent, rules):
    """M5: the surplus was accepted as the payment meanwhile."""
    rules()
    row, work = automatic(first_sent_at=sent)
    row.stream.role, row.stream.surplus_reason, work.order.keeper = "keeper", "", row.stream.number
    assert is_allowed(row, work) is False
    assert row.last_answer == "parked: keeper"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("spent", "daily", "allowed"),
    [(0, 1000, True), (0, 999, False), (500, 1500, True), (501, 1500, False), (0, None, True)],
)
def test_the_days_budget_of_the_account_bounds_automatic_refunds(spent, daily, allowed, rules):
    """M3: what was sent in the last day counts; the budget is looked at by one refund at a time."""
    rules(DAILY_MINOR=daily)
    other = surplus_in_memory(1)
    sent = refund_of(
        other, "SUCCEEDED", amount_minor=spent or 1, purpose="surplus", requested_by="payonce", first_sent_at=NOW - HOUR
    )
    if spent:
        store(work_of(other, refunds=[sent]))
    row, work = automatic()
    assert is_allowed(row, work) is allowed
    assert row.last_answer == ("" if allowed else "parked: the account's budget of this day is used up")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
        assert cursor.fetchone() == (1 if daily is not None and daily >= 1000 else 0,)


def test_a_repeat_and_a_refund_that_is_stopped_anyway_do_not_look_at_the_budget(rules):
    """L6: looking at it waits for others; here there is not even a database."""
    rules(DAILY_MINOR=1000)
    row, work = automatic(first_sent_at=NOW - HOUR)
    assert is_allowed(row, work) is True
    rules(DAILY_MINOR=10_000, AUTO=False)
    row, work = automatic()
    assert is_allowed(row, work) is False


@pytest.mark.parametrize("can", [{"refunds": False}, None])
@pytest.mark.parametrize("sent", [None, NOW - HOUR])
def test_where_the_channel_cannot_refund_a_person_gives_the_money_back(can, sent, in_memory):
    in_memory.overrides["scripted_a"] = can or {}
    row, work = due(first_sent_at=sent)
    row.stream.account = "no_longer_configured" if can is None else "scripted_a"
    assert is_allowed(row, work) is False
    assert row.last_answer == "parked: the channel cannot refund: give the money back there by hand"


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(
    ("times", "sent", "allowed"),
    [
        ({"paid_at": NOW - YEAR}, None, True),
        ({"paid_at": NOW - YEAR - SECOND}, None, False),
        ({"paid_at": NOW - YEAR - SECOND}, NOW - HOUR, True),
        ({"paid_at": NOW - YEAR - SECOND, "succeeded_at": NOW}, None, False),
        ({"paid_at": NOW, "succeeded_at": NOW - 2 * YEAR}, None, True),
        ({"paid_at": None, "succeeded_at": NOW - YEAR - SECOND}, None, False),
        ({"paid_at": None, "succeeded_at": None}, None, True),
    ],
)
def test_past_the_channels_window_nothing_is_sent_for_the_first_time(times, sent, allowed):
    row, work = due(first_sent_at=sent)
    vars(row.stream).update(times)
    assert is_allowed(row, work) is allowed
    why = "parked: the channel's refund window is over: give the money back by other means"
    assert row.last_answer == ("" if allowed else why)


@pytest.mark.usefixtures("in_memory")
def test_a_parked_refund_stays_as_it_is_and_a_persons_queue_says_why(kicked):
    """S13: nothing carries it on by itself."""
    row, work = automatic(call_lease="mine", call_lease_until=NOW + SECOND)
    work.cases.append(case_of("duplicate", row.stream, refund_id=1, state="REPAIRING"))
    work.cases[0].order = work.order
    refund_run.park(work, row, "w" * 200)
    assert (row.state, row.next_try_at, row.call_lease, row.call_lease_until) == ("REQUESTED", None, "", None)
    assert row.last_answer == "parked: " + "w" * 120
    case = work.case()
    assert (case.state, case.note) == ("OPEN", "po1s02rs1 was not sent: " + "w" * 200 + ".")
    for callback in work.callbacks:
        callback()
    assert kicked == ["payonce.publish", "payonce.refund"]


# The look at the payment.


def confirmed(stream: Stream, **facts) -> Known:
    """The channel says that this money was taken, and what became of it."""
    known = {"currency": "CNY", "paid_minor": 1000, "channel_reference": stream.channel_reference}
    return Known(PaymentView(stream.number, PaymentState.PAID, **{**known, **facts}))


def claimed(state="REQUESTED", *, seconds=1, **fields):
    """An automatic refund whose claim is held, its ticket, and its work `seconds` after the claim, with the case that it repairs."""
    row, work = automatic(state, **fields)
    work.cases.append(case_of("duplicate", row.stream, refund_id=1, state="REPAIRING"))
    work.cases[0].order = work.order
    ticket = claim(row, work)
    assert isinstance(ticket, Ticket)
    work.journal.at = NOW + seconds * SECOND
    return row, work, ticket


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("outcome", [Unknown("x" * 200), Refused(RefusedKind.CONFIG, "x" * 200)])
def test_without_a_word_about_the_payment_its_refund_waits(outcome):
    """M1: a dispute could be going on; nothing is sent, and it is tried again."""
    row, work, ticket = claimed()
    assert refund_run._payment_allows(work, ticket, outcome) is False
    text = f"payment not confirmed before the refund: {'unknown' if isinstance(outcome, Unknown) else 'config'}: "
    assert row.last_answer == text + "x" * (128 - len(text))
    assert (row.state, row.call_lease, row.call_lease_until, row.next_try_at) == (
        "REQUESTED",
        "",
        None,
        NOW + 6 * SECOND,
    )
    assert (work.case().state, work.kinds) == ("REPAIRING", [])


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(
    "facts",
    [{"disputed_minor": 1}, {"reversed_minor": 1}, {"disputed_minor": 5, "reversed_minor": 5}, {"refunded_minor": 1}],
)
def test_a_refund_of_money_that_left_without_us_is_parked(facts):
    """M1: and what the channel said is kept."""
    row, work, ticket = claimed()
    assert refund_run._payment_allows(work, ticket, confirmed(row.stream, **facts)) is False
    assert (row.state, row.next_try_at, row.call_lease) == ("REQUESTED", None, "")
    assert row.last_answer == "parked: the channel shows a dispute, a reversal or a refund that we did not make"
    assert {case.kind: case.state for case in work.cases}["duplicate"] == "OPEN"
    assert len(work.cases) == 2, "the money that left has a case of its own"
    assert row.stream.disputed_minor == facts.get("disputed_minor", 0)


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(("refunded", "allowed"), [(400, True), (401, False)])
def test_what_our_other_refunds_gave_back_does_not_stop_the_rest(refunded, allowed):
    """M3, M1."""
    row, work, ticket = claimed(amount_minor=600)
    work.refunds.append(refund_of(row.stream, "SUCCEEDED", 9, amount_minor=400, first_sent_at=NOW - HOUR))
    assert refund_run._payment_allows(work, ticket, confirmed(row.stream, refunded_minor=refunded)) is allowed
    assert (row.call_lease == ticket.lease) is allowed


@pytest.mark.usefixtures("in_memory")
def test_a_confirmed_payment_lets_its_refund_go_on():
    row, work, ticket = claimed()
    assert refund_run._payment_allows(work, ticket, confirmed(row.stream)) is True
    assert (row.call_lease, row.next_try_at, work.kinds) == (ticket.lease, NOW + 20 * SECOND, [])


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("facts", [None, {}, {"disputed_minor": 5}])
def test_a_process_whose_claim_was_taken_over_while_it_looked_changes_nothing(facts):
    """M6."""
    row, work, ticket = claimed()
    row.call_lease = "another"
    outcome = Unknown("time-out") if facts is None else confirmed(row.stream, **facts)
    assert refund_run._payment_allows(work, ticket, outcome) is False
    assert (row.call_lease, row.last_answer, row.next_try_at) == ("another", "", NOW + 20 * SECOND)
    assert (work.kinds, row.stream.disputed_minor) == ([], 0)


# The intent.


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(("window", "until"), [(60, NOW + MINUTE + SECOND), (None, None)])
def test_what_is_sent_is_written_down_first_and_its_window_begins(window, until, in_memory):
    """S6, M6: the window is the first call's; the lease begins anew."""
    in_memory.overrides["scripted_a"] = {"refund_replay_window_seconds": window}
    row, work, ticket = claimed()
    assert refund_run._intend(work, ticket) is True
    at = NOW + SECOND
    assert (row.first_sent_at, row.last_sent_at, row.open_call_count, row.replay_safe_until) == (at, at, 1, until)
    assert (row.call_lease, row.call_lease_until, row.next_try_at) == (ticket.lease, at + 15 * SECOND, at + 20 * SECOND)


@pytest.mark.usefixtures("in_memory")
def test_a_repeat_is_one_more_call_in_the_same_window():
    """M6."""
    row, work, ticket = claimed(
        "UNKNOWN", first_sent_at=NOW - HOUR, last_sent_at=NOW - HOUR, replay_safe_until=NOW + HOUR, open_call_count=1
    )
    assert refund_run._intend(work, ticket) is True
    assert (row.first_sent_at, row.replay_safe_until) == (NOW - HOUR, NOW + HOUR)
    assert (row.last_sent_at, row.open_call_count) == (NOW + SECOND, 2)


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(
    ("lease", "state"),
    [
        ("another", "REQUESTED"),
        ("another", "SUBMITTED"),
        ("", "SUBMITTED"),
        ("", "REJECTED"),
        ("", "ATTENTION"),
        ("", "SUCCEEDED"),
        ("", "AWAITING_APPROVAL"),
    ],
)
def test_a_refund_that_changed_while_its_worker_looked_is_not_sent(lease, state):
    """M6, S15: what was decided before is decided again under the lock; a paused worker must not send."""
    row, work, ticket = claimed()
    row.call_lease, row.state = lease or row.call_lease, state
    assert refund_run._intend(work, ticket) is False
    assert (row.first_sent_at, row.last_sent_at, row.open_call_count) == (None, None, 0)


def test_a_rule_that_changed_while_its_worker_looked_stops_the_refund(rules):
    """M3: parked for a person."""
    row, work, ticket = claimed()
    rules(AUTO=False)
    assert refund_run._intend(work, ticket) is False
    assert (row.next_try_at, row.first_sent_at, work.case().state) == (None, None, "OPEN")


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(("seconds", "is_sent"), [(9, True), (10, False), (11, False)])
def test_a_repeat_whose_window_ended_while_its_worker_looked_is_asked_about_instead(seconds, is_sent):
    """M6: its lease ends, and the next one asks."""
    row, work, ticket = claimed(
        seconds=seconds, first_sent_at=NOW - HOUR, replay_safe_until=NOW + 10 * SECOND, open_call_count=1
    )
    assert refund_run._intend(work, ticket) is is_sent
    assert row.open_call_count == (2 if is_sent else 1)
    if is_sent:
        return
    assert (row.state, row.call_lease, row.call_lease_until, row.last_sent_at) == ("UNKNOWN", "", None, None)
    assert row.next_try_at == work.at + 5 * SECOND
    (event,) = work.journal.events
    assert json.loads(event.body)["facts"] == {"reason": "its replay window ended"}


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(("age", "calls"), [(None, 2), (DAY - 2 * SECOND, 2), (DAY - SECOND, 1), (2 * DAY, 1)])
def test_a_number_that_is_unknown_a_day_after_it_was_sent_moved_nothing_then(age, calls):
    """M6: the call that follows is the only one that may still move money."""
    sent_at = NOW - age if age else None
    row, work, ticket = claimed("UNKNOWN", first_sent_at=NOW - 3 * DAY, last_sent_at=sent_at, open_call_count=1)
    assert refund_run._intend(work, ticket) is True
    assert (row.open_call_count, row.first_sent_at, row.last_sent_at) == (calls, NOW - 3 * DAY, NOW + SECOND)


# The record.


def record(work, ticket, outcome, *, asked_only=False):
    return refund_run._record(work, ticket, outcome, asked_only=asked_only)


def told(state):
    return Known(RefundView("n", RefundState(state)))


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(
    ("answer", "run", "calls"),
    [
        (told("DONE"), RefundRun.DONE, 0),
        (told("IN_PROGRESS"), RefundRun.SUBMITTED, 0),
        (told("ATTENTION"), RefundRun.ATTENTION, 0),
        (told("FAILED"), RefundRun.REJECTED, 0),
        (Unknown("time-out"), RefundRun.UNKNOWN, 1),
        (Refused(RefusedKind.CONFLICT, "x"), RefundRun.UNKNOWN, 0),
        (Refused(RefusedKind.DECLINED, "x"), RefundRun.REJECTED, 0),
        (Refused(RefusedKind.CONFIG, "x"), RefundRun.REJECTED, 0),
        (Refused(RefusedKind.THROTTLED, "x"), RefundRun.LATER, 0),
        (told("NOT_FOUND"), RefundRun.LATER, 0),
    ],
)
def test_a_run_says_what_its_call_came_to_and_ends_its_lease(answer, run, calls, kicked):
    """M6: and the next step starts at once where something changed."""
    row, work, ticket = claimed()
    assert refund_run._intend(work, ticket) is True
    assert record(work, ticket, answer) is run
    assert (row.call_lease, row.call_lease_until, row.open_call_count) == ("", None, calls)
    for callback in work.callbacks:
        callback()
    assert kicked == ([] if run is RefundRun.LATER else ["payonce.publish", "payonce.refund"])


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(
    ("answer", "run"),
    [
        (Refused(RefusedKind.DECLINED, "no rights"), RefundRun.UNKNOWN),
        (Refused(RefusedKind.THROTTLED, "429"), RefundRun.LATER),
        (Unknown("time-out"), RefundRun.UNKNOWN),
        (told("NOT_FOUND"), RefundRun.UNKNOWN),
    ],
)
def test_a_question_without_an_answer_says_nothing_about_the_refund(answer, run):
    """M6: the count of open calls stays, and so does the reservation; what was accepted and is not found is not sent again."""
    row, work, ticket = claimed("SUBMITTED", first_sent_at=NOW - HOUR, open_call_count=1)
    assert record(work, ticket, answer, asked_only=True) is run
    assert (row.state, row.open_call_count, row.is_released) == ("UNKNOWN", 1, False)


@pytest.mark.usefixtures("in_memory")
def test_an_answer_that_comes_after_the_lease_is_recorded_and_ends_nobody_elses_call():
    """M6: done is done; the other process finds that when it comes to send."""
    row, work, ticket = claimed()
    row.call_lease, row.call_lease_until = "another", NOW + MINUTE
    assert record(work, ticket, told("DONE")) is RefundRun.DONE
    assert (row.state, row.call_lease, row.call_lease_until) == ("SUCCEEDED", "another", NOW + MINUTE)


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(("is_late", "run"), [(True, RefundRun.UNKNOWN), (False, RefundRun.REJECTED)])
def test_a_failure_that_was_heard_before_the_claim_was_lost_is_asked_about(is_late, run):
    """S2, M6: another call may be open."""
    row, work, ticket = claimed("UNKNOWN", first_sent_at=NOW - HOUR, open_call_count=1)
    if is_late:
        row.call_lease = "another"
    assert record(work, ticket, told("FAILED"), asked_only=True) is run
    assert row.open_call_count == (1 if is_late else 0)


# The whole run. These commit: no call is made inside a transaction.


@pytest.fixture
def clock(scripted):
    """The database's clock stands at `NOW`, so that every time is exact on a machine of any speed."""
    with standing_clock(NOW) as moved:
        yield moved


@pytest.fixture
def asked(scripted, clock):
    """The channel that is asked; it knows nothing yet."""
    return scripted


def stored(asked, state="REQUESTED", **fields) -> Refund:
    """An automatic refund that is due, in the database; the channel confirms its payment."""
    row, work = automatic(state, **fields)
    store(work)
    row.refresh_from_db()
    asked.answers["scripted_a", "query"] += [confirmed(row.stream)] * 3
    return row


def names(asked):
    return [name for name, *_ in asked.calls]


def test_what_is_asked_of_the_channel_is_exactly_what_was_decided(asked):
    """M6, M8, S6: and that it is sent is committed before."""
    row = stored(asked, amount_minor=400, reason="late")
    seen = []
    asked.before["refund"] = lambda request: seen.append((request, Refund.objects.get()))
    assert run_refund(row.number) is RefundRun.DONE
    ((request, sent),) = seen
    assert (request.refund_number, request.amount_minor, request.currency, request.captured_minor) == (
        row.number, 400, "CNY", 1000,
    )  # fmt: skip
    assert (request.reason, request.payment.number, request.payment.channel_reference) == ("late", "po1s02", "ref-2")
    assert request.notify_url.endswith("/notify/scripted_a/")
    assert (sent.first_sent_at, sent.open_call_count, names(asked)) == (NOW, 1, ["query", "refund"])


def test_a_refund_that_a_person_asked_for_is_sent_without_a_look_at_the_payment(asked):
    """The person has looked: a dispute may be the very reason."""
    row = stored(asked, purpose="operator", requested_by="ann")
    assert run_refund(row.number) is RefundRun.DONE
    assert names(asked) == ["refund"]


def test_a_payment_that_is_not_confirmed_stops_the_run(asked):
    """M1."""
    row = stored(asked)
    asked.answers["scripted_a", "query"].insert(0, Unknown("time-out"))
    assert run_refund(row.number) is RefundRun.PARKED
    assert names(asked) == ["query"]


@pytest.mark.parametrize(
    ("state", "answer", "run", "asks"),
    [
        ("UNKNOWN", "NOT_FOUND", RefundRun.DONE, ["query_refund", "query", "refund"]),
        ("UNKNOWN", "DONE", RefundRun.DONE, ["query_refund"]),
        ("UNKNOWN", "FAILED", RefundRun.REJECTED, ["query_refund"]),
        ("REQUESTED", "FAILED", RefundRun.DONE, ["query_refund", "query", "refund"]),
        ("SUBMITTED", "NOT_FOUND", RefundRun.UNKNOWN, ["query_refund"]),
    ],
)
def test_a_refund_that_was_sent_is_asked_about_before_anything_else(asked, state, answer, run, asks):
    """M6: repeated only where the channel knows nothing of it, or said no and a person retried it."""
    row = stored(asked, state, first_sent_at=NOW - HOUR, open_call_count=1)
    asked.answers["scripted_a", "query_refund"].append(told(answer))
    assert run_refund(row.number) is run
    assert names(asked) == asks


def test_a_question_that_is_refused_leaves_the_open_call_open(asked):
    """M6."""
    row = stored(asked, "SUBMITTED", first_sent_at=NOW - HOUR, open_call_count=1)
    asked.answers["scripted_a", "query_refund"].append(Refused(RefusedKind.DECLINED, "no rights"))
    assert run_refund(row.number) is RefundRun.UNKNOWN
    row.refresh_from_db()
    assert row.open_call_count == 1


@pytest.mark.parametrize("answer", [Refused(RefusedKind.DECLINED, "no"), told("IN_PROGRESS")])
def test_an_answer_to_the_call_ends_the_call(asked, answer):
    """M6."""
    row = stored(asked)
    asked.answers["scripted_a", "refund"].append(answer)
    run_refund(row.number)
    row.refresh_from_db()
    assert (row.open_call_count, row.state) == (0, "REJECTED" if isinstance(answer, Refused) else "SUBMITTED")


def test_a_worker_that_lost_its_claim_while_it_looked_does_not_send(asked):
    """M6: the next one is at it."""
    row = stored(asked, purpose="operator", requested_by="ann", state="UNKNOWN", first_sent_at=NOW - HOUR)
    asked.before["query_refund"] = lambda ref: Refund.objects.update(call_lease="another")
    assert run_refund(row.number) is RefundRun.LATER
    assert names(asked) == ["query_refund"]


def test_a_refund_that_is_not_due_asks_nobody(asked):
    row = stored(asked, next_try_at=NOW + SECOND)
    assert run_refund(row.number) is RefundRun.NOT_DUE
    assert names(asked) == []


@pytest.mark.django_db
def test_a_refund_that_breaks_its_worker_is_told_to_a_person_and_tried_later(in_memory):
    """S13, L3: it must not come up again at once, nor be silent."""
    row, work = automatic(call_lease="mine", call_lease_until=NOW + DAY, try_count=3)
    store(work)
    with standing_clock(NOW):
        refund_run.tell_person(row.number)
    row.refresh_from_db()
    assert (row.call_lease, row.call_lease_until, row.try_count) == ("", None, 4)
    assert row.next_try_at == NOW + 30 * SECOND
    case = Discrepancy.objects.get()
    assert (case.kind, case.state, case.summary) == (
        "refund_stuck", "OPEN", f"{row.number} cannot be carried out: see the log.",
    )  # fmt: skip


def test_a_refund_that_does_not_exist_is_an_error_of_the_caller(db):
    with pytest.raises(RefundNotFound, match="There is no refund nowhere"):
        run_refund("nowhere")


# What follows the commit.


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(("answer", "tasks"), [("DONE", ["payonce.publish", "payonce.refund"]), ("IN_PROGRESS", [])])
def test_only_a_change_is_followed_up(answer, tasks, kicked):
    """L2, S11."""
    _, work, ticket = claimed("SUBMITTED", first_sent_at=NOW - HOUR)
    record(work, ticket, told(answer), asked_only=True)
    for callback in work.callbacks:
        callback()
    assert kicked == tasks


@pytest.mark.usefixtures("in_memory")
def test_whoever_waits_for_the_order_is_woken_and_the_cached_result_is_void(shouts):
    """S8, S12."""
    _, work, ticket = claimed("SUBMITTED", first_sent_at=NOW - HOUR)
    order = work.order
    order.number = f"po{token_hex(4)}"
    record(work, ticket, told("DONE"), asked_only=True)
    for callback in work.callbacks:
        callback()
    assert shouts(order.number) == [f"{order.number}:{order.version}"]
    assert shouts.client.get(f"payonce:order:{order.number}") == f"{order.version - 1}::".encode()


def test_how_long_a_missing_number_may_still_be_on_its_way():
    """A request that was sent a day ago is not on its way any more."""
    assert refund_run.ABSENCE_PROVES == DAY
