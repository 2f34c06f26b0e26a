"""payonce at the root, Django's admin beside it."""

import importlib.util

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/", admin.site.urls),
    path("i18n/", include("django.conf.urls.i18n")),
]
if importlib.util.find_spec("payonce.payments.urls"):
    urlpatterns.append(path("", include("payonce.payments.urls")))
