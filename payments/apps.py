"""App configuration with a label that leaves `payments` free for the shop's own app."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class PaymentsConfig(AppConfig):
    """Streams, refunds and the path of a payment."""

    name = "payonce.payments"
    label = "payonce_payments"
    verbose_name = _("payonce payments")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Give the channels their accounts, watch amended orders, register the checks."""
        from payonce.channels import registry
        from payonce.orders import place
        from payonce.orders.conf import get_settings
        from payonce.payments import checks, close, messages  # noqa: F401  (checks register on import)

        registry.configure(lambda: get_settings().CHANNELS)
        if close.watch_before_amend not in place.before_amend:
            place.before_amend.append(close.watch_before_amend)
            place.on_events.append(messages.owe)
            place.after_amend.append(close.void_after_amend)
