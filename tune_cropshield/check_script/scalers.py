"""A rule about loss scalers: one for the whole training."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tune_cropshield.check_script.accumulation_loops import directly_in, training_loops
from tune_cropshield.check_script.actions import OPTIMIZER_CALL, Actions
from tune_cropshield.check_script.rules import Finding, finding_at
from tune_cropshield.check_script.syntax import Loop, assigned, mentions, within
from tune_cropshield.check_script.values import function_around


def check_scalers(actions: Actions) -> Iterator[Finding]:
    """Yields where a GradScaler is made anew for each epoch, or each batch, of one network."""
    for loop in training_loops(actions):
        if directly_in(actions, loop, "scaler step"):
            yield from _check_new_scalers(loop, actions)


def _check_new_scalers(loop: Loop, actions: Actions) -> Iterator[Finding]:
    syntax = actions.syntax
    around = [loop, *syntax.loops(loop)[:1]]
    for call in syntax.calls:
        if syntax.called(call).rpartition(".")[2] != "GradScaler" or mentions(r"enabled=False", call):
            continue
        repeats = next((each for each in around if syntax.loops(call)[:1] == [each]), None)
        in_epoch = (
            len(around) == 1
            and syntax.scope(call) is syntax.scope(loop)
            and not syntax.loops(call)
            and re.search(r"epoch", function_around(call, syntax)) is not None
        )
        if (repeats is not None and not _makes_optimizer(repeats, actions)) or in_epoch:
            yield finding_at("new-scaler-per-epoch", call)


def _makes_optimizer(loop: Loop, actions: Actions) -> bool:
    """Tells whether each run of `loop` trains a network of its own: a fold, a seed."""
    return any(
        isinstance(call, ast.Call) and OPTIMIZER_CALL.search(actions.syntax.called(call))
        for call in within(loop, ast.Call)
    ) or any(
        actions.role(target) == "optimizer" and isinstance(value, ast.Call)
        for node in within(loop, ast.Assign)
        for target, value in assigned(node)
    )
