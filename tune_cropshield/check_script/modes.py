"""Rules about evaluation: without gradients, in evaluation mode, and back to training mode after it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tune_cropshield.check_script.accumulation_loops import STEPS, directly_in, training_loops
from tune_cropshield.check_script.actions import Actions
from tune_cropshield.check_script.rules import Finding, finding_at
from tune_cropshield.check_script.syntax import (
    LOOPS,
    SCOPES,
    Loop,
    function_in_place,
    last_name,
    mentions,
    names_in,
    text,
    within,
)
from tune_cropshield.check_script.values import WITHOUT_GRADIENTS, Values, function_around, read_in

LOADER = r"loader|\b(dl|batches|data|dataset|data_iter)\b"
NEEDS_GRADIENTS = r"requires_grad|autograd|\.backward\("  # adversarial examples, saliency
Comprehension = ast.GeneratorExp | ast.ListComp | ast.SetComp | ast.DictComp
COMPREHENSIONS = (ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp)
EVALUATES = re.compile(
    r"^_?(val|valid|validate|validation|eval|evaluate|evaluation|test|predict|infer|inference)(_|\d|$)", re.I
)


def check_modes(actions: Actions, values: Values) -> Iterator[Finding]:
    """Yields where the script evaluates as it should train, or trains as it should evaluate."""
    for loop in evaluation_loops(actions, values):
        if not _without_gradients(loop, actions):
            yield finding_at("evaluates-with-gradients", loop)
        if not _in_evaluation_mode(loop, actions):
            yield finding_at("evaluates-in-training-mode", loop)
    for loop in training_loops(actions):
        if _stays_in_evaluation_mode(loop, actions):
            yield finding_at("trains-in-evaluation-mode", loop)


def evaluation_loops(actions: Actions, values: Values) -> list[Loop | Comprehension]:
    """Returns the loops that run a network on held-out data, without training it.

    Which data they run over is told by the loader's name, or by that of the function.
    """
    found: list[Loop | Comprehension] = []
    tests = any(
        isinstance(node, ast.Import | ast.ImportFrom) and mentions(r"\b(pytest|unittest)\b", node)
        for node in actions.syntax.tree.body
    )
    for loop in actions.syntax.nodes:
        if not isinstance(loop, (*LOOPS, *COMPREHENSIONS)):
            continue
        reads = read_in(loop, actions.syntax)
        of_evaluation = not tests and EVALUATES.search(function_around(loop, actions.syntax)) is not None
        if not any(values.is_held_out(each) or (of_evaluation and mentions(LOADER, each)) for each in reads):
            continue
        trains = actions.inside(loop, "backward", *STEPS) or mentions(NEEDS_GRADIENTS, loop)
        runs = any(
            _is_forward(call, actions)
            and (isinstance(loop, COMPREHENSIONS) or actions.syntax.loops(call)[:1] == [loop])
            for call in within(loop, ast.Call)
        )
        if runs and not trains and (not isinstance(loop, ast.For) or names_in(loop.target)):
            found.append(loop)
    return found


def _is_forward(call: ast.AST, actions: Actions) -> bool:
    return isinstance(call, ast.Call) and bool(call.args) and actions.is_model(call.func)


def _without_gradients(loop: ast.AST, actions: Actions) -> bool:
    """Tells whether gradients are off here.

    They may be off around the loop, inside it, for the whole function, or wherever the function is called.
    """
    syntax = actions.syntax
    if mentions(WITHOUT_GRADIENTS, loop):
        return True
    for parent in syntax.ancestors(loop):
        if isinstance(parent, ast.With) and any(
            mentions(f"{WITHOUT_GRADIENTS}|set_grad_enabled", item.context_expr) for item in parent.items
        ):
            return True
        if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef):
            if any(mentions(WITHOUT_GRADIENTS, decorator) for decorator in parent.decorator_list):
                return True
            calls = [call for call in syntax.calls if last_name(call.func) == parent.name]
            outside = [call for call in calls if parent not in syntax.ancestors(call)]
            return bool(outside) and all(_without_gradients(call, actions) for call in outside)
    return mentions(r"set_grad_enabled\(False\)", syntax.tree)


def _switches(actions: Actions, root: ast.AST) -> Iterator[tuple[ast.Call, bool | None]]:
    """Yields (call, whether it switches to evaluation) of model.eval() and model.train() in the scope of `root`.

    None: to what is not to be seen, as in model.train(mode).
    """
    for call in within(root, ast.Call):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            given = [*call.args, *(keyword.value for keyword in call.keywords)]
            if call.func.attr == "eval" and not given:
                yield call, True
            elif call.func.attr == "train" and len(given) < 2:
                constant = given[0] if given else ast.Constant(True)
                yield call, not constant.value if isinstance(constant, ast.Constant) else None


def _owner(call: ast.Call) -> str:
    assert isinstance(call.func, ast.Attribute)
    return text(call.func.value)


def _in_evaluation_mode(loop: Loop | Comprehension, actions: Actions) -> bool:
    """Tells whether the network is in evaluation mode in `loop`.

    Either it is switched before the loop in its function, or, in a function that the script does not call, anywhere
    else: its caller may have done it.
    """
    syntax = actions.syntax
    scope = syntax.scope(loop)
    body = [child for child in ast.iter_child_nodes(scope) if not isinstance(child, SCOPES)]
    switches = [each for child in body for each in _switches(actions, child)]
    inside = set(ast.walk(loop))
    if any(to_evaluation is not False and call in inside for call, to_evaluation in switches):
        return True
    before = [(call, to) for call, to in switches if syntax.is_after(loop, call)]
    if before:
        return any(to is not False for _, to in before)
    if isinstance(scope, ast.Module):
        return False
    elsewhere = [call for call in syntax.calls if last_name(call.func) == "eval" and not call.args]
    by_train = mentions(r"train\((mode=)?False\)", syntax.tree)
    return by_train or any(syntax.scope(call) is not scope for call in elsewhere)


def _stays_in_evaluation_mode(loop: Loop, actions: Actions) -> bool:
    """Tells whether the network of a training loop is switched to evaluation in its course, and never back.

    It is switched in the loop itself, or in a loop around it, by an evaluation after it or in a function of its own.
    """
    syntax = actions.syntax
    trained = {
        text(call.func)
        for call in within(loop, ast.Call)
        if isinstance(call, ast.Call) and _is_forward(call, actions) and not _is_without_gradients(call, loop, actions)
    }
    if not directly_in(actions, loop, *STEPS) or not trained:
        return False
    for around in (loop, *syntax.loops(loop)):
        switches = list(_switches(actions, around))
        if any(to is not True for _, to in switches) or any(
            isinstance(call, ast.Call)
            and mentions(r"train", call.func)
            and {text(each) for each in call.args} & trained
            for call in within(around, ast.Call)
        ):
            return False
        for call, _ in switches:
            if _owner(call) in trained and (
                around is loop or syntax.is_after(call, loop) or _place(call, actions) is not _place(loop, actions)
            ):
                return True
    return False


def _place(node: ast.AST, actions: Actions) -> ast.AST | None:
    """Returns the function put in place that `node` stands in, if it stands in one."""
    return next((parent for parent in actions.syntax.ancestors(node) if function_in_place(parent)), None)


def _is_without_gradients(node: ast.AST, root: ast.AST, actions: Actions) -> bool:
    for parent in actions.syntax.ancestors(node):
        if isinstance(parent, ast.With) and any(
            mentions(WITHOUT_GRADIENTS, item.context_expr) for item in parent.items
        ):
            return True
        if parent is root:
            break
    return False
