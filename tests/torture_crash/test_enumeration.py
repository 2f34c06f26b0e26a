"""A sample of the crash enumeration, and two broken builds that it must catch. `make crash` plays every death."""

import json
import signal

import pytest

from tests.torture_crash import control
from torture import crash
from torture.crash_points import Crossings
from torture.crash_pool import end_on_signals
from torture.crash_scenarios import SCENARIOS
from torture.crash_worker import Death, find_distinct, in_child

pytestmark = [pytest.mark.crash, pytest.mark.timeout(400)]


def played(capsys, *arguments):
    status = crash.main([*arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_a_sample_of_deaths_recovers_in_every_scenario(capsys):
    """M1–M9, S1–S16 at rest: killed anywhere, payonce repairs itself, and where the clients try again the story ends right."""
    status, found = played(capsys, "--sample", "66", "--seed", "2026")
    assert (status, found["failures"], found["broken"]) == (0, [], [])
    assert found["deaths"] == found["recovered"] == 66
    assert set(found["crossings"]) == set(SCENARIOS)
    assert all(count > 15 for count in found["crossings"].values())


def test_a_message_marked_before_it_was_told_is_caught(capsys, monkeypatch):
    """S11: the control: a build that loses a message when it dies between marking and telling."""
    monkeypatch.setattr(crash, "serve", control.serve_marking_messages_early)
    status, found = played(capsys, "--scenario", "failing-shop", "--then", "resume", "--when", "before", "--jobs", "1")
    assert status == 1
    assert any("S11" in text for text in (*found["broken"], *str(found["failures"]).split("'")))


def test_a_build_that_never_polls_is_caught(capsys, monkeypatch):
    """L1, S13: the control: without the poller a lost notification is never found out."""
    monkeypatch.setattr(crash, "serve", control.serve_without_polling)
    status, found = played(capsys, "--scenario", "pay-lost-poll", "--jobs", "1")
    assert status == 1
    assert found["broken"]


def test_a_wrong_command_is_refused():
    for arguments in (["--point", "3"], ["--scenario", "no-such"], ["--jobs", "0"]):
        with pytest.raises(SystemExit) as ended:
            crash.main(arguments)
        assert ended.value.code == 2


def test_distinct_leaves_out_only_deaths_that_nobody_could_tell_from_the_one_before():
    """A read, and a statement of a transaction that dies, change no world; a new step and a call of the bank always count."""
    names = ["sql SELECT", "sql INSERT", "commit", "channel prepay", "redis", "hook"]
    worlds = [("a", "a"), ("a", "a"), ("a", "b"), ("b", "b"), ("c", "c"), ("c", "d")]
    assert find_distinct(names, worlds, firsts=[0, 5]) == [
        (0, "before"), (2, "after"), (3, "after"), (4, "before"), (5, "before"), (5, "after"),
    ]  # fmt: skip


def test_most_deaths_of_a_payment_leave_the_world_of_another_one(capsys):
    """The enumeration's figure: a whole payment has fewer worlds to die in than crossings, and every one of them is played."""
    status, found = played(capsys, "--scenario", "pay", "--distinct", "--then", "leave")
    assert (status, found["failures"]) == (0, [])
    assert found["deaths"] == found["planned"] == found["distinct"]["pay"] == found["by_scenario"]["pay"]
    assert 5 < found["distinct"]["pay"] < found["crossings"]["pay"]


def test_a_failure_names_the_command_that_plays_it_again():
    death = Death("pay", 17, "after", "resume")
    assert death.command() == "python -m torture.crash --scenario pay --point 17 --when after --then resume"


def test_a_child_dies_at_its_crossing_and_not_elsewhere():
    """The enumeration's own tool: SIGKILL before or after the named crossing, with the effect undone or done."""
    for when, steps in (("before", 1), ("after", 2)):

        def work(progress, when=when):
            crossings = Crossings(1, when)
            cross = crossings.around(progress, lambda: "step")
            cross(), cross(), cross()
            return {"names": crossings.names}

        ended = in_child(work)
        assert (ended.killed, ended.steps) == (True, steps)
    assert in_child(lambda progress: {"names": []}).answer == {"names": []}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_stop_unwinds_so_that_its_servers_end(number):
    """A run that a signal killed outright left a PostgreSQL, a Redis and a worker behind."""
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        end_on_signals()
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(number)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
    assert ended.value.code == 128 + number


def test_a_child_that_fails_or_is_ended_by_another_signal_did_not_die_by_plan():
    assert "ZeroDivisionError" in in_child(lambda progress: {"never": 1 // 0}).answer["error"]
    ended = in_child(lambda progress: {"never": signal.raise_signal(signal.SIGTERM)})
    assert (ended.killed, ended.answer["error"]) == (False, "ended by signal 15")
