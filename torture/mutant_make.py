"""Make mutants of a module: small changes of its syntax tree, each of which some test should notice.

Changed are comparisons, boolean operators and their operands, conditions, arithmetic, numbers, booleans, short names in texts (the kinds of
events), returned values, and whole statements (left out). Not changed are docstrings, annotations, log lines and the names of loggers
(nothing is decided by them), and what only declares: enum members and dataclass fields.
"""

import ast
import copy
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
CALCULATED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
}  # fmt: skip
DECLARED = ("T", "log")
"""Values of a module that only declare: a type, and the name under which log lines are written."""
NAME = re.compile(r"[a-z_]+(?:\.[a-z_]+)*")
Definition = ast.FunctionDef | ast.AsyncFunctionDef
Edit = Callable[[], None]


@dataclass(frozen=True)
class Mutant:
    """One change. `place` is the function, or the module's own name that is assigned; `key` outlives a shift of lines."""

    module: str
    place: str
    line: int
    end: int
    number: int
    what: str
    nth: int

    @property
    def key(self) -> str:
        """What a justification names."""
        return f"{self.place}: {self.what}" + (f" ({self.nth})" if self.nth else "")


@dataclass
class _Change:
    """An edit of a tree that is about to be thrown away, with the text of what it does."""

    node: ast.AST
    what: str
    make: Edit


class Source:
    """One module's source, and its mutants in a fixed order."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.tree = ast.parse(text)

    @classmethod
    def read(cls, top: Path, path: str) -> "Source":
        """The module at `path` below the checkout."""
        return cls(path, (top / path).read_text(encoding="utf-8"))

    @cached_property
    def mutants(self) -> list[Mutant]:
        """Every mutant of the module."""
        found = []
        seen: Counter[str] = Counter()
        for place, node in self.places():
            for number, change in enumerate(_changes(node)):
                line = getattr(change.node, "lineno", node.lineno)
                end = getattr(change.node, "end_lineno", None) or line
                text = f"{place}: {change.what}"
                found.append(Mutant(self.path, place, line, end, number, change.what, seen[text]))
                seen[text] += 1
        return found

    def places(self) -> Iterator[tuple[str, ast.stmt]]:
        """Every function and method by its name, and every assignment of the module itself."""
        for node in self.tree.body:
            if isinstance(node, Definition):
                yield node.name, node
            elif isinstance(node, ast.ClassDef):
                yield from ((f"{node.name}.{part.name}", part) for part in node.body if isinstance(part, Definition))
            elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if isinstance(target, ast.Name) and not target.id.startswith("__") and target.id not in DECLARED:
                    yield target.id, node

    def segment(self, node: ast.stmt) -> str:
        """The text of a function or assignment."""
        return ast.get_source_segment(self.text, node) or ""

    def mutated(self, mutant: Mutant) -> ast.stmt:
        """The changed function or assignment."""
        node = next(node for place, node in self.places() if place == mutant.place)
        changed = copy.deepcopy(node)
        list(_changes(changed))[mutant.number].make()
        return ast.fix_missing_locations(changed)


def install(module: ModuleType, mutant: Mutant, node: ast.stmt, others: list[ModuleType]) -> None:
    """Put a changed function or value into a module that is loaded already, for whoever has it by name too."""
    names = dict(vars(module))
    if isinstance(node, Definition):
        node.decorator_list = []
        node.returns = None
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            argument.annotation = None
        exec(compile(ast.Module([node], []), mutant.module, "exec"), names)
        made, known = names[node.name], _function(module, mutant.place)
        known.__code__, known.__defaults__, known.__kwdefaults__ = made.__code__, made.__defaults__, made.__kwdefaults__
        return
    old = vars(module)[mutant.place]
    exec(compile(ast.Module([node], []), mutant.module, "exec"), names)
    for other in [module, *others]:
        if vars(other).get(mutant.place) is old:
            setattr(other, mutant.place, names[mutant.place])


def _function(module: ModuleType, place: str) -> Any:
    owner, _, name = place.rpartition(".")
    found: Any = vars(vars(module)[owner] if owner else module)[name]
    if isinstance(found, property):
        return found.fget
    while hasattr(found, "__wrapped__") or isinstance(found, classmethod | staticmethod):
        found = found.__wrapped__
    return found


def _changes(top: ast.stmt) -> Iterator[_Change]:
    for node, field in _walk(top):
        if isinstance(node, ast.Compare):
            yield from _compare(node)
        elif isinstance(node, ast.BoolOp):
            yield from _boolean(node)
        elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in CALCULATED and not _is_text(node):
            yield _replace(node, "op", CALCULATED[type(node.op)](), ast.unparse(node))
        elif isinstance(node, ast.Constant):
            yield from _constant(node)
        elif isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
            yield _replace(node, "value", ast.Constant(None), ast.unparse(node))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield _negate_not(node)
        if isinstance(node, ast.If | ast.IfExp | ast.While) and isinstance(
            node.test, ast.Name | ast.Attribute | ast.Call
        ):
            yield _replace(node, "test", ast.UnaryOp(ast.Not(), node.test), f"if {ast.unparse(node.test)}")
        if isinstance(node, ast.stmt) and isinstance(field, list):
            yield from _leave_out(node, field)


def _walk(top: ast.AST) -> Iterator[tuple[ast.AST, object]]:
    """Every node with the list that it stands in, if any; without annotations, docstrings, log lines and type-only parts."""
    for name, value in ast.iter_fields(top):
        if name in ("annotation", "returns", "decorator_list", "type_comment"):
            continue
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, ast.AST) or _is_silent(item):
                continue
            yield item, value
            yield from _walk(item)


def _is_silent(node: ast.AST) -> bool:
    if not isinstance(node, ast.Expr):
        return isinstance(node, ast.JoinedStr | ast.Assert)
    if isinstance(node.value, ast.Constant):
        return True
    return isinstance(node.value, ast.Call) and ast.unparse(node.value.func).startswith("log.")


def _is_text(node: ast.BinOp | ast.AugAssign) -> bool:
    sides = [node.left, node.right] if isinstance(node, ast.BinOp) else [node.value]
    return any(isinstance(side, ast.JoinedStr) or isinstance(getattr(side, "value", None), str) for side in sides)


def _compare(node: ast.Compare) -> Iterator[_Change]:
    for index, operator in enumerate(node.ops):
        for other in COMPARED[type(operator)]:
            before = ast.unparse(node)

            def make(index: int = index, other: type[ast.cmpop] = other) -> None:
                node.ops[index] = other()

            def undo(index: int = index, operator: ast.cmpop = operator) -> None:
                node.ops[index] = operator

            yield _Change(node, _arrow(before, node, make, undo), make)


def _boolean(node: ast.BoolOp) -> Iterator[_Change]:
    other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    yield _replace(node, "op", other, ast.unparse(node))
    for index, value in enumerate(node.values):
        before = list(node.values)

        def make(index: int = index) -> None:
            del node.values[index]
            if len(node.values) == 1:  # a BoolOp of one operand compiles to nonsense
                node.values.append(ast.Constant(isinstance(node.op, ast.And)))

        yield _Change(node, f"{ast.unparse(node)[:120]} without {ast.unparse(value)[:80]}", make)
        node.values = before


def _constant(node: ast.Constant) -> Iterator[_Change]:
    value = node.value
    if isinstance(value, bool):
        yield _replace(node, "value", not value, repr(value))
    elif isinstance(value, int):
        yield _replace(node, "value", value + 1, repr(value))
    elif isinstance(value, str) and NAME.fullmatch(value):
        yield _replace(node, "value", "mutant", repr(value))


def _negate_not(node: ast.UnaryOp) -> _Change:
    def make() -> None:
        node.operand = ast.UnaryOp(ast.Not(), node.operand)

    return _Change(node, f"{ast.unparse(node)[:120]} without not", make)


def _leave_out(node: ast.stmt, siblings: list[Any]) -> Iterator[_Change]:
    is_left_out = isinstance(node, ast.AugAssign | ast.Raise | ast.Continue | ast.Break) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    )
    if isinstance(node, ast.Assign):
        is_left_out = any(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets)
    if is_left_out:

        def make() -> None:
            siblings[next(index for index, item in enumerate(siblings) if item is node)] = ast.Pass()

        yield _Change(node, f"left out: {ast.unparse(node)[:160]}", make)


def _replace(node: Any, field: str, value: Any, before: str) -> _Change:
    old = getattr(node, field)

    def make() -> None:
        setattr(node, field, value)

    return _Change(node, _arrow(before, node, make, lambda: setattr(node, field, old)), make)


def _arrow(before: str, node: ast.AST, make: Edit, undo: Edit) -> str:
    make()
    after = ast.unparse(node)
    undo()
    return f"{before[:120]} → {after[:120]}"
