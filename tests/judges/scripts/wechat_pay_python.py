"""wechatpayv3 as a shop's client of the simulated WeChat Pay. Prints what it saw as one line of JSON.

Argument: a JSON file with the account, the bank's control address, and messages to judge.
"""

import json
import sys

import requests
from wechatpayv3 import WeChatPay, WeChatPayType, core

given = json.loads(open(sys.argv[1]).read())  # noqa: PTH123, SIM115
account, control = given["account"], given["control"]
seen: dict[str, object] = {}


class Core(core.Core):
    """The SDK's own, at another address: in certificate mode its constructor already downloads."""

    @property
    def _gate_way(self):
        return account["base_url"]

    @_gate_way.setter
    def _gate_way(self, value):
        pass


core.Core = Core


def steer(call, **fields):
    reply = requests.post(
        f"{control['url']}/_ctl/{call}",
        json={"account": account["name"], **fields},
        headers={"authorization": f"Bearer {control['token']}"},
        timeout=30,
    )
    assert reply.status_code == 200, reply.text
    return reply.json()


def client(**keys):
    return WeChatPay(
        wechatpay_type=WeChatPayType.NATIVE, mchid=account["mchid"], private_key=account["private_key"],
        cert_serial_no=account["serial"], appid=account["appid"], apiv3_key=account["apiv3_key"],
        notify_url="https://shop.example/notify/", timeout=(5, 20), **keys,
    )  # fmt: skip


keys = {}
if account["mode"] != "certificate":
    keys = {"public_key": account["public_key"], "public_key_id": account["public_key_id"]}
wechat = client(**keys)


def answer(call, *arguments, **named):
    """Status, and the fields or the error code; or the exception."""
    try:
        status, text = call(*arguments, **named)
    except Exception as error:
        return [0, str(error)]
    body = json.loads(text) if text else {}
    return [status, body.get("code", body)]


def order(number, total=1200, kind=WeChatPayType.NATIVE, **named):
    return answer(
        wechat.pay, description="A book", out_trade_no=number, amount={"total": total}, pay_type=kind, **named
    )


number, other, closed = given["numbers"]
seen["order"] = order(number)
seen["order_again"] = order(number)
seen["order_changed"] = order(number, 1300)
seen["jsapi"] = order(number + "j", kind=WeChatPayType.JSAPI, payer={"openid": "oBuyer0001"})
seen["app"] = order(number + "a", kind=WeChatPayType.APP)
scene = {"payer_client_ip": "203.0.113.7", "h5_info": {"type": "Wap"}}
seen["h5"] = order(number + "h", kind=WeChatPayType.H5, scene_info=scene)
seen["open"] = answer(wechat.query, out_trade_no=number)
seen["unknown"] = answer(wechat.query, out_trade_no="never_ordered")
steer("pay", number=number)
seen["paid"] = answer(wechat.query, out_trade_no=number)
seen["close_paid"] = answer(wechat.close, out_trade_no=number)
order(closed)
seen["close"] = [answer(wechat.close, out_trade_no=each) for each in (closed, closed, "never_ordered")]
seen["closed"] = answer(wechat.query, out_trade_no=closed)
refund = {
    "out_trade_no": number,
    "out_refund_no": number + "r",
    "amount": {"refund": 500, "total": 1200, "currency": "CNY"},
}
seen["refund"] = [answer(wechat.refund, **refund) for _ in range(2)]
seen["refund_changed"] = answer(wechat.refund, **{**refund, "amount": {**refund["amount"], "refund": 400}})
seen["refund_query"] = answer(wechat.query_refund, out_refund_no=number + "r")
seen["refund_unknown"] = answer(wechat.query_refund, out_refund_no="never_asked")
seen["refunded"] = answer(wechat.query, out_trade_no=number)

order(other)
for fault in ("bad_signature", "no_signature", "error_after"):
    steer("faults", op="query", do=fault, number=other)
    seen[fault] = answer(wechat.query, out_trade_no=other)
steer("faults", op="query", do="bad_signature", number=other, kind="other_secret")
seen["other_secret"] = answer(wechat.query, out_trade_no=other)

two_days = 2 * 86_400
steer("clock", offset_seconds=two_days)
steer("clock", skew_seconds=-two_days)
try:
    seen["bill"] = answer(wechat.trade_bill, bill_date=given["day"])
    if seen["bill"][0] == 200:
        status, body = wechat.download_bill(seen["bill"][1]["download_url"])
        seen["bill_file"] = [status, body[:2].hex()]
finally:
    steer("clock", offset_seconds=0)
    steer("clock", skew_seconds=0)


def read(message):
    try:
        told = wechat.callback(headers=message["headers"], body=message["body"])
    except Exception as error:
        return [0, type(error).__name__]
    return [1, told["event_type"], told["resource"]] if told else [0, "None"]


seen["genuine"] = [read(message) for message in given["genuine"]]
seen["forged"] = {name: read(message) for name, message in given["forged"].items()}
# PKCS#1 v1.5 is deterministic: the SDK's signature over the same fields is the adapter's.
seen["signed"] = [wechat.sign(fields) for fields in given["to_sign"]]
seen["certificates"] = [f"{certificate.serial_number:X}" for certificate in wechat._core._certificates]
print(json.dumps(seen))
