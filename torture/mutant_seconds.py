"""A pytest plugin (`-p torture.mutant_seconds`) that writes down how long each test took, its fixtures included."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

_seconds: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up the phases of a test."""
    _seconds[report.nodeid] += report.duration  # type: ignore[assignment]


def pytest_sessionfinish() -> None:
    """Write the sums as JSON."""
    Path(os.environ["PAYONCE_MUTANTS_SECONDS"]).write_text(json.dumps(_seconds))
