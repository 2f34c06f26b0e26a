"""The console: read-only pages over orders and payments in Django's admin, and the actions behind confirmation pages."""

from django.contrib import admin
from django.db import models

from payonce.orders.models import Event, Order
from payonce.payments.admin.base import ConsoleAdmin, with_theme
from payonce.payments.admin.cases import (
    DiscrepancyAdmin,
    QueueAdmin,
    ShopNotToldAdmin,
    SurplusMoneyAdmin,
    UnmatchedMoneyAdmin,
)
from payonce.payments.admin.channels import ChannelAdmin
from payonce.payments.admin.events import EventAdmin
from payonce.payments.admin.notifications import NotificationAdmin
from payonce.payments.admin.orders import OrderAdmin
from payonce.payments.admin.overview import OverviewAdmin
from payonce.payments.admin.refunds import RefundAdmin, RefundsToApproveAdmin, StuckRefundsAdmin
from payonce.payments.admin.shop_messages import ShopMessageAdmin
from payonce.payments.admin.statements import StatementAdmin
from payonce.payments.admin.streams import StreamAdmin
from payonce.payments.models import (
    ChannelState,
    Discrepancy,
    NeedsDecision,
    Notification,
    Overview,
    Refund,
    RefundsToApprove,
    ShopMessage,
    ShopNotTold,
    StatementDay,
    Stream,
    StuckRefunds,
    SurplusMoney,
    UnmatchedMoney,
)

PAGES: dict[type[models.Model], type[ConsoleAdmin]] = {
    Overview: OverviewAdmin,
    Order: OrderAdmin,
    Stream: StreamAdmin,
    Refund: RefundAdmin,
    Notification: NotificationAdmin,
    Event: EventAdmin,
    Discrepancy: DiscrepancyAdmin,
    NeedsDecision: QueueAdmin,
    SurplusMoney: SurplusMoneyAdmin,
    RefundsToApprove: RefundsToApproveAdmin,
    StuckRefunds: StuckRefundsAdmin,
    UnmatchedMoney: UnmatchedMoneyAdmin,
    ShopNotTold: ShopNotToldAdmin,
    ChannelState: ChannelAdmin,
    ShopMessage: ShopMessageAdmin,
    StatementDay: StatementAdmin,
}


def register(site: admin.AdminSite) -> None:
    """Put the console's pages on an admin site, on the ModelAdmin base that the settings ask for."""
    for model, page in PAGES.items():
        site.register(model, with_theme(page))


register(admin.site)
