"""States of an order, each with its meaning. The legal arrows live in `transitions`."""

from django.db import models
from django.utils.translation import gettext_lazy as _


class OrderState(models.TextChoices):
    """`OPEN → PAID`, `OPEN → CLOSING → CLOSED`, `CLOSED → PAID` (late money), `PAID ↔ REFUNDED`."""

    OPEN = "OPEN", _("open")  # may be paid
    CLOSING = "CLOSING", _("closing")  # refuses new payments; money still settles it
    CLOSED = "CLOSED", _("closed")  # expired or cancelled; late money is judged by the shop
    PAID = "PAID", _("paid")  # has its keeper
    REFUNDED = "REFUNDED", _("refunded")  # everything was given back


class LateDecision(models.TextChoices):
    """What a shop says about money for an order that was already closed."""

    ACCEPT = "ACCEPT", _("accept")  # the order is paid after all
    REFUND = "REFUND", _("refund")  # give it back by itself
    ASK = "ASK", _("ask a person")  # open a discrepancy and wait
