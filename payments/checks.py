"""System checks of the channel accounts (tag `payonce`): settings only, no database, no network."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, register

from payonce.channels.checks import problems
from payonce.orders.conf import find_problems, get_settings


@register("payonce")
def check_channels(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """E100 to E110: an account's adapter, keys or options are missing or wrong."""
    return _errors(deploy_only=False)


@register("payonce", deploy=True)
def check_channels_deploy(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """E108, E109 and E111: what may be in a checkout and not in a shop."""
    return _errors(deploy_only=True)


def _errors(*, deploy_only: bool) -> list[CheckMessage]:
    if list(find_problems(getattr(django_settings, "PAYONCE", {}))):
        return []  # reported by the settings check
    return [
        Error(problem.message, hint=problem.hint, id=f"payonce.{problem.id}")
        for problem in problems(get_settings().CHANNELS)
        if problem.deploy_only == deploy_only
    ]
