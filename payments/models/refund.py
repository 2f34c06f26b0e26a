"""Refund: money back for one stream, under one refund number for life, with its approval."""

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from payonce.payments.models.stream import Stream
from payonce.payments.statuses import ACTIVE_REFUND_STATES, RefundPurpose, RefundState


class Refund(models.Model):
    """One refund. `number` is a function of (stream, purpose, sequence) and committed before the channel is asked.

    `open_call_count` counts the calls that got no definite answer: while there is one, nothing proves that the number moved
    nothing. Its amount counts in the stream's `refund_reserved_minor` until `is_released`: declined, returned, or proven to have
    moved nothing. `requested_by` and `approved_by` are user names; the database refuses the same person twice.
    """

    number = models.CharField(_("number"), max_length=32, unique=True)
    stream = models.ForeignKey(Stream, on_delete=models.PROTECT, related_name="refunds", verbose_name=_("stream"))
    purpose = models.CharField(_("purpose"), max_length=16, choices=RefundPurpose)
    sequence = models.IntegerField(_("sequence"))
    amount_minor = models.BigIntegerField(_("amount"))
    currency = models.CharField(_("currency"), max_length=3)
    state = models.CharField(_("state"), max_length=20, choices=RefundState)
    is_released = models.BooleanField(_("reservation released"), default=False)
    reason = models.CharField(_("reason"), max_length=32)
    note = models.CharField(_("note"), max_length=500, blank=True, default="")
    requested_by = models.CharField(_("requested by"), max_length=150)
    approved_by = models.CharField(_("decided by"), max_length=150, blank=True, default="")
    approval_expires_at = models.DateTimeField(_("approval expires at"), null=True, blank=True)
    channel_reference = models.CharField(_("channel reference"), max_length=128, blank=True, default="")
    created_at = models.DateTimeField(_("requested at"))
    first_sent_at = models.DateTimeField(_("first sent at"), null=True, blank=True)
    last_sent_at = models.DateTimeField(_("last sent at"), null=True, blank=True)
    replay_safe_until = models.DateTimeField(_("repeat is safe until"), null=True, blank=True)
    open_call_count = models.IntegerField(_("unanswered calls"), default=0)
    accepted_at = models.DateTimeField(_("accepted at"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)
    next_try_at = models.DateTimeField(_("next try"), null=True, blank=True)
    try_count = models.IntegerField(_("tries"), default=0)
    call_lease = models.CharField(_("call lease"), max_length=32, blank=True, default="")
    call_lease_until = models.DateTimeField(_("call lease until"), null=True, blank=True)
    last_answer = models.CharField(_("last answer"), max_length=128, blank=True, default="")
    last_answer_at = models.DateTimeField(_("last answer at"), null=True, blank=True)

    class Meta:
        verbose_name = _("refund")
        verbose_name_plural = _("refunds")
        db_table = "payonce_refund"
        constraints = [
            models.UniqueConstraint(fields=["stream", "purpose", "sequence"], name="payonce_refund_sequence"),
            models.UniqueConstraint(
                fields=["stream"], condition=Q(state__in=ACTIVE_REFUND_STATES), name="payonce_refund_one_active"
            ),
            models.CheckConstraint(condition=Q(amount_minor__gt=0, sequence__gt=0), name="payonce_refund_amount"),
            models.CheckConstraint(condition=Q(state__in=RefundState.values), name="payonce_refund_state"),
            models.CheckConstraint(
                condition=Q(approved_by="") | ~Q(approved_by=F("requested_by")), name="payonce_refund_two_persons"
            ),
            models.CheckConstraint(
                condition=Q(is_released=False)
                | Q(state__in=[RefundState.DECLINED, RefundState.RETURNED, RefundState.REJECTED]),
                name="payonce_refund_released",
            ),
        ]
        indexes = [
            models.Index(fields=["next_try_at"], name="payonce_refund_due", condition=Q(next_try_at__isnull=False)),
            models.Index(fields=["-created_at"], name="payonce_refund_created"),
            models.Index(fields=["state", "-created_at"], name="payonce_refund_by_state"),
            models.Index(
                fields=["approval_expires_at"],
                name="payonce_refund_approval",
                condition=Q(state=RefundState.AWAITING_APPROVAL),
            ),
        ]

    def __str__(self) -> str:
        return self.number
