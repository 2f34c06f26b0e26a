"""The schedule for Celery beat: complete, and readable before Django is set up, as a shop's celery.py reads it."""

import os
import subprocess
import sys
from pathlib import Path

from celery import current_app

from payonce.payments import tasks
from payonce.payments.beat import BEAT_SCHEDULE, SECONDS
from payonce.payments.sweep import SWEEPS

CHECKOUT = Path(__file__).resolve().parents[2]
CELERY_PY = """
from celery import Celery
from payonce.payments.beat import BEAT_SCHEDULE
app = Celery("myshop")
app.conf.beat_schedule |= BEAT_SCHEDULE
print(*sorted(app.conf.beat_schedule))
"""


def test_every_sweep_has_its_time_and_its_task() -> None:
    assert set(SECONDS) == set(SWEEPS)
    assert {entry["task"] for entry in BEAT_SCHEDULE.values()} == {f"payonce.{name}" for name in SWEEPS}
    assert {entry["task"] for entry in BEAT_SCHEDULE.values()} <= set(current_app.tasks), tasks


def test_a_shop_reads_it_before_django_is_set_up() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-c", CELERY_PY], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == sorted(BEAT_SCHEDULE), done.stderr
