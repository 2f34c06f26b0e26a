"""Place an order: once per source and reference, also when the shop asks twice at the same time."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import moneyed
from django.db import transaction
from django.utils import timezone

from payonce.orders import transitions
from payonce.orders.conf import get_settings, get_shop
from payonce.orders.errors import AmendRefused, InvalidOrder, PlaceConflict
from payonce.orders.events import Journal
from payonce.orders.locks import bounded_transaction, lock_order_by_reference, read_clock
from payonce.orders.models import AMOUNT_MINOR_MAX, Event, Order
from payonce.orders.transitions import OrderMove

ALPHABET = "abcdefghjkmnpqrstvwxyz0123456789"  # no i, l, o, u: read aloud and typed without mistakes
before_amend: list[Callable[[Order, Journal], None]] = []
"""Called under the order's lock before its amount changes; payments puts every stream of the old amount on watch there."""
on_events: list[Callable[[Order, list[Event]], None]] = []
"""Called with new events in their transaction; payments owes them to the shop's listeners there."""
after_amend: list[Callable[[Order], None]] = []
"""Called after the commit of an amended order."""


@dataclass(frozen=True, slots=True)
class Placed:
    """The order, and whether this call made or changed it."""

    order: Order
    is_new: bool
    is_amended: bool = False


def place_order(
    source: str,
    reference: str,
    *,
    amount_minor: int,
    currency: str,
    subject: str,
    expires_at: datetime | None = None,
    buyer_key: str = "",
    basket_key: str = "",
    return_url: str = "",
    amend: bool = False,
    by: str = "",
) -> Placed:
    """Place `reference` of `source` for payment, or find it. May be called inside the shop's own transaction.

    `amount_minor` is in minor units of `currency` (ISO 4217). The same reference with another amount or currency raises
    PlaceConflict unless `amend` is set, which first puts every stream of the old amount on watch. Raises InvalidOrder for
    a field that is not acceptable, AmendRefused when the order is no longer open or its money may be on its way.
    """
    validate_fields(source, reference, amount_minor, currency, subject, return_url)
    if expires_at is not None and timezone.is_naive(expires_at):
        raise InvalidOrder("expires_at", "expires_at must carry a time zone.")
    wanted = Order(
        number=new_number(),
        source=source,
        reference=reference,
        amount_minor=amount_minor,
        currency=currency,
        subject=subject.strip(),
        expires_at=expires_at,
        buyer_key=buyer_key,
        basket_key=basket_key,
        return_url=return_url,
    )
    with bounded_transaction():
        found = lock_order_by_reference(source, reference)
        if found is None:
            made = _insert(wanted, by or f"shop:{source}")
            if made is not None:
                return Placed(made, is_new=True)
            found = lock_order_by_reference(source, reference)
            assert found is not None, "an order cannot be deleted"
        if (found.amount_minor, found.currency) == (amount_minor, currency):
            return Placed(found, is_new=False)
        if not amend:
            raise PlaceConflict(
                f'"{reference}" was placed before for {found.amount_minor} {found.currency} (minor units), not'
                f" {amount_minor} {currency}. Place it under a new reference, or ask to amend it."
            )
        return _amend(found, wanted, by or f"shop:{source}")


def place_from_shop(reference: str, source: str = "shop", *, amend: bool = False, return_url: str = "") -> Placed:
    """Place what `Shop.payable(reference)` says is to be paid."""
    payable = get_shop().payable(reference)
    return place_order(
        source,
        reference,
        amount_minor=payable.amount_minor,
        currency=payable.currency,
        subject=payable.subject,
        expires_at=payable.expires_at,
        buyer_key=payable.buyer_key,
        basket_key=payable.basket_key,
        amend=amend,
        return_url=return_url,
    )


def validate_fields(
    source: Any, reference: Any, amount_minor: Any, currency: Any, subject: Any, return_url: str = ""
) -> None:
    """Refuse what no channel could take. Raises InvalidOrder naming the field."""
    for name, text, length in (("source", source, 64), ("reference", reference, 128), ("subject", subject, 200)):
        if not isinstance(text, str) or not text.strip() or len(text) > length or not text.isprintable():
            raise InvalidOrder(name, f"{name} must be 1 to {length} printable characters.")
    if isinstance(amount_minor, bool) or not isinstance(amount_minor, int):
        raise InvalidOrder(
            "amount_minor", "amount_minor must be a whole number of minor units, not a decimal or a text."
        )
    if not 0 < amount_minor <= AMOUNT_MINOR_MAX:
        raise InvalidOrder("amount_minor", f"amount_minor must be from 1 to {AMOUNT_MINOR_MAX}.")
    if not isinstance(currency, str) or currency not in moneyed.CURRENCIES or not currency.isascii():
        raise InvalidOrder("currency", f"{currency!r} is not an ISO 4217 currency code such as CNY or EUR.")
    if len(return_url) > 500 or (return_url and not return_url.startswith(("https://", "http://", "/"))):
        raise InvalidOrder("return_url", "return_url must be an http(s) address or a path, of at most 500 characters.")


def new_number() -> str:
    """A fresh order number: the installation's prefix and 13 characters (64 bits) that nobody can guess."""
    return get_settings().NUMBER_PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(13))


def _insert(order: Order, by: str) -> Order | None:
    """Insert the order with its first event; None when another transaction was first."""
    using = get_settings().DATABASE
    journal = Journal(at=read_clock(), by=by)
    if order.expires_at is not None and order.expires_at <= journal.at:
        raise InvalidOrder("expires_at", "expires_at is already past.")
    transitions.start(order, journal)
    Order.objects.using(using).bulk_create([order], ignore_conflicts=True)
    order_id = (
        Order.objects.using(using)
        .filter(number=order.number, source=order.source, reference=order.reference)
        .values_list("pk", flat=True)
        .first()
    )
    if order_id is None:
        return None
    order.pk = order_id
    _save_events(order, journal)
    return order


def _amend(order: Order, wanted: Order, by: str) -> Placed:
    using = get_settings().DATABASE
    journal = Journal(at=read_clock(), by=by)
    if wanted.expires_at is not None and wanted.expires_at <= journal.at:
        raise InvalidOrder("expires_at", "expires_at is already past.")
    for guard in before_amend:
        guard(order, journal)
    move = transitions.amend(order, journal, wanted.amount_minor, wanted.currency)
    if move is not OrderMove.MOVED:
        raise AmendRefused(
            f"Order {order.number} is {order.state}: its amount can no longer change. Place a new reference."
        )
    order.subject = wanted.subject
    if wanted.expires_at is not None:
        order.expires_at = order.next_expiry_at = wanted.expires_at
    order.save(
        using=using,
        update_fields=["amount_minor", "currency", "subject", "expires_at", "next_expiry_at", "version", "event_hash"],
    )
    _save_events(order, journal)
    for callback in after_amend:
        transaction.on_commit(partial(callback, order), using=using, robust=True)
    return Placed(order, is_new=False, is_amended=True)


def _save_events(order: Order, journal: Journal) -> None:
    for event in journal.events:
        event.order = order
    Event.objects.using(get_settings().DATABASE).bulk_create(journal.events)
    for callback in on_events:
        callback(order, journal.events)
