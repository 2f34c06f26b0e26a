"""Publish: tell the shop. Each event at least once, with its id, in order per order; retried until told or parked for a person.

A message is a row that commits with its event, so "order paid here, shop not told" can only be a delay. Listeners are the
Python hooks of the shop (`shop`) and every configured HTTP endpoint (Standard Webhooks).
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum

from payonce.channels import http
from payonce.channels.messages import HttpResponse
from payonce.channels.signing import sign_webhook
from payonce.orders.conf import get_settings, get_shop
from payonce.orders.models import Order
from payonce.orders.shop import Shop
from payonce.payments import claims, clock, message_rows, schedule, signals
from payonce.payments.call import let_go_of_database
from payonce.payments.messages import SHOP_LISTENER, read_event
from payonce.payments.models import ShopMessage

log = logging.getLogger("payonce.publish")


BATCH = 24
THREADS = 12  # two endpoints' time-outs one after the other stay below the claim


class Delivery(StrEnum):
    """What telling one listener came to."""

    DELIVERED = "delivered"
    FAILED = "failed"


def deliver_due(limit: int = BATCH) -> int:
    """Deliver one batch of due messages; returns how many were told. Safe beside any number of other workers."""
    told = 0
    while batch := message_rows.claim_due(limit):
        results = list(_deliver_all(batch))
        message_rows.record(results)
        good = Counter(f"message:{row.listener}" for row, how, _ in results if how is Delivery.DELIVERED)
        bad = Counter(f"message:{row.listener}" for row, how, _ in results if how is Delivery.FAILED)
        reasons = {f"message:{row.listener}": text for row, how, text in results if how is Delivery.FAILED}
        claims.record_health(good, bad, reasons, failures_max=schedule.LISTENER_FAILURES)
        told += sum(how is Delivery.DELIVERED for _, how, _ in results)
        if not good:
            break
    return told


def _deliver_all(batch: list[ShopMessage]) -> Iterator[tuple[ShopMessage, Delivery, str]]:
    """HTTP messages a few at a time on threads that touch no database; the shop's hooks one by one on this one."""
    seconds = clock.about_now().timestamp()
    let_go_of_database()
    posted = [message for message in batch if message.listener != SHOP_LISTENER]
    with ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="payonce-publish") as pool:
        sent = [(message, pool.submit(_post, message, seconds)) for message in posted]
        for message in batch:
            if message.listener == SHOP_LISTENER:
                yield (message, *_call_hooks(message))
        for message, future in sent:
            yield (message, *future.result())


def _call_hooks(message: ShopMessage) -> tuple[Delivery, str]:
    event = read_event(message.body)
    shop: Shop = get_shop()
    hook = {"order.paid": shop.order_paid, "order.refunded": shop.order_refunded}.get(event.kind)
    try:
        if hook is not None:
            hook(event)
        shop.order_event(event)
        for _receiver, result in signals.order_event.send_robust(sender=Order, event=event):
            if isinstance(result, Exception):
                raise result
    except Exception as error:
        log.exception("the shop's hook failed for event %s; it is told again later", event.id)
        return Delivery.FAILED, f"{type(error).__name__}: {error}"[:200]
    return Delivery.DELIVERED, "told"


def _post(message: ShopMessage, seconds: float) -> tuple[Delivery, str]:
    conf = get_settings().MESSAGES
    endpoint = conf.ENDPOINTS.get(message.listener)
    if endpoint is None:
        return Delivery.FAILED, f'PAYONCE["MESSAGES"]["ENDPOINTS"] has no "{message.listener}" any more'
    body = message.body.encode()
    event_id = json.loads(message.body)["id"]
    try:
        signed = sign_webhook(endpoint["secret"], event_id, seconds, body)
    except ValueError as error:
        return Delivery.FAILED, f'PAYONCE["MESSAGES"]["ENDPOINTS"]["{message.listener}"]["secret"]: {error}'[:200]
    headers = {"content-type": "application/json", **signed}
    answer = http.post_to_public(endpoint["url"], headers, body, allow_private_hosts=conf.PRIVATE_HOSTS)
    if not isinstance(answer, HttpResponse):
        return Delivery.FAILED, answer.reason[:200]
    if 200 <= answer.status < 300:
        return Delivery.DELIVERED, str(answer.status)
    return Delivery.FAILED, f"HTTP {answer.status}"
