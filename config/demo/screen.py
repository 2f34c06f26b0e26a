"""What the audience sees: one line for each thing that happens, with rich on a terminal, plain elsewhere."""

import sys
import threading
import time
from collections.abc import Sequence
from typing import Protocol

STYLES = {
    "story": "bold",
    "prevented": "bold cyan",
    "repaired": "bold magenta",
    "failed": "bold red",
    "paid once": "bold green",
}


class Screen(Protocol):
    """Where lines go. Safe to share between threads."""

    def say(self, text: str) -> None:
        """Tell something about the whole."""

    def step(self, letter: str, kind: str, text: str) -> None:
        """Tell what happened in one story; `kind` is empty, story, prevented, repaired or failed."""

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show a table."""


class PlainScreen:
    """Lines without any colour, for logs and pipes."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._writing = threading.Lock()

    def say(self, text: str) -> None:
        """Print a line with the time since the start."""
        self._print(f"{self._clock()}  {text}")

    def step(self, letter: str, kind: str, text: str) -> None:
        """Print a line of a story."""
        self._print(f"{self._clock()}  ({letter}) {kind:<9}  {text}")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print the columns below each other."""
        widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (columns, *rows)
        ]
        self._print("\n".join(["", title, *(line.rstrip() for line in lines), ""]))

    def _clock(self) -> str:
        return f"{time.monotonic() - self._began:6.1f} s"

    def _print(self, text: str) -> None:
        with self._writing:
            print(text, flush=True)


class RichScreen(PlainScreen):
    """The same lines with colour."""

    def __init__(self) -> None:
        from rich.console import Console

        super().__init__()
        self._console = Console(highlight=False)

    def step(self, letter: str, kind: str, text: str) -> None:
        """Print a line of a story, its kind in the kind's colour."""
        from rich.markup import escape

        mark = f"[{STYLES[kind]}]{kind:<9}[/]" if kind in STYLES else " " * 9
        line = f"[dim]{self._clock()}[/]  [bold]({letter})[/] {mark}  {escape(text)}"
        with self._writing:
            self._console.print(line, soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show a real table."""
        from rich.table import Table
        from rich.text import Text

        shown = Table(title=title, title_justify="left", title_style="bold")
        for column in columns:
            shown.add_column(column, overflow="fold")
        for row in rows:
            shown.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
        with self._writing:
            self._console.print()
            self._console.print(shown)


def open_screen() -> Screen:
    """A coloured screen on a terminal where rich is installed, else a plain one."""
    if not sys.stdout.isatty():
        return PlainScreen()
    try:
        return RichScreen()
    except ImportError:
        return PlainScreen()
