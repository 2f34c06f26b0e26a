"""What a wire format of the bank has to do."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from payonce.channels.sandbox.account import SandboxAccount
from payonce.channels.sandbox.asgi import Request, Response
from payonce.channels.sandbox.bank import Bank
from payonce.channels.sandbox.faults import Disturbance
from payonce.channels.sandbox.outbox import Notification
from payonce.channels.sandbox.sender import Style

Rendered = tuple[dict[str, str], bytes]


class Skin(ABC):
    """One wire format, for all accounts of one bank that have it.

    An account with a skin other than the bank's own has a port of its own, so that paths are those of the real channel.
    """

    # Options of the bank's account that make its rules those of the real channel, such as `close_proof`.
    account_options: ClassVar[Mapping[str, Any]] = {}
    # The gaps between tries of a notification, in seconds.
    retry_seconds: ClassVar[tuple[float, ...]]

    def __init__(self, bank: Bank) -> None:
        self.bank = bank

    @classmethod
    def new_account(cls, name: str, base_url: str, notify_url: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
        """A new account with fresh keys: the bank's half (its `keys` and `merchant`), and the shop's: `PAYONCE["CHANNELS"][name]`.

        `notify_url` is for a channel whose address is registered with the account instead of told with each payment.
        """
        raise TypeError(f"accounts of {cls.__name__} are written by hand")

    @abstractmethod
    async def serve(self, account: SandboxAccount | None, request: Request) -> Response:
        """Verify, do, and answer. `account` is that of the port; None on a port that several accounts share.

        Raises DropError where the connection is to be broken.
        """

    def tells(self, message: Notification) -> bool:
        """Does the real channel notify about this at all?"""
        return True

    @abstractmethod
    def render(self, account: SandboxAccount, message: Notification, at: float, style: Style) -> Rendered:
        """Headers and body of one message, true or forged as the style says; `at` is Unix seconds."""

    @abstractmethod
    def is_acknowledged(self, status: int, body: bytes) -> bool:
        """Does this answer of the shop end the repeats?"""


def disturb(response: Response, faults: Disturbance) -> Response:
    """Play the faults of an answer that no skin has a form of its own for: garbage is the skin's, since it is signed."""
    drip = faults.get("slow_drip")
    return replace(response, truncate="truncate" in faults, drip_seconds=drip.seconds(0.2) if drip else 0.0)
