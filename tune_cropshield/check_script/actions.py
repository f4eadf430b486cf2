"""The steps of a training loop, found in a script under whatever names.

These are: backward, unscale, clip, step, update, zero_grad and the step of a schedule.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal, TypeGuard

from tune_cropshield.check_script.conditions import facts_at
from tune_cropshield.check_script.syntax import Syntax, argument, assigned, last_name, plain, text

Kind = Literal["backward", "unscale", "clip", "step", "scaler step", "scaler update", "zero grad", "scheduler step"]
Role = Literal["scaler", "optimizer", "scheduler", ""]

CLIPS = ("clip_grad_norm_", "clip_grad_value_", "clip_grad_norm")
SCHEDULER_CALL = re.compile(r"(lr_scheduler\.\w+|^\w*LR|\.\w*LR|ReduceLROnPlateau|LinearLR|WarmRestarts)$")
OPTIMIZER_CALL = re.compile(r"(^|\.)optim\.\w+$")
NAMED_SCALER, NAMED_SCHEDULER = re.compile(r"scaler", re.I), re.compile(r"sched", re.I)
NAMED_MODEL = re.compile(r"^(model|net|network|classifier|student)s?$", re.I)
NAMED_LOSS = re.compile(r"loss|crit|objective|metric|accuracy|augment|transform|preprocess|mixup|logger|writer", re.I)
NAMED_STEP = re.compile(r"backward|step|clip|optimi[sz]e")
NAMED_OPTIMIZER = re.compile(r"(^|_)opt(im|imi[sz]er)?s?(_|\d|$)", re.I)


@dataclass(frozen=True)
class Action:
    """One call that is a step of the loop.

    subject: what it is done to (a loss, parameters, an optimizer), as source.
    """

    kind: Kind
    call: ast.Call
    subject: str = ""
    scaled: bool | None = False  # backward: of a loss that a scaler has multiplied; None: on some ways only


class Actions:
    """All actions of a script by their call, and the roles that its objects play."""

    def __init__(self, syntax: Syntax) -> None:
        self.syntax = syntax
        self._roles = self._find_roles()
        self._scaled_names: dict[str, list[ast.expr]] = defaultdict(list)  # name -> what scales it
        for node in syntax.nodes:
            for target, value in assigned(node):
                if scales := [inner for inner in ast.walk(value) if self._is_scale(inner)]:
                    self._scaled_names[text(target)] += scales
        self._models = self._called_on("parameters", "named_parameters", "eval")
        self._attributes = {
            text(target)
            for node in syntax.nodes
            for target, _ in assigned(node)
            if isinstance(target, ast.Attribute) and not NAMED_STEP.search(target.attr)
        }
        self.by_call = {call: action for call in syntax.calls if (action := self._action(call)) is not None}
        self._acting_functions = self._find_acting_functions()

    def of(self, *kinds: Kind) -> list[Action]:
        """Returns the actions of these kinds in the order of the text."""
        return [action for action in self.by_call.values() if action.kind in kinds]

    def inside(self, root: ast.AST, *kinds: Kind) -> list[Action]:
        """Returns the actions of these kinds in the body of `root`, in its own scope."""
        scope = (
            root if isinstance(root, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module) else self.syntax.scope(root)
        )
        return [
            a
            for a in self.of(*kinds)
            if self.syntax.scope(a.call) is scope and (root is scope or root in self.syntax.ancestors(a.call))
        ]

    def role(self, node: ast.AST) -> Role:
        """Returns what an object is for: by how it was made, how it is used, or how it is called."""
        source = text(node)
        if source in self._roles:
            return self._roles[source]
        if not isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
            return ""
        source = plain(source)
        name = re.split(r"[.\[]", source)[-1] if isinstance(node, ast.Attribute) else re.split(r"\[", source)[0]
        if NAMED_SCALER.search(name):
            return "scaler"
        if NAMED_SCHEDULER.search(name):
            return "scheduler"
        return "optimizer" if NAMED_OPTIMIZER.search(name) else ""

    def is_model(self, node: ast.AST) -> bool:
        """Tells whether `node` is a network: by its name, or because its parameters() or eval() are called."""
        return text(node) in self._models or NAMED_MODEL.search(last_name(node)) is not None

    def may_do_anything(self, call: ast.Call) -> bool:
        """Tells whether `call` may step, clip or unscale out of our sight."""
        handed = [*call.args, *(keyword.value for keyword in call.keywords)]
        if any(self.role(value) in ("optimizer", "scaler") for value in handed):
            return True
        name = last_name(call.func)
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        is_own = owner is None or text(owner) == "self" or text(owner).startswith("super(")
        if name in self.syntax.functions and (is_own or name not in ("train", "eval")):
            return name in self._acting_functions
        if owner is None or NAMED_STEP.search(name):
            return owner is not None
        is_object = self.is_model(call.func) or NAMED_LOSS.search(name) or text(call.func) in self._attributes
        return is_own and not is_object

    def _find_acting_functions(self) -> set[str]:
        """Returns the names of the functions that do a step of the loop, or call one that does."""
        called: dict[str, set[str]] = {}
        for name, function in self.syntax.functions.items():
            called[name] = {last_name(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
        found = {
            parent.name
            for call in self.by_call
            for parent in self.syntax.ancestors(call)
            if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        while more := {name for name, names in called.items() if name not in found and names & found}:
            found |= more
        return found

    def _find_roles(self) -> dict[str, Role]:
        roles: dict[str, Role] = {}
        for node in self.syntax.nodes:
            for target, value in assigned(node):
                for call in (inner for inner in ast.walk(value) if isinstance(inner, ast.Call)):
                    name = self.syntax.called(call)
                    if name.rpartition(".")[2] == "GradScaler":
                        roles[text(target)] = "scaler"
                    elif SCHEDULER_CALL.search(name):
                        roles[text(target)] = "scheduler"
                    elif OPTIMIZER_CALL.search(name):
                        roles.setdefault(text(target), "optimizer")
        for call in self.syntax.calls:
            if isinstance(call.func, ast.Attribute) and call.func.attr == "unscale_":
                roles.setdefault(text(call.func.value), "scaler")
                if call.args:
                    roles.setdefault(text(call.args[0]), "optimizer")
        for name in self._called_on("zero_grad") & self._called_on("step"):
            roles.setdefault(name, "optimizer")
        return roles

    def _called_on(self, *methods: str) -> set[str]:
        """Returns what these methods are called on, as source."""
        calls = [call.func for call in self.syntax.calls if isinstance(call.func, ast.Attribute)]
        return {text(method.value) for method in calls if method.attr in methods}

    def _is_scale(self, node: ast.AST) -> TypeGuard[ast.Call]:
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "scale"
        return is_call and self.role(node.func.value) == "scaler"  # type: ignore[attr-defined]

    def _is_scaled(self, backward: ast.Call) -> bool | None:
        """Tells whether the loss of `backward` is multiplied by a scaler; None: where a condition holds."""
        assert isinstance(backward.func, ast.Attribute)
        scales: list[ast.AST] = []
        for inner in ast.walk(backward.func.value):
            if self._is_scale(inner):
                scales.append(inner)
            elif isinstance(inner, ast.Name):
                scales += self._scaled_names.get(inner.id, [])
        if not scales:
            return False
        scope = self.syntax.scope(backward)
        facts = facts_at(backward, scope, self.syntax)
        return True if any(facts_at(scale, scope, self.syntax) <= facts for scale in scales) else None

    def is_clip(self, call: ast.Call) -> bool:
        """Tells whether `call` is torch's own clipping.

        Methods of the same name (Accelerate, FSDP) see to the scale themselves.
        """
        owner, _, name = self.syntax.called(call).rpartition(".")
        return name in CLIPS and (
            owner in ("", "torch.nn.utils", "nn.utils", "utils") or owner.endswith((".utils", ".clip_grad"))
        )

    def _action(self, call: ast.Call) -> Action | None:
        if self.is_clip(call):
            parameters = argument(call, 0, "parameters")
            return Action("clip", call, text(parameters) if parameters is not None else "")
        if not isinstance(call.func, ast.Attribute):
            return None
        owner, verb = call.func.value, call.func.attr
        role = self.role(owner)
        if verb == "backward" and not call.args:
            return Action("backward", call, text(owner), self._is_scaled(call))
        if verb == "unscale_" and role == "scaler" and call.args:
            return Action("unscale", call, text(call.args[0]))
        if verb == "zero_grad":
            return Action("zero grad", call, text(owner))
        if role == "scaler" and verb == "update":
            return Action("scaler update", call, text(owner))
        if verb == "step":
            if role == "scaler" and call.args:
                return Action("scaler step", call, text(call.args[0]))
            if role == "scheduler":
                return Action("scheduler step", call, text(owner))
            if role == "optimizer" and not call.args and not call.keywords:  # with a closure it does its own backward
                return Action("step", call, text(owner))
        return None
