"""`make demo` and `make smoke`: start the site, play the stories, let the ledger judge, and serve or exit."""

import argparse
import json
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import embedded
from config.demo import serve
from config.demo.audit import Verdict, audit
from config.demo.play import play
from config.demo.screen import Screen, open_screen
from config.demo.site import Caller, Site
from config.demo.stories import CHANNEL_STORIES, STORIES
from config.demo.tale import Story, Told
from config.processes import ProcessError
from config.shop_inbox import INBOX_VARIABLE
from config.supervisor import Supervisor, stop_on_signals
from payonce.channels.sandbox.control import SandboxControl

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Result:
    """What the run came to. `others` is what the ledger shows beside the orders of the stories."""

    verdicts: Sequence[Verdict] = ()
    told: Sequence[Told] = ()
    others: Sequence[str] = ("nothing was played",)

    @property
    def ok(self) -> bool:
        """Did every story end well, and was every order paid once?"""
        stories = bool(self.told) and all(story.ok for story in self.told)
        return stories and all(verdict.paid_once for verdict in self.verdicts) and not self.others

    def as_json(self) -> dict[str, Any]:
        """The result file."""
        stories = {
            told.letter: {"ok": told.ok, "seconds": told.seconds, "title": told.title, "happened": told.happened}
            for told in self.told
        }
        return {"ok": self.ok, "orders": [verdict.as_json() for verdict in self.verdicts], "stories": stories}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0 when every order was paid once, else 1, 2 for wrong usage, 4 without a server."""
    options = read_options(arguments)
    stop_on_signals()
    screen = open_screen()
    result = Result()
    try:
        result = run(options, screen)
    except KeyboardInterrupt:
        screen.say("interrupted")
        return EXIT_INTERRUPTED
    except ProcessError as error:
        print(error, file=sys.stderr)
        return embedded.EXIT_UNAVAILABLE
    finally:
        write_result(options.json, result)
    return 0 if result.ok else EXIT_FAILED


def run(options: argparse.Namespace, screen: Screen) -> Result:
    """Start the site and play; without --smoke, serve until Ctrl-C, with the result of the stories as the answer."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="payonce-demo-") as folder:
        inbox = Path(folder) / "shop.jsonl"
        screen.say("starting PostgreSQL, Redis, the bank, web, worker and beat")
        with Supervisor(
            fresh=options.fresh or options.smoke,
            environment={INBOX_VARIABLE: str(inbox)},
            real_channels=options.channels,
            say=screen.say,
        ) as supervisor:
            site = open_site(supervisor)
            screen.say(f"ready: {', '.join(supervisor.names)}")
            stories = (*options.only, *(CHANNEL_STORIES if options.channels else ()))
            result = judge(play(stories, site, screen), site, inbox, screen)
            write_result(options.json, result)
            show(result, screen)
            screen.say(f"everything took {time.monotonic() - began:.1f} s")
            if not options.smoke:
                serve_until_interrupted(site, screen)
    return result


def judge(told: Sequence[Told], site: Site, inbox: Path, screen: Screen) -> Result:
    """Let the bank's ledger, our rows and the shop's notes be compared for every order of the stories."""
    screen.say("comparing the bank's ledger, the database and what the shop was told")
    purchases = [purchase for story in told for purchase in story.purchases]
    verdicts, others = audit(site, purchases, inbox)
    return Result(verdicts, told, others)


def open_site(supervisor: Supervisor) -> Site:
    """The running site with a shop's access to its API."""
    run_name = f"demo-{secrets.token_hex(4)}"
    made = json.loads(supervisor.manage("payonce_client", "create", run_name, "--source", "demo", "--json"))
    bank = SandboxControl.from_folder(supervisor.urls["sandbox"], supervisor.state / "sandbox")
    earlier = frozenset((account, number) for account, sums in bank.ledger()["sums"].items() for number in sums)
    return Site(supervisor, bank, Caller(supervisor.urls["web"], made["token"]), run_name, earlier)


def serve_until_interrupted(site: Site, screen: Screen) -> None:
    """Print where to look, and stay. Ctrl-C and SIGTERM end it well."""
    for line in serve.ready_lines(site):
        print(line, flush=True)
    screen.say("serving until Ctrl-C")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        screen.say("stopping every process")


def show(result: Result, screen: Screen) -> None:
    """The stories, the orders, and everything that is wrong."""
    stories = [
        (told.letter, told.title, "ok" if told.ok else "failed", f"{told.seconds:.1f} s") for told in result.told
    ]
    screen.table("Stories", ("", "story", "", "took"), stories)
    orders = [
        (verdict.reference, verdict.state, *(f"{sum_minor / 100:.2f}" for sum_minor in _sums(verdict)),
         "paid once" if verdict.paid_once and verdict.state == "PAID" else "nothing kept" if verdict.paid_once else "failed")
        for verdict in result.verdicts
    ]  # fmt: skip
    screen.table("The bank's ledger", ("order", "state", "captured", "refunded", "kept", ""), orders)
    for verdict in result.verdicts:
        for problem in verdict.problems:
            screen.say(f"WRONG {verdict.reference}: {problem}")
    for problem in result.others:
        screen.say(f"WRONG {problem}")
    screen.say("every order was paid once" if result.ok else "NOT every order was paid once")


def _sums(verdict: Verdict) -> tuple[int, int, int]:
    return verdict.captured_minor, verdict.refunded_minor, verdict.captured_minor - verdict.refunded_minor


def write_result(path: Path | None, result: Result) -> None:
    """Write the result file, complete or not at all."""
    if path is None:
        return
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(json.dumps(result.as_json(), indent=2, ensure_ascii=False) + "\n")
    draft.replace(path)


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; wrong usage exits with 2."""
    parser = argparse.ArgumentParser(prog="python -m config.demo", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="play on an empty database and exit")
    parser.add_argument("--fresh", action="store_true", help="serve an empty database that goes at the end, too")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the result here")
    parser.add_argument("--only", type=_stories, default=STORIES, metavar="LETTERS", help="some stories, such as a,g")
    parser.add_argument("--channels", action="store_true", help="also play every real channel in its own wire format")
    options = parser.parse_args(arguments)
    if options.json is not None and not options.json.parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    return options


def _stories(letters: str) -> tuple[Story, ...]:
    wanted = {letter.strip() for letter in letters.split(",")}
    unknown = wanted - {story.letter for story in STORIES}
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no story {', '.join(sorted(unknown))}")
    return tuple(story for story in STORIES if story.letter in wanted)


if __name__ == "__main__":
    raise SystemExit(main())
