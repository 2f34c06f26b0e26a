"""Errors of the payments package: a caller's mistakes and broken surroundings. Business refusals are outcomes, not errors."""

from payonce.errors import PayonceError


class PaymentsError(PayonceError):
    """Root of this package's errors."""


class StreamNotFound(PaymentsError):
    """No stream has this number."""


class RefundNotFound(PaymentsError):
    """No refund has this number."""


class DiscrepancyNotFound(PaymentsError):
    """No case has this id."""


class UnknownChannel(PaymentsError):
    """No such channel account, or it cannot do what was asked (method, currency, amount); `code` says which."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class InsideTransaction(PaymentsError):
    """A step was called inside an open transaction. Call it after the commit: a channel call must follow a committed intent."""


class ConstraintViolated(PaymentsError):
    """The database refused a write that broke a rule; `constraint` names it."""

    def __init__(self, constraint: str, message: str) -> None:
        super().__init__(message)
        self.constraint = constraint


class AlreadyOpen(ConstraintViolated):
    """Another open stream of the order exists."""


class ReferenceTaken(ConstraintViolated):
    """The channel reference already paid another stream."""


class RefundInProgress(ConstraintViolated):
    """Another refund of the stream is not finished."""


class OverRefund(ConstraintViolated):
    """The refunds would exceed what was captured."""


class NotificationKnown(ConstraintViolated):
    """The notification is in the inbox already."""


class CaseOpen(ConstraintViolated):
    """There is an unresolved case of this kind about this subject."""


class SamePerson(ConstraintViolated):
    """The approver of a refund must not be its requester."""
