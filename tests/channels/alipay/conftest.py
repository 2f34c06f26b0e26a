"""One bank with an Alipay account in each key mode, shared by the tests of a module."""

from collections.abc import Iterator
from typing import Any

import pytest

from payonce.channels.sandbox.testing import RunningSandbox, serve_in_thread
from tests.channels.alipay.shop import MODES, AlipaySimulator, account_options
from tests.channels.inbox import Inbox, inbox

World = tuple[RunningSandbox, Inbox, dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = {mode: account_options(skin) for mode, skin in MODES.items()}
    accounts = {mode: options for mode, (options, _) in made.items()}
    with inbox() as box, serve_in_thread(accounts) as sandbox:
        yield sandbox, box, {mode: bank for mode, (_, (bank, _)) in made.items()}


@pytest.fixture(params=MODES)
def simulator(request: pytest.FixtureRequest, world: World) -> Iterator[AlipaySimulator]:
    sandbox, box, banks = world
    yield AlipaySimulator(sandbox, request.param, banks[request.param], box)
    sandbox.control.clear_faults()
    sandbox.control.set_clock(0)


@pytest.fixture
def alipay(world: World) -> Iterator[AlipaySimulator]:
    """The account in public-key mode, where the mode makes no difference."""
    sandbox, box, banks = world
    yield AlipaySimulator(sandbox, "public_key", banks["public_key"], box)
    sandbox.control.clear_faults()
    sandbox.control.set_clock(0)
