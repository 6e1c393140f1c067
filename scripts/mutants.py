"""Small changes to the source of a function: one constant, sign, operator, comparison or line at a time.

A mutant is made from the syntax tree and never written anywhere. `mutants_of(module)` finds all of a module's
functions and methods and every change of each; `Mutant.apply` puts the changed code in the place of the function's own
code, in this process, so that every caller and every subclass has it.
"""

from __future__ import annotations

import ast
import copy
import importlib.machinery
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

Edit = Callable[[Any], None]  # changes a node of the tree in place

OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
}  # fmt: skip
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
}  # fmt: skip
WORDS = {
    "add": "subtract", "subtract": "add", "multiply": "divide", "divide": "multiply", "maximum": "minimum",
    "minimum": "maximum", "sqrt": "positive", "absolute": "positive", "max": "min", "min": "max", "all": "any",
    "any": "all",
}  # fmt: skip
IN_ORDER = ("subtract", "divide", "power")  # whose first two operands must not change places
ARROW = "  →  "
TWINS = {"beta1": "beta2", "beta2": "beta1", "eps": "eps_root", "eps_root": "eps"}


@dataclass(frozen=True)
class Mutant:
    """One change of one function."""

    path: Path
    line: int
    place: str  # Class.method, or function
    change: str  # "old  →  new", in source
    owner: type | None  # the class that the method is in
    function: FunctionType
    tree: ast.Module

    @property
    def key(self) -> str:
        """What names it in a table: no line number, which other changes move."""
        return f"{self.place}: {self.change.partition(ARROW)[2]}"

    def apply(self) -> None:
        """Change the function, for the rest of this process. Raises `ValueError` where its code has other cells."""
        for name in WORDS.values():
            if hasattr(np, name) and name not in ("max", "min", "all", "any"):
                self.function.__globals__.setdefault(name, getattr(np, name))
        self.function.__code__ = _code_of(self.tree, self.function.__name__, self.path)


def mutants_of(module: ModuleType) -> Iterator[Mutant]:
    """All mutants of a module's functions and of its classes' methods, in the order of the file."""
    path = Path(inspect.getfile(module))
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            yield from _of_function(path, node.name, None, getattr(module, node.name), node)
        elif isinstance(node, ast.ClassDef):
            owner = getattr(module, node.name)
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name in vars(owner):
                    place = f"{node.name}.{method.name}"
                    yield from _of_function(path, place, owner, vars(owner)[method.name], method)


def _of_function(path: Path, place: str, owner: type | None, found: Any, node: ast.FunctionDef) -> Iterator[Mutant]:
    function = inspect.unwrap(found.fget if isinstance(found, property) else getattr(found, "__func__", found))
    if getattr(function, "__isabstractmethod__", False) or not isinstance(function, FunctionType):
        return
    seen: dict[str, int] = {}
    for number, (line, edit) in enumerate(_sites(node)):
        changed = copy.deepcopy(node)
        before = _lines(changed)
        edit(changed)
        after = _lines(changed)
        if before == after:
            continue
        change = _difference(before, after)
        seen[change] = seen.get(change, 0) + 1
        change += f"  ({seen[change]})" if seen[change] > 1 else ""
        yield Mutant(path, line, place, change, owner, function, _alone(changed, owner, number))


def _alone(node: ast.FunctionDef, owner: type | None, number: int) -> ast.Module:
    """A module of that function only, in a class of the same name where it has one: `super()` needs the cell."""
    node.decorator_list, node.returns = [], None
    for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
        argument.annotation = None
    body: list[ast.stmt] = [node]
    if owner is not None:
        body = [ast.ClassDef(name=owner.__name__, bases=[], keywords=[], body=[node], decorator_list=[])]
    return ast.fix_missing_locations(ast.Module(body=body, type_ignores=[]))


def _code_of(tree: ast.Module, name: str, path: Path) -> CodeType:
    """The code of the function of that name, however deep it lies."""
    loader = importlib.machinery.SourceFileLoader("mutant", str(path))
    waiting: list[CodeType] = [loader.source_to_code(tree, str(path))]  # type: ignore[arg-type]  # trees are taken too
    while waiting:
        code = waiting.pop(0)
        if code.co_name == name:
            return code
        waiting += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    raise AssertionError(f"{name} is not in its own tree")


# ---------------------------------------------------------------------------------------------------------- changes


def _sites(function: ast.FunctionDef) -> Iterator[tuple[int, Edit]]:
    """Every change of the body, as the line it is in and an edit of a copy of the function."""
    for place, node in enumerate(_walk(function)):
        for edit in _edits(node):
            yield getattr(node, "lineno", function.lineno), _at(place, edit)


def _at(place: int, edit: Edit) -> Edit:
    def on(copied: ast.FunctionDef) -> None:
        edit(_walk(copied)[place])

    return on


def _walk(function: ast.FunctionDef) -> list[ast.AST]:
    """The function and all nodes of its body, always in the same order; no docstring, nothing that cannot be wrong."""
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    body = function.body[1:] if documented else function.body
    nodes = [node for statement in body for node in ast.walk(statement)]
    passed_over = [id(inner) for node in nodes for inner in _without_meaning(node)]
    return [function, *(node for node in nodes if id(node) not in passed_over)]


def _without_meaning(node: ast.AST) -> Iterator[ast.AST]:
    """Constants that say nothing of the arithmetic: `strict=True`, and the 1 of a -1 in `reshape`."""
    if isinstance(node, ast.Call):
        yield from (keyword.value for keyword in node.keywords if keyword.arg == "strict")
        if getattr(node.func, "attr", "") == "reshape":
            yield from (x.operand for x in node.args if isinstance(x, ast.UnaryOp))


def _edits(node: ast.AST) -> Iterator[Edit]:
    """The changes of one node, each in place."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield lambda n: setattr(n, "value", _other(n.value))
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATORS:
        yield lambda n: setattr(n, "op", OPERATORS[type(n.op)]())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield lambda n: setattr(n, "op", ast.UAdd())
    elif isinstance(node, ast.BoolOp):
        yield lambda n: setattr(n, "op", ast.And() if isinstance(n.op, ast.Or) else ast.Or())
    elif isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            for other in COMPARISONS.get(type(operator), ()):
                yield lambda n, i=i, other=other: n.ops.__setitem__(i, other())  # type: ignore[misc]
    elif isinstance(node, ast.If | ast.IfExp):
        yield lambda n: setattr(n, "test", ast.UnaryOp(op=ast.Not(), operand=n.test))
    elif isinstance(node, ast.Attribute) and node.attr in TWINS and isinstance(node.ctx, ast.Load):
        yield lambda n: setattr(n, "attr", TWINS[n.attr])
    elif isinstance(node, ast.Call):
        yield from _edits_of_call(node)
    yield from _edits_of_lines(node)
    yield from _edits_of_step(node)


def _edits_of_call(node: ast.Call) -> Iterator[Edit]:
    word = getattr(node.func, "id", getattr(node.func, "attr", ""))
    of_math = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "math"
    if of_math and word == "sqrt":
        yield lambda n: setattr(n.func, "attr", "fabs")
    elif word in WORDS and not of_math:
        yield lambda n: setattr(n.func, "id" if isinstance(n.func, ast.Name) else "attr", WORDS[word])
    if word in IN_ORDER and len(node.args) > 1:
        yield lambda n: n.args.__setitem__(slice(0, 2), [n.args[1], n.args[0]])


def _edits_of_lines(node: ast.AST) -> Iterator[Edit]:
    """A line that only does something is left out."""
    for block in ("body", "orelse"):
        lines = getattr(node, block, None)
        for i, line in enumerate(lines) if isinstance(lines, list) else ():
            if isinstance(line, ast.Expr | ast.AugAssign) and not isinstance(getattr(line, "value", 0), ast.Constant):
                yield lambda n, block=block, i=i: getattr(n, block).__setitem__(i, ast.Pass())  # type: ignore[misc]


def _edits_of_step(node: ast.AST) -> Iterator[Edit]:
    """t is off by one."""
    for name, value in ast.iter_fields(node):
        for i, child in enumerate(value) if isinstance(value, list) else ():
            if isinstance(child, ast.Name) and child.id == "t" and isinstance(child.ctx, ast.Load):
                yield lambda n, name=name, i=i: getattr(n, name).__setitem__(i, _one_more(getattr(n, name)[i]))  # type: ignore[misc]
        if isinstance(value, ast.Name) and value.id == "t" and isinstance(value.ctx, ast.Load):
            yield lambda n, name=name: setattr(n, name, _one_more(getattr(n, name)))  # type: ignore[misc]


def _one_more(node: ast.expr) -> ast.BinOp:
    return ast.BinOp(left=node, op=ast.Add(), right=ast.Constant(value=1))


def _other(value: float) -> Any:
    """Another number: 0 and 1 change places, an index goes one on, a factor grows by half."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return {0.0: 1.0, 1.0: 0.0}.get(value, value * 1.5)


# ------------------------------------------------------------------------------------------------------------- words


def _lines(function: ast.FunctionDef) -> list[str]:
    return ast.unparse(function).splitlines()


def _difference(before: list[str], after: list[str]) -> str:
    """The lines that differ."""
    old = [line.strip() for line in before if line not in after] or [
        x.strip() for x, y in zip(before, after, strict=False) if x != y
    ]
    new = [line.strip() for line in after if line not in before] or ["pass"]
    return f"{' ⏎ '.join(old)}{ARROW}{' ⏎ '.join(new)}"
