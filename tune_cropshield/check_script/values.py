"""Where values come from: what a name was set to, followed back as far as the script shows it."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

from tune_cropshield.check_script.actions import Actions
from tune_cropshield.check_script.syntax import (
    SCOPES,
    Syntax,
    assigned,
    function_in_place,
    last_name,
    plain,
    text,
    within,
)

WITHOUT_GRADIENTS = r"no_grad|inference_mode|set_grad_enabled\((mode=)?False\)"
_HELD_OUT_PART = r"(val|valid|validation|test|eval|evaluation|dev|holdout)"
_LOADER_PART = r"(loaders?|dls?|dataloaders?|data_loaders?|batches|generator|iter|iterator|prefetcher)"
HELD_OUT = re.compile(
    rf"(^|_){_HELD_OUT_PART}_?{_LOADER_PART}(_|\d|$)|(^|_){_LOADER_PART}_{_HELD_OUT_PART}(_|\d|$)", re.I
)
HELD_OUT_KEY = re.compile(rf"^{_HELD_OUT_PART}$", re.I)
# What a tensor on the CPU is made by, if no device is named.
MADE_ON_CPU = re.compile(
    r"^(torch\.(rand|randn|randint|randperm|tensor|zeros|ones|arange|empty|full|bernoulli|normal|distributions)\b"
    r"|(numpy|np|random|math|time)\.)"
)
LOSS_CALL = re.compile(r"loss|crit|cross_entropy", re.I)
# Calls whose results are no tensors on the GPU: methods, and Python's own functions. A tensor's .float() is one still.
READ_ALREADY = ("item", "cpu", "numpy", "tolist", "size", "numel", "dim")
READ_ALREADY_BY = ("len", "float", "int", "bool", "isinstance")


class Values:
    """What each name of a script is set to, by the function that the name belongs to."""

    def __init__(self, actions: Actions) -> None:
        self._actions = actions
        self._values: dict[tuple[ast.AST | None, str], list[ast.expr]] = defaultdict(list)
        for node in actions.syntax.nodes:
            pairs = [*assigned(node)]
            if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
                pairs.append((node.target, node.iter))
            elif isinstance(node, ast.AugAssign):
                pairs.append((node.target, node.value))
            elif isinstance(node, ast.withitem) and node.optional_vars is not None:
                pairs.append((node.optional_vars, node.context_expr))
            for target, value in pairs:
                for name, part in _pairs(target, value):
                    self._values[self._key(name)].append(part)

    def _key(self, name: ast.expr) -> tuple[ast.AST | None, str]:
        """An attribute (self.scheduler) is one object throughout the script; a name belongs to its function."""
        syntax = self._actions.syntax
        return (syntax.scope(name) if isinstance(name, ast.Name) else None, text(name))

    def of(self, name: ast.expr) -> list[ast.expr]:
        """Returns what `name` is set to, anywhere in its function."""
        return self._values.get(self._key(name), [])

    def behind(self, value: ast.expr) -> Iterator[ast.AST]:
        """Yields the parts of `value` and of all that it is made from.

        What was read off the GPU already, and sizes, are not looked into.
        """
        waiting: list[ast.AST] = [value]
        seen: set[tuple[ast.AST | None, str]] = set()
        while waiting:
            node = waiting.pop()
            yield node
            if isinstance(node, ast.Call) and node is not value and _is_read_already(node):
                continue
            if isinstance(node, ast.Attribute) and node.attr in ("shape", "device", "dtype"):
                continue
            if isinstance(node, ast.Name | ast.Attribute) and self._key(node) not in seen:
                seen.add(self._key(node))
                waiting += self.of(node)
            waiting += ast.iter_child_nodes(node)

    def is_held_out(self, iterable: ast.expr) -> bool:
        """Tells whether `iterable` gives validation or test data, by the name of the loader that it is made from."""
        waiting: list[ast.AST] = [iterable]
        seen: set[str] = set()
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Name | ast.Attribute):
                if HELD_OUT.search(last_name(node)):
                    return True
                if text(node) not in seen:
                    seen.add(text(node))
                    waiting += self.of(node)
            elif isinstance(node, ast.Call):
                waiting += node.args
                if isinstance(node.func, ast.Attribute) and not node.args:
                    waiting.append(node.func.value)
            elif isinstance(node, ast.Subscript):
                key = node.slice.value if isinstance(node.slice, ast.Constant) else None
                if isinstance(key, str) and (HELD_OUT_KEY.search(key) or HELD_OUT.search(key)):
                    return True
        return False


def _is_read_already(call: ast.Call) -> bool:
    return last_name(call.func) in (READ_ALREADY if isinstance(call.func, ast.Attribute) else READ_ALREADY_BY)


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    if isinstance(target, ast.Tuple | ast.List):
        for index, each in enumerate(target.elts):
            whole = isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts)
            yield from _pairs(each, value.elts[index] if whole else value)  # type: ignore[attr-defined]
    elif isinstance(target, ast.Starred):
        yield from _pairs(target.value, value)
    elif isinstance(target, ast.Name | ast.Attribute):
        yield target, value


def read_in(loop: ast.AST, syntax: Syntax) -> list[ast.expr]:
    """Returns what a loop reads its batches from: what it runs over, and what next() is called with in it."""
    if isinstance(loop, ast.GeneratorExp | ast.ListComp | ast.SetComp | ast.DictComp):
        return [loop.generators[0].iter]
    found: list[ast.expr] = [loop.iter] if isinstance(loop, ast.For | ast.AsyncFor) else []
    for call in nexts_in(loop, syntax):
        found += call.args[:1] or ([call.func.value] if isinstance(call.func, ast.Attribute) else [])
    return found


def nexts_in(loop: ast.AST, syntax: Syntax) -> list[ast.Call]:
    """Returns the calls of next() in a loop, in no loop inside it."""
    return [
        call
        for call in within(loop, ast.Call)
        if isinstance(call, ast.Call) and last_name(call.func) == "next" and syntax.loops(call)[:1] == [loop]
    ]


def function_around(node: ast.AST, syntax: Syntax) -> str:
    """Returns the name of the function that `node` was written in, "" for the module itself."""
    for parent in syntax.ancestors(node):
        if name := function_in_place(parent):
            return plain(name)
        if isinstance(parent, SCOPES):
            return str(getattr(parent, "name", ""))
    return ""
