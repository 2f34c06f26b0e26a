"""How payonce finds what is to be paid, and marks it paid."""

from payonce.orders.shop import ModelShop


class BookShop(ModelShop):
    """Books are orders of the shop."""

    model = "orders.Order"
    subject_field = "title"
    paid_field = "is_paid"
