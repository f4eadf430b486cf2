"""What waits for a search's first trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tune_cropshield.commands.warm_start import warm_start
from tune_cropshield.search.resources import num_cores
from tune_cropshield.search.warm_up import WarmUp
from tune_cropshield.space import SearchSpace, load_space

SPACE = """
[trial]
model = "resnet18"
image_size = 64
[space]
lr = {log = [1e-4, 3e-2]}
effective_batch = {choice = [32, 48]}
[search]
trials = 6
epochs = 2
"""
IMAGES = 120
LONG = 10**9  # images from which on it is worth measuring how to train them
ROOMY, SMALL = 80_000.0, 8_000.0


@pytest.fixture
def space(tmp_path: Path, drawn_leaves: Path) -> Any:
    """Makes the space."""

    def make(text: str = SPACE, **search: Any) -> SearchSpace:
        (tmp_path / "space.toml").write_text(text)
        return load_space(tmp_path / "space.toml", {"data": {"dir": str(drawn_leaves)}, "search": search})

    return make


def test_on_a_cpu_a_process_for_each_core_imports_what_trials_need(space: Any) -> None:
    assert warm_start(space(), [], IMAGES, LONG) == (min(num_cores(), 6), WarmUp(("torchvision.models",)))
    assert warm_start(space(SPACE.replace("resnet18", "tiny_cnn")), [], IMAGES, LONG)[1] == WarmUp()


def test_where_the_leaves_are_still_to_be_drawn_the_gpu_is_left_alone(space: Any) -> None:
    assert warm_start(space(trials_per_gpu=3), [ROOMY], None, LONG) == (3, WarmUp(("torchvision.models",)))


def test_in_a_short_search_on_a_roomy_gpu_each_process_tries_the_step_of_trial_0(space: Any) -> None:
    workers, warm_up = warm_start(space(trials_per_gpu=3), [ROOMY], IMAGES, LONG)
    assert workers == 3
    assert warm_up.trial is not None
    assert (warm_up.trial.model, warm_up.trial.image_size, warm_up.trial.pair) == ("resnet18", 64, (32, 1))  # the guide's batch, whole
    assert warm_start(space(), [ROOMY], IMAGES, LONG)[0] == 1  # "auto": it measures nothing and trains one trial at a time


@pytest.mark.parametrize(
    ("search", "free_mib", "pays_from"),
    [
        ({"trials_per_gpu": 3}, [SMALL], LONG),
        ({"trials_per_gpu": 3}, [ROOMY / 2], LONG),
        ({"trials_per_gpu": 3, "vram": "8GB"}, [ROOMY], LONG),
        ({"trials_per_gpu": 3}, [ROOMY, ROOMY], LONG),
        ({"trials_per_gpu": 3}, [ROOMY], 6 * 2 * IMAGES),
        ({"trials_per_gpu": 3, "pairs": "all"}, [ROOMY], LONG),
    ],
    ids=["a small card", "too little for three", "a small budget", "two cards", "a long search", "every pair"],
)
def test_the_gpu_is_left_alone_where_it_is_measured_or_not_known_which_it_will_be(
    search: dict[str, Any], free_mib: list[float], pays_from: int, space: Any
) -> None:
    workers, warm_up = warm_start(space(**search), free_mib, IMAGES, pays_from)
    assert workers == min(3 * len(free_mib), 6)
    assert warm_up == WarmUp(("torchvision.models",))
