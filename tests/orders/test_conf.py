"""PAYONCE: every wrong key is named, with what to write instead."""

import pytest
from django.core.checks import run_checks

from payonce.orders.conf import find_problems, get_settings, get_shop
from payonce.orders.errors import SettingsError


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ({"SHOPS": "x"}, 'Did you mean "SHOP"?'),
        ({"REFUND": {"AUTOMATIC": True}}, 'Did you mean "AUTO"?'),
        ({"REFUND": []}, "must be a dict"),
        ({"LATE_PAYMENT": "MAYBE"}, "REFUND"),
        ({"SWITCH": {"UNPROVEN": "hope"}}, "allow"),
        ({"NUMBER_PREFIX": "too-long-prefix"}, "1 to 6"),
        ({"NUMBER_PREFIX": "支付"}, "ASCII"),
        ({"LOCK_TIMEOUT_MS": -1}, "not negative"),
        ({"LOCK_TIMEOUT_MS": 1.5}, "whole number"),
        ({"REFUND": {"DAILY_MINOR": "1"}}, "DAILY_MINOR"),
        ({"CHANNELS": {"a b": {"adapter": "sandbox"}}}, "a b"),
        ({"CHANNELS": {"a": {}}}, "adapter"),
        ({"CHANNELS": []}, "must be a dict"),
        ([], "PAYONCE must be a dict"),
    ],
)
def test_a_wrong_setting_is_named_with_the_fix(raw, text):
    assert any(text in problem for problem in find_problems(raw))


def test_the_defaults_are_valid():
    assert list(find_problems({})) == []


def test_settings_are_read_again_when_they_change(settings):
    settings.PAYONCE = {"NUMBER_PREFIX": "ab"}
    assert get_settings().NUMBER_PREFIX == "ab"
    settings.PAYONCE = {"NUMBER_PREFIX": "cd"}
    assert get_settings().NUMBER_PREFIX == "cd"
    settings.PAYONCE = {"NUMBER_PREFIXX": "cd"}
    with pytest.raises(SettingsError, match="Did you mean"):
        get_settings()


def ids(**changes) -> list[str]:
    return [str(message.id) for message in run_checks(tags=["payonce"], **changes)]


def test_checks_report_mistakes_by_id(settings):
    assert ids() == []
    settings.PAYONCE = {"SHOP": "nowhere.Shop"}
    assert ids() == ["payonce.E002"]
    with pytest.raises(SettingsError, match="nowhere"):
        get_shop()
    settings.PAYONCE = {"SHOP": "decimal.Decimal"}
    assert ids() == ["payonce.E003"]
    settings.PAYONCE = {"NOPE": 1}
    assert ids() == ["payonce.E001"]
    del settings.PAYONCE
    assert ids() == ["payonce.E001"]


def test_deploy_checks_warn_of_what_is_only_for_a_checkout(settings):
    settings.PAYONCE = {"BASE_URL": "http://shop.example"}
    assert {"payonce.W001", "payonce.W002", "payonce.W003"} <= set(ids(include_deployment_checks=True))


def test_an_account_without_its_secret_is_an_error(settings):
    settings.PAYONCE = {"CHANNELS": {"a": {"adapter": "sandbox", "merchant": "a", "base_url": "https://bank.example"}}}
    assert ids() == ["payonce.E105"]
