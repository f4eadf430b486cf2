"""Whether a window's loss is divided by the number of its micro-batches, followed from backward to where it is made."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tune_cropshield.check_script.accumulation_loops import AccumulationLoop
from tune_cropshield.check_script.actions import Action, Actions
from tune_cropshield.check_script.conditions import exclude_each_other, facts_at
from tune_cropshield.check_script.syntax import argument, assigned, last_name, mentions, text, within

AS_LARGE = ("mean", "to", "float", "cuda", "clone", "contiguous", "squeeze")  # methods that leave a loss's size alone
RESIZED = ("div", "div_", "mul", "mul_", "sum", "true_divide", "__truediv__")


def divisions(window: AccumulationLoop, actions: Actions) -> list[ast.AST]:
    """Returns where something is divided by a window's size: x / k, x /= k, x.div(k).

    Divisions of what is only logged are left out.
    """
    found: list[ast.AST] = []
    for node in within(window.loop, (ast.BinOp, ast.AugAssign, ast.Call)):
        by: ast.expr | None = None
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            by = node.right if isinstance(node, ast.BinOp) else node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and "div" in node.func.attr:
            by = argument(node, 0, "other")
        if by is not None and text(by) == text(window.size):
            found.append(node)
    logged = {inner for call in actions.syntax.calls for inner in ast.walk(call) if mentions(r"\.item\(\)", call)}
    return [
        node
        for node in found
        if node not in logged and not exclude_each_other(facts_at(node, window.loop, actions.syntax), window.facts)
    ]


def may_be_divided(backward: Action, window: AccumulationLoop, actions: Actions) -> bool:
    """Tells whether the loss of `backward` may be divided by the window's size, somewhere on its way there.

    False only where all of the way is seen: a loss that is made outside the loop may be divided there.
    """
    assert isinstance(backward.call.func, ast.Attribute)
    return _Way(backward, window, actions).may_divide(backward.call.func.value, frozenset())


class _Way:
    def __init__(self, backward: Action, window: AccumulationLoop, actions: Actions) -> None:
        self._window = window
        self._actions = actions
        self._facts = facts_at(backward.call, window.loop, actions.syntax)

    def may_divide(self, node: ast.expr | None, on_the_way: frozenset[str]) -> bool:
        """Tells whether `node` may be divided; None is what cannot be followed. on_the_way: names that led here."""
        size = self._window.size
        if node is None or any(isinstance(inner, type(size)) and text(inner) == text(size) for inner in ast.walk(node)):
            return True
        if isinstance(node, ast.Name):
            if node.id in on_the_way:
                return False  # loss = f(loss): told by the name's other values
            values = list(self._values(node.id))
            return not values or any(self.may_divide(value, on_the_way | {node.id}) for value in values)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            terms = _terms(node)
            seen = [*_shares_of_one(terms), *(term for term in terms if not isinstance(term, ast.BinOp))]
            return all(self.may_divide(term, on_the_way) for term in seen)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            factors = [each for each in (node.left, node.right) if not isinstance(each, ast.Constant)]
            fraction = isinstance(size, ast.Constant) or len(factors) != 1  # 0.25 * loss in windows of 4
            return fraction or self.may_divide(factors[0], on_the_way)
        if isinstance(node, ast.IfExp):
            return self.may_divide(node.body, on_the_way) or self.may_divide(node.orelse, on_the_way)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "scale" and node.args:
                return self.may_divide(node.args[0], on_the_way)
            if node.func.attr in AS_LARGE:
                return self.may_divide(node.func.value, on_the_way)
            if node.func.attr in RESIZED:
                return True
        if isinstance(node, ast.Call):
            function = self._actions.syntax.functions.get(last_name(node.func))
            return function is not None and any(isinstance(each, ast.Div) for each in ast.walk(function))
        return not isinstance(node, ast.Attribute)  # outputs.loss

    def _values(self, name: str) -> Iterator[ast.expr | None]:
        """Yields what `name` is set to in the loop, where this backward may use it."""
        loop, syntax = self._window.loop, self._actions.syntax
        for node in within(loop, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr)):
            if exclude_each_other(facts_at(node, loop, syntax), self._facts):
                continue
            if isinstance(node, ast.AugAssign) and text(node.target) == name:
                yield node.value if isinstance(node.op, ast.Add | ast.Sub) else None
            for target, value in assigned(node):
                if text(target) == name:
                    yield value
                elif isinstance(target, ast.Tuple | ast.List) and name in (names := list(map(text, target.elts))):
                    yield from self._parts(value, names.index(name))

    def _parts(self, value: ast.expr, index: int) -> Iterator[ast.expr | None]:
        """Yields one value of several: of a, b = f(), where f's statements stand in place, or of a, b = x, y."""
        if isinstance(value, ast.Tuple) and index < len(value.elts):
            yield value.elts[index]
        elif isinstance(value, ast.Name) and "@" in value.id:
            for each in self._values(value.id):
                yield from self._parts(each, index) if each is not None else [None]
        elif isinstance(value, ast.Call) and self._actions.is_model(value.func):
            yield value
        else:
            yield None


def _terms(node: ast.expr) -> list[ast.expr]:
    """Returns the terms of a sum."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        return [*_terms(node.left), *_terms(node.right)]
    return [node]


def _shares_of_one(terms: list[ast.expr]) -> list[ast.expr]:
    """Returns a and b of a * share + b * (1 - share), as MixUp mixes two losses: their sum is as large as one."""
    products = [_factors(term) for term in terms]
    return [
        value
        for one in products
        for other in products
        for share in one
        if {f"1 - {text(share)}", f"1.0 - {text(share)}"} & set(map(text, other))
        for value in one
        if value is not share and len(one) == 2
    ]


def _factors(node: ast.expr) -> list[ast.expr]:
    """Returns the factors of a product."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return [*_factors(node.left), *_factors(node.right)]
    return [node]
