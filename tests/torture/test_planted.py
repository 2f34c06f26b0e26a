"""The checker finds every planted crime, under its id, and not one line of it that reports is beyond reach."""

import ast
import sys
from pathlib import Path

import pytest

import torture
from tests.torture.plants import PLANTS, Plant
from tests.torture.scene import open_scene
from torture import facts
from torture.rules import Mode

pytestmark = pytest.mark.django_db

CLAIMED = {
    *(f"M{number}" for number in range(1, 10)), *(f"S{number}" for number in range(1, 17)),
    *(f"L{number}" for number in range(1, 6)), "X1", "X2",
}  # fmt: skip
"""What the checker judges. Rows and books cannot show the others: L6 (waits and connections inside a process) is judged by
tests/concurrency; X3 (who may read what), X4 (planted secrets), X5 (addresses) and X6 (sizes, digits, no 5xx) by tests/api and
tests/fuzz; of S6 that no transaction is open during a call, of S8 how fresh a cache is, and of S9 the answers 422 and 409."""


@pytest.mark.parametrize("planted", PLANTS, ids=str)
def test_a_planted_violation_is_reported_under_its_id(scene, planted: Plant):
    planted.commit(scene)
    report = scene.report(planted.mode, planted.liveness_scale)
    mine = [item for item in report.violations if item.rule == planted.rule and planted.says in item.text]
    assert mine, "\n".join(map(str, report.violations)) or "nothing was reported"
    assert report.ids <= {planted.rule} | planted.also, "\n".join(map(str, report.violations))


@pytest.mark.parametrize("planted", [item for item in PLANTS if item.mode is Mode.REST], ids=str)
def test_what_holds_only_at_rest_is_not_asked_for_before(scene, planted: Plant):
    """A Q invariant is not reported mid-run."""
    planted.commit(scene)
    assert planted.rule not in scene.report(Mode.ALWAYS).ids


def test_every_id_that_the_checker_claims_has_a_planted_violation():
    assert {planted.rule for planted in PLANTS} == CLAIMED


def places_that_report() -> set[tuple[str, int]]:
    """Every `Violation(…)` in the checker's own text."""
    found: set[tuple[str, int]] = set()
    folder = Path(torture.__file__).parent
    for path in (folder / "liveness.py", *(folder / "rules").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Violation":
                found.add((path.name, node.lineno))
    return found


def test_every_place_that_reports_was_made_to(run, monkeypatch):
    """A rule that cannot fire would pass every run."""
    fired: set[tuple[str, int]] = set()
    real = facts.Violation.__init__

    def record(self, *args, **kwargs):
        frame = sys._getframe(1)
        fired.add((Path(frame.f_code.co_filename).name, frame.f_lineno))
        real(self, *args, **kwargs)

    monkeypatch.setattr(facts.Violation, "__init__", record)
    for planted in PLANTS:
        with open_scene(run) as scene:
            planted.commit(scene)
            scene.report(planted.mode, planted.liveness_scale)
    assert places_that_report() - fired == set()
