"""Celery tasks: each makes one call, returns the outcome, and is safe to run twice. Times to try again live in rows, not in the broker."""

from celery import shared_task
from django.db import connections

from payonce.orders.conf import get_settings
from payonce.payments import cache, sweep


def _run(name: str) -> int:
    # Celery keeps a connection for many tasks (CELERY_DB_REUSE_MAX) and never looks whether it is still one: a worker whose
    # connection was lost would fail every task until it is due for a new one.
    connection = connections[get_settings().DATABASE]
    if connection.errors_occurred and not connection.in_atomic_block:
        connection.close()
    cache.end_kick(f"payonce.{name}")
    return sweep.SWEEPS[name][0]()


@shared_task(name="payonce.poll", ignore_result=True)
def poll() -> int:
    """Ask channels about due streams."""
    return _run("poll")


@shared_task(name="payonce.close", ignore_result=True)
def close() -> int:
    """Go on closing streams."""
    return _run("close")


@shared_task(name="payonce.refund", ignore_result=True)
def refund() -> int:
    """Carry due refunds out."""
    return _run("refund")


@shared_task(name="payonce.expire", ignore_result=True)
def expire() -> int:
    """Close orders whose time is over."""
    return _run("expire")


@shared_task(name="payonce.publish", ignore_result=True)
def publish() -> int:
    """Deliver due messages to the shop."""
    return _run("publish")


@shared_task(name="payonce.inbox", ignore_result=True)
def inbox() -> int:
    """Apply stored notifications."""
    return _run("inbox")


@shared_task(name="payonce.reconcile", ignore_result=True)
def reconcile() -> int:
    """Look for contradictions among our own rows."""
    return _run("reconcile")


@shared_task(name="payonce.statement", ignore_result=True)
def statement() -> int:
    """Fetch the channels' statements of days that are over, and compare them with our rows."""
    return _run("statement")
