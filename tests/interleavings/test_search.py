"""A sample of the interleavings of every pair, and the control: without locks the search must find what breaks."""

import json

import pytest

from torture import interleave
from torture.interleave_control import Choice, Trace, branches, preemptions, read_schedule, write_schedule
from torture.interleave_pairs import PAIRS


def searched(capsys, *arguments):
    status = interleave.main([*arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.concurrency
@pytest.mark.timeout(400)
def test_a_sample_of_schedules_of_every_pair_breaks_nothing(capsys):
    """Every invariant at rest after each schedule; the operations really met: some waited for each other's locks."""
    status, found = searched(capsys, "--sample", "3", "--seed", "2026")
    assert [(pair["pair"], pair["violations"]) for pair in found["pairs"] if pair["violations"]] == []
    assert status == 0
    assert {pair["pair"] for pair in found["pairs"]} == set(PAIRS)
    assert found["schedules"] == 3 * len(PAIRS)
    assert sum(pair["waits"] for pair in found["pairs"]) > 5
    assert sum(pair["preempted"] for pair in found["pairs"]) > len(PAIRS)


@pytest.mark.concurrency
@pytest.mark.timeout(400)
def test_without_row_locks_and_unique_indexes_the_search_finds_what_breaks(capsys):
    """S3, M4: the control of the whole search."""
    status, found = searched(capsys, "--control", "--pair", "pay-pay", "--pair", "settle-settle")
    assert status == 0
    for pair, rules in zip(sorted(found["pairs"], key=lambda pair: pair["pair"]), ("S3:", "M4:"), strict=True):
        text = str(pair["violations"])
        assert rules in text, pair


@pytest.mark.concurrency
@pytest.mark.timeout(400)
def test_a_schedule_string_replays_its_moves(capsys):
    status, found = searched(capsys, "--replay", "settle-twice:A3B1A9")
    (pair,) = found["pairs"]
    assert pair["places"][:4] == ["A start", "A flight", "A flight", "B start"]
    assert (pair["schedules"], status in (0, 1)) == (1, True)


def test_schedules_are_written_and_read():
    assert write_schedule("AAABBA") == "A3B2A1"
    assert read_schedule("A3B2A1") == "AAABBA"
    for text in ("A", "3A", "A3D1", "A3 B2", "a3"):
        with pytest.raises(ValueError, match="no schedule"):
            read_schedule(text)


def play(prefix, lengths=(3, 2)):
    """Two threads of so many moves that never wait for each other, as the controller would play them."""
    left, before, trace = dict(zip("AB", lengths, strict=True)), "", Trace()
    while any(left.values()):
        could = tuple(letter for letter in "AB" if left[letter])
        wanted = prefix[len(trace.choices) : len(trace.choices) + 1]
        chosen = wanted if wanted in could and wanted else before if before in could else could[0]
        trace.choices.append(Choice(chosen, could, before))
        left[chosen] -= 1
        before = chosen
    return trace


@pytest.mark.parametrize(("bound", "count"), [(0, 2), (1, 5), (2, 9), (9, 10)])
def test_the_search_visits_every_schedule_within_the_bound_once(bound, count):
    """Of the ten orders of three and two moves; each is found once, and none that makes more threads wait than allowed."""
    waiting, seen = [""], []
    while waiting:
        prefix = waiting.pop()
        trace = play(prefix)
        seen.append(trace.letters)
        assert preemptions(trace.choices) <= bound
        waiting += branches(trace, len(prefix), bound)
    assert len(seen) == len(set(seen)) == count


def test_a_wrong_command_is_refused():
    for arguments in (["--replay", "no-such:A1"], ["--replay", "pay-pay:x"], ["--pair", "no-such"], ["--jobs", "0"]):
        with pytest.raises(SystemExit) as ended:
            interleave.main(arguments)
        assert ended.value.code == 2
