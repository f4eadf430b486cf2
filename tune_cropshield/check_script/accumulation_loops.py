"""Where a training loop gathers micro-batches into windows: the loop, and the branch in which the optimizer steps."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from tune_cropshield.check_script.actions import Action, Actions, Kind
from tune_cropshield.check_script.conditions import Facts, exclude_each_other, facts_at
from tune_cropshield.check_script.syntax import Loop, assigned, names_in, text, within

STEPS: tuple[Kind, ...] = ("step", "scaler step")
COUNTS_MICRO_BATCHES = re.compile(r"accum|micro", re.I)


@dataclass(frozen=True)
class AccumulationLoop:
    """A loop over micro-batches that steps only every `size` of them, in the statements `stepping`.

    One loop has several where the optimizer steps in several branches, with and without a scaler. takes_last: the
    condition, or a step after the loop, also takes the epoch's last, shorter window. counts: the loop itself counts.
    backwards: those whose gradients are stepped here. facts: what holds here in the loop.
    """

    loop: Loop
    test: ast.expr
    size: ast.expr
    stepping: tuple[ast.stmt, ...]
    takes_last: bool
    counts: bool
    backwards: tuple[Action, ...]
    facts: Facts

    def holds(self, node: ast.AST) -> bool:
        """Tells whether `node` is in the stepping branch (or its test)."""
        return any(inner is node for part in (self.test, *self.stepping) for inner in ast.walk(part))


def accumulation_loops(actions: Actions) -> list[AccumulationLoop]:
    """Returns the loops of a script that accumulate gradients."""
    return [window for loop in training_loops(actions) for window in _windows(loop, actions)]


def training_loops(actions: Actions) -> list[Loop]:
    """Returns the loops that a backward pass stands in directly, each once."""
    found: list[Loop] = []
    for action in actions.of("backward"):
        loops = actions.syntax.loops(action.call)
        if loops and loops[0] not in found:
            found.append(loops[0])
    return found


def directly_in(actions: Actions, loop: Loop, *kinds: Kind) -> list[Action]:
    """Returns the actions of `kinds` that stand in `loop` and in no loop inside it."""
    inside = actions.inside(loop, *kinds)
    return [action for action in inside if actions.syntax.loops(action.call)[:1] == [loop]]


def _windows(loop: Loop, actions: Actions) -> list[AccumulationLoop]:
    syntax = actions.syntax
    found = []
    for node in within(loop, ast.If):
        assert isinstance(node, ast.If)
        if syntax.loops(node)[:1] != [loop]:
            continue
        remainder = _remainder(node.test, loop)
        if remainder is None:
            continue
        test, counter, size = remainder
        block = syntax.block(node)
        skips = isinstance(node.body[-1], ast.Continue)
        stepping = tuple(block[block.index(node) + 1 :]) if skips else tuple(node.body)
        inside = {inner for statement in stepping for inner in ast.walk(statement)}
        facts = facts_at(node, loop, syntax)

        def together(action: Action, facts: Facts = facts) -> bool:
            return not exclude_each_other(facts_at(action.call, loop, syntax), facts)

        steps = [step for step in directly_in(actions, loop, *STEPS) if together(step)]
        if not any(step.call in inside for step in steps) or any(step.call not in inside for step in steps):
            continue  # no step, or another one in every micro-batch: two networks in turns (GAN), not accumulation
        backwards = tuple(each for each in directly_in(actions, loop, "backward") if together(each))
        if all(backward.call in inside for backward in backwards):
            continue
        of_loop = names_in(loop.target) if isinstance(loop, ast.For | ast.AsyncFor) else set()
        takes_last = any(
            isinstance(inner, ast.BoolOp) and isinstance(inner.op, ast.Or)
            for condition in (node.test, test)
            for inner in ast.walk(condition)
        )
        found.append(
            AccumulationLoop(
                loop,
                node.test,
                size,
                stepping,
                takes_last=takes_last or (skips and _has_two_parts(node.test)) or _steps_after(loop, actions),
                counts=bool(names_in(counter) & of_loop) or text(counter) in _counters(loop),
                backwards=backwards,
                facts=facts,
            )
        )
    return found


def _has_two_parts(test: ast.expr) -> bool:
    """Tells whether a test to skip the step asks for more than the remainder: (i + 1) % k and i + 1 < n."""
    return any(isinstance(inner, ast.BoolOp) for inner in ast.walk(test))


def _counters(loop: Loop) -> set[str]:
    """Returns what the loop counts up itself, as source: n += 1."""
    return {
        text(node.target)
        for node in within(loop, ast.AugAssign)
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add)
    }


def _remainder(test: ast.expr, loop: Loop) -> tuple[ast.expr, ast.expr, ast.expr] | None:
    """Returns (condition, x, k) of a test for every k-th micro-batch: x % k, or x == k of an x that is set back to 0.

    The test may stand there itself, or under a name that is set in the loop.
    """
    conditions = [test]
    for statement in within(loop, (ast.Assign, ast.AnnAssign)):
        conditions += [
            value
            for target, value in assigned(statement)
            if isinstance(target, ast.Name) and target.id in names_in(test)
        ]
    counted = _counters(loop) & {
        text(target)
        for node in within(loop, ast.Assign)
        for target, value in assigned(node)
        if isinstance(value, ast.Constant) and value.value == 0
    }
    for condition in conditions:
        for node in ast.walk(condition):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and not isinstance(node.left, ast.Constant):
                return condition, node.left, node.right
            if (
                isinstance(node, ast.Compare)
                and len(node.ops) == 1
                and isinstance(node.ops[0], ast.Eq | ast.GtE)
                and text(node.left) in counted
            ):
                return condition, node.left, node.comparators[0]
    return None


def _steps_after(loop: Loop, actions: Actions) -> bool:
    """Tells whether the optimizer steps again after the loop, outside any other loop over batches."""
    scope = actions.syntax.scope(loop)
    around = set(actions.syntax.loops(loop))
    return any(
        actions.syntax.is_after(action.call, loop) and set(actions.syntax.loops(action.call)) <= around
        for action in actions.inside(scope, *STEPS)
    )


def is_over_micro_batches(loop: Loop) -> bool:
    """Tells whether a loop runs over the micro-batches of one window, by what it calls them."""
    return isinstance(loop, ast.For | ast.AsyncFor) and COUNTS_MICRO_BATCHES.search(text(loop.iter)) is not None


def divides_by(loss: ast.AST, divisor: str) -> bool:
    """Tells whether an expression is divided by `divisor`, as source."""
    return any(
        isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and text(node.right) == divisor
        for node in ast.walk(loss)
    )
