"""`make model BUDGET=minutes`: play stories until the time is over, and say how hard they were.

    python -m tests.model [--minutes 10] [--seed N] [--batch 25] [--steps 40]

Each batch has a seed of its own, printed before it begins; `--seed N --minutes 0` plays the batch of that seed again. Exit
status: 0 every invariant held, 1 one did not, 3 the run was too gentle to prove anything, 4 no servers.
"""

import argparse
import contextlib
import logging
import os
import random
import sys
import time
from collections.abc import Iterator

from tests.model.database import own_database

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"


def main(argv: list[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to begin new batches (0: one batch)")
    parser.add_argument("--seed", type=int, default=None, help="of the first batch; the next ones count on from it")
    parser.add_argument("--batch", type=int, default=25, help="stories per batch")
    parser.add_argument("--steps", type=int, default=40, help="steps per story")
    options = parser.parse_args(argv)
    import django

    django.setup()
    logging.disable(logging.CRITICAL)
    from config import embedded
    from config.processes import ProcessError

    try:
        with embedded.servers("test"), own_database():
            return _play(options)
    except ProcessError as error:
        print(f"make model: {error}", file=sys.stderr)
        return 4


def _play(options: argparse.Namespace) -> int:
    from tests.model.play import play, too_gentle

    first = options.seed if options.seed is not None else random.SystemRandom().randrange(1, 10**9)
    until = time.monotonic() + options.minutes * 60
    went = None
    number = first
    while went is None or time.monotonic() < until:
        print(f"seed {number} (again: python -m tests.model --minutes 0 --seed {number} --batch {options.batch}"
              f" --steps {options.steps})", flush=True)  # fmt: skip
        with _story() as story:
            if went is not None:
                story.hardness, story.faults, story.tally = went.hardness, went.faults, went.tally
            try:
                play(story, examples=options.batch, steps=options.steps, seed_of_run=number)
            except Exception as error:
                print(f"VIOLATED in the batch of seed {number}:", *getattr(error, "__notes__", ()), error, sep="\n")
                return 1
            went = story
        print("  so far:", ", ".join(f"{count} {name}" for name, count in went.tally.items()), flush=True)
        number += 1
    print("how hard:", ", ".join(f"{name} {count}" for name, count in sorted(went.hardness.items()) if count))
    print("faults:", ", ".join(f"{name} {count}" for name, count in sorted(went.faults.items())))
    print(f"{went.tally['orders']} orders in {went.tally['stories']} stories of {went.tally['steps']} steps; "
          f"{went.tally['faulted_orders']} of them beside {went.tally['faults']} faults")  # fmt: skip
    missing = too_gentle(went)
    if missing and options.minutes:
        print("INVALID: the run never met", ", ".join(missing))
        return 3
    print("OK: every invariant held")
    return 0


@contextlib.contextmanager
def _story() -> Iterator[type]:
    """A machine with a bank of its own: a batch's ledger stays short."""
    from tests.clock import standing_clock
    from tests.model.bank import bank_here
    from tests.model.play import new_story
    from tests.model.world import ACCOUNTS, NOON

    with bank_here(ACCOUNTS) as bank, standing_clock(NOON) as clock:
        yield new_story(bank, clock)


if __name__ == "__main__":
    sys.exit(main())
