"""The ways to pay that a buyer can choose from, and amounts as people write them."""

from dataclasses import dataclass
from decimal import Decimal

import moneyed
from babel import Locale, UnknownLocaleError
from babel.numbers import format_currency
from django.utils.translation import get_language, to_locale
from django.utils.translation import gettext as _

from payonce.channels import registry
from payonce.channels.errors import ChannelError
from payonce.channels.messages import PrepayKind
from payonce.orders.models import Order

SHOWN_KINDS = (PrepayKind.QR, PrepayKind.REDIRECT, PrepayKind.FORM)
"""What a web page can hand over; app and client_secret prepays are for the shop's own app and script."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One button: a channel account and a method of it."""

    channel: str
    method: str
    channel_name: str
    method_name: str

    @property
    def value(self) -> str:
        """What the form sends."""
        return f"{self.channel}:{self.method}"


def choices_for(order: Order) -> list[Choice]:
    """Every way that takes this order's currency and amount. An account that is not configured is left out."""
    found = []
    for account in registry.accounts():
        try:
            capabilities = registry.channel(account).capabilities
        except ChannelError:
            continue
        takes = capabilities.amount_minor_min <= order.amount_minor <= capabilities.amount_minor_max
        if not takes or order.currency not in capabilities.currencies:
            continue
        for method, capability in capabilities.methods.items():
            if capability.prepay_kind in SHOWN_KINDS:
                found.append(Choice(account, method, channel_name(account), method_name(method)))
    return found


def channel_name(account: str) -> str:
    """What the buyer reads for a channel account."""
    try:
        return str(registry.channel(account).options.get("display_name") or account)
    except ChannelError:
        return account


def method_name(method: str) -> str:
    """What the buyer reads for a method; a method of a shop's own adapter keeps its name."""
    names = {
        "qr": _("scan a code with your phone"),
        "web": _("on the payment provider's page"),
        "h5": _("in this phone's browser"),
    }
    return names.get(method, method)


def write_amount(amount_minor: int, currency: str) -> str:
    """An amount as the buyer's language writes it."""
    exponent = moneyed.CURRENCIES[currency].sub_unit if currency in moneyed.CURRENCIES else 100
    value = Decimal(amount_minor) / Decimal(exponent)
    try:
        locale = Locale.parse(to_locale(get_language() or "en"))
    except (UnknownLocaleError, ValueError):
        locale = Locale("en")
    digits = len(str(exponent)) - 1
    return format_currency(value, currency, locale=locale, currency_digits=False, format=_pattern(locale, digits))


def _pattern(locale: Locale, digits: int) -> str:
    """The language's own pattern with the currency's own number of digits."""
    pattern = str(locale.currency_formats["standard"].pattern).partition(";")[0]
    return pattern.replace("0.00", "0." + "0" * digits if digits else "0")
