"""Rules about when a learning-rate schedule moves, and what it is told."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tune_cropshield.check_script.accumulation_loops import accumulation_loops, training_loops
from tune_cropshield.check_script.actions import Action, Actions
from tune_cropshield.check_script.rules import Finding, finding_at
from tune_cropshield.check_script.syntax import Function, argument, assigned, mentions, names_in, text

KNOWS_OF_SKIPS = r"get_scale|found_inf|skip|overflow|_step_count|optimizer_step_was"


def check_schedules(actions: Actions) -> Iterator[Finding]:
    """Yields what is wrong with how the script steps its schedules."""
    yield from _check_plateau(actions)
    yield from _check_skipped(actions)
    yield from _check_onecycle(actions)


def _check_plateau(actions: Actions) -> Iterator[Finding]:
    syntax = actions.syntax
    plateaus: list[tuple[ast.AST, str]] = []  # (scope, name) of every name that holds a plateau schedule
    for node in syntax.nodes:
        for target, value in assigned(node):
            targets = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
            if isinstance(value, ast.Call) and _makes_plateau(value, actions):
                made = [name for name in targets if len(targets) == 1 or actions.role(name) == "scheduler"]
                plateaus += [(syntax.scope(node), text(name)) for name in made]
    for scope, name in list(plateaus):  # handed on to a function of the script
        for call in syntax.calls:
            function = syntax.functions.get(syntax.called(call).rpartition(".")[2])
            if function is not None and syntax.scope(call) is scope:
                plateaus += [(function, parameter) for parameter in _parameters_given(call, function, name)]
    for scope, name in plateaus:
        steps = [
            action
            for action in actions.of("scheduler step")
            if action.subject == name and _sees(action, scope, name, actions)
        ]
        if not any(step.call.args or step.call.keywords for step in steps):
            yield from (finding_at("plateau-without-metric", step.call) for step in steps)


def _makes_plateau(call: ast.Call, actions: Actions) -> bool:
    if actions.syntax.called(call).rpartition(".")[2] == "ReduceLROnPlateau":
        return True
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    return any(
        isinstance(value, ast.Constant) and isinstance(value.value, str) and "plateau" in value.value.lower()
        for value in given
    )


def _parameters_given(call: ast.Call, function: Function, name: str) -> list[str]:
    """Returns the parameters of `function` that receive `name` in `call`."""
    positional = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    by_place = [parameter for parameter, value in zip(positional, call.args, strict=False) if text(value) == name]
    return by_place + [
        keyword.arg for keyword in call.keywords if keyword.arg is not None and text(keyword.value) == name
    ]


def _sees(action: Action, scope: ast.AST, name: str, actions: Actions) -> bool:
    """Tells whether `name` at `action` is that of `scope`.

    An attribute (self.scheduler) is one object throughout the script.
    """
    return "." in name or actions.syntax.scope(action.call) is scope


def _check_skipped(actions: Actions) -> Iterator[Finding]:
    syntax = actions.syntax
    for schedule in actions.of("scheduler step"):
        loops = syntax.loops(schedule.call)
        if not loops or loops[0] not in training_loops(actions) or schedule.call.args:
            continue
        steps = [step for step in actions.of("scaler step") if syntax.loops(step.call)[:1] == loops[:1]]
        for step in steps:
            guards = [
                test
                for test in syntax.conditions(schedule.call, loops[0])
                if test not in syntax.conditions(step.call, loops[0])
            ]
            only_if_there = all(names_in(test.test) <= names_in(schedule.call) for test in guards)
            if schedule.call.lineno > step.call.lineno and only_if_there and not mentions(KNOWS_OF_SKIPS, loops[0]):
                yield finding_at("scheduler-on-skipped-update", schedule.call)
                break


def _check_onecycle(actions: Actions) -> Iterator[Finding]:
    syntax = actions.syntax
    inside_training = {loop for loop in training_loops(actions)}
    for node in syntax.nodes:
        for target, value in assigned(node):
            if not (isinstance(value, ast.Call) and syntax.called(value).rpartition(".")[2] == "OneCycleLR"):
                continue
            per_epoch = argument(value, 99, "steps_per_epoch")
            steps = [action for action in actions.of("scheduler step") if action.subject == text(target)]
            if per_epoch is None or not steps or re.search(r"\blen\(", text(per_epoch)) is None:
                continue
            in_batches = [step for step in steps if any(loop in inside_training for loop in syntax.loops(step.call))]
            if not in_batches and any(
                syntax.scope(step.call) is syntax.scope(loop) for step in steps for loop in inside_training
            ):
                yield finding_at("onecycle-per-epoch", steps[0].call)
            windows = [
                window for window in accumulation_loops(actions) if any(window.holds(step.call) for step in in_batches)
            ]
            if windows and isinstance(per_epoch, ast.Call):  # a bare len(loader), divided by nothing
                yield finding_at("onecycle-total-steps", per_epoch)
