"""Work that cannot be captured as a CUDA graph: it runs as it comes, and trains as if it had never been tried. These
tests need a GPU.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_graphs import CLASSES, IMAGES, Run

from tune_cropshield.data.windows import EvaluationBatch, Window, evaluation_batches, training_windows
from tune_cropshield.errors import DivergedError
from tune_cropshield.training.build import window_settings
from tune_cropshield.training.ema import WeightAverage
from tune_cropshield.training.graphs import CudaGraphs
from tune_cropshield.training.precision import DTYPES
from tune_cropshield.training.retries.out_of_memory import OutOfMemoryPolicy

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

OPTIMIZERS = """
import torch

def not_capturable(groups, lr, momentum):
    return torch.optim.Adam(groups, lr=lr, fused=True)

def capturable(groups, lr, momentum):
    return torch.optim.Adam(groups, lr=lr, fused=True, capturable=True)
"""

NETWORK = """
import torch
from torch import nn
from tune_cropshield.training.cnn import tiny_cnn

class Refusing(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.network = tiny_cnn(num_classes, 0.3)

    def forward(self, images):
        if torch.cuda.is_current_stream_capturing():
            {fault}
        return self.network(images)
"""


@pytest.fixture(autouse=True)
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def optimizer(folder: Path, name: str) -> str:
    (folder / "own.py").write_text(OPTIMIZERS, encoding="utf-8")
    return f"{folder / 'own.py'}:{name}"


def network(folder: Path, fault: str) -> str:
    (folder / "refusing.py").write_text(NETWORK.format(fault=fault), encoding="utf-8")
    return f"{folder / 'refusing.py'}:Refusing"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_an_update_that_cannot_be_captured_runs_as_it_comes(precision: str, tmp_path: Path) -> None:
    """By then it has unscaled the gradients and told the optimizer of them; that is undone."""
    own = optimizer(tmp_path, "not_capturable")
    settings: dict[str, Any] = {"precision": precision, "optimizer": own, "ema": 0.9}
    expected, run = Run(**settings, cuda_graphs=False), Run(**settings)
    for epoch in range(3):
        tolerance = 1e-4 if precision == "fp32" else 2e-2
        assert run.train(epoch) == pytest.approx(expected.train(epoch), rel=tolerance)
    step = run.trainer.step
    assert "capturing failed: Attempting CUDA graph capture" in str(step.runner.reason)
    assert not step.updating
    assert int(step.updates) == int(expected.trainer.step.updates)
    assert step.scaler.get_scale() == expected.trainer.step.scaler.get_scale()


@pytest.mark.filterwarnings("ignore:This instance was constructed with capturable=True")
def test_an_own_optimizers_first_step_is_never_captured_in_a_later_trial_either(tmp_path: Path) -> None:
    """It makes the optimizer's state: captured, it would be made anew in every update."""
    own = optimizer(tmp_path, "capturable")
    losses = []
    for graphs in (False, True, True):
        run = Run(precision="fp32", optimizer=own, cuda_graphs=graphs)
        losses.append([run.train(epoch) for epoch in range(4)])
        assert run.trainer.step.runner.reason is None
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[2] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("fault", ["raise RuntimeError('not while capturing')", "float(images.sum())"])
def test_a_micro_step_that_cannot_be_captured_runs_as_it_comes_dropout_included(fault: str, tmp_path: Path) -> None:
    """The second fault spoils the capture itself: PyTorch's generator must not wait for its end."""
    model = network(tmp_path, fault)
    for _ in range(2):  # as two trials of one process
        run, again = Run(precision="fp32", model=model), Run(precision="fp32", model=model, cuda_graphs=False)
        for epoch in range(3):
            assert run.train(epoch) == pytest.approx(again.train(epoch), rel=1e-4)
            run.evaluate()
        assert "capturing failed" in str(run.trainer.step.runner.reason)
        assert torch.cuda.current_stream() == torch.cuda.default_stream()


def test_no_room_for_a_graph_is_no_room_for_its_batch(tmp_path: Path) -> None:
    fault = "if len(images) > 8: raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')"
    run = Run(precision="fp16", model=network(tmp_path, fault))
    policy = OutOfMemoryPolicy(32, 16, 16)
    step = run.trainer.step
    dtype = DTYPES[step.precision]

    def windows_from(micro_batch: int, first_window: int) -> Generator[Window]:
        cut = window_settings(run.trial, micro_batch, dtype)
        return training_windows(run.feed, run.labels_N, run.indices, cut, 0, 40, first_window)

    def batches_of(size: int) -> Iterator[EvaluationBatch]:
        return evaluation_batches(run.feed, run.labels_N, run.indices, size, 40, dtype)

    for epoch in (1, 2):
        assert policy.train_epoch(run.trainer, windows_from, epoch).images == IMAGES
        policy.validate(run.trainer, batches_of, epoch)
    assert [(retry.part, retry.before, retry.after) for retry in policy.retries] == [
        ("training", 16, 8),
        ("evaluation", 16, 8),
    ]
    assert isinstance(step.runner, CudaGraphs) and step.runner.reason is None


@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_gradient_that_is_not_finite_in_the_last_window_ends_the_trial(precision: str, cuda_graphs: bool) -> None:
    """The host's copy of what was left out is not there yet when the epoch's loop ends."""
    run = Run(precision=precision, cuda_graphs=cuda_graphs)
    run.train(0), run.train(1)
    step = run.trainer.step
    before = int(step.updates)

    def windows() -> Iterator[Window]:
        cut = window_settings(run.trial, 16, DTYPES[step.precision])
        for number, window in enumerate(training_windows(run.feed, run.labels_N, run.indices, cut, 2, 40)):
            if number == 2:  # of three
                with torch.no_grad():
                    step.parameters[-1].fill_(torch.inf)
            yield window

    with pytest.raises(DivergedError) as caught:
        run.trainer.train_epoch(windows(), 3)
    assert (caught.value.what, caught.value.update) == ("a gradient", before + 2)


def test_moving_the_average_takes_no_memory() -> None:
    model = torch.nn.Linear(4096, CLASSES * 1024, device="cuda")  # 80 MiB
    average = WeightAverage(model, 0.9)
    one, many = torch.ones((), device="cuda"), torch.full((), 100, dtype=torch.int64, device="cuda")
    average.update(many, one)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with torch.no_grad():
        average.update(many, one)
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before < 2**20
