"""The shop contract: what payonce asks a shop and tells it. A shop subclasses `Shop` and names it in `PAYONCE["SHOP"]`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from django.apps import apps
from django.core.exceptions import ObjectDoesNotExist

from payonce.orders.conf import get_settings
from payonce.orders.errors import OrderNotFound
from payonce.orders.models import Order
from payonce.orders.statuses import LateDecision


@dataclass(frozen=True, slots=True)
class Payable:
    """What the shop wants paid for one reference. `amount_minor` is in minor units of the ISO 4217 `currency`."""

    amount_minor: int
    currency: str
    subject: str
    expires_at: datetime | None = None
    buyer_key: str = ""
    basket_key: str = ""


@dataclass(frozen=True, slots=True)
class ShopEvent:
    """One event as the shop gets it, at least once and in order per order. `id` is the same on every repeat.

    `kind` is for example `order.paid`, `order.refunded`, `order.closed` or `refund.succeeded`.
    """

    id: str
    kind: str
    order: str
    source: str
    reference: str
    sequence: int
    at: datetime
    amount_minor: int
    currency: str
    refunded_minor: int
    state: str
    stream: str = ""
    refund: str = ""


class Shop:
    """Subclass this. Every method may be called again for the same event: drop repeats by `event.id`.

    To be told in the transaction that settles the order (same database, database effects only, no payonce step), define
    `order_paid_in_transaction(event)`; it may run again after a deadlock, and an exception there undoes only its own work.
    """

    order_paid_in_transaction: Any = None

    def payable(self, reference: str) -> Payable:
        """What is to be paid for this reference. Raise OrderNotFound when there is no such thing."""
        raise OrderNotFound(
            f'The shop does not say what "{reference}" costs: define payable() on {type(self).__name__}.'
        )

    def order_paid(self, event: ShopEvent) -> None:
        """The order is paid. An exception means that the shop was not told: it is called again later."""

    def order_refunded(self, event: ShopEvent) -> None:
        """Everything was given back."""

    def order_event(self, event: ShopEvent) -> None:
        """Any other event of an order; also called for the two above when they are not overridden."""

    def late_payment(self, order: Order, paid_at: datetime, in_time: bool) -> LateDecision:
        """Money came for a closed order. Decide without network; `in_time` money was paid before the order's expiry.

        By default in-time money is for a person, and late money follows `PAYONCE["LATE_PAYMENT"]`.
        """
        return LateDecision.ASK if in_time else LateDecision(get_settings().LATE_PAYMENT)


class ModelShop(Shop):
    """Ready adapter for a plain Django model: name the model and its fields.

    `paid_field` is set to True (or to the time for a DateTimeField) in the settling transaction.
    """

    model: ClassVar[str] = ""
    reference_field: ClassVar[str] = "pk"
    amount_field: ClassVar[str] = "amount_minor"
    currency_field: ClassVar[str] = "currency"
    subject_field: ClassVar[str] = ""
    expires_field: ClassVar[str] = ""
    paid_field: ClassVar[str] = ""

    def payable(self, reference: str) -> Payable:
        """Read the row whose `reference_field` is the reference."""
        row = self._row(reference)
        return Payable(
            amount_minor=getattr(row, self.amount_field),
            currency=getattr(row, self.currency_field),
            subject=str(getattr(row, self.subject_field) if self.subject_field else row),
            expires_at=getattr(row, self.expires_field) if self.expires_field else None,
        )

    def order_paid_in_transaction(self, event: ShopEvent) -> None:
        """Mark the row paid, together with the money."""
        self.mark_paid(event)

    def order_paid(self, event: ShopEvent) -> None:
        """Mark the row again, in case the transaction had to go on without it."""
        self.mark_paid(event)

    def mark_paid(self, event: ShopEvent) -> None:
        """Write the paid field; a repeat writes the same."""
        if not self.paid_field:
            return
        model = apps.get_model(self.model)
        field = model._meta.get_field(self.paid_field)
        value = event.at if field.get_internal_type() == "DateTimeField" else True
        rows = model._default_manager.using(get_settings().DATABASE).filter(**{self.reference_field: event.reference})
        rows.update(**{self.paid_field: value})

    def _row(self, reference: str) -> Any:
        model = apps.get_model(self.model)
        try:
            return model._default_manager.using(get_settings().DATABASE).get(**{self.reference_field: reference})
        except (ObjectDoesNotExist, ValueError) as error:
            raise OrderNotFound(f'{self.model} has no row with {self.reference_field} = "{reference}".') from error
