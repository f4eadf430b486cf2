"""Walks every path through a script and watches the order of backward, unscale, clip, step and zero_grad.

A condition that was met before is met the same way again (`if use_amp:` twice is one decision), until one of its names
changes. What has no part in the order is passed by, so that the number of paths stays small. A rule is broken at a
place only when every path that reaches it breaks it: where some paths do and some do not, the script may know what we
cannot see.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from tune_cropshield.check_script.actions import Action, Actions
from tune_cropshield.check_script.conditions import JUMPS, Facts, case_met, conditions_met
from tune_cropshield.check_script.rules import Finding
from tune_cropshield.check_script.syntax import LOOPS, SCOPES, function_in_place, names_in, plain, text, within

MOST_PATHS = 600  # through one function; beyond, it is left unjudged

Gradients = Literal["unknown", "cleared", "fresh", "used", "lost"]  # lost: cleared before any step has used them
Judged = dict[tuple[str, int], set[bool]]  # (rule, line) -> whether each path that came by broke the rule


@dataclass(frozen=True)
class PathState:
    """What is known at one point of one path."""

    conditions: Facts = frozenset()  # conditions met, as source
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


def check_order(actions: Actions) -> tuple[list[Finding], list[tuple[int, str]]]:
    """Returns what is done in a wrong order, and (line, name) of each function with too many paths to be judged."""
    judged: Judged = {}
    unjudged: list[tuple[int, str]] = []
    for scope in actions.syntax.nodes:
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
            walk = _Walk(actions, scope)
            walk.walk(scope)
            unjudged += walk.unjudged
            for place, broken in walk.judged.items():
                judged.setdefault(place, set()).update(broken)
    return [Finding(line, rule) for (rule, line), broken in judged.items() if broken == {True}], unjudged


class _Walk:
    """The walk through a function or the module itself, and what was put in place in it."""

    def __init__(self, actions: Actions, scope: ast.AST) -> None:
        self.judged: Judged = {}
        self.unjudged: list[tuple[int, str]] = []
        self._actions = actions
        self._exits: list[_LoopExits] = []
        self._returns: list[set[PathState]] = []
        calls = [
            call
            for call in _own(scope, ast.Call)
            if isinstance(call, ast.Call) and (call in actions.by_call or actions.may_do_anything(call))
        ]
        self._acting = self._around(calls, scope)  # nodes that have a part in the order
        self._jumping = self._around(_own(scope, JUMPS), scope)
        asked: Counter[str] = Counter()
        for node in _own(scope, (ast.If, ast.IfExp, ast.Match)):
            if node in self._acting or node in self._jumping:
                sources = _asked_by(node)
                asked.update(sources)
                if node in self._acting and actions.syntax.loops(node):
                    asked.update(sources)  # in the loop's next run
        self._asked_again = {source for source, times in asked.items() if times > 1}

    def _around(self, nodes: Iterable[ast.AST], scope: ast.AST) -> set[ast.AST]:
        """Returns `nodes` and what they stand in, up to `scope`."""
        found: set[ast.AST] = set()
        for node in nodes:
            found.add(node)
            for parent in self._actions.syntax.ancestors(node):
                if parent is scope or parent in found:
                    break
                found.add(parent)
        return found

    def walk(self, scope: ast.FunctionDef | ast.AsyncFunctionDef | ast.Module) -> None:
        try:
            self._block(scope.body, frozenset({PathState()}))
        except _TooManyPaths:
            self.judged.clear()
            self.unjudged = [(getattr(scope, "lineno", 1), getattr(scope, "name", "the script itself"))]

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
        if statement not in self._acting and statement not in self._jumping:
            return self._without_conditions_on(_names_assigned(statement), states)
        if isinstance(statement, ast.If):
            states = self._expressions(statement.test, states)
            taken = self._block(statement.body, self._branch(statement.test, True, states))
            return taken | self._block(statement.orelse, self._branch(statement.test, False, states))
        if isinstance(statement, LOOPS):
            return self._loop(statement, states)
        if isinstance(statement, ast.With | ast.AsyncWith):
            if function_in_place(statement):
                return self._in_place(statement, states)
            for item in statement.items:
                states = self._expressions(item.context_expr, states)
            return self._block(statement.body, states)
        if isinstance(statement, ast.Try | ast.TryStar):
            tried = self._block(statement.body, states)
            handled = [self._block(handler.body, states | tried) for handler in statement.handlers]
            return self._block(statement.finalbody, self._block(statement.orelse, tried).union(*handled))
        if isinstance(statement, ast.Match):
            states = self._expressions(statement.subject, states)
            cases = (self._block(case.body, self._met(case_met(statement, case), states)) for case in statement.cases)
            return states.union(*cases)
        states = self._expressions(statement, states)
        if isinstance(statement, ast.Break | ast.Continue) and self._exits:
            (self._exits[-1].breaks if isinstance(statement, ast.Break) else self._exits[-1].continues).update(states)
            return frozenset()
        if isinstance(statement, ast.Return | ast.Raise):
            if isinstance(statement, ast.Return) and self._returns:
                self._returns[-1].update(states)
            return frozenset()
        return self._without_conditions_on(_names_assigned(statement), states)

    def _in_place(self, function: ast.With | ast.AsyncWith, states: PathStates) -> PathStates:
        """Walks a function where it is called. One with too many paths may have done anything."""
        name = function_in_place(function)
        judged_before = {place: set(broken) for place, broken in self.judged.items()}
        exits, self._exits = self._exits, []
        self._returns.append(set())
        try:
            after = self._block(function.body, states) | self._returns[-1]
            if len(after) > MOST_PATHS:
                raise _TooManyPaths
        except _TooManyPaths:
            self.judged = judged_before
            self.unjudged.append((function.body[0].lineno, plain(name)))
            after = frozenset(state.after_unknown_call() for state in states)
        self._exits = exits
        self._returns.pop()
        number = re.compile(re.escape(name[name.index("@") :]) + r"\b")  # what it asked of its own names is over
        return frozenset(
            replace(state, conditions=frozenset(each for each in state.conditions if not number.search(each[0])))
            for state in after
        )

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
        """Returns the states in which `test` may be `truth`, with that noted where it is asked again."""
        return self._met(conditions_met(test, truth), states)

    def _met(self, new: Facts, states: PathStates) -> PathStates:
        """Returns the states that `new` does not contradict, with it noted where it is asked again."""
        noted = frozenset(each for each in new if each[0] in self._asked_again)
        return frozenset(
            replace(state, conditions=state.conditions | noted)
            for state in states
            if not any((source, not value) in state.conditions for source, value in new)
        )

    @staticmethod
    def _without_conditions_on(names: set[str], states: PathStates) -> PathStates:
        if not names:
            return states
        pattern = re.compile(r"\b(" + "|".join(map(re.escape, sorted(names))) + r")(?![\w@])")
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
        if node not in self._acting:
            return states
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
            if self._actions.may_do_anything(node):
                return frozenset(state.after_unknown_call() for state in states)
        return states

    def _judge(self, rule: str, place: ast.expr, broken: bool) -> None:
        self.judged.setdefault((rule, place.lineno), set()).add(broken)

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
            if backward.scaled is False:
                self._judge("loss-not-scaled", backward.call, by_scaler)
            elif backward.scaled and not by_scaler:
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


def _own(scope: ast.AST, kinds: type[ast.AST] | tuple[type[ast.AST], ...]) -> Iterable[ast.AST]:
    """Yields the nodes of `kinds` in a function or module, not those of the functions and classes defined in it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, SCOPES):
            yield from within(child, kinds)


def _asked_by(node: ast.AST) -> set[str]:
    """Returns the conditions that an if or a match decides on, as source."""
    facts: Facts = frozenset()
    if isinstance(node, ast.If | ast.IfExp):
        facts = conditions_met(node.test, True) | conditions_met(node.test, False)
    elif isinstance(node, ast.Match):
        facts = case_met(node, node.cases[0])
    return {source for source, _ in facts}


def _names_assigned(statement: ast.stmt) -> set[str]:
    """Returns the names that a statement gives new values."""
    return {
        node.id if isinstance(node, ast.Name) else text(node)
        for node in ast.walk(statement)
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
