"""App configuration with a label that leaves `orders` free for the shop's own app."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class OrdersConfig(AppConfig):
    """Orders and their append-only history."""

    name = "payonce.orders"
    label = "payonce_orders"
    verbose_name = _("payonce orders")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks of PAYONCE."""
        from payonce.orders import checks  # noqa: F401  (registers on import)
