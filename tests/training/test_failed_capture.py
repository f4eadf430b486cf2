"""An update whose capture fails midway, at any of its operations: what it did on the host is undone, and it runs as it
comes. On a CPU, where a runner stands in that does what a failed capture does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_step import BATCH, step_for
from torch import Tensor, nn

from tune_cropshield.config.settings import Precision
from tune_cropshield.data.mixing import Targets
from tune_cropshield.data.windows import MicroBatch, View, Window
from tune_cropshield.memory.predict.torch_private import DispatchMode
from tune_cropshield.training.clipping import Clipping
from tune_cropshield.training.ema import WeightAverage
from tune_cropshield.training.graphs import Eager, nothing
from tune_cropshield.training.step import WindowStep

MORE_THAN_ALL = 10_000  # operations of an update


class Refuses(DispatchMode):
    """Raises in the operator that comes after `most` others."""

    def __init__(self, most: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left = most

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.left == 0:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        self.left -= 1
        return func(*args, **(kwargs or {}))


class FailsToCapture(Eager):
    """Runs work called `name` as a failed capture does: up to an operation, without a trace on the device."""

    keeps_gradients = True

    def __init__(self, name: str, most: int) -> None:
        self.name, self.most = name, most
        self.step: WindowStep | None = None
        self.failed = False

    def run(self, name: str, work: Callable[..., None], *inputs: Any, undo: Callable[[], None] = nothing) -> None:
        if name == self.name and not self.failed:
            assert self.step is not None
            on_device = tensors_of(self.step)
            before = [tensor.clone() for tensor in on_device]
            try:
                with Refuses(self.most):
                    work(*inputs)
            except RuntimeError:
                self.failed = True
                reason = "capturing failed"
            for tensor, value in zip(on_device, before, strict=True):
                tensor.detach().copy_(value)
            if not self.failed:
                work(*inputs)
                return
            undo()
            self.reason = reason
        work(*inputs)


def tensors_of(step: WindowStep) -> list[Tensor]:
    """Returns everything that lies on the device and lives on after an update."""
    assert step.average is not None
    state = [value for kept in step.optimizer.state.values() for value in kept.values() if isinstance(value, Tensor)]
    scaler = [value for value in vars(step.scaler).values() if isinstance(value, Tensor)]
    log = [value for value in vars(step.log).values() if isinstance(value, Tensor)]
    own = [value for value in vars(step).values() if isinstance(value, Tensor)]
    sums = list(vars(step.gradients)["_sums"])
    return [
        *step.model.state_dict().values(),
        *step.average.model.state_dict().values(),
        *state,
        *scaler,
        *log,
        *own,
        *sums,
    ]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


def window() -> Window:
    """Two micro-batches of 8 px pictures, two images each."""
    pictures = torch.randint(256, (4, 3, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    targets, samples = Targets(BATCH[1]), torch.arange(4)
    view = View("none", 2, 0, torch.float32)
    parts = (
        MicroBatch(pictures[at : at + 2], samples[at : at + 2], torch.tensor(0), targets.slice(at, at + 2), None, view)
        for at in (0, 2)
    )
    return Window(targets, 4, (part for part in parts))


def step_of(runner: Eager, precision: Precision, optimizer: str) -> WindowStep:
    model = network()
    step = step_for(
        model,
        precision=precision,
        optimizer=optimizer,
        clipping=Clipping("norm", 0.01),
        average=WeightAverage(model, 0.9),
        scale=64.0,
        runner=runner,
    )
    if isinstance(runner, FailsToCapture):
        runner.step = step
    return step


def trained(runner: Eager, precision: Precision, optimizer: str) -> WindowStep:
    """Returns a step that has made two updates."""
    step = step_of(runner, precision, optimizer)
    for _ in range(2):
        step.remember()
        step.train_window(window())
    return step


class InPlace(Eager):
    keeps_gradients = True


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("name", ["update", "micro-step"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_capture_that_fails_at_any_operation_leaves_no_trace(name: str, precision: Precision, optimizer: str) -> None:
    expected = trained(InPlace(), precision, optimizer)
    places = 0
    for most in range(MORE_THAN_ALL):
        runner = FailsToCapture(name, most)
        step = trained(runner, precision, optimizer)
        assert not step.updating
        assert not hasattr(step.optimizer, "found_inf")
        assert int(step.updates) == 2
        for own, other in zip(tensors_of(step), tensors_of(expected), strict=True):
            assert torch.equal(own, other), most
        if not runner.failed:
            break
        places += 1
    assert places > 10


class RunsOut(FailsToCapture):
    """Runs out of memory where the work that could not be captured is to run as it comes."""

    def run(self, name: str, work: Callable[..., None], *inputs: Any, undo: Callable[[], None] = nothing) -> None:
        def out_of_memory(*inputs: Any) -> None:
            if self.failed:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            work(*inputs)

        super().run(name, out_of_memory if name == self.name else work, *inputs, undo=undo)


def test_after_a_failed_capture_memory_may_run_out_and_the_window_is_gone_back_on() -> None:
    """Were the step still thought to be changing the weights, the trial would be lost."""
    for most in range(MORE_THAN_ALL):
        runner = RunsOut("update", most)
        step = step_of(runner, "fp16", "adamw")
        before = [tensor.clone() for tensor in step.model.state_dict().values()]
        step.remember()
        try:
            step.train_window(window())
        except torch.OutOfMemoryError:
            assert not step.updating
            step.go_back()
        if not runner.failed:
            break
        assert all(torch.equal(now, then) for now, then in zip(step.model.state_dict().values(), before, strict=True))
        step.runner = InPlace()
        step.train_window(window())
        assert int(step.updates) == 1
    assert most > 10
