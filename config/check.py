"""`make check`: everything that is checked without running the product. One line per check, details on failure."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from config.environment import CHECKOUT
from config.services import PYTHON, manage

SCHEMA = CHECKOUT / "docs" / "openapi.yaml"


def run(*command: str) -> str | None:
    """Run a command; return None when it succeeded, else what it printed."""
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return None if done.returncode == 0 else f"{done.stdout}{done.stderr}"


def tool(name: str, *arguments: str) -> Callable[[], str | None]:
    """Return a check that runs a development tool of this environment."""
    return lambda: run(PYTHON, "-m", name, *arguments)


def lint_imports() -> str | None:
    """Check the layers."""
    return run(str(Path(PYTHON).with_name("lint-imports")), "--no-cache")


def compare_schema() -> str | None:
    """Check that the committed API description is what the code says."""
    if not SCHEMA.exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "openapi.yaml"
        failed = run(*manage("spectacular", "--file", str(made), "--validate", "--fail-on-warn"))
        if failed:
            return failed
        if made.read_text() != SCHEMA.read_text():
            return f"{SCHEMA.relative_to(CHECKOUT)} is not what the code says; run `make schema`."
    return None


CHECKS: dict[str, Callable[[], str | None]] = {
    "ruff": tool("ruff", "check", "."),
    "format": tool("ruff", "format", "--check", "."),
    "types": tool("mypy"),
    "layers": lint_imports,
    "migrations": lambda: run(*manage("makemigrations", "--check", "--dry-run")),
    "system checks": lambda: run(*manage("check", "--fail-level", "WARNING")),
    "API description": compare_schema,
}


def main() -> int:
    """Run all checks (or those named) and return 1 when any failed."""
    chosen = sys.argv[1:] or list(CHECKS)
    failures = 0
    for name in chosen:
        began = time.monotonic()
        problem = CHECKS[name]()
        print(f"{'ok  ' if problem is None else 'FAIL'} {name} ({time.monotonic() - began:.1f} s)", flush=True)
        if problem is not None:
            failures += 1
            print(problem, flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
