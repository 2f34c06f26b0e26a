"""System checks of PAYONCE (tag `payonce`): they read settings only, never the database."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning, register

from payonce.orders.conf import find_problems, get_settings, get_shop
from payonce.orders.errors import SettingsError
from payonce.orders.shop import Shop


@register("payonce")
def check_settings(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """E001: PAYONCE is absent or has a wrong key. E002: the shop does not import. E003: it is no `Shop`."""
    if not hasattr(django_settings, "PAYONCE"):
        return [
            Error(
                "The setting PAYONCE is missing.",
                hint='Add PAYONCE = {"SHOP": "myshop.payments.Shop", "CHANNELS": {…}} to your settings.',
                id="payonce.E001",
            )
        ]
    problems: list[CheckMessage] = [Error(text, id="payonce.E001") for text in find_problems(django_settings.PAYONCE)]
    return problems or _shop_problems()


def _shop_problems() -> list[CheckMessage]:
    try:
        shop = get_shop()
    except SettingsError as error:
        return [Error(str(error), hint="Write the dotted path of your Shop subclass.", id="payonce.E002")]
    if not isinstance(shop, Shop):
        return [
            Error(
                f'PAYONCE["SHOP"] = "{get_settings().SHOP}" is not a subclass of payonce.orders.shop.Shop.',
                id="payonce.E003",
            )
        ]
    return []


@register("payonce", deploy=True)
def check_deploy(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """W001: no https BASE_URL. W002: no Redis. W003: the database connections are not pooled."""
    if list(find_problems(getattr(django_settings, "PAYONCE", {}))):
        return []
    conf, found = get_settings(), list[CheckMessage]()
    if not conf.BASE_URL.startswith("https://"):
        found.append(
            Warning(
                'PAYONCE["BASE_URL"] is not an https address: channels cannot notify you safely.', id="payonce.W001"
            )
        )
    if not conf.REDIS_URL:
        found.append(Warning('PAYONCE["REDIS_URL"] is empty: repeated clicks reach the database.', id="payonce.W002"))
    database = django_settings.DATABASES.get(conf.DATABASE, {})
    if not database.get("OPTIONS", {}).get("pool") and not database.get("CONN_MAX_AGE"):
        found.append(
            Warning(
                f'DATABASES["{conf.DATABASE}"] opens a connection for each request.',
                hint='Set OPTIONS = {"pool": True} in web processes.',
                id="payonce.W003",
            )
        )
    return found
