"""What channels' statements (对账单) say: one row per account and day, and the lines of each day."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class StatementDay(models.Model):
    """One day of one account, in the channel's own calendar. Fetched, then compared with our rows; due until both are done.

    `wanted_at` is when it was planned, or asked for once more. `next_try_at` is None once there is nothing left to do.
    `difference_count` counts the lines and rows for which the comparison had to ask or tell somebody, `foreign_count` the
    lines about other people's numbers.
    """

    account = models.CharField(_("channel account"), max_length=32)
    day = models.DateField(_("day"))
    fetched_at = models.DateTimeField(_("fetched at"), null=True, blank=True)
    compared_at = models.DateTimeField(_("compared at"), null=True, blank=True)
    line_count = models.IntegerField(_("lines"), default=0)
    difference_count = models.IntegerField(_("differences"), default=0)
    foreign_count = models.IntegerField(_("lines about other numbers"), default=0)
    next_try_at = models.DateTimeField(_("next try"), null=True, blank=True)
    try_count = models.IntegerField(_("tries"), default=0)
    last_answer = models.CharField(_("last answer"), max_length=200, blank=True, default="")
    wanted_at = models.DateTimeField(_("wanted since"))

    class Meta:
        verbose_name = _("statement")
        verbose_name_plural = _("statements")
        db_table = "payonce_statement_day"
        constraints = [
            models.UniqueConstraint(fields=["account", "day"], name="payonce_statement_once"),
            models.CheckConstraint(
                condition=Q(fetched_at__isnull=False) | Q(compared_at__isnull=True), name="payonce_statement_order"
            ),
        ]
        indexes = [
            models.Index(fields=["next_try_at"], name="payonce_statement_due", condition=Q(next_try_at__isnull=False)),
            models.Index(fields=["-day"], name="payonce_statement_by_day"),
        ]

    def __str__(self) -> str:
        return f"{self.account} {self.day}"


class StatementLine(models.Model):
    """One line, as `channels.messages.StatementLine` describes it: `kind` is payment or refund, amounts are minor units."""

    statement = models.ForeignKey(
        StatementDay, on_delete=models.CASCADE, related_name="lines", verbose_name=_("statement")
    )
    account = models.CharField(_("channel account"), max_length=32)
    kind = models.CharField(_("kind"), max_length=8)
    number = models.CharField(_("number"), max_length=128, blank=True, default="")
    channel_reference = models.CharField(_("channel reference"), max_length=128, blank=True, default="")
    payment_number = models.CharField(_("number of the payment"), max_length=128, blank=True, default="")
    payment_reference = models.CharField(_("reference of the payment"), max_length=128, blank=True, default="")
    amount_minor = models.BigIntegerField(_("amount"))
    currency = models.CharField(_("currency"), max_length=3)
    at = models.DateTimeField(_("at (channel)"), null=True, blank=True)
    state = models.CharField(_("state"), max_length=64, blank=True, default="")
    came_to = models.CharField(_("came to"), max_length=12, default="DONE")

    class Meta:
        verbose_name = _("statement line")
        verbose_name_plural = _("statement lines")
        db_table = "payonce_statement_line"
        constraints = [
            models.CheckConstraint(condition=Q(kind__in=("payment", "refund")), name="payonce_line_kind"),
        ]
        indexes = [
            models.Index(fields=["account", "number"], name="payonce_line_number"),
            models.Index(
                fields=["account", "channel_reference"], name="payonce_line_ref", condition=~Q(channel_reference="")
            ),
            models.Index(
                fields=["account", "payment_number"], name="payonce_line_payment", condition=~Q(payment_number="")
            ),
            models.Index(
                fields=["account", "payment_reference"], name="payonce_line_pay_ref", condition=~Q(payment_reference="")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.number or self.channel_reference}"
