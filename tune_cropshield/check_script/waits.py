"""Rules about reading a tensor in a training loop: the host then waits for the GPU, in every micro-batch."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tune_cropshield.check_script.accumulation import accompanies
from tune_cropshield.check_script.accumulation_loops import directly_in, is_over_micro_batches, training_loops
from tune_cropshield.check_script.actions import Actions
from tune_cropshield.check_script.rules import Finding, finding_at
from tune_cropshield.check_script.syntax import Loop, assigned, last_name, names_in, text, within
from tune_cropshield.check_script.values import LOSS_CALL, MADE_ON_CPU, Values, nexts_in

READS_ARGUMENT = re.compile(r"^(float|int|bool|math\.\w+)$")


def check_waits(actions: Actions, values: Values) -> Iterator[Finding]:
    """Yields where a training loop reads a tensor each time that it goes backward."""
    for loop in training_loops(actions):
        if _only_counts(loop) and not is_over_micro_batches(loop) and not nexts_in(loop, actions.syntax):
            continue
        backwards = directly_in(actions, loop, "backward")
        for call in within(loop, ast.Call):
            assert isinstance(call, ast.Call)
            if (
                actions.syntax.loops(call)[:1] == [loop]
                and _reads(call, loop, actions, values)
                and any(accompanies(call, backward, loop, actions) for backward in backwards)
            ):
                yield finding_at("item-in-loop", call)


def _only_counts(loop: Loop) -> bool:
    """Tells whether a loop runs over numbers: epochs of a whole batch, say. range(0, n, k) goes by batches of k."""
    return (
        isinstance(loop, ast.For)
        and isinstance(loop.iter, ast.Call)
        and text(loop.iter.func) in ("range", "trange", "tqdm.trange")
        and (len(loop.iter.args) < 3 or text(loop.iter.args[2]) == "1")
    )


def _reads(call: ast.Call, loop: Loop, actions: Actions, values: Values) -> bool:
    """Tells whether `call` reads a tensor on the GPU: by .item() what is not known to be on the CPU, by other ways
    only what is known to come from the network or its loss.
    """
    if READS_ARGUMENT.search(actions.syntax.called(call)) and len(call.args) == 1:
        return _is_computed(call.args[0], actions, values)
    if not isinstance(call.func, ast.Attribute):
        return False
    if call.func.attr == "to" and [text(each) for each in call.args] == ["'cpu'"]:
        return _is_computed(call.func.value, actions, values)
    if call.args or call.keywords:
        return False
    if call.func.attr == "item":
        return not _is_on_cpu(call.func.value, loop, actions, values)
    return call.func.attr in ("cpu", "tolist") and _is_computed(call.func.value, actions, values)


def _is_computed(value: ast.expr, actions: Actions, values: Values) -> bool:
    """Tells whether `value` is a result of the network, or a loss."""
    if isinstance(value, ast.Call) and last_name(value.func) in ("item", "cpu", "numpy", "tolist", "size", "len"):
        return False
    return any(
        isinstance(node, ast.Call) and (actions.is_model(node.func) or LOSS_CALL.search(last_name(node.func)))
        for node in values.behind(value)
    )


def _is_on_cpu(value: ast.expr, loop: Loop, actions: Actions, values: Values) -> bool:
    """Tells whether `value` is surely on the CPU: made there, or of a batch of which only other parts are moved."""
    parts = list(values.behind(value))
    calls = [node for node in parts if isinstance(node, ast.Call)]
    moved = [node for node in within(loop, ast.Call) if isinstance(node, ast.Call) and _moves(node)]
    if any(_moves(node) or actions.is_model(node.func) for node in calls):
        return False
    of_batch = names_in(loop.target) if isinstance(loop, ast.For | ast.AsyncFor) else set()
    nexts = nexts_in(loop, actions.syntax)
    for node in within(loop, (ast.Assign, ast.AnnAssign)) if nexts else ():
        of_batch = of_batch.union(*(names_in(target) for target, value in assigned(node) if value in nexts))
    names = {node.id for node in parts if isinstance(node, ast.Name)}
    if names & of_batch:
        return bool(moved) and not any(names & of_batch & names_in(node) for node in moved)
    return any(MADE_ON_CPU.search(actions.syntax.called(node)) for node in calls)


def _moves(call: ast.Call) -> bool:
    return last_name(call.func) in ("to", "cuda", "to_device", "move_to") or any(
        keyword.arg == "device" for keyword in call.keywords
    )
