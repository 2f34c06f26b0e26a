"""The ASGI application: live updates need it; everything else runs on WSGI too."""

import os

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

application = get_asgi_application()
if os.environ.get("PAYONCE_SERVE_STATIC") == "1":  # the demo: no web server in front that would do it
    application = ASGIStaticFilesHandler(application)
