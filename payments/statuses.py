"""States of streams, refunds, discrepancies and the rest, each with its meaning. The legal arrows live in `transitions`."""

from django.db import models
from django.utils.translation import gettext_lazy as _


class StreamState(models.TextChoices):
    """One attempt to pay one order through one channel."""

    CREATED = "CREATED", _("created")  # committed with its number; the channel has not surely answered
    PENDING = "PENDING", _("waiting for the buyer")  # the channel took it; the buyer can pay
    PROCESSING = "PROCESSING", _("being confirmed")  # the buyer has acted; blocks switching and closing
    CAPTURING = "CAPTURING", _("being captured")  # the capture is ours and has been asked
    CLOSING = "CLOSING", _("closing")  # not wanted any more, closing not proven; watched
    CLOSED = "CLOSED", _("closed")  # proven unpayable
    FAILED = "FAILED", _("failed")  # the channel definitely refused it
    SUCCEEDED = "SUCCEEDED", _("succeeded")  # money taken; final; reached from any other state


OPEN_STREAM_STATES = (StreamState.CREATED, StreamState.PENDING, StreamState.PROCESSING, StreamState.CAPTURING)
"""The buyer may be paying it: at most one per order."""
BLOCKING_STREAM_STATES = (StreamState.PROCESSING, StreamState.CAPTURING)
"""Money may be on its way: no switch, close or expiry passes it."""
WATCHED_STREAM_STATES = (*OPEN_STREAM_STATES, StreamState.CLOSING)
"""Money may still come by an ordinary way: asked by the ladder until answered."""


class StreamRole(models.TextChoices):
    """What a SUCCEEDED stream is to its order."""

    NONE = "", _("none")  # no money taken
    KEEPER = "keeper", _("keeper")  # settled the order
    SURPLUS = "surplus", _("surplus")  # took money and is not the keeper


class SurplusReason(models.TextChoices):
    """Why money is surplus."""

    NONE = "", _("none")
    DUPLICATE = "duplicate", _("duplicate")  # the order has a keeper
    LATE = "late", _("late payment")  # the order was closed
    MISMATCHED = "mismatched", _("mismatched")  # wrong amount or currency
    SECOND_CAPTURE = "second_capture", _("second capture")  # another reference under the same number


class RefundState(models.TextChoices):
    """Money back for one stream, under one refund number for life."""

    AWAITING_APPROVAL = "AWAITING_APPROVAL", _("waiting for approval")
    REQUESTED = "REQUESTED", _("requested")  # decided; the channel was not asked yet
    SUBMITTED = "SUBMITTED", _("submitted")  # the channel took it and works on it
    UNKNOWN = "UNKNOWN", _("outcome unknown")  # left only by a query, or a repeat under the same number
    ATTENTION = "ATTENTION", _("needs a person at the channel")  # keeps its reservation
    SUCCEEDED = "SUCCEEDED", _("refunded")
    REJECTED = "REJECTED", _("rejected")  # a definite no: a person decides; a retry keeps the number
    DECLINED = "DECLINED", _("declined")  # the approver said no, or it expired
    RETURNED = "RETURNED", _("returned")  # done, and the channel took it back


ACTIVE_REFUND_STATES = (
    RefundState.AWAITING_APPROVAL,
    RefundState.REQUESTED,
    RefundState.SUBMITTED,
    RefundState.UNKNOWN,
    RefundState.ATTENTION,
)
"""Not finished: at most one such refund per stream."""
TRIED_REFUND_STATES = (
    RefundState.REQUESTED,
    RefundState.SUBMITTED,
    RefundState.UNKNOWN,
    RefundState.ATTENTION,
    RefundState.SUCCEEDED,
)
"""Where a time of the next try means something: it is sent or asked about, also once more after it was done."""


UNMOVED_REFUND_STATES = (
    RefundState.AWAITING_APPROVAL,
    RefundState.REQUESTED,
    RefundState.REJECTED,
    RefundState.DECLINED,
)
"""Moved nothing, unless a call under its number is still unanswered."""


class RefundPurpose(models.TextChoices):
    """Who a refund is for. Part of its number."""

    SURPLUS = "surplus", _("surplus money")  # made by payonce, or decided by a person on a case
    OPERATOR = "operator", _("asked by a person")


class NotificationState(models.TextChoices):
    """A notification as it lies in the inbox."""

    RECEIVED = "RECEIVED", _("received")  # verified and durable; a sweep applies it
    PROCESSED = "PROCESSED", _("processed")  # applied; a repeat changes nothing
    FORGED = "FORGED", _("refused")  # counted per account and minute; nothing of it was believed


class DiscrepancyKind(models.TextChoices):
    """Why a person or a repair is needed."""

    DUPLICATE = "duplicate", _("paid twice")
    LATE_PAYMENT = "late_payment", _("late payment")
    MISMATCH = "mismatch", _("wrong amount, currency or account")
    ORPHAN = "orphan", _("money that matches no stream")
    SECOND_CAPTURE = "second_capture", _("second capture")
    DISPUTE = "dispute", _("dispute or reversal")
    OUTSIDE_REFUND = "outside_refund", _("money returned outside payonce")
    REFUND_STUCK = "refund_stuck", _("refund refused, stuck or returned")
    STREAM_UNCLEAR = "stream_unclear", _("stream without an answer")
    CONTRADICTION = "contradiction", _("channel contradicts itself")
    STATEMENT = "statement", _("statement difference")
    SECOND_ORDER = "second_order", _("suspected second order")
    SHOP_NOT_TOLD = "shop_not_told", _("shop not told")
    INCONSISTENT = "inconsistent", _("rows contradict each other")


class DiscrepancyState(models.TextChoices):
    """A case's life."""

    OPEN = "OPEN", _("open")  # in a person's queue
    REPAIRING = "REPAIRING", _("repairing")  # payonce is at work on it
    RESOLVED = "RESOLVED", _("resolved")


class Decision(models.TextChoices):
    """What a person decided about a case."""

    NONE = "", _("none")
    REFUND = "refund", _("refund it")
    KEEP = "keep", _("keep the money")
    ACCEPT = "accept", _("accept it as the order's payment")
    DISMISS = "dismiss", _("nothing to do")
    AUTOMATIC = "automatic", _("repaired by itself")


class MessageState(models.TextChoices):
    """One event owed to one listener of the shop."""

    PENDING = "PENDING", _("pending")
    DELIVERED = "DELIVERED", _("delivered")
    PARKED = "PARKED", _("waits for a person")  # every retry failed; holds the order's later messages
    SKIPPED = "SKIPPED", _("skipped by a person")


class Confirmation(models.TextChoices):
    """By way of what evidence a stream's money became known."""

    NONE = "", _("not confirmed")
    NOTIFICATION = "notification", _("notification")
    POLL = "poll", _("query by schedule")
    CLOSE = "close", _("close answer")
    CAPTURE = "capture", _("capture answer")
    PAY = "pay", _("query while paying")
    OPERATOR = "operator", _("query by an operator")
    STATEMENT = "statement", _("statement")
