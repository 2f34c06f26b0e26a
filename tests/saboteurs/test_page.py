"""The page that says who catches which broken build: it may not go stale silently."""

import json
import re

import pytest

from torture import saboteur_page
from torture.broken import ALL
from torture.sabotage import CHECKOUT, Change, Saboteur

PAGE = CHECKOUT / "docs" / "saboteurs.md"
ONE = Saboteur("one", "One is broken.", ("M1", "S2"), (), (Change("a.py", "x", "y"),))
TWO = Saboteur("two", "Two is broken.", ("L1",), (), (Change("b.py", "x", "y"),))


def run_of(*names, is_caught=True, day="2026-01-01"):
    results = [
        {"name": name, "is_caught": is_caught, "by": f"tests/x.py::test_{name}[a|b]", "seconds": 1.6} for name in names
    ]
    return {
        "date": day, "command": "python -m torture.saboteurs", "versions": {"Python": "3.11"}, "results": results,
        "saboteurs": len(names), "caught": len(names), "seconds": 9.4,
    }  # fmt: skip


def test_every_broken_build_has_a_line_that_says_who_caught_it_as_it_is_now():
    """Where this fails: `python -m torture.saboteurs --only NAME --narrow --json > f.json`, then `python -m torture.saboteur_page`."""
    runs, lines = saboteur_page.read_page(PAGE.read_text(encoding="utf-8"))
    now = {build.name: (build.text, ", ".join(build.breaks), saboteur_page.digest_of(build)) for build in ALL}
    assert {name: (line.text, line.breaks, line.digest) for name, line in lines.items()} == now
    assert {line.run for line in lines.values()} == set(runs)


def test_whoever_caught_a_build_is_still_there():
    """A test that was renamed or deleted catches nothing."""
    _runs, lines = saboteur_page.read_page(PAGE.read_text(encoding="utf-8"))
    files = [*CHECKOUT.glob("tests/**/*.py"), *CHECKOUT.glob("channels/contract/*.py")]
    defined = set(re.findall(r"def (test_\w+)\(", "".join(path.read_text(encoding="utf-8") for path in files)))
    for line in lines.values():
        if line.by.startswith("torture."):
            continue
        path, *names = line.by.split("[")[0].split("::")
        assert (CHECKOUT / path).is_file(), line.by
        assert names[-1] in defined, line.by  # it may be inherited from a suite


def test_a_page_is_read_as_it_was_written():
    page = saboteur_page.add("", run_of("one", "two"), [ONE, TWO])
    runs, lines = saboteur_page.read_page(page)
    assert runs == {"1": "2026-01-01: `python -m torture.saboteurs`: 2 of 2 caught in 9 s; Python 3.11"}
    assert lines["one"] == saboteur_page.Line(
        "one", "One is broken.", "M1, S2", "tests/x.py::test_one[a|b]", "2", "1", saboteur_page.digest_of(ONE)
    )
    assert saboteur_page.write_page(runs, lines.values()) == page


def test_a_later_run_replaces_its_own_lines_and_a_run_without_lines_goes():
    page = saboteur_page.add("", run_of("one", "two"), [ONE, TWO])
    again = saboteur_page.add(page, run_of("two", day="2026-01-02"), [ONE, TWO])
    assert {name: line.run for name, line in saboteur_page.read_page(again)[1].items()} == {"one": "1", "two": "2"}
    last = saboteur_page.add(again, run_of("one", day="2026-01-03"), [ONE, TWO])
    runs, lines = saboteur_page.read_page(last)
    assert [text[:10] for text in runs.values()] == ["2026-01-02", "2026-01-03"]
    assert {name: line.run for name, line in lines.items()} == {"one": "2", "two": "1"}


def test_a_build_that_is_gone_loses_its_line():
    page = saboteur_page.add(saboteur_page.add("", run_of("one", "two"), [ONE, TWO]), run_of("one"), [ONE])
    assert list(saboteur_page.read_page(page)[1]) == ["one"]


def test_what_a_later_run_did_not_catch_loses_its_line():
    page = saboteur_page.add("", run_of("one", "two"), [ONE, TWO])
    again = saboteur_page.add(page, run_of("one", is_caught=False), [ONE, TWO])
    assert list(saboteur_page.read_page(again)[1]) == ["two"]


def test_another_change_is_another_digest():
    changed = Saboteur("one", ONE.text, ONE.breaks, (), (Change("a.py", "x", "z"),))
    assert saboteur_page.digest_of(changed) != saboteur_page.digest_of(ONE)


@pytest.mark.parametrize("found", [run_of("no-lock", is_caught=False), run_of("nobody-knows-it")])
def test_what_was_not_caught_is_not_written(tmp_path, capsys, found):
    page, path = tmp_path / "page.md", tmp_path / "found.json"
    path.write_text(json.dumps(found))
    assert saboteur_page.main([str(page), str(path)]) == 1
    assert not page.exists()
    assert found["results"][0]["name"] in capsys.readouterr().err


def test_the_command_writes_the_page(tmp_path):
    page, path = tmp_path / "page.md", tmp_path / "found.json"
    path.write_text(json.dumps(run_of("no-lock")))
    assert saboteur_page.main([str(page), str(path)]) == 0
    assert "| `no-lock` |" in page.read_text()
