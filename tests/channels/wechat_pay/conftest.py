"""Merchants in each mode on one simulated WeChat Pay, over real HTTP."""

from collections.abc import Iterator

import pytest

from payonce.channels.sandbox.testing import serve_in_thread
from tests.channels.inbox import inbox
from tests.channels.wechat_pay.simulator import MODES, Merchant, WeChatSimulator


@pytest.fixture(scope="package")
def world() -> Iterator[dict[str, WeChatSimulator]]:
    """A simulator for each mode: reading keys takes long."""
    merchants = {mode: Merchant(mode) for mode in MODES}
    with inbox() as box, serve_in_thread({mode: each.bank for mode, each in merchants.items()}) as sandbox:
        box.answer = lambda _: (204, b"")
        yield {mode: WeChatSimulator(sandbox, mode, each, box) for mode, each in merchants.items()}


@pytest.fixture
def simulator(world: dict[str, WeChatSimulator]) -> Iterator[WeChatSimulator]:
    """A merchant in public-key mode."""
    yield world["public_key"]
    world["public_key"].control.clear_faults()
