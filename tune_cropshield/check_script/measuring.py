"""Rules about what a script logs and how it evaluates."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tune_cropshield.check_script.accumulation_loops import STEPS, is_over_micro_batches, training_loops
from tune_cropshield.check_script.actions import Actions
from tune_cropshield.check_script.rules import Finding, finding_at
from tune_cropshield.check_script.syntax import LOOPS, SCOPES, Loop, mentions, names_in, text, within

WITHOUT_GRADIENTS = r"no_grad|inference_mode|set_grad_enabled\(False\)"
HELD_OUT = re.compile(
    r"(^|_)(val|valid|validation|test|eval|evaluation|dev)_?(loader|dl|dataloader|data_loader|batches|generator)(_|\d|$)",
    re.I,
)


def check_measuring(actions: Actions) -> Iterator[Finding]:
    """Yields what is wrong with how the script logs and evaluates."""
    yield from _check_items(actions)
    yield from _check_means(actions)
    yield from _check_evaluation(actions)


def _check_items(actions: Actions) -> Iterator[Finding]:
    syntax = actions.syntax
    batch_loops = [loop for loop in training_loops(actions) if not _only_counts(loop) or is_over_micro_batches(loop)]
    for call in syntax.calls:
        is_item = (
            isinstance(call.func, ast.Attribute) and call.func.attr == "item" and not call.args and not call.keywords
        )
        loops = syntax.loops(call)
        if is_item and loops and loops[0] in batch_loops and not syntax.conditions(call, loops[0]):
            yield finding_at("item-in-loop", call)


def _only_counts(loop: Loop) -> bool:
    """Tells whether a loop runs over numbers: epochs of a whole batch, say."""
    return (
        isinstance(loop, ast.For)
        and isinstance(loop.iter, ast.Call)
        and text(loop.iter.func) in ("range", "trange", "tqdm.trange")
    )


def _check_means(actions: Actions) -> Iterator[Finding]:
    """total += loss.item() in a loop over a loader, and total / len(loader) after it."""
    syntax = actions.syntax
    for loop in training_loops(actions):
        if not isinstance(loop, ast.For | ast.AsyncFor):
            continue
        sums = {
            text(node.target)
            for node in within(loop, ast.AugAssign)
            if isinstance(node, ast.AugAssign)
            and isinstance(node.op, ast.Add)
            and mentions(r"loss", node.value)
            and not _is_weighted(node.value)
        }
        loaders = {name for name in names_in(loop.iter) | _where_from(loop, actions)}
        for node in within(syntax.scope(loop), ast.BinOp):
            assert isinstance(node, ast.BinOp)
            if not isinstance(node.op, ast.Div) or text(node.left) not in sums or node in set(ast.walk(loop)):
                continue
            right = node.right
            is_length = isinstance(right, ast.Call) and syntax.called(right) == "len" and len(right.args) == 1
            if is_length and isinstance(right, ast.Call) and text(right.args[0]) in loaders:
                yield finding_at("mean-of-batch-means", node)


def _is_weighted(value: ast.expr) -> bool:
    """Tells whether a batch's loss is multiplied by its number of samples."""
    return mentions(
        r"\.size\(|\.shape\[|\blen\(|numel\(|batch_size|\bbs\b|\bn\b|num_|count|sum\(\)\.item\(\)$|reduction", value
    )


def _where_from(loop: Loop, actions: Actions) -> set[str]:
    """Returns the names in what the loop's iterable was made from: pbar = tqdm(enumerate(loader))."""
    assert isinstance(loop, ast.For | ast.AsyncFor)
    wanted = names_in(loop.iter)
    scope = actions.syntax.scope(loop)
    return {
        name
        for node in within(scope, ast.Assign)
        if isinstance(node, ast.Assign) and any(text(target) in wanted for target in node.targets)
        for name in names_in(node.value)
    }


def _check_evaluation(actions: Actions) -> Iterator[Finding]:
    syntax = actions.syntax
    for loop in syntax.nodes:
        if not isinstance(loop, ast.For | ast.AsyncFor) or not any(
            HELD_OUT.search(name) for name in _all_names(loop.iter)
        ):
            continue
        trains = actions.inside(loop, "backward", *STEPS)
        batch = names_in(loop.target)
        forwards = [call for call in within(loop, ast.Call) if isinstance(call, ast.Call) and _is_forward(call)]
        if (
            trains
            or not forwards
            or not batch
            or any(isinstance(node, LOOPS) and node is not loop for node in within(loop, LOOPS))
        ):
            continue
        if not _without_gradients(loop, actions):
            yield finding_at("evaluates-with-gradients", loop)
        if not _in_evaluation_mode(loop, actions):
            yield finding_at("evaluates-in-training-mode", loop)


def _all_names(node: ast.AST) -> set[str]:
    return names_in(node) | {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}


def _is_forward(call: ast.Call) -> bool:
    """Tells whether `call` runs a network, by the network's usual names."""
    name = (
        call.func.id
        if isinstance(call.func, ast.Name)
        else call.func.attr
        if isinstance(call.func, ast.Attribute)
        else ""
    )
    return re.search(r"^(model|net|network|classifier|student)$", name) is not None and bool(call.args)


def _without_gradients(loop: ast.AST, actions: Actions) -> bool:
    """Tells whether gradients are off here.

    They may be off around the loop, inside it, for the whole function, or wherever the function is called.
    """
    syntax = actions.syntax
    if mentions(WITHOUT_GRADIENTS, loop):
        return True
    for parent in syntax.ancestors(loop):
        if isinstance(parent, ast.With) and any(
            mentions(WITHOUT_GRADIENTS, item.context_expr) for item in parent.items
        ):
            return True
        if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef):
            if any(mentions(WITHOUT_GRADIENTS, decorator) for decorator in parent.decorator_list):
                return True
            calls = [call for call in syntax.calls if syntax.called(call).rpartition(".")[2] == parent.name]
            return bool(calls) and all(
                _without_gradients(call, actions) for call in calls if call not in set(ast.walk(parent))
            )
    return mentions(r"set_grad_enabled\(False\)", syntax.tree)


def _in_evaluation_mode(loop: ast.AST, actions: Actions) -> bool:
    """Tells whether the network is in evaluation mode in `loop`.

    Either .eval() (or .train(False)) is called before it in its function, or, in a function, anywhere else: its caller
    may have done it.
    """
    syntax = actions.syntax
    scope = syntax.scope(loop)
    line = loop.lineno if isinstance(loop, ast.stmt | ast.expr) else 0
    switches = [call for call in syntax.calls if re.search(r"\.(eval\(\)|train\((mode=)?False\))$", text(call))]
    if any(syntax.scope(call) is scope and call.lineno < line + 1 for call in switches) or any(
        call in set(ast.walk(loop)) for call in switches
    ):
        return True
    if isinstance(scope, SCOPES) and not isinstance(scope, ast.Module):
        return any(syntax.scope(call) is not scope for call in switches)  # its caller may have switched
    return False
