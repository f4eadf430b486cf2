"""CUDA graphs against the same steps launched one by one. These tests need a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.data.feed import ImageFeed
from tune_cropshield.data.windows import evaluation_batches, training_windows
from tune_cropshield.errors import DivergedError
from tune_cropshield.training.build import build_trainer, window_settings
from tune_cropshield.training.graphs import CudaGraphs
from tune_cropshield.training.precision import DTYPES
from tune_cropshield.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

IMAGES, CLASSES, SIDE = 70, 5, 48  # windows of 32, 32 and 6: the last one ragged
SETTINGS: dict[str, Any] = {
    "model": "tiny_cnn",
    "image_size": 40,
    "effective_batch": 32,
    "micro_batch": 16,
    "accumulation": 2,
    "lr": 1e-2,
    "epochs": 4,
}


class Run:
    """A trainer and its data."""

    def __init__(self, resident: bool = True, **settings: Any) -> None:
        self.trial = TrialConfig(**{**SETTINGS, "max_norm": 1.0, **settings})
        device = torch.device("cuda")
        generator = torch.Generator().manual_seed(0)
        pictures = torch.randint(256, (IMAGES, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
        labels = torch.randint(CLASSES, (IMAGES,), generator=generator)
        pictures[torch.arange(IMAGES), labels] = 255  # something to learn: a white line whose place is the class
        self.feed, self.labels_N, self.indices = (
            ImageFeed(pictures, device, resident),
            labels.to(device),
            torch.arange(IMAGES),
        )
        self.trainer: Trainer = build_trainer(self.trial, CLASSES, labels, device)

    def train(self, epoch: int, image_size: int = 40) -> float:
        """Trains an epoch, its dropout drawn from the epoch's number, and returns its loss."""
        torch.manual_seed(epoch)
        settings = window_settings(self.trial, self.trial.pair[0], DTYPES[self.trainer.step.precision])
        windows = training_windows(self.feed, self.labels_N, self.indices, settings, epoch, image_size)
        return self.trainer.train_epoch(windows, epoch + 1).updates.train_loss

    def evaluate(self) -> tuple[float, Tensor]:
        batches = evaluation_batches(
            self.feed, self.labels_N, self.indices, 16, 40, DTYPES[self.trainer.step.precision]
        )
        evaluation = self.trainer.evaluator.evaluate(batches)
        return evaluation.loss, evaluation.confusion_KK

    def weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.trainer.evaluated_model.state_dict().items()}


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "fp32"},
        {"precision": "fp16", "optimizer": "sgd", "schedule": "onecycle"},
        {"precision": "fp32", "optimizer": "sgd", "schedule": "onecycle", "lr": 1e-3},
        {"precision": "bf16", "clip_value": 0.01, "max_norm": "none"},
        {
            "precision": "fp32",
            "ema": 0.9,
            "agc": 0.01,
            "max_norm": "none",
            "class_weights": "balanced",
            "label_smoothing": 0.1,
        },
        {"precision": "fp32", "mixup": 0.2, "cutmix": 1.0, "augment": "aggressive"},
        {"precision": "fp32", "dropout": 0.3},
        {"precision": "fp32", "loss": "focal", "class_weights": "effective", "sampling": "balanced"},
        {"precision": "fp32", "loss": "bi_tempered", "label_smoothing": 0.1, "mixup": 0.2},
    ],
    ids=str,
)
def test_graphs_train_and_judge_as_single_launches_do(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    graphs, eager = Run(**settings), Run(**settings, cuda_graphs=False)
    for epoch in range(4):
        runs = []
        for run in (eager, graphs):
            runs.append((run.train(epoch), *run.evaluate()))
        assert runs[1][0] == pytest.approx(runs[0][0], rel=2e-2 if settings["precision"] != "fp32" else 1e-4)
        assert runs[1][1] == pytest.approx(runs[0][1], rel=2e-2 if settings["precision"] != "fp32" else 1e-3)
    assert isinstance(graphs.trainer.step.runner, CudaGraphs)
    assert graphs.trainer.step.runner.reason is None
    assert len(graphs.trainer.step.runner._captured) == 4  # two sizes of micro-batches, evaluation batches, the update
    assert int(graphs.trainer.step.updates) == int(eager.trainer.step.updates)
    assert graphs.trainer.step.scaler.get_scale() == eager.trainer.step.scaler.get_scale()
    tolerance = 0.05 if settings["precision"] != "fp32" else 2e-3
    for name, value in eager.weights().items():
        torch.testing.assert_close(
            graphs.weights()[name], value, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "fp32", "ema": 0.9},
        {"precision": "fp16", "optimizer": "sgd", "schedule": "onecycle"},
        {"precision": "bf16", "agc": 0.05, "max_norm": "none"},
    ],
    ids=str,
)
def test_graphs_train_as_single_launches_do_across_unfreezing_with_a_learning_rate_for_each_block(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    staged = {**settings, "epochs": 6, "unfreeze_epochs": 2, "backbone_lr_factor": 0.5, "layer_decay": 0.7}
    graphs, eager = Run(**staged), Run(**staged, cuda_graphs=False)
    begun = graphs.weights()
    names = []
    for epoch in range(6):
        losses = []
        for run in (eager, graphs):
            losses.append((run.train(epoch), run.evaluate()[0]))
        assert losses[1] == pytest.approx(losses[0], rel=2e-2 if settings["precision"] != "fp32" else 1e-3)
        if epoch < 2:
            backbone = {name: value for name, value in graphs.weights().items() if not name.startswith("classifier")}
            assert all(torch.equal(value, begun[name]) for name, value in backbone.items())
        runner = graphs.trainer.step.runner
        assert isinstance(runner, CudaGraphs) and runner.reason is None
        names.append(sorted({str(key[0]) for key in runner._captured}))  # type: ignore[index]
    assert names[1] == ["evaluation", "micro-step of the head alone", "update of the head alone"]
    assert names[-1] == ["evaluation", "micro-step", "update"]
    tolerance = 0.05 if settings["precision"] != "fp32" else 2e-3
    for name, value in eager.weights().items():
        torch.testing.assert_close(
            graphs.weights()[name], value, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert not any(
        torch.equal(value, begun[name]) for name, value in graphs.weights().items() if name.endswith("weight")
    )


def test_a_second_training_of_the_same_process_captures_at_once_and_starts_from_its_own_weights() -> None:
    first, second = Run(precision="fp32"), Run(precision="fp32", lr=1e-3)
    first.train(0), first.evaluate(), first.train(1)
    before = second.weights()
    second.train(0)
    assert isinstance(second.trainer.step.runner, CudaGraphs)
    assert len(second.trainer.step.runner._captured) == 3
    after = second.weights()
    assert all(torch.isfinite(value).all() for value in after.values() if value.is_floating_point())
    moved = max(float((after[name] - before[name]).abs().max()) for name in before if "weight" in name)
    assert 0 < moved < 0.02  # three updates at 1e-3, not at the first training's 1e-2


@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize(
    "settings",
    [{}, {"mixup": 0.2, "cutmix": 1.0}, {"ema": 0.9, "class_weights": "balanced"}, {"precision": "bf16"}],
    ids=str,
)
def test_nothing_in_a_window_waits_for_the_host(settings: dict[str, Any], resident: bool, cuda_graphs: bool) -> None:
    run = Run(resident, cuda_graphs=cuda_graphs, **settings)
    run.train(0), run.train(1)
    step = run.trainer.step
    cut = window_settings(run.trial, run.trial.pair[0], DTYPES[step.precision])
    step.log.start()
    windows = training_windows(run.feed, run.labels_N, run.indices, cut, 2, 40)
    trained = 0
    window = next(windows)  # the epoch's order is sent to the device once, before its first window
    with errors_for_synchronisation():
        while window is not None:
            step.remember()
            step.train_window(window)
            trained += window.num_samples
            window = next(windows, None)
    assert trained == IMAGES
    assert step.log.summary().skipped_steps == 0


@contextmanager
def errors_for_synchronisation() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


ASKING = """
from tune_cropshield.training.cnn import tiny_cnn
from torch import nn

class Asking(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.network = tiny_cnn(num_classes, None)

    def forward(self, images):
        return self.network(images) if float(images.mean()) < 1e9 else images  # asks the host about each batch
"""


def test_a_network_that_waits_for_the_host_is_trained_without_graphs_and_the_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "asking.py").write_text(ASKING, encoding="utf-8")
    model = f"{tmp_path / 'asking.py'}:Asking"
    expected = Run(precision="fp32", optimizer="sgd", model=model, cuda_graphs=False)
    run = Run(precision="fp32", optimizer="sgd", model=model)
    assert [run.train(epoch) for epoch in range(3)] == pytest.approx(
        [expected.train(epoch) for epoch in range(3)], rel=1e-3
    )
    assert "waits for the host" in str(run.trainer.step.runner.reason)


def test_graphs_of_several_image_sizes_take_no_more_memory_together_than_those_of_the_largest() -> None:
    reserved = []
    for sizes in ((40, 40), (24, 24, 40, 40)):
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved()
        run = Run(precision="fp32", model="resnet18", optimizer="sgd")
        for epoch, size in enumerate(sizes):
            run.train(epoch % 4, image_size=size)
        reserved.append(torch.cuda.memory_reserved() - before)
        runner = run.trainer.step.runner
        runner.forget()
        assert isinstance(runner, CudaGraphs)
        assert not runner._captured
        del run, runner
    assert reserved[1] <= 1.25 * reserved[0]


def test_a_skipped_update_leaves_weights_alone_inside_a_graph() -> None:
    run = Run(precision="fp16", optimizer="adamw")
    run.train(0), run.train(1)
    step = run.trainer.step
    updates, before = int(step.updates), run.weights()
    step.scaler._scale.fill_(2.0**120)  # type: ignore[union-attr]  # every gradient overflows
    with pytest.raises(DivergedError, match="at every loss scale"):
        run.train(2)
    assert int(step.updates) == updates
    assert all(
        torch.equal(run.weights()[name], value) for name, value in before.items() if name.endswith(("weight", "bias"))
    )
    assert step.scaler.get_scale() == 2.0**117
