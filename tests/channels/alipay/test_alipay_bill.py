"""Reading a bill: columns by their names, GBK, and nothing guessed where something is missing."""

import io
import zipfile
from datetime import UTC, date, datetime

import pytest

from payonce.channels.alipay import AlipayChannel
from payonce.channels.alipay_bill import read_bill
from payonce.channels.alipay_wire import MalformedError
from payonce.channels.http import run
from payonce.channels.messages import HttpRequest, HttpResponse, Known, TransportError, Unknown
from payonce.channels.sandbox.skins import alipay_bill as packer
from tests.channels.alipay.shop import Gateway, halves, ok

BANK, SHOP = halves("alipay")
# As merchants publish it: texts end with a tab, refunds are negative, remarks begin with #.
PUBLISHED = """#支付宝业务明细查询
#账号:[2088000000000000156]
#起始日期:[2020年07月22日 00:00:00]   终止日期:[2020年07月23日 00:00:00]
#-----------------------------------------业务明细列表----------------------------------------
支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,门店编号,门店名称,操作员,终端号,对方账户,订单金额（元）,商家实收（元）,支付宝红包（元）,集分宝（元）,支付宝优惠（元）,商家优惠（元）,券核销金额（元）,券名称,商家红包消费金额（元）,卡消费金额（元）,退款批次号/请求号,服务费（元）,分润（元）,备注
2020072222001400001400000001\t,po_1\t,交易\t,"院内, 充值",2020-07-22 16:13:11,2020-07-22 16:14:24,\t,\t,\t,\t,**佳(yan***@163.com)\t,1.00,1.00,0.96,0.00,0.00,0.00,0.00,券,0.00\t,0.00,\t,-0.01,0.00,
2020072222001400001400000001\t,po_1\t,退款\t,充值,2020-07-22 16:13:11,2020-07-22 17:00:00,\t,\t,\t,\t,**佳\t,-0.40,-0.40,0.00,0.00,0.00,0.00,0.00,,0.00\t,0.00,po_1_s1\t,0.00,0.00,
#-----------------------------------------业务明细列表结束------------------------------------
#业务明细列表总数:[2]
""".replace("\n", "\r\n")  # noqa: E501


def zipped(
    text: str = PUBLISHED, name: str = "20880000000000000156_20200722_业务明细.csv", encoding: str = "gbk"
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text.encode(encoding))
        archive.writestr(f"{name}(汇总).csv", "#".encode("gbk"))
    return buffer.getvalue()


def test_a_published_bill_is_read() -> None:
    payment, refund = read_bill(zipped())
    assert (payment.kind, payment.number, payment.amount_minor, payment.currency) == ("payment", "po_1", 100, "CNY")
    assert payment.channel_reference == refund.channel_reference == "2020072222001400001400000001"
    assert payment.at == datetime(2020, 7, 22, 8, 14, 24, tzinfo=UTC)
    assert (refund.kind, refund.number, refund.payment_number, refund.amount_minor) == ("refund", "po_1_s1", "po_1", 40)


def test_columns_may_stand_in_another_order_and_more_may_come() -> None:
    rows = [line.split(",") for line in PUBLISHED.splitlines() if not line.startswith("#")]
    rows[1][3:5] = ["院内充值"]  # the quoted comma
    turned = "\r\n".join(",".join(["新列", *reversed(row)]) for row in rows)
    assert read_bill(zipped(turned)) == read_bill(zipped())


def test_names_in_gbk_without_a_mark_are_read() -> None:
    archive = packer.pack([], "2088000000000000", date(2026, 11, 26))
    names = [entry.filename for entry in zipfile.ZipFile(io.BytesIO(archive), metadata_encoding="gbk").infolist()]
    assert names[0] == "20880000000000000156_20261126_业务明细.csv"
    assert "业务" not in zipfile.ZipFile(io.BytesIO(archive)).namelist()[0]
    assert read_bill(archive) == ()


def test_a_character_beyond_gbk_is_read() -> None:
    assert read_bill(zipped(PUBLISHED.replace("充值", "充值𠮷"), encoding="gb18030"))[0].number == "po_1"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("订单金额（元）", "金额"), ("退款批次号/请求号", "x"), ("商品名称", "商户订单号"), (",交易\t,", ",转账\t,"),
        (",1.00,1.00,", ",-1.00,1.00,"), (",-0.40,-0.40,", ",0.40,0.40,"), (",1.00,1.00,", ",1.001,1.00,"),
        ("2020-07-22 16:14:24", "22.07.2020"), ("2020072222001400001400000001\t,po_1\t,交易", "\t,po_1\t,交易"),
        (",0.00,0.00,\r\n#", "\r\n#"), ("支付宝交易号,", "# 支付宝交易号,"),
    ],
)  # fmt: skip
def test_what_is_missing_or_new_makes_the_bill_unreadable_rather_than_wrong(old: str, new: str) -> None:
    assert old in PUBLISHED
    with pytest.raises(MalformedError):
        read_bill(zipped(PUBLISHED.replace(old, new)))


@pytest.mark.parametrize(
    "archive",
    [b"", b"PK", "下载超时，请重新下载".encode(), zipped(name="x.txt"), zipped(encoding="utf-16"),
     zipped()[:-30], zipped()[:60] + b"\0" * 40 + zipped()[100:]],
)  # fmt: skip
def test_what_is_no_bill_is_refused(archive: bytes) -> None:
    with pytest.raises(MalformedError):
        read_bill(archive)


def test_an_archive_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("payonce.channels.alipay_bill.BILL_BYTES_MAX", 1_000)
    with pytest.raises(MalformedError):
        read_bill(zipped(PUBLISHED + "#" * 10_000))


@pytest.mark.parametrize(
    ("url", "called"),
    [
        ("http://dwbillcenter.alipay.com/downloadBillFile.resource?a=1&b=2", "https://dwbillcenter.alipay.com/downloadBillFile.resource?a=1&b=2"),
        ("https://dwbillcenter.alipay.com/x", "https://dwbillcenter.alipay.com/x"),
        ("https://gateway.example/x?token=1", "https://gateway.example/x?token=1"),
        ("https://alipay.com.evil.example/x", ""),
        ("https://evilalipay.com/x", ""),
        ("https://user@dwbillcenter.alipay.com/x", ""),
        ("http://127.0.0.1/x", ""),
        ("http://gateway.example/x", ""),
        ("file:///etc/passwd", ""),
        ("https://[", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_bill_is_fetched_only_from_alipay_over_tls(url: str, called: str) -> None:
    """X5: also a signed answer sends nobody elsewhere."""
    gateway = Gateway(BANK, ok(bill_download_url=url))
    asked: list[str] = []

    def answer(request: HttpRequest) -> HttpResponse | TransportError:
        if request.method == "POST":
            return gateway(request)
        asked.append(request.url)
        return HttpResponse(200, {}, zipped())

    outcome = run(AlipayChannel("alipay", SHOP).statement(date(2020, 7, 22)), answer)
    assert asked == ([called] if called else [])
    assert isinstance(outcome, Known if called else Unknown)


def test_a_quotation_mark_that_swallows_a_line_is_refused() -> None:
    """A title may begin with one: the next line would be gone without a word."""
    head = "支付宝交易号,商户订单号,业务类型,商品名称,完成时间,订单金额(元),退款批次号/请求号"
    rows = ['T1,po1,交易,"A,2026-03-01 10:00:00,10.00,', 'T2,po2,交易,B",2026-03-01 10:00:00,10.00,']
    with pytest.raises(MalformedError):
        read_bill(zipped("\r\n".join([head, *rows, ""])))
