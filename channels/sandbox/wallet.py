"""The wallet for people: a page on which a buyer pays, an overview, and the ledger.

Plain HTML that works without scripts.
"""

import html
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from payonce.channels.sandbox import ledger
from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.asgi import Request, Response
from payonce.channels.sandbox.bank import Bank
from payonce.channels.sandbox.codes import Code
from payonce.channels.sandbox.ledger import Tender
from payonce.channels.sandbox.records import Payment, Result, find_payment_by_token, row_dict
from payonce.channels.sandbox.truth import dump

ROWS_MAX = 200
_EXPONENTS = {"JPY": 0, "KWD": 3}
_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem }
.amount { font-size: 2rem; font-weight: 600 } .note { opacity: .75 } form { display: inline-block; margin: .25rem .5rem .25rem 0 }
button { font: inherit; padding: .6rem 1.2rem; border-radius: .5rem; border: 1px solid currentColor; cursor: pointer }
button.main { background: #0a6; color: #fff; border-color: #0a6 } table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884 } .right { text-align: right }
"""
_HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_MESSAGES = {
    Code.ALREADY_PAID: "This was already paid. Nothing more was taken.",
    Code.ALREADY_CLOSED: "The shop closed this payment. Nothing was taken.",
    Code.EXPIRED: "This payment has expired. Nothing was taken.",
}
_STATES = {
    "OPEN": "Waiting for you",
    "IN_PROGRESS": "Started: your bank has not confirmed yet",
    "APPROVED": "Approved: the shop has not taken the money yet",
    "PAID": "Paid",
    "CLOSED": "Closed by the shop",
}
_BUTTONS = {
    "OPEN": (("pay", "Pay now", "main"), ("begin", "Pay, bank confirms later", ""), ("decline", "Decline", "")),
    "IN_PROGRESS": (("pay", "Bank confirms", "main"), ("decline", "Bank refuses", "")),
    "APPROVED": (("decline", "Take approval back", ""),),
}
_ACTS: dict[str, Callable[[sqlite3.Connection, SandboxAccount, str, float], Result]] = {
    "begin": ledger.begin,
    "decline": ledger.decline,
}


class Wallet:
    """Serves `/wallet/` of one bank."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank

    async def serve(self, request: Request) -> Response:
        """Show a page, or do what a button says and go back to the page."""
        parts = request.path.strip("/").split("/")[1:]
        match (request.method, *parts):
            case ("GET",):
                return await self._overview()
            case ("GET", "ledger"):
                return await self._ledger()
            case ("GET", "pay", key):
                return await self._page(key)
            case ("POST", "pay", key, action):
                return await self._act(key, action)
        return _page(404, "Not found", "<p>There is no such page.</p>")

    async def _find(self, key: str) -> tuple[SandboxAccount, Payment] | None:
        payment = await self._bank.read(lambda database: _find(database, key))
        if payment is None or payment.account not in self._bank.accounts:
            return None
        return self._bank.accounts[payment.account], payment

    async def _page(self, key: str, message: str = "") -> Response:
        found = await self._find(key)
        if found is None:
            return _page(404, "Not found", "<p>The bank knows no such payment.</p>")
        account, payment = found
        result = await self._bank.change(lambda db, at: ledger.open_page(db, account, payment.number, at))
        return _page(200, "Pay", self._body(account, result.payment or payment, message))

    async def _act(self, key: str, action: str) -> Response:
        found = await self._find(key)
        if found is None:
            return _page(404, "Not found", "<p>The bank knows no such payment.</p>")
        account, payment = found
        if action == "pay":
            result = await self._bank.pay(account, payment.number, Tender())
        elif action in _ACTS:
            act = _ACTS[action]
            result = await self._bank.change(lambda db, at: act(db, account, payment.number, at))
        else:
            return _page(404, "Not found", "<p>There is no such action.</p>")
        if result.code == Code.OK:
            # A reload of the page must not press the button again.
            return Response(303, b"", {"location": f"/wallet/pay/{payment.token}", "cache-control": "no-store"})
        return await self._page(key, _MESSAGES.get(Code(result.code), str(result.code)))

    def _body(self, account: SandboxAccount, payment: Payment, message: str) -> str:
        expired = self._bank.now() > payment.payable_until and payment.state == "OPEN"
        state = "Expired" if expired else _STATES[payment.state]
        buttons = "".join(
            f'<form method="post" action="/wallet/pay/{payment.token}/{action}">'
            f'<button class="{kind}">{label}</button></form>'
            for action, label, kind in _BUTTONS.get(payment.state, ())
        )
        back = ""
        if payment.return_url:
            back = f'<p><a href="{_safe(payment.return_url)}">Back to the shop</a></p>'
        return (
            f"<p>{_safe(account.display_name)} &middot; merchant {_safe(account.merchant)}</p>"
            f'<p class="amount">{money(payment.amount_minor, payment.currency)}</p><p>{_safe(payment.subject)}</p>'
            f'<p><strong id="state" data-state="{payment.state}">{state}</strong></p>'
            + (f'<p role="alert">{_safe(message)}</p>' if message else "")
            + f'<p>{buttons}</p>{back}<p class="note">Number {_safe(payment.number)}, payable until {moment(payment.payable_until)}. '
            "This is a sandbox: no real money moves.</p>"
        )

    async def _overview(self) -> Response:
        payments = await self._bank.read(_open_payments)
        rows = "".join(
            f'<tr><td><a href="/wallet/pay/{row["token"]}">{_safe(row["number"])}</a></td><td>{_safe(row["account"])}</td>'
            f'<td class="right">{money(row["amount_minor"], row["currency"])}</td><td>{_safe(row["subject"])}</td>'
            f"<td>{_STATES[row['state']]}</td></tr>"
            for row in payments
        )
        head = "<tr><th>Number</th><th>Account</th><th>Amount</th><th>For</th><th>State</th></tr>"
        body = f"<table>{head}{rows}</table>" if rows else "<p>Nobody waits for a payment.</p>"
        return _page(200, "Open payments", body + '<p><a href="/wallet/ledger">Ledger</a></p>')

    async def _ledger(self) -> Response:
        journal = await self._bank.read(lambda database: dump(database)["journal"][-ROWS_MAX:])
        rows = "".join(
            f"<tr><td>{moment(row['at'])}</td><td>{_safe(row['account'])}</td><td>{_safe(row['number'])}</td>"
            f"<td>{_safe(row['kind'])}</td><td>{_safe(row['refund_number'])}</td>"
            f'<td class="right">{money(row["amount_minor"], row["currency"])}</td></tr>'
            for row in reversed(journal)
        )
        head = "<tr><th>At</th><th>Account</th><th>Number</th><th>Kind</th><th>Refund</th><th>Amount</th></tr>"
        return _page(200, "Ledger", f'<table>{head}{rows}</table><p><a href="/wallet/">Open payments</a></p>')


def money(amount_minor: int, currency: str) -> str:
    """An amount as people read it, by integer arithmetic."""
    digits = _EXPONENTS.get(currency, 2)
    sign, value = "-" if amount_minor < 0 else "", abs(amount_minor)
    whole, rest = divmod(value, 10**digits)
    return f"{sign}{whole:,}" + (f".{rest:0{digits}d}" if digits else "") + f" {_safe(currency)}"


def moment(at: float) -> str:
    """A time as people read it, to the second."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _find(database: sqlite3.Connection, key: str) -> Payment | None:
    """By the page's token, or by the number where only one account has it."""
    found = find_payment_by_token(database, key)
    if found is not None:
        return found
    rows = database.execute("SELECT token FROM payment WHERE number = ?", (key,)).fetchall()
    return find_payment_by_token(database, rows[0]["token"]) if len(rows) == 1 else None


def _open_payments(database: sqlite3.Connection) -> list[dict[str, Any]]:
    query = "SELECT * FROM payment WHERE state IN ('OPEN', 'APPROVED', 'IN_PROGRESS') ORDER BY id DESC LIMIT ?"
    return [row_dict(row) for row in database.execute(query, (ROWS_MAX,))]


def _safe(text: str) -> str:
    return html.escape(text, quote=True)


def _page(status: int, title: str, body: str) -> Response:
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title} · sandbox wallet</title><style>{_STYLE}</style><h1>{title}</h1>{body}</html>"
    )
    return Response(status, text.encode(), _HEADERS)
