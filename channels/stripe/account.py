"""The options of a Stripe account, with what a wrong key most likely is."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from payonce.channels.errors import ChannelConfigError
from payonce.channels.messages import Capabilities, CloseProof, MethodCapability, PrepayKind
from payonce.channels.options import (
    Option,
    is_base_url,
    is_integer,
    is_list_of,
    is_one_of,
    read_options,
)
from payonce.channels.stripe.forms import CARD, CURRENCIES, WEB

DAY_SECONDS = 86_400
OWN_MERCHANT = "own"
"""What an event without an `account` is about: the account of the keys."""

# A key is kept for at least 24 hours; an hour is left for clocks and for the call itself.
REPLAY_SECONDS = DAY_SECONDS - 3_600
# A session's expiry must lie 30 minutes to 24 hours ahead when the request arrives: some minutes are left for its way.
SESSION_SECONDS_MIN, SESSION_SECONDS_MAX = 1_800 + 180, DAY_SECONDS - 300
# "Up to three days" of repeats, and a grace.
HORIZON_SECONDS = 3 * DAY_SECONDS + 3_600
# Cards can be refunded for longer; some methods end sooner and then the request is refused (docs.stripe.com/refunds).
REFUND_SECONDS = 180 * DAY_SECONDS
AMOUNT_MINOR_MAX = 99_999_999  # eight digits

_KEYS_HINT = "Stripe dashboard, Developers, API keys: the secret key (sk_…) or a restricted key (rk_…)"
_WEBHOOK_HINT = (
    "Stripe dashboard, Developers, Webhooks: the signing secret (whsec_…) of the endpoint at /notify/<account>/"
)


def is_secret_key(value: Any) -> str:
    """A secret or restricted key, of test or live mode."""
    if not isinstance(value, str):
        return "must be a text"
    if value.startswith("pk_"):
        return "is a publishable key, which may not take money: use the secret key"
    if value.startswith("whsec_"):
        return 'is a webhook secret: it belongs in "webhook_secret"'
    known = value.startswith(("sk_test_", "sk_live_", "rk_test_", "rk_live_"))
    if not known or not _is_token(value):
        return "is no secret key: it starts with sk_test_, sk_live_, rk_test_ or rk_live_"
    return "" if len(value) >= 24 else "is cut off: copy the whole key"


def is_webhook_secret(value: Any) -> str:
    """The signing secret of a webhook endpoint."""
    if not isinstance(value, str):
        return "must be a text"
    if value.startswith(("sk_", "rk_", "pk_")):
        return "is an API key: the webhook endpoint has a signing secret of its own"
    if not value.startswith("whsec_") or not _is_token(value.replace("+", "").replace("/", "").rstrip("=")):
        return "is no signing secret: it starts with whsec_"
    return "" if len(value) >= 32 else "is cut off: copy the whole secret"


def is_connected_account(value: Any) -> str:
    """An account id of Connect."""
    fits = isinstance(value, str) and value.startswith("acct_") and _is_token(value)
    return "" if fits else "must be an account id, such as acct_1Abc"


def _is_token(value: str) -> bool:
    return value.isascii() and value.replace("_", "").isalnum()


OPTION_SPECS = (
    Option("secret_key", is_secret_key, required=True, hint=_KEYS_HINT, secret=True),
    Option("webhook_secret", is_webhook_secret, required=True, hint=_WEBHOOK_HINT, secret=True),
    Option("connected_account", is_connected_account, hint="Only for a Connect platform: whose money it is (acct_…)"),
    Option("methods", is_list_of(is_one_of(WEB, CARD)), default=(WEB,), hint="web: Checkout; card: your own page"),
    Option("currencies", is_list_of(is_one_of(*CURRENCIES)), default=CURRENCIES, hint="What the account can charge"),
    Option("base_url", is_base_url, default="https://api.stripe.com", hint="Stripe's API; another one only for tests"),
    Option("timeout_seconds", is_integer(1, 12), default=10, hint="Total time of one call"),
)


@dataclass(frozen=True, slots=True)
class StripeAccount:
    """One account: its keys and what it can do."""

    secret_key: str = field(repr=False)
    webhook_secret: str = field(repr=False)
    merchant: str
    base_url: str
    timeout_seconds: int
    is_live: bool
    capabilities: Capabilities

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, Any]) -> Self:
        """Read the options. Raises ChannelConfigError that names what is wrong, also for a missing library."""
        read = read_options(name, OPTION_SPECS, options)
        if importlib.util.find_spec("stripe") is None:
            raise ChannelConfigError(
                f'PAYONCE["CHANNELS"]["{name}"] needs the "stripe" package to verify notifications. '
                "Install it with: pip install 'django-payonce[stripe]'"
            )
        return cls(
            secret_key=read["secret_key"],
            webhook_secret=read["webhook_secret"],
            merchant=read["connected_account"] or OWN_MERCHANT,
            base_url=read["base_url"].rstrip("/"),
            timeout_seconds=read["timeout_seconds"],
            is_live="_live_" in read["secret_key"][:8],
            capabilities=_capabilities(read),
        )

    def headers(self) -> dict[str, str]:
        """Who asks, and for whom."""
        headers = {"authorization": f"Bearer {self.secret_key}"}
        return headers if self.merchant == OWN_MERCHANT else {**headers, "stripe-account": self.merchant}


def _capabilities(read: Mapping[str, Any]) -> Capabilities:
    known = {
        WEB: MethodCapability(PrepayKind.REDIRECT, SESSION_SECONDS_MAX, SESSION_SECONDS_MIN),
        CARD: MethodCapability(PrepayKind.CLIENT_SECRET, SESSION_SECONDS_MAX),
    }
    return Capabilities(
        methods={name: known[name] for name in read["methods"]},
        currencies=frozenset(read["currencies"]),
        close_proof=CloseProof.ANSWER,
        # A PaymentIntent stays payable until it is cancelled: one such method, and time alone proves nothing here.
        enforces_expiry=CARD not in read["methods"],
        refund_window_seconds=REFUND_SECONDS,
        statement=True,
        notification_horizon_seconds=HORIZON_SECONDS,
        replay_window_seconds=REPLAY_SECONDS,
        refund_replay_window_seconds=REPLAY_SECONDS,
        amount_minor_max=AMOUNT_MINOR_MAX,
    )
