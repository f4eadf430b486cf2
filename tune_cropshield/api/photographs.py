"""Whether the photographs in a folder are those that a search or a training was begun on, before any is decoded."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cropshield.config.places import cache_dir
from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.folder import scan_folder
from tune_cropshield.data.left_out import read_left_out
from tune_cropshield.data.split_file import read_split, what_changed

if TYPE_CHECKING:  # half a second to import: faulty arguments are told about before
    from tune_cropshield.search.views.view import SearchView


class Photographs:
    """The photographs of folders by content, each folder read once. view: shows that one is looked at."""

    def __init__(self, view: SearchView) -> None:
        self._view = view
        self._known: dict[tuple[Any, ...], dict[str, str]] = {}

    def changed(self, begun: Path, config: DataConfig, place: str) -> str:
        """Returns which photographs in `place` are not those of `begun`, in words; "" where all are the same.

        A folder of a version that kept no split.csv is compared only when its photographs are decoded.

        Args:
            begun: the folder of the search or the training.
            config: its [data].

        Raises DataError where `place` is no folder of photographs.
        """
        rows = read_split(begun)
        if rows is None or not place:
            return ""
        unreadable = {thing.path for thing in read_left_out(begun) if thing.kind == "unreadable"}
        there = self._of(config, place)
        return what_changed(rows, {path: digest for path, digest in there.items() if path not in unreadable})

    def _of(self, config: DataConfig, place: str) -> dict[str, str]:
        """Returns {path: SHA-256} of the photographs that `config` finds in `place`."""
        key = (place, config.class_depth, *sorted(config.merge.items()))
        if key not in self._known:
            with ExitStack() as stack:
                if not same_place(place, config.dir):  # else their digests are known
                    stack.enter_context(self._view.steps(f"looking at the photographs in {place}"))
                found = scan_folder(Path(place), cache_dir() / "digests.json", config.class_depth, config.merge)
            self._known[key] = {file.path: file.digest for file in found.files}
        return self._known[key]


def same_place(one: str, other: str) -> bool:
    """Tells whether two paths lead to the same place."""
    return os.path.realpath(one) == os.path.realpath(other)
