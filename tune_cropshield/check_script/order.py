"""Walks every way through a function and watches the order of backward, unscale, clip, step and zero_grad.

A condition that was met before is met the same way again (`if use_amp:` twice is one decision), until one of its names
changes. A rule is broken at a place only when every way that reaches it breaks it: where some ways do and some do not,
the script may know what we cannot see.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from tune_cropshield.check_script.actions import Action, Actions
from tune_cropshield.check_script.findings import Finding, found
from tune_cropshield.check_script.syntax import LOOPS, SCOPES, names_in, text

MOST_WAYS = 400  # through one function; beyond, it is left unjudged

Gradients = Literal["unknown", "cleared", "fresh", "used", "lost"]  # lost: cleared before any step has used them


@dataclass(frozen=True)
class Way:
    """What is known at one point of one way through a function."""

    facts: frozenset[tuple[str, bool]] = frozenset()  # conditions met, as source
    gradients: Gradients = "unknown"
    backwards: frozenset[Action] = frozenset()  # whose gradients no step has used yet
    unscaled: frozenset[str] = frozenset()  # optimizers
    maybe_unscaled: bool = False  # something we cannot see into had the optimizer in its hands
    clips: frozenset[tuple[Action, bool]] = frozenset()  # since the last step, and whether each came after unscaling
    stepped: frozenset[str] = frozenset()  # optimizers that have used these gradients

    def unseen(self) -> Way:
        """Returns the way after a call that may have done anything."""
        return Way(self.facts, maybe_unscaled=True)


Ways = frozenset[Way]


@dataclass
class _Ends:
    """Where ways leave a loop's body."""

    breaks: set[Way] = field(default_factory=set)
    continues: set[Way] = field(default_factory=set)


class _TooMany(Exception):
    pass


def check_order(actions: Actions) -> list[Finding]:
    """Returns what is done in a wrong order, in each function and in the module itself."""
    findings: list[Finding] = []
    for scope in actions.syntax.nodes:
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
            findings += _Walk(actions).findings(scope.body)
    return findings


class _Walk:
    """One function's walk. verdicts: (rule, place) -> whether each way that came by broke the rule."""

    def __init__(self, actions: Actions) -> None:
        self._actions = actions
        self._verdicts: dict[tuple[str, ast.AST], set[bool]] = {}
        self._ends: list[_Ends] = []

    def findings(self, body: list[ast.stmt]) -> list[Finding]:
        try:
            self._block(body, frozenset({Way()}))
        except (_TooMany, RecursionError):
            return []
        return [found(rule, place) for (rule, place), broken in self._verdicts.items() if broken == {True}]

    # statements

    def _block(self, body: Iterable[ast.stmt], ways: Ways) -> Ways:
        for statement in body:
            if not ways:
                break
            ways = self._statement(statement, ways)
            if len(ways) > MOST_WAYS:
                raise _TooMany
        return ways

    def _statement(self, statement: ast.stmt, ways: Ways) -> Ways:
        if isinstance(statement, SCOPES):
            return ways
        if isinstance(statement, ast.If):
            ways = self._expressions(statement.test, ways)
            taken = self._block(statement.body, self._decided(statement.test, True, ways))
            return taken | self._block(statement.orelse, self._decided(statement.test, False, ways))
        if isinstance(statement, LOOPS):
            return self._loop(statement, ways)
        if isinstance(statement, ast.With | ast.AsyncWith):
            for item in statement.items:
                ways = self._expressions(item.context_expr, ways)
            return self._block(statement.body, ways)
        if isinstance(statement, ast.Try | ast.TryStar):
            tried = self._block(statement.body, ways)
            handled = [self._block(handler.body, ways | tried) for handler in statement.handlers]
            return self._block(statement.finalbody, self._block(statement.orelse, tried).union(*handled))
        if isinstance(statement, ast.Match):
            ways = self._expressions(statement.subject, ways)
            return ways.union(*(self._block(case.body, ways) for case in statement.cases))
        ways = self._expressions(statement, ways)
        if isinstance(statement, ast.Break | ast.Continue) and self._ends:
            (self._ends[-1].breaks if isinstance(statement, ast.Break) else self._ends[-1].continues).update(ways)
            return frozenset()
        if isinstance(statement, ast.Return | ast.Raise):
            return frozenset()
        return self._forgetting(_bound(statement), ways)

    def _loop(self, loop: ast.For | ast.AsyncFor | ast.While, ways: Ways) -> Ways:
        """Walks the body as if run twice at most: what a third time would show, the second has shown."""
        is_for = isinstance(loop, ast.For | ast.AsyncFor)
        ways = self._expressions(loop.iter if isinstance(loop, ast.For | ast.AsyncFor) else loop.test, ways)
        after: Ways = ways
        for _ in range(2):
            self._ends.append(_Ends())
            ways = self._forgetting(names_in(loop.target) if isinstance(loop, ast.For | ast.AsyncFor) else set(), ways)
            ways = self._block(loop.body, ways)
            ends = self._ends.pop()
            ways |= ends.continues
            after |= ways | ends.breaks
            if len(after) > MOST_WAYS:
                raise _TooMany
        return self._block(loop.orelse, after) if is_for else after

    def _decided(self, test: ast.expr, truth: bool, ways: Ways) -> Ways:
        """Returns the ways on which `test` may be `truth`, with that noted."""
        decided = set()
        for way in ways:
            new = _facts(test, truth)
            if not any((source, not value) in way.facts for source, value in new):
                decided.add(replace(way, facts=way.facts | new))
        return frozenset(decided)

    @staticmethod
    def _forgetting(names: set[str], ways: Ways) -> Ways:
        if not names:
            return ways
        pattern = re.compile(r"\b(" + "|".join(map(re.escape, sorted(names))) + r")\b")
        return frozenset(
            replace(way, facts=frozenset(fact for fact in way.facts if not pattern.search(fact[0]))) for way in ways
        )

    # expressions

    def _expressions(self, node: ast.AST, ways: Ways) -> Ways:
        """Runs the calls in `node`, inner ones first."""
        if isinstance(node, ast.IfExp):
            ways = self._expressions(node.test, ways)
            taken = self._expressions(node.body, self._decided(node.test, True, ways))
            return taken | self._expressions(node.orelse, self._decided(node.test, False, ways))
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, SCOPES):
                ways = self._expressions(child, ways)
        if isinstance(node, ast.Call):
            action = self._actions.by_call.get(node)
            if action is not None:
                return frozenset(self._act(action, way) for way in ways)
            if self._may_do_anything(node):
                return frozenset(way.unseen() for way in ways)
        return ways

    def _may_do_anything(self, call: ast.Call) -> bool:
        handed = [*call.args, *(keyword.value for keyword in call.keywords)]
        if any(self._actions.role(value) in ("optimizer", "scaler") for value in handed):
            return True
        if isinstance(call.func, ast.Attribute):
            owner = text(call.func.value)
            return (
                owner == "self"
                or owner.startswith("super(")
                or re.search(r"backward|step|clip|optimi[sz]e", call.func.attr) is not None
            )
        return isinstance(call.func, ast.Name) and call.func.id in self._actions.syntax.functions

    def _judge(self, rule: str, place: ast.AST, broken: bool) -> None:
        self._verdicts.setdefault((rule, place), set()).add(broken)

    def _act(self, action: Action, way: Way) -> Way:
        if action.kind == "backward":
            return replace(
                way,
                gradients="fresh",
                backwards=way.backwards | {action},
                maybe_unscaled=False,
                stepped=frozenset(),
                clips=frozenset(),
            )
        if action.kind == "unscale":
            self._judge("unscales-twice", action.call, action.subject in way.unscaled)
            return replace(way, unscaled=way.unscaled | {action.subject})
        if action.kind == "clip":
            return self._clip(action, way)
        if action.kind in ("step", "scaler step"):
            return self._step(action, way)
        if action.kind == "scaler update":
            return replace(way, unscaled=frozenset())
        if action.kind == "zero grad":
            lost = way.gradients in ("fresh", "lost")
            return replace(way, gradients="lost" if lost else "cleared", backwards=frozenset(), clips=frozenset())
        return way

    def _clip(self, action: Action, way: Way) -> Way:
        unscaled = bool(way.unscaled) or way.maybe_unscaled
        if any(backward.scaled for backward in way.backwards):
            self._judge("clip-before-unscale", action.call, not unscaled)
        if not way.maybe_unscaled:
            self._judge("clips-twice", action.call, any(earlier.subject == action.subject for earlier, _ in way.clips))
            if way.gradients != "unknown":
                self._judge("clip-without-gradients", action.call, way.gradients != "fresh")
        return replace(way, clips=way.clips | {(action, unscaled)})

    def _step(self, action: Action, way: Way) -> Way:
        by_scaler = action.kind == "scaler step"
        if way.gradients in ("lost", "fresh"):
            self._judge("zero-grad-before-step", action.call, way.gradients == "lost")
        for backward in way.backwards:
            if not backward.scaled:
                self._judge("loss-not-scaled", backward.call, by_scaler)
            elif not by_scaler:
                self._judge("steps-with-scaled-gradients", action.call, not way.unscaled and not way.maybe_unscaled)
        if by_scaler:
            for clip, unscaled in way.clips:
                self._judge("clip-before-unscale", clip.call, not unscaled)
        self._judge("steps-twice", action.call, action.subject in way.stepped)
        unscaled_left = way.unscaled - {action.subject} if by_scaler else way.unscaled
        return replace(
            way,
            gradients="used",
            backwards=frozenset(),
            clips=frozenset(),
            stepped=way.stepped | {action.subject},
            unscaled=unscaled_left,
        )


def _facts(test: ast.expr, truth: bool) -> frozenset[tuple[str, bool]]:
    """Returns what holds when `test` is `truth`: the parts of a conjunction too, each in its positive form."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _facts(test.operand, not truth)
    parts: frozenset[tuple[str, bool]] = frozenset()
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And if truth else ast.Or):
        for value in test.values:
            parts |= _facts(value, truth)
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        opposite = {ast.IsNot: "is", ast.NotEq: "=="}.get(type(test.ops[0]))
        if opposite is not None:
            return frozenset({(f"{text(test.left)} {opposite} {text(test.comparators[0])}", not truth)})
    return parts | {(text(test), truth)}


def _bound(statement: ast.stmt) -> set[str]:
    """Returns the names that a statement gives new values."""
    return {
        node.id if isinstance(node, ast.Name) else text(node)
        for node in ast.walk(statement)
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
