"""payonce below a prefix, beside the shop's admin."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("pay/", include("payonce.payments.urls"))]
