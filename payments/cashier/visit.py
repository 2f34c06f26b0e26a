"""How a buyer is known to the cashier: the token in the address at first, a cookie for that one order from then on.

The cookie is HttpOnly, SameSite=Lax and sent only to the order's own page, and to the return address (a second cookie).
"""

from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.crypto import constant_time_compare, salted_hmac

from payonce.orders.conf import get_settings
from payonce.payments import tokens

PAGE_COOKIE = "payonce_buyer_"
RETURN_COOKIE = "payonce_back_"
"""Two names: a response holds one cookie of a name, whatever their paths."""
NUMBER_LENGTH_MAX = 32


@dataclass(frozen=True, slots=True)
class Visit:
    """A buyer at the page of one order. `token` is the buyer token; `address` is the path that the browser shows."""

    order: str
    token: str
    address: str
    is_by_cookie: bool

    @property
    def form_key(self) -> str:
        """Goes into each form and comes back: another site cannot know it. The same for every tab of the order."""
        return salted_hmac("payonce.cashier.form", self.order, algorithm="sha256").hexdigest()[:32]

    def may_act(self, request: HttpRequest) -> bool:
        """Was this form made here?"""
        given = request.POST.get("form_key", "")
        return given.isascii() and constant_time_compare(given, self.form_key)

    @property
    def short_address(self) -> str:
        """The page's path without the token, for a browser that has the cookie."""
        return reverse("payonce:cashier", kwargs={"token": self.order})

    def remember(self, response: HttpResponse) -> None:
        """Leave the cookies, so that the token need not stay in the address."""
        for name, path in ((PAGE_COOKIE, self.short_address), (RETURN_COOKIE, return_path())):
            response.set_cookie(
                name + self.order, self.token, max_age=get_settings().BUYER_TOKEN_SECONDS, path=path,
                httponly=True, samesite="Lax", secure=get_settings().BASE_URL.startswith("https://"),
            )  # fmt: skip


def read_visit(request: HttpRequest, token: str) -> Visit | None:
    """The buyer's visit by the token in the address, or by the cookie of the order named there. None: nobody we know."""
    address = reverse("payonce:cashier", kwargs={"token": token})
    try:
        return Visit(tokens.read_buyer_token(token), token, address, is_by_cookie=False)
    except tokens.TokenRefused:
        pass
    kept = request.COOKIES.get(PAGE_COOKIE + token, "")
    return Visit(token, kept, address, is_by_cookie=True) if _grants(kept, token) else None


def address_after_return(request: HttpRequest, order: str) -> str:
    """The cashier page for a browser that came back, where a cookie shows that it is the order's buyer."""
    kept = request.COOKIES.get(RETURN_COOKIE + order, "") if order else ""
    return reverse("payonce:cashier", kwargs={"token": order}) if _grants(kept, order) else ""


def return_path() -> str:
    """The part of the address that every account's return address begins with."""
    return reverse("payonce:return", kwargs={"account": "x"}).removesuffix("x/")


def _grants(token: str, order: str) -> bool:
    try:
        return bool(token) and tokens.read_buyer_token(token) == order
    except tokens.TokenRefused:
        return False
