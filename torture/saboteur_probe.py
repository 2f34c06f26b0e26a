"""A pytest plugin for broken builds (`-p torture.saboteur_probe`): who failed, how, and whose code it was that ran.

Only a judgement counts as caught: an assertion of a test, an exception that `pytest.raises` waited for in vain, or a row that a
test itself looked for and did not find exactly once. Anything else that goes wrong (an error while collecting, another
exception, a time-out, an assertion of the product itself) is written down as a crash.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPORT = "PAYONCE_SABOTEUR_REPORT"
PRODUCT = ("orders", "payments", "channels")


class Probe:
    """Notes every failure; the first one that counts ends the run."""

    def __init__(self, top: Path, report: Path) -> None:
        self.top = top.resolve()
        self.report = report
        self.found: dict[str, Any] = {"caught": [], "crashed": [], "passed": 0}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        """Judge each phase of each test."""
        yield
        if call.excinfo is None:
            self.found["passed"] += call.when == "call"
            return
        if isinstance(call.excinfo.value, pytest.skip.Exception):
            return
        text = f"{type(call.excinfo.value).__name__}: {call.excinfo.value}".strip()
        kind = "caught" if self.is_judgement(call.excinfo) else "crashed"
        about = getattr(getattr(item, "function", None), "__doc__", None) or ""
        self.found[kind].append({"test": item.nodeid, "phase": call.when, "what": text[:300], "about": about})
        if kind == "caught":
            item.session.shouldstop = "caught"

    @pytest.hookimpl
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """What cannot even be collected says nothing about money."""
        if report.failed:
            what = str(report.longrepr).strip().splitlines()[-1:] or [""]
            self.found["crashed"].append(
                {"test": report.nodeid, "phase": "collect", "what": what[0][:300], "about": ""}
            )

    @pytest.hookimpl
    def pytest_sessionfinish(self) -> None:
        """Write the report, with every module of payonce that came from elsewhere."""
        loaded = {name: str(getattr(module, "__file__", None) or "") for name, module in sys.modules.items()}
        ours = {
            name: Path(path).resolve() for name, path in loaded.items() if name.partition(".")[0] == "payonce" and path
        }
        self.found["modules"] = len(ours)
        self.found["foreign"] = sorted(str(path) for path in ours.values() if not path.is_relative_to(self.top))
        self.report.write_text(json.dumps(self.found))

    def is_judgement(self, error: pytest.ExceptionInfo[BaseException]) -> bool:
        """Did a test say that something is wrong, rather than break down itself?"""
        if isinstance(error.value, pytest.fail.Exception):
            return "Timeout" not in str(error.value)
        paths = [Path(str(entry.path)) for entry in error.traceback]
        if type(error.value).__name__ in ("DoesNotExist", "MultipleObjectsReturned"):
            ours = [path for path in paths if path.resolve().is_relative_to(self.top)]
            return bool(ours) and not self._is_of_product(ours[-1])
        return isinstance(error.value, AssertionError) and not self._is_of_product(paths[-1])

    def _is_of_product(self, path: Path) -> bool:
        where = path.resolve()
        if not where.is_relative_to(self.top):
            return False
        parts = where.relative_to(self.top).parts
        return parts[0] in PRODUCT and parts[:2] != ("channels", "contract")


def pytest_configure(config: pytest.Config) -> None:
    """Nothing happens without a place for the report."""
    if report := os.environ.get(REPORT):
        config.pluginmanager.register(Probe(config.rootpath, Path(report)), "payonce-saboteur-probe")
