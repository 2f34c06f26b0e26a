"""What may become what, and what a shop is owed: written down a second time on purpose, from the design and not from the code."""

Arrows = frozenset[tuple[str, str]]

ORDER_ARROWS: Arrows = frozenset(
    {("", "OPEN"), ("OPEN", "PAID"), ("CLOSING", "PAID"), ("CLOSED", "PAID"), ("OPEN", "CLOSING"), ("CLOSING", "CLOSED"),
     ("PAID", "REFUNDED"), ("REFUNDED", "PAID")}
)  # fmt: skip
STREAM_ARROWS: Arrows = frozenset(
    {("", "CREATED"), ("", "SUCCEEDED"), ("CREATED", "PENDING"), ("CLOSING", "PENDING"), ("PROCESSING", "PENDING"),
     ("CREATED", "PROCESSING"), ("PENDING", "PROCESSING"), ("CLOSING", "PROCESSING"), ("PENDING", "CAPTURING"),
     ("PROCESSING", "CAPTURING"), ("CREATED", "CLOSING"), ("PENDING", "CLOSING"), ("CREATED", "FAILED"),
     ("CAPTURING", "FAILED")}
    | {(state, "CLOSED") for state in ("CREATED", "PENDING", "PROCESSING", "CAPTURING", "CLOSING")}
    | {(state, "SUCCEEDED") for state in ("CREATED", "PENDING", "PROCESSING", "CAPTURING", "CLOSING", "CLOSED", "FAILED")}
)  # fmt: skip
REFUND_ARROWS: Arrows = frozenset(
    {("", "AWAITING_APPROVAL"), ("", "REQUESTED"), ("AWAITING_APPROVAL", "REQUESTED"), ("AWAITING_APPROVAL", "DECLINED"),
     ("REQUESTED", "DECLINED"), ("REQUESTED", "SUBMITTED"), ("REQUESTED", "UNKNOWN"), ("REQUESTED", "ATTENTION"),
     ("REQUESTED", "REJECTED"), ("REQUESTED", "SUCCEEDED"), ("SUBMITTED", "UNKNOWN"), ("SUBMITTED", "ATTENTION"),
     ("SUBMITTED", "REJECTED"), ("SUBMITTED", "SUCCEEDED"), ("UNKNOWN", "SUBMITTED"), ("UNKNOWN", "ATTENTION"),
     ("UNKNOWN", "REJECTED"), ("UNKNOWN", "SUCCEEDED"), ("ATTENTION", "SUBMITTED"), ("ATTENTION", "REJECTED"),
     ("ATTENTION", "SUCCEEDED"), ("ATTENTION", "REQUESTED"), ("REJECTED", "REQUESTED"), ("REJECTED", "SUCCEEDED"),
     ("SUCCEEDED", "RETURNED")}
)  # fmt: skip
CASE_ARROWS: Arrows = frozenset(
    {("", "OPEN"), ("", "REPAIRING"), ("OPEN", "REPAIRING"), ("REPAIRING", "OPEN"), ("OPEN", "RESOLVED"), ("REPAIRING", "RESOLVED")}
)  # fmt: skip
ARROWS = {"order": ORDER_ARROWS, "stream": STREAM_ARROWS, "refund": REFUND_ARROWS, "case": CASE_ARROWS}

OPEN_STATES = frozenset({"CREATED", "PENDING", "PROCESSING", "CAPTURING"})
BLOCKING_STATES = frozenset({"PROCESSING", "CAPTURING"})
UNFINISHED_STREAMS = OPEN_STATES | {"CLOSING"}
ACTIVE_REFUNDS = frozenset({"AWAITING_APPROVAL", "REQUESTED", "SUBMITTED", "UNKNOWN", "ATTENTION"})
MOVING_REFUNDS = frozenset({"REQUESTED", "SUBMITTED", "UNKNOWN", "ATTENTION"})
PAID_STATES = frozenset({"PAID", "REFUNDED"})
PURPOSE_LETTERS = {"surplus": "s", "operator": "p"}
CLOSE_PROOFS = frozenset({"answer", "query", "expiry", "restraint"})
PUBLISHED = frozenset(
    {"order.paid", "order.closed", "order.refunded", "order.partly_refunded", "order.refund_returned", "order.amended",
     "refund.succeeded", "refund.rejected", "refund.returned", "case.opened", "case.resolved"}
)  # fmt: skip
AUTOMATON = "payonce"
"""Who asks for a refund that no person asked for."""
