"""Which accounts exist and which adapter serves each. The accounts come from outside, through `configure`.

Absence of configuration never means acceptance: an account that is not configured, or not fully, raises.
"""

import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, cast

from payonce.channels.base import Channel
from payonce.channels.errors import ChannelConfigError, UnknownAccount, UnknownAdapter
from payonce.channels.options import did_you_mean, listed

Accounts = Mapping[str, Mapping[str, Any]]

# Imported on first use, so that a channel's libraries load only where it is configured.
_BUILT_IN = {
    "alipay": "payonce.channels.alipay.AlipayChannel",
    "sandbox": "payonce.channels.sandbox.adapter.SandboxChannel",
    "paypal": "payonce.channels.paypal.PayPalChannel",
    "wechat_pay": "payonce.channels.wechat_pay.WeChatPayChannel",
    "stripe": "payonce.channels.stripe.adapter.StripeChannel",
}

_lock = threading.RLock()
_registered: dict[str, type[Channel]] = {}
_made: dict[str, tuple[Mapping[str, Any], Channel]] = {}
_source: Callable[[], Accounts] | None = None


def configure(source: Callable[[], Accounts]) -> None:
    """Say where the accounts are read from: a callable that returns `{account: {"adapter": …, …}}`."""
    global _source
    with _lock:
        _source = source
        _made.clear()


def reset() -> None:
    """Forget the channels that were made, so that the next use reads the settings again."""
    with _lock:
        _made.clear()


def register(name: str, adapter: type[Channel]) -> None:
    """Give an adapter a short name to be used as `"adapter": name`."""
    if not _is_channel(adapter):
        raise ChannelConfigError(f"{adapter!r} is not a subclass of payonce.channels.base.Channel.")
    with _lock:
        if name in _BUILT_IN or _registered.get(name, adapter) is not adapter:
            raise ChannelConfigError(f'The adapter name "{name}" is taken. Choose another one.')
        _registered[name] = adapter
        _made.clear()


def accounts() -> tuple[str, ...]:
    """Names of all configured accounts, in the order of the settings."""
    return tuple(_accounts())


def channel(account: str) -> Channel:
    """The channel of an account, made once per process and again when its options change.

    Raises UnknownAccount, UnknownAdapter, or ChannelConfigError for missing or wrong options.
    """
    configured = _accounts()
    options = configured.get(account)
    if options is None:
        known = list(configured)
        raise UnknownAccount(
            f'PAYONCE["CHANNELS"] has no account "{account}".{did_you_mean(account, known)} '
            f"Configured: {listed(known)}."
        )
    with _lock:
        made = _made.get(account)
        if made is None or made[0] != options:
            made = _made[account] = (dict(options), _make(account, options))
        return made[1]


def adapter_names() -> tuple[str, ...]:
    """Short names of the adapters that exist."""
    return tuple(sorted({*_BUILT_IN, *_registered}))


def adapter_class(account: str, options: Mapping[str, Any]) -> type[Channel]:
    """The class that serves these options. Raises ChannelConfigError or UnknownAdapter."""
    where = f'PAYONCE["CHANNELS"]["{account}"]'
    name = options.get("adapter")
    if not isinstance(name, str) or not name:
        raise ChannelConfigError(
            f'{where} has no "adapter". Known adapters: {listed(adapter_names())}, or a dotted path.'
        )
    if name in _registered:
        return _registered[name]
    path = _BUILT_IN.get(name, name)
    if "." not in path:
        raise UnknownAdapter(
            f'{where} names the unknown adapter "{name}".{did_you_mean(name, adapter_names())} '
            f"Known adapters: {listed(adapter_names())}, or a dotted path to a Channel."
        )
    return _import_adapter(where, path)


def _import_adapter(where: str, path: str) -> type[Channel]:
    module_name, _, class_name = path.rpartition(".")
    try:
        found = getattr(import_module(module_name), class_name)
    except ImportError as error:
        raise UnknownAdapter(f'{where}: cannot import the adapter "{path}": {error}.') from error
    except AttributeError as error:
        raise UnknownAdapter(f'{where}: the module "{module_name}" has no "{class_name}".') from error
    if not _is_channel(found):
        raise ChannelConfigError(f'{where}: "{path}" is not a subclass of payonce.channels.base.Channel.')
    return cast("type[Channel]", found)


def _is_channel(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Channel)


def _make(account: str, options: Mapping[str, Any]) -> Channel:
    return adapter_class(account, options)(account, options)


def _accounts() -> Accounts:
    if _source is None:
        raise ChannelConfigError(
            "No accounts are configured: call payonce.channels.registry.configure() first. "
            'Django does it when "payonce.payments" is in INSTALLED_APPS.'
        )
    return _source()
