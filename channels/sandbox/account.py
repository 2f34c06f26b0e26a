"""The options of a sandbox account, read the same way by the adapter and by the bank.

Options beyond the first four let one sandbox behave like other channels, so that tests can meet each kind of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

from payonce.channels.messages import Capabilities, CloseProof, MethodCapability, PrepayKind
from payonce.channels.options import (
    Option,
    is_base_url,
    is_flag,
    is_integer,
    is_list_of,
    is_mapping,
    is_one_of,
    is_secret,
    is_text,
    read_options,
)
from payonce.channels.sandbox import skins

YEAR_SECONDS = 365 * 86_400
CURRENCIES = ("AUD", "CAD", "CHF", "CNY", "EUR", "GBP", "HKD", "JPY", "KWD", "SGD", "USD")
METHODS = {
    "qr": PrepayKind.QR,
    "web": PrepayKind.REDIRECT,
    "h5": PrepayKind.REDIRECT,
    "app": PrepayKind.APP,
    "jsapi": PrepayKind.APP,
    "card": PrepayKind.CLIENT_SECRET,
}
METHODS_BY_DEFAULT = ("qr", "web", "h5", "app")

_MAKE_ONE = "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
_seconds = is_integer(0, 10 * YEAR_SECONDS)

OPTION_SPECS = (
    Option("base_url", is_base_url, required=True, hint="Where the sandbox serves, such as http://127.0.0.1:8801"),
    Option("secret", is_secret, required=True, hint=_MAKE_ONE, secret=True),
    Option("merchant", is_text, hint="The account's name at the bank; by default the account's own name"),
    Option("display_name", is_text, hint="What people read on the wallet page"),
    Option("methods", is_list_of(is_one_of(*METHODS)), default=METHODS_BY_DEFAULT),
    Option("currencies", is_list_of(is_one_of(*CURRENCIES)), default=CURRENCIES),
    Option("close_proof", is_one_of(*CloseProof), default="answer", hint="What proves a close"),
    Option("captures", is_flag, default=False, hint="The buyer only approves; the capture is ours"),
    Option("not_found_before_buyer_acts", is_flag, default=False, hint="Unknown until the buyer opens the wallet page"),
    Option("enforces_expiry", is_flag, default=True, hint="Refuse money after payable_until"),
    Option("clock_skew_seconds", _seconds, default=60),
    Option("lifetime_seconds", is_integer(1, YEAR_SECONDS), default=7_200, hint="How long a prepay can be used"),
    Option("lifetime_seconds_min", is_integer(1, YEAR_SECONDS), default=60),
    Option("refunds", is_flag, default=True),
    Option("refunds_partial", is_flag, default=True),
    Option("refund_window_seconds", _seconds, default=YEAR_SECONDS),
    Option("refund_interval_seconds", _seconds, default=0),
    Option("refund_count_max", is_integer(1, 1_000), default=50),
    Option("refund_seconds", _seconds, default=0, hint="How long a refund stays in progress"),
    Option("statement", is_flag, default=True),
    Option("notification_horizon_seconds", _seconds, default=25 * 3_600),
    Option("replay_window_seconds", _seconds, hint="How long the adapter promises safe repeats; none: for ever"),
    Option("refund_replay_window_seconds", _seconds, hint="The same for refunds"),
    Option("amount_minor_min", is_integer(1, 10**15), default=1),
    Option("amount_minor_max", is_integer(1, 10**15), default=10_000_000_000),
    Option("timeout_seconds", is_integer(1, 12), default=10, hint="Total time of one call"),
    Option("skin", is_one_of(*skins.NAMES), default=skins.OWN, hint="The wire format that the bank speaks"),
    Option(
        "keys", is_mapping, default=MappingProxyType({}), hint="What the bank's half of that format needs", secret=True
    ),
)


@dataclass(frozen=True, slots=True)
class SandboxAccount:
    """One merchant account: its keys, and the rules that both sides keep."""

    name: str
    base_url: str
    secret: str = field(repr=False)
    merchant: str
    display_name: str
    refund_seconds: int
    timeout_seconds: int
    capabilities: Capabilities
    skin: str = skins.OWN
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, Any]) -> Self:
        """Read the options. Raises ChannelConfigError that names what is wrong."""
        read = read_options(name, OPTION_SPECS, options)
        return cls(
            name=name,
            base_url=read["base_url"].rstrip("/"),
            secret=read["secret"],
            merchant=read["merchant"] or name,
            display_name=read["display_name"] or name,
            refund_seconds=read["refund_seconds"],
            timeout_seconds=read["timeout_seconds"],
            capabilities=_capabilities(read),
            skin=read["skin"],
            keys=dict(read["keys"]),
        )


def _capabilities(read: dict[str, Any]) -> Capabilities:
    methods = {
        name: MethodCapability(METHODS[name], read["lifetime_seconds"], read["lifetime_seconds_min"])
        for name in read["methods"]
    }
    proof = CloseProof(read["close_proof"])
    same = ("captures", "not_found_before_buyer_acts", "enforces_expiry", "clock_skew_seconds", "refunds",
            "refunds_partial", "refund_window_seconds", "refund_interval_seconds", "refund_count_max", "statement",
            "notification_horizon_seconds", "replay_window_seconds", "refund_replay_window_seconds",
            "amount_minor_min", "amount_minor_max")  # fmt: skip
    return Capabilities(
        methods=methods,
        currencies=frozenset(read["currencies"]),
        close_proof=proof,
        **{name: read[name] for name in same},
    )
