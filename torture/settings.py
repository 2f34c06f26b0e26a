"""The reference project's settings for a torture run: what differs is handed over by the site in PAYONCE_TORTURE."""

import json
import os

from config.settings import *  # noqa: F403
from config.settings import CELERY_BROKER_URL, INSTALLED_APPS, PAYONCE

GIVEN = json.loads(os.environ.get("PAYONCE_TORTURE", "{}"))
PAYONCE = {**PAYONCE, **GIVEN.get("payonce", {})}
# Neither the console nor a session is used: what stays is what a shop's API needs.
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"]
SILENCED_SYSTEM_CHECKS = ["admin.E408", "admin.E409", "admin.E410"]  # what the console would need
if GIVEN.get("lossy_broker"):
    from torture import broker

    CELERY_BROKER_URL = broker.take_over(CELERY_BROKER_URL)
if APP := os.environ.get("TORTURE_APP"):  # a broken build, which the checker must catch
    INSTALLED_APPS = [*INSTALLED_APPS, APP]
