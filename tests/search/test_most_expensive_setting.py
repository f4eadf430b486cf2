"""What the memory plan of a search is made for: the most expensive settings of its space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tune_cropshield.config.space import SearchSpace
from tune_cropshield.config.space_file import space_from
from tune_cropshield.device import Card
from tune_cropshield.memory.choose.pairs import plan_for_cpu
from tune_cropshield.search.prepare import plan_for
from tune_cropshield.search.resources import Resources
from tune_cropshield.search.trial_settings import most_expensive, pair_of, trial_config
from tune_cropshield.search.views.view import SearchView

CARD = Card("a card", "1.0", 8192.0, 8000.0)


def space(searched: dict[str, Any], **fixed: Any) -> SearchSpace:
    tables = {"trial": {"model": "resnet18", "image_size": 32, **fixed}, "space": {"lr": {"log": [1e-4, 1e-2]}}}
    return space_from({**tables, "space": {**tables["space"], **searched}, "search": {"vram": "8GB"}}, {}, "a.toml")


def test_every_searched_setting_stands_where_it_takes_the_most_memory() -> None:
    trial, differ = most_expensive(
        space(
            {
                "ema": {"choice": [0.0, 0.99, 0.999]},
                "optimizer": {"choice": ["sgd", "adamw"]},
                "mixup": {"uniform": [0.0, 0.4]},
                "dropout": {"choice": [0.5, 0.0]},
                "augment": {"choice": ["aggressive", "none", "moderate"]},
                "max_norm": {"choice": ["none", 1.0]},
                "effective_batch": {"choice": [16, 32]},
            }
        )
    )
    expected = {"optimizer": "adamw", "mixup": 0.4, "dropout": 0.5, "augment": "aggressive", "max_norm": 1.0}
    assert differ == {"ema": 0.99, **expected}
    assert {name: getattr(trial, name) for name in differ} == differ


def test_settings_that_take_the_same_memory_everywhere_are_not_spoken_of() -> None:
    trial, differ = most_expensive(space({"ema": {"choice": [0.99, 0.999]}, "mixup": {"uniform": [0.1, 0.4]}}))
    assert differ == {}
    assert trial.ema > 0 and trial.mixup > 0
    trial, differ = most_expensive(space({}, ema=0.9))
    assert (trial.ema, differ) == (0.9, {})


@pytest.mark.parametrize(
    ("ranges", "batch", "pair"),
    [
        ({"mixup": {"choice": [0.0, 0.2]}}, 34, "34x1"),  # 17 would part two neighbours
        ({}, 34, "17x2"),
        ({"mixup": {"choice": [0.0, 0.2]}}, 54, "18x3"),
        ({}, 7, "7x1"),
    ],
)
def test_a_batch_that_no_longer_fits_is_made_of_micro_batches_that_can_be_trained_with(
    ranges: dict[str, Any], batch: int, pair: str
) -> None:
    """It fitted when the search was begun; where memory runs out, it is halved."""
    searched = space({**ranges, "effective_batch": {"choice": [16, batch]}})
    now = plan_for_cpu([16])
    values = {"lr": 1e-3, "effective_batch": batch, **({"mixup": 0.2} if ranges else {})}
    assert str(pair_of(values, searched, now)) == pair
    trial = trial_config(searched, values, now, Resources("cpu", 1, 0, 1, 1, 1, 0))
    assert trial.effective_batch == batch


def test_an_own_loss_is_planned_for_before_ours(tmp_path: Path) -> None:
    code = "from tune_cropshield.training.losses import CrossEntropy as Own\n"
    (tmp_path / "own.py").write_text(code, encoding="utf-8")
    own = f"{tmp_path / 'own.py'}:Own"
    trial, differ = most_expensive(space({"loss": {"choice": ["cross_entropy", own]}}))
    assert trial.loss == own and differ == {"loss": own}


def test_a_search_of_averages_is_planned_with_one_and_says_so() -> None:
    """ResNet-18: 11,187,798 weights and 9,600 statistics of 4 bytes, 20 counters of 8: 42.7 MiB."""
    resources = Resources("cuda", 1, 1, 1, 1, 1, 0)
    without, searched = (
        plan_for(space(ranges), resources, CARD, None, SearchView())
        for ranges in ({}, {"ema": {"choice": [0.0, 0.999]}})
    )
    assert without.fixed_mib is not None and searched.fixed_mib is not None
    assert searched.fixed_mib - without.fixed_mib == pytest.approx(42.715, abs=0.001)
    assert searched.notes == ("memory is planned for the setting that needs the most in this search: ema = 0.999",)
    assert without.notes == ()
