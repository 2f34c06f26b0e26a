"""A buyer orders a book, pays twice, and the shop learns of it once: the whole path, from the installed wheel."""

import os
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from orders.models import Order
from payonce.channels.sandbox.control import SandboxControl
from payonce.orders.models import Order as PayonceOrder
from payonce.orders.place import place_order
from payonce.payments.pay import pay_order
from payonce.payments.poll import poll_stream


class Command(BaseCommand):
    """Order, pay, pay again, ask the channel."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Raise CommandError unless the book is paid once."""
        book = Order.objects.create(title="A book", amount_minor=1250)
        placed = place_order(
            "bookshop", str(book.pk), amount_minor=book.amount_minor, currency=book.currency, subject=book.title
        )
        first = pay_order(placed.order.number, "wallet", "qr")
        again = pay_order(placed.order.number, "wallet", "qr")
        if first.stream != again.stream or not first.prepay_value:
            raise CommandError(f"two clicks made two ways to pay: {first} {again}")
        control = SandboxControl.from_folder(os.environ["SHOP_SANDBOX_URL"], Path(os.environ["SHOP_SANDBOX_FOLDER"]))
        if not control.pay(first.stream).ok:
            raise CommandError("the bank does not take the money")
        poll_stream(first.stream, "shop")
        late = pay_order(placed.order.number, "wallet", "qr")
        book.refresh_from_db()
        order = PayonceOrder.objects.get(pk=placed.order.pk)
        if (order.state, book.is_paid, late.code) != ("PAID", True, "already_paid"):
            raise CommandError(f"not paid: {order.state} {book.is_paid} {late}")
        self.stdout.write("paid once")
