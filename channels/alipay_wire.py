"""Alipay's wire format: signatures, and strict reading of answers, notifications and their fields.

Facts are of the classic gateway (`gateway.do`, version 1.0). [D] an official page, [S] the source of an official SDK,
[C] what merchants report, [K] unchecked.

| fact | source |
|---|---|
| requests are signed over sorted `name=value`, `sign_type` included, empty values left out | [D] sign rules, [S] |
| answers are signed over the raw text of the member `<method>_response`, as received | [D] sign rules, [S] |
| notifications are signed over sorted decoded `name=value` without `sign` and `sign_type` | [D] asynchronous notice |
| whether a notification's empty values are part of it: pages disagree, both readings are tried | [D] |
| times are Beijing time without an offset; amounts are yuan with at most two decimals, as texts | [D] |
| errors come with HTTP status 200; a gateway that does not know the application does not sign | [C] |
| a certificate's number is the MD5 of its issuer (most specific part first) and its decimal serial number | [S] |
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from payonce.channels.keys import verify_rsa

BEIJING = timezone(timedelta(hours=8), "Asia/Shanghai")
SIGN_TYPE = "RSA2"
SUCCESS = "10000"
BUSINESS_FAILED = "40004"
CURRENCY = "CNY"
FIELDS_MAX = 200
# What names a person, lets somebody pay, or signs: kept out of the evidence.
HIDDEN = ("buyer_id", "buyer_user_id", "buyer_open_id", "buyer_logon_id", "buyer_user_name", "open_id", "sign", "qr_code",
          "bill_download_url", "passback_params", "sub_msg_detail")  # fmt: skip

_AMOUNT = re.compile(r"(\d{1,11})(?:\.(\d{1,2}))?", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
_CODE = re.compile(r"[0-9A-Za-z._-]{1,64}", re.ASCII)
_SPACE = re.compile(r"[ \t\r\n]*")
_ESCAPES = re.compile(rb"(?:[^%]|%[0-9A-Fa-f]{2})*")
_PEM_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class MalformedError(ValueError):
    """A message is not what the interface allows; the text names the field, never its value."""


# --- signatures ---


def signed_text(
    fields: Mapping[str, str], *, leave_out: frozenset[str] = frozenset({"sign"}), empty: bool = False
) -> str:
    """The text that a signature covers: sorted `name=value`, joined by `&`. Empty values belong to it only where asked."""
    return "&".join(
        f"{name}={fields[name]}" for name in sorted(fields) if name not in leave_out and (empty or fields[name])
    )


def is_signed_by(keys: "tuple[RSAPublicKey, ...]", content: bytes, signature: str) -> bool:
    """Did one of these keys sign? A signature in another spelling than base64's own is refused: it has one form."""
    try:
        if base64.b64encode(base64.b64decode(signature, validate=True)).decode() != signature:
            return False
    except ValueError:
        return False
    return any(verify_rsa(key, content, signature) for key in keys)


def is_genuine_notification(keys: "tuple[RSAPublicKey, ...]", fields: Mapping[str, str]) -> bool:
    """Do the fields of a notification carry Alipay's RSA2 signature? The algorithm is pinned, since it is not itself signed."""
    signature = fields.get("sign", "")
    if not signature or fields.get("sign_type") != SIGN_TYPE:
        return False
    unsigned = frozenset({"sign", "sign_type"})
    texts = {signed_text(fields, leave_out=unsigned, empty=empty) for empty in (False, True)}
    return any(is_signed_by(keys, text.encode(), signature) for text in texts)


def certificates_of(text: str) -> list[str]:
    """The certificates of a PEM text, one text each."""
    return _PEM_BLOCK.findall(text)


def certificate_sn(certificate: x509.Certificate) -> str:
    """The number by which Alipay names a certificate."""
    names = (f"{part.rfc4514_attribute_name}={part.value!s}" for part in reversed(list(certificate.issuer)))
    text = ",".join(names) + str(certificate.serial_number)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def root_certificate_sn(certificates: list[x509.Certificate]) -> str:
    """The number of a chain: those of its RSA-signed certificates. Alipay's own chain also holds others, which do not count."""
    rsa = [one for one in certificates if one.signature_algorithm_oid.dotted_string.startswith("1.2.840.113549.1.1.")]
    return "_".join(certificate_sn(one) for one in rsa)


# --- answers ---


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: what it says, the exact bytes that its signature covers, and the signature (empty where it has none)."""

    record: dict[str, Any]
    content: bytes
    signature: str
    certificate: str

    @property
    def code(self) -> str:
        """The gateway's code, such as 10000, or `unreadable`."""
        return _code_text(self.record.get("code"))

    @property
    def business_code(self) -> str:
        """The reason of a business refusal (40004); empty for every other answer."""
        return self.sub_code if self.code == BUSINESS_FAILED else ""

    @property
    def sub_code(self) -> str:
        """The operation's own code, such as ACQ.TRADE_NOT_EXIST; empty where there is none."""
        return _code_text(self.record.get("sub_code", ""))


def read_answer(body: bytes, method: str) -> Answer:
    """Take an answer apart without changing a byte of what was signed. Raises MalformedError."""
    try:
        # A name that comes twice counts once: what is verified and what is read are the same text.
        members = dict(_members(body.decode()))
    except (ValueError, RecursionError):
        raise MalformedError("body") from None
    name = method.replace(".", "_") + "_response"
    found = members.get(name) or members.get("error_response")
    if found is None or not isinstance(found[0], dict):
        raise MalformedError(name)
    texts = [members[key][0] if key in members else "" for key in ("sign", "alipay_cert_sn")]
    if not all(isinstance(text, str) for text in texts):
        raise MalformedError("sign")
    return Answer(found[0], found[1].encode(), *texts)


def _members(text: str) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Each member of the outermost JSON object: name, value, and the value's raw text. Raises ValueError."""
    place = _expect(text, _SPACE.match(text).end(), "{")  # type: ignore[union-attr]
    while True:
        name, place = _value(text, place)
        if not isinstance(name, str):
            raise ValueError("name")  # noqa: TRY004 - it means a malformed text, not a wrong call
        start = _skip(text, _expect(text, _skip(text, place), ":"))
        value, place = _value(text, start)
        yield name, (value, text[start:place])
        place = _skip(text, place)
        if text[place : place + 1] == "}":
            break
        place = _expect(text, place, ",")
    if _skip(text, place + 1) != len(text):
        raise ValueError("rest")


def _value(text: str, place: int) -> tuple[Any, int]:
    return _DECODER.raw_decode(text, _skip(text, place))


def _skip(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _expect(text: str, place: int, character: str) -> int:
    if text[place : place + 1] != character:
        raise ValueError(character)
    return place + 1


def _refuse(_: str) -> Any:
    raise ValueError("constant")


# Amounts are texts. A number with a point is read as something that no field takes: no float may come near an amount.
_DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse)


def _code_text(value: Any) -> str:
    if value == "":
        return ""
    return value if isinstance(value, str) and _CODE.fullmatch(value) else "unreadable"


# --- fields ---


def text_of(record: Mapping[str, Any], name: str, *, optional: bool = False, characters_max: int = 512) -> str:
    """A text; empty where it is optional and missing. Raises MalformedError."""
    value = record.get(name)
    if value is None and optional:
        return ""
    if not isinstance(value, str) or len(value) > characters_max or not is_clean(value) or not (value or optional):
        raise MalformedError(name)
    return value


def minor_of(record: Mapping[str, Any], name: str, *, optional: bool = False) -> int:
    """An amount in fen, read from yuan by its digits; 0 where it is optional and missing. Raises MalformedError."""
    text = text_of(record, name, optional=optional)
    found = _AMOUNT.fullmatch(text)
    if text == "" and optional:
        return 0
    if found is None:
        raise MalformedError(name)
    return int(found[1]) * 100 + int((found[2] or "").ljust(2, "0"))


def yuan(amount_minor: int) -> str:
    """An amount as Alipay writes it."""
    return f"{amount_minor // 100}.{amount_minor % 100:02d}"


def moment_of(record: Mapping[str, Any], name: str) -> datetime | None:
    """A time in UTC, from Beijing time; None where it is missing. Raises MalformedError."""
    text = text_of(record, name, optional=True)
    if not text:
        return None
    if not _TIME.fullmatch(text):
        raise MalformedError(name)
    try:
        return datetime.fromisoformat(text).replace(tzinfo=BEIJING).astimezone(UTC)
    except (ValueError, OverflowError):
        raise MalformedError(name) from None


def beijing_text(at: datetime) -> str:
    """A time as Alipay writes it: Beijing time to the second, cut off, so that nothing lasts longer than it was meant to."""
    return at.astimezone(BEIJING).strftime("%Y-%m-%d %H:%M:%S")


def currency_of(record: Mapping[str, Any]) -> str:
    """What the amounts are in: yuan, unless the trade was priced in another currency."""
    currency = text_of(record, "trans_currency", optional=True) or CURRENCY
    if not _CURRENCY.fullmatch(currency):
        raise MalformedError("trans_currency")
    return currency


def is_clean(value: str) -> bool:
    """Can it be stored? A NUL byte and a lone surrogate cannot."""
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def read_form(body: bytes) -> dict[str, str]:
    """The fields of a form. A name that comes twice is refused: two readers could pick different ones. Raises MalformedError."""
    fields: dict[str, str] = {}
    pairs = body.split(b"&")
    if not body.isascii() or len(pairs) > FIELDS_MAX:
        raise MalformedError("body")
    for pair in pairs:
        name, separator, value = pair.partition(b"=")
        if not name or not separator or not _ESCAPES.fullmatch(pair):
            raise MalformedError("body")
        try:
            texts = [unquote_to_bytes(part.replace(b"+", b" ")).decode() for part in (name, value)]
        except UnicodeDecodeError:
            raise MalformedError("body") from None
        if texts[0] in fields:
            raise MalformedError("duplicated_field")
        fields[texts[0]] = texts[1]
    return fields
