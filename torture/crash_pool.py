"""Worker processes that answer one request at a time over a pipe."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

from config.processes import ProcessError
from torture.crash_site import Site

READY_SECONDS = 300
END_SECONDS = 20


class Pool:
    """One process for each site, running `serve(site, pipe)`. They end with the block, each by its own process id."""

    def __init__(self, serve: Callable[[Site, Connection], None], places: Sequence[Site]) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._serve = serve
        self._places = places
        self._workers: list[tuple[Any, Connection]] = []

    def __enter__(self) -> Self:
        for site in self._places:
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=self._serve, args=(site, theirs))
            process.start()
            theirs.close()
            self._workers.append((process, ours))
        for _process, pipe in self._workers:
            if not pipe.poll(READY_SECONDS):
                raise ProcessError("a worker does not start")
            try:
                pipe.recv()
            except EOFError as error:
                raise ProcessError("a worker died while it started; its message is above") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _process, pipe in self._workers:
            pipe.close()
        for process, _pipe in self._workers:
            process.join(END_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()

    def map(self, requests: Iterable[Any], until: float | None = None) -> Iterator[tuple[Any, Any]]:
        """Each request with its answer, as they come. After the time `until` (monotonic) nothing new is begun."""
        left = iter(requests)
        busy: dict[Connection, Any] = {}
        idle = [pipe for _process, pipe in self._workers]
        while True:
            while idle and (until is None or time.monotonic() < until):
                request = next(left, None)
                if request is None:
                    break
                pipe = idle.pop()
                pipe.send(request)
                busy[pipe] = request
            if not busy:
                return
            for pipe in [pipe for pipe in wait(list(busy)) if isinstance(pipe, Connection)]:
                request = busy.pop(pipe)
                try:
                    answer = pipe.recv()
                except EOFError as error:
                    raise ProcessError(f"a worker died at {request}; its message is above") from error
                idle.append(pipe)
                yield request, answer


def end_on_signals() -> None:
    """Let a run that is told to stop end its workers and servers, also where a shell started it with SIGINT ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
