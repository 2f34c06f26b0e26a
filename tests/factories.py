"""Rows by the state that they reach, made by the real steps."""

from datetime import timedelta
from typing import Any

import factory
from django.utils import timezone

from payonce.channels.messages import Known, PaymentView
from payonce.orders.models import Order
from payonce.orders.place import place_order
from payonce.payments.locks import under_lock
from payonce.payments.models import Stream
from payonce.payments.pay import PayCode, pay_order
from payonce.payments.refs import payment_ref
from payonce.payments.settle import Evidence, Settled, apply_evidence
from payonce.payments.statuses import Confirmation
from tests.scripted import ScriptedChannel, paid_view


class PlacedOrderFactory(factory.Factory):
    """An OPEN order of 1000 minor units, placed through `place_order`."""

    class Meta:
        model = Order

    source = "shop"
    reference = factory.Sequence(lambda number: f"A-{number}")
    amount_minor = 1000
    currency = "CNY"
    subject = "A book"
    expires_at = factory.LazyFunction(lambda: timezone.now() + timedelta(hours=1))

    @classmethod
    def _create(cls, model_class: type[Order], *args: Any, **kwargs: Any) -> Order:
        return place_order(kwargs.pop("source"), kwargs.pop("reference"), **kwargs).order


def open_order(**fields: Any) -> Order:
    return PlacedOrderFactory.create(**fields)  # type: ignore[no-any-return]


def pending_stream(order: Order | None = None, channel: str = "scripted_a", **choice: Any) -> Stream:
    """A stream that was handed out to the buyer."""
    order = order or open_order()
    result = pay_order(order.number, channel, choice.pop("method", "qr"), **choice)
    assert result.code is PayCode.PREPAY, result
    return Stream.objects.get(number=result.stream)


def created_stream(order: Order | None = None, channel: str = "scripted_a") -> Stream:
    """A stream whose prepay was never answered."""
    from payonce.channels.messages import Unknown

    order = order or open_order()
    ScriptedChannel.answers[channel, "prepay"].append(Unknown("time-out"))
    result = pay_order(order.number, channel, "qr")
    assert result.code is PayCode.UNAVAILABLE, result
    return Stream.objects.get(number=result.stream)


def apply(stream: Stream, view: PaymentView, *, account: str = "", way: Confirmation = Confirmation.POLL) -> Settled:
    """Apply evidence asked for now."""
    return under_lock(
        "system:test",
        lambda work: apply_evidence(
            work, work.stream(stream.number), Evidence(account or stream.account, view, way, work.at)
        ),
        stream=stream.number,
    )


def view_of(stream: Stream, **changes: Any) -> PaymentView:
    """A matching success of this stream, or a changed one."""
    return paid_view(payment_ref(stream), **changes)


def paid_stream(order: Order | None = None, channel: str = "scripted_a") -> Stream:
    """The keeper of a PAID order."""
    stream = pending_stream(order, channel)
    assert apply(stream, view_of(stream)) is Settled.KEEPER
    stream.refresh_from_db()
    return stream


def answer_paid(stream: Stream, **changes: Any) -> None:
    """Let the next query find the stream paid."""
    ScriptedChannel.answers[stream.account, "query"].append(Known(view_of(stream, **changes)))
