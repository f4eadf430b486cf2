"""What a search on a GPU goes by where it measures nothing: speeds kept from before, or the usual."""

from __future__ import annotations

from pathlib import Path

from tune_cropshield.config import TrialConfig
from tune_cropshield.memory.budget import Budget
from tune_cropshield.memory.card import Card
from tune_cropshield.memory.gpu_kernels import fastest_kernels
from tune_cropshield.memory.gpu_packing import trials_together
from tune_cropshield.memory.packing import SpeedCache
from tune_cropshield.memory.probe_cache import identity

CARD = Card("a card", "1.0", 8192.0, 8000.0)
TRIAL = TrialConfig(model="tiny_cnn", image_size=32)
BUDGET = Budget(8000.0)


def together(cache: Path) -> tuple[int, str]:
    return trials_together(TRIAL, 22, (32, 64), BUDGET, CARD, cache, cores=16, even=False, worth_measuring=False)


def test_a_short_search_runs_one_trial_at_a_time_unless_it_is_known_that_more_are_faster(tmp_path: Path) -> None:
    number, why = together(tmp_path)
    assert (number, why) == (1, "one trial at a time on the GPU: so short a search would not repay measuring whether more together are faster")
    of = {**identity(TRIAL, 22, "fp16", CARD), "batches": [32, 64], "budget": 8, "cores": 16}
    SpeedCache(tmp_path, "packing", of).save({"1": 1000.0, "2": 1900.0, "3": 1850.0})
    number, why = together(tmp_path)
    assert (number, why) == (2, "2 trials share the GPU: 2 together make 1900 images/s, one alone 1000 (1.90 x)")


def test_a_short_search_trains_in_the_usual_precision_unless_a_faster_one_is_known(tmp_path: Path) -> None:
    settings, why = fastest_kernels(TRIAL, 22, (32, 64), BUDGET, CARD, tmp_path, even=False, worth_measuring=False)
    assert settings == {"precision": "fp16", "channels_last": True}
    assert why == "trained in fp16 channels_last: so short a search would not repay measuring others"
    of = {**identity(TRIAL, 22, "auto", CARD), "batch": 64}
    SpeedCache(tmp_path, "kernels", of).save({"fp16 channels_last": 1000.0, "bf16 channels_last": 1100.0})
    settings, why = fastest_kernels(TRIAL, 22, (32, 64), BUDGET, CARD, tmp_path, even=False, worth_measuring=False)
    assert settings == {"precision": "bf16", "channels_last": True}
    assert why == "trained in bf16 channels_last (images/s measured: fp16 channels_last 1000, bf16 channels_last 1100)"
