"""The saboteurs' own tool: a replacement that does not fit is an error, and only a judgement counts as caught."""

import ast
import json
import re
import shutil
from pathlib import Path

import pytest

from torture import saboteurs
from torture.broken import ALL
from torture.sabotage import CHECKOUT, Change, SabotageError, Saboteur, apply, broken_files, copy_of_tree
from torture.saboteur_run import Place, Verdict, require_own_payonce, run_check, violations_in

KNOWN_IDS = {
    f"{letter}{number}" for letter, count in (("M", 9), ("S", 16), ("L", 6), ("X", 6)) for number in range(1, count + 1)
}
EXAMPLE = Saboteur("example", "An example.", ("M1",), ("tests/x.py",), (Change("a.py", "one", "two"),))


def options(*arguments):
    return saboteurs._options(list(arguments))


def names_of(*arguments):
    return [saboteur.name for saboteur in saboteurs.choose(options(*arguments))]


@pytest.mark.parametrize("saboteur", ALL, ids=lambda saboteur: saboteur.name)
def test_every_replacement_fits_the_tree_exactly_once_and_breaks_something(saboteur):
    files = broken_files(saboteur, CHECKOUT)
    assert files
    for name, text in files.items():
        assert text != (CHECKOUT / name).read_text(encoding="utf-8")
        ast.parse(text)


def test_there_are_enough_and_each_is_named_once_and_says_what_it_breaks():
    assert len({saboteur.name for saboteur in ALL}) == len(ALL) >= 36
    for saboteur in ALL:
        assert set(saboteur.breaks) <= KNOWN_IDS, saboteur.name
        assert saboteur.breaks, saboteur.name
        assert re.fullmatch(r"[A-Z].*[^.]\.", saboteur.text), saboteur.name


def test_whoever_should_catch_it_exists():
    for saboteur in ALL:
        for name in saboteur.caught_by:
            if name.startswith("torture."):
                assert (CHECKOUT / f"{name.split()[0].replace('.', '/')}.py").is_file()
                continue
            path, *parts = name.split("::")
            nodes = ast.parse((CHECKOUT / path).read_text(encoding="utf-8")).body
            for part in parts:
                found = [node for node in nodes if getattr(node, "name", None) == part]
                assert len(found) == 1, f"{saboteur.name}: {name}"
                nodes = found[0].body


@pytest.mark.parametrize("text", ["nothing of it", "one and one again"])
def test_a_replacement_that_does_not_fit_exactly_once_is_an_error(tmp_path, text):
    (tmp_path / "a.py").write_text(text)
    with pytest.raises(SabotageError, match="times"):
        apply(EXAMPLE, tmp_path)
    assert (tmp_path / "a.py").read_text() == text


def test_a_file_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(SabotageError, match="0 times"):
        apply(EXAMPLE, tmp_path)


@pytest.mark.parametrize("new", ["x = (", "x = nobody_defines_this"])
def test_a_build_that_cannot_run_is_an_error_and_not_a_catch(tmp_path, new):
    (tmp_path / "a.py").write_text("one\n")
    with pytest.raises(SabotageError, match="cannot run"):
        apply(Saboteur("example", "An example.", ("M1",), (), (Change("a.py", "one", new),)), tmp_path)


def test_breaking_a_copy_leaves_the_tree_as_it_is(tmp_path):
    (tmp_path / "a.py").write_text("one = 1\n")
    with copy_of_tree(tmp_path) as tree:
        apply(Saboteur("example", "An example.", ("M1",), (), (Change("a.py", "= 1", "= 2"),)), tree)
        assert (tree / "a.py").read_text() == "one = 2\n"
    assert (tmp_path / "a.py").read_text() == "one = 1\n"
    assert not tree.exists()


@pytest.fixture
def small_tree(tmp_path):
    """A tree with a package of that name, the probe, and room for tests."""
    for name in ("payonce/payments", "torture", "payments", "tests"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("payonce/__init__.py", "payonce/payments/__init__.py", "torture/__init__.py", "payments/__init__.py"):
        (tmp_path / name).touch()
    (tmp_path / "payments" / "rule.py").write_text("def rule():\n    assert 1 == 2\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    packaging\n    smoke\n    browser\ntimeout = 60\n")
    shutil.copy(CHECKOUT / "torture" / "saboteur_probe.py", tmp_path / "torture")
    return tmp_path


@pytest.fixture
def place(embedded_servers):
    return Place(embedded_servers.database_url, "")


def test_only_a_judgement_of_a_test_is_a_catch(small_tree, place):
    """A SyntaxError, another exception, a time-out and an assertion of the product itself are crashes."""
    (small_tree / "tests" / "test_a.py").write_text(
        "import time, pytest, payments.rule\n"
        "def test_raises(): raise ValueError('no')\n"
        "def test_product(): payments.rule.rule()\n"
        "@pytest.mark.timeout(0.2)\n"
        "def test_hangs(): time.sleep(30)\n"
    )
    (small_tree / "tests" / "test_b.py").write_text("def test_b(: pass\n")
    require_own_payonce(small_tree, place)
    verdict = run_check(["tests/test_a.py"], small_tree, place, 120)
    assert verdict.by == ""
    assert len(verdict.crashed) == 3, verdict.crashed
    verdict = run_check(["tests/test_b.py"], small_tree, place, 120)
    assert verdict.by == ""
    assert "tests/test_b.py" in verdict.crashed[0]


@pytest.mark.parametrize(
    "body",
    ["assert 1 == 2", "import pytest\n    with pytest.raises(ValueError):\n        pass"],
    ids=["assert", "raises"],
)
def test_a_judgement_names_its_invariants(small_tree, place, body):
    text = f"def test_first(): pass\ndef test_second():\n    '''M4, S1: example'''\n    {body}\ndef test_third(): assert 0\n"
    (small_tree / "tests" / "test_a.py").write_text(text)
    verdict = run_check(["tests/test_a.py"], small_tree, place, 120)
    assert (verdict.by, verdict.ids, verdict.crashed) == ("tests/test_a.py::test_second", ("M4", "S1"), [])


def test_a_test_that_is_not_there_is_no_catch(small_tree, place):
    verdict = run_check(["tests/test_none.py"], small_tree, place, 120)
    assert verdict.by == ""
    assert "pytest ended with 4" in verdict.crashed[0]


def test_another_payonce_is_an_error(small_tree, place):
    shutil.rmtree(small_tree / "payonce")
    with pytest.raises(SabotageError, match="payonce is not that of"):
        require_own_payonce(small_tree, place)


def test_what_took_too_long_is_no_catch(small_tree, place):
    (small_tree / "tests" / "test_a.py").write_text("import time\ndef test_hangs(): time.sleep(60)\n")
    verdict = run_check(["tests/test_a.py"], small_tree, place, 2)
    assert (verdict.by, verdict.is_timed_out) == ("", True)


def test_a_sample_is_the_same_for_the_same_seed():
    assert names_of("--sample", "3", "--seed", "1") == names_of("--sample", "3", "--seed", "1")
    assert len(set(names_of("--sample", "3", "--seed", "1"))) == 3
    assert names_of("--sample", "30", "--seed", "1") != names_of("--sample", "30", "--seed", "2")
    assert names_of() == names_of("--sample", "10000") == [saboteur.name for saboteur in ALL]
    assert names_of("--only", "no-lock", "--only", "sweep-off") == ["no-lock", "sweep-off"]


@pytest.mark.parametrize("arguments", [["--only", "nobody"], ["--budget", "0"], ["--sample", "0"], ["--jobs", "9"]])
def test_a_wrong_command_is_refused(arguments):
    with pytest.raises(SystemExit) as ended:
        saboteurs.main(arguments)
    assert ended.value.code == 2


def test_a_torture_run_has_caught_what_it_calls_violated_and_no_traceback():
    found = {
        "pairs": [{"violations": [["A1B2", ["S3: open at once: 2", "the story"]]]}],
        "broken": ["pay: M4: two keepers"],
    }
    assert violations_in(json.dumps(found)) == ["pay: M4: two keepers", "S3: open at once: 2"]
    assert violations_in(json.dumps({"broken": ["pay: the scenario fails: Traceback … S3: x"]})) == []
    assert violations_in("Traceback (most recent call last)") == []


def result(**facts):
    return saboteurs.Result("example", ("M1",), **facts)


def test_a_catcher_that_also_fails_on_the_unbroken_tree_has_caught_nothing():
    caught, other = result(by="tests/a.py::test_a"), result(by="tests/b.py::test_b")
    check = ["tests/a.py::test_a", "tests/b.py::test_b"]
    saboteurs._apply_control([caught, other], check, Verdict(by="tests/a.py::test_a"))
    assert (caught.is_caught, other.is_caught) == (False, True)
    saboteurs._apply_control([caught, other], check, Verdict(crashed=["tests/b.py: ValueError"]))
    assert (caught.is_caught, other.is_caught) == (False, False)
    again = result(by="tests/a.py::test_a")
    saboteurs._apply_control([again], check, Verdict())
    assert again.is_caught


def test_the_verdict_is_that_of_the_worst():
    caught, cut = result(by="tests/a.py::test_a"), result(is_cut=True)
    assert saboteurs.judge([caught]) == 0
    assert saboteurs.judge([caught, cut]) == 3
    assert saboteurs.judge([caught, cut, result()]) == 1
    assert saboteurs.judge([result(problem="it no longer fits")]) == 1


def test_each_set_of_tests_is_tried_until_one_catches_it():
    asked = []

    def check(targets, seconds):
        asked.append(tuple(targets))
        return Verdict(by="tests/y.py::test_y") if len(asked) == 3 else Verdict(crashed=["no"])

    found = result()
    saboteurs._look([["tests/x.py"], ["torture.crash"], ["tests/y.py"], ["tests/z.py"]], 2, found, check, 1e12)
    assert asked == [("tests/x.py",), ("torture.crash",), ("tests/y.py",)]
    assert (found.by, found.is_expected, found.notes) == ("tests/y.py::test_y", False, ["no", "no"])
    cut = result()
    saboteurs._look([["tests/x.py"]], 1, cut, check, 0.0)
    assert (cut.is_cut, len(asked)) == (True, 3)


def test_a_server_that_cannot_be_had_is_an_unavailable_dependency(monkeypatch, capsys):
    from config.processes import ProcessError

    def refuse(profile):
        raise ProcessError("There is no PostgreSQL.")

    monkeypatch.setattr(saboteurs.embedded, "servers", refuse)
    assert saboteurs.main(["--only", "no-lock"]) == 4
    assert "no PostgreSQL" in capsys.readouterr().err


def test_the_list_tells_every_saboteur_and_runs_nothing(capsys):
    assert saboteurs.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [saboteur.name for saboteur in ALL]
    assert Path(CHECKOUT / "torture" / "broken").is_dir()
