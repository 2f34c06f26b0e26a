"""The rules, one small function each, under the ids of the invariants.

An order's rule sees one order at a time; a run's rule sees what belongs to no order. ALWAYS holds at any moment of a run, REST
only once faults are healed and nothing is due.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from torture.facts import Facts, OrderFacts, Violation

Found = Iterator[Violation]
OrderRule = Callable[[Facts, OrderFacts], Found]
RunRule = Callable[[Facts], Found]


class Mode(StrEnum):
    """When the checker looks."""

    ALWAYS = "always"
    REST = "rest"


@dataclass(frozen=True)
class Registered:
    """A rule and when it holds."""

    mode: Mode
    name: str


ORDER_RULES: dict[OrderRule, Registered] = {}
RUN_RULES: dict[RunRule, Registered] = {}


def of_order(mode: Mode = Mode.ALWAYS) -> Callable[[OrderRule], OrderRule]:
    """Register a rule about one order."""

    def register(rule: OrderRule) -> OrderRule:
        ORDER_RULES[rule] = Registered(mode, rule.__name__)
        return rule

    return register


def of_run(mode: Mode = Mode.ALWAYS) -> Callable[[RunRule], RunRule]:
    """Register a rule about the run as a whole."""

    def register(rule: RunRule) -> RunRule:
        RUN_RULES[rule] = Registered(mode, rule.__name__)
        return rule

    return register


def judge_orders(facts: Facts, mode: Mode) -> Found:
    """Every violation of the orders in `facts`. A rest check holds the run to the rules for always, too."""
    for rule, registered in ORDER_RULES.items():
        if registered.mode is Mode.ALWAYS or mode is Mode.REST:
            for order in facts.orders:
                yield from rule(facts, order)


def judge_run(facts: Facts, mode: Mode) -> Found:
    """Every violation of the run as a whole."""
    for rule, registered in RUN_RULES.items():
        if registered.mode is Mode.ALWAYS or mode is Mode.REST:
            yield from rule(facts)


from torture.rules import answers, chain, money, refunds, rest, shop, streams  # noqa: E402

__all__ = ["answers", "chain", "judge_orders", "judge_run", "money", "refunds", "rest", "shop", "streams"]
