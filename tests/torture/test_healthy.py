"""The checker passes a run in which all is well, and says how hard it was."""

import ast
import json
from pathlib import Path

import pytest

import torture
from torture import check as command
from torture.check import Mode, check

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("mode", list(Mode))
def test_a_run_in_which_all_is_well_has_no_violation(run, mode):
    report = check(run.url, lambda: run.ledger, lambda: run.inbox, run.history, mode=mode)
    assert not report.violations, "\n".join(map(str, report.violations))


def test_hardness_counts_what_happened(run):
    hardness = check(run.url, lambda: run.ledger, lambda: run.inbox, run.history).hardness
    expected = {
        "orders": 8, "paid": 5, "duplicates": 1, "late": 2, "second_captures": 1, "amended": 1, "forged": 1,
        "refunds_operator": 4, "refunds_approved": 1, "captures": 1,
    }  # fmt: skip
    assert {name: hardness[name] for name in expected} == expected
    assert hardness["replayed"] > 0
    assert hardness["shop_failures"] > 0


def imported_by(path: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def test_the_judge_imports_nothing_of_what_it_judges():
    """What the checker reads, directly or by way of its own modules, is neither the app nor the site nor the tests."""
    top = Path(torture.__file__).parent.parent
    seen, waiting = set(), [Path(command.__file__)]
    while waiting:
        path = waiting.pop()
        seen.add(path)
        names = imported_by(path)
        assert not [name for name in names if name.split(".")[0] in ("payonce", "django", "config", "tests")], path
        for name in names:
            base = top.joinpath(*name.split("."))
            files = (base.with_suffix(".py"), base / "__init__.py") if name.startswith("torture") else ()
            waiting += [file for file in files if file.exists() and file not in seen]
    assert {path.stem for path in seen} >= {
        "facts",
        "sources",
        "hardness",
        "liveness",
        "graph",
        "money",
        "streams",
        "shop",
    }


def arguments(run, tmp_path, *more):
    for name, lines in (("inbox", run.inbox), ("history", run.history)):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"cut off')
    ledger = {
        name: getattr(run.ledger, name) for name in ("payments", "captures", "refunds", "journal", "notifications")
    }
    (tmp_path / "ledger.json").write_text(json.dumps(ledger))
    given = ["--database-url", run.url, "--ledger", str(tmp_path / "ledger.json"), "--inbox", str(tmp_path / "inbox")]
    return [*given, "--history", str(tmp_path / "history"), "--mode", "rest", *more]


def test_the_command_says_ok(run, tmp_path, capsys):
    assert command.main(arguments(run, tmp_path)) == 0
    assert "OK: no violation in 8 orders" in capsys.readouterr().out


def test_a_run_that_was_too_gentle_is_invalid(run, tmp_path, capsys):
    assert command.main(arguments(run, tmp_path, "--least", "kills=1", "--least", "orders=8")) == 3
    assert "INVALID: only 0 kills, 1 are needed" in capsys.readouterr().out
    assert command.main(arguments(run, tmp_path, "--least", "torture", "--json")) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "INVALID"
    assert found["too_gentle"]["orders"] == {"was": 8, "least": 20}


def test_a_violation_outweighs_gentleness(run, tmp_path, capsys):
    given = arguments(run, tmp_path, "--least", "kills=1", "--json")
    (tmp_path / "inbox").write_text("")
    assert command.main(given) == 1
    assert {item["id"] for item in json.loads(capsys.readouterr().out)["violations"]} == {"S11"}


@pytest.mark.parametrize("least", ["kills", "kills=many", "nonsense=1"])
def test_a_wrong_threshold_is_wrong_usage(run, tmp_path, least, capsys):
    with pytest.raises(SystemExit) as exited:
        command.main(arguments(run, tmp_path, "--least", least))
    assert exited.value.code == 2


def test_a_missing_source_is_no_verdict(run, tmp_path, capsys):
    assert command.main(["--database-url", run.url, "--ledger", str(tmp_path / "nowhere")]) == 4
    assert command.main(["--database-url", "postgresql://127.0.0.1:1/none"]) == 4
    (tmp_path / "history").write_text('{"broken\n{}\n')
    assert command.main(["--database-url", run.url, "--history", str(tmp_path / "history")]) == 4
