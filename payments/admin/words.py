"""Words for the values that steps write down: a page says `paid twice`, where the row says `duplicate`."""

from typing import Any

from django.utils.translation import gettext_lazy as _

from payonce.channels.messages import RefundState as RefundAnswer
from payonce.payments.settle import Settled
from payonce.payments.statuses import Confirmation, Decision, DiscrepancyKind, RefundPurpose, StreamRole, SurplusReason
from payonce.payments.surplus import GIVEN_UP

REASON_NAMES = (
    ("requested_by_customer", _("asked by the customer")),
    ("duplicate", _("paid twice")),
    ("out_of_stock", _("out of stock")),
    ("fraudulent", _("fraud")),
    ("other", _("other (say it in the note)")),
)
"""What an operator may choose; `payments.refund.REASONS` are the values."""
REASONS: dict[str, Any] = {
    **dict(SurplusReason.choices), **dict(REASON_NAMES), "other": _("other"),
    "returned": _("the first refund came back"), "prepay expired": _("the code was over"),
    "buyer chose another way": _("the buyer chose another way"), "asked to close": _("asked to close"),
    "closed by operator": _("closed by an operator"), "approval expired": _("the approval ran out"),
    "cancelled": _("cancelled by the shop"), "expired": _("expired"), "order cancelled": _("order cancelled by the shop"),
    "order expired": _("order expired"), GIVEN_UP: _("given up by a person"),
}  # fmt: skip
"""Why a refund is made, and why a stream or an order is closed. A shop's own words stay as they are."""
RESULTS: dict[str, Any] = {
    Settled.KEEPER: _("the order is paid by it"), Settled.SURPLUS: _("money that is not needed"), Settled.REPEAT: _("known already"),
    Settled.CLOSED: _("the stream is closed"), Settled.PROCESSING: _("the money is on its way"),
    Settled.APPROVED: _("approved, to be captured"),
    Settled.WAITING: _("nothing yet"), Settled.CONTRADICTION: _("contradicts what was known"),
    Settled.WRONG_ACCOUNT: _("another account's stream"), Settled.NO_NEWS: _("older than what is known"),
    "asked": _("the channel is asked"), "orphan": _("no stream of ours: a case"), "foreign": _("not ours"),
    RefundAnswer.IN_PROGRESS: _("the refund is on its way"), RefundAnswer.DONE: _("the refund is done"),
    RefundAnswer.FAILED: _("the refund failed"), RefundAnswer.ATTENTION: _("the refund needs a person"),
    RefundAnswer.RETURNED: _("the refund came back"), RefundAnswer.NOT_FOUND: _("no such refund"),
}  # fmt: skip
"""What a notification came to."""
WORDS: dict[str, dict[Any, Any]] = {
    "role": dict(StreamRole.choices), "surplus": dict(SurplusReason.choices), "case": dict(DiscrepancyKind.choices),
    "confirmed_by": dict(Confirmation.choices), "purpose": dict(RefundPurpose.choices), "reason": REASONS,
    "decision": dict(Decision.choices), "result": RESULTS,
}  # fmt: skip


def say(name: str, value: Any) -> str:
    """The value of a fact in words, or as it is where it is somebody's own text."""
    return str(WORDS.get(name, {}).get(value, value))
