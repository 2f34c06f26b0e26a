"""Addresses of payonce. A shop includes this at any prefix: `path("", include("payonce.payments.urls"))`."""

from django.urls import URLPattern, URLResolver

app_name = "payonce"
urlpatterns: list[URLPattern | URLResolver] = []
