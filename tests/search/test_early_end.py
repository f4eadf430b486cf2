"""When a whole search ends early, and which equal weights are no sign of a fault."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution

from tune_cropshield.search.early_end import EarlyEnd
from tune_cropshield.search.folder import equal_weights


def test_two_workers_that_die_alike_before_any_has_begun_end_the_search() -> None:
    end = EarlyEnd()
    end.worker_died("no module named nowhere")
    assert not end.is_due()
    end.worker_died("no module named nowhere")
    assert end.is_due() and end.failed
    assert end.reason == "no trial can begin: no module named nowhere"


def test_workers_that_die_after_one_has_begun_or_in_other_ways_do_not() -> None:
    end = EarlyEnd()
    end.worker_died("killed")
    end.worker_died("no memory")
    end.worker_began()
    end.worker_died("killed")
    assert not end.is_due()


@pytest.mark.parametrize(("other", "is_fault"), [(1e-4, False), (1.0000000000001e-4, False), (1.001e-4, True)])
def test_equal_weights_are_a_fault_only_where_the_settings_differ_in_fp32(
    tmp_path: Path, other: float, is_fault: bool
) -> None:
    study = optuna.create_study()
    for number, lr in enumerate((1e-4, other)):
        trial = optuna.create_trial(params={"lr": lr}, distributions={"lr": FloatDistribution(1e-5, 1e-2)}, value=0.5)
        study.add_trial(trial)
        folder = tmp_path / f"t{number:03d}"
        folder.mkdir()
        (folder / "model.sha256").write_text("abc  model.safetensors\n", encoding="utf-8")
    assert (equal_weights(tmp_path, study, 1) is not None) == is_fault
