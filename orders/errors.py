"""Errors of the orders package: a caller's mistakes. One line of meaning each; business refusals are outcomes, not errors."""

from payonce.errors import PayonceError


class OrderError(PayonceError):
    """Root of this package's errors."""


class InvalidOrder(OrderError):
    """A field of the order is not acceptable. `field` names it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class OrderNotFound(OrderError):
    """No order has this number, or this source and reference."""


class PlaceConflict(OrderError):
    """The reference was placed before with another amount or currency, and `amend` was not asked."""


class AmendRefused(OrderError):
    """The order cannot change its amount now; the message says why and when to try again."""


class SettingsError(OrderError):
    """A key of PAYONCE is missing, unknown or of the wrong kind."""


class EventChainBroken(OrderError):
    """An order's history does not verify: a row is missing or was altered."""
