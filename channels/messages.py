"""What a channel adapter is asked and what it answers: frozen records, closed sets, integer minor units.

Every answer of a channel is one of three outcomes. `Known` is a definite answer. `Refused` is a definite no: nothing
was executed. `Unknown` is everything else (a time-out after sending, a 5xx, an unlisted code, an answer whose
signature does not verify): the effect may have happened, so the caller asks before it does anything else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class PaymentState(StrEnum):
    """What the channel says about one stream."""

    NOT_FOUND = "NOT_FOUND"  # the channel does not know the number; never final by itself
    OPEN = "OPEN"  # the buyer can still pay
    APPROVED = "APPROVED"  # the buyer agreed and the money waits for our capture
    IN_PROGRESS = "IN_PROGRESS"  # the buyer has acted, the money may be on its way
    PAID = "PAID"  # money was taken; sticky, also after a refund
    CLOSED = "CLOSED"  # proven unpayable and never paid
    UNCLEAR = "UNCLEAR"  # a verified answer that the adapter cannot place


class CloseState(StrEnum):
    """What a close came to."""

    CLOSED_PROVED = "CLOSED_PROVED"
    ALREADY_PAID = "ALREADY_PAID"
    IN_PROGRESS = "IN_PROGRESS"
    NOT_CLOSABLE = "NOT_CLOSABLE"  # only time, or our own restraint, ends it
    UNPROVED = "UNPROVED"  # accepted, but the answer proves nothing


class RefundState(StrEnum):
    """What the channel says about one refund number."""

    NOT_FOUND = "NOT_FOUND"
    IN_PROGRESS = "IN_PROGRESS"
    DONE = "DONE"
    FAILED = "FAILED"  # the money surely did not move
    ATTENTION = "ATTENTION"  # a person must act at the channel
    RETURNED = "RETURNED"  # it was done and the channel took it back


class RefusedKind(StrEnum):
    """Why a channel refused. In all four cases nothing was executed."""

    DECLINED = "declined"  # payer, bank or limits; another attempt is allowed
    CONFLICT = "conflict"  # the number was used or the state forbids it: query, then decide
    CONFIG = "config"  # keys, rights or parameters: stop and alarm
    THROTTLED = "throttled"  # ask again later with the same request


class PrepayKind(StrEnum):
    """How the buyer is handed over to the channel."""

    QR = "qr"
    REDIRECT = "redirect"
    FORM = "form"
    CLIENT_SECRET = "client_secret"  # noqa: S105 - a kind, not a secret
    APP = "app"


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """A definite answer. `raw` is the redacted body, kept as evidence."""

    value: T
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """A definite no: nothing was executed. `code` is the channel's own code."""

    kind: RefusedKind
    code: str
    message: str = ""
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """No definite answer: the effect may have happened.

    `replay_safe_until` is the last moment at which the same request under the same number is safe to repeat; None
    means that the adapter cannot say and the caller keeps what it stored before the call.
    """

    reason: str
    replay_safe_until: datetime | None = None
    raw: str = ""


Outcome = Known[T] | Refused | Unknown


@dataclass(frozen=True, slots=True)
class PrepayRequest:
    """Ask the channel to let the buyer pay `amount_minor` under `number`.

    `payable_until` is the absolute moment after which the buyer must not be able to pay; `payer` is the channel's id
    of the payer (openid) where the method needs one. `notify_url` and `return_url` are absolute.
    """

    number: str
    amount_minor: int
    currency: str
    subject: str
    method: str
    client_type: str
    payer: str
    payable_until: datetime
    notify_url: str
    return_url: str
    client_ip: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Prepay:
    """What the buyer needs.

    `value` is a text for qr, redirect, client_secret and app; for form a JSON text with `action` and `fields`.
    """

    kind: PrepayKind
    value: str
    expires_at: datetime
    channel_reference: str | None = None


@dataclass(frozen=True, slots=True)
class PaymentRef:
    """Names one stream to its channel. `channel_reference` is empty until the channel gave one."""

    number: str
    amount_minor: int
    currency: str
    method: str = ""
    channel_reference: str = ""
    first_sent_at: datetime | None = None
    payable_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class PaymentView:
    """One verified statement of a channel about one payment: the evidence that settle decides on.

    `paid_minor` is the gross amount before the channel's own coupons. `refunded_minor`, `disputed_minor` and
    `reversed_minor` are cumulative. `merchant` is the merchant identity that the message itself states, or empty
    where the channel does not state one. `captures` holds further channel references that took money under the same
    number.
    """

    number: str
    state: PaymentState
    currency: str = ""
    paid_minor: int = 0
    refunded_minor: int = 0
    disputed_minor: int = 0
    reversed_minor: int = 0
    channel_reference: str = ""
    merchant: str = ""
    paid_at: datetime | None = None
    captures: tuple["PaymentView", ...] = ()


@dataclass(frozen=True, slots=True)
class CloseAnswer:
    """What a close came to; `payment` where the same conversation also learnt the payment's state."""

    state: CloseState
    payment: PaymentView | None = None


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """Take the approved money. `key` is the capture's own number, fixed before the first call."""

    payment: PaymentRef
    key: str


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """Give `amount_minor` of the payment back under `refund_number`, which the caller fixed before the first call."""

    payment: PaymentRef
    refund_number: str
    amount_minor: int
    currency: str
    captured_minor: int
    reason: str
    notify_url: str = ""


@dataclass(frozen=True, slots=True)
class RefundRef:
    """Names one refund to its channel."""

    payment: PaymentRef
    refund_number: str
    amount_minor: int
    channel_reference: str = ""


@dataclass(frozen=True, slots=True)
class RefundView:
    """One verified statement of a channel about one refund number.

    `payment_number` is empty where the channel does not say.
    """

    refund_number: str
    state: RefundState
    amount_minor: int = 0
    currency: str = ""
    channel_reference: str = ""
    payment_number: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class NotificationRequest:
    """A notification as received: the body's exact bytes and the headers with lower-case names."""

    body: bytes
    headers: Mapping[str, str]
    query: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """A verified notification.

    `dedupe_key` is stable over the channel's retries of the same message (≤ 128 characters). `sent_at` is the
    channel's own time of the message. Exactly one of `payment` and `refund` is set; both are None for a verified
    message that is about neither (it is acknowledged and counted). A payment without a number names only its
    `channel_reference`: it is no evidence, and the channel is asked about that stream.
    """

    dedupe_key: str
    event: str
    sent_at: datetime | None
    payment: PaymentView | None = None
    refund: RefundView | None = None
    raw: str = ""


@dataclass(frozen=True, slots=True)
class NotAuthentic:
    """The message is forged, altered, or not for this account.

    `stale` marks one that verifies but is outside the replay window.
    """

    reason: str
    stale: bool = False
    number: str = ""
    dedupe_key: str = ""


class Verdict(StrEnum):
    """What the channel is to be told about its notification."""

    ACCEPT = "accept"  # durable here: do not send it again
    RETRY = "retry"  # not durable: send it again later
    REJECT = "reject"  # not authentic


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The answer to a notification in the channel's own words."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One line of a channel's statement.

    `kind` is payment or refund; `number` is ours (the stream's, or the refund's), where the channel repeats it. A payment
    has the amount and currency that a query of it names, and its `channel_reference`, which is empty where the statement
    knows the payment by another one; a refund's line has it as `payment_reference`. `state` is the channel's own word;
    `came_to` says what a refund came to by then. `payment_number` is the stream's number
    in a refund's line.
    """

    kind: str
    number: str
    channel_reference: str
    amount_minor: int
    currency: str
    at: datetime | None
    state: str = ""
    payment_number: str = ""
    came_to: RefundState = RefundState.DONE
    payment_reference: str = ""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP request that an adapter wants sent. Time-outs are seconds; `total` bounds the whole exchange."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    timeout_connect: float = 3.0
    timeout_read: float = 8.0
    timeout_total: float = 10.0
    bytes_max: int = 4_000_000


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An HTTP answer: status, headers with lower-case names, and the body's exact bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class TransportError:
    """No HTTP answer. `sent` is False only where the request surely never left (the connection was refused)."""

    reason: str
    sent: bool = True


@dataclass(frozen=True, slots=True)
class MethodCapability:
    """What a method of an adapter hands out and how long the buyer can use it."""

    prepay_kind: PrepayKind
    lifetime_seconds: int
    lifetime_seconds_min: int = 60


class CloseProof(StrEnum):
    """What proves that a stream can no longer be paid."""

    ANSWER = "answer"  # the channel's own answer to close
    QUERY = "query"  # a query after the close
    RESTRAINT = "restraint"  # our not capturing
    EXPIRY = "expiry"  # only the passing of payable_until


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an adapter can do, stated truthfully; the steps read it instead of asking which channel it is.

    `not_found_before_buyer_acts`: query and close may answer not found while the prepay is payable.
    `enforces_expiry`: the channel itself refuses money after `payable_until`; with `clock_skew_seconds` it makes not
    found or open, asked after that moment, a proof. `notification_horizon_seconds` is the last notification retry
    plus a grace. `amount_minor_max` bounds one stream. `refund_interval_seconds` is the least time between refunds of
    one stream. `replay_window_seconds` says how long a repeat under the same number stays the same request (None: for
    ever). `states_refunded`: a payment's view tells how much of it was given back; where it does not, `refunded_minor`
    stays 0, and money given back outside payonce is seen only in the statement.
    """

    methods: Mapping[str, MethodCapability]
    currencies: frozenset[str]
    close_proof: CloseProof
    captures: bool = False
    not_found_before_buyer_acts: bool = False
    enforces_expiry: bool = True
    clock_skew_seconds: int = 60
    refunds: bool = True
    refunds_partial: bool = True
    refund_window_seconds: int = 365 * 86_400
    refund_interval_seconds: int = 0
    refund_count_max: int = 50
    statement: bool = False
    states_refunded: bool = True
    notification_horizon_seconds: int = 25 * 3_600
    replay_window_seconds: int | None = None
    refund_replay_window_seconds: int | None = None
    amount_minor_min: int = 1
    amount_minor_max: int = 10_000_000_000
    notes: Mapping[str, Any] = field(default_factory=dict)
