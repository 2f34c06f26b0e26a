"""Accounts are found by name, made once, and never accepted without their configuration."""

from collections.abc import Iterator
from typing import Any

import pytest

from payonce.channels import registry
from payonce.channels.checks import problems
from payonce.channels.errors import ChannelConfigError, UnknownAccount, UnknownAdapter
from payonce.channels.sandbox.adapter import SandboxChannel

SECRET = "an acceptable secret of good length"
GOOD: dict[str, Any] = {"adapter": "sandbox", "base_url": "http://127.0.0.1:8801", "secret": SECRET}
DOTTED = f"{SandboxChannel.__module__}.SandboxChannel"


class OtherChannel(SandboxChannel):
    """Some shop's own adapter."""

    adapter = "other"
    option_specs = ()


@pytest.fixture
def configured() -> Iterator[dict[str, Any]]:
    before, registered = registry._source, dict(registry._registered)
    accounts: dict[str, Any] = {"blue": dict(GOOD)}
    registry.configure(lambda: accounts)
    yield accounts
    registry._source = before
    registry._registered.clear()
    registry._registered.update(registered)
    registry.reset()


def test_channel_is_made_once(configured: dict[str, Any]) -> None:
    made = registry.channel("blue")
    assert isinstance(made, SandboxChannel)
    assert registry.channel("blue") is made
    assert registry.accounts() == ("blue",)


def test_channel_is_made_again_when_its_options_change(configured: dict[str, Any]) -> None:
    made = registry.channel("blue")
    configured["blue"]["base_url"] = "http://127.0.0.1:8802"
    changed = registry.channel("blue")
    assert changed is not made
    registry.reset()
    assert registry.channel("blue") is not changed


def test_dotted_path_and_registered_name_are_adapters(configured: dict[str, Any]) -> None:
    registry.register("mine", OtherChannel)
    configured["green"] = {**GOOD, "adapter": "mine"}
    configured["red"] = {**GOOD, "adapter": DOTTED}
    assert type(registry.channel("green")) is OtherChannel
    assert type(registry.channel("red")) is SandboxChannel
    assert {"mine", "sandbox"} <= set(registry.adapter_names())


def test_taken_name_and_foreign_class_cannot_be_registered(configured: dict[str, Any]) -> None:
    with pytest.raises(ChannelConfigError, match="taken"):
        registry.register("sandbox", OtherChannel)
    with pytest.raises(ChannelConfigError, match="not a subclass"):
        registry.register("x", dict)  # type: ignore[arg-type]


def test_unknown_account_gets_a_suggestion(configured: dict[str, Any]) -> None:
    with pytest.raises(UnknownAccount, match=r'no account "bleu"\. Did you mean "blue"\? Configured: "blue"'):
        registry.channel("bleu")


@pytest.mark.parametrize(
    ("adapter", "error", "message"),
    [
        ("sandbx", UnknownAdapter, 'Did you mean "sandbox"'),
        ("no.such.module.Channel", UnknownAdapter, "cannot import"),
        ("payonce.channels.base.Nothing", UnknownAdapter, "has no"),
        ("payonce.channels.messages.Prepay", ChannelConfigError, "not a subclass"),
        ("", ChannelConfigError, 'has no "adapter"'),
        (None, ChannelConfigError, 'has no "adapter"'),
    ],
)
def test_wrong_adapter_says_what_is_wrong(
    configured: dict[str, Any], adapter: Any, error: type[Exception], message: str
) -> None:
    configured["blue"]["adapter"] = adapter
    with pytest.raises(error, match=message):
        registry.channel("blue")


def test_nothing_configured_is_an_error(configured: dict[str, Any]) -> None:
    registry._source = (
        None  # `configured` puts it right; monkeypatch is older than it, and would put it back afterwards
    )
    with pytest.raises(ChannelConfigError, match="configure"):
        registry.accounts()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"secret": None}, 'has no "secret"'),
        ({"secret": ""}, 'has no "secret"'),
        ({"secret": "short"}, "has 5 characters"),
        ({"secret": "a" * 40}, "too regular"),
        ({"base_url": "127.0.0.1:8801"}, "absolute http"),
        ({"base_url": "http://user:pw@x/"}, "absolute http"),
        ({"close_prof": "query"}, 'unknown option "close_prof". Did you mean "close_proof"'),
        ({"close_proof": "qery"}, 'Did you mean "query"'),
        ({"captures": "yes"}, "must be True or False"),
        ({"lifetime_seconds": 1.5}, "whole number"),
        ({"lifetime_seconds": True}, "whole number"),
        ({"methods": []}, "at least one item"),
        ({"methods": ["qr", "fax"]}, "must be one of"),
    ],
)
def test_wrong_option_raises_and_is_a_problem(configured: dict[str, Any], change: dict[str, Any], message: str) -> None:
    configured["blue"].update(change)
    with pytest.raises(ChannelConfigError) as raised:
        registry.channel("blue")
    assert message in str(raised.value)
    found = [problem for problem in problems(configured) if not problem.deploy_only]
    assert [message in problem.message for problem in found] == [True]
    assert found[0].account == "blue"
    assert found[0].id.startswith("E1")


def test_x4_error_messages_never_quote_a_secret(configured: dict[str, Any]) -> None:
    configured["blue"]["secret"] = "tiny-but-secret"
    text = " ".join(f"{problem.message} {problem.hint}" for problem in problems(configured))
    assert "tiny-but-secret" not in text
    assert SECRET not in repr(SandboxChannel("blue", GOOD).settings)


@pytest.mark.parametrize(
    ("accounts", "identifiers"),
    [
        ({}, []),
        ({"blue": GOOD}, []),
        ([], ["E100"]),
        ({"blue": None}, ["E100"]),
        ({"Blue Bank": GOOD}, ["E101"]),
        ({"\u0661": GOOD}, ["E101"]),
        ({1: GOOD}, ["E101"]),
        ({"blue": {}}, ["E102"]),
        ({"blue": {"adapter": "nothing"}}, ["E103"]),
        ({"blue": {"adapter": "sandbox"}}, ["E105", "E105"]),
        ({"blue": {**GOOD, "x": 1, "secret": "short"}}, ["E104", "E106"]),
    ],
)
def test_problems_are_listed_by_id(accounts: Any, identifiers: list[str]) -> None:
    assert [problem.id for problem in problems(accounts) if not problem.deploy_only] == identifiers


def test_deploy_finds_plain_http_shared_secrets_and_sandboxes() -> None:
    found = [problem for problem in problems({"blue": GOOD, "green": {**GOOD, "merchant": "g"}}) if problem.deploy_only]
    assert sorted(problem.id for problem in found) == ["E108", "E108", "E109", "E111", "E111"]
    assert all(problem.hint for problem in found)


def test_adapter_that_refuses_its_options_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, account: str, options: Any) -> None:
        raise ChannelConfigError("the certificate has expired")

    monkeypatch.setattr(OtherChannel, "__init__", refuse)
    monkeypatch.setitem(registry._registered, "mine", OtherChannel)
    assert [problem.id for problem in problems({"blue": {"adapter": "mine"}})] == ["E110"]
