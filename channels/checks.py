"""What is wrong with the configured accounts: a pure function for the system checks.

| id | means |
|---|---|
| E100 | CHANNELS, or an account in it, is not a dict |
| E101 | an account's name cannot be part of a URL |
| E102 | no adapter, or one that is no Channel |
| E103 | unknown adapter |
| E104 | unknown option |
| E105 | a required option is missing |
| E106 | a secret is too short or too regular |
| E107 | an option's value is wrong |
| E108 | base_url is not https (deploy only) |
| E109 | two accounts share one secret (deploy only) |
| E110 | the adapter refuses the options |
| E111 | a sandbox or a test mode takes no real money (deploy only) |
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from payonce.channels.errors import ChannelConfigError, UnknownAdapter
from payonce.channels.options import Problem, problems_of
from payonce.channels.registry import adapter_class

__all__ = ["Problem", "problems"]
_ACCOUNT = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)


def problems(accounts: Any) -> list[Problem]:
    """Everything wrong with `PAYONCE["CHANNELS"]`. It opens no connection. Messages never quote a secret."""
    if not isinstance(accounts, Mapping):
        return [Problem("E100", 'PAYONCE["CHANNELS"] must be a dict.', 'Write {"name": {"adapter": …}}.', "")]
    found: list[Problem] = []
    for account, options in accounts.items():
        found.extend(_problems_of_account(account, options))
    return found + list(_shared_secrets(accounts))


def _problems_of_account(account: Any, options: Any) -> Iterator[Problem]:
    where = f'PAYONCE["CHANNELS"]["{account}"]'
    name = str(account)
    if not isinstance(account, str) or not _ACCOUNT.fullmatch(account):
        hint = "Use up to 32 lower-case letters, digits, - and _, starting with a letter or digit."
        yield Problem("E101", f"{where}: this name cannot be part of a URL.", hint, name)
    if not isinstance(options, Mapping):
        yield Problem("E100", f"{where} must be a dict.", 'Write {"adapter": …, …}.', name)
        return
    try:
        adapter = adapter_class(name, options)
    except UnknownAdapter as error:
        yield Problem("E103", str(error), "", name)
        return
    except ChannelConfigError as error:
        yield Problem("E102", str(error), "", name)
        return
    wrong = list(problems_of(name, adapter.option_specs, options))
    yield from wrong
    if any(not problem.deploy_only for problem in wrong):
        return
    try:
        channel = adapter(name, options)
    except ChannelConfigError as error:
        yield Problem("E110", str(error), "", name)
        return
    if not channel.takes_real_money:
        hint = (
            "Anybody can pay there with money that does not exist. Configure the live account before you sell anything."
        )
        yield Problem(
            "E111", f"{where} is a sandbox or a test mode: it takes no real money.", hint, name, deploy_only=True
        )


def _shared_secrets(accounts: Mapping[str, Any]) -> Iterator[Problem]:
    """Two accounts with one secret: a notification of one verifies for the other."""
    seen: dict[str, str] = {}
    for account, options in accounts.items():
        secret = options.get("secret") if isinstance(options, Mapping) else None
        if not isinstance(secret, str) or not secret:
            continue
        if secret in seen:
            message = f'PAYONCE["CHANNELS"]: "{seen[secret]}" and "{account}" share one secret.'
            yield Problem("E109", message, "Give each account its own.", str(account), deploy_only=True)
        seen.setdefault(secret, str(account))
