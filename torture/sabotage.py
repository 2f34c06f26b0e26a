"""What a saboteur is: a broken build as data, made by exact replacements in a copy of the tree, and who should catch it."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
LEFT_OUT = (".git", ".venv*", ".payonce", ".hypothesis", ".mypy_cache", ".ruff_cache", ".pytest_cache", "dist", "build")
WRONG_NAMES = "E9,F821,F822,F823"
"""Ruff's rules for what cannot run: syntax errors and names that nobody defines."""
ID = re.compile(r"\b([MSLX]\d{1,2})\b")


class SabotageError(Exception):
    """A saboteur cannot be built as it is written: the tree changed, or the replacement itself cannot run."""


@dataclass(frozen=True)
class Change:
    """One replacement. `old` must be in the file exactly once, so that a saboteur cannot silently stop being one."""

    path: str
    old: str
    new: str


@dataclass(frozen=True)
class Saboteur:
    """One broken build.

    `breaks` are ids of the invariants that it breaks. `caught_by` says who should catch it, in the order of trying: a pytest node
    id, or a torture command such as `torture.interleave --pair pay-pay`.
    """

    name: str
    text: str
    breaks: tuple[str, ...]
    caught_by: tuple[str, ...]
    changes: tuple[Change, ...]


def broken_files(saboteur: Saboteur, folder: Path) -> dict[str, str]:
    """The files that the saboteur changes, as they will be. Raises SabotageError unless every replacement fits exactly once."""
    files: dict[str, str] = {}
    for change in saboteur.changes:
        path = folder / change.path
        text = files.get(change.path) or (path.read_text(encoding="utf-8") if path.is_file() else "")
        found = text.count(change.old)
        if found != 1:
            raise SabotageError(f"{saboteur.name}: {change.path} has the text to replace {found} times: {change.old!r}")
        files[change.path] = text.replace(change.old, change.new)
    return files


def apply(saboteur: Saboteur, folder: Path) -> None:
    """Break the tree in `folder`. Raises SabotageError unless every replacement fits exactly once and the result can run."""
    files = broken_files(saboteur, folder)
    for name, text in files.items():
        (folder / name).unlink()  # it may be a hard link to the file that everybody else uses
        (folder / name).write_text(text, encoding="utf-8")
    refuse_wrong_names(saboteur.name, folder, sorted(files))


def refuse_wrong_names(name: str, folder: Path, paths: Sequence[str]) -> None:
    """A build that ends in a SyntaxError or a NameError is caught by nobody's care. Raises SabotageError."""
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--no-cache",
        "--quiet",
        "--select",
        WRONG_NAMES,
        *paths,
    ]
    checked = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if checked.returncode:
        raise SabotageError(f"{name}: the broken build cannot run:\n{checked.stdout}{checked.stderr}")


@contextmanager
def copy_of_tree(top: Path = CHECKOUT) -> Iterator[Path]:
    """A copy of the tree in a folder of its own, removed at the end. Files are hard links where that can be: `apply` replaces them."""
    folder = Path(tempfile.mkdtemp(prefix="payonce-saboteur-")).resolve()
    try:
        tree = folder / "tree"
        shutil.copytree(top, tree, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT), copy_function=_link)
        yield tree
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
    return target


def ids_in(text: str) -> tuple[str, ...]:
    """The invariants that a text names, in its order and once each."""
    return tuple(dict.fromkeys(ID.findall(text)))
