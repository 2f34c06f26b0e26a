"""Alipay's bill of one day (业务账单): a zip of CSV files in GBK, read by the names of its columns.

The archive holds the lines (…_业务明细.csv) and their sums (…_业务明细(汇总).csv). Lines that begin with `#` are remarks; the
first other line names the columns; texts end with a tab, so that spreadsheets leave long numbers alone. Amounts are yuan,
those of refunds negative. Not documented on one page: the columns are as merchants publish them [C], and a column that
is missing makes the bill unreadable rather than wrong.
"""

import csv
import io
import zipfile
from collections.abc import Iterator, Mapping

from payonce.channels.alipay_wire import CURRENCY, MalformedError, minor_of, moment_of, text_of
from payonce.channels.messages import StatementLine

ARCHIVE_BYTES_MAX = 32_000_000
BILL_BYTES_MAX = 128_000_000
TRADE_NO, NUMBER, KIND, DONE_AT = "支付宝交易号", "商户订单号", "业务类型", "完成时间"
AMOUNT, REFUND_NO = "订单金额(元)", "退款批次号/请求号"
COLUMNS = (TRADE_NO, NUMBER, KIND, DONE_AT, AMOUNT, REFUND_NO)
PAYMENT, REFUND = "交易", "退款"
SUMS = "汇总"


def read_bill(archive: bytes) -> tuple[StatementLine, ...]:
    """Every line of a bill. Raises MalformedError."""
    return tuple(_line(row) for row in _rows(_unpack(archive)))


def _unpack(archive: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(archive), metadata_encoding="gbk") as opened:
            found = [one for one in opened.infolist() if one.filename.endswith(".csv") and SUMS not in one.filename]
            if len(found) != 1 or found[0].file_size > BILL_BYTES_MAX:
                raise MalformedError("archive")
            with opened.open(found[0]) as file:
                content = file.read(BILL_BYTES_MAX + 1)
        if len(content) > BILL_BYTES_MAX:
            raise MalformedError("archive")
        return content.decode("gb18030")  # a superset of GBK: names of people and shops go beyond it
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        UnicodeDecodeError,
    ):
        raise MalformedError("archive") from None
    except Exception as error:
        if type(error).__module__ == "zlib":
            raise MalformedError("archive") from None
        raise


def _rows(text: str) -> Iterator[dict[str, str]]:
    lines = (line for line in io.StringIO(text, newline="") if line.strip() and not line.lstrip("\t ").startswith("#"))
    names: list[str] = []
    try:
        for cells in csv.reader(lines):
            row = [cell.strip() for cell in cells]
            if not names:
                names = [cell.replace("（", "(").replace("）", ")") for cell in row]
                if missing := [name for name in COLUMNS if names.count(name) != 1]:
                    raise MalformedError(f"column {missing[0]}")
            elif len(row) < len(names) or any("\n" in cell for cell in row):  # a quotation mark swallowed a line
                raise MalformedError("row")
            else:
                yield dict(zip(names, row, strict=False))
    except csv.Error:
        raise MalformedError("row") from None
    if not names:
        raise MalformedError("column")


def _line(row: Mapping[str, str]) -> StatementLine:
    kind, amount = row[KIND], row[AMOUNT]
    is_refund = kind == REFUND
    if kind not in {PAYMENT, REFUND} or amount.startswith("-") is not is_refund:
        raise MalformedError(KIND)
    number = text_of(row, NUMBER, optional=True)
    return StatementLine(
        kind="refund" if is_refund else "payment",
        number=text_of(row, REFUND_NO, optional=True) if is_refund else number,
        channel_reference=text_of(row, TRADE_NO),
        amount_minor=minor_of({AMOUNT: amount.removeprefix("-")}, AMOUNT),
        currency=CURRENCY,
        at=moment_of(row, DONE_AT),
        state="DONE" if is_refund else "PAID",
        payment_number=number if is_refund else "",
        payment_reference=text_of(row, TRADE_NO) if is_refund else "",
    )
