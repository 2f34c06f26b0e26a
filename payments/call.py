"""Call a channel from a step: never inside a transaction, never while holding a pooled database connection."""

from collections.abc import Callable
from typing import TypeVar

from django.db import connections

from payonce.channels import http, registry
from payonce.channels.base import Channel, Conversation
from payonce.channels.errors import ChannelError
from payonce.channels.messages import Capabilities, Outcome, Unknown
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


def capabilities_of(stream: Stream) -> Capabilities | None:
    """What the stream's account can do, or None when it is no longer configured."""
    try:
        return registry.channel(stream.account).capabilities
    except ChannelError:
        return None
