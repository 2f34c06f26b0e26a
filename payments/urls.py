"""Addresses of payonce. A shop includes this at any prefix: `path("", include("payonce.payments.urls"))`."""

from django.urls import URLPattern, URLResolver, path, re_path

from payonce.payments.api.description import describe, nothing_here, read_docs
from payonce.payments.api.health import healthz, readyz
from payonce.payments.api.live import follow_events, show_status
from payonce.payments.api.metrics import metrics
from payonce.payments.api.notifications import take_notification
from payonce.payments.api.orders import CloseView, OrdersView
from payonce.payments.api.pay import PayView
from payonce.payments.api.refunds import RefundsView
from payonce.payments.cashier import views as cashier

app_name = "payonce"
NUMBER = r"(?P<number>[A-Za-z0-9]{1,64})"
ACCOUNT = r"(?P<account>[A-Za-z0-9_]{1,32})"
TOKEN = r"(?P<token>[A-Za-z0-9._:=-]{1,256})"  # noqa: S105 - a pattern, not a token
urlpatterns: list[URLPattern | URLResolver] = [
    path("api/orders/", OrdersView.as_view(), name="orders"),
    re_path(rf"^api/orders/{NUMBER}/$", show_status, name="order"),
    re_path(rf"^api/orders/{NUMBER}/events/$", follow_events, name="events"),
    re_path(rf"^api/orders/{NUMBER}/pay/$", PayView.as_view(), name="pay"),
    re_path(rf"^api/orders/{NUMBER}/close/$", CloseView.as_view(), name="close"),
    re_path(rf"^api/streams/{NUMBER}/refunds/$", RefundsView.as_view(), name="refunds"),
    re_path(rf"^notify/{ACCOUNT}/$", take_notification, name="notify"),
    re_path(rf"^return/{ACCOUNT}/$", cashier.take_return, name="return"),
    re_path(rf"^cashier/{TOKEN}/$", cashier.show_page, name="cashier"),
    re_path(rf"^cashier/{TOKEN}/state/$", cashier.tell_state, name="cashier_state"),
    path("api/schema/", describe, name="schema"),
    path("api/docs/", read_docs, name="docs"),
    path("metrics", metrics, name="metrics"),
    path("healthz", healthz, name="healthz"),
    path("readyz", readyz, name="readyz"),
    re_path(r"^api/(?P<rest>[\s\S]*)$", nothing_here),  # an encoded line break is an address, too
]
