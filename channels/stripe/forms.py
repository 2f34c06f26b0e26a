"""What is sent to Stripe: amounts as it counts them, and the forms of the requests that make something.

Sources: the typed parameters of Stripe's own SDK 16.1 (API version 2026-10-28.endive) and docs.stripe.com/currencies.
Nothing in a form depends on the moment of the call: a repeat under the same key must be the same request.
"""

from urllib.parse import urlencode

from payonce.channels.messages import PrepayRequest, RefundRequest

API_VERSION = "2026-10-28.endive"
NUMBER, METHOD, REFUND = "payonce_number", "payonce_method", "payonce_refund"
WEB, CARD = "web", "card"
SUBJECT_CHARACTERS_MAX = 250

# Stripe counts in the currency's smallest unit, as payonce does, with these exceptions (docs.stripe.com/currencies):
# the krona and the Ugandan shilling have no minor unit any more and are still sent in hundredths; the last digit of a
# three-decimal amount must be 0. The ariary (fifths of a unit) is left out.
HUNDREDFOLD = frozenset({"ISK", "UGX"})
_TENS_ONLY = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
_ZERO_DECIMAL = frozenset(
    {"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"}
)
_TWO_DECIMAL = frozenset(
    {"AED", "AUD", "BGN", "BRL", "CAD", "CHF", "CNY", "COP", "CZK", "DKK", "EGP", "EUR", "GBP", "HKD", "HUF", "IDR",
     "ILS", "INR", "KES", "MAD", "MOP", "MXN", "MYR", "NGN", "NOK", "NZD", "PEN", "PHP", "PKR", "PLN", "QAR", "RON",
     "SAR", "SEK", "SGD", "THB", "TRY", "TWD", "UAH", "USD", "UYU", "ZAR"}
)  # fmt: skip
CURRENCIES = tuple(sorted(_TWO_DECIMAL | _ZERO_DECIMAL | _TENS_ONLY | HUNDREDFOLD))

_REASONS = {
    "duplicate": "duplicate",
    "second_capture": "duplicate",
    "requested_by_customer": "requested_by_customer",
    "fraudulent": "fraudulent",
}

Pairs = list[tuple[str, str]]


def to_wire(amount_minor: int, currency: str) -> int | None:
    """An amount in minor units as Stripe counts it; None where Stripe cannot express it."""
    if currency in HUNDREDFOLD:
        return amount_minor * 100
    if currency in _TENS_ONLY and amount_minor % 10:
        return None
    return amount_minor


def encode(pairs: Pairs) -> bytes:
    """Form encoding, the only one that API v1 takes."""
    return urlencode(pairs, errors="replace").encode("ascii")


def session_form(request: PrepayRequest, amount: int) -> Pairs:
    """A Checkout Session."""
    subject = request.subject.strip()[:SUBJECT_CHARACTERS_MAX] or request.number
    return [
        ("mode", "payment"),
        ("client_reference_id", request.number),
        ("success_url", request.return_url),
        ("cancel_url", request.return_url),
        ("expires_at", str(int(request.payable_until.timestamp()))),
        ("line_items[0][quantity]", "1"),
        ("line_items[0][price_data][currency]", request.currency.lower()),
        ("line_items[0][price_data][unit_amount]", str(amount)),
        ("line_items[0][price_data][product_data][name]", subject),
        # The buyer pays exactly what the order says, not a price converted by Stripe.
        ("adaptive_pricing[enabled]", "false"),
        *_metadata("metadata", request.number, WEB),
        *_metadata("payment_intent_data[metadata]", request.number, WEB),
    ]


def intent_form(request: PrepayRequest, amount: int) -> Pairs:
    """A PaymentIntent that the shop's page confirms with a card, captured at once.

    `payment_method_types` is refused since version 2026-09-30 (docs.stripe.com/changelog/endive).
    """
    return [
        ("amount", str(amount)),
        ("currency", request.currency.lower()),
        ("allowed_payment_method_types[0]", "card"),
        ("description", request.subject.strip()[:SUBJECT_CHARACTERS_MAX] or request.number),
        *_metadata("metadata", request.number, CARD),
    ]


def refund_form(request: RefundRequest, intent: str, amount: int) -> Pairs:
    """A refund that carries its own number, since Stripe has no field for it."""
    pairs = [
        ("payment_intent", intent),
        ("amount", str(amount)),
        (f"metadata[{REFUND}]", request.refund_number),
        (f"metadata[{NUMBER}]", request.payment.number),
    ]
    return [*pairs, ("reason", _REASONS[request.reason])] if request.reason in _REASONS else pairs


def _metadata(name: str, number: str, method: str) -> Pairs:
    return [(f"{name}[{NUMBER}]", number), (f"{name}[{METHOD}]", method)]
