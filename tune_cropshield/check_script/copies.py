"""Copies of parts of a syntax tree, with other expressions in place of names and nodes."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import TypeVar

from tune_cropshield.check_script.syntax import Function, within

Node = TypeVar("Node", bound=ast.AST)


def bound_in(function: Function) -> set[str]:
    """Returns the names that belong to `function`: its parameters, and what it gives values to."""
    args = function.args
    every = [*args.posonlyargs, *args.args, *args.kwonlyargs, *(each for each in (args.vararg, args.kwarg) if each)]
    names = {each.arg for each in every}
    outer: set[str] = set()
    for statement in function.body:
        for node in within(statement, (ast.Name, ast.Global, ast.Nonlocal)):
            if isinstance(node, ast.Global | ast.Nonlocal):
                outer |= set(node.names)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
    return names - outer


def expression(node: ast.AST) -> ast.expr:
    """Returns `node`, which is an expression."""
    assert isinstance(node, ast.expr)
    return node


def located(new: Node, at: ast.AST) -> Node:
    """Returns `new`, with the lines of `at`."""
    return ast.copy_location(new, at)


def copied(
    node: ast.AST,
    names: Mapping[str, ast.expr],
    replaced: Mapping[ast.AST, ast.expr] | None = None,
    *,
    blocks: bool = True,
) -> ast.AST:
    """Returns a copy of a tree with other expressions for some names, and for some nodes.

    blocks: whether the statements inside a statement are copied too, or left out.
    """
    if replaced is not None and node in replaced:
        return replaced[node]
    if isinstance(node, ast.Name) and node.id in names:
        new = copied(names[node.id], {})
        new.ctx = node.ctx  # type: ignore[attr-defined]
        return located(new, node)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        hidden = {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
        if not isinstance(node, ast.Lambda):
            hidden |= bound_in(node)
        names = {name: value for name, value in names.items() if name not in hidden}
    new_node = type(node)()
    for name, value in ast.iter_fields(node):
        if isinstance(value, list):
            if not blocks and value and isinstance(value[0], ast.stmt):
                value = []
            value = [
                copied(each, names, replaced, blocks=blocks) if isinstance(each, ast.AST) else each for each in value
            ]
        elif isinstance(value, ast.AST) and not isinstance(value, ast.expr_context):
            value = copied(value, names, replaced, blocks=blocks)
        setattr(new_node, name, value)
    return located(new_node, node)
