"""The bill: two requests, a digest, yuan, and everything that must not be taken for a quiet day."""

import gzip
import hashlib
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from payonce.channels import wechat_pay_bill
from payonce.channels.messages import HttpResponse, Known, RefundState, Refused, RefusedKind, TransportError, Unknown
from payonce.channels.sandbox.wire import MalformedError
from tests.channels.wechat_pay.offline import Desk, error
from tests.channels.wechat_pay.simulator import Merchant, WeChatSimulator

DAY = date(2026, 5, 1)
HEAD = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类,应结订单金额,代金券金额,"
    "微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,费率备注"
)
PAYMENT = (
    "`2026-05-01 00:00:05,`wx1,`1900000001,`0,`,`4200001,`po1s01,`oBuyer,`NATIVE,`SUCCESS,`OTHERS,`CNY,`18.99,`1.00,`0,`0,"
    "`0.00,`0.00,`,`,`A book\\ with comma,`,`0.11000,`0.60%,`19.99,`0.00,`"
)
REFUND = (
    "`2026-05-01 23:59:59,`wx1,`1900000001,`0,`,`4200001,`po1s01,`oBuyer,`NATIVE,`REFUND,`OTHERS,`CNY,`0.00,`0.00,`5030,"
    "`po1s01rs1,`0.10,`0.00,`ORIGINAL,`PROCESSING,`A book,`,`-0.00060,`0.60%,`0.00,`0.29,`"
)
REVOKED = PAYMENT.replace("`SUCCESS", "`REVOKED").replace("4200001", "4200009")
SUMS = "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额"


def bill(*rows: str, count: int | None = None, end: str = "\r\n") -> bytes:
    lines = [HEAD, *rows, SUMS, f"`{len(rows) if count is None else count},`1.00,`0.00,`0.00,`0.00,`1.00,`0.00"]
    return (end.join(lines) + end).encode()


@pytest.fixture(scope="module")
def merchant() -> Merchant:
    return Merchant("public_key")


@pytest.fixture(scope="module")
def only_desk(merchant: Merchant) -> Desk:
    return Desk(merchant)


@pytest.fixture
def desk(only_desk: Desk) -> Desk:
    return only_desk.cleared()


def address(desk: Desk, data: bytes, **changes: Any) -> HttpResponse:
    fields = {"hash_type": "SHA1", "hash_value": hashlib.sha1(data, usedforsecurity=False).hexdigest(),
              "download_url": "http://127.0.0.1:9/v3/billdownload/file?token=t&x=%2F"}  # fmt: skip
    return desk.signed(200, {**fields, **changes})


def file(data: bytes) -> HttpResponse:
    """The download has no signature."""
    return HttpResponse(200, {}, gzip.compress(data))


@pytest.mark.parametrize(
    ("status", "came_to"),
    [("SUCCESS", RefundState.DONE), ("FAIL", RefundState.FAILED), ("CHANGE", RefundState.ATTENTION),
     ("PROCESSING", RefundState.IN_PROGRESS), ("NEW", RefundState.IN_PROGRESS)],
)  # fmt: skip
def test_a_refund_came_to_what_its_line_says(status: str, came_to: RefundState) -> None:
    (line,) = wechat_pay_bill.read(bill(REFUND.replace("PROCESSING", status)))
    assert (line.came_to, line.payment_reference) == (came_to, "4200001")


def test_a_refund_made_in_the_merchant_platform_is_a_line_too() -> None:
    (line,) = wechat_pay_bill.read(bill(REFUND.replace("`po1s01rs1", "`0")))
    assert (line.number, line.channel_reference, line.payment_number) == ("", "5030", "po1s01")


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_lines_are_fen_in_beijing_time_and_gross(desk: Desk, end: str) -> None:
    data = b"\xef\xbb\xbf" + bill(PAYMENT, REFUND, REVOKED, end=end)
    outcome = desk.run(desk.channel.statement(DAY), address(desk, data), file(data))
    assert isinstance(outcome, Known), outcome
    payment, refund = outcome.value
    assert (payment.kind, payment.number, payment.channel_reference) == ("payment", "po1s01", "4200001")
    assert (payment.amount_minor, payment.currency, payment.state) == (1_999, "CNY", "SUCCESS")
    assert payment.at == datetime(2026, 4, 30, 16, 0, 5, tzinfo=UTC)
    assert (refund.kind, refund.number, refund.payment_number) == ("refund", "po1s01rs1", "po1s01")
    assert (refund.amount_minor, refund.channel_reference, refund.state) == (29, "5030", "PROCESSING")
    assert all(type(line.amount_minor) is int for line in outcome.value)
    assert desk.sent[0].url.endswith("/v3/bill/tradebill?bill_date=2026-05-01&bill_type=ALL&tar_type=GZIP")
    assert desk.sent[1].url == "http://127.0.0.1:9/v3/billdownload/file?token=t&x=%2F"
    assert "oBuyer" not in outcome.raw


@pytest.mark.parametrize(
    "data",
    [
        bill(PAYMENT, count=2), bill(PAYMENT).replace(SUMS.encode(), b""), HEAD.encode(), b"", b"\xff\xfe",
        bill(PAYMENT.replace("`19.99", "`19.999")), bill(PAYMENT.replace("`19.99", "`1e2")),
        bill(PAYMENT.replace("`19.99", "`NaN")), bill(PAYMENT.replace("2026-05-01 00", "2026-13-01 00")),
        bill(PAYMENT + ",`more"), bill(PAYMENT).replace("订单金额,申请".encode(), "金额,申请".encode()),
        bill(PAYMENT) + PAYMENT.encode(),
    ],
    ids=range(12),
)  # fmt: skip
def test_a_file_that_is_not_whole_is_unknown(desk: Desk, data: bytes) -> None:
    assert isinstance(desk.run(desk.channel.statement(DAY), address(desk, data), file(data)), Unknown)


def test_only_the_file_with_the_signed_digest_is_believed(desk: Desk) -> None:
    data = bill(PAYMENT)
    other = desk.run(desk.channel.statement(DAY), address(desk, data), file(bill(REFUND)))
    assert other.reason == "malformed:bill: another digest"
    for body in (data, gzip.compress(data)[:-9], b""):
        outcome = desk.run(desk.channel.statement(DAY), address(desk, data), HttpResponse(200, {}, body))
        assert isinstance(outcome, Unknown)


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wechat_pay_bill, "BYTES_MAX", 1_000)
    with pytest.raises(MalformedError, match="too large"):
        wechat_pay_bill.unpack(gzip.compress(b"0" * 5_000), "")


@pytest.mark.parametrize(
    "url",
    ["https://evil.example/v3/billdownload/file", "http://127.0.0.1:10/x", "https://127.0.0.1:9/x", "file:///etc/passwd",
     "https://u@api.mch.weixin.qq.com/x", "https://api.mch.weixin.qq.com.evil.example/x", "http://api.mch.weixin.qq.com/",
     "https://api.mch.weixin.qq.com:444/", "http://[", "", "http://127.0.0.1:9/书"],
)  # fmt: skip
def test_no_signed_request_goes_to_an_address_that_is_not_the_channels(desk: Desk, url: str) -> None:
    """X5."""
    outcome = desk.run(desk.channel.statement(DAY), address(desk, b"", download_url=url))
    assert outcome.reason == "malformed:download_url"
    assert len(desk.sent) == 1


def test_another_server_of_the_channel_is_allowed(desk: Desk) -> None:
    data = bill(PAYMENT)
    url = "https://api2.mch.weixin.qq.com/v3/billdownload/file?token=t"
    outcome = desk.run(desk.channel.statement(DAY), address(desk, data, download_url=url), file(data))
    assert isinstance(outcome, Known)


def test_a_download_without_an_answer_is_unknown(desk: Desk) -> None:
    for reply in (TransportError("read_timeout"), HttpResponse(400, {}, b"{}"), HttpResponse(500, {}, b"")):
        assert isinstance(desk.run(desk.channel.statement(DAY), address(desk, b""), reply), Unknown)


def test_no_bill_is_a_quiet_day_only_after_it_should_be_there(desk: Desk) -> None:
    missing = error(400, "NO_STATEMENT_EXIST")
    ready = datetime(2026, 5, 2, 2, tzinfo=UTC)  # ten in Beijing on the next day
    desk.channel.clock = ready.timestamp
    assert desk.run(desk.channel.statement(DAY), missing).value == ()
    desk.channel.clock = (ready - timedelta(seconds=1)).timestamp
    early = desk.run(desk.channel.statement(DAY), missing)
    assert isinstance(early, Refused)
    assert early.kind is RefusedKind.THROTTLED
    assert desk.run(desk.channel.statement(DAY), error(400, "STATEMENT_CREATING")).kind is RefusedKind.THROTTLED


def test_the_simulated_bill_shows_what_was_left_out_and_invented(simulator: WeChatSimulator) -> None:
    today = simulator.now().date()
    mine, missing = simulator.paid()[0], simulator.paid()[0]
    control, account = simulator.control, simulator.account
    control.fault("statement", "omit", account=account, name=missing)
    control.fault("statement", "invent", account=account, name="foreign_order_1", amount_minor=777)
    outcome = simulator.run(simulator.channel.statement(today))
    assert isinstance(outcome, Known), outcome
    lines = {line.number: line.amount_minor for line in outcome.value}
    assert lines[mine] == simulator.amount_minor
    assert missing not in lines
    assert lines["foreign_order_1"] == 777


def test_the_simulated_bill_is_not_there_before_its_time(simulator: WeChatSimulator) -> None:
    from payonce.channels.http import run

    simulator.paid()
    outcome = run(simulator.channel.statement(simulator.now().date()))
    assert isinstance(outcome, Refused)
    assert (outcome.kind, outcome.code) == (RefusedKind.THROTTLED, "NO_STATEMENT_EXIST")
    with simulator.days_later(2):
        old = run(simulator.channel.statement(simulator.now().date() - timedelta(days=200)))
        quiet = run(simulator.channel.statement(simulator.now().date() - timedelta(days=30)))
    assert isinstance(old, Unknown)
    assert quiet == Known((), quiet.raw)
