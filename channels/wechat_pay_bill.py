"""The daily trade bill of WeChat Pay: a CSV file whose amounts are yuan.

docs/merchant/products/bill-download/format-trade.html: a head line, one line for each payment and refund with a back-tick
before every value, a second head and a line of sums. Columns are found by name: their order differs between bill types.
"""

import hashlib
import hmac
import re
import zlib
from datetime import date, datetime, timedelta
from decimal import Decimal
from urllib.parse import urlsplit

from payonce.channels.messages import RefundState, StatementLine
from payonce.channels.sandbox.wire import MalformedError
from payonce.channels.wechat_pay_wire import BEIJING

BYTES_MAX = 64_000_000
READY_AFTER = timedelta(days=1, hours=10)  # doc/v3/merchant/4013071254: the next day after ten
_YUAN = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,2})?", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)
_COUNT = "总交易单数"
_CAME_TO = {"SUCCESS": RefundState.DONE, "FAIL": RefundState.FAILED, "CHANGE": RefundState.ATTENTION}


def is_ready(day: date, at: datetime) -> bool:
    """Should the bill of this Beijing day exist by now?"""
    return at >= datetime(day.year, day.month, day.day, tzinfo=BEIJING) + READY_AFTER


def is_download(url: str, base_url: str) -> bool:
    """May a signed request be sent to this address? To the account's own server, or another of WeChat Pay's, only."""
    try:
        parts, own = urlsplit(url), urlsplit(base_url)
        same = (parts.scheme, parts.hostname, parts.port) == (own.scheme, own.hostname, own.port)
        theirs = (
            parts.scheme == "https" and (parts.hostname or "").endswith(".mch.weixin.qq.com") and parts.port is None
        )
    except ValueError:
        return False
    return url.isascii() and url.isprintable() and " " not in url and parts.username is None and (same or theirs)


def unpack(body: bytes, sha1: str) -> bytes:
    """The file in a gzip body, proved by the digest of what was packed. Raises MalformedError."""
    try:
        unpacker = zlib.decompressobj(wbits=31)
        data = unpacker.decompress(body, BYTES_MAX)
    except zlib.error:
        raise MalformedError("bill: no gzip") from None
    if not unpacker.eof:
        raise MalformedError("bill: too large or cut off")
    found = hashlib.sha1(data, usedforsecurity=False).hexdigest()  # the only digest that the channel offers
    if not hmac.compare_digest(found.encode(), sha1.lower().encode("utf-8", "replace")):
        raise MalformedError("bill: another digest")
    return data


def read(data: bytes) -> tuple[StatementLine, ...]:
    """The payments and refunds of a bill. Raises MalformedError where anything is not as it must be."""
    try:
        rows = [row.removesuffix("\r") for row in data.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError:
        raise MalformedError("bill: no UTF-8") from None
    rows = [row for row in rows if row]
    head = rows[0].split(",") if rows else []
    sums = next((index for index, row in enumerate(rows) if row.startswith(_COUNT)), 0)
    if not sums or len(rows) != sums + 2:
        raise MalformedError("bill: no sums")
    details = [_values(row, head) for row in rows[1:sums]]
    if rows[sums + 1].split(",")[0] != f"`{len(details)}":
        raise MalformedError("bill: another count")
    return tuple(line for values in details if (line := _line(values)) is not None)


def _values(row: str, head: list[str]) -> dict[str, str]:
    # A comma inside a value is not followed by a back-tick: the channel writes commas of free texts in another way.
    values = row.removeprefix("`").split(",`")
    if len(values) != len(head):
        raise MalformedError("bill: columns")
    return dict(zip(head, values, strict=True))


def _line(values: dict[str, str]) -> StatementLine | None:
    """A payment (SUCCESS) or a refund (REFUND); a payment-code payment that was revoked without a refund moved nothing."""
    try:
        currency, at = values["货币种类"], _moment(values["交易时间"])
        if values["交易状态"] == "SUCCESS":
            return StatementLine("payment", values["商户订单号"], values["微信订单号"], _fen(values["订单金额"]), currency,
                                 at, "SUCCESS")  # fmt: skip
        number, reference = (_unless_zero(values[name]) for name in ("商户退款单号", "微信退款单号"))
        if not number and not reference:
            return None
        return StatementLine("refund", number, reference, _fen(values["申请退款金额"]),
                             currency, at, values["退款状态"], values["商户订单号"],
                             _CAME_TO.get(values["退款状态"], RefundState.IN_PROGRESS), values["微信订单号"])  # fmt: skip
    except KeyError as error:
        raise MalformedError(f"bill: no column {error.args[0]}") from None


def _unless_zero(text: str) -> str:
    return "" if text == "0" else text


def _fen(yuan: str) -> int:
    if not _YUAN.fullmatch(yuan):
        raise MalformedError("bill: amount")
    return int(Decimal(yuan).scaleb(2))


def _moment(text: str) -> datetime:
    if not _TIME.fullmatch(text):
        raise MalformedError("bill: time")
    try:
        return datetime.fromisoformat(text).replace(tzinfo=BEIJING)
    except ValueError:
        raise MalformedError("bill: time") from None
