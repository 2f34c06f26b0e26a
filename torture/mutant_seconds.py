"""A pytest plugin (`-p torture.mutant_seconds`) that writes down how long each test took, its fixtures included, and which failed."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

_seconds: Counter[str] = Counter()
_failed: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up the phases of a test."""
    _seconds[report.nodeid] += report.duration  # type: ignore[assignment]
    if report.failed:
        _failed.add(report.nodeid)


def pytest_sessionfinish() -> None:
    """Write the sums of what passed, and the names of what failed, as JSON."""
    path = Path(os.environ["PAYONCE_MUTANTS_SECONDS"])
    path.write_text(json.dumps({name: value for name, value in _seconds.items() if name not in _failed}))
    path.with_suffix(".failed").write_text(json.dumps(sorted(_failed)))
