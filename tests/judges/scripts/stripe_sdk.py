"""Stripe's own Python SDK as a judge: our API simulator by its client, our requests by its parameter types, our events by its verifier.

Argument: a JSON file with `base_url`, `secret_key`, `webhook_secret`, `forms` [[type, [[key, value], …]], …] and
`messages` [{body, headers}, …].
"""

import builtins
import json
import re
import sys
import typing
import urllib.request
from pathlib import Path

import stripe
import typing_extensions
from stripe.params import PaymentIntentCreateParams, RefundCreateParams
from stripe.params.checkout import SessionCreateParams

given = json.loads(Path(sys.argv[1]).read_text())
client = stripe.StripeClient(given["secret_key"], base_addresses={"api": given["base_url"]}, max_network_retries=0)


def refuses(kind, call, code=None, status=None):
    error = None
    try:
        call()
    except kind as raised:
        error = raised
    assert type(error) is kind, error
    assert code is None or error.code == code, (error.code, code)
    assert status is None or error.http_status == status, error.http_status
    return error


def pay(number):
    urllib.request.urlopen(
        urllib.request.Request(f"{given['base_url']}/wallet/pay/{number}/pay", data=b"", method="POST"), timeout=10
    ).read()


def session_params(number):
    price = {"currency": "usd", "unit_amount": 1999, "product_data": {"name": "Book"}}
    return {
        "mode": "payment", "client_reference_id": number, "success_url": "https://shop.example/ok",
        "line_items": [{"quantity": 1, "price_data": price}], "metadata": {"payonce_number": number},
        "payment_intent_data": {"metadata": {"payonce_number": number}},
    }  # fmt: skip


def checkout():
    sessions = client.v1.checkout.sessions
    made = sessions.create(params=session_params("sdk_1"), options={"idempotency_key": "sdk-1"})
    again = sessions.create(params=session_params("sdk_1"), options={"idempotency_key": "sdk-1"})
    assert (made.id, made.status, made.payment_status, made.payment_intent) == (again.id, "open", "unpaid", None)
    assert again.last_response.headers["idempotent-replayed"] == "true"
    other = {**session_params("sdk_1"), "client_reference_id": "sdk_x"}
    refuses(
        stripe.IdempotencyError, lambda: sessions.create(params=other, options={"idempotency_key": "sdk-1"}), status=400
    )
    pay("sdk_1")
    paid = sessions.retrieve(made.id, params={"expand": ["payment_intent.latest_charge"]})
    assert (paid.status, paid.payment_status, paid.url) == ("complete", "paid", None)
    assert paid.payment_intent.amount_received == 1999
    assert paid.payment_intent.latest_charge.paid is True
    refuses(stripe.InvalidRequestError, lambda: sessions.expire(made.id), status=400)
    second = sessions.create(params=session_params("sdk_2"))
    assert sessions.expire(second.id).status == "expired"
    assert [row.id for row in sessions.list(params={"limit": 1}).auto_paging_iter()][:2] == [second.id, made.id]
    refuses(stripe.InvalidRequestError, lambda: sessions.retrieve("cs_none"), "resource_missing", 404)
    refuses(
        stripe.InvalidRequestError,
        lambda: sessions.create(params={**session_params("a"), "colour": "red"}),
        "parameter_unknown",
    )
    return paid.payment_intent.id


def intents():
    api = client.v1.payment_intents
    params = {
        "amount": 1999,
        "currency": "usd",
        "allowed_payment_method_types": ["card"],
        "metadata": {"payonce_number": "sdk_3"},
    }
    made = api.create(params=params)
    assert made.status == "requires_payment_method"
    assert made.client_secret.startswith(made.id)
    assert api.cancel(made.id, params={"cancellation_reason": "abandoned"}).status == "canceled"
    error = refuses(stripe.InvalidRequestError, lambda: api.cancel(made.id), "payment_intent_unexpected_state", 400)
    assert error.error.payment_intent["status"] == "canceled"
    assert made.id in [row.id for row in api.list(params={"limit": 2}).auto_paging_iter()]


def refunds(intent):
    api = client.v1.refunds
    params = {"payment_intent": intent, "amount": 500, "metadata": {"payonce_refund": "sdk_r"}, "reason": "duplicate"}
    made = api.create(params=params, options={"idempotency_key": "sdk-r"})
    assert api.create(params=params, options={"idempotency_key": "sdk-r"}).id == made.id
    assert (made.status, made.amount, made.metadata["payonce_refund"]) == ("succeeded", 500, "sdk_r")
    assert [row.id for row in api.list(params={"payment_intent": intent}).data] == [made.id]
    refuses(
        stripe.InvalidRequestError, lambda: api.create(params={"payment_intent": intent, "amount": 1500}), status=400
    )
    assert api.create(params={"payment_intent": intent}).amount == 1499
    refuses(
        stripe.InvalidRequestError, lambda: api.create(params={"payment_intent": intent}), "charge_already_refunded"
    )
    lines = client.v1.balance_transactions.list(params={"limit": 2, "expand": ["data.source"]})
    kinds = [(row.type, row.amount) for row in lines.auto_paging_iter()][:3]
    assert kinds == [("refund", -1499), ("refund", -500), ("charge", 1999)], kinds
    assert client.v1.disputes.list(params={"payment_intent": intent}).data == []


def errors():
    wrong = stripe.StripeClient("sk_test_wrong", base_addresses={"api": given["base_url"]}, max_network_retries=0)
    refuses(stripe.AuthenticationError, lambda: wrong.v1.refunds.list(), status=401)
    create = client.v1.payment_intents.create
    params = {"amount": 1999, "currency": "usd"}
    refuses(stripe.CardError, lambda: create(params=params, options={"idempotency_key": "no"}), "card_declined", 402)
    refuses(stripe.CardError, lambda: create(params=params, options={"idempotency_key": "no"}), "card_declined", 402)
    refuses(stripe.RateLimitError, lambda: create(params=params), status=429)
    refuses(stripe.APIError, lambda: create(params=params, options={"idempotency_key": "500"}), status=500)
    refuses(stripe.APIError, lambda: create(params=params, options={"idempotency_key": "500"}), status=500)


def verify(body, header, secret):
    assert stripe.Webhook.construct_event(body, header, secret).id.startswith("evt_")
    failure = stripe.SignatureVerificationError
    refuses(failure, lambda: stripe.Webhook.construct_event(body + " ", header, secret))
    refuses(failure, lambda: stripe.Webhook.construct_event(body, header, "whsec_other"))


def events():
    listed = list(client.v1.events.list(params={"limit": 2}).auto_paging_iter())
    assert {"checkout.session.completed", "checkout.session.expired", "payment_intent.canceled", "refund.updated"} <= {
        row.type for row in listed
    }
    assert client.v1.events.retrieve(listed[0].id).id == listed[0].id
    for message in given["messages"]:
        verify(message["body"], message["headers"]["stripe-signature"], given["webhook_secret"])
    return len(given["messages"])


def check_form(params, pairs):
    """Does the SDK know every parameter of this form?"""
    for key, value in pairs:
        kind = params
        for part in re.findall(r"[^\[\]]+", key):
            kind = step(kind, part, key)
        assert kind in (str, int, bool) or typing.get_origin(kind) is typing.Literal, (key, kind)
        if kind is int:
            int(value)
        if kind is bool:
            assert value in {"true", "false"}, key
        if typing.get_origin(kind) is typing.Literal:
            assert value in typing.get_args(kind), (key, value)


class Untold:
    """Stands for a name that the SDK imports only while types are checked."""

    def __class_getitem__(cls, _):
        return cls


class Names(dict):
    """The names that a module's annotations may use."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def __missing__(self, name):
        return getattr(self.module, name, getattr(builtins, name, Untold))


def step(kind, part, key):
    if typing_extensions.is_typeddict(kind):
        module = sys.modules[kind.__module__]
        hints = typing_extensions.get_type_hints(kind, vars(module), Names(module))
        assert part in hints, f"the SDK knows no parameter {key} (at {part})"
        return plain(hints[part])
    origin = typing.get_origin(kind)
    if origin is list:
        assert part.isdigit(), key
        return plain(typing.get_args(kind)[0])
    assert origin is dict, (key, kind)
    return str


def plain(kind):
    """One type of a union: a Literal of known words before any text, a TypedDict or Dict before an untyped object."""
    choices = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, type(int | str)) else (kind,)
    wanted = (
        typing_extensions.is_typeddict,
        *(lambda one, of=of: typing.get_origin(one) is of for of in (dict, list, typing.Literal)),
    )
    for fits in wanted:
        for choice in choices:
            if fits(choice):
                return choice
    return choices[0]


READ = {
    stripe.checkout.Session: "id client_reference_id metadata status payment_status amount_total currency payment_intent"
    " expires_at url",
    stripe.PaymentIntent: "id metadata status amount_received currency latest_charge client_secret",
    stripe.Charge: "id metadata captured paid created currency amount_captured amount_refunded disputed payment_intent status",
    stripe.Refund: "id metadata status amount currency failure_reason",
    stripe.Dispute: "id status amount currency payment_intent",
    stripe.BalanceTransaction: "id type source created",
    stripe.Event: "id type created livemode account data",
}


def check_read():
    """Does the SDK still know every field that our readers read?"""
    for kind, names in READ.items():
        unknown = set(names.split()) - set(kind.__annotations__)
        assert not unknown, (kind, unknown)


check_read()
intent = checkout()
intents()
refunds(intent)
errors()
verified = events()
known = {"session": SessionCreateParams, "intent": PaymentIntentCreateParams, "refund": RefundCreateParams}
for name, pairs in given["forms"]:
    check_form(known[name], pairs)
refused = False
try:
    check_form(SessionCreateParams, [["client_reference", "x"]])
except AssertionError:
    refused = True
assert refused, "the check of the forms checks nothing"
print(
    json.dumps(
        {
            "verified": verified,
            "forms": len(given["forms"]),
            "header": stripe.WebhookSignature.generate_signature_header('{"id": "evt_1"}', given["webhook_secret"]),
        }
    )
)
