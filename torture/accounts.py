"""Through which accounts a run pays: four of the bank's own dialect, or one of it beside one of each real channel."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_PLAIN: dict[str, Any] = {
    "clock_skew_seconds": 2, "lifetime_seconds_min": 1, "notification_horizon_seconds": 75, "timeout_seconds": 6,
}  # fmt: skip
REAL_CHANNELS = ("wechat_pay", "alipay", "stripe", "paypal")
"""In the order in which a buyer wanders through them. Each account is named as its wire format."""


@dataclass(frozen=True)
class Roster:
    """The accounts of a run by name, with how often each is chosen, and what the stories must know of them."""

    weights: Mapping[str, int]
    own: Mapping[str, Mapping[str, Any]]
    """Options of those that speak the bank's own dialect."""
    skins: tuple[str, ...] = ()
    """Those that speak a real channel's wire format, which is also their name."""
    methods: Mapping[str, str] = field(default_factory=dict)
    """How one pays, where that is not by a code."""
    hidden: frozenset[str] = frozenset()
    """Those that know a payment only from the moment on at which its buyer opens it."""
    altering: tuple[str, ...] = ()
    """Those whose buyer can pay another amount than was asked for, or twice."""
    slow: tuple[str, ...] = ()
    """Those whose bank may need a while, and refuse in the end."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every account."""
        return tuple(self.weights)

    def method(self, account: str) -> str:
        """How one pays through an account."""
        return self.methods.get(account, "qr")


OWN = Roster(
    weights={"blue": 38, "green": 30, "red": 20, "gold": 12},
    own={
        "blue": _PLAIN,
        "green": _PLAIN,
        # Like Alipay: knows and closes nothing before the buyer opens it.
        "red": {**_PLAIN, "close_proof": "query", "not_found_before_buyer_acts": True},
        # Like PayPal: the buyer approves, the capture is ours.
        "gold": {**_PLAIN, "captures": True, "close_proof": "restraint"},
    },
    hidden=frozenset({"red"}),
    altering=("blue", "green"),
    slow=("blue", "green", "red"),
)
MIXED = Roster(
    weights={"blue": 12, "wechat_pay": 25, "alipay": 25, "stripe": 21, "paypal": 17},
    own={"blue": _PLAIN},
    skins=REAL_CHANNELS,
    methods={"stripe": "web", "paypal": "web"},
    hidden=frozenset({"alipay"}),
    altering=("blue", "wechat_pay", "alipay", "stripe"),
    slow=("blue", "wechat_pay", "alipay", "stripe"),
)


def roster(real_channels: bool) -> Roster:
    """The accounts of a mode."""
    return MIXED if real_channels else OWN
