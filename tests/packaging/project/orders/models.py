"""The shop's own orders, with the same class names as payonce's."""

from django.conf import settings
from django.db import models


class Order(models.Model):
    """A book that somebody wants."""

    title = models.CharField(max_length=80)
    amount_minor = models.BigIntegerField()
    currency = models.CharField(max_length=3, default="EUR")
    is_paid = models.BooleanField(default=False)

    def __str__(self) -> str:
        return self.title


if settings.USES_DJANGO_PAYMENTS:
    from payments.models import BasePayment

    class ShopPayment(BasePayment):
        """What django-payments asks a shop for."""
