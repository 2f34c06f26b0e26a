"""The adapter keeps the public contract against the simulated WeChat Pay, in each mode of keys, over real HTTP."""

from collections.abc import Iterator
from typing import ClassVar

import pytest

from payonce.channels.contract import ChannelContract
from tests.channels.wechat_pay.simulator import MODES, WeChatSimulator


class TestWeChatPayKeepsTheContract(ChannelContract):
    headers_optional: ClassVar[frozenset[str]] = frozenset({"wechatpay-signature-type"})

    @pytest.fixture(params=MODES)
    def simulator(self, request: pytest.FixtureRequest, world: dict[str, WeChatSimulator]) -> Iterator[WeChatSimulator]:
        yield world[request.param]
        world[request.param].control.clear_faults()
