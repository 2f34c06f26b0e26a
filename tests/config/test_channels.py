"""Accounts of the real channels for the reference site: fresh keys in two halves, readable by their owner only."""

import json
import stat
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from config.channels import make_accounts
from config.environment import channels
from payonce.channels.registry import adapter_class
from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.skins import NAMES, OWN


def test_each_real_channel_gets_both_halves_of_fresh_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank_path, shop_path = make_accounts(tmp_path, "http://127.0.0.1:1")
    bank, shop = json.loads(bank_path.read_text()), json.loads(shop_path.read_text())
    assert set(bank) == set(shop) == set(NAMES) - {OWN}
    for name, options in shop.items():
        made = adapter_class(name, options)(name, options)
        assert made.capabilities.methods
        assert SandboxAccount.from_options(name, bank[name]).skin == name
        assert bank[name]["base_url"] in json.dumps(options)
    monkeypatch.setenv("PAYONCE_CHANNELS_FILE", str(shop_path))
    assert set(shop) < set(channels())
    again = json.loads(make_accounts(tmp_path, "http://127.0.0.1:1")[0].read_text())
    assert all(again[name]["keys"] != bank[name]["keys"] for name in bank)


def test_the_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    """X4."""
    for path in make_accounts(tmp_path, "http://127.0.0.1:1"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "[]", '{"blue": 1}', None])
def test_a_file_of_accounts_that_cannot_be_read_is_wrong_usage(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "accounts.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CommandError, match="--accounts") as refused:
        call_command("payonce_sandbox", "--port", "8801", "--data", str(tmp_path / "bank"), "--accounts", str(path))
    assert refused.value.returncode == 2
