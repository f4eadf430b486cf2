"""Walks every path through a function and watches the order of backward, unscale, clip, step and zero_grad.

A condition that was met before is met the same way again (`if use_amp:` twice is one decision), until one of its names
changes. A rule is broken at a place only when every path that reaches it breaks it: where some paths do and some do
not, the script may know what we cannot see.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from tune_cropshield.check_script.actions import Action, Actions
from tune_cropshield.check_script.rules import Finding, finding_at
from tune_cropshield.check_script.syntax import LOOPS, SCOPES, names_in, text

MOST_PATHS = 400  # through one function; beyond, it is left unjudged

Gradients = Literal["unknown", "cleared", "fresh", "used", "lost"]  # lost: cleared before any step has used them


@dataclass(frozen=True)
class PathState:
    """What is known at one point of one path through a function."""

    conditions: frozenset[tuple[str, bool]] = frozenset()  # conditions met, as source
    gradients: Gradients = "unknown"
    backwards: frozenset[Action] = frozenset()  # whose gradients no step has used yet
    unscaled: frozenset[str] = frozenset()  # optimizers
    maybe_unscaled: bool = False  # something we cannot see into had the optimizer in its hands
    clips: frozenset[tuple[Action, bool]] = frozenset()  # since the last step, and whether each came after unscaling
    stepped: frozenset[str] = frozenset()  # optimizers that have used these gradients

    def after_unknown_call(self) -> PathState:
        """Returns what is still known after a call that may have done anything."""
        return PathState(self.conditions, maybe_unscaled=True)


PathStates = frozenset[PathState]


@dataclass
class _LoopExits:
    """The states in which paths leave a loop's body."""

    breaks: set[PathState] = field(default_factory=set)
    continues: set[PathState] = field(default_factory=set)


class _TooManyPaths(Exception):
    pass


def check_order(actions: Actions) -> list[Finding]:
    """Returns what is done in a wrong order, in each function and in the module itself."""
    findings: list[Finding] = []
    for scope in actions.syntax.nodes:
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
            findings += _FunctionWalk(actions).findings(scope.body)
    return findings


class _FunctionWalk:
    """The walk through one function."""

    def __init__(self, actions: Actions) -> None:
        self._actions = actions
        # (rule, place) -> whether each path that came by broke the rule
        self._judged: dict[tuple[str, ast.AST], set[bool]] = {}
        self._exits: list[_LoopExits] = []

    def findings(self, body: list[ast.stmt]) -> list[Finding]:
        try:
            self._block(body, frozenset({PathState()}))
        except (_TooManyPaths, RecursionError):
            return []
        return [finding_at(rule, place) for (rule, place), broken in self._judged.items() if broken == {True}]

    # statements

    def _block(self, body: Iterable[ast.stmt], states: PathStates) -> PathStates:
        for statement in body:
            if not states:
                break
            states = self._statement(statement, states)
            if len(states) > MOST_PATHS:
                raise _TooManyPaths
        return states

    def _statement(self, statement: ast.stmt, states: PathStates) -> PathStates:
        if isinstance(statement, SCOPES):
            return states
        if isinstance(statement, ast.If):
            states = self._expressions(statement.test, states)
            taken = self._block(statement.body, self._branch(statement.test, True, states))
            return taken | self._block(statement.orelse, self._branch(statement.test, False, states))
        if isinstance(statement, LOOPS):
            return self._loop(statement, states)
        if isinstance(statement, ast.With | ast.AsyncWith):
            for item in statement.items:
                states = self._expressions(item.context_expr, states)
            return self._block(statement.body, states)
        if isinstance(statement, ast.Try | ast.TryStar):
            tried = self._block(statement.body, states)
            handled = [self._block(handler.body, states | tried) for handler in statement.handlers]
            return self._block(statement.finalbody, self._block(statement.orelse, tried).union(*handled))
        if isinstance(statement, ast.Match):
            states = self._expressions(statement.subject, states)
            return states.union(*(self._block(case.body, states) for case in statement.cases))
        states = self._expressions(statement, states)
        if isinstance(statement, ast.Break | ast.Continue) and self._exits:
            (self._exits[-1].breaks if isinstance(statement, ast.Break) else self._exits[-1].continues).update(states)
            return frozenset()
        if isinstance(statement, ast.Return | ast.Raise):
            return frozenset()
        return self._without_conditions_on(_names_assigned(statement), states)

    def _loop(self, loop: ast.For | ast.AsyncFor | ast.While, states: PathStates) -> PathStates:
        """Walks the body as if run twice at most: what a third time would show, the second has shown."""
        is_for = isinstance(loop, ast.For | ast.AsyncFor)
        states = self._expressions(loop.iter if isinstance(loop, ast.For | ast.AsyncFor) else loop.test, states)
        after: PathStates = states
        for _ in range(2):
            self._exits.append(_LoopExits())
            states = self._without_conditions_on(
                names_in(loop.target) if isinstance(loop, ast.For | ast.AsyncFor) else set(), states
            )
            states = self._block(loop.body, states)
            exits = self._exits.pop()
            states |= exits.continues
            after |= states | exits.breaks
            if len(after) > MOST_PATHS:
                raise _TooManyPaths
        return self._block(loop.orelse, after) if is_for else after

    def _branch(self, test: ast.expr, truth: bool, states: PathStates) -> PathStates:
        """Returns the states in which `test` may be `truth`, with that noted."""
        states_after = set()
        for state in states:
            new = _conditions_met(test, truth)
            if not any((source, not value) in state.conditions for source, value in new):
                states_after.add(replace(state, conditions=state.conditions | new))
        return frozenset(states_after)

    @staticmethod
    def _without_conditions_on(names: set[str], states: PathStates) -> PathStates:
        if not names:
            return states
        pattern = re.compile(r"\b(" + "|".join(map(re.escape, sorted(names))) + r")\b")
        return frozenset(
            replace(
                state,
                conditions=frozenset(condition for condition in state.conditions if not pattern.search(condition[0])),
            )
            for state in states
        )

    # expressions

    def _expressions(self, node: ast.AST, states: PathStates) -> PathStates:
        """Runs the calls in `node`, inner ones first."""
        if isinstance(node, ast.IfExp):
            states = self._expressions(node.test, states)
            taken = self._expressions(node.body, self._branch(node.test, True, states))
            return taken | self._expressions(node.orelse, self._branch(node.test, False, states))
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, SCOPES):
                states = self._expressions(child, states)
        if isinstance(node, ast.Call):
            action = self._actions.by_call.get(node)
            if action is not None:
                return frozenset(self._act(action, state) for state in states)
            if self._may_do_anything(node):
                return frozenset(state.after_unknown_call() for state in states)
        return states

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
        self._judged.setdefault((rule, place), set()).add(broken)

    def _act(self, action: Action, state: PathState) -> PathState:
        if action.kind == "backward":
            return replace(
                state,
                gradients="fresh",
                backwards=state.backwards | {action},
                maybe_unscaled=False,
                stepped=frozenset(),
                clips=frozenset(),
            )
        if action.kind == "unscale":
            self._judge("unscales-twice", action.call, action.subject in state.unscaled)
            return replace(state, unscaled=state.unscaled | {action.subject})
        if action.kind == "clip":
            return self._clip(action, state)
        if action.kind in ("step", "scaler step"):
            return self._step(action, state)
        if action.kind == "scaler update":
            return replace(state, unscaled=frozenset())
        if action.kind == "zero grad":
            lost = state.gradients in ("fresh", "lost")
            return replace(state, gradients="lost" if lost else "cleared", backwards=frozenset(), clips=frozenset())
        return state

    def _clip(self, action: Action, state: PathState) -> PathState:
        unscaled = bool(state.unscaled) or state.maybe_unscaled
        if any(backward.scaled for backward in state.backwards):
            self._judge("clip-before-unscale", action.call, not unscaled)
        if not state.maybe_unscaled:
            self._judge(
                "clips-twice", action.call, any(earlier.subject == action.subject for earlier, _ in state.clips)
            )
            if state.gradients != "unknown":
                self._judge("clip-without-gradients", action.call, state.gradients != "fresh")
        return replace(state, clips=state.clips | {(action, unscaled)})

    def _step(self, action: Action, state: PathState) -> PathState:
        by_scaler = action.kind == "scaler step"
        if state.gradients in ("lost", "fresh"):
            self._judge("zero-grad-before-step", action.call, state.gradients == "lost")
        for backward in state.backwards:
            if not backward.scaled:
                self._judge("loss-not-scaled", backward.call, by_scaler)
            elif not by_scaler:
                self._judge("steps-with-scaled-gradients", action.call, not state.unscaled and not state.maybe_unscaled)
        if by_scaler:
            for clip, unscaled in state.clips:
                self._judge("clip-before-unscale", clip.call, not unscaled)
        self._judge("steps-twice", action.call, action.subject in state.stepped)
        unscaled_left = state.unscaled - {action.subject} if by_scaler else state.unscaled
        return replace(
            state,
            gradients="used",
            backwards=frozenset(),
            clips=frozenset(),
            stepped=state.stepped | {action.subject},
            unscaled=unscaled_left,
        )


def _conditions_met(test: ast.expr, truth: bool) -> frozenset[tuple[str, bool]]:
    """Returns what holds when `test` is `truth`: the parts of a conjunction too, each in its positive form."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _conditions_met(test.operand, not truth)
    parts: frozenset[tuple[str, bool]] = frozenset()
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And if truth else ast.Or):
        for value in test.values:
            parts |= _conditions_met(value, truth)
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        opposite = {ast.IsNot: "is", ast.NotEq: "=="}.get(type(test.ops[0]))
        if opposite is not None:
            return frozenset({(f"{text(test.left)} {opposite} {text(test.comparators[0])}", not truth)})
    return parts | {(text(test), truth)}


def _names_assigned(statement: ast.stmt) -> set[str]:
    """Returns the names that a statement gives new values."""
    return {
        node.id if isinstance(node, ast.Name) else text(node)
        for node in ast.walk(statement)
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
