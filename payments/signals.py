"""Django signals: a mirror of the published events, sent after the commit, at least once and in order per order."""

from django.dispatch import Signal

order_event = Signal()
"""Sent with `event: payonce.orders.shop.ShopEvent`. A receiver that raises is called again later: drop repeats by `event.id`."""
