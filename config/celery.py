"""The Celery application. `celery -A config.celery worker` and `celery -A config.celery beat` run it."""

import os
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import beat_init, worker_ready

from payonce.payments.beat import BEAT_SCHEDULE

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("payonce")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = BEAT_SCHEDULE


@worker_ready.connect
@beat_init.connect
def tell_ready(**_: Any) -> None:
    """Tell a supervisor that waits for it that this process works now."""
    if ready := os.environ.get("PAYONCE_READY_FILE"):
        Path(ready).touch()
