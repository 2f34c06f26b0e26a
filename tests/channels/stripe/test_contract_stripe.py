"""The Stripe adapter keeps the contract, over real HTTP against Stripe's API as the bank plays it."""

from collections.abc import Iterator
from typing import Any

import pytest

from payonce.channels.contract import ChannelContract
from payonce.channels.sandbox.testing import RunningSandbox, serve_in_thread
from tests.channels.inbox import Inbox, inbox
from tests.channels.stripe.world import StripeSimulator, listen

MODES: dict[str, tuple[dict[str, Any], str]] = {
    "checkout": ({}, "CNY"),
    "card": ({"methods": ["card"]}, "KWD"),
    "both": ({"methods": ["web", "card"]}, "JPY"),
}


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[RunningSandbox, Inbox]]:
    accounts = {name: {"skin": "stripe", "shop": shop} for name, (shop, _) in MODES.items()}
    with inbox() as box, serve_in_thread(accounts) as sandbox:
        for name in MODES:
            listen(sandbox.accounts[name], box.url)
        yield sandbox, box


class TestStripeKeepsTheContract(ChannelContract):
    @pytest.fixture(params=MODES)
    def simulator(
        self, request: pytest.FixtureRequest, world: tuple[RunningSandbox, Inbox]
    ) -> Iterator[StripeSimulator]:
        sandbox, box = world
        yield StripeSimulator(sandbox, request.param, box, MODES[request.param][1])
        sandbox.control.clear_faults()
