"""Carrying a refund out, step by step: the claim, the policy, the look at the payment, the intent, the call and its record."""

import json
from datetime import timedelta

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
from payonce.orders.models import Event, Order
from payonce.payments import refund_run
from payonce.payments.errors import RefundNotFound
from payonce.payments.models import Discrepancy, Refund, Stream
from payonce.payments.refs import payment_ref
from payonce.payments.refund_run import RefundRun, Ticket, run_refund
from tests.clock import movable_clock
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


def test_a_refund_that_was_sent_is_asked_about_whatever_the_policy_says_now(rules):
    """M6, S13: an open outcome must be learnt."""
    rules(AUTO=False)
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


# The whole run, with what happens while the channel is asked. These commit: no call is made inside a transaction.


@pytest.fixture
def clock(scripted):
    """The database's clock stands at `NOW`, so that every time is exact on a machine of any speed."""
    with movable_clock(standing_at=NOW) as moved:
        yield moved


@pytest.fixture
def asked(scripted, clock):
    """The channel that is asked; it knows nothing yet."""
    return scripted


def stored(asked, *, cases=True, **fields) -> Refund:
    """An automatic refund that is due, in the database; the channel confirms its payment."""
    row, work = automatic(stream=fields.pop("stream", None), **fields)
    if cases:
        work.cases.append(case_of("duplicate", row.stream, refund=row, state="REPAIRING"))
        work.cases[0].order = work.order
    store(work)
    row.refresh_from_db()
    asked.answers["scripted_a", "query"] += [Known(confirmed(row.stream))] * 3
    return row


def confirmed(stream: Stream, **facts) -> PaymentView:
    known = {"currency": "CNY", "paid_minor": 1000, "channel_reference": stream.channel_reference}
    return PaymentView(stream.number, PaymentState.PAID, **{**known, **facts})


def once(asked, operation, **fields):
    """While the channel is asked, the refund's row changes so."""

    def run(_):
        asked.before.pop(operation)
        Refund.objects.update(**fields)

    asked.before[operation] = run


def test_what_is_asked_of_the_channel_is_exactly_what_was_decided(asked):
    """M6, M8: and the intent is committed before."""
    row = stored(asked, amount_minor=400, reason="late")
    seen = []

    def look(request):
        seen.append((request, Refund.objects.get()))

    asked.before["refund"] = look
    assert run_refund(row.number) is RefundRun.DONE
    (request, sent) = seen[0]
    assert (request.refund_number, request.amount_minor, request.currency, request.captured_minor) == (
        row.number, 400, "CNY", 1000,
    )  # fmt: skip
    assert (request.reason, request.payment.number, request.payment.channel_reference) == ("late", "po1s02", "ref-2")
    assert request.notify_url.endswith("/notify/scripted_a/")
    assert (sent.first_sent_at, sent.last_sent_at, sent.open_call_count) == (NOW, NOW, 1)
    assert (sent.call_lease_until, sent.next_try_at, sent.replay_safe_until) == (
        NOW + 15 * SECOND,
        NOW + 20 * SECOND,
        None,
    )
    assert [name for name, *_ in asked.calls] == ["query", "refund"]
    row.refresh_from_db()
    assert (row.call_lease, row.call_lease_until, row.open_call_count, row.try_count) == ("", None, 0, 1)


@pytest.mark.parametrize("window", [60, None])
def test_the_window_of_a_number_begins_with_its_first_call(asked, window):
    """M6."""
    asked.overrides["scripted_a"] = {"refund_replay_window_seconds": window}
    row = stored(asked)
    asked.answers["scripted_a", "refund"].append(Unknown("time-out"))
    assert run_refund(row.number) is RefundRun.UNKNOWN
    row.refresh_from_db()
    assert row.replay_safe_until == (NOW + MINUTE if window else None)


@pytest.mark.parametrize(
    ("answer", "run"),
    [
        (Known(RefundView("n", RefundState.DONE)), RefundRun.DONE),
        (Known(RefundView("n", RefundState.IN_PROGRESS)), RefundRun.SUBMITTED),
        (Known(RefundView("n", RefundState.ATTENTION)), RefundRun.ATTENTION),
        (Known(RefundView("n", RefundState.FAILED)), RefundRun.REJECTED),
        (Unknown("time-out"), RefundRun.UNKNOWN),
        (Refused(RefusedKind.CONFLICT, "x"), RefundRun.UNKNOWN),
        (Refused(RefusedKind.DECLINED, "x"), RefundRun.REJECTED),
        (Refused(RefusedKind.CONFIG, "x"), RefundRun.REJECTED),
        (Refused(RefusedKind.THROTTLED, "x"), RefundRun.LATER),
        (Known(RefundView("n", RefundState.NOT_FOUND)), RefundRun.LATER),
    ],
)
def test_a_run_says_what_it_came_to(asked, answer, run):
    row = stored(asked)
    asked.answers["scripted_a", "refund"].append(answer)
    assert run_refund(row.number) is run


def test_after_a_run_its_follow_ups_start_at_once(asked, kicked, settings):
    """L2, S11."""
    settings.PAYONCE = {**settings.PAYONCE, "REDIS_URL": ""}
    row = stored(asked)
    assert run_refund(row.number) is RefundRun.DONE
    assert kicked == ["payonce.publish", "payonce.refund"]


def test_whoever_waits_for_the_order_is_woken_and_the_cached_result_is_void(asked, redis_client):
    """S8, S12."""
    row = stored(asked)
    listener = redis_client.pubsub()
    listener.subscribe("payonce:orders")
    assert listener.get_message(timeout=30)["type"] == "subscribe"
    assert run_refund(row.number) is RefundRun.DONE
    version = Order.objects.get().version
    assert listener.get_message(timeout=30)["data"] == f"po1:{version}".encode()
    listener.close()
    assert redis_client.get("payonce:order:po1") == f"{version - 1}::".encode()


def test_a_run_that_changes_nothing_starts_nothing(asked, kicked, settings):
    settings.PAYONCE = {**settings.PAYONCE, "REDIS_URL": ""}
    row = stored(asked, state="SUBMITTED", first_sent_at=NOW - HOUR)
    asked.answers["scripted_a", "query_refund"].append(Known(RefundView("n", RefundState.IN_PROGRESS)))
    assert run_refund(row.number) is RefundRun.SUBMITTED
    assert (Event.objects.count(), kicked) == (0, [])


# The look at the payment.


def test_without_a_word_about_the_payment_its_refund_waits(asked):
    """M1: a dispute could be going on; nothing is sent, and it is tried again."""
    row = stored(asked)
    asked.answers["scripted_a", "query"].insert(0, Unknown("x" * 200))
    assert run_refund(row.number) is RefundRun.PARKED
    row.refresh_from_db()
    text = "payment not confirmed before the refund: unknown: "
    assert row.last_answer == text + "x" * (128 - len(text))
    assert (row.state, row.call_lease, row.call_lease_until, row.first_sent_at) == ("REQUESTED", "", None, None)
    assert row.next_try_at == NOW + 5 * SECOND
    assert (asked.count("refund"), Discrepancy.objects.get().state) == (0, "REPAIRING")


@pytest.mark.parametrize(
    "facts",
    [{"disputed_minor": 1}, {"reversed_minor": 1}, {"disputed_minor": 5, "reversed_minor": 5}, {"refunded_minor": 1}],
)
def test_a_refund_of_money_that_left_without_us_is_parked(asked, facts):
    """M1."""
    row = stored(asked)
    asked.answers["scripted_a", "query"].insert(0, Known(confirmed(row.stream, **facts)))
    assert run_refund(row.number) is RefundRun.PARKED
    row.refresh_from_db()
    assert (row.state, row.next_try_at, asked.count("refund")) == ("REQUESTED", None, 0)
    assert row.last_answer == "parked: the channel shows a dispute, a reversal or a refund that we did not make"
    assert Discrepancy.objects.get(kind="duplicate").state == "OPEN"
    assert Stream.objects.get(pk=row.stream_id).disputed_minor == facts.get("disputed_minor", 0)


def test_what_our_other_refunds_gave_back_does_not_stop_the_rest(asked):
    """M3."""
    extra = surplus_in_memory(2)
    part = refund_of(extra, "SUCCEEDED", 1, amount_minor=400, first_sent_at=NOW - HOUR)
    rest = refund_of(extra, "REQUESTED", 2, amount_minor=600, purpose="surplus", requested_by="payonce", **DUE)
    store(work_of(stream_in("SUCCEEDED", 1), extra, refunds=[part, rest]))
    asked.answers["scripted_a", "query"].append(Known(confirmed(extra, refunded_minor=400)))
    assert run_refund(rest.number) is RefundRun.DONE


def test_a_process_whose_claim_was_taken_over_while_it_looked_changes_nothing(asked):
    """M6."""
    row = stored(asked)
    asked.answers["scripted_a", "query"].insert(0, Unknown("time-out"))
    once(asked, "query", call_lease="another")
    assert run_refund(row.number) is RefundRun.PARKED
    row.refresh_from_db()
    assert (row.call_lease, row.last_answer, asked.count("refund")) == ("another", "", 0)


# The intent.


@pytest.mark.parametrize(
    "change",
    [
        {"call_lease": "another"},
        {"state": "SUBMITTED"},
        {"state": "REJECTED"},
        {"state": "AWAITING_APPROVAL"},
        {"call_lease": "another", "state": "SUBMITTED"},
    ],
)
def test_a_refund_that_changed_while_its_worker_looked_is_not_sent(asked, change):
    """M6, S15: what was decided before is decided again under the lock; a paused worker must not send."""
    row = stored(asked, first_sent_at=NOW - HOUR, state="UNKNOWN")
    once(asked, "query", **change)
    run_refund(row.number)
    row.refresh_from_db()
    assert (asked.count("refund"), row.last_sent_at, row.open_call_count) == (0, None, 0)


def test_a_rule_that_changed_while_its_worker_looked_stops_the_refund(asked, settings):
    """M3: parked for a person."""
    row = stored(asked)

    def off(_):
        asked.before.pop("query")
        settings.PAYONCE = {**settings.PAYONCE, "REFUND": {"AUTO": False}}

    asked.before["query"] = off
    assert run_refund(row.number) is RefundRun.LATER
    row.refresh_from_db()
    assert (row.next_try_at, row.first_sent_at, asked.count("refund")) == (None, None, 0)


def test_a_repeat_whose_window_ended_while_its_worker_looked_is_asked_about_instead(asked, clock):
    """M6: its lease ends, and the next one asks."""
    row = stored(
        asked, state="REQUESTED", first_sent_at=NOW - HOUR, replay_safe_until=NOW + 10 * SECOND, open_call_count=1
    )

    def slow(_):
        asked.before.pop("query")
        clock.advance(10)

    asked.before["query"] = slow
    assert run_refund(row.number) is RefundRun.LATER
    row.refresh_from_db()
    assert (row.state, row.call_lease, row.call_lease_until, row.open_call_count) == ("UNKNOWN", "", None, 1)
    assert (asked.count("refund"), row.last_sent_at) == (0, None)
    event = Event.objects.get(kind="refund.unknown")
    assert json.loads(event.body)["facts"] == {"reason": "its replay window ended"}


@pytest.mark.parametrize(("age", "calls"), [(None, 2), (DAY - SECOND, 2), (DAY, 1)])
def test_a_number_that_is_unknown_a_day_after_it_was_sent_moved_nothing_then(asked, age, calls):
    """M6: the call that follows is the only one that may still move money."""
    sent_at = NOW - age if age else None
    row = stored(asked, state="UNKNOWN", first_sent_at=NOW - 2 * DAY, last_sent_at=sent_at, open_call_count=1)
    asked.answers["scripted_a", "refund"].append(Unknown("time-out"))
    assert run_refund(row.number) is RefundRun.UNKNOWN
    row.refresh_from_db()
    assert row.open_call_count == calls
    assert (row.first_sent_at, row.last_sent_at) == (NOW - 2 * DAY, NOW)


# The record.


def test_an_answer_that_comes_after_the_lease_is_recorded_and_ends_nobody_elses_call(asked):
    """M6: done is done; the other process finds that when it comes to send."""
    row = stored(asked)
    once(asked, "refund", call_lease="another", call_lease_until=NOW + DAY)
    assert run_refund(row.number) is RefundRun.DONE
    row.refresh_from_db()
    assert (row.state, row.call_lease) == ("SUCCEEDED", "another")


def test_a_failure_that_comes_after_the_lease_is_asked_about(asked):
    """S2, M6: another call may be open."""
    row = stored(asked, state="UNKNOWN", first_sent_at=NOW - HOUR, open_call_count=1)
    asked.answers["scripted_a", "query_refund"].append(Known(RefundView("n", RefundState.FAILED)))
    once(asked, "query_refund", call_lease="another")
    assert run_refund(row.number) is RefundRun.UNKNOWN
    row.refresh_from_db()
    assert (row.state, row.open_call_count) == ("UNKNOWN", 1)


def test_a_question_that_is_refused_says_nothing_about_the_refund(asked):
    """M6: the count of open calls stays, and so does its reservation."""
    row = stored(asked, state="SUBMITTED", first_sent_at=NOW - HOUR, open_call_count=1)
    asked.answers["scripted_a", "query_refund"].append(Refused(RefusedKind.DECLINED, "no rights"))
    assert run_refund(row.number) is RefundRun.UNKNOWN
    row.refresh_from_db()
    assert (row.open_call_count, asked.count("refund")) == (1, 0)


def test_a_question_that_is_throttled_is_asked_later(asked):
    row = stored(asked, state="UNKNOWN", first_sent_at=NOW - HOUR)
    asked.answers["scripted_a", "query_refund"].append(Refused(RefusedKind.THROTTLED, "429"))
    assert run_refund(row.number) is RefundRun.LATER


def test_a_refund_that_breaks_its_worker_is_told_to_a_person_and_tried_later(asked, clock):
    """S13, L3: it must not come up again at once, nor be silent."""
    row = stored(asked, call_lease="mine", call_lease_until=NOW + DAY, try_count=3)
    refund_run.tell_person(row.number)
    row.refresh_from_db()
    assert (row.call_lease, row.call_lease_until, row.try_count) == ("", None, 4)
    assert row.next_try_at == NOW + 30 * SECOND
    case = Discrepancy.objects.get()
    assert (case.state, case.note) == ("OPEN", f"{row.number} cannot be carried out: see the log.")


def test_a_refund_that_does_not_exist_is_an_error_of_the_caller(db):
    with pytest.raises(RefundNotFound, match="There is no refund nowhere"):
        run_refund("nowhere")


def test_how_long_a_missing_number_may_still_be_on_its_way():
    """A request that was sent a day ago is not on its way any more."""
    assert refund_run.ABSENCE_PROVES == DAY
