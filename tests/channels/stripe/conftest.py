"""One running bank with Stripe accounts for the tests of single corners."""

from collections.abc import Iterator

import pytest

from payonce.channels.sandbox.testing import RunningSandbox, serve_in_thread
from tests.channels.inbox import Inbox, inbox
from tests.channels.stripe.world import Merchant, listen

BOTH = {"methods": ["web", "card"]}


@pytest.fixture(scope="module")
def box() -> Iterator[Inbox]:
    with inbox() as made:
        yield made


@pytest.fixture(scope="module")
def sandbox(box: Inbox) -> Iterator[RunningSandbox]:
    with serve_in_thread({"stripe": {"skin": "stripe", "shop": BOTH}}) as running:
        listen(running.accounts["stripe"], box.url)
        yield running


@pytest.fixture
def merchant(sandbox: RunningSandbox) -> Iterator[Merchant]:
    yield Merchant(sandbox, "stripe")
    sandbox.control.clear_faults()
    sandbox.control.set_clock(0)
