"""Rules about single lines: flags, deprecated names, formulas, configurations, pictures, and what comments claim."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tune_cropshield.check_script.accumulation_loops import STEPS, directly_in, training_loops
from tune_cropshield.check_script.actions import Actions
from tune_cropshield.check_script.rules import Finding, finding_at
from tune_cropshield.check_script.source import Source
from tune_cropshield.check_script.syntax import SCOPES, argument, assigned, last_name, mentions, names_in, text, within

MEMORY = r"vram|memory|\bmem|_mem|_gb|_mb"
PER_SAMPLE = r"per_(sample|image|img|example)|(sample|image|input)_size"
BLANK_IMAGES = re.compile(
    r"(^|\.)(Image\.new|torch\.(zeros|ones|zeros_like|empty)|(np|numpy)\.(zeros|ones|zeros_like|empty))$"
)
OPENS_IMAGES = re.compile(
    r"(^|\.)(Image\.open|imread|read_image|decode_\w+|pil_loader|default_loader|open_image|load_image|loader)$"
)
WITHOUT_BATCH_NORM = r"layernorm|groupnorm|transformer|\bvit|vit_|swin|convnext|bert|gpt|llama"
COMMENTS = {
    "scaler-does-not-clip": re.compile(
        r"implicit\w*[^.]*\bclip|clip\w*[^.]*\bimplicit|(amp|scaler)\b[^.]*\bclips\b", re.I
    ),
    "fp16-underflow": re.compile(r"1e-0?7\b[^.]*underflow", re.I),
    "amp-on-cpu": re.compile(r"(amp|mixed precision|autocast)\b[^.]*\bonly (works|runs)\b[^.]*(cuda|gpu)", re.I),
}
SAYS_FP32 = re.compile(r"\b(run|runs|stay|stays|kept|in)\b.*\b(fp32|float32)\b", re.I)


def check_settings(actions: Actions, source: Source) -> Iterator[Finding]:
    """Yields what is wrong with single lines of the script."""
    yield from _check_flags(actions)
    yield from _check_deprecated(actions)
    yield from _check_clip_arguments(actions)
    yield from _check_formulas(actions)
    yield from _check_configurations(actions)
    yield from _check_gradients_that_are_none(actions)
    yield from _check_blank_images(actions)
    yield from _check_what_is_never_called(actions)
    yield from _check_comments(actions, source)


def _check_flags(actions: Actions) -> Iterator[Finding]:
    for call in actions.syntax.calls:
        if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument":
            kind = argument(call, 99, "type")
            if isinstance(kind, ast.Name) and kind.id == "bool":
                yield finding_at("argparse-bool", call)


def _check_deprecated(actions: Actions) -> Iterator[Finding]:
    old = ("torch.cuda.amp", "torch.cpu.amp")
    for node in actions.syntax.nodes:
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{name.name}" for name in node.names)]
        elif isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.Attribute) and text(node) in old:  # torch.cuda.amp.autocast(), spelled out
            names = [text(node)]
        if any(name.startswith(old) for name in names):
            yield finding_at("deprecated-cuda-amp", node)


def _check_clip_arguments(actions: Actions) -> Iterator[Finding]:
    for action in actions.of("clip"):
        call = action.call
        keywords = [keyword.arg or "" for keyword in call.keywords]
        if "value" in actions.syntax.called(call).rpartition(".")[2]:
            bounds = [text(value).lower() for value in call.args[1:2]]
            is_wrong = "max_norm" in keywords or any("norm" in bound and "value" not in bound for bound in bounds)
        else:
            is_wrong = "clip_value" in keywords  # by place, a norm's bound may well be called clip_value
        if is_wrong:
            yield finding_at("clip-argument", call)


def _check_formulas(actions: Actions) -> Iterator[Finding]:
    syntax = actions.syntax
    checked = {_operands(node) for node in syntax.nodes if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod)}
    for node in syntax.nodes:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.FloorDiv):
            is_memory = mentions(MEMORY, node.left) and mentions(PER_SAMPLE, node.right)
            if is_memory:
                yield finding_at("memory-formula", node)
        for target, value in assigned(node) if not _rounds_up(node) else ():
            floors = [
                inner
                for inner in ast.walk(value)
                if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.FloorDiv)
            ]
            if mentions("accum", target) and any(
                mentions("batch|target", each.left) and _operands(each) not in checked for each in floors
            ):
                yield finding_at("floored-accumulation", node)


def _rounds_up(node: ast.AST) -> bool:
    """Tells whether a division is turned upwards: -(-a // b), (a + b - 1) // b."""
    return isinstance(node, ast.stmt) and "-" in text(node)


def _operands(node: ast.BinOp) -> tuple[str, str]:
    return text(node.left), text(node.right)


def _check_configurations(actions: Actions) -> Iterator[Finding]:
    if mentions(WITHOUT_BATCH_NORM, actions.syntax.tree):
        return
    for node in actions.syntax.nodes:
        if isinstance(node, ast.Dict):
            settings = {
                str(key.value): value
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant)
            }
        elif isinstance(node, ast.Call):
            settings = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg is not None}
        else:
            continue
        accumulation = next((_number(value) for name, value in settings.items() if "accum" in name), 0)
        batch = next(
            (value for name, value in settings.items() if name in ("batch_size", "micro_batch", "micro_batch_size")),
            None,
        )
        if batch is not None and accumulation > 1 and 0 < _number(batch) < 16:
            yield finding_at("micro-batch-below-16", batch)


def _number(value: ast.expr) -> int:
    return value.value if isinstance(value, ast.Constant) and type(value.value) is int else 0


def _check_gradients_that_are_none(actions: Actions) -> Iterator[Finding]:
    """p.grad.something for every p of parameters(), with no thought of those that have no gradient."""
    for node in actions.syntax.nodes:
        if isinstance(node, ast.GeneratorExp | ast.ListComp | ast.SetComp | ast.DictComp):
            generators: list[ast.comprehension | ast.For] = list(node.generators)
        elif isinstance(node, ast.For):
            generators = [node]
        else:
            continue
        over = [each for each in generators if mentions(r"\.(named_)?parameters\(\)", each.iter)]
        if not over or mentions(
            r"requires_grad|\.grad is (not )?None|(if|and|or|not) \w+\.grad\b(?!\.)|hasattr|getattr|try:", node
        ):
            continue
        names = set().union(*(names_in(each.target) for each in over))
        for inner in within(node, ast.Attribute):
            is_grad = (
                isinstance(inner, ast.Attribute)
                and inner.attr == "grad"
                and isinstance(inner.value, ast.Name)
                and inner.value.id in names
            )
            if is_grad and isinstance(actions.syntax.parents[inner], ast.Attribute):
                if not _all_have_gradients(node, actions):
                    yield finding_at("grad-may-be-none", inner)
                break


def _all_have_gradients(node: ast.AST, actions: Actions) -> bool:
    """Tells whether `node` comes right after a backward, in a script that freezes nothing: no gradient is None."""
    syntax = actions.syntax
    if mentions(r"requires_grad|freeze|frozen", syntax.tree):
        return False
    statement = next(each for each in (node, *syntax.ancestors(node)) if isinstance(each, ast.stmt))
    block = syntax.block(statement)
    before = [
        action
        for action in actions.of("backward", "zero grad")
        for earlier in block[: block.index(statement)]
        if action.call in within(earlier, ast.Call)
    ]
    return bool(before) and before[-1].kind == "backward"


def _check_blank_images(actions: Actions) -> Iterator[Finding]:
    syntax = actions.syntax

    def blanks(body: list[ast.stmt]) -> Iterator[ast.Call]:
        raises = any(isinstance(statement, ast.Raise) for statement in body)
        for statement in body if not raises else ():
            yield from (
                call
                for call in within(statement, ast.Call)
                if isinstance(call, ast.Call) and BLANK_IMAGES.search(syntax.called(call)) and _has_label(call, actions)
            )

    for node in syntax.nodes:
        if isinstance(node, ast.Try) and _opens_images(node.body, actions):
            for handler in node.handlers:
                yield from (finding_at("black-image", call) for call in blanks(handler.body))
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and isinstance(node.test.ops[0], ast.Is):
            # `if image is None`: cv2.imread gives None for what it cannot read.
            name = text(node.test.left)
            scope = syntax.scope(node)
            reads = [
                value
                for other in within(scope, ast.Assign)
                for target, value in assigned(other)
                if text(target) == name
            ]
            if any(_opens_images([value], actions) for value in reads):
                yield from (finding_at("black-image", call) for call in blanks(node.body))


def _has_label(image: ast.Call, actions: Actions) -> bool:
    """Tells whether an image gets a label: in a data set's __getitem__, in a function that returns one beside it, or in
    a function that one of these calls.
    """
    syntax = actions.syntax
    asked: list[ast.AST] = [syntax.scope(image)]
    seen: set[ast.AST] = set()
    while asked:
        scope = asked.pop()
        if scope in seen:
            continue
        seen.add(scope)
        if getattr(scope, "name", "") in ("__getitem__", "__iter__") or any(
            isinstance(node, ast.Return | ast.Assign) and node.value is not None and _is_labelled(node.value)
            for child in ast.iter_child_nodes(scope)
            if not isinstance(child, SCOPES)
            for node in within(child, (ast.Return, ast.Assign))
        ):
            return True
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
            asked += [syntax.scope(call) for call in syntax.calls if last_name(call.func) == scope.name]
    return False


def _is_labelled(value: ast.expr) -> bool:
    """Tells whether a value is an image beside its label: image, label or {"image": ..., "label": ...}."""
    return isinstance(value, ast.Tuple | ast.Dict) and mentions(r"label|target|class|\by\b", value)


def _opens_images(body: list[ast.stmt] | list[ast.expr], actions: Actions) -> bool:
    calls = [call for part in body for call in within(part, ast.Call) if isinstance(call, ast.Call)]
    return any(OPENS_IMAGES.search(actions.syntax.called(call) or text(call.func)) for call in calls)


def _check_what_is_never_called(actions: Actions) -> Iterator[Finding]:
    steps = actions.of("scaler step")
    if steps and not actions.of("scaler update") and any(actions.syntax.loops(step.call) for step in steps):
        yield finding_at("scaler-never-updated", steps[0].call)
    clears = actions.of("zero grad") or mentions(r"\.grad = None|zero_grad|\.grad\.zero_", actions.syntax.tree)
    for loop in training_loops(actions):
        loop_steps = directly_in(actions, loop, *STEPS)
        if loop_steps and not clears:
            yield finding_at("gradients-never-cleared", loop_steps[0].call)


def _check_comments(actions: Actions, source: Source) -> Iterator[Finding]:
    for line, comment in source.comments.items():
        for rule, pattern in COMMENTS.items():
            if pattern.search(comment):
                yield Finding(line, rule)
    norms = [call for call in actions.syntax.calls if actions.syntax.called(call).rpartition(".")[2] == "batch_norm"]
    for call in norms:
        if not any(
            isinstance(parent, ast.With) and mentions("autocast", parent.items[0].context_expr)
            for parent in actions.syntax.ancestors(call)
        ):
            continue
        line = call.lineno - 1  # the comment at the head of its paragraph
        while line > 0 and source.lines[line - 1].strip() and line not in source.comments:
            line -= 1
        if SAYS_FP32.search(source.comments.get(line, "") + source.comments.get(call.lineno, "")):
            yield Finding(call.lineno, "batch-norm-in-autocast")
