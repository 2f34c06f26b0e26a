"""`make bench` runs, keeps the hard gates, and says so in its exit status."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(960)  # a busy machine may take minutes for what takes seconds alone
BENCH_SECONDS = 900
URLS = {"DATABASE_URL", "REDIS_URL", "PYTEST_CURRENT_TEST"}


def bench(*arguments):
    environment = {name: value for name, value in os.environ.items() if name not in URLS}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], capture_output=True, text=True, timeout=BENCH_SECONDS, env=environment,
        check=False,
    )  # fmt: skip


def test_every_path_is_measured_beside_its_floor_and_keeps_its_gates():
    """Three rounds; the speed is whatever this machine gives, the counts are not."""
    done = bench("--seconds", "0.1", "--json", "-")
    assert done.returncode == 0, done.stderr
    records = {record["path"]: record for record in json.loads(done.stdout)}
    assert set(records) == {"pay", "notify", "notify, repeated", "pay, repeated click", "poll"}
    assert all(record["gates_hold"] and record["ratio"] > 0 and record["rounds"] == 3 for record in records.values())
    assert (records["pay"]["round_trips"], records["notify"]["round_trips"]) == (6, 4)


def test_a_wrong_argument_is_a_usage_error():
    """Exit status 2."""
    assert bench("--seconds", "0").returncode == 2
