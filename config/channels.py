"""Accounts of real channels for the reference site, played by the sandbox bank in their own wire formats.

Each has a port of its own and fresh keys. The bank's half and the shop's half lie in two files that only their owner can read.
"""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from config.postgres import free_port
from payonce.channels.sandbox.skins import NAMES, OWN, skin_class

BANK_FILE, SHOP_FILE = "bank-accounts.json", "shop-accounts.json"
SHOP_VARIABLE = "PAYONCE_CHANNELS_FILE"
REAL_NAMES = tuple(name for name in NAMES if name != OWN)


class Halves(NamedTuple):
    """The bank's file of accounts, and the shop's."""

    bank: Path
    shop: Path


def make_accounts(
    folder: Path,
    web_url: str,
    names: Iterable[str] = REAL_NAMES,
    port: Callable[[], int] = free_port,
) -> Halves:
    """Make one account of each real channel (or of those in `names`), named as its skin, on a port that `port` finds."""
    bank: dict[str, Any] = {}
    shop: dict[str, Any] = {}
    for name in names:
        url = f"http://127.0.0.1:{port()}"
        skin = skin_class(name)
        bank_half, shop[name] = skin.new_account(name, url, f"{web_url}/notify/{name}/")
        bank[name] = {"adapter": "sandbox", "skin": name, "base_url": url, "secret": os.urandom(24).hex(),
                      "display_name": name.replace("_", " ").title(), **skin.account_options, **bank_half}  # fmt: skip
    return Halves(_write(folder / BANK_FILE, bank), _write(folder / SHOP_FILE, shop))


def _write(path: Path, accounts: dict[str, Any]) -> Path:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(accounts, file, default=list)
    return path
