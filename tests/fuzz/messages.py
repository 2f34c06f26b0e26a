"""The bank's own notifications as bytes, to be attacked: genuine ones, and signatures made with any key over any text."""

import hashlib
import hmac
import sqlite3
from contextlib import closing
from dataclasses import dataclass

from payonce.channels.sandbox import outbox
from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.dialect import render_notification
from payonce.channels.sandbox.sender import Style
from payonce.channels.sandbox.testing import RunningSandbox
from payonce.channels.signing import (
    HEADER_ACCOUNT,
    HEADER_NONCE,
    HEADER_SIGNATURE,
    HEADER_TIMESTAMP,
    sign_notification,
)

ACCOUNT, TIMESTAMP, NONCE, SIGNATURE = HEADER_ACCOUNT, HEADER_TIMESTAMP, HEADER_NONCE, HEADER_SIGNATURE


@dataclass
class Message:
    """One notification as it travels, and the keys of both accounts."""

    account: SandboxAccount
    other: SandboxAccount
    headers: dict[str, str]
    body: bytes
    at: float

    def signed(
        self, body: bytes, *, at: float | None = None, secret: str | None = None, merchant: str = ""
    ) -> dict[str, str]:
        """The headers of a true signature over any body."""
        merchant = merchant or self.account.merchant
        signature = sign_notification(secret or self.account.secret, merchant, body, self.at if at is None else at)
        return {**self.headers, ACCOUNT: merchant, **signature.headers()}

    def signed_with(self, key: bytes, *parts: str, name: str = "hmac-sha256", digest: str = "sha256") -> dict[str, str]:
        """The headers of a signature made by hand: with any key, over any parts, under any name of an algorithm."""
        named = parts or ("notification", self.account.merchant)
        lines = (
            "payonce-sandbox-1",
            *named,
            self.headers[TIMESTAMP],
            self.headers[NONCE],
            hashlib.sha256(self.body).hexdigest(),
        )
        value = hmac.new(key, ("\n".join(lines) + "\n").encode(), digest).hexdigest()
        return {**self.headers, SIGNATURE: f"{name}={value}"}

    def but(self, **changes: str | None) -> dict[str, str]:
        """The headers with some of them changed, or left out where the value is None. `_` stands for `-`."""
        new = {**self.headers, **{name.replace("_", "-"): value for name, value in changes.items()}}
        return {name: value for name, value in new.items() if value is not None}


def newest_message(
    bank: RunningSandbox, number: str, at: float, account: str = "blue", other: str = "green"
) -> Message:
    """The newest notification about a number, as the bank would send it at this Unix time."""
    mine, theirs = (SandboxAccount.from_options(name, bank.accounts[name]) for name in (account, other))
    with closing(sqlite3.connect(f"file:{bank.folder / 'bank.sqlite3'}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        row = [item for item in outbox.find(database) if item.number == number][-1]
    headers, body = render_notification(mine, row, at, Style())
    return Message(mine, theirs, {name.lower(): value for name, value in headers.items()}, body, at)
