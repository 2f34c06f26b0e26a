"""How a stream is named to its channel, and the addresses that a channel is given."""

from django.urls import NoReverseMatch, reverse

from payonce.channels.messages import PaymentRef
from payonce.orders.conf import get_settings
from payonce.payments.models import Stream


def payment_ref(stream: Stream) -> PaymentRef:
    """The stream as its channel knows it. An adopted one carries the number it came under and its own reference."""
    return PaymentRef(
        number=stream.channel_number,
        amount_minor=stream.amount_minor,
        currency=stream.currency,
        method=stream.method,
        channel_reference=stream.channel_reference or "",
        first_sent_at=stream.first_sent_at,
        payable_until=stream.payable_until,
    )


def notify_url(account: str) -> str:
    """The absolute address for the account's notifications."""
    return _absolute("notify", account)


def return_url(account: str) -> str:
    """The absolute address to which the channel sends the buyer's browser back."""
    return _absolute("return", account)


def _absolute(name: str, account: str) -> str:
    try:
        path = reverse(f"payonce:{name}", kwargs={"account": account})
    except NoReverseMatch:
        path = f"/{name}/{account}/"
    return get_settings().BASE_URL.rstrip("/") + path
