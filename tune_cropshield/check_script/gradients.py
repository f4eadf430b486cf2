"""Rules about training without gradients: a loss that is made where they are switched off."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tune_cropshield.check_script.actions import NAMED_LOSS, Action, Actions
from tune_cropshield.check_script.conditions import Facts, conditions_met, exclude_each_other, facts_at
from tune_cropshield.check_script.rules import Finding, finding_at
from tune_cropshield.check_script.syntax import SCOPES, assigned, last_name, mentions, text, within
from tune_cropshield.check_script.values import WITHOUT_GRADIENTS, Values

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SWITCHES_ON = r"set_grad_enabled\((?!(mode=)?False)|enable_grad|__exit__"


def check_gradients(actions: Actions, values: Values) -> Iterator[Finding]:
    """Yields where a loss that goes backward is made without gradients."""
    for backward in actions.of("backward"):
        yield from _check_gradients(backward, actions, values)
    yield from _check_gradients_left_off(actions, values)


def _check_gradients_left_off(actions: Actions, values: Values) -> Iterator[Finding]:
    """Gradients switched off for good in a loop that trains or before one, and nothing that switches them on again."""
    syntax = actions.syntax
    for call in syntax.calls:
        kept_as = [text(target) for target, _ in assigned(syntax.parents[call])]
        stands_alone = isinstance(syntax.parents[call], ast.Expr) or kept_as == ["_"]  # what is kept may be undone
        if not stands_alone or not _switches_off_for_good(call, values):
            continue
        around = next((loop for loop in syntax.loops(call) if actions.inside(loop, "backward")), None)
        if around is not None:
            if not mentions(SWITCHES_ON, around):
                yield finding_at("trains-without-gradients", call)
        elif any(_stays_off(call, backward.call, actions) for backward in actions.of("backward")):
            yield finding_at("trains-without-gradients", call)


def _switches_off_for_good(call: ast.Call, values: Values) -> bool:
    """Tells whether a statement is torch.set_grad_enabled(False), or enters torch.no_grad() without a with."""
    if isinstance(call.func, ast.Attribute) and call.func.attr == "__enter__":
        context = call.func.value
        return any(mentions(WITHOUT_GRADIENTS, each) for each in (context, *values.of(context)))
    return last_name(call.func) == "set_grad_enabled" and mentions(WITHOUT_GRADIENTS, call)


def _stays_off(off: ast.Call, backward: ast.Call, actions: Actions) -> bool:
    """Tells whether gradients are surely still off at `backward`, when `off` has switched them off before it."""
    syntax = actions.syntax
    scope = syntax.scope(off)
    if not syntax.is_after(backward, off) or scope not in syntax.ancestors(backward):
        return False
    if not facts_at(off, scope, syntax) <= facts_at(backward, scope, syntax):
        return False
    around = [parent for parent in syntax.ancestors(backward) if isinstance(parent, FUNCTIONS)]
    if any(mentions(SWITCHES_ON, decorator) for function in around for decorator in function.decorator_list):
        return False
    return not any(
        mentions(SWITCHES_ON, call.func if last_name(call.func) != "set_grad_enabled" else call)
        and syntax.is_after(call, off)
        and (not syntax.is_after(call, backward) or set(syntax.loops(call)) & set(syntax.loops(backward)))
        for call in syntax.calls
    )


def _check_gradients(backward: Action, actions: Actions, values: Values) -> Iterator[Finding]:
    """A backward whose loss is made without gradients, wherever it is made."""
    syntax = actions.syntax
    assert isinstance(backward.call.func, ast.Attribute)
    loops = syntax.loops(backward.call)
    root: ast.AST = loops[0] if loops else syntax.scope(backward.call)
    facts = facts_at(backward.call, root, syntax)
    assignments = list(_own(root))

    def made(names: set[str], on_the_way: frozenset[str] = frozenset()) -> list[ast.expr | None]:
        """Returns what switches gradients off, for each way in which one of the names is made for this backward."""
        found: list[ast.expr | None] = []
        for node in assignments:
            pairs = [(node.target, node.value)] if isinstance(node, ast.AugAssign) else assigned(node)
            for target, value in pairs:
                is_one = any(isinstance(each, ast.Name) and each.id in names for each in ast.walk(target))
                computes = isinstance(value, ast.Name) or any(isinstance(each, ast.Call) for each in ast.walk(value))
                if is_one and computes and not exclude_each_other(facts_at(node, root, syntax), facts):
                    off = _switched_off(node, facts, actions, values)
                    if off is None and (outputs := _outputs_judged(value, actions) - names - on_the_way):
                        ways = made(outputs, on_the_way | names)
                        off = ways[0] if ways and all(ways) else None
                    found.append(off)
        return found

    ways = made({node.id for node in ast.walk(backward.call.func.value) if isinstance(node, ast.Name)})
    if ways and all(ways):
        yield finding_at("trains-without-gradients", next(each for each in ways if each is not None))


def _outputs_judged(value: ast.expr, actions: Actions) -> set[str]:
    """Returns the name of the output in criterion(output, labels), where nothing else could have gradients.

    Of a plain name, that is the name itself.
    """
    if isinstance(value, ast.Name):
        return {value.id}
    is_loss = (
        isinstance(value, ast.Call)
        and NAMED_LOSS.search(last_name(value.func)) is not None
        and not actions.is_model(value.func)
        and not any(isinstance(inner, ast.Call) for each in value.args for inner in ast.walk(each))
    )
    first = value.args[0] if is_loss and isinstance(value, ast.Call) and value.args else None
    return {first.id} if isinstance(first, ast.Name) else set()


def _own(root: ast.AST) -> Iterator[ast.AST]:
    """Yields the assignments in a loop, or in a function but not in those defined in it."""
    for child in ast.iter_child_nodes(root):
        if not isinstance(child, SCOPES):
            yield from within(child, (ast.Assign, ast.AnnAssign, ast.AugAssign))


def _switched_off(node: ast.AST, facts: Facts, actions: Actions, values: Values) -> ast.expr | None:
    """Returns what switches gradients off at `node`, when `facts` hold."""
    for parent in actions.syntax.ancestors(node):
        contexts: list[ast.expr] = []
        if isinstance(parent, ast.With):
            contexts = [item.context_expr for item in parent.items]
        elif isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef):
            contexts = parent.decorator_list
        for context in contexts:
            kinds = values.of(context) if isinstance(context, ast.Name) else [context]
            if any(mentions(r"enable_grad", kind) for kind in kinds):
                return None
            if kinds and all(_is_off(kind, facts) for kind in kinds):
                return context
        if isinstance(parent, SCOPES):
            break
    return None


def _is_off(context: ast.expr, facts: Facts) -> bool:
    """Tells whether a context switches gradients off, in a case that is not excluded by `facts`."""
    if isinstance(context, ast.IfExp):
        return any(
            _is_off(branch, facts) and not exclude_each_other(conditions_met(context.test, truth), facts)
            for branch, truth in ((context.body, True), (context.orelse, False))
        )
    return mentions(WITHOUT_GRADIENTS, context)
