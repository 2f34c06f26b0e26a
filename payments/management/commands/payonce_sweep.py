"""Run the sweeps where there is no Celery: one pass, or over and over with `--loop` until SIGTERM or Ctrl-C."""

import json
import logging
import signal
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError, connections

from payonce.orders.conf import get_settings
from payonce.payments.sweep import SWEEPS

log = logging.getLogger("payonce.sweep")
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 4
RETRY_SECONDS_MAX = 5.0
STOP_SECONDS = 12.0
"""How long a sweep that is asking a channel may take to end; what it leaves comes due again."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of one sweep: how many rows it worked on, or why it could not."""

    sweep: str
    count: int = 0
    seconds: float = 0.0
    error: str = ""
    is_unavailable: bool = False

    def __str__(self) -> str:
        done = f"failed: {self.error}" if self.error else f"{self.count} done"
        return f"{self.sweep:<10} {done} ({self.seconds:.1f} s)"


def run_pass(name: str) -> Pass:
    """Run one sweep once. Never raises: a lost database is an answer too."""
    began = time.monotonic()
    connection = connections[get_settings().DATABASE]
    try:
        connection.close_if_unusable_or_obsolete()
        count = SWEEPS[name][0]()
    except (DatabaseError, InterfaceError) as error:
        connection.close()
        return Pass(name, 0, _since(began), _short(error), is_unavailable=not _answers(connection))
    except Exception as error:
        log.exception("the sweep %s failed", name)
        return Pass(name, 0, _since(began), _short(error))
    finally:
        connection.close()
    return Pass(name, count, _since(began))


class Loop:
    """Every sweep on a thread of its own, at its own interval, until `stop`: a slow channel holds up nobody else."""

    def __init__(self, names: Sequence[str], tell: Callable[[Pass], None]) -> None:
        self._names = names
        self._tell = tell
        self._ending = threading.Event()

    def stop(self, *_: object) -> None:
        """End after the passes that are running now. Fits as a signal handler."""
        self._ending.set()

    def run(self) -> bool:
        """Run until `stop`; False when a sweep was still at work after STOP_SECONDS."""
        threads = [threading.Thread(target=self._run, args=[name], name=name, daemon=True) for name in self._names]
        for thread in threads:
            thread.start()
        while not self._ending.wait(1.0):  # in slices, so that a signal is handled at once everywhere
            pass
        deadline = time.monotonic() + STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _run(self, name: str) -> None:
        interval = SWEEPS[name][1]
        was_failing = False
        while not self._ending.is_set():
            done = run_pass(name)
            if done.count or bool(done.error) != was_failing:
                self._tell(done)
            was_failing = bool(done.error)
            pause = min(interval, RETRY_SECONDS_MAX) if was_failing else interval
            self._ending.wait(max(0.05, pause - done.seconds))


class Command(BaseCommand):
    """A thin shell around `payments.sweep`. Any number of these, beside any number of workers, do no harm."""

    help = "Run the sweeps once, or over and over with --loop: what Celery's worker and beat do, without a broker."
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Say how often and which."""
        parser.add_argument("--loop", action="store_true", help="repeat each sweep at its interval until SIGTERM")
        parser.add_argument("--only", default="", metavar="NAMES", help=f"some of {','.join(SWEEPS)}")
        parser.add_argument("--json", action="store_true", help="print JSON: one object, or with --loop one per line")

    def handle(self, *args: Any, **options: Any) -> None:
        """Exit status 0 when done, 1 when a sweep failed, 2 for wrong usage, 4 when the database is away."""
        names = _chosen(options["only"])
        if options["loop"]:
            self._loop(names, as_json=options["json"])
        else:
            self._once(names, as_json=options["json"])

    def _once(self, names: Sequence[str], *, as_json: bool) -> None:
        passes = []
        for name in names:
            passes.append(run_pass(name))
            if not as_json:
                self._say(str(passes[-1]))
        failed = [done for done in passes if done.error]
        if as_json:
            self._say(json.dumps({"ok": not failed, "passes": [asdict(done) for done in passes]}))
        if any(done.is_unavailable for done in failed):
            raise CommandError("the database does not answer", returncode=EXIT_UNAVAILABLE)
        if failed:
            raise CommandError(f"failed: {', '.join(done.sweep for done in failed)}", returncode=EXIT_FAILED)

    def _loop(self, names: Sequence[str], *, as_json: bool) -> None:
        writing = threading.Lock()

        def tell(done: Pass) -> None:
            with writing:
                self._say(json.dumps(asdict(done)) if as_json else f"{time.strftime('%H:%M:%S')} {done}")

        loop = Loop(names, tell)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, loop.stop)
        if not as_json:
            self._say(f"sweeping {', '.join(names)}; Ctrl-C ends it")
        if not loop.run():
            log.warning("a sweep was still asking a channel at the end; what it held comes due again")

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def _chosen(only: str) -> list[str]:
    """The sweeps that were named, or all. Raises CommandError for one that does not exist."""
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if name not in SWEEPS:
            close = get_close_matches(name, SWEEPS, n=1)
            hint = f' Did you mean "{close[0]}"?' if close else ""
            raise CommandError(
                f'There is no sweep "{name}"; there are: {", ".join(SWEEPS)}.{hint}', returncode=EXIT_USAGE
            )
    return names or list(SWEEPS)


def _answers(connection: Any) -> bool:
    try:
        connection.ensure_connection()
    except (DatabaseError, InterfaceError):
        return False
    return True


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
