"""Which accounts a run pays through: one of each real channel where that is asked for, and never by a seed alone."""

from dataclasses import replace

import pytest

from torture import stories
from torture.accounts import MIXED, OWN, REAL_CHANNELS, Roster
from torture.plan import Plan, expand, read_plan
from torture.site import Modes

MINUTE = 60.0
REAL = Modes(real_channels=True)


def faults_without_accounts(plan: Plan) -> list[object]:
    return [replace(fault, args={**fault.args, "account": ""}) for fault in plan.faults]


def test_no_seed_draws_the_real_channels() -> None:
    assert not any(expand(seed, MINUTE).modes.real_channels for seed in range(60))


@pytest.mark.parametrize("seed", range(5))
def test_the_same_faults_strike_the_accounts_of_the_mode(seed: int) -> None:
    own, real = expand(seed, 5 * MINUTE), expand(seed, 5 * MINUTE, REAL)
    assert faults_without_accounts(own) == faults_without_accounts(real)
    struck = {fault.args["account"] for fault in real.faults if "account" in fault.args}
    assert struck == {"*", *MIXED.names}
    assert {fault.args["account"] for fault in own.faults if "account" in fault.args} == {"*", *OWN.names}
    assert expand(seed, 5 * MINUTE, REAL) == real


def test_a_plan_with_real_channels_is_read_back(tmp_path) -> None:
    plan = expand(3, MINUTE, REAL)
    plan.write(tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan
    assert "real channels" in plan.lines()[0]


@pytest.mark.parametrize("roster", [OWN, MIXED])
def test_stories_find_every_account_that_they_name(roster: Roster) -> None:
    named = {*roster.hidden, *roster.altering, *roster.slow, *roster.methods}
    assert named <= set(roster.names)
    assert {*roster.own, *roster.skins} == set(roster.names)


def test_only_a_run_with_real_channels_wanders_through_them() -> None:
    assert stories.through_all not in stories.STORIES
    assert stories.through_all in stories.MIXED_STORIES
    assert MIXED.skins == REAL_CHANNELS
