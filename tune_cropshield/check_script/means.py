"""Rules about the loss that is reported for an epoch: what is added up, and what it is divided by."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Literal

from tune_cropshield.check_script.actions import Actions
from tune_cropshield.check_script.rules import Finding, finding_at
from tune_cropshield.check_script.syntax import Loop, assigned, last_name, mentions, names_in, text, within
from tune_cropshield.check_script.values import LOSS_CALL, Values, nexts_in, read_in

Counted = Literal["batches", "samples", ""]  # what a number is the number of; "": not known

NO_MEANS = r"reduction\s*=\s*['\"](sum|none)|size_average\s*=\s*False|reduce\s*=\s*False"
BATCH_MEAN = r"loss(?!_?scale)|criterion|cross_entropy|\.mean\(\)"
BATCH_SUM = r"loss_?sum|sum_?loss|\.sum\(\)"
COUNTS_SAMPLES = r"\.size\(|\.shape\[|\blen\(|numel\(|batch_size|\bbs\b|\bn\b|num_|count|repeat"
BATCH_SIZE = r"\.size\(0\)|\.shape\[0\]|\blen\((?!.*loader)|batch_size"
ONLY_BATCH_SIZE = r"^(len\((?!.*loader)[\w.\[\]]+\)|[\w.\[\]]+\.(size\(0\)|shape\[0\]))$"
OF_UPDATES = r"grad|norms?\b|parameters\("  # a mean over these is one number of an update, whatever its samples
PASS_ON = ("item", "cpu", "detach", "clone", "numpy", "to")  # methods that leave a tensor's value alone
MEANS_OF_LISTS = ("mean", "fmean", "average", "nanmean")
MAKE_TENSORS = ("stack", "cat", "tensor", "as_tensor", "array", "asarray")


def check_means(actions: Actions, values: Values) -> Iterator[Finding]:
    """Yields where the means of batches are averaged as if all batches had one size, or divided by samples."""
    if mentions(NO_MEANS, actions.syntax.tree):
        return
    drops_last = mentions(r"drop_last\s*=\s*True", actions.syntax.tree)
    for loop in actions.syntax.nodes:
        if not isinstance(loop, ast.For | ast.AsyncFor) or not _runs_a_network(loop, actions):
            continue
        equal = drops_last and not values.is_held_out(loop.iter)
        for node, divisor in _Sums(loop, actions, values).means():
            if divisor == "samples":
                yield finding_at("batch-means-over-samples", node)
            elif not equal:
                yield finding_at("mean-of-batch-means", node)


def _runs_a_network(loop: Loop, actions: Actions) -> bool:
    return any(
        isinstance(call, ast.Call)
        and actions.syntax.loops(call)[:1] == [loop]
        and (actions.is_model(call.func) or call in actions.by_call)
        for call in within(loop, ast.Call)
    )


class _Sums:
    """What a loop over batches adds up, as source: batch means, lists of them, batches, samples."""

    def __init__(self, loop: ast.For | ast.AsyncFor, actions: Actions, values: Values) -> None:
        self._loop = loop
        self._syntax = actions.syntax
        self._actions = actions
        self._values = values
        self._means: set[str] = set()
        self._lists: set[str] = set()
        self._batches: set[str] = set()
        self._samples: set[str] = set()
        behind = [node for each in read_in(loop, actions.syntax) for node in values.behind(each)]
        self._loaders = {text(node) for node in behind if isinstance(node, ast.Name | ast.Attribute | ast.Subscript)}
        enumerates = any(isinstance(node, ast.Call) and last_name(node.func) == "enumerate" for node in behind)
        if enumerates and isinstance(loop.target, ast.Tuple):
            number = text(loop.target.elts[0])
            self._batches |= {f"{number} + 1", f"1 + {number}"}
        if nexts_in(loop, actions.syntax) and isinstance(loop.iter, ast.Call) and text(loop.iter.func) == "range":
            self._batches |= {f"{text(loop.target)} + 1", *map(text, loop.iter.args[:1])}
        self._trained = {
            text(each.args[0] if isinstance(each, ast.Call) and last_name(each.func) == "scale" and each.args else each)
            for action in actions.inside(loop, "backward")
            if isinstance(action.call.func, ast.Attribute)
            for each in [action.call.func.value]
        }

    def means(self) -> Iterator[tuple[ast.AST, Counted]]:
        """Yields (node, of what): where batch means are divided by a number of batches, or of samples."""
        for node in within(self._loop, (ast.AugAssign, ast.Assign, ast.Call)):
            added = _added(node) if self._syntax.loops(node)[:1] == [self._loop] else None
            if self._updates_meter(node):
                yield node, "batches"
            elif added is not None:
                name, value, is_list = added
                if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Div) and self._is_batch_mean(value.left):
                    if by := self._counted(value.right):
                        yield node, by
                else:
                    self._add(name, value, is_list)
        if not self._means and not self._lists:
            return
        for node in self._syntax.nodes:
            if (by := self._divided_by(node)) and self._is_reported(node):
                yield node, by

    def _updates_meter(self, node: ast.AST) -> bool:
        """Tells whether an AverageMeter is given a batch's mean without the number of its samples."""
        if not isinstance(node, ast.Call) or last_name(node.func) != "update" or len(node.args) != 1 or node.keywords:
            return False
        assert isinstance(node.func, ast.Name | ast.Attribute)
        meter = node.func.value if isinstance(node.func, ast.Attribute) else node.func
        made = [value for value in self._values.of(meter) if isinstance(value, ast.Call)]
        return any("AverageMeter" in last_name(call.func) for call in made) and self._is_batch_mean(node.args[0])

    def _add(self, name: str, value: ast.expr, is_list: bool) -> None:
        if self._is_batch_mean(value):
            (self._lists if is_list else self._means).add(name)
        elif isinstance(value, ast.Constant) and value.value == 1:
            self._batches.add(name)
        elif not is_list and self._is_batch_size(value):
            self._samples.add(name)

    def _is_batch_size(self, value: ast.expr) -> bool:
        if mentions(BATCH_SIZE, value) and not mentions("loss", value):
            return True
        return isinstance(value, ast.Name) and any(mentions(ONLY_BATCH_SIZE, each) for each in self._made_of(value))

    def _is_reported(self, node: ast.AST) -> bool:
        """Tells whether `node` comes after the loop, in its function."""
        syntax = self._syntax
        return syntax.is_after(node, self._loop) and syntax.scope(node) is syntax.scope(self._loop)

    def _divided_by(self, node: ast.AST) -> Counted:
        """Returns what the sum of batch means is divided by in `node`."""
        if isinstance(node, ast.Call):
            return "batches" if self._averages(node) else ""
        if not isinstance(node, ast.BinOp | ast.AugAssign) or not isinstance(node.op, ast.Div):
            return ""
        left, right = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.target, node.value)
        adds_list = isinstance(left, ast.Call) and last_name(left.func) == "sum" and text(left.args[0]) in self._lists
        return self._counted(right) if adds_list or text(_bare(left)) in self._means else ""

    def _averages(self, call: ast.Call) -> bool:
        """Tells whether `call` is the mean of a list of batch means: np.mean(losses), torch.stack(losses).mean()."""
        if last_name(call.func) not in MEANS_OF_LISTS:
            return False
        of = call.args[0] if call.args else call.func.value if isinstance(call.func, ast.Attribute) else call.func
        if isinstance(of, ast.Call) and last_name(of.func) in MAKE_TENSORS and of.args:
            of = of.args[0]
        return text(of) in self._lists

    def _counted(self, divisor: ast.expr, on_the_way: frozenset[str] = frozenset()) -> Counted:
        """Returns what `divisor` is the number of, in this loop."""
        if text(divisor) in self._batches:
            return "batches"
        if text(divisor) in self._samples:
            return "samples"
        asked: list[ast.expr] = []
        if isinstance(divisor, ast.Call) and last_name(divisor.func) in ("max", "float", "int"):
            asked = divisor.args
        elif isinstance(divisor, ast.Call) and text(divisor.func) == "len" and len(divisor.args) == 1:
            of = divisor.args[0]
            if isinstance(of, ast.Attribute) and of.attr == "dataset":
                return "samples"
            return "batches" if text(of) in self._loaders | self._lists else ""
        elif isinstance(divisor, ast.Name) and divisor.id not in on_the_way:
            asked = self._values.of(divisor)
            on_the_way |= {divisor.id}
        return next((told for each in asked if (told := self._counted(each, on_the_way))), "")

    def _is_batch_mean(self, value: ast.expr) -> bool:
        """Tells whether `value` is a batch's mean loss, or another mean over it, not multiplied by its samples.

        It is one by where it comes from, or by its name.
        """
        made_of = self._made_of(value)
        is_mean = mentions(BATCH_MEAN, value) or any(self._is_made_as_mean(each) for each in made_of)
        if not is_mean or mentions(BATCH_SUM, value) or any(mentions(r"\.sum\(\)$", each) for each in made_of):
            return False
        return not any(
            mentions(COUNTS_SAMPLES, each) or (not self._is_criterion(each) and self._multiplies(each))
            for each in made_of
        )

    def _made_of(self, value: ast.expr) -> list[ast.expr]:
        """Returns `value` and what its names are set to in the loop, through names that only pass it on."""
        found, seen = [value], set[str]()
        names = names_in(value)
        while names - seen:
            seen |= names
            made = [
                each
                for node in within(self._loop, (ast.Assign, ast.AnnAssign))
                for target, each in assigned(node)
                if text(target) in names
            ]
            found += made
            names = {bare.id for bare in map(_bare, made) if isinstance(bare, ast.Name)} - seen
        return found

    def _is_made_as_mean(self, value: ast.expr) -> bool:
        """Tells whether `value` is what backward is called on, what a criterion returns, or a mean."""
        bare = _bare(value)
        if text(bare) in self._trained or self._is_criterion(bare):
            return True
        takes_mean = isinstance(bare, ast.Call) and text(bare).endswith(".mean()")
        return takes_mean and not mentions(OF_UPDATES, bare)

    def _is_criterion(self, value: ast.expr) -> bool:
        """Tells whether `value` is a call of a criterion, by its name or because it was made as one."""
        if not isinstance(value, ast.Call) or self._actions.is_model(value.func):
            return False
        made = self._values.of(value.func) if isinstance(value.func, ast.Name | ast.Attribute) else []
        return LOSS_CALL.search(last_name(value.func)) is not None or any(
            isinstance(each, ast.Call) and last_name(each.func).endswith("Loss") for each in made
        )

    def _multiplies(self, value: ast.expr) -> bool:
        """Tells whether something in `value` is multiplied, but for what the loop has divided by: loss.item() * k."""
        divisors = {
            text(node.right if isinstance(node, ast.BinOp) else node.value)
            for node in within(self._loop, (ast.BinOp, ast.AugAssign))
            if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div)
        }
        return any(
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.Mult)
            and not any(isinstance(each, ast.Constant) or text(each) in divisors for each in (node.left, node.right))
            for node in ast.walk(value)
        )


def _bare(node: ast.expr) -> ast.expr:
    """Returns the sum in sum.item(), float(sum) and the like."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in PASS_ON:
        return _bare(node.func.value)
    if isinstance(node, ast.Attribute) and node.attr == "data":
        return _bare(node.value)
    if isinstance(node, ast.Call) and text(node.func) == "float" and node.args:
        return _bare(node.args[0])
    return node


def _added(node: ast.AST) -> tuple[str, ast.expr, bool] | None:
    """Returns (name, value, whether it is a list) of name += value, name = name + value and name.append(value)."""
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
        return text(node.target), node.value, False
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "append" and node.args:
        return text(node.func.value), node.args[0], True
    for target, value in assigned(node):
        if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
            if text(value.left) == text(target):
                return text(target), value.right, False
            if text(value.right) == text(target):
                return text(target), value.left, False
    return None
