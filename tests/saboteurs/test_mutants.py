"""The mutation tool's own tests: what is changed, how it gets into a module that is loaded, and how a run is judged."""

import argparse
import ast
import json
import os
import signal
import time
import types

import pytest

from config.processes import ProcessError
from torture import mutant_worker, mutants
from torture.mutant_make import Source, install
from torture.mutant_seen import Place, Seen

TEXT = '''
"""A module."""
LIMIT = 3
KINDS = ("order.paid", "A sentence.")

class Box:
    """A box."""
    size: int = 1

    @property
    def is_full(self) -> bool:
        """Is it?"""
        return self.size >= LIMIT

def judge(amount: int, limit: int = 5, *, kind: str = "order.paid") -> bool:
    """Judge."""
    log.info("judging %s", 7)
    if amount < limit and not amount == 2:
        box.size = amount + 1
        raise_alarm(amount)
    return kind == "order.paid"
'''


def source():
    return Source("payments/example.py", TEXT)


def keys():
    return [mutant.key for mutant in source().mutants]


def loaded():
    module = types.ModuleType("example")
    module.log, module.box = types.SimpleNamespace(info=lambda *_: None), types.SimpleNamespace(size=0)
    module.raised = []
    module.raise_alarm = module.raised.append
    exec(TEXT, module.__dict__)
    return module


def put(module, key, *others):
    (mutant,) = [mutant for mutant in source().mutants if mutant.key == key]
    install(module, mutant, source().mutated(mutant), list(others))


def test_what_decides_is_changed_and_what_only_tells_is_not():
    found = "\n".join(keys())
    for key in (
        "judge: amount < limit → amount <= limit", "judge: amount < limit → amount >= limit",
        "judge: amount == 2 → amount != 2", "judge: amount + 1 → amount - 1", "judge: not amount == 2 without not",
        "judge: amount < limit and (not amount == 2) → amount < limit or not amount == 2",
        "judge: amount < limit and (not amount == 2) without amount < limit",
        "judge: left out: box.size = amount + 1", "judge: left out: raise_alarm(amount)",
        "judge: 'order.paid' → 'mutant'", "judge: 5 → 6", "LIMIT: 3 → 4", "KINDS: 'order.paid' → 'mutant'",
        "Box.is_full: self.size >= LIMIT → self.size > LIMIT", "Box.is_full: return self.size >= LIMIT → return None",
    ):  # fmt: skip
        assert key in found, key
    for text in ("7", "sentence", "log", "size: int", "Judge"):
        assert text not in found.replace("sentence'", ""), text


def test_every_mutant_has_a_name_of_its_own_and_differs_from_the_original():
    assert len(set(keys())) == len(keys())
    original = {place: ast.unparse(node) for place, node in source().places()}
    for mutant in source().mutants:
        assert ast.unparse(source().mutated(mutant)) != original[mutant.place], mutant.key
    assert {place: ast.unparse(node) for place, node in source().places()} == original


def test_a_mutant_of_a_function_reaches_whoever_imported_it_before():
    module = loaded()
    judge = module.judge
    assert judge(5) is True
    assert module.raised == []
    put(module, "judge: amount < limit → amount <= limit")
    judge(5)
    assert module.raised == [5]
    put(module, "judge: 5 → 6")
    judge(5)
    assert judge.__defaults__ == (6,)


def test_a_mutant_of_a_property_and_of_a_value():
    module, other = loaded(), types.ModuleType("other")
    other.LIMIT = module.LIMIT
    box = module.Box()
    box.size = 3
    assert box.is_full
    put(module, "LIMIT: 3 → 4", other)
    assert (module.LIMIT, other.LIMIT, box.is_full) == (4, 4, False)
    put(module, "Box.is_full: return self.size >= LIMIT → return None")
    assert box.is_full is None


def test_the_modules_can_all_be_mutated():
    for path in mutants.MODULES:
        found = Source.read(mutants.CHECKOUT, path)
        assert len(found.mutants) > 20
        assert len({mutant.key for mutant in found.mutants}) == len(found.mutants)
        for mutant in found.mutants:
            compile(ast.Module([found.mutated(mutant)], []), path, "exec")


def judged(hows, justified):
    some = source().mutants[: len(hows)]
    results = [
        {"module": mutant.module, "key": mutant.key, "how": how} for mutant, how in zip(some, hows, strict=True) if how
    ]
    reasons = {some[0].module: {some[number].key: "equal" for number in justified}}
    scores, stale = mutants.judge(some, results, reasons)
    return scores[some[0].module], stale


def test_a_survivor_counts_until_it_is_justified_and_a_reason_for_a_killed_one_is_an_error():
    score, stale = judged(["killed", "survived", "timeout", "survived"], [1])
    assert (score.killed, score.timeout, score.justified, len(score.survivors), stale) == (1, 1, 1, 1, [])
    assert score.percent == pytest.approx(200 / 3)
    score, stale = judged(["killed", "killed"], [1])
    assert len(stale) == 1
    score, stale = judged(["killed", None], [])
    assert (score.untried, stale) == (1, [])


def test_every_justification_gives_a_reason_for_a_mutant_that_exists():
    for module, reasons in json.loads(mutants.JUSTIFIED.read_text(encoding="utf-8")).items():
        known = {mutant.key for mutant in Source.read(mutants.CHECKOUT, module).mutants}
        for key, reason in reasons.items():
            assert key in known, key
            assert len(reason) > 20, key


WRONG = (["--module", "payments/none.py"], ["--budget", "0"], ["--jobs", "9"], ["--sample", "0"], ["--seconds", "-1"])


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_command_is_refused(arguments):
    with pytest.raises(SystemExit) as ended:
        mutants.main(arguments)
    assert ended.value.code == 2


def test_a_sample_is_drawn_the_same_for_the_same_seed(capsys):
    drawn = []
    for seed in ("7", "7", "8"):
        assert mutants.main(["--list", "--sample", "5", "--seed", seed]) == 0
        drawn.append(capsys.readouterr().out)
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0].splitlines()) == 5


def seen(tmp_path, **lines):
    made = Seen({"payments/example.py": source()}, tmp_path / "seen.json")
    made.seconds = {"a": 0.1, "b": 0.1, "c": 0.1}
    texts = {name: source().segment(node) for name, node in source().places()}
    for name, found in lines.items():
        made.places["payments/example.py"][name] = Place(texts[name], found)
    return made


def asked(made, key):
    (mutant,) = [mutant for mutant in made.sources["payments/example.py"].mutants if mutant.key == key]
    return made.tests_of(mutant)


def test_a_mutant_meets_who_executes_its_line_and_a_value_who_executes_its_users(tmp_path):
    made = seen(tmp_path, judge={"3": ["a", "b"], "4": ["b"], "6": ["c"]})
    made.places["payments/example.py"]["Box.is_full"] = Place(source_text("Box.is_full"), {"2": ["a"]})
    assert asked(made, "judge: amount < limit → amount <= limit") == {"a", "b"}
    assert asked(made, "judge: left out: box.size = amount + 1") == {"b"}
    assert asked(made, "judge: 5 → 6") == {"a", "b", "c"}, "a default has no line that a test executes"
    assert asked(made, "LIMIT: 3 → 4") == {"a"}
    assert asked(made, "KINDS: 'order.paid' → 'mutant'") == {"a", "b", "c"}, "nobody here uses it: anybody may"
    assert made.weights("payments/example.py") == {"a": 2, "b": 2, "c": 1}


def source_text(name):
    return source().segment(dict(source().places())[name])


def test_what_was_seen_is_kept_and_a_changed_function_is_known_as_a_whole(tmp_path):
    made = seen(tmp_path, judge={"3": ["a"], "4": ["b"]})
    made.files = {"tests/test_gone.py": "x"}
    made.save()
    moved = Seen({"payments/example.py": Source("payments/example.py", "\n\n" + TEXT)}, tmp_path / "seen.json")
    moved.load()
    assert asked(moved, "judge: left out: box.size = amount + 1") == {"b"}
    changed = Source("payments/example.py", TEXT.replace("amount + 1", "amount + 7"))
    other = Seen({"payments/example.py": changed}, tmp_path / "seen.json")
    other.load()
    assert asked(other, "judge: left out: box.size = amount + 7") == {"a", "b"}


def test_a_test_file_that_changed_is_measured_again_and_what_it_said_is_forgotten(tmp_path):
    made = seen(tmp_path, judge={"3": ["tests/payments/test_refund_names.py::test_old", "a"]})
    made.seconds["tests/payments/test_refund_names.py::test_old"] = 1.0
    made.files = {"tests/payments/test_refund_names.py": "another text"}
    assert "tests/payments/test_refund_names.py" in made.stale(["tests/payments"])
    assert made.places["payments/example.py"]["judge"].tests == {"a"}
    assert "tests/payments/test_refund_names.py::test_old" not in made.seconds


def test_only_the_tests_of_some_folders_are_asked(tmp_path):
    made = seen(tmp_path, judge={"3": ["tests/path/test_a.py::a", "tests/paths/test_b.py::b"]})
    made.seconds = {"tests/path/test_a.py::a": 1.0, "tests/paths/test_b.py::b": 1.0}
    made.only(["tests/path"])
    assert asked(made, "judge: amount < limit → amount <= limit") == set(made.seconds) == {"tests/path/test_a.py::a"}


def results(tmp_path, text=TEXT):
    return mutants.Results(tmp_path / "results.jsonl", {"payments/example.py": Source("payments/example.py", text)})


def told(kept, mutant, how="killed", by="t"):
    return {
        "module": mutant.module,
        "key": mutant.key,
        "text": kept.text_of(mutant),
        "how": how,
        "by": by,
        "line": 1,
        "tests": 1,
    }


def test_a_result_holds_for_the_text_it_was_found_with_and_a_torn_line_is_not_read(tmp_path):
    first, second, *_ = [mutant for mutant in source().mutants if mutant.place == "judge"]
    kept = results(tmp_path)
    kept.add(told(kept, first, "survived"))
    kept.add(told(kept, first))
    kept.add(told(kept, second))
    with kept.path.open("a") as out:
        out.write('{"module": "payments/exam')
    found = kept.read([first, second])
    assert [found[mutant.module, mutant.key]["how"] for mutant in (first, second)] == ["killed", "killed"]
    assert results(tmp_path, TEXT.replace("amount + 1", "amount + 7")).read([first, second]) == {}
    kept.path.write_text(kept.path.read_text().rpartition("\n")[0] + "\n")
    kept.forget([first])
    assert set(kept.read([first, second])) == {(second.module, second.key)}


class Crew(mutants.Crew):
    """Its workers only do what the test says: what each run makes of the mutants that are left."""

    def __init__(self, tmp_path, *plays):
        options = argparse.Namespace(seconds=1.0, json=True)
        super().__init__(seen(tmp_path, judge={"3": ["a", "b"]}), results(tmp_path), options, time.time() + 600)
        self.plays = list(plays)
        self.given = []

    def _run(self, folder, mutants, unfit, environment):
        self.given.append(([mutant.key for mutant in mutants], set(unfit)))
        (folder / "log").write_text("the log")
        return self.plays.pop(0)(self, folder, mutants)


def dies_at(number):
    def play(crew, folder, some):
        for mutant in some[:number]:
            crew.results.add(told(crew.results, mutant))
        (folder / "began").write_text(json.dumps([some[number].module, some[number].key]))
        return -9

    return play


def finishes(*unfit, by="a"):
    def play(crew, folder, some):
        for mutant in some:
            crew.results.add(told(crew.results, mutant, by=by))
        (folder / "unfit").write_text(json.dumps(unfit))
        return 0

    return play


def hows(crew, some):
    return [result["how"] for result in crew.results.read(some).values()]


def test_a_worker_that_dies_is_started_again_behind_the_mutant_it_had(tmp_path):
    some = source().mutants[:4]
    crew = Crew(tmp_path, dies_at(1), dies_at(0), finishes())
    crew.try_all(some, [{}])
    assert hows(crew, some) == ["killed", "crashed", "crashed", "killed"]
    keys = [mutant.key for mutant in some]
    assert [given for given, _unfit in crew.given] == [keys, keys[2:], keys[3:]]


def test_a_kill_by_a_test_that_fails_without_any_mutant_does_not_count(tmp_path):
    some = source().mutants[:2]
    crew = Crew(tmp_path, finishes("a"), finishes(by="b"))
    crew.try_all(some, [{}])
    assert [result["by"] for result in crew.results.read(some).values()] == ["b", "b"]
    assert [unfit for _keys, unfit in crew.given] == [set(), {"a"}]


def test_a_worker_that_never_begins_ends_the_run(tmp_path):
    def never(crew, folder, some):
        return 4

    with pytest.raises(ProcessError, match="the log"):
        Crew(tmp_path, never, never).try_all(source().mutants[:2], [{}])


class Item:
    """A test as the worker meets it: it does what `act` does."""

    def __init__(self, worker, nodeid, act):
        hook = types.SimpleNamespace(pytest_runtest_protocol=lambda item, nextitem: act(worker))
        self.nodeid, self.config = nodeid, types.SimpleNamespace(hook=hook)


@pytest.fixture
def worker(tmp_path, monkeypatch):
    monkeypatch.setattr(mutant_worker, "SECONDS_MORE", 1.0)
    plan = {
        "names": ["slow", "quick", "broad", "narrow", "tests/test_example.py::own"],
        "seconds": [9.0, 0.1, 0.2, 0.2, 0.5], "tasks": [], "limit": 5.0, "until": 0,
        "weights": {"payments/example.py": {"slow": 1, "quick": 1, "broad": 90, "narrow": 1}}, "top": ".",
        "results": str(tmp_path / "results"), "began": str(tmp_path / "began"), "unfit": str(tmp_path / "unfit"),
    }  # fmt: skip
    made = mutant_worker.Worker(plan)
    made.wiped = 0

    def wipe():
        made.wiped += 1

    monkeypatch.setattr(made, "_wipe", wipe)
    return made


def passes(worker):
    """Fail not."""


def fails(worker):
    worker.failed = "it"


def fails_and_leaves_rows(worker):
    worker.failed, worker.is_dirty = "it", True


def hangs(worker):
    while True:
        time.sleep(10)


def dies(worker):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("acts", "how", "begun", "wiped"),
    [
        ([passes, passes], "survived", 2, 0), ([passes, fails, passes], "killed", 2, 0), ([fails_and_leaves_rows], "killed", 1, 1),
        ([passes, hangs], "timeout", 2, 1), ([dies], "crashed", 1, 1),
    ],
)  # fmt: skip
def test_a_child_tells_how_it_went_however_it_ends(worker, acts, how, begun, wiped):
    worker.seconds |= {str(number): 0.01 for number in range(3)}
    items = [Item(worker, str(number), act) for number, act in enumerate(acts)]
    answer, asked = worker._in_child(items, mutant_worker.nothing)
    assert (answer["how"], asked, worker.wiped) == (how, begun, wiped)
    assert worker.failed == "", "a child's failure is not its parent's"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_mutant_that_cannot_be_put_in_is_neither_killed_nor_alive(worker):
    def wrong():
        raise KeyError("place")

    answer, asked = worker._in_child([Item(worker, "quick", passes)], wrong)
    assert (answer, asked) == ({"how": "broken", "by": "KeyError: 'place'"}, 0)


def test_a_hang_counts_when_the_test_is_quick_without_the_mutant(worker, monkeypatch):
    plays = []

    def in_child(items, change):
        is_mutant = change is not mutant_worker.nothing
        plays.append(is_mutant)
        return ({"how": "timeout" if is_mutant or is_busy.pop() else "survived", "by": "slow"}, 1)

    monkeypatch.setattr(worker, "_in_child", in_child)
    items, mutant = [Item(worker, "slow", passes)], source().mutants[0]
    is_busy = [False, True]
    assert worker._ask(mutant, items)[0]["how"] == "timeout"
    assert plays == [True, False, True, False]
    is_busy = [True] * mutant_worker.HANGS_MAX
    assert worker._ask(mutant, items)[0] == {"how": "broken", "by": "slow hangs without any mutant"}


def test_quick_tests_of_few_lines_come_first_and_those_that_killed_up_to_the_limit(worker):
    mutant = source().mutants[0]
    task = mutant_worker.Task(mutant, "", ("slow", "quick", "broad", "narrow"))
    assert list(worker._in_order(task)) == ["quick", "narrow", "broad"]
    worker.kills["broad"] = worker.tries["broad"] = 30
    assert list(worker._in_order(task)) == ["quick", "broad", "narrow"]
    worker.tries["quick"] = 30
    assert list(worker._in_order(task)) == ["broad", "narrow", "quick"]
    assert list(worker._in_order(mutant_worker.Task(mutant, "", ("slow",)))) == ["slow"], "one at least"
    own = "tests/test_example.py::own"
    assert next(iter(worker._in_order(mutant_worker.Task(mutant, "", ("narrow", own))))) == own, (
        "named after the module"
    )
