"""Where a training loop gathers micro-batches into windows: the loop, and the branch in which the optimizer steps."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from tune_cropshield.check_script.actions import Action, Actions, Kind
from tune_cropshield.check_script.syntax import LOOPS, Loop, assigned, names_in, text, within

STEPS: tuple[Kind, ...] = ("step", "scaler step")
COUNTS_MICRO_BATCHES = re.compile(r"accum|micro", re.I)


@dataclass(frozen=True)
class AccumulationLoop:
    """A loop over micro-batches that steps only every `size` of them, in the statements `stepping`.

    takes_last: the condition, or a step after the loop, also takes the epoch's last, shorter window. from_loop: the
    loop itself counts.
    """

    loop: Loop
    test: ast.expr
    size: ast.expr
    stepping: tuple[ast.stmt, ...]
    takes_last: bool
    from_loop: bool

    def holds(self, node: ast.AST) -> bool:
        """Tells whether `node` is in the stepping branch (or its test)."""
        return any(inner is node for part in (self.test, *self.stepping) for inner in ast.walk(part))


def accumulation_loops(actions: Actions) -> list[AccumulationLoop]:
    """Returns the loops of a script that accumulate gradients."""
    return [
        window
        for node in actions.syntax.nodes
        if isinstance(node, LOOPS) and (window := _accumulation_loop(node, actions)) is not None
    ]


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


def _accumulation_loop(loop: Loop, actions: Actions) -> AccumulationLoop | None:
    syntax = actions.syntax
    backwards = directly_in(actions, loop, "backward")
    if not backwards:
        return None
    for node in within(loop, ast.If):
        assert isinstance(node, ast.If)
        if syntax.loops(node)[:1] != [loop]:
            continue
        remainder = _remainder(node.test, loop)
        if remainder is None:
            continue
        block = syntax.block(node)
        skips = isinstance(node.body[-1], ast.Continue)
        stepping = tuple(block[block.index(node) + 1 :]) if skips else tuple(node.body)
        inside = {inner for statement in stepping for inner in ast.walk(statement)}
        steps = directly_in(actions, loop, *STEPS)
        if not any(step.call in inside for step in steps) or any(step.call not in inside for step in steps):
            continue  # no step, or another one in every micro-batch: two networks in turns (GAN), not accumulation
        if all(backward.call in inside for backward in backwards):
            continue
        test, mod = remainder
        counted = names_in(loop.target) if isinstance(loop, ast.For | ast.AsyncFor) else set()
        return AccumulationLoop(
            loop,
            node.test,
            mod.right,
            stepping,
            takes_last=any(isinstance(inner, ast.BoolOp) for inner in ast.walk(test)) or _steps_after(loop, actions),
            from_loop=bool(names_in(mod.left) & counted),
        )
    return None


def _remainder(test: ast.expr, loop: Loop) -> tuple[ast.expr, ast.BinOp] | None:
    """Returns (condition, its x % k) of a test for every k-th micro-batch.

    The test may stand there itself, or under a name that is set in the loop.
    """
    conditions = [test]
    for statement in within(loop, (ast.Assign, ast.AnnAssign)):
        conditions += [
            value
            for target, value in assigned(statement)
            if isinstance(target, ast.Name) and target.id in names_in(test)
        ]
    for condition in conditions:
        for node in ast.walk(condition):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and not isinstance(node.left, ast.Constant):
                return condition, node
    return None


def _steps_after(loop: Loop, actions: Actions) -> bool:
    """Tells whether the optimizer steps again after the loop, outside any other loop over batches."""
    scope = actions.syntax.scope(loop)
    end = loop.end_lineno or loop.lineno
    for action in actions.inside(scope, *STEPS):
        loops = actions.syntax.loops(action.call)
        if action.call.lineno > end and not any(inner.lineno > end for inner in loops):
            return True
    return False


def is_over_micro_batches(loop: Loop) -> bool:
    """Tells whether a loop runs over the micro-batches of one window, by what it calls them."""
    return isinstance(loop, ast.For | ast.AsyncFor) and COUNTS_MICRO_BATCHES.search(text(loop.iter)) is not None


def divides_by(loss: ast.AST, divisor: str) -> bool:
    """Tells whether an expression is divided by `divisor`, as source."""
    return any(
        isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and text(node.right) == divisor
        for node in ast.walk(loss)
    )
