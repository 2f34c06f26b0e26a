"""One story while it is told: what it did, what was prevented or repaired, and which orders must end right."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from config.demo.screen import Screen
from config.demo.site import Purchase, Site, StoryFailed, until

FINISH_SECONDS = 60.0


@dataclass
class Tale:
    """Handed to a story. Everything that it notes is shown at once and kept for the result.

    `others_done` is set when every other story has ended: the story that kills the worker waits for it.
    """

    letter: str
    title: str
    site: Site
    screen: Screen
    others_done: threading.Event = field(default_factory=threading.Event)
    happened: list[str] = field(default_factory=list)
    purchases: list[Purchase] = field(default_factory=list)

    def place(self, name: str, amount_minor: int, **fields: Any) -> Purchase:
        """The shop places an order of this story."""
        purchase = self.site.place(f"{self.letter}-{name}", amount_minor, **fields)
        self.purchases.append(purchase)
        return purchase

    def did(self, text: str) -> None:
        """Note what somebody did."""
        self.note("", text)

    def prevented(self, text: str) -> None:
        """Note what could not go wrong, and why."""
        self.note("prevented", text)

    def repaired(self, text: str) -> None:
        """Note what went wrong and was put right."""
        self.note("repaired", text)

    def note(self, kind: str, text: str) -> None:
        """Show a line and keep it."""
        self.happened.append(f"{kind}: {text}" if kind else text)
        self.screen.step(self.letter, kind, text)

    def check(self, holds: object, otherwise: str) -> None:
        """Go on only if this holds. Raises StoryFailed."""
        if not holds:
            raise StoryFailed(otherwise)

    def wait_finished(self, purchase: Purchase, seconds: float = FINISH_SECONDS) -> float:
        """Wait until the order is what it must end as and nothing is left to repair; return how long it took."""
        return until(purchase.is_finished, seconds, f"{purchase.reference} ends as {purchase.ends_as}")

    def buyer_pays(self, stream: str) -> None:
        """The buyer pays at the bank; refused money is a failure of the story."""
        acted = self.site.bank.pay(stream)
        self.check(acted.ok, f"the bank refused the buyer's payment of {stream}: {acted.result}")

    def check_one_refund(self, stream: str, amount_minor: int) -> None:
        """The bank's own ledger: this stream's money came once and went back once, all of it."""
        refunds = self.site.bank.ledger(stream)["refunds"]
        sums = self.site.bank.sums(stream)
        self.check(len(refunds) == 1, f"the bank shows {len(refunds)} refunds of {stream} instead of one")
        self.check(
            (sums["captured_minor"], sums["refunded_minor"]) == (amount_minor, amount_minor),
            f"of {stream} the bank took {sums['captured_minor']} and gave back {sums['refunded_minor']}",
        )


@dataclass(frozen=True)
class Story:
    """A story by its letter. `kills` marks the one that kills a process and so goes last."""

    letter: str
    title: str
    tell: Callable[[Tale], None]
    kills: bool = False


@dataclass(frozen=True)
class Told:
    """How a story ended."""

    letter: str
    title: str
    ok: bool
    seconds: float
    happened: list[str]
    purchases: list[Purchase]


def tell(story: Story, tale: Tale) -> Told:
    """Tell one story to its end. Never raises: a story that breaks has failed."""
    began = time.monotonic()
    ok = False
    tale.screen.step(story.letter, "story", story.title)
    try:
        story.tell(tale)
        ok = True
    except StoryFailed as error:
        tale.note("failed", str(error))
    except Exception as error:  # noqa: BLE001 - whatever breaks a story is shown, and fails the demo
        tale.note("failed", f"{type(error).__name__}: {error}")
    return Told(story.letter, story.title, ok, round(time.monotonic() - began, 2), tale.happened, tale.purchases)
