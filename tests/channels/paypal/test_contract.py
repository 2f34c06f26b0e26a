"""PayPal keeps the public contract, over real HTTP against the skin."""

from collections.abc import Iterator

import pytest

from payonce.channels.contract import ChannelContract
from payonce.channels.sandbox.testing import RunningSandbox, serve_in_thread
from tests.channels.inbox import Inbox, inbox
from tests.channels.paypal.simulator import PayPalSimulator


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[RunningSandbox, Inbox]]:
    with inbox() as box, serve_in_thread({"paypal": {"skin": "paypal"}}) as sandbox:
        yield sandbox, box


class TestPayPalKeepsTheContract(ChannelContract):
    has_replay_window = False  # PayPal documents none; ours is four days

    @pytest.fixture
    def simulator(self, world: tuple[RunningSandbox, Inbox]) -> Iterator[PayPalSimulator]:
        sandbox, box = world
        yield PayPalSimulator(sandbox, "paypal", box)
        sandbox.control.clear_faults()
