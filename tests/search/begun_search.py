"""A search that was begun, for tests of its parts: no Ray runtime, nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tune_cropshield.config.space_file import load_space
from tune_cropshield.data.dataset import open_data
from tune_cropshield.memory.choose.pairs import plan_for_cpu
from tune_cropshield.search.context import Search, begin_search
from tune_cropshield.search.prepare import Prepared
from tune_cropshield.search.resources import divide
from tune_cropshield.search.trial_settings import effective_batches
from tune_cropshield.search.views.view import SearchView

SPACE = """
[trial]
model = "tiny_cnn"
image_size = 32
[space]
lr = {log = [1e-5, 1e-1]}
weight_decay = {log = [1e-6, 1e-2]}
[search]
trials = 3
epochs = 9
"""


@dataclass
class Photographs:
    """Where a test's photographs lie, and where their store may."""

    leaves: Path
    cache: Path


def prepared(photographs: Photographs, space_file: Path, text: str = SPACE) -> Prepared:
    """Returns what a search of the space `text`, written to `space_file`, would run on: a CPU, one trial at a time."""
    space_file.write_text(text)
    space = load_space(space_file, {"data": {"dir": str(photographs.leaves)}})
    data = open_data(space.data, {32}, photographs.cache)
    plan = plan_for_cpu(effective_batches(space))
    return Prepared(space, data, plan, divide("cpu", 1, 8), None, photographs.cache)


def begun(found: Prepared, folder: Path) -> Search:
    """Begins a search in `folder`, which exists, or goes on with the one that is there."""
    resume = (folder / "search.toml").exists()
    return begin_search(found, folder, SearchView(), resume=resume, command=["search"])
