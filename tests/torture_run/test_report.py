"""The verdict of a run: violated before gentle, gentle before fine, and what each says."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from torture import run
from torture.facts import Violation
from torture.hardness import LEAST, Hardness
from torture.plan import expand
from torture.report import GENTLE, OK, USAGE, VIOLATED, WHOLE, Result, write_json, write_text
from torture.site import Modes


def hard_run(minutes: float = 5.0) -> Result:
    """A run that saw enough of everything."""
    hardness = Hardness(dict.fromkeys(LEAST, 1_000))
    faults = Counter(dict.fromkeys(("kill", "outage", "bank_fault", "redis_flush", *WHOLE), 200))
    return Result(
        expand(1, minutes * 60), hardness=hardness, faults=faults, commits={"cut_before": 50, "cut_after": 50}, storm_seconds=100.0,
        stories=Counter(placed=500),
    )  # fmt: skip


def test_a_hard_run_without_violation_is_fine() -> None:
    result = hard_run()
    assert result.status == OK
    assert result.bound == "at most 0.003 of all orders (1 in 333) with 95 % confidence"
    assert write_text(result)[-1].startswith("OK: no violation in 1,000 orders")
    assert result.orders_per_second == 5.0


def test_one_violation_is_enough_and_gives_no_bound() -> None:
    result = hard_run()
    result.violations.append(Violation("M4", "two keepers"))
    result.faults.clear()  # being gentle excuses nothing
    assert result.status == VIOLATED
    assert result.bound == ""
    lines = write_text(result)
    assert lines[0] == "VIOLATED M4: two keepers"
    assert any(line.startswith("VIOLATED: 1 (M4 1)") for line in lines)


@pytest.mark.parametrize("name", ["kill", "outage", "bank_fault", "redis_flush", "disk_full", "pg_kill"])
def test_a_run_without_a_kind_of_fault_is_invalid(name: str) -> None:
    result = hard_run()
    del result.faults[name]
    if name == "redis_flush":
        del result.faults["redis_oom"], result.faults["redis_readonly"]
    assert result.status == GENTLE
    assert write_text(result)[-1].startswith("INVALID")


@pytest.mark.parametrize("name", ["cut_before", "cut_after"])
def test_commits_count_only_when_they_were_truly_cut(name: str) -> None:
    result = hard_run()
    result.faults[name.replace("cut", "commit")] = 100  # ordered, and no commit came by
    result.commits[name] = 0
    assert result.status == GENTLE


def test_what_the_machine_cannot_do_is_said_and_not_asked_for() -> None:
    result = hard_run()
    del result.faults["disk_full"]
    result.skipped["disk_full"] = "only root may mount a small disk"
    assert result.status == OK
    assert "not done on this machine: disk_full (only root may mount a small disk), counted 0" in write_text(result)


def test_a_short_run_need_not_see_everything() -> None:
    result = hard_run(minutes=1)
    for name in WHOLE:
        del result.faults[name]
    assert result.status == OK


def test_a_run_with_few_orders_is_invalid() -> None:
    result = hard_run()
    result.hardness["duplicates"] = 0
    assert result.too_gentle == {"duplicates": (0, LEAST["duplicates"])}


def test_a_run_with_real_channels_that_never_wandered_is_invalid() -> None:
    result = hard_run()
    assert result.status == OK
    result.plan = replace(result.plan, modes=Modes(real_channels=True))
    assert result.status == GENTLE
    assert result.too_gentle["orders through all channels"] == (0, 5)
    assert result.too_gentle["wechat_pay → alipay"] == (0, 15)
    lines = write_text(result)
    assert any(line.startswith("through all of wechat_pay → alipay → stripe → paypal: 0") for line in lines)
    assert json.loads(write_json(result))["channels"]["chains"] == 0


def test_json_says_the_same() -> None:
    result = hard_run()
    result.violations.append(Violation("S7", "an order is gone", ("row",)))
    told = json.loads(write_json(result))
    assert told["verdict"] == "VIOLATED"
    assert told["violations"] == [{"id": "S7", "text": "an order is gone", "rows": ["row"]}]
    assert told["seed"] == 1
    assert told["faults"]["kill"] == 200


def test_liveness_is_printed_beside_its_bounds() -> None:
    result = hard_run()
    result.figures = {"L5": {"count": 1, "p50": 40.0, "p99": 40.0, "max": 41.5, "bound": 120.0}}
    lines = write_text(result)
    assert "L5: p50 40.0 s, p99 40.0 s, max 41.5 s, of 1 (bound 120 s)" in lines
    assert "L1: nothing to measure (bound 30 s)" in lines


def test_a_replay_of_nothing_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--replay", "no-such-file"]) == USAGE
    assert "neither a plan's file nor a seed" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--minutes", "0"], ["--buyers", "0"], ["--mode", "calm"], ["--seed", "x"]])
def test_wrong_arguments_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main(arguments)
    assert ended.value.code == USAGE
