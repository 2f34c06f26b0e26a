"""Statements: each day of each account is fetched once, and what it and our rows do not agree about comes to a person.

Nothing moves on the word of a statement alone: the channel is asked first.
"""

import io
import json
import re
from datetime import UTC, date, datetime, timedelta
from unittest import mock

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from payonce.channels import registry
from payonce.channels.messages import (
    Known,
    PaymentState,
    PaymentView,
    RefundState,
    RefundView,
    Refused,
    RefusedKind,
    StatementLine,
    Unknown,
)
from payonce.orders.conf import get_settings
from payonce.orders.locks import read_clock
from payonce.payments import poll, statement_check, statements, sweep
from payonce.payments.models import Discrepancy, Refund, StatementDay, Stream
from payonce.payments.models import StatementLine as Row
from payonce.payments.pay import pay_order
from payonce.payments.refund import request_refund, run_refund, write_off_refund
from payonce.payments.surplus import decide_case
from tests.clock import movable_clock
from tests.factories import apply, open_order, paid_stream, pending_stream, view_of
from tests.scripted import paid_view

ACCOUNT = "scripted_a"
DAY = timedelta(days=1)


@pytest.fixture
def channel(scripted, clock):
    """At noon: what a day is must not depend on when the test runs."""
    scripted.overrides[ACCOUNT] = {"statement": True}
    clock.advance((timedelta(hours=12) - timedelta(hours=read_clock().hour, minutes=read_clock().minute)) % DAY)
    return scripted


def ordered():
    return open_order(expires_at=read_clock() + timedelta(hours=1))


def settled():
    """Paid now, by the database's clock."""
    stream = paid_stream(ordered())
    Stream.objects.filter(pk=stream.pk).update(paid_at=read_clock())
    stream.refresh_from_db()
    return stream


def given_back(stream):
    asked = request_refund(stream.number, 300, reason="duplicate", by="ann")
    assert asked.code == "requested", asked
    return Refund.objects.get(number=asked.number)


def lists(channel, *lines, day=None):
    """The channel's answer for the next day that is asked for, or for one day."""
    channel.answers[ACCOUNT, "statement"].append(Known(tuple(lines)))


def payment(stream, **changes):
    facts = {
        "kind": "payment", "number": stream.channel_number, "channel_reference": stream.channel_reference or f"ref-{stream.number}",
        "amount_minor": stream.amount_minor, "currency": stream.currency, "at": stream.paid_at or read_clock(),
    }  # fmt: skip
    return StatementLine(**{**facts, **changes})


def refunded(refund, stream, **changes):
    facts = {
        "kind": "refund", "number": refund.number, "channel_reference": "rr", "amount_minor": refund.amount_minor,
        "currency": refund.currency, "at": read_clock(), "payment_number": stream.channel_number,
    }  # fmt: skip
    return StatementLine(**{**facts, **changes})


def answers(channel, stream, **facts):
    """What the channel says when it is asked next."""
    channel.answers[ACCOUNT, "query"].append(
        lambda ref: Known(paid_view(ref, reference=stream.channel_reference, **facts))
    )


def look(clock):
    """The day goes by, and the statements of all days that are over are looked at."""
    clock.advance(DAY)
    sweep.sweep_statement()
    return StatementDay.objects.get(day=StatementDay.objects.order_by("-day").first().day, account=ACCOUNT)


def test_each_day_that_is_over_is_fetched_once_for_each_account_that_has_statements(channel, clock):
    assert sweep.sweep_statement() == 1
    assert sweep.sweep_statement() == 0
    clock.advance(3 * DAY)
    assert sweep.sweep_statement() == 3
    asked = [day for name, _who, day in channel.calls if name == "statement"]
    assert asked == [asked[0] + timedelta(days=index) for index in range(4)]
    yesterday = (read_clock() - statements.READY_AFTER).date()
    assert asked[-1] == yesterday
    assert {row.account for row in StatementDay.objects.all()} == {ACCOUNT}
    assert not StatementDay.objects.filter(compared_at=None).exists()


def test_a_day_is_not_asked_for_before_it_is_surely_over(channel, clock):
    at = read_clock()
    sweep.sweep_statement()
    ended = datetime.combine(StatementDay.objects.get().day + DAY, datetime.min.time(), UTC)
    assert at - ended >= timedelta(hours=4)


def test_lines_that_agree_open_no_case_and_ask_nothing(channel, clock):
    stream = settled()
    refund = given_back(stream)
    run_refund(refund.number)
    channel.calls.clear()
    lists(channel, payment(stream), refunded(Refund.objects.get(), stream))
    row = look(clock)
    assert (row.line_count, row.difference_count, row.foreign_count) == (2, 0, 0)
    assert not Discrepancy.objects.exists()
    assert channel.count("query") == 0


def test_what_is_not_ready_is_asked_for_again(channel, clock):
    channel.answers[ACCOUNT, "statement"] += [Refused(RefusedKind.THROTTLED, "NO_BILL", "later"), Unknown("timeout")]
    for _ in range(3):
        sweep.sweep_statement()
        clock.advance(statements.TRY_SECONDS)
    row = StatementDay.objects.get()
    assert (row.try_count, row.compared_at is None) == (3, False)
    assert not Discrepancy.objects.exists()


def test_a_day_that_cannot_be_had_comes_to_a_person_and_is_still_asked_for(channel, clock):
    channel.answers[ACCOUNT, "statement"] += [Unknown("timeout")] * 2
    sweep.sweep_statement()
    day = StatementDay.objects.get().day
    clock.advance(3 * DAY)
    sweep.sweep_statement()
    case = Discrepancy.objects.get()
    assert (case.kind, case.account, case.subject, case.state) == ("statement", ACCOUNT, statements.LATE, "OPEN")
    assert day.isoformat() in case.summary
    assert "timeout" in case.summary
    clock.advance(statements.TRY_SELDOM_SECONDS)
    sweep.sweep_statement()
    case.refresh_from_db()
    assert (case.state, case.decision, case.decided_by) == ("RESOLVED", "automatic", "payonce")


def test_money_that_every_message_lost_is_learnt_from_the_channel_that_the_statement_makes_us_ask(channel, clock):
    """L1's last net: no notification, and the ladder had ended."""
    stream = pending_stream(ordered())
    Stream.objects.update(next_check_at=None)
    lists(channel, payment(stream))
    channel.answers[ACCOUNT, "query"].append(lambda ref: Known(paid_view(ref)))
    row = look(clock)
    stream.refresh_from_db()
    assert (stream.state, stream.role, stream.confirmed_by) == ("SUCCEEDED", "keeper", "statement")
    assert (row.difference_count, row.compared_at is None) == (1, False)
    assert not Discrepancy.objects.filter(kind="statement").exists()


def test_a_line_that_the_channel_itself_does_not_confirm_comes_to_a_person_and_moves_nothing(channel, clock):
    stream = pending_stream(ordered())
    lists(channel, payment(stream))
    look(clock)
    stream.refresh_from_db()
    case = Discrepancy.objects.get(kind="statement")
    assert stream.state != "SUCCEEDED"
    assert (case.subject, case.amount_minor, case.state) == (stream.number, stream.amount_minor, "OPEN")


def test_without_an_answer_to_the_question_the_day_is_compared_again(channel, clock):
    """Unknown is not failed, and no case either."""
    stream = pending_stream(ordered())
    lists(channel, payment(stream))
    channel.answers[ACCOUNT, "query"] += [Unknown("timeout"), lambda ref: Known(paid_view(ref))]
    row = look(clock)
    assert (row.fetched_at is None, row.compared_at) == (False, None)
    assert not Discrepancy.objects.exists()
    clock.advance(statements.TRY_SECONDS)
    sweep.sweep_statement()
    assert channel.count("statement") == 1  # its lines are kept
    stream.refresh_from_db()
    assert stream.state == "SUCCEEDED"


def test_another_amount_comes_to_a_person(channel, clock):
    stream = settled()
    lists(channel, payment(stream, amount_minor=stream.amount_minor + 1))
    channel.answers[ACCOUNT, "query"].append(lambda ref: Known(paid_view(ref, reference=stream.channel_reference)))
    look(clock)
    case = Discrepancy.objects.get()
    assert (case.kind, case.subject, case.amount_minor) == ("statement", stream.number, stream.amount_minor + 1)


def test_a_second_capture_that_only_the_statement_tells_becomes_surplus_that_a_person_decides_about(channel, clock):
    """M1, M3: and never by itself, since a statement's words are nobody's order to pay out."""
    stream = settled()
    lists(channel, payment(stream), payment(stream, channel_reference="second"))
    channel.answers[ACCOUNT, "query"].append(lambda ref: Known(paid_view(ref, reference=stream.channel_reference)))
    look(clock)
    adopted = Stream.objects.exclude(pk=stream.pk).get()
    case = Discrepancy.objects.get()
    assert (adopted.role, adopted.surplus_reason, adopted.channel_reference) == ("surplus", "second_capture", "second")
    assert (adopted.confirmed_by, adopted.origin_number) == ("statement", stream.number)
    assert (case.kind, case.state, case.amount_minor) == ("second_capture", "OPEN", stream.amount_minor)
    assert not Refund.objects.exists()
    decide_case(case.pk, "refund", "ann", "")
    sweep.sweep_refund()
    case.refresh_from_db()
    assert (case.state, Refund.objects.get().state) == ("RESOLVED", "SUCCEEDED")


def test_a_second_capture_that_the_channel_tells_when_asked_is_given_back_as_ever(channel, clock):
    stream = settled()
    second = PaymentView(
        stream.number, PaymentState.PAID, stream.currency, stream.amount_minor, channel_reference="second"
    )
    channel.answers[ACCOUNT, "query"].append(
        lambda ref: Known(paid_view(ref, reference=stream.channel_reference, captures=(second,)))
    )
    lists(channel, payment(stream), payment(stream, channel_reference="second"))
    look(clock)
    assert Refund.objects.get().requested_by == "payonce"
    assert Discrepancy.objects.get().state == "REPAIRING"


@pytest.mark.parametrize("second_is_known", [True, False])
def test_lines_without_a_comparable_reference_are_counted(second_is_known, channel, clock):
    """PayPal lists captures where a query names the order."""
    stream = settled()
    at = read_clock()
    second = PaymentView(
        stream.number, PaymentState.PAID, stream.currency, stream.amount_minor, channel_reference="second"
    )
    captures = (second,) if second_is_known else ()
    channel.answers[ACCOUNT, "query"].append(
        lambda ref: Known(paid_view(ref, reference=stream.channel_reference, captures=captures))
    )
    one, two = (payment(stream, channel_reference="", at=moment) for moment in (at, at + timedelta(seconds=5)))
    lists(channel, one, two)
    look(clock)
    assert sorted(Discrepancy.objects.values_list("kind", flat=True)) == (
        ["second_capture"] if second_is_known else ["statement"]
    )


def test_one_line_without_a_reference_agrees(channel, clock):
    stream = settled()
    lists(channel, payment(stream, channel_reference=""))
    assert look(clock).difference_count == 0


def test_money_under_a_number_of_ours_that_is_no_stream_is_an_orphan_once(channel, clock):
    number = get_settings().NUMBER_PREFIX + "nobody"
    line = StatementLine("payment", number, "r1", 500, "CNY", read_clock())
    lists(channel, line)
    row = look(clock)
    case = Discrepancy.objects.get()
    assert (case.kind, case.account, case.subject, case.amount_minor) == ("orphan", ACCOUNT, f"{number}/r1", 500)
    Discrepancy.objects.update(state="RESOLVED", decision="dismiss")
    lists(channel, line)
    statements.carry_on(statements.ask_again(ACCOUNT, row.day))
    assert Discrepancy.objects.count() == 1


def test_other_peoples_lines_are_only_counted(channel, clock):
    lists(channel, StatementLine("payment", "somebody", "r1", 500, "CNY", read_clock()),
          StatementLine("refund", "else", "r2", 500, "CNY", read_clock(), payment_number="somebody"))  # fmt: skip
    row = look(clock)
    assert (row.line_count, row.difference_count, row.foreign_count) == (2, 0, 2)
    assert not Discrepancy.objects.exists()


def test_a_refund_whose_answer_was_lost_is_done_by_its_line(channel, clock):
    stream = settled()
    refund = given_back(stream)
    channel.answers[ACCOUNT, "refund"].append(Unknown("timeout"))
    run_refund(refund.number)
    lists(channel, payment(stream), refunded(refund, stream))
    with mock.patch.object(statement_check, "follow_up") as followed:
        look(clock)
    assert followed.called
    assert Refund.objects.get().state == "SUCCEEDED"
    assert not Discrepancy.objects.exists()


def test_a_line_about_a_refund_that_failed_by_then_is_asked_about(channel, clock):
    stream = settled()
    refund = given_back(stream)
    run_refund(refund.number)
    lists(channel, payment(stream), refunded(refund, stream, came_to=RefundState.FAILED))
    look(clock)
    channel.answers[ACCOUNT, "query_refund"].append(
        Known(RefundView(refund.number, RefundState.RETURNED, 300, refund.currency))
    )
    sweep.sweep_refund()
    assert Refund.objects.get().state == "RETURNED"


def test_another_amount_of_a_refund_comes_to_a_person(channel, clock):
    stream = settled()
    refund = given_back(stream)
    run_refund(refund.number)
    lists(channel, payment(stream), refunded(refund, stream, amount_minor=301))
    look(clock)
    case = Discrepancy.objects.get()
    assert (case.kind, case.subject, case.amount_minor) == ("statement", refund.number, 301)


def test_money_given_back_there_is_told_by_the_query_that_the_line_makes_us_ask(channel, clock):
    stream = settled()
    lists(
        channel, payment(stream), refunded(Refund(number="theirs", amount_minor=300, currency=stream.currency), stream)
    )
    answers(channel, stream, refunded_minor=300)
    look(clock)
    case = Discrepancy.objects.get()
    assert (case.kind, case.subject, case.amount_minor) == ("outside_refund", stream.number, 300)


def test_money_given_back_there_is_a_case_where_only_the_statement_tells(channel, clock):
    """M1: WeChat Pay's query never says how much of a payment was given back, and Alipay's says nothing of a part."""
    stream = settled()
    answers(channel, stream)
    answers(channel, stream)
    theirs = [Refund(number=number, amount_minor=300, currency=stream.currency) for number in ("one", "two")]
    lists(channel, payment(stream), refunded(theirs[0], stream))
    look(clock)
    case = Discrepancy.objects.get()
    assert (case.kind, case.subject, case.amount_minor) == ("outside_refund", stream.number, 300)
    lists(channel, refunded(theirs[1], stream, came_to=RefundState.IN_PROGRESS),
          refunded(Refund(number="three", amount_minor=99, currency="CNY"), stream, came_to=RefundState.FAILED))  # fmt: skip
    assert look(clock).difference_count == 1
    case.refresh_from_db()
    assert (case.state, case.amount_minor) == ("OPEN", 600)


def test_money_that_no_statement_names_comes_to_a_person_once_the_days_around_it_are_here(channel, clock):
    look(clock)
    look(clock)
    stream = settled()
    found = []
    for _ in range(4):
        look(clock)
        found.append(Discrepancy.objects.count())
    assert found[0] == 0  # its own day may be another one in the channel's calendar
    assert found[-1] == 1
    case = Discrepancy.objects.get()
    assert (case.kind, case.subject, case.amount_minor, case.state) == (
        "statement",
        stream.number,
        stream.amount_minor,
        "OPEN",
    )


def test_money_that_the_neighbouring_day_names_is_not_missing(channel, clock):
    look(clock)
    look(clock)
    stream = settled()
    look(clock)
    lists(channel, payment(stream))
    for _ in range(4):
        look(clock)
    assert not Discrepancy.objects.exists()


def test_a_refund_that_no_statement_names_comes_to_a_person_after_two_weeks(channel, clock):
    look(clock)
    look(clock)
    stream = settled()
    refund = given_back(stream)
    run_refund(refund.number)
    found = []
    for index in range(19):
        lists(channel, *([payment(stream)] if index < 3 else []))
        look(clock)
        found.append(Discrepancy.objects.count())
    assert (found[13], found[-1]) == (0, 1)
    case = Discrepancy.objects.get()
    assert (case.kind, case.subject, case.amount_minor) == ("statement", refund.number, 300)


def test_a_day_that_is_still_missing_tells_nothing_about_money_that_no_other_names(channel, clock):
    """Unknown is not absent."""
    look(clock)
    look(clock)
    settled()
    channel.answers[ACCOUNT, "statement"] += [Unknown("timeout")] * 500
    for _ in range(2):
        look(clock)
    assert not Discrepancy.objects.filter(subject=Stream.objects.get().number).exists()
    channel.answers[ACCOUNT, "statement"].clear()
    for _ in range(3):
        look(clock)
    assert Discrepancy.objects.filter(subject=Stream.objects.get().number).count() == 1


def test_two_workers_that_fetch_the_same_day_store_it_once(channel, clock):
    stream = settled()
    lists(channel, payment(stream))
    row = look(clock)
    lists(channel, payment(stream))
    statements.carry_on(statements.ask_again(ACCOUNT, row.day))
    assert Row.objects.count() == 1
    assert StatementDay.objects.filter(day=row.day).count() == 1


def test_a_day_that_cannot_be_applied_stays_due_and_says_why(channel, clock, monkeypatch):
    def broken(row):
        raise ValueError("a line that nobody can read")

    monkeypatch.setattr(statement_check, "compare", broken)
    row = look(clock)
    assert "a line that nobody can read" in row.last_answer
    assert row.next_try_at > read_clock()


def test_an_account_that_is_not_configured_any_more_stops_nobody_else(channel, clock, settings):
    sweep.sweep_statement()
    StatementDay.objects.update(next_try_at=read_clock())
    StatementDay.objects.create(account="gone", day=date(2026, 1, 1), next_try_at=read_clock(), wanted_at=read_clock())
    assert sweep.sweep_statement() == 1


def test_nothing_is_planned_for_channels_without_statements(scripted):
    assert sweep.sweep_statement() == 0
    assert not StatementDay.objects.exists()


def command(*arguments):
    """What it printed, and its exit status."""
    out = io.StringIO()
    try:
        call_command("payonce_reconcile", *arguments, stdout=out)
    except CommandError as error:
        return out.getvalue(), error.returncode
    return out.getvalue(), 0


def test_the_command_compares_what_is_over_and_says_when_nothing_is_left(channel, clock):
    said, status = command()
    day = StatementDay.objects.get().day
    assert (said.strip(), status) == (f"{ACCOUNT} {day}: 0 lines, 0 differ, 0 of others", 0)
    assert command() == ("every day that is over is compared\n", 0)


def test_the_command_fetches_a_day_again_and_exits_with_1_when_something_differs(channel, clock):
    stream = settled()
    lists(channel, payment(stream, amount_minor=1))
    channel.answers[ACCOUNT, "query"].append(lambda ref: Known(paid_view(ref, reference=stream.channel_reference)))
    said, status = command(ACCOUNT, "--day", "2026-03-01", "--json")
    assert status == 1
    assert json.loads(said) == {"days": [{
        "account": ACCOUNT, "day": "2026-03-01", "compared": True, "lines": 1, "differences": 1, "foreign": 0, "last_answer": "",
    }]}  # fmt: skip
    assert Discrepancy.objects.get().subject == stream.number


def test_an_old_day_does_not_bring_all_the_days_since(channel, clock):
    command("--day", "2026-03-01")
    assert StatementDay.objects.count() == 2  # and yesterday's, which was due


def test_the_command_says_what_cannot_be_had_yet(channel, clock):
    channel.answers[ACCOUNT, "statement"].append(Refused(RefusedKind.THROTTLED, "NO_BILL", "later"))
    said, status = command("--day", "2026-03-01")
    assert status == 1
    assert "not compared, tried again by the sweep (throttled: NO_BILL)" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["scripted_b"],
            '"scripted_b" is no account with statements; there are: scripted_a. Did you mean "scripted_a"?',
        ),
        (["--day", "2026-13-01"], '"2026-13-01" is no day'),
        (["--day", "yesterday"], '"yesterday" is no day'),
        (["--day", "2999-01-01"], "2999-01-01 is not over yet: the newest day that can be had is "),
    ],
)
def test_the_command_refuses_what_it_does_not_understand(channel, arguments, said):
    with pytest.raises(CommandError, match=re.escape(said)) as raised:
        call_command("payonce_reconcile", *arguments)
    assert raised.value.returncode == 2


def test_money_that_a_bank_took_twice_under_one_number_and_told_by_a_lost_message_goes_back(bank):
    """M1, M3 on the real sandbox: nobody asks about a payment that is done, but for its statement."""
    with movable_clock() as clock:
        order = open_order(expires_at=read_clock() + timedelta(hours=1))
        number = pay_order(order.number, "blue", "qr").stream
        assert bank.control.pay(number, account="blue").ok
        poll.poll_stream(number, by="system:poll")
        bank.control.fault("notify", "lose", times=None)
        assert bank.control.second_capture(number, account="blue").ok
        assert Stream.objects.count() == 1
        for _ in range(2):
            clock.advance(DAY)
            sweep.sweep_statement()
        adopted = Stream.objects.exclude(number=number).get()
        assert (adopted.origin_number, adopted.surplus_reason) == (number, "second_capture")
        sweep.sweep_refund()  # the bank tells all of it, once it is asked
        case = Discrepancy.objects.get()
        assert (case.kind, case.state, case.decision) == ("second_capture", "RESOLVED", "automatic")
        assert bank.control.sums(number, account="blue")["refunded_minor"] == order.amount_minor


# --- what a review of the first version found ---


def test_two_accounts_of_one_merchant_do_not_make_each_others_money_an_orphan(channel, clock):
    """Each lists all of the merchant's payments."""
    stream = paid_stream(ordered(), channel="scripted_b")
    lists(channel, payment(stream), refunded(given_back(stream), stream))
    row = look(clock)
    assert not Discrepancy.objects.exists()
    assert (row.difference_count, row.compared_at is None) == (0, False)


def test_the_money_of_an_account_that_was_renamed_is_no_orphan(channel, clock):
    stream = settled()
    Stream.objects.update(account="its_old_name")
    lists(channel, payment(stream))
    look(clock)
    assert not Discrepancy.objects.exists()


def test_another_merchants_words_about_our_stream_come_to_a_person(channel, clock, settings):
    accounts = settings.PAYONCE["CHANNELS"]
    settings.PAYONCE = {**settings.PAYONCE, "CHANNELS": {**accounts, ACCOUNT: {**accounts[ACCOUNT], "merchant": "M-2"}}}
    registry.reset()
    stream = paid_stream(ordered(), channel="scripted_b")
    lists(channel, payment(stream))
    assert look(clock).difference_count == 1
    case = Discrepancy.objects.get()
    assert (case.kind, case.account, case.subject) == (
        "mismatch",
        ACCOUNT,
        f"{stream.number}/{stream.channel_reference}",
    )


def with_second_capture(channel, **changes):
    """An order whose bank took a second sum under its number, which is known."""
    stream = settled()
    second = PaymentView(stream.number, PaymentState.PAID, stream.currency, 400, channel_reference="second")
    apply(stream, view_of(stream, reference=stream.channel_reference, captures=(second,)))
    assert Stream.objects.count() == 2
    answers(channel, stream, captures=(second,))
    return stream


def test_another_amount_of_an_adopted_capture_comes_to_a_person_and_does_not_stop_the_day(channel, clock):
    stream = with_second_capture(channel)
    lists(channel, payment(stream), payment(stream, channel_reference="second", amount_minor=401))
    row = look(clock)
    assert row.compared_at is not None, row.last_answer
    adopted = Stream.objects.get(channel_reference="second")
    assert Discrepancy.objects.get(kind="statement").subject == adopted.number


def test_a_known_second_capture_of_another_amount_agrees_without_references(channel, clock):
    stream = with_second_capture(channel)
    at = read_clock()
    lists(channel, payment(stream, channel_reference="", at=at),
          payment(stream, channel_reference="", amount_minor=400, at=at + timedelta(seconds=9)))  # fmt: skip
    assert look(clock).difference_count == 0
    assert not Discrepancy.objects.filter(kind="statement").exists()


def test_a_day_whose_comparison_always_fails_comes_to_a_person(channel, clock, monkeypatch):
    def slow(row):
        raise OperationalError("canceling statement due to statement timeout")

    monkeypatch.setattr(statement_check, "compare", slow)
    for _ in range(5):
        look(clock)
    assert "statement timeout" in Discrepancy.objects.get(kind="statement").summary


def test_a_day_whose_every_try_ends_its_process_comes_to_a_person(channel, clock):
    sweep.sweep_statement()
    at = read_clock()
    StatementDay.objects.update(next_try_at=at, compared_at=None, wanted_at=at - 4 * DAY, last_answer="")
    with pytest.raises(KeyboardInterrupt), mock.patch.object(statements, "carry_on", side_effect=KeyboardInterrupt):
        sweep.sweep_statement()
    assert Discrepancy.objects.get().subject == statements.LATE


def test_an_account_that_may_not_read_statements_is_one_case_and_is_asked_seldom(channel, clock):
    channel.answers[ACCOUNT, "statement"] += [Refused(RefusedKind.CONFIG, "NO_AUTH", "not permitted")] * 2_000
    for _ in range(20):
        look(clock)
    assert Discrepancy.objects.count() == 1
    Discrepancy.objects.update(state="RESOLVED", decision="dismiss", decided_by="ann")
    asked = channel.count("statement")
    for _ in range(4):
        clock.advance(statements.TRY_SECONDS)
        sweep.sweep_statement()
    assert channel.count("statement") - asked <= 20
    assert not Discrepancy.objects.exclude(state="RESOLVED").exists()


def test_an_account_whose_channel_has_no_statements_any_more_is_left_alone(channel, clock):
    channel.answers[ACCOUNT, "statement"].append(Unknown("timeout"))
    sweep.sweep_statement()
    channel.overrides[ACCOUNT] = {"statement": False}
    clock.advance(DAY)
    assert sweep.sweep_statement() == 0


def test_a_click_beside_a_worker_that_finishes_leaves_the_day_due_and_the_others_alone(channel, clock, monkeypatch):
    sweep.sweep_statement()
    clock.advance(3 * DAY)
    real, seen = statement_check.compare, []

    def beside(row):
        done = real(row)
        if not seen:
            statements.ask_again(row.account, row.day)
        seen.append(row.day)
        return done

    monkeypatch.setattr(statement_check, "compare", beside)
    sweep.sweep_statement()
    assert len(seen) == 3
    assert [row.day for row in StatementDay.objects.filter(compared_at=None)] == [seen[0]]


def test_one_payment_without_an_answer_does_not_hide_the_others(channel, clock):
    first, second = pending_stream(ordered()), pending_stream(ordered())
    Stream.objects.update(next_check_at=None)
    lists(channel, payment(first), payment(second))
    channel.answers[ACCOUNT, "query"] += [
        lambda ref: Unknown("timeout") if ref.number == first.number else Known(paid_view(ref))
    ] * 2
    row = look(clock)
    second.refresh_from_db()
    assert (second.state, row.compared_at) == ("SUCCEEDED", None)
    assert first.number in row.last_answer


def test_what_a_person_resolved_is_not_opened_again_while_the_day_waits_for_another_answer(channel, clock):
    first, second = pending_stream(ordered()), pending_stream(ordered())
    lists(channel, payment(first), payment(second))
    channel.answers[ACCOUNT, "query"] += [
        lambda ref: (
            Unknown("timeout") if ref.number == second.number else Known(PaymentView(ref.number, PaymentState.OPEN))
        )
    ] * 20
    look(clock)
    Discrepancy.objects.filter(kind="statement").update(state="RESOLVED", decision="dismiss", decided_by="ann")
    clock.advance(statements.TRY_SECONDS)
    sweep.sweep_statement()
    assert Discrepancy.objects.filter(kind="statement").count() == 1


@pytest.mark.parametrize("is_given_up", [False, True])
def test_a_refund_that_was_refused_here_and_is_on_its_way_there_comes_to_a_person(is_given_up, channel, clock):
    stream = settled()
    refund = given_back(stream)
    channel.answers[ACCOUNT, "refund"].append(Refused(RefusedKind.DECLINED, "NO", "no"))
    run_refund(refund.number)
    if is_given_up:
        write_off_refund(refund.number, by="ann")
    lists(channel, payment(stream), refunded(refund, stream, came_to=RefundState.IN_PROGRESS))
    assert look(clock).difference_count == 1
    assert Discrepancy.objects.get(kind="statement").subject == refund.number


def test_a_refund_on_its_way_agrees_with_one_that_is_on_its_way(channel, clock):
    stream = settled()
    refund = given_back(stream)
    channel.answers[ACCOUNT, "refund"].append(Known(RefundView(refund.number, RefundState.IN_PROGRESS, 300, "CNY")))
    run_refund(refund.number)
    lists(channel, payment(stream), refunded(refund, stream, came_to=RefundState.IN_PROGRESS))
    assert look(clock).difference_count == 0


def test_a_refusal_that_was_none_is_undone_by_the_line(channel, clock):
    """M1: refused here, done there."""
    stream = settled()
    refund = given_back(stream)
    channel.answers[ACCOUNT, "refund"].append(Refused(RefusedKind.DECLINED, "NO", "no"))
    run_refund(refund.number)
    lists(channel, payment(stream), refunded(refund, stream))
    assert look(clock).difference_count == 1
    refund.refresh_from_db()
    assert refund.state == "SUCCEEDED"
    assert refund.next_try_at is not None  # and it is asked about once more


def test_a_refund_that_waits_for_approval_and_is_listed_comes_to_a_person(channel, clock, settings):
    settings.PAYONCE = {**settings.PAYONCE, "REFUND": {"APPROVAL_MINOR": 100}}
    stream = settled()
    number = request_refund(stream.number, 300, reason="duplicate", by="ann").number
    lists(channel, payment(stream), refunded(Refund.objects.get(number=number), stream))
    assert look(clock).difference_count == 1
    assert Refund.objects.get().state == "AWAITING_APPROVAL"
    assert Discrepancy.objects.get().subject == number


def test_the_parts_of_one_refund_are_added_up(channel, clock):
    stream = settled()
    refund = given_back(stream)
    run_refund(refund.number)
    lists(
        channel, payment(stream), refunded(refund, stream, amount_minor=200), refunded(refund, stream, amount_minor=100)
    )
    assert look(clock).difference_count == 0


def test_a_bill_that_is_gone_does_not_take_the_kept_lines_with_it(channel, clock):
    """Channels keep some months; a day without a bill and an empty one look the same."""
    stream = settled()
    lists(channel, payment(stream))
    row = look(clock)
    lists(channel)
    said, status = command("--day", row.day.isoformat())
    assert (status, "1 lines" in said) == (0, True)
    assert Row.objects.count() == 1


def test_money_that_became_known_late_and_that_no_statement_names_comes_to_a_person(channel, clock):
    look(clock)
    look(clock)
    paid_at = read_clock()
    for _ in range(6):
        look(clock)
    stream = paid_stream(ordered())
    Stream.objects.filter(pk=stream.pk).update(paid_at=paid_at)
    look(clock)
    look(clock)
    assert Discrepancy.objects.get().subject == stream.number


def test_refunds_of_a_dashboard_are_matched_by_the_payments_reference(channel, clock):
    """Stripe's own refunds carry no number of ours."""
    stream = settled()
    answers(channel, stream, refunded_minor=300)
    theirs = StatementLine("refund", "", "re_1", 300, "CNY", read_clock(), payment_reference=stream.channel_reference)
    lists(channel, payment(stream), theirs)
    row = look(clock)
    assert (row.foreign_count, row.difference_count) == (0, 1)
    assert Discrepancy.objects.get().kind == "outside_refund"


@pytest.mark.parametrize("number", ["", "1"])
def test_two_refunds_there_under_one_request_number_are_two(number, channel, clock):
    """Alipay's reference of a refund is the trade's."""
    stream = settled()
    answers(channel, stream)
    at = read_clock()
    theirs = Refund(number=number, amount_minor=300, currency="CNY")
    lists(channel, payment(stream), *(
        refunded(theirs, stream, channel_reference="trade", at=moment) for moment in (at, at + timedelta(minutes=5))
    ))  # fmt: skip
    look(clock)
    assert Discrepancy.objects.get().amount_minor == 600


def test_a_second_orphan_under_one_number_is_not_swallowed(channel, clock):
    number, at = get_settings().NUMBER_PREFIX + "nobody", read_clock()
    lists(channel, StatementLine("payment", number, "", 500, "CNY", at),
          StatementLine("payment", number, "", 700, "CNY", at + timedelta(seconds=9)))  # fmt: skip
    assert look(clock).difference_count == 2
    assert sorted(Discrepancy.objects.values_list("amount_minor", flat=True)) == [500, 700]


def test_money_given_back_of_a_number_of_ours_that_is_no_stream_comes_to_a_person(channel, clock):
    number = get_settings().NUMBER_PREFIX + "nobody"
    lists(channel, StatementLine("refund", "r", "", 500, "CNY", read_clock(), payment_number=number))
    assert look(clock).difference_count == 1
    assert "given back" in Discrepancy.objects.get(kind="statement").summary


def test_many_lines_of_another_installation_are_one_case_that_says_what_to_do(channel, clock):
    """Two shops with the same prefix and one merchant account."""
    prefix, at = get_settings().NUMBER_PREFIX, read_clock()
    many = 27
    lists(
        channel, *(StatementLine("payment", f"{prefix}x{index}", f"r{index}", 500, "CNY", at) for index in range(many))
    )
    assert look(clock).difference_count == many
    assert Discrepancy.objects.count() == 20 + 1
    told = Discrepancy.objects.get(subject="strangers")
    assert "lists 7 more lines" in told.summary
    assert "NUMBER_PREFIX" in told.summary
    assert (told.amount_minor, told.currency) == (0, "")


@pytest.mark.parametrize(("many", "is_summed_up"), [(20, False), (21, True)])
def test_twenty_lines_that_nobody_knows_are_a_case_each(many, is_summed_up, channel, clock):
    prefix, at = get_settings().NUMBER_PREFIX, read_clock()
    lists(
        channel, *(StatementLine("payment", f"{prefix}x{index}", f"r{index}", 500, "CNY", at) for index in range(many))
    )
    look(clock)
    assert Discrepancy.objects.filter(kind="orphan").count() == 20
    assert Discrepancy.objects.filter(subject="strangers").exists() is is_summed_up


def test_a_long_reference_of_an_orphan_is_cut_to_its_column_and_known_again(channel, clock):
    number = get_settings().NUMBER_PREFIX + "nobody"
    lists(channel, StatementLine("payment", number, "r" * 128, 500, "CNY", read_clock()))
    row = look(clock)
    assert Discrepancy.objects.get().subject == f"{number}/{'r' * 128}"[:128]
    Discrepancy.objects.update(state="RESOLVED", decision="dismiss", decided_by="ann")
    statement_check.compare(row)
    assert Discrepancy.objects.count() == 1


def test_an_outside_refund_whose_payment_is_not_answered_for_is_compared_again(channel, clock):
    stream = settled()
    channel.answers[ACCOUNT, "query"].append(Unknown("timeout"))
    lists(channel, payment(stream), refunded(Refund(number="theirs", amount_minor=300, currency="CNY"), stream))
    row = look(clock)
    assert (row.compared_at, stream.number in row.last_answer) == (None, True)
    assert not Discrepancy.objects.exists()


def test_an_outside_refund_that_a_person_has_dealt_with_is_not_told_again(channel, clock):
    stream = settled()
    for _ in range(2):
        answers(channel, stream, refunded_minor=300)
    poll.poll_stream(stream.number, by="system:poll")
    Discrepancy.objects.update(state="RESOLVED", decision="dismiss", decided_by="ann")
    lists(channel, payment(stream), refunded(Refund(number="theirs", amount_minor=300, currency="CNY"), stream))
    look(clock)
    assert Discrepancy.objects.count() == 1


def test_refunds_of_a_dashboard_count_where_the_query_tells_nothing(channel, clock):
    stream = settled()
    answers(channel, stream)
    theirs = StatementLine("refund", "", "re_1", 300, "CNY", read_clock(), payment_reference=stream.channel_reference)
    lists(channel, payment(stream), theirs)
    look(clock)
    assert Discrepancy.objects.get().amount_minor == 300


def test_the_command_exits_with_4_when_the_database_goes_away(channel, clock, monkeypatch):
    def away(*args, **kwargs):
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(statement_check, "compare", away)
    monkeypatch.setattr(statements, "_try_later", away)
    assert command()[1] == 4


def test_texts_that_no_database_takes_are_cleaned(channel, clock):
    channel.answers[ACCOUNT, "statement"].append(Unknown("bad \0 reason"))
    sweep.sweep_statement()
    assert "bad  reason" in StatementDay.objects.get().last_answer
    lists(channel, StatementLine("payment", "x\0", "r" * 200, 1, "CNY", None))
    look(clock)
    assert (Row.objects.get().number, len(Row.objects.get().channel_reference)) == ("x", 128)


def test_what_follows_from_a_second_capture_starts_at_once(channel, clock, kicked):
    stream = settled()
    answers(channel, stream)
    lists(channel, payment(stream), payment(stream, channel_reference="second"))
    kicked.clear()
    look(clock)
    assert "payonce.refund" in kicked


def test_a_reference_that_another_account_has_too_is_another_payment(channel, clock):
    """References are a channel's own: two channels may name two payments alike."""
    stream = settled()
    twin = Stream.objects.get(pk=stream.pk)
    twin.pk, twin.number, twin.attempt, twin.account, twin.channel_reference = (
        None,
        f"{stream.number}x",
        9,
        "scripted_b",
        "second",
    )
    twin.role, twin.surplus_reason = "surplus", "duplicate"
    twin.save(force_insert=True)
    answers(channel, stream)
    lists(channel, payment(stream), payment(stream, channel_reference="second"))
    look(clock)
    assert Stream.objects.filter(account=ACCOUNT, channel_reference="second", surplus_reason="second_capture").exists()


def test_a_stream_that_took_nothing_has_no_second_capture(channel, clock):
    """Its reference may be that of the prepay."""
    stream = pending_stream(ordered())
    Stream.objects.update(channel_reference="of-the-prepay")
    lists(channel, payment(stream, channel_reference="of-the-payment"))
    look(clock)
    assert Stream.objects.count() == 1
    assert Discrepancy.objects.get(kind="statement").subject == stream.number


# --- exactly how far back ---


def fetched_days(last, count):
    """So many days are here, empty, up to `last`; returns the row of the last one."""
    at = read_clock()
    for index in range(count):
        day = last - timedelta(days=index)
        StatementDay.objects.create(account=ACCOUNT, day=day, wanted_at=at, fetched_at=at)
    return StatementDay.objects.get(day=last)


@pytest.mark.parametrize(("seconds", "found"), [(0, 1), (-1, 0)])
def test_money_is_looked_for_that_became_known_three_days_before_the_compared_one(seconds, found, channel, clock):
    row = fetched_days(date(2026, 3, 20), 10)
    stream = settled()
    known = datetime(2026, 3, 17, tzinfo=UTC) + timedelta(seconds=seconds)
    Stream.objects.filter(pk=stream.pk).update(succeeded_at=known, paid_at=datetime(2026, 3, 13, 12, tzinfo=UTC))
    assert statement_check.compare(row).differences == found


@pytest.mark.parametrize(("days", "found"), [(15, 0), (16, 1)])
def test_a_refund_is_missing_once_the_day_before_and_two_weeks_after_are_here(days, found, channel, clock):
    row = fetched_days(date(2026, 3, 20), days)
    stream = settled()
    refund = given_back(stream)
    run_refund(refund.number)
    Stream.objects.update(succeeded_at=datetime(2026, 1, 1, tzinfo=UTC))
    Refund.objects.update(first_sent_at=datetime(2026, 3, 6, 12, tzinfo=UTC))
    assert statement_check.compare(row).differences == found


@pytest.mark.parametrize(("seconds", "found"), [(0, 1), (-1, 0)])
def test_a_refund_is_looked_for_that_was_sent_seventeen_days_before_the_compared_one(seconds, found, channel, clock):
    row = fetched_days(date(2026, 3, 20), 25)
    stream = settled()
    refund = given_back(stream)
    run_refund(refund.number)
    Stream.objects.update(succeeded_at=datetime(2026, 1, 1, tzinfo=UTC))
    Refund.objects.update(first_sent_at=datetime(2026, 3, 3, tzinfo=UTC) + timedelta(seconds=seconds))
    assert statement_check.compare(row).differences == found
