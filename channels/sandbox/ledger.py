"""The bank's rules about payments.

Each function runs inside one transaction, takes the time as `at` (Unix seconds), and returns a `Result`. Money moves
only through `_take_money` here and the functions of `refunds`, each with its journal row.
"""

import secrets
import sqlite3
from dataclasses import dataclass

from payonce.channels.messages import CloseProof
from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.codes import Code
from payonce.channels.sandbox.outbox import announce_payment
from payonce.channels.sandbox.records import Capture, Payment, Result, find_payment, get_payment


@dataclass(frozen=True, slots=True)
class Order:
    """What a merchant asks to be paid."""

    number: str
    amount_minor: int
    currency: str
    subject: str
    method: str
    client_type: str
    payer: str
    payable_until: float
    notify_url: str
    return_url: str


def register(database: sqlite3.Connection, account: SandboxAccount, order: Order, at: float) -> Result:
    """Prepay: the same number with the same parameters is the same payment; with others it is refused."""
    known = find_payment(database, account.name, order.number)
    if known is not None:
        return _register_again(database, account, known, order, at)
    allowed = account.capabilities
    if order.method not in allowed.methods:
        return Result(Code.METHOD_UNSUPPORTED)
    if order.currency not in allowed.currencies:
        return Result(Code.CURRENCY_UNSUPPORTED)
    if not allowed.amount_minor_min <= order.amount_minor <= allowed.amount_minor_max:
        return Result(Code.AMOUNT_OUT_OF_RANGE)
    if order.payable_until <= at:
        return Result(Code.EXPIRED)
    cursor = database.execute(
        "INSERT INTO payment (account, number, token, state, amount_minor, currency, subject, method, client_type,"
        " payer, notify_url, return_url, payable_until, prepay_expires_at, created_at)"
        " VALUES (?, ?, ?, 'OPEN', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (account.name, order.number, secrets.token_urlsafe(16), order.amount_minor, order.currency, order.subject,
         order.method, order.client_type, order.payer, order.notify_url, order.return_url, order.payable_until,
         _prepay_expiry(account, order, at), at),
    )  # fmt: skip
    return Result(Code.OK, get_payment(database, cursor.lastrowid or 0))


def _register_again(
    database: sqlite3.Connection, account: SandboxAccount, known: Payment, order: Order, at: float
) -> Result:
    same = ("amount_minor", "currency", "subject", "method", "client_type", "payer", "payable_until")
    if any(getattr(known, name) != getattr(order, name) for name in same):
        return Result(Code.NUMBER_CONFLICT, known)
    refusal = {"PAID": Code.ALREADY_PAID, "CLOSED": Code.ALREADY_CLOSED}.get(known.state)
    if refusal is not None:
        return Result(refusal, known)
    if known.payable_until <= at:
        return Result(Code.EXPIRED, known)
    if known.prepay_expires_at <= at:
        expiry = _prepay_expiry(account, order, at)
        database.execute("UPDATE payment SET prepay_expires_at = ? WHERE id = ?", (expiry, known.id))
        known = get_payment(database, known.id)
    return Result(Code.OK, known)


def _prepay_expiry(account: SandboxAccount, order: Order, at: float) -> float:
    return min(order.payable_until, at + account.capabilities.methods[order.method].lifetime_seconds)


def look_up(database: sqlite3.Connection, account: SandboxAccount, number: str) -> Result:
    """Query: what the bank says about a number. Some banks know nothing of it before the buyer acts."""
    payment = find_payment(database, account.name, number)
    if payment is None or _is_hidden(account, payment):
        return Result(Code.NOT_FOUND)
    return Result(Code.OK, payment)


def _is_hidden(account: SandboxAccount, payment: Payment) -> bool:
    waits = account.capabilities.not_found_before_buyer_acts
    return waits and payment.seen_at is None and payment.state in {"OPEN", "CLOSED"}


def close(database: sqlite3.Connection, account: SandboxAccount, number: str, at: float) -> Result:
    """Let nobody pay this number any more, as far as this bank can promise it."""
    proof = account.capabilities.close_proof
    if proof in {CloseProof.RESTRAINT, CloseProof.EXPIRY}:
        return Result(Code.NOT_CLOSABLE)
    payment = find_payment(database, account.name, number)
    if payment is None or _is_hidden(account, payment):
        # The kind of bank that needs a query as proof accepts a close of anything.
        return Result(Code.ACCEPTED if proof is CloseProof.QUERY else Code.NOT_FOUND)
    if payment.state == "PAID":
        return Result(Code.ALREADY_PAID, payment)
    if payment.state == "IN_PROGRESS":
        return Result(Code.IN_PROGRESS, payment)
    if payment.state != "CLOSED":
        database.execute("UPDATE payment SET state = 'CLOSED', closed_at = ? WHERE id = ?", (at, payment.id))
        payment = get_payment(database, payment.id)
    return Result(Code.ACCEPTED if proof is CloseProof.QUERY else Code.CLOSED, payment)


@dataclass(frozen=True, slots=True)
class Tender:
    """How a buyer pays: normally the amount asked, now.

    `force` passes the bank's own refusals, as late bank money does.
    """

    amount_minor: int | None = None
    currency: str | None = None
    paid_at: float | None = None
    force: bool = False


def pay(database: sqlite3.Connection, account: SandboxAccount, number: str, tender: Tender, at: float) -> Result:
    """The buyer pays. Where the capture is the merchant's, the buyer only approves."""
    payment = find_payment(database, account.name, number)
    if payment is None:
        return Result(Code.NOT_FOUND)
    refusal = _refusal_to_pay(account, payment, tender.paid_at or at)
    if refusal is not None and not (tender.force and refusal is not Code.ALREADY_PAID):
        return Result(refusal, payment)
    _mark_seen(database, payment, at)
    if account.capabilities.captures and not tender.force:
        return _approve(database, account, payment, at)
    return _take_money(database, account, payment, tender, at, capture_key="")


def _refusal_to_pay(account: SandboxAccount, payment: Payment, at: float) -> Code | None:
    if payment.state == "PAID":
        return Code.ALREADY_PAID
    if payment.state == "CLOSED":
        return Code.ALREADY_CLOSED
    expired = at > payment.payable_until or at > payment.prepay_expires_at
    in_time = payment.state == "IN_PROGRESS" or not account.capabilities.enforces_expiry
    return Code.EXPIRED if expired and not in_time else None


def _approve(database: sqlite3.Connection, account: SandboxAccount, payment: Payment, at: float) -> Result:
    if payment.state == "APPROVED":
        return Result(Code.OK, payment)
    database.execute("UPDATE payment SET state = 'APPROVED' WHERE id = ?", (payment.id,))
    payment = get_payment(database, payment.id)
    announce_payment(database, account, payment, None, "payment.approved", at)
    return Result(Code.OK, payment)


def capture(database: sqlite3.Connection, account: SandboxAccount, number: str, key: str, at: float) -> Result:
    """The merchant takes approved money: once, under one key."""
    payment = find_payment(database, account.name, number)
    if not account.capabilities.captures:
        return Result(Code.UNSUPPORTED)
    if payment is None:
        return Result(Code.NOT_FOUND)
    if payment.state == "PAID":
        mine = any(taken.capture_key == key for taken in payment.captures)
        return Result(Code.OK if mine else Code.ALREADY_CAPTURED, payment)
    if payment.state == "CLOSED":
        return Result(Code.ALREADY_CLOSED, payment)
    if payment.state != "APPROVED":
        return Result(Code.NOT_APPROVED, payment)
    return _take_money(database, account, payment, Tender(), at, capture_key=key)


def capture_again(
    database: sqlite3.Connection, account: SandboxAccount, number: str, tender: Tender, at: float
) -> Result:
    """A second capture under the same number, with a reference of its own: what must never happen, and does."""
    payment = find_payment(database, account.name, number)
    if payment is None:
        return Result(Code.NOT_FOUND)
    if payment.state != "PAID":
        return Result(Code.NOT_PAID, payment)
    return _take_money(database, account, payment, tender, at, capture_key="")


def _take_money(
    database: sqlite3.Connection, account: SandboxAccount, payment: Payment, tender: Tender, at: float, capture_key: str
) -> Result:
    amount_minor = payment.amount_minor if tender.amount_minor is None else tender.amount_minor
    currency = tender.currency or payment.currency
    reference = "cap_" + secrets.token_hex(12)
    paid_at = at if tender.paid_at is None else tender.paid_at
    database.execute("UPDATE payment SET state = 'PAID' WHERE id = ?", (payment.id,))
    database.execute(
        "INSERT INTO capture (payment_id, reference, capture_key, amount_minor, currency, paid_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (payment.id, reference, capture_key, amount_minor, currency, paid_at),
    )
    payment = get_payment(database, payment.id)
    taken = payment.captures[-1]
    write_journal(database, payment, taken, "capture", amount_minor, at)
    announce_payment(database, account, payment, taken, "payment.paid", at)
    return Result(Code.OK, payment, capture=taken)


def begin(database: sqlite3.Connection, account: SandboxAccount, number: str, at: float) -> Result:
    """The buyer has acted and the bank is not done yet."""
    payment = find_payment(database, account.name, number)
    if payment is None:
        return Result(Code.NOT_FOUND)
    refusal = _refusal_to_pay(account, payment, at)
    if refusal is not None:
        return Result(refusal, payment)
    _mark_seen(database, payment, at)
    database.execute("UPDATE payment SET state = 'IN_PROGRESS' WHERE id = ?", (payment.id,))
    return Result(Code.OK, get_payment(database, payment.id))


def decline(database: sqlite3.Connection, account: SandboxAccount, number: str, at: float) -> Result:
    """The buyer or the buyer's bank says no this time; the number stays payable."""
    payment = find_payment(database, account.name, number)
    if payment is None:
        return Result(Code.NOT_FOUND)
    if payment.state not in {"OPEN", "IN_PROGRESS", "APPROVED"}:
        return Result(Code.ALREADY_PAID if payment.state == "PAID" else Code.ALREADY_CLOSED, payment)
    _mark_seen(database, payment, at)
    database.execute(
        "UPDATE payment SET state = 'OPEN', declined_count = declined_count + 1 WHERE id = ?", (payment.id,)
    )
    return Result(Code.OK, get_payment(database, payment.id))


def open_page(database: sqlite3.Connection, account: SandboxAccount, number: str, at: float) -> Result:
    """The buyer scans the code or follows the link: from now on every bank knows the number."""
    payment = find_payment(database, account.name, number)
    if payment is None:
        return Result(Code.NOT_FOUND)
    _mark_seen(database, payment, at)
    return Result(Code.OK, get_payment(database, payment.id))


def take_back(
    database: sqlite3.Connection, account: SandboxAccount, number: str, kind: str, amount_minor: int | None, at: float
) -> Result:
    """A dispute or a reversal: the bank takes money back from the merchant, unasked."""
    payment = find_payment(database, account.name, number)
    if payment is None:
        return Result(Code.NOT_FOUND)
    if not payment.captures:
        return Result(Code.NOT_PAID, payment)
    taken = payment.captures[0]
    amount = taken.rest_minor if amount_minor is None else amount_minor
    if not 0 < amount <= taken.rest_minor:
        return Result(Code.REFUND_EXCEEDS, payment)
    column = {"dispute": "disputed_minor", "reversal": "reversed_minor"}[kind]
    database.execute(f"UPDATE capture SET {column} = {column} + ? WHERE id = ?", (amount, taken.id))  # noqa: S608
    payment = get_payment(database, payment.id)
    write_journal(database, payment, taken, kind, -amount, at)
    announce_payment(database, account, payment, payment.captures[0], f"payment.{kind}", at)
    return Result(Code.OK, payment)


def write_journal(
    database: sqlite3.Connection,
    payment: Payment,
    taken: Capture,
    kind: str,
    amount_minor: int,
    at: float,
    refund_number: str = "",
) -> None:
    """One true movement of money: positive towards the merchant, negative away."""
    database.execute(
        "INSERT INTO journal (at, account, number, kind, reference, refund_number, amount_minor, currency)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (at, payment.account, payment.number, kind, taken.reference, refund_number, amount_minor, taken.currency),
    )


def _mark_seen(database: sqlite3.Connection, payment: Payment, at: float) -> None:
    if payment.seen_at is None:
        database.execute("UPDATE payment SET seen_at = ? WHERE id = ?", (at, payment.id))
