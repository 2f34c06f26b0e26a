"""Call a channel from a step: never inside a transaction, never while holding a pooled database connection."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from django.db import connections

from payonce.channels import http, registry
from payonce.channels.base import Channel, Conversation
from payonce.channels.errors import ChannelError
from payonce.channels.messages import Capabilities, Outcome, Refused, Unknown
from payonce.orders.conf import get_settings
from payonce.payments.errors import InsideTransaction
from payonce.payments.models import Stream

T = TypeVar("T")


def call(account: str, start: Callable[[Channel], Conversation[Outcome[T]]]) -> Outcome[T]:
    """Run one conversation with a channel and return its outcome. An account that is not configured is Unknown: not failed.

    Raises InsideTransaction when a transaction is open: its locks would be held for as long as the channel takes.
    """
    let_go_of_database()
    try:
        channel = registry.channel(account)
    except ChannelError as error:
        return Unknown(f"not configured: {error}")
    return http.run(start(channel))


def let_go_of_database() -> None:
    """Give a pooled connection back; an unpooled one is kept, since opening another costs more than holding it."""
    connection = connections[get_settings().DATABASE]
    if connection.in_atomic_block:
        raise InsideTransaction("A channel must not be called inside a transaction: commit the intent first.")
    if connection.settings_dict.get("OPTIONS", {}).get("pool"):
        connection.close()


def replay_safe_until(stored: datetime | None, outcome: Outcome[Any]) -> datetime | None:
    """Until when the same request may be repeated, after this outcome: the sooner of what was stored and what the channel says."""
    told = outcome.replay_safe_until if isinstance(outcome, Unknown) else None
    return min((until for until in (stored, told) if until is not None), default=None)


def why_not(outcome: Refused | Unknown) -> str:
    """Why there is no definite answer, in a few words for a row."""
    return outcome.reason if isinstance(outcome, Unknown) else f"{outcome.kind.value}: {outcome.code}"


def is_own_merchant(stream: Stream, merchant: str) -> bool:
    """Does a message that names this merchant speak of the stream's account? An empty name says nothing else."""
    try:
        own = registry.channel(stream.account).merchant
    except ChannelError:
        return not merchant
    return not merchant or not own or merchant == own


def capabilities_of(stream: Stream) -> Capabilities | None:
    """What the stream's account can do, or None when it is no longer configured."""
    try:
        return registry.channel(stream.account).capabilities
    except ChannelError:
        return None
