"""Amounts as people read and type them: integer minor units to text and back, with each currency's exact exponent."""

import re
from decimal import Decimal

import moneyed
from babel import Locale, UnknownLocaleError
from babel.numbers import parse_pattern
from django.utils.translation import get_language, to_locale

PATTERN = "#,##0.00 ¤¤;-#,##0.00 ¤¤"
"""The number in the reader's language and the ISO code: a sign such as ¥ would leave open whose it is."""
TYPED = re.compile(r"(\d{1,13})(?:\.(\d{1,4}))?", re.ASCII)


class AmountError(ValueError):
    """A typed amount that is not a plain decimal number of this currency."""


def exponent_of(currency: str) -> int:
    """Decimal places of a currency's minor unit: 0 for JPY, 2 for CNY, 3 for KWD. An unknown code has none."""
    known = moneyed.CURRENCIES.get(currency)
    return len(str(known.sub_unit)) - 1 if known is not None else 0


def to_decimal(amount_minor: int, currency: str) -> Decimal:
    """The amount in whole units, exactly: (1250, "CNY") → 12.50."""
    return Decimal(amount_minor).scaleb(-exponent_of(currency))


def to_plain(amount_minor: int, currency: str) -> str:
    """The amount as it is typed: ASCII digits and a point, no grouping."""
    return f"{to_decimal(amount_minor, currency):f}"


def to_text(amount_minor: int, currency: str) -> str:
    """The amount for reading, in the active language: `1,234.50 CNY`."""
    exponent = exponent_of(currency)
    pattern = parse_pattern(PATTERN)
    pattern.frac_prec = (exponent, exponent)
    number = to_decimal(amount_minor, currency)
    return str(pattern.apply(number, _locale(), currency=currency, currency_digits=False)).strip()


def to_minor(typed: str, currency: str) -> int:
    """A typed amount in minor units. Raises AmountError for signs, grouping, non-ASCII digits or too many decimals."""
    exponent = exponent_of(currency)
    match = TYPED.fullmatch(typed.strip())
    decimals = (match.group(2) or "") if match else ""
    if match is None or len(decimals) > exponent:
        raise AmountError(typed)
    return int(match.group(1) + decimals.ljust(exponent, "0"))


def _locale() -> Locale:
    try:
        return Locale.parse(to_locale(get_language() or "en"))
    except (UnknownLocaleError, ValueError):
        return Locale("en")
