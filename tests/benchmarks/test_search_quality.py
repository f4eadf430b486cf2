"""benchmarks/search_quality.py: what the default search is compared with, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from search_quality import RandomSettings, StockRayTune, sign_flip_p, split_photographs, summary

from tune_cropshield.search.ray_runtime import ray_runtime

SPACE = {"lr": FloatDistribution(1e-5, 1e-1, log=True), "max_norm": CategoricalDistribution(("none", 1.0))}
EPOCHS, TRIALS = 6, 14


def accuracy(lr: float, epoch: int) -> float:
    """A training without chance."""
    return epoch / (epoch + 3) * lr**0.1


def played(proposer: Any) -> list[tuple[float, int]]:
    """The lr and the number of epochs of each trial, in order."""
    trials = []
    for number in range(TRIALS):
        lr, last = proposer.suggest(number)["lr"], None
        for epoch in range(1, EPOCHS + 1):
            last = {"val_acc": accuracy(lr, epoch), "training_iteration": epoch}
            if proposer.should_stop(number, epoch, last["val_acc"]):
                break
        assert last is not None
        proposer.ended(number, last)
        trials.append((lr, last["training_iteration"]))
    return trials


@pytest.mark.ray
def test_stock_proposes_and_stops_what_ray_tune_does() -> None:
    with ray_runtime(1, 0, None):
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        class Training(tune.Trainable):
            def setup(self, config: dict[str, Any]) -> None:
                self.lr = config["lr"]

            def reset_config(self, new_config: dict[str, Any]) -> bool:
                self.setup(new_config)
                return True

            def step(self) -> dict[str, Any]:
                return {"val_acc": accuracy(self.lr, self.iteration + 1), "done": self.iteration + 1 == EPOCHS}

        order: list[float] = []

        class Order(tune.Callback):
            def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
                order.append(trial.config["lr"])

        found = tune.Tuner(
            Training,
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(SPACE, metric="val_acc", mode="max", seed=3),
                scheduler=ASHAScheduler(metric="val_acc", mode="max", max_t=EPOCHS),
                num_samples=TRIALS,
                max_concurrent_trials=1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                verbose=0, callbacks=[Order()], checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False)
            ),
        ).fit()
        epochs = {one.config["lr"]: one.metrics["training_iteration"] for one in found if one.config and one.metrics}

    trials = played(StockRayTune(SPACE, EPOCHS, 3))
    assert trials == [(lr, epochs[lr]) for lr in order]
    assert len(trials) == TRIALS and {1, EPOCHS} <= {count for _, count in trials}


def test_random_settings_are_trained_to_their_end() -> None:
    trials = played(RandomSettings(SPACE, EPOCHS, 0))
    assert [count for _, count in trials] == TRIALS * [EPOCHS]
    assert len({lr for lr, _ in trials}) == TRIALS


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([0.1, 0.2, 0.3], 0.25),  # all of one sign: 2 of 8
        ([0.1, -0.1], 1.0),
        ([0.0, 0.0], 1.0),
        ([1.0, 1.0, 1.0, -1.0], 0.625),  # a sum of 2 or more, either way: 10 of 16
        ([0.01] * 10, 2 / 1024),
    ],
)
def test_the_sign_flip_test_counts_the_ways_to_be_as_far_ahead(differences: list[float], p: float) -> None:
    assert sign_flip_p(differences) == pytest.approx(p)


def test_methods_are_compared_seed_by_seed_at_equal_epochs() -> None:
    def line(method: str, seed: int, accuracies: list[float], test_acc: float) -> dict[str, Any]:
        own = {"method": method, "seed": seed, "accuracies": accuracies, "test_acc": test_acc}
        return {**own, "trials": 2, "seconds": 10.0}

    results = [
        line("default", 0, [0.1, 0.6, 0.5], 0.55),
        line("stock", 0, [0.3, 0.4, 0.5], 0.45),
        line("default", 1, [0.2, 0.5, 0.8], 0.7),
        line("stock", 1, [0.3, 0.4, 0.6], 0.65),
    ]
    rows = {(row["method"], row["budget"]): row for row in summary(results, [2])}
    assert list(rows) == [("default", 2), ("default", "all"), ("stock", 2), ("stock", "all")]
    assert rows["stock", 2]["best_mean"] == 0.4
    assert rows["stock", 2]["default_ahead"] == 0.15
    assert rows["stock", "all"]["best_mean"] == 0.55
    assert rows["stock", "all"]["best_se"] == 0.05
    assert rows["stock", "all"]["default_ahead"] == 0.15
    assert rows["stock", "all"]["default_ahead_test"] == 0.075
    assert rows["stock", "all"]["p_test"] == 0.5


def test_a_seed_draws_which_photographs_train_validate_and_test(drawn_leaves: Path, tmp_path: Path) -> None:
    first = split_photographs(drawn_leaves, tmp_path / "a", 0, 12, 5)
    names = {part: {path.name for path in (first / part).rglob("*.*")} for part in ("train", "val", "test")}
    counts = {part: len(list((first / part).rglob("*.*"))) for part in ("train", "val", "test")}
    assert counts == {"train": 4 * 12, "val": 4 * 5, "test": 4 * 13}
    second = split_photographs(drawn_leaves, tmp_path / "b", 1, 12, 5)
    assert {path.relative_to(second) for path in second.rglob("*.*")} != {
        path.relative_to(first) for path in first.rglob("*.*")
    }
    assert names["train"]
