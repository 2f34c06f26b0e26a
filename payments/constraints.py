"""Maps a violated constraint, by its name, to the domain error that it means."""

from django.db import IntegrityError

from payonce.payments import errors

BY_NAME: dict[str, type[errors.ConstraintViolated]] = {
    "payonce_stream_one_open": errors.AlreadyOpen,
    "payonce_stream_attempt": errors.AlreadyOpen,
    "payonce_stream_reference": errors.ReferenceTaken,
    "payonce_refund_one_active": errors.RefundInProgress,
    "payonce_refund_sequence": errors.RefundInProgress,
    "payonce_stream_reserved": errors.OverRefund,
    "payonce_notification_once": errors.NotificationKnown,
    "payonce_case_one_open": errors.CaseOpen,
    "payonce_refund_two_persons": errors.SamePerson,
}


def constraint_of(error: BaseException) -> str:
    """The name of the violated constraint, or an empty text."""
    cause = error.__cause__ or error
    return str(getattr(getattr(cause, "diag", None), "constraint_name", None) or "")


def domain_error(error: IntegrityError) -> errors.ConstraintViolated:
    """The domain error for a violated constraint; one without a class of its own stays a plain ConstraintViolated."""
    name = constraint_of(error)
    kind = BY_NAME.get(name, errors.ConstraintViolated)
    text = (kind.__doc__ or "").strip().splitlines()[0]
    return kind(name, f"{text} (constraint {name or 'unnamed'})")
