"""A gradient that is not finite ends a trial in bf16 and fp32, whenever the host hears of it."""

from __future__ import annotations

import pytest
import torch
from test_step import BATCH, POISON, linear, step_for
from torch import Tensor

from tune_cropshield.config.settings import Precision
from tune_cropshield.data.mixing import Targets
from tune_cropshield.data.windows import MicroBatch, View, Window
from tune_cropshield.errors import DivergedError
from tune_cropshield.training.trainer import Trainer
from tune_cropshield.training.update_log import UpdateLog

WINDOWS = 5
CPU = torch.device("cpu")


class Late(UpdateLog):
    """A log whose copy for the host comes `late` updates late, as a GPU's does; 100: not within the epoch."""

    def __init__(self, late: int) -> None:
        super().__init__(WINDOWS, CPU)
        self.late, self.seen = late, [0.0]

    def skipped_so_far(self) -> bool:
        self.seen.append(float(self.skipped))
        return self.seen[max(len(self.seen) - 1 - self.late, 0)] > 0


class Batch(MicroBatch):
    """A micro-batch whose images are given, and may hold infinities, which stored pictures cannot."""

    def images(self) -> Tensor:
        return self.pictures_BHWC


def window(images: Tensor, labels: Tensor) -> Window:
    targets = Targets(labels)
    batch = Batch(images, torch.arange(4), torch.tensor(0), targets, None, View("none", 2, 0, torch.float32))
    return Window(targets, len(labels), (part for part in [batch]))


@pytest.mark.parametrize("late", [0, 1, 2, 100])
@pytest.mark.parametrize("bad", [0, 2, 4])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_end_is_the_same_wherever_the_gradient_stands_and_however_late_the_host_sees_it(
    precision: Precision, bad: int, late: int
) -> None:
    model = linear()
    step = step_for(model, precision=precision)
    step.log = Late(late)
    windows = [window(*(POISON if number == bad else BATCH)) for number in range(WINDOWS)]
    with pytest.raises(DivergedError) as caught:
        Trainer(step, 3, None).train_epoch(windows, 1)
    assert (caught.value.what, caught.value.epoch, caught.value.update) == ("a gradient", 1, bad)
    assert int(step.updates) == bad
    expected = linear()
    alone = step_for(expected, precision=precision)
    Trainer(alone, 3, None).train_epoch([window(*BATCH) for _ in range(bad)] or [window(*BATCH)], 1)
    if bad:
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))
        assert caught.value.grad_norm == alone.log.summary().last_grad_norm


def test_an_epoch_without_one_ends_well() -> None:
    step = step_for(linear())
    step.log = Late(100)
    assert Trainer(step, 3, None).train_epoch([window(*BATCH)] * 1, 1).updates.skipped_steps == 0
