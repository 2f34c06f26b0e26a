"""Which processes a supervisor started, written down so that the next one can end what a killed one left behind."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from config.processes import command_line


@contextlib.contextmanager
def take(parent: Path) -> Iterator[Path]:
    """Sweep what dead supervisors left, and give a folder that is ours while we live."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in parent.iterdir():
        sweep(left)
    mine = parent / uuid.uuid4().hex[:8]
    mine.mkdir()
    with (mine / "owner.lock").open("a") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        try:
            yield mine
        finally:
            shutil.rmtree(mine, ignore_errors=True)


def record(folder: Path, running: Mapping[str, tuple[int, Sequence[str]]]) -> None:
    """Write down the running processes: name, id and command line."""
    entries = {name: {"pid": pid, "command": " ".join(command)} for name, (pid, command) in running.items()}
    draft = folder / "processes.draft"
    draft.write_text(json.dumps(entries))
    draft.replace(folder / "processes.json")


def sweep(left: Path) -> None:
    """End the processes of a supervisor that was killed; those of a living one, and foreign ones, stay."""
    try:
        owner: IO[str] = (left / "owner.lock").open("a")
    except OSError:
        return
    with owner:
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        entries: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(OSError, ValueError):
            entries = json.loads((left / "processes.json").read_text())
        for entry in entries.values():
            if command_line(entry["pid"]) == entry["command"].strip():
                end_group(entry["pid"])
        shutil.rmtree(left, ignore_errors=True)


def end_group(leader: int) -> None:
    """End what is left of a child's own process group (a killed Celery worker leaves its pool behind)."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
