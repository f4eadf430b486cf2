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
from tune_cropshield.check_script.conditions import facts_at
from tune_cropshield.check_script.division import divisions, may_be_divided
from tune_cropshield.check_script.rules import Finding, finding_at
from tune_cropshield.check_script.syntax import (
    LOOPS,
    Loop,
    argument,
    assigned,
    function_in_place,
    mentions,
    names_in,
    text,
    within,
)

WEIGHTED_LOSSES = re.compile(r"(CrossEntropyLoss|NLLLoss|BCEWithLogitsLoss|cross_entropy|nll_loss)$")

RESCALED = r"\.grad(\.data)?(\.(mul|div)_?\(| [*/]= )|_foreach_(mul|div)|reduction\s*=\s*'(sum|none)'"
NAMES = re.compile(r"[^\W\d]\w*")
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
            and window.counts
            and _is_cleared_beside(window.loop, actions)
            and not _is_cut_to_fit(window.loop)
        ):
            yield finding_at("last-window-dropped", window.test)
        yield from _check_loss(window, actions)
        for rule, kind in ONCE_PER_WINDOW.items():
            for action in directly_in(actions, window.loop, kind):
                if not window.holds(action.call) and any(
                    accompanies(action.call, backward, window.loop, actions) for backward in window.backwards
                ):
                    yield finding_at(rule, action.call)
    for loop in training_loops(actions):
        if loop not in [window.loop for window in windows]:
            yield from _check_inner_loop(loop, actions)
    yield from _check_twins(actions)


def accompanies(node: ast.AST, backward: Action, loop: Loop, actions: Actions) -> bool:
    """Tells whether `node` is run each time that `backward` is, in `loop`, and in every micro-batch.

    A condition on whether its subject is there at all does not count, nor does one that ends the loop.
    """
    subject = set(NAMES.findall(text(node))) | {"None", "is", "not"}
    around = itertools.takewhile(lambda parent: parent is not loop, actions.syntax.ancestors(node))
    returns_here = any(function_in_place(parent) for parent in around)  # to the loop, which goes on
    facts = facts_at(node, loop, actions.syntax, (ast.Continue, ast.Return) if returns_here else (ast.Continue,))
    if any("%" in source for source, _ in facts):
        return False  # a GAN's generator, trained on every fifth batch
    more = facts - facts_at(backward.call, loop, actions.syntax)
    return all(set(NAMES.findall(source)) <= subject for source, _ in more)


def _conditions(action: Action, loop: Loop, actions: Actions) -> list[ast.If]:
    """Returns the conditions on which `action` is done, but for whether its subject is there at all."""
    return [
        test
        for test in actions.syntax.conditions(action.call, loop)
        if not names_in(test.test) <= names_in(action.call)
    ]


def _is_cleared_beside(loop: Loop, actions: Actions) -> bool:
    """Tells whether the gradients are cleared right before or after `loop`, once for each run of it.

    What the loop leaves over is then lost. Another loop that trains clears for itself.
    """
    cleared = {action.call for action in actions.of("zero grad")}
    trains = {action.call for action in actions.of("backward")}
    for place in _places(loop, actions):
        for statement in actions.syntax.block(place):
            calls = set(within(statement, ast.Call)) if statement is not place else set()
            if calls & cleared and not calls & trains:
                return True
    return False


def _places(loop: Loop, actions: Actions) -> Iterator[ast.stmt]:
    """Yields the loop and the withs around it: a loop in `with tqdm(loader) as bar:` stands where the with stands.

    A function that was put in place of its call is such a with.
    """
    place: ast.stmt = loop
    yield place
    while isinstance(parent := actions.syntax.parents[place], ast.With):
        place = parent
        yield place


def _is_cut_to_fit(loop: Loop) -> bool:
    """Tells whether the loop runs over whole windows only, as with islice(loader, len(loader) // k * k)."""
    return isinstance(loop, ast.For | ast.AsyncFor) and (
        mentions("islice|drop_last", loop.iter) or "//" in text(loop.iter)
    )


def _check_loss(window: AccumulationLoop, actions: Actions) -> Iterator[Finding]:
    rescaled = mentions(RESCALED, actions.syntax.tree)
    for backward in window.backwards if not rescaled and text(window.size) != "1" else ():
        if not may_be_divided(backward, window, actions):
            yield finding_at("loss-not-divided", backward.call)
    divided = divisions(window, actions)
    changes = any(
        text(target) == text(window.size) for node in within(window.loop, ast.Assign) for target, _ in assigned(node)
    )
    if divided and window.takes_last and not rescaled and not changes:
        yield finding_at("ragged-window-mean", divided[0])
    if divided and _has_class_weights(actions):
        yield finding_at("class-weights-mean", divided[0])


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
    after = [
        statement
        for place in _places(loop, actions)
        for block in [actions.syntax.block(place)]
        for statement in itertools.takewhile(lambda each: not isinstance(each, LOOPS), block[block.index(place) + 1 :])
    ]
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
