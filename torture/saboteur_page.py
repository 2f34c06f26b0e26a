"""Writes who caught which broken build into a page: `docs/saboteurs.md`.

    python -m torture.saboteurs --narrow --json > found.json
    python -m torture.saboteur_page docs/saboteurs.md found.json

Rows of builds that the results do not name stay as they are; those of builds that are gone, go. Each row carries the digest of
its build, so that a test can tell when a build was changed after it was last seen caught.

Of several results the later one counts. Exit status: 0 written, 1 a build that they name was not caught at last (nothing is
written), 2 wrong usage.
"""

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

from torture.broken import ALL
from torture.sabotage import Saboteur

HEAD = """# Broken builds, and who catches them

Each line is a build that is broken on purpose (`torture/broken`) and the first test, or torture run, that failed on it by its
assertion and passes on the unbroken tree. `python -m torture.saboteur_page` writes this page from a run's JSON; the digest is that
of the build's changes, and a test fails where a build has no line or was changed since.

## Runs

"""
TABLE = """
## Builds

| build | what is broken | breaks | caught by | seconds | run | digest |
|---|---|---|---|---|---|---|
"""
RUN = re.compile(r"(\d+)\. (.+)")
CELLS = 7


@dataclass(frozen=True)
class Line:
    """One row of the table, as it is written. `run` is the number of the run in the page's list."""

    build: str
    text: str
    breaks: str
    by: str
    seconds: str
    run: str
    digest: str


def digest_of(saboteur: Saboteur) -> str:
    """What the build changes, in eight hexadecimal digits."""
    changes = json.dumps([astuple(change) for change in saboteur.changes])
    return hashlib.sha256(changes.encode()).hexdigest()[:8]


def read_page(text: str) -> tuple[dict[str, str], dict[str, Line]]:
    """The runs by their number and the rows by their build."""
    runs = {match[1]: match[2] for line in text.splitlines() if (match := RUN.fullmatch(line))}
    lines: dict[str, Line] = {}
    for line in text.splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split(" | ")]
        if line.startswith("| `") and len(cells) == CELLS:
            lines[cells[0]] = Line(*cells)
    return runs, lines


def write_page(runs: Mapping[str, str], lines: Iterable[Line]) -> str:
    """The page. Runs that no row names are left out, and the rest are numbered anew."""
    kept = list(lines)
    used = [number for number in runs if any(line.run == number for line in kept)]
    number_of = {number: str(place) for place, number in enumerate(used, 1)}
    listed = "\n".join(f"{number_of[number]}. {runs[number]}" for number in used)
    rows = [replace(line, run=number_of[line.run]) for line in kept]
    table = [
        f"| `{row.build}` | {row.text} | {row.breaks} | `{row.by}` | {row.seconds} | {row.run} | `{row.digest}` |"
        for row in rows
    ]
    return HEAD + listed + "\n" + TABLE + "\n".join(table) + "\n"


def add(page: str, found: Mapping[str, Any], builds: Sequence[Saboteur] = ALL) -> str:
    """The page with one run's results. What it did not catch has no row; neither has a build that is gone."""
    runs, lines = read_page(page)
    by_name = {saboteur.name: saboteur for saboteur in builds}
    number = str(max(map(int, runs), default=0) + 1)
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    runs[number] = (
        f"{found['date']}: `{found['command']}`: {found['caught']} of {found['saboteurs']} caught"
        f" in {found['seconds']:.0f} s; {versions}"
    )
    for result in found["results"]:
        build = by_name.get(result["name"])
        if build is None or not result["is_caught"]:
            lines.pop(result["name"], None)
            continue
        lines[build.name] = Line(
            build.name, build.text, ", ".join(build.breaks), result["by"], f"{result['seconds']:.0f}", number, digest_of(build)
        )  # fmt: skip
    return write_page(runs, [lines[name] for name in by_name if name in lines])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m torture.saboteur_page", description="Write who caught what.")
    parser.add_argument("page", type=Path)
    parser.add_argument("found", type=Path, nargs="+", help="what `python -m torture.saboteurs --json` printed")
    options = parser.parse_args(arguments)
    text = options.page.read_text(encoding="utf-8") if options.page.exists() else ""
    told: set[str] = set()
    for path in options.found:
        found = json.loads(path.read_text(encoding="utf-8"))
        told |= {result["name"] for result in found["results"]}
        text = add(text, found)
    missing = sorted(told - set(read_page(text)[1]))
    if missing:
        print(f"not caught, or not known: {', '.join(missing)}", file=sys.stderr)
        return 1
    options.page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
