"""Puts the statements of a script's own functions where they are called, so that a loop shows all that it does.

Only functions that matter to training are put in place, and only where nothing is left to guess: a call by name, of a
method of `self`, or of an object that the script made of a class of its own.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tune_cropshield.check_script.copies import bound_in, copied, expression, located
from tune_cropshield.check_script.syntax import LOOPS, SCOPES, Function, function_in_place

MOST_STATEMENTS = 6000  # put in place in one script; beyond, calls stay calls
DEEPEST = 8  # calls inside calls
# Calls by which a function matters.
STEPS_OF_A_LOOP = {
    "backward",
    "step",
    "zero_grad",
    "scale",
    "unscale_",
    "update",
    "clip_grad_norm_",
    "clip_grad_value_",
}
WAITS = {"item", "cpu", "tolist"}
SWITCHES = {"train", "eval", "set_grad_enabled", "no_grad", "inference_mode", "GradScaler"}
MATTERS = STEPS_OF_A_LOOP | WAITS | SWITCHES
RUNS_A_NETWORK = re.compile(r"^(model|net|network)$")
# A parameter that keeps its name, which tells what it is: the loader of a function called with `vl`.
NAMED_LOADER = re.compile(r"loader|(^|_)(dl|batches|data|dataset|iter|iterator)(_|$)", re.I)
KEPT_DECORATORS = ("no_grad", "inference_mode", "enable_grad", "set_grad_enabled", "autocast")


def unfold(tree: ast.Module) -> ast.Module:
    """Returns a copy of `tree` with calls replaced by what they do.

    Functions that were put in place everywhere they are called are left out where they are defined.
    """
    return _Unfolding(tree).module()


@dataclass
class _Place:
    """Where calls are looked at: the functions known by name there, the class, and the functions it is inside of."""

    functions: Mapping[str, Function]
    owner: str | None
    inside: tuple[Function, ...] = ()


@dataclass
class _Class:
    bases: list[str]
    methods: dict[str, Function] = field(default_factory=dict)


class _Unfolding:
    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._functions = _functions_in(tree.body)
        self._classes: dict[str, _Class] = {}
        self._made: dict[str, str] = {}  # what holds an object of a class of the script, as source -> the class
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                self._classes[node.name] = _Class([ast.unparse(base) for base in node.bases], _functions_in(node.body))
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Call)
                and isinstance(node.value.func, ast.Name)
                and node.value.func.id in self._classes
            ):
                self._made |= {ast.unparse(target): node.value.func.id for target in node.targets}
        self._mattering = self._find_mattering()
        self._calls = 0
        self._statements = 0
        self._in_place: set[Function] = set()
        self._kept: set[Function] = set()
        self._origins: dict[ast.AST, Function] = {}  # definition in the copy -> in the script

    def module(self) -> ast.Module:
        module = ast.Module(self._block(self._tree.body, _Place(self._functions, None)), [])
        gone: set[Function | None] = {*(self._in_place - self._kept)}
        for node in list(ast.walk(module)):
            for block in (getattr(node, name, None) for name in ("body", "orelse", "finalbody")):
                if isinstance(block, list):
                    block[:] = [each for each in block if self._origins.get(each) not in gone] or block[:1]
        return module

    def _find_mattering(self) -> set[str]:
        """Returns the names of the functions that matter: by what they call, or because they divide."""
        called: dict[str, set[str]] = {}
        found: set[str] = set()
        for node in ast.walk(self._tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            inner = list(ast.walk(node))
            names = {_called(call) for call in inner if isinstance(call, ast.Call)}
            called.setdefault(node.name, set()).update(names)
            divides = any(isinstance(each, ast.Div) for each in inner)
            returns = any(isinstance(each, ast.Return) and each.value is not None for each in inner)
            runs = any(map(RUNS_A_NETWORK.search, names))
            if runs or names & MATTERS or (divides and returns) or any(isinstance(each, LOOPS) for each in inner):
                found.add(node.name)
        while more := {name for name, names in called.items() if name not in found and names & found}:
            found |= more
        return found

    # definitions

    def _definition(self, node: ast.stmt, place: _Place) -> ast.stmt:
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        new = copied(node, {}, blocks=False)
        assert isinstance(new, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if isinstance(node, ast.ClassDef):
            new.body = self._block(node.body, _Place(place.functions, node.name, place.inside))
        else:
            inner = _Place({**place.functions, **_functions_in(node.body)}, place.owner, (*place.inside, node))
            new.body = self._block(node.body, inner)
            self._origins[new] = node
        return new

    # statements

    def _block(self, body: list[ast.stmt], place: _Place) -> list[ast.stmt]:
        return [new for statement in body for new in self._statement(statement, place)]

    def _statement(self, statement: ast.stmt, place: _Place) -> list[ast.stmt]:
        if isinstance(statement, SCOPES):
            return [self._definition(statement, place)]
        before: list[ast.stmt] = []
        replaced: dict[ast.AST, ast.expr] = {}
        for call in _calls_run_by(statement):
            function = self._function_called(call, place)
            if function is None:
                continue
            inlined = self._inlined(call, function, place, replaced)
            if inlined is None:
                self._kept.add(function)
                continue
            before.append(inlined)
            replaced[call] = located(ast.Name(function_in_place(inlined), ast.Load()), call)
        for function in self._functions_called_elsewhere(statement, replaced, place):
            self._kept.add(function)
        if isinstance(statement, ast.Expr) and statement.value in replaced:
            return before
        new = copied(statement, {}, replaced, blocks=False)
        assert isinstance(new, ast.stmt)
        for name, block in ast.iter_fields(statement):
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                setattr(new, name, self._block(block, place))
            elif name in ("handlers", "cases") and isinstance(block, list):
                for old, part in zip(block, getattr(new, name), strict=True):
                    part.body = self._block(old.body, place)
        return [*before, new]

    def _functions_called_elsewhere(
        self, statement: ast.stmt, replaced: Mapping[ast.AST, ast.expr], place: _Place
    ) -> Iterator[Function]:
        """Yields the functions called where nothing can be put in place: in a lambda, behind `and`, in `while f():`."""
        for part in _own_expressions(statement):
            for node in ast.walk(part):
                if isinstance(node, ast.Call) and node not in replaced:
                    function = self._function_called(node, place)
                    if function is not None:
                        yield function

    def _function_called(self, call: ast.Call, place: _Place) -> Function | None:
        """Returns the function of the script that `call` calls, if it is sure and matters."""
        function: Function | None = None
        if isinstance(call.func, ast.Name):
            function = place.functions.get(call.func.id)
        elif isinstance(call.func, ast.Attribute):
            owner = call.func.value
            if isinstance(owner, ast.Name) and owner.id == "self" and place.owner is not None:
                function = self._method(place.owner, call.func.attr)
            elif isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id in self._classes:
                function = self._method(owner.func.id, call.func.attr)
            elif (made := self._made.get(ast.unparse(owner))) is not None:
                function = self._method(made, call.func.attr)
        if function is None or function.name not in self._mattering:
            return None
        return function

    def _method(self, owner: str, name: str) -> Function | None:
        """Returns a method of a class: its own, that of a base, or, for a base's call, that of its only heir."""
        known = self._classes.get(owner)
        if known is None:
            return None
        if name in known.methods:
            return known.methods[name]
        for base in known.bases:
            if base != owner and base in self._classes and (found := self._method(base, name)) is not None:
                return found
        heirs = [each.methods[name] for each in self._classes.values() if owner in each.bases and name in each.methods]
        return heirs[0] if len(heirs) == 1 else None

    def _inlined(
        self, call: ast.Call, function: Function, place: _Place, replaced: Mapping[ast.AST, ast.expr]
    ) -> ast.With | None:
        """Returns the statements of `function` as `call` runs them; None where that is not to be had."""
        statements = sum(isinstance(each, ast.stmt) for each in ast.walk(function))
        if (
            function in place.inside
            or len(place.inside) > DEEPEST
            or self._statements + statements > MOST_STATEMENTS
            or any(isinstance(each, ast.Yield | ast.YieldFrom) for each in ast.walk(function))
        ):
            return None
        self._statements += statements
        self._calls += 1
        number = self._calls
        self._in_place.add(function)
        given = self._given(call, function, replaced)
        names: dict[str, ast.expr] = {name: ast.Name(f"{name}@{number}", ast.Load()) for name in bound_in(function)}
        stands = {name for name, value in given.items() if _is_chain(value) and not NAMED_LOADER.search(name)}
        names |= {name: given[name] for name in stands}
        names.pop("self", None)
        body: list[ast.stmt] = []
        for name, value in given.items():
            if name not in stands:
                target = located(ast.Name(f"{name}@{number}", ast.Store()), call)
                body.append(located(ast.Assign([target], value), call))
        copies = [copied(each, names) for each in function.body]
        owner = place.owner if isinstance(call.func, ast.Attribute) else None
        if isinstance(call.func, ast.Attribute) and not _is_self(call.func.value):
            owner = next((name for name, each in self._classes.items() if function in each.methods.values()), None)
        own = [each for each in copies if isinstance(each, ast.stmt)]
        known = {**self._functions, **place.functions, **_functions_in(own)}
        inner = _Place(known, owner, (*place.inside, function))
        result = f"{function.name}@{number}"
        body += _with_results(self._block(own, inner), result)
        itself = ast.withitem(located(ast.Name(result, ast.Load()), call), None)
        return located(ast.With([itself, *_decorators(function)], body), call)

    def _given(self, call: ast.Call, function: Function, replaced: Mapping[ast.AST, ast.expr]) -> dict[str, ast.expr]:
        """Returns the parameters that `call` gives, with their values."""
        parameters = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
        if isinstance(call.func, ast.Attribute) and parameters and parameters[0] in ("self", "cls"):
            parameters = parameters[1:]
        given: dict[str, ast.expr] = {}
        for parameter, value in zip(parameters, call.args, strict=False):
            if isinstance(value, ast.Starred):
                break
            given[parameter] = value
        known = {*parameters, *(each.arg for each in function.args.kwonlyargs)}
        given |= {each.arg: each.value for each in call.keywords if each.arg in known and each.arg is not None}
        return {name: expression(copied(value, {}, replaced)) for name, value in given.items()}


def _functions_in(body: list[ast.stmt]) -> dict[str, Function]:
    """Returns the functions defined in a block, behind `if` and `try` too; of two with one name, the last."""
    found: dict[str, Function] = {}
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            found[statement.name] = statement
        elif not isinstance(statement, SCOPES):
            for _, block in ast.iter_fields(statement):
                if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                    found |= _functions_in(block)
    return found


def _own_expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yields the parts of a statement that are no statements."""
    for child in ast.iter_child_nodes(statement):
        if not isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield child


def _calls_run_by(statement: ast.stmt) -> Iterator[ast.Call]:
    """Yields the calls that a statement makes for sure, and once, before it does anything else; inner ones first."""
    if isinstance(statement, ast.While):
        return
    for part in _own_expressions(statement):
        yield from _calls_in(part)


def _calls_in(node: ast.AST) -> Iterator[ast.Call]:
    only_perhaps = (ast.Lambda, ast.BoolOp, ast.IfExp, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    if isinstance(node, only_perhaps):
        return
    for child in ast.iter_child_nodes(node):
        yield from _calls_in(child)
    if isinstance(node, ast.Call):
        yield node


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _is_chain(value: ast.expr) -> bool:
    """Tells whether a value is a name or an attribute of one: it can stand for the parameter everywhere."""
    while isinstance(value, ast.Attribute):
        value = value.value
    return isinstance(value, ast.Name)


def _decorators(function: Function) -> list[ast.withitem]:
    """Returns the decorators that are contexts too: torch.no_grad() and the like."""
    kept = [each for each in function.decorator_list if any(name in ast.unparse(each) for name in KEPT_DECORATORS)]
    return [ast.withitem(expression(copied(each, {})), None) for each in kept]


def _with_results(body: list[ast.stmt], result: str) -> list[ast.stmt]:
    """Returns the statements with `return x` as `result = x; return`."""
    new: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, ast.Return) and statement.value is not None:
            target = located(ast.Name(result, ast.Store()), statement)
            new.append(located(ast.Assign([target], statement.value), statement))
            statement.value = None
        elif not isinstance(statement, SCOPES) and not function_in_place(statement):
            for block in _blocks(statement):
                block[:] = _with_results(block, result)
        new.append(statement)
    return new


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name, value in ast.iter_fields(statement):
        if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
            yield value
        elif name in ("handlers", "cases") and isinstance(value, list):
            yield from (each.body for each in value)
