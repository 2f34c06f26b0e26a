"""Bodies of requests and answers, as they are checked and as the API description shows them."""

from collections.abc import Iterable
from typing import Any

from drf_spectacular.drainage import set_override
from rest_framework import serializers

from payonce.orders.models import AMOUNT_MINOR_MAX
from payonce.orders.statuses import OrderState
from payonce.payments.api.fields import Moment, StrictSerializer, Text, WholeNumber
from payonce.payments.refund import REASONS
from payonce.payments.statuses import RefundState, StreamState


def _one_of(values: Iterable[str]) -> serializers.CharField:
    """A field of an answer that holds one of these texts."""
    field = serializers.CharField()
    set_override(field, "field", {"type": "string", "enum": list(values)})
    return field


class OrderBody(StrictSerializer):
    """What must be paid. Leave amount, currency and subject out together, and the shop's `payable()` is asked."""

    reference = Text(max_length=128, help_text="The shop's own id of what is paid; unique per source")
    amount_minor = WholeNumber(
        required=False,
        min_value=1,
        max_value=AMOUNT_MINOR_MAX,
        help_text="In minor units: 1999 is 19.99 EUR, or 1999 JPY",
    )
    currency = Text(required=False, min_length=3, max_length=3, help_text="ISO 4217, such as CNY")
    subject = Text(required=False, max_length=200, help_text="What the buyer reads")
    source = Text(  # type: ignore[assignment]
        required=False, max_length=64, help_text="The token's own source; may be left out"
    )
    expires_at = Moment(required=False, help_text="With an offset; after it no payment is taken")
    buyer_key = Text(required=False, max_length=128, help_text="An opaque id of the buyer, to notice a second order")
    basket_key = Text(required=False, max_length=128, help_text="An opaque id of the basket, to notice a second order")
    return_url = Text(required=False, max_length=500, help_text="Where the cashier page leads back to")
    amend = serializers.BooleanField(required=False, help_text="Change the amount of an order that is not paid yet")


class PayBody(StrictSerializer):
    """How the buyer wants to pay."""

    channel = Text(max_length=32, help_text="Name of a channel account")
    method = Text(max_length=16, help_text="qr, web, h5, app: one of the account's methods")
    client_type = Text(required=False, allow_blank=True, default="", max_length=16)
    payer = Text(
        required=False, allow_blank=True, default="", max_length=128, help_text="The channel's id of the payer"
    )
    client_ip = serializers.IPAddressField(
        required=False, help_text="The buyer's address, when the shop calls; otherwise the caller's own"
    )


class CloseBody(StrictSerializer):
    """Why the order is closed."""

    reason = Text(required=False, default="cancelled", max_length=24)


class RefundBody(StrictSerializer):
    """How much goes back, and why."""

    amount_minor = WholeNumber(min_value=1, max_value=AMOUNT_MINOR_MAX, help_text="In minor units of the stream")
    reason = serializers.ChoiceField(choices=REASONS)
    note = Text(required=False, allow_blank=True, default="", max_length=500, help_text='Needed for the reason "other"')


class StreamAnswer(serializers.Serializer[Any]):
    """One attempt to pay."""

    number = serializers.CharField()
    channel = serializers.CharField()
    method = serializers.CharField()
    state = _one_of(StreamState.values)
    surplus = serializers.BooleanField(help_text="It took money and is not the keeper: the money goes back")


class StatusAnswer(serializers.Serializer[Any]):
    """How an order stands."""

    order = serializers.CharField()
    source = serializers.CharField()  # type: ignore[assignment]
    reference = serializers.CharField()
    state = _one_of(OrderState.values)
    final = serializers.BooleanField(help_text="Nothing changes any more by itself")
    version = serializers.IntegerField(help_text="Grows with every change; the ETag")
    amount_minor = serializers.IntegerField()
    refunded_minor = serializers.IntegerField()
    currency = serializers.CharField()
    keeper = serializers.CharField(allow_null=True, help_text="Number of the stream that paid it")
    streams = StreamAnswer(many=True)
    actions = serializers.ListField(child=_one_of(["pay", "close", "refund"]))
    next_poll_ms = serializers.IntegerField(allow_null=True)
    server_time = serializers.DateTimeField()


class PlacedAnswer(StatusAnswer):
    """A placed order, and what its buyer needs."""

    buyer_token = serializers.CharField(help_text="Grants this order only, for a limited time")
    cashier_url = serializers.CharField()


class PrepayAnswer(serializers.Serializer[Any]):
    """What the buyer pays with."""

    kind = _one_of(["qr", "redirect", "form", "client_secret", "app"])
    value = serializers.CharField(help_text="A text; for form a JSON text with action and fields")
    expires_at = serializers.DateTimeField()


class PayAnswer(serializers.Serializer[Any]):
    """One way to pay, or the news that it is paid."""

    result = _one_of(["prepay", "already_paid"])
    order = serializers.CharField()
    stream = serializers.CharField()
    channel = serializers.CharField()
    method = serializers.CharField()
    amount_minor = serializers.IntegerField()
    currency = serializers.CharField()
    prepay = PrepayAnswer(allow_null=True)


class RefundAnswer(serializers.Serializer[Any]):
    """One refund as it stands."""

    refund = serializers.CharField()
    stream = serializers.CharField()
    order = serializers.CharField()
    state = _one_of(RefundState.values)
    amount_minor = serializers.IntegerField()
    currency = serializers.CharField()
    reason = serializers.CharField()
    refundable_minor = serializers.IntegerField(help_text="What a further refund of this stream could give back")


class ErrorItem(serializers.Serializer[Any]):
    """One field that is not acceptable."""

    field = serializers.CharField()
    detail = serializers.CharField()


class ProblemAnswer(serializers.Serializer[Any]):
    """RFC 9457 problem details. Match on `code`; a 409, 429 or 503 has Retry-After."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField()
    instance = serializers.CharField()
    errors = ErrorItem(many=True, required=False)  # type: ignore[assignment]
