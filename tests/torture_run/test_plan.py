"""A plan is a function of its seed: the same every time, written and read without loss, and hard enough."""

import json
from collections import Counter
from pathlib import Path

import pytest

from torture.nemesis import Nemesis
from torture.plan import FIRST, HEAVY, KINDS, PlanError, expand, read_plan
from torture.site import Modes

MINUTE = 60.0


def test_the_same_seed_gives_the_same_plan() -> None:
    assert expand(7, 5 * MINUTE) == expand(7, 5 * MINUTE)
    assert expand(7, 5 * MINUTE).faults != expand(8, 5 * MINUTE).faults


def test_modes_come_from_the_seed_unless_they_are_named() -> None:
    drawn = {
        (plan.modes.cache, plan.modes.beats, plan.modes.lossy_broker)
        for plan in (expand(seed, 60) for seed in range(60))
    }
    assert len(drawn) == 8
    named = Modes(cache=False, beats=2, lossy_broker=True)
    assert expand(7, MINUTE, named).modes == named
    assert expand(7, MINUTE, named).faults == expand(7, MINUTE).faults


def test_a_written_plan_is_read_back(tmp_path: Path) -> None:
    plan = expand(3, 10 * MINUTE)
    plan.write(tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 9}', '{"format": 1, "seed": 1}'])
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(PlanError):
        read_plan(tmp_path / "plan.json")


def test_a_plan_with_a_fault_that_nobody_can_do_is_refused(tmp_path: Path) -> None:
    expand(3, MINUTE).write(tmp_path / "plan.json")
    told = json.loads((tmp_path / "plan.json").read_text())
    told["faults"][0]["do"] = "earthquake"
    (tmp_path / "plan.json").write_text(json.dumps(told))
    with pytest.raises(PlanError, match="earthquake"):
        read_plan(tmp_path / "plan.json")


@pytest.mark.parametrize("seed", range(20))
def test_five_minutes_see_every_kind_of_fault(seed: int) -> None:
    seen = Counter(fault.do for fault in expand(seed, 5 * MINUTE).faults)
    assert set(seen) == KINDS


@pytest.mark.parametrize("seed", range(20))
def test_a_short_run_sees_what_matters_most(seed: int) -> None:
    seen = {fault.do for fault in expand(seed, 75).faults}
    assert set(FIRST) <= seen


@pytest.mark.parametrize("seed", range(10))
def test_nothing_heavy_begins_in_a_quiet_time(seed: int) -> None:
    heavy = [fault for fault in expand(seed, 10 * MINUTE).faults if fault.do in HEAVY]
    for fault, following in zip(heavy, heavy[1:], strict=False):
        assert following.at - fault.at >= fault.quiet - 0.11


def test_every_fault_has_somebody_who_does_it() -> None:
    for kind in KINDS:
        assert callable(getattr(Nemesis, f"_{kind}", None)), kind


def test_the_plan_is_printed_whole() -> None:
    plan = expand(5, 5 * MINUTE)
    lines = plan.lines()
    assert len(lines) == 1 + len(plan.faults)
    assert "seed 5: 5 minutes" in lines[0]
    assert all(fault.do in line for fault, line in zip(plan.faults, lines[1:], strict=True))
