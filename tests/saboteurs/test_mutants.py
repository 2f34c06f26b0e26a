"""The mutation tool's own tests: what is changed, how it gets into a module that is loaded, and how a run is judged."""

import ast
import types

import pytest

from torture import mutants
from torture.mutant_make import Source, install

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
    import json

    for module, reasons in json.loads(mutants.JUSTIFIED.read_text(encoding="utf-8")).items():
        known = {mutant.key for mutant in Source.read(mutants.CHECKOUT, module).mutants}
        for key, reason in reasons.items():
            assert key in known, key
            assert len(reason) > 20, key


@pytest.mark.parametrize("arguments", [["--module", "payments/none.py"], ["--budget", "0"], ["--jobs", "9"]])
def test_a_wrong_command_is_refused(arguments):
    with pytest.raises(SystemExit) as ended:
        mutants.main(arguments)
    assert ended.value.code == 2
