"""How long to fuzz: a sample that is the same everywhere, or `make fuzz BUDGET=minutes` with a new, printed seed for each round."""

import os
import random
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

MINUTES = float(os.environ.get("PAYONCE_FUZZ_MINUTES", "0"))
SEED = os.environ.get("PAYONCE_FUZZ_SEED", "")
PARTS = 10
"""Into so many equal parts the budget is divided: one for each call of `fuzz`."""


def fuzz(name: str, test: Callable[..., None], examples: int, **drawn: SearchStrategy[Any]) -> int:
    """Run `test` on drawn arguments: `examples` of them, or rounds of so many until this part of the budget is over.

    Returns how many examples ran. A failure names the smallest arguments and, in a long run, the seed of its round.
    """
    ran = 0

    def count(**arguments: Any) -> None:
        nonlocal ran
        ran += 1
        test(**arguments)

    count.__name__ = count.__qualname__ = name
    profile = settings(
        max_examples=examples, deadline=None, database=None, print_blob=True, derandomize=not MINUTES,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink], report_multiple_bugs=False,
    )  # fmt: skip
    until = time.monotonic() + MINUTES * 60 / PARTS
    number = int(SEED) if SEED else random.SystemRandom().randrange(10**9)
    while True:
        property_ = given(**drawn)(count)
        if MINUTES:
            print(f"{name}: PAYONCE_FUZZ_SEED={number}", flush=True)
            property_ = seed(number)(property_)
        profile(property_)()
        number += 1
        if time.monotonic() >= until:
            break
    print(f"{name}: {ran} examples", flush=True)
    return ran
