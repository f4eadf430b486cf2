"""Photographs that belong together, of one plant or one and the same: a split must not part them, or it flatters.

What belongs together is named by a key, a text that the photographs share; of a photograph that stands alone it is the
SHA-256 of its file, so that identical files have one key anyway.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np

from tune_cropshield.config.faults import shown
from tune_cropshield.config.settings import BY_FOLDER, FOUND_COPIES, IDENTICAL_FILES
from tune_cropshield.config.units import counted
from tune_cropshield.data.folder import NOTHING_SAID, Said
from tune_cropshield.data.layout import Layout
from tune_cropshield.data.near_copies import groups_of_near_copies, joined
from tune_cropshield.data.split import Split
from tune_cropshield.errors import DataError

PATTERN_S = 10.0  # that the regular expression of `group` may take; a sound one takes 0.2 s for 50,000 paths
SEARCH_ALL = """
import json, re, sys
pattern, paths = json.load(sys.stdin)
matches = map(re.compile(pattern).search, paths)
json.dump([match and match[1] for match in matches], sys.stdout)
"""


@dataclass(frozen=True)
class Grouping:
    """Which photographs belong together.

    keys: of each photograph. copies: groups of two or more that are copies of one photograph, as sorted indices. named:
    how many groups of two or more the folders, the paths or a table make; None where nobody asked for such. of_table:
    whether it is a table.
    """

    keys: tuple[str, ...]
    copies: tuple[tuple[int, ...], ...] = ()
    named: int | None = None
    of_table: bool = False


def grouping_of(
    rule: str,
    paths: Sequence[str],
    layout: Layout,
    digests: Sequence[str],
    by_look: Sequence[Sequence[int]],
    said: Mapping[str, Said] = NOTHING_SAID,
) -> Grouping:
    """Returns which photographs belong together.

    The groups that a table names count unless `rule` asks for others.

    Args:
        rule: `[data] group`.
        paths, digests: one per photograph; paths lie below the data's folder.
        layout: what the folders in those paths mean.
        by_look: groups of photographs that look alike; none before they are decoded.
        said: {path: what a table says of a photograph}.
    """
    plain = [layout.without_side(path) for path in paths]
    found = groups_of_near_copies(by_look, plain)
    copies = tuple(tuple(group) for group in found if len({digests[index] for index in group}) > 1)
    if rule == IDENTICAL_FILES:
        return Grouping(tuple(digests), copies)
    of_table = {index: name for index, path in enumerate(paths) if path in said and (name := said[path].group)}
    uses_table = rule == FOUND_COPIES and bool(of_table)
    named = of_table if uses_table else _named(rule, plain, len(layout.class_parts))
    by_name: dict[str, list[int]] = defaultdict(list)
    for index, name in named.items():
        by_name[name].append(index)
    keys = list(digests)
    together = [*found, *by_name.values(), *_identical(digests)]
    for group in joined(len(paths), [pair for members in together for pair in pairwise(members)]):
        key = min(digests[index] for index in group)
        for index in group:
            keys[index] = key
    num_named = sum(len(group) > 1 for group in by_name.values())
    asked_for = uses_table or rule != FOUND_COPIES
    return Grouping(tuple(keys), copies, num_named if asked_for else None, uses_table)


def parted(groups: Sequence[Sequence[int]], split: Split) -> list[tuple[int, ...]]:
    """Returns the groups of which a split puts some photographs on one side and some on another."""
    side = np.zeros(len(split.train) + len(split.val) + len(split.test), dtype=np.int8)
    side[split.val], side[split.test] = 1, 2
    return [tuple(group) for group in groups if len({int(side[index]) for index in group}) > 1]


def _named(rule: str, paths: Sequence[str], class_depth: int) -> Mapping[int, str]:
    """Returns {photograph: the name of its group}, of those whose folder or path names one.

    A pattern whose brackets hold no text names none.
    """
    if rule == FOUND_COPIES:
        return {}
    if rule == BY_FOLDER:
        folders = (PurePosixPath(path).parent for path in paths)
        return {index: str(folder) for index, folder in enumerate(folders) if len(folder.parts) > class_depth}
    return {index: name for index, name in enumerate(_in_brackets(rule, paths)) if name}


def _in_brackets(pattern: str, paths: Sequence[str]) -> list[str | None]:
    """Returns the text that the brackets of a regular expression hold in each path; None where it does not match.

    Some expressions take years for a long name, and nothing can interrupt Python's `re`: they run in a process of their
    own. Raises DataError where that takes too long.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", SEARCH_ALL],
            input=json.dumps([pattern, list(paths)]),
            capture_output=True,
            text=True,
            timeout=PATTERN_S,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise DataError(
            f"group = {shown(pattern)} in [data]: this regular expression was not done with the paths of "
            f"{counted(len(paths), 'photograph')} in {PATTERN_S:.0f} s: write it without a repeat inside a repeat, "
            "such as (a+)+"
        ) from None
    return list(json.loads(done.stdout))


def _identical(digests: Sequence[str]) -> list[list[int]]:
    members: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests):
        members[digest].append(index)
    return list(members.values())
