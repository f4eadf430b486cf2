"""The picture in docs/house.md against the imports: arrows point down, and no module needs itself to be imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tune_cropshield"
PICTURE = ROOT / "docs" / "house.md"


def floors() -> dict[str, int]:
    """Returns the floor of each room in the line of arrows of docs/house.md, 0 at the top."""
    (line,) = re.findall(r"^ {4}(commands\b.* -> .*)$", PICTURE.read_text(encoding="utf-8"), re.MULTILINE)
    return {room: floor for floor, rooms in enumerate(line.split(" -> ")) for room in rooms.split(", ")}


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported(tree: ast.AST, known: set[str]) -> Iterator[str]:
    """Yields the modules of ours that a piece of code imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "tune_cropshield":
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def room_of(module: str) -> str:
    return [*module.split("."), ""][1]


def arrows_up(trees: dict[str, ast.Module], floor_of: dict[str, int]) -> list[str]:
    """Returns the imports of a room that does not stand below the importing one."""
    wrong = []
    for module, tree in trees.items():
        room = room_of(module)
        for target in imported(tree, set(trees)) if room in floor_of else ():
            below = room_of(target)
            if below not in (room, "") and not floor_of[below] > floor_of[room]:
                wrong.append(f"{module} imports {target}")
    return wrong


def at_once(tree: ast.Module) -> ast.Module:
    """Returns the part of a module that runs when it is imported and may import."""
    return ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])


def test_every_room_is_in_the_picture_and_every_arrow_points_down() -> None:
    trees, floor_of = modules(), floors()
    assert {room_of(module) for module in trees} - {"", "__main__"} == set(floor_of)
    assert arrows_up(trees, floor_of) == []


def test_an_arrow_that_points_up_is_seen() -> None:
    trees = modules()
    trees["tune_cropshield.data.wrong"] = ast.parse("def f():\n    from tune_cropshield.search import folder")
    assert arrows_up(trees, floors()) == ["tune_cropshield.data.wrong imports tune_cropshield.search.folder"]


def test_no_module_needs_itself_to_be_imported() -> None:
    trees = modules()
    graph = {module: set(imported(at_once(tree), set(trees))) for module, tree in trees.items()}
    TopologicalSorter(graph).prepare()
    graph["tune_cropshield.errors"].add("tune_cropshield.files")
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()
