"""Two short storms over real processes: the build as it is holds, and a broken one is caught."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from torture.report import GENTLE, OK, VIOLATED

CHECKOUT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 1_500
pytestmark = [pytest.mark.torture, pytest.mark.timeout(SECONDS_MAX + 60)]


def torture(*arguments: str, **environment: str) -> tuple[int, dict[str, Any], str]:
    """Run the command as a user does; its exit status, its summary, and what it said meanwhile."""
    done = subprocess.run(
        [sys.executable, "-m", "torture.run", "--json", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False,
        env={**os.environ, **environment}, timeout=SECONDS_MAX, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.stdout, done.stderr[-3_000:]
    return done.returncode, json.loads(done.stdout), done.stderr


def test_a_short_storm_violates_nothing() -> None:
    status, found, said = torture("--minutes", "1.25", "--seed", "11")
    assert found["violations"] == [], said[-3_000:]
    assert status in (OK, GENTLE)  # a busy machine may not get far in so short a time
    assert found["orders"] > 20
    assert found["faults"]["kill"] >= 1
    assert found["commits"]["cut_after"] >= 1
    assert "seed 11" in said


def test_a_short_storm_over_every_real_channel_violates_nothing() -> None:
    status, found, said = torture("--minutes", "1", "--seed", "13", "--mode", "real-channels")
    assert found["violations"] == [], said[-3_000:]
    assert status in (OK, GENTLE)
    assert found["modes"]["real_channels"]
    assert found["passed_seconds"] > 26 * 3_600
    assert {"wechat_pay", "alipay", "stripe", "paypal"} <= set(found["channels"]["orders"])


def test_a_broken_build_is_caught() -> None:
    status, found, _said = torture(
        "--minutes", "0.5", "--seed", "12", "--mode", "plain", TORTURE_APP="tests.torture_run.broken.Broken"
    )
    assert status == VIOLATED
    caught = {item["id"] for item in found["violations"]}
    assert {"M3", "X1"} <= caught
    kept = Path(found["kept_in"])
    assert (kept / "plan.json").exists()
    assert (kept / "database" / "payonce_order.csv").exists()
    assert (kept / "bank" / "bank.sqlite3").exists()
    assert list((kept / "logs").glob("*.log"))
