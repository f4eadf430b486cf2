"""What holds at a place of a script, because of the ifs around it and the jumps before it."""

from __future__ import annotations

import ast

from tune_cropshield.check_script.syntax import Syntax, text

Facts = frozenset[tuple[str, bool]]  # conditions as source, each in its positive form, and whether it holds
JUMPS: tuple[type[ast.stmt], ...] = (ast.Continue, ast.Break, ast.Return, ast.Raise)


def conditions_met(test: ast.expr, truth: bool) -> Facts:
    """Returns what holds when `test` is `truth`: the parts of a conjunction too."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return conditions_met(test.operand, not truth)
    parts: Facts = frozenset()
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And if truth else ast.Or):
        for value in test.values:
            parts |= conditions_met(value, truth)
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        left, right = text(test.left), text(test.comparators[0])
        if right == "None" and isinstance(test.ops[0], ast.Is | ast.IsNot | ast.Eq | ast.NotEq):
            return frozenset({(left, isinstance(test.ops[0], ast.IsNot | ast.NotEq) == truth)})  # as `if scaler:`
        opposite = {ast.IsNot: "is", ast.NotEq: "=="}.get(type(test.ops[0]))
        if opposite is not None:
            return frozenset({(f"{left} {opposite} {right}", not truth)})
    return parts | {(text(test), truth)}


def case_met(match: ast.Match, case: ast.match_case) -> Facts:
    """Returns what holds in a case of a match: that it is this one, and no other."""
    subject = text(match.subject)
    return frozenset((f"{subject} is case {number}", each is case) for number, each in enumerate(match.cases))


def facts_at(node: ast.AST, inside: ast.AST, syntax: Syntax, jumps: tuple[type[ast.stmt], ...] = JUMPS) -> Facts:
    """Returns what holds at `node` in each run of `inside`, which contains it.

    It holds by the ifs around `node`, and by the ifs before it that would have jumped away; only `jumps` count.
    """
    found: Facts = frozenset()
    child = node
    for parent in syntax.ancestors(node):
        if isinstance(child, ast.stmt):
            found |= _facts_of_jumps(child, syntax, jumps)
        if parent is inside:
            break
        if isinstance(parent, ast.If | ast.IfExp) and child is not parent.test:
            body = parent.body if isinstance(parent.body, list) else [parent.body]
            found |= conditions_met(parent.test, child in body)
        elif isinstance(parent, ast.Match) and isinstance(child, ast.match_case):
            found |= case_met(parent, child)
        child = parent
    return found


def _facts_of_jumps(statement: ast.stmt, syntax: Syntax, jumps: tuple[type[ast.stmt], ...]) -> Facts:
    """Returns what holds because an if before `statement` would have jumped away."""
    found: Facts = frozenset()
    for earlier in syntax.block(statement):
        if earlier is statement:
            break
        if isinstance(earlier, ast.If):
            if isinstance(earlier.body[-1], jumps):
                found |= conditions_met(earlier.test, False)
            elif earlier.orelse and isinstance(earlier.orelse[-1], jumps):
                found |= conditions_met(earlier.test, True)
    return found


def exclude_each_other(one: Facts, other: Facts) -> bool:
    """Tells whether two places are never reached in the same run, as the two branches of an if are not."""
    return any((source, not truth) in other for source, truth in one)
