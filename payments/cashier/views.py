"""The cashier's addresses: the page, the click on Pay, the poll, and the browser coming back from a channel."""

import logging
from collections.abc import Callable
from functools import wraps

from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.utils import translation
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_safe

from payonce.errors import PayonceError
from payonce.orders.conf import get_settings
from payonce.orders.models import Order
from payonce.payments import enqueue, poll
from payonce.payments.api.base import client_ip, outside_transactions
from payonce.payments.api.standing import Standing, actions_of, read_standing
from payonce.payments.cashier.page import render_page, respond
from payonce.payments.cashier.screens import screen_of
from payonce.payments.cashier.visit import Visit, address_after_return, read_visit
from payonce.payments.models import Stream
from payonce.payments.pay import pay
from payonce.payments.pay_result import PayCode, PayRequest

log = logging.getLogger("payonce.cashier")
RETURN_PARAMETERS = ("number", "out_trade_no", "stream")
NUMBER_LENGTH_MAX = 64
NOTICE_OF = {
    PayCode.DECLINED: "declined",
    PayCode.UNAVAILABLE: "unavailable",
    PayCode.IN_PROGRESS: "busy",
    PayCode.NOT_PROVEN_CLOSED: "waiting",
    PayCode.TOO_MANY_UNPROVEN: "waiting",
}


def in_buyers_language(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Speak the browser's language, also in a project without Django's locale middleware."""

    @wraps(view)
    def speaking(request: HttpRequest, *args: str, **kwargs: str) -> HttpResponse:
        with translation.override(translation.get_language_from_request(request)):
            return view(request, *args, **kwargs)

    return speaking


@csrf_exempt  # the form's own key does it, so that the page needs no second cookie and no middleware
@require_http_methods(["GET", "HEAD", "POST"])
@outside_transactions
@in_buyers_language
def show_page(request: HttpRequest, token: str) -> HttpResponse:
    """GET shows how the order stands; POST is a click on Pay and leads back to the page."""
    visit = read_visit(request, token)
    order = _find(visit)
    if visit is None or order is None:
        return _nothing_here(request)
    if request.method == "POST":
        return _click(request, visit, order)
    response = render_page(request, visit, read_standing(order), request.GET.get("notice", ""))
    if not visit.is_by_cookie:
        visit.remember(response)
    return response


def _click(request: HttpRequest, visit: Visit, order: Order) -> HttpResponse:
    if not visit.may_act(request):
        return _see(visit, "changed")
    if "check" in request.POST:
        _nudge(read_standing(order))
        return _see(visit, "")
    channel, _, method = request.POST.get("way", "").partition(":")
    try:
        result = pay(PayRequest(order.number, channel, method, client_ip=client_ip(request)))
    except PayonceError:
        return _see(visit, "unavailable")  # an account or method that is not offered any more
    except OperationalError:
        log.warning("the database was busy with order %s: the buyer may click again", order.number)
        return _see(visit, "busy")
    return _see(visit, NOTICE_OF.get(result.code, ""))


@require_safe
@outside_transactions
def tell_state(request: HttpRequest, token: str) -> HttpResponse:
    """What the page's script polls. Somebody is waiting, so the open stream is asked about soon."""
    visit = read_visit(request, token)
    order = _find(visit)
    if order is None:
        return JsonResponse({"code": "not_found"}, status=404, headers={"Cache-Control": "no-store"})
    standing = read_standing(order)
    _nudge(standing)
    body = {
        "state": order.state,
        "screen": screen_of(standing).value,
        "final": standing.is_final,
        "version": order.version,
        "next_poll_ms": standing.next_poll_ms,
        "actions": actions_of(standing, is_shop=False),
        "server_time": standing.at.isoformat(),
    }
    return JsonResponse(body, headers={"Cache-Control": "no-store"})


@require_safe
@outside_transactions
@in_buyers_language
def take_return(request: HttpRequest, account: str) -> HttpResponse:
    """The buyer is back: look at the stream soon, and lead on to the cashier page. A hint, never evidence."""
    number = next((request.GET[name] for name in RETURN_PARAMETERS if name in request.GET), "")
    order = ""
    if number.isascii() and number.isalnum() and len(number) <= NUMBER_LENGTH_MAX:
        rows = Stream.objects.using(get_settings().DATABASE).filter(number=number, account=account)
        order = rows.values_list("order__number", flat=True).first() or ""
        if order and poll.nudge(number):
            enqueue.kick("payonce.poll")
    address = address_after_return(request, order)
    if address:
        return HttpResponseRedirect(address, headers={"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
    return respond(request, "payonce/cashier/returned.html", {})


def _find(visit: Visit | None) -> Order | None:
    if visit is None:
        return None
    return Order.objects.using(get_settings().DATABASE).filter(number=visit.order).first()


def _nudge(standing: Standing) -> None:
    stream = standing.open_stream
    if stream is not None and poll.nudge(stream.number):
        enqueue.kick("payonce.poll")


def _see(visit: Visit, notice: str) -> HttpResponse:
    address = visit.address + (f"?notice={notice}" if notice else "")
    return HttpResponse(status=303, headers={"Location": address, "Cache-Control": "no-store"})


def _nothing_here(request: HttpRequest) -> HttpResponse:
    """The same page for a wrong, foreign and outdated address: it tells nothing."""
    return respond(request, "payonce/cashier/nothing.html", {}, status=404)
