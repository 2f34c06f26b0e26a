"""One box for every number: exact look-ups, each a query of its own on an index, never an OR over a join."""

import re
from dataclasses import dataclass, field
from typing import Any

from django.db import models
from django.http import HttpRequest
from django.urls import reverse

from payonce.orders.conf import get_settings
from payonce.orders.models import Order
from payonce.payments.models import Refund, Stream

TERMS_MAX = 200
ROWS_MAX = 2_000
SEPARATORS = re.compile(r"[\s,;，；、]+")


@dataclass(frozen=True, slots=True)
class Found:
    """Ids of what was found by its own number, and of everything that belongs to it."""

    terms: tuple[str, ...] = ()
    hits: tuple[tuple[type[models.Model], int], ...] = ()
    orders: frozenset[int] = field(default_factory=frozenset)
    streams: frozenset[int] = field(default_factory=frozenset)
    refunds: frozenset[int] = field(default_factory=frozenset)


def terms_of(text: str) -> list[str]:
    """The numbers in a pasted text, each once. The whole text is one of them: a shop's reference may hold spaces."""
    whole = text.replace("\x00", " ").strip()  # no number holds it, and the database refuses to be asked about it
    parts = [part for part in SEPARATORS.split(whole) if part]
    return list(dict.fromkeys([whole, *parts] if len(parts) > 1 else parts))


def find_once(request: HttpRequest, text: str) -> Found:
    """What the text names, looked up once per request."""
    key = "_payonce_found"
    known: tuple[str, Found] | None = getattr(request, key, None)
    if known is None or known[0] != text:
        known = (text, find(text))
        setattr(request, key, known)
    return known[1]


def find(text: str) -> Found:
    """Look every number up in five queries: order number, shop reference, stream number, channel reference, refund number."""
    terms = terms_of(text)[: TERMS_MAX + 1]
    if not terms:
        return Found()
    orders = {*_ids(Order, number__in=terms), *_ids(Order, reference__in=terms)}
    streams = {*_ids(Stream, number__in=terms), *_ids(Stream, channel_reference__in=terms)}
    refunds = set(_ids(Refund, number__in=terms))
    hits = (
        *((Order, pk) for pk in sorted(orders)),
        *((Stream, pk) for pk in sorted(streams)),
        *((Refund, pk) for pk in sorted(refunds)),
    )
    return Found(tuple(terms), hits, frozenset(orders), frozenset(streams), frozenset(refunds))


def order_ids(found: Found) -> set[int]:
    """Orders found, and those of the streams and refunds found."""
    return {
        *found.orders,
        *_ids(Stream, "order_id", pk__in=found.streams),
        *_ids(Refund, "stream__order_id", pk__in=found.refunds),
    }


def stream_ids(found: Found) -> set[int]:
    """Streams found, those of the orders found, and those that the refunds found give back."""
    return {
        *found.streams,
        *_ids(Stream, order_id__in=found.orders),
        *_ids(Refund, "stream_id", pk__in=found.refunds),
    }


def refund_ids(found: Found) -> set[int]:
    """Refunds found, and those of the streams and orders found."""
    return {*found.refunds, *_ids(Refund, stream_id__in=stream_ids(Found(orders=found.orders, streams=found.streams)))}


def jump(found: Found, user: Any, site: str) -> str:
    """The page of the only hit, where the user may see it; an empty text otherwise."""
    if len(found.hits) != 1:
        return ""
    model, pk = found.hits[0]
    meta = model._meta
    if not user.has_perm(f"{meta.app_label}.view_{meta.model_name}"):
        return ""
    return reverse(f"{site}:{meta.app_label}_{meta.model_name}_change", args=[pk])


def _ids(model: type[models.Model], column: str = "pk", **condition: Any) -> list[int]:
    if any(not value for value in condition.values()):
        return []
    rows = model._default_manager.using(get_settings().DATABASE).filter(**condition)
    return list(rows.order_by().values_list(column, flat=True)[:ROWS_MAX])
