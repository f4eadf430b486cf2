"""A syntax tree with what rules ask of it.

They ask who contains whom, what a name was imported as, and where a loop or function begins.

In a tree that was unfolded (unfold.py), the names that belong to a called function carry its call's number: `loss@3`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cached_property, lru_cache

Function = ast.FunctionDef | ast.AsyncFunctionDef
Loop = ast.For | ast.AsyncFor | ast.While
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.Module)
LOOPS = (ast.For, ast.AsyncFor, ast.While)
CALL_NUMBER = re.compile(r"@\d+")


def function_in_place(node: ast.AST) -> str:
    """Returns "train@3" for the statements of `train` that stand in place of call 3 of the script, "" for others.

    They stand in a `with train@3, decorators:` and a `return` in them ends them.
    """
    first = node.items[0].context_expr if isinstance(node, ast.With) else None
    return first.id if isinstance(first, ast.Name) and CALL_NUMBER.search(first.id) else ""


class Syntax:
    """A module's tree. A scope is a function, class or the module; a node's place is its innermost scope."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes in the order of the text; of an unfolded tree, in the order in which they run."""
        return list(_in_order(self.tree))

    @cached_property
    def _places(self) -> dict[ast.AST, int]:
        return {node: place for place, node in enumerate(self.nodes)}

    def is_after(self, node: ast.AST, other: ast.AST) -> bool:
        """Tells whether `node` comes after `other`, and is no part of it."""
        return self._places[node] > self._places[other] and other not in self.ancestors(node)

    @cached_property
    def calls(self) -> list[ast.Call]:
        """All calls in the order of the text."""
        return [node for node in self.nodes if isinstance(node, ast.Call)]

    @cached_property
    def functions(self) -> dict[str, Function]:
        """Functions and methods of the script by name; of two with one name, the last."""
        return {node.name: node for node in self.nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}

    @cached_property
    def _aliases(self) -> dict[str, str]:
        """Name in the script -> dotted name where it comes from."""
        found: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for name in node.names:
                    found[name.asname or name.name.partition(".")[0]] = (
                        name.name if name.asname else name.name.partition(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
        for node in self.nodes:  # clip = torch.nn.utils.clip_grad_norm_
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                chain = _chain(node.value)
                if len(chain) > 1 and found.get(chain[0], "").partition(".")[0] in ("torch", "torchvision"):
                    found.setdefault(node.targets[0].id, ".".join([found[chain[0]], *chain[1:]]))
        return found

    def dotted(self, node: ast.AST) -> str:
        """Returns the dotted name that a chain of names stands for, imports resolved; "" for anything else."""
        chain = _chain(node)
        return ".".join([self._aliases.get(chain[0], chain[0]), *chain[1:]]) if chain else ""

    def called(self, call: ast.Call) -> str:
        """Returns the dotted name of what is called."""
        return self.dotted(call.func)

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """Yields what contains `node`, from the inside out."""
        while (parent := self.parents.get(node)) is not None:
            yield parent
            node = parent

    def scope(self, node: ast.AST) -> ast.AST:
        """Returns the innermost function, class, lambda or module that contains `node`."""
        return next(parent for parent in self.ancestors(node) if isinstance(parent, SCOPES))

    def loops(self, node: ast.AST) -> list[Loop]:
        """Returns the loops of its own scope that `node` is in the body of, the innermost first."""
        found: list[Loop] = []
        child = node
        for parent in self.ancestors(node):
            if isinstance(parent, SCOPES):
                break
            if isinstance(parent, LOOPS) and child in parent.body:
                found.append(parent)
            child = parent
        return found

    def conditions(self, node: ast.AST, inside: ast.AST) -> list[ast.If]:
        """Returns the ifs between `node` and `inside`, in whose branches (not tests) `node` is."""
        found, child = [], node
        for parent in self.ancestors(node):
            if parent is inside:
                break
            if isinstance(parent, ast.If) and child is not parent.test:
                found.append(parent)
            child = parent
        return found

    def block(self, statement: ast.stmt) -> list[ast.stmt]:
        """Returns the list of statements that `statement` stands in."""
        parent = self.parents[statement]
        for _, value in ast.iter_fields(parent):
            if isinstance(value, list) and statement in value:
                return value
        return [statement]


def _chain(node: ast.AST) -> list[str]:
    """Returns ["a", "b", "c"] for a.b.c, nothing for what is no chain of names."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [*reversed([*names, node.id])] if isinstance(node, ast.Name) else []


def _in_order(root: ast.AST) -> Iterator[ast.AST]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += reversed(list(ast.iter_child_nodes(node)))


def within(root: ast.AST, kinds: type[ast.AST] | tuple[type[ast.AST], ...]) -> Iterator[ast.AST]:
    """Yields the nodes of `kinds` in `root`, itself included, but not those of functions and classes inside it."""
    if isinstance(root, kinds):
        yield root
    for child in ast.iter_child_nodes(root):
        if not isinstance(child, SCOPES):
            yield from within(child, kinds)


def names_in(node: ast.AST) -> set[str]:
    """Returns the plain names that `node` mentions."""
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


@lru_cache(50_000)
def text(node: ast.AST) -> str:
    """Returns `node` as source in one spelling, so that equal expressions compare equal."""
    return ast.unparse(node)


def plain(source: str) -> str:
    """Returns source as it was written, without the numbers of calls."""
    return CALL_NUMBER.sub("", source)


def last_name(node: ast.AST) -> str:
    """Returns the last name of a.b.c or f().c, as it was written; "" for what does not end in a name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return plain(node.id) if isinstance(node, ast.Name) else ""


def assigned(statement: ast.AST) -> list[tuple[ast.expr, ast.expr]]:
    """Returns (target, value) of an assignment, plain or annotated; nothing for other statements."""
    if isinstance(statement, ast.Assign):
        return [(target, statement.value) for target in statement.targets]
    if isinstance(statement, ast.AnnAssign | ast.NamedExpr) and statement.value is not None:
        return [(statement.target, statement.value)]
    return []


def argument(call: ast.Call, position: int, name: str) -> ast.expr | None:
    """Returns an argument by position or name, None where it is left out."""
    if len(call.args) > position:
        return call.args[position]
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def mentions(pattern: str, node: ast.AST) -> bool:
    """Tells whether `pattern` (a regular expression, case ignored) is found in the source of `node`."""
    return re.search(pattern, plain(text(node)), re.IGNORECASE) is not None
