"""The one place that hands work to Celery. A task is only a nudge: a sweep would find the same work anyway."""

import logging
import time

from celery import current_app

from payonce.payments import cache

log = logging.getLogger("payonce.enqueue")
KICK_MS = 2_000
PAUSE_SECONDS = 5.0
_paused_until = 0.0


def kick(task: str) -> None:
    """Start a sweep soon, for example `payonce.publish`: one task for many commits. Never raises, never waits for a dead broker."""
    global _paused_until
    if not current_app.conf.broker_url or time.monotonic() < _paused_until or not cache.claim_kick(task, KICK_MS):
        return
    try:
        current_app.send_task(task, ignore_result=True, retry=False, expires=3_600)
    except Exception as error:  # noqa: BLE001 - whatever a broker's client raises, the sweep does the work
        _paused_until = time.monotonic() + PAUSE_SECONDS
        log.warning("the broker does not take %s (%s); the sweep will do it", task, type(error).__name__)


def start_job(task: str, *args: object) -> None:
    """Hand a long piece of work that an operator asked for to a worker. Raises when the broker does not take it."""
    current_app.send_task(task, args=args, ignore_result=True, retry=False)
