"""When each sweep runs. Nothing is imported here: a shop's Celery application reads this before Django is set up."""

from typing import Any

SECONDS = {
    "poll": 2.0, "close": 5.0, "refund": 5.0, "expire": 5.0, "publish": 5.0, "inbox": 5.0, "reconcile": 300.0, "statement": 600.0,
}  # fmt: skip
"""Each sweep's interval."""
EXPIRES_SECONDS = 3_600.0
"""Long, since a worker judges it by its own clock; it only bounds what piles up while no worker runs."""
BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    f"payonce-{name}": {"task": f"payonce.{name}", "schedule": seconds, "options": {"expires": EXPIRES_SECONDS}}
    for name, seconds in SECONDS.items()
}
"""Put this into your Celery `beat_schedule`. Two beats at once do no harm."""
