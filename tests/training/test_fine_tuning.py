"""Staged unfreezing, a slower backbone and layer decay: what an update changes, and by how much."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from tests.training.test_loop import config, exact
from tests.training.test_step import BATCH, make_update
from tune_cropshield.config.settings import DataConfig, TrialConfig, stops_early
from tune_cropshield.data.dataset import DeviceData, open_data
from tune_cropshield.data.mixing import Targets
from tune_cropshield.errors import ConfigError
from tune_cropshield.memory.choose.for_gpu import estimate_for
from tune_cropshield.memory.measure.trial_step import TrialStep
from tune_cropshield.training.build import build_trainer
from tune_cropshield.training.graphs import Eager, nothing
from tune_cropshield.training.loop import run_trial, trial_epochs
from tune_cropshield.training.model_checks import check_network
from tune_cropshield.training.retries.spilling import EpochMemory, SpillPolicy
from tune_cropshield.training.step import WindowStep
from tune_cropshield.training.trainer import Trainer

CPU = torch.device("cpu")
NETWORK = """
from torch import nn

def build(num_classes):
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(16, num_classes)),
    )
"""


@pytest.fixture
def network(tmp_path: Path) -> str:
    """The name of a network for images of 2 px with batch norm: two blocks and a head."""
    (tmp_path / "network.py").write_text(NETWORK, encoding="utf-8")
    return f"{tmp_path / 'network.py'}:build"


def trainer_of(model: str, **settings: Any) -> Trainer:
    """Returns a trainer of four images in three classes: an update is an epoch."""
    own = {"model": model, "effective_batch": 4, "schedule": "constant", "warmup_epochs": 0.0, "precision": "fp32"}
    trial = TrialConfig.model_validate({**own, "epochs": 20, "lr": 0.1, **settings})
    return build_trainer(trial, 3, BATCH[1], CPU)


def train_epoch(trainer: Trainer, epoch: int) -> None:
    """Trains an epoch (from 1) of one update on BATCH."""

    class Window:
        num_samples = 4

    def update(window: object) -> bool:
        make_update(trainer.step, *BATCH)
        return True

    trainer.train_epoch([Window()], epoch, update)  # type: ignore[list-item]


def layers(model: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module]:
    return model[0], model[1], model[3], model[5]  # type: ignore[index]


def test_an_update_of_sgd_moves_each_block_by_its_own_learning_rate(network: str) -> None:
    settings = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0}
    trainer = trainer_of(network, **settings, backbone_lr_factor=0.5, layer_decay=0.2)
    model = copy.deepcopy(trainer.step.model).train()
    nn.functional.cross_entropy(model(BATCH[0]), BATCH[1]).backward()
    train_epoch(trainer, 1)

    for lr, before, after in zip((0.002, 0.002, 0.01, 0.1), layers(model), layers(trainer.step.model), strict=True):
        for old, new in zip(before.parameters(), after.parameters(), strict=True):
            assert old.grad is not None
            torch.testing.assert_close(new.detach(), old.detach() - lr * old.grad, rtol=1e-6, atol=1e-7)


def test_adamw_with_a_schedule_and_weight_decay_is_torchs_with_a_group_for_each_block(network: str) -> None:
    settings = {"schedule": "cosine", "epochs": 3, "weight_decay": 0.3}
    trainer = trainer_of(network, **settings, backbone_lr_factor=0.5, layer_decay=0.2)
    model = copy.deepcopy(trainer.step.model).train()
    first, norm, second, head = layers(model)
    theirs = torch.optim.AdamW(
        [
            {"params": [first.weight], "lr": 0.002, "weight_decay": 0.3},
            {"params": [*norm.parameters()], "lr": 0.002, "weight_decay": 0.0},
            {"params": [second.weight], "lr": 0.01, "weight_decay": 0.3},
            {"params": [second.bias], "lr": 0.01, "weight_decay": 0.0},
            {"params": [head.weight], "lr": 0.1, "weight_decay": 0.3},
            {"params": [head.bias], "lr": 0.1, "weight_decay": 0.0},
        ]
    )
    for epoch, factor in ((1, 1.0), (2, 0.75), (3, 0.25)):
        for group in theirs.param_groups:
            group["lr"] = group.setdefault("peak", group["lr"]) * factor
        theirs.zero_grad()
        nn.functional.cross_entropy(model(BATCH[0]), BATCH[1]).backward()
        theirs.step()
        train_epoch(trainer, epoch)

    for own, other in zip(trainer.step.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)


def test_plateaus_drop_reaches_every_group(network: str) -> None:
    trainer = trainer_of(network, schedule="plateau", backbone_lr_factor=0.5)
    trainer.step.lr_scale.fill_(0.25)
    trainer.step.set_lr()
    lrs = [float(group["lr"]) for group in trainer.step.optimizer.param_groups]
    assert lrs == pytest.approx([0.0125, 0.025, 0.0125, 0.025])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_frozen_backbone_stays_to_the_last_bit_and_then_learns_from_a_fresh_state(
    optimizer: str, network: str
) -> None:
    """Against plain PyTorch: an optimizer of the head, and one of the backbone that is made at unfreezing."""
    make: Callable[..., torch.optim.Optimizer] = {
        "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.1),
        "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
    }[optimizer]
    trainer = trainer_of(network, optimizer=optimizer, weight_decay=0.3, unfreeze_epochs=2, ema=0.5)
    model = trainer_of(network).step.model  # of the same seed
    begun = copy.deepcopy(model.state_dict())
    *backbone, head = layers(model)

    def groups(*parts: nn.Module) -> list[dict[str, Any]]:
        parameters = [parameter for part in parts for parameter in part.parameters()]
        return [
            {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": 0.3},
            {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
        ]

    optimizers = [make(groups(head))]
    for epoch in (1, 2, 3, 4):
        if epoch == 3:
            optimizers.append(make(groups(*backbone)))
        model.train()
        backbone[1].train(epoch > 2)
        model.zero_grad()
        nn.functional.cross_entropy(model(BATCH[0]), BATCH[1]).backward()
        for one in optimizers:
            one.step()
        train_epoch(trainer, epoch)
        assert (trainer.step.frozen is not None) == (epoch <= 2)
        if epoch <= 2:
            for state in (trainer.step.model.state_dict(), trainer.evaluated_model.state_dict()):
                assert all(torch.equal(state[name], begun[name]) for name in begun if not name.startswith("5."))
        for own, other in zip(trainer.step.model.state_dict().values(), model.state_dict().values(), strict=True):
            torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)
    assert not any(torch.equal(trainer.step.model.state_dict()[name], value) for name, value in begun.items())


class InPlace(Eager):
    """Runs work as it comes, with gradients that stay in their place as for a CUDA graph."""

    keeps_gradients = True

    def __init__(self) -> None:
        self.met: list[str] = []
        self.forgotten = 0

    def run(self, name: str, work: Callable[..., None], *inputs: Any, undo: Callable[[], None] = nothing) -> None:
        self.met.append(name)
        work(*inputs)

    def forget(self) -> None:
        self.forgotten += 1


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_gradients_in_place_give_the_same_numbers_across_unfreezing(precision: str, network: str) -> None:
    eager = trainer_of(network, unfreeze_epochs=2, precision=precision, layer_decay=0.5, max_norm=0.1)
    other = trainer_of(network, unfreeze_epochs=2, precision=precision, layer_decay=0.5, max_norm=0.1)
    step = other.step
    other.step = WindowStep(
        step.model,
        step.optimizer,
        step.scaler,
        lr=step.lr,
        peak_lr=step.peak_lr,
        lr_factors=step.lr_factors,
        clipping=step.clipping,
        precision=step.precision,
        loss=step.loss,
        average=None,
        log=step.log,
        runner=InPlace(),
        frozen=step.frozen,
    )
    for epoch in (1, 2, 3, 4):
        train_epoch(eager, epoch)
        train_epoch(other, epoch)
        assert eager.step.log.summary().grad_norm_p50 == pytest.approx(other.step.log.summary().grad_norm_p50, rel=1e-5)
    for own, expected in zip(other.step.model.parameters(), eager.step.model.parameters(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-6)


def test_the_work_of_both_stages_has_names_of_its_own_and_what_was_captured_is_forgotten(network: str) -> None:
    trainer = trainer_of(network, unfreeze_epochs=1)
    runner = trainer.step.runner = InPlace()

    class Batch:
        targets = Targets(BATCH[1])

        def images(self) -> torch.Tensor:
            return BATCH[0]

    class Window:
        num_samples, targets, micro_batches = 4, Batch.targets, (Batch(),)

    for epoch, forgotten in ((1, 0), (2, 1), (3, 1)):
        trainer.train_epoch([Window()], epoch)  # type: ignore[list-item]
        assert runner.forgotten == forgotten
    assert runner.met == ["micro-step of the head alone", "update of the head alone", *["micro-step", "update"] * 2]


def test_a_network_that_its_author_froze_in_part_stays_so(tmp_path: Path) -> None:
    text = NETWORK.replace("return nn", "network = nn") + "    network[0].requires_grad_(False)\n    return network\n"
    (tmp_path / "partly.py").write_text(text, encoding="utf-8")
    trainer = trainer_of(f"{tmp_path / 'partly.py'}:build", unfreeze_epochs=1)
    train_epoch(trainer, 1)
    train_epoch(trainer, 2)
    assert [parameter.requires_grad for parameter in trainer.step.model.parameters()] == [False] + [True] * 6


SETTINGS: list[dict[str, Any]] = [
    {"unfreeze_epochs": 2, "schedule": "plateau", "plateau_patience": 0, "ema": 0.9, "layer_decay": 0.7},
    {"unfreeze_epochs": 2, "optimizer": "sgd", "lr": 0.05, "dropout": 0.3, "backbone_lr_factor": 0.3},
    {"unfreeze_epochs": 2, "precision": "bf16", "micro_batch": 16, "accumulation": 2, "agc": 0.05},
]


@pytest.fixture
def data(drawn_leaves: Path, shared_cache: Path) -> DeviceData:
    return DeviceData(open_data(DataConfig(dir=str(drawn_leaves)), {32}, shared_cache), CPU)


@pytest.mark.parametrize("settings", SETTINGS, ids=["plateau-ema", "onecycle-sgd", "bf16-agc"])
def test_a_run_resumed_before_at_and_after_unfreezing_equals_an_uninterrupted_one(
    settings: dict[str, Any], drawn_leaves: Path, data: DeviceData, tmp_path: Path
) -> None:
    run = config(drawn_leaves, **settings)
    run_trial(run, data, tmp_path / "whole", report=lambda report: None)
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    for stop in (1, 2, 3):
        folder = tmp_path / f"stopped_after_{stop}"
        epochs = trial_epochs(run, data, folder, checkpoint_every_s=1000)
        for _ in range(stop):
            next(epochs)
        epochs.close()
        run_trial(run, data, folder, report=lambda report: None, resume=True)
        assert exact(folder) == exact(tmp_path / "whole")
        resumed = load_file(folder / "model.safetensors")
        assert all(torch.equal(resumed[name], whole[name]) for name in whole)


OWN_OPTIMIZERS = """
import torch

def nadam(groups, lr, momentum):
    return torch.optim.NAdam(groups, lr=lr, foreach=False)

def flattening(groups, lr, momentum):
    return torch.optim.NAdam([parameter for group in groups for parameter in group["params"]], lr=lr, foreach=False)

def one_rate(groups, lr, momentum):
    return torch.optim.NAdam([{**group, "lr": lr} for group in groups], lr=lr, foreach=False)
"""


@pytest.fixture
def optimizers(tmp_path: Path) -> Path:
    path = tmp_path / "optimizers.py"
    path.write_text(OWN_OPTIMIZERS, encoding="utf-8")
    return path


def test_an_own_optimizer_takes_part_in_all_of_it_and_its_state_survives_a_stop(network: str, optimizers: Path) -> None:
    settings = {"optimizer": f"{optimizers}:nadam", "unfreeze_epochs": 1, "layer_decay": 0.5, "backbone_lr_factor": 0.1}
    whole, resumed = trainer_of(network, **settings), trainer_of(network, **settings)
    for epoch in (1, 2, 3):
        train_epoch(whole, epoch)
    for epoch in (1, 2):
        train_epoch(resumed, epoch)
    state = resumed.state()
    resumed = trainer_of(network, **settings)
    resumed.load_state(copy.deepcopy(state))
    train_epoch(resumed, 3)
    for own, expected in zip(resumed.step.model.parameters(), whole.step.model.parameters(), strict=True):
        assert torch.equal(own, expected)


@pytest.mark.parametrize("name", ["flattening", "one_rate"])
def test_an_own_optimizer_that_would_ignore_the_learning_rates_is_refused_before_anything_is_decoded(
    name: str, optimizers: Path
) -> None:
    trial = TrialConfig(model="tiny_cnn", image_size=32, optimizer=f"{optimizers}:{name}")
    check_network(trial)
    for slower in ({"layer_decay": 0.5}, {"backbone_lr_factor": 0.5}):
        with pytest.raises(ConfigError, match=f"{name}' must keep the groups that it is given, and the learning rate"):
            check_network(trial.model_copy(update=slower))


UNCLEAR = """
from torch import nn

class Unclear(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.head, self.unused = nn.Conv2d(3, 4, 1), nn.Linear(4, num_classes), nn.Linear(7, 9)

    def forward(self, images):
        return self.head(self.conv(images).mean(dim=(2, 3)))
"""


def test_what_treats_the_head_apart_asks_which_layer_it_is(tmp_path: Path) -> None:
    """Where the last layer that the network defines does not give as many outputs as there are classes."""
    (tmp_path / "unclear.py").write_text(UNCLEAR, encoding="utf-8")
    trial = TrialConfig(model=f"{tmp_path / 'unclear.py'}:Unclear", image_size=16)
    check_network(trial)
    for setting in ({"unfreeze_epochs": 1}, {"layer_decay": 0.5}, {"backbone_lr_factor": 0.5}):
        with pytest.raises(ConfigError, match=r'unfreeze_epochs, .* ask for: say head = "..."'):
            check_network(trial.model_copy(update=setting))
        check_network(trial.model_copy(update={**setting, "head": "head"}))


def test_the_epochs_of_the_head_alone_keep_their_share_of_a_longer_or_shorter_training() -> None:
    trial = TrialConfig(epochs=20, unfreeze_epochs=4)
    assert [trial.of_length(epochs).unfreeze_epochs for epochs in (100, 10, 3, 2, 1)] == [20, 2, 1, 1, 0]
    assert TrialConfig(epochs=20).of_length(100).unfreeze_epochs == 0


def test_early_stopping_does_not_wait_while_the_backbone_is_frozen() -> None:
    assert [stops_early(2, 5, done, 1) for done in (3, 5, 6, 7)] == [False, False, False, True]
    assert [stops_early(2, 5, done, 6) for done in (6, 7, 8)] == [False, False, True]
    assert [stops_early(2, 0, done, 1) for done in (1, 2, 3)] == [False, False, True]
    assert not stops_early(0, 0, 100, 1)


def test_memory_and_speed_are_measured_on_the_whole_network() -> None:
    trial = TrialConfig(model="tiny_cnn", image_size=32, unfreeze_epochs=3, layer_decay=0.5, precision="fp32")
    step = TrialStep(trial, 3, 4, CPU, 1)
    before = [parameter.detach().clone() for parameter in step._trainer.step.model.parameters()]
    step.window()
    assert not any(torch.equal(a, b) for a, b in zip(before, step._trainer.step.model.parameters(), strict=True))


def test_the_estimate_counts_the_gradients_and_the_optimizers_state_of_the_whole_network() -> None:
    settings = {"model": "tiny_cnn", "image_size": 32, "precision": "fp32"}
    staged = estimate_for(TrialConfig.model_validate({**settings, "unfreeze_epochs": 3, "layer_decay": 0.5}), 4)
    assert staged.gradients_mib == pytest.approx(98_196 * 4 / 2**20)
    assert staged.optimizer_mib == pytest.approx(2 * 98_196 * 4 / 2**20)
    frozen = estimate_for(TrialConfig.model_validate({**settings, "freeze_backbone": True}), 4)
    assert frozen.gradients_mib == pytest.approx((128 * 4 + 4) * 4 / 2**20)


def test_the_first_slow_epoch_of_the_whole_network_has_not_spilled() -> None:
    policy = SpillPolicy(3000, CPU)
    head, whole = EpochMemory(0.001, 2990, 100), EpochMemory(0.004, 2990, 100)
    assert not policy.spilled((32, 224, False), head)
    assert not policy.spilled((32, 224, True), whole)
    assert policy.spilled((32, 224, True), EpochMemory(0.02, 2990, 100))


def scalars(folder: Path, tag: str) -> list[float]:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [event.value for event in accumulator.Scalars(f"training/{tag}")]


def test_tensorboard_shows_the_learning_rates_of_the_backbone(
    drawn_leaves: Path, data: DeviceData, tmp_path: Path
) -> None:
    own = {"epochs": 3, "schedule": "constant", "warmup_epochs": 0.0, "lr": 0.01}
    slower = config(drawn_leaves, **own, unfreeze_epochs=1, backbone_lr_factor=0.5, layer_decay=0.2)
    run_trial(slower, data, tmp_path, report=lambda report: None)
    assert scalars(tmp_path, "lr") == pytest.approx([0.01] * 3)
    assert scalars(tmp_path, "backbone_lr") == pytest.approx([0.0, 0.001, 0.001])
    assert scalars(tmp_path, "first_block_lr") == pytest.approx([0.0, 8e-6, 8e-6])  # tiny_cnn has four blocks
