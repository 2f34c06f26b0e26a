"""Views of the rows for the console's menu: queues, each with its own permission, and the overview. They hold no rows of their own."""

from django.utils.translation import gettext_lazy as _

from payonce.payments.models.records import ChannelState, Discrepancy
from payonce.payments.models.refund import Refund


class NeedsDecision(Discrepancy):
    """Every open case: a person decides."""

    class Meta:
        proxy = True
        default_permissions = ("view",)
        verbose_name = _("case that needs a decision")
        verbose_name_plural = _("queue: needs decision")


class SurplusMoney(Discrepancy):
    """Duplicates, late payments, second captures: money that its order does not need."""

    class Meta:
        proxy = True
        default_permissions = ("view",)
        verbose_name = _("duplicate or late payment")
        verbose_name_plural = _("queue: duplicates and late payments")


class UnmatchedMoney(Discrepancy):
    """Money that matches no stream, or not the stream's amount, currency or account; statement differences."""

    class Meta:
        proxy = True
        default_permissions = ("view",)
        verbose_name = _("unmatched money")
        verbose_name_plural = _("queue: unmatched money")


class ShopNotTold(Discrepancy):
    """The shop was not told, and every retry failed."""

    class Meta:
        proxy = True
        default_permissions = ("view",)
        verbose_name = _("shop not told")
        verbose_name_plural = _("queue: shop not told")


class RefundsToApprove(Refund):
    """Refunds that wait for a second person."""

    class Meta:
        proxy = True
        default_permissions = ("view",)
        verbose_name = _("refund that waits for approval")
        verbose_name_plural = _("queue: refunds waiting approval")


class StuckRefunds(Refund):
    """Refunds that were refused, need a person at the channel, came back, or have no clear answer."""

    class Meta:
        proxy = True
        default_permissions = ("view",)
        verbose_name = _("failed or stuck refund")
        verbose_name_plural = _("queue: refunds failed or stuck")


class Overview(ChannelState):
    """The console's first page. Its permissions are what an operator may do on every page."""

    class Meta:
        proxy = True
        default_permissions = ("view",)
        verbose_name = _("overview")
        verbose_name_plural = _("overview")
        permissions = [
            ("view_raw", _("Can read raw notifications (recorded)")),
            ("ask", _("Can ask a channel now")),
            ("close", _("Can close streams and orders")),
            ("decide", _("Can decide cases, and resend or skip messages")),
            ("refund", _("Can ask for a refund")),
            ("approve", _("Can approve or decline a refund")),
            ("export", _("Can export lists")),
            ("manage", _("Can process notifications again")),
        ]
