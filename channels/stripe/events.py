"""Stripe's notifications ("webhook events"): verified by Stripe's own library, believed only for what they state themselves.

| object of the event | evidence |
|---|---|
| `checkout.session` | the payment under `client_reference_id`, with amount, currency and status |
| `payment_intent` | the payment in its metadata; of one that Checkout made only money taken or on its way, since the session decides |
| `charge` (`charge.refunded`) | the payment in its metadata, with what was given back in all |
| `refund` | the refund whose number is in its metadata; others are told by `charge.refunded` |
| `dispute` | only which PaymentIntent: it states no number, so the payment is asked for |

Events come in any order, may repeat, and may tell an old state; the event's id stays the same over repeats (docs.stripe.com/webhooks).
"""

from dataclasses import replace
from datetime import UTC, datetime

from payonce.channels.messages import NotAuthentic, Notice, NotificationRequest, PaymentState, PaymentView, RefundView
from payonce.channels.redaction import redact_json
from payonce.channels.stripe import objects
from payonce.channels.stripe.account import OWN_MERCHANT, StripeAccount
from payonce.channels.stripe.objects import MalformedError, Record

HEADER = "stripe-signature"
HEADER_CHARACTERS_MAX = 4_000
_OF_CHECKOUT_BELIEVED = frozenset({PaymentState.PAID, PaymentState.IN_PROGRESS})


def verify(request: NotificationRequest, secret: str) -> datetime | NotAuthentic:
    """When a genuine message was signed. Its age is not judged here: the library would let one from tomorrow pass."""
    # The library takes most of a second to import, so only a process that gets notifications pays for it.
    from stripe import SignatureVerificationError, WebhookSignature

    header = request.headers.get(HEADER, "")
    if not header:
        return NotAuthentic("missing_signature")
    stamps = [part[2:] for part in header.split(",") if part.startswith("t=")]
    fits = header.isascii() and len(header) <= HEADER_CHARACTERS_MAX and len(stamps) == 1
    if not fits or not (stamps[0].isdigit() and len(stamps[0]) <= 12):
        return NotAuthentic("bad_signature")
    try:
        WebhookSignature.verify_header(request.body.decode("utf-8"), header, secret)
        return datetime.fromtimestamp(int(stamps[0]), UTC)
    except (SignatureVerificationError, ValueError, OverflowError):
        return NotAuthentic("bad_signature")


def read_event(body: bytes, account: StripeAccount) -> Notice | NotAuthentic:
    """What a verified event says. Raises MalformedError."""
    event = objects.read_object(body)
    if event.get("object") != "event" or not isinstance(event.get("livemode"), bool):
        raise MalformedError("object")
    if event["livemode"] is not account.is_live:
        return NotAuthentic("wrong_mode")  # play money must never settle a real order
    data = event.get("data")
    inner = data.get("object") if isinstance(data, dict) else None
    kind, merchant = event.get("type"), event.get("account") or OWN_MERCHANT
    if not isinstance(inner, dict) or not isinstance(kind, str) or not isinstance(merchant, str):
        raise MalformedError("data")
    payment, refund = _evidence(kind, inner)
    return Notice(
        dedupe_key=objects.identifier(event, "evt_"),
        event=kind[:64],
        sent_at=objects.moment(event, "created"),
        payment=replace(payment, merchant=merchant) if payment is not None else None,
        refund=refund if merchant == account.merchant else None,
        raw=redact_json(body, objects.HIDDEN),
    )


def _evidence(kind: str, inner: Record) -> tuple[PaymentView | None, RefundView | None]:
    match inner.get("object"):
        case "refund" if kind.startswith(("refund.", "charge.refund.")):
            refund = objects.refund_of(inner)
            return None, refund if refund.refund_number else None
        case "dispute" if kind.startswith("charge.dispute."):
            return _disputed(inner), None
        case "checkout.session" | "payment_intent" | "charge" if objects.number_of(inner):
            return _payment(kind, inner), None
    return None, None


def _payment(kind: str, inner: Record) -> PaymentView | None:
    if kind == "checkout.session.async_payment_failed":
        return PaymentView(objects.number_of(inner), PaymentState.CLOSED)
    if kind.startswith("checkout.session."):
        return objects.payment_of_session(inner)
    if kind == "charge.refunded":
        return objects.payment_of_charge(inner)
    if not kind.startswith("payment_intent."):
        return None
    view = objects.payment_of_intent(inner)
    if objects.is_from_checkout(inner) and view.state not in _OF_CHECKOUT_BELIEVED:
        return None
    return view


def _disputed(dispute: Record) -> PaymentView | None:
    if dispute.get("payment_intent") is None:
        return None
    reference = objects.identifier({"id": dispute["payment_intent"]}, "pi_")
    return PaymentView("", PaymentState.UNCLEAR, channel_reference=reference)
