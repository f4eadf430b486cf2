"""The average of the weights: its numbers, and that moving it takes no memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.data.feed import ImageFeed
from tune_cropshield.data.windows import training_windows
from tune_cropshield.memory.predict.torch_private import DispatchMode
from tune_cropshield.training.build import build_trainer, window_settings
from tune_cropshield.training.ema import WeightAverage
from tune_cropshield.training.retries.out_of_memory import OutOfMemoryPolicy
from tune_cropshield.training.trainer import Trainer

CPU = torch.device("cpu")
IMAGES, CLASSES = 32, 4


def test_the_average_moves_by_its_decay_and_early_on_by_less() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    average = WeightAverage(model, decay=0.5)
    nn.init.constant_(model.weight, 1.0)
    one, none = torch.tensor(1.0), torch.tensor(0.0)
    seen = []
    for updates, applied in ((1, one), (1, none), (2, one), (100, one)):
        average.update(torch.tensor(updates), applied)
        seen.append(float(average.model.weight))
    # decay 2/11, left out, 3/12, 0.5
    assert seen == pytest.approx([9 / 11, 9 / 11, 1 - 2 / 11 / 4, 1 - 2 / 11 / 8], rel=1e-6)


class NoRoom(DispatchMode):
    """An allocator with no room for `most_bytes` at once, where `when` holds."""

    def __init__(self, trainer: Trainer, updating: bool, most_bytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.step, self.updating, self.most_bytes = trainer.step, updating, most_bytes
        self.refused = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {tensor.untyped_storage().data_ptr() for tensor in _tensors(args)}
        outputs = func(*args, **(kwargs or {}))
        made = [tensor for tensor in _tensors((outputs,)) if tensor.untyped_storage().data_ptr() not in given]
        if self.step.updating == self.updating and any(tensor.nbytes > self.most_bytes for tensor in made):
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return outputs


def _tensors(values: Any) -> list[Tensor]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


def trainer_and_policy(**settings: Any) -> tuple[Trainer, OutOfMemoryPolicy, Any]:
    trial = TrialConfig(
        model="tiny_cnn", image_size=32, effective_batch=16, micro_batch=16, epochs=1, ema=0.9, seed=1, **settings
    )
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (IMAGES, 36, 36, 3), dtype=torch.uint8, generator=generator)
    labels_N = torch.arange(IMAGES) % CLASSES

    def windows_from(micro_batch: int, first_window: int) -> Any:
        cut = window_settings(trial, micro_batch, torch.float32)
        return training_windows(ImageFeed(pictures, CPU), labels_N, torch.arange(IMAGES), cut, 0, 32, first_window)

    return build_trainer(trial, CLASSES, labels_N, CPU), OutOfMemoryPolicy(16, 16, 16), windows_from


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_from_the_optimizers_step_on_an_update_takes_no_memory(optimizer: str) -> None:
    """From there on running out of it could not be undone, and the trial would be lost."""
    trainer, policy, windows_from = trainer_and_policy(optimizer=optimizer, max_norm=1.0)
    with NoRoom(trainer, updating=True, most_bytes=1024):
        policy.train_epoch(trainer, windows_from, 1)
    assert int(trainer.step.updates) == 2
    assert policy.retries == []


def test_memory_that_runs_out_before_is_made_up_for_with_half_the_micro_batch() -> None:
    """The first feature maps of 16 images take 1 MiB, those of 8 half of that."""
    trainer, policy, windows_from = trainer_and_policy()
    with NoRoom(trainer, updating=False, most_bytes=800_000) as room:
        policy.train_epoch(trainer, windows_from, 1)
    assert room.refused == 1
    assert [(retry.before, retry.after) for retry in policy.retries] == [(16, 8)]
    assert int(trainer.step.updates) == 2
