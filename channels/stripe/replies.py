"""What an answer of Stripe's API comes to, before any operation looks at its object.

What a request comes to (docs.stripe.com/error-low-level and /idempotency; each answer that is not listed is Unknown):

| answer | means |
|---|---|
| 200 | done; with `idempotent-replayed: true` it is the stored first answer, so the object is fetched again |
| 400 `invalid_request_error` | refused, nothing was executed: limits are declined, parameters are a fault of the configuration |
| 400 `idempotency_error` | the key was used with other parameters: a conflict |
| 401, 403 | the keys or their rights |
| 402 | declined; stored under the key for a day, so that a refund goes on to its next key |
| 404 `resource_missing` | not found, which is never final |
| 409 | the key is in use: an earlier call may still be running |
| 429 | not executed |
| 500 and above, no answer | unknown; a stored 500 repeats for a day |

Sources: docs.stripe.com/error-low-level, /error-codes and /api/idempotent_requests.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from payonce.channels.messages import HttpResponse, Known, Refused, RefusedKind, TransportError, Unknown
from payonce.channels.redaction import redact_json
from payonce.channels.stripe import objects
from payonce.channels.stripe.objects import ApiError, MalformedError, Record

T = TypeVar("T")
_LIMITS = frozenset({"amount_too_small", "amount_too_large"})
_CHECK_KEYS = 'check "secret_key" of this account: Developers, API keys in the Stripe dashboard'


@dataclass(frozen=True, slots=True)
class Answer:
    """A 200 with an object; `is_replayed` where it is the stored answer of an earlier request."""

    record: Record
    raw: str
    is_replayed: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """Rows of a list; `is_complete` where no page is missing."""

    rows: list[Record]
    raw: str
    is_complete: bool


Reply = Answer | ApiError | Refused | Unknown


def judge(reply: HttpResponse | TransportError) -> Reply:
    if isinstance(reply, TransportError):
        return Unknown(reply.reason) if reply.sent else Refused(RefusedKind.THROTTLED, "not_sent", reply.reason)
    raw = redact_json(reply.body, objects.HIDDEN)
    is_replayed = reply.headers.get("idempotent-replayed") == "true"
    if reply.status != 200 and not 400 <= reply.status < 500:
        return Unknown(f"status_{reply.status}", raw=raw)
    try:
        record = objects.read_object(reply.body)
        if reply.status == 200:
            return Answer(record, raw, is_replayed)
        return objects.read_error(reply.status, record, raw, is_replayed=is_replayed)
    except MalformedError as error:
        return Unknown(f"malformed:{error}:{reply.status}", raw=raw)


def refusal(operation: str, reply: Reply) -> Refused | Unknown:
    """What an error means for an operation, by status, type and code."""
    if isinstance(reply, Refused | Unknown):
        return reply
    if isinstance(reply, Answer):
        raise TypeError("an answer is no refusal")
    code = reply.code or reply.type
    kind: RefusedKind | None = None
    message = reply.message
    match reply.status:
        case 401 | 403:
            kind, message = RefusedKind.CONFIG, f"{_CHECK_KEYS} ({reply.code or reply.status})"
        case 402:
            kind = RefusedKind.DECLINED
        case 404 if reply.code == "resource_missing":
            kind = RefusedKind.CONFLICT
        case 429:
            kind = RefusedKind.THROTTLED
        case 400 if reply.type == "idempotency_error":
            kind = RefusedKind.CONFLICT
        case 400 if reply.type == "invalid_request_error":
            kind = _refused_request(operation, reply)
    if kind is None:
        return Unknown(f"unlisted:{reply.status}:{code}"[:64], raw=reply.raw)
    return Refused(kind, code, message, reply.raw)


def _refused_request(operation: str, error: ApiError) -> RefusedKind:
    if error.code in _LIMITS:
        return RefusedKind.DECLINED
    if operation == "refund" and error.code == "resource_missing":
        return RefusedKind.CONFLICT
    if operation == "refund" and not error.code.startswith(("parameter_", "url_")):
        return RefusedKind.DECLINED  # charge_already_refunded, charge_disputed, more than is left: a person decides
    return RefusedKind.CONFIG


def is_missing(error: ApiError) -> bool:
    """Does Stripe not know the id in the address?"""
    return (error.status, error.code) == (404, "resource_missing")


def read(answer: Answer, reader: Callable[[Record], T]) -> Known[T] | Unknown:
    """What the reader finds in the object; Unknown where it is not what it should be."""
    try:
        return Known(reader(answer.record), answer.raw)
    except MalformedError as error:
        return Unknown(f"malformed:{error}", raw=answer.raw)
