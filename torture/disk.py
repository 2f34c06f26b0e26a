"""A small disk of its own for the run's tables, so that it can be full: a tmpfs, which only root may mount.

The write-ahead log stays on the machine's disk with fsync on; what runs out of room is the tablespace.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg

from config.processes import unprivileged_account

SIZE_MB = 8_192
TABLESPACE = "torture_small"
_SOURCE = "payonce-torture-"


class Disk:
    """A mounted folder whose size can be changed while it is used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """From now on there is no room: the size is what is used."""
        found = os.statvfs(self.folder)
        used_kb = (found.f_blocks - found.f_bfree) * found.f_frsize // 1024
        self._resize(f"{max(used_kb, 64)}k")

    def free(self) -> None:
        """There is room again."""
        self._resize(f"{SIZE_MB}m")

    def _resize(self, size: str) -> None:
        _run("mount", "-o", f"remount,size={size}", str(self.folder))


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Disk | None]:
    """Mount one, or give None where that is not allowed. What a killed run left mounted is taken away first."""
    _sweep()
    account = unprivileged_account() if os.geteuid() == 0 else None
    folder.mkdir(mode=0o700)
    owner = f",uid={account.uid},gid={account.gid}" if account else ""
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m,mode=700{owner}", f"{_SOURCE}{os.getpid()}", str(folder)]
    if account is None or not _run(*command):
        yield None
        return
    try:
        yield Disk(folder)
    finally:
        _run("umount", "-l", str(folder))


def move_database(url: str, database: str, folder: Path) -> None:
    """Put a database nobody is connected to on the disk; `url` is of another database of the same server."""
    quoted = str(folder).replace("'", "''")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE {TABLESPACE} LOCATION '{quoted}'".encode())
        connection.execute(f"ALTER DATABASE {database} SET TABLESPACE {TABLESPACE}".encode())


def _sweep() -> None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text().splitlines():
            source, where = line.split()[:2]
            owner = source.removeprefix(_SOURCE)
            if source.startswith(_SOURCE) and owner.isdigit() and not Path("/proc", owner).exists():
                _run("umount", "-l", where)


def _run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
