"""The bill of one day as Alipay packs it: two CSV files in GBK inside a zip, behind an address that is good for 30 seconds."""

import csv
import io
import secrets
import sqlite3
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from payonce.channels.alipay_wire import BEIJING, beijing_text, yuan

ADDRESS_SECONDS = 30.0
PATH = "/downloadBillFile.resource"
HEADER = (
    "支付宝交易号", "商户订单号", "业务类型", "商品名称", "创建时间", "完成时间", "门店编号", "门店名称", "操作员", "终端号",
    "对方账户", "订单金额（元）", "商家实收（元）", "支付宝红包（元）", "集分宝（元）", "支付宝优惠（元）", "商家优惠（元）",
    "券核销金额（元）", "券名称", "商家红包消费金额（元）", "卡消费金额（元）", "退款批次号/请求号", "服务费（元）", "分润（元）",
    "备注",
)  # fmt: skip


class Addresses:
    """Archives that wait for their download. They live in memory: an address dies with its half minute anyway."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[float, bytes]] = {}

    def add(self, archive: bytes, at: float) -> str:
        """Keep an archive and return the token of its address."""
        self._waiting = {key: kept for key, kept in self._waiting.items() if at - kept[0] <= ADDRESS_SECONDS}
        token = secrets.token_urlsafe(16)
        self._waiting[token] = (at, archive)
        return token

    def take(self, token: str, at: float) -> bytes | None:
        """The archive; None where the address is unknown or too old."""
        made_at, archive = self._waiting.get(token, (0.0, b""))
        return archive if archive and at - made_at <= ADDRESS_SECONDS else None


def day_of(text: Any) -> date | None:
    """The day that a merchant asks for, as `2026-11-26`."""
    try:
        return date.fromisoformat(text) if isinstance(text, str) and len(text) == 10 else None
    except ValueError:
        return None


def movements(database: sqlite3.Connection, account: str, day: date) -> list[dict[str, Any]]:
    """The captures and refunds of one Beijing day, from the journal, with what the bill tells of each."""
    start = datetime(day.year, day.month, day.day, tzinfo=BEIJING).timestamp()
    rows = database.execute(
        "SELECT journal.*, payment.subject, payment.created_at FROM journal JOIN payment"
        " ON payment.account = journal.account AND payment.number = journal.number"
        " WHERE journal.account = ? AND journal.at >= ? AND journal.at < ? AND kind IN ('capture', 'refund') ORDER BY journal.id",
        (account, start, start + timedelta(days=1).total_seconds()),
    )
    return [dict(row) for row in rows]


def row_of(movement: Mapping[str, Any], trade_no: str) -> list[str]:
    """One line of the bill."""
    is_refund, amount = movement["kind"] == "refund", movement["amount_minor"]
    text = yuan(amount) if amount >= 0 else "-" + yuan(-amount)
    at = beijing_text(datetime.fromtimestamp(movement["at"], UTC))
    created_at = beijing_text(datetime.fromtimestamp(movement["created_at"], UTC))
    refund = movement["refund_number"] if is_refund else ""
    cells = [
        trade_no + "\t",
        movement["number"] + "\t",
        "退款" if is_refund else "交易",
        movement["subject"],
        created_at,
        at,
    ]
    cells += ["", "", "", "", "*三(san***@example.com)", text, text, *["0.00"] * 5, "", "0.00", "0.00", refund + "\t"]
    return [*cells, "0.00", "0.00", ""]


def pack(rows: Sequence[Sequence[str]], seller_id: str, day: date) -> bytes:
    """The archive: the lines and their sums."""
    stem = f"{seller_id}0156_{day:%Y%m%d}_业务明细"
    files = {f"{stem}.csv": _lines(rows, seller_id, day), f"{stem}(汇总).csv": f"#{len(rows)} 笔\r\n"}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(_GbkName(name), text.encode("gb18030"))
    return buffer.getvalue()


class _GbkName(zipfile.ZipInfo):
    """An entry whose name is written in GBK without a mark, as Alipay's packer does."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 - the name is zipfile's
        return self.filename.encode("gbk"), self.flag_bits & ~0x800


def _lines(rows: Sequence[Sequence[str]], seller_id: str, day: date) -> str:
    buffer = io.StringIO(newline="")
    end = day + timedelta(days=1)
    rule = "#-----------------------------------------业务明细列表"
    buffer.write(f"#支付宝业务明细查询\r\n#账号：[{seller_id}0156]\r\n")
    buffer.write(f"#起始日期：[{day:%Y年%m月%d日} 00:00:00]   终止日期：[{end:%Y年%m月%d日} 00:00:00]\r\n")
    buffer.write(f"{rule}----------------------------------------\r\n")
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(HEADER)
    writer.writerows(rows)
    buffer.write(f"{rule}结束------------------------------------\r\n#导出时间：[{end:%Y年%m月%d日} 09:00:00]\r\n")
    return buffer.getvalue()
