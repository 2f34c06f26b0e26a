"""How stories are played, what the run comes to, and its command line; no site is started."""

import argparse
import json
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from config.demo import __main__ as command
from config.demo.__main__ import Result
from config.demo.audit import Verdict
from config.demo.play import play
from config.demo.screen import PlainScreen
from config.demo.site import Site, StoryFailed, until
from config.demo.stories import STORIES
from config.demo.tale import Story, Tale, Told
from config.postgres import free_port
from config.processes import ProcessError

NO_SITE = cast("Site", None)


def told(letter: str = "a", *, ok: bool = True) -> Told:
    """How a story ended."""
    return Told(letter, "A story", ok, 1.5, ["it happened"], [])


def verdict(*problems: str) -> Verdict:
    """How an order ended."""
    return Verdict("ref-1", "PAID", 500, 0, list(problems))


def test_there_are_eight_stories_by_letter() -> None:
    assert [story.letter for story in STORIES] == list("abcdefgh")
    assert [story.letter for story in STORIES if story.kills] == ["g"]


def test_story_that_kills_waits_for_all_others() -> None:
    may_end, ended = threading.Event(), []

    def slow(tale: Tale) -> None:
        assert may_end.wait(20)
        ended.append(tale.letter)

    def kill(tale: Tale) -> None:
        assert not tale.others_done.is_set()
        may_end.set()
        assert tale.others_done.wait(20)
        ended.append(tale.letter)

    stories = [Story("a", "Kills", kill, kills=True), Story("b", "Slow", slow)]
    assert [(story.letter, story.ok) for story in play(stories, NO_SITE, PlainScreen())] == [("a", True), ("b", True)]
    assert ended == ["b", "a"]


def test_story_that_breaks_has_failed_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def expects(tale: Tale) -> None:
        tale.check(1 == 2, "one is not two")

    def breaks(tale: Tale) -> None:
        raise OSError("no route")

    stories = [Story("a", "Expects", expects), Story("b", "Breaks", breaks), Story("c", "Fine", lambda tale: None)]
    results = play(stories, NO_SITE, PlainScreen())
    assert [story.ok for story in results] == [False, False, True]
    assert results[0].happened == ["failed: one is not two"]
    assert "OSError: no route" in capsys.readouterr().out


def test_waiting_ends_at_its_deadline() -> None:
    with pytest.raises(StoryFailed, match="still not: it rains"):
        until(lambda: False, 0.0, "it rains")
    assert until(lambda: True, 0.0, "it rains") < 1


@pytest.mark.parametrize(
    ("result", "ok"),
    [
        (Result([verdict()], [told()], []), True),
        (Result([verdict("wrong")], [told()], []), False),
        (Result([verdict()], [told(ok=False)], []), False),
        (Result([verdict()], [told()], ["stray money"]), False),
        (Result([], [], []), False),
        (Result(), False),
    ],
)
def test_run_is_ok_only_if_everything_is(result: Result, ok: bool) -> None:
    assert result.ok is ok


def test_result_file_has_the_promised_shape(tmp_path: Path) -> None:
    path = tmp_path / "smoke.json"
    command.write_result(path, Result([verdict()], [told("a"), told("h")], []))
    assert json.loads(path.read_text()) == {
        "ok": True,
        "orders": [{"reference": "ref-1", "paid_once": True, "captured_minor": 500, "refunded_minor": 0}],
        "stories": {
            letter: {"ok": True, "seconds": 1.5, "title": "A story", "happened": ["it happened"]} for letter in "ah"
        },
    }
    assert list(tmp_path.iterdir()) == [path]


def run_command(monkeypatch: pytest.MonkeyPatch, outcome: Any, *arguments: str) -> int:
    """The command's exit status where playing comes to `outcome`."""

    def run(options: argparse.Namespace, screen: object) -> Result:
        if isinstance(outcome, BaseException):
            raise outcome
        return cast("Result", outcome)

    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(command, "stop_on_signals", lambda: None)
    return command.main(list(arguments))


def test_exit_status_says_how_it_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert run_command(monkeypatch, Result([verdict()], [told()], []), "--smoke") == 0
    assert run_command(monkeypatch, Result([verdict("wrong")], [told()], []), "--smoke", "--json", str(path)) == 1
    assert json.loads(path.read_text())["ok"] is False
    assert run_command(monkeypatch, ProcessError("no PostgreSQL"), "--json", str(path)) == 4
    assert json.loads(path.read_text()) == {"ok": False, "orders": [], "stories": {}}
    assert run_command(monkeypatch, KeyboardInterrupt()) == 130


@pytest.mark.parametrize("arguments", [["--only", "a,z"], ["--json", "no/such/folder/x.json"], ["--unknown"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2


def test_database_that_is_away_is_an_unavailable_dependency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    monkeypatch.setattr(command, "stop_on_signals", lambda: None)  # this process's signals are pytest's
    assert command.main(["--smoke", "--only", "a"]) == 4
