"""An attacker's notifications are those of each channel in everything but the key: that alone is why they are refused (X1)."""

from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from payonce.channels import registry
from payonce.channels.base import Channel
from payonce.channels.keys import load_private_key
from payonce.channels.messages import NotAuthentic, Notice, NotificationRequest, PaymentState
from payonce.channels.sandbox.skins import skin_class
from torture.accounts import REAL_CHANNELS
from torture.forgeries import KINDS, PUBLIC, Claim, Keys, forge, public_names

AMOUNT = 1_234
NUMBER = "tt1234567890s01"
PRIVATE = {"wechat_pay": "public_key_private", "alipay": "alipay_private_key", "paypal": "private_key"}
"""Where the bank's half of an account keeps the key that notifications are signed with."""


@pytest.fixture(scope="module")
def halves() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    return {name: skin_class(name).new_account(name, "http://127.0.0.1:9", "") for name in REAL_CHANNELS}


def channel_of(name: str, shop: dict[str, Any]) -> Channel:
    return registry.adapter_class(name, shop)(name, shop)


def claim_with(shop: dict[str, Any], keys: Keys | None = None) -> Claim:
    return Claim("any", NUMBER, AMOUNT, public_names(shop), keys or Keys())


def judge(channel: Channel, headers: dict[str, str], body: bytes) -> Notice | NotAuthentic:
    return channel.parse_notification(NotificationRequest(body, headers), datetime.now(UTC))


def true_keys(name: str, bank: dict[str, Any]) -> Keys:
    keys = bank["keys"]
    private = load_private_key(keys[PRIVATE[name]]) if name in PRIVATE else None
    assert private is None or isinstance(private, rsa.RSAPrivateKey)
    return Keys(private, keys.get("webhook_secret", ""), keys.get("apiv3_key", ""))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", REAL_CHANNELS)
def test_a_forgery_is_refused(halves, name: str, kind: str) -> None:
    """X1."""
    _bank, shop = halves[name]
    answer = judge(channel_of(name, shop), *forge(name, claim_with(shop), kind))
    assert isinstance(answer, NotAuthentic)
    assert not answer.stale


@pytest.mark.parametrize("name", REAL_CHANNELS)
def test_the_same_message_with_the_channels_key_would_be_believed(halves, name: str) -> None:
    """The control: nothing else about a forgery is wrong."""
    bank, shop = halves[name]
    answer = judge(channel_of(name, shop), *forge(name, claim_with(shop, true_keys(name, bank)), "own key"))
    assert isinstance(answer, Notice), answer
    assert answer.payment is not None
    told = (answer.payment.number, answer.payment.state, answer.payment.paid_minor, answer.payment.currency)
    assert told == (NUMBER, PaymentState.PAID, AMOUNT, "CNY")


def test_the_attacker_knows_no_secret(halves) -> None:
    for name in REAL_CHANNELS:
        bank, shop = halves[name]
        secret = {str(value) for value in bank["keys"].values()} - {str(shop.get(option)) for option in PUBLIC}
        assert not secret & set(public_names(shop).values())
