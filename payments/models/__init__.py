"""Rows of the payments app."""

from payonce.payments.models.console import (
    NeedsDecision,
    Overview,
    RefundsToApprove,
    ShopNotTold,
    StuckRefunds,
    SurplusMoney,
    UnmatchedMoney,
)
from payonce.payments.models.records import (
    ApiClient,
    ChannelState,
    Discrepancy,
    IdempotencyRecord,
    Notification,
    ShopMessage,
)
from payonce.payments.models.refund import Refund
from payonce.payments.models.statement import StatementDay, StatementLine
from payonce.payments.models.stream import Stream

__all__ = [
    "ApiClient",
    "ChannelState",
    "Discrepancy",
    "IdempotencyRecord",
    "NeedsDecision",
    "Notification",
    "Overview",
    "Refund",
    "RefundsToApprove",
    "ShopMessage",
    "ShopNotTold",
    "StatementDay",
    "StatementLine",
    "Stream",
    "StuckRefunds",
    "SurplusMoney",
    "UnmatchedMoney",
]
