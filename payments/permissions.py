"""What an operator may do, and the ready groups. Seeing a page is Django's own `view_…` permission of its model."""

from collections.abc import Mapping
from enum import StrEnum


class Permission(StrEnum):
    """Permissions of the console, as `user.has_perm` takes them."""

    VIEW_RAW = "payonce_payments.view_raw"
    ASK = "payonce_payments.ask"
    CLOSE = "payonce_payments.close"
    DECIDE = "payonce_payments.decide"
    REFUND = "payonce_payments.refund"
    APPROVE = "payonce_payments.approve"
    EXPORT = "payonce_payments.export"
    MANAGE = "payonce_payments.manage"


VIEWED_MODELS = (
    "payonce_orders.order", "payonce_orders.event", "payonce_payments.stream", "payonce_payments.refund",
    "payonce_payments.notification", "payonce_payments.discrepancy", "payonce_payments.shopmessage",
    "payonce_payments.channelstate", "payonce_payments.overview", "payonce_payments.needsdecision",
    "payonce_payments.surplusmoney", "payonce_payments.unmatchedmoney", "payonce_payments.shopnottold",
    "payonce_payments.refundstoapprove", "payonce_payments.stuckrefunds", "payonce_payments.statementday",
)  # fmt: skip
"""Models with a page in the console: every group may see all of them."""

GROUPS: Mapping[str, tuple[Permission, ...]] = {
    "Viewer": (),
    "Support": (Permission.ASK, Permission.CLOSE),
    "Finance": (Permission.ASK, Permission.CLOSE, Permission.DECIDE, Permission.REFUND, Permission.EXPORT),
    "Approver": (Permission.ASK, Permission.APPROVE),
    "Admin": tuple(Permission),
}
"""What each ready group may do besides seeing. An Admin may do everything; the approver of a refund is never its requester."""


def view_permission(model_label: str) -> str:
    """`payonce_payments.stream` → `payonce_payments.view_stream`."""
    app_label, _, model = model_label.partition(".")
    return f"{app_label}.view_{model}"
