"""What the adapter sends: signed fields, absolute expiry, and signed pages that call nobody."""

from datetime import UTC, datetime
from typing import Any

from payonce.channels.alipay_wire import signed_text
from payonce.channels.http import run
from payonce.channels.messages import (
    HttpRequest,
    PrepayRequest,
    TransportError,
)
from tests.channels.alipay.shop import halves

UNTIL = datetime(2026, 11, 26, 16, 30, 59, 999_999, tzinfo=UTC)
_, SHOP = halves("alipay")
_, CERTIFIED = halves("alipay_cert")


def request(**changes: Any) -> PrepayRequest:
    given: dict[str, Any] = {
        "number": "po_1", "amount_minor": 1_999, "currency": "CNY", "subject": "A book", "method": "web",
        "client_type": "pc", "payer": "", "payable_until": UNTIL, "notify_url": "https://shop.example/notify/alipay/",
        "return_url": "https://shop.example/return/alipay/?a=1&b=2",
    }  # fmt: skip
    return PrepayRequest(**{**given, **changes})


def nobody(_: HttpRequest) -> TransportError:
    raise AssertionError("a page is made without a call")


def sent(conversation: Any) -> tuple[dict[str, str], dict[str, Any], HttpRequest]:
    """The fields, the content and the request of the first call."""
    caught: list[HttpRequest] = []

    def catch(request: HttpRequest) -> TransportError:
        caught.append(request)
        return TransportError("read_timeout")

    run(conversation, catch)
    fields = {
        "total_amount": "2.00", "buyer_id": "2088102116773037", "body": "大乐透2.1", "charset": "utf-8",
        "trade_no": "2016071921001003030200089909", "refund_fee": "0.00", "notify_time": "2016-07-19 14:10:49",
        "subject": "大乐透2.1", "sign_type": "RSA2", "notify_type": "trade_status_sync", "sign": "kPbQIjX",
        "out_trade_no": "0719141034-6418", "gmt_close": "2016-07-19 14:10:46", "gmt_payment": "2016-07-19 14:10:47",
        "trade_status": "TRADE_SUCCESS", "version": "1.0", "gmt_create": "2016-07-19 14:10:44",
        "app_id": "2015102700040153", "seller_id": "2088102119685838",
        "notify_id": "4a91b7a78a503640467525113fb7d8bg8e",
    }  # fmt: skip
    assert signed_text(fields, leave_out=frozenset({"sign", "sign_type"})) == (
        "app_id=2015102700040153&body=大乐透2.1&buyer_id=2088102116773037&charset=utf-8&gmt_close=2016-07-19 14:10:46"
        "&gmt_create=2016-07-19 14:10:44&gmt_payment=2016-07-19 14:10:47&notify_id=4a91b7a78a503640467525113fb7d8bg8e"
        "&notify_time=2016-07-19 14:10:49&notify_type=trade_status_sync&out_trade_no=0719141034-6418&refund_fee=0.00"
        "&seller_id=2088102119685838&subject=大乐透2.1&total_amount=2.00&trade_no=2016071921001003030200089909"
        "&trade_status=TRADE_SUCCESS&version=1.0"
    )
