"""PayPal's own Python SDK pays, repeats, refunds and searches at the address that it is given. Prints what it saw as JSON."""

import json
import sys
import urllib.request

from paypalserversdk.configuration import Configuration, Environment, Server
from paypalserversdk.exceptions.api_exception import ApiException
from paypalserversdk.http.auth.o_auth_2 import ClientCredentialsAuthCredentials
from paypalserversdk.models.amount_with_breakdown import AmountWithBreakdown
from paypalserversdk.models.checkout_payment_intent import CheckoutPaymentIntent
from paypalserversdk.models.money import Money
from paypalserversdk.models.order_request import OrderRequest
from paypalserversdk.models.payment_source import PaymentSource
from paypalserversdk.models.paypal_wallet import PaypalWallet
from paypalserversdk.models.paypal_wallet_experience_context import PaypalWalletExperienceContext
from paypalserversdk.models.purchase_unit_request import PurchaseUnitRequest
from paypalserversdk.models.refund_request import RefundRequest
from paypalserversdk.paypal_serversdk_client import PaypalServersdkClient


def main() -> None:
    """Run the judge."""
    given = json.loads(sys.argv[1])
    Configuration.environments = {Environment.SANDBOX: {Server.DEFAULT: given["base_url"]}}
    client = PaypalServersdkClient(
        client_credentials_auth_credentials=ClientCredentialsAuthCredentials(given["client_id"], given["client_secret"]),
        environment=Environment.SANDBOX, timeout=20,
    )  # fmt: skip
    seen = pay(client, given)
    seen["refused"] = refusals(client, given, seen)
    print(json.dumps(seen))


def pay(client: PaypalServersdkClient, given: dict[str, str]) -> dict[str, object]:
    """One order from its creation to its refund, each step asked twice."""
    number = given["number"]
    context = PaypalWalletExperienceContext(
        return_url="https://shop.example/", cancel_url="https://shop.example/", user_action="PAY_NOW"
    )
    unit = PurchaseUnitRequest(
        amount=AmountWithBreakdown(currency_code="USD", value="19.99"),
        custom_id=number,
        invoice_id=number,
        description="A book",
    )
    body = OrderRequest(
        intent=CheckoutPaymentIntent.CAPTURE, purchase_units=[unit],
        payment_source=PaymentSource(paypal=PaypalWallet(experience_context=context)),
    )  # fmt: skip
    request = {"body": body, "paypal_request_id": f"{number}.order", "prefer": "return=representation"}
    made, again = client.orders.create_order(request), client.orders.create_order(request)
    order_id = made.body.id
    control(given, "approve", number)
    approved = client.orders.get_order({"id": order_id})
    capture = {"id": order_id, "paypal_request_id": f"{number}c1", "prefer": "return=representation"}
    taken, taken_again = client.orders.capture_order(capture), client.orders.capture_order(capture)
    capture_id = taken.body.purchase_units[0].payments.captures[0].id
    part = RefundRequest(amount=Money(currency_code="USD", value="5.00"), custom_id=f"{number}r1")
    refund = {
        "capture_id": capture_id,
        "paypal_request_id": f"{number}r1",
        "prefer": "return=representation",
        "body": part,
    }
    back, back_again = client.payments.refund_captured_payment(refund), client.payments.refund_captured_payment(refund)
    shown = client.payments.get_captured_payment({"capture_id": capture_id}).body
    found = client.transaction_search.search_transactions(
        {"start_date": given["start"], "end_date": given["end"], "fields": "transaction_info"}
    ).body
    answers = (made, again, taken, taken_again, back, back_again)
    return {
        "statuses": [answer.status_code for answer in answers],
        "same": [made.body.id == again.body.id, back.body.id == back_again.body.id],
        "states": [made.body.status, approved.body.status, taken.body.status, shown.status, back.body.status],
        "refund": client.payments.get_refund({"refund_id": back.body.id}).body.custom_id,
        "search": sorted(row.transaction_info.transaction_amount.value for row in found.transaction_details),
        "order": order_id, "capture": capture_id, "links": [link.rel for link in made.body.links],
    }  # fmt: skip


def refusals(client: PaypalServersdkClient, given: dict[str, str], seen: dict[str, object]) -> dict[str, object]:
    """The SDK's own errors for what PayPal refuses."""
    too_much = RefundRequest(amount=Money(currency_code="USD", value="100.00"))
    calls = {
        "captured": lambda: client.orders.capture_order({"id": seen["order"], "paypal_request_id": "another"}),
        "unknown": lambda: client.orders.get_order({"id": "0NOSUCHORDER00000"}),
        "exceeded": lambda: client.payments.refund_captured_payment(
            {"capture_id": seen["capture"], "paypal_request_id": "more", "body": too_much}
        ),
    }
    found: dict[str, object] = {}
    for name, call in calls.items():
        try:
            call()
            found[name] = "no error"
        except ApiException as error:
            found[name] = [error.response_code, json.loads(error.response.text)["details"][0]["issue"]]
    return found


def control(given: dict[str, str], name: str, number: str) -> None:
    """Act as the buyer."""
    request = urllib.request.Request(
        f"{given['control_url']}/_ctl/{name}", json.dumps({"number": number, "account": given["account"]}).encode(),
        {"authorization": f"Bearer {given['control_token']}", "content-type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert json.load(answer)["result"] == "OK"


main()
