"""Whether the photographs in a folder are those that a search or a training was begun on, before any is decoded."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tune_cropshield.config.places import cache_dir
from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.left_out import read_left_out
from tune_cropshield.data.sources import scan_photographs
from tune_cropshield.data.split_file import Now, as_now, read_split, what_changed

if TYPE_CHECKING:  # half a second to import: faulty arguments are told about before
    from tune_cropshield.search.views.view import SearchView


class Photographs:
    """The photographs of folders by content, each folder read once. view: shows that one is looked at."""

    def __init__(self, view: SearchView) -> None:
        self._view = view
        self._known: dict[str, dict[str, Now]] = {}

    def changed(self, begun: Path, config: DataConfig, before: DataConfig) -> str:
        """Returns which photographs of `config` are not those of `begun`, in words; "" where all are the same.

        A folder of a version that kept no split.csv is compared only when its photographs are decoded.

        Args:
            begun: the folder of the search or the training.
            config: its [data], with where the photographs come from now.
            before: with where they came from.

        Raises DataError where they are no photographs that can be trained on.
        """
        rows = read_split(begun)
        if rows is None or not config.given:
            return ""
        unreadable = {thing.path for thing in read_left_out(begun) if thing.kind == "unreadable"}
        there = self._of(config, before)
        return what_changed(rows, {path: each for path, each in there.items() if path not in unreadable})

    def _of(self, config: DataConfig, before: DataConfig) -> dict[str, Now]:
        """Returns {path: the photograph} of those that `config` finds."""
        key = config.model_dump_json()
        if key not in self._known:
            with ExitStack() as stack:
                if not same_places(config, before):  # else their digests are known
                    stack.enter_context(self._view.steps(f"looking at the photographs in {config.place}"))
                self._known[key] = as_now(scan_photographs(config, cache_dir() / "digests.json"))
        return self._known[key]


def gone(what: str, config: DataConfig) -> str:
    """Returns that the photographs of a "search" or a "training" are gone, and what to say."""
    flags = {"labels": "--labels FILE", "train": "--train DIR --val DIR"}
    flag = next((flags[name] for name in flags if getattr(config, name)), "--data DIR")
    if config.labels and config.dir and os.path.isfile(config.labels):
        return f"the photographs of this {what} are no longer in {config.dir}: say where (--data DIR)"
    return f"the photographs of this {what} are no longer in {config.place}: say where ({flag})"


def same_places(one: DataConfig, other: DataConfig) -> bool:
    """Tells whether the photographs of two configurations come from the same place."""
    return [*map(_whole, one.places.values())] == [*map(_whole, other.places.values())]


def _whole(place: str) -> str:
    return os.path.realpath(place) if place else ""
