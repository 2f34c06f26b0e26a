"""Child processes of the reference project: start, recognise, wait for and end them, each by its own id."""

import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.02
CANNOT_EXECUTE = 126  # as a shell says it


class ProcessError(RuntimeError):
    """A server or child process did not do what was asked; the message says which, and shows the end of its log."""


@dataclass(frozen=True)
class Account:
    """The operating-system user that a server runs as."""

    name: str
    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """Return the user for servers that refuse to run as root, or None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise ProcessError("PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`.")


def run_as(
    account: Account | None,
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    timeout_seconds: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, as `account` when given, and return its exit status and output.

    The environment is minimal, so that no PGDATA or PGHOST of the caller reaches a server. The output goes through a
    file, not a pipe: a daemon that the command leaves behind would hold a pipe open for ever.
    """
    log = os.memfd_create("output") if hasattr(os, "memfd_create") else _unnamed_file()
    with os.fdopen(log, "w+", encoding="utf-8", errors="replace") as output:
        try:
            status = subprocess.run(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd or "/",
                env=clean_environment(),
                timeout=timeout_seconds,
                check=False,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            ).returncode
        except PermissionError as error:  # the account may not reach the program
            return subprocess.CompletedProcess(command, CANNOT_EXECUTE, stdout=str(error))
        output.seek(0)
        return subprocess.CompletedProcess(command, status, stdout=output.read())


def _unnamed_file() -> int:
    import tempfile

    descriptor, name = tempfile.mkstemp()
    Path(name).unlink()
    return descriptor


def clean_environment() -> dict[str, str]:
    """Return the few variables that a server needs."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def command_line(pid: int) -> str:
    """Return the command line of a living process, or an empty string when it is gone or only waits to be reaped."""
    try:
        if _is_zombie(pid):
            return ""
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        return raw.replace(b"\0", b" ").decode(errors="replace").strip()
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return ""
    except ProcessLookupError:
        return ""
    listing = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listing.stdout.strip()


def _is_zombie(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return bool(state) and state[0] in "ZX"


def is_ours(pid: int, mark: str | Path) -> bool:
    """Return whether the process lives and its command line names `mark`, so that a reused id is never taken for it."""
    return pid > 1 and str(mark) in command_line(pid)


def processes_working_in(folder: Path) -> list[int]:
    """Return the processes whose working folder is `folder`; empty where the system does not tell."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if entry.readlink() == folder:
                found.append(int(entry.parent.name))
        except OSError:  # gone meanwhile, or not ours to look at
            continue
    return found


def wait_until(condition: Callable[[], bool], timeout_seconds: float) -> bool:
    """Return True as soon as the condition holds, and False when it does not within the time."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def end_process(pid: int, mark: str | Path, signals: Sequence[signal.Signals], each_seconds: float) -> bool:
    """Send one signal after the other to a process that is verified to be ours; return whether it is gone."""
    for number in signals:
        if not is_ours(pid, mark):
            return True
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return True
        if wait_until(lambda: not is_ours(pid, mark), each_seconds):
            return True
    return not is_ours(pid, mark)


def log_tail(path: Path, lines: int = 15) -> str:
    """Return the last lines of a log for an error message."""
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        return f"({path.name} cannot be read: {error})"
    return "\n".join(text.splitlines()[-lines:])


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return our own environment with some variables changed, for children that run the project's code."""
    return {**os.environ, **changes}
