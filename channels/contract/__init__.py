"""The contract test suite: what every adapter must do, run against a simulator of its channel.

    class TestMyChannel(ChannelContract):
        @pytest.fixture
        def simulator(self) -> Iterator[Simulator]:
            with my_simulator() as simulator:
                yield simulator

It needs pytest and hypothesis. What a channel's capabilities exclude is skipped.
"""

import pytest

for _name in ("payments", "refunds", "notifications", "garbage"):
    pytest.register_assert_rewrite(f"{__name__}.{_name}")

from payonce.channels.contract.garbage import GarbageContract  # noqa: E402 - after the rewriting is asked for
from payonce.channels.contract.notifications import NotificationContract  # noqa: E402
from payonce.channels.contract.payments import PaymentContract  # noqa: E402
from payonce.channels.contract.refunds import RefundContract  # noqa: E402
from payonce.channels.contract.simulator import BREAKAGES, Moved, Simulator  # noqa: E402


class ChannelContract(PaymentContract, RefundContract, NotificationContract, GarbageContract):
    """All parts of the contract. Give it a `simulator` fixture."""


__all__ = ["BREAKAGES", "ChannelContract", "Moved", "Simulator"]
