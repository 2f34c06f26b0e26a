"""Settings of the reference project: everything comes from environment variables, with defaults for a checkout.

Importing this starts nothing. Without DATABASE_URL and REDIS_URL the URLs are those of the checkout's own servers
(`config.embedded`), which `make`, the supervisor and pytest start. An empty REDIS_URL means: no Redis.
"""

from typing import Any

from config import embedded, environment

PROFILE: embedded.Profile = "test" if environment.text("PAYONCE_PROFILE", "dev") == "test" else "dev"
DATABASE_URL = embedded.database_url(PROFILE)
REDIS_URL = embedded.redis_url(PROFILE, environment.number("PAYONCE_REDIS_DATABASE", 0)) or ""

DEBUG = environment.flag("DEBUG")
SECRET_KEY = environment.secret_key()
ALLOWED_HOSTS = environment.words("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = environment.words("CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "payonce.orders",
    "payonce.payments",
    "config",
]
if environment.flag("PAYONCE_UNFOLD"):
    INSTALLED_APPS.insert(0, "unfold")

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
WSGI_APPLICATION = "config.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES: list[dict[str, Any]] = [
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

# Web processes pool their connections (PAYONCE_POOL=1). Workers keep one each instead: CELERY_DB_REUSE_MAX below.
DATABASES: dict[str, dict[str, Any]] = {"default": environment.parse_database_url(DATABASE_URL)}
if environment.flag("PAYONCE_POOL"):
    DATABASES["default"]["OPTIONS"]["pool"] = {
        "min_size": 2,
        "max_size": environment.number("PAYONCE_POOL_MAX", 16),
        "timeout": 10,
    }
else:
    DATABASES["default"]["CONN_MAX_AGE"] = environment.number("CONN_MAX_AGE", 0)
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True

CACHES: dict[str, dict[str, Any]] = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
if REDIS_URL:
    CACHES["default"] = {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "payonce-site",
        "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": 1, "SOCKET_TIMEOUT": 2, "IGNORE_EXCEPTIONS": True},
    }

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
USE_I18N = True
TIME_ZONE = environment.text("TIME_ZONE", "UTC")
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = environment.CHECKOUT / "staticfiles"

# Behind a proxy that ends TLS: SECURE=1. The demo runs on the loopback address without it.
if environment.flag("SECURE"):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_HSTS_SECONDS = environment.number("HSTS_SECONDS", 3600)
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True

REST_FRAMEWORK: dict[str, Any] = {"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "payonce",
    "DESCRIPTION": "Makes sure that an order is paid once.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
}

PAYONCE: dict[str, Any] = {
    "SHOP": environment.text("PAYONCE_SHOP", "config.shop.DemoShop"),
    "CHANNELS": environment.channels(),
    "BASE_URL": environment.text("PAYONCE_BASE_URL", "http://127.0.0.1:8800"),
    "REDIS_URL": REDIS_URL,
}

# Tasks are safe to repeat and everything due is in rows, so a lost message costs time and nothing else. A broker that
# is down must not hold up a web request: one quick try, and the sweeps find the work. Without one, nothing is sent.
CELERY_BROKER_URL = environment.text("CELERY_BROKER_URL") or environment.celery_broker_url(REDIS_URL)
CELERY_BROKER_CONNECTION_TIMEOUT = 2
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = {"visibility_timeout": 600}
if CELERY_BROKER_URL.startswith("redis"):
    CELERY_BROKER_TRANSPORT_OPTIONS |= {"socket_connect_timeout": 2, "socket_timeout": 5}
CELERY_TASK_PUBLISH_RETRY = False
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_DEFAULT_QUEUE = "payonce"
CELERY_TASK_TIME_LIMIT = 300
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_TIMEZONE = "UTC"
CELERY_DB_REUSE_MAX = 1000

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name} {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": environment.text("LOG_LEVEL", "INFO")},
}
