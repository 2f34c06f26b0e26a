"""A shop that was there before payonce: it has apps named `orders` and `payments`, and it uses Django Channels."""

import json
import os

DATABASES = {"default": json.loads(os.environ["SHOP_DATABASE"])}
USES_DJANGO_PAYMENTS = os.environ.get("SHOP_DJANGO_PAYMENTS") == "1"

SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "shop.urls"
ASGI_APPLICATION = "shop.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
INSTALLED_APPS = [
    "channels",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rest_framework",
    "orders",
    "payments",  # the shop's own app, or django-payments: both have this name and this label
    "payonce.orders",
    "payonce.payments",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "static/"
PAYMENT_HOST = "127.0.0.1"
PAYMENT_MODEL = "orders.ShopPayment"

PAYONCE = {
    "SHOP": "orders.shop.BookShop",
    "CHANNELS": {
        "wallet": {
            "adapter": "sandbox",
            "base_url": os.environ.get("SHOP_SANDBOX_URL", "http://127.0.0.1:9"),
            "merchant": "bookshop",
            "secret": os.environ["SHOP_SANDBOX_SECRET"],
        }
    },
    "BASE_URL": os.environ.get("SHOP_URL", "http://127.0.0.1:9"),
}
