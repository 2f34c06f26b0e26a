"""Stream: one attempt to pay one order through one channel (支付流水)."""

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from payonce.orders.models import Order
from payonce.payments.statuses import OPEN_STREAM_STATES, Confirmation, StreamRole, StreamState, SurplusReason


class Stream(models.Model):
    """One attempt. `number` is what the channel knows it by, unless `origin_number` is set.

    An adopted stream records money that no stream explains (a second capture, an orphan): its `origin_number` is the number
    the channel used and `channel_reference` the capture's own id, by which it is refunded. Times ending in `_at` and
    `_until` are the database's. `call_lease` names the process that may store a prepay's answer until `call_lease_until`.
    """

    number = models.CharField(_("number"), max_length=32, unique=True)
    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="streams", verbose_name=_("order"))
    attempt = models.IntegerField(_("attempt"))
    account = models.CharField(_("channel account"), max_length=32)
    method = models.CharField(_("method"), max_length=16)
    client_type = models.CharField(_("client type"), max_length=16, blank=True, default="")
    payer = models.CharField(_("payer"), max_length=128, blank=True, default="")
    amount_minor = models.BigIntegerField(_("amount"))
    currency = models.CharField(_("currency"), max_length=3)
    state = models.CharField(_("state"), max_length=16, choices=StreamState)
    role = models.CharField(_("role"), max_length=8, choices=StreamRole, blank=True, default=StreamRole.NONE)
    surplus_reason = models.CharField(_("why surplus"), max_length=16, choices=SurplusReason, blank=True, default="")
    channel_reference = models.CharField(_("channel reference"), max_length=128, null=True, blank=True)
    origin_number = models.CharField(_("number at the channel"), max_length=64, blank=True, default="")

    prepay_kind = models.CharField(_("prepay kind"), max_length=16, blank=True, default="")
    prepay_value = models.TextField(_("prepay"), blank=True, default="")
    prepay_expires_at = models.DateTimeField(_("prepay expires at"), null=True, blank=True)
    handed_out_at = models.DateTimeField(_("handed out at"), null=True, blank=True)
    payable_until = models.DateTimeField(_("payable until"))
    first_sent_at = models.DateTimeField(_("first sent at"), null=True, blank=True)
    replay_safe_until = models.DateTimeField(_("repeat is safe until"), null=True, blank=True)
    call_lease = models.CharField(_("call lease"), max_length=32, blank=True, default="")
    call_lease_until = models.DateTimeField(_("call lease until"), null=True, blank=True)
    capture_key = models.CharField(_("capture key"), max_length=40, blank=True, default="")

    next_check_at = models.DateTimeField(_("next check"), null=True, blank=True)
    check_count = models.IntegerField(_("checks"), default=0)
    nudged_at = models.DateTimeField(_("asked sooner at"), null=True, blank=True)
    last_answer = models.CharField(_("last answer"), max_length=64, blank=True, default="")
    last_answer_at = models.DateTimeField(_("last answer at"), null=True, blank=True)
    is_answer_unknown = models.BooleanField(_("last answer unknown"), default=False)
    is_watched = models.BooleanField(_("watched"), default=False)
    close_reason = models.CharField(_("why closing"), max_length=32, blank=True, default="")
    close_proof = models.CharField(_("proof of closing"), max_length=16, blank=True, default="")
    failure_code = models.CharField(_("failure code"), max_length=64, blank=True, default="")

    captured_minor = models.BigIntegerField(_("captured"), default=0)
    captured_currency = models.CharField(_("captured currency"), max_length=3, blank=True, default="")
    refund_reserved_minor = models.BigIntegerField(_("reserved for refunds"), default=0)
    channel_refunded_minor = models.BigIntegerField(_("refunded at the channel"), default=0)
    disputed_minor = models.BigIntegerField(_("disputed"), default=0)
    reversed_minor = models.BigIntegerField(_("reversed"), default=0)
    confirmed_by = models.CharField(_("confirmed by"), max_length=16, choices=Confirmation, blank=True, default="")
    created_at = models.DateTimeField(_("created at"))
    paid_at = models.DateTimeField(_("paid at (channel)"), null=True, blank=True)
    succeeded_at = models.DateTimeField(_("money known at"), null=True, blank=True)

    class Meta:
        verbose_name = _("stream")
        verbose_name_plural = _("streams")
        db_table = "payonce_stream"
        constraints = [
            models.UniqueConstraint(fields=["order", "attempt"], name="payonce_stream_attempt"),
            models.UniqueConstraint(
                fields=["order"], condition=Q(state__in=OPEN_STREAM_STATES), name="payonce_stream_one_open"
            ),
            models.UniqueConstraint(
                fields=["order"], condition=Q(role=StreamRole.KEEPER), name="payonce_stream_one_keeper"
            ),
            models.UniqueConstraint(
                fields=["account", "channel_reference"],
                condition=Q(channel_reference__isnull=False),
                name="payonce_stream_reference",
            ),
            models.CheckConstraint(
                condition=Q(amount_minor__gt=0, captured_minor__gte=0), name="payonce_stream_amount"
            ),
            models.CheckConstraint(
                condition=Q(refund_reserved_minor__gte=0, refund_reserved_minor__lte=F("captured_minor")),
                name="payonce_stream_reserved",
            ),
            models.CheckConstraint(condition=Q(state__in=StreamState.values), name="payonce_stream_state"),
            models.CheckConstraint(
                condition=Q(state=StreamState.SUCCEEDED, captured_minor__gt=0) & ~Q(role=StreamRole.NONE)
                | ~Q(state=StreamState.SUCCEEDED) & Q(role=StreamRole.NONE, captured_minor=0),
                name="payonce_stream_money",
            ),
            models.CheckConstraint(
                condition=~Q(role=StreamRole.KEEPER)
                | Q(captured_minor=F("amount_minor"), captured_currency=F("currency")),
                name="payonce_stream_keeper_match",
            ),
            models.CheckConstraint(
                condition=Q(role=StreamRole.SURPLUS) ^ Q(surplus_reason=SurplusReason.NONE),
                name="payonce_stream_surplus",
            ),
        ]
        indexes = [
            models.Index(
                fields=["account", "next_check_at"], name="payonce_stream_due", condition=Q(next_check_at__isnull=False)
            ),
            models.Index(
                fields=["account", "succeeded_at"], name="payonce_stream_known", condition=Q(succeeded_at__isnull=False)
            ),
            models.Index(fields=["-created_at"], name="payonce_stream_created"),
            models.Index(fields=["state", "-created_at"], name="payonce_stream_by_state"),
            models.Index(fields=["channel_reference"], name="payonce_stream_ref_search"),
        ]

    def __str__(self) -> str:
        return self.number

    @property
    def channel_number(self) -> str:
        """The number under which the channel knows it."""
        return self.origin_number or self.number

    @property
    def refundable_minor(self) -> int:
        """What a new refund could still give back, in minor units."""
        return self.captured_minor - self.refund_reserved_minor
