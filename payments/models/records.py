"""What lies around the money: the inbox, discrepancies, messages to the shop, API callers and channel health."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from payonce.orders.models import Order
from payonce.payments.models.refund import Refund
from payonce.payments.models.stream import Stream
from payonce.payments.statuses import Decision, DiscrepancyKind, DiscrepancyState, MessageState, NotificationState


class Notification(models.Model):
    """One verified notification, once per account and dedupe key; or a minute's count of refused ones (FORGED).

    `body` holds the exact bytes until `payonce_purge` blanks them; `parsed` is the adapter's reading as JSON, so that the
    sweep that applies a RECEIVED one needs no second verification.
    """

    account = models.CharField(_("channel account"), max_length=32)
    dedupe_key = models.CharField(_("dedupe key"), max_length=128)
    state = models.CharField(_("state"), max_length=12, choices=NotificationState)
    event = models.CharField(_("event"), max_length=64, blank=True, default="")
    number = models.CharField(_("number"), max_length=64, blank=True, default="")
    result = models.CharField(_("result"), max_length=32, blank=True, default="")
    count = models.IntegerField(_("count"), default=1)
    headers = models.TextField(_("headers"), blank=True, default="")
    body = models.BinaryField(_("body"), default=b"")
    parsed = models.TextField(_("reading"), blank=True, default="")
    received_at = models.DateTimeField(_("received at"))
    processed_at = models.DateTimeField(_("processed at"), null=True, blank=True)
    next_try_at = models.DateTimeField(_("next try"), null=True, blank=True)
    try_count = models.IntegerField(_("tries"), default=0)
    error = models.CharField(_("error"), max_length=300, blank=True, default="")

    class Meta:
        verbose_name = _("notification")
        verbose_name_plural = _("notifications")
        db_table = "payonce_notification"
        constraints = [
            models.UniqueConstraint(fields=["account", "dedupe_key"], name="payonce_notification_once"),
            models.CheckConstraint(condition=Q(state__in=NotificationState.values), name="payonce_notification_state"),
        ]
        indexes = [
            models.Index(
                fields=["next_try_at"], name="payonce_notification_due", condition=Q(next_try_at__isnull=False)
            ),
            models.Index(fields=["-received_at"], name="payonce_notification_at"),
            models.Index(fields=["number"], name="payonce_notification_number"),
        ]

    def __str__(self) -> str:
        return f"{self.account} {self.dedupe_key}"


class Discrepancy(models.Model):
    """A durable case for something that must be repaired or judged. `subject` is the number it is about.

    `evidence` is sorted-key JSON text without secrets. There is at most one unresolved case per kind and subject.
    """

    kind = models.CharField(_("kind"), max_length=20, choices=DiscrepancyKind)
    subject = models.CharField(_("subject"), max_length=128)
    state = models.CharField(_("state"), max_length=12, choices=DiscrepancyState)
    order = models.ForeignKey(
        Order, on_delete=models.PROTECT, null=True, blank=True, related_name="discrepancies", verbose_name=_("order")
    )
    stream = models.ForeignKey(
        Stream, on_delete=models.PROTECT, null=True, blank=True, related_name="discrepancies", verbose_name=_("stream")
    )
    refund = models.ForeignKey(
        Refund, on_delete=models.PROTECT, null=True, blank=True, related_name="discrepancies", verbose_name=_("refund")
    )
    account = models.CharField(_("channel account"), max_length=32, blank=True, default="")
    amount_minor = models.BigIntegerField(_("amount"), default=0)
    currency = models.CharField(_("currency"), max_length=3, blank=True, default="")
    summary = models.CharField(_("summary"), max_length=300)
    evidence = models.TextField(_("evidence"), blank=True, default="{}")
    decision = models.CharField(_("decision"), max_length=12, choices=Decision, blank=True, default="")
    decided_by = models.CharField(_("decided by"), max_length=150, blank=True, default="")
    note = models.CharField(_("note"), max_length=500, blank=True, default="")
    opened_at = models.DateTimeField(_("opened at"))
    resolved_at = models.DateTimeField(_("resolved at"), null=True, blank=True)

    class Meta:
        verbose_name = _("discrepancy")
        verbose_name_plural = _("discrepancies")
        db_table = "payonce_discrepancy"
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "account", "subject"],
                condition=~Q(state=DiscrepancyState.RESOLVED),
                name="payonce_case_one_open",
            ),
            models.CheckConstraint(condition=Q(state__in=DiscrepancyState.values), name="payonce_case_state"),
            models.CheckConstraint(
                condition=~Q(state=DiscrepancyState.RESOLVED) | ~Q(decision=""), name="payonce_case_decided"
            ),
        ]
        indexes = [
            models.Index(fields=["state", "kind", "opened_at"], name="payonce_case_queue"),
            models.Index(fields=["-opened_at"], name="payonce_case_opened"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.subject}"


class ShopMessage(models.Model):
    """One event owed to one listener: `shop` (the Python hooks) or the name of an HTTP endpoint. In order per order."""

    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="messages", verbose_name=_("order"))
    sequence = models.BigIntegerField(_("event"))
    listener = models.CharField(_("listener"), max_length=32)
    kind = models.CharField(_("kind"), max_length=48)
    body = models.TextField(_("body"))
    state = models.CharField(_("state"), max_length=12, choices=MessageState)
    created_at = models.DateTimeField(_("created at"))
    next_try_at = models.DateTimeField(_("next try"), null=True, blank=True)
    lease_until = models.DateTimeField(_("lease until"), null=True, blank=True)
    try_count = models.IntegerField(_("tries"), default=0)
    last_answer = models.CharField(_("last answer"), max_length=200, blank=True, default="")
    delivered_at = models.DateTimeField(_("delivered at"), null=True, blank=True)

    class Meta:
        verbose_name = _("message to the shop")
        verbose_name_plural = _("messages to the shop")
        db_table = "payonce_shop_message"
        constraints = [
            models.UniqueConstraint(fields=["order", "sequence", "listener"], name="payonce_message_once"),
            models.CheckConstraint(condition=Q(state__in=MessageState.values), name="payonce_message_state"),
        ]
        indexes = [
            models.Index(fields=["next_try_at"], name="payonce_message_due", condition=Q(state=MessageState.PENDING)),
            models.Index(
                fields=["order", "listener", "sequence"],
                name="payonce_message_order",
                condition=Q(state__in=[MessageState.PENDING, MessageState.PARKED]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} #{self.sequence} → {self.listener}"


class IdempotencyRecord(models.Model):
    """Binds a caller's Idempotency-Key to the stream or refund number that it made, never to a stored answer."""

    caller = models.CharField(_("caller"), max_length=80)
    route = models.CharField(_("route"), max_length=120)
    key = models.CharField(_("key"), max_length=255)
    body_hash = models.CharField(_("body hash"), max_length=64)
    made = models.CharField(_("made"), max_length=32, blank=True, default="")
    lease_until = models.DateTimeField(_("lease until"))
    created_at = models.DateTimeField(_("created at"))

    class Meta:
        verbose_name = _("idempotency record")
        verbose_name_plural = _("idempotency records")
        db_table = "payonce_idempotency"
        constraints = [
            models.UniqueConstraint(fields=["caller", "route", "key"], name="payonce_idempotency_key"),
        ]
        indexes = [models.Index(fields=["created_at"], name="payonce_idempotency_age")]

    def __str__(self) -> str:
        return f"{self.caller} {self.key}"


class ApiClient(models.Model):
    """A shop's access to the API, bound to one `source`. Only the sha256 of its token is stored."""

    name = models.CharField(_("name"), max_length=64, unique=True)
    source = models.CharField(_("source"), max_length=64)
    token_hash = models.CharField(_("token hash"), max_length=64, unique=True)
    is_active = models.BooleanField(_("active"), default=True)
    created_at = models.DateTimeField(_("created at"))

    class Meta:
        verbose_name = _("API client")
        verbose_name_plural = _("API clients")
        db_table = "payonce_api_client"

    def __str__(self) -> str:
        return f"{self.name} ({self.source})"


class ChannelState(models.Model):
    """Health of one outside party: a channel account, an endpoint (`message:<name>`) or a process (`process:<name>`)."""

    name = models.CharField(_("name"), max_length=64, unique=True)
    failure_count = models.IntegerField(_("failures in a row"), default=0)
    open_until = models.DateTimeField(_("not asked before"), null=True, blank=True)
    last_success_at = models.DateTimeField(_("last success"), null=True, blank=True)
    last_failure_at = models.DateTimeField(_("last failure"), null=True, blank=True)
    last_failure = models.CharField(_("last failure text"), max_length=200, blank=True, default="")
    last_notification_at = models.DateTimeField(_("last notification"), null=True, blank=True)
    foreign_count = models.BigIntegerField(_("notifications about other numbers"), default=0)

    class Meta:
        verbose_name = _("channel")
        verbose_name_plural = _("channels")
        db_table = "payonce_channel_state"

    def __str__(self) -> str:
        return self.name
