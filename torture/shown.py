"""The bank's books in the words of the channels that it plays: what each wire format shows for a capture, and calls closed.

Every format has a reference of its own for money, made from what is in the books; written down here a second time on purpose, so
that a stream that holds another payment's reference does not go unnoticed. Amounts, currencies and refunds stay the bank's.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg

from torture.sources import Ledger, Row, SourceError

Key = tuple[str, str]
"""An account and a number."""
CLOSED_BY_TIME = frozenset({"alipay", "stripe"})
"""Formats that call a payment closed once its time is over; the books keep it open."""
_BEIJING = timezone(timedelta(hours=8))
_BASE36 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CLOSES = """
SELECT s.account, s.number, extract(epoch FROM max(e.at))::float8 AS at
FROM payonce_event e JOIN payonce_stream s ON s.number = e.subject WHERE e.kind = 'stream.closed' GROUP BY 1, 2
"""


def in_the_channels_words(ledger: Ledger, skins: Mapping[str, str], closes: Mapping[Key, float]) -> Ledger:
    """The books as the accounts in `skins` (account → wire format) show them.

    `closes` says when payonce took a payment for closed, in Unix seconds: one that was still open in the books is closed only if
    its time was over by then.
    """
    payments = {row["id"]: row for row in ledger.payments}
    notes = {(row["account"], row["kind"], row["key"]): json.loads(row["value"]) for row in ledger.notes}
    orders = {
        (account, value["number"]): key for (account, kind, key), value in notes.items() if kind == "order"
    }  # fmt: skip
    renamed: dict[str, str] = {}
    places: Counter[int] = Counter()
    for capture in sorted(ledger.captures, key=lambda row: row["id"]):
        payment = payments[capture["payment_id"]]
        place, skin = places[payment["id"]], skins.get(payment["account"], "")
        places[payment["id"]] += 1
        if skin in SHOWN:
            key = payment["account"], payment["number"]
            stated = notes.get((payment["account"], "stated", payment["number"]), {})
            renamed[capture["reference"]] = SHOWN[skin](
                {**payment, "order_id": orders.get(key, ""), "intent": stated.get("intent", "")}, capture, place
            )
    return replace(
        ledger,
        payments=[_ended(row, skins, closes) for row in ledger.payments],
        captures=_renamed(ledger.captures, "reference", renamed),
        refunds=_renamed(ledger.refunds, "capture_reference", renamed),
        journal=_renamed(ledger.journal, "reference", renamed),
    )


def closes_of(database: str) -> dict[Key, float]:
    """When payonce last took each payment for closed, by account and number, in Unix seconds. Raises SourceError."""
    try:
        with psycopg.connect(database) as connection:
            return {(account, number): at for account, number, at in connection.execute(_CLOSES)}
    except psycopg.Error as error:
        raise SourceError(f"the database cannot be read: {error}") from error


def _alipay(payment: Row, _capture: Row, place: int) -> str:
    """`trade_no`: the day of the trade, and digits that follow from the merchant's number."""
    day = datetime.fromtimestamp(payment["created_at"], _BEIJING).strftime("%Y%m%d")
    digits = int.from_bytes(hashlib.sha256(f"{payment['number']}/{place}".encode()).digest()[:8], "big") % 10**15
    return f"{day}22001{digits:015d}"


def _stripe(payment: Row, capture: Row, place: int) -> str:
    """The intent: the payment's own, or one of a further capture's own."""
    return str(payment["intent"]) if place == 0 else "pi_" + str(capture["reference"]).removeprefix("cap_")


def _paypal(payment: Row, capture: Row, place: int) -> str:
    """The order; a further capture is named after it."""
    value, letters = int(str(capture["reference"]).removeprefix("cap_"), 16), ""
    for _ in range(19):
        value, digit = divmod(value, 36)
        letters = _BASE36[digit] + letters
    return str(payment["order_id"]) if place == 0 else f"{payment['order_id']}/{letters}"


SHOWN: dict[str, Callable[[Row, Row, int], str]] = {"alipay": _alipay, "stripe": _stripe, "paypal": _paypal}
"""What a format shows for a capture; WeChat Pay and the bank's own show the bank's."""


def _renamed(rows: list[Row], column: str, names: Mapping[str, str]) -> list[Row]:
    return [{**row, column: names.get(row[column], row[column])} for row in rows]


def _ended(payment: Row, skins: Mapping[str, str], closes: Mapping[Key, float]) -> dict[str, Any]:
    at = closes.get((payment["account"], payment["number"]))
    is_over = payment["state"] == "OPEN" and at is not None and at > payment["payable_until"]
    if is_over and skins.get(payment["account"], "") in CLOSED_BY_TIME:
        return {**payment, "state": "CLOSED", "closed_at": payment["payable_until"]}
    return payment


# What each format calls a notification: the bank's own key, in its words. The inbox of payonce knows it by that.
NOTIFICATION_KEYS: dict[str, Callable[[str], str]] = {
    "alipay": lambda key: key.removeprefix("ntf_"),
    "stripe": lambda key: "evt_" + key.removeprefix("ntf_"),
    "paypal": lambda key: "WH-" + key.removeprefix("ntf_").upper(),
}


def notification_key(skin: str, key: str) -> str:
    """What a wire format calls a notification."""
    return NOTIFICATION_KEYS[skin](key) if skin in NOTIFICATION_KEYS else key
