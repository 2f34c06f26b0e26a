"""What can be made and ended at the bank in Stripe's words: sessions, intents, refunds, and the address for events.

A `check_…` function validates parameters before anything is executed and returns the merchant's number; what it refuses is stored under
no idempotency key, as is InvalidError.
"""

import re
import sqlite3
from typing import Any

from payonce.channels.sandbox import ledger, outbox, refunds
from payonce.channels.sandbox.account import YEAR_SECONDS
from payonce.channels.sandbox.bank import refund_course
from payonce.channels.sandbox.codes import Code
from payonce.channels.sandbox.notes import find_note, write_note
from payonce.channels.sandbox.outbox import STATED
from payonce.channels.sandbox.records import Capture, find_payment, find_refund, refunds_of
from payonce.channels.sandbox.skins import stripe_objects as objects
from payonce.channels.sandbox.skins.stripe_params import ApiError, Params
from payonce.channels.sandbox.skins.stripe_reads import Call, Scene, locate, missing

SESSION_SECONDS_MIN, SESSION_SECONDS_MAX = 1_800, 86_400
AMOUNT_MAX = 99_999_999
# The least charge of some currencies (docs.stripe.com/currencies#minimum-and-maximum-charge-amounts).
AMOUNT_MIN = {"AUD": 50, "CAD": 50, "CHF": 50, "EUR": 50, "GBP": 30, "HKD": 400, "JPY": 50, "SGD": 50, "USD": 50}
_TENS_ONLY = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
_REASONS = ("duplicate", "fraudulent", "requested_by_customer")
_CANCELLATIONS = ("abandoned", "duplicate", "fraudulent", "requested_by_customer")
_NUMBER = re.compile(r"[0-9A-Za-z_]{1,60}", re.ASCII)
_ITEM = "line_items[0]"


class InvalidError(ApiError):
    """A refusal before the execution began."""


def check_session(params: Params) -> str:
    """The merchant's number in a new session."""
    params.one_of("mode", ("payment",), required=True)
    params.url("success_url", required=True)
    params.url("cancel_url")
    params.integer("expires_at", 0, 10**12)
    params.text(f"{_ITEM}[price_data][product_data][name]", required=True, characters_max=5_000)
    if (
        params.integer(f"{_ITEM}[quantity]", 1, 999_999, required=True) != 1
        or "line_items[1][quantity]" in params.pairs
    ):
        raise ApiError(400, "This simulator sells one thing in one line.", param="line_items")
    _price(params, f"{_ITEM}[price_data][unit_amount]", f"{_ITEM}[price_data][currency]")
    own = params.text("client_reference_id", characters_max=200)
    return _number(own or params.metadata().get("payonce_number", "")) or "st_session"


def check_intent(params: Params) -> str:
    """The merchant's number in a new intent."""
    _price(params, "amount", "currency")
    params.text("description", characters_max=1_000)
    params.one_of("capture_method", ("automatic", "automatic_async"))
    return _number(params.metadata().get("payonce_number", "")) or "st_intent"


def check_refund(params: Params) -> str:
    """Refunds have no number of their own."""
    if bool(params.text("payment_intent")) == bool(params.text("charge")):
        message = "One of the following params should be provided for this request: payment_intent or charge."
        raise ApiError(400, message, "parameter_missing")
    params.integer("amount", 1, AMOUNT_MAX)
    params.one_of("reason", _REASONS)
    params.metadata()
    return ""


def check_endpoint(params: Params) -> str:
    """A webhook endpoint."""
    params.url("url", required=True)
    if not params.all_of("enabled_events"):
        raise ApiError(400, "Missing required param: enabled_events.", "parameter_missing", "enabled_events")
    return ""


def number_of_refund(database: sqlite3.Connection, account: str, call: Call) -> str:
    """The number of the payment that a refund is asked of."""
    place = locate(database, account, call.params.text("payment_intent") or call.params.text("charge"))
    return place.number if place else ""


def create_session(scene: Scene) -> dict[str, Any]:
    """A Checkout Session: open until it expires."""
    params = scene.params
    expires_at = params.integer("expires_at", 0, 10**12) or int(scene.at) + SESSION_SECONDS_MAX
    if not SESSION_SECONDS_MIN <= expires_at - int(scene.at) <= SESSION_SECONDS_MAX:
        message = "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout Session creation."
        raise InvalidError(400, message, param="expires_at")
    name = params.text(f"{_ITEM}[price_data][product_data][name]")
    stated = {
        "id": f"cs_test_a1{scene.token}", "object": "checkout.session", "metadata": params.metadata(),
        "intent_metadata": params.metadata("payment_intent_data[metadata]"), "expires_at": expires_at,
        "client_reference_id": params.text("client_reference_id") or None, "success_url": params.text("success_url"),
        "cancel_url": params.text("cancel_url") or None, "description": params.text("payment_intent_data[description]"),
    }  # fmt: skip
    amount, currency = _price(params, f"{_ITEM}[price_data][unit_amount]", f"{_ITEM}[price_data][currency]")
    number = _register(scene, check_session(params), "web", amount, currency, name, float(expires_at), stated)
    made, of = scene.seen(number)
    return objects.session(made, of)


def create_intent(scene: Scene) -> dict[str, Any]:
    """A PaymentIntent: payable until it is cancelled."""
    params = scene.params
    stated = {
        "id": f"pi_3{scene.token}", "object": "payment_intent", "metadata": params.metadata(),
        "intent_metadata": params.metadata(), "expires_at": 0, "client_reference_id": None, "success_url": "",
        "cancel_url": None, "description": params.text("description"),
    }  # fmt: skip
    amount, currency = _price(params, "amount", "currency")
    until = scene.at + YEAR_SECONDS
    name = stated["description"] or "a payment"
    number = _register(scene, check_intent(params), "card", amount, currency, str(name), until, stated)
    made, of = scene.seen(number)
    return objects.intent(made, of)


def expire_session(scene: Scene) -> dict[str, Any]:
    """Only an open session can be expired."""
    place = locate(scene.database, scene.account.name, scene.id)
    if place is None or not scene.id.startswith("cs_"):
        raise missing(scene.id)
    shown = objects.session(*scene.seen(place.number))
    if shown["status"] != "open":
        message = f'Only Checkout Sessions with a status in ["open"] can be expired. This Session has a status of {shown["status"]}.'
        raise ApiError(400, message)
    _close(scene, place.number)
    return objects.session(*scene.seen(place.number))


def cancel_intent(scene: Scene) -> dict[str, Any]:
    """An intent that waits for the buyer can be cancelled, but not one that belongs to a session."""
    scene.params.one_of("cancellation_reason", _CANCELLATIONS)
    place = locate(scene.database, scene.account.name, scene.id)
    if place is None or not scene.id.startswith("pi_"):
        raise missing(scene.id)
    stated, of = scene.seen(place.number)
    shown = objects.intent(stated, of, place.position)
    if stated["object"] == "checkout.session" and shown["status"] != "succeeded":
        raise ApiError(400, "You cannot cancel a PaymentIntent that was created by Checkout: expire its session.")
    if shown["status"] not in {"requires_payment_method", "requires_action"}:
        message = f"You cannot cancel this PaymentIntent because it has a status of {shown['status']}."
        raise ApiError(400, message, "payment_intent_unexpected_state", payment_intent=shown)
    _close(scene, place.number)
    return objects.intent(*scene.seen(place.number))


def create_refund(scene: Scene) -> dict[str, Any]:
    """A refund of what is left of one charge. Its number in the ledger is the merchant's own, where that is free."""
    params, database, account = scene.params, scene.database, scene.account
    wanted = params.text("payment_intent") or params.text("charge")
    place = locate(database, account.name, wanted)
    payment = find_payment(database, account.name, place.number) if place else None
    if place is None or payment is None:
        raise missing(wanted, 400)
    if not payment.captures:
        raise ApiError(400, f"This PaymentIntent ({wanted}) does not have a successful charge to refund.")
    taken = payment.captures[place.position]
    amount = params.integer("amount", 1, AMOUNT_MAX) or _left(database, taken)
    _refuse_refund(taken, _left(database, taken), amount)
    number = _free(
        _number(params.metadata().get("payonce_refund", "")) or "st_refund",
        lambda name: find_refund(database, payment.id, name) is not None,
    )
    stated = scene.stated(payment.number)
    shown = objects.seen(payment, scene.at, "").captures[place.position]
    charge, intent = objects.charge_id(shown), objects.intent_id(stated, shown)
    about = {
        "metadata": params.metadata(), "reason": params.text("reason") or None, "created": int(scene.at),
        "charge": charge, "payment_intent": intent,
    }  # fmt: skip
    stated["refunds"][number] = about
    write_note(database, account.name, STATED, payment.number, stated, scene.at)
    order = refunds.RefundOrder(number, taken.reference, amount, taken.currency, "")
    result = refunds.refund(database, account, payment.number, order, refund_course(account, scene.faults), scene.at)
    if result.code != Code.OK or result.refund is None:
        raise ApiError(400, f"The bank refuses this refund: {result.code}", str(result.code).lower())
    return objects.refund(stated, outbox.refund_content(payment, result.refund), charge, intent)


def create_endpoint(scene: Scene) -> dict[str, Any]:
    """Where events go from now on. The bank has one endpoint, and its secret is the account's."""
    url, events = scene.params.url("url"), scene.params.all_of("enabled_events")
    write_note(scene.database, scene.account.name, "endpoint", "url", url, scene.at)
    return {
        "id": f"we_1{scene.token}", "object": "webhook_endpoint", "api_version": None, "application": None,
        "created": int(scene.at), "description": None, "enabled_events": events, "livemode": False, "metadata": {},
        "secret": scene.account.keys["webhook_secret"], "status": "enabled", "url": url,
    }  # fmt: skip


def _price(params: Params, amount_name: str, currency_name: str) -> tuple[int, str]:
    amount = params.integer(amount_name, 1, AMOUNT_MAX, required=True) or 0
    currency = params.text(currency_name, required=True)
    if not re.fullmatch(r"[a-z]{3}", currency, re.ASCII):
        raise ApiError(400, f"Invalid currency: {currency[:10]}", param=currency_name)
    code = currency.upper()
    if amount < AMOUNT_MIN.get(code, 1):
        raise ApiError(400, "Amount must be at least the equivalent of 50 cents.", "amount_too_small", amount_name)
    if code in _TENS_ONLY and amount % 10:
        raise ApiError(400, f"Invalid amount: the last digit of {currency} must be 0.", param=amount_name)
    return amount, code


def _register(
    scene: Scene, own: str, method: str, amount: int, currency: str, name: str, until: float, stated: dict[str, Any]
) -> str:
    """Make the ledger's payment, and remember what the merchant stated of it. Returns the ledger's number."""
    database, account = scene.database, scene.account
    number = _free(own, lambda wanted: find_payment(database, account.name, wanted) is not None)
    endpoint = find_note(database, account.name, "endpoint", "url")
    order = ledger.Order(
        number=number, amount_minor=amount, currency=currency, subject=name[:256], method=method, client_type="",
        payer="", payable_until=until, notify_url=endpoint.value if endpoint else account.keys.get("notify_url", ""),
        return_url=str(stated["success_url"]).replace("{CHECKOUT_SESSION_ID}", str(stated["id"])),
    )  # fmt: skip
    result = ledger.register(database, account, order, scene.at)
    if result.code != Code.OK:
        codes = {Code.AMOUNT_OUT_OF_RANGE: "amount_too_large"}
        raise InvalidError(400, f"Invalid request: {result.code}", codes.get(Code(result.code), ""))
    intent = stated["id"] if method == "card" else f"pi_3{scene.token}"
    whole = {
        **stated, "number": number, "intent": intent, "client_secret": f"{intent}_secret_{scene.token[::-1]}",
        "created_at": scene.at, "refunds": {},
    }  # fmt: skip
    write_note(database, account.name, STATED, number, whole, scene.at)
    for identifier in {str(stated["id"]), str(intent)}:
        write_note(database, account.name, "id", identifier, number, scene.at)
    return number


def _close(scene: Scene, number: str) -> None:
    result = ledger.close(scene.database, scene.account, number, scene.at)
    if result.code != Code.CLOSED or result.payment is None:
        raise ApiError(400, f"The bank refuses to close this: {result.code}")
    outbox.announce_payment(scene.database, scene.account, result.payment, None, "payment.closed", scene.at)


def _refuse_refund(taken: Capture, left: int, amount: int) -> None:
    name = "ch_" + taken.reference.removeprefix("cap_")
    if taken.disputed_minor:
        raise ApiError(400, f"Charge {name} has been charged back; cannot issue a refund.", "charge_disputed")
    if left <= 0:
        raise ApiError(400, f"Charge {name} has already been refunded.", "charge_already_refunded")
    if amount > left:
        raise ApiError(
            400, f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})", param="amount"
        )


def _left(database: sqlite3.Connection, taken: Capture) -> int:
    held = sum(row.amount_minor for row in refunds_of(database, taken.id) if row.state not in {"FAILED", "RETURNED"})
    return taken.amount_minor - taken.disputed_minor - taken.reversed_minor - held


def _number(text: str) -> str:
    return text if _NUMBER.fullmatch(text) else ""


def _free(name: str, is_taken: Any) -> str:
    """The name, or the name with a count where the merchant uses it again: nothing at Stripe forbids that."""
    count, free = 1, name
    while is_taken(free):
        count += 1
        free = f"{name}__{count}"
    return free
