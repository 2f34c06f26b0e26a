"""Order and Event: what must be paid exactly once, and its append-only history."""

from typing import Any

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from payonce.orders.statuses import OrderState

AMOUNT_MINOR_MAX = 1_000_000_000_000
"""No single order is larger than this; it keeps every sum far inside a bigint."""


class Order(models.Model):
    """What must be paid, exactly once: our own row, not the shop's model.

    `version` counts the order's events: it is the sequence of the newest one, the cache's fence and the API's ETag.
    `event_hash` is the newest event's hash, so that appending needs no second look at the history.
    """

    number = models.CharField(_("number"), max_length=32, unique=True)
    source = models.CharField(_("source"), max_length=64)
    reference = models.CharField(_("shop reference"), max_length=128)
    amount_minor = models.BigIntegerField(_("amount"))
    currency = models.CharField(_("currency"), max_length=3)
    subject = models.CharField(_("subject"), max_length=200)
    buyer_key = models.CharField(_("buyer key"), max_length=128, blank=True, default="")
    basket_key = models.CharField(_("basket key"), max_length=128, blank=True, default="")
    return_url = models.CharField(_("return address"), max_length=500, blank=True, default="")
    state = models.CharField(_("state"), max_length=16, choices=OrderState, default=OrderState.OPEN)
    keeper = models.CharField(_("keeper"), max_length=32, null=True, blank=True)
    refunded_minor = models.BigIntegerField(_("refunded"), default=0)
    created_at = models.DateTimeField(_("placed at"))
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True)
    paid_at = models.DateTimeField(_("paid at"), null=True, blank=True)
    closed_at = models.DateTimeField(_("closed at"), null=True, blank=True)
    close_reason = models.CharField(_("why closed"), max_length=32, blank=True, default="")
    next_expiry_at = models.DateTimeField(_("next expiry check"), null=True, blank=True)
    version = models.BigIntegerField(_("version"), default=0)
    event_hash = models.CharField(_("newest hash"), max_length=64, default="")

    class Meta:
        verbose_name = _("order")
        verbose_name_plural = _("orders")
        db_table = "payonce_order"
        constraints = [
            models.UniqueConstraint(fields=["source", "reference"], name="payonce_order_reference"),
            models.UniqueConstraint(fields=["keeper"], name="payonce_order_keeper"),
            models.CheckConstraint(
                condition=Q(amount_minor__gt=0, amount_minor__lte=AMOUNT_MINOR_MAX), name="payonce_order_amount"
            ),
            models.CheckConstraint(condition=Q(currency__regex=r"^[A-Z]{3}$"), name="payonce_order_currency"),
            models.CheckConstraint(condition=Q(state__in=OrderState.values), name="payonce_order_state"),
            models.CheckConstraint(
                condition=Q(state__in=[OrderState.PAID, OrderState.REFUNDED], keeper__isnull=False)
                | Q(state__in=[OrderState.OPEN, OrderState.CLOSING, OrderState.CLOSED], keeper__isnull=True),
                name="payonce_order_paid_keeper",
            ),
            models.CheckConstraint(condition=Q(refunded_minor__gte=0), name="payonce_order_refunded"),
        ]
        indexes = [
            models.Index(
                fields=["next_expiry_at"], name="payonce_order_expiry", condition=Q(next_expiry_at__isnull=False)
            ),
            models.Index(fields=["-created_at"], name="payonce_order_created"),
            models.Index(fields=["state", "-created_at"], name="payonce_order_by_state"),
            models.Index(fields=["reference"], name="payonce_order_ref_search"),
            models.Index(
                fields=["buyer_key", "basket_key", "created_at"],
                name="payonce_order_basket",
                condition=~Q(buyer_key="") & ~Q(basket_key=""),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.number} ({self.reference})"


class Event(models.Model):
    """One row of an order's history. `body` is sorted-key JSON text; `hash` is sha256 of the previous hash and the body.

    Rows are never updated or deleted: a database trigger refuses both.
    """

    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="events", verbose_name=_("order"))
    sequence = models.BigIntegerField(_("sequence"))
    kind = models.CharField(_("kind"), max_length=48)
    subject = models.CharField(_("subject"), max_length=40, blank=True, default="")
    state_from = models.CharField(_("from"), max_length=20, blank=True, default="")
    state_to = models.CharField(_("to"), max_length=20, blank=True, default="")
    actor = models.CharField(_("who"), max_length=160)
    at = models.DateTimeField(_("at"))
    body = models.TextField(_("body"))
    hash = models.CharField(_("hash"), max_length=64)

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        db_table = "payonce_event"
        ordering = ["order_id", "sequence"]
        constraints = [
            models.UniqueConstraint(fields=["order", "sequence"], name="payonce_event_sequence"),
            models.CheckConstraint(condition=Q(sequence__gt=0), name="payonce_event_positive"),
            models.CheckConstraint(condition=~Q(state_from=F("state_to")) | Q(state_to=""), name="payonce_event_moves"),
        ]
        indexes = [models.Index(fields=["-at"], name="payonce_event_at")]

    def __str__(self) -> str:
        return f"{self.kind} #{self.sequence}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Insert only: history has no second version."""
        super().save(*args, **{**kwargs, "force_insert": True})
