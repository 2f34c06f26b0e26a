"""The bank's ledger as Stripe's objects: sessions, intents, charges, refunds, disputes, balance transactions, events.

What a merchant stated (metadata, addresses, its own reference) and the ids that the bank gave out stand in the note `stated` of the
payment; states and money are the ledger's. Fields follow Stripe's SDK 16.1; those that no payment of the bank has are left out or null.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from payonce.channels.sandbox.outbox import Notification
from payonce.channels.sandbox.records import Payment

Record = dict[str, Any]
API_VERSION = "2026-10-28.endive"
_INTENT_STATUS = {
    "OPEN": "requires_payment_method",
    "IN_PROGRESS": "processing",
    "PAID": "succeeded",
    "CLOSED": "canceled",
}
_REFUND_STATUS = {
    "IN_PROGRESS": "pending",
    "DONE": "succeeded",
    "ATTENTION": "requires_action",
    "FAILED": "failed",
    "RETURNED": "failed",  # the refund was done and the buyer's bank sent the money back
}
_EVENT_OF_REFUND = {"FAILED": "refund.failed", "RETURNED": "refund.failed"}
_REASON_OF_FAILURE = {"RETURNED": "declined"}


@dataclass(frozen=True, slots=True)
class Taken:
    """Money taken once; `position` counts the captures of one payment."""

    reference: str
    position: int
    amount_minor: int
    currency: str
    paid_at: float
    refunded_minor: int = 0
    disputed_minor: int = 0
    reversed_minor: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """A payment as one answer or message shows it."""

    number: str
    state: str
    amount_minor: int
    currency: str
    captures: tuple[Taken, ...] = ()
    is_expired: bool = False
    declined_count: int = 0
    closed_at: float | None = None
    url: str = ""


def seen(payment: Payment, at: float, url: str) -> Seen:
    """The payment as the ledger has it now."""
    captures = tuple(
        Taken(row.reference, place, row.amount_minor, row.currency, row.paid_at, row.refunded_minor, row.disputed_minor,
              row.reversed_minor)
        for place, row in enumerate(payment.captures)
    )  # fmt: skip
    return Seen(
        payment.number, payment.state, payment.amount_minor, payment.currency, captures,
        is_expired=payment.state == "OPEN" and at > payment.payable_until, declined_count=payment.declined_count,
        closed_at=payment.closed_at, url=url,
    )  # fmt: skip


def told(content: Record) -> Seen:
    """The payment as a notification tells of it: with one of its captures, at the moment of the event."""
    payment = content["payment"]
    captures: tuple[Taken, ...] = ()
    if "reference" in payment:
        captures = (
            Taken(payment["reference"], position_of(content), payment["paid_minor"], payment["currency"],
                  payment["paid_at"], payment["refunded_minor"], payment["disputed_minor"], payment["reversed_minor"]),
        )  # fmt: skip
    return Seen(payment["number"], payment["state"], payment["amount_minor"], payment["currency"], captures)


def session(stated: Record, of: Seen, expand: Collection[str] = ()) -> Record:
    """A Checkout Session."""
    first = next((taken for taken in of.captures if taken.position == 0), None)
    status = {"OPEN": "open", "CLOSED": "expired"}.get(of.state, "complete")
    status = "expired" if of.is_expired else status
    amount = first.amount_minor if first else of.amount_minor
    has_intent = of.state in {"IN_PROGRESS", "PAID"} or of.declined_count > 0
    inner: Any = stated["intent"] if has_intent else None
    if has_intent and "payment_intent" in _heads(expand):
        inner = intent(stated, of, 0, _below(expand, "payment_intent"))
    return {
        "id": stated["id"], "object": "checkout.session", "adaptive_pricing": {"enabled": False},
        "after_expiration": None, "allow_promotion_codes": None, "amount_subtotal": amount, "amount_total": amount,
        "automatic_tax": {"enabled": False, "liability": None, "status": None}, "billing_address_collection": None,
        "cancel_url": stated["cancel_url"], "client_reference_id": stated["client_reference_id"],
        "client_secret": None, "created": int(stated["created_at"]),
        "currency": (first.currency if first else of.currency).lower(), "custom_fields": [],
        "custom_text": {"after_submit": None, "shipping_address": None, "submit": None,
                        "terms_of_service_acceptance": None},
        "customer": None, "customer_creation": "if_required", "customer_details": None, "customer_email": None,
        "expires_at": stated["expires_at"], "livemode": False, "locale": None, "metadata": stated["metadata"],
        "mode": "payment", "payment_intent": inner, "payment_link": None, "payment_method_collection": "if_required",
        "payment_method_options": {}, "payment_method_types": ["card"],
        "payment_status": "paid" if of.state == "PAID" else "unpaid", "phone_number_collection": {"enabled": False},
        "recovered_from": None, "setup_intent": None, "shipping_address_collection": None, "shipping_cost": None,
        "shipping_options": [], "status": status, "submit_type": None, "subscription": None,
        "success_url": stated["success_url"].replace("{CHECKOUT_SESSION_ID}", stated["id"]),
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0}, "ui_mode": "hosted_page",
        "url": of.url if status == "open" else None,
    }  # fmt: skip


def intent(stated: Record, of: Seen, position: int = 0, expand: Collection[str] = ()) -> Record:
    """A PaymentIntent: the payment's own, or that of one more capture."""
    taken = next((row for row in of.captures if row.position == position), None)
    status = "succeeded" if taken else _INTENT_STATUS[of.state]
    amount = taken.amount_minor if taken else of.amount_minor
    identifier = intent_id(stated, taken) if taken else stated["intent"]
    latest: Any = charge_id(taken) if taken else None
    if taken and "latest_charge" in _heads(expand):
        latest = charge(stated, taken)
    failed = {"type": "card_error", "code": "card_declined", "decline_code": "generic_decline",
              "message": "Your card was declined."}  # fmt: skip
    return {
        "id": identifier, "object": "payment_intent", "amount": amount, "amount_capturable": 0,
        "amount_details": {"tip": {}}, "amount_received": amount if taken else 0, "application": None,
        "application_fee_amount": None, "automatic_payment_methods": None,
        "canceled_at": int(of.closed_at or 0) or None if status == "canceled" else None, "cancellation_reason": None,
        "capture_method": "automatic_async", "client_secret": stated["client_secret"],
        "confirmation_method": "automatic", "created": int(stated["created_at"]),
        "currency": (taken.currency if taken else of.currency).lower(), "customer": None,
        "description": stated["description"] or None,
        "last_payment_error": failed if of.declined_count and of.state == "OPEN" else None, "latest_charge": latest,
        "livemode": False, "metadata": stated["intent_metadata"], "next_action": None, "on_behalf_of": None,
        "payment_method": None, "payment_method_options": {}, "payment_method_types": ["card"], "processing": None,
        "receipt_email": None, "review": None, "setup_future_usage": None, "shipping": None,
        "statement_descriptor": None, "statement_descriptor_suffix": None, "status": status, "transfer_data": None,
        "transfer_group": None,
    }  # fmt: skip


def charge(stated: Record, taken: Taken) -> Record:
    """A charge that succeeded. The metadata of its intent was copied into it."""
    return {
        "id": charge_id(taken), "object": "charge", "amount": taken.amount_minor, "amount_captured": taken.amount_minor,
        "amount_refunded": taken.refunded_minor, "balance_transaction": None, "billing_details": {}, "captured": True,
        "created": int(taken.paid_at), "currency": taken.currency.lower(), "customer": None,
        "description": stated["description"] or None, "disputed": taken.disputed_minor + taken.reversed_minor > 0,
        "failure_code": None, "failure_message": None, "livemode": False, "metadata": stated["intent_metadata"],
        "paid": True, "payment_intent": intent_id(stated, taken), "payment_method": None,
        "refunded": taken.refunded_minor == taken.amount_minor, "status": "succeeded",
    }  # fmt: skip


def refund(stated: Record, row: Record, taken_id: str, intent_of: str) -> Record:
    """A refund (`row` as a notification tells it), with the metadata of its own that it was made with."""
    number, state = row["refund_number"], row["state"]
    known = stated["refunds"].get(number, {"metadata": {}, "reason": None, "created": int(stated["created_at"])})
    shown = {
        "id": "re_" + row["reference"].removeprefix("ref_"), "object": "refund", "amount": row["amount_minor"],
        "balance_transaction": None, "charge": taken_id, "created": known["created"],
        "currency": row["currency"].lower(), "metadata": known["metadata"], "payment_intent": intent_of,
        "reason": known["reason"], "receipt_number": None, "source_transfer_reversal": None,
        "status": _REFUND_STATUS[state], "transfer_reversal": None,
    }  # fmt: skip
    if shown["status"] == "failed":
        shown["failure_reason"] = _REASON_OF_FAILURE.get(state, row["code"].lower() or "unknown")
    return shown


def disputes(stated: Record, taken: Taken) -> list[Record]:
    """What the payer's bank took back: a dispute that is open, and what was lost."""
    sides = (("dp_", taken.disputed_minor, "needs_response"), ("dp_r", taken.reversed_minor, "lost"))
    return [
        {
            "id": prefix + taken.reference[4:], "object": "dispute", "amount": amount, "balance_transactions": [],
            "charge": charge_id(taken), "created": int(taken.paid_at), "currency": taken.currency.lower(),
            "evidence": {}, "evidence_details": {"due_by": None, "has_evidence": False, "past_due": False,
                                                 "submission_count": 0},
            "is_charge_refundable": False, "livemode": False, "metadata": {},
            "payment_intent": intent_id(stated, taken), "reason": "general", "status": status,
        }
        for prefix, amount, status in sides
        if amount
    ]  # fmt: skip


def kind_of_movement(row: Record) -> str:
    """The type of a movement of the journal."""
    return {"capture": "charge", "refund": "refund", "refund_returned": "refund_failure"}.get(row["kind"], "adjustment")


def transaction_id(row: Record) -> str:
    """The id of a movement of the journal."""
    return f"txn_{row['id']:016x}"


def balance_transaction(row: Record, source: Record) -> Record:
    """A movement of the journal, whose `id` is a transaction's by now."""
    kind = kind_of_movement(row)
    return {
        "id": row["id"], "object": "balance_transaction", "amount": row["amount_minor"],
        "available_on": int(row["at"]), "created": int(row["at"]), "currency": row["currency"].lower(),
        "description": None, "exchange_rate": None, "fee": 0, "fee_details": [], "net": row["amount_minor"],
        "reporting_category": {"adjustment": "dispute"}.get(kind, kind), "source": source, "status": "available",
        "type": kind,
    }  # fmt: skip


def event(message: Notification) -> Record:
    """A notification as an event: one per change of the ledger, where the real channel may send several."""
    content = message.read()
    stated = content["stated"]
    kind, inner = _refund_event(content) if "refund" in content else _payment_event(message.event, content)
    return {
        "id": event_id(message), "object": "event", "api_version": API_VERSION, "created": int(content["sent_at"]),
        "data": {"object": inner}, "livemode": False, "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None}, "type": kind if stated else "unknown",
    }  # fmt: skip


def _payment_event(name: str, content: Record) -> tuple[str, Record]:
    stated, of = content["stated"], told(content)
    if of.captures and name == "payment.refunded":
        return "charge.refunded", charge(stated, of.captures[0])
    if of.captures and name == "payment.dispute":
        return "charge.dispute.created", disputes(stated, of.captures[0])[0]
    if of.captures and name == "payment.reversal":
        return "charge.dispute.closed", disputes(stated, of.captures[0])[-1]
    is_session = stated["id"].startswith("cs_") and position_of(content) == 0
    if name == "payment.closed":
        return (
            ("checkout.session.expired", session(stated, of))
            if is_session
            else ("payment_intent.canceled", intent(stated, of))
        )
    if is_session:
        return "checkout.session.completed", session(stated, of)
    return "payment_intent.succeeded", intent(stated, of, position_of(content))


def _refund_event(content: Record) -> tuple[str, Record]:
    row, stated = content["refund"], content["stated"]
    of = stated["refunds"].get(row["refund_number"], {})
    shown = refund(stated, row, of.get("charge", ""), of.get("payment_intent", stated["intent"]))
    return _EVENT_OF_REFUND.get(row["state"], "refund.updated"), shown


def position_of(content: Record) -> int:
    """Which of the payment's captures a message tells of."""
    return int(content["payment"]["details"]["ordinal"])


def event_id(message: Notification) -> str:
    """An event keeps its id over all repeats."""
    return "evt_" + message.key.removeprefix("ntf_")


def intent_id(stated: Record, taken: Taken) -> str:
    """The first capture is that of the intent itself; a further one has an intent of its own."""
    return str(stated["intent"]) if taken.position == 0 else "pi_" + taken.reference.removeprefix("cap_")


def charge_id(taken: Taken) -> str:
    """The id of a capture."""
    return "ch_" + taken.reference.removeprefix("cap_")


def _heads(expand: Collection[str]) -> set[str]:
    return {path.partition(".")[0] for path in expand}


def _below(expand: Collection[str], head: str) -> list[str]:
    return [path.partition(".")[2] for path in expand if path.startswith(head + ".")]
