"""Rows of the payments app."""

from payonce.payments.models.records import (
    ApiClient,
    ChannelState,
    Discrepancy,
    IdempotencyRecord,
    Notification,
    ShopMessage,
)
from payonce.payments.models.refund import Refund
from payonce.payments.models.stream import Stream

__all__ = [
    "ApiClient",
    "ChannelState",
    "Discrepancy",
    "IdempotencyRecord",
    "Notification",
    "Refund",
    "ShopMessage",
    "Stream",
]
