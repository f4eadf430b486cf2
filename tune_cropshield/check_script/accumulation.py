"""Rules about gradient accumulation: what a window's gradient is made of, and what is done once per window."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator

from tune_cropshield.check_script.accumulation_loops import (
    STEPS,
    AccumulationLoop,
    accumulation_loops,
    directly_in,
    divides_by,
    is_over_micro_batches,
    training_loops,
)
from tune_cropshield.check_script.actions import Action, Actions, Kind
from tune_cropshield.check_script.rules import Finding, finding_at
from tune_cropshield.check_script.syntax import LOOPS, Loop, argument, assigned, mentions, names_in, text, within

WEIGHTED_LOSSES = re.compile(r"(CrossEntropyLoss|NLLLoss|BCEWithLogitsLoss|cross_entropy|nll_loss)$")

ONCE_PER_WINDOW: dict[str, Kind] = {
    "zero-grad-in-window": "zero grad",
    "clip-per-micro-batch": "clip",
    "unscales-twice": "unscale",
    "scheduler-per-micro-batch": "scheduler step",
}


def check_accumulation(actions: Actions) -> Iterator[Finding]:
    """Yields what is wrong with the script's windows."""
    windows = accumulation_loops(actions)
    for window in windows:
        if (
            not window.takes_last
            and window.from_loop
            and _is_cleared_beside(window.loop, actions)
            and not _is_cut_to_fit(window.loop)
        ):
            yield finding_at("last-window-dropped", window.test)
        yield from _check_loss(window, actions)
        for rule, kind in ONCE_PER_WINDOW.items():
            for action in directly_in(actions, window.loop, kind):
                if not window.holds(action.call) and not _conditions(action, window.loop, actions):
                    yield finding_at(rule, action.call)
    for loop in training_loops(actions):
        if loop not in [window.loop for window in windows]:
            yield from _check_inner_loop(loop, actions)
    yield from _check_twins(actions)


def _conditions(action: Action, loop: Loop, actions: Actions) -> list[ast.If]:
    """Returns the conditions on which `action` is done, but for whether its subject is there at all."""
    return [
        test
        for test in actions.syntax.conditions(action.call, loop)
        if not names_in(test.test) <= names_in(action.call)
    ]


def _is_cleared_beside(loop: Loop, actions: Actions) -> bool:
    """Tells whether the gradients are cleared right before or after `loop`, once for each run of it.

    What the loop leaves over is then lost.

    A loop inside `with tqdm(loader) as bar:` stands where the with stands.
    """
    place: ast.stmt = loop
    while isinstance(parent := actions.syntax.parents[place], ast.With):
        place = parent
    cleared = {action.call for action in actions.of("zero grad")}
    beside = [statement for statement in actions.syntax.block(place) if statement is not place]
    return any(node in cleared for statement in beside for node in within(statement, ast.Call))


def _is_cut_to_fit(loop: Loop) -> bool:
    """Tells whether the loop runs over whole windows only, as with islice(loader, len(loader) // k * k)."""
    return isinstance(loop, ast.For | ast.AsyncFor) and (
        mentions("islice|drop_last", loop.iter) or "//" in text(loop.iter)
    )


def _check_loss(window: AccumulationLoop, actions: Actions) -> Iterator[Finding]:
    size, loop = text(window.size), window.loop
    divisions = _divisions(loop, size, actions)
    if not divisions:
        yield from _check_undivided(window, actions)
        return
    rescaled = mentions(r"\.grad\b.*(mul_|div_|\*=|/=)|_foreach_(mul|div)", actions.syntax.scope(loop))
    if window.takes_last and not rescaled:
        yield finding_at("ragged-window-mean", divisions[0])
    if _has_class_weights(actions):
        yield finding_at("class-weights-mean", divisions[0])


def _divisions(loop: Loop, divisor: str, actions: Actions) -> list[ast.AST]:
    """Returns where in `loop` something is divided by `divisor`: x / k, x /= k, x.div(k).

    Divisions of what is only logged are left out.
    """
    found_in: list[ast.AST] = []
    for node in within(loop, (ast.BinOp, ast.AugAssign, ast.Call)):
        by: ast.expr | None = None
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            by = node.right if isinstance(node, ast.BinOp) else node.value
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("div", "div_", "true_divide")
        ):
            by = argument(node, 0, "other")
        if by is not None and text(by) == divisor:
            found_in.append(node)
    logged = {inner for call in actions.syntax.calls for inner in ast.walk(call) if mentions(r"\.item\(\)", call)}
    return [node for node in found_in if node not in logged]


def _check_undivided(window: AccumulationLoop, actions: Actions) -> Iterator[Finding]:
    """Judges only a loss that is seen to come straight from a call in the loop.

    A loss that was made elsewhere may have been divided there.
    """
    loop, size = window.loop, text(window.size)
    if mentions(r"\.grad\b|_foreach_|reduction\s*=\s*'(sum|none)'", actions.syntax.tree) or size == "1":
        return
    for action in directly_in(actions, loop, "backward"):
        names = names_in(action.call)
        values = [
            value
            for node in within(loop, (ast.Assign, ast.AnnAssign))
            for target, value in assigned(node)
            if text(target) in names
        ]
        changed = [
            node
            for node in within(loop, ast.AugAssign)
            if isinstance(node, ast.AugAssign) and text(node.target) in names
        ]
        loss = [
            value for value in values if isinstance(value, ast.Call | ast.Attribute) and not mentions(r"scale\(", value)
        ]
        if (
            loss
            and not changed
            and not any(_is_arithmetic(value) or size in text(value) for value in values)
            and not _is_arithmetic(action.call)
        ):
            yield finding_at("loss-not-divided", action.call)


def _is_arithmetic(node: ast.AST) -> bool:
    return any(
        isinstance(inner, ast.BinOp) or (isinstance(inner, ast.Attribute) and inner.attr in ("div", "mul", "sum"))
        for inner in ast.walk(node)
    )


def _has_class_weights(actions: Actions) -> bool:
    for call in actions.syntax.calls:
        if WEIGHTED_LOSSES.search(actions.syntax.called(call)) is None:
            continue
        functional = actions.syntax.called(call).rpartition(".")[2].islower()
        weight = argument(call, 2 if functional else 0, "weight")
        reduction = argument(call, 99, "reduction")
        if weight is not None and text(weight) != "None" and (reduction is None or text(reduction) == "'mean'"):
            return True
    return False


def _check_inner_loop(loop: Loop, actions: Actions) -> Iterator[Finding]:
    """A loop over one window's micro-batches: its step, if it is shown, comes after it."""
    if directly_in(actions, loop, *STEPS) or any(
        isinstance(node, LOOPS) and node is not loop for node in within(loop, LOOPS)
    ):
        return
    block = actions.syntax.block(loop)
    after = itertools.takewhile(lambda statement: not isinstance(statement, LOOPS), block[block.index(loop) + 1 :])
    steps = {action.call for action in actions.of("step", "scaler step")}
    steps_after = any(node in steps for statement in after for node in within(statement, ast.Call))
    if not steps_after and not is_over_micro_batches(loop):
        return  # gradients for another purpose: a saliency map, Fisher information
    for action in directly_in(actions, loop, "zero grad"):
        if not _conditions(action, loop, actions):
            yield finding_at("zero-grad-in-window", action.call)


def _check_twins(actions: Actions) -> Iterator[Finding]:
    """A loss that is divided in one backward and bare in another: the bare one was forgotten."""
    backwards = actions.of("backward")
    for divided in backwards:
        quotient = next(
            (n for n in ast.walk(divided.call.func) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div)), None
        )
        if quotient is None or not isinstance(quotient.left, ast.Name):
            continue
        loss, scope = quotient.left.id, actions.syntax.scope(divided.call)
        if any(
            divides_by(node, text(quotient.right)) and text(node).startswith(f"{loss} = ")
            for node in within(scope, ast.Assign)
        ):
            continue
        for bare in backwards:
            if (
                actions.syntax.scope(bare.call) is scope
                and loss in names_in(bare.call)
                and not _is_arithmetic(bare.call)
            ):
                yield finding_at("loss-not-divided", bare.call)
