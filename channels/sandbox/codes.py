"""The codes of the sandbox's dialect, and what each means to the adapter.

A code that an operation does not list is Unknown.
"""

from enum import StrEnum

from payonce.channels.messages import RefusedKind


class Code(StrEnum):
    """Every code that the bank answers."""

    OK = "OK"
    NOT_FOUND = "NOT_FOUND"
    NUMBER_CONFLICT = "NUMBER_CONFLICT"  # the number is used with other parameters
    ALREADY_PAID = "ALREADY_PAID"
    ALREADY_CLOSED = "ALREADY_CLOSED"
    CLOSED = "CLOSED"
    ACCEPTED = "ACCEPTED"  # a close that proves nothing
    NOT_CLOSABLE = "NOT_CLOSABLE"
    IN_PROGRESS = "IN_PROGRESS"
    EXPIRED = "EXPIRED"
    DECLINED = "DECLINED"
    METHOD_UNSUPPORTED = "METHOD_UNSUPPORTED"
    CURRENCY_UNSUPPORTED = "CURRENCY_UNSUPPORTED"
    AMOUNT_OUT_OF_RANGE = "AMOUNT_OUT_OF_RANGE"
    NOT_APPROVED = "NOT_APPROVED"
    ALREADY_CAPTURED = "ALREADY_CAPTURED"
    NOT_PAID = "NOT_PAID"
    REFUND_EXCEEDS = "REFUND_EXCEEDS"
    REFUND_WINDOW_PASSED = "REFUND_WINDOW_PASSED"
    REFUND_TOO_SOON = "REFUND_TOO_SOON"
    REFUND_COUNT = "REFUND_COUNT"
    REFUND_PARTIAL_UNSUPPORTED = "REFUND_PARTIAL_UNSUPPORTED"
    REFUNDS_UNSUPPORTED = "REFUNDS_UNSUPPORTED"
    NOT_ENOUGH = "NOT_ENOUGH"  # the merchant's balance does not cover the refund
    STATEMENT_NOT_READY = "STATEMENT_NOT_READY"
    PARAM_INVALID = "PARAM_INVALID"
    UNSUPPORTED = "UNSUPPORTED"
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    ACCOUNT_UNKNOWN = "ACCOUNT_UNKNOWN"
    TIMESTAMP_STALE = "TIMESTAMP_STALE"
    RATE_LIMITED = "RATE_LIMITED"
    SYSTEM_ERROR = "SYSTEM_ERROR"


HTTP_STATUS: dict[Code, int] = {
    Code.OK: 200,
    Code.CLOSED: 200,
    Code.ACCEPTED: 202,
    Code.NOT_FOUND: 404,
    Code.PARAM_INVALID: 400,
    Code.METHOD_UNSUPPORTED: 400,
    Code.CURRENCY_UNSUPPORTED: 400,
    Code.AMOUNT_OUT_OF_RANGE: 400,
    Code.UNSUPPORTED: 400,
    Code.REFUNDS_UNSUPPORTED: 400,
    Code.SIGNATURE_INVALID: 401,
    Code.ACCOUNT_UNKNOWN: 401,
    Code.TIMESTAMP_STALE: 401,
    Code.DECLINED: 402,
    Code.NOT_ENOUGH: 402,
    Code.RATE_LIMITED: 429,
    Code.REFUND_TOO_SOON: 429,
    Code.SYSTEM_ERROR: 500,
}
HTTP_STATUS_OTHERWISE = 409

_BY_REQUEST: dict[str, RefusedKind] = {
    Code.PARAM_INVALID: RefusedKind.CONFIG,
    Code.UNSUPPORTED: RefusedKind.CONFIG,
    Code.RATE_LIMITED: RefusedKind.THROTTLED,
}

# Nobody who cannot sign for the account can be asked for a signature: these answers come before the bank does anything.
REFUSALS_UNSIGNED: dict[str, tuple[int, RefusedKind]] = {
    Code.SIGNATURE_INVALID: (401, RefusedKind.CONFIG),
    Code.ACCOUNT_UNKNOWN: (401, RefusedKind.CONFIG),
    Code.TIMESTAMP_STALE: (401, RefusedKind.CONFIG),
}

REFUSALS: dict[str, dict[str, RefusedKind]] = {
    "prepay": {
        **_BY_REQUEST,
        Code.NUMBER_CONFLICT: RefusedKind.CONFLICT,
        Code.ALREADY_PAID: RefusedKind.CONFLICT,
        Code.ALREADY_CLOSED: RefusedKind.CONFLICT,
        Code.EXPIRED: RefusedKind.CONFLICT,
        Code.DECLINED: RefusedKind.DECLINED,
        Code.AMOUNT_OUT_OF_RANGE: RefusedKind.DECLINED,
        Code.METHOD_UNSUPPORTED: RefusedKind.CONFIG,
        Code.CURRENCY_UNSUPPORTED: RefusedKind.CONFIG,
    },
    "query": dict(_BY_REQUEST),
    "capture": {
        **_BY_REQUEST,
        Code.NOT_FOUND: RefusedKind.CONFLICT,
        Code.NOT_APPROVED: RefusedKind.CONFLICT,
        Code.ALREADY_CAPTURED: RefusedKind.CONFLICT,
        Code.ALREADY_CLOSED: RefusedKind.CONFLICT,
        Code.DECLINED: RefusedKind.DECLINED,
        Code.EXPIRED: RefusedKind.DECLINED,
    },
    "close": dict(_BY_REQUEST),
    "refund": {
        **_BY_REQUEST,
        Code.NOT_FOUND: RefusedKind.CONFLICT,
        Code.NUMBER_CONFLICT: RefusedKind.CONFLICT,
        Code.NOT_PAID: RefusedKind.CONFLICT,
        Code.REFUND_EXCEEDS: RefusedKind.CONFLICT,
        Code.REFUND_WINDOW_PASSED: RefusedKind.DECLINED,
        Code.REFUND_COUNT: RefusedKind.DECLINED,
        Code.REFUND_PARTIAL_UNSUPPORTED: RefusedKind.DECLINED,
        Code.NOT_ENOUGH: RefusedKind.DECLINED,
        Code.DECLINED: RefusedKind.DECLINED,
        Code.REFUND_TOO_SOON: RefusedKind.THROTTLED,
        Code.REFUNDS_UNSUPPORTED: RefusedKind.CONFIG,
    },
    "query_refund": dict(_BY_REQUEST),
    "statement": {**_BY_REQUEST, Code.STATEMENT_NOT_READY: RefusedKind.THROTTLED},
}
